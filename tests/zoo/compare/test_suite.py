"""Suites: axes, overrides, refusals, and the cells they span."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from facts import says
from serzoo.zoo.compare import conditions, few_shot, suite
from serzoo.zoo.compare.compare import plan
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.schema import RunConfig

TEXT = """
title: Two heads
axes:
  recipe: [synthetic]
  head: [classification, prototype]
  fold: [0, 2]
  seed: [1, 2]
overrides: [optim.epochs=3]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, Any]]:
    """Folds are asked for, but no corpus is opened: it has three."""
    calls: list[tuple[RunConfig, Any]] = []

    def audit_folds(cfg: RunConfig, folds: list[int] | None = None) -> list[int]:
        calls.append((cfg, folds))
        return [0, 1, 2] if folds is None else folds

    monkeypatch.setattr(suite, "audit_folds", audit_folds)
    return calls


def test_a_suite_file(file: Path) -> None:
    found = suite.load(str(file))
    assert (found.name, found.title, found.baseline) == ("mine", "Two heads", "classification")
    assert found.axes["fold"] == [0, 2]
    assert found.overrides == ["optim.epochs=3"]


def test_overrides_replace_axes_and_hold_for_every_cell(file: Path) -> None:
    found = suite.load(str(file), ["head=[selm]", "seed=7", "fold=all", "optim.lr=1e-2"])
    assert found.axes == {"recipe": ["synthetic"], "head": ["selm"], "fold": "all", "seed": [7]}
    assert found.overrides == ["optim.epochs=3", "optim.lr=1e-2"]


def test_cells_compare_heads_early(file: Path, opened: list[tuple[RunConfig, Any]]) -> None:
    cells = suite.expand(suite.load(str(file)), out="there")
    assert [(c.seed, c.fold, c.head) for c in cells] == [
        (seed, fold, head)
        for seed in (1, 2)
        for fold in (0, 2)
        for head in ("classification", "prototype")
    ]
    assert [(c.cfg.seed, c.cfg.fold, c.cfg.head["type"]) for c in cells] == [
        (c.seed, c.fold, c.head) for c in cells
    ]
    assert len({c.name for c in cells}) == len(cells) == 8
    assert {c.cfg.optim.epochs for c in cells} == {3}
    assert {c.cfg.trainer.out for c in cells} == {"there"}
    assert cells[0].name == f"synthetic-logmel-classification-f0-s1-{cells[0].cfg.fingerprint[:6]}"
    # one corpus is opened once, whatever the number of heads and seeds
    assert [folds for _, folds in opened] == [[0, 2]]


