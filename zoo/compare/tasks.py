"""Cells that run on other machines: what they are given, what they write, and how it is followed.

The machines share the disk of the comparison's folder. A submission is a folder in ``engine``. It
holds jobs as JSON, and a log of each task. The lines of a log say when the task began, and which
cells started and ended. A task runs its cells by the pool of :mod:`.pool`. The process that made
the submission reads the logs. An engine only has to start the tasks, and to say which are over.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn, Self

from ..core import own, registry
from ..core.errors import ComparisonError, ConfigError, counted, cut, some, system_error
from ..core.files import read_json, write_text
from ..core.notices import collected, tell
from ..run.schema import FromZero
from . import pool
from .engine import ENDED, FOLDER, SUBMISSION, Batch, Engine
from .pool import Job

PROBE = "probe"
"""Folder, beside those of submissions, of tasks without jobs; each call makes it anew."""
SURE = 2
"""A task has ended if its cluster says so this many times: its last lines may reach us late."""
SKEW = 5.0
"""Seconds by which a node's clock may differ from ours (our choice)."""
PROBE_EVERY, PROBE_ASK = 0.5, 5.0
"""Seconds between two looks for the answer of a probe, and two questions to its cluster."""
OURS = "SERZOO_"
"""How names begin of environment variables that a task gets, if its node does not set them."""
NOTHING = "no cell was given to the cluster"


