from __future__ import annotations

import math

import pytest
from facts import says, tells
from serzoo.datamodules.importers.kaldi import prepare
from serzoo.datamodules.prepare import prepare as engine
from serzoo.zoo.core.errors import DataError

FILES = {
    "wav.scp": "call1 audio/call1.wav\ncall2 audio/call2.wav\n",
    "segments": "call1-a call1 0.0 0.2\ncall1-b call1 0.2 0.5\ncall2-a call2 0.1 -1\n",
    "utt2spk": "call1-a anna\ncall1-b ben\ncall2-a anna\n",
    "spk2gender": "anna f\nben m\n",
    "text": "call1-a good morning\ncall1-b\ncall2-a no\n",
    "utt2emo": "call1-a happy\ncall1-b angry\ncall2-a happy\n",
}


@pytest.fixture
def folder(tmp_path, write, write_wave):
    for name, text in FILES.items():
        write(f"data/{name}", text)
    for n in (1, 2):
        write_wave(tmp_path / "audio" / f"call{n}.wav", hz=100.0 * n)
    return tmp_path


def test_all_files_of_a_data_folder_are_joined(folder, read):
    found, told = read(prepare, folder, data="data", language="en")
    a, b, c = found
    assert (a.id, a.audio, a.start, a.end) == ("kaldi/call1-a", "audio/call1.wav", 0.0, 0.2)
    assert (a.speaker, a.gender, a.label, a.text) == ("anna", "female", "happy", "good morning")
    assert (b.speaker, b.gender, b.text, b.text_source) == ("ben", "male", None, None)
    assert c.start == 0.1
    assert math.isnan(c.end)
    assert told == []
    done = engine("kaldi", root=folder, options={"data": "data"}, progress=False)
    assert [round(u.duration, 3) for u in done.utterances] == [0.2, 0.3, 0.4]


def test_without_segments_each_recording_is_an_utterance(folder, read):
    for name in ("segments", "utt2spk", "utt2emo", "text"):
        (folder / "data" / name).unlink()
    found, told = read(prepare, folder, data="data")
    assert [u.id for u in found] == ["kaldi/call1", "kaldi/call2"]
    assert [(u.label, u.speaker) for u in found] == [(None, None)] * 2
    assert tells(told, "utt2emo")
    assert tells(told, "utt2spk")


def test_paths_of_another_machine_are_cut(folder, write, read):
    write("data/wav.scp", "call1 /mnt/x/audio/call1.wav\ncall2 /mnt/x/audio/call2.wav\n")
    with pytest.raises(DataError, match=says("wav.scp", "line 1", "options.strip=")):
        list(prepare(folder, data="data"))
    assert read(prepare, folder, data="data", strip="/mnt/x")[0][0].audio == "audio/call1.wav"


def test_a_pipe_is_refused_and_not_run(folder, write):
    mark = folder / "ran"
    write("data/wav.scp", f"call1 audio/call1.wav\ncall2 touch {mark}; cat a.wav |\n")
    with pytest.raises(DataError, match=says("wav.scp", "line 2", "wav-copy")):
        list(prepare(folder, data="data"))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "text", "facts"),
    [
        ("wav.scp", None, ["wav.scp", "options.data="]),
        ("wav.scp", "call1 audio/call1.wav\ncall2\n", ["wav.scp", "line 2", "call2"]),
        ("wav.scp", "call1 a.wav\ncall1 b.wav\n", ["wav.scp", "line 2", "line 1"]),
        ("wav.scp", "call1 raw.1.ark:13\n", ["wav.scp", "line 1", "wav-copy"]),
        ("wav.scp", "call1 ../call1.wav\n", ["wav.scp", "line 1", "root="]),
        ("segments", "a call1 0.0\n", ["segments", "line 1", "end"]),
        ("segments", "a call9 0.0 1.0\n", ["segments", "line 1", "call9"]),
        ("segments", "a call1 0.4 0.2\n", ["segments", "line 1", 0.4, 0.2]),
        ("segments", "a call1 0,4 1\n", ["segments", "line 1", "0,4"]),
        ("utt2spk", "call1-a anna\ncall1-a ben\n", ["utt2spk", "line 2"]),
        ("utt2emo", "call1-a \udcff\n", ["utt2emo", "line 1", "UTF-8"]),
    ],
)
def test_a_damaged_folder_names_file_and_line(folder, file, text, facts):
    path = folder / "data" / file
    path.unlink()
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=says(*facts)):
        list(prepare(folder, data="data"))


def test_names_without_an_utterance_are_told(folder, write, read):
    write("data/text", "call1-a yes\ncall7-x no\n")
    assert tells(read(prepare, folder, data="data")[1], "text", "call7-x")
