"""What a kind of suite wants run, in what order, and what it makes of the outcome.

``compare.py`` runs any plan in one way: resumed, locked, limited, recorded, tabulated. A new kind
of suite is a plan of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..record import finished

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job


class Plan(ABC):
    """The usual answers; a kind of suite gives its own where they differ.

    Attributes:
        name: of the suite, and of its folder below ``out``.
        title: one line for people.
        folder: of the comparison.
        cells: what is tabulated, in order.
        ahead: runs that cells need, which are run before them.
        called: what these runs are called, in the plural.
        limit_minutes: that a cell may take; None = no limit.
    """

    called: ClassVar[str] = "runs"
    name: str
    title: str
    folder: Path
    cells: Sequence[Job]
    ahead: Sequence[Job] = ()
    limit_minutes: float | None = None

    def todo(self) -> list[Job]:
        """Cells without a finished record."""
        return [job for job in self.cells if not finished(job.folder)]

    def first(self) -> list[Job]:
        """Runs that must be run before the cells that are left."""
        return [job for job in self.ahead if not finished(job.folder)] if self.todo() else []

    def headline(self) -> str:
        """What is compared, in a clause after the number of cells; empty = nothing to add."""
        return ""

    def notes(self) -> Iterable[str]:
        """What should be known before it is run, a line each."""
        return ()

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What ``suite.json`` keeps of the suite."""

    @abstractmethod
    def estimate(self, console: Console, workers: int) -> None:
        """List the cells, with what they will take."""

    def check(self) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Refuse what would fail for lack of something, before anything is written."""

    def open(self) -> None:  # noqa: B027 - most kinds have nothing to prepare
        """Prepare the folder, which exists, before anything is run."""

    def ready(self, job: Job) -> Job | None:
        """A cell once ``ahead`` has ended; None where it cannot be run, which is then recorded."""
        return job
