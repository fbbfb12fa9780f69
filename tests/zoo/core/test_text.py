"""Bytes to text: every encoding that people and programs write, and damage of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.corpora import csv
from serzoo.datamodules.manifest import Utterance, read_manifest, read_sidecar, write_manifest
from serzoo.zoo.compare import conditions as robustness
from serzoo.zoo.compare import few_shot, imported, suite
from serzoo.zoo.core.errors import ConfigError, DataError, SerzooError
from serzoo.zoo.core.files import decode, json_lines, parse_json, read_json, read_text, write_json
from serzoo.zoo.core.shipped import read_yaml, text
from serzoo.zoo.run import config
from serzoo.zoo.run.record import read_attributes, read_plan, read_record
from serzoo.zoo.statistics.table import PredictionTable

WORDS = "schön;für\r\ndich\n"


# Encodings.


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (WORDS.encode(), "utf-8"),
        (WORDS.encode("utf-8-sig"), "utf-8"),
        (b"\xef\xbb\xbf" + WORDS.encode("utf-8-sig"), "utf-8"),
        (b"\xff\xfe" + WORDS.encode("utf-16-le"), "utf-16-le"),
        (b"\xfe\xff" + WORDS.encode("utf-16-be"), "utf-16-be"),
        (WORDS.encode("utf-16-le"), "utf-16-le"),
        (WORDS.encode("utf-16-be"), "utf-16-be"),
        (WORDS.encode("utf-32"), "utf-32-le"),
        (WORDS.encode("cp1252"), "cp1252"),
        (b"", "utf-8"),
    ],
)
def test_an_encoding_is_told_by_the_bytes(data: bytes, name: str) -> None:
    assert decode(data, "t.csv", old=True) == (WORDS if data else "", name)


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        ("a\nschön\n".encode("cp1252"), ["f, line 2", "0xf6", "UTF-8"]),
        (b"a\rb\r\xff\r", ["f, line 3", "0xff"]),
        ("für\n".encode() + "für\n".encode("cp1252"), ["f, line 2", "0xfc"]),
        (b"a\nb\0\0\n", ["f, line 2", "NUL"]),
        (b"\xff\xfea\0\n\0\x01\xd8", ["f, line 2", "UTF-16"]),
        ("a\n€".encode()[:-1], ["f, line 2", "0xe2"]),
        (b"PK\x03\x04...", ["f is a zip archive"]),
    ],
)
def test_what_is_no_text_is_told_with_its_line(data: bytes, facts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(data, "f", ConfigError, remedy="do this")
    assert all(fact in str(caught.value) for fact in [*facts, "do this"])


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        ("für\n".encode() + "für\n".encode("cp1252"), "line 2: byte 0xfc .* mixed"),
        (b"a\n\xe4\n\x81\n", "line 3: byte 0x81"),
    ],
)
def test_what_may_be_two_encodings_is_not_guessed(data: bytes, fact: str) -> None:
    with pytest.raises(DataError, match=fact):
        decode(data, "t.csv", old=True)


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        read_text(tmp_path / "none", ConfigError)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 5000, '{"a": "\\ud800"}', "1" * 5000])
def test_json_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x.json .*do this"):
        read_json(tmp_path / "x.json", remedy="do this")


def test_lines_of_json_may_end_in_any_way(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('\ufeff{"a": "\u2028"}\r\n\n{"a": 2}\r{"a": 3}'.encode())
    assert [(n, row["a"]) for n, row in json_lines(path, remedy="")] == [
        (1, "\u2028"),
        (3, 2),
        (4, 3),
    ]
    with pytest.raises(ValueError, match="NaN"):
        parse_json('{"a": NaN}', finite=True)


def test_a_key_that_is_there_twice_is_not_passed_over() -> None:
    with pytest.raises(ConfigError, match="'seed' is there twice, line 3"):
        read_yaml("seed: 1\nfold: 0\nseed: 2\n")


# Manifests and sidecars.


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "m.jsonl"
    write_manifest(
        path, [Utterance(f"c/{i}", "c", f"ä{i}.wav", 0.0, 1.5, 16000, "s1") for i in range(3)]
    )
    write_json(path.with_suffix(".json"), {"root": str(tmp_path), "notes": {"c": {"a": 1}}})
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(b"\n", b"\r\n"),
        lambda b: b.replace(b"\n", b"\r"),
        lambda b: b"\xef\xbb\xbf" + b,
        lambda b: b.decode().encode("utf-16"),
        lambda b: b + b"\n\r\n  \n",
        lambda b: b.rstrip(b"\n"),
    ],
)
def test_a_manifest_that_was_edited_elsewhere_is_the_same(
    manifest: Path, change: Callable[[bytes], bytes]
) -> None:
    before = read_manifest(manifest), read_sidecar(manifest.with_suffix(".json"))
    for path in (manifest, manifest.with_suffix(".json")):
        path.write_bytes(change(path.read_bytes()))
    assert (read_manifest(manifest), read_sidecar(manifest.with_suffix(".json"))) == before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"root": 5}', '{"notes": []}', "\0\0"])
def test_a_sidecar_that_is_damaged_is_told(manifest: Path, content: str) -> None:
    manifest.with_suffix(".json").write_text(content)
    with pytest.raises(DataError, match=r"m\.json.*root="):
        open_corpora([], manifest=str(manifest))


# Damage.

RECIPE = """# läuft
corpus: [csv]
groups: {encoder: logmel, head: gen_ser, optim: scratch}
encoder: {dim: 96, widths: [8, 8]}
head: {steps: 4}
optim: {epochs: 3, lr: 1e-3}
data: {root: '/a/ü', options: {label: emotion, rename: {0: angry}}, balance: false}
taxonomy: big4
seed: 3
"""
SUITE = """title: Zwei Köpfe
axes: {recipe: [synthetic], head: [classification, prototype], fold: [0, 2], seed: [1, 2]}
overrides: [optim.epochs=3, "data.root=/a/ü"]
search: {trials: 2, space: {optim.lr: [0.1, 0.2], head.dropout: {low: 0.1, high: 0.5}}}
limit_minutes: 30
"""
TABLE = "audio,label,speaker,text,start\n" + "".join(
    f'a/ä{i}.wav,{label},s{i % 3},"Ja, schön",0.{i}\n' for i, label in enumerate("abcabc")
)


def damaged(data: bytes, seed: int) -> bytes:
    """Bytes changed in one of the ways that files are."""
    rng = random.Random(seed)
    at = rng.randrange(len(data))
    noise = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 8))))
    return [
        lambda: data[:at],
        lambda: data[:at] + noise + data[at + len(noise) :],
        lambda: data[:at] + noise + data[at:],
        lambda: data[:at] + data[at + len(noise) :],
        lambda: data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
        lambda: data[:at] + rng.choice(b"[]{}:,\"'#&*!|>%@`\n\t-0").to_bytes(1, "big") + data[at:],
        lambda: data.decode().encode(rng.choice(("utf-16", "utf-8-sig", "utf-16-be", "cp1252"))),
        lambda: data + b"\0" * rng.choice((1, 4096)),
        lambda: data[:at] + data[at // 2 :],
        lambda: data.replace(b"\n", rng.choice((b"\r", b"\r\n", b""))),
    ][rng.randrange(10)]()


def kinds(root: Path) -> dict[str, tuple[str, bytes, Callable[[Path], object]]]:
    """Name of a file, what it holds, and what reads it."""
    ids = [f"c/ä{i}" for i in range(4)]
    table = PredictionTable(
        ids, ["s1"] * 4, np.array([0, 1, 0, -1]), np.random.rand(4, 2), ["a", "ö"]
    )
    predictions = table.write_jsonl(root / "p.jsonl").read_bytes()
    write_manifest(
        root / "m.jsonl",
        [Utterance(i, "c", f"{i}.wav", 0.0, 1.5, 16000, "s", dims=(0.1, None, 1)) for i in ids],
    )
    sidecar = json.dumps({"root": "/a/ü", "notes": {"c": {"refused": {"silent": 1}}}}).encode()
    plan = json.dumps({"cells": ["x-1", "x-2"], "title": "Köpfe", "baseline": "mlp"}).encode()
    rows = "".join(json.dumps({"id": i, "gender": "female"}) + "\n" for i in ids).encode()
    columns = imported.Columns()
    theirs = "id,a,ö\n" + "".join(f"{i},0.25,0.75\n" for i in ids)
    conditions, shots = text("suite", "robustness"), text("suite", "few_shot")
    return {
        "recipe": ("r.yaml", RECIPE.encode(), lambda p: config.load(str(p))),
        "suite": ("s.yaml", SUITE.encode(), lambda p: suite.load(str(p))),
        "conditions": ("c.yaml", conditions.encode(), lambda p: robustness.load(str(p))),
        "shots": ("f.yaml", shots.encode(), lambda p: few_shot.load(str(p))),
        "record": ("record.json", sidecar, lambda p: read_record(p.parent)),
        "plan": ("suite.json", plan, lambda p: read_plan(p.parent)),
        "attributes": ("utterances.jsonl", rows, lambda p: read_attributes(p.parent, [])),
        "predictions": ("p.jsonl", predictions, PredictionTable.read_jsonl),
        "theirs": (
            "t.csv",
            theirs.encode(),
            lambda p: imported.read(p, ["a", "ö"], columns, "probabilities"),
        ),
        "manifest": ("m.jsonl", (root / "m.jsonl").read_bytes(), read_manifest),
        "sidecar": ("m.json", sidecar, read_sidecar),
        "table": ("t.csv", TABLE.encode(), lambda p: list(csv.prepare(p.parent, table=p.name))),
    }


NAMES = "recipe suite conditions shots record plan attributes predictions theirs manifest sidecar"


@pytest.mark.parametrize("name", [*NAMES.split(), "table"])
@pytest.mark.filterwarnings("ignore::serzoo.zoo.core.errors.DataWarning")
def test_what_is_damaged_is_read_or_refused_by_us(name: str, tmp_path: Path) -> None:
    file, data, read = kinds(tmp_path)[name]
    path = tmp_path / file
    path.write_bytes(data)
    read(path)  # as it was written
    refused = 0
    for seed in range(100):
        path.write_bytes(damaged(data, seed))
        try:
            read(path)
        except SerzooError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"variant {seed}: {path.read_bytes()!r}") from error
    assert refused > 10  # else nothing was damaged


OTHERS = [5, 1.5, None, True, [], {}, [[]], [None], {1: 2}, "x", "a: b", "${x}"]


def changed(content: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    """Each value of the first two levels as another kind of value; and each key as a number."""
    paths = [(key,) for key in content]
    paths += [(key, k) for key, inner in content.items() if isinstance(inner, dict) for k in inner]
    for *above, key in paths:
        for other in [*OTHERS, "another key"]:
            copy = deepcopy(content)
            inner = copy[above[0]] if above else copy
            if other == "another key":
                inner[7] = inner.pop(key)
            else:
                inner[key] = other
            yield copy


@pytest.mark.parametrize("name", ["recipe", "suite", "conditions"])
def test_values_of_another_kind_are_read_or_refused_by_us(name: str, tmp_path: Path) -> None:
    file, data, read = kinds(tmp_path)[name]
    for content in [*changed(read_yaml(data.decode()))][::4]:  # three or four of each value
        (tmp_path / file).write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
        try:
            read(tmp_path / file)
        except SerzooError:
            pass
        except Exception as error:
            raise AssertionError(str(content)) from error
