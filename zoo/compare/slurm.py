"""``engine=slurm``: the cells of a comparison as an array job of a SLURM cluster, by submitit.

Each task of the array gets an equal share of the cells and runs them by the pool of
:mod:`.pool` on its node. So libraries load once for many cells. A task that exceeds its time, or
is pre-empted, is requeued. Its cells go on from their last whole epoch.

The comparison's folder must be on a disk that the nodes share. A submission has a folder in
``engine``. It holds the jobs as JSON, submitit's files, and a log of each task: lines of JSON that
say when the task began, and which cells started and ended. This process reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from ..core import own, registry
from ..core.errors import (
    ComparisonError,
    ConfigError,
    counted,
    cut,
    first_line,
    some,
    suggest,
    system_error,
)
from ..core.files import read_json, write_text
from ..core.notices import collected, tell
from ..run.schema import LISTED, Flag, FromOne, FromZero, Positive
from . import pool
from .engine import ENDED, FOLDER, SUBMISSION, DetachedError, Engine, submissions
from .pool import Job

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.helpers import DelayedSubmission

EVERY = 5.0
"""Seconds between two looks at the logs of the tasks (our choice)."""
ASK = 15.0
"""Seconds between two questions to SLURM, which may have many users (our choice)."""
SURE = 2
"""A task has ended if SLURM says so this many times: its last lines may reach us late."""
SKEW = 5.0
"""Seconds by which a node's clock may differ from ours before that is told (our choice)."""
LIVE = (
    *("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STOPPED", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "SIGNALING", "SPECIAL_EXIT"),
)
"""States of a task that has not ended, as squeue names them."""
HELD = "launch failed"
"""Begin of the reason why SLURM holds a task that a node could not start."""


