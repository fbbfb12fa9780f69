"""`serzoo show`: the record of a run, told to people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts import says
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.run import config, show
from serzoo.zoo.run.train import run_folder, train


@pytest.fixture(scope="module")
def run(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    out = tmp_path_factory.mktemp("runs")
    cfg = config.load(tiny_recipe, [f"trainer.out={out}", "optim.epochs=1"])
    train(cfg)
    return Path(run_folder(cfg))


def test_a_run_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((run / "record.json").read_text())
    assert main(["show", str(run)]) == 0
    text = capsys.readouterr().out
    facts = dict(line.split("  ", 1) for line in text.split("\n\n")[0].splitlines())
    facts = {key: value.strip() for key, value in facts.items()}
    assert facts["run"] == f"{record['fingerprint']}, ok"
    assert facts["head"] == record["config"]["head_name"]
    assert facts["UAR"].startswith(f"{record['metrics']['uar']:.3f} (")
    assert f"{record['parameters']['total']:,} in all" in facts["weights"]
    for name in record["classes"]:
        assert f"\n{name} " in text
    for name in ("record.json", "predictions.jsonl"):
        assert name in text


def test_a_run_as_json_is_its_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((run / "record.json").read_text())


def test_the_record_itself_names_a_run(run: Path) -> None:
    assert show.read(run / "record.json").folder == run


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says("nowhere", "serzoo train")):
        show.read("nowhere")
    with pytest.raises(ConfigError, match=says("record.json", "serzoo train")):
        show.read(tmp_path)
    (tmp_path / "suite.json").write_text("{}")
    with pytest.raises(ConfigError, match=says("serzoo report", "cells")):
        show.read(tmp_path)


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"version": 1, "classes": 3}')
    with pytest.raises(DataError, match=says("classes", "record.json")):
        show.read(tmp_path)


def test_a_failed_run_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"status": "failed", "version": 1, "reason": "memory", "error": "out of memory"}
    (tmp_path / "record.json").write_text(json.dumps(entry))
    assert main(["show", str(tmp_path)]) == 0
    assert "memory: out of memory" in capsys.readouterr().out
