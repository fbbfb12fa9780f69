"""The record: written whole, plain, and with what is needed to repeat the run."""

from __future__ import annotations

import json
import lzma
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from facts import says
from serzoo.zoo.core.errors import ComparisonError, DataError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run import record
from serzoo.zoo.run.record import (
    VERSION,
    EvalRecord,
    ProbeRecord,
    Record,
    evaluation,
    finished,
    flatten,
    peak_memory_mb,
    planned,
    probed,
    read_plan,
    read_record,
    write_plan,
    write_record,
    written,
)
from serzoo.zoo.run.train import parts_to_write


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / record.RECORD, {"status": "ok", "name": "Gefühl"})
    found = read_record(tmp_path / "run")
    assert found.to_json() == {"status": "ok", "name": "Gefühl"}
    assert found.more == {"name": "Gefühl"}
    assert "Gefühl" in (tmp_path / "run" / record.RECORD).read_text("utf-8")


def test_numbers_become_plain_and_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    values = {
        "nan": float("nan"),
        "inf": -np.inf,
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.float64("nan")],
        "array": np.array([[1.0, np.nan], [2.0, 3.0]]),
        "tensor": torch.tensor(2),
        "pair": (1, 2),
        "path": Path("a") / "b",
        7: None,
    }
    write_json(tmp_path / "x.json", values)
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "nan": None,
        "inf": None,
        "numpy": [0.5, 3, True, None],
        "array": [[1.0, None], [2.0, 3.0]],
        "tensor": 2,
        "pair": [1, 2],
        "path": os.path.join("a", "b"),
        "7": None,
    }


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / record.RECORD
    write_json(path, {"status": "ok"})
    with pytest.raises(TypeError):
        write_json(path, {"status": {1, 2}})
    assert read_record(tmp_path).to_json() == {"status": "ok"}
    assert [p.name for p in tmp_path.iterdir()] == [record.RECORD]


def test_finished_is_what_ended_well(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert not finished(tmp_path)
    write_json(tmp_path / record.RECORD, {"status": "failed"})
    assert not finished(tmp_path)
    write_json(tmp_path / record.RECORD, {"status": "ok"})
    assert finished(tmp_path)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / record.RECORD).write_text('{"status": "o')
    with pytest.raises(DataError, match=says("record.json", "line 1")):
        finished(tmp_path)


def test_the_environment_names_versions_and_code() -> None:
    found = record.environment()
    assert set(found["versions"]) == {"python", *record.PACKAGES}
    assert found["versions"]["torch"] == version("torch")
    assert found["versions"]["python"] == platform.python_version()
    assert found["machine"]["cores"] == os.cpu_count()


def test_the_git_state_is_that_of_this_checkout() -> None:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").is_dir():
        pytest.skip("no git checkout, or one whose state is kept elsewhere")
    state = record.git_state()
    assert state is not None
    head = (root / ".git" / "HEAD").read_text().strip()
    if head.startswith("ref: "):
        packed = root / ".git" / "packed-refs"
        loose = root / ".git" / head[5:]
        refs = packed.read_text() if packed.is_file() else ""
        head = loose.read_text().strip() if loose.is_file() else refs
    assert state["commit"] in head
    assert isinstance(state["changed"], bool)


def test_peak_memory_is_in_mebibytes() -> None:
    # an interpreter with torch: more than 50 MiB, less than 100 GiB
    assert 50 < peak_memory_mb() < 100 * 1024


def test_flatten() -> None:
    tree = {"a": {"b": 1, "c": {"d": 2.5}}, "e": [1, "x"], "f": None, "g": True, "h": {}}
    assert flatten(tree) == {"a.b": 1, "a.c.d": 2.5, "e": "[1, 'x']", "f": "None", "g": True}


# A record as an object.


def test_a_file_has_its_keys_in_the_order_given_and_the_version_after_the_status(tmp_path) -> None:
    record = written(status="ok", steps=3, audit=None, config={"fold": 0}).add({"mine": 1})
    record.seconds = {"fit": 2.0}  # set since
    write_record(tmp_path, record)
    text = (tmp_path / "record.json").read_text()
    assert list(json.loads(text)) == [
        *("status", "version", "steps", "audit", "config", "mine", "seconds"),
    ]
    found = read_record(tmp_path)
    assert found == record
    assert (found.version, found.steps, found.audit, found.more) == (VERSION, 3, None, {"mine": 1})


def test_a_record_of_before_versions_is_read_and_stays_one() -> None:
    old = {"status": "ok", "metrics": {"temperature": 2, "uar": 0.5}, "seconds": {"total": 1.0}}
    found = Record.from_json(old)
    assert found.version == 0
    assert found.temperature == 2.0
    assert (found.audit, found.axes, found.shots, found.unsure) == (None, {}, None, [])
    assert list(found.to_json().items()) == list(old.items())
    assert found.pick(("seconds", "shots")) == {"seconds": {"total": 1.0}}


def test_a_record_of_probes_is_one_with_a_version(tmp_path: Path) -> None:
    written = probed(status="ok", seconds=2, quantities={"rate": {}})
    write_record(tmp_path, written)
    assert written.folder == tmp_path
    text = (tmp_path / "record.json").read_text()
    assert list(json.loads(text)) == ["status", "version", "seconds", "quantities"]
    assert ProbeRecord.from_json(json.loads(text)) == written
    old = ProbeRecord.from_json({"status": "ok", "format": 1, "against": None})
    assert (old.version, old.more) == (0, {"format": 1})
    with pytest.raises(DataError, match=says("p.json", "quantities", "[]", "object", "remove")):
        ProbeRecord.from_json({"quantities": []}, "p.json")