@dataclass(frozen=True, kw_only=True)
class Slurm(Engine):
    """Array jobs of a SLURM cluster. Its keys are options of sbatch, or of submitit.

    Attributes:
        partition: partition of the cluster; None = its default.
        account: account that pays.
        qos: quality of service.
        array: largest number of tasks; each takes an equal share of the cells.
        time: minutes of a task.
        gpus_per_node: GPUs of a task; it runs as many cells at a time.
        cpus_per_task: CPU cores of a task; None = the cluster's default.
        mem_gb: memory of a task in GiB; None = the cluster's default.
        requeue: how often a task that exceeds its time is started again.
        warn: seconds before its end at which a task is told to stop.
        setup: lines of shell that a task runs first, such as ``module load cuda``.
        python: the command that starts Python on a node; None = the Python of this process.
        sbatch: more options of sbatch, by name.
        detach: whether to return after the cells were given to the cluster.
    """

    NAME = "slurm"
    PACKAGE = "submitit"

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    array: FromOne = 16
    time: FromOne = 60
    gpus_per_node: FromZero = 0
    cpus_per_task: FromOne | None = None
    mem_gb: Positive | None = None
    requeue: FromZero = 10
    warn: FromOne = 90
    setup: Annotated[list[str], LISTED] = field(default_factory=list)
    python: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    detach: Flag = False

    @property
    def at_a_time(self) -> int:
        """Cells that a task runs at a time."""
        return self.workers or self.gpus_per_node or 1

    @property
    def slots(self) -> int:
        return self.array * self.at_a_time

    def cost(self, seconds: float) -> str:
        hours = seconds / 3600 / self.at_a_time
        gpus = f", {hours * self.gpus_per_node:.3g} GPU hours" if self.gpus_per_node else ""
        return f"about {hours:.3g} node hours (a task counts as a node){gpus}, without waiting"

    def check(self) -> None:
        """Check that SLURM answers, and has the partition with enough time."""
        if missing := [name for name in ("sbatch", "squeue", "sinfo") if not shutil.which(name)]:
            raise ConfigError(
                f"engine=slurm needs SLURM, but this machine has no {' or '.join(missing)}; start "
                "this command on a login node of the cluster, or leave engine out (this machine)"
            )
        try:
            lines = _asked("sinfo", "--noheader", "--format=%R|%l")
        except OSError as e:
            raise ConfigError(
                f"SLURM does not answer ({first_line(e)}); check it with `sinfo`, and try again"
            ) from e
        limits = {name: _minutes(text) for name, text in (ln.split("|") for ln in lines)}
        if self.partition is None:
            return
        for name in self.partition.split(","):
            if name not in limits:
                raise ConfigError(
                    f"engine.partition={name}: this cluster has no such partition"
                    f"{suggest(name, limits)}"
                )
            if (limit := limits[name]) is not None and self.time > limit:
                raise ConfigError(
                    f"engine.time={self.time}: a job in the partition '{name}' may take "
                    f"{limit:.0f} minutes; give no more"
                )

    def interrupted(self, folder: Path, left: int, what: str) -> str:
        ids = [sub.job for sub in map(Submission.read, submissions(folder)) if sub.job]
        if not ids:
            return super().interrupted(folder, left, what)
        return (
            f"stopped looking; {left} {what} are left, and the cluster goes on with them. "
            + self._back(ids)
        )

    def _back(self, ids: Sequence[str]) -> str:
        return (
            "Run the same command again to follow them, `serzoo report` for what has finished, and "
            f"`scancel {' '.join(ids)}` to end them"
        )

    def run(
        self,
        jobs: Sequence[Job],
        *,
        folder: Path,
        started: Callable[[Job, int], None],
        ended: Callable[[Job, int, str], None],
        limit: float | None,
        say: Callable[[str], None],
    ) -> None:
        left = {str(job.folder.absolute()): job for job in jobs}
        earlier = (_Followed.again(Submission.read(f), left) for f in submissions(folder))
        followed = [one for one in earlier if one]
        for one in followed:
            say(f"following {counted(len(one.open), 'cell')} of job {one.submission.job}")
        new = list(left.values())
        if new:
            submission = Submission.write(folder, new, self, limit)
            ids = self._submit(submission)
            say(
                f"gave {counted(len(new), 'cell')} to the cluster as job {ids[0].split('_')[0]}, "
                f"in {counted(len(ids), 'task')}"
            )
            followed.append(_Followed.new(submission.submitted(ids), new))
        if self.detach:
            raise DetachedError(self._back([one.submission.job for one in followed]))
        _follow(followed, started, ended)

    def _submit(self, submission: Submission) -> list[str]:
        """Give a submission to the cluster; return the ids of its tasks: ``12_0``, ``12_1``."""
        executor = self.executor(submission.folder)
        try:
            with executor.batch():
                given = [
                    executor.submit(Task(str(submission.folder), number))
                    for number in range(submission.tasks)
                ]
        except Exception as e:  # submitit has errors of its own, and raises those of sbatch
            submission.end()
            text = str(getattr(e, "stderr", "") or e).strip().splitlines()
            raise ConfigError(
                f"the cluster refuses the job ({text[-1] if text else type(e).__name__}); check "
                "the keys engine.KEY, and engine.sbatch.KEY"
            ) from e
        return [job.job_id for job in given]

    def executor(self, folder: Path) -> SlurmExecutor:
        """Return submitit's executor with the settings of a task."""
        import submitit

        executor = submitit.SlurmExecutor(folder, max_num_timeout=self.requeue, python=self.python)
        known = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "cpus_per_task": self.cpus_per_task,
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}M",
            "gpus_per_node": self.gpus_per_node or None,
            "setup": self.setup or None,
        }
        executor.update_parameters(
            job_name="serzoo",
            time=self.time,
            array_parallelism=self.array,
            signal_delay_s=self.warn,
            # a node that fails gives its tasks back
            additional_parameters={"requeue": True, **self.sbatch},
            **{key: value for key, value in known.items() if value is not None},
        )
        return executor


def _asked(*command: str) -> list[str]:
    """Return the lines that a command of SLURM prints.

    Raises:
        OSError: if it fails; the text is its own.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired as e:
        raise OSError(f"{command[0]} has not answered in 60 s") from e
    if done.returncode:
        raise OSError(first_line(OSError(done.stderr or done.stdout)))
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _minutes(text: str) -> float | None:
    """Return a time of SLURM (``1-02:30:00``, ``30:00``) in minutes; None = no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60


