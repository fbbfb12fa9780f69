from dataclasses import replace

import pytest
from facts import says, tells
from people import alternating, iemocap, utterances
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.protocols import Protocol, Sharing
from serzoo.zoo.core.errors import ConfigError, DataError


def speakers(part: list[Utterance]) -> set[str]:
    return {u.speaker for u in part}


def tess() -> list[Utterance]:
    return [
        Utterance(f"tess/{s}_{w}_{e}", "tess", "x.wav", 0, 1, 16000, s, text=f"Say the word w{w}.")
        for s in ("OAF", "YAF")
        for w in range(20)
        for e in ("angry", "sad")
    ]


class TestSharing:
    def test_tess_says_in_words_that_validation_shares_the_speaker(self):
        split = Protocol.load("tess-2spk").split(tess(), 1)
        assert [speakers(p) for _, p in split.parts()] == [{"OAF"}, {"OAF"}, {"YAF"}]
        assert tells(split.notes[0], "train", "valid", "1 speakers", "TESS")
        assert split.sharing is not None
        assert not split.sharing.allows("train", "test")
        # 4 of 20 words, in both emotions, and none of them is heard in training
        assert len(split.valid) == 8
        assert not {u.text for u in split.valid} & {u.text for u in split.train}

    def test_meld_by_its_published_split(self):
        def us(split: str) -> list[Utterance]:
            return [
                replace(u, id=f"{u.id}-{split}", labels={"split": split})
                for u in utterances("meld", {"Joey": "male", "Monica": "female"})
            ]

        split = Protocol.load("meld-official@1").split(us("train") + us("dev") + us("test"), 0)
        assert [{u.labels["split"] for u in p} for _, p in split.parts()] == [
            {"train"}, {"dev"}, {"test"},
        ]  # fmt: skip
        assert len(split.notes) == 3
        assert tells(split.notes[1], "train", "test", "2 speakers", "MELD")
        bad = [*us("train")[:3], *us("dev2")[:3]]
        with pytest.raises(
            DataError, match=says("3 of 6", "meld/Joey-0-dev2", "'dev2'", "'split'", "training")
        ):
            Protocol.load("meld-official").split(bad, 0)
        with pytest.raises(ConfigError, match=says("fold 1", "0 to 0")):
            Protocol.load("meld-official").split(us("train"), 1)

    def test_a_brought_split_that_shares_speakers_is_refused(self):
        us = utterances("mine", alternating(["a", "b", "c"]))
        fine = [
            replace(u, labels={"split": {"a": "train", "b": "validation", "c": "Test"}[u.speaker]})
            for u in us
        ]
        split = Protocol.load("official").split(fine, 0)
        assert [speakers(p) for _, p in split.parts()] == [{"a"}, {"b"}, {"c"}]
        leaky = [replace(fine[0], labels={"split": "test"}), *fine[1:]]
        with pytest.raises(DataError, match=says("train", "test", 1, "mine/a", "'shares'")):
            Protocol.load("official").split(leaky, 0)

    def test_sessions_that_share_a_speaker_are_refused(self):
        us = [replace(u, speaker="Ses01F") if u.speaker == "Ses04F" else u for u in iemocap()]
        with pytest.raises(DataError, match=says(1, "iemocap/Ses01F", "'shares'")):
            Protocol.load("iemocap-loso").split(us, 0)

    def test_sharing_takes_words(self):
        rule = {
            "version": 1, "by": "speaker", "folds": [["a"], ["b"]], "corpora": ["mine"],
            "validation": {"sentences": 0.3},
        }  # fmt: skip
        us = utterances("mine", alternating(["a", "b"]))
        with pytest.raises(DataError, match=says("train", "valid", 1, "mine/b", "'shares'")):
            Protocol.from_dict("mine", rule).split(us, 0)
        with pytest.raises(ConfigError, match=says("'mine'", "shares", "'why': ' '")):
            Protocol.from_dict("mine", rule | {"shares": {"parts": ["train", "valid"], "why": " "}})
        words = Protocol.from_dict("mine", rule | {"shares": "there is nobody else"})
        assert words.sharing == Sharing(("train", "valid", "test"), "there is nobody else")
        (note,) = words.split(us, 0).notes
        assert tells(note, "train", "valid", "1 speakers", "there is nobody else")
