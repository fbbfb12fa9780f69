"""A report on cells that start from pre-trainings: curves, rows and differences of all starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_suite
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.runs import PREDICTIONS
from serzoo.zoo.run.record import RECORD
from serzoo.zoo.statistics.table import PredictionTable

SURE = {"none": 0.2, "weak": 2.0, "shuffled": 0.3}
ARMS = {"weak": {"about": "labels of words"}, "shuffled": {"about": "the same, dealt out anew"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shares of the labels under three starts, two folds of four speakers each."""
    made = report_suite.write_suite(tmp_path / "suite", ("one",), (0,))
    cells = []
    for share in (0.1, 1.0):
        for arm, sure in SURE.items():
            for fold in (0, 1):
                cells.append(f"{arm}-{share}-{fold}")
                entry = report_suite.record(
                    "one", "classification", fold, axes={"share": share}, pretraining=arm
                )
                at = made / "cells" / cells[-1]
                write_json(at / RECORD, entry)
                report_suite.predictions(
                    "one", "classification", fold, speakers=4, sure=sure + share
                ).write_jsonl(at / PREDICTIONS)
    plan = json.loads((made / "suite.json").read_text())
    pretraining = {"arms": ARMS, "label": {"corpus": "talk"}}
    write_json(made / "suite.json", {**plan, "cells": cells, "pretraining": pretraining})
    return made


def test_starts_are_curves_rows_and_pairs(folder: Path) -> None:
    sections, _ = report_suite.made(folder)
    assert "UAR by share of the training utterances: one, logmel" in sections["learning"]
    for row in ("classification after weak", "classification after shuffled"):
        assert row in sections["learning"]
        assert row in sections["differences"]
    assert "after weak: begun with an encoder trained on labels of words." in sections["compared"]
    table = (folder / "table.md").read_text()
    assert "after shuffled: begun with an encoder trained on the same, dealt out anew." in table

    def uar(arm: str, share: float) -> float:
        cells = [folder / "cells" / f"{arm}-{share}-{fold}" / PREDICTIONS for fold in (0, 1)]
        first, second = map(PredictionTable.read_jsonl, cells)
        right = [
            [(t.predicted == t.labels)[t.labels == c] for t in (first, second)] for c in range(3)
        ]
        return float(sum(sum(map(sum, of)) / sum(map(len, of)) for of in right) / 3)

    told = sections["started"]
    for share in (0.1, 1.0):
        for one, other in (("weak", "none"), ("shuffled", "none"), ("weak", "shuffled")):
            value = f"{uar(one, share) - uar(other, share):+.3f}"
            row = f"{share:g}classification{one}{other}{value}"
            assert row in told
    assert told.count("share of the training utterances") == 1  # above the column
    assert told.count("0.1classification") == 3


def test_without_starts_the_page_leaves_the_section_out_and_says_why(tmp_path: Path) -> None:
    sections, _ = report_suite.made(report_suite.write_suite(tmp_path / "s", ("one",), (0,)))
    assert "started" not in sections
    assert "all cells started from new weights" in sections["made-with"]
