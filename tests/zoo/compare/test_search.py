"""A search budget: the same number of trials for each head, chosen by on validation only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import says
from serzoo.zoo.compare import search, suite
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ComparisonError, ConfigError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.runs import check_comparable, find_cells
from serzoo.zoo.run.record import read_record
from serzoo.zoo.run.schema import METRIC_KEYS, read_as
from serzoo.zoo.statistics.table import PredictionTable

HEADS = ("classification", "selm", "gen_ser", "regress_codes", "prototype")


def made(**raw: Any) -> search.Search:
    return read_as(search.Search, raw)


def test_every_head_gets_as_many_different_trials() -> None:
    space = {"optim.lr": {"low": 1e-4, "high": 1e-2}, "head.hidden": [0, 8, 16]}
    found = made(trials=6, space=space)
    tried = {head: found.settings(head) for head in HEADS}
    for head, settings in tried.items():
        assert len(settings) == 6
        assert len({json.dumps(s) for s in settings}) == 6
        assert {"head.hidden" in s for s in settings} == {head == "classification"}  # has the knob
    # trial t has the same rate for all of them
    assert len({tuple(s["optim.lr"] for s in tried[h]) for h in HEADS}) == 1
    rates = [s["optim.lr"] for s in tried["selm"]]
    assert all(1e-4 <= r <= 1e-2 for r in rates)
    assert found.settings("selm") == tried["selm"]
    assert made(trials=6, space=space, seed=1).settings("selm") != tried["selm"]


def test_a_logarithmic_draw_is_even_over_decades() -> None:
    wide = made(trials=400, space={"optim.lr": {"low": 1e-4, "high": 1e-2}}).settings("selm")
    assert 0.44 < sum(s["optim.lr"] < 1e-3 for s in wide) / 400 < 0.56
    even = {"low": 0.0, "high": 1.0, "log": False}
    flat = made(trials=400, space={"optim.mixup": even}).settings("selm")
    assert 0.44 < sum(s["optim.mixup"] < 0.5 for s in flat) / 400 < 0.56


def test_a_grid_holds_every_combination_once() -> None:
    space = {"optim.lr": [1e-3, 1e-2], "optim.weight_decay": [0.0, 0.1, 0.2]}
    found = made(trials=6, space=space, sampler="grid").settings("selm")
    pairs = {(s["optim.lr"], s["optim.weight_decay"]) for s in found}
    assert pairs == {(a, b) for a in (1e-3, 1e-2) for b in (0.0, 0.1, 0.2)}
    some = made(trials=4, space=space, sampler="grid").settings("selm")
    assert some == found[:4]
    wide = made(trials=2, space={"optim.lr": {"low": 1e-4, "high": 1e-2}}, sampler="grid")
    with pytest.raises(ConfigError, match=says("sampler", "grid", "optim.lr", "list")):
        wide.settings("selm")


def test_a_space_too_small_for_a_head_is_told() -> None:
    found = made(trials=3, space={"optim.lr": [1e-3, 1e-2], "head.hidden": [0, 8]})
    with pytest.raises(
        ConfigError, match=says("3 trials", "'selm'", 2, "optim.lr", "search.heads.selm")
    ):
        found.settings("selm")
    own = made(
        trials=3, space={"optim.lr": [1e-3, 1e-2]}, heads={"selm": {"head.lm_width": [32, 64]}}
    )
    assert {tuple(s) for s in own.settings("selm")} == {("optim.lr", "head.lm_width")}
    wrong = made(trials=2, space={"optim.lr": [1, 2]}, heads={"selm": {"head.lm_widht": [32]}})
    with pytest.raises(ConfigError, match=says("'selm'", "'lm_widht'", "'lm_width'")):
        wrong.settings("selm")


def ended(folder: Path, right: Sequence[bool], speaker: str = "b", **more: Any) -> Path:
    """A trial of three utterances that was validated on a speaker; "t" is tested in fold 0."""
    speakers = {"train": ["c/x"], "valid": [f"c/{speaker}"], "test": ["c/t"]}
    status = {"status": "ok", "selection": {"val/uar": 0.5, "epoch": 3}, "speakers": speakers}
    write_json(folder / "record.json", {**status, "seconds": {"total": 2.0}, **more})
    labels = np.array([0, 0, 1])
    scores = np.where(np.array(right) == np.eye(2)[labels].T, 1.0, 0.0).T
    names = [f"{speaker}{i}" for i in range(3)]
    PredictionTable(names, [speaker] * 3, labels, scores, ["no", "yes"]).write_jsonl(
        folder / "valid.jsonl"
    )
    return folder


NONE, SOME, MOST = [False] * 3, [True, False, False], [True, False, True]


def tried(*folds: dict[int, Path]) -> list[search.Tried]:
    return [search.Tried({"optim.lr": i}, by_fold) for i, by_fold in enumerate(folds)]


def test_the_winner_is_the_first_of_the_best_that_ended_well(tmp_path: Path) -> None:
    folders = [ended(tmp_path / str(i), right) for i, right in enumerate((SOME, MOST, MOST))]
    failed = ended(tmp_path / "f", NONE, status="failed", error="E: no")
    best, folds, found = search.outcome(tried(*({0: f} for f in [failed, *folders])), 0)
    assert (best, folds) == (2, [0])
    assert found[0] == {"settings": {"optim.lr": 0}, "val/uar": None, "error": "fold 0: E: no"}
    assert found[2] == {
        "settings": {"optim.lr": 2}, "val/uar": 0.75, "epochs": {"0": 3}, "seconds": 2.0
    }  # fmt: skip
    assert search.outcome(tried({0: failed}, {0: tmp_path / "none"}), 0)[0] == -1


def test_the_validation_parts_of_the_folds_are_pooled(tmp_path: Path) -> None:
    """The first setting is the best in fold 0 alone, the second one in both folds together."""
    one = {0: ended(tmp_path / "a0", MOST), 1: ended(tmp_path / "a1", NONE, "d")}
    two = {0: ended(tmp_path / "b0", SOME), 1: ended(tmp_path / "b1", [True] * 3, "d")}
    best, folds, found = search.outcome(tried(one, two), 0)
    assert (best, folds) == (1, [0, 1])
    # recalls of the pooled utterances: of 4 "no" and of 2 "yes"
    assert [f["val/uar"] for f in found] == [(1 / 4 + 1 / 2) / 2, (3 / 4 + 1 / 2) / 2]
    assert found[1]["seconds"] == 4.0


def test_a_fold_that_validates_a_tested_speaker_does_not_count(tmp_path: Path) -> None:
    one = {0: ended(tmp_path / "a0", MOST), 1: ended(tmp_path / "a1", NONE, "t")}
    two = {0: ended(tmp_path / "b0", SOME), 1: ended(tmp_path / "b1", [True] * 3, "t")}
    best, folds, _ = search.outcome(tried(one, two), 0)
    assert (best, folds) == (0, [0])


def test_a_setting_that_failed_in_a_fold_that_counts_cannot_win(tmp_path: Path) -> None:
    one = {0: ended(tmp_path / "a0", MOST), 1: tmp_path / "none"}
    two = {0: ended(tmp_path / "b0", SOME), 1: ended(tmp_path / "b1", SOME, "d")}
    best, _, found = search.outcome(tried(one, two), 0)
    assert best == 1
    assert found[0]["error"].startswith("fold 1: ")


def test_a_trial_wins_by_the_metric_of_the_suite(tmp_path: Path) -> None:
    first = ended(tmp_path / "a", [True, True, False])  # accuracy 2/3, recalls 1 and 0
    second = ended(tmp_path / "b", MOST)  # accuracy 2/3, recalls 1/2 and 1
    found = {m: search.outcome(tried({0: first}, {0: second}), 0, m) for m in METRIC_KEYS}
    assert {m: best for m, (best, _, _) in found.items()} == {"uar": 1, "wa": 0, "macro_f1": 1}
    assert found["wa"][2][1]["val/wa"] == pytest.approx(2 / 3)
    assert "val/f1" in search.rule("macro_f1")


def test_sizes_that_are_matched_are_not_searched(tiny_recipe: str, tmp_path: Path) -> None:
    path = written(tiny_recipe, tmp_path, {"trials": 2, "space": {"head.hidden": [8, 16]}})
    with pytest.raises(ConfigError, match=says("search", "match_params", "head.hidden", "'mlp'")):
        suite.expand(suite.load(path, ["match_params=2000", "head=[mlp]"]), out="x")


def written(recipe: str, folder: Path, wanted: dict[str, Any]) -> str:
    axes = {
        "recipe": [recipe],
        "head": ["classification", "prototype"],
        "fold": [0],
        "seed": [1, 2],
    }
    path = folder / "searched.yaml"
    path.write_text(json.dumps({"title": "S", "axes": axes, "search": wanted}))
    return str(path)


def test_trials_are_validated_only_and_the_winner_is_run(tiny_recipe: str, tmp_path: Path) -> None:
    wanted = {"trials": 2, "space": {"optim.lr": [1e-2, 1e-5], "optim.epochs": [1, 2]}}
    path, out = written(tiny_recipe, tmp_path, wanted), tmp_path / "runs"
    done = compare(path, out=str(out), workers=1)
    folder = out / "searched"
    assert (done["cells"], done["done"], done["failed"]) == (4, 4, 0)
    trials = sorted((folder / "trials").iterdir())
    assert len(trials) == 4  # two of each head, for both seeds
    for trial in trials:
        entry = read_record(trial)
        # no prediction and no number of the test part was made
        assert not {"metrics", "by_speaker", "by_corpus"} & set(entry.to_json())
        assert sorted(p.name for p in trial.glob("*.jsonl")) == ["valid.jsonl"]
        assert set(entry.settings) == {"optim.lr", "optim.epochs"}
    found = find_cells(folder)
    assert len(found.runs) == 4
    for run in found.runs:
        tried = run.record.search
        scores = [t["val/uar"] for t in tried["tried"]]
        assert tried["chosen"] == scores.index(max(scores))
        optim = run.record.config["optim"]
        winner = tried["tried"][tried["chosen"]]["settings"]
        assert {k: optim[k.partition(".")[2]] for k in winner} == winner
        own = [t for t in trials if f"-{run.head}-" in t.name]
        recorded = [read_record(t).selection["val/uar"] for t in own]
        assert sorted(recorded) == pytest.approx(sorted(scores))
    # heads with settings of their own may stand in one table, with other budgets they may not
    check_comparable(found.runs)
    found.runs[0].record.search["heads"] = {"selm": {"optim.lr": [1]}}  # a space of another head
    check_comparable(found.runs)
    found.runs[0].record.search["trials"] = 3
    with pytest.raises(ComparisonError, match=says("settings: search")):
        check_comparable(found.runs)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/*/record.json")}
    assert compare(path, out=str(out), workers=1)["done"] == 4
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/*/record.json")} == before


def test_a_chosen_trial_is_not_trained_again(tiny_recipe: str, tmp_path: Path) -> None:
    wanted = {"trials": 2, "space": {"optim.lr": [1e-2, 1e-5]}}
    path = written(tiny_recipe, tmp_path, wanted)
    compare(path, ["overrides=[optim.refit=true]"], out=str(tmp_path / "runs"), workers=1)
    runs = find_cells(tmp_path / "runs" / "searched").runs
    # trials have the first seed
    assert {r.seed: (r.record.folder / "selection").exists() for r in runs} == {1: False, 2: True}
    best = {r.head: r.record.search["tried"][r.record.search["chosen"]]["val/uar"] for r in runs}
    assert all(r.record.valid["uar"] == best[r.head] for r in runs if r.seed == 1)


def test_a_space_of_another_head_leaves_the_name_of_a_cell(
    tiny_recipe: str, tmp_path: Path
) -> None:
    names = []
    for own in ({}, {"prototype": {"head.dropout": [0.2, 0.3]}}):
        wanted = {"trials": 2, "space": {"optim.lr": [1e-3, 1e-2]}, "heads": own}
        path = written(tiny_recipe, tmp_path, wanted)
        found = suite.expand(suite.load(path, ["seed=[1]"]), out=str(tmp_path))
        names.append({c.head: c.name for c in found})
    assert names[0]["classification"] == names[1]["classification"]
    assert names[0]["prototype"] != names[1]["prototype"]


def test_a_head_of_which_no_trial_ends_well_is_a_recorded_cell(
    tiny_recipe: str, tmp_path: Path
) -> None:
    wanted = {"trials": 2, "space": {"optim.lr": [1e-3, 1e-2]}}
    path = written(tiny_recipe, tmp_path, wanted)
    more = ["head=[classification]", "encoder.widths=[4,8,8]", "seed=[1]"]  # of no encoder
    with pytest.raises(ComparisonError, match=says("1 of 1", "2 trials", "ValueError")):
        compare(path, more, out=str(tmp_path / "runs"), workers=1)
    (cell,) = (tmp_path / "runs" / "searched" / "cells").iterdir()
    entry = read_record(cell)
    assert (entry.status, entry.reason) == ("failed", "search")
    assert "ValueError" in entry.search["tried"][0]["error"]
