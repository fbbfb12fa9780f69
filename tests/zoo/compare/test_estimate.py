"""What a dry run says that cells will take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from facts import tells
from rich.console import Console
from serzoo.zoo.compare import estimate, suite
from serzoo.zoo.compare.estimate import Estimate
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run import config
from serzoo.zoo.run.schema import RunConfig


@pytest.fixture
def cells(tiny_recipe: str, tmp_path: Path) -> list[suite.Cell]:
    """Two heads on two seeds."""
    axes = {"recipe": [tiny_recipe], "head": ["prototype", "linear"], "fold": [0], "seed": [1, 2]}
    path = tmp_path / "some.yaml"
    path.write_text(json.dumps({"title": "S", "axes": axes, "baseline": "linear"}))
    return suite.expand(suite.load(str(path)), out=str(tmp_path))


def done(cell: suite.Cell, folder: Path, seconds: float, megabytes: float) -> None:
    entry = {"status": "ok", "seconds": {"total": seconds}, "peak_memory_mb": megabytes}
    write_json(folder / "cells" / cell.name / "record.json", entry)


def test_finished_cells_of_a_kind_speak_for_the_others(
    cells: list[suite.Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Estimate(7.0, 500.0, "measured", 4.0)
    monkeypatch.setattr(estimate, "of_step", lambda *_: measured)
    done(cells[0], tmp_path, 10.0, 300.0)
    found = estimate.estimates(cells, tmp_path, 1)
    known = Estimate(10.0, 300.0, "finished")
    assert [found[c.name] for c in cells] == [known, measured, known, measured]
    # three are left: 10 s, and twice 7 s with 4 s of encoding once
    assert tells(estimate.total(cells, tmp_path, found, 1), "28 s", "1 worker")
    assert estimate.total(cells, tmp_path, found, 2).startswith("about 14 s")
    done(cells[2], tmp_path, 20.0, 200.0)
    again = estimate.estimates(cells, tmp_path, 1)
    assert again[cells[2].name] == Estimate(15.0, 300.0, "finished")
    for cell in cells:
        done(cell, tmp_path, 1.0, 1.0)
    assert tells(estimate.total(cells, tmp_path, found, 1), "nothing")


def test_a_second_fit_is_counted_and_a_trial_replaces_the_first(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"recipe": [tiny_recipe], "head": ["prototype"], "fold": [0], "seed": [1, 2]}
    path = tmp_path / "some.yaml"
    search = {"trials": 2, "space": {"optim.lr": [1e-3, 1e-2]}}
    raw = {"title": "S", "axes": axes, "overrides": ["optim.refit=true"], "search": search}
    path.write_text(json.dumps(raw))
    cells = suite.expand(suite.load(str(path)), out=str(tmp_path))
    monkeypatch.setattr(estimate, "of_step", lambda *_: Estimate(7.0, 500.0, "measured"))
    found = estimate.estimates(cells, tmp_path, 1)
    assert [found[c.name].seconds for c in cells] == [7, 14]
    # two trials of one training each come before
    assert estimate.work(cells, tmp_path, found).seconds == 7 + 14 + 2 * 7
    done(cells[0], tmp_path, 10.0, 300.0)  # its record counts the trial, too
    found = estimate.estimates(cells, tmp_path, 1)
    assert [found[c.name].seconds for c in cells] == [5, 10]


def test_what_cannot_be_measured_is_told(
    cells: list[suite.Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(estimate, "Trial", fails)
    found = estimate.estimates(cells, tmp_path, 1)
    assert set(found.values()) == {Estimate()}
    assert tells(estimate.total(cells, tmp_path, found, 1), "4 of 4 runs", "measured")
    console = Console(width=160, record=True)
    estimate.show(console, cells, tmp_path, 1)
    text = console.export_text()
    assert text.count("not measured") == 5
    assert all(c.name in text for c in cells)


def test_measuring_ends_when_it_takes_too_long(
    cells: list[suite.Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "PATIENCE", 0.0)
    assert set(estimate.estimates(cells, tmp_path, 1).values()) == {Estimate()}


def test_folds_with_more_speech_take_longer(
    cells: list[suite.Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "of_step", lambda *_: Estimate(8.0, 500.0, "measured"))
    seconds = {0: [2.0, 2.0], 1: [1.0, 2.0, 3.0]}

    def opened(cfg: RunConfig) -> Any:
        return SimpleNamespace(datasets={"train": SimpleNamespace(seconds=seconds[cfg.fold])})

    monkeypatch.setattr(estimate, "open_data", opened)
    other = replace(cells[0], name="other", fold=1, cfg=replace(cells[0].cfg, fold=1))
    found = estimate.estimates([cells[0], other], tmp_path, 1)
    assert found[cells[0].name].seconds == 8
    assert found["other"] == Estimate(12.0, 500.0, "measured")


def test_a_step_is_measured(tiny_recipe: str) -> None:
    one = estimate.of_step(config.load(tiny_recipe, ["optim.epochs=1"]), 1, libraries=100.0)
    many = estimate.of_step(config.load(tiny_recipe, ["optim.epochs=1000"]), 1, libraries=100.0)
    assert one.source == many.source == "measured"
    assert one.seconds is not None
    assert many.seconds is not None
    assert many.seconds > 20 * one.seconds > 0
    assert one.megabytes is not None
    assert one.megabytes > 100
