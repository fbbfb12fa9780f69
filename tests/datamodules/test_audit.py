import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from facts import tells
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.audit import audit
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.protocols import Protocol, Sharing, Split
from serzoo.zoo.core import registry


def utt(name: str, speaker: str, text: str | None = None, sha: str | None = None) -> Utterance:
    return Utterance(
        f"x/{name}", "x", f"{name}.wav", 0, 1, 16000, speaker, text=text, sha=sha or name
    )


CLEAN = Split(
    [utt("a", "1", "Hello there."), utt("b", "1", "Goodbye.")],
    [utt("c", "2", "Good morning.")],
    [utt("d", "3", "Good night."), utt("e", "3", "See you.")],
    protocol="toy@1",
    fold=2,
    notes=["a note of the split"],
)


class TestClean:
    def test_passes(self):
        report = audit(CLEAN)
        assert report.ok
        assert report.errors == []
        assert report.notes == ["a note of the split"]
        assert str(report) == (
            "toy@1 fold 2: passed (train 2 utterances of 1 speaker, valid 1 utterance of 1 "
            "speaker, test 2 utterances of 1 speaker)\n  note: a note of the split"
        )

    def test_to_dict_is_plain_and_whole(self):
        report = audit(CLEAN)
        plain = report.to_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert plain["split"] == CLEAN.fingerprint()
        assert plain["ok"] is True
        assert plain["counts"]["train_test_recordings"] == 0


class TestSpeakers:
    def test_overlap_is_an_error(self):
        report = audit(replace(CLEAN, test=[utt("d", "1"), utt("e", "3")]))
        assert not report.ok
        assert report.counts["train_test_speakers"] == 1
        assert len(report.errors) == 1
        assert tells(report.errors, "train and test", "1 speakers", "x/1")
        assert "FAILED" in str(report)
        assert "  error: train and test " in str(report)

    def test_declared_in_words_it_is_none(self):
        sharing = Sharing(("train", "valid"), "there are two speakers only")
        shared = replace(CLEAN, valid=[utt("c", "1", "Good morning.")], sharing=sharing)
        report = audit(shared)
        assert report.ok
        assert report.counts["train_valid_speakers"] == 1
        # the words cover train and valid, not the test
        report = audit(replace(shared, test=[utt("d", "1")]))
        assert [e[:14] for e in report.errors] == ["train and test", "valid and test"]

    def test_one_name_in_two_corpora_is_two_speakers(self):
        other = replace(utt("d", "1"), corpus="y")
        assert audit(replace(CLEAN, test=[other])).ok


class TestRecordings:
    def test_identical_audio_between_parts_is_an_error(self):
        report = audit(replace(CLEAN, test=[utt("d", "3", sha="b")]))
        assert report.counts["train_test_recordings"] == 1
        assert len(report.errors) == 1
        assert tells(report.errors, "1 recordings", "train", "test", "x/b = x/d")

    def test_even_where_speakers_may_be_shared(self):
        sharing = Sharing(("train", "valid", "test"), "for a reason")
        assert not audit(replace(CLEAN, valid=[utt("c", "1", sha="a")], sharing=sharing)).ok

    def test_within_a_part_it_is_noted(self):
        report = audit(replace(CLEAN, train=[utt("a", "1"), utt("b", "1", sha="a"), utt("f", "1")]))
        assert report.ok
        assert report.counts["train_duplicates"] == 1
        assert tells(report.notes, "train", "1 sets", "x/a = x/b")

    def test_within_a_part_under_two_labels(self):
        twin = replace(utt("b", "1", sha="a"), label="sad")
        notes = audit(replace(CLEAN, train=[utt("a", "1"), twin])).notes
        assert tells(notes, "train", "x/a = x/b", "labels differ in 1")

    def test_an_utterance_in_two_parts(self):
        report = audit(replace(CLEAN, valid=[CLEAN.train[0]]))
        assert tells(report.errors, "1 utterances", "train", "valid", "x/a")

    def test_an_utterance_twice_in_a_part(self):
        report = audit(replace(CLEAN, test=[CLEAN.test[0]] * 2))
        assert len(report.errors) == 1
        assert tells(report.errors, "test", "1 utterances twice", "id")

    def test_without_hashes_it_says_what_was_not_looked_for(self):
        report = audit(replace(CLEAN, test=[replace(utt("d", "3", "Well."), sha=None)]))
        assert report.ok
        assert report.counts["without_sha"] == 1
        assert tells(report.notes[-1], "1 of 4", "hash")


class TestSentences:
    def test_overlap_is_a_fact_with_counts(self):
        test = [utt("d", "3", "hello THERE"), utt("e", "3", "Hello, there!"), utt("f", "3", "Oh.")]
        report = audit(replace(CLEAN, test=test))
        assert report.ok
        assert report.counts["train_test_sentences"] == 1
        assert report.counts["train_test_utterances_with_shared_sentence"] == 2
        assert tells(report.notes, "2 of 3", "1 sentences")

    def test_without_transcripts_it_says_so(self):
        report = audit(replace(CLEAN, test=[utt("d", "3")]))
        assert report.counts["without_text"] == 1
        assert tells(report.notes[-1], "1 of 4", "transcript")


# -- real corpora ------------------------------------------------------------------------------


def hashed(us: list[Utterance], root: Path) -> list[Utterance]:
    return [
        replace(u, sha=hashlib.sha256(read_audio(root / u.audio).tobytes()).hexdigest()[:16])
        for u in us
    ]


def test_ravdess_holds_one_identical_pair_in_actor_07(real_data):
    root = real_data("ravdess")
    us = list(registry.get("corpora", "ravdess")(root))
    heard = {u.id: u for u in hashed([u for u in us if u.speaker == "07"], root)}
    us = [heard.get(u.id, u) for u in us]
    # fold 1 tests actors 05 to 08
    report = audit(Protocol.load("ravdess8-6fold@1").split(us, 1))
    assert report.ok
    assert report.counts["test_duplicates"] == 1
    twins = "ravdess/03-01-03-01-02-01-07 = ravdess/03-01-03-01-02-02-07"
    assert tells(report.notes, "test", "1 sets", twins)
    assert tells(report.notes, "240 of 240", "2 sentences")
    # the same two recordings in two parts are an error
    a, b = "ravdess/03-01-03-01-02-01-07", "ravdess/03-01-03-01-02-02-07"
    assert not audit(Split([heard[a]], [us[0]], [heard[b]])).ok


@pytest.mark.parametrize("corpus", ["ravdess", "emodb"])
def test_real_corpora_share_no_recording_and_no_speaker_between_parts(real_data, corpus):
    root = real_data(corpus)
    us = hashed(list(registry.get("corpora", corpus)(root)), root)
    protocol = Protocol.load(CorpusInfo.load(corpus).protocol)
    for fold in range(protocol.n_folds(us)):
        report = audit(protocol.split(us, fold))
        assert report.ok
        for pair in ("train_valid", "train_test", "valid_test"):
            assert report.counts[f"{pair}_speakers"] == 0
            assert report.counts[f"{pair}_recordings"] == 0
        assert report.counts["without_sha"] == report.counts["without_text"] == 0
