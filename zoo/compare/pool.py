"""Worker processes, one per device, that run the cells of a comparison on one machine.

A worker runs one cell after another and keeps the libraries that it has loaded. Pebble starts the
workers, ends one at a cell's time limit, and replaces one that died. A cell that raises, takes too
long or takes its worker down is recorded as failed. The others go on.

All engines (:mod:`.engine`) run their cells by it, each on its machines. :func:`lock` keeps a
second comparison out of the folder.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from ..core import own
from ..core.errors import ComparisonError, system_error
from ..core.files import locked
from ..core.notices import collected, tell
from ..run.record import finished, read_plan, read_record, write_record, written

Call = Callable[..., Any]
IF_LATE = (
    "its worker was ended; the next call goes on from its last whole epoch. See log.txt for where "
    "it was, or raise the limit (--limit, or limit_minutes of the suite)"
)
IF_KILLED = "killed from outside: most often the system ran out of memory; see log.txt"
IF_DEAD = "see log.txt in the cell's folder"
POLL = 0.1  # seconds between two looks at the jobs: pebble does not report when a job starts
SPARED = 3  # times that a job is given again after its worker was ended by a spared signal


@dataclass(frozen=True)
class Job:
    """A cell, or another run that a comparison needs, as a worker gets it.

    Attributes:
        name: name of the cell.
        config: configuration of the run, as plain containers.
        folder: folder of the cell.
        options: further keywords of ``call``.
        call: a module's function that takes the configuration, the folder and the options; None =
            :func:`~serzoo.zoo.run.train.train`.
    """

    name: str
    config: dict[str, Any]
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    call: Call | None = None


def devices() -> tuple[str, int]:
    """Return kind and number of the devices for cells: all GPUs, or else all CPU cores."""
    from ..core.types import first_device
    from ..run.devices import number_of

    device = first_device()
    return device.type, number_of(device)


def threads_of(workers: int, share: int | None = None) -> int:
    """Return the threads of each worker: ``OMP_NUM_THREADS``, or else its share of the cores.

    Args:
        workers: number of workers.
        share: threads if ``OMP_NUM_THREADS`` is not set; None = an equal share of the cores.
    """
    share = share or max(1, (os.cpu_count() or 1) // workers)
    return int(os.environ.get("OMP_NUM_THREADS") or share)


def run(
    jobs: Sequence[Job],
    *,
    workers: int,
    gpus: bool,
    started: Callable[[Job, int], None],
    ended: Callable[[Job, int, str], None],
    limit: float | None = None,
    threads: int | None = None,
    spared: Collection[int] = (),
) -> None:
    """Run jobs on workers.

    An exception, such as an interrupt, ends the workers. Their unfinished jobs get no record, and
    the next call goes on with them.

    Args:
        jobs: the jobs, in order.
        workers: number of processes; no more jobs than these run at a time.
        gpus: whether worker k has only the k-th of the GPUs that this process may use. Else each
            has its share of the CPU cores.
        started: called with the job and the worker's number.
        ended: called with the job, the worker's number and ``ok`` or ``failed``.
        limit: seconds that a job may take, without the start of its worker; None = no limit.
        threads: threads of a worker if ``OMP_NUM_THREADS`` is not set; None = 1 beside a GPU, or
            else its share of the machine's cores.
        spared: signals by which a cluster announces that it will end this process. A worker that
            one of them ended is no failure of its cell, which is given again.
    """
    queue = list(jobs)
    threads = threads_of(workers, threads or (1 if gpus else None))
    again: dict[Path, int] = {}
    running: dict[ProcessFuture[Answer], tuple[Job, int]] = {}
    waiting: set[ProcessFuture[Answer]] = set()  # until their worker takes them

    def one_worker(k: int) -> ProcessPool:
        # one process each, which keeps its device; spawn, because a forked torch is not safe
        context, device = mp.get_context("spawn"), _gpu(k) if gpus else None
        return ProcessPool(1, initializer=_open, initargs=(device, threads), context=context)

    def give(k: int) -> None:
        if not queue:
            return
        job = queue.pop(0)
        given = (job.call, job.config, job.folder, threads, job.options, own.ship())
        if not pools[k].active:  # pebble gives a pool up if its worker dies without a job
            pools[k].join()
            pools[k] = one_worker(k)
        future = pools[k].schedule(_work, given, timeout=limit)
        running[future] = job, k
        waiting.add(future)

    pools = {k: one_worker(k) for k in range(min(workers, len(queue)))}
    try:
        for k in pools:
            give(k)
        while running:
            futures.wait(running, POLL, futures.FIRST_COMPLETED)
            for future, (job, k) in list(running.items()):
                done = future.done()
                if future in waiting and (done or future.running()):
                    waiting.remove(future)
                    started(job, k)
                if done:
                    del running[future]
                    if _ended_by(future, spared) and again.get(job.folder, 0) < SPARED:
                        again[job.folder] = again.get(job.folder, 0) + 1
                        queue.insert(0, job)
                    else:
                        ended(job, k, _status(job, future, limit))
                    give(k)
    finally:
        for pool in pools.values():
            pool.stop()
        for pool in pools.values():
            pool.join()


Answer = tuple[str, list[tuple[str, bool]]]
"""A worker's answer: the status of a job, and notices about its data (text, whether a fault)."""


