"""Another toolkit's predictions: what is read, what becomes a row, and every refusal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import write_cell, write_suite
from facts import says, tells
from rich.console import Console
from serzoo.zoo.cli import main
from serzoo.zoo.compare import imported as exchange
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.compare.imported import (
    SMALLEST,
    Columns,
    import_predictions,
    import_settings,
    imported,
    read,
)
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.report import report
from serzoo.zoo.report.runs import read_runs
from serzoo.zoo.run.record import read_record
from serzoo.zoo.statistics.table import PredictionTable

CLASSES = ["angry", "happy", "sad"]
N = 12  # utterances of a fold: two speakers, three classes


def labels_of(fold: int) -> np.ndarray:
    return np.random.default_rng(fold).permutation(np.arange(N) % 3)


def ids_of(fold: int) -> list[str]:
    return [f"c/f{fold}u{i:02}" for i in range(N)]


def reference() -> list[tuple[str, int]]:
    return [(i, y) for f in (0, 1) for i, y in zip(ids_of(f), labels_of(f), strict=True)]


def cell(folder: Path, head: str, fold: int, seed: int, recipe: str = "synthetic") -> str:
    rng = np.random.default_rng([fold, seed, len(head)])
    scores = rng.normal(size=(N, 3)) + np.eye(3)[labels_of(fold)]
    speakers = [f"c/s{2 * fold + i % 2}" for i in range(N)]
    table = PredictionTable(ids_of(fold), speakers, labels_of(fold), scores, CLASSES)
    return write_cell(folder, table, head, fold, seed, recipe)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """``runs/mine``: two heads, two folds, two seeds."""
    folder = tmp_path / "runs" / "mine"
    names = [
        cell(folder, head, fold, seed)
        for head in ("classification", "prototype")
        for fold in (0, 1)
        for seed in (1, 2)
    ]
    write_suite(folder, names)
    return tmp_path / "runs"


def answers(seed: int = 0) -> dict[str, np.ndarray]:
    """Probabilities by id, of both folds."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, label in reference():
        found[i] = rng.dirichlet(np.ones(3) + 2 * np.eye(3)[label])
    return found


