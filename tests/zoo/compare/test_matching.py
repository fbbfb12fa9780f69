"""Heads of equal size: what is searched, what is left alone, and what cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import says, tells
from serzoo.zoo.compare import search, suite
from serzoo.zoo.compare.search import Match, count, match
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.report.table import matching_notes
from serzoo.zoo.run import config
from serzoo.zoo.run.schema import RunConfig

DIM = 96
TAXONOMY = Taxonomy.load("basic7")
SCALED = ("classification_hidden", "mlp", "selm", "gen_ser", "regress_codes", "prototype")


def load(head: str, *overrides: str) -> RunConfig:
    return config.load("synthetic", [f"head={head}", *overrides])


def size(cfg: RunConfig) -> int:
    options = {k: v for k, v in cfg.head.items() if k != "type"}
    return count(cfg.head["type"], DIM, TAXONOMY, options)


def test_the_count_is_that_of_the_layers() -> None:
    # layer norm, hidden layer, output: by hand
    by_hand = 2 * DIM + (DIM * 256 + 256) + (256 * 7 + 7)
    assert size(load("mlp")) == by_hand


@pytest.mark.parametrize("target", [250_000, 700_000])
def test_every_head_that_scales_is_brought_within_ten_per_cent(target: int) -> None:
    heads = [load(name) for name in SCALED]
    for cfg, found in zip(heads, match(heads, DIM, TAXONOMY, target), strict=True):
        assert abs(found.parameters - target) <= 0.1 * target, cfg.called
        # what is said is what is built
        assert size(load(cfg.called, *found.overrides)) == found.parameters
        assert set(found.settings) <= set(registry.get("heads", cfg.head["type"]).sizes)


def test_the_nearest_value_of_a_knob_is_found() -> None:
    (found,) = match([load("mlp")], DIM, TAXONOMY, 100_000)
    # 192 + 97 h + 7 h + 7 = 104 h + 199
    assert found == Match(100_000, 104 * 960 + 199, {"hidden": 960})


def test_a_head_that_is_near_enough_is_left_alone() -> None:
    cfg = load("mlp")
    assert match([cfg], DIM, TAXONOMY, cfg) == [Match(size(cfg), size(cfg))]
    assert match([cfg], DIM, TAXONOMY, int(size(cfg) * 1.05))[0].settings == {}


def test_a_head_may_shrink() -> None:
    (found,) = match([load("gen_ser")], DIM, TAXONOMY, size(load("gen_ser")) // 2)
    assert found.settings["width"] < load("gen_ser").head["width"]


def test_a_second_knob_fills_up_what_the_first_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"a": 32, "b": 1}
    monkeypatch.setattr(search, "count", lambda *p: p[3]["a"] ** 2 + 5 * p[3]["b"])
    monkeypatch.setattr(registry, "get", lambda *_: type("Some", (), {"sizes": sizes}))
    cfg = RunConfig(head={"type": "some", "a": 64, "b": 1})
    (found,) = match([cfg], DIM, TAXONOMY, 13_000)
    assert found.settings == {"a": 96, "b": 757}  # 96^2 = 9216, and 128^2 = 16384 is too much
    assert found.parameters == 9216 + 5 * 757


def test_a_knob_without_effect_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"a": 32, "b": 1}
    monkeypatch.setattr(search, "count", lambda *p: 100 + 5 * p[3]["b"])
    monkeypatch.setattr(registry, "get", lambda *_: type("Some", (), {"sizes": sizes}))
    (found,) = match([RunConfig(head={"type": "s", "a": 64, "b": 1})], DIM, TAXONOMY, 1100)
    assert found == Match(1100, 1100, {"b": 200})


def test_what_cannot_be_had_is_told_for_every_head() -> None:
    heads = [load("linear"), load("classification"), load("gen_ser"), load("mlp")]
    with pytest.raises(ConfigError) as caught:
        match(heads, DIM, TAXONOMY, 5_000)
    text = str(caught.value)
    assert text.startswith("match_params wants 5,000 trainable parameters within 10%: ")
    assert tells(text, "head 'linear'", 871, "hidden", 0)
    assert "head 'classification' has" in text
    assert "head 'gen_ser'" in text
    assert "width=8" in text
    assert "'mlp'" not in text
    assert "match_params=NUMBER" in text


# Equal sizes in a suite.


def write(folder: Path, extra: str) -> str:
    path = folder / "sizes.yaml"
    path.write_text(
        "title: Sizes\naxes: {recipe: [synthetic], head: [mlp, gen_ser, selm], fold: [0, 1], "
        f"seed: [1]}}\n{extra}"
    )
    return str(path)


@pytest.mark.parametrize(
    ("extra", "overrides"),
    [
        ("baseline: gen_ser\nmatch_params: true\n", []),
        ("baseline: mlp\n", ["match_params=gen_ser"]),
        ("match_params: false\n", ["baseline=gen_ser", "match_params=true"]),
    ],
)
def test_a_suite_s_heads_are_matched(
    extra: str, overrides: list[str], tmp_path: Path, audited: None
) -> None:
    cells = suite.expand(suite.load(write(tmp_path, extra), overrides), out="x")
    target = size(load("gen_ser"))
    assert len(cells) == 6
    for cell in cells:
        assert cell.match is not None
        assert cell.match.target == target
        assert abs(size(cell.cfg) - target) <= 0.1 * target
        assert cell.cfg.called == cell.head
    assert cells[1].cfg.head == load("gen_ser").head
    rows = suite.matched(cells)
    assert [r["head"] for r in rows] == ["mlp", "gen_ser", "selm"]
    (note,) = matching_notes(rows)
    assert note.startswith(
        f"synthetic, encoder logmel: heads matched to {target:,} trainable parameters within 10 "
        f"%: mlp {rows[0]['parameters']:,} (hidden={rows[0]['settings']['hidden']}), "
        f"gen_ser {target:,}, selm "
    )


def test_a_suite_that_does_not_ask_is_left_as_it_is(tmp_path: Path, audited: None) -> None:
    cells = suite.expand(suite.load(write(tmp_path, "")), out="x")
    assert {c.match for c in cells} == {None}
    assert suite.matched(cells) == matching_notes([]) == []
    assert cells[0].cfg.head == load("mlp").head


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "gen_sr", "null", "[1]"])
def test_a_target_that_is_none_is_told(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says("match_params", 0, "gen_ser")):
        suite.load(write(tmp_path, ""), [f"match_params={value}"])


def test_the_record_holds_what_was_matched(tiny_recipe: str, tmp_path: Path) -> None:
    from serzoo.zoo.compare.compare import compare

    path = tmp_path / "two.yaml"
    path.write_text(
        f"title: Two\naxes: {{recipe: [{tiny_recipe}], head: [mlp, prototype], fold: [0], "
        "seed: [1]}\noverrides: [optim.epochs=1]\nbaseline: mlp\nmatch_params: true\n"
    )
    done = compare(str(path), out=str(tmp_path / "runs"), workers=1)
    assert done["failed"] == 0
    rows = {r.head: r for r in done["summary"]}
    target = rows["mlp"].head_trainable
    assert abs(rows["prototype"].head_trainable - target) <= 0.1 * target
    text = (done["folder"] / "table.md").read_text()
    assert f"heads matched to {target:,} trainable parameters within 10 %: mlp {target:,}, " in text
    assert f"prototype {rows['prototype'].head_trainable:,} (embedding=" in text
