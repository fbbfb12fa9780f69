"""W&B and MLflow by one key; TensorBoard in any case; progress lines without a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from facts import says
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from serzoo.zoo.core import progress
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run import config, loggers, schema
from serzoo.zoo.run.train import train

OTHERS = ("wandb", "mlflow")


class Fake(CSVLogger):
    """A logger in the place of W&B's or MLflow's; it keeps arguments and hyperparameters."""

    made: ClassVar[list[Fake]] = []

    def __init__(self, *words: Any, **given: Any) -> None:
        super().__init__(given.get("save_dir") or Path(given["tracking_uri"][10:]).parent)
        self.given, self.keys = {"words": words, **given}, {}
        self.made.append(self)

    def log_hyperparams(self, params: Any = None) -> None:
        self.keys |= params or {}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """Both packages, as far as serzoo sees."""
    Fake.made = []
    monkeypatch.setattr(loggers, "WandbLogger", Fake)
    monkeypatch.setattr(loggers, "MLFlowLogger", Fake)
    monkeypatch.setattr(loggers, "find_spec", lambda name: SimpleNamespace(name=name))
    return Fake.made


@pytest.mark.parametrize("name", OTHERS)
def test_a_missing_package_is_told_before_any_data_is_opened(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    cfg = config.load("synthetic", [f"trainer.logger={name}", "data.root=nowhere"])
    with pytest.raises(ConfigError, match=says(f"trainer.logger={name}", f"serzoo[{name}]")):
        train(cfg)


def test_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=says("neptune", "tensorboard", "wandb", "mlflow")):
        config.load("synthetic", ["trainer.logger=neptune"])


def test_the_logger_is_not_part_of_a_run(installed: list[Fake]) -> None:
    plain = config.load("synthetic")
    assert config.load("synthetic", ["trainer.logger=wandb"]).fingerprint == plain.fingerprint


def test_tensorboard_is_always_the_first(
    installed: list[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in schema.LOGGERS:
        cfg = config.load("synthetic", [f"trainer.logger={name}", f"trainer.out={tmp_path}"])
        found = loggers.loggers(cfg, tmp_path / "run")
        assert isinstance(found[0], TensorBoardLogger)
        assert len(found) == (1 if name == "tensorboard" else 2)
    wandb, mlflow = installed
    assert wandb.given["name"] == mlflow.given["run_name"] == "run"
    assert wandb.given["id"] == f"serzoo-{cfg.fingerprint}"
    assert wandb.given["log_model"] is False
    assert mlflow.given["tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert wandb.keys["optim.lr"] == mlflow.keys["optim.lr"] == cfg.optim.lr


def test_a_run_logs_to_both(installed: list[Fake], tiny_recipe: str, tmp_path: Path) -> None:
    words = ["trainer.logger=wandb", "optim.epochs=1", f"trainer.out={tmp_path}"]
    entry = train(config.load(tiny_recipe, words))
    (other,) = installed
    names = set().union(*(row for row in other.experiment.metrics))
    logged = (Path(other.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/uar", "test/uar"} <= names | set(logged)
    assert list(entry.folder.rglob("events.out.tfevents*"))


def test_training_tells_lines_in_a_file(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    for shown in ("true", "false"):
        out = tmp_path / shown
        train(config.load(tiny_recipe, [f"trainer.progress={shown}", f"trainer.out={out}"]))
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("epochs: ")]
        assert [x.split(",")[0] for x in lines] == (
            ["epochs: 1 of 2", "epochs: 2 of 2"] if shown == "true" else []
        )


@pytest.mark.parametrize("name", OTHERS)
def test_the_real_loggers_log_offline(
    name: str, tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = [f"trainer.logger={name}", "optim.epochs=1", f"trainer.out={tmp_path}"]
    entry = train(config.load(tiny_recipe, words))
    assert name in sys.modules
    if name == "wandb":
        assert list(entry.folder.rglob("*.wandb"))
    else:
        from mlflow.tracking import MlflowClient

        (run,) = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
        assert run.info.run_name == entry.folder.name
        assert run.data.metrics["test/uar"] == pytest.approx(entry.metrics["uar"])
