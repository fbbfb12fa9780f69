"""`serzoo compare`: run every cell of a suite once, then write the tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..core.errors import ConfigError
from ..core.files import check_place
from ..core.table import wide_console
from ..report.report import report
from ..run import config
from ..run.record import PLAN, finished, planned, write_plan
from . import conditions, few_shot, imported, runs
from . import engine as engines
from .engine import DetachedError, refuse_other, refuse_untrainable, run_jobs
from .pool import earlier_calls, lock
from .suite import Plan

# a key that only one kind of suite has, and its plan; a suite without them has axes of runs
KINDS = {"conditions": conditions.plan, "shots": few_shot.plan}


def plan(name: str, overrides: Sequence[str] = (), *, out: str = "runs") -> Plan:
    """Return the plan of a suite of any kind.

    Args:
        name: name of a shipped suite, or a YAML file.
        overrides: ``key=value``.
        out: folder of all runs.

    Raises:
        ConfigError: if there is no such suite, or something in it or in the overrides is wrong.
    """
    found = config.read_suite(name)
    make = next((KINDS[key] for key in KINDS if key in found), runs.plan)
    return make(name, overrides, out=out)


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
    """Run a suite and write its tables.

    Finished cells are skipped, unfinished ones go on from their last epoch, and failed ones are
    tried again. So the same call resumes a comparison that was killed.

    Args:
        name: name of a shipped suite, or a YAML file.
        overrides: ``key=value`` for every cell; an axis takes a list. ``engine=NAME`` and
            ``engine.KEY=VALUE`` say where the cells run (:mod:`.engine`).
        out: folder of all runs; that of this suite is ``out/<suite>``.
        workers: number of processes on one machine; None = one per GPU, or else one per CPU core
            here, and one in a task of a cluster.
        limit: minutes that a cell may take; None = the suite's ``limit_minutes``.
        dry_run: only list the cells, with their estimated time and memory.
        console: for the output; None = the terminal.

    Returns:
        ``cells``, ``done`` and ``failed`` are numbers of cells. ``folder`` is that of the suite.
        ``summary`` holds the rows of the report; None for a dry run, or if the cells go on in a
        cluster. ``detached`` says whether they do.

    Raises:
        ConfigError: if the suite, an override or a setting is wrong.
        DataError: if a fold's audit fails.
        ComparisonError: if another comparison uses the folder, or no cell has finished.
    """
    console = console or wide_console()
    if not dry_run:
        check_place(Path(out) / Path(name).stem / PLAN)
    engine, overrides = engines.read(overrides, workers)
    chosen = plan(name, overrides, out=out)
    limit = chosen.limit_minutes if limit is None else limit
    if limit is not None and not limit > 0:
        raise ConfigError(f"--limit is {limit:g}; give minutes above 0, or leave it out")
    todo, first = chosen.todo(), chosen.first()
    done = len(chosen.cells) - len(todo)
    console.print(
        f"[bold]{escape(chosen.title)}[/bold]: {len(chosen.cells)} cells"
        f"{escape(chosen.headline())}, {done} finished, {len(todo)} to run"
        f"{f' after {len(first)} {chosen.called}' if first else ''}",
        highlight=False,
    )
    for note in chosen.notes():
        console.print(note, markup=False, highlight=False)
    result: dict[str, Any] = {
        "cells": len(chosen.cells),
        "done": done,
        "failed": 0,
        "folder": chosen.folder,
        "summary": None,
        "detached": False,
    }
    if dry_run:
        seconds = chosen.estimate(console, engine.slots)
        if seconds and (line := engine.cost(seconds)):
            console.print(line, markup=False, highlight=False)
        return result
    chosen.check()
    refuse_untrainable([*first, *todo], engine)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with lock(chosen.folder):
        refuse_other(engine, chosen.folder)
        chosen.open()
        entry = planned(
            **chosen.facts(),
            cells=[*(job.name for job in chosen.cells), *imported.imported(chosen.folder)],
            calls=earlier_calls(chosen.folder),
        )
        write_plan(chosen.folder, entry)
        if todo:
            options: Any = {"engine": engine, "folder": chosen.folder}
            options["limit"] = None if limit is None else 60 * limit
            began = time.monotonic()
            try:
                for jobs in chosen.rounds():
                    run_jobs(console, jobs, chosen.called, **options)
                ready = [job for job in map(chosen.ready, todo) if job is not None]
                result["failed"] = len(todo) - len(ready)
                if ready:
                    result["failed"] += run_jobs(console, ready, "cells", **options)
            except DetachedError as left:
                console.print(str(left), markup=False, highlight=False)
                result["detached"] = True
            finally:
                ran = sum(finished(job.folder) for job in todo)
                call = {"cells": ran, "seconds": round(time.monotonic() - began, 1)}
                entry.calls.append(call)
                write_plan(chosen.folder, entry)
            result["done"] = sum(finished(job.folder) for job in chosen.cells)
        if not result["detached"]:
            result["summary"] = report(chosen.folder, console=console)
    return result
