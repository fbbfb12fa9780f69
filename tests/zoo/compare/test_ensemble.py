"""Rows that answer together: their numbers by hand, their place in the tables, every refusal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import write_cell, write_suite
from facts import says, tells
from rich.console import Console
from scipy.optimize import minimize
from scipy.special import softmax
from serzoo.zoo.cli import main
from serzoo.zoo.compare.ensemble import Ensemble, ensemble, mixture
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataError
from serzoo.zoo.core.files import read_json, write_json
from serzoo.zoo.report.report import report
from serzoo.zoo.run.record import read_record
from serzoo.zoo.statistics.table import PredictionTable

CLASSES = ["angry", "happy", "sad"]
N = 12  # utterances of a fold: two speakers, three classes
TEMPERATURE = {"classification": 2.0, "prototype": 0.5}


def table_of(part: str, head: str, fold: int, seed: int) -> PredictionTable:
    labels = np.random.default_rng(fold).permutation(np.arange(N) % 3)
    rng = np.random.default_rng([fold, seed, len(head), len(part)])
    scores = rng.normal(size=(N, 3)) + np.eye(3)[labels]
    ids = [f"c/{part}{fold}u{i:02}" for i in range(N)]
    speakers = [f"c/{part}s{2 * fold + i % 2}" for i in range(N)]
    return PredictionTable(ids, speakers, labels, scores, CLASSES)


def cell(folder: Path, head: str, fold: int, seed: int) -> str:
    table = table_of("test", head, fold, seed)
    name = write_cell(folder, table, head, fold, seed, temperature=TEMPERATURE[head])
    table_of("valid", head, fold, seed).write_jsonl(folder / "cells" / name / "valid.jsonl")
    return name


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """``runs/mine``: two heads, two folds, two seeds."""
    folder = tmp_path / "runs" / "mine"
    names = [cell(folder, head, f, s) for head in TEMPERATURE for f in (0, 1) for s in (1, 2)]
    write_suite(folder, names)
    return tmp_path / "runs"


def together(runs: Path, *members: str, **options: Any) -> Ensemble:
    return ensemble("mine", members=members, **{"out": str(runs), **options})


def written(done: Ensemble) -> dict[tuple[int, int], PredictionTable]:
    found = {}
    for name in done.cells:
        cfg = read_record(done.folder / "cells" / name).config
        path = done.folder / "cells" / name / "predictions.jsonl"
        found[cfg["fold"], cfg["seed"]] = PredictionTable.read_jsonl(path)
    return found


def calibrated(head: str, fold: int, seed: int, part: str = "test") -> np.ndarray:
    return softmax(table_of(part, head, fold, seed).scores / TEMPERATURE[head], axis=1)


def test_the_seeds_of_a_head_answer_with_their_mean_probability(runs: Path) -> None:
    tables = written(together(runs, "classification", name="seeds"))
    assert sorted(tables) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for (fold, _), table in tables.items():
        p = (calibrated("classification", fold, 1) + calibrated("classification", fold, 2)) / 2
        assert table.ids == table_of("test", "classification", fold, 1).ids
        np.testing.assert_allclose(np.exp(table.scores), p, rtol=1e-5)


def test_heads_answer_together_seed_by_seed(runs: Path) -> None:
    done = together(runs, "classification", "prototype", seeds="apart")
    for (fold, seed), table in written(done).items():
        p = (calibrated("classification", fold, seed) + calibrated("prototype", fold, seed)) / 2
        np.testing.assert_allclose(np.exp(table.scores), p, rtol=1e-5)


def test_weights_are_those_of_the_validation_part_of_the_same_fold(runs: Path) -> None:
    heads = list(TEMPERATURE)
    done = together(runs, *heads, weights="validation")
    for fold in (0, 1):
        labels = table_of("valid", heads[0], fold, 1).labels
        mean = [
            (calibrated(h, fold, 1, "valid") + calibrated(h, fold, 2, "valid")) / 2 for h in heads
        ]
        right = np.stack([m[np.arange(N), labels] for m in mean], axis=1)
        at = minimize(
            lambda w, p=right: -np.log(p @ [w[0], 1 - w[0]]).mean(), [0.5], bounds=[(0, 1)]
        )
        found = next(w for place, w in done.weights.items() if f"fold {fold}" in place)
        assert found[heads[0]] == pytest.approx(at.x[0], abs=1e-3)
        assert sum(found.values()) == pytest.approx(1)
    (w,) = {tuple(x.values()) for p, x in done.weights.items() if "fold 0" in p}
    whole = [(calibrated(h, 0, 1) + calibrated(h, 0, 2)) / 2 for h in heads]
    expected = w[0] * whole[0] + w[1] * whole[1]
    np.testing.assert_allclose(np.exp(written(done)[0, 1].scores), expected, rtol=1e-5)


def test_a_useless_model_gets_no_weight() -> None:
    good, bad = np.full(20, 0.8), np.full(20, 0.1)
    assert mixture(np.stack([good, bad], 1)) == pytest.approx([1, 0], abs=1e-6)
    assert mixture(np.stack([good, good], 1)) == pytest.approx([0.5, 0.5])


def test_a_row_stands_in_the_table_under_the_same_certificate(runs: Path) -> None:
    done = together(runs, "classification", "prototype", name="both")
    console = Console(file=io.StringIO(), width=200)
    rows = {r.head: r for r in report(done.folder, console=console)}
    # nothing was run for it: its costs are those of its members, which are counted already
    assert (
        "8 cells took 24 s of their processes: encoding 0, fitting 16," in console.file.getvalue()
    )
    assert set(rows) == {"classification", "prototype", "both"}
    assert rows["both"].certificate == rows["prototype"].certificate
    assert rows["both"].seconds == 8.0  # two seeds of two heads
    assert rows["both"].inference_ms == pytest.approx(8.0)
    (uar,) = done.uar.values()
    assert rows["both"].uar.mean == pytest.approx(uar)
    page = (done.folder / "report.html").read_text("utf-8")
    assert "both is an ensemble" in page
    assert "both is a row of another toolkit" not in page


def test_an_ensemble_can_be_a_member_and_counts_once(runs: Path) -> None:
    together(runs, "classification", name="seeds")
    done = together(runs, "seeds", "prototype", name="wide")
    p = (calibrated("classification", 0, 1) + calibrated("classification", 0, 2)) / 2
    q = (calibrated("prototype", 0, 1) + calibrated("prototype", 0, 2)) / 2
    np.testing.assert_allclose(np.exp(written(done)[0, 1].scores), (p + q) / 2, rtol=1e-5)
    record = read_record(done.folder / "cells" / done.cells[0])
    assert record.imported["members"] == ["seeds", "prototype"]
    assert (record.processor_seconds, record.flops) == ({}, {})  # no member says
    assert record.seconds["fit"] == 8.0


def test_costs_are_summed_where_every_member_has_them(runs: Path) -> None:
    for path in (runs / "mine" / "cells").glob("*/record.json"):
        record = read_json(path, remedy="")
        cost = {"training": 6e9} | ({"scoring": 2e6} if "prototype" in path.parent.name else {})
        write_json(path, record | {"processor_seconds": {"fit": 3.0, "total": 4.0}, "flops": cost})
    done = together(runs, "classification", "prototype", name="both")
    record = read_record(done.folder / "cells" / done.cells[0])
    assert record.processor_seconds == {"fit": 12.0}  # two seeds of two heads
    assert record.flops == {"training": 24e9}


def test_a_check_writes_nothing(runs: Path) -> None:
    before = read_json(runs / "mine" / "suite.json", remedy="")
    done = together(runs, "classification", dry_run=True)
    assert len(done.cells) == 4
    assert read_json(runs / "mine" / "suite.json", remedy="") == before
    assert not (runs / "mine" / "cells" / done.cells[0]).exists()


def test_the_same_again_changes_nothing_and_another_needs_a_word(runs: Path) -> None:
    first = together(runs, "classification", name="x")
    plan = read_json(runs / "mine" / "suite.json", remedy="")
    assert together(runs, "classification", name="x").cells == first.cells
    assert read_json(runs / "mine" / "suite.json", remedy="") == plan
    with pytest.raises(ComparisonError, match=says("'x'", "overwrite=true")):
        together(runs, "classification", "prototype", name="x")
    second = together(runs, "classification", "prototype", name="x", overwrite=True)
    cells = read_json(runs / "mine" / "suite.json", remedy="")["cells"]
    assert not set(first.cells) & set(cells)
    assert set(second.cells) <= set(cells)


@pytest.mark.parametrize(
    ("options", "error", "facts"),
    [
        ({"members": []}, ConfigError, ("members=",)),
        ({"members": ["classifcatn"]}, ComparisonError, ("classifcatn", "classification")),
        ({"members": ["classification"], "seeds": "apart"}, ConfigError, ("seeds=together",)),
        ({"members": ["classification"], "seeds": "all"}, ConfigError, ("'all'", "together")),
        ({"members": ["classification"], "weights": "test"}, ConfigError, ("'test'", "validation")),
        ({"members": ["classification"], "name": "prototype"}, ComparisonError, ("prototype",)),
        ({"members": ["classification"], "name": "a/b"}, ConfigError, ("a/b",)),
        ({"members": ["classification"], "recipe": "x"}, ComparisonError, ("recipe x",)),
    ],
)
def test_what_cannot_be(
    runs: Path, options: dict[str, Any], error: type[Exception], facts: tuple[str, ...]
) -> None:
    with pytest.raises(error, match=says(*facts)):
        ensemble("mine", **options, out=str(runs))


def test_a_member_that_lacks_a_fold(runs: Path) -> None:
    for seed in (1, 2):
        (runs / "mine" / "cells" / f"synthetic-prototype-f1-s{seed}" / "record.json").unlink()
    with pytest.raises(ComparisonError, match=says("prototype", "fold 1")):
        together(runs, "classification", "prototype")


def test_a_member_that_lacks_a_seed(runs: Path) -> None:
    for fold in (1, 0):  # in one fold, then in all
        (runs / "mine" / "cells" / f"synthetic-prototype-f{fold}-s2" / "record.json").unlink()
        facts = ("fold 1",) if fold else ("seeds=together",)
        with pytest.raises(ComparisonError, match=says("prototype", "seed 2", *facts)):
            together(runs, "classification", "prototype", seeds="apart")
        if fold:
            with pytest.raises(ComparisonError, match=says("prototype", "seed 2", *facts)):
                together(runs, "classification", "prototype")
    done = together(runs, "classification", "prototype")
    assert done.seeds == {"classification": [1, 2], "prototype": [1]}


def test_validation_that_was_not_kept(runs: Path) -> None:
    (runs / "mine" / "cells" / "synthetic-prototype-f1-s2" / "valid.jsonl").unlink()
    with pytest.raises(DataError, match=says("synthetic-prototype-f1-s2", "weights=equal")):
        together(runs, "classification", "prototype", weights="validation")


def test_a_damaged_cell_is_not_left_out_without_a_word(runs: Path) -> None:
    path = runs / "mine" / "cells" / "synthetic-classification-f1-s2" / "predictions.jsonl"
    path.write_text(path.read_text("utf-8")[:100], "utf-8")
    with pytest.raises(ComparisonError, match=says("classification", "seed 2", "fold 1")):
        together(runs, "classification")


def test_two_cells_of_one_seed_are_not_averaged(runs: Path) -> None:
    folder = runs / "mine"
    name = write_cell(folder, table_of("test", "prototype", 0, 1), "prototype", 0, 1, "synthetic")
    (folder / "cells" / name).rename(folder / "cells" / "twin")
    cell(folder, "prototype", 0, 1)
    plan = read_json(folder / "suite.json", remedy="")
    write_suite(folder, [*plan["cells"], "twin"])
    with pytest.raises(ComparisonError, match=says("prototype", "twin", "where.KEY=VALUE")):
        together(runs, "prototype")


@pytest.mark.parametrize(
    ("change", "error", "facts"),
    [
        ({"labels": np.full(N, -1)}, DataError, ("labelled", "weights=equal")),
        ({"classes": ["angry", "sad", "happy"]}, ComparisonError, ("classes", "f0-s1")),
        ({"ids": [f"c/other{i}" for i in range(N)]}, ComparisonError, ("utterances", "f0-s1")),
    ],
)
def test_validation_that_cannot_weigh(
    runs: Path, change: dict[str, Any], error: type[Exception], facts: tuple[str, ...]
) -> None:
    cells = runs / "mine" / "cells"
    names = ["synthetic-classification-f0-s1"]
    if "labels" in change:
        names = [path.name for path in cells.iterdir()]
    for name in names:
        path = cells / name / "valid.jsonl"
        replace(PredictionTable.read_jsonl(path), **change).write_jsonl(path)
    with pytest.raises(error, match=says(*facts)):
        together(runs, "classification", "prototype", weights="validation")


def test_ranks_cannot_be_averaged(runs: Path) -> None:
    path = runs / "mine" / "cells" / "synthetic-prototype-f0-s1" / "record.json"
    write_json(path, {**read_json(path, remedy=""), "probabilities": False})
    with pytest.raises(DataError, match=says("synthetic-prototype-f0-s1", "probabilities")):
        together(runs, "classification", "prototype")


def test_the_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "compare",
        "ensemble",
        "mine",
        "members=[classification,prototype]",
        "--out",
        str(runs),
    ]
    assert main([*words, "--dry-run"]) == 0
    assert "4 cells would be written" in capsys.readouterr().out
    assert main([*words, "name=both", "weights=validation"]) == 0
    text = capsys.readouterr().out
    assert "its members alone 0." in text
    assert "prototype: seeds 1, 2" in text
    assert "both" in text.split("cells written")[1]  # the table


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        (["members=[classification]", "weight=equal"], ("weight", "weights")),
        (["members=[classification]", "overwrite=1"], ("overwrite", "bool")),
        (["members=[classification]", "seeds=3"], ("seeds", "together")),
        (["members={a: 1}"], ("members", "str")),
        (["members="], ("members",)),
        (["members=classifcatn"], ("classifcatn", "classification")),
        (["members=classification", "where.fold=0"], ("where.config.fold=0",)),
        (["members=classification", "where.config.fold=7"], ("config.fold", 7)),
        (["classification"], ("classification", "key=value")),
    ],
)
def test_what_the_command_refuses(
    runs: Path, typed: list[str], facts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "ensemble", "mine", *typed, "--out", str(runs)]) == 2
    assert tells(capsys.readouterr().err, *facts)


def test_one_member_needs_no_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["members=classification", "--dry-run", "--out", str(runs)]
    assert main(["compare", "ensemble", "mine", *words]) == 0
    assert "classification: seeds 1, 2" in capsys.readouterr().out
