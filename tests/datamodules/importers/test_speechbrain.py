from __future__ import annotations

import json

import pytest
from facts import says, tells
from serzoo.datamodules.importers.speechbrain import prepare
from serzoo.zoo.core.errors import DataError

ROW = {"wav": "{data_root}/a/x.wav", "length": 0.5, "emo": "h", "spk_id": "anna"}


@pytest.fixture
def put(write):
    return lambda name, rows: write(name, rows if isinstance(rows, str) else json.dumps(rows))


def test_parts_fields_and_pieces(put, tmp_path, read):
    put("train.json", {"x": ROW, "y": {**ROW, "wav": "a/y.wav", "emo": "s", "spk_id": "ben"}})
    piece = {"file": "{data_root}/a/z.wav", "start": 1600, "stop": 4800}
    put("test.json", {"z": {**ROW, "wav": piece, "sample_rate": 16_000, "valence": 4}})
    found, told = read(prepare, tmp_path, scale=(1, 5), rename={"h": "happy"})
    z, x, y = found
    assert (x.id, x.audio, x.speaker, x.label) == ("speechbrain/x", "a/x.wav", "anna", "happy")
    assert (y.label, y.labels) == ("s", {"split": "train"})
    assert (z.start, z.end, z.labels) == (0.1, 0.3, {"split": "test"})
    assert z.dims == (0.75, None, None)
    assert told == []


def test_fields_can_be_named(put, tmp_path, read):
    put("all.json", {"x": {"path": "x.wav", "feeling": "h", "emo": "no", "who": "anna"}})
    (u,), _ = read(prepare, tmp_path, audio="path", label="feeling", speaker="who", labels=["emo"])
    assert (u.label, u.speaker, u.labels) == ("h", "anna", {"emo": "no"})


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (None, ["options.files"]),
        ("{", ["all.json"]),
        ([1], ["all.json", "[1]", "{...}"]),
        ({"x": 3}, ["all.json", "'x'", 3]),
        ({"x": {**ROW, "wav": None}}, ["all.json", "'x'", "options.audio"]),
        ({"x": {**ROW, "wav": "/else/x.wav"}}, ["all.json", "'x'", "/else/x.wav", "root="]),
        ({"x": {**ROW, "start": 0, "stop": 9}}, ["all.json", "'x'", "sample_rate"]),
        ({"x": {**ROW, "start": 9, "stop": 3, "sample_rate": 1}}, ["all.json", "'x'", 9, 3]),
        ({"x": {**ROW, "valence": 7}}, ["all.json", "'x'", "valence", "scale="]),
        ({"x": {**ROW, "arousal": "high"}}, ["all.json", "'x'", "arousal", "high"]),
    ],
)
def test_a_damaged_file_names_file_and_utterance(put, tmp_path, rows, facts):
    if rows is not None:
        put("all.json", rows)
    with pytest.raises(DataError, match=says(*facts)):
        list(prepare(tmp_path))


def test_a_wrong_name_of_a_field_is_refused(put, tmp_path):
    put("all.json", {"x": ROW})
    with pytest.raises(DataError, match=says("emoo", "label=", "emo")):
        list(prepare(tmp_path, label="emoo"))


def test_what_is_unknown_is_told(put, tmp_path, read):
    put("all.json", {"x": {"wav": "x.wav", "sex": "diverse"}, "y": {"wav": "y.wav", "spk": "b"}})
    found, told = read(prepare, tmp_path)
    assert [u.gender for u in found] == [None, None]
    assert tells(told, "options.label=COLUMN")
    assert tells(told, "diverse", 1)
    assert tells(told, 1, 2, "data.unknown_speakers")