def write(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [header, *rows]
        )
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Probabilities of all test utterances, in another order than ours."""
    rows = [[i, *p.tolist()] for i, p in sorted(answers().items(), reverse=True)]
    return write(tmp_path / "theirs.csv", ["id", *CLASSES], rows)


def brought(runs: Path, file: Path, **options: Any) -> exchange.Imported:
    return import_predictions("mine", file, **{"name": "theirs", "out": str(runs), **options})


# Imported rows in a comparison and its report.


def test_a_row_stands_in_the_table_under_the_same_certificate(runs: Path, file: Path) -> None:
    done = brought(runs, file, toolkit="Other 1.0", fit_seconds=7.0)
    assert len(done.cells) == 4  # two folds, for each of two seeds
    assert done.utterances == 2 * N
    rows = {r.head: r for r in report(done.folder, console=Console(file=io.StringIO()))}
    assert set(rows) == {"classification", "prototype", "theirs"}
    theirs = rows["theirs"]
    assert theirs.certificate == rows["prototype"].certificate
    assert (theirs.folds, theirs.seeds, theirs.partial) == (2, 2, 0)
    given = answers()
    right = [given[i].argmax() == y for i, y in reference()]
    assert theirs.uar.mean == pytest.approx(np.mean(right))  # balanced: UAR is accuracy
    assert done.uar == pytest.approx(np.mean(right))
    assert theirs.difference is not None
    assert (theirs.trainable, theirs.inference_ms, theirs.seconds) == (None, None, 7.0)
    text = (done.folder / "table.md").read_text()
    assert "| theirs |" in text


def test_a_row_stands_beside_heads_that_were_searched_for_with_the_same_budget(
    runs: Path, file: Path
) -> None:
    budget = {"trials": 2, "space": {"optim.lr": [0.1]}, "heads": {}, "draw": "random", "seed": 1}
    for path in (runs / "mine" / "cells").glob("*/record.json"):
        record = json.loads(path.read_text())
        write_json(path, {**record, "search": {**budget, "chosen": 0, "tried": []}})
    done = brought(runs, file)
    assert read_record(done.folder / "cells" / done.cells[0]).search == budget
    rows = report(done.folder, console=Console(file=io.StringIO()))
    assert {r.head for r in rows} == {"classification", "prototype", "theirs"}


def test_the_record_says_whose_it_is(runs: Path, file: Path) -> None:
    import hashlib

    done = brought(runs, file, toolkit="Other 1.0", selection="their validation loss")
    record = read_record(done.folder / "cells" / done.cells[0])
    assert record is not None
    assert record.imported == {
        "name": "theirs", "toolkit": "Other 1.0", "file": "theirs.csv", "rows": 2 * N,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "scores": "probabilities",
        "selection": "their validation loss", "same_for_all_seeds": True,
    }  # fmt: skip
    assert record.status == "ok"
    assert record.probabilities is True
    assert record.parameters is None
    assert record.metrics["nll"] > 0
    assert record.metrics["nll_calibrated"] is None
    assert record.config["head_name"] == "theirs"


def test_probabilities_are_kept_as_their_logarithms(runs: Path, file: Path) -> None:
    done = brought(runs, file)
    for run in read_runs(done.folder, done.cells)[0]:
        given = answers()
        assert run.table.ids == ids_of(run.fold)
        assert run.table.labels.tolist() == labels_of(run.fold).tolist()
        expected = np.stack([given[i] for i in run.table.ids])
        np.testing.assert_allclose(run.table.probabilities(), expected, atol=1e-5)


def test_labels_alone_have_no_probabilities(runs: Path, tmp_path: Path) -> None:
    names = {"angry": "A", "happy": "H", "sad": "S"}
    rows = [[i.removeprefix("c/"), names[CLASSES[p.argmax()]]] for i, p in answers().items()]
    path = write(tmp_path / "labels.tsv", ["file", "emotion"], rows)
    columns = Columns(
        id="file", label="emotion", id_prefix="c/", rename={v: k for k, v in names.items()}
    )
    done = brought(runs, path, columns=columns)
    (note,) = done.notes
    assert tells(note, "probabilities", "calibration")
    record = read_record(done.folder / "cells" / done.cells[0])
    assert record is not None
    assert record.imported["scores"] == "labels"
    assert record.probabilities is False
    assert [record.metrics[k] for k in ("nll", "ece", "ece_calibrated", "top2")] == [None] * 4
    given = answers()
    for run in read_runs(done.folder, done.cells)[0]:
        assert set(run.table.scores.ravel()) == {0.0, 1.0}
        assert run.table.predicted.tolist() == [given[i].argmax() for i in run.table.ids]


def test_jsonl_with_scores_takes_no_label_for_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    scores = {"happy": 0.25, "sad": 0.0, "angry": 0.75}
    path.write_text(json.dumps({"id": "u", "label": "sad", "scores": scores}) + "\n\n")
    found = read(path, CLASSES)
    assert found.scale == "probabilities"
    np.testing.assert_allclose(found.scores, [np.log([0.75, 0.25, SMALLEST])])


def test_scores_that_are_no_probabilities(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ["id", "p_angry", "p_happy", "p_sad"], [["u", 3, -1, 0.5]])
    columns = Columns(prefix="p_")
    for scale, probabilities in (("logits", True), ("ranks", False)):
        found = read(path, CLASSES, columns, scale)
        assert (found.scale, found.probabilities) == (scale, probabilities)
        np.testing.assert_allclose(found.scores, [[3, -1, 0.5]])


def test_one_fold_one_seed(runs: Path, tmp_path: Path) -> None:
    rows = [[i, *p.tolist()] for i, p in answers().items() if i in ids_of(1)]
    path = write(tmp_path / "one.csv", ["id", *CLASSES], rows)
    done = brought(runs, path, fold=1, seed=2)
    (name,) = done.cells
    record = read_record(done.folder / "cells" / name)
    assert record is not None
    assert (record.config["fold"], record.config["seed"]) == (1, 2)
    assert record.imported["same_for_all_seeds"] is False


def test_a_file_for_each_fold_is_one_row(runs: Path, tmp_path: Path) -> None:
    for fold in (0, 1):
        rows = [[i, *p.tolist()] for i, p in answers().items() if i in ids_of(fold)]
        done = brought(runs, write(tmp_path / f"{fold}.csv", ["id", *CLASSES], rows), fold=fold)
    (row,) = (
        r for r in report(done.folder, console=Console(file=io.StringIO())) if r.head == "theirs"
    )
    assert (row.folds, row.seeds, row.partial) == (2, 2, 0)
    assert len(imported(done.folder)) == 4


def test_a_column_of_folds(runs: Path, tmp_path: Path) -> None:
    rows = [[i, int(i in ids_of(1)), *p.tolist()] for i, p in answers().items()]
    path = write(tmp_path / "folds.csv", ["id", "fold", *CLASSES], rows)
    assert len(brought(runs, path, columns=Columns(fold="fold")).cells) == 4


def test_the_same_again_changes_nothing_and_another_needs_a_word(
    runs: Path, file: Path, tmp_path: Path
) -> None:
    first = brought(runs, file)
    assert brought(runs, file).cells == first.cells
    assert imported(first.folder) == first.cells
    rows = [[i, *p.tolist()] for i, p in answers(1).items()]
    other = write(tmp_path / "other.csv", ["id", *CLASSES], rows)
    with pytest.raises(ComparisonError, match=says("'theirs'", "theirs.csv", "overwrite=true")):
        brought(runs, other)
    second = brought(runs, other, overwrite=True)
    assert not set(first.cells) & set(second.cells)
    assert imported(first.folder) == second.cells
    assert not any((first.folder / "cells" / name).exists() for name in first.cells)


def test_a_check_writes_nothing(runs: Path, file: Path) -> None:
    before = sorted(p for p in runs.rglob("*"))
    assert len(brought(runs, file, dry_run=True).cells) == 4
    assert sorted(p for p in runs.rglob("*")) == before


def test_answers_that_are_all_right_are_told(runs: Path, tmp_path: Path) -> None:
    rows = [[i, CLASSES[y]] for i, y in reference()]
    done = brought(runs, write(tmp_path / "x.csv", ["id", "label"], rows))
    assert tells(done.notes, "every answer", "label column")


@pytest.fixture
def several(runs: Path) -> Path:
    """The cells of one seed are of loco, and under two conditions in one suite."""
    folder = runs / "mine"
    for path in folder.glob("cells/*-s2/record.json"):
        record = json.loads(path.read_text())
        heard = {"condition": "clean" if "-f0-" in str(path) else "reverb", "corruption": {}}
        write_json(path, {**record, "axes": {"protocol": "loco"}, **heard})
    return runs


def test_answers_stand_where_they_are_for(several: Path, tmp_path: Path) -> None:
    rows = [[i, *p.tolist()] for i, p in answers().items() if i in ids_of(0)]
    path = write(tmp_path / "f0.csv", ["id", *CLASSES], rows)
    where = {"axes.protocol": "loco", "condition": "clean", "config.fold": 0}
    done = brought(several, path, where=where)
    (run,) = read_runs(done.folder, done.cells)[0]
    assert (run.fold, run.seed, run.condition) == (0, 2, "clean, protocol=loco")
    assert run.record.corruption == {}
    with pytest.raises(ComparisonError, match=says("condition telephone", "clean, reverb")):
        brought(several, path, where={"condition": "telephone"})
    with pytest.raises(ComparisonError, match=says("axes.share 0.1")):
        brought(several, path, where={"axes.share": 0.1})


def test_answers_to_one_condition_are_none_to_another(several: Path, file: Path) -> None:
    assert len(brought(several, file).cells) == 2  # of seed 1: the audio as it is
    folder = several / "mine"
    plan = json.loads((folder / "suite.json").read_text())
    cells = [c for c in plan["cells"] if c.endswith("-s2")]
    write_json(folder / "suite.json", {**plan, "cells": cells})
    with pytest.raises(ComparisonError, match=says("clean, reverb", "where.condition=NAME")):
        brought(several, file)


# Ids.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[3:], r"\b3 .*\(c/f0u00, c/f0u01, c/f0u02\)"),
        (lambda rows: [*rows, ["c/zz", 1, 0, 0]], r"\b1 .*\(c/zz\)"),
        (lambda rows: [*rows, rows[0], rows[1]], r"\b2 .*\(c/f0u00, c/f0u01\)"),
        (
            lambda rows: [[f"x{r[0]}", *r[1:]] for r in rows],
            r"\b24 .*\(c/f0u00,.* 19 .*\b24 .*\(xc/f0u00,.* 19 .*id_prefix=",
        ),
    ],
)
def test_ids_that_are_not_those_of_the_test(
    runs: Path, tmp_path: Path, change: Any, message: str
) -> None:
    rows = change([[i, *p.tolist()] for i, p in answers().items()])
    path = write(tmp_path / "bad.csv", ["id", *CLASSES], rows)
    with pytest.raises(DataError, match=message):
        brought(runs, path)
    assert imported(runs / "mine") == []


def test_an_utterance_of_two_folds_needs_its_fold(runs: Path, file: Path, tmp_path: Path) -> None:
    folder = runs / "mine"
    for seed in (1, 2):
        for head in ("classification", "prototype"):
            name = f"synthetic-{head}-f1-s{seed}"
            path = folder / "cells" / name / "predictions.jsonl"
            path.write_text(path.read_text().replace("c/f1u00", "c/f0u00"))
    with pytest.raises(DataError, match=says(1, "c/f0u00", "fold_column=COLUMN", "fold=NUMBER")):
        brought(runs, file)
    rows = [[i, *p.tolist()] for i, p in answers().items() if i in ids_of(0)]
    assert brought(runs, write(tmp_path / "f0.csv", ["id", *CLASSES], rows), fold=0).cells


def test_a_fold_that_is_none(runs: Path, tmp_path: Path) -> None:
    rows = [[i, 7, *p.tolist()] for i, p in answers().items()]
    path = write(tmp_path / "x.csv", ["id", "fold", *CLASSES], rows)
    with pytest.raises(DataError, match=says("x.csv", "folds 7", "0, 1")):
        brought(runs, path, columns=Columns(fold="fold"))
    path = write(tmp_path / "x.csv", ["id", "fold", *CLASSES], [["c/f0u00", "one", 1, 0, 0]])
    with pytest.raises(DataError, match=says("x.csv", "row 1", "'fold'", "'one'")):
        brought(runs, path, columns=Columns(fold="fold"))


# Values.


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", Columns(), r"x\.csv .*\bline\b"),
        ("id,angry,happy,sad\n", Columns(), r"x\.csv .*\bline\b"),
        ("name,label\nu,sad\n", Columns(), r"'id'.* label, name; .*id="),
        ("id,guess\nu,sad\n", Columns(), r"\(angry, happy, sad\).*'label'.* guess, id; .*label="),
        ("id,label\nu,joy\nv,joy\nw,sad\n", Columns(), r"\b2 .*'joy' \(2\).* angry, happy, sad\b"),
        ("id,angry,sad\nu,0.5,0.5\n", Columns(), r"'u' .*happy .*id, angry, sad\b"),
        ("id,angry,happy,sad\nu,nan,0,1\n", Columns(), r"\b1 of 1 .*finite \(u\)"),
        ("id,angry,happy,sad\nu,inf,0,1\n", Columns(), r"\b1 of 1 .*finite \(u\)"),
        ("id,angry,happy,sad\nu,a,0,1\n", Columns(), "'u' .*angry='a'"),
        ("id,angry,happy,sad\nu,,0,1\n", Columns(), "'u' .*angry=''"),
        ("id,angry,happy,sad\nu,2,0,1\n", Columns(), r"\b1 of 1 .*u: 2, 0, 1\)"),
        (
            "id,angry,happy,sad\nu,-1,1,1\n",
            Columns(),
            r"u: -1, 1, 1\).*scores=logits .*scores=ranks",
        ),
        ("id,angry,happy,sad\nu,1\n", Columns(), "line 2: .*cells"),
        ("id,angry,happy,sad\nu,1,0,0,9\n", Columns(), "line 2: .*cells"),
    ],
)
def test_values_that_cannot_be_used(
    tmp_path: Path, text: str, columns: Columns, message: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path, CLASSES, columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "u"', "line 1: .*JSON"),
        ("[1]", r"line 1: .*\[1\]"),
        ('{"id": "u", "scores": {"angry": 1, "happy": 0}}', r"'u' .*sad .*angry, happy\b"),
        (
            '{"id": "u", "scores": {"angry": 1, "happy": 0, "sad": 0, "calm": 0}}',
            "'u' .*calm,.*class.THEIRS=OURS",
        ),
        ('{"id": "u", "scores": [1, 0, 0]}', r"'u' .*\[1, 0, 0\].*\{class: number\}"),
        ('{"id": "u", "scores": {"angry": null, "happy": 0, "sad": 0}}', "'u' .*angry=None"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path, CLASSES)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says("x.pkl", ".csv, .tsv, .jsonl")):
        read(tmp_path / "x.pkl", CLASSES)
    with pytest.raises(DataError, match=says("x.csv")):
        read(tmp_path / "x.csv", CLASSES)
    (tmp_path / "x.csv").write_text("id,label\nu,sad\n")
    with pytest.raises(DataError, match=says("'rank'", "auto, logits, probabilities", "'ranks'")):
        read(tmp_path / "x.csv", CLASSES, scale="rank")


# Comparisons that take no imported row.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "emodb"}, "recipe emodb.* synthetic"),
        ({"encoder": "wavlm"}, "encoder wavlm.* logmel"),
        ({"fold": 5}, "fold 5.* 0, 1"),
        ({"seed": 5}, "seed 5.* 1, 2"),
        ({"name": "prototype"}, "'prototype' .*name"),
    ],
)
def test_places_that_are_not_there(
    runs: Path, file: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ComparisonError, match=message):
        brought(runs, file, **options)


def test_comparisons_that_are_not_there(runs: Path, file: Path) -> None:
    with pytest.raises(ComparisonError, match=says("other", "serzoo compare other")):
        import_predictions("other", file, name="x", out=str(runs))
    with pytest.raises(ConfigError, match=says("'a/b'", ". _ + -")):
        brought(runs, file, name="a/b")
    write_json(runs / "mine" / "suite.json", {"cells": [], "title": "", "baseline": "b"})
    with pytest.raises(ComparisonError, match=says("mine", "serzoo compare mine")):
        brought(runs, file)


def test_several_recipes_need_one(runs: Path, file: Path) -> None:
    plan = json.loads((runs / "mine" / "suite.json").read_text())
    plan["cells"].append(cell(runs / "mine", "classification", 0, 1, "another"))
    write_json(runs / "mine" / "suite.json", plan)
    with pytest.raises(ComparisonError, match=says("another, synthetic", "recipe=NAME")):
        brought(runs, file)
    assert len(brought(runs, file, recipe="synthetic").cells) == 4


def test_cells_that_disagree(runs: Path, file: Path) -> None:
    path = runs / "mine" / "cells" / "synthetic-prototype-f0-s1" / "record.json"
    record = json.loads(path.read_text())
    record["data"]["manifest"] = "another"
    write_json(path, record)
    write_json(
        runs / "mine" / "cells" / "synthetic-classification-f0-s1" / "record.json",
        {"status": "failed"},
    )
    with pytest.raises(ComparisonError, match=says("synthetic-prototype-f0-s1", "where.KEY=VALUE")):
        brought(runs, file)


# The command.


def test_the_command(runs: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "import", "mine", str(file), "name=theirs", "--out", str(runs)]
    assert main([*arguments, "--dry-run"]) == 0
    assert "4 cells " in capsys.readouterr().out
    assert main([*arguments, "toolkit=Other 1.0", "fit_seconds=2.5"]) == 0
    text = capsys.readouterr().out
    assert "theirs.csv: UAR 0." in text
    assert "theirs" in text.split("cells written")[1]  # the table
    assert main([*arguments, "recipe=nothing"]) == 2
    assert "recipe nothing" in capsys.readouterr().err


def test_what_the_command_takes() -> None:
    suite, file, given = import_settings(
        ["s", "f.csv", "name=12", "class.H=happy", "prefix=p_", "fold=1", "overwrite=true"]
    )
    assert (suite, file) == ("s", "f.csv")
    assert given == {
        "name": "12", "fold": 1, "overwrite": True,
        "columns": Columns(prefix="p_", rename={"H": "happy"}),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s", "name=x"], r"serzoo compare import SUITE FILE.* 1 .*\(s\)"),
        (["s", "f", "g", "name=x"], r"serzoo compare import SUITE FILE.* 3 .*\(s, f, g\)"),
        (["s", "f"], "name=NAME"),
        (["s", "f", "name=x", "recip=y"], "'recip'.*'recipe'"),
        (["s", "f", "name=x", "fold=one"], "fold .*'one'.* number"),
        (["s", "f", "name=x", "fold=1.5"], "fold .*'1.5'.* whole number"),
        (["s", "f", "name=x", "seed=true"], "seed .*'True'.* whole number"),
        (["s", "f", "name=x", "overwrite=1"], "overwrite .*'1'.* true, false"),
    ],
)
def test_what_the_command_refuses(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_settings(arguments)


@pytest.mark.slow
def test_a_comparison_that_is_called_again_keeps_its_rows(tiny_recipe: str, tmp_path: Path) -> None:
    axes = {"recipe": [tiny_recipe], "head": ["classification"], "fold": [0], "seed": [1]}
    suite = tmp_path / "one.yaml"
    suite.write_text(json.dumps({"title": "One", "axes": axes, "overrides": ["optim.epochs=1"]}))
    arguments: dict[str, Any] = {"out": str(tmp_path / "runs"), "workers": 1}
    arguments["console"] = Console(file=io.StringIO())
    done = compare(str(suite), **arguments)
    ((run,), _) = read_runs(done["folder"])
    rows = [[i, run.table.classes[0]] for i in run.table.ids]
    path = write(tmp_path / "x.csv", ["id", "label"], rows)
    import_predictions("one", path, name="constant", out=str(tmp_path / "runs"))
    again = compare(str(suite), **arguments)
    assert {row.head for row in again["summary"]} == {"classification", "constant"}
    (constant,) = [row for row in again["summary"] if row.head == "constant"]
    assert constant.uar.mean == pytest.approx(1 / 3)
