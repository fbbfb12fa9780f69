"""Where a run's curves go: TensorBoard, and W&B or MLflow too if ``trainer.logger`` names one."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ..core.errors import ConfigError
from .record import flatten
from .schema import RunConfig

PROJECT = "serzoo"
"""Name of the project in W&B, and of the experiment in MLflow."""


def refuse_missing(cfg: RunConfig) -> None:
    """Check that the package of ``trainer.logger`` is installed, before any data is opened.

    Raises:
        ConfigError: if it is not. It says how to install it.
    """
    name = cfg.trainer.logger
    if name != "tensorboard" and find_spec(name) is None:
        raise ConfigError(
            f"trainer.logger={name} needs the package {name}, which is not installed; install it "
            f"with pip install 'serzoo[{name}]', or leave trainer.logger out (TensorBoard)"
        )


def loggers(cfg: RunConfig, out: Path) -> list[Logger]:
    """Return the loggers of a run; TensorBoard's is the first one, whatever is chosen.

    The other one is called like the run's folder. A run that goes on logs to the same W&B run.
    W&B's and MLflow's own settings decide where it goes: ``WANDB_MODE``, ``MLFLOW_TRACKING_URI``.

    Args:
        cfg: the run.
        out: its folder.
    """
    found: list[Logger] = [
        TensorBoardLogger(str(out), name="", version="", default_hp_metric=False)
    ]
    if cfg.trainer.logger == "wandb":
        found.append(
            WandbLogger(
                name=out.name,
                save_dir=str(out),
                project=PROJECT,
                id=f"{PROJECT}-{cfg.fingerprint}",
                resume="allow",
                log_model=False,
            )
        )
    elif cfg.trainer.logger == "mlflow":
        # not Lightning's default, a folder of files, which MLflow refuses since its version 3
        runs = Path(cfg.trainer.out).absolute()
        runs.mkdir(parents=True, exist_ok=True)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        found.append(
            MLFlowLogger(
                PROJECT,
                run_name=out.name,
                tracking_uri=server or f"sqlite:///{runs / 'mlflow.db'}",
                artifact_location=None if server else (runs / "mlruns").as_uri(),
            )
        )
    for other in found[1:]:
        other.log_hyperparams(flatten(cfg.identity))
    return found
