"""A comparison that is stopped, killed or has a broken cell loses no more than it must."""

import json
import os
import signal
from pathlib import Path

import pytest
from facts import says, tells
from groups import group_is_gone
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ComparisonError
from serzoo.zoo.run.record import read_record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HEADS = ["classification", "prototype", "regress_codes"]


@pytest.fixture
def suite(tiny_recipe, tmp_path):
    """``suite(recipes)``: a suite file of three heads, of some seconds a cell."""

    def write(recipes=(tiny_recipe,), epochs=10):
        path = tmp_path / "three.yaml"
        axes = {"recipe": list(recipes), "head": HEADS, "fold": [0], "seed": [1]}
        overrides = [f"optim.epochs={epochs}", "data.batch_size=2"]
        path.write_text(json.dumps({"title": "Three", "axes": axes, "overrides": overrides}))
        return str(path)

    return write


@pytest.fixture
def start(serzoo, tmp_path):
    def run(suite, *more):
        arguments = ["compare", suite, "--out", str(tmp_path / "runs"), "--workers", "1", *more]
        return serzoo(*arguments, log=tmp_path / "log.txt")

    return run


@pytest.fixture
def cells(tmp_path):
    return tmp_path / "runs" / "three" / "cells"


def records(cells):
    return sorted(cells.glob("*/record.json"), key=lambda p: p.stat().st_mtime_ns)


def times(paths):
    return {p: p.stat().st_mtime_ns for p in paths}


def in_second_cell(cells):
    return len(records(cells)) == 1 and len(list(cells.glob("*/checkpoints/last.ckpt"))) == 2


def worker_of(process):
    """Process id of the pool's only worker (the other child tracks shared resources)."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (worker,) = [
        int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()
    ]
    return worker


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_comparison_goes_on_where_it_was(how, suite, start, cells, wait_until, tmp_path):
    log = tmp_path / "log.txt"
    process = start(suite())
    wait_until(lambda: in_second_cell(cells), process)
    process.send_signal(how)
    assert process.wait(60) == (-how if how == signal.SIGKILL else 130)
    wait_until(lambda: group_is_gone(process), seconds=60)  # no worker goes on behind our back
    done = times(records(cells))
    assert len(done) == 1
    if how != signal.SIGKILL:
        assert "unfinished cells: 2" in log.read_text()

    assert start(suite()).wait(400) == 0, log.read_text()
    assert len(records(cells)) == 3
    assert times(done) == done  # what was finished was not run again
    states = [read_record(p.parent) for p in records(cells)]
    assert [s.status for s in states] == ["ok"] * 3
    assert [s.resumed for s in states] == [False, True, False]
    folder = cells.parent
    assert json.loads((folder / "suite.json").read_text())["title"] == "Three"

    before = times(records(cells))
    assert start(suite()).wait(400) == 0
    assert times(before) == before
    assert "3 cells, 3 finished, 0 to run" in log.read_text()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the worker")
def test_a_killed_worker_costs_one_cell(suite, start, cells, wait_until, tmp_path):
    process = start(suite())
    wait_until(lambda: in_second_cell(cells), process)
    os.kill(worker_of(process), signal.SIGKILL)
    assert process.wait(400) == 1
    states = {p: read_record(p.parent) for p in records(cells)}
    assert sorted(s.status for s in states.values()) == ["failed", "ok", "ok"]
    ((lost, entry),) = [(p, s) for p, s in states.items() if s.status == "failed"]
    assert "exit code -9" in entry.error
    assert "out of memory" in entry.details

    kept = times([p for p in states if p != lost])
    assert start(suite()).wait(400) == 0
    assert read_record(lost.parent).status == "ok"
    assert times(kept) == kept


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the worker")
def test_a_cell_that_hangs_costs_its_limit(suite, start, cells, wait_until):
    # the others have to end within it, on a busy machine, too
    process = start(suite(), "--limit", "1")
    wait_until(lambda: in_second_cell(cells), process)
    os.kill(worker_of(process), signal.SIGSTOP)  # it neither ends nor listens
    assert process.wait(400) == 1
    wait_until(lambda: group_is_gone(process), seconds=60)
    states = {p: read_record(p.parent) for p in records(cells)}
    ((hung, entry),) = [(p, s) for p, s in states.items() if s.status == "failed"]
    assert [s.status for s in states.values()].count("ok") == 2
    assert entry.reason == "limit"
    assert tells(entry.error, "1 min")
    assert start(suite()).wait(400) == 0
    again = read_record(hung.parent)
    assert (again.status, again.resumed) == ("ok", True)


def test_a_broken_cell_is_recorded_and_does_not_stop_the_rest(
    suite, tiny_recipe, tmp_path, cells, monkeypatch
):
    broken = tmp_path / "broken.yaml"
    text = Path(tiny_recipe).read_text()
    # of the right type, so that only building it can tell
    broken.write_text(text.replace("widths: [4, 8, 8, 8]", "widths: [4, 8, 8]"))
    path = suite([str(broken), tiny_recipe], epochs=1)
    listed = compare(path, out=str(tmp_path / "runs"), dry_run=True)
    assert (listed["cells"], listed["done"], listed["summary"]) == (6, 0, None)
    done = compare(path, out=str(tmp_path / "runs"), workers=1)
    assert (done["cells"], done["done"], done["failed"]) == (6, 3, 3)
    assert done["folder"] == cells.parent
    for record in records(cells):
        entry = read_record(record.parent)
        if record.parent.name.startswith("broken"):
            assert entry.status == "failed"
            assert "ValueError" in entry.error
            assert "logmel.py" in entry.details  # the traceback
            assert entry.tries == 1
        else:
            assert entry.status == "ok"
    with (cells.parent / ".lock").open("a+") as handle:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ComparisonError, match=says("process", "three", "--out")):
            compare(path, out=str(tmp_path / "runs"), workers=1)
    again = compare(path, out=str(tmp_path / "runs"), workers=1)
    assert (again["done"], again["failed"]) == (3, 3)
    assert {read_record(r.parent).tries for r in records(cells) if "broken" in r.parent.name} == {2}
