"""What bad input leaves of a report: a clear message, and everything that it does not touch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_suite
from facts import says, tells
from serzoo.zoo.core.errors import ComparisonError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report import detail, overview
from serzoo.zoo.report.page import Figure
from serzoo.zoo.report.runs import PREDICTIONS
from serzoo.zoo.run.record import RECORD, UTTERANCES
from serzoo.zoo.statistics.table import PredictionTable

WHOLE = "two, encoder logmel: 48 test utterances of 4 speakers, 2 folds"


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Path]:
    return partial(report_suite.write_suite, tmp_path / "s")


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn in test_report_page.py; here they would only take time."""
    for module in (detail, overview):
        monkeypatch.setattr(module, "draw", lambda _, alt, data, name: Figure("", alt, data, name))


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    entry = json.loads(path.read_text())
    edit(entry)
    write_json(path, entry)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda r: r["data"].update(manifest="other"), "the manifest differs (m in one-0-0, other"),
        (lambda r: r["data"].update(split="other"), "the split differs"),
        (lambda r: r["data"].update(taxonomy="other"), "the taxonomy differs (t in one-0-0, other"),
        (lambda r: r["selection"].update(rule="last"), "selected by different rules"),
    ],
)
def test_mixed_certificates_lose_their_own_table_only(
    suite: Callable[..., Path],
    edit: Callable[[dict[str, Any]], None],
    what: str,
) -> None:
    folder = suite()
    change(folder / "cells" / "one-1-1" / RECORD, edit)
    sections, _ = report_suite.made(folder)
    assert "No table for one, logmel: refusing to compare: " in sections["compared"]
    assert what in sections["compared"]
    assert "(certificates " in sections["compared"]
    for text in (sections["results"], (folder / "table.md").read_text()):
        assert WHOLE in text
        assert "one, encoder logmel: 48" not in text
    assert what in (folder / "table.md").read_text()
    assert what in json.loads((folder / "summary.json").read_text())["refused"]["one, logmel"]


