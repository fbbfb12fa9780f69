"""Every configuration that ships can be used."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.compare import axes, suite
from serzoo.zoo.core import registry, shipped
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config

NAMES = {
    group: shipped.names(group)
    for group in ("corpus", "distil", "encoder", "head", "optim", "protocol", "recipe", "suite")
}
CONTROLS = [n for n in NAMES["head"] if n not in registry.BUILT_IN["heads"]]
"""Configurations named unlike their type; what they leave out is as in the type's own file."""

MIXED = {
    "emodb_nemo": ["emodb", "nemo"],
    "ravdess_nemo": ["ravdess", "nemo"],
    "big4_transfer": ["ravdess", "emodb", "nemo"],
    "nemo_joined": ["nemo", "ravdess", "emodb"],
    "lanser_pretrain": ["synthetic_talk"],
    "lanser_finetune": ["synthetic"],
    "selm_paper": ["meld"],
}


def test_how_many_there_are() -> None:
    # the heads are counted by name in tests/heads/test_contract.py
    found = {group: len(names) for group, names in NAMES.items() if group != "head"}
    assert found == {
        "corpus": 38,
        "distil": 1,
        "encoder": 35,
        "optim": 4,
        "protocol": 25,
        "recipe": 20,
        "suite": 43,
    }
    assert len(Taxonomy.names()) == 18


def test_every_group_of_the_checkout_is_tested_here() -> None:
    root = Path(__file__).resolve().parents[2] / "configs"
    groups = {p.parent.name for p in root.glob("*/*.yaml")}
    assert groups == {*NAMES, "claim", "lexicon", "published", "taxonomy"}
    for group, names in NAMES.items():
        assert names == sorted(p.stem for p in (root / group).glob("*.yaml"))


PAIRS = list(product(NAMES["head"], NAMES["recipe"]))
MAIN = {"classification", "selm", "gen_ser"}


@pytest.mark.parametrize(
    ("head", "recipe"),
    [
        pytest.param(h, r, marks=[] if h in MAIN or r == "synthetic" else pytest.mark.slow)
        for h, r in PAIRS
    ],
)
def test_every_recipe_takes_every_head(recipe: str, head: str) -> None:
    cfg = config.load(recipe, [f"head={head}"])
    assert cfg.called == cfg.head_name == head
    assert cfg.head["type"] == config.read_group("head", head)["type"]
    assert cfg.corpus == MIXED.get(recipe, [recipe])
    assert config.build_taxonomy(cfg) is not None


@pytest.mark.parametrize("encoder", NAMES["encoder"])
@pytest.mark.parametrize("optim", NAMES["optim"])
def test_every_encoder_takes_every_optim(encoder: str, optim: str) -> None:
    cfg = config.load("synthetic", [f"encoder={encoder}", f"optim={optim}"])
    assert cfg.encoder["type"] in registry.names("encoders")
    for key, value in config.read_group("optim", optim).items():
        assert getattr(cfg.optim, key) == value


@pytest.mark.parametrize("encoder", NAMES["encoder"])
def test_every_encoder_names_an_optim_that_suits_it(encoder: str) -> None:
    assert config.read_group("encoder", encoder)["optim"] in NAMES["optim"]


@pytest.mark.parametrize("encoder", NAMES["encoder"])
def test_every_encoder_s_options_fit_its_constructor(encoder: str) -> None:
    options = config.read_group("encoder", encoder)
    options.pop("optim")
    kind = options.pop("type")
    registry.check_options("encoders", kind, options)
    if kind == "hf":
        assert options["name"].count("/") == 1
        revision = options["revision"]
        assert revision is None or re.fullmatch(r"[0-9a-f]{40}|refs/pr/[1-9]\d*", revision)


def test_no_two_encoders_are_the_same_published_model() -> None:
    groups = [config.read_group("encoder", n) for n in NAMES["encoder"] if n != "hf"]
    published = [group.get("name") for group in groups if group["type"] == "hf"]
    named = [name for name in published if name is not None]
    # one file for each built-in encoder, and two feature sets of openSMILE
    others = len(registry.BUILT_IN["encoders"]) + 1
    assert len(named) == len(set(named)) == len(NAMES["encoder"]) - others


def test_the_file_of_any_published_encoder_lists_every_knob_with_its_default() -> None:
    values = config.read_group("encoder", "hf")
    del values["type"], values["optim"], values["name"]
    schema = registry.schema_of(registry.get("encoders", "hf"))
    assert values == {key: knob.default for key, knob in schema.items() if key != "name"}


