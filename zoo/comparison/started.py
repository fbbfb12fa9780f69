"""A suite whose cells start from pre-trainings: labels first, then these, then the cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..record import finished
from ..reporting.tables import counted, source_notes
from . import pool, sources, suite
from .runs import Runs

if TYPE_CHECKING:
    from rich.console import Console


class Started(Runs):
    """Cells as of any suite, each from the encoder of a run of :mod:`.sources`, or a new one."""

    called = "pre-trainings"

    def __init__(self, chosen: suite.Suite, *, out: str) -> None:
        super().__init__(chosen, out=out)
        assert chosen.pretraining is not None
        self.pretraining = chosen.pretraining
        left = [self.of[job.name].source for job in self.todo()]
        self.sources = {source.name: source for source in left if source}
        self.ahead = [pool.Job(s.name, s.cfg.to_dict(), s.folder) for s in self.sources.values()]

    def notes(self) -> Iterable[str]:
        """What the cells start from."""
        return [*super().notes(), *source_notes(self.pretraining.to_dict())]

    def facts(self) -> dict[str, Any]:
        """The suite's settings, with what the cells start from."""
        return {**super().facts(), "pretraining": self.pretraining.to_dict()}

    def estimate(self, console: Console, workers: int) -> None:
        """Of the cells; what is made before them is counted."""
        super().estimate(console, workers)
        if first := self.first():
            console.print(
                f"not in it: {counted(len(first), 'pre-training')} and the labels that they need"
            )

    def open(self) -> None:
        """The weak labels, which pre-trainings are then trained on."""
        super().open()
        arms = {self.sources[job.name].arm for job in self.first()}
        if any(self.pretraining.arms[arm].labels for arm in arms):
            folder = self.pretraining.labels(self.folder)
            for line in sources.make_labels(self.pretraining.label or {}, folder):
                print(line, flush=True)

    def ready(self, job: pool.Job) -> pool.Job | None:
        """The cell, if what it starts from has ended well; recorded otherwise."""
        source = self.of[job.name].source
        if source is None or finished(source.folder):
            return job
        error = f"its pre-training '{source.arm}' did not end well; see {source.folder}"
        pool.record_failure(job, error, "", "source")
        return None
