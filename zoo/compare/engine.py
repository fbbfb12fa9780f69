"""Engines: where the cells of a comparison run, on this machine or on a cluster.

``engine=NAME`` chooses one, and ``engine.KEY=VALUE`` sets its options. Every engine keeps the same
contract (:meth:`Engine.run`). The record of a cell does not say which engine ran it.

:func:`run_jobs` runs jobs on an engine, with a progress bar.
"""

from __future__ import annotations

import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.markup import escape

from ..core import notices
from ..core.errors import ComparisonError, ConfigError, some
from ..core.progress import Bar, Pace, seconds_left
from ..run.record import Record, finished, read_record
from ..run.schema import FromOne, RunConfig
from . import pool
from .pool import Job

FOLDER = "engine"
"""Folder, in that of a comparison, of what was given to a cluster."""
SUBMISSION, ENDED = "jobs.json", "ended"
"""Files of a submission: its jobs, and a mark that no task of it is left."""


class DetachedError(Exception):
    """The jobs go on without this process. The text says how to come back."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs that an engine gets together, and the functions that are told how they go.

    Attributes:
        jobs: the jobs, in order.
        folder: folder of the comparison.
        started: called with the job and a number; jobs that run at a time have different ones.
        ended: called with the job, the same number, and ``ok`` or ``failed``.
        limit: seconds that a job may take; None = no limit.
        say: prints a line for the user.
    """

    jobs: Sequence[Job]
    folder: Path
    started: Callable[[Job, int], None]
    ended: Callable[[Job, int, str], None]
    limit: float | None
    say: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Engine(ABC):
    """What runs the jobs of a comparison. The fields of a subclass are the keys ``engine.KEY``.

    Attributes:
        workers: cells at a time on one machine; None = one per GPU, or else what the engine says.
            It is no key: ``--workers`` sets it.
    """

    NAME: ClassVar[str]
    HERE: ClassVar[bool] = False  # whether cells run on this machine
    PACKAGE: ClassVar[str | None] = None  # what must be installed

    workers: FromOne | None = None

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys that may follow ``engine.``."""
        return [field.name for field in fields(cls) if field.name != "workers"]

    @property
    @abstractmethod
    def slots(self) -> int:
        """The number of cells that run at a time, if there are as many."""

    @abstractmethod
    def run(self, batch: Batch) -> None:
        """Run jobs, and return when all have ended.

        Each job that ends has a record. A job may raise, take longer than the limit, or lose its
        process. Its record then says so, and the other jobs go on.

        Raises:
            DetachedError: if the jobs go on without this process.
            ComparisonError: if the engine cannot run any job.
        """

    def check(self) -> None:  # noqa: B027 - this machine needs nothing
        """Check, before anything is run, that the engine can be used.

        Raises:
            ConfigError: if it cannot. It says what is missing.
        """

    def cost(self, seconds: float) -> str | None:
        """Return what cells that take so many seconds one after another cost; None = no line."""
        return None

    def interrupted(self, folder: Path, left: int, what: str) -> str:
        """Return what to do after Ctrl-C.

        Args:
            folder: folder of the comparison.
            left: number of unfinished jobs.
            what: name of such jobs, in the plural.
        """
        return f"stopped; unfinished {what}: {left}; run the same command again to go on"


@dataclass(frozen=True, kw_only=True)
class Local(Engine):
    """Worker processes of this machine: one per GPU, or else one per CPU core."""

    NAME = "local"
    HERE = True

    @property
    def slots(self) -> int:
        return self.workers or pool.devices()[1]

    def run(self, batch: Batch) -> None:
        pool.run(
            batch.jobs,
            workers=self.slots,
            gpus=pool.devices()[0] == "cuda",
            started=batch.started,
            ended=batch.ended,
            limit=batch.limit,
        )


def submissions(folder: Path) -> list[Path]:
    """Return the folders, in the order of their making, of submissions that may still run.

    Args:
        folder: folder of a comparison.
    """
    found = [file.parent for file in (folder / FOLDER).glob(f"*-*/{SUBMISSION}")]
    return sorted(
        (f for f in found if not (f / ENDED).exists()), key=lambda f: int(f.name.split("-")[-1])
    )


def refuse_other(engine: Engine, folder: Path) -> None:
    """Check that no other engine still runs cells of a comparison; each would be run twice.

    Raises:
        ComparisonError: if one does. It says how to come back to it.
    """
    for open_ in submissions(folder):
        other = open_.name.rpartition("-")[0]
        if other != engine.NAME:
            raise ComparisonError(
                f"an earlier call gave cells of this comparison to engine={other}, and they may "
                f"still run (engine={engine.NAME} would run them twice); say engine={other} again "
                f"to follow them, or end its jobs and remove {open_}"
            )


def refuse_untrainable(jobs: list[Job], engine: Engine) -> None:
    """Check that cells can be trained; else all would fail one after another.

    Raises:
        ConfigError: if this machine has to train and lacks a device, or a cell asks for several.
    """
    from ..run.devices import refuse_absent

    trained = [job for job in jobs if job.call is None]
    # most suites have one setting of the trainer in all cells
    for values in {json.dumps(job.config["trainer"]): job.config for job in trained}.values():
        cfg = RunConfig.from_dict(values)
        if (cfg.trainer.devices, cfg.trainer.num_nodes) != (1, 1):
            raise ConfigError(
                f"trainer.devices={cfg.trainer.devices}, trainer.num_nodes={cfg.trainer.num_nodes}:"
                " the cells of a suite are trained beside each other, each on one device; set both "
                "to 1 (--workers says how many cells run at a time)"
            )
        if engine.HERE:
            refuse_absent(cfg)


def run_jobs(
    console: Console,
    todo: list[Job],
    what: str,
    *,
    engine: Engine,
    folder: Path,
    limit: float | None,
) -> int:
    """Run jobs with a progress bar.

    Args:
        console: where bar and results are printed.
        todo: the jobs.
        what: name of such jobs, in the plural.
        engine: what runs them.
        folder: folder of the comparison.
        limit: seconds that a job may take; None = no limit.

    Returns:
        The number of jobs that failed.

    Raises:
        DetachedError: if the jobs go on without this process.
    """
    failed: list[str] = []
    running: dict[int, str] = {}
    pace = Pace()
    with Bar(what, len(todo), console=console, stays=True, lines=False) as bar, _terminable():

        def show() -> None:
            notes = [some(running.values(), 8)] if running else []
            if bar.done:
                notes.insert(0, f"about {seconds_left(pace.left(bar.done, len(todo)))}")
            bar.note(", ".join(notes))

        def started(job: Job, k: int) -> None:
            running[k] = job.name
            show()

        def ended(job: Job, k: int, status: str) -> None:
            running.pop(k, None)
            if status != "ok":
                failed.append(job.name)
                error = (read_record(job.folder) or Record()).error or "unknown"
                console.print(f"[red]failed[/red] {job.name}: {escape(error)}", highlight=False)
            elif not console.is_terminal and notices.level() != notices.QUIET:
                entry = read_record(job.folder) or Record()
                part = "UAR" if entry.metrics else "validation UAR"
                scores = entry.metrics or entry.valid
                outcome = f"{part} {scores['uar']:.3f}" if scores else "trained, nothing validated"
                console.print(f"{job.name}: {outcome}", highlight=False)
            bar.advance()
            show()

        def say(line: str) -> None:
            console.print(line, markup=False, highlight=False)

        batch = Batch(
            jobs=todo, folder=folder, started=started, ended=ended, limit=limit, say=say
        )  # fmt: skip
        try:
            engine.run(batch)
        except KeyboardInterrupt:
            left = sum(not finished(j.folder) for j in todo)
            say(engine.interrupted(folder, left, what))
            raise
    return len(failed)


@contextmanager
def _terminable() -> Iterator[None]:
    """While open, SIGTERM is an interrupt, as Ctrl-C is."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
