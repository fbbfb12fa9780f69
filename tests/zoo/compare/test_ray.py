"""A comparison on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cells import LATE, Comparison, same_but_times
from facts import says, tells
from serzoo.zoo.compare import compare as comparing
from serzoo.zoo.compare import engine as engines
from serzoo.zoo.core.errors import ComparisonError, ConfigError

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


SMALL = {"object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores, and two nodes with one each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    found = cluster_utils.Cluster(
        initialize_head=True,
        connect=True,  # to the head: the node that the driver is connected to cannot be removed
        head_node_args={"num_cpus": 0, "num_gpus": 0, **SMALL},
    )
    found.first, _ = [found.add_node(wait=False, num_cpus=1, num_gpus=0, **SMALL) for _ in "ab"]
    found.wait_for_nodes(timeout=120)
    yield found
    ray.shutdown()
    found.shutdown()


class OnRay(Comparison):
    """A comparison whose cells the cluster runs.

    Args:
        cluster: the cluster.
        where: folder and recipe.
    """

    def __init__(self, cluster: Any, *where: Any) -> None:
        super().__init__(*where)
        self.cluster = cluster
        self.words = ["engine=ray", f"engine.address={cluster.address}"]

    def compare(self, suite: str, *words: str, **options: Any) -> dict[str, Any]:
        return comparing.compare(suite, [*self.words, *words], out=str(self.out), **options)


@pytest.fixture
def on_ray(cluster: Any, tiny_recipe: str, tmp_path: Path) -> OnRay:
    return OnRay(cluster, tmp_path, tiny_recipe)


def test_records_are_those_of_this_machine_and_a_cell_that_dies_costs_one_cell(
    on_ray: OnRay,
) -> None:
    path = on_ray.suite(["classification", "Dies", "prototype"])
    done = on_ray.compare(path)
    assert (done["cells"], done["done"], done["failed"]) == (3, 2, 1)
    (lost,) = on_ray.records("*-dies-*")
    assert (lost.reason, lost.tries) == ("killed", 1)
    there = on_ray.folder / "there"
    on_ray.out.rename(there)
    words = ["head=[classification,prototype]"]
    comparing.compare(path, words, out=str(on_ray.out), workers=1)
    here = list((on_ray.here / "cells").iterdir())
    assert len(here) == 2
    for cell in here:
        same_but_times(there / "some" / "cells" / cell.name, cell)
    assert engines.submissions(there / "some") == []


def test_a_cell_that_exceeds_its_limit_is_recorded_and_too_large_ones_are_refused(
    on_ray: OnRay,
) -> None:
    with pytest.raises(ConfigError, match=says("CPU 5", "engine.cpus")):
        comparing.read_engine([*on_ray.words, "engine.cpus=5"])
    with pytest.raises(ConfigError, match=says("GPU 1", "engine.gpus")):
        comparing.read_engine([*on_ray.words, "engine.gpus=1"])
    found, _ = comparing.read_engine(on_ray.words)
    assert found.slots == 2
    done = on_ray.compare(on_ray.suite(["classification", "Hangs"]), limit=1.5)
    (late,) = on_ray.records("*-hangs-*")
    assert (late.status, late.reason) == ("failed", "limit")
    assert tells(late.error, "1.5 min")
    assert done["failed"] == 1


def test_cells_of_a_lost_node_are_run_once_more_and_none_twice(on_ray: OnRay) -> None:
    path = on_ray.suite(["Slow"], seeds=(1, 2, 3), epochs=60)

    def remove() -> None:
        """Take one of the nodes away while both train."""
        while on_ray.trained() < 2:
            time.sleep(0.1)
        on_ray.cluster.remove_node(on_ray.cluster.first)

    other = threading.Thread(target=remove)
    other.start()
    done = on_ray.compare(path)
    other.join()
    assert (done["done"], done["failed"]) == (3, 0)
    entries = on_ray.records()
    assert [entry.status for entry in entries] == ["ok"] * 3
    assert sorted(bool(entry.resumed) for entry in entries) == [False, False, True]
    begun = [len(task) for task in on_ray.events("began", "ray-1")]
    assert sorted(begun) == [1, 1, 2]
    assert [len(task) for task in on_ray.events("ended", "ray-1")] == [1, 1, 1]


def test_an_address_without_a_cluster_is_told() -> None:
    ray.shutdown()
    with pytest.raises(ConfigError, match=says("127.0.0.1:9", "`ray start --head`")):
        comparing.read_engine(["engine=ray", "engine.address=127.0.0.1:9"])


def refused(on_ray: OnRay, *facts: object) -> None:
    """Check that a comparison is refused with these facts, and that no cell was given."""
    with pytest.raises(ComparisonError, match=says(*facts)):
        on_ray.compare(on_ray.suite(["classification"]))
    assert [folder.name for folder in (on_ray.here / "engine").iterdir()] == ["probe"]
    assert not any(on_ray.records())


def test_a_node_whose_clock_differs_is_refused(on_ray: OnRay) -> None:
    (on_ray.folder / "sitecustomize.py").write_text(LATE)
    env = {"PYTHONPATH": str(on_ray.folder)}
    on_ray.cluster.add_node(num_cpus=1, num_gpus=0, env_vars=env, **SMALL)
    refused(on_ray, "30 s", "ahead", "NTP", "engine.probe=0")


def test_a_node_that_does_not_see_the_folder_is_refused(on_ray: OnRay) -> None:
    if not shutil.which("unshare"):
        pytest.skip("no unshare, to give the node other disks")
    on_ray.out.mkdir()
    program = Path(sysconfig.get_path("scripts")) / "ray"
    start = f"{program} start --address={on_ray.cluster.address} --num-cpus=1 --num-gpus=0 --block"
    small = f"--object-store-memory={SMALL['object_store_memory']}"
    hide = f"mount -t tmpfs no {on_ray.out} && exec {start} {small}"
    with (on_ray.folder / "node.log").open("w") as log:
        node = subprocess.Popen(["unshare", "-m", "sh", "-c", hide], stdout=log, stderr=log)
        try:
            end = time.monotonic() + 120
            while sum(n["Alive"] for n in ray.nodes()) < 4:
                assert time.monotonic() < end, (on_ray.folder / "node.log").read_text()
                time.sleep(0.2)
            refused(on_ray, on_ray.out, "jobs.json")
        finally:
            node.terminate()
            node.wait(60)
