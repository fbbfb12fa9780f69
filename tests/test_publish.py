"""Published records: what is copied into the repository, and the tables computed from it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"serzoo_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = module(ROOT / "benchmarks" / "publish.py")
    monkeypatch.setattr(found, "RECORDS", tmp_path / "records")
    return found


def test_records_are_copied_without_paths_and_tabulated(
    publish: ModuleType, tmp_path: Path
) -> None:
    suite = module(ROOT / "tests" / "zoo" / "report_suite.py")
    folder = suite.write_suite(tmp_path / "s")
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
    assert "by gender: 24 of 24 utterances have no attributes" in text  # of the other corpus
    assert "**Calibration: one, logmel**" in text
    assert "1 of 8 cells are missing: two-1-1" in text
    header = next(line for line in text.splitlines() if line.startswith("| head |"))
    assert header.count("|") == 12


def test_the_committed_tables_are_those_of_the_committed_records(publish: ModuleType) -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    folder = ROOT / "benchmarks" / "records" / "real"
    assert publish.section(folder).rstrip() in text


def test_what_words_and_frames_tell_is_tabulated(
    publish: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "RECORDS", ROOT / "benchmarks" / "records")
    text = (ROOT / "benchmarks" / "README.md").read_text()
    audits, probes = publish._read_all("audits"), publish._read_all("probes")
    tables = sys.modules["text_and_prosody"]
    assert tables.audits(audits.values()) in text
    assert tables.probes(probes) in text
    # the two sentences of RAVDESS tell nothing of its eight emotions
    assert "| ravdess (label) | 2 in 1440 | its words | 0.125 (0.125 to 0.125) |" in text
    assert tables.probes(probes).count("\n") == 2 + len(probes) * 5 * 2


def test_an_ingredient_is_worth_what_the_table_says(publish: ModuleType) -> None:
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
