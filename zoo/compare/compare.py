"""`serzoo compare`: run every cell of a suite once, then write the tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..core.errors import ConfigError, counted, suggest
from ..core.files import check_place
from ..core.table import wide_console
from ..report.report import report
from ..run import config
from ..run.record import PLAN, finished, planned, write_plan
from ..run.schema import annotation, read_as
from ..run.words import parse, words
from . import conditions, few_shot, imported, runs
from .engine import (
    DetachedError,
    Engine,
    Local,
    refuse_other,
    refuse_untrainable,
    run_jobs,
)
from .pool import earlier_calls, lock
from .ray import Ray
from .slurm import Slurm
from .suite import Plan

ENGINES: dict[str, type[Engine]] = {kind.NAME: kind for kind in (Local, Slurm, Ray)}
"""The engines by name. They import a cluster's library when they use it."""

# a key that only one kind of suite has, and its plan; a suite without them has axes of runs
KINDS = {"conditions": conditions.plan, "shots": few_shot.plan}


def read_engine(typed: Sequence[str], workers: int | None = None) -> tuple[Engine, list[str]]:
    """Take ``engine=NAME`` and ``engine.KEY=VALUE`` out of what was typed.

    Args:
        typed: ``key=value``.
        workers: cells at a time on one machine; None = the engine's default.

    Returns:
        The engine, which was checked (:meth:`Engine.check`), and all other words.

    Raises:
        ConfigError: if the engine or a key is unknown, a value is wrong, or it cannot be used.
    """
    name, own, others = "local", [], []
    for item in typed:
        ((key, text),) = words([item])
        if key == "engine":
            name = text
        elif key.startswith("engine."):
            own.append(item.strip()[len("engine.") :])
        else:
            others.append(item)
    if name not in ENGINES:
        raise ConfigError(f"engine={name} is unknown{suggest(name, ENGINES)}")
    kind = ENGINES[name]
    raw: dict[str, Any] = {}
    for item in own:
        key = item.partition("=")[0].strip()
        if key.partition(".")[0] not in (keys := kind.keys()):
            known = suggest(key, keys)
            raise ConfigError(f"engine={name} has no key 'engine.{key}'{known}")
        ((_, value),) = parse([item], {key: annotation(key, kind)})
        config.put(raw, key, value)
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; give a number above 0, or leave it out")
    try:
        found = read_as(kind, {**raw, "workers": workers})
    except ConfigError as e:
        raise ConfigError(f"engine={name}: {e}") from e
    if kind.PACKAGE and find_spec(kind.PACKAGE) is None:
        raise ConfigError(
            f"engine={name} needs the package {kind.PACKAGE}, which is not installed; install it "
            f"with pip install 'serzoo[{name}]', or leave engine out (this machine)"
        )
    found.check()
    return found, others


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
        console: where output is printed; None = the terminal.

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
    engine, overrides = read_engine(overrides, workers)
    chosen = plan(name, overrides, out=out)
    limit = chosen.limit_minutes if limit is None else limit
    if limit is not None and not limit > 0:
        raise ConfigError(f"--limit is {limit:g}; give minutes above 0, or leave it out")
    todo, first = chosen.todo(), chosen.first()
    done = len(chosen.cells) - len(todo)
    console.print(
        f"[bold]{escape(chosen.title)}[/bold]: {counted(len(chosen.cells), 'cell')}"
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
