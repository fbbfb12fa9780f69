"""Cells whose speakers were normalised have tables of their own, which say so."""

from __future__ import annotations

import json
from pathlib import Path

import report_suite
from facts import tells
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.runs import PREDICTIONS
from serzoo.zoo.run.record import RECORD


def test_normalised_cells_have_tables_of_their_own(tmp_path: Path) -> None:
    folder = report_suite.write_suite(tmp_path / "suite", ("one",))
    plain = (report_suite.made(folder), (folder / "table.md").read_text())[1]
    assert "normalised" not in plain
    cells = []
    for number, head in enumerate(report_suite.HEADS):
        for fold in (0, 1):
            cells.append(f"normalised-{number}-{fold}")
            at = folder / "cells" / cells[-1]
            entry = report_suite.record("one", head, fold)
            entry["config"]["data"]["normalise"] = "enrol:4"
            write_json(at / RECORD, entry)
            report_suite.predictions("one", head, fold).write_jsonl(at / PREDICTIONS)
    plan = json.loads((folder / "suite.json").read_text())
    write_json(folder / "suite.json", {**plan, "cells": [*plan["cells"], *cells]})
    sections, _ = report_suite.made(folder)
    table = (folder / "table.md").read_text()
    captions = [line for line in table.splitlines() if "one, encoder logmel" in line]
    assert [("speakers normalised (enrol:4)" in line) for line in captions] == [False, True]
    assert tells(table, "depends on the speaker's other utterances", "transductive")
    assert any("speakers normalised (enrol:4)" in text for text in sections.values())
