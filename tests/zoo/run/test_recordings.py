"""What paths stand for in ``predict``: recordings, or a row that says why there is none."""

import csv
import json
import os

import numpy as np
import pytest
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.run.predictions import Columns, Predictions, Row
from serzoo.zoo.run.recordings import recordings


def reason(recording):
    with pytest.raises(DataError) as caught:
        list(recording.pieces())
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, ["no such file"]),
        (os.mkfifo, ["a pipe", "write the sound to a file first"]),
        (lambda p: p.symlink_to("nowhere.wav"), ["link to nothing", "nowhere.wav"]),
        (lambda p: p.symlink_to("../.git/annex/objects/x"), ["git annex get"]),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), ["git lfs pull"]),
        (lambda p: p.with_name(p.name + ".dvc").write_text("outs:"), ["dvc pull"]),
        (lambda p: p.write_text("no audio"), ["convert"]),
        (lambda p: p.symlink_to(p.name), ["link to nothing"]),
        (lambda p: p.mkdir(), ["holds nothing"]),
        (lambda p: (p.mkdir(), (p / "x.m4a").touch()), ["holds 1 m4a", "ffmpeg"]),
        (lambda p: (p.mkdir(), (p / "x.txt").touch()), ["holds 1 txt"]),
        (lambda p: (p.mkdir(), (p / ".x.wav").touch()), ["1 hidden"]),
    ],
)
def test_what_cannot_be_predicted_says_why_and_the_rest_goes_on(tmp_path, write_wave, make, words):
    good = write_wave(tmp_path / "good.wav")
    make(tmp_path / "a.wav")
    bad, other = recordings([tmp_path / "a.wav", good])
    assert bad.name == str(tmp_path / "a.wav")
    text = reason(bad)
    for word in [bad.name, *words]:
        assert word in text
    assert sum(map(len, other.pieces())) == 8000


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("-", ["standard input", "write the sound to a file first"]),
        ("/dev/null", ["a device"]),
        ("x" * 300, ["too long"]),
        ("~nobody/a.wav", ["no such file"]),
    ],
)
def test_what_is_no_file_is_named_as_what_it_is(name, words):
    (found,) = recordings(name)
    assert found.name == name
    assert all(word in reason(found) for word in words)


def test_files_of_these_very_names_are_files(tmp_path, write_wave, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wave(tmp_path / "~me.wav")
    (tmp_path / "~me.wav").rename(tmp_path / "-")
    write_wave(tmp_path / "~me.wav")
    for found in recordings(["-", "~me.wav"]):
        assert sum(map(len, found.pieces())) == 8000


def test_a_pattern_finds_a_file_once_though_a_link_leads_back(tmp_path, write_wave):
    write_wave(tmp_path / "a" / "1.wav")
    write_wave(tmp_path / "a" / "b" / "2.wav")
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "a" / "b" / "top").symlink_to("../..")
    (tmp_path / "a" / "3.wav").symlink_to("nowhere")
    (tmp_path / "a" / "4.wav").write_text("version https://git-lfs.github.com/spec/v1\n")

    def names(pattern):
        return [r.name.removeprefix(f"{tmp_path}/") for r in recordings(f"{tmp_path}/{pattern}")]

    assert names("**/*.wav") == ["a/1.wav", "a/3.wav", "a/4.wav", "a/b/2.wav"]
    assert names("a/**/b/*") == names("*/b/2*") == ["a/b/2.wav"]
    (nothing,) = recordings(f"{tmp_path}/**/*.ogg")
    assert "no file matches" in reason(nothing)


def test_a_name_that_is_not_utf8_is_predicted_and_written(tmp_path, write_wave):
    source = write_wave(tmp_path / "a.wav", np.full(800, 0.1))
    source.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xfcber.wav"))
    (found,) = recordings(tmp_path)
    assert sum(map(len, found.pieces())) == 800
    rows = [Row(found.name, 0.0, 1.0, "sad", {"sad": 1.0}), Row(found.name, error=found.name)]
    done = Predictions(rows, Columns(["sad"]))
    text = f"{tmp_path}/\\xfcber.wav"
    table = list(csv.DictReader(done.to_csv(tmp_path / "o.csv").open(encoding="utf-8")))
    assert [row["file"] for row in table] == [text, text]
    assert table[1]["error"] == text
    lines = done.to_jsonl(tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["file"] for line in lines] == [text, text]
    assert text in repr(done)
    assert done[0].file == found.name  # which opens the file
