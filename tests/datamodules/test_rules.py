"""Protocols of the user's own, and rules beside speakers: sentences, styles, challenges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from facts import says, tells
from people import alternating, iemocap, utterances
from serzoo.datamodules.audit import audit
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.protocols import Protocol, sentence, speakers_of
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config

TEN = alternating([f"s{i}" for i in range(10)])
RULE: dict[str, Any] = {"by": "speaker", "folds": {"balanced": 5}, "validation": "next"}


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


# Sentences.


def said(corpus: str = "mine") -> list[Utterance]:
    """Ten speakers say ten sentences; the first sentence twice."""
    found = utterances(corpus, TEN, n=10)
    again = [replace(u, id=f"{u.id}-b") for u in found if u.text == "Sentence 0."]
    return [*found, *again]


def test_neither_speakers_nor_sentences_of_the_test_are_heard_before() -> None:
    rule, everyone = Protocol.from_dict("mine", RULE | {"texts": 3}), said()
    assert rule.n_folds(everyone) == 15
    tested: Counter[str] = Counter()
    for fold in range(15):
        split = rule.split(everyone, fold)
        own = {sentence(u.text) for u in split.test}
        for part in (split.train, split.valid):
            assert not own & {sentence(u.text) for u in part}
            assert not speakers_of(part) & speakers_of(split.test)
        # nothing else is lost: all speakers and sentences of the other side are used
        n = len({sentence(u.text) for u in split.train})
        assert len(own) + n == 10
        assert (len(speakers_of(split.train)), len(speakers_of(split.valid))) == (6, 2)
        left = len(everyone) - sum(len(part) for _, part in split.parts())
        assert tells(split.notes, left, len(everyone), "sentence")
        report = audit(split)
        assert report.counts["train_test_sentences"] == report.counts["valid_test_sentences"] == 0
        tested.update(u.id for u in split.test)
    assert tested == Counter(u.id for u in everyone)


def test_groups_of_sentences_are_as_large_as_can_be_and_do_not_depend_on_the_order() -> None:
    rule, everyone = Protocol.from_dict("mine", RULE | {"texts": 2}), said()
    sizes = Counter(len(rule.split(everyone, fold).test) for fold in range(10))
    assert sizes == {12: 5, 10: 5}  # one sentence has two takes, and 11 is no sum of the others
    turned = rule.split(everyone[::-1], 3)
    assert {u.id for u in turned.test} == {u.id for u in rule.split(everyone, 3).test}


def test_sentences_need_transcripts() -> None:
    rule = Protocol.from_dict("mine", RULE | {"texts": 2})
    silent = [replace(u, text=None) if u.speaker == "s3" else u for u in said()]
    with pytest.raises(DataError, match=says(11, 110, "transcript")):
        rule.split(silent, 0)
    alike = [replace(u, text="One.") for u in said()]
    with pytest.raises(DataError, match=says(2, 1, "sentences")):
        rule.split(alike, 0)


# Styles.


def test_only_turns_of_a_style_are_used() -> None:
    styles = ("improvised", "scripted", "improvised")
    everyone = [replace(u, labels={"style": styles[i % 3]}) for i, u in enumerate(iemocap())]
    for style, n in (("improvised", 20), ("scripted", 10)):
        split = Protocol.load(f"iemocap-{style}").split(everyone, 2)
        used = [u for _, part in split.parts() for u in part]
        assert len(used) == n
        assert {u.labels["style"] for u in used} == {style}
        assert tells(split.notes, 30 - n, 30, style)
    with pytest.raises(DataError, match=says("style", "scripted", "none")):
        Protocol.load("iemocap-scripted").split(iemocap(), 0)


# The rules of a challenge.


def podcast() -> list[Utterance]:
    """A training part with twice as many angry as sad turns, and the same in the others."""
    return [
        replace(u, label=("A", "A", "S")[i % 3], labels={"split": part}, session=part)
        for part in ("train", "valid", "test")
        for i, u in enumerate(utterances("msp_podcast", {f"{part}{k}": "" for k in range(4)}))
    ]


def test_the_test_part_of_a_challenge_has_as_many_of_each_label() -> None:
    split = Protocol.load("msp_podcast-challenge").split(podcast(), 0)
    assert Counter(u.label for u in split.test) == {"A": 4, "S": 4}
    assert Counter(u.label for u in split.train) == {"A": 8, "S": 4}
    assert tells(split.notes, 4, 12, "label")
    again = Protocol.load("msp_podcast-challenge").split(podcast()[::-1], 0)
    assert {u.id for u in again.test} == {u.id for u in split.test}


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        (["corpus=[msp_podcast,iemocap]"], "corpus=[msp_podcast,iemocap]"),
        (["init=runs/x"], "init=runs/x"),
        (["encoder=wav2vec2-large-robust-emotion"], "wav2vec2-large-robust-12-ft-emotion-msp-dim"),
        (["encoder=serzoo-small"], "serzoo-small"),
        (["encoder=trained", "encoder.name=runs/x"], "encoder=trained"),
    ],
)
def test_a_challenge_allows_no_other_emotion_data(settings: list[str], fact: str) -> None:
    assert config.load("msp_podcast", ["encoder=wavlm-base"]).optim.metric == "macro_f1"
    with pytest.raises(ConfigError, match=says("Odyssey 2024", fact, "protocol=official")):
        config.load("msp_podcast", settings)


# Corpora that train, and corpora that are tested.

THREE = {"by": "corpus", "train": ["b", "c"], "test": ["a", "d"], "validation": {"speakers": 0.2}}


def test_listed_corpora_train_and_others_are_tested() -> None:
    everyone = [u for c in "abcd" for u in utterances(c, TEN)]
    rule = Protocol.from_dict("mine", THREE)
    assert rule.n_folds(everyone) == 1
    split = rule.split(everyone, 0)
    assert {u.corpus for u in split.test} == {"a", "d"}
    for part in (split.train, split.valid):
        assert {u.corpus for u in part} == {"b", "c"}
    assert len(speakers_of(split.valid)) == 4
    assert sum(len(part) for _, part in split.parts()) == len(everyone)
    with pytest.raises(ConfigError, match=says(1, 0)):
        rule.split(everyone, 1)


@pytest.mark.parametrize(("corpora", "facts"), [("abc", ["d"]), ("abcde", ["e"])])
def test_other_corpora_than_the_listed_ones_are_refused(corpora: str, facts: list[str]) -> None:
    everyone = [u for c in corpora for u in utterances(c, TEN)]
    with pytest.raises(DataError, match=says(*facts, "corpus=[b,c,a,d]")):
        Protocol.from_dict("mine", THREE).split(everyone, 0)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"test": None}, ["test", "None"]),
        ({"train": "b"}, ["train", "'b'"]),
        ({"by": "speaker"}, ["by: corpus"]),
        ({"test": ["b"]}, ["b"]),
        ({"folds": "each"}, ["folds"]),
        ({"tests": "others"}, ["tests"]),
        ({"validation": "next"}, ["speakers: 0.2"]),
    ],
)
def test_a_wrong_list_is_refused(change: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ConfigError, match=says("mine", *facts)):
        Protocol.from_dict("mine", THREE | change)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"texts": 1}, ["texts", 1, 2]),
        ({"texts": True}, ["texts", True]),
        ({"texts": 2, "by": "session", "folds": "each"}, ["texts", "session"]),
        ({"only": "scripted"}, ["only", "'scripted'"]),
        ({"balanced_test": "yes"}, ["balanced_test", "'yes'"]),
        ({"closed": True}, ["closed", True]),
    ],
)
def test_a_wrong_rule_is_refused(change: dict[str, Any], facts: list[object]) -> None:
    with pytest.raises(ConfigError, match=says("mine", *facts)):
        Protocol.from_dict("mine", RULE | change)


# Files of the user's own.

SHARED = """
version: 3
about: The parts of our paper.
by: official
validation: official
shares: {parts: [train, test], why: our paper has the same voices in both}
"""


def official() -> list[Utterance]:
    parts = {"s0": "train", "s1": "train", "s2": "valid"}
    found = [
        replace(u, labels={"split": parts[str(u.speaker)]})
        for u in utterances("mine", {"s0": "", "s1": "", "s2": ""}, n=4)
    ]
    return [
        replace(u, labels={"split": "test"}) if u.id.endswith("-3") and u.speaker == "s1" else u
        for u in found
    ]


def test_an_official_split_with_common_speakers_runs_if_the_file_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "ours.yaml", SHARED)
    split = Protocol.load(path).split(official(), 0)
    assert split.protocol == "ours@3"
    assert audit(split).ok
    assert tells(split.notes, "train", "test", 1, "our paper has the same voices in both")
    strict = write(tmp_path, "strict.yaml", SHARED.partition("shares")[0])
    with pytest.raises(DataError, match=says("train", "test", 1, "mine/s1", "shares")):
        Protocol.load(strict).split(official(), 0)


def test_files_are_looked_for_beside_the_recipe_and_their_content_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "ours.yaml", SHARED)
    write(tmp_path / "sub", "two.yaml", "classes: {good: [happy, calm], bad: [sad, angry]}")
    recipe = (
        "corpus: emodb\ngroups: {encoder: logmel, head: classification}\n"
        "protocol: ours.yaml\ntaxonomy: two.yaml\n"
    )
    path = write(tmp_path / "sub", "recipe.yaml", recipe)
    cfg = config.load(path)
    assert config.build_taxonomy(cfg) == Taxonomy(
        "two", (("good", ("happy", "calm")), ("bad", ("sad", "angry")))
    )
    assert cfg.own["protocol"].startswith("ours.yaml@")
    # a typed path is relative to the working directory
    typed = config.load("emodb", ["protocol=sub/ours.yaml", "taxonomy=sub/two.yaml"])
    assert typed.taxonomy == "sub/two.yaml"
    write(tmp_path / "sub", "two.yaml", "classes: {good: [happy], bad: [sad, angry]}")
    assert config.load(path).fingerprint != cfg.fingerprint
    suite = write(
        tmp_path / "sub", "suite.yaml",
        "title: t\naxes: {recipe: [emodb], head: [linear], protocol: [ours.yaml], seed: [1]}\n"
        "overrides: [taxonomy=two.yaml]\n",
    )  # fmt: skip
    content = config.read_suite(suite)
    assert content["axes"]["protocol"] == [str(tmp_path / "sub" / "ours.yaml")]
    assert content["overrides"] == [f"taxonomy={tmp_path / 'sub' / 'two.yaml'}"]


@pytest.mark.parametrize(
    ("load", "text", "facts"),
    [
        (Protocol.load, None, ["mine.yaml", "kfold"]),
        (Protocol.load, "[1]", ["mine.yaml", "key: value"]),
        (Protocol.load, "by: speeker", ["speeker", "speaker"]),
        (Protocol.load, "a: 1\na: 2", ["mine.yaml", "line 2"]),
        (Taxonomy.load, None, ["mine.yaml", "big4"]),
        (Taxonomy.load, "angry: [angry]", ["mine.yaml", "angry", "classes"]),
        (Taxonomy.load, "classes: [angry, sad]", ["mine.yaml", "classes"]),
        (Taxonomy.load, "classes: {a: [angri], b: [sad]}", ["angri", "angry"]),
    ],
)
def test_a_damaged_file_is_told_with_its_name(
    tmp_path: Path, load: Callable[[str], object], text: str | None, facts: list[str]
) -> None:
    if text is not None:
        write(tmp_path, "mine.yaml", text)
    with pytest.raises(ConfigError, match=says(*facts)):
        load(str(tmp_path / "mine.yaml"))