def test_epochs_are_selected_by_the_metric_of_the_suite(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    plain, by_wa = (
        suite.expand(suite.load(str(file), more), out="there") for more in ([], ["metric=wa"])
    )
    assert {c.cfg.optim.metric for c in plain} == {"uar"}
    assert {c.cfg.optim.metric for c in by_wa} == {"wa"}
    # what is set for every cell is set on purpose
    own = suite.load(str(file), ["metric=wa", "optim.metric=macro_f1"])
    assert {c.cfg.optim.metric for c in suite.expand(own, out="there")} == {"macro_f1"}


def test_all_folds_are_those_of_the_protocol(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    cells = suite.expand(suite.load(str(file), ["fold=all", "seed=[1]"]), out="x")
    assert [c.fold for c in cells] == [0, 0, 1, 1, 2, 2]
    assert [folds for _, folds in opened] == [None]


def test_heads_of_a_cell_differ_in_nothing_else(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    first, second, *_ = suite.expand(suite.load(str(file)), out="x")
    a, b = first.cfg.to_dict(), second.cfg.to_dict()
    assert a.pop("head") != b.pop("head")
    assert a.pop("head_name") != b.pop("head_name")
    assert a == b


def test_two_configurations_of_one_head_are_two_methods(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    file.write_text(TEXT.replace("[classification, prototype]", "[linear, mlp]") + "baseline: mlp")
    found = suite.load(str(file), ["fold=0", "seed=1"])
    assert found.baseline == "mlp"
    cells = suite.expand(found, out="x")
    assert [c.head for c in cells] == [c.cfg.called for c in cells] == ["linear", "mlp"]
    assert {c.cfg.head["type"] for c in cells} == {"classification"}
    assert [c.name.split("-")[2] for c in cells] == ["linear", "mlp"]


def test_an_axis_of_encoders_brings_each_its_own_optim(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    chosen = suite.load(
        str(file), ["encoder=[logmel,hubert-base]", "head=[selm]", "fold=0", "seed=1"]
    )
    cells = suite.expand(chosen, out="x")
    assert [(c.encoder, c.cfg.encoder["type"]) for c in cells] == [
        ("logmel", "logmel"),
        ("hubert-base", "hf"),
    ]
    assert cells[0].cfg.optim != cells[1].cfg.optim


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("title:", "tittle:", "'tittle'.* axes, .*'title'"),
        ("  head:", "  haed:", "'haed'.* corpus, .*'head'"),
        ("  seed: [1, 2]\n", "", "'seed'.* list"),
        ("[1, 2]", "[]", "'seed'.* list"),
        ("[1, 2]", "[1, 1]", r"seed .*\[1, 1\]"),
        ("[0, 2]", "[a]", r"fold .*\['a'\].* all$"),
        ("[optim.epochs=3]", "{optim: 3}", r"overrides .*\{'optim': 3\}.*key=value"),
        ("title: Two heads", "baseline: selmm", "baseline 'selmm'.* classification, .*'selm'"),
        ("axes:", "axis:", "'axis'.* axes, .*'axes'"),
        (
            "  fold:",
            "  encodr.tuning: [lora]\n  fold:",
            r"'encodr\.tuning'.* encoder\.KEY.*'tuning'",
        ),
        ("  fold:", "  tuning: []\n  fold:", r"tuning .*\[\].* list"),
        ("title:", "limit_minutes: 0\ntitle:", r"limit_minutes .*\b0[;,] .*\b0\b"),
        ("title:", "search: 8\ntitle:", r"'search' .*\b8\b.*search\.trials, search\.space"),
        (
            "title:",
            "search: {trials: 1, space: {optim.lr: [1]}}\ntitle:",
            r"search\.trials=1 .*\b2\b",
        ),
        (
            "title:",
            "search: {trials: 2, space: {encoder.dim: [1]}}\ntitle:",
            r"'encoder\.dim' .*optim\.KEY .*head\.KEY",
        ),
        (
            "title:",
            "search: {trials: 2, space: {optim.lr: {low: 2, high: 1}}}\ntitle:",
            r"optim\.lr .*\{'low': 2, 'high': 1\}.*\{low: 1e-4, high: 1e-2\}",
        ),
        (
            "title:",
            "search: {trials: 2, sampler: best, space: {optim.lr: [1]}}\ntitle:",
            r"search\.sampler .*'best'.* random, grid, tpe, gp",
        ),
        (
            "title:",
            "search: {trials: 2, space: {optim.lr: {low: 1, high: 2, lgo: true}}}\ntitle:",
            r"optim\.lr .*'lgo': True.*log: false",
        ),
        ("title:", "search: {trials: 2, space: {}}\ntitle:", r"search\.space .*\{KEY: "),
        ("title:", "name: other\ntitle:", "'name'.* axes, "),
        ("title: Two heads", "title: 1e3", r"title: 1000\.0 .*quotes"),
        ("title:", "limit_minutes: '5'\ntitle:", "limit_minutes .*'5'.*minutes"),
        ("title:", "pretraining: 5\ntitle:", "'pretraining' .*5.* each name"),
        (TEXT, "title: x", r"axes: \{recipe: \[\.\.\.\], head: \[\.\.\.\]\}"),
        (TEXT, "- x", r"mine\.yaml .*list.*\bkey: value"),
        (TEXT, "a: [", "line 1, column 5"),
    ],
)
def test_mistakes_are_told(file: Path, before: str, after: str, message: str) -> None:
    assert before in TEXT
    file.write_text(TEXT.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        suite.load(str(file))


def test_unknown_suites_and_overrides_are_told(file: Path) -> None:
    with pytest.raises(ConfigError, match=says("'quikstart'", "frozen", "'quickstart'")):
        suite.load("quikstart")
    with pytest.raises(ConfigError, match=says("nowhere.yaml", "frozen", "quickstart")):
        suite.load("nowhere.yaml")
    with pytest.raises(ConfigError, match=says("'selm'", "optim.lr=1e-3")):
        suite.load(str(file), ["selm"])
    with pytest.raises(ConfigError, match=says("'optim.epoch'", "accumulate", "'epochs'")):
        suite.expand(suite.load(str(file), ["optim.epoch=3"]), out="x")


# -- free axes -----------------------------------------------------------------------------------


def test_a_free_axis_spans_cells_that_are_named_and_kept_apart(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    extra = "  share: [0.1, 1.0]\n  data.batch_size: [4, 8]\n  fold:"
    file.write_text(TEXT.replace("  fold:", extra).replace("[0, 2]", "[0]").replace("[1, 2]", "1"))
    cells = suite.expand(suite.load(str(file)), out="x")
    heads = ("classification", "prototype")
    spanned = [(s, b, h) for s in (0.1, 1.0) for b in (4, 8) for h in heads]
    assert [(c.point["share"], c.point["data.batch_size"], c.head) for c in cells] == spanned
    assert [(c.cfg.data.train_share, c.cfg.data.batch_size, c.head) for c in cells] == spanned
    assert cells[0].name.startswith("synthetic-logmel-classification-share_0.1-batch_size_4-f0-s1-")
    assert len({c.name for c in cells}) == len({c.cfg.fingerprint for c in cells}) == 8
    assert {c.kind for c in cells if c.point["share"] == 1 and c.point["data.batch_size"] == 8} == {
        ("synthetic", "logmel", h, "share=1.0, data.batch_size=8") for h in heads
    }


def test_a_tuning_axis_brings_each_its_own_optim(
    file: Path, opened: list[tuple[RunConfig, Any]]
) -> None:
    axis = ["encoder=[hubert-base]", "axes.tuning=[frozen,lora,full]", "head=[selm]"]
    cells = suite.expand(suite.load(str(file), [*axis, "fold=0", "seed=1"]), out="x")
    assert [c.cfg.encoder["tuning"] for c in cells] == ["frozen", "lora", "full"]
    assert len({c.cfg.optim.lr for c in cells}) >= 2
    assert len(opened) == 1  # the data are the same


def test_protocols_are_an_axis(file: Path, opened: list[tuple[RunConfig, Any]]) -> None:
    axis = ["axes.protocol=[kfold-5,kfold-3]", "head=[selm]", "fold=0", "seed=1"]
    cells = suite.expand(suite.load(str(file), axis), out="x")
    assert [c.cfg.protocol for c in cells] == ["kfold-5", "kfold-3"]
    assert len(opened) == 2


def test_an_axis_of_the_suite_can_be_narrowed(file: Path) -> None:
    file.write_text(TEXT.replace("  fold:", "  data.batch_size: [4, 8]\n  fold:"))
    assert suite.load(str(file), ["data.batch_size=4"]).axes["data.batch_size"] == [4]
    assert suite.load(str(file), ["data.batch_seconds=4"]).overrides[-1] == "data.batch_seconds=4"


def test_limits_and_searches_can_be_overridden(file: Path) -> None:
    found = suite.load(
        str(file), ["limit_minutes=2.5", "search={trials: 2, space: {optim.lr: [1]}}"]
    )
    assert (found.limit_minutes, found.search and found.search.trials) == (2.5, 2)
    file.write_text(TEXT + "search: {trials: 8, space: {optim.lr: {low: 1e-4, high: 1e-2}}}\n")
    found = suite.load(str(file), ["search.trials=3"])
    assert found.search is not None
    assert (found.search.trials, list(found.search.space)) == (3, ["optim.lr"])


# Settings on the command line.


@pytest.mark.parametrize("out", ["run #3", "[x]", "null", "a: b", "2024", '"q"'])
def test_the_folder_of_all_runs_is_what_was_typed(
    file: Path, opened: list[tuple[RunConfig, Any]], out: str
) -> None:
    found = suite.load(str(file), [f"data.root={out} ", "fold=0", "seed=1"])
    cell = suite.expand(found, out=out)[0]
    assert (cell.cfg.trainer.out, cell.cfg.data.root) == (out, f"{out} ")


def test_a_bar_that_is_asked_for_is_there(file: Path, opened: list[tuple[RunConfig, Any]]) -> None:
    shown = [
        suite.expand(suite.load(str(file), ["fold=0", "seed=1", *more]), out="x")[0].cfg
        for more in ([], ["trainer.progress=true"])
    ]
    assert [cfg.trainer.progress for cfg in shown] == [False, True]


def test_axes_are_lists_and_texts_in_them_stay(file: Path) -> None:
    typed = [
        "head=[gen_ser, mlp]",
        "axes.corpus=[[emodb, nemo], synthetic]",
        "axes.data.root=[a b, 007]",
    ]
    typed += ["fold=all", "seed=[1,2]", "axes.optim.lr=[1e-3, 1e-2]", "share=0.1"]
    assert suite.load(str(file), typed).axes == {
        "recipe": ["synthetic"],
        "head": ["gen_ser", "mlp"],
        "fold": "all",
        "seed": [1, 2],
        "corpus": [["emodb", "nemo"], "synthetic"],
        "data.root": ["a b", "007"],
        "optim.lr": [0.001, 0.01],
        "share": [0.1],
    }


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ([], "Two heads"),
        (["seed=1", "head=[mlp]", "optim.lr=1"], "Two heads"),
        (["corpus=[emodb]", "seed=1"], "Two heads; here with corpus=[emodb]"),
        (["recipe=[emodb]", "taxonomy=a"], "Two heads; here with recipe=[emodb], taxonomy=a"),
        (["corpus=[emodb]", "title=Heads on EMO-DB: #1"], "Heads on EMO-DB: #1"),
    ],
)
def test_a_title_follows_what_was_typed_or_can_be_set(
    file: Path, typed: list[str], title: str
) -> None:
    assert suite.load(str(file), typed).title == title


@pytest.mark.parametrize("name", ["smoke", "robustness", "few_shot"])
def test_the_folder_of_a_comparison_is_not_that_of_a_run(name: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.out=there .*--out there"):
        plan(name, ["trainer.out=there"])


def test_a_suite_cannot_set_the_folder_of_its_cells_either(file: Path) -> None:
    file.write_text(TEXT.replace("[optim.epochs=3]", "[trainer.out=there]"))
    with pytest.raises(ConfigError, match=r"trainer\.out=there .*--out there"):
        suite.load(str(file))


# what a suite asks of its tables


def test_questions_have_defaults_and_can_be_typed(file: Path) -> None:
    found = suite.load(str(file))
    assert (found.primary, found.margin, found.metric) == (None, 0.03, "uar")
    typed = ["primary=[selm, gen_ser after weak]", "margin=0.02", "metric=macro_f1"]
    found = suite.load(str(file), typed)
    assert found.primary == ["selm", "gen_ser after weak"]
    assert (found.margin, found.metric) == (0.02, "macro_f1")


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        ("primary=[sellm]", ("primary", "'sellm'", "'selm'")),
        ("primary=[]", ("primary", "list of heads")),
        ("margin=0", ("margin", "between 0 and 1")),
        ("margin=3", ("margin", "between 0 and 1")),
        ("metric=uwr", ("metric", "'uwr'", "uar")),
    ],
)
@pytest.mark.parametrize("kind", ["axes", "conditions", "shots"])
def test_wrong_questions_are_told(
    file: Path, kind: str, typed: str, facts: tuple[str, ...]
) -> None:
    name = {"axes": str(file), "conditions": "robustness", "shots": "few_shot"}[kind]
    load = {"axes": suite.load, "conditions": conditions.load, "shots": few_shot.load}[kind]
    with pytest.raises(ConfigError, match=says(*facts)):
        load(name, [typed])


def test_questions_of_all_kinds_are_kept() -> None:
    typed = ["primary=[selm]", "margin=0.05", "metric=wa"]
    for found in (conditions.load("robustness", typed), few_shot.load("few_shot", typed)):
        assert (found.primary, found.margin, found.metric) == (["selm"], 0.05, "wa")