def states(job: str) -> dict[str, tuple[str, str]] | None:
    """Return state and reason of each task of a job; None if SLURM does not answer.

    Args:
        job: id of an array job, or of a job that is no array.

    Returns:
        Id of a task, such as ``12_0``, to its state, such as ``RUNNING``, and the reason why it
        does not run. A job that ended some minutes ago is no longer there.
    """
    try:
        lines = _asked(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i|%T|%r"
        )
    except OSError as e:
        return {} if "Invalid job id" in str(e) else None
    rows = (line.split("|", 2) for line in lines)
    return {name: (state, reason) for name, state, reason in rows}


@dataclass(frozen=True)
class Submission:
    """Jobs that were given to the cluster together.

    Attributes:
        folder: its folder.
        rows: the jobs, as JSON holds them.
        tasks: number of tasks; task k has the jobs k, k + tasks, and so on.
        ids: ids of the tasks in the cluster; empty before they have any.
        settings: all else that a task needs.
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
    def write(cls, folder: Path, jobs: Sequence[Job], engine: Slurm, limit: float | None) -> Self:
        """Write the folder of a new submission.

        Raises:
            ConfigError: if a node could not import a part that the user registered.
        """
        parts = own.ship()
        if alone := [name for _, name, place, _ in parts if not isinstance(place, str)]:
            raise ConfigError(
                f"engine={engine.NAME} cannot give {some(alone)} to other machines, because its "
                "class was registered by this process; name its file (FILE.py:NAME) instead"
            )
        base = folder.absolute() / FOLDER
        base.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(f.name.split("-")[-1]) for f in base.glob("*-*")), default=0)
        found = cls(
            base / f"{engine.NAME}-{number}",
            [to_json(job) for job in jobs],
            min(engine.array, len(jobs)),
            [],
            {
                "workers": engine.at_a_time,
                "gpus": bool(engine.gpus_per_node),
                "limit": limit,
                "parts": parts,
                "cwd": os.getcwd(),
            },
        )
        found.folder.mkdir()
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

    def jobs_of(self, task: int) -> list[dict[str, Any]]:
        """Return the jobs of a task."""
        return self.rows[task :: self.tasks]

    def log(self, task: int) -> Path:
        """Return the file of a task's log."""
        return self.folder / f"task-{task}.jsonl"


