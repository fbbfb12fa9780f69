"""What `serzoo list` tells: every part, its facts, its options; within 80 columns."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from facts import says, tells
from published_names import (
    BASE,
    BERT,
    BUCKETS,
    CONVOLUTIONS,
    DATA2VEC,
    FORMS,
    GROUP,
    LARGE,
    LAYER,
    SEW,
    WHISPER,
)
from rich.console import Console
from serzoo.zoo.cli import main
from serzoo.zoo.core import listing, registry, shipped
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.shipped import KINDS, Kind

SHIPPED = [(kind, name) for kind in KINDS for name in shipped.names(listing.GROUPS[kind])]
SHIPPED.remove(("taxonomies", "canonical"))  # the vocabulary
WITH_OPTIONS: tuple[Kind, ...] = ("heads", "encoders", "corpora")


def shown(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["list", *words]) == 0
    return capsys.readouterr().out


# Entries.


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_listed_once(kind: Kind) -> None:
    names = listing.names(kind)
    assert len(names) == len(set(names)) >= 9
    assert {n for k, n in SHIPPED if k == kind} <= set(names)


def test_every_shipped_part_says_in_one_sentence_what_it_is() -> None:
    abouts = {(kind, name): listing.entry(kind, name).about for kind, name in SHIPPED}
    assert len(abouts) >= 150
    assert {key: a for key, a in abouts.items() if not 5 <= len(a) <= 160} == {}
    assert {key: a for key, a in abouts.items() if "arXiv" in a or a != a.strip()} == {}


def test_the_facts_of_an_encoder() -> None:
    found = listing.entry("encoders", "whisper-base")
    assert found.about == "Whisper base, its encoder: 6 blocks, D = 512."
    assert found.paper == "arXiv 2212.04356"
    assert (found.millions, found.licence) == (20.6, "Apache-2.0")
    assert (found.needs, found.source) == ("hub", "openai/whisper-base")


@pytest.mark.parametrize(
    ("kind", "name", "needs", "source"),
    [
        ("encoders", "logmel", "nothing", ""),
        ("encoders", "hf", "hub", ""),
        ("encoders", "trained", "yours", ""),
        ("heads", "selm", "nothing", ""),
        ("heads", "selm_gpt2", "hub", "gpt2"),
        ("corpora", "ravdess", "publisher", "https://zenodo.org/records/1188976"),
        ("corpora", "synthetic", "nothing", ""),
        ("corpora", "folder", "yours", ""),
    ],
)
def test_what_a_part_needs(kind: Kind, name: str, needs: str, source: str) -> None:
    found = listing.entry(kind, name)
    assert (found.needs, found.source) == (needs, source)


def test_a_variant_follows_the_paper_of_its_head() -> None:
    assert listing.entry("heads", "selm_views").paper == "arXiv 2407.15300"
    assert listing.entry("heads", "gen_ser_flow").paper == "arXiv 2601.20573"
    assert listing.entry("heads", "linear").paper == ""


def test_every_published_model_has_paper_size_and_licence() -> None:
    found = [e for kind in WITH_OPTIONS for e in listing.entries(kind) if e.needs == "hub"]
    whole = [e for e in found if e.source]
    assert len(whole) == 38
    assert [e.name for e in whole if not (e.paper and e.licence)] == []
    encoders = [e for e in listing.entries("encoders") if e in whole]
    assert [e.name for e in encoders if not e.millions] == []
    own = {"logmel", "resnet50", "functionals", "opensmile", "serzoo-small"}
    used = {e.source for e in whole} | own
    assert used == set(shipped.read("published", "models"))


def count(family: str, **config: Any) -> float:
    """Millions of weights of an encoder, from the shapes of published files."""
    shapes = FORMS[family](config)
    start = "encoder." if family == "whisper" else ""
    return sum(math.prod(s) for name, s in shapes.items() if name.startswith(start)) / 1e6


def whisper(width: int, blocks: int, mel: int = 80) -> float:
    sizes = {"d_model": width, "encoder_layers": blocks, "encoder_ffn_dim": 4 * width}
    return count("whisper", **{**WHISPER, **sizes, "num_mel_bins": mel})


TALL = {**BASE, **CONVOLUTIONS, **GROUP}
WIDE = {**LARGE, **CONVOLUTIONS, **LAYER, "conv_bias": True}
BILLION = {**WIDE, "hidden_size": 1280, "num_hidden_layers": 48, "intermediate_size": 5120}
MID_SEW = {**SEW, "hidden_size": 768, "num_hidden_layers": 24, "intermediate_size": 3072}


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("wav2vec2-base", count("wav2vec2", **TALL)),
        ("wav2vec2-large", count("wav2vec2", **{**TALL, **LARGE})),
        ("wav2vec2-large-lv60", count("wav2vec2", **WIDE)),
        ("wav2vec2-large-robust-emotion", count("wav2vec2", **{**WIDE, "num_hidden_layers": 12})),
        ("xls-r-300m", count("wav2vec2", **WIDE)),
        ("xls-r-1b", count("wav2vec2", **BILLION)),
        ("mms-300m", count("wav2vec2", **WIDE)),
        ("mms-1b", count("wav2vec2", **BILLION)),
        ("hubert-base", count("hubert", **TALL)),
        ("hubert-large", count("hubert", **WIDE)),
        ("wavlm-base", count("wavlm", **TALL, **BUCKETS)),
        ("wavlm-base-plus", count("wavlm", **TALL, **BUCKETS)),
        ("wavlm-large", count("wavlm", **WIDE, **BUCKETS)),
        ("unispeech-sat-base", count("unispeech-sat", **TALL)),
        ("unispeech-sat-base-plus", count("unispeech-sat", **TALL)),
        ("unispeech-sat-large", count("unispeech-sat", **WIDE)),
        ("data2vec-audio-base", count("data2vec-audio", **DATA2VEC)),
        ("data2vec-audio-large", count("data2vec-audio", **{**DATA2VEC, **LARGE})),
        ("sew-tiny", count("sew", **SEW)),
        ("sew-mid", count("sew", **MID_SEW)),
        ("w2v-bert-2.0", count("wav2vec2-bert", **BERT)),
        ("whisper-tiny", whisper(384, 4)),
        ("whisper-tiny-en", whisper(384, 4)),
        ("whisper-base", whisper(512, 6)),
        ("whisper-small", whisper(768, 12)),
        ("whisper-medium", whisper(1024, 24)),
        ("whisper-large-v3", whisper(1280, 32, 128)),
    ],
)
def test_the_size_of_a_published_encoder_is_that_of_its_shapes(name: str, millions: float) -> None:
    assert listing.entry("encoders", name).millions == pytest.approx(millions, abs=0.051)


@pytest.mark.parametrize("name", ["logmel", "resnet50"])
def test_the_size_of_an_encoder_of_ours_is_that_of_its_weights(name: str) -> None:
    weights = sum(p.numel() for p in registry.get("encoders", name)().parameters())
    assert listing.entry("encoders", name).millions == pytest.approx(weights / 1e6, abs=0.051)


# Options.


@pytest.mark.parametrize("kind", WITH_OPTIONS)
def test_every_option_has_a_type_and_a_meaning(kind: Kind) -> None:
    found = [(n, o) for n in listing.names(kind) for o in listing.options(kind, n)]
    assert len(found) >= 15
    assert [f"{n}.{o.name}" for n, o in found if not (o.type and o.meaning)] == []
    assert [f"{n}.{o.name}" for n, o in found if "``" in o.meaning or ":class:" in o.meaning] == []


def test_the_options_of_a_head_are_those_of_its_constructor() -> None:
    found = {o.name: o for o in listing.options("heads", "classification")}
    assert list(found) == list(registry.schema_of(registry.get("heads", "classification")))
    assert (found["dropout"].type, found["dropout"].default) == ("number", 0.1)
    assert tells(found["dropout"].range, 0, "less than 1")
    assert found["pooling"].type == "mean|stats|attentive"
    assert found["hidden"].meaning.startswith("width of the hidden layer; 0")


def test_a_variant_shows_what_its_file_sets() -> None:
    found = {o.name: o.default for o in listing.options("heads", "mlp")}
    assert (found["hidden"], found["pooling"], found["dropout"]) == (256, "mean", 0.1)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "whole number"),
        (float | None, "number, or null"),
        (list[int] | None, "list of whole number, or null"),
        (dict[str, str], "mapping of text to text"),
        (bool, "true|false"),
    ],
)
def test_types_are_told_in_words(annotation: Any, text: str) -> None:
    assert listing.type_text(annotation) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), ([4, 5], "[4,5]"), (0.5, "0.5")]
)
def test_defaults_are_told_as_they_are_typed(value: Any, text: str) -> None:
    assert listing.shown(value) == text


# What is printed.


@pytest.mark.parametrize("words", [[], *([kind] for kind in KINDS)], ids=" ".join)
def test_a_list_fits_80_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(*words, capsys=capsys)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    for name in listing.names(words[0]) if words else KINDS:
        assert sum(line.startswith(f"{name} ") for line in text.splitlines()) == 1, name


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_each_part_can_be_shown(kind: Kind, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(kind, name, capsys=capsys)
    assert text.startswith(f"{name} ({listing.GROUPS[kind]})\n")
    if kind in WITH_OPTIONS:  # the others show their file
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_a_head_shows_where_it_is_from_and_how_to_set_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown("heads", "selm", capsys=capsys)
    assert "https://arxiv.org/abs/2407.15300" in text
    assert "head=selm head.KEY=VALUE" in text
    assert "\nbeams = 1  (whole number)\n    " in text


def test_lists_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    names = json.loads(shown("--json", capsys=capsys))
    assert names == {kind: listing.names(kind) for kind in KINDS}
    rows = json.loads(shown("corpora", "--json", capsys=capsys))
    assert [row["name"] for row in rows] == names["corpora"]
    assert rows[0]["speakers"] == 24
    one = json.loads(shown("encoders", "wavlm-base", "--json", capsys=capsys))
    assert (one["kind"], one["millions"], one["licence"]) == ("encoders", 94.4, "CC BY-SA 3.0")
    assert {o["name"]: o["default"] for o in one["options"]}["tuning"] == "frozen"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=says("'selmm'", "selm_gpt2")):
        listing.entry("heads", "selmm")
    with pytest.raises(ConfigError, match=says("recipes", "heads", "encoders", "corpora")):
        listing.options("recipes", "ravdess")


def test_a_part_of_another_package_is_listed_without_importing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._table("heads"), "theirs", "not.installed:Head")
    assert listing.names("heads")[-1] == "theirs"
    console = Console(file=io.StringIO(), width=80)
    for table in listing.tables("heads"):
        console.print(table.rich(lines=False))
