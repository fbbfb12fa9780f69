"""The record: written whole, plain, and with what is needed to repeat the run."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from facts import says
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run import record
from serzoo.zoo.run.record import finished, flatten, peak_memory_mb, read_record


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / record.RECORD, {"status": "ok", "name": "Gefühl"})
    assert read_record(tmp_path / "run") == {"status": "ok", "name": "Gefühl"}
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
    assert read_record(tmp_path) == {"status": "ok"}
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
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
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
