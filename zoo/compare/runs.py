"""The usual kind of suite: every cell is a run that is trained and tested.

The runs that cells need come first: the trials of a search, or pre-trainings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import counted
from ..report.table import source_notes
from ..run import board
from ..run.record import finished, read_record
from . import axes, estimate, pool, search, sources, study, suite
from .suite import Cell, Plan, Suite, Trial

if TYPE_CHECKING:
    from rich.console import Console


class Runs(Plan):
    """The plan of a suite whose axes span the cells; trials of a search come first."""

    called = "trials"
    suite: Suite

    def __init__(self, chosen: Suite, *, out: str) -> None:
        self.suite, self.name, self.title = chosen, chosen.name, chosen.title
        self.folder = folder = Path(out) / chosen.name
        self.limit_minutes = chosen.limit_minutes
        self.spanned = suite.expand(chosen, out=out)
        self.cells = [_job(cell, folder) for cell in self.spanned]
        self.of = {cell.name: cell for cell in self.spanned}
        left = {self.of[job.name].kind for job in self.todo()}
        # a cell's setting depends on the trials of every fold
        self.trials = {
            t.name: _trial(t, folder)
            for cell in self.spanned
            if cell.kind in left
            for t in cell.trials
        }
        self.ahead = list(self.trials.values())

    def notes(self) -> Iterable[str]:
        """Lines about the audit, which has passed by now, and about heads made equal in size."""
        from ..report.table import matching_notes

        return ["audits of all folds passed", *matching_notes(suite.matched(self.spanned))]

    def facts(self) -> dict[str, Any]:
        """The suite's settings, and how heads were matched."""
        matched = suite.matched(self.spanned)
        return {**super().facts(), "matched": matched, "pretraining": None}

    def estimate(self, console: Console, workers: int) -> float:
        """Estimate from finished cells of the same kind, or else from measured training steps."""
        return estimate.show(console, self.spanned, self.folder, workers)

    def open(self) -> None:
        """Declare TensorBoard's columns for all heads."""
        board.declare(self.folder / "cells", {c.name: (c.cfg, c.point) for c in self.spanned})

    def ready(self, job: pool.Job) -> pool.Job | None:
        """Return the cell with the settings of its best trial; if all failed, record that."""
        budget, cell = self.suite.search, self.of[job.name]
        if budget is None:
            return job
        own = self.trials_of(cell)
        best, folds, tried = search.outcome(
            [search.Tried(t.settings, self.folders(cell, i)) for i, t in enumerate(own)],
            cell.fold,
            self.suite.metric,
        )
        seconds = round(sum(t.get("seconds", 0.0) for t in tried), 2)
        found = {
            "rule": search.rule(self.suite.metric, budget.adaptive),
            "folds": folds,
            "chosen": best,
            "tried": tried,
            "seconds": seconds,
        }
        facts = {**job.options["facts"], "search": {**budget.budget(), **found}}
        job = replace(job, options={"facts": facts})
        if best < 0:
            error = f"all {len(tried)} trials failed; the first: {tried[0].get('error')}"
            pool.record_failure(job, error, "see search.tried in the record", "search")
            return None
        cfg = replace(own[best].cfg, seed=cell.seed)
        more = {}
        if cfg.optim.refit and cfg.fingerprint == own[best].cfg.fingerprint:
            more = {"trial": str(self.folders(cell, best)[cell.fold].absolute())}
        return replace(job, config=cfg.to_dict(), options=job.options | more)

    def trials_of(self, cell: Cell) -> Sequence[Trial]:
        """Return the trials of a cell's head in its fold, in order."""
        return cell.trials

    def folders(self, cell: Cell, number: int) -> dict[int, Path]:
        """Return the folders of a trial by fold."""
        same = {c.fold: c.trials for c in self.spanned if c.kind == cell.kind}
        return {fold: self.trials[own[number].name].folder for fold, own in same.items()}


