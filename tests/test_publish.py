"""Published results: what is packed into the repository, and the tables computed from it."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import publish
import pytest
import report_suite
import text_and_prosody
from serzoo.zoo.report.packed import open_packed

ROOT = Path(__file__).parents[1]


RESULTS = ROOT / "benchmarks" / "results"
PRETRAINED = {
    "head_to_head_whisper", "cross_corpus_whisper", "few_shot_whisper",
    "head_to_head", "normalised", "corrupted_training", "robustness_copies", "robustness",
    "emogator", "emogator_whisper", "normalised_frames", "standardise",
    "cross_corpus", "gen_ser_parts", "gender", "tuning_whisper",
    "layers_whisper", "few_shot_whisper_nemo", "robustness_whisper", "lanser_speech",
}  # fmt: skip
"""Suites on encoders that were trained before."""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where suites are packed into."""
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(publish, "TABLES", tmp_path / "tables")
    return tmp_path / "results"


def test_a_suite_is_packed_without_paths_and_tabulated(results: Path, tmp_path: Path) -> None:
    folder = report_suite.write_suite(tmp_path / "s")
    cell = folder / "cells" / "one-0-0"
    record = json.loads((cell / "record.json").read_text())
    record["config"]["data"]["root"] = str(tmp_path)
    record["source"] = {"folder": str(tmp_path / "start")}
    record["notes"] = {"from": f"{tmp_path}/start, see https://example.org/a/b and a/b"}
    (cell / "record.json").write_text(json.dumps(record))
    plan = json.loads((folder / "suite.json").read_text())
    (folder / "suite.json").write_text(
        json.dumps({**plan, "pretraining": {"arms": {}, "label": {"root": str(tmp_path)}}})
    )
    for fold in (0, 1):
        rows = (
            f'{{"id": "one/f{fold}u{i}", "gender": "{("female", "male")[i % 2]}"}}\n'
            for i in range(24)
        )
        (folder / "cells" / f"one-0-{fold}" / "utterances.jsonl").write_text("".join(rows))
    (folder / "cells" / "two-1-1" / "record.json").unlink()
    assert publish.main(["pack", str(folder)]) == 0
    assert publish.verify() == ["s"]
    assert publish.main(["unpack", "s", str(tmp_path / "back")]) == 0
    assert not [p for p in (tmp_path / "back").rglob("*.json") if str(tmp_path) in p.read_text()]
    kept = json.loads((tmp_path / "back" / "cells" / "one-0-0" / "record.json").read_text())
    assert kept["source"] == {"folder": "start"}
    assert kept["notes"] == {"from": "start, see https://example.org/a/b and a/b"}
    assert len((tmp_path / "back" / "utterances.jsonl").read_text().splitlines()) == 48
    # the same tables from the cells as from the packed form
    text = publish.section(results / "s", tmp_path)
    (tmp_path / "back").rename(tmp_path / "unpacked")
    assert publish.section(tmp_path / "unpacked", tmp_path) == text
    assert text.startswith("## A <suite> & more\n\n**one, encoder logmel: 48 test utterances of 4 ")
    assert "**two, encoder logmel: 24 test utterances of 2 speakers, 1 fold, 1 seed; " in text
    assert "**UAR by gender: one, logmel**" in text
    assert re.search("by gender: 24 of 24 .*attributes", text)  # of the other corpus
    assert "**Calibration: one, logmel**" in text
    assert "1 of 8 cells are missing: two-1-1" in text
    header = next(line for line in text.splitlines() if line.startswith("| head |"))
    assert header.count("|") == 13


def test_all_tables_are_written_whole(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.add(report_suite.write_suite(tmp_path / "s"))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "gone.md").write_text("of a suite that is no more")
    assert publish.main([]) == 0
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {"README.md", "s.md"}
    assert "[A <suite> & more](s.md)" in (tmp_path / "tables" / "README.md").read_text()
    (results / "s" / "predictions.npz").write_bytes(b"")
    capsys.readouterr()
    assert publish.main(["verify"]) == 1
    assert "predictions.npz is damaged" in capsys.readouterr().err
    assert publish.main(["verify", "tiger"]) == 1
    assert "have s" in capsys.readouterr().err


def test_the_committed_results_are_whole() -> None:
    found = [open_packed(folder) for folder in publish.suites()]  # against their checksums
    assert sum(len(suite.cells) for suite in found if suite) == 13342
    assert publish.verify(["real_scratch"]) == ["real_scratch"]  # and every prediction


