from collections import Counter

import pytest
from facts import says, tells
from people import alternating, utterances
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.protocols import (
    Protocol,
    balanced,
    held_out_sentences,
    held_out_speakers,
    sentence,
    speaker_of,
    speakers_of,
)
from serzoo.zoo.core.errors import ConfigError, DataError
from work import instructions

RAVDESS = {f"{i:02d}": "male" if i % 2 else "female" for i in range(1, 25)}
CREMA_D = {str(1001 + i): "male" if i % 19 < 10 else "female" for i in range(91)}


def several() -> list[Utterance]:
    """Three corpora of 24, 10 and 10 speakers."""
    ten = alternating([f"{i:02d}" for i in range(10)])
    return utterances("ravdess", RAVDESS) + utterances("emodb", ten) + utterances("iemocap", ten)


def speakers(part: list[Utterance]) -> set[str]:
    return {u.speaker for u in part}


class TestBalanced:
    def test_crema_d_folds_differ_by_one_of_each_sex(self):
        everyone, protocol = utterances("crema_d", CREMA_D), Protocol.load("crema_d-5fold")
        sizes, women = [], []
        for fold in range(5):
            test = {(u.speaker, u.gender) for u in protocol.split(everyone, fold).test}
            sizes.append(len(test))
            women.append(sum(g == "female" for _, g in test))
        assert sorted(sizes) == [18, 18, 18, 18, 19]
        assert max(women) - min(women) == 1
        assert protocol.split(everyone, 0).notes == []

    def test_crema_d_folds_do_not_hang_on_how_much_each_actor_says(self):
        everyone, protocol = utterances("crema_d", CREMA_D), Protocol.load("crema_d-5fold")
        fewer = [u for i, u in enumerate(everyone) if i % 7 or u.id.endswith("-0")]
        for fold in range(5):
            a, b = protocol.split(everyone, fold), protocol.split(fewer, fold)
            assert speakers(a.test) == speakers(b.test)
            assert speakers(a.valid) == speakers(b.valid)

    def test_an_incomplete_crema_d_says_so(self):
        fewer = utterances("crema_d", {s: g for s, g in CREMA_D.items() if s != "1050"})
        notes = Protocol.load("crema_d-5fold").split(fewer, 0).notes
        assert len(notes) == 1
        assert tells(notes, "90 of 91 speakers", "crema_d-5fold@1")

    def test_dealt_in_order(self):
        us = utterances(
            "c", {"a": "female", "b": "male", "c": "female", "d": "male", "e": "female"}
        )
        folds = balanced(us, 3, by_utterances=False)
        # women a, c, e go round; the men start where the fewest speakers are
        assert folds == [["c/a", "c/b"], ["c/c", "c/d"], ["c/e"]]

    def test_totals_differ_by_one(self):
        for women in range(8):
            for men in range(8):
                sex = {f"f{i}": "female" for i in range(women)} | {
                    f"m{i}": "male" for i in range(men)
                }
                if sum(map(bool, sex)) >= 3:
                    sizes = [len(f) for f in balanced(utterances("c", sex), 3, by_utterances=True)]
                    assert max(sizes) - min(sizes) <= 1

    def test_by_utterances(self):
        # four who say a lot and four who say little: two folds of a loud and a quiet pair each
        us = [
            u
            for s, n in zip("abcdefgh", (40, 40, 40, 40, 2, 2, 2, 2), strict=True)
            for u in utterances("c", {s: "female"}, n)
        ]
        counts = Counter(map(speaker_of, us))
        loads = [sum(counts[s] for s in f) for f in balanced(us, 4, by_utterances=True)]
        assert loads == [42, 42, 42, 42]
        assert [sum(counts[s] for s in f) for f in balanced(us, 4, by_utterances=False)] == loads
        us = [u for u in us if u.speaker != "d"]
        loads = [sum(counts[s] for s in f) for f in balanced(us, 3, by_utterances=True)]
        assert sorted(loads) == [42, 42, 44]

    def test_thousands_of_speakers_are_dealt_quickly(self):
        # a folder without speakers takes every file for a speaker of its own
        work = []
        for n in (500, 2000):
            us = utterances("mine", dict.fromkeys((f"s{i:04d}" for i in range(n)), ""), n=1)
            assert {len(f) for f in balanced(us, 5, by_utterances=True)} == {n // 5}
            work.append(instructions(lambda us=us: balanced(us, 5, by_utterances=True)))
        assert work[1] < 6 * work[0]  # of four times as many, whose square is sixteen

    def test_unknown_sex_is_dealt_too_and_said(self):
        us = utterances("mine", dict.fromkeys("abcdef", ""))
        split = Protocol.load("kfold-3").split(us, 0)
        assert len(speakers(split.test)) == 2
        assert tells(split.notes[0], "sex", "6 speakers", "mine/a")


class TestKfold:
    def test_any_number_of_folds(self):
        us = utterances("mine", alternating([f"s{i}" for i in range(8)]))
        protocol = Protocol.load("kfold-8")
        assert protocol.name == "kfold-8@1"
        assert protocol.n_folds(us) == 8
        assert protocol == Protocol.load("kfold-8@1")
        assert Protocol.load("kfold-5") == Protocol.load("kfold")

    def test_too_few_speakers(self):
        with pytest.raises(
            DataError, match=says("5 speakers", "mine/a, mine/b, mine/c", 3, "protocol=kfold-3")
        ):
            Protocol.load("kfold").split(utterances("mine", alternating(["a", "b", "c"])), 0)
        with pytest.raises(
            DataError, match=says("5 speakers", 2, "mine/a, mine/b") + "(?!.*protocol=)"
        ):
            Protocol.load("kfold").n_folds(utterances("mine", alternating(["a", "b"])))
        with pytest.raises(ConfigError, match=says("'kfold-2'", 3)):
            Protocol.load("kfold-2")

    def test_a_speaker_must_be_named(self):
        us = utterances("mine", alternating(["a", "b", "", "d", "e", "f"]))
        with pytest.raises(DataError, match=says("3 of 18", "mine/-0, mine/-1, mine/-2")):
            Protocol.load("kfold").split(us, 0)

    def test_speakers_of_two_corpora_with_one_name_are_two(self):
        us = utterances("x", alternating(["1", "2", "3"])) + utterances(
            "y", alternating(["1", "2"])
        )
        assert Protocol.load("kfold").n_folds(us) == 5
        for fold in range(5):
            split = Protocol.load("kfold").split(us, fold)
            assert len(speakers_of(split.test)) == 1


class TestLoco:
    def test_tests_the_corpora_by_name(self):
        us = several()
        splits = [Protocol.load("loco").split(us, k) for k in range(3)]
        assert [{u.corpus for u in s.test} for s in splits] == [{"emodb"}, {"iemocap"}, {"ravdess"}]
        assert all({u.corpus for u in s.valid} == {u.corpus for u in s.train} for s in splits)

    def test_validation_is_a_fifth_of_the_speakers_of_each_corpus_and_sex(self):
        split = Protocol.load("loco").split(several(), 0)
        found = Counter(
            (c, g) for c, _, g in {(u.corpus, u.speaker, u.gender) for u in split.valid}
        )
        assert found == {
            ("ravdess", "female"): 2, ("ravdess", "male"): 2,
            ("iemocap", "female"): 1, ("iemocap", "male"): 1,
        }  # fmt: skip

    def test_the_choice_hangs_on_the_corpus_alone(self):
        a = held_out_speakers(utterances("ravdess", RAVDESS), 0.2)
        b = held_out_speakers(several(), 0.2)
        assert a == {s for s in b if s.startswith("ravdess/")}

    def test_the_only_speaker_of_a_sex_stays_in_training(self):
        us = utterances("x", {"a": "female", "b": "male", "c": "male"})
        assert len(held_out_speakers(us, 0.5)) == 1
        assert "x/a" not in held_out_speakers(us, 0.5)

    def test_one_corpus_is_too_few(self):
        with pytest.raises(DataError, match=says("loco@1", 2, "ravdess", "protocol=kfold")):
            Protocol.load("loco").split(utterances("ravdess", RAVDESS), 0)


def test_sentences_are_compared_without_case_and_punctuation():
    assert sentence("Don't forget a  jacket!") == sentence("dont forget — a JACKET.")
    assert sentence("Straße") == sentence("STRASSE")
    assert sentence("Kwiecień") != sentence("Kwiecien")
    assert sentence(None) == sentence("...") == ""


def test_held_out_sentences_keep_one_in_training():
    us = utterances("x", {"s": "male"}, n=2)
    assert len(held_out_sentences(us, 0.9)) == 1
