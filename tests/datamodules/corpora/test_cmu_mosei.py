from __future__ import annotations

import math
import warnings

import pytest
from facts import says, tells
from serzoo.datamodules.corpora.cmu_mosei import FOLDS, prepare
from serzoo.datamodules.info import CorpusInfo, cluster_of
from serzoo.datamodules.prepare import prepare as prepare_corpus
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import DataError, DataNote, DataWarning

HEAD = (
    "HITId,Input.VIDEO_ID,Input.CLIP,Answer.anger,Answer.disgust,Answer.fear,Answer.happiness,"
    "Answer.sadness,Answer.sentiment,Answer.surprise\n"
)
FIRST = f"""{HEAD}h,-3g_5yACwYnA,0,0,0,0,2,0,2,0
h,-3g_5yACwYnA,0,0,0,0,1,0,1,1
h,-3g_5yACwYnA,0,0,0,0,0,0,-1,0
h,-3g_5yACwYnA,1,0,0,0,0,0,0,0
h,81406,0,0,2,0,0,1,-2,0
h,81406,0,0,0,0,0,1,-1,0
h,nobody,0,0,0,0,1,0,0,0
"""
SECOND = f"{HEAD}h,set/hh04W3xXa5s,0,3,0,0,0,0,,0\nh,81406,1,4,0,0,0,0,0,0\n"
WORDS = {
    "-3g_5yACwYnA": "___0___-0.4___9.5___Well, this is ___ good.\n"
    "-3g_5yACwYnA___1___10___12.5___Go on.\n",
    "81406": "___0___0.0___4___No.\n81406___1___4___6___Oh.\n81406___2___6___7___Not rated.\n",
    "hh04W3xXa5s": "___0___1.0___3.0___\n",
    "nobody": "___0___1.0___3.0___I am in no fold.\nnobody___x___3___4___\n",
}
PUBLISHED = (
    "standard_train_fold=['-3g_5yACwYnA', 'absent']\nstandard_valid_fold=['81406']\n"
    "standard_test_fold=['hh04W3xXa5s']\n"
)
MEANS = (
    "video,start_time,end_time,sentiment,happy,sad,anger,surprise,disgust,fear,text,ASR\n"
    "81406,0.5,4.25,1.0,0.6666667,0.0,0.0,0.0,0.0,0.0,Yes.,yes\n"
    "81406,4.25,6.0,-1.0,0.0,0.6666667,0.6666666,0.0,0.0,0.0,,\n"
)


@pytest.fixture(autouse=True)
def mosei(tree):
    for video, text in WORDS.items():
        tree.plant(f"Audio/Full/WAV_16000/{video}.wav")
        tree.write(f"Transcript/Segmented/Combined/{video}.txt", video + text)
    tree.plant("Audio/Full/WAV_16000/unrated.wav")
    tree.write("Labels/5000_batch_raw.csv", FIRST)
    tree.write("Labels/mturk_extra_v2.csv", SECOND)
    tree.write(FOLDS, PUBLISHED)


