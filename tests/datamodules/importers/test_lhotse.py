from __future__ import annotations

import json
import math

import pytest
from facts import says, tells
from serzoo.datamodules.importers.lhotse import prepare, to_lhotse
from serzoo.datamodules.prepare import prepare as engine
from serzoo.zoo.core.errors import DataError

RECORDING = {
    "id": "r1",
    "sources": [{"type": "file", "channels": [0], "source": "audio/r1.wav"}],
    "sampling_rate": 16_000,
    "num_samples": 16_000,
    "duration": 1.0,
    "channel_ids": [0],
}
SUPERVISION = {
    "id": "s1",
    "recording_id": "r1",
    "start": 0.0,
    "duration": 1.0,
    "channel": 0,
    "text": "good morning",
    "language": "en",
    "speaker": "anna",
    "gender": "female",
    "custom": {"emotion": "happy", "valence": 4, "round": "2"},
}


@pytest.fixture
def lists(write):
    def put(recordings: list | str, supervisions: list | str) -> None:
        for name, rows in (("recordings", recordings), ("supervisions", supervisions)):
            text = rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows)
            write(f"my_{name}_train.jsonl", text)

    return put


def test_supervisions_are_utterances(lists, tmp_path, read):
    part = {**SUPERVISION, "id": "s2", "start": 0.25, "duration": 0.5, "speaker": None}
    lists([RECORDING, {**RECORDING, "id": "r2"}], [SUPERVISION, part])
    found, told = read(prepare, tmp_path, scale=(1, 5), labels=["round"])
    whole, piece = found
    assert (whole.id, whole.audio, whole.start) == ("lhotse/s1", "audio/r1.wav", 0.0)
    assert math.isnan(whole.end)
    assert (whole.label, whole.speaker, whole.gender) == ("happy", "anna", "female")
    assert (whole.text, whole.language, whole.dims) == ("good morning", "en", (0.75, None, None))
    assert whole.labels == {"round": "2"}
    assert (piece.start, piece.end, piece.speaker) == (0.25, 0.75, None)
    assert tells(told, "r2", 1)
    assert tells(told, 1, 2, "data.unknown_speakers")


def test_the_channel_of_a_call(lists, tmp_path, read):
    source = {"type": "file", "channels": [0, 1], "source": "call.wav"}
    call = {**RECORDING, "sources": [source], "channel_ids": [0, 1]}
    lists([call], [SUPERVISION, {**SUPERVISION, "id": "s2", "channel": 1}])
    assert [u.channel for u in read(prepare, tmp_path, scale=(1, 5))[0]] == [1, 2]
    lists([call], [{**SUPERVISION, "channel": [0, 1]}])
    assert [u.channel for u in read(prepare, tmp_path, scale=(1, 5))[0]] == [None]
    lists([call], [{**SUPERVISION, "channel": 2}])
    with pytest.raises(DataError, match=says("my_supervisions_train.jsonl", "line 1", 2)):
        list(prepare(tmp_path, scale=(1, 5)))


