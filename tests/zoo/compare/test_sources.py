"""Suites whose cells start from pre-trainings: what is trained first, and what the cells get."""

from __future__ import annotations

import io
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from facts import says, tells
from rich.console import Console
from serzoo.datamodules.labelling.label import label
from serzoo.zoo.compare import compare, estimate, sources, suite
from serzoo.zoo.compare.runs import Started
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.overview import pairs, starts_of
from serzoo.zoo.report.runs import Run, _settings
from serzoo.zoo.report.table import source_notes
from serzoo.zoo.run.record import Record, read_record

TEXT = """
title: Starts
label: {corpus: synthetic_talk, taxonomy: basic7, scorer: lexicon}
pretraining:
  weak: {about: weak labels, recipe: lanser_pretrain, labels: weak}
  shuffled: {recipe: lanser_pretrain, labels: shuffled}
  human: {recipe: lanser_pretrain, overrides: [data.manifest=null, data.label=acted]}
axes:
  recipe: [lanser_finetune]
  pretraining: [none, weak, shuffled, human]
  share: [0.1, 1.0]
  head: [classification]
  fold: [0]
  seed: [1, 2]
overrides: [encoder.dim=48, optim.epochs=3]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "starts.yaml"
    path.write_text(TEXT)
    return path


pytestmark = pytest.mark.usefixtures("audited")


def planned(file: Path, *overrides: str) -> Started:
    found = compare.plan(str(file), overrides, out=str(file.parent / "out"))
    assert isinstance(found, Started)
    return found


def test_a_pretraining_is_run_once_per_arm_and_seed_before_the_cells(file: Path) -> None:
    plan = planned(file)
    assert len(plan.cells) == 4 * 2 * 2  # arms, shares, seeds
    assert sorted(job.name.rpartition("-")[0] for job in plan.ahead) == sorted(
        f"{arm}-logmel-classification_bce-s{seed}"
        for arm in ("weak", "shuffled", "human")
        for seed in (1, 2)
    )
    assert [job.name for job in plan.first()] == [job.name for job in plan.ahead]


def test_a_dry_run_says_what_is_not_in_its_estimate(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "show", lambda *_: None)
    console = Console(file=io.StringIO(), width=120)
    planned(file).estimate(console, 1)
    planned(file, "pretraining=[none]").estimate(console, 1)  # nothing comes before
    (line,) = console.file.getvalue().splitlines()
    assert "6 pre-trainings" in line


def test_cells_of_a_seed_start_from_its_pretraining_and_share_all_else(file: Path) -> None:
    plan = planned(file)
    folder = file.parent / "out" / "starts" / "pretraining"
    rest: dict[Any, set[str]] = {}
    for job in plan.cells:
        cell, arm = plan.of[job.name], job.options["facts"]["pretraining"]
        start, rest_of = cell.cfg.init, cell.cfg.to_dict()
        if arm == "none":
            assert start is None
        else:
            assert start is not None
            assert Path(start).parent == folder
            assert Path(start).name.startswith(f"{arm}-")
            assert f"-s{cell.seed}-" in start
        rest_of["init"] = None
        key = (cell.point["share"], cell.fold, cell.seed)
        rest.setdefault(key, set()).add(str(rest_of))
        assert job.options["facts"]["axes"] == {"share": cell.point["share"]}
    assert all(len(found) == 1 for found in rest.values())  # the same draw of the labels, too


def test_pretrainings_share_the_cells_encoder_and_not_their_optimisation(file: Path) -> None:
    plan = planned(file)
    for job in plan.ahead:
        assert job.config["encoder"] == plan.spanned[0].cfg.encoder
        assert job.config["encoder"]["dim"] == 48
        assert job.config["optim"]["epochs"] == 24
        assert job.config["protocol"] == "train-only@1"
    file.write_text(TEXT.replace("data.label=acted", "encoder.dim=32, data.label=acted"))
    with pytest.raises(ConfigError, match=says("'starts'", "'dim': 48", "'human'", "'dim': 32")):
        planned(file)


SMALL = (
    TEXT.replace("[encoder.dim=48, ", "[encoder=serzoo-small, ")
    .replace("labels: weak}", "labels: weak, overrides: [encoder.tuning=full]}")
    .replace("labels: shuffled}", "labels: shuffled, overrides: [encoder.tuning=full]}")
    .replace("[data.manifest=null,", "[encoder.tuning=full, data.manifest=null,")
)


def test_a_tuned_pretraining_can_be_kept_frozen_and_stays_in_the_same_table(file: Path) -> None:
    file.write_text(SMALL)
    plan = planned(file)
    assert {job.config["encoder"]["tuning"] for job in plan.ahead} == {"full"}
    groups, stored, shared, rest = set(), set(), set(), {}
    for job in plan.cells:
        cfg, facts = plan.of[job.name].cfg, job.options["facts"]
        record = Record(config=cfg.to_dict()).add(facts)
        run = Run(job.name, record, None)  # type: ignore[arg-type]
        groups.add(run.group)
        shared.add(str({k: v for k, v in _settings(run).items() if k.startswith("encoder.")}))
        other = {**cfg.to_dict(), "encoder": None}  # the head's pooling, too
        rest.setdefault((facts["axes"]["share"], cfg.seed), set()).add(str(other))
        arm = facts["pretraining"]
        assert cfg.init is None
        assert cfg.encoder["type"] == ("serzoo-small" if arm == "none" else "trained")
        if arm != "none":
            assert Path(cfg.encoder["name"]).name.startswith(f"{arm}-serzoo-small")
            stored.add(cfg.encoder["name"])
    assert groups == {
        (f"lanser_finetune, share={share}", "serzoo-small layers [2]") for share in (0.1, 1.0)
    }
    assert len(shared) == 1  # so one table may hold them
    assert [len(found) for found in rest.values()] == [1] * 4
    assert len(stored) == 3 * 2  # arms, seeds
    layers = SMALL.replace("encoder.tuning=full, data", "'encoder.layers=[1]', data")
    file.write_text(layers)
    with pytest.raises(ConfigError, match=says("'starts'", "'human'", "[1]", "encoder.tuning")):
        planned(file)


def test_weak_and_shuffled_learn_the_same_labels_in_another_order(file: Path) -> None:
    by_arm = {s.arm: s for s in planned(file, "seed=[7]").sources.values()}
    data = {arm: source.cfg.data for arm, source in by_arm.items()}
    assert data["weak"].manifest == data["shuffled"].manifest
    assert data["weak"].manifest is not None
    assert Path(data["weak"].manifest).parent.parent == file.parent / "out" / "starts"
    assert (data["weak"].weak_shuffle, data["shuffled"].weak_shuffle) == (None, 7)
    assert data["weak"].weak == data["shuffled"].weak == "soft"
    assert (data["human"].manifest, data["human"].label) == (None, "acted")


def test_other_labels_are_another_pretraining_and_other_cells(file: Path) -> None:
    one, two = planned(file), planned(file, "label.threshold=0.7")
    names = [{job.name for job in plan.ahead} for plan in (one, two)]
    common = names[0] & names[1]
    assert {name.partition("-")[0] for name in common} == {"human"}
    cells = [{job.name for job in plan.cells} for plan in (one, two)]
    assert len(cells[0] & cells[1]) == 2 * 2 * 2  # none and human


def test_labels_are_made_before_and_only_where_something_needs_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[dict[str, Any], Path]] = []
    monkeypatch.setattr(sources, "make_labels", lambda spec, to: made.append((spec, to)) or [])
    for arms in ("[none]", "[human]"):
        plan = planned(file, f"pretraining={arms}")
        plan.folder.mkdir(parents=True, exist_ok=True)
        plan.open()
    assert not made
    planned(file).open()
    assert made[0][0] == {"corpus": "synthetic_talk", "taxonomy": "basic7", "scorer": "lexicon"}
    for job in planned(file).ahead:
        write_json(job.folder / "record.json", {"status": "ok"})
    planned(file).open()  # all are trained
    assert len(made) == 1


def test_a_cell_without_its_pretraining_is_recorded_and_not_run(file: Path) -> None:
    plan = planned(file)
    none, weak = (
        next(j for j in plan.cells if j.options["facts"]["pretraining"] == arm)
        for arm in ("none", "weak")
    )
    assert plan.ready(none) is none
    assert plan.ready(weak) is None
    record = read_record(weak.folder)
    assert record is not None
    assert (record.status, record.reason) == ("failed", "source")
    assert tells(record.error, "'weak'")
    source = plan.of[weak.name].source
    assert source is not None
    write_json(source.folder / "record.json", {"status": "ok"})
    assert plan.ready(weak) is weak


@pytest.mark.parametrize("written", ["scorer.model: NAME", "scorer_options: {model: NAME}"])
def test_a_suite_passes_the_options_of_a_scorer_on(written: str) -> None:
    spec = yaml.safe_load(f"{{corpus: talk, taxonomy: basic7, {written}, options: {{text: true}}}}")
    given = sources.arguments(spec)
    assert (given["source"], given["taxonomy"]) == ("talk", "basic7")
    assert given["scorer_options"] == {"model": "NAME"}
    assert given["options"] == {"text": True}
    signature(label).bind(out="labels", **given)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[none, weak, shuffled, human]", "[none, wek]", "'wek'.* human, none, shuffled, weak"),
        ("labels: weak}", "labels: strong}", "pretraining.weak.labels .*'strong'.* weak, shuffled"),
        (
            "recipe: lanser_pretrain, labels: shuffled",
            "labels: shuffled",
            r"pretraining\.shuffled\.recipe .*missing",
        ),
        ("about: weak labels", "abuot: weak labels", r"'pretraining\.weak\.abuot'.*'about'"),
        ("  weak: {", "  none: {", r"pretraining\.none .*another name"),
        ("taxonomy: basic7, ", "", r"label\.taxonomy"),
        ("scorer: lexicon}", "scorre: lexicon}", r"label: .*'scorre'.*'scorer'"),
        ("scorer: lexicon}", "threshold: high}", "label: threshold='high' .*float"),
        ("scorer: lexicon}", "options: 7}", r"label\.options=7.*KEY"),
        ("scorer: lexicon}", "out: here}", r"label\.out=here"),
        (
            "label: {corpus: synthetic_talk, taxonomy: basic7, scorer: lexicon}",
            "",
            r"label: \{corpus: NAME, taxonomy: NAME\}",
        ),
        (
            "overrides: [enc",
            "search: {trials: 2, space: {optim.lr: [0.1, 0.01]}}\noverrides: [enc",
            "search .*axis pretraining",
        ),
    ],
)
def test_what_is_wrong_is_named(file: Path, before: str, after: str, message: str) -> None:
    assert TEXT.count(before) == 1
    file.write_text(TEXT.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        suite.load(str(file))


def run_of(arm: str | None) -> Run:
    config = {"head_name": "selm", "head": {"type": "selm"}}
    record = Record(config=config, pretraining=arm)
    return Run("cell", record, None)  # type: ignore[arg-type]


def test_a_start_is_a_row_of_its_own_beside_the_baseline() -> None:
    assert [run_of(arm).head for arm in (None, "none", "weak")] == [
        "selm",
        "selm",
        "selm after weak",
    ]
    runs = {run_of(arm).head: [run_of(arm)] for arm in ("none", "shuffled", "weak")}

    class Grid:
        pass

    grid: Any = Grid()
    grid.runs = runs
    assert starts_of(grid) == {
        "selm": {"none": "selm", "shuffled": "selm after shuffled", "weak": "selm after weak"}
    }
    grid.runs = {"selm": [run_of(None)]}
    assert starts_of(grid) == {}


def test_starts_are_compared_with_none_and_with_the_control() -> None:
    assert pairs(["none", "weak", "shuffled", "human"]) == [
        ("shuffled", "none"), ("weak", "none"), ("human", "none"),
        ("weak", "shuffled"), ("human", "shuffled"), ("human", "weak"),
    ]  # fmt: skip


def test_notes_say_what_an_arm_is(file: Path) -> None:
    plan = planned(file)
    told = "after weak: begun with an encoder trained on weak labels"
    assert told in list(plan.notes())
    assert source_notes(plan.facts()["pretraining"])[0] == told
    assert source_notes(None) == []
