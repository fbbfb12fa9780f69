"""A comparison's rows as LaTeX: plain ``tabular``, no packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .tables import COLUMNS, caption, cells_of, grouped, notes, remarks

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
# the time of a machine and the sizes stand in the other forms; a column of a paper is narrow
KEPT = tuple(c for c in COLUMNS if c not in ("s / fit", "ms / utt"))


def tex(text: str) -> str:
    """Text as LaTeX prints it; numbers with a true minus sign."""
    escaped = "".join(SPECIAL.get(c, c) for c in text)
    return re.sub(r"(^|[ (])([+-])(?=\d)", r"\1$\2$", escaped)


def latex(rows: Sequence[dict[str, Any]], baseline: str) -> str:
    """A ``table`` for each corpus and encoder, between rules as of booktabs, with its notes."""
    text = "% made by serzoo report; needs no package, set in \\footnotesize\n"
    chosen = [COLUMNS.index(c) for c in KEPT]
    for group in grouped(rows):
        text += "\\begin{table}\n\\centering\\footnotesize\n"
        text += f"\\caption{{{tex(caption(group[0]))}.}}\n"
        text += f"\\begin{{tabular}}{{l{'r' * (len(KEPT) - 1)}}}\n\\hline\n"
        text += " & ".join(tex(c) for c in KEPT) + " \\\\\n\\hline\n"
        for row in group:
            cells = cells_of(row, baseline)
            text += " & ".join(tex(cells[i]) for i in chosen) + " \\\\\n"
        text += "\\hline\n\\end{tabular}\n"
        text += "".join(f"\\par {tex(note)}.\n" for note in remarks(group))
        text += "\\end{table}\n\n"
    return text + f"% {' '.join(notes(rows, baseline))}\n"
