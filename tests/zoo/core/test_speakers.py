"""Unknown speakers in lists, tables, records and on the terminal; one whole run over them."""

from __future__ import annotations

import json
import shutil
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import report_suite
from facts import says, tells
from serzoo.zoo.cli import main
from serzoo.zoo.compare.imported import Foreign, split
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.core.speakers import cannot_tell, counted_speakers, is_known, shared
from serzoo.zoo.report.runs import PREDICTIONS, Run, by_pair
from serzoo.zoo.run import adapt as adaptation
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.config import load
from serzoo.zoo.run.record import RECORD, Record, evaluated_lines, read_record, trained_lines
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import run_folder, train
from serzoo.zoo.run.trained import refuse_heard
from serzoo.zoo.statistics.breakdown import sub_groups, variance_split
from serzoo.zoo.statistics.speakers import measure
from serzoo.zoo.statistics.table import PredictionTable, merge


@pytest.mark.parametrize(
    ("speaker", "known"), [("", 0), ("a/", 0), ("a/b", 1), ("b", 1), ("a/b/", 1), ("a/b/c", 1)]
)
def test_who_has_a_name(speaker: str, known: int) -> None:
    assert is_known(speaker) == bool(known)


@pytest.mark.parametrize(
    ("a", "b", "certain", "unsure"),
    [
        (["a/1", "a/2"], ["a/2", "a/3"], ["a/2"], []),
        (["a/", "a/1"], ["a/", "a/1"], ["a/1"], ["a"]),
        (["a/"], ["a/"], [], ["a"]),  # neither one person for certain, nor two
        (["a/"], ["a/1"], [], ["a"]),
        (["a/1"], ["a/"], [], ["a"]),
        (["a/"], ["b/"], [], []),  # people of two corpora are others
        (["a/", "b/1"], ["b/1", "b/2"], ["b/1"], []),
        ([], ["a/"], [], []),
    ],
)
def test_who_is_shared_and_of_whom_nobody_can_tell(a, b, certain, unsure) -> None:
    assert shared(a, b) == certain
    assert cannot_tell(a, b) == unsure


def test_speakers_are_counted_in_words() -> None:
    assert counted_speakers(["a/1"]) == "1 speaker"
    assert counted_speakers(["a/1", "a/2"]) == "2 speakers"
    assert counted_speakers(["a/1", "a/2", "a/"]) == "2 speakers and unknown ones"
    assert counted_speakers(["a/", "b/"]) == "unknown speakers"


@pytest.mark.parametrize("heard", [["a/"], ["a/x"]])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_model_that_may_have_heard_them_is_refused_until_that_is_accepted(heard, part) -> None:
    tested = {part: ["a/"]}
    with pytest.raises(DataError, match=says("a", "data.unknown_speakers=accept")):
        refuse_heard("it", {"train": heard}, tested)
    refuse_heard("it", {"train": heard}, tested, "accept")
    refuse_heard("it", {"train": ["b/"]}, tested)


def test_who_was_heard_for_certain_is_refused_in_any_case() -> None:
    heard = {"train": ["a/"], "valid": ["a/v"]}
    with pytest.raises(DataError, match=says("1 speakers", "a/v", "test")):
        refuse_heard("it", heard, {"test": ["a/v"]}, "accept")


# Tables.


def lost(n: int = 24, fold: int = 0, **how) -> PredictionTable:
    """24 predictions, the first ``n`` of unknown speakers."""
    table = report_suite.predictions("one", "classification", fold, **how)
    table.speakers[:n] = [""] * n
    return table