def read(root, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {u.id.removeprefix("cmu_mosei/"): u for u in prepare(root, **options)}
    said = [(w.category is DataNote, str(w.message)) for w in caught]
    assert all(issubclass(w.category, DataWarning) for w in caught)
    info = CorpusInfo.load("cmu_mosei")
    assert {u.label for u in found.values()} <= set(info.labels)
    assert {u.speaker for u in found.values()} == {None}
    return found, [t for fact, t in said if not fact], [t for fact, t in said if fact]


def test_labels_are_the_strongest_mean_and_votes_those_of_each_worker(tree):
    found, told, facts = read(tree.root)
    assert list(found) == ["-3g_5yACwYnA_0", "-3g_5yACwYnA_1", "81406_0", "hh04W3xXa5s_0"]
    first, second, third, last = found.values()
    assert first.label == "happy"  # means 1 and 1/3
    assert first.votes == {"happy": 1.5, "surprise": 0.5, "neutral": 1.0}
    assert first.labels == {
        "happy": "1", "surprise": "0.3333", "sentiment": "positive", "split": "train",
    }  # fmt: skip
    assert (second.label, second.votes) == ("neutral", {"neutral": 1.0})
    assert second.labels == {"sentiment": "neutral", "split": "train"}
    assert third.label == "tie"  # disgust and sad, both 1
    assert CorpusInfo.load("cmu_mosei").labels["tie"] is None
    assert third.votes == {"disgust": 1.0, "sad": 1.0}
    assert (last.label, last.labels) == ("anger", {"anger": "3", "split": "test"})
    assert tells(told, "mturk_extra_v2.csv, 81406_1", 1)  # 4 is no intensity
    assert tells(facts, "81406_1", "81406_2", 2)
    assert tells(facts, "unrated", 1)


def test_a_segment_is_a_stretch_of_its_video(tree):
    found, told, facts = read(tree.root)
    first, second = list(found.values())[:2]
    assert first.audio == "Audio/Full/WAV_16000/-3g_5yACwYnA.wav"
    assert (first.start, first.end) == (0.0, 9.5)
    assert tells(facts, "-3g_5yACwYnA_0", "0 s", 1)
    assert (second.start, second.end, second.audio) == (10.0, 12.5, first.audio)
    assert first.text == "Well, this is ___ good."
    assert (found["hh04W3xXa5s_0"].text, found["hh04W3xXa5s_0"].text_source) == (None, None)
    assert cluster_of(first) == cluster_of(second) == ("session", "cmu_mosei/-3g_5yACwYnA")
    assert tells(told, "nobody.txt, line 2", 1)


def test_the_official_split_is_the_publishers_list_of_videos(tree):
    found, _, facts = read(tree.root)
    split = Protocol.load("official").split(list(found.values()), 0)
    assert [[u.session for u in part] for _, part in split.parts()] == [
        ["-3g_5yACwYnA", "-3g_5yACwYnA"],
        ["81406"],
        ["hh04W3xXa5s"],
    ]
    assert tells(facts, "nobody_0", FOLDS, "all_videos=true", 1)
    everything, *_ = read(tree.root, all_videos=True)
    assert "split" not in everything["nobody_0"].labels
    (tree.root / FOLDS).unlink()
    without, told, _ = read(tree.root)
    assert len(without) == 5
    assert not any("split" in u.labels for u in without.values())
    assert tells(told, FOLDS, "protocol=kfold")


def test_tables_of_means_name_their_part(tree):
    for path in (tree.root / "Labels").iterdir():
        path.unlink()
    (tree.root / FOLDS).unlink()
    for part, video in (("Train", "81406"), ("Val", "hh04W3xXa5s"), ("Test", "nobody")):
        tree.write(f"Labels/Data_{part}_modified.csv", MEANS.replace("81406", video))
    found, told, _ = read(tree.root)
    assert told == []
    first, second = found["81406[0.5_4.25]"], found["81406[4.25_6.0]"]
    assert (first.start, first.end, first.text, first.votes) == (0.5, 4.25, "Yes.", {})
    assert first.labels == {"happy": "0.6667", "sentiment": "positive", "split": "train"}
    assert (second.label, second.labels["sentiment"], second.text) == ("tie", "negative", None)
    parts = {u.session: u.labels["split"] for u in found.values()}
    assert parts == {"81406": "train", "hh04W3xXa5s": "valid", "nobody": "test"}
    assert len(found) == 6


def test_a_missing_video_counts_as_missing_and_the_ends_are_checked(tree, write_wave):
    for video in ("-3g_5yACwYnA", "81406", "hh04W3xXa5s"):
        write_wave(tree.root / f"Audio/Full/WAV_16000/{video}.wav", seconds=5.0)
    (tree.root / "Audio/Full/WAV_16000/hh04W3xXa5s.wav").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = prepare_corpus("cmu_mosei", root=tree.root, progress=False)
    assert [(u.id, u.start, u.end) for u in done.utterances] == [("cmu_mosei/81406_0", 0.0, 4.0)]
    assert done.refused["missing"] == 1
    assert len(done.refusals) == 3
    assert not any(math.isnan(u.end) for u in done.utterances)


@pytest.mark.parametrize(
    ("damage", "facts"),
    [
        (lambda t: [p.unlink() for p in t.root.rglob("*.csv")], ["Labels", "Answer.happiness"]),
        (lambda t: [p.unlink() for p in t.root.rglob("*.wav")], ["WAV_16000"]),
        (lambda t: [p.unlink() for p in t.root.rglob("*.txt")], ["Transcript", "VIDEO.txt"]),
        (
            lambda t: t.write("Labels/mturk_extra_v2.csv", SECOND + "h,x\n"),
            ["line 4", "mturk_extra_v2.csv"],
        ),
        (lambda t: t.write(FOLDS, "standard_train_fold=['a'"), [FOLDS, "standard_test_fold"]),
        (lambda t: t.write(FOLDS, PUBLISHED.replace("'81406'", "open('x')")), [FOLDS]),
        (lambda t: t.write(FOLDS, PUBLISHED.replace("['81406']", "4")), [FOLDS]),
        (lambda t: t.write(FOLDS, PUBLISHED.partition("\n")[0]), [FOLDS, "standard_valid_fold"]),
        (lambda t: t.plant("copy/81406.wav"), ["81406", "copy/81406.wav"]),
    ],
)
def test_a_damaged_release_names_the_file(tree, damage, facts):
    damage(tree)
    with pytest.raises(DataError, match=says(*facts)):
        read(tree.root)


def test_other_tables_are_named(tree):
    tree.write("Labels/notes.csv", "a,b\n1,2\n")
    assert tells(read(tree.root)[2], "notes.csv", 1)
    (tree.root / "Labels/5000_batch_raw.csv").unlink()
    (tree.root / "Labels/mturk_extra_v2.csv").unlink()
    with pytest.raises(DataError, match=says("notes.csv", "Input.VIDEO_ID", "start_time")):
        read(tree.root)
