"""A suite of conditions: the trained cells of another suite, tested on corrupted audio.

Nothing is trained. A cell is a trained cell under one condition. Its record is that of the trained
cell, with the numbers measured under the condition. So it is tabulated like any other cell, with
the same certificate, in a table of its condition. ``degradation.md`` shows what each condition
costs a head.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field

from ...datamodules.corruption import Condition, Corruption
from ..core.errors import ComparisonError, ConfigError, DataError, some, suggest
from ..report.runs import PREDICTIONS
from ..run.record import (
    PLAN,
    Record,
    environment,
    peak_memory_mb,
    read_plan,
    read_record,
    write_record,
    written,
)
from ..run.schema import LISTED, RunConfig, give
from ..run.score import evaluate
from ..run.spent import Used, processor_seconds
from ..statistics.speakers import measure
from ..statistics.table import PredictionTable
from . import axes, suite_file
from .suite import Plan
from .suite_file import SuiteFile, lists

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job

# keys that the record takes from that of the trained cell
KEPT = (
    *("fingerprint", "config", "classes", "data", "speakers", "selection", "axes"),
    *("parameters", "encoder", "features", "search"),
)


def evaluate_cell(
    cfg: RunConfig,
    out: Path,
    *,
    source: str,
    facts: dict[str, Any],
    noise: str | None = None,
    rir: str | None = None,
) -> Record:
    """Test a trained cell under a condition and write its predictions and record.

    Args:
        cfg: configuration of the trained cell; only its ``trainer.threads`` is used.
        out: folder of the result.
        source: folder of the trained cell.
        facts: entries of the record: ``condition``, and ``tested`` (the suite and the trained
            cell).
        noise: folder of recorded noises.
        rir: folder of room impulse responses.

    Raises:
        DataError: if the test part is no longer that of the trained cell.
    """
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    began, used = time.perf_counter(), Used.now()
    trained = read_record(Path(source)) or Record()
    table, found = evaluate(source, condition=facts["condition"], noise=noise, rir=rir)
    clean = PredictionTable.read_jsonl(Path(source) / PREDICTIONS)
    if found.data["manifest"] != trained.data["manifest"] or set(table.ids) != set(clean.ids):
        raise DataError(
            f"{source} was tested on {len(clean)} utterances; now there are {len(table)}, or their "
            "labels or samples changed. Restore the data of its training, or train again"
        )
    agrees = dict(zip(clean.ids, clean.predicted.tolist(), strict=True))
    same = [agrees[i] == p for i, p in zip(table.ids, table.predicted.tolist(), strict=True)]
    entry = written(
        status="ok",
        **trained.pick(KEPT),
        **facts,
        corruption=found.condition,
        normalise=found.normalise,
        same_answers=sum(same) / len(same),  # share of answers that the condition does not change
        **measure(table, trained.temperature or 1.0),  # the temperature of clean validation
        inference_seconds_per_utterance=None,  # the time includes that of the corruption
        seconds=dict.fromkeys(("evaluate", "total"), round(time.perf_counter() - began, 2)),
        processor_seconds=dict.fromkeys(
            ("evaluate", "total"), processor_seconds((used, Used.now()), {})["total"]
        ),
        flops=found.flops,
        peak_memory_mb=peak_memory_mb(),
        threads=torch.get_num_threads(),
        **environment(),
    )
    table.write_jsonl(out / PREDICTIONS)
    write_record(out, entry)
    return entry


CLEAN = "clean"


def _conditions(typed: list[str]) -> list[str]:
    """Return conditions in one spelling, each once, ``clean`` first."""
    return list(dict.fromkeys([CLEAN, *(str(Condition.parse(c)) for c in typed)]))


def _only(found: dict[str, Any]) -> dict[str, Any]:
    """Return the cells to test, by axis; ``all`` removes a restriction."""
    for key in found:
        if key not in axes.AXES:
            raise ConfigError(f"unknown key 'only.{key}'{suggest(key, axes.AXES)}")
    return {k: v for k, v in lists(found).items() if v != "all"}


@dataclass(frozen=True, kw_only=True)
class Robustness(SuiteFile):
    """Trained cells, and the conditions that they are tested under.

    Attributes:
        of: the suite whose cells are tested; it must have been run.
        conditions: conditions of :mod:`serzoo.datamodules.corruption`, ``clean`` first.
        noise: folder of recorded noises; None = that in ``$SERZOO_DATA``.
        rir: folder of room impulse responses; None = that in ``$SERZOO_DATA``.
        only: values of ``recipe``, ``encoder``, ``head``, ``fold`` or ``seed`` that are
            tested; without such a key, all values.
    """

    SPAN: ClassVar[str] = "only"
    SPANNED: ClassVar[Sequence[str]] = axes.AXES
    IN_TITLE: ClassVar[Sequence[str]] = ("of",)

    of: Annotated[str, give("the suite whose cells it tests: of=SUITE")]
    conditions: Annotated[
        list[str],
        Field(min_length=1),
        LISTED,
        give("a list of conditions"),
        AfterValidator(_conditions),
    ]
    noise: str | None = None
    rir: str | None = None
    only: Annotated[
        dict[str, Any], give("lists, as in only: {seed: [1]}"), AfterValidator(_only)
    ] = field(default_factory=dict)

    def adding(self, words: Sequence[str]) -> Robustness:
        """Refuse ``key=value`` for runs, since nothing is trained."""
        key = words[0].partition("=")[0]
        known = suggest(key, (*self.keys(), *axes.AXES))
        raise ConfigError(f"it trains nothing and has no '{key}'{known}")


@dataclass(frozen=True)
class Tested:
    """A trained cell under a condition: name, folder of the trained cell, condition, its record."""

    name: str
    source: Path
    condition: str
    record: Record


def load(name: str, overrides: Sequence[str] = ()) -> Robustness:
    """Read a suite of conditions; see :func:`.suite_file.load`.

    ``of=SUITE``, ``conditions=[...]``, ``noise=FOLDER``, ``rir=FOLDER`` and ``baseline=HEAD``
    replace keys of the suite. ``head=[selm]`` tests trained cells of this head only, and
    ``head=all`` those of all; ``recipe``, ``encoder``, ``fold`` and ``seed`` work alike.

    Raises:
        ConfigError: if a key, a condition or a value is wrong.
    """
    return suite_file.load(Robustness, name, overrides)


def expand(chosen: Robustness, *, out: str) -> tuple[list[Tested], list[str]]:
    """List the cells of a suite.

    The heads follow each other under each condition, so that they share the corrupted audio.

    Args:
        chosen: the suite.
        out: folder of all runs.

    Returns:
        The cells; and the names of trained cells that are not finished or have no checkpoint.

    Raises:
        ComparisonError: if the trained suite was not run, or has no cell to test.
    """
    folder = Path(out) / Path(chosen.of).stem
    if not (folder / PLAN).is_file():
        raise ComparisonError(
            f"{chosen.name} tests the trained cells of '{chosen.of}', but there is no comparison "
            f"in {folder}; run `serzoo compare {chosen.of}` first, or choose another with of=SUITE"
        )
    trained, left = [], []
    for name in read_plan(folder).cells:
        source = folder / "cells" / name
        record = read_record(source)
        if record is None or not record.ok:
            left.append(name)
        elif not _wanted(record, chosen.only):
            continue
        elif (source / "checkpoints" / "best.ckpt").is_file():
            trained.append((source, record))
        else:  # imported predictions, or a record without its model
            left.append(name)
    if not trained:
        only = f" with {chosen.only}" if chosen.only else ""
        raise ComparisonError(
            f"no finished cell in {folder}{only} has a checkpoint; run `serzoo compare "
            f"{chosen.of}` (committed records hold no checkpoints)"
        )

    def data(item: tuple[Path, Record]) -> tuple[str, int]:
        cfg = item[1].config
        return str(cfg["recipe"]), int(cfg["fold"])

    cells = []
    for group in sorted({data(item) for item in trained}):
        for condition in chosen.conditions:
            slug = re.sub(r"[^\w.-]+", "_", condition).strip("_")
            cells += [
                Tested(f"{source.name}-{slug}", source, condition, record)
                for source, record in trained
                if data((source, record)) == group
            ]
    return cells, left


def _wanted(record: Record, only: dict[str, list[Any]]) -> bool:
    cfg = record.config
    found = {
        "recipe": Path(cfg["recipe"]).stem,
        "encoder": cfg["encoder"]["type"],
        "head": cfg.get("head_name") or cfg["head"]["type"],
        "fold": cfg["fold"],
        "seed": cfg["seed"],
    }
    return all(found[key] in values for key, values in only.items())


class Conditions(Plan):
    """The plan that tests every trained cell under every condition."""

    suite: Robustness

    def __init__(self, chosen: Robustness, *, out: str) -> None:
        self.suite, self.name, self.title = chosen, chosen.name, chosen.title
        self.folder = Path(out) / chosen.name
        tested, self.left = expand(chosen, out=out)
        self.cells = [self._job(cell) for cell in tested]

    def headline(self) -> str:
        """The numbers of conditions and of trained cells."""
        number = len(self.suite.conditions)
        trained = f"{len(self.cells) // number} trained cells of {self.suite.of}"
        return f" ({number} conditions of {trained})"

    def notes(self) -> Iterable[str]:
        """A line about trained cells that cannot be tested."""
        if self.left:
            yield (
                f"{len(self.left)} cells of {self.suite.of} are not tested, because they are not "
                f"finished or have no checkpoint: {some(self.left)}"
            )

    def facts(self) -> dict[str, Any]:
        """The suite's settings, with the conditions as an axis."""
        return {**super().facts(), "axes": {"condition": self.suite.conditions}}

    def estimate(self, console: Console, workers: int) -> float:
        """List the cells; if some are finished, estimate the others from their mean time."""
        todo = self.todo()
        for job in self.cells:
            console.print(job.name, markup=False, highlight=False)
        done = [read_record(j.folder) or Record() for j in self.cells if j not in todo]
        if not done or not todo:
            return 0.0
        seconds = sum(entry.seconds["total"] for entry in done) / len(done) * len(todo)
        console.print(
            f"about {seconds / 60 / workers:.0f} min on {workers} workers", highlight=False
        )
        return seconds

    def check(self) -> None:
        """Open the recordings of noises and rooms, so that a missing one is told before work."""
        for condition in self.suite.conditions:
            Corruption(Condition.parse(condition), noise=self.suite.noise, rir=self.suite.rir)

    def _job(self, cell: Tested) -> Job:
        from .pool import Job

        tested = {"of": self.suite.of, "cell": cell.source.name}
        options = {
            "source": str(cell.source),
            "facts": {"condition": cell.condition, "tested": tested},
            "noise": self.suite.noise,
            "rir": self.suite.rir,
        }
        folder = self.folder / "cells" / cell.name
        return Job(cell.name, cell.record.config, folder, options, evaluate_cell)


def plan(name: str, overrides: Sequence[str] = (), *, out: str = "runs") -> Conditions:
    """Return the plan of a suite of conditions; see :func:`load`."""
    return Conditions(load(name, overrides), out=out)
