"""What a report says of probabilities: pooled calibration, and the votes of raters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import report_suite
from serzoo.zoo.report.calibration import scaled_runs
from serzoo.zoo.report.packed import pack, validation_reader
from serzoo.zoo.report.runs import find_cells, pooled
from serzoo.zoo.statistics.confidence import fit_folds
from serzoo.zoo.statistics.soft import cross_entropy
from serzoo.zoo.statistics.table import PredictionTable


def validation(fold: int, head: str) -> PredictionTable:
    """Of two speakers whom the next of three folds tests, with many more angry ones."""
    labels = np.repeat([0, 1, 2], [16, 4, 4])
    rng = np.random.default_rng([fold, len(head)])
    scores = 3 * np.eye(3)[labels] + 2 * rng.normal(size=(24, 3))
    who = [f"one/s{2 * ((fold + 1) % 3) + i % 2}" for i in range(24)]
    names = [f"one/v{fold}u{i}" for i in range(24)]
    return PredictionTable(names, who, labels, scores, report_suite.CLASSES)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = report_suite.write_suite(tmp_path / "s", ("one",), (0, 1, 2))
    for name in json.loads((folder / "suite.json").read_text())["cells"]:
        _, k, fold = name.split("-")
        table = validation(int(fold), report_suite.HEADS[int(k)])
        table.write_jsonl(folder / "cells" / name / "valid.jsonl")
    return folder


def test_a_head_is_calibrated_on_the_validation_of_all_folds(suite: Path) -> None:
    runs = [r for r in find_cells(suite).runs if r.head == "classification"]
    scaled, about, valid = scaled_runs(runs, validation_reader(suite))
    tables = {r.fold: validation(r.fold, r.head) for r in runs}
    want = fit_folds(tables, {r.fold: r.table for r in runs})
    for run, plain, (temperature, largest, n) in zip(scaled, runs, about, strict=True):
        assert run.table == want[run.fold].scaled(plain.table)
        assert temperature == want[run.fold].temperature
        assert largest == np.abs(want[run.fold].bias).max()
        assert n == 48  # of 72: two of six speakers are tested in this fold
    assert len(valid) == 3
    assert pooled(scaled).nll() != pooled(runs).nll()


def test_a_page_shows_the_prior_and_both_calibrations(suite: Path, tmp_path: Path) -> None:
    section = report_suite.made(suite)[0]["calibration"]
    assert "Calibration: one, logmel" in section
    assert "Calibrated on the validation parts of all folds: one, logmel" in section
    assert "the class shares of the validation speech" in section
    assert "angry 0.67, happy 0.17, sad 0.17" in section
    assert "A temperature does not move the prior" in section
    packed = report_suite.made(pack(suite, tmp_path / "packed" / "s"))[0]["calibration"]
    assert packed == section


def test_a_row_that_was_imported_has_a_note_and_no_message(suite: Path) -> None:
    for path in (suite / "cells").glob("one-1-*/record.json"):
        record = json.loads(path.read_text())
        record["metrics"].pop("temperature")
        imported = {"name": "other", "toolkit": "t", "file": "f"}
        path.write_text(json.dumps({**record, "imported": imported}))
        (path.parent / "valid.jsonl").unlink()
    section = report_suite.made(suite)[0]["calibration"]
    assert "Imported or averaged, so shown without a temperature: " in section
    assert "holds no temperature" not in section
    assert "no validation" not in section


def test_cells_without_validation_are_told(suite: Path) -> None:
    for path in suite.glob("cells/*-0-*/valid.jsonl"):
        path.unlink()
    section = report_suite.made(suite)[0]["calibration"]
    assert "classification: its cells keep no validation predictions" in section
    assert "angry 0.67" in section  # of the other head
    for path in suite.glob("cells/*/valid.jsonl"):
        path.unlink()
    section = report_suite.made(suite)[0]["calibration"]
    assert "all folds: one, logmel: cannot be made" in section


def test_votes_are_a_section_where_there_are_any(suite: Path) -> None:
    assert "votes" not in report_suite.made(suite)[0]
    whole = []
    for run in find_cells(suite).runs:
        votes = 2.0 * np.eye(3)[run.table.labels] + np.eye(3)[0]
        votes[:4] = 0
        path = suite / "cells" / run.name / "predictions.jsonl"
        table = PredictionTable(
            run.table.ids, run.table.speakers, run.table.labels, run.table.scores,
            run.table.classes, None, votes,
        )  # fmt: skip
        table.write_jsonl(path)
        if run.head == "classification":
            whole.append((table.scores[4:] / 1.5, votes[4:]))
    section = report_suite.made(suite)[0]["votes"]
    scores, given = (np.concatenate(part) for part in zip(*whole, strict=True))
    assert "Against the votes of raters: one, logmel" in section
    assert "60" in section  # three folds of 24, less four each
    assert f"{cross_entropy(scores, given):.3f}" in section
