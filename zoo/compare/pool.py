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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

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
        limit: seconds that a job may take; its worker is then killed, and another takes its place.

    On an exception (an interrupt, for one) the workers are ended; what they were doing has no
    record and is resumed by the next call.
    """
    queue = list(jobs)
    pool: dict[int, _Worker] = {}
    try:
        for k in range(min(workers, len(queue))):
            pool[k] = _Worker(k, workers, gpus)
        for k, worker in pool.items():
            _next(worker, k, queue, started)
        while any(w.job for w in pool.values()):
            busy = {w.pipe: k for k, w in pool.items() if w.job}
            for ready in wait(list(busy), _until_next_limit(pool.values(), limit)):
                k = busy.pop(ready)  # type: ignore[call-overload]
                worker = pool[k]
                job = worker.job
                assert job is not None
                status = worker.result()
                if status is None:  # the process is gone
                    code = worker.exit_code()
                    reason = "killed" if code == -signal.SIGKILL else "died"
                    error = f"the worker ended with exit code {code}"
                    status = _lost(job, error, _hint(code), reason)
                    worker.close()
                    if queue:
                        pool[k] = worker = _Worker(k, workers, gpus)
                elif status not in ("ok", "failed"):
                    status = _lost(job, status, "see log.txt in the cell's folder", "error")
                worker.job = None
                ended(job, k, status)
                _next(worker, k, queue, started)
            for k in busy.values():  # those that said nothing
                worker = pool[k]
                job = worker.job
                if job is None or limit is None or time.monotonic() - worker.began < limit:
                    continue
                worker.kill()
                error = f"took longer than its limit of {limit / 60:.3g} min"
                status = worker.result() or _lost(job, error, LATE, "limit")
                worker.close()
                if queue:
                    pool[k] = worker = _Worker(k, workers, gpus)
                worker.job = None
                ended(job, k, status)
                _next(worker, k, queue, started)
    finally:
        for worker in pool.values():
            worker.close()


def _lost(job: Job, error: str, details: str, reason: str) -> str:
    """The status of a job that did not report: what it had recorded before its end stands."""
    if finished(job.folder):
        return "ok"
    record_failure(job, error, details, reason)
    return "failed"


def _until_next_limit(workers: Iterable[_Worker], limit: float | None) -> float | None:
    """Seconds until the first running job reaches its limit; None without one."""
    if limit is None:
        return None
    first = min(w.began for w in workers if w.job)
    return max(0.0, first + limit - time.monotonic())


def _next(worker: _Worker, k: int, queue: list[Job], started: Callable[[Job, int], None]) -> None:
    if queue:
        job = queue.pop(0)
        worker.give(job)
        started(job, k)


class _Worker:
    def __init__(self, number: int, workers: int, gpus: bool) -> None:
        # spawn: a forked torch with threads or CUDA is not safe
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.own = own.ship()  # a new process knows no file of the user's yet
        threads = threads_of(workers, 1 if gpus else None)
        self.process = context.Process(
            target=_serve, args=(theirs, number if gpus else None, threads), daemon=False
        )
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.began = time.monotonic()

    def give(self, job: Job) -> None:
        self.job, self.began = job, time.monotonic()
        with contextlib.suppress(OSError):  # it is gone already: `result` tells
            self.pipe.send((job.call, job.config, str(job.folder), job.options, self.own))

    def result(self) -> str | None:
        try:
            status, told = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        for text, fault in told:  # by this process, where it is said once for all cells
            tell(text, fault=fault)
        return str(status)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self.process.kill()
        self.process.join(10)

    def exit_code(self) -> int | None:
        self.process.join(10)
        return self.process.exitcode

    def close(self) -> None:
        if self.pipe.closed:
            return
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(0.2 if self.job else 5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
        self.pipe.close()


def _serve(pipe: Connection, gpu: int | None, threads: int) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    while (message := pipe.recv()) is not None:
        call, values, folder, options, parts = message
        with collected() as told:
            status = _run_cell(call, values, Path(folder), threads, options, parts)
        pipe.send((status, told))


def _end_with_parent() -> None:
    """A killed comparison leaves no cell running that the next call would run beside."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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


def _hint(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed from outside: most often the system ran out of memory; see log.txt"
    return "see log.txt in the cell's folder"


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
