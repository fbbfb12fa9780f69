"""MELD, with its tables as published, stray bytes included."""

from __future__ import annotations

import pytest
from facts import says, tells
from serzoo.datamodules.corpora.meld import prepare
from serzoo.datamodules.info import canonical_label
from serzoo.zoo.core.errors import DataError

HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime\n"
)
TIMES = '4,7,"00:20:57,256","00:21:00,049"\n'
ROWS = {
    "train": f'1,"Also, I was the\x85 point, I\x92m sure",Chandler,neutral,neutral,0,0,{TIMES}'
    f"2,It\x85 depends\x85,The Interviewer,joy,positive,0,1,{TIMES}",
    "dev": f'1,"Oh my God, he’s lost it.",Phoebe,sadness,negative,0,0,{TIMES}',
    "test": f'1,"""Wanted."" Nice!",Ross,surprise,positive,0,0,{TIMES}',
}
FOLDERS = ("train_splits", "dev_splits_complete", "output_repeated_splits_test")


@pytest.fixture
def meld(tree):
    for split, rows in ROWS.items():
        tree.write(f"data/MELD/{split}_sent_emo.csv", HEADER + rows)
    tree.plant(*(f"MELD.Raw/{folder}/dia0_utt0.flac" for folder in FOLDERS))
    return tree


def test_the_splits_are_kept_apart(meld):
    found, said = meld.read(prepare)
    assert said == []
    assert {k: (u.audio, u.session, u.label) for k, u in found.items()} == {
        "train-dia0_utt0": ("MELD.Raw/train_splits/dia0_utt0.flac", "train-dia0", "neutral"),
        "train-dia0_utt1": ("MELD.Raw/train_splits/dia0_utt1.flac", "train-dia0", "joy"),
        "dev-dia0_utt0": ("MELD.Raw/dev_splits_complete/dia0_utt0.flac", "dev-dia0", "sadness"),
        "test-dia0_utt0": (
            "MELD.Raw/output_repeated_splits_test/dia0_utt0.flac",
            "test-dia0",
            "surprise",
        ),
    }


def test_words_with_stray_bytes(meld):
    found, _ = meld.read(prepare)
    # Windows-1252 bytes as control characters; one of them is a line break, and a space, to Python
    assert found["train-dia0_utt0"].text == "Also, I was the… point, I’m sure"
    assert found["train-dia0_utt1"].text == "It… depends…"
    assert found["test-dia0_utt0"].text == '"Wanted." Nice!'
    assert found["train-dia0_utt1"].speaker == "The Interviewer"


def test_sentiment_and_split_are_further_columns(meld):
    sad = meld.read(prepare)[0]["dev-dia0_utt0"]
    assert sad.labels == {"sentiment": "negative", "split": "dev"}
    assert canonical_label(sad) == "sad"
    assert canonical_label(sad, "sentiment") == "negative"


def test_no_row_and_no_file_is_dropped_silently(meld):
    meld.plant("MELD.Raw/train_splits/dia7_utt0.flac", "elsewhere/dia0_utt0.wav")
    # such names are in the publisher's test folder
    meld.plant("MELD.Raw/output_repeated_splits_test/final_videos_testdia0_utt0.flac")
    found, said = meld.read(prepare)
    assert [name for name, u in found.items() if not meld.has(u)] == ["train-dia0_utt1"]
    misnamed, unlisted = said
    assert tells(misnamed, "meld", 1, "final_videos_testdia0_utt0.flac", "dia0_utt0.wav")
    assert tells(unlisted, "meld", "train", "train_sent_emo.csv", 1, "dia7_utt0")


def test_a_split_without_a_table_is_named(meld):
    (meld.root / "data/MELD/dev_sent_emo.csv").unlink()
    found, said = meld.read(prepare)
    assert sorted(found) == ["test-dia0_utt0", "train-dia0_utt0", "train-dia0_utt1"]
    assert len(said) == 1
    assert tells(said, "meld", "dev_sent_emo.csv", meld.root, 1)


def test_the_nearest_folder_tells_the_split(tree):
    tree.write("test_sent_emo.csv", HEADER + ROWS["test"])
    tree.plant("train_and_test/Test_wav/dia0_utt0.WAV")
    found, _ = tree.read(prepare)
    assert found["test-dia0_utt0"].audio == "train_and_test/Test_wav/dia0_utt0.WAV"


def test_video_only_as_published_says_how_to_take_the_audio_out(tree):
    tree.write("train_sent_emo.csv", HEADER + ROWS["train"])
    tree.plant("train_splits/dia0_utt0.mp4", "train_splits/dia0_utt1.mp4")
    with pytest.raises(DataError, match=says("2 video", "ffmpeg -i", "-ac 1", "-ar 16000")):
        tree.read(prepare)


def test_what_cannot_be_placed_is_refused(meld):
    with pytest.raises(DataError, match=says("train_sent_emo.csv", "MELD.Raw", "data/MELD")):
        meld.read(prepare, below="MELD.Raw")
    meld.write("data/MELD/train_sent_emo.csv", HEADER + ROWS["train"] + ROWS["train"])
    with pytest.raises(
        DataError, match=says("train_sent_emo.csv", "'dia0_utt0'", "Dialogue_ID", "Utterance_ID")
    ):
        meld.read(prepare)
    meld.write("copy/train_sent_emo.csv", HEADER)
    with pytest.raises(
        DataError, match=says(2, "copy/train_sent_emo.csv", "data/MELD/train_sent_emo.csv", "root=")
    ):
        meld.read(prepare)


def test_files_without_a_split_are_refused(tree):
    tree.write("train_sent_emo.csv", HEADER + ROWS["train"])
    tree.plant("wavs/dia0_utt0.wav")
    with pytest.raises(
        DataError, match=says(1, "dia0_utt0.wav", "train_splits", "dev_splits_complete")
    ):
        tree.read(prepare)


def test_a_recording_twice_is_refused(meld):
    meld.plant("MELD.Raw/train_splits/dia0_utt0.wav")
    with pytest.raises(
        DataError, match=says("1 of 3", "train-dia0_utt0", "train_splits/dia0_utt0.flac")
    ):
        meld.read(prepare)


def test_names_that_lost_their_case_are_found(meld):
    wanted, said = meld.read(prepare)
    for path in meld.root.rglob("*.flac"):
        path.rename(path.with_name(path.name.upper()))
    found, now = meld.read(prepare)
    assert found.keys() == wanted.keys()
    assert now == said
    assert sum(map(meld.has, found.values())) == 3
