"""A pool of worker processes, one per device, that run cells one after another.

A worker keeps the libraries it has loaded from cell to cell; features lie in the store on disk,
where all workers read them. A cell that raises, takes its worker down or does not end in its time
is a recorded cell; the rest goes on.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool
from rich.console import Console
from rich.markup import escape

from ..core import own
from ..core.errors import ComparisonError, ConfigError, DataError, system_error
from ..core.files import locked, read_json
from ..core.notices import collected, tell
from ..core.progress import Bar
from ..run.config import RunConfig
from ..run.record import Record, finished, read_record, write_record, written

Call = Callable[..., Any]
LATE = (
    "it was ended from outside; the next call goes on from its last whole epoch. See log.txt for "
    "where it was, or raise the limit (--limit, or limit_minutes of the suite)"
)
KILLED = "killed from outside: most often the system ran out of memory; see log.txt"
SEE = "see log.txt in the cell's folder"
POLL = 0.1  # seconds; that a worker takes a job is told by no callback


@dataclass(frozen=True)
class Job:
    """A cell's configuration as plain containers, and its folder.

    Attributes:
        name: of the cell.
        config: of the run, as plain containers.
        folder: of the cell.
        options: further arguments of :func:`~serzoo.zoo.run.train.train`, or of ``call``.
        call: a function of a module that takes the configuration, the folder and the options;
            None = ``train``.
    """

    name: str
    config: dict[str, Any]
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    call: Call | None = None


def devices() -> tuple[str, int]:
    """Kind and number of devices to run cells on: every GPU, or every CPU core but at least one."""
    from ..run.devices import first_device, number_of

    device = first_device()
    return device.type, number_of(device)


def threads_of(workers: int, share: int | None = None) -> int:
    """Threads of each worker: ``OMP_NUM_THREADS``, or else its share of the cores."""
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
) -> None:
    """Run jobs on a pool.

    Args:
        jobs: in order.
        workers: number of processes.
        gpus: give worker k GPU k only; else each gets its share of the CPU cores.
        started: called with the job and the worker's number.
        ended: called with the job, the worker's number and ``ok`` or ``failed``.
        limit: seconds that a job may take; its worker is then ended, and another takes its place.

    On an exception (an interrupt, for one) the workers are ended; what they were doing has no
    record and is resumed by the next call.
    """
    queue = list(jobs)
    threads = threads_of(workers, 1 if gpus else None)
    running: dict[ProcessFuture[Answer], tuple[Job, int]] = {}
    waiting: set[ProcessFuture[Answer]] = set()  # until their worker takes them

    def one_worker(k: int) -> ProcessPool:
        # of one process, so that job and device go together; spawn: a forked torch is not safe
        context, device = mp.get_context("spawn"), k if gpus else None
        return ProcessPool(1, initializer=_open, initargs=(device, threads), context=context)

    def give(k: int) -> None:
        if not queue:
            return
        job = queue.pop(0)
        given = (job.call, job.config, job.folder, threads, job.options, own.ship())
        if not pools[k].active:  # its worker died before it took a job
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
                    ended(job, k, _status(job, future, limit))
                    give(k)
    finally:
        for pool in pools.values():
            pool.stop()
        for pool in pools.values():
            pool.join()


Answer = tuple[str, list[tuple[str, bool]]]
"""A worker's answer: the status of a job, and what it was told of its data."""


def _open(gpu: int | None, threads: int) -> None:
    """Prepare a worker process, before it loads a library."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _end_with_parent() -> None:
    """A killed comparison leaves no cell running that the next call would run beside."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(*given: Any) -> Answer:
    """Run a job in a worker process."""
    with collected() as told:
        status = _run_cell(*given)
    return status, told


def _status(job: Job, future: ProcessFuture[Answer], limit: float | None) -> str:
    """``ok`` or ``failed``; a job whose worker did not answer is recorded here."""
    error = future.exception()
    if error is None:
        status, told = future.result()
        for text, fault in told:  # by this process, where it is said once for all cells
            tell(text, fault=fault)
        if status in ("ok", "failed"):
            return status
        return _lost(job, status, SEE, "error")
    if isinstance(error, ProcessExpired):
        killed = error.exitcode == -signal.SIGKILL
        text = f"the worker ended with exit code {error.exitcode}"
        return _lost(job, text, KILLED if killed else SEE, "killed" if killed else "died")
    if isinstance(error, TimeoutError) and limit is not None:
        return _lost(job, f"took longer than its limit of {limit / 60:.3g} min", LATE, "limit")
    return _lost(job, f"the worker ended ({type(error).__name__}: {error})", SEE, "died")


