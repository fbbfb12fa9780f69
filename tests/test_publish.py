"""Published records: what is copied into the repository, and the tables computed from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import publish
import pytest
import report_suite
import text_and_prosody

ROOT = Path(__file__).parents[1]


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where records are copied to."""
    monkeypatch.setattr(publish, "RECORDS", tmp_path / "records")
    return tmp_path / "records"


def test_records_are_copied_without_paths_and_tabulated(records: Path, tmp_path: Path) -> None:
    folder = report_suite.write_suite(tmp_path / "s")
    cell = folder / "cells" / "one-0-0"
    record = json.loads((cell / "record.json").read_text())
    record["config"]["data"]["root"] = str(tmp_path)
    (cell / "record.json").write_text(json.dumps(record))
    for fold in (0, 1):
        rows = (
            f'{{"id": "one/f{fold}u{i}", "gender": "{("female", "male")[i % 2]}"}}\n'
            for i in range(24)
        )
        (folder / "cells" / f"one-0-{fold}" / "utterances.jsonl").write_text("".join(rows))
    (folder / "cells" / "two-1-1" / "record.json").unlink()
    target = publish.copy(folder)
    assert not [p for p in target.rglob("*.json") if str(tmp_path) in p.read_text()]
    assert len((target / "utterances.jsonl").read_text().splitlines()) == 48
    text = publish.section(target)
    assert text.startswith("## A <suite> & more\n\n**one, encoder logmel: 48 test utterances of 4 ")
    assert "**two, encoder logmel: 24 test utterances of 2 speakers, 1 fold, 1 seed; " in text
    assert "**UAR by gender: one, logmel**" in text
    assert re.search("by gender: 24 of 24 .*attributes", text)  # of the other corpus
    assert "**Calibration: one, logmel**" in text
    assert "1 of 8 cells are missing: two-1-1" in text
    header = next(line for line in text.splitlines() if line.startswith("| head |"))
    assert header.count("|") == 12


def test_the_committed_tables_are_those_of_the_committed_records() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    folder = ROOT / "benchmarks" / "records" / "real"
    assert publish.section(folder).rstrip() in text


def test_the_committed_open_labels_are_tabulated_without_their_bootstrap() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    rows = json.loads((ROOT / "benchmarks" / "records" / "open_labels.json").read_text())["rows"]
    assert f"{publish.OPEN}\n\n{publish.open_labels(rows)}" in text
    assert "| selm | emodb | nemo | 0.248 | 0.372 | 0.000 | 0.500 | 0.372 | 0.167;" in text
    new = {**rows[0], "all": {"value": 0.248, "uar_interval": [0.2, 0.3]}}
    assert "| selm | emodb | nemo | 0.248 (0.200 to 0.300) | 0.372 |" in publish.open_labels([new])


def test_what_words_and_frames_tell_is_tabulated() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    audits, probes = publish._read_all("audits"), publish._read_all("probes")
    assert text_and_prosody.audits(audits.values()) in text
    assert text_and_prosody.probes(probes) in text
    # the two sentences of RAVDESS tell nothing of its eight emotions
    assert "| ravdess (label) | 2 in 1440 | its words | 0.125 (0.125 to 0.125) |" in text
    assert text_and_prosody.probes(probes).count("\n") == 2 + len(probes) * 5 * 2


def test_an_ingredient_is_worth_what_the_table_says() -> None:
    grids = publish.grids(publish.find_cells(ROOT / "benchmarks" / "records" / "real").runs)[0]
    rows = publish.rows_of(grids, "classification")
    wanted = {
        (f"{r['recipe']}, {r['encoder']}", r["head"]): r["difference"]["value"]
        for r in rows
        if r["difference"]
    }
    paired = publish.ingredients(grids)
    found = {
        (r["table"], r["first"]): r["difference"] for r in paired if r["second"] == "classification"
    }
    assert len(found) == 4  # two heads on two corpora
    assert found == pytest.approx({key: wanted[key] for key in found})
    assert sum(r["second"] == "regress_codes" for r in paired) == 2
    assert publish.table(paired).count("| gen_ser | regress_codes |") == 2