def test_every_encoder_is_in_the_reference() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    text = (docs / "reference" / "configuration.md").read_text("utf-8")
    assert [n for n in NAMES["encoder"] if f"`{n}`" not in text and n != "hf"] == []


@pytest.mark.parametrize("name", [n for n in NAMES["head"] if n not in CONTROLS])
def test_a_head_s_file_lists_every_knob_with_the_constructor_s_default(name: str) -> None:
    values = config.read_group("head", name)
    kind = values.pop("type")
    schema = registry.schema_of(registry.get("heads", kind))
    assert values == {key: knob.default for key, knob in schema.items()}
    assert [type(v) for v in values.values()] == [type(schema[k].default) for k in values]


def test_every_built_in_head_has_a_file() -> None:
    assert set(NAMES["head"]) >= set(registry.BUILT_IN["heads"])


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_from_its_head(name: str) -> None:
    values = config.read_group("head", name)
    kind = values.pop("type")
    registry.check_options("heads", kind, values)
    schema = registry.schema_of(registry.get("heads", kind))
    assert [k for k, v in values.items() if v != schema[k].default]


def test_the_control_shares_the_values_of_what_it_controls() -> None:
    ours, theirs = config.read_group("head", "gen_ser"), config.read_group("head", "regress_codes")
    shared = (set(ours) & set(theirs)) - {"type"}
    assert shared == set(theirs) - {"type"}
    assert {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}


SUITES = [name for name in NAMES["suite"] if "axes" in config.read_group("suite", name)]
"""Those that train; the others go over the cells of one of these."""


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_names_what_exists(name: str) -> None:
    found = suite.load(name)
    axes.check(found.axes)
    assert set(found.axes["recipe"]) <= set(NAMES["recipe"])
    assert set(found.axes["head"]) <= set(NAMES["head"])
    assert found.baseline in found.axes["head"]
    encoders = [f"encoder={name}" for name in found.axes.get("encoder", [])]
    assert {e.removeprefix("encoder=") for e in encoders} <= set(NAMES["encoder"])
    for recipe in found.axes["recipe"]:
        for head, point in product(found.axes["head"], axes.points(found.axes)):
            for encoder in encoders or [""]:
                chosen = [*filter(None, [encoder]), *found.overrides, f"head={head}"]
                config.load(recipe, [*chosen, *axes.overrides(point)])


WITHOUT_THE_PUBLISHED = {"quickstart", "smoke"}
"""They only show that everything runs."""


@pytest.mark.parametrize("name", sorted(set(NAMES["suite"]) - WITHOUT_THE_PUBLISHED))
def test_the_published_objective_of_gen_ser_stands_beside_ours(name: str) -> None:
    values = config.read_group("suite", name)
    places = (values.get("axes") or {}, values.get("only") or {}, values)
    heads = next(place["head"] for place in places if "head" in place)
    assert "gen_ser" not in heads or "gen_ser_target_only" in heads  # which may stand alone
    assert config.read_group("head", "gen_ser_target_only")["source_share"] == 0


@pytest.mark.parametrize("name", Taxonomy.names())
def test_every_taxonomy_loads(name: str) -> None:
    taxonomy = Taxonomy.load(name)
    assert taxonomy.name == name
    assert len(taxonomy.forms) == len(taxonomy)


def test_no_two_taxonomies_of_different_names_are_equal() -> None:
    prints = {n: Taxonomy.load(n).fingerprint for n in Taxonomy.names()}
    assert [(a, b) for a in prints for b in prints if a < b and prints[a] == prints[b]] == []


@pytest.mark.parametrize("name", NAMES["protocol"])
def test_every_protocol_loads(name: str) -> None:
    assert Protocol.load(name).name.partition("@")[0] == name


@pytest.mark.parametrize("name", NAMES["corpus"])
def test_every_corpus_loads_and_its_defaults_exist(name: str) -> None:
    info = CorpusInfo.load(name)
    assert name in registry.names("corpora")
    if info.protocol is not None:
        Protocol.load(info.protocol)
    if info.taxonomy is not None:
        taxonomy = Taxonomy.load(info.taxonomy)
        # a corpus of any words (weak labels) says what it has in its other columns
        columns = [info.labels] if info.labels else list(info.alternative_labels.values())
        assert columns
        for column in columns:
            kept = {taxonomy.class_of(label) for label in column.values() if label is not None}
            assert kept >= set(range(len(taxonomy)))


def test_every_registered_corpus_has_a_file() -> None:
    assert NAMES["corpus"] == sorted(registry.BUILT_IN["corpora"])
