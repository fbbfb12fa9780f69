from __future__ import annotations

import json

import pytest
from facts import says, tells
from serzoo.datamodules.importers.emobox import prepare
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import ConfigError, DataError

SPEAKER = r"tiny-(\d\d)"


def row(speaker: int, take: int, emotion: str = "j", **more) -> str:
    name = f"{speaker:02}-{emotion}-{take}"
    facts = {
        "key": f"tiny-{name}",
        "dataset": "tiny",
        "wav": f"downloads/tiny/{name}.wav",
        "type": "raw",
        "sample_rate": 48000,
        "num_frame": 96000.0,
        "task": "category",
        "length": 2.0,
        "emo": emotion,
        "channel": 1,
    }
    return json.dumps({**facts, **more}) + "\n"


def lists(write, test_speaker: int) -> None:
    training = "".join(row(s, 1) + row(s, 2, "c") for s in (1, 2, 3))
    test = row(test_speaker, 8) + row(test_speaker, 9, "c")
    write("data/tiny/tiny.jsonl", training + test)
    write("data/tiny/fold_1/tiny_train_fold_1.jsonl", training)
    write("data/tiny/fold_1/tiny_test_fold_1.jsonl", test)
    write("data/tiny/label_map.json", json.dumps({"j": "happy", "c": "angry"}))


def test_the_whole_list_has_no_split(write, tmp_path, read):
    lists(write, 4)
    found, told = read(prepare, tmp_path, dataset="tiny", language="fr")
    assert (len(found), found[0].labels, found[0].language) == (8, {}, "fr")
    assert (found[0].id, found[0].audio) == ("emobox/tiny-01-j-1", "downloads/tiny/01-j-1.wav")
    assert {u.label for u in found} == {"happy", "angry"}
    assert tells(told, "options.speaker='(...)'", 8)
    plain, _ = read(prepare, tmp_path, dataset="tiny", label_map=False, speaker=SPEAKER)
    assert {u.label for u in plain} == {"j", "c"}
    assert {u.speaker for u in plain} == {"01", "02", "03", "04"}


def test_a_fold_by_speaker_holds_out_a_speaker_to_validate(write, tmp_path, read):
    lists(write, 4)
    found, told = read(prepare, tmp_path, dataset="tiny", fold=1, speaker=SPEAKER)
    parts = {
        p: {u.speaker for u in found if u.labels["split"] == p} for p in ("train", "valid", "test")
    }
    assert (len(parts["train"]), len(parts["valid"]), parts["test"]) == (2, 1, {"04"})
    assert not tells(told, "speaker-dependent")


def test_a_fold_that_shares_speakers_says_so_and_runs_only_as_declared(write, tmp_path, read):
    lists(write, 2)
    write("data/tiny/fold_1/tiny_valid_fold_1.jsonl", row(5, 1) + row(5, 2, "c"))
    found, told = read(prepare, tmp_path, dataset="tiny", fold=1, speaker=SPEAKER)
    assert tells(told, "speaker-dependent", 1, "02", "protocol=emobox-official")
    with pytest.raises(DataError, match=says("train", "test", 1, "shares")):
        Protocol.load("official").split(found, 0)
    split = Protocol.load("emobox-official").split(found, 0)
    assert [len(p) for _, p in split.parts()] == [6, 2, 2]
    assert tells(split.notes, "train", "test", 1)


def test_a_segment_of_a_recording(write, tmp_path, read):
    write("data/tiny/tiny.jsonl", row(1, 1, start_time=1.5, end_time=2.5))
    (u,), _ = read(prepare, tmp_path, dataset="tiny")
    assert (u.start, u.end) == (1.5, 2.5)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{}\n", ["tiny.jsonl", "line 1", "key", "wav", "emo"]),
        (row(1, 1) + "{\n", ["tiny.jsonl", "line 2"]),
        (row(1, 1, emo=3), ["tiny.jsonl", "line 1", "emo"]),
        (row(1, 1, type="feature"), ["tiny.jsonl", "line 1", "feature"]),
        (row(1, 1, wav="/data/x.wav"), ["tiny.jsonl", "line 1", "/data/x.wav", "options.strip="]),
        (row(1, 1, start_time="x"), ["tiny.jsonl", "line 1", "start_time", "x"]),
        ("", ["options", "root="]),
    ],
)
def test_a_damaged_list_names_file_and_line(write, tmp_path, text, facts):
    write("data/tiny/tiny.jsonl", text)
    with pytest.raises(DataError, match=says(*facts)):
        list(prepare(tmp_path, dataset="tiny"))


def test_missing_lists_and_wrong_options(write, tmp_path):
    lists(write, 4)
    for options, facts in (
        ({"dataset": "cafe"}, ["data/cafe", "tiny", "options.dataset"]),
        ({"dataset": "tiny", "fold": 7}, ["tiny_train_fold_7.jsonl", "fold_1"]),
    ):
        with pytest.raises(DataError, match=says(*facts)):
            list(prepare(tmp_path, **options))
    for options, facts in (
        ({"speaker": "(a)(b)"}, ["(a)(b)", 2]),
        ({"valid": 2.0}, ["valid=2.0", "0.2"]),
    ):
        with pytest.raises(ConfigError, match=says(*facts)):
            list(prepare(tmp_path, dataset="tiny", **options))
