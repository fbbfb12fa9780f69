"""``engine=slurm``: the cells of a comparison as an array job of a SLURM cluster, by submitit.

Each task of the array gets an equal share of the cells (:mod:`.tasks`). So libraries load once for
many cells. A task that exceeds its time, or is preempted, is requeued. Its cells go on from their
last whole epoch.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..core.errors import ComparisonError, ConfigError, counted, first_line, some, suggest
from ..run.schema import LISTED, Flag, FromOne, FromZero, Positive
from .engine import Batch, DetachedError, submissions
from .pool import Job
from .tasks import Cluster, Followed, Over, Remote, Submission, follow, work

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.helpers import DelayedSubmission

EVERY = 5.0
"""Seconds between two looks at the logs of the tasks (our choice)."""
ASK = 15.0
"""Seconds between two questions to SLURM, which may have many users (our choice)."""
LIVE = (
    *("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STOPPED", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "SIGNALING", "SPECIAL_EXIT"),
)
"""States of a task that has not ended, as squeue names them."""
PROBE_TIME = 5
"""Minutes of a probe's job. It takes seconds, but libraries on a slow disk load slowly."""
HELD = "launch failed"
"""How the reason begins, if SLURM holds a task that a node could not start."""


@dataclass(frozen=True, kw_only=True)
class Slurm(Remote):
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
        probe: minutes that a node has to say that it can run cells; 0 = none is asked. Cells are
            given to the cluster after that.
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
            f"stopped looking; unfinished {what}: {left}, and the cluster goes on with them. "
            + self._back(ids)
        )

    def _back(self, ids: Sequence[str]) -> str:
        return (
            "Run the same command again to follow them, `serzoo report` for what has finished, and "
            f"`scancel {' '.join(ids)}` to end them"
        )

    def run(self, batch: Batch) -> None:
        left = {str(job.folder.absolute()): job for job in batch.jobs}
        earlier = [self._known(Submission.read(folder)) for folder in submissions(batch.folder)]
        followed = [one for submission in earlier if (one := _again(submission, left))]
        for one in followed:
            batch.say(f"following {counted(len(one.open), 'cell')} of job {one.submission.job}")
        new = list(left.values())
        if new:
            given = replace(batch, jobs=new)
            self.ask(given)
            submission = self.submission(given)
            ids = self._submit(submission)
            batch.say(
                f"gave {counted(len(new), 'cell')} to the cluster as job {ids[0].split('_')[0]}, "
                f"in {counted(len(ids), 'task')}"
            )
            followed.append(Followed.new(submission.submitted(ids), new))
        if self.detach:
            raise DetachedError(self._back([one.submission.job for one in followed]))
        follow(followed, _Queue(), batch, every=EVERY, ask=ASK)

    def _known(self, submission: Submission) -> Submission:
        """Return a submission with the ids of its tasks.

        A process that ended after sbatch may not have written them. Its job has a name that no
        other has. Its tasks wait a minute for their files, which are written here.

        Raises:
            ComparisonError: if SLURM does not answer.
        """
        from submitit.core.utils import DelayedSubmission, JobPaths, temporary_save_path

        if submission.ids:
            return submission
        name = submission.settings["name"]
        try:
            found = _asked(
                "squeue", "--noheader", "--states=all", f"--name={name}", "--format=%F"
            )  # fmt: skip
        except OSError as e:
            raise ComparisonError(
                f"SLURM does not say whether it has a job '{name}' of an earlier call "
                f"({first_line(e)}); check it with `squeue`, and try again"
            ) from e
        if not found:  # it was never submitted, or ended some minutes ago
            return submission
        job, number = found[0], submission.tasks
        ids = [job] if number == 1 else [f"{job}_{task}" for task in range(number)]
        for task, id_ in enumerate(ids):
            file = JobPaths(submission.folder, id_).submitted_pickle
            if not file.exists():
                given = DelayedSubmission(Task(str(submission.folder), task))
                given.set_timeout(self.time, self.requeue)
                with temporary_save_path(file) as unfinished:
                    given.dump(unfinished)
        return submission.submitted(ids)

    def give_probe(self, batch: Batch) -> tuple[Submission, Cluster]:
        """Submit a short job for one node."""
        short = replace(self, time=min(self.time, PROBE_TIME), requeue=0, warn=1)
        made = Submission.probe(batch, self)
        submission = made.submitted(short._submit(made))
        batch.say(
            f"job {submission.job} asks a node whether it can run cells (at most "
            f"{counted(self.probe, 'minute')}; engine.probe=0 leaves it out)"
        )
        return submission, _Queue()

    def submission(self, batch: Batch) -> Submission:
        """Write a new submission of these jobs."""
        return Submission.write(
            batch, self, tasks=self.array, at_a_time=self.at_a_time, gpus=bool(self.gpus_per_node)
        )  # fmt: skip

    def _submit(self, submission: Submission) -> list[str]:
        """Give a submission to the cluster; return the ids of its tasks: ``12_0``, ``12_1``."""
        executor = self.executor(submission.folder, submission.settings["name"])
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

    def executor(self, folder: Path, name: str) -> SlurmExecutor:
        """Return submitit's executor with the settings of a task.

        Args:
            folder: where the scripts and logs of the job are written.
            name: name of the job.
        """
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
            job_name=name,
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
        Id of a task, such as ``12_0``, to its state and the reason why it does not run. A job that
        ended some minutes ago is no longer there.
    """
    try:
        lines = _asked(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i|%T|%r"
        )
    except OSError as e:
        return {} if "Invalid job id" in str(e) else None
    rows = (line.split("|", 2) for line in lines)
    return {name: (state, reason) for name, state, reason in rows}


def _again(submission: Submission, left: dict[str, Job]) -> Followed | None:
    """Follow an earlier submission; None if it runs none of these jobs any more.

    Raises:
        ComparisonError: if SLURM does not say whether it still runs.
    """
    known = states(submission.job) if submission.job else {}
    if known is None:
        raise ComparisonError(
            f"SLURM does not say whether job {submission.job} of an earlier call still runs; "
            "check it with `squeue`, and try again"
        )
    live = [k for k, name in enumerate(submission.ids) if known.get(name, ("", ""))[0] in LIVE]
    if not live:
        submission.end()
        return None
    found = Followed.again(submission, left, live)
    return found if found.open else None


class _Queue(Cluster):
    """The queue of SLURM."""

    def over(self, submission: Submission) -> dict[int, Over] | None:
        known = states(submission.job)
        if known is None:  # the controller restarts, for instance; the tasks go on
            return None
        found = {}
        for task, name in enumerate(submission.ids):
            state, reason = known.get(name, ("", ""))
            held = state == "PENDING" and HELD in reason.lower()
            if state in LIVE and not held:
                continue
            details = f"see {name}_0_log.err and {name}_0_log.out in {submission.folder}"
            if late := state == "TIMEOUT":
                details += "; give more minutes (engine.time) or more restarts (engine.requeue)"
            if held:
                _cancel(name)
            found[task] = Over(
                (reason if held else state).lower(),
                details,
                late,
                ", or set engine.python and engine.setup",
                _host(name),
            )
        return found

    def cancel(self, submission: Submission) -> None:
        _cancel(submission.job)

    def queue(self, submission: Submission, *, full: bool = False) -> str:
        known = states(submission.job) or {}
        said = [
            f"{state.lower()}{f' ({reason})' if reason not in ('', 'None') else ''}"
            for state, reason in known.values()
        ]
        line = f"job {submission.job}: {', '.join(said)}" if said else ""
        return f"{line or 'SLURM does not say how it stands'}; {_nodes()}" if full else line


def _host(name: str) -> str:
    """Return the node of a task; "" = unknown."""
    with contextlib.suppress(OSError):
        found = _asked("squeue", "--noheader", "--states=all", f"--jobs={name}", "--format=%N")
        return found[0] if found else ""
    return ""


def _nodes() -> str:
    """Return how many nodes of each partition are in which state, as text."""
    try:
        rows = [line.split("|") for line in _asked("sinfo", "--noheader", "--format=%R|%D|%T")]
    except OSError as e:
        return first_line(e)
    return "nodes: " + some((f"{n} {state} in '{name}'" for name, n, state in rows), 8)


def _cancel(name: str) -> None:
    with contextlib.suppress(OSError):  # it may be over, or the controller away
        _asked("scancel", name)


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
        folder = Path(self.folder)
        if not Submission.read(folder).ended:  # else a later call has given its cells again
            work(folder, self.number)

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit runs when the task is requeued: the same task."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
