"""Searches by Optuna: as many trials for every head, the same on any engine, and none forgotten."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from facts import says, tells
from serzoo.zoo.compare import runs, search, study, suite
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.runs import budget_of, find_cells
from serzoo.zoo.run.record import Record, read_record
from serzoo.zoo.run.schema import read_as

pytest.importorskip("optuna")

SPACE = {"optim.lr": {"low": 1e-4, "high": 1e-1}, "head.dropout": [0.0, 0.1, 0.3]}


def made(**more: Any) -> search.Search:
    return read_as(search.Search, {"trials": 9, "space": SPACE, "sampler": "tpe", **more})


def score(settings: dict[str, Any]) -> float:
    """Best at a rate of 0.003 and no dropout."""
    return 0.9 - 0.2 * abs(math.log10(settings["optim.lr"]) + 2.5) - settings["head.dropout"]


def scored(settings: dict[str, Any], **more: Any) -> Record:
    found = {"status": "ok", "selection": {"val/uar": score(settings), "epoch": 1}, **more}
    return Record.from_json(found)


def searched(found: study.Study) -> list[dict[str, Any]]:
    """Run a study to its end; its settings."""
    while asked := found.ask():
        for one in asked:
            found.tell(one, scored(one.settings), "uar")
    return [one.settings for one in found.trials()]


@pytest.mark.parametrize("sampler", search.ADAPTIVE)
def test_a_study_uses_up_its_budget_and_repeats_nothing(sampler: str, tmp_path: Path) -> None:
    budget = made(sampler=sampler)
    settings = searched(study.Study(budget, "classification", "one", tmp_path / "a.log"))
    assert len(settings) == len({json.dumps(s) for s in settings}) == 9
    assert all(1e-4 <= s["optim.lr"] <= 1e-1 for s in settings)
    assert {s["head.dropout"] for s in settings} <= {0.0, 0.1, 0.3}
    # the first are the draws that all heads share
    assert settings[: budget.first] == budget.settings("classification")[: budget.first]
    assert settings != budget.settings("classification")
    again = searched(study.Study(budget, "classification", "one", tmp_path / "b.log"))
    assert again == settings


def test_a_sampler_that_learns_finds_better_settings_than_chance(tmp_path: Path) -> None:
    budget = made(trials=24)
    learned = searched(study.Study(budget, "classification", "one", tmp_path / "a.log"))
    drawn = budget.settings("classification")
    late = slice(budget.first, None)
    assert sum(map(score, learned[late])) > sum(map(score, drawn[late]))


def test_a_study_that_was_stopped_goes_on(tmp_path: Path) -> None:
    budget = made(batch=2)
    whole = searched(study.Study(budget, "classification", "one", tmp_path / "a.log"))
    first = study.Study(budget, "classification", "one", tmp_path / "b.log")
    asked = first.ask()
    assert [one.number for one in asked] == [0, 1, 2]
    first.tell(asked[0], scored(asked[0].settings), "uar")
    second = study.Study(budget, "classification", "one", tmp_path / "b.log")
    assert second.ask() == asked[1:]  # their results were not told
    assert searched(second) == whole


def test_a_small_space_is_used_up(tmp_path: Path) -> None:
    few = {"head.dropout": [0.0, 0.1, 0.3], "head.hidden": [0, [8], 16]}
    found = study.Study(made(space=few), "classification", "one", tmp_path / "a.log")
    while asked := found.ask():
        for one in asked:
            found.tell(one, scored({"optim.lr": 1e-2, **one.settings}), "uar")
    settings = [one.settings for one in found.trials()]
    assert len({json.dumps(s) for s in settings}) == 9


def test_trials_that_fail_or_are_pruned_count(tmp_path: Path) -> None:
    found = study.Study(made(), "classification", "one", tmp_path / "a.log")
    results = iter(
        [None, Record(status="failed"), scored({"optim.lr": 1e-2, "head.dropout": 0.0},
         pruned={"epoch": 1})]
    )  # fmt: skip
    while asked := found.ask():
        for one in asked:
            found.tell(one, next(results, None), "uar")
    assert len(found.trials()) == 9
    states = [trial.state.name for trial in found.study.get_trials()][:3]
    assert states == ["FAIL", "FAIL", "PRUNED"]


def test_another_budget_is_another_study(tmp_path: Path) -> None:
    names = {
        study.Study(made(**more), "classification", "one", tmp_path / "a.log").name
        for more in ({}, {"trials": 8}, {"seed": 1}, {"prune": True}, {"sampler": "gp"})
    }
    assert len(names) == 5


def test_a_damaged_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("no json\n{}\n")
    with pytest.raises(ConfigError, match=says("a.log", "remove")):
        study.Study(made(), "classification", "one", tmp_path / "a.log")


@pytest.mark.parametrize("more", [{"prune": True}, {"batch": 2}])
def test_what_needs_a_sampler_that_learns_is_refused_without(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=says(next(iter(more)), "search.sampler", "tpe")):
        made(sampler="random", **more)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=says("pip install 'serzoo[search]'", "random")):
        study.refuse_missing()


def test_old_and_new_records_of_random_draws_compare() -> None:
    budget = made(sampler="random").budget()
    assert list(budget) == ["trials", "space", "heads", "draw", "seed"]
    assert budget["draw"] == "random"
    tpe = made(prune=True).budget()
    assert (tpe["draw"], tpe["batch"], tpe["prune"]) == ("tpe", 1, True)
    texts = {budget_of(Record.from_json({"search": made(**m).budget()})) for m in
             ({}, {"prune": True}, {"batch": 2}, {"sampler": "random"})}  # fmt: skip
    assert len(texts) == 4


def test_a_pruned_trial_cannot_win(tmp_path: Path) -> None:
    speakers = {"train": ["c/x"], "valid": ["c/b"], "test": ["c/t"]}
    for name, more in (("best", {"pruned": {"epoch": 2, "score": 1.0}}), ("other", {})):
        record = {"status": "ok", "selection": {"epoch": 3}, "speakers": speakers}
        write_json(tmp_path / name / "record.json", {**record, "seconds": {"total": 1.0}, **more})
        row = {"id": "b1", "speaker": "b", "label": "no", "scores": [0.0, 1.0]}
        (tmp_path / name / "valid.jsonl").write_text(json.dumps(row) + "\n")
    tried = [search.Tried({}, {0: tmp_path / name}) for name in ("best",)]
    best, _, found = search.outcome(tried, 0)
    assert best == -1
    assert tells(found[0]["error"], "pruned", 2)


@pytest.fixture
def path(tiny_recipe: str, tmp_path: Path) -> str:
    axes = {
        "recipe": [tiny_recipe],
        "head": ["classification", "prototype"],
        "fold": [0, 1],
        "seed": [1],
    }
    wanted = {"trials": 4, "space": {"optim.lr": {"low": 1e-5, "high": 1e-2}}, "sampler": "tpe"}
    content = {"title": "S", "axes": axes, "search": wanted, "baseline": "classification"}
    (tmp_path / "searched.yaml").write_text(json.dumps(content))
    return str(tmp_path / "searched.yaml")


def test_a_dry_run_knows_the_number_of_trials(path: str, tmp_path: Path) -> None:
    found = runs.plan(path, out=str(tmp_path))
    assert isinstance(found, runs.Studied)
    assert len(found.first()) == 16  # four of each head and fold
    assert [len(cell.trial_names) for cell in found.spanned] == [4] * 4
    assert [cell.trials for cell in found.spanned] == [()] * 4


def cells(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for run in find_cells(folder).runs:
        assert run.record.search is not None
        found = {k: v for k, v in run.record.search.items() if k != "seconds"}
        tried = [{k: v for k, v in t.items() if k != "seconds"} for t in found["tried"]]
        yield run.name, {**found, "tried": tried}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_folds_have_searches_of_their_own_and_any_number_of_workers_finds_the_same(
    path: str, tmp_path: Path
) -> None:
    """Pruned trials are in it, too."""
    words = ["search.prune=true", "optim.epochs=10"]
    results = []
    for workers in (1, 2):
        out = tmp_path / f"w{workers}"
        done = compare(path, words, out=str(out), workers=workers)
        assert (done["done"], done["failed"]) == (4, 0)
        results.append(dict(cells(out / "searched")))
    assert results[0] == results[1]
    for found in results[0].values():
        assert len(found["tried"]) == 4
        assert len(found["folds"]) == 1
        assert found["tried"][found["chosen"]]["val/uar"] is not None
    trials = [read_record(f) for f in (tmp_path / "w1" / "searched" / "trials").glob("*-t*")]
    assert len(trials) == 16
    assert all(entry.ok and not entry.metrics for entry in trials)
    pruned = [entry for entry in trials if "pruned" in entry.more]
    assert pruned
    assert all(entry.more["pruned"]["epoch"] < 9 for entry in pruned)
    base = tmp_path / "w1" / "searched" / "trials"
    assert suite.ended_trials(base) == {f.name.rpartition("-")[0] for f in base.glob("*-t*")}
    again = compare(path, words, out=str(tmp_path / "w1"), workers=1)
    assert again["done"] == 4
