"""The scripts of ``benchmarks``: their help, and their arguments."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import open_labels
import pytest
import timing
from facts import says

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(p.name for p in FOLDER.glob("*.py") if "__main__" in p.read_text("utf-8"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains_a_script_and_measures_nothing(name, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"usage: {name}")
    assert not list(tmp_path.iterdir())


def test_the_numbers_of_a_measurement_are_shown_and_written(monkeypatch, tmp_path) -> None:
    shown: list[dict[str, float]] = []
    for argv in (["x.py"], ["x.py", str(tmp_path / "out.json")]):
        monkeypatch.setattr(sys, "argv", argv)
        timing.script("Speed.", lambda: {"ratio": 2.5}, shown.append)
    assert shown == [{"ratio": 2.5}] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == {"ratio": 2.5}


@pytest.mark.slow
def test_gpu_hours_of_the_large_comparison(monkeypatch, capsys) -> None:
    def run(*argv: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["cost.py", *argv])
        runpy.run_path(str(FOLDER / "cost.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    slow, fast = run("--seconds=20", "--speed=10"), run("--seconds=2", "--speed=100")
    hours = [[float(line.split(": ")[1]) for line in lines] for lines in (slow, fast)]
    # 27,000 cells; 120 hours of speech for each of 10 encoders
    assert (hours[0][0], hours[0][2]) == (27_000 * 20 / 3600, 1200 / 10)
    assert hours[1] == pytest.approx([value / 10 for value in hours[0]], abs=0.51)
    with pytest.raises(SystemExit):
        run("--seconds=20")
    assert "--speed" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_the_work(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", str(tmp_path)])
    with pytest.raises(IsADirectoryError):
        timing.script("Speed.", lambda: pytest.fail("measured"), print)


def test_a_folder_without_runs_of_open_labels_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["open_labels.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=says(tmp_path, "no finished run", "selm")):
        open_labels.main()