def _gpu(k: int) -> str:
    """Return the name of the k-th GPU that this process may use, as CUDA_VISIBLE_DEVICES has it."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[k % len(named)] if named else str(k)


def _ended_by(future: ProcessFuture[Answer], signals: Collection[int]) -> bool:
    error = future.exception()
    # Lightning catches SIGTERM while it trains, and exits with its number
    return isinstance(error, ProcessExpired) and abs(int(error.exitcode)) in signals


def _open(gpu: str | None, threads: int) -> None:
    """Prepare a worker process before it loads torch."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _end_with_parent() -> None:
    """End this worker if the comparison is killed; else the next call would run a cell twice."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(*given: Any) -> Answer:
    """Run a job in a worker process."""
    with collected() as notices:
        status = _run_cell(*given)
    return status, notices


def _status(job: Job, future: ProcessFuture[Answer], limit: float | None) -> str:
    """Return ``ok`` or ``failed``; if the worker did not answer, record that."""
    error = future.exception()
    if error is None:
        status, notices = future.result()
        for text, fault in notices:  # this process shows each notice once for all cells
            tell(text, fault=fault)
        if status in ("ok", "failed"):
            return status
        return lost(job, status, IF_DEAD, "error")
    if isinstance(error, ProcessExpired):
        text = f"the worker ended with exit code {error.exitcode}"
        killed = error.exitcode == -signal.SIGKILL
        return lost(job, text, *(IF_KILLED, "killed") if killed else (IF_DEAD, "died"))
    if isinstance(error, TimeoutError) and limit is not None:
        return lost(job, f"took longer than its limit of {limit / 60:.3g} min", IF_LATE, "limit")
    return lost(job, f"the worker ended ({type(error).__name__}: {error})", IF_DEAD, "died")


def lost(job: Job, error: str, details: str, reason: str) -> str:
    """Record that a job failed, unless it had finished; return its status.

    Args:
        job: the job, whose process did not say how it ended.
        error: one line.
        details: more lines.
        reason: one word, as in :func:`record_failure`.

    Returns:
        ``ok`` or ``failed``.
    """
    if finished(job.folder):
        return "ok"
    record_failure(job, error, details, reason)
    return "failed"


def _run_cell(
    call: Call | None,
    values: dict[str, Any],
    folder: Path,
    threads: int,
    options: dict[str, Any],
    parts: Sequence[own.Shipped] = (),
) -> str:
    """Run a cell in this process.

    Returns:
        ``ok``; ``failed``, which is then recorded; or an error that the full disk kept unrecorded.
    """
    try:
        return _logged(call, values, folder, threads, options, parts)
    except OSError as e:
        return system_error(e) or repr(e)


def _logged(
    call: Call | None,
    values: dict[str, Any],
    folder: Path,
    threads: int,
    options: dict[str, Any],
    parts: Sequence[own.Shipped],
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            from ..run.schema import RunConfig

            own.receive(parts)
            cfg = RunConfig.from_dict(values)  # raises before torch is loaded
            import torch

            from ..run.train import train

            torch.set_num_threads(threads)
            (call or train)(cfg, folder, **options)
        except Exception as e:
            with contextlib.suppress(OSError):  # the log's disk may be full
                traceback.print_exc()
            error = f"{type(e).__name__}: {system_error(e) or e}"
            job = Job(folder.name, values, folder, options)
            record_failure(job, error, traceback.format_exc(), _reason(e))
            return "failed"
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
    return "ok"


def _reason(error: Exception) -> str:
    """Return ``memory`` if an error's type or text says that memory ran out; else ``error``."""
    names = {t.__name__ for t in type(error).__mro__}
    words = ("out of memory", "can't allocate memory", "not enough memory")
    short = names & {"MemoryError", "OutOfMemoryError"} or any(w in str(error) for w in words)
    return "memory" if short else "error"


def record_failure(job: Job, error: str, details: str, reason: str) -> None:
    """Write the record of a cell that failed; it counts the tries.

    Args:
        job: the cell.
        error: one line.
        details: more lines, such as a traceback.
        reason: one word: ``error``, ``memory``, ``limit``, ``killed``, ``died``, ``search`` or
            ``source``.
    """
    earlier = read_record(job.folder)
    entry = written(
        status="failed",
        reason=reason,
        error=error,
        details=details,
        tries=1 if earlier is None else earlier.tries + 1,
        config=job.config,
    )
    write_record(job.folder, entry.add(job.options.get("facts", {})))


def earlier_calls(folder: Path) -> list[dict[str, Any]]:
    """Return cells and seconds of each earlier call of a comparison."""
    try:
        return [call for call in read_plan(folder).calls if isinstance(call, dict)]
    except ComparisonError:  # there is none; or only the times of earlier calls are lost
        return []


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """While open, no other comparison can use the folder; the lock ends with its process.

    Raises:
        ComparisonError: if another comparison uses the folder.
    """

    def refusal(process: str) -> ComparisonError:
        return ComparisonError(
            f"another comparison (process {process}) is running in {folder}; wait for it, or "
            "choose another --out"
        )

    with locked(folder / ".lock", refusal):
        yield
