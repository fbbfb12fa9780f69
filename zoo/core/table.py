"""Tables for the console, Markdown, LaTeX and web pages, and numbers as texts for their cells.

A caller gives the content. :class:`Table` knows how each form shows it. It escapes texts, aligns
columns of numbers on the right, and shows unknown values as a dash.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from math import isfinite, nan
from typing import Any, Literal, NamedTuple, TypeGuard

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from .errors import ConfigError

UNKNOWN = "–"
SENTENCE = 60
"""A text of more characters gets a wide column on a page (our choice)."""


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def span(low: float | None, high: float | None, form: str = ".3f") -> str:
    """Return an interval as a text; a dash if an end is unknown or not finite."""
    return f"{low:{form}} to {high:{form}}" if _known(low) and _known(high) else UNKNOWN


def p_text(p: float | None) -> str:
    """Return a p value as a text, never as 0; a dash if it is unknown."""
    if not _known(p):
        return UNKNOWN
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.1g}"


def plain(value: float | None, form: str) -> str:
    """Return a number as a text; a dash if it is unknown or not finite."""
    return f"{value:{form}}" if _known(value) else UNKNOWN


def seconds_text(seconds: float | None) -> str:
    """Return seconds as a text, with a decimal below ten."""
    return plain(seconds, ".0f" if seconds is not None and seconds >= 10 else ".1f")


def pandas() -> Any:
    """Return the package pandas, which is needed for data frames only.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import pandas as package
    except ImportError as error:
        raise ConfigError(
            "pandas is not installed, and makes the data frames; run pip install 'serzoo[pandas]'"
        ) from error
    return package


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: the text of the cell.
        sort: its number, by which a page sorts the column; nan = an unknown number; None = the
            cell is a text.
        audio: a ``data:`` URI that a page plays instead of the text, or "".
        style: colour on a console, as rich names it, or "".
    """

    text: str
    sort: float | None = None
    audio: str = ""
    style: str = ""


def number_cell(text: str, value: float | None) -> Cell:
    """Return a cell for a number that has its own text."""
    return Cell(text, value if _known(value) else nan)


def cell(value: float | None, form: str = ".3f") -> Cell:
    """Return a cell for a number; a dash if it is unknown or not finite."""
    return number_cell(plain(value, form), None if value is None else float(value))


def span_cell(low: float | None, high: float | None, form: str = ".3f") -> Cell:
    """Return a cell for an interval, which is sorted by its lower end."""
    return number_cell(span(low, high, form), low)


def p_cell(p: float | None) -> Cell:
    """Return a cell for a p value."""
    return number_cell(p_text(p), p)


Line = Sequence[Cell | str | None]
"""A row; None is an unknown value, which is shown as a dash."""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its header.

    If one cell of a column is a number, the column is flush right in every form.

    Attributes:
        caption: text above the table, or "".
        columns: heads of the columns; if all are "", a console shows no line of heads.
        rows: one cell for each column.
        notes: sentences below the table.

    Raises:
        ValueError: if a row has more or fewer cells than there are columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Line]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {i} of the table '{self.caption}' has {len(row)} cells, and there are "
                    f"{len(self.columns)} columns ({', '.join(self.columns)}); give one for each"
                )

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, with texts as cells and a dash for None."""
        return [
            [c if isinstance(c, Cell) else Cell(UNKNOWN if c is None else c) for c in row]
            for row in self.rows
        ]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        rows = self.cells
        return [any(row[i].sort is not None for row in rows) for i in range(len(self.columns))]

    def without(self, *columns: str) -> Table:
        """Return the same table without some columns.

        Raises:
            ValueError: if there is no such column.
        """
        if missing := [name for name in columns if name not in self.columns]:
            raise ValueError(
                f"the table '{self.caption}' has no column '{missing[0]}'; have "
                f"{', '.join(self.columns)}"
            )
        kept = [i for i, name in enumerate(self.columns) if name not in columns]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows)

    def rich(self, *, lines: bool = True, whole: Sequence[str] = ()) -> RenderableType:
        """Return the table for the ``print`` of a rich console; brackets are shown as they are.

        Args:
            lines: draw lines between the cells; without them, columns are two spaces apart.
            whole: columns whose texts are never broken into two lines.
        """
        bare: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
        table = RichTable(show_header=any(self.columns), **({} if lines else bare))
        for name, number in zip(self.columns, self.numeric, strict=True):
            place: Literal["left", "right"] = "right" if number else "left"
            table.add_column(Text(name), justify=place, no_wrap=name in whole)
        for row in self.cells:
            table.add_row(*(Text(c.text, c.style) for c in row))
        above = [Text(self.caption, "table.title")] if self.caption else []
        return Group(*above, table, *(Text(note, "dim") for note in self.notes))

    def markdown(self) -> str:
        """Return caption, table and notes as paragraphs, with one line feed at the end."""
        rules = ["--:" if number else "---" for number in self.numeric]
        rows = [[_pipes(c.text) for c in row] for row in self.cells]
        lines = [f"| {' | '.join(map(_pipes, self.columns))} |", f"|{'|'.join(rules)}|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        above = [f"**{self.caption}**"] if self.caption else []
        return "\n\n".join([*above, "\n".join(lines), *self.notes]) + "\n"

    def csv(self) -> str:
        """Return heads and rows as CSV; a plain number has all its digits, not those shown."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_exact(c) for c in row] for row in self.cells)
        return file.getvalue()

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``: numbers with all digits, other cells as texts.

        A number that is unknown is NaN.

        Raises:
            ConfigError: if pandas is not installed.
        """
        frame = pandas().DataFrame
        rows = [[c.text if c.sort is None else c.sort for c in row] for row in self.cells]
        return frame(rows, columns=list(self.columns))

    def latex(self) -> str:
        """Return a floating ``table`` with a plain ``tabular``, which needs no package."""
        text = "\\begin{table}\n\\centering\\footnotesize\n"
        text += f"\\caption{{{tex(self.caption)}.}}\n" if self.caption else ""
        places = "".join("r" if number else "l" for number in self.numeric)
        text += f"\\begin{{tabular}}{{{places}}}\n\\hline\n"
        text += " & ".join(map(tex, self.columns)) + " \\\\\n\\hline\n"
        text += "".join(_row(row) for row in self.cells)
        text += "\\hline\n\\end{tabular}\n"
        return text + "".join(f"\\par {tex(note)}\n" for note in self.notes) + "\\end{table}\n"

    def html(self) -> str:
        """Return the table for a page, whose script sorts it; a wide table scrolls by itself."""
        caption = escape(self.caption)
        named = f' aria-label="{caption}"' if caption else ""
        places = [' class="number"' if number else "" for number in self.numeric]
        heads = "".join(
            f'<th scope="col"{place}><button type="button">{escape(name)}</button></th>'
            for name, place in zip(self.columns, places, strict=True)
        )
        lines = [
            f'<div class="scroll" role="region" tabindex="0"{named}>',
            '<table class="sortable">',
            *([f"<caption><span>{caption}</span></caption>"] if caption else []),
            f"<thead><tr>{heads}</tr></thead>",
            "<tbody>",
            *(
                f"<tr>{_header(head)}{''.join(map(_data, rest, places[1:]))}</tr>"
                for head, *rest in self.cells
            ),
            "</tbody>",
            "</table>",
            "</div>",
            *(f'<p class="note">{escape(note)}</p>' for note in self.notes),
        ]
        return "".join(f"{line}\n" for line in lines)


def _exact(c: Cell) -> str:
    """Return the number of a cell that shows nothing but a number; otherwise its text."""
    if c.sort is None:
        return c.text
    if not isfinite(c.sort):
        return "" if c.text == UNKNOWN else c.text
    plain_number = re.fullmatch(r"[-+]?[\d,]*\.?\d*%?", c.text)
    return repr(c.sort) if plain_number else c.text


def _header(c: Cell) -> str:
    # a long name may break behind its underscores
    return f'<th scope="row"{_sort(c)}>{escape(c.text).replace("_", "_<wbr>")}</th>'


def _data(c: Cell, place: str) -> str:
    text = escape(c.text)
    if c.audio:
        source = escape(c.audio)
        text = f'<audio controls preload="none" src="{source}" aria-label="{text}"></audio>'
    elif not place and len(c.text) > SENTENCE:
        place = ' class="long"'
    return f"<td{place}{_sort(c)}>{text}</td>"


def _sort(c: Cell) -> str:
    return f' data-sort="{c.sort}"' if _known(c.sort) else ""


def _line(text: str) -> str:
    return re.sub(r"\s*[\r\n]\s*", " ", text)


def _pipes(text: str) -> str:
    """Escape a text for a cell of Markdown, so that its pipes end no cell."""
    return _line(text).replace("|", "\\|")


SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "²": r"$^2$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "\u2009": r"\,",
}


def tex(text: str) -> str:
    """Escape a text for LaTeX; numbers get a true minus sign."""
    escaped = "".join(SPECIAL.get(c, c) for c in _line(text))
    return re.sub(r"(^|[ (])([+-])(?=\d)", r"\1$\2$", escaped)


def _row(cells: Sequence[Cell]) -> str:
    text = " & ".join(tex(c.text) for c in cells)
    # LaTeX would read these two as an argument of the end of the row before
    return ("{}" if text.startswith(("[", "*")) else "") + text + " \\\\\n"


def wide_console() -> Console:
    """Return a console whose tables stay whole if the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=180)