class Studied(Runs):
    """The plan of a suite whose search learns from earlier trials (:mod:`.study`)."""

    def __init__(self, chosen: Suite, *, out: str) -> None:
        super().__init__(chosen, out=out)
        left = {self.of[job.name].kind for job in self.todo()}
        self.searched = {
            (cell.kind, cell.fold): cell.searched
            for cell in self.spanned
            if cell.kind in left and cell.searched
        }

    def first(self) -> list[pool.Job]:
        """Trials that are left. Their settings are not known yet: these have none."""
        assert self.suite.search is not None
        base, ended = self.folder / "trials", suite.ended_trials(self.folder / "trials")
        return [
            pool.Job(name, one.trial(0, {}).cfg.to_dict(), base / name)
            for one in self.searched.values()
            for name in one.trial_names(self.suite.search.trials)
            if name not in ended
        ]

    def check(self) -> None:
        """Refuse a search whose library is missing."""
        if self.searched:
            study.refuse_missing()

    def open(self) -> None:
        """Open the studies."""
        super().open()
        budget, file = self.suite.search, self.folder / "trials" / study.FILE
        assert budget is not None
        file.parent.mkdir(parents=True, exist_ok=True)
        self.studies = {
            key: study.Study(budget, one.head, one.name, file) for key, one in self.searched.items()
        }

    def rounds(self) -> Iterator[list[pool.Job]]:
        """Yield a batch of every study, and tell the studies its results; then the next batch.

        Trials that failed in an earlier call come first. Their studies know no result of them, but
        they may win.
        """
        told = [(key, one) for key, of in self.studies.items() for one in of.trials()]
        waiting = {(key, one.id) for key, of in self.studies.items() for one in of.open()}
        again = [self._job(key, one) for key, one in told if (key, one.id) not in waiting]
        if failed := [job for job in again if not finished(job.folder)]:
            yield failed
        while True:
            asked = [(key, one) for key, of in self.studies.items() for one in of.ask()]
            if not asked:
                return
            yield [self._job(key, one) for key, one in asked]
            for key, one in asked:
                record = read_record(self._job(key, one).folder)
                self.studies[key].tell(one, record, self.suite.metric)

    def _job(self, key: tuple[tuple[str, ...], int], asked: study.Asked) -> pool.Job:
        of = self.studies[key]
        job = _trial(self.searched[key].trial(asked.number, asked.settings), self.folder)
        if not of.search.prune:
            return job
        pruning = {"study": of.name, "journal": str(of.file.absolute()), "trial": asked.id}
        options = {"facts": job.options["facts"], **pruning}
        return replace(job, options=options, call=study.run_trial)

    def trials_of(self, cell: Cell) -> Sequence[Trial]:
        assert cell.searched is not None
        own = self.studies[cell.kind, cell.fold].trials()
        return [cell.searched.trial(one.number, one.settings) for one in own]

    def folders(self, cell: Cell, number: int) -> dict[int, Path]:
        return {cell.fold: self.folder / "trials" / self.trials_of(cell)[number].name}


def plan(name: str, overrides: Sequence[str] = (), *, out: str = "runs") -> Runs:
    """Return the plan of a suite of runs; see :func:`.suite.load` and :func:`.suite.expand`."""
    chosen = suite.load(name, overrides)
    if chosen.search and chosen.search.adaptive:
        return Studied(chosen, out=out)
    return Started(chosen, out=out) if chosen.starts else Runs(chosen, out=out)


def _job(cell: Cell, folder: Path) -> pool.Job:
    # each point of the axes has its own tables, but all pre-trainings are rows of one table
    point = {k: v for k, v in cell.point.items() if k != axes.SOURCE}
    facts: dict[str, Any] = {"axes": point} if point else {}
    if axes.SOURCE in cell.point:
        facts["pretraining"] = cell.point[axes.SOURCE]
    if cell.source and cell.cfg.encoder["type"] == "trained":  # one table for all pre-trainings
        facts["source"] = {"encoder": {**cell.source.cfg.encoder, "tuning": "frozen"}}
    return pool.Job(cell.name, cell.cfg.to_dict(), folder / "cells" / cell.name, {"facts": facts})


def _trial(trial: Trial, folder: Path) -> pool.Job:
    options = {"test": False, "facts": {"settings": trial.settings}}
    return pool.Job(trial.name, trial.cfg.to_dict(), folder / "trials" / trial.name, options)


class Started(Runs):
    """The plan of a suite with the axis ``pretraining``: labels, then pre-trainings, then cells."""

    called = "pre-trainings"

    def __init__(self, chosen: Suite, *, out: str) -> None:
        super().__init__(chosen, out=out)
        assert chosen.starts is not None
        self.pretraining = chosen.starts
        left = [self.of[job.name].source for job in self.todo()]
        self.sources = {source.name: source for source in left if source}
        self.ahead = [pool.Job(s.name, s.cfg.to_dict(), s.folder) for s in self.sources.values()]

    def notes(self) -> Iterable[str]:
        """Lines about the pre-trainings that cells start from."""
        return [*super().notes(), *source_notes(self.pretraining.to_dict())]

    def facts(self) -> dict[str, Any]:
        """The suite's settings, with its pre-trainings."""
        return {**super().facts(), "pretraining": self.pretraining.to_dict()}

    def estimate(self, console: Console, workers: int) -> float:
        """Estimate the cells, and count the pre-trainings, which are not estimated."""
        seconds = super().estimate(console, workers)
        if first := self.first():
            console.print(f"not estimated: {counted(len(first), 'pre-training')} and their labels")
        return seconds

    def open(self) -> None:
        """Make the weak labels that pre-trainings need."""
        super().open()
        arms = {self.sources[job.name].arm for job in self.first()}
        if any(self.pretraining.arms[arm].labels for arm in arms):
            folder = self.pretraining.labels(self.folder)
            for line in sources.make_labels(self.pretraining.label or {}, folder):
                print(line, flush=True)

    def ready(self, job: pool.Job) -> pool.Job | None:
        """Return the cell; if its pre-training failed, record that and return None."""
        source = self.of[job.name].source
        if source is None or finished(source.folder):
            return job
        error = f"its pre-training '{source.arm}' failed; see {source.folder}"
        pool.record_failure(job, error, "", "source")
        return None
