"""The embedded corpus of talk: what is said, by whom, and what its manifest tells."""

import json
from collections import Counter

import pytest
import soundfile
from facts import says
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.corpora import synthetic as acted_reader
from serzoo.datamodules.corpora.synthetic_talk import prepare
from serzoo.datamodules.info import canonical_label
from serzoo.datamodules.synthetic.acting import EMOTIONS, NEUTRAL_WORDED, WORDED, speaker
from serzoo.datamodules.synthetic.espeak import Espeak
from serzoo.datamodules.synthetic.generate import act, generate
from serzoo.datamodules.synthetic.talking import SENTENCES, sayings, talker
from serzoo.zoo.core.errors import ConfigError, DataError

pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two speakers, two rounds of seven emotions."""
    root = tmp_path_factory.mktemp("cache") / "talk"
    return generate(root, utterances=2, speakers=2, sentences="talk")


def said(rounds, speakers=12):
    """All takes of so many speakers, without speaking them."""
    return [
        take
        for i in range(speakers)
        for take in sayings(talker(0, i), seed=0, index=i, utterances=rounds)
    ]


def test_each_emotion_has_about_a_hundred_short_sentences_of_its_own():
    assert tuple(SENTENCES) == EMOTIONS
    everything = [s for sentences in SENTENCES.values() for s in sentences]
    assert len(set(everything)) == len(everything) == 774
    assert all(len(set(sentences)) >= 100 for sentences in SENTENCES.values())
    assert {len(s.split()) for s in everything} == set(range(4, 11))
    acted = {*NEUTRAL_WORDED, *(s for w in WORDED.values() for s in w)}
    assert not acted & set(everything)


def test_words_fit_the_voice_as_often_as_is_said():
    """Of 8400 takes: shares within 3 standard errors (0.016 at 1/2)."""
    takes = said(100)
    assert Counter(t.label for t in takes) == dict.fromkeys(EMOTIONS, 1200)
    assert all(t.text in SENTENCES[t.worded] for t in takes)
    for label in EMOTIONS:
        mine = Counter(t.worded for t in takes if t.label == label)
        expected = 1 / 4 + 3 / 4 * 2 / 3 if label == "neutral" else 3 / 4 * 2 / 3
        assert mine[label] / 1200 == pytest.approx(expected, abs=0.045)
        if label != "neutral":
            assert mine["neutral"] / 1200 == pytest.approx(1 / 4 + 3 / 4 / 3 / 6, abs=0.045)
    # what the module says of a reader who understands every sentence
    for worded in EMOTIONS:
        heard = [t for t in takes if t.worded == worded]
        right = sum(t.label == worded for t in heard) / len(heard)
        assert right == pytest.approx(0.3 if worded == "neutral" else 2 / 3, abs=0.05)


def test_no_speaker_repeats_a_sentence_before_all_of_its_wording_were_said():
    takes = said(12, speakers=2)
    assert len(takes) == 2 * 7 * 12
    for who in ("tf01", "tm01"):
        texts = [t.text for t in takes if t.speaker == who]
        assert len(set(texts)) == len(texts)


def test_ids_count_on_and_name_no_emotion():
    takes = said(2, speakers=1)
    assert [t.id for t in takes] == [f"tf01-{n:03d}" for n in range(1, 15)]
    for turn in (takes[:7], takes[7:]):
        assert {t.label for t in turn} == set(EMOTIONS)
    assert [t.label for t in takes[:7]] != [t.label for t in takes[7:]]


def test_more_rounds_leave_the_first_as_they_are():
    assert list(sayings(talker(0, 1), seed=0, index=1, utterances=9))[:14] == list(
        sayings(talker(0, 1), seed=0, index=1, utterances=2)
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_of_the_acted_corpus_talks(seed):
    talkers, actors = ([f(seed, i) for i in range(12)] for f in (talker, speaker))
    assert not {t.name for t in talkers} & {a.name for a in actors}
    for what in ("formants", "manner", "equaliser", "noise"):
        assert not {getattr(t, what) for t in talkers} & {getattr(a, what) for a in actors}
    assert Counter(t.gender for t in talkers) == {"female": 6, "male": 6}


def test_a_take_spoken_alone_is_the_take_of_the_series(small):
    with Espeak() as voice:
        for take in list(sayings(talker(0, 1), seed=0, index=1, utterances=2))[::5]:
            stored, rate = soundfile.read(small / take.audio, dtype="int16")
            assert rate == 16000
            assert (act(voice, talker(0, 1), take) == stored).all()


def test_the_manifest_has_no_label_and_no_text_and_keeps_the_truth_apart(small):
    found = list(prepare(small))
    assert [u.id for u in found][:2] == ["synthetic_talk/tf01-001", "synthetic_talk/tf01-002"]
    facts = {(u.label, u.text, u.text_source, u.label_source, u.label_score) for u in found}
    assert facts == {(None, None, None, None, None)}
    assert Counter(u.labels["acted"] for u in found) == dict.fromkeys(EMOTIONS, 4)
    takes = json.loads((small / "corpus.json").read_text())["takes"]
    assert [u.labels for u in found] == [
        {"acted": t["label"], "worded": t["worded"]} for t in takes
    ]
    assert {canonical_label(u) for u in found} == {None}
    assert [canonical_label(u, "acted") for u in found] == [t["label"] for t in takes]


def test_text_is_told_on_request(small):
    found = list(prepare(small, text=True))
    takes = json.loads((small / "corpus.json").read_text())["takes"]
    assert [(u.text, u.text_source) for u in found] == [(t["text"], "human") for t in takes]


def test_one_corpus_is_not_taken_for_the_other(small, tmp_path):
    with pytest.raises(DataError, match="sentences=talk"):
        list(acted_reader.prepare(small))
    with pytest.raises(DataError, match=says(small, "corpus.json")):
        generate(small, utterances=2, speakers=2)
    acted = generate(tmp_path / "acted", utterances=1, speakers=2)
    with pytest.raises(DataError, match="sentences=acted"):
        list(prepare(acted))


def test_it_is_opened_by_name_with_options(tmp_path, monkeypatch):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path))
    options = {"utterances": 1, "speakers": 2, "text": True}
    speech = open_corpora(["synthetic_talk"], options=options)
    assert len(speech.utterances) == 14
    assert all(u.text and u.duration > 0.5 for u in speech.utterances)
    with pytest.raises(ConfigError, match=says("'loud'", "utterances")):
        open_corpora(["synthetic_talk"], options={**options, "loud": True})