def to_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON holds it; its function is a name, and its folder is absolute."""
    call = f"{job.call.__module__}:{job.call.__qualname__}" if job.call else None
    return {**asdict(job), "folder": str(job.folder.absolute()), "call": call}


def from_json(row: Mapping[str, Any]) -> Job:
    """Return the job that :func:`to_json` wrote."""
    call = registry.attribute(row["call"]) if row["call"] else None
    return Job(row["name"], row["config"], Path(row["folder"]), row["options"], call)


# On a node.


@dataclass
class Task:
    """A task of an array job, as submitit keeps and calls it: a folder and a number.

    Attributes:
        folder: folder of the submission.
        number: number of the task, from 0.
    """

    folder: str
    number: int

    def __call__(self) -> None:
        work(Path(self.folder), self.number)

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit runs when the task is requeued: the same task."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


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
            own.receive([tuple(part) for part in settings["parts"]])
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
                    threads=max(1, cores() // settings["workers"]),
                    spared=(signal.SIGTERM, signal.SIGUSR2),
                )
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


class _Followed:
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
    def again(cls, submission: Submission, left: dict[str, Job]) -> Self | None:
        """Follow an earlier submission, and take the jobs that it still runs out of ``left``.

        Returns:
            None if it runs none of them any more.

        Raises:
            ComparisonError: if SLURM does not say whether it still runs.
        """
        known = states(submission.job) if submission.job else {}
        if known is None:
            raise ComparisonError(
                f"SLURM does not say whether job {submission.job} of an earlier call still runs; "
                "check it with `squeue`, and try again"
            )
        open_ = {}
        for task, name in enumerate(submission.ids):
            if known.get(name, ("", ""))[0] not in LIVE:
                continue
            over = {row["name"] for row in lines(submission.log(task)) if row["event"] == "ended"}
            for row in submission.jobs_of(task):
                if row["name"] not in over and row["folder"] in left:
                    open_[task, row["name"]] = left.pop(row["folder"])
        if open_:
            return cls(submission, open_)
        if not any(state in LIVE for state, _ in known.values()):
            submission.end()
        return None

    def look(
        self,
        started: Callable[[Job, int], None],
        ended: Callable[[Job, int, str], None],
        base: int,
    ) -> None:
        """Read what the tasks have written since the last look."""
        for task in range(self.submission.tasks):
            rows = lines(self.submission.log(task))
            new, self.read[task] = rows[self.read[task] :], len(rows)
            for row in new:
                if row["event"] == "began":
                    self._began(task, row)
                elif row["event"] == "failed":
                    self.errors[task] = row["error"]
                elif (key := (task, row["name"])) not in self.open:
                    pass  # it ended before this process looked
                elif row["event"] == "started":
                    started(self.open[key], base + self.numbers[key])
                else:
                    for text, fault in row["notices"]:
                        tell(text, fault=fault)
                    ended(self.open.pop(key), base + self.numbers[key], row["status"])

    def _began(self, task: int, row: Mapping[str, Any]) -> None:
        host = self.hosts[task] = row["host"]
        ahead = row["skew"] - self.skew
        if abs(ahead) > SKEW and host not in self.told:
            self.told.add(host)
            tell(
                f"the clock of {host} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
                " ours; times in records and logs differ by it: set the clocks (NTP)"
            )

    def ask(self, ended: Callable[[Job, int, str], None], base: int) -> None:
        """Ask SLURM which tasks are over; their jobs that have not ended are recorded as failed.

        Raises:
            ComparisonError: if a task is over, and none could begin. The others are cancelled.
        """
        known = states(self.submission.job)
        if known is None:  # the controller restarts, for instance; the tasks go on
            return
        for task in sorted({task for task, _ in self.open}):
            state, reason = known.get(self.submission.ids[task], ("", ""))
            held = state == "PENDING" and HELD in reason.lower()
            if state in LIVE and not held:
                self.gone[task] = 0
                continue
            self.gone[task] += 1
            if self.gone[task] < SURE:
                continue
            if not self.hosts:
                self._none_began(reason if held else state)
            if held:
                _cancel(self.submission.ids[task])
            for key in [key for key in self.open if key[0] == task]:
                job = self.open.pop(key)
                ended(job, base + self.numbers[key], self._lost(job, task, state))

    def _lost(self, job: Job, task: int, state: str) -> str:
        """Record that a job failed with its task, unless it had finished; return its status."""
        name = self.submission.ids[task]
        if task not in self.hosts:
            error = f"task {name} could not begin; can its node see {self.submission.folder}?"
        else:
            why = self.errors.get(task) or state.lower() or "it is no longer in the queue"
            error = f"task {name} on {self.hosts[task]} ended before this cell ({why})"
        late = state == "TIMEOUT"
        details = f"see {name}_0_log.err and {name}_0_log.out in {self.submission.folder}"
        if late:
            details += "; give more minutes (engine.time) or more restarts (engine.requeue)"
        return pool.lost(job, error, details, "limit" if late else "died")

    def _none_began(self, state: str) -> None:
        folder, name = self.submission.folder, self.submission.job
        _cancel(name)
        self.submission.end()
        found = sorted(folder.glob("*_log.err"))
        said = [line for f in found for line in f.read_text("utf-8", "replace").splitlines()]
        raise ComparisonError(
            f"the first task of job {name} ended before it could begin"
            f"{f' ({state.lower()})' if state else ''}"
            + (f", with: {cut(said[-1].strip(), 200)}" if said else "")
            + f"; the nodes must see {folder} and {sys.executable} under these very paths. Choose "
            "--out on a disk that they share, or set engine.python and engine.setup. The job was "
            "cancelled"
        )


def _cancel(name: str) -> None:
    with contextlib.suppress(OSError):  # it may be over, or the controller away
        _asked("scancel", name)


def _follow(
    followed: Sequence[_Followed],
    started: Callable[[Job, int], None],
    ended: Callable[[Job, int, str], None],
) -> None:
    """Follow submissions until all of their jobs have ended."""
    bases = [sum(len(f.numbers) for f in followed[:i]) for i in range(len(followed))]
    asked = time.monotonic()
    while True:
        for one, base in zip(followed, bases, strict=True):
            one.look(started, ended, base)
            if not one.open:
                one.submission.end()
        if not any(one.open for one in followed):
            return
        if time.monotonic() >= asked + ASK:
            for one, base in zip(followed, bases, strict=True):
                if one.open:
                    one.ask(ended, base)
            asked = time.monotonic()
        time.sleep(EVERY)
