"""``engine=ray``: the cells of a comparison as tasks of a Ray cluster.

A cell is a task (:mod:`.tasks`) that asks for CPU cores and GPUs. A cell whose node was lost is
given again, and goes on from its last whole epoch. If this process ends, its tasks end, too.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from ..core.errors import ConfigError, counted, first_line, some
from ..run.schema import FromOne, FromZero, Positive
from .engine import Batch
from .tasks import Cluster, Followed, Over, Remote, Submission, follow, work

EVERY = 1.0
"""Seconds between two looks at the logs of the tasks, and at the tasks (our choice)."""
REACH = 10.0
"""Seconds to wait for a connection to the cluster's address (our choice)."""
STEP = 0.01  # of a GPU: two cells with 0.5 each share one


@dataclass(frozen=True, kw_only=True)
class Ray(Remote):
    """Tasks of a Ray cluster.

    Attributes:
        address: ``HOST:PORT`` of the cluster; ``auto`` = the one that this machine belongs to.
        cpus: CPU cores of a cell.
        gpus: GPUs of a cell; with 0.5, two cells share one.
        mem_gb: memory of a cell in GiB, by which Ray places it; None = it does not count.
        resources: other resources of a cell, by name, as the nodes were started with them.
        probe: minutes that each node has to say that it can run cells; 0 = none is asked. Cells
            are given to the cluster after that.
        retries: how often a cell is given again if its node was lost.
    """

    NAME = "ray"
    PACKAGE = "ray"

    address: str = "auto"
    cpus: FromOne = 1
    gpus: Annotated[float, Field(strict=True, ge=0)] = 0
    mem_gb: Positive | None = None
    resources: dict[str, Positive] = field(default_factory=dict)
    retries: FromZero = 3

    @property
    def wanted(self) -> dict[str, float]:
        """What a cell asks for, as Ray names it."""
        memory = {} if self.mem_gb is None else {"memory": self.mem_gb * 2**30}
        return {"CPU": self.cpus, "GPU": self.gpus, **memory, **self.resources}

    @property
    def slots(self) -> int:
        fit = sum(cells for _, cells in self._nodes())
        return min(fit, self.workers or fit)

    def _nodes(self) -> list[tuple[dict[str, Any], int]]:
        """Return the nodes of the cluster that are there, with how many cells fit on each."""
        import ray

        found = [node for node in ray.nodes() if node["Alive"]]
        needs = [(name, n) for name, n in self.wanted.items() if n]
        return [
            (node, min(int(node["Resources"].get(name, 0) / n + STEP) for name, n in needs))
            for node in found
        ]

    def cost(self, seconds: float) -> str:
        hours = seconds / 3600
        gpus = f", {hours * self.gpus:.3g} GPU hours" if self.gpus else ""
        return f"about {hours * self.cpus:.3g} core hours{gpus}, without waiting"

    def check(self) -> None:
        """Connect to the cluster, and check that a node has what a cell asks for."""
        import ray

        try:
            if not ray.is_initialized():
                self._reach()
                ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as e:
            raise ConfigError(
                f"engine.address={self.address}: no Ray cluster answers ({first_line(e)}); start "
                "one with `ray start --head`, or give the HOST:PORT that it printed"
            ) from e
        if not self.slots:
            nodes = [
                ", ".join(f"{k} {node['Resources'].get(k, 0):g}" for k in self.wanted)
                for node, _ in self._nodes()
            ]
            wanted = ", ".join(f"{k} {n:g}" for k, n in self.wanted.items() if n)
            raise ConfigError(
                f"a cell asks for {wanted}, but no node has that: {'; '.join(nodes)}; lower "
                "engine.cpus, engine.gpus, engine.mem_gb or engine.resources"
            )

    def give_probe(self, batch: Batch) -> tuple[Submission, Cluster]:
        """Give a task to each node on which a cell fits."""
        nodes = [node for node, cells in self._nodes() if cells]
        made = Submission.probe(batch, self, len(nodes))
        names = [
            f"on {node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes
        ]
        submission = made.submitted(names)
        return submission, _Tasks(self, submission, [node["NodeID"] for node in nodes])

    def _reach(self) -> None:
        """Check that something listens at the address, for which Ray waits some minutes.

        Raises:
            OSError: if nothing does.
            ValueError: if the port is no number, or too large.
        """
        where = urlsplit(self.address if "://" in self.address else f"//{self.address}")
        if where.hostname and where.port:
            socket.create_connection((where.hostname, where.port), timeout=REACH).close()

    def run(self, batch: Batch) -> None:
        self.ask(batch)
        made = Submission.write(
            batch, self, tasks=len(batch.jobs), gpus=self.gpus > 0, threads=self.cpus
        )  # fmt: skip
        made.end()  # its tasks end with this process, so that no later call has to follow them
        submission = made.submitted([f"{made.folder.name}_{k}" for k in range(made.tasks)])
        tasks = _Tasks(self, submission)
        try:
            follow([Followed.new(submission, batch.jobs)], tasks, batch, every=EVERY, ask=EVERY)
        finally:
            tasks.cancel(submission)


