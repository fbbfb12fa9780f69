"""A comparison on a real SLURM: one node of two cores on this machine, with its own controller."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
from cells import FAULTY, same_but_times
from facts import says, tells
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ComparisonError
from serzoo.zoo.report.report import report
from serzoo.zoo.run.record import read_record
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


@pytest.fixture
def suite(tiny_recipe: str, tmp_path: Path) -> Callable[..., str]:
    """``suite(["classification"], seeds=(1,), epochs=2)``: a file; ``own.py`` lies beside it."""
    registry._ADDED["heads"].clear()  # of an earlier test, from another file
    (tmp_path / "own.py").write_text(FAULTY)

    def write(heads: Sequence[str], seeds: Sequence[int] = (1,), epochs: int = 2) -> str:
        path = tmp_path / "some.yaml"
        names = [
            f"{tmp_path / 'own.py'}:{h}" if h in ("Dies", "Slow", "Hangs") else h for h in heads
        ]
        axes = {"recipe": [tiny_recipe], "head": names, "fold": [0], "seed": list(seeds)}
        overrides = [f"optim.epochs={epochs}", "optim.min_steps=0"]
        content = {"title": "S", "axes": axes, "overrides": overrides, "baseline": names[0]}
        path.write_text(json.dumps(content))
        return str(path)

    return write


@pytest.fixture
def start(serzoo: Callable[..., Any], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def run(suite: str, *more: str) -> subprocess.Popen[str]:
        words = ("compare", suite, "--out", str(tmp_path / "runs"), "engine=slurm", *more)
        process: subprocess.Popen[str] = serzoo(*words, log=tmp_path / "log.txt")
        return process

    return run


def cells(tmp_path: Path, pattern: str = "*") -> list[Any]:
    found = sorted((tmp_path / "runs" / "some" / "cells").glob(pattern))
    return [read_record(folder) for folder in found]


def trains(tmp_path: Path, head: str = "slow") -> bool:
    folder = tmp_path / "runs" / "some" / "cells"
    return bool(list(folder.glob(f"*-{head}-*/checkpoints/last.ckpt")))


def begun(tmp_path: Path, task: int = 0) -> int:
    log = tmp_path / "runs" / "some" / "engine" / "slurm-1" / f"task-{task}.jsonl"
    return log.read_text().count('"began"') if log.exists() else 0


def newest(cluster: Cluster) -> str:
    """Id of the newest job, without the number of a task."""
    return max((line.split()[0].split("_")[0] for line in cluster.jobs()), key=int)


def test_records_are_those_of_this_machine(
    cluster: Cluster, suite: Callable[..., str], tmp_path: Path
) -> None:
    path, out = suite(["classification", "prototype", "regress_codes"]), tmp_path / "runs"
    words = ["engine=slurm", "engine.array=2", "engine.partition=main", "engine.time=10"]
    done = compare(path, words, out=str(out))
    assert (done["cells"], done["done"], done["failed"], done["detached"]) == (3, 3, 0, False)
    out.rename(tmp_path / "there")  # a record holds the name of its folder
    compare(path, out=str(out), workers=1)
    there, here = (
        {cell.name: cell for cell in (base / "some" / "cells").iterdir()}
        for base in (tmp_path / "there", out)
    )
    assert sorted(there) == sorted(here)
    assert len(there) == 3
    for name, cell in there.items():
        same_but_times(cell, here[name])


def test_a_cell_that_dies_costs_one_cell(
    cluster: Cluster, suite: Callable[..., str], tmp_path: Path
) -> None:
    path = suite(["classification", "Dies", "Slow"], epochs=3)
    words = ["engine=slurm", "engine.array=1"]
    done = compare(path, words, out=str(tmp_path / "runs"), limit=10)
    assert (done["done"], done["failed"]) == (2, 1)
    (lost,) = cells(tmp_path, "*-dies-*")
    assert (lost.reason, lost.tries) == ("killed", 1)
    assert tells(lost.error, "exit code -9")
    assert newest(cluster) + " COMPLETED" in cluster.jobs()


def test_a_task_that_exceeds_its_time_goes_on_in_its_next_one(
    cluster: Cluster,
    suite: Callable[..., str],
    start: Callable[..., Any],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    # SLURM looks at times every half minute: this task is told to stop, and not killed
    process = start(suite(["Slow"], epochs=120), "engine.time=1", "engine.warn=20")
    assert process.wait(600) == 0, (tmp_path / "log.txt").read_text()
    (entry,) = cells(tmp_path)
    assert (entry.status, entry.resumed, entry.rounds) == ("ok", True, 120)
    assert begun(tmp_path) >= 2


def test_a_cell_that_exceeds_its_limit_is_recorded(
    cluster: Cluster, suite: Callable[..., str], tmp_path: Path
) -> None:
    path = suite(["classification", "Hangs"])
    done = compare(path, ["engine=slurm"], out=str(tmp_path / "runs"), limit=1.5)
    (late,) = cells(tmp_path, "*-hangs-*")
    assert (late.status, late.reason) == ("failed", "limit")
    assert tells(late.error, "1.5 min")
    assert done["failed"] == 1


def test_a_node_that_goes_down_gives_its_cells_back(
    cluster: Cluster,
    suite: Callable[..., str],
    start: Callable[..., Any],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    process = start(suite(["Slow"], seeds=(1, 2, 3), epochs=40), "engine.array=3")
    wait_until(lambda: trains(tmp_path), process)
    # two tasks run, one waits. A drained node ends what it runs, and begins nothing
    node = f"nodename={cluster.host}"
    assert not cluster.ask("scontrol", "update", node, "state=drain", "reason=t").returncode
    # and one that is down gives back what it ran
    assert not cluster.ask("scontrol", "update", node, "state=down", "reason=t").returncode
    assert not cluster.ask("scontrol", "update", node, "state=resume").returncode
    assert process.wait(600) == 0, (tmp_path / "log.txt").read_text()
    entries = cells(tmp_path)
    assert [entry.status for entry in entries] == ["ok"] * 3
    assert any(entry.resumed for entry in entries)
    assert [entry.tries for entry in entries] == [0] * 3  # none has failed, none was run twice
    ends = [
        json.loads(line)["name"]
        for log in (tmp_path / "runs" / "some" / "engine").glob("slurm-1/task-*.jsonl")
        for line in log.read_text().splitlines()
        if '"ended"' in line
    ]
    assert len(ends) == len(set(ends)) == 3


def test_a_controller_that_restarts_costs_nothing(
    cluster: Cluster,
    suite: Callable[..., str],
    start: Callable[..., Any],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    process = start(suite(["Slow"], epochs=120))
    wait_until(lambda: trains(tmp_path), process)
    cluster.stop_controller()
    seen = len((tmp_path / "log.txt").read_text())
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(40)  # it has asked a controller that is away more than once
    assert (tmp_path / "log.txt").read_text()[seen:] == ""
    cluster.start_controller()
    assert process.wait(300) == 0, (tmp_path / "log.txt").read_text()
    (entry,) = cells(tmp_path)
    assert (entry.status, entry.resumed) == ("ok", False)


def test_ctrl_c_leaves_the_jobs_and_the_same_command_comes_back(
    cluster: Cluster,
    suite: Callable[..., str],
    start: Callable[..., Any],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    path, out = suite(["classification", "Slow"], epochs=60), tmp_path / "runs"
    process = start(path, "engine.array=1")
    wait_until(lambda: trains(tmp_path), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    job = newest(cluster)
    assert tells((tmp_path / "log.txt").read_text(), "1 cells are left", f"scancel {job}")
    assert f"{job} RUNNING" in cluster.jobs()
    assert len(report(out / "some")) > 0  # of what has finished
    with pytest.raises(ComparisonError, match=says("engine=slurm", "engine=local")):
        compare(path, out=str(out), workers=1)
    done = compare(path, ["engine=slurm", "engine.array=1"], out=str(out))
    assert (done["done"], done["failed"]) == (2, 0)
    assert newest(cluster) == job  # nothing was given a second time


def test_a_detached_comparison_returns_at_once(
    cluster: Cluster, suite: Callable[..., str], tmp_path: Path
) -> None:
    path, out = suite(["classification"]), str(tmp_path / "runs")
    left = compare(path, ["engine=slurm", "engine.detach=true"], out=out)
    assert (left["done"], left["failed"], left["detached"]) == (0, 0, True)
    assert left["summary"] is None
    done = compare(path, ["engine=slurm"], out=out)
    assert (done["done"], done["detached"]) == (1, False)
    assert [entry.tries for entry in cells(tmp_path)] == [0]


def test_a_node_that_does_not_see_the_folder_ends_the_comparison(
    cluster: Cluster, suite: Callable[..., str], tmp_path: Path
) -> None:
    if not shutil.which("unshare"):
        pytest.skip("no unshare, to give the node other disks")
    hidden = tmp_path / "runs"
    hidden.mkdir()
    cluster.restart_node(
        "unshare", "-m", "sh", "-c", f"mount -t tmpfs no {hidden} && exec slurmd -D"
    )
    try:
        with pytest.raises(ComparisonError, match=says(str(hidden), "--out")):
            compare(suite(["classification"], seeds=(1, 2)), ["engine=slurm"], out=str(hidden))
    finally:
        cluster.restart_node("slurmd", "-D")
    assert not any(line.endswith(("PENDING", "RUNNING")) for line in cluster.jobs())
    assert not any(cells(tmp_path))