def test_heads_tested_on_other_utterances_are_refused(suite: Callable[..., Path]) -> None:
    folder = suite()
    path = folder / "cells" / "one-1-0" / PREDICTIONS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    sections, _ = report_suite.made(folder)
    assert tells(sections["compared"], "1 utterances", "one/f0u0#1")
    assert WHOLE in sections["results"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def cut_at_a_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    change(path.with_name(RECORD), lambda r: r.update(metrics={"n": 24, "n_unlabelled": 0}))


def not_a_number(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["scores"]["angry"] = float("nan")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("harm", "file", "why"),
    [
        (truncated, PREDICTIONS, "line 24: not a prediction"),
        (cut_at_a_line, PREDICTIONS, "holds 19 utterances and its record counts 24"),
        (not_a_number, PREDICTIONS, "of 1 of 24 utterances are not finite in float32 (one/f0u3)"),
        (lambda p: p.write_text(""), PREDICTIONS, "holds no predictions"),
        (lambda p: p.unlink(), PREDICTIONS, "cannot read predictions"),
        (truncated, RECORD, "is damaged"),
        (lambda p: p.write_text("[1]"), RECORD, "is damaged"),
        (lambda p: change(p, lambda r: r.pop("data")), RECORD, "lacks data (manifest, split, tax"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_read_is_named_and_the_others_are_kept(
    suite: Callable[..., Path],
    harm: Callable[[Path], None],
    file: str,
    why: str,
) -> None:
    folder = suite()
    harm(folder / "cells" / "one-1-0" / file)
    sections, _ = report_suite.made(folder)
    assert "1 of 8 cells is in no table" in sections["missing"]
    assert "cannot be read" in sections["missing"]
    assert why in sections["missing"]
    text = (folder / "table.md").read_text()
    assert "of 8 cells, 1 cannot be read." in text
    assert f"- one-1-0: {folder / 'cells' / 'one-1-0' / file}" in text or why in text
    assert WHOLE in text
    # of the first corpus, the fold that both heads have is left
    assert "one, encoder logmel: 24 test utterances of 2 speakers, 1 fold," in text


def test_missing_and_failed_cells_are_listed(suite: Callable[..., Path]) -> None:
    folder = suite()
    (folder / "cells" / "one-0-0" / RECORD).unlink()
    write_json(folder / "cells" / "one-0-1" / RECORD, {"status": "failed", "error": "E: <boom>"})
    sections, _ = report_suite.made(folder)
    assert "No table for one, logmel: no fold and seed is finished" not in sections["compared"]
    assert "2 of 8 cells are in no table" in sections["missing"]
    assert "E: <boom>" in sections["missing"]
    assert "has not run" in sections["missing"]
    # one head is left of the first corpus: it has numbers, and no difference
    assert "UAR minus classification's: two" in sections["differences"]
    assert "UAR minus classification's: one" not in sections["differences"]


def test_a_class_absent_in_a_fold_is_told(suite: Callable[..., Path]) -> None:
    folder = suite()
    for k in (0, 1):
        path = folder / "cells" / f"one-{k}-0" / PREDICTIONS
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if '"label": "sad"' not in line))
    sections, _ = report_suite.made(folder)
    assert "one, logmel, fold 0 tests no sad" in sections["missing"]
    assert tells(sections["variance"], "fold 0", "sad")
    assert "WA, mean of runs" in sections["variance"]
    assert "UAR, mean of runs" in sections["variance"]  # of the other corpus


def test_one_speaker_has_values_and_no_interval(suite: Callable[..., Path]) -> None:
    folder = suite(("one",), (0,), speakers=1)
    sections, _ = report_suite.made(folder)
    row = json.loads((folder / "summary.json").read_text())["rows"][1]
    assert row["interval"] == [None, None]
    assert row["difference"]["these"]["p_family"] is None
    assert row["difference"]["detectable"] is None
    assert row["difference"]["verdict"] == "undecided"
    assert tells(row["difference"]["note"], "one speaker", "no interval", "no test")
    assert "one speaker per fold" in sections["variance"]
    text = (folder / "table.md").read_text()
    value, ratio = row["difference"]["value"], row["difference"]["relative"]
    assert f"| {row['uar']['mean']:.3f} | – | {value:+.3f} | {ratio:+.1%} | undecided |" in text
    assert f"| {value:+.3f} | {ratio:+.1%} | – | – | – | – | – | undecided | one speaker" in text
    assert "NaN" not in (folder / "summary.json").read_text()


def test_heads_without_any_spread(suite: Callable[..., Path]) -> None:
    folder = suite(sure=9.0)
    sections, _ = report_suite.made(folder)
    row = json.loads((folder / "summary.json").read_text())["rows"][1]["difference"]
    assert (row["value"], row["verdict"], row["these"]["p_family"]) == (0, "identical", 1)
    assert row["note"] in sections["differences"]
    assert "All heads tie in every block: no test." in sections["ranks"]
    assert "nan" not in re_words(sections["results"] + sections["ranks"] + sections["variance"])
    assert "Most confident errors of classification" in sections["errors"]


def re_words(text: str) -> set[str]:
    return set(text.replace(",", " ").split())


def test_unlabelled_predictions_are_refused(suite: Callable[..., Path]) -> None:
    folder = suite()
    for k in (0, 1):
        for fold in (0, 1):
            path = folder / "cells" / f"one-{k}-{fold}" / PREDICTIONS
            t = PredictionTable.read_jsonl(path)
            t.labels = np.full(len(t), -1)
            t.write_jsonl(path)
    sections, _ = report_suite.made(folder)
    assert tells(sections["compared"], "one, logmel", "none of 48")
    assert WHOLE in sections["results"]


def test_a_damaged_list_of_attributes(suite: Callable[..., Path]) -> None:
    folder = suite()
    (folder / UTTERANCES).write_text('{"id": "one/f0u0", "gender": "female"}\n{"id"')
    sections, _ = report_suite.made(folder)
    assert "line 2: not an utterance" in sections["groups"]
    assert "UAR by speaker: one" in sections["groups"]
    (folder / UTTERANCES).write_text('{"id": "one/f0u0", "gender": "female"}\n')
    sections, _ = report_suite.made(folder)
    assert re.search("one, logmel, by gender: 47 of 48 .*attributes", sections["groups"])


def test_a_record_without_temperature(suite: Callable[..., Path]) -> None:
    folder = suite()
    change(folder / "cells" / "one-0-0" / RECORD, lambda r: r.pop("metrics"))
    sections, _ = report_suite.made(folder)
    assert "the record of one-0-0 holds no temperature" in sections["calibration"]
    assert "Calibration: one, logmel" in sections["calibration"]


def test_a_section_that_fails_leaves_the_others(
    suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("serzoo.zoo.report.detail.average_ranks", fail)
    sections, _ = report_suite.made(suite())
    assert "cannot be made (ValueError: odd)" in sections["ranks"]
    assert WHOLE in sections["results"]


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": []}'])
def test_a_damaged_plan(suite: Callable[..., Path], text: str) -> None:
    folder = suite()
    (folder / "suite.json").write_text(text)
    with pytest.raises(ComparisonError, match=says("suite.json", "damaged", "serzoo compare")):
        report_suite.made(folder)


def test_predictions_without_probabilities_are_left_out_of_calibration(
    suite: Callable[..., Path],
) -> None:
    folder = suite()
    for fold in (0, 1):
        said = {"probabilities": False, "imported": {"name": "svm", "toolkit": "other"}}
        change(folder / "cells" / f"one-1-{fold}" / RECORD, lambda r: r.update(said))  # noqa: B023
    sections, _ = report_suite.made(folder)
    assert "a_b<i>: left out, its predictions hold no probabilities" in sections["calibration"]
    assert "a_b<i> gives no probabilities" in sections["errors"]
    assert "what its user says: name: svm; toolkit: other" in sections["compared"]


def test_many_tables_are_not_all_drawn(suite: Callable[..., Path]) -> None:
    sections, text = report_suite.made(suite([f"r{i}" for i in range(13)], (0,)))
    said = "Of more than 12 tables, the first 12 are drawn."
    for name in ("differences", "calibration", "cost"):
        assert sections[name].count(said) == 1
    assert "Cost: r12, logmel" in sections["cost"]
    # the answer; differences, two of calibration, cost; all confusions; the ranks
    assert text.count("<figure>") == 1 + 12 + 2 * 12 + 12 + 26 + 1
    assert "1 further table: see the paired differences." in sections["answer"]
