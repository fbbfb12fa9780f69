"""What the sections of a report share: the material, and what to do with faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..attributes import Attributes, Corpora
from ..errors import SerzooError
from .cells import Found
from .page import Cell, Part, Section
from .summary import Grid
from .tables import plain

# what bad input ends in; SerzooError is a ValueError
FAULTS = (ValueError, KeyError, TypeError, ArithmeticError, OSError)

FIGURES = 12  # tables of a page that are drawn as well: a suite of conditions has many more


@dataclass(frozen=True)
class Context:
    """What a report is made of.

    Attributes:
        folder: of the suite.
        plan: its ``suite.json``.
        found: its cells.
        grids: its tables.
        refused: tables that cannot be made, and why.
        rows: of the tables.
        attributes: of utterances, by id; empty where records hold none.
        attributes_fault: why there are none, or "".
        time: where it went, in words.
        audio: whether errors can be listened to.
        corpora: opens them where that is asked for.
    """

    folder: Path
    plan: dict[str, Any]
    found: Found
    grids: list[Grid]
    refused: dict[tuple[str, str], str]
    rows: list[dict[str, Any]]
    attributes: Attributes
    attributes_fault: str
    time: str
    audio: bool = False
    corpora: Corpora = field(default_factory=Corpora)

    @property
    def baseline(self) -> str:
        """The head that differences are taken to."""
        return str(self.plan["baseline"])

    def row(self, grid: Grid, head: str) -> dict[str, Any]:
        """Of a head in a table."""
        key = (grid.recipe, grid.encoder, head)
        return next(r for r in self.rows if (r["recipe"], r["encoder"], r["head"]) == key)


def drawn(section: Section, i: int) -> bool:
    """Whether the i-th table is drawn; says so in the section where it is the first that is not."""
    if i == FIGURES:
        section.messages.append(f"Of more than {FIGURES} tables, the first {FIGURES} are drawn.")
    return i < FIGURES


def cell(value: float | None, form: str = ".3f") -> Cell:
    """A number of a table."""
    return Cell(plain(value, form), None if value is None else float(value))


def per_grid(
    section: Section, grids: Iterable[Grid], make: Callable[[Grid], Sequence[Part]]
) -> None:
    """Parts of every table; what cannot be made for one is said, and the others are made."""
    for grid in grids:
        try:
            section.parts.extend(make(grid))
        except FAULTS as error:
            section.messages.append(f"{grid.name}: {told(error)}")


def told(error: Exception) -> str:
    """An error as a message for people."""
    return (
        str(error)
        if isinstance(error, SerzooError)
        else f"cannot be made ({type(error).__name__}: {error})"
    )