def test_the_committed_results_are_few_and_small() -> None:
    files = [p for p in RESULTS.rglob("*") if p.suffix in {".json", ".xz", ".npz"} | {""}]
    files = [p for p in files if p.is_file()]
    # suites on pretrained encoders, and studies of methods, have bounds of their own
    real = [p for p in files if p.parent.name in PRETRAINED]
    studies = [p for p in files if p.stem in {"coverage", "scale", "selection", "streaming"}]
    first = [p for p in files if p not in real + studies]
    assert len(first) <= 60
    assert sum(p.stat().st_size for p in first) < 20_000_000
    assert len(real) == 4 * len(PRETRAINED)
    assert sum(p.stat().st_size for p in real) < 50_000_000
    assert sum(p.stat().st_size for p in studies) < 300_000


def test_no_committed_record_or_plan_names_a_folder_of_a_machine() -> None:
    packed = sorted(RESULTS.glob("*/records.jsonl.xz"))
    assert len(packed) == 32
    for path in packed:
        for text in (lzma.decompress(path.read_bytes()), (path.parent / "suite.json").read_bytes()):
            assert publish.FOLDERS.search(text.decode()) is None, path


def test_the_committed_open_labels_are_tabulated_without_their_bootstrap() -> None:
    rows = json.loads((RESULTS / "open_labels.json").read_text())["rows"]
    text = publish.open_labels(rows).markdown()
    assert "| selm | emodb | nemo | 0.248 | 0.372 | 0.000 | 0.500 | 0.372 | 0.167;" in text
    new = {**rows[0], "all": {"value": 0.248, "uar_interval": [0.2, 0.3]}}
    text = publish.open_labels([new]).markdown()
    assert "| selm | emodb | nemo | 0.248 (0.200 to 0.300) | 0.372 |" in text


def test_what_words_and_frames_tell_is_tabulated() -> None:
    audits, probes = publish._read_all("audits"), publish._read_all("probes")
    text = text_and_prosody.audits(audits.values()).markdown()
    # the two sentences of RAVDESS tell nothing of its eight emotions
    assert "| ravdess (label) | 2 in 1440 | its words | 0.125 (0.125 to 0.125) |" in text
    assert len(text_and_prosody.probes(probes).rows) == len(probes) * 5 * 2


def test_every_question_has_a_page_with_its_answer() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 150
    flat = " ".join(text.split())
    links = re.findall(r"\[More\]\(\.\./docs/results/([\w-]+\.md)\)", text)
    pages = {p.name: p.read_text("utf-8") for p in (ROOT / "docs" / "results").glob("*.md")}
    assert sorted(links) == sorted(pages)
    assert len(links) == len(set(links)) == 14
    for name, page in pages.items():
        lines = page.splitlines()
        question, answer = lines[0].removeprefix("# "), lines[2].strip("*")
        assert question.endswith("?"), name
        assert f"## {question} {answer} " in flat, name
        for part in ("\n|---|", "\n## How it was done\n", "\n## What it does not show\n"):
            assert part in page, (name, part)
        for link in re.findall(r"\]\(([\w-]+\.md)\)", page):
            assert link in pages, (name, link)


def test_numbers_of_a_page_are_those_of_the_results() -> None:
    page = (ROOT / "docs" / "results" / "classical-anchor.md").read_text("utf-8")
    runs = publish.find_cells(RESULTS / "real_scratch").runs
    rows = publish.rows_of(publish.grids(runs)[0], publish.Asked("classification"))
    shown = {(r.recipe, r.head): f"{r.uar.mean:.3f}" for r in rows}
    for name, head in (("eGeMAPS", "svm_eGeMAPSv02"), ("ComParE 2016", "svm_ComParE_2016")):
        assert f"| SVM on {name} | {shown['ravdess', head]} | {shown['emodb', head]} |" in page
    best = [
        max((v, h) for (r, h), v in shown.items() if r == recipe and not h.startswith("svm"))
        for recipe in ("ravdess", "emodb")
    ]
    assert "log-mel encoder | " + " | ".join(f"{v} ({h})" for v, h in best) + " |" in page


def test_an_ingredient_is_worth_what_the_table_says() -> None:
    grids = publish.grids(publish.find_cells(RESULTS / "real_scratch").runs)[0]
    asked = publish.Asked("classification")
    rows = publish.rows_of(grids, asked)
    wanted = {
        (f"{r.recipe}, {r.encoder}", r.head): r.difference.value for r in rows if r.difference
    }
    paired = publish.ingredients(grids, asked)
    found = {
        (r.grid.name, r.first): r.difference.value for r in paired if r.second == "classification"
    }
    assert len(found) == 4  # two heads on two corpora
    assert found == pytest.approx({key: wanted[key] for key in found})
    assert sum(r.second == "regress_codes" for r in paired) == 2
    shown = [row[:2] for table in publish.of_ingredients(paired) for row in table.rows]
    assert shown.count(["gen_ser", "regress_codes"]) == 2
