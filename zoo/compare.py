"""`serzoo compare`: run every cell of a suite once, then tabulate."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import pool, suite
from .errors import ComparisonError
from .record import finished, read_record, write_json
from .report import report
from .tables import matching_notes, wide_console


def compare(
    name: str,
    overrides: Sequence[str] = (),
    *,
    out: str = "runs",
    workers: int | None = None,
    dry_run: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a suite and tabulate it.

    Finished cells are skipped, unfinished ones go on from their last epoch, failed ones are tried
    again: a comparison that was killed is resumed by the same call.

    Args:
        name: shipped suite or YAML file.
        overrides: for every cell; an axis is replaced by a list.
        out: folder of all runs; this suite's is ``out/<suite>``.
        workers: processes; by default one per GPU, or one per CPU core.
        dry_run: only list the cells.
        console: where to print.

    Returns:
        ``{"cells", "done", "failed", "folder", "summary"}``; ``summary`` is None for a dry run.
    """
    console = console or wide_console()
    chosen = suite.load(name, overrides)
    folder = Path(out) / chosen.name
    cells = suite.expand(chosen, out=out)
    jobs = [pool.Job(c.name, c.cfg.to_dict(), folder / "cells" / c.name) for c in cells]
    todo = [j for j in jobs if not finished(j.folder)]
    console.print(
        f"[bold]{escape(chosen.title)}[/bold]: {len(cells)} cells, {len(jobs) - len(todo)} "
        f"finished, {len(todo)} to run; audits of all folds passed"
    )
    for note in matching_notes(suite.matched(cells)):
        console.print(note, markup=False, highlight=False)
    result = {"cells": len(cells), "done": len(jobs) - len(todo), "failed": 0, "folder": folder}
    if dry_run:
        _list(console, jobs, cells)
        return {**result, "summary": None}
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        plan: dict[str, Any] = {
            "name": chosen.name,
            "title": chosen.title,
            "baseline": chosen.baseline,
            "axes": chosen.axes,
            "overrides": chosen.overrides,
            "match_params": chosen.match_params,
            "matched": suite.matched(cells),
            "cells": [c.name for c in cells],
            "calls": _earlier_calls(folder / "suite.json"),
        }
        write_json(folder / "suite.json", plan)
        if todo:
            kind, number = pool.devices()
            began = time.monotonic()
            try:
                result["failed"] = _run(console, todo, workers or number, kind == "cuda")
            finally:
                ran = sum(finished(j.folder) for j in todo)
                call = {"cells": ran, "seconds": round(time.monotonic() - began, 1)}
                write_json(folder / "suite.json", {**plan, "calls": [*plan["calls"], call]})
            result["done"] = sum(finished(j.folder) for j in jobs)
        summary = report(folder, console=console)
    return {**result, "summary": summary}


def _earlier_calls(path: Path) -> list[dict[str, Any]]:
    """Cells that earlier calls finished, and their seconds on the clock."""
    if not path.is_file():
        return []
    return list(json.loads(path.read_text("utf-8")).get("calls", []))


def _run(console: Console, todo: list[pool.Job], workers: int, gpus: bool) -> int:
    failed: list[str] = []
    running: dict[int, str] = {}
    began = time.monotonic()
    columns = (
        TextColumn("cells"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar, _terminable():
        task = bar.add_task("cells", total=len(todo), now="", left="")

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
                uar = (read_record(job.folder) or {})["metrics"]["uar"]
                console.print(f"{job.name}: UAR {uar:.3f}", highlight=False)
            show(1)

        try:
            pool.run(todo, workers=workers, gpus=gpus, started=started, ended=ended)
        except KeyboardInterrupt:
            left = sum(not finished(j.folder) for j in todo)
            console.print(f"stopped; {left} cells are left: run the same command again to go on")
            raise
    return len(failed)


def _list(console: Console, jobs: list[pool.Job], cells: list[suite.Cell]) -> None:
    """The cells of a dry run, with what equal cells took before."""
    spent: dict[tuple[str, str, str], list[float]] = {}
    for job, cell in zip(jobs, cells, strict=True):
        entry = read_record(job.folder)
        if entry and entry.get("status") == "ok":
            key = (cell.recipe, cell.encoder, cell.head)
            spent.setdefault(key, []).append(entry["seconds"]["total"])
    table = Table("cell", "state", "seconds")
    for job, cell in zip(jobs, cells, strict=True):
        known = spent.get((cell.recipe, cell.encoder, cell.head))
        entry = read_record(job.folder)
        state = str(entry["status"]) if entry else "to run"
        table.add_row(job.name, state, f"{statistics.mean(known):.0f}" if known else "not measured")
    console.print(table)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One comparison per folder; the lock ends with its process, however that ends."""
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
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