def test_there_and_back_by_the_real_library(tmp_path, write_wave, read):
    lhotse = pytest.importorskip("lhotse", reason="no lhotse: pip install 'serzoo[formats]'")
    root = tmp_path / "root"
    for i in range(2):
        write_wave(root / "a" / f"{i}.wav", hz=100.0 * (i + 1), rate=22_050)
    recordings = lhotse.RecordingSet.from_recordings(
        lhotse.Recording.from_file(root / "a" / f"{i}.wav", recording_id=f"r{i}") for i in range(2)
    )
    supervisions = lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(
            id=f"s{i}",
            recording_id=f"r{i}",
            start=0.1 * i,
            duration=0.4,
            speaker=f"spk{i}",
            language="en",
            text="yes",
            gender="F",
            custom={"emotion": "happy", "split": "train"},
        )
        for i in range(2)
    )
    recordings.to_file(root / "recordings.jsonl.gz")
    supervisions.to_file(root / "supervisions.jsonl.gz")
    done = engine("lhotse", root=root, progress=False)
    assert done.refusals == []
    assert [(u.id, u.label, u.gender) for u in done.utterances] == [
        ("lhotse/s0", "happy", "female"),
        ("lhotse/s1", "happy", "female"),
    ]
    first, second = to_lhotse(done.utterances, root, tmp_path / "out")
    back = lhotse.RecordingSet.from_file(first)
    said = lhotse.SupervisionSet.from_file(second)
    lhotse.validate_recordings_and_supervisions(back, said, read_data=True)
    cuts = lhotse.CutSet.from_manifests(recordings=back, supervisions=said).trim_to_supervisions()
    assert [round(cut.duration, 6) for cut in cuts] == [0.4, 0.4]
    assert [cut.supervisions[0].custom["emotion"] for cut in cuts] == ["happy", "happy"]
    assert [s.speaker for s in said] == ["spk0", "spk1"]
    # what was written is read again, and holds the same
    first.rename(root / "recordings.jsonl.gz")
    second.rename(root / "supervisions.jsonl.gz")
    again = engine("lhotse", root=root, progress=False).utterances
    for before, after in zip(done.utterances, again, strict=True):
        assert (before.sha, before.label, before.speaker) == (after.sha, after.label, after.speaker)
        assert after.labels == {"split": "train"}


def test_nothing_or_missing_audio_is_not_written(tmp_path, write_wave):
    with pytest.raises(DataError, match=says("to_lhotse", 0)):
        to_lhotse([], tmp_path, tmp_path / "out")
    write_wave(tmp_path / "r" / "happy" / "a.wav")
    found = engine("folder", root=tmp_path / "r", progress=False).utterances
    (tmp_path / "r" / "happy" / "a.wav").unlink()
    with pytest.raises(DataError, match=says("to_lhotse", "a.wav")):
        to_lhotse(found, tmp_path / "r", tmp_path / "out")


ONE = "my_recordings_train.jsonl"
TWO = "my_supervisions_train.jsonl"
COMMAND = {"type": "command", "channels": [0], "source": "touch ran"}


@pytest.mark.parametrize(
    ("recordings", "supervisions", "facts"),
    [
        ("{", [SUPERVISION], [ONE, "line 1"]),
        ([RECORDING], "[]", [TWO, "line 1"]),
        ([{**RECORDING, "id": None}], [SUPERVISION], [ONE, "line 1", "id"]),
        ([{**RECORDING, "sources": []}], [SUPERVISION], [ONE, "line 1", "sources"]),
        ([{**RECORDING, "sources": [COMMAND]}], [SUPERVISION], [ONE, "line 1", "'command'"]),
        ([{**RECORDING, "transforms": [{}]}], [SUPERVISION], [ONE, "line 1", "transforms"]),
        ([{**RECORDING, "duration": "x"}], [SUPERVISION], [ONE, "line 1", "duration"]),
        ([RECORDING], [{**SUPERVISION, "recording_id": "r9"}], [TWO, "line 1", "r9", ONE]),
        ([RECORDING], [{**SUPERVISION, "duration": 1.5}], [TWO, "line 1", 1.5]),
        ([RECORDING], [{**SUPERVISION, "duration": -1}], [TWO, "line 1", -1]),
        ([RECORDING], [{**SUPERVISION, "custom": {"valence": 9}}], [TWO, "line 1", "valence", 9]),
    ],
)
def test_a_damaged_list_names_file_and_line(lists, tmp_path, recordings, supervisions, facts):
    lists(recordings, supervisions)
    with pytest.raises(DataError, match=says(*facts)):
        list(prepare(tmp_path, scale=(1, 5)))
    assert not (tmp_path / "ran").exists()


def test_lists_must_be_found(lists, tmp_path):
    with pytest.raises(DataError, match=says(0, "options.recordings")):
        list(prepare(tmp_path))
    lists([RECORDING], [SUPERVISION])
    with pytest.raises(DataError, match=says("no.jsonl", "options.supervisions=")):
        list(prepare(tmp_path, supervisions="no.jsonl"))
