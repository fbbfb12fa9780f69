from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from facts import says, tells
from serzoo.datamodules.audio import MissingAudioError, read_audio, read_utterance
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.importers.webdataset import prepare
from serzoo.datamodules.prepare import prepare as engine
from serzoo.zoo.core.errors import DataError


def pack(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path, sound):
    files = {}
    for i, format in enumerate(("WAV", "FLAC", "MP3")):
        name = f"clips/{i:03}"
        files[f"{name}.{format.lower()}"] = sound(200.0 + 50 * i, format)
        facts = {"emotion": "happy", "speaker_id": f"s{i}", "arousal": 3}
        files[f"{name}.json"] = json.dumps(facts).encode()
        files[f"{name}.txt"] = b"good morning\n"
    return pack(tmp_path / "train-0000.tar", files)


def test_samples_of_a_shard(shard, read):
    found, told = read(prepare, shard.parent, scale=(1, 5))
    first = found[0]
    assert first.id == "webdataset/train-0000.tar/clips/000"
    assert first.audio == "train-0000.tar/clips/000.wav"
    assert (first.speaker, first.label, first.text) == ("s0", "happy", "good morning")
    assert (first.dims, first.labels) == ((None, 0.5, None), {"split": "train"})
    assert [u.audio[-4:] for u in found] == [".wav", "flac", ".mp3"]
    assert told == []


def test_audio_is_read_from_the_tar_and_nothing_is_unpacked(shard, tmp_path):
    out = tmp_path / "out" / "w.jsonl"
    done = engine("webdataset", root=tmp_path, out=out, options={"scale": [1, 5]}, progress=False)
    assert len(done.utterances) == 3
    assert done.refusals == []
    assert {len(read_utterance(u, tmp_path)) for u in done.utterances[:2]} == {8000}
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["out", "train-0000.tar"]
    again = open_corpora([], manifest=str(out))
    assert [u.sha for u in again.utterances] == [u.sha for u in done.utterances]
    with pytest.raises(MissingAudioError, match=says("train-0000.tar/clips/999.wav")):
        read_audio(shard / "clips" / "999.wav")


def test_a_cls_file_is_a_label_that_can_be_named(tmp_path, sound, read):
    pack(tmp_path / "x.tar", {"a.wav": sound(), "a.cls": b"1", "b.wav": sound(), "b.cls": b"0"})
    found, _ = read(prepare, tmp_path, rename={"1": "sad", "0": "happy"})
    assert [(u.label, u.labels) for u in found] == [("sad", {}), ("happy", {})]


def test_samples_without_audio_are_told(tmp_path, sound, read):
    pack(tmp_path / "x.tar", {"a.wav": sound(), "a.cls": b"1", "b.cls": b"0"})
    found, told = read(prepare, tmp_path)
    assert len(found) == 1
    assert tells(told, 1, "x.tar, b")


def test_damaged_shards_name_tar_and_member(tmp_path, sound, shard):
    def refused(files: dict[str, bytes] | None, *facts: object, mode: str = "w") -> None:
        shard.unlink(missing_ok=True)
        if files is not None:
            pack(shard, files, mode)
        with pytest.raises(DataError, match=says(*facts)):
            list(prepare(tmp_path))

    refused(None, "webdataset", ".tar")
    refused({"a.wav": sound()}, "train-0000.tar", "gunzip", mode="w:gz")
    refused({"a.wav": sound(), "a.json": b"{"}, "train-0000.tar", "a.json")
    refused({"a.wav": sound(), "a.json": b"[1]"}, "train-0000.tar", "a.json")
    refused({"a.wav": sound(), "a.txt": b"\xff\xfe\xff"}, "train-0000.tar", "a.txt")
    refused({"a.wav": sound(), "a.flac": sound()}, "train-0000.tar", "a", 2)
    refused({"a.wav": sound(), "a.json": b'{"valence": 9}'}, "train-0000.tar", "valence", 9)


def test_a_shard_that_is_cut_short_is_refused(tmp_path, sound):
    path = pack(tmp_path / "x.tar", {"a.wav": sound(), "b.wav": sound()})
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=says("x.tar", "download")):
        list(prepare(tmp_path))


def test_damaged_audio_inside_a_shard_refuses_only_that_sample(tmp_path, sound):
    pack(
        tmp_path / "x.tar",
        {"a.wav": sound(), "b.wav": sound()[:9000], "c.wav": b"", "d.wav": b"?" * 99},
    )
    done = engine("webdataset", root=tmp_path, progress=False)
    assert [u.id for u in done.utterances] == ["webdataset/x.tar/a"]
    assert done.refused == {"cut short": 1, "empty": 1, "unreadable": 1}
