"""A search budget: the same number of trials for each head, chosen by on validation only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from facts import says
from serzoo.zoo.compare import search, suite
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ComparisonError, ConfigError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.runs import check_comparable, find_cells
from serzoo.zoo.run.record import read_record

HEADS = ("classification", "selm", "gen_ser", "regress_codes", "prototype")


def made(**raw: Any) -> search.Search:
    found = search.read("mine", raw)
    assert found is not None
    return found


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
    found = made(trials=6, space=space, draw="grid").settings("selm")
    pairs = {(s["optim.lr"], s["optim.weight_decay"]) for s in found}
    assert pairs == {(a, b) for a in (1e-3, 1e-2) for b in (0.0, 0.1, 0.2)}
    some = made(trials=4, space=space, draw="grid").settings("selm")
    assert some == found[:4]
    wide = made(trials=2, space={"optim.lr": {"low": 1e-4, "high": 1e-2}}, draw="grid")
    with pytest.raises(ConfigError, match=says("draw", "grid", "optim.lr", "list")):
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


def ended(folder: Path, score: float | None, **more: Any) -> Path:
    status = {"status": "ok", "selection": {"val/uar": score, "epoch": 3}}
    write_json(folder / "record.json", {**status, "seconds": {"total": 2.0}, **more})
    return folder


def test_the_winner_is_the_first_of_the_best_that_ended_well(tmp_path: Path) -> None:
    folders = [ended(tmp_path / str(i), score) for i, score in enumerate((0.4, 0.6, 0.6))]
    failed = ended(tmp_path / "f", None, status="failed", error="E: no")
    trials = [({"optim.lr": i}, f) for i, f in enumerate([failed, *folders])]
    best, tried = search.outcome(trials)
    assert best == 2
    assert tried[0] == {"settings": {"optim.lr": 0}, "val/uar": None, "error": "E: no"}
    assert tried[2] == {"settings": {"optim.lr": 2}, "val/uar": 0.6, "epoch": 3, "seconds": 2.0}
    assert search.outcome([({}, failed), ({}, tmp_path / "none")])[0] == -1


def test_a_trial_wins_by_the_metric_of_the_suite(tmp_path: Path) -> None:
    first = ended(tmp_path / "a", 0.6, valid={"uar": 0.6, "wa": 0.4, "f1": 0.5})
    second = ended(tmp_path / "b", 0.5, valid={"uar": 0.5, "wa": 0.7, "f1": 0.4})
    trials: list[Any] = [({}, first), ({}, second)]
    assert [search.outcome(trials, m)[0] for m in ("uar", "wa", "macro_f1")] == [0, 1, 0]
    assert search.outcome(trials, "wa")[1][1]["val/wa"] == 0.7
    # the score of the epoch that was kept is that of the selection
    kept = {"val/uar": 0.6, "val/wa": 0.9, "epoch": 3}
    third = ended(tmp_path / "c", 0.6, valid={"wa": 0.8}, selection=kept)
    assert search.outcome([*trials, ({}, third)], "wa")[1][2]["val/wa"] == 0.9
    assert search.rule("macro_f1") == "highest val/f1, first trial of equals"


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
        assert sorted(recorded) == sorted(scores)
    # heads with settings of their own may stand in one table, with other budgets they may not
    check_comparable(found.runs)
    found.runs[0].record.search["trials"] = 3
    with pytest.raises(ComparisonError, match=says("settings: search")):
        check_comparable(found.runs)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/*/record.json")}
    assert compare(path, out=str(out), workers=1)["done"] == 4
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/*/record.json")} == before


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
