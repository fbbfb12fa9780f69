"""A comparison on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cells import FAULTY, same_but_times
from facts import says, tells
from serzoo.zoo.compare import compare as comparing
from serzoo.zoo.compare import engine as engines
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.record import read_record

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores, and two nodes with one each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    small = {"object_store_memory": 80 * 2**20}
    found = cluster_utils.Cluster(
        initialize_head=True,
        connect=True,  # to the head: the node that the driver is connected to cannot be removed
        head_node_args={"num_cpus": 0, "num_gpus": 0, **small},
    )
    found.first, _ = [found.add_node(wait=False, num_cpus=1, num_gpus=0, **small) for _ in "ab"]
    found.wait_for_nodes(timeout=120)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def suite(tiny_recipe: str, tmp_path: Path) -> Callable[..., str]:
    registry._ADDED["heads"].clear()  # of an earlier test, from another file
    (tmp_path / "own.py").write_text(FAULTY)

    def write(heads: Sequence[str], seeds: Sequence[int] = (1,), epochs: int = 2) -> str:
        names = [
            f"{tmp_path / 'own.py'}:{h}" if h in ("Dies", "Slow", "Hangs") else h for h in heads
        ]
        axes = {"recipe": [tiny_recipe], "head": names, "fold": [0], "seed": list(seeds)}
        content = {"title": "S", "axes": axes, "overrides": [f"optim.epochs={epochs}"]}
        (tmp_path / "some.yaml").write_text(json.dumps({**content, "baseline": names[0]}))
        return str(tmp_path / "some.yaml")

    return write


def cells(tmp_path: Path, pattern: str = "*") -> list[Any]:
    folders = sorted((tmp_path / "runs" / "some" / "cells").glob(pattern))
    return [read_record(folder) for folder in folders]


def test_records_are_those_of_this_machine_and_a_cell_that_dies_costs_one_cell(
    cluster: Any, suite: Callable[..., str], tmp_path: Path
) -> None:
    path, out = suite(["classification", "Dies", "prototype"]), tmp_path / "runs"
    words = ["engine=ray", f"engine.address={cluster.address}"]
    done = compare(path, words, out=str(out))
    assert (done["cells"], done["done"], done["failed"]) == (3, 2, 1)
    (lost,) = cells(tmp_path, "*-dies-*")
    assert (lost.reason, lost.tries) == ("killed", 1)
    out.rename(tmp_path / "there")
    compare(path, ["head=[classification,prototype]"], out=str(out), workers=1)
    here = list((out / "some" / "cells").iterdir())
    assert len(here) == 2
    for cell in here:
        same_but_times(tmp_path / "there" / "some" / "cells" / cell.name, cell)
    assert engines.submissions(tmp_path / "there" / "some") == []


def test_a_cell_that_exceeds_its_limit_is_recorded_and_too_large_ones_are_refused(
    cluster: Any, suite: Callable[..., str], tmp_path: Path
) -> None:
    where = f"engine.address={cluster.address}"
    with pytest.raises(ConfigError, match=says("CPU 5", "engine.cpus")):
        comparing.read_engine(["engine=ray", where, "engine.cpus=5"])
    with pytest.raises(ConfigError, match=says("GPU 1", "engine.gpus")):
        comparing.read_engine(["engine=ray", where, "engine.gpus=1"])
    found, _ = comparing.read_engine(["engine=ray", where])
    assert found.slots == 2
    path = suite(["classification", "Hangs"])
    done = compare(path, ["engine=ray", where], out=str(tmp_path / "runs"), limit=1.5)
    (late,) = cells(tmp_path, "*-hangs-*")
    assert (late.status, late.reason) == ("failed", "limit")
    assert tells(late.error, "1.5 min")
    assert done["failed"] == 1


def test_cells_of_a_lost_node_are_run_once_more_and_none_twice(
    cluster: Any, suite: Callable[..., str], tmp_path: Path
) -> None:
    path, out = suite(["Slow"], seeds=(1, 2, 3), epochs=60), tmp_path / "runs"

    def remove() -> None:
        """Take one of the nodes away while both train."""
        while len(list((out / "some" / "cells").glob("*/checkpoints/last.ckpt"))) < 2:
            time.sleep(0.1)
        cluster.remove_node(cluster.first)

    other = threading.Thread(target=remove)
    other.start()
    done = compare(path, ["engine=ray", f"engine.address={cluster.address}"], out=str(out))
    other.join()
    assert (done["done"], done["failed"]) == (3, 0)
    entries = cells(tmp_path)
    assert [entry.status for entry in entries] == ["ok"] * 3
    assert sorted(bool(entry.resumed) for entry in entries) == [False, False, True]
    logs = sorted((out / "some" / "engine" / "ray-1").glob("task-*.jsonl"))
    begun = [log.read_text().count('"began"') for log in logs]
    ends = [log.read_text().count('"ended"') for log in logs]
    assert sorted(begun) == [1, 1, 2]
    assert ends == [1, 1, 1]


def test_an_address_without_a_cluster_is_told() -> None:
    ray.shutdown()
    with pytest.raises(ConfigError, match=says("127.0.0.1:9", "`ray start --head`")):
        comparing.read_engine(["engine=ray", "engine.address=127.0.0.1:9"])
