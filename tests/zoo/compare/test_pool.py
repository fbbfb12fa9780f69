"""The pool: a cell that raises, or whose worker dies, costs one cell."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from facts import says, tells
from pebble import ProcessFuture
from serzoo.zoo.compare import pool
from serzoo.zoo.compare.imported import imported
from serzoo.zoo.compare.pool import Job
from serzoo.zoo.core.errors import DataError, DataNote, DataWarning
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run.record import VERSION, read_record

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


def bad(folder: Path, name: str) -> Job:
    """A job that fails before anything heavy is imported."""
    return Job(name, {"no_such_key": name}, folder / name)


def stuck(folder: Path, name: str) -> Job:
    """A job that never ends: its worker waits for somebody to read the log."""
    (folder / name).mkdir()
    os.mkfifo(folder / name / "log.txt")
    return bad(folder, name)


def kill(process: mp.process.BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)


def test_one_cell_fails_one_worker_is_killed_and_the_rest_goes_on(tmp_path: Path) -> None:
    jobs = [bad(tmp_path, "one"), stuck(tmp_path, "killed"), bad(tmp_path, "three")]
    said: list[tuple[str, ...]] = []

    def started(job: Job, k: int) -> None:
        said.append(("started", job.name))
        if job.name == "killed":
            (worker,) = mp.active_children()
            kill(worker)

    def ended(job: Job, k: int, status: str) -> None:
        said.append(("ended", job.name, status))

    pool.run(jobs, workers=1, gpus=False, started=started, ended=ended)
    assert said == [
        line for job in jobs for line in (("started", job.name), ("ended", job.name, "failed"))
    ]
    one, killed, three = (read_record(job.folder) for job in jobs)
    assert one.error.startswith("ConfigError: unknown key 'no_such_key'; have corpus")
    assert one.details.startswith("Traceback")
    assert "ConfigError" in (jobs[0].folder / "log.txt").read_text()
    assert one.config == jobs[0].config
    assert three.error.startswith("ConfigError")
    assert tells(killed.error, "worker", -9)
    assert "out of memory" in killed.details
    assert [r.status for r in (one, killed, three)] == ["failed"] * 3
    assert [r.reason for r in (one, killed, three)] == ["error", "killed", "error"]
    assert mp.active_children() == []


def test_a_worker_that_is_killed_between_two_cells_is_replaced(tmp_path: Path) -> None:
    jobs = [bad(tmp_path, name) for name in ("one", "two", "three")]
    said: list[str] = []

    def ended(job: Job, k: int, status: str) -> None:
        said.append(f"{job.name} {status}")
        if job.name == "one":
            (worker,) = mp.active_children()
            kill(worker)

    pool.run(jobs, workers=1, gpus=False, started=lambda *_: None, ended=ended)
    assert said == ["one failed", "two failed", "three failed"]
    assert read_record(jobs[2].folder).error.startswith("ConfigError")
    assert mp.active_children() == []


def test_each_worker_keeps_its_device_and_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "its_cells.py").write_text(
        "import os\nfrom pathlib import Path\n\n\ndef call():\n    pass\n\n\n"
        "file = Path(__file__).with_name(f'{os.getpid()}.txt')  # one for each process\n"
        "file.write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,3")  # of a machine that is shared with others
    from its_cells import call  # type: ignore[import-not-found]

    jobs = [replace(bad(tmp_path, name), call=call) for name in "abcd"]
    said: list[int] = []
    pool.run(
        jobs,
        workers=2,
        gpus=True,
        started=lambda *_: None,
        ended=lambda job, k, status: said.append(k),
    )
    assert set(said) == {0, 1}
    assert sorted(file.read_text() for file in tmp_path.glob("*.txt")) == ["3", "7", "7,3"]


def test_a_gpu_has_its_number_if_all_of_the_machine_are_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [pool._gpu(k) for k in (0, 1)] == ["0", "1"]


def test_a_worker_that_the_cluster_ends_is_no_failure_of_its_cell(tmp_path: Path) -> None:
    said: list[str] = []
    reader: list[int] = []  # of the log, for which the worker waits

    def started(job: Job, k: int) -> None:
        said.append(f"started {job.name}")
        (worker,) = mp.active_children()
        if len(said) == 1:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGUSR2)
        else:
            reader.append(os.open(job.folder / "log.txt", os.O_RDONLY | os.O_NONBLOCK))

    job = stuck(tmp_path, "one")
    pool.run(
        [job],
        workers=1,
        gpus=False,
        started=started,
        ended=lambda job, k, status: said.append(f"{status} {job.name}"),
        spared=(signal.SIGUSR2,),
        limit=60.0,
    )
    os.close(*reader)
    assert said == ["started one", "started one", "failed one"]
    assert read_record(job.folder).reason == "error"
    assert read_record(job.folder).tries == 1


@pytest.mark.parametrize("error", [SystemExit(3), BrokenProcessPool("All workers expired")])
def test_a_worker_that_gives_no_answer_is_a_failed_cell(
    error: BaseException, tmp_path: Path
) -> None:
    answer: ProcessFuture[pool.Answer] = ProcessFuture()
    answer.set_exception(error)
    assert pool._status(bad(tmp_path, "one"), answer, None) == "failed"
    record = read_record(tmp_path / "one")
    assert record.reason == "died"
    assert tells(record.error, type(error).__name__, str(error))


def test_what_a_cell_is_told_of_its_data_is_told_by_the_comparison() -> None:
    answer: ProcessFuture[pool.Answer] = ProcessFuture()
    answer.set_result(("ok", [("2 files are gone", True), ("1 is odd", False)]))
    with pytest.warns(DataWarning) as caught:
        assert pool._status(bad(Path(), "one"), answer, None) == "ok"
    found = [(str(w.message), w.category) for w in caught]
    assert found == [("2 files are gone", DataWarning), ("1 is odd", DataNote)]


def test_a_cell_that_hangs_is_ended_at_its_limit_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [stuck(tmp_path, "hangs"), bad(tmp_path, "two"), stuck(tmp_path, "hangs_too")]
    said: list[tuple[str, str]] = []
    now = 1.0

    def clock() -> float:
        """Stands until the second job has ended, however long it takes, and then runs fast."""
        nonlocal now
        now += 1.0 if said else 0.0
        return now

    slow = SimpleNamespace(time=clock, sleep=time.sleep)
    monkeypatch.setattr("pebble.pool.process.time", slow)
    pool.run(
        jobs,
        workers=2,
        gpus=False,
        started=lambda job, k: None,
        ended=lambda job, k, status: said.append((job.name, status)),
        limit=3.0,
    )
    assert said[0][0] == "two"
    assert sorted(said) == sorted((job.name, "failed") for job in jobs)
    hangs, two, too = (read_record(job.folder) for job in jobs)
    assert hangs.error == too.error
    assert tells(too.error, "limit", "0.05 min")
    assert (hangs.reason, two.reason, too.reason) == ("limit", "error", "limit")
    assert "raise the limit (--limit" in hangs.details
    assert mp.active_children() == []


def test_what_a_worker_recorded_before_its_end_stands(tmp_path: Path) -> None:
    job = stuck(tmp_path, "one")

    def started(job: Job, k: int) -> None:
        write_json(job.folder / "record.json", {"status": "ok"})  # and is killed before it says so
        (worker,) = mp.active_children()
        kill(worker)

    said: list[str] = []
    pool.run(
        [job],
        workers=1,
        gpus=False,
        started=started,
        ended=lambda job, k, status: said.append(status),
    )
    assert said == ["ok"]
    assert read_record(job.folder).to_json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("shapes do not agree"), "error"),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, reason: str) -> None:
    assert pool._reason(error) == reason


def test_tries_are_counted(tmp_path: Path) -> None:
    job = bad(tmp_path, "again")
    for n in (1, 2):
        pool.record_failure(job, "E", "details", "error")
        assert read_record(job.folder).tries == n


def test_an_interrupt_ends_the_workers_and_records_nothing(tmp_path: Path) -> None:
    def started(job: Job, k: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.run(
            [stuck(tmp_path, "one")],
            workers=1,
            gpus=False,
            started=started,
            ended=lambda *_: pytest.fail("nothing has ended"),
        )
    assert mp.active_children() == []
    assert read_record(tmp_path / "one") is None


def test_a_killed_comparison_leaves_no_worker_behind(tmp_path: Path) -> None:
    code = (
        "import multiprocessing as mp, os, sys, time\n"
        "from pathlib import Path\n"
        "from serzoo.zoo.compare import pool\n"
        "def started(job, k):\n"
        "    print(mp.active_children()[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    jobs = [pool.Job('a', {'no_such_key': 1}, Path(sys.argv[1]))]\n"
        "    pool.run(jobs, workers=1, gpus=False, started=started, ended=print)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(stuck(tmp_path, "a").folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1)  # it has begun, and waits
    assert alive(child)
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.1)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody reaps does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.is_file() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_devices() -> None:
    kind, number = pool.devices()
    assert kind in ("cpu", "cuda")
    assert number >= 1


def test_a_plan_of_a_newer_serzoo_is_not_written_over(tmp_path: Path) -> None:
    newer = {"version": VERSION + 1, "cells": [], "title": "", "baseline": "b"}
    write_json(tmp_path / "suite.json", newer)
    for read in (pool.earlier_calls, imported):
        with pytest.raises(DataError, match=says("suite.json", VERSION + 1, "newer")):
            read(tmp_path)