def test_a_record_of_an_evaluation_is_one_with_a_version() -> None:
    made = evaluation(status="ok", speakers_heard=["a/1"], metrics={"uar": 0.5})
    content = made.to_json()
    assert content == {
        "status": "ok",
        "version": VERSION,
        "speakers_heard": ["a/1"],
        "metrics": {"uar": 0.5},
    }
    assert EvalRecord.from_json(content) == made
    with pytest.raises(DataError, match=says("e.json", "metrics", "[]", "object")):
        EvalRecord.from_json({"metrics": []}, "e.json")


def test_a_record_of_an_evaluation_of_before_versions_is_read() -> None:
    old = {
        "metrics": {"uar": 0.5},
        "by_speaker": {},
        "by_corpus": {},
        "label_shift": {"prior": {"sad": 1.0}},
        "speakers_heard": [],
        "speakers_unsure": ["nemo"],
        "model": {"fingerprint": None},
        "data": {"part": "test"},
        "condition": {"name": "telephone"},
        "versions": {"python": "3.11", "peft": None},
        "git": None,
        "machine": {"cores": 2},
    }
    found = EvalRecord.from_json(old)
    assert (found.version, found.ok, found.more) == (0, False, {})
    assert (found.open_labels, found.condition) == (None, {"name": "telephone"})
    assert list(found.to_json().items()) == list(old.items())


def test_a_record_knows_its_folder_and_its_file_does_not(tmp_path: Path) -> None:
    record = written(status="ok")
    assert record.folder is None
    write_record(tmp_path, record)
    assert record.folder == tmp_path
    assert read_record(tmp_path).folder == tmp_path
    assert json.loads((tmp_path / "record.json").read_text()) == {"status": "ok", "version": 1}


@pytest.mark.parametrize(
    ("key", "value", "facts"),
    [
        ("version", VERSION + 1, ("r.json", f"version {VERSION + 1}", f"up to {VERSION}", "newer")),
        ("version", "1", ("r.json", "'1'", "remove")),
        ("config", ["a"], ("r.json", "config", '["a"]', "object", "remove")),
        ("seconds", None, ("r.json", "seconds", "null", "object")),
        ("shots", "4", ("r.json", "shots", '"4"', "number or null")),
    ],
)
def test_what_a_record_cannot_hold_is_refused(key: str, value: object, facts: tuple) -> None:
    with pytest.raises(DataError, match=says(*facts)):
        Record.from_json({"status": "ok", key: value}, "r.json")


def test_committed_records_of_before_versions_are_read_without_loss() -> None:
    results = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    suites = sorted(results.glob("*/records.jsonl.xz"))
    old = 0
    for path in suites:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            line = next(row for row in map(json.loads, lines) if "record" in row)
        found = Record.from_json(line["record"], path)
        if not found.version:
            old += 1
            assert found.more == {"format": 1}  # which the version replaced
        assert json.dumps(found.to_json()) == json.dumps(line["record"])
    assert (len(suites), old) == (32, 12)


def test_parts_that_a_run_writes() -> None:
    assert parts_to_write(True, True) == {"valid": "valid.jsonl", "test": "predictions.jsonl"}
    assert parts_to_write(False, True) == {"valid": "valid.jsonl"}  # a trial of a search
    assert parts_to_write(True, False) == parts_to_write(False, False) == {}


# The plan of a suite.

PLAN = {"cells": ["a", "b"], "title": "T", "baseline": "mlp"}
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def test_a_plan_is_a_record_with_a_version(tmp_path: Path) -> None:
    plan = planned(name="mine", title="T", baseline="mlp", margin=0.02, cells=["a"], calls=[])
    write_plan(tmp_path, plan)
    text = json.loads((tmp_path / "suite.json").read_text())
    assert list(text) == ["name", "version", "title", "baseline", "margin", "cells", "calls"]
    assert (text["version"], text["margin"], text["cells"]) == (VERSION, 0.02, ["a"])
    found = read_plan(tmp_path)
    assert found == plan
    assert (found.metric, found.conditions, found.shots) == ("uar", [], [])


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/suite.json")), ids=lambda p: p.parent.name)
def test_a_committed_plan_is_read_and_would_be_written_as_it_is(path: Path) -> None:
    plan, written = read_plan(path.parent), json.loads(path.read_text())
    assert plan.version == written.get("version", 0)  # the first ones are older than versions
    assert (plan.name, plan.more) == (path.parent.name, {})
    assert plan.to_json() == written


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({"cells": None}, ("suite.json", "damaged", "cells", "serzoo compare")),
        ({"cells": [1]}, ("suite.json", "damaged", "cells")),
        ({"title": 5}, ("suite.json", "damaged", "title", 5, "text")),
        ({"axes": ["seed"]}, ("suite.json", "damaged", "axes", "seed", "object")),
    ],
)
def test_a_plan_that_cannot_be_used_is_told(
    changed: dict[str, object], facts: tuple[object, ...], tmp_path: Path
) -> None:
    write_json(tmp_path / "suite.json", PLAN | changed)
    with pytest.raises(ComparisonError, match=says(*facts)):
        read_plan(tmp_path)


@pytest.mark.parametrize("key", sorted(PLAN))
def test_a_plan_without_what_every_plan_has_is_damaged(key: str, tmp_path: Path) -> None:
    write_json(tmp_path / "suite.json", {k: v for k, v in PLAN.items() if k != key})
    with pytest.raises(ComparisonError, match=says("suite.json", "damaged", key)):
        read_plan(tmp_path)
