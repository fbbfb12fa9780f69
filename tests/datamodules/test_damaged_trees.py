"""Damaged trees of data: each is told with its file, the line if it has lines, and a remedy."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from facts import tells
from serzoo.datamodules.manifest import read_manifest
from serzoo.datamodules.prepare import prepare
from serzoo.zoo.core.errors import SerzooError

WAVES: dict[str, dict[str, Any]] = {
    ".wav": {"format": "WAV"},
    ".flac": {"format": "FLAC"},
    ".ogg": {"format": "OGG"},
    ".mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    ".aiff": {"format": "AIFF"},
}


def sound(name: str, *, n: int = 8000, level: float = 0.1, **how: Any) -> bytes:
    """Half a second of noise, other for each name."""
    file = io.BytesIO()
    x = level * np.random.default_rng(list(name.encode())).normal(size=n)
    soundfile.write(file, x, 16_000, **(WAVES[Path(name).suffix] | how))
    return file.getvalue()


def half(name: str) -> bytes:
    data = sound(name, n=32_000)
    return data[: len(data) // 2]


def tar(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


class Tree(NamedTuple):
    """A damaged tree.

    Attributes:
        reader: its reader, or ``manifest``.
        files: path to content; a sound if it is empty.
        facts: what must be told: file, line, and what to do.
        options: of the reader.
    """

    reader: str
    files: dict[str, str | bytes | None]
    facts: tuple[object, ...]
    options: dict[str, Any] = {}  # noqa: RUF012


GOOD: dict[str, str | bytes | None] = {"a.wav": None, "b.wav": None}
TABLE = "audio,label,speaker\na.wav,angry,s1\n"


def table(text: str | bytes, *facts: object, **options: Any) -> Tree:
    return Tree("csv", {**GOOD, "t.csv": text}, facts, options)


def audio(name: str, content: str | bytes, *facts: object) -> Tree:
    """One bad recording among good ones, which are kept."""
    return Tree("folder", {"angry/good.wav": None, f"angry/{name}": content}, (name, *facts))


def manifest(text: str | bytes, *facts: object) -> Tree:
    return Tree("manifest", {"a.wav": None, "m.jsonl": text}, ("m.jsonl", *facts))


ROW = '{"id": "c/a", "corpus": "c", "audio": "a.wav", "start": 0, "end": 0.5, "sample_rate": 16000, "speaker": null}'  # noqa: E501
HEADER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 132\n"

TREES: dict[str, Tree] = {
    # tables
    "a row is short": table(TABLE + "b.wav,sad\n", "t.csv", "line 3"),
    "a row is long": table(TABLE + "b.wav,sad,s2,more\n", "t.csv", "line 3"),
    "a quote stays open": table(TABLE + '"b.wav,sad,s2\n', "t.csv", "line 3"),
    "no header": table("a.wav,angry,s1\n", "t.csv"),
    "blanks separate": table("audio label speaker\na.wav angry s1\n", "t.csv"),
    "no rows": table("audio,label,speaker\n", "t.csv"),
    "nothing": table("", "t.csv"),
    "two columns of one name": table("audio,label,label\na.wav,x,y\n", "t.csv"),
    "no column of labels": table("audio,mood\na.wav,angry\nb.wav,sad\n", "t.csv"),
    "a path is missing": table(TABLE + ",sad,s2\n", "t.csv", "line 3"),
    "a path leads out": table(TABLE + "../b.wav,sad,s2\n", "t.csv", "line 3"),
    "a time is no number": table("audio,label,start\na.wav,angry,x\n", "t.csv", "line 2"),
    "a rating is out of the scale": table(
        "audio,label,valence\na.wav,angry,7\n", "t.csv", "line 2"
    ),
    "half UTF-8, half Windows": table(
        TABLE.encode() + "b.wav,größe,s2\n".encode() + "b.wav,größe,s2\n".encode("cp1252"), "t.csv"
    ),
    "copies": table(TABLE + "a.wav,angry,s1\n", "t.csv"),
    "raters contradict each other in facts": table(
        TABLE + "a.wav,sad,s2\n", "t.csv", "line 3", rater="speaker"
    ),
    "one rater twice": table("audio,label,rater\na.wav,x,r\na.wav,y,r\n", "t.csv"),
    "several labels in a cell": table(
        "audio,label,speaker\na.wav,angry;sad,s1\nb.wav,sad,s2\n", "t.csv", "line 2"
    ),
    "a renamed word that is not there": table(TABLE, "angri", rename={"angri": "angry"}),
    "two tables": Tree("csv", {**GOOD, "t.csv": TABLE, "u.csv": TABLE}, ("t.csv", "u.csv")),
    "a recording of the table is missing": table(TABLE + "d.wav,sad,s2\n", "d.wav"),
    # folders
    "no sub-folders": Tree("folder", GOOD, ("angry/clip1.wav",)),
    "a sub-folder without audio": Tree(
        "folder", {"angry/a.wav": None, "sad/notes.txt": "x"}, ("sad",)
    ),
    "a pattern fits some": Tree(
        "folder",
        {"angry/s1.wav": None, "angry/x.wav": None},
        ("angry/x.wav",),
        {"speaker": "s([0-9])"},
    ),
    # recordings
    "empty": audio("x.wav", b""),
    "a wave that was cut": audio("x.wav", half("x.wav")),
    "a flac that was cut": audio("x.flac", half("x.flac")),
    "an ogg that was cut": audio("x.ogg", half("x.ogg")),
    "an mp3 that was cut": audio("x.mp3", half("x.mp3")),
    "a page instead of audio": audio("x.wav", b"<html>404 Not Found</html>"),
    "a pointer of Git LFS": audio("x.wav", HEADER),
    "no header of the wave": audio("x.wav", sound("x.wav")[44:]),
    "silence": audio("x.wav", sound("x.wav", level=0.0)),
    "a click": audio("x.wav", sound("x.wav", n=160)),
    "not finite": audio("x.wav", sound("x.wav", level=np.nan, subtype="FLOAT")),
    "out of range": audio("x.wav", sound("x.wav", level=1e30, subtype="FLOAT")),
    "another format": audio("x.m4a", b"\0\0\0\x20ftypM4A "),
    # manifests
    "a line that is cut": manifest(ROW + "\n" + ROW[:40], "line 2"),
    "an unknown key": manifest(ROW.replace('"start"', '"begin"'), "line 1"),
    "a lacking key": manifest('{"id": "c/a"}', "line 1"),
    "a wrong type": manifest(ROW.replace("16000", '"16k"'), "line 1"),
    "a list": manifest("[1]", "line 1"),
    "not finite in JSON": manifest(ROW.replace("0.5", "NaN"), "line 1"),
    "bytes": manifest(ROW.encode() + b"\n\xff\xfe\x00", "line 2"),
    "no utterance": manifest("\n"),
    # other tools
    "Kaldi: a command": Tree("kaldi", {"wav.scp": "u1 cat a.wav |\n"}, ("wav.scp", "line 1")),
    "Kaldi: a name alone": Tree(
        "kaldi", {**GOOD, "wav.scp": "u1 a.wav\nu2\n"}, ("wav.scp", "line 2")
    ),
    "Kaldi: a name twice": Tree(
        "kaldi", {**GOOD, "wav.scp": "u1 a.wav\nu1 b.wav\n"}, ("wav.scp", "line 2")
    ),
    "Kaldi: a segment of nothing": Tree(
        "kaldi",
        {**GOOD, "wav.scp": "r1 a.wav\n", "segments": "u1 r2 0 1\n"},
        ("segments", "line 1"),
    ),
    "Kaldi: a segment backwards": Tree(
        "kaldi",
        {**GOOD, "wav.scp": "r1 a.wav\n", "segments": "u1 r1 1 0\n"},
        ("segments", "line 1"),
    ),
    "Lhotse: a command": Tree(
        "lhotse",
        {
            "recordings.jsonl": '{"id": "r", "sources": [{"type": "command", "channels": [0], "source": "x"}], "sampling_rate": 1, "num_samples": 1, "duration": 1}\n',  # noqa: E501
            "supervisions.jsonl": "{}\n",
        },
        ("recordings.jsonl", "line 1"),
    ),
    "SpeechBrain: an end before its start": Tree(
        "speechbrain",
        {
            **GOOD,
            "train.json": '{"u1": {"wav": "a.wav", "start": 9, "stop": 3, "sample_rate": 2}}',
        },
        ("train.json", "u1"),
    ),
    "SpeechBrain: cut": Tree(
        "speechbrain", {**GOOD, "train.json": '{"u1": {"wav": '}, ("train.json", "line 1")
    ),
    "EmoBox: no key": Tree(
        "emobox",
        {"data/cafe/cafe.jsonl": '{"key": "x", "wav": "a.wav"}\n'},
        ("cafe.jsonl", "line 1"),
        {"dataset": "cafe"},
    ),
    "WebDataset: two sounds of one name": Tree(
        "webdataset",
        {"s.tar": tar(a__wav=sound("a.wav"), a__flac=sound("a.flac"))},
        ("s.tar", "a.flac"),
    ),
    "WebDataset: json that is cut": Tree(
        "webdataset",
        {"s.tar": tar(a__wav=sound("a.wav"), a__json=b'{"label": ')},
        ("s.tar", "a.json"),
    ),
    "WebDataset: a tar that was cut": Tree(
        "webdataset",
        {"s.tar": tar(a__wav=sound("a.wav"), b__wav=sound("b.wav"))[:9000]},
        ("s.tar",),
    ),
    "WebDataset: compressed": Tree("webdataset", {"s.tar.gz": b"\x1f\x8b"}, ("s.tar.gz",)),
    # published corpora
    "EMO-DB: there twice": Tree(
        "emodb",
        {"wav/03a01Wa.wav": None, "copy/wav/03a01Wa.wav": None},
        ("wav/03a01Wa.wav", "root="),
    ),
    "EMO-DB: other names": Tree("emodb", GOOD, ("a.wav", "root=")),
}


REMEDIES = {
    "a row is short": "quotes",
    "a row is long": "quotes",
    "a quote stays open": "quotes",
    "no header": "put names of columns above it",
    "blanks separate": "separate them with commas or tabs",
    "no rows": "write one row",
    "nothing": "options.audio=COLUMN",
    "two columns of one name": "rename",
    "no column of labels": "options.label=mood",
    "a path is missing": "fill it in",
    "a path leads out": "set root=",
    "a time is no number": "expected a number",
    "a rating is out of the scale": "give the scale",
    "half UTF-8, half Windows": "save it as CSV in UTF-8",
    "copies": "options.rater=COLUMN",
    "raters contradict each other in facts": "ratings only",
    "one rater twice": "keep one",
    "several labels in a cell": "write the one",
    "a renamed word that is not there": "angry",
    "two tables": "table=",
    "a recording of the table is missing": "check root=",
    "no sub-folders": "one sub-folder per label",
    "a sub-folder without audio": "1 txt",
    "a pattern fits some": "give a pattern",
    "empty": "download",
    "a wave that was cut": "download",
    "a flac that was cut": "convert",
    "an ogg that was cut": "download",
    "an mp3 that was cut": "download",
    "a page instead of audio": "download it again",
    "a pointer of Git LFS": "git lfs pull",
    "no header of the wave": "convert",
    "silence": "another copy",
    "a click": "leave it out",
    "not finite": "another copy",
    "out of range": "another copy",
    "another format": "ffmpeg",
    "a line that is cut": "serzoo prepare",
    "an unknown key": "start",
    "a lacking key": "add",
    "a wrong type": "whole number",
    "a list": "serzoo prepare",
    "not finite in JSON": "serzoo prepare",
    "bytes": "serzoo prepare",
    "no utterance": "serzoo prepare",
    "Kaldi: a command": "wav-copy",
    "Kaldi: a name alone": "write its value",
    "Kaldi: a name twice": "unique",
    "Kaldi: a segment of nothing": "add it there",
    "Kaldi: a segment backwards": "after the start",
    "Lhotse: a command": "CutSet.save_audios",
    "SpeechBrain: an end before its start": "after the start",
    "SpeechBrain: cut": "write it again",
    "EmoBox: no key": "download",
    "WebDataset: two sounds of one name": "rename",
    "WebDataset: json that is cut": "write the shard again",
    "WebDataset: a tar that was cut": "download it again",
    "WebDataset: compressed": "decompress",
    "EMO-DB: there twice": "root=",
    "EMO-DB: other names": "root=",
}
"""What each message tells to do, or what would be right."""


def told(tree: Tree, root: Path) -> list[str]:
    """All that a user is told of a tree."""
    for name, content in tree.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = sound(name) if content is None else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    try:
        if tree.reader == "manifest":
            read_manifest(root / "m.jsonl")
            return []
        done = prepare(tree.reader, root=root, options=tree.options, progress=False)
    except SerzooError as error:
        return [str(error)]
    refused = [f"{r.path}: {r.reason}: {r.detail}" for r in done.refusals]
    return [*refused, *(w.message for w in done.warnings)]


@pytest.mark.parametrize("name", TREES)
def test_a_damaged_tree_is_told_with_file_line_and_remedy(name: str, tmp_path: Path) -> None:
    tree = TREES[name]
    found = told(tree, tmp_path)
    assert any(tells(message, *tree.facts, REMEDIES[name]) for message in found), found


def test_there_are_sixty_of_them() -> None:
    assert len(TREES) >= 60
    assert set(TREES) == set(REMEDIES)