class _Tasks(Cluster):
    """The tasks of a submission.

    Args:
        engine: what a task asks for.
        submission: the submission.
        nodes: ids of the nodes that must run the tasks of a probe, which ask for nothing; None =
            no probe.
    """

    def __init__(
        self, engine: Ray, submission: Submission, nodes: Sequence[str] | None = None
    ) -> None:
        import ray

        self.engine, self.submission, self.nodes = engine, submission, nodes
        # a cell that dies takes only its worker of the pool down; so Ray repeats lost nodes only
        options: dict[str, Any] = {"max_retries": engine.retries, "resources": engine.resources}
        options |= {"num_cpus": engine.cpus, "num_gpus": engine.gpus}
        if engine.mem_gb is not None:
            options["memory"] = engine.wanted["memory"]
        if nodes is not None:
            options = {"max_retries": 0, "num_cpus": 0}
        options["name"] = "serzoo"
        self.function = ray.remote(**options)(work)
        self.waiting = list(range(submission.tasks))
        self.given: dict[int, Any] = {}  # task to what Ray will answer
        self.ended: dict[int, Over] = {}
        self._give()

    def _give(self) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        most = len(self.waiting) + len(self.given)
        if self.nodes is None:
            most = self.engine.workers or most
        while self.waiting and len(self.given) < most:
            task, function = self.waiting.pop(0), self.function
            if self.nodes is not None:
                there = NodeAffinitySchedulingStrategy(self.nodes[task], soft=False)
                function = function.options(scheduling_strategy=there)
            self.given[task] = function.remote(self.submission.folder, task)

    def over(self, submission: Submission) -> dict[int, Over]:
        import ray

        every = list(self.given.values())
        ready, _ = ray.wait(every, num_returns=len(every), timeout=0) if every else ([], [])
        for task, answer in list(self.given.items()):
            if answer in ready:
                del self.given[task]
                self._answered(task, answer)
        self._give()
        return self.ended

    def _answered(self, task: int, answer: Any) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        details = f"see `ray list tasks` and {self.submission.log(task)}"
        try:
            ray.get(answer)
        except RayTaskError as e:  # the function raised
            self.ended[task] = Over(str(e).strip().splitlines()[-1], details)
        except RayError as e:  # its node was lost too often
            text = f"its node or process was lost: {type(e).__name__}"
            self.ended[task] = Over(text, f"{details}; engine.retries allows more tries")
        else:
            self.ended[task] = Over("", details)

    def cancel(self, submission: Submission) -> None:
        import ray

        self.waiting.clear()
        for answer in self.given.values():
            ray.cancel(answer, force=True)

    def queue(self, submission: Submission, *, full: bool = False) -> str:
        names = [submission.ids[task] for task in self.given]
        return f"{counted(len(names), 'node')} to answer: {some(names)}" if names else ""
