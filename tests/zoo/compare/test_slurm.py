"""A comparison on a real SLURM: one node of two cores on this machine, with its own controller."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
from cells import LATE, Comparison, same_but_times
from facts import says, tells
from serzoo.zoo.compare import compare as comparing
from serzoo.zoo.compare import tasks
from serzoo.zoo.core.errors import ComparisonError
from serzoo.zoo.report.report import report
from slurm_cluster import Cluster

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as this process has it: the same numbers
        found = Cluster(folder)
        try:
            found.start()
        except (OSError, TimeoutError) as e:
            found.stop()
            pytest.skip(f"SLURM does not start here: {e}")
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, found.environment[name])
        yield found
        found.stop()
    shutil.rmtree(folder)


class OnSlurm(Comparison):
    """A comparison whose cells the cluster runs.

    Args:
        cluster: the cluster.
        serzoo: starts a command.
        wait_until: waits for a condition while a command runs.
        where: folder and recipe.
    """

    def __init__(
        self, cluster: Cluster, serzoo: Callable[..., Any], wait_until: Callable[..., None],
        *where: Any,
    ) -> None:  # fmt: skip
        super().__init__(*where)
        self.cluster, self.serzoo, self.wait_until = cluster, serzoo, wait_until
        self.log = self.folder / "log.txt"

    def compare(self, suite: str, *words: str, **options: Any) -> dict[str, Any]:
        return comparing.compare(suite, ["engine=slurm", *words], out=str(self.out), **options)

    def start(self, suite: str, *words: str) -> subprocess.Popen[str]:
        """Start the same by a command."""
        words = ("compare", suite, "--out", str(self.out), "engine=slurm", *words)
        process: subprocess.Popen[str] = self.serzoo(*words, log=self.log)
        return process

    def until_it_trains(self, process: subprocess.Popen[str]) -> None:
        self.wait_until(self.trained, process)

    def ended_well(self, process: subprocess.Popen[str]) -> None:
        assert process.wait(600) == 0, self.log.read_text()

    def newest(self) -> str:
        """Id of the newest job, without the number of a task."""
        return max((line.split()[0].split("_")[0] for line in self.cluster.jobs()), key=int)


@pytest.fixture
def on_slurm(
    cluster: Cluster,
    tiny_recipe: str,
    tmp_path: Path,
    serzoo: Callable[..., Any],
    wait_until: Callable[..., None],
) -> OnSlurm:
    return OnSlurm(cluster, serzoo, wait_until, tmp_path, tiny_recipe)


def test_records_are_those_of_this_machine(on_slurm: OnSlurm) -> None:
    path = on_slurm.suite(["classification", "prototype", "regress_codes"])
    done = on_slurm.compare(path, "engine.array=2", "engine.partition=main", "engine.time=10")
    assert (done["cells"], done["done"], done["failed"], done["detached"]) == (3, 3, 0, False)
    on_slurm.out.rename(on_slurm.folder / "there")  # a record holds the name of its folder
    comparing.compare(path, out=str(on_slurm.out), workers=1)
    there, here = (
        {cell.name: cell for cell in (base / "some" / "cells").iterdir()}
        for base in (on_slurm.folder / "there", on_slurm.out)
    )
    assert sorted(there) == sorted(here)
    assert len(there) == 3
    for name, cell in there.items():
        same_but_times(cell, here[name])


def test_a_cell_that_dies_costs_one_cell(on_slurm: OnSlurm) -> None:
    path = on_slurm.suite(["classification", "Dies", "Slow"], epochs=3)
    done = on_slurm.compare(path, "engine.array=1", limit=10)
    assert (done["done"], done["failed"]) == (2, 1)
    (lost,) = on_slurm.records("*-dies-*")
    assert (lost.reason, lost.tries) == ("killed", 1)
    assert tells(lost.error, "exit code -9")
    assert on_slurm.newest() + " COMPLETED" in on_slurm.cluster.jobs()


def test_a_task_that_exceeds_its_time_goes_on_in_its_next_one(on_slurm: OnSlurm) -> None:
    # SLURM looks at times every half minute: this task is told to stop, and not killed
    path = on_slurm.suite(["Slow"], epochs=60)
    on_slurm.ended_well(on_slurm.start(path, "engine.time=1", "engine.warn=20"))
    (entry,) = on_slurm.records()
    assert (entry.status, entry.resumed, entry.rounds) == ("ok", True, 60)
    (begun,) = on_slurm.events("began", "slurm-1")
    assert len(begun) >= 2


def test_a_cell_that_exceeds_its_limit_is_recorded(on_slurm: OnSlurm) -> None:
    done = on_slurm.compare(on_slurm.suite(["classification", "Hangs"]), limit=1.5)
    (late,) = on_slurm.records("*-hangs-*")
    assert (late.status, late.reason) == ("failed", "limit")
    assert tells(late.error, "1.5 min")
    assert done["failed"] == 1


def test_a_node_that_goes_down_gives_its_cells_back(on_slurm: OnSlurm) -> None:
    path = on_slurm.suite(["Slow"], seeds=(1, 2, 3), epochs=40)
    process = on_slurm.start(path, "engine.array=3")
    on_slurm.until_it_trains(process)
    # two tasks run, one waits. A drained node ends what it runs, and begins nothing; one that is
    # down gives back what it ran
    on_slurm.cluster.set_node("drain")
    on_slurm.cluster.set_node("down")
    on_slurm.cluster.set_node("resume")
    on_slurm.ended_well(process)
    entries = on_slurm.records()
    assert [entry.status for entry in entries] == ["ok"] * 3
    assert any(entry.resumed for entry in entries)
    assert [entry.tries for entry in entries] == [0] * 3  # none has failed, none was run twice
    ends = [name for task in on_slurm.events("ended", "slurm-1") for name in task]
    assert len(ends) == len(set(ends)) == 3


def test_a_task_that_is_preempted_goes_on_later(on_slurm: OnSlurm) -> None:
    process = on_slurm.start(on_slurm.suite(["Slow"], epochs=40))
    on_slurm.until_it_trains(process)
    urgent = ("--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")
    done = on_slurm.cluster.ask("sbatch", *urgent)
    assert not done.returncode, done.stderr
    on_slurm.ended_well(process)
    (entry,) = on_slurm.records()
    assert (entry.status, entry.resumed, entry.tries) == ("ok", True, 0)
    assert [len(task) for task in on_slurm.events("began", "slurm-1")] == [2]


def test_a_controller_that_restarts_costs_nothing(on_slurm: OnSlurm) -> None:
    process = on_slurm.start(on_slurm.suite(["Slow"], epochs=120))
    on_slurm.until_it_trains(process)
    on_slurm.cluster.stop_controller()
    seen = len(on_slurm.log.read_text())
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(40)  # it has asked a controller that is away more than once
    assert on_slurm.log.read_text()[seen:] == ""
    on_slurm.cluster.start_controller()
    on_slurm.ended_well(process)
    (entry,) = on_slurm.records()
    assert (entry.status, entry.resumed) == ("ok", False)


def test_ctrl_c_leaves_the_jobs_and_the_same_command_comes_back(on_slurm: OnSlurm) -> None:
    path = on_slurm.suite(["classification", "Slow"], epochs=60)
    process = on_slurm.start(path, "engine.array=1")
    on_slurm.until_it_trains(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    job = on_slurm.newest()
    assert tells(on_slurm.log.read_text(), "unfinished cells: 1", f"scancel {job}")
    assert f"{job} RUNNING" in on_slurm.cluster.jobs()
    assert len(report(on_slurm.here)) > 0  # of what has finished
    with pytest.raises(ComparisonError, match=says("engine=slurm", "engine=local")):
        comparing.compare(path, out=str(on_slurm.out), workers=1)
    done = on_slurm.compare(path, "engine.array=1")
    assert (done["done"], done["failed"]) == (2, 0)
    assert on_slurm.newest() == job  # nothing was given a second time


def test_a_detached_comparison_returns_at_once(on_slurm: OnSlurm) -> None:
    path = on_slurm.suite(["classification"])
    left = on_slurm.compare(path, "engine.detach=true")
    assert (left["done"], left["failed"], left["detached"]) == (0, 0, True)
    assert left["summary"] is None
    done = on_slurm.compare(path)
    assert (done["done"], done["detached"]) == (1, False)
    assert [entry.tries for entry in on_slurm.records()] == [0]


@pytest.mark.parametrize("tasks_", [1, 2])
def test_a_call_that_dies_after_sbatch_gives_no_cell_twice(
    tasks_: int, on_slurm: OnSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = on_slurm.folder / "bin"
    programs.mkdir()
    sbatch = programs / "sbatch"  # it kills who called it when SLURM has taken the job
    sbatch.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nkill -9 $PPID\n')
    sbatch.chmod(0o755)
    path = on_slurm.suite(["Slow"], seeds=(1, 2), epochs=10)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        process = on_slurm.start(path, f"engine.array={tasks_}", "engine.probe=0")
        assert process.wait(120) == -signal.SIGKILL
    job = on_slurm.newest()
    assert tasks.Submission.read(on_slurm.here / "engine" / "slurm-1").ids == []
    done = on_slurm.compare(path, f"engine.array={tasks_}")
    assert (done["done"], done["failed"]) == (2, 0)
    assert on_slurm.newest() == job
    started = [name for task in on_slurm.events("started", "slurm-1") for name in task]
    assert len(started) == len(set(started)) == 2


# Before a cell is given to the cluster.


def refused(on_slurm: OnSlurm, *words: str, facts: tuple[object, ...]) -> None:
    """Check that a comparison is refused with these facts, and that no cell was given."""
    path = on_slurm.suite(["classification"], seeds=(1, 2))
    with pytest.raises(ComparisonError, match=says(*facts)):
        on_slurm.compare(path, *words)
    assert not any(line.endswith(("PENDING", "RUNNING")) for line in on_slurm.cluster.jobs())
    assert [folder.name for folder in (on_slurm.here / "engine").iterdir()] == ["probe"]
    assert not any(on_slurm.records())


@pytest.mark.parametrize("hidden", ["runs", "data"])
def test_a_folder_that_a_node_does_not_see(
    hidden: str, on_slurm: OnSlurm, tiny_speech: Path
) -> None:
    if not shutil.which("unshare"):
        pytest.skip("no unshare, to give the node other disks")
    on_slurm.out.mkdir()
    folder = {"runs": on_slurm.out, "data": tiny_speech}[hidden]
    on_slurm.cluster.restart_node(
        "unshare", "-m", "sh", "-c", f"mount -t tmpfs no {folder} && exec slurmd -D"
    )
    try:
        refused(on_slurm, facts=(on_slurm.cluster.host, folder))
    finally:
        on_slurm.cluster.restart_node("slurmd", "-D")


def test_a_node_whose_clock_differs(on_slurm: OnSlurm) -> None:
    (on_slurm.folder / "sitecustomize.py").write_text(LATE)
    setup = f"engine.setup=['export PYTHONPATH={on_slurm.folder}']"
    host = on_slurm.cluster.host
    refused(on_slurm, setup, facts=(host, "30 s", "ahead", "NTP", "engine.probe=0"))
    with pytest.warns(UserWarning, match=says(host, "30 s", "ahead")):
        done = on_slurm.compare(on_slurm.suite(["classification"]), setup, "engine.probe=0")
    assert (done["done"], done["failed"]) == (1, 0)


def test_a_queue_that_does_not_move(on_slurm: OnSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = tasks.probe
    monkeypatch.setattr(tasks, "probe", lambda *a, minutes: wait(*a, minutes=0))
    on_slurm.cluster.set_node("drain")
    try:
        refused(on_slurm, facts=("pending", "'main'", "engine.probe=0"))
    finally:
        on_slurm.cluster.set_node("resume")
