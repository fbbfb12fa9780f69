"""Estimates of a cell's time and memory, from finished cells or from a measured training step."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from ..core.errors import counted
from ..core.table import Line, Table
from ..core.table import cell as number
from ..doctor.cost import duration, memory, spoken
from ..doctor.trial import Trial, undisturbed
from ..run.build import open_data
from ..run.record import finished, peak_memory_mb, read_record
from ..run.schema import RunConfig
from . import pool
from .suite import Cell

PATIENCE = 60.0  # seconds of measuring; kinds that are left after it are not measured


class Estimate(NamedTuple):
    """The estimated time and memory of a cell, or of one of its trials.

    Attributes:
        seconds: on the clock; None = not measured. Those of a cell are of all its trainings.
        megabytes: peak memory of its process in MiB; on CUDA, a measured one is the device's.
        source: ``finished`` = mean time and largest memory of finished cells of its kind;
            ``measured`` = a training step on this machine, by the doctor; ``not measured``.
        encoding: seconds for features that are not stored yet; cells on the same features share it.
    """

    seconds: float | None = None
    megabytes: float | None = None
    source: str = "not measured"
    encoding: float = 0.0


def of_finished(folders: Sequence[Path], trainings: int = 1) -> Estimate:
    """Estimate a training from the records of finished cells; ``not measured`` without any.

    Args:
        folders: folders of the cells.
        trainings: how many trainings a record counts; also a trial that was one of them.
    """
    entries = [entry for f in folders if (entry := read_record(f)) is not None and entry.ok]
    if not entries:
        return Estimate()
    seconds = statistics.mean(e.seconds["total"] for e in entries)
    return Estimate(seconds / trainings, max(e.peak_memory_mb or 0.0 for e in entries), "finished")


def of_step(cfg: RunConfig, threads: int | None = None, libraries: float = 0.0) -> Estimate:
    """Estimate from a training step; ``not measured`` if it fails or does not fit the memory.

    Args:
        cfg: the run.
        threads: number of CPU threads, if the run does not set them.
        libraries: MiB that a process takes before it holds a model.
    """
    try:
        with undisturbed(cfg.trainer.threads or threads):
            trial = Trial(cfg)
            took, took_memory = next(duration(trial)).facts, next(memory(trial)).facts
    except Exception:  # `serzoo doctor` names the fault; here the run only has no estimate
        return Estimate()
    if "total" not in took or "need" not in took_memory:
        return Estimate()
    base = libraries if trial.device.type == "cpu" else 0.0
    seconds = took["training"] + took["evaluation"]
    return Estimate(seconds, base + took_memory["need"] / 2**20, "measured", took["encoding"])


def estimates(cells: Sequence[Cell], folder: Path, workers: int) -> dict[str, Estimate]:
    """Estimate each cell of a suite.

    A step is measured in one fold of each kind. The time in another fold is in proportion to its
    training speech.

    Args:
        cells: cells of the suite.
        folder: folder of the suite.
        workers: number of workers.

    Returns:
        Name of each cell to its estimate.
    """
    kinds: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(cell.kind, []).append(cell)
    end, libraries = time.monotonic() + PATIENCE, peak_memory_mb()
    found: dict[str, Estimate] = {}
    speech = _Speech()
    for of in kinds.values():
        each = 2 if of[0].cfg.optim.refit else 1
        known = of_finished([folder / "cells" / c.name for c in of], each)
        if known.seconds is None and time.monotonic() < end:
            known = of_step(of[0].cfg, pool.threads_of(workers), libraries)
        for cell in of:
            e = known
            if e.source == "measured" and e.seconds is not None and cell.fold != of[0].fold:
                e = e._replace(seconds=e.seconds * speech(cell.cfg) / speech(of[0].cfg))
            if e.seconds is not None:
                e = e._replace(seconds=e.seconds * cell.trainings)
            found[cell.name] = e
    return found


class _Speech:
    """Seconds of training speech of a run's fold; each fold is opened once."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}

    def __call__(self, cfg: RunConfig) -> float:
        parts = asdict(cfg.data), cfg.corpus, cfg.protocol, cfg.taxonomy, cfg.fold
        key = json.dumps(parts, sort_keys=True)
        if key not in self.known:
            self.known[key] = sum(open_data(cfg).datasets["train"].seconds)
        return self.known[key]


class Work(NamedTuple):
    """What is left to do: its seconds on one worker, its runs, and how many are not measured."""

    seconds: float
    runs: int
    unknown: int


def work(cells: Sequence[Cell], folder: Path, found: Mapping[str, Estimate]) -> Work:
    """Return the work of the unfinished cells and their trials."""
    left = [c for c in cells if not finished(folder / "cells" / c.name)]
    runs = {c.name: (found[c.name].seconds, 1) for c in left}
    runs |= {name: (found[c.name].seconds, c.trainings) for c in left for name in c.trial_names}
    known = [seconds / parts for seconds, parts in runs.values() if seconds is not None]
    # cells that differ only in their head share features
    stores = {c.kind[:2] + c.kind[3:]: found[c.name].encoding for c in left}
    return Work(sum(known) + sum(stores.values()), len(runs), len(runs) - len(known))


def total(cells: Sequence[Cell], folder: Path, found: Mapping[str, Estimate], workers: int) -> str:
    """Return how long the unfinished cells will take on this number of workers, as text."""
    left = work(cells, folder, found)
    if not left.runs:
        return "nothing is left to run"
    seconds = left.seconds / max(1, min(workers, left.runs))
    text = f"about {spoken(seconds)} for what is left, on {counted(workers, 'worker')}"
    if left.unknown:
        text += f"; {left.unknown} of {left.runs} runs are not measured and not included"
    return text


def show(console: Console, cells: Sequence[Cell], folder: Path, workers: int) -> float:
    """Print the cells of a dry run with their states and estimates.

    Returns:
        Seconds that the unfinished cells take on one worker, as far as they are known.
    """
    found = estimates(cells, folder, workers)
    rows: list[Line] = []
    for c in cells:
        entry = read_record(folder / "cells" / c.name)
        e, state = found[c.name], "to run" if entry is None else entry.status
        if c.tries and state != "ok":
            state += f", {c.tries} trials before"
        rows.append([c.name, state, number(e.seconds, ".0f"), number(e.megabytes, ".0f"), e.source])
    console.print(Table("", ("cell", "state", "seconds", "MiB", "from"), rows).rich())
    console.print(total(cells, folder, found, workers), highlight=False)
    return work(cells, folder, found).seconds
