"""What every kind of comparison runs by: one at a time in a folder, with a bar, to be stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..config import RunConfig
from ..errors import ComparisonError, ConfigError, DataError
from ..record import finished, read_record
from ..text import read_json
from . import pool


def earlier_calls(path: Path) -> list[dict[str, Any]]:
    """Cells that earlier calls finished, and their seconds on the clock."""
    if not path.is_file():
        return []
    try:
        found = read_json(path, remedy="it is written anew").get("calls", [])
    except DataError:  # it only says how long earlier calls took
        return []
    return [call for call in found if isinstance(call, dict)] if isinstance(found, list) else []


def refuse_untrainable(jobs: list[pool.Job]) -> None:
    """Refuse cells that would fail one after another for what they ask of this machine.

    Raises:
        ConfigError: with what was asked for, what there is, and what to set.
    """
    from ..training.capability import refuse_absent

    trained = [job for job in jobs if job.options.get("call", pool.TRAIN) == pool.TRAIN]
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
    todo: list[pool.Job],
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
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar, _terminable():
        task = bar.add_task(what, total=len(todo), now="", left="")

        def show(done: int = 0) -> None:
            completed = bar.tasks[0].completed + done
            left = ""
            if completed:
                seconds = (time.monotonic() - began) / completed * (len(todo) - completed)
                left = (
                    f"about {seconds / 60:.0f} min left"
                    if seconds >= 90
                    else f"about {seconds:.0f} s left"
                )
            bar.update(task, advance=done, now=", ".join(running.values()), left=left)

        def started(job: pool.Job, k: int) -> None:
            running[k] = job.name
            show()

        def ended(job: pool.Job, k: int, status: str) -> None:
            running.pop(k, None)
            if status != "ok":
                failed.append(job.name)
                error = (read_record(job.folder) or {}).get("error", "unknown")
                console.print(f"[red]failed[/red] {job.name}: {escape(error)}", highlight=False)
            elif not console.is_terminal:
                entry = read_record(job.folder) or {}
                part = "UAR" if "metrics" in entry else "validation UAR"
                scores = entry.get("metrics") or entry.get("valid")
                told = f"{part} {scores['uar']:.3f}" if scores else "trained, nothing validated"
                console.print(f"{job.name}: {told}", highlight=False)
            show(1)

        try:
            pool.run(todo, workers=workers, gpus=gpus, started=started, ended=ended, limit=limit)
        except KeyboardInterrupt:
            left = sum(not finished(j.folder) for j in todo)
            console.print(f"stopped; {left} {what} are left: run the same command again to go on")
            raise
    return len(failed)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One comparison per folder; the lock ends with its process, however that ends."""
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise ComparisonError(
                f"another comparison (process {handle.read().strip() or '?'}) is running in "
                f"{folder}; wait for it, or choose another --out"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
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
