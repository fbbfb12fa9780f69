"""`serzoo compare`: run every cell of a suite once, then tabulate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..board import columns
from ..errors import ConfigError
from ..record import finished, write_json
from ..reporting.report import report
from ..reporting.tables import matching_notes, wide_console
from . import estimate, exchange, few_shot, pool, robustness, search, suite
from .running import earlier_calls, lock, run_jobs


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
    with lock(folder):
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
            "calls": earlier_calls(folder / "suite.json"),
        }
        write_json(folder / "suite.json", plan)
        columns.declare(folder / "cells", {c.name: (c.cfg, c.point) for c in cells})
        if todo:
            seconds = None if limit is None else 60 * limit
            began = time.monotonic()
            try:
                options: Any = {"workers": workers, "gpus": kind == "cuda", "limit": seconds}
                if ahead:
                    run_jobs(console, ahead, "trials", **options)
                won = [_ready(cell, _job(cell, folder), chosen.search, trials) for cell in todo]
                result["failed"] = sum(job is None for job in won)
                cells_left = [job for job in won if job is not None]
                result["failed"] += run_jobs(console, cells_left, "cells", **options)
            finally:
                ran = sum(finished(folder / "cells" / c.name) for c in todo)
                call = {"cells": ran, "seconds": round(time.monotonic() - began, 1)}
                write_json(folder / "suite.json", {**plan, "calls": [*plan["calls"], call]})
            result["done"] = sum(finished(j.folder) for j in jobs)
        summary = report(folder, console=console)
    return {**result, "summary": summary}


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
