"""One self-contained HTML file: tables that sort, figures that follow the theme, no network."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..core.errors import SerzooError
from ..core.table import Table
from ..run.record import Attributes, SuiteRecord
from .answers import Asked
from .grids import Grid
from .runs import Corpora, Found
from .summary import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

TEMPLATE = "page.html.j2"
WIDE = 7.5  # inches; a phone scrolls a wider drawing and does not shrink it


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG, a text that says what it shows, and its data.

    Attributes:
        svg: the drawing.
        alt: what it shows.
        data: its numbers, which the page offers as a CSV file.
        name: the figure's own name in the page, and of this file.
        wide: whether a phone scrolls it.
    """

    svg: str
    alt: str
    data: Table
    name: str
    wide: bool = False
    kind: ClassVar[str] = "figure"

    @property
    def csv(self) -> str:
        """The data as the address of a link: a ``data:`` URI."""
        coded = base64.b64encode(self.data.csv().encode()).decode()
        return f"data:text/csv;charset=utf-8;base64,{coded}"


@dataclass(frozen=True)
class Row:
    """Figures in a row; those without room start another row."""

    parts: Sequence[Figure]
    kind: ClassVar[str] = "row"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Points:
    """A list; each point has a name and a sentence."""

    rows: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Code:
    """Lines of code, shown as they are."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Fold:
    """Parts under a heading that opens and closes them."""

    title: str
    parts: Sequence[Part]
    opened: bool = False
    kind: ClassVar[str] = "fold"


Part = Table | Figure | Row | Text | Points | Code | Fold


@dataclass
class Section:
    """A section of the page.

    Attributes:
        id: anchor.
        title: heading.
        intro: how to read it.
        parts: what it shows.
        messages: why a part could not be made; shown first.
        absent: why the section does not apply, so that the page leaves it out; "" if it does.
    """

    id: str
    title: str
    intro: str = ""
    parts: list[Part] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    absent: str = ""


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page. All text is escaped; figures are taken as they are."""
    from jinja2 import Environment, StrictUndefined

    source = (files(__package__) / TEMPLATE).read_text("utf-8")
    env = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return env.from_string(source).render(title=title, lead=lead, sections=sections)


def draw(plot: Plot, alt: str, data: Table, *, name: str) -> Figure:
    """Return a figure as SVG; black parts take the colour of the page's text, also on dark.

    Args:
        plot: the drawing.
        alt: what it shows, for those who do not see it.
        data: the numbers that are drawn.
        name: the figure's own name in the page, which identifiers in the drawing begin with.
    """
    from matplotlib import rc_context

    plot.patch.set_alpha(0)
    for axes in plot.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        plot.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # an XML declaration has no place inside a page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"#000000\b", "currentColor", svg)
    # the library counts identifiers from one in every figure; this makes them unique
    own = re.sub(r"\W+", "-", name)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{own}.\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}.", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return Figure(svg, alt, data, own, wide=plot.get_figwidth() > WIDE)


# What the sections of a report share.

# errors that bad input raises; SerzooError is a ValueError
FAULTS = (ValueError, KeyError, TypeError, ArithmeticError, OSError)

FIGURES = 12  # tables that are drawn; a suite of conditions has many more


@dataclass(frozen=True)
class Context:
    """Material of a report.

    Attributes:
        folder: folder of the suite.
        plan: the suite's ``suite.json``.
        found: cells of the suite.
        grids: tables of the suite.
        refused: why a table cannot be made, by recipe and encoder.
        rows: rows of all tables.
        attributes: attributes of utterances by id; empty if records hold none.
        attributes_fault: why there are none, or "".
        time: where the time went, in words.
        audio: whether the page has players of errors.
        corpora: opens corpora for these players.
    """

    folder: Path
    plan: SuiteRecord
    found: Found
    grids: list[Grid]
    refused: dict[tuple[str, str], str]
    rows: list[Result]
    attributes: Attributes
    attributes_fault: str
    time: str
    audio: bool = False
    corpora: Corpora = field(default_factory=Corpora)

    @cached_property
    def asked(self) -> Asked:
        """The questions of the suite: baseline, declared heads, margin and metric."""
        return Asked.of(self.plan)

    @property
    def baseline(self) -> str:
        """The head that others are compared to."""
        return self.asked.baseline

    def row(self, grid: Grid, head: str) -> Result:
        """Return the row of a head in a table."""
        key = (grid.recipe, grid.encoder, head)
        return next(r for r in self.rows if (r.recipe, r.encoder, r.head) == key)


def drawn(section: Section, i: int) -> bool:
    """Whether the i-th table is drawn; the first that is not leaves a message in the section."""
    if i == FIGURES:
        section.messages.append(f"Of more than {FIGURES} tables, the first {FIGURES} are drawn.")
    return i < FIGURES


def per_grid(
    section: Section, grids: Iterable[Grid], make: Callable[[Grid], Sequence[Part]]
) -> None:
    """Add the parts of every table; if those of one cannot be made, a message says why."""
    for grid in grids:
        try:
            section.parts.extend(make(grid))
        except FAULTS as error:
            section.messages.append(f"{grid.name}: {as_message(error)}")


def as_message(error: Exception) -> str:
    """Return an error as a message for readers of the page."""
    return (
        str(error)
        if isinstance(error, SerzooError)
        else f"cannot be made ({type(error).__name__}: {error})"
    )
