"""Free axes of a comparison, from a suite's file to its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts import says
from serzoo.zoo.compare import axes
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.report.runs import find_cells
from serzoo.zoo.run.words import parse


def test_what_is_an_axis() -> None:
    axes.check([*axes.AXES, *axes.SHORT, *axes.PLAIN, "optim.lr", "encoder.tuning", "head.x"])
    for wrong in ("lr", "trainer.threads", "axes.lr", "sed"):
        with pytest.raises(ConfigError, match=says(f"'{wrong}'", "corpus, data.KEY")):
            axes.check([wrong])


def test_points_are_all_combinations_of_the_free_axes() -> None:
    spanned = {"head": ["selm"], "share": [0.1, 1.0], "seed": [1], "optim.lr": [1e-3, 1e-2]}
    assert axes.points(spanned) == [
        {"share": s, "optim.lr": lr} for s in (0.1, 1.0) for lr in (1e-3, 1e-2)
    ]
    assert axes.points({"head": ["selm"]}) == [{}]


@pytest.mark.parametrize("value", [1e-05, 0.1, 3, True, None, "lora", "0010", [1, 2], "a b"])
def test_overrides_read_back_as_what_they_say(value: object) -> None:
    (override,) = axes.overrides({"tuning": value})
    assert parse([override]) == [("encoder.tuning", value)]


def test_names() -> None:
    point = {"tuning": "lora", "data.train_share": 0.1, "encoder.layers": [4, 6]}
    assert axes.shown(point) == "tuning=lora, data.train_share=0.1, encoder.layers=[4, 6]"
    assert axes.in_name(point) == "-tuning_lora-train_share_0.1-layers_4_6"
    assert axes.shown({}) == axes.in_name({}) == ""


def test_values_of_an_axis_are_tabulated_apart(tiny_recipe: str, tmp_path: Path) -> None:
    spanned = {"recipe": [tiny_recipe], "share": [0.4, 1.0], "head": ["linear", "prototype"]}
    suite = {"title": "S", "axes": {**spanned, "fold": [0], "seed": [1]}, "baseline": "linear"}
    path = tmp_path / "shares.yaml"
    path.write_text(json.dumps({**suite, "overrides": ["optim.epochs=1"]}))
    done = compare(str(path), out=str(tmp_path / "runs"), workers=1)
    assert (done["cells"], done["done"], done["failed"]) == (4, 4, 0)
    tables: dict[str, set[str]] = {}
    for row in done["summary"]:
        tables.setdefault(row.recipe, set()).add(row.head)
    both = {"linear", "prototype"}
    assert tables == {"tiny, share=0.4": both, "tiny, share=1.0": both}
    for run in find_cells(tmp_path / "runs" / "shares").runs:
        share = run.record.axes["share"]
        assert run.record.config["data"]["train_share"] == share
        kept = run.record.counts["kept"]
        # 0.4 of 6 of each class, rounded
        assert set(kept["train"].values()) == {2 if share == 0.4 else 6}
        assert set(kept["test"].values()) == {2}
    told = [
        run.record.counts["train_share"]["utterances"]
        for run in find_cells(tmp_path / "runs" / "shares").runs
        if run.record.axes["share"] < 1
    ]
    assert len(told) == 2
    assert len(set(told)) == 1  # the same for both heads
