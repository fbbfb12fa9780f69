"""`serzoo compare`: run every cell of a suite once, then tabulate."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import board_columns, estimate, exchange, few_shot, pool, robustness, search, suite
from .errors import ComparisonError, ConfigError
from .record import finished, read_record, write_json
from .report import report
from .tables import matching_notes, wide_console


def compare(
    name: str,
    overrides: Sequence[str] = (),
    *,
    out: str = "runs",
    workers: int | None = None,
    limit: float | None = None,
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
        limit: minutes that a cell may take; the suite's ``limit_minutes`` by default.
        dry_run: only list the cells, with the time and memory that they will take.
        console: where to print.

    Returns:
        ``{"cells", "done", "failed", "folder", "summary"}``; ``summary`` is None for a dry run.
    """
    console = console or wide_console()
    for other in (robustness, few_shot):  # what they run is not spanned by axes of runs
        if other.is_meant(name):
            given: Any = {"out": out, "workers": workers, "limit": limit, "dry_run": dry_run}
            return dict(other.compare(name, overrides, console=console, **given))
    chosen = suite.load(name, overrides)
    limit = chosen.limit_minutes if limit is None else limit
    if limit is not None and not limit > 0:
        raise ConfigError(f"--limit is {limit:g}; give minutes above 0, or leave it out")
    folder = Path(out) / chosen.name
    cells = suite.expand(chosen, out=out)
    jobs = [_job(cell, folder) for cell in cells]
    todo = [cell for cell, job in zip(cells, jobs, strict=True) if not finished(job.folder)]
    trials = {t.name: _trial(t, folder) for cell in todo for t in cell.trials}
    ahead = [job for job in trials.values() if not finished(job.folder)]
    console.print(
        f"[bold]{escape(chosen.title)}[/bold]: {len(cells)} cells, {len(jobs) - len(todo)} "
        f"finished, {len(todo)} to run{f' after {len(ahead)} trials' if trials else ''}; audits of "
        "all folds passed"
    )
    for note in matching_notes(suite.matched(cells)):
        console.print(note, markup=False, highlight=False)
    result: dict[str, Any] = {
        "cells": len(cells),
        "done": len(jobs) - len(todo),
        "failed": 0,
        "folder": folder,
    }
    kind, number = pool.devices()
    workers = workers or number
    if dry_run:
        estimate.show(console, cells, folder, workers)
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
            "search": chosen.search.budget() if chosen.search else None,
            "cells": [*(c.name for c in cells), *exchange.imported(folder)],
            "calls": _earlier_calls(folder / "suite.json"),
        }
        write_json(folder / "suite.json", plan)
        board_columns.declare(folder / "cells", {c.name: (c.cfg, c.point) for c in cells})
        if todo:
            seconds = None if limit is None else 60 * limit
            began = time.monotonic()
            try:
                options: Any = {"workers": workers, "gpus": kind == "cuda", "limit": seconds}
                if ahead:
                    _run(console, ahead, "trials", **options)
                won = [_ready(cell, _job(cell, folder), chosen.search, trials) for cell in todo]
                result["failed"] = sum(job is None for job in won)
                cells_left = [job for job in won if job is not None]
                result["failed"] += _run(console, cells_left, "cells", **options)
            finally:
                ran = sum(finished(folder / "cells" / c.name) for c in todo)
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


def _job(cell: suite.Cell, folder: Path) -> pool.Job:
    facts = {"axes": cell.point} if cell.point else {}  # tables of other values are others
    return pool.Job(cell.name, cell.cfg.to_dict(), folder / "cells" / cell.name, {"facts": facts})


def _trial(trial: suite.Trial, folder: Path) -> pool.Job:
    options = {"test": False, "facts": {"settings": trial.settings}}
    return pool.Job(trial.name, trial.cfg.to_dict(), folder / "trials" / trial.name, options)


def _ready(
    cell: suite.Cell,
    job: pool.Job,
    budget: search.Search | None,
    trials: Mapping[str, pool.Job],
) -> pool.Job | None:
    """The cell with the settings that won its trials; None, and a record, where none ended well."""
    if budget is None:
        return job
    best, tried = search.outcome([(t.settings, trials[t.name].folder) for t in cell.trials])
    seconds = round(sum(t.get("seconds", 0.0) for t in tried), 2)
    found = {"rule": search.RULE, "chosen": best, "tried": tried, "seconds": seconds}
    facts = {**job.options["facts"], "search": {**budget.budget(), **found}}
    job = replace(job, options={"facts": facts})
    if best < 0:
        error = f"none of {len(tried)} trials ended well; the first: {tried[0].get('error')}"
        pool.record_failure(job, error, "see search.tried in the record", "search")
        return None
    return replace(job, config=replace(cell.trials[best].cfg, seed=cell.seed).to_dict())


def _run(
    console: Console,
    todo: list[pool.Job],
    what: str,
    *,
    workers: int,
    gpus: bool,
    limit: float | None,
) -> int:
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
                uar = (entry.get("metrics") or entry["valid"])["uar"]
                console.print(f"{job.name}: {part} {uar:.3f}", highlight=False)
            show(1)

        try:
            pool.run(todo, workers=workers, gpus=gpus, started=started, ended=ended, limit=limit)
        except KeyboardInterrupt:
            left = sum(not finished(j.folder) for j in todo)
            console.print(f"stopped; {left} {what} are left: run the same command again to go on")
            raise
    return len(failed)


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