def _lost(job: Job, error: str, details: str, reason: str) -> str:
    """The status of a job that did not report: what it had recorded before its end stands."""
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
    """Run a cell here: ``ok``, ``failed``, or an error for which there was no room on the disk."""
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
            from ..run.config import RunConfig

            own.receive(parts)
            cfg = RunConfig.from_dict(values)  # what is wrong here is told before torch is loaded
            import torch

            from ..run.train import train

            torch.set_num_threads(threads)
            (call or train)(cfg, folder, **options)
        except Exception as e:
            with contextlib.suppress(OSError):  # the log may be on the disk that is full
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
    """``memory`` where there was not enough of it, by its type or its words; else ``error``."""
    names = {t.__name__ for t in type(error).__mro__}
    words = ("out of memory", "can't allocate memory", "not enough memory")
    short = names & {"MemoryError", "OutOfMemoryError"} or any(w in str(error) for w in words)
    return "memory" if short else "error"


def record_failure(job: Job, error: str, details: str, reason: str) -> None:
    """Write down that a cell failed, and how often it was tried."""
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


# ---- What every kind of comparison runs by: one at a time in a folder, with a bar, to be stopped.


def earlier_calls(path: Path) -> list[dict[str, Any]]:
    """Cells that earlier calls finished, and their seconds on the clock."""
    if not path.is_file():
        return []
    try:
        found = read_json(path, remedy="it is written anew").get("calls", [])
    except DataError:  # it only says how long earlier calls took
        return []
    return [call for call in found if isinstance(call, dict)] if isinstance(found, list) else []


def refuse_untrainable(jobs: list[Job]) -> None:
    """Refuse cells that would fail one after another for what they ask of this machine.

    Raises:
        ConfigError: with what was asked for, what there is, and what to set.
    """
    from ..run.devices import refuse_absent

    trained = [job for job in jobs if job.call is None]
    # most suites ask for one thing in all cells
    for config in {json.dumps(job.config["trainer"]): job.config for job in trained}.values():
        cfg = RunConfig.from_dict(config)
        if (cfg.trainer.devices, cfg.trainer.num_nodes) != (1, 1):
            raise ConfigError(
                f"trainer.devices={cfg.trainer.devices}, trainer.num_nodes={cfg.trainer.num_nodes}:"
                " the cells of a suite are trained beside each other, each on one device; set both "
                "to 1 (--workers says how many cells run at a time)"
            )
        refuse_absent(cfg)


def run_jobs(
    console: Console,
    todo: list[Job],
    what: str,
    *,
    workers: int,
    gpus: bool,
    limit: float | None,
) -> int:
    """Run jobs with a progress bar; how many failed.

    Args:
        console: where it is shown.
        todo: the jobs.
        what: they are called.
        workers: processes.
        gpus: whether each has one of its own.
        limit: seconds that a job may take.
    """
    failed: list[str] = []
    running: dict[int, str] = {}
    began = time.monotonic()
    with Bar(what, len(todo), console=console, stays=True) as bar, _terminable():

        def show() -> None:
            notes = [*running.values()]
            if bar.done:
                seconds = (time.monotonic() - began) / bar.done * (len(todo) - bar.done)
                whole = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
                notes.insert(0, f"about {whole} left")
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
            elif not console.is_terminal:
                entry = read_record(job.folder) or Record()
                part = "UAR" if entry.metrics else "validation UAR"
                scores = entry.metrics or entry.valid
                told = f"{part} {scores['uar']:.3f}" if scores else "trained, nothing validated"
                console.print(f"{job.name}: {told}", highlight=False)
            bar.advance()
            show()

        try:
            run(todo, workers=workers, gpus=gpus, started=started, ended=ended, limit=limit)
        except KeyboardInterrupt:
            left = sum(not finished(j.folder) for j in todo)
            console.print(f"stopped; {left} {what} are left: run the same command again to go on")
            raise
    return len(failed)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One comparison per folder; the lock ends with its process, however that ends."""

    def refusal(process: str) -> ComparisonError:
        return ComparisonError(
            f"another comparison (process {process}) is running in {folder}; wait for it, or "
            "choose another --out"
        )

    with locked(folder / ".lock", refusal):
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the workers in order, as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