def test_a_file_of_predictions_keeps_null(tmp_path: Path) -> None:
    table = lost(5)
    path = table.write_jsonl(tmp_path / "p.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["speaker"] for r in rows[4:6]] == [None, table.speakers[5]]
    assert PredictionTable.read_jsonl(path) == table
    assert merge([table, PredictionTable.read_jsonl(path)]).speakers.count("") == 5


@pytest.mark.parametrize(("n", "why"), [(24, "no speaker"), (12, "12 of 24")])
def test_a_table_of_unknown_speakers_has_numbers_but_no_interval(n: int, why: str) -> None:
    table = lost(n)
    found = measure(table)
    assert found["metrics"]["uar"] == table.uar()
    assert found["metrics"]["uar_interval"] is None
    assert why in found["metrics"]["uar_interval_by"]
    assert set(found["by_speaker"]) == set(table.speakers) - {""}
    split = variance_split({(f, s): lost(n, f, seed=s) for f in (0, 1) for s in (1, 2)})
    assert split.folds == split.folds
    assert isnan(split.speakers)
    assert "not every speaker is known" in split.note


def test_a_few_unknown_speakers_count_in_the_value_and_not_in_the_interval() -> None:
    found = measure(lost(3))["metrics"]
    low, high = found["uar_interval"]
    assert low < found["uar"] < high
    assert tells(found["uar_interval_by"], "3 of 24", "known")


def test_corpora_are_told_apart_by_the_ids_of_unknown_speakers() -> None:
    one = report_suite.predictions("one", "classification", 0)
    two = report_suite.predictions("two", "classification", 0)
    two.speakers[:7] = [""] * 7
    found = merge([one, two]).by_corpus()
    assert {name: len(t) for name, t in found.items()} == {"one": 24, "two": 24}
    # plain names stand for no corpus, nor do unknown ones beside them
    plain = lost(7)
    plain.speakers[7:] = ["x"] * 17
    assert list(plain.by_corpus()) == [""]


def test_groups_of_unknown_speakers_have_no_interval() -> None:
    table = lost(12)
    groups = sub_groups(table, {}, "speaker")
    assert [g.name for g in groups.groups] == sorted(set(table.speakers) - {""})
    assert groups.unstated == 12
    sex = {i: {"sex": "f" if k < 16 else "m"} for k, i in enumerate(table.ids)}
    first, second = sub_groups(table, sex, "sex").groups
    assert tells(first.note, "12 of 16", "no known speaker")
    assert isnan(first.score.low)
    assert first.score.n_speakers == 2
    assert second.score.low == second.score.low


def test_pairs_of_corpora_are_found_without_names() -> None:
    entry = report_suite.record("one", "classification", 0)
    entry["speakers"] = {"train": ["two/"], "valid": ["two/"], "test": ["one/"]}
    (run,) = by_pair([Run("a", Record.from_json(entry), lost())])
    assert run.pair == "two to one"


def test_imported_predictions_have_the_speakers_of_the_comparison() -> None:
    """What a file says of speakers is not read: the cells beside it know, or do not."""
    reference = lost(12)
    given = Foreign(list(reference.ids), None, reference.scores, "ranks")
    table = split(Path("p.csv"), given, {0: reference}, None)[0]
    assert table.speakers == reference.speakers
    assert measure(table)["metrics"]["uar_interval"] is None


# A report.

UNSURE = "whether train and test share speakers: the speaker of 24 of 24 utterances is not known"


def test_a_report_says_it_beside_every_number(tmp_path: Path) -> None:
    folder = report_suite.write_suite(tmp_path / "s")
    for cell in (folder / "cells").iterdir():
        unsure = cell.name.startswith("one")
        entry = read_record(cell)
        audit = {"ok": True} | ({"unsure": [UNSURE]} if unsure else {})
        write_json(cell / RECORD, {**entry.to_json(), "audit": audit})
        if unsure:
            table = PredictionTable.read_jsonl(cell / PREDICTIONS)
            table.speakers = [""] * len(table)
            table.write_jsonl(cell / PREDICTIONS)
    sections, page = report_suite.made(folder)
    lines = (folder / "table.md").read_text().splitlines()
    first, second = (line for line in lines if line.startswith(("**one", "**two")))
    for fact in ("48 without a speaker", "no interval and no test", "share speakers"):
        assert fact in first
        assert fact in page
        assert fact in (folder / "table.tex").read_text()
        assert fact not in second
    of_one, of_two = (line for line in lines if line.startswith("| classification |"))
    assert of_one.split("|")[3].strip() == "–"
    assert " to " in of_two.split("|")[3]
    assert any("no speaker is known: no interval and no test" in line for line in lines)
    assert "In 4 of 8 audited cells no speaker" in sections["compared"]
    assert f"4 cells it is unknown {UNSURE}" in sections["compared"]


# A whole run.


@pytest.fixture(scope="module")
def nameless(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same speech in a table without a column of speakers."""
    root = tmp_path_factory.mktemp("nameless") / "speech"
    shutil.copytree(tiny_speech, root)
    rows = [line.split(",") for line in (root / "table.csv").read_text().splitlines()]
    text = "\n".join(",".join([*row[:2], *row[3:]]) for row in rows)
    (root / "table.csv").write_text(text + "\n")
    return root


@pytest.fixture(scope="module")
def accepted(tiny_recipe: str, nameless: Path) -> list[str]:
    return [f"data.root={nameless}", "optim.epochs=1", "data.unknown_speakers=accept"]


@pytest.fixture(scope="module")
def run(tiny_recipe: str, accepted: list[str]) -> Path:
    cfg = load(tiny_recipe, accepted)
    train(cfg)
    return run_folder(cfg)


def test_training_is_refused_until_it_is_accepted(tiny_recipe, nameless, capsys) -> None:
    assert main(["train", tiny_recipe, f"data.root={nameless}"]) == 2
    told = capsys.readouterr().err
    for fact in ("30 of 30 utterances have no speaker", "options.speaker", "unknown_speakers"):
        assert fact in told
    with pytest.raises(ConfigError, match="refuse, accept"):
        load(tiny_recipe, ["data.unknown_speakers=maybe"])


def test_a_run_says_it_beside_its_numbers(run: Path, tiny_recipe, accepted, tmp_path) -> None:
    entry = read_record(run)
    assert entry is not None
    assert entry.metrics["uar_interval"] is None
    assert entry.by_speaker == {}
    assert entry.speakers["test"] == ["csv/"]
    assert entry.counts["without_speaker"] == {"train": 18, "valid": 6, "test": 6}
    (unsure,) = entry.audit["unsure"]
    assert "30 of 30 utterances is not known (unknown_speakers=accept)" in unsure
    rows = (run / PREDICTIONS).read_text().splitlines()
    assert all(json.loads(row)["speaker"] is None for row in rows)
    lines = trained_lines(load(tiny_recipe, accepted), entry, run)
    assert "(no speaker is known: no interval)" in lines[0]
    assert any(unsure in line for line in lines)
    card = (save_pretrained(run, tmp_path / "saved") / "README.md").read_text()
    assert "no speaker is known: no interval" in card
    assert unsure in card


def test_an_evaluation_says_it_beside_its_numbers(run: Path) -> None:
    for part in ("test", "all"):
        table, record = evaluate(run, part=part)
        assert record.speakers_heard == []
        assert record.speakers_unsure == ["csv"]
        told = "\n".join(evaluated_lines(table, record))
        assert "(no speaker is known: no interval)" in told
        assert "not every speaker of csv is known (unknown_speakers=accept)" in told
    with pytest.raises(DataError, match=says("30 of 30", "speaker")):
        evaluate(run, unknown_speakers="refuse")


def test_an_adaptation_is_refused_until_it_is_accepted(
    tiny_recipe, nameless, run, tmp_path
) -> None:
    named = load(tiny_recipe, ["optim.epochs=1", "corpus=csv"])
    train(named)
    how = {"data": "csv", "root": str(nameless), "protocol": "kfold-5", "out": tmp_path / "a"}
    how |= {"shots": 1, "steps": 1, "tuning": "head", "forgetting": False, "save": False}
    with pytest.raises(DataError, match=says("30 of 30", "speaker")):
        adapt(run_folder(named), **how)
    entry = adapt(run_folder(named), **how, unknown_speakers="accept")
    assert entry.config["data"]["unknown_speakers"] == "accept"
    told = "\n".join(adaptation.adapted_lines(entry))
    for fact in ("of unknown speakers", "no speaker is known: no interval", "share speakers"):
        assert fact in told


def test_the_doctor_warns(tiny_recipe: str, accepted: list[str], capsys) -> None:
    main(["doctor", tiny_recipe, *accepted, "--json"])
    found = [
        f for f in json.loads(capsys.readouterr().out)["findings"] if "share speakers" in str(f)
    ]
    assert [f["level"] for f in found] == ["warning"]
    assert "in 5 of 5 folds" in found[0]["message"]


def test_ordinary_probabilities_are_untouched() -> None:
    """Unlabelled utterances of unknown speakers forbid nothing."""
    table = lost(3)
    table.labels[:3] = -1
    assert measure(table)["metrics"]["uar_interval"] is not None
    assert np.isfinite(table.scores).all()
