"""Corpora that have a description of their names instead of code."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
from facts import says, tells
from serzoo.datamodules.corpora import named
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.naming import Naming
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError, DataError, DataWarning
from sweeps import often

NAMED = [name for name in CorpusInfo.names() if CorpusInfo.load(name).naming is not None]

# a path as published: id, speaker, gender, language, label of the taxonomy
PUBLISHED = {
    "emogator": {
        "data/mp3/000001-02-1.mp3": ("000001-02-1", "000001", None, None, "amused"),
        "data/mp3/000357-27-3.mp3": ("000357-27-3", "000357", None, None, "surprised"),
        "data/mp3/000002-19-2.mp3": ("000002-19-2", "000002", None, None, None),
    },
    "cafe": {
        "Joie/Fort/01-J-2-1.wav": ("01-J-2-1", "01", "male", "fr", "happy"),
        "Neutre/12-N-1-6.wav": ("12-N-1-6", "12", "female", "fr", "neutral"),
    },
    "jl": {
        "JL(wav+txt)/female1_angry_10a_1.wav": (
            *("female1_angry_10a_1", "female1", "female", "en", "angry"),
        ),
        "JL(wav+txt)/male2_apologetic_4a_1.wav": (
            *("male2_apologetic_4a_1", "male2", "male", "en", None),
        ),
    },
    "subesco": {
        "F_01_OISHI_S_1_ANGRY_1.wav": (
            *("F_01_OISHI_S_1_ANGRY_1", "F_01", "female", "bn", "angry"),
        ),
        "M_10_X_S_10_SURPRISE_5.wav": (
            *("M_10_X_S_10_SURPRISE_5", "M_10", "male", "bn", "surprised"),
        ),
    },
    "ased": {
        "01Neutral/n1-01-01-01-03.wav": ("n1-01-01-01-03", "03", "female", "am", "neutral"),
        "05Angry/a5-03-01-02-50.wav": ("a5-03-01-02-50", "50", "male", "am", "angry"),
    },
    "urdu": {
        "Happy/SF1_F10_H010.wav": ("SF1_F10_H010", "SF1", "female", "ur", "happy"),
        "Happy/SM7_F28_H0100.wav": ("SM7_F28_H0100", "SM7", "male", "ur", "happy"),
    },
    "turev": {
        "Sound Source/Angry/1157_kz_beste.wav": ("1157_kz_beste", "1157", None, "tr", "angry"),
        "Sound Source/Calm/1234_sk_algi.wav": ("1234_sk_algi", "1234", None, "tr", "calm"),
    },
    "shemo": {
        "female/F24W23.wav": ("F24W23", "F24", "female", "fa", "surprised"),
        "male/M12A64.wav": ("M12A64", "M12", "male", "fa", "angry"),
    },
    "emov_db": {
        "bea_Amused/amused_1-28_0001.wav": (
            *("bea-amused_1-28_0001", "bea", "female", "en", "amused"),
        ),
        "sam_Sleepy/sleepiness_1-28_0001.wav": (
            *("sam-sleepiness_1-28_0001", "sam", "male", "en", "tired"),
        ),
        "sam_Amused/amused_1-28_0001.wav": (
            *("sam-amused_1-28_0001", "sam", "male", "en", "amused"),
        ),
    },
    "esd": {
        "0001/Angry/0001_000351.wav": ("0001_000351", "0001", None, "zh", "angry"),
        "0020/Surprise/test/0020_001421.wav": ("0020_001421", "0020", None, "en", "surprised"),
    },
}


def read(corpus, root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(registry.get("corpora", corpus)(root))
    return found, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


def test_every_description_is_tried():
    assert sorted(PUBLISHED) == sorted(NAMED)
    assert set(NAMED) <= set(registry.BUILT_IN["corpora"])


@pytest.mark.parametrize("corpus", sorted(PUBLISHED))
def test_names_say_the_facts_and_other_files_are_told(corpus, tree):
    rows = PUBLISHED[corpus]
    assert CorpusInfo.load(corpus).naming.example in rows
    tree.plant(*rows, "sub/room noise.wav")
    found, (told,) = read(corpus, tree.root)
    info = CorpusInfo.load(corpus)
    facts = {
        u.audio: (
            u.id.removeprefix(f"{corpus}/"),
            u.speaker,
            u.gender,
            u.language,
            info.canonical_label(u),
        )
        for u in found
    }
    assert facts == rows
    assert {u.label for u in found} <= set(info.labels)
    assert tells(told, corpus, 1, "room noise.wav")


@pytest.mark.parametrize("corpus", sorted(PUBLISHED))
def test_a_folder_without_the_corpus_is_refused(corpus, tree):
    tree.plant("a.wav")
    with pytest.raises(DataError, match=says(corpus, "a.wav", "root=")):
        read(corpus, tree.root)


def test_a_recording_in_two_folders_is_refused(tree):
    tree.plant("a/01-C-1-1.wav", "b/01-C-1-1.wav")
    with pytest.raises(DataError, match=says("cafe", 1, "01-C-1-1", "a/01-C-1-1.wav")):
        read("cafe", tree.root)


def complete(corpus):
    if corpus == "cafe":
        return [
            f"CaFE/{speaker:02}-{emotion}-{level}-{sentence}.wav"
            for speaker in range(1, 13)
            for emotion in "CDJNPST"
            for level in ((1,) if emotion == "N" else (1, 2))
            for sentence in range(1, 7)
        ]
    if corpus == "emogator":
        return [
            f"{s:06}-{e:02}-{i}.mp3" for s in range(1, 358) for e in range(1, 31) for i in (1, 2, 3)
        ]
    return [
        f"{gender}_{n:02}_NAME_S_{sentence}_{emotion}_{take}.wav"
        for gender in "FM"
        for n in range(1, 11)
        for sentence in range(1, 11)
        for emotion in ("ANGRY", "DISGUST", "FEAR", "HAPPY", "NEUTRAL", "SAD", "SURPRISE")
        for take in range(1, 6)
    ]


@pytest.mark.parametrize("corpus", often(["cafe", "emogator", "subesco"], ["cafe"]))
def test_a_complete_set_of_names_has_the_published_counts(corpus, tree):
    for name in complete(corpus):
        path = tree.root / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found, told = read(corpus, tree.root)
    info = CorpusInfo.load(corpus)
    assert told == []
    assert len(found) == info.expected.utterances
    assert len({u.speaker for u in found}) == info.expected.speakers
    if info.expected.labels:
        assert Counter(u.label for u in found) == info.expected.labels
    split = Protocol.load(info.protocol).split(found, 0)
    parts = [{u.speaker for u in part} for _, part in split.parts()]
    assert all(parts)
    assert sum(map(len, parts)) == info.expected.speakers


def test_the_sentence_of_a_name(tree):
    tree.plant("01-C-1-1.wav")
    (u,), _ = read("cafe", tree.root)
    assert (u.text, u.text_source) == ("Un cheval fou dans mon jardin", "human")


GOOD = {"pattern": r"(?P<speaker>\d)_(?P<label>[a-z])", "example": "1_a.wav"}


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        ("x", ["'naming'", "pattern"]),
        ({**GOOD, "patern": "x"}, ["patern", "pattern"]),
        ({"pattern": "x"}, ["'naming'", "example"]),
        ({**GOOD, "pattern": "("}, ["'naming'", "'('"]),
        ({**GOOD, "pattern": "[a-z]+"}, ["'naming'", "speaker, label"]),
        ({**GOOD, "language": {"en": "("}}, ["'naming'", "'('"]),
        ({**GOOD, "sentences": ["Go."]}, ["'naming'", "sentences", "['Go.']"]),
        ({**GOOD, "gender": {"1": "f"}}, ["'naming'", "'f'", "female, male"]),
    ],
)
def test_a_wrong_description_says_what_is_wrong(data, facts):
    with pytest.raises(ConfigError, match=says(*facts)):
        Naming.parse(data, "'naming' in x")


def test_only_described_corpora_have_a_reader(tree):
    with pytest.raises(AttributeError):
        named.nobody  # noqa: B018
    with pytest.raises(DataError, match=says("tess", "naming")):
        list(named.tess(tree.root))