@dataclass(frozen=True)
class Submission:
    """Jobs that were given to the cluster together.

    Attributes:
        folder: its folder.
        rows: the jobs, as JSON holds them.
        tasks: number of tasks; task k has the jobs k, k + tasks, and so on.
        ids: ids of the tasks in the cluster; empty before they have any.
        settings: all else that a task needs; ``name`` is a name that no other submission has.
    """

    folder: Path
    rows: list[dict[str, Any]]
    tasks: int
    ids: list[str]
    settings: Mapping[str, Any]

    @property
    def job(self) -> str:
        """The id of the array job."""
        return self.ids[0].split("_")[0] if self.ids else ""

    @classmethod
    def write(
        cls,
        batch: Batch,
        engine: Engine,
        *,
        tasks: int,
        at_a_time: int = 1,
        gpus: bool = False,
        threads: int | None = None,
    ) -> Self:
        """Write the folder of a new submission.

        Args:
            batch: what its tasks run.
            engine: the engine that gets it.
            tasks: number of tasks; there are no more than jobs.
            at_a_time: jobs that a task runs at a time.
            gpus: whether each of them has a GPU of its own.
            threads: CPU threads of each; None = its share of the cores that the task has.

        Raises:
            ConfigError: if a node could not import a part that the user registered.
        """
        base = batch.folder.absolute() / FOLDER
        base.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(f.name.split("-")[-1]) for f in base.glob("*-*")), default=0)
        workers = {"workers": at_a_time, "gpus": gpus, "threads": threads, "limit": batch.limit}
        return cls._new(
            base / f"{engine.NAME}-{number}", engine, batch.jobs, min(tasks, len(batch.jobs)),
            workers,
        )  # fmt: skip

    @classmethod
    def probe(cls, batch: Batch, engine: Engine, tasks: int = 1) -> Self:
        """Write the folder of tasks that only find out whether their machines can run these jobs.

        Raises:
            ConfigError: if a node could not import a part that the user registered.
        """
        folder = batch.folder.absolute() / FOLDER / PROBE
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        needed = sorted({_some_file(root) for job in batch.jobs for root in _roots(job.config)})
        workers = {"workers": 1, "gpus": False, "threads": 1, "limit": None}
        return cls._new(folder, engine, [], tasks, {**workers, "needed": needed})

    @classmethod
    def _new(
        cls,
        folder: Path,
        engine: Engine,
        jobs: Sequence[Job],
        tasks: int,
        settings: Mapping[str, Any],
    ) -> Self:
        parts = own.ship()
        if alone := [name for _, name, place, _ in parts if not isinstance(place, str)]:
            raise ConfigError(
                f"engine={engine.NAME} cannot give {some(alone)} to other machines, because its "
                "class was registered by this process; name its file (FILE.py:NAME) instead"
            )
        name = f"serzoo-{uuid.uuid4().hex[:12]}"
        variables = {key: value for key, value in os.environ.items() if key.startswith(OURS)}
        here = {"parts": parts, "cwd": os.getcwd(), "name": name, "variables": variables}
        found = cls(folder, [to_json(job) for job in jobs], tasks, [], {**settings, **here})
        folder.mkdir()
        for task in range(tasks):  # NFS shows a new file of another machine a minute late
            found.log(task).touch()
        found._save()
        return found

    def submitted(self, ids: list[str]) -> Self:
        """Return the submission with the ids of its tasks, and keep them."""
        found = replace(self, ids=ids)
        found._save()
        return found

    def _save(self) -> None:
        content = {
            "ids": self.ids, "tasks": self.tasks, "settings": self.settings, "jobs": self.rows
        }  # fmt: skip
        write_text(self.folder / SUBMISSION, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a submission.

        Raises:
            ComparisonError: if its file is damaged.
        """
        remedy = f"end its jobs, and remove {folder}"
        raw = read_json(folder / SUBMISSION, ComparisonError, remedy=remedy)
        try:
            return cls(folder, raw["jobs"], raw["tasks"], raw["ids"], raw["settings"])
        except KeyError as e:
            raise ComparisonError(f"{folder / SUBMISSION} has no {e}; {remedy}") from e

    def end(self) -> None:
        """Mark that no task is left."""
        (self.folder / ENDED).touch()

    @property
    def ended(self) -> bool:
        """Whether no task is left, or a task that is left must not run any job."""
        return (self.folder / ENDED).exists()

    def jobs_of(self, task: int) -> list[dict[str, Any]]:
        """Return the jobs of a task."""
        return self.rows[task :: self.tasks]

    def log(self, task: int) -> Path:
        """Return the file of a task's log."""
        return self.folder / f"task-{task}.jsonl"


def _roots(config: Mapping[str, Any]) -> list[Path]:
    """Return the folders of recordings that a run reads, as far as this machine has them."""
    given = (config.get("data") or {}).get("root")
    base = os.environ.get("SERZOO_DATA")
    named = config.get("corpus") or []
    names = [named] if isinstance(named, str) else named
    found = [Path(given)] if given else [Path(base) / str(name) for name in names if base]
    return [root for path in found if (root := path.expanduser().absolute()).exists()]


def _some_file(folder: Path) -> str:
    """Return the path of something in a folder, which may be a mount point on another machine."""
    try:
        with os.scandir(folder) as entries:
            return next((entry.path for entry in entries), str(folder))
    except OSError:  # a file, or something that this machine does not need
        return str(folder)


def to_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON holds it; its function is a name, and its folder is absolute."""
    call = f"{job.call.__module__}:{job.call.__qualname__}" if job.call else None
    return {**asdict(job), "folder": str(job.folder.absolute()), "call": call}


def from_json(row: Mapping[str, Any]) -> Job:
    """Return the job that :func:`to_json` wrote."""
    call = registry.attribute(row["call"]) if row["call"] else None
    return Job(row["name"], row["config"], Path(row["folder"]), row["options"], call)


def work(folder: Path, number: int) -> None:
    """Run the jobs of a task that have not ended, in this process' workers.

    Args:
        folder: folder of the submission.
        number: number of the task.
    """
    submission = Submission.read(folder)
    settings, file = submission.settings, submission.log(number)
    over = {row["name"] for row in lines(file) if row["event"] == "ended"}
    with file.open("ab", buffering=0) as log:  # a line is one write, which no signal can cut
        log.write(b"\n")  # a node that failed may have left the begin of a line

        def write(event: str, **facts: Any) -> None:
            text = json.dumps({"event": event, "time": round(time.time(), 3), **facts})
            log.write(f"{text}\n".encode())
            os.fsync(log.fileno())

        write("began", host=socket.gethostname(), skew=skew(file.with_suffix(".clock")))
        try:
            os.environ.pop("SLURM_NTASKS", None)  # else Lightning counts on one srun for each cell
            os.chdir(settings["cwd"])
            for key, value in settings["variables"].items():
                os.environ.setdefault(key, value)  # a node may have a cache of its own
            own.receive([tuple(part) for part in settings["parts"]])
            for path in settings.get("needed", ()):
                os.stat(path)
            jobs = [from_json(row) for row in submission.jobs_of(number) if row["name"] not in over]
            told = 0
            with collected() as found:

                def ended(job: Job, k: int, status: str) -> None:
                    nonlocal told
                    write("ended", name=job.name, status=status, notices=found[told:])
                    told = len(found)

                pool.run(
                    jobs,
                    workers=settings["workers"],
                    gpus=settings["gpus"],
                    started=lambda job, k: write("started", name=job.name),
                    ended=ended,
                    limit=settings["limit"],
                    threads=settings["threads"] or max(1, cores() // settings["workers"]),
                    spared=(signal.SIGTERM, signal.SIGUSR2),
                )
            write("done")
        except Exception as e:
            write("failed", error=f"{type(e).__name__}: {system_error(e) or e}")
            raise


def cores() -> int:
    """Return the number of CPU cores that SLURM gave to this task, or else that it may use."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))


def skew(file: Path) -> float:
    """Return how far this machine's clock is ahead of the clock of a file's disk, in seconds.

    The disk of a file server has the server's clock. So two machines that share it can compare
    their clocks without a message between them.
    """
    file.write_text("a file that compares clocks\n", "utf-8")
    return round(time.time() - file.stat().st_mtime, 3)


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a task's log.

    A line without its end is still being written, or belongs to a node that failed.
    """
    if not file.exists():
        return []
    found = []
    for line in file.read_text("utf-8").splitlines(keepends=True):
        with contextlib.suppress(ValueError):
            if line.endswith("\n"):
                found.append(json.loads(line))
    return found


# On the machine that follows.


class Followed:
    """A submission whose tasks are looked at until its jobs have ended.

    Attributes:
        submission: the submission.
        open: the jobs that have not ended, by task and name.
    """

    def __init__(self, submission: Submission, open_: dict[tuple[int, str], Job]) -> None:
        self.submission, self.open = submission, open_
        self.numbers = {key: i for i, key in enumerate(open_)}
        self.read = [0] * submission.tasks  # lines of each task's log that were read
        self.gone = [0] * submission.tasks  # how often SLURM has said that a task is over
        self.hosts: dict[int, str] = {}  # of tasks that have begun
        self.errors: dict[int, str] = {}  # of tasks that failed as a whole
        self.told: set[str] = set()  # machines whose clock differs
        self.skew = skew(submission.folder / "clock")

    @classmethod
    def new(cls, submission: Submission, jobs: Sequence[Job]) -> Self:
        """Follow a new submission of these jobs."""
        return cls(submission, {(i % submission.tasks, j.name): j for i, j in enumerate(jobs)})

    @classmethod
    def again(cls, submission: Submission, left: dict[str, Job], live: Collection[int]) -> Self:
        """Follow an earlier submission, and take the jobs that it still runs out of ``left``.

        Args:
            submission: the submission.
            left: the jobs that have to be run, by folder.
            live: its tasks that are not over.
        """
        open_ = {}
        for task in live:
            over = {row["name"] for row in lines(submission.log(task)) if row["event"] == "ended"}
            for row in submission.jobs_of(task):
                if row["name"] not in over and row["folder"] in left:
                    open_[task, row["name"]] = left.pop(row["folder"])
        return cls(submission, open_)

    def look(self, batch: Batch, base: int) -> None:
        """Read what the tasks have written since the last look.

        Args:
            batch: its functions are told.
            base: number of this submission's first job.
        """
        for task in range(self.submission.tasks):
            rows = lines(self.submission.log(task))
            new, self.read[task] = rows[self.read[task] :], len(rows)
            for row in new:
                if row["event"] == "began":
                    self._began(task, row)
                elif row["event"] == "failed":
                    self.errors[task] = row["error"]
                elif row["event"] == "done" or (key := (task, row["name"])) not in self.open:
                    pass  # it ended before this process looked
                elif row["event"] == "started":
                    batch.started(self.open[key], base + self.numbers[key])
                else:
                    for text, fault in row["notices"]:
                        tell(text, fault=fault)
                    batch.ended(self.open.pop(key), base + self.numbers[key], row["status"])

    def _began(self, task: int, row: Mapping[str, Any]) -> None:
        host = self.hosts[task] = row["host"]
        if host not in self.told and (text := other_clock(host, row["skew"] - self.skew)):
            self.told.add(host)
            tell(text)

    def bury(
        self,
        over: Mapping[int, Over],
        batch: Batch,
        base: int,
        cancel: Callable[[], None],
    ) -> None:
        """Take note of tasks that are over; their open jobs are recorded as failed.

        Args:
            over: the tasks that are over, as their cluster says.
            batch: its functions are told.
            base: number of this submission's first job.
            cancel: ends all tasks.

        Raises:
            ComparisonError: if a task is over, and none could begin. All are cancelled.
        """
        for task in sorted({task for task, _ in self.open}):
            found = over.get(task)
            if found is None:
                self.gone[task] = 0
                continue
            self.gone[task] += 1
            if self.gone[task] < SURE:
                continue
            if not self.hosts:
                cancel()
                self._none_began(found)
            for key in [key for key in self.open if key[0] == task]:
                job = self.open.pop(key)
                batch.ended(job, base + self.numbers[key], self._lost(job, task, found))

    def _lost(self, job: Job, task: int, over: Over) -> str:
        """Record that a job failed with its task, unless it had finished; return its status."""
        name = self.submission.ids[task]
        if task not in self.hosts:
            error = f"task {name} could not begin; can its node see {self.submission.folder}?"
        else:
            why = self.errors.get(task) or over.state or "it is no longer in the queue"
            error = f"task {name} on {self.hosts[task]} ended before this cell ({why})"
        return pool.lost(job, error, over.details, "limit" if over.late else "died")

    def _none_began(self, over: Over) -> NoReturn:
        self.submission.end()
        first = f"the first task of job {self.submission.job}"
        raise ComparisonError(
            f"{not_begun(first, self.submission, over)}; all tasks were cancelled"
        )


@dataclass(frozen=True)
class Over:
    """A task that is over, although jobs of it may not have ended.

    Attributes:
        state: how its cluster names that; "" = unknown.
        details: where to look, and what to do.
        late: whether its time was up.
        remedy: a further clause on what to do if no task could begin.
        host: the machine that it was on; "" = unknown.
    """

    state: str
    details: str
    late: bool = False
    remedy: str = ""
    host: str = ""


def not_begun(what: str, submission: Submission, over: Over) -> str:
    """Return a text about a task that ended before it could begin: why, and what to do.

    Args:
        what: the task, as the text calls it.
        submission: its submission.
        over: how it ended.
    """
    folder = submission.folder
    found = sorted(folder.glob("*_log.err"))
    said = [line for f in found for line in f.read_text("utf-8", "replace").splitlines()]
    return (
        f"{what}{f' on {over.host}' if over.host else ''} ended before it could begin"
        f"{f' ({over.state})' if over.state else ''}"
        + (f", with: {cut(said[-1].strip(), 200)}" if said else "")
        + f"; the nodes must see {folder} and {sys.executable} under these very paths. Choose "
        f"--out on a disk that they share{over.remedy}"
    )


def other_clock(host: str, ahead: float) -> str | None:
    """Return a text about a machine whose clock differs from ours; None if it does not.

    Args:
        host: name of the machine.
        ahead: seconds that its clock is ahead of ours; below zero, it is behind.
    """
    if abs(ahead) <= SKEW:
        return None
    return (
        f"the clock of {host} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours, "
        "and times in records, logs and leases differ by it; set the clocks (NTP)"
    )


class Cluster(ABC):
    """What an engine knows of its tasks while they are followed."""

    @abstractmethod
    def over(self, submission: Submission) -> Mapping[int, Over] | None:
        """Return the tasks that are over; None if the cluster does not say now."""

    @abstractmethod
    def cancel(self, submission: Submission) -> None:
        """End all tasks of a submission."""

    @abstractmethod
    def queue(self, submission: Submission, *, full: bool = False) -> str:
        """Return how the tasks of a probe stand, as a line for the user; "" = unknown.

        Args:
            submission: the probe.
            full: whether to say more of the cluster.
        """


def probe(
    submission: Submission, cluster: Cluster, say: Callable[[str], None], *, minutes: int
) -> None:
    """Wait until the machines of a probe have said that they can run cells.

    Args:
        submission: the probe. Its tasks are cancelled if this raises.
        cluster: what runs it.
        say: prints a line for the user.
        minutes: how long to wait.

    Raises:
        ComparisonError: if a machine does not see a folder, cannot load a part, or has another
            time. Also if a task is over, or does not answer in time.
    """
    ours, end, asked = skew(submission.folder / "clock"), time.monotonic() + 60 * minutes, 0.0
    left, line = set(range(submission.tasks)), ""
    gone = dict.fromkeys(left, 0)  # how often the cluster has said that a task is over
    try:
        while left := {task for task in left if not _answered(submission.log(task), ours, say)}:
            if time.monotonic() >= asked + PROBE_ASK:
                over = cluster.over(submission) or {}
                asked = time.monotonic()
                for task in left & set(over):
                    gone[task] += 1
                    if gone[task] >= SURE:
                        text = not_begun(submission.ids[task], submission, over[task])
                        raise ComparisonError(f"the probe {text}; {NOTHING}")
                if (now := cluster.queue(submission)) not in ("", line):
                    line = now
                    say(line)
            if time.monotonic() > end:
                raise ComparisonError(
                    f"no answer of the probe in {counted(minutes, 'minute')} "
                    f"({cluster.queue(submission, full=True)}); wait longer with "
                    f"engine.probe={4 * minutes}, or leave the probe out with engine.probe=0; "
                    f"{NOTHING}"
                )
            time.sleep(PROBE_EVERY)
    except BaseException:
        cluster.cancel(submission)
        raise


def _answered(log: Path, ours: float, say: Callable[[str], None]) -> bool:
    """Return whether the task of a probe has said that its machine can run cells.

    Args:
        log: log of the task.
        ours: how far this machine's clock is ahead of that of the disk, in seconds.
        say: prints a line for the user.

    Raises:
        ComparisonError: if the machine cannot.
    """
    rows = {row["event"]: row for row in lines(log)}
    if "began" not in rows:
        return False
    host, ahead = rows["began"]["host"], rows["began"]["skew"] - ours
    if "failed" in rows:
        raise ComparisonError(
            f"{host} cannot run cells ({rows['failed']['error']}); it must see the data, your own "
            f"parts and the folder of this call; their paths must be the same here; {NOTHING}"
        )
    if text := other_clock(host, ahead):
        raise ComparisonError(f"{text}, or go on without this check (engine.probe=0); {NOTHING}")
    if "done" in rows:
        say(f"{host} sees the folder and the data, and its clock differs by {abs(ahead):.1f} s")
    return "done" in rows


@dataclass(frozen=True, kw_only=True)
class Remote(Engine):
    """An engine whose cells run on other machines, which it asks before it gives them any.

    Attributes:
        probe: minutes that a machine has to say that it can run cells; 0 = none is asked.
    """

    probe: FromZero = 10

    @cached_property
    def _answered(self) -> set[Path]:
        """Folders of the comparisons for which machines have answered; one call asks once."""
        return set()

    @abstractmethod
    def give_probe(self, batch: Batch) -> tuple[Submission, Cluster]:
        """Give the cluster tasks that only find out whether their machines can run these jobs."""

    def ask(self, batch: Batch) -> None:
        """Ask machines whether they can run these jobs, unless they have answered.

        Raises:
            ComparisonError: if one cannot, or does not answer in time.
        """
        if not self.probe or batch.folder in self._answered:
            return
        submission, cluster = self.give_probe(batch)
        probe(submission, cluster, batch.say, minutes=self.probe)
        self._answered.add(batch.folder)


def follow(
    followed: Sequence[Followed],
    cluster: Cluster,
    batch: Batch,
    *,
    every: float,
    ask: float,
) -> None:
    """Follow submissions until all of their jobs have ended.

    Args:
        followed: the submissions.
        cluster: what runs them.
        batch: its functions are told.
        every: seconds between two looks at the logs.
        ask: seconds between two questions to the cluster.
    """
    bases = [sum(len(f.numbers) for f in followed[:i]) for i in range(len(followed))]
    asked = time.monotonic()
    while True:
        for one, base in zip(followed, bases, strict=True):
            one.look(batch, base)
            if not one.open:
                one.submission.end()
        if not any(one.open for one in followed):
            return
        if time.monotonic() >= asked + ask:
            for one, base in zip(followed, bases, strict=True):
                if one.open and (over := cluster.over(one.submission)) is not None:
                    one.look(batch, base)  # what the tasks wrote at their end
                    one.bury(over, batch, base, partial(cluster.cancel, one.submission))
            asked = time.monotonic()
        time.sleep(every)
