"""How a comparison's rows are shown: on a console, as Markdown, and in the cells of a page."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ..core.errors import counted
from ..core.numbers import UNKNOWN, p_text, plain, seconds_text, span, spread


def wide_console() -> Console:
    """A console whose tables are not broken where output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=180)


COLUMNS = (
    "head",
    "UAR",
    "95 % interval",
    "difference",
    "p (Holm)",
    "detectable",
    "WA",
    "macro-F1",
    "s / fit",
    "ms / utt",
    "trainable",
)


def cells_of(row: dict[str, Any], baseline: str) -> list[str]:
    """A row's texts, in the order of :data:`COLUMNS`."""
    diff = row["difference"]
    return [
        row["head"],
        spread(row["uar"]),
        span(*row["interval"]),
        _difference(diff) if diff else ("baseline" if row["head"] == baseline else ""),
        f"{p_text(diff['p'])} ({p_text(diff['p_holm'])})" if diff else "",
        plain(diff["detectable"], ".3f") if diff else "",
        spread(row["wa"]),
        spread(row["f1"]),
        seconds_text(row["seconds"]),
        plain(row["inference_ms"], ".1f"),
        plain(row["trainable"], ","),
    ]


def _difference(diff: dict[str, Any]) -> str:
    text = f"{diff['value']:+.3f}"
    bounds = span(diff["low"], diff["high"], "+.3f")
    return text if bounds == UNKNOWN else f"{text} ({bounds})"


def caption(row: dict[str, Any]) -> str:
    """What the numbers of a table stand on."""
    text = (
        f"{row['recipe']}, encoder {row['encoder']}: "
        f"{counted(row['utterances'], 'test utterance')} of "
        + ", ".join(counted(row[f"{what}s"], what) for what in ("speaker", "fold", "seed"))
    )
    if unknown := row.get("without_speaker"):
        text += f"; {unknown} without a speaker, so no interval and no test"
    if row.get("unsure"):
        text += "; nobody can tell whether the parts of the folds share speakers"
    if row["partial"]:
        left = "fold of a seed" if row["partial"] == 1 else "folds of seeds"
        text += f"; {row['partial']} {left} left out, not finished by every head"
    if row.get("certificate"):
        text += f"; certificate {row['certificate']}"
    return text


def grouped(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each table."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["recipe"], row["encoder"]].append(row)
    return list(groups.values())


NOTES = (
    "UAR: mean recall over classes, all folds' test utterances pooled; mean ± standard deviation "
    "over seeds (from 3 seeds on).",
    "Interval: 95 %, jackknife over speakers with Student's t, on the logit scale.",
    "Difference: UAR minus {baseline}'s on the same utterances; interval: paired jackknife over "
    "speakers.",
    "p: the two heads' answers exchanged speaker by speaker (permutation test, two-sided); in "
    "brackets after Holm's correction over all {family} comparisons of this report.",
    "Detectable: the true difference that these speakers would show as significant at 0.05 in 80 % "
    "of cases; a smaller one may be there unseen.",
    "Certificate: hash of manifest, split of every fold, taxonomy and rule of selection; tables "
    "with one certificate hold the same utterances in the same parts.",
    "A dash: not known, or not to be told with these speakers.",
)


def notes(rows: Sequence[dict[str, Any]], baseline: str) -> list[str]:
    """How the numbers of the rows were computed, a column each."""
    family = max((r["difference"]["family"] for r in rows if r["difference"]), default=0)
    return [note.format(baseline=baseline, family=family) for note in NOTES]


def markdown(rows: Sequence[dict[str, Any]], baseline: str) -> str:
    """The tables as Markdown."""
    text = ""
    for group in grouped(rows):
        text += f"**{caption(group[0])}**\n\n"
        text += "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS) + "\n"
        for row in group:
            text += "| " + " | ".join(cells_of(row, baseline)) + " |\n"
        text += "\n"
        text += "".join(f"{note}.\n\n" for note in remarks(group))
    return text + " ".join(notes(rows, baseline)) + "\n"


def remarks(group: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be known of a table's differences: why one has no p, or none that could be low."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in group:
        if row["difference"] and row["difference"]["note"]:
            found[row["difference"]["note"]].append(row["head"])
    return [f"{', '.join(heads)}: {note}" for note, heads in found.items()]


def source_notes(pretraining: dict[str, Any] | None) -> list[str]:
    """What each pre-training is, by what ``suite.json`` holds; nothing where there is none."""
    arms = (pretraining or {}).get("arms") or {}
    return [f"after {k}: begun with an encoder trained on {v['about']}" for k, v in arms.items()]


def matching_notes(matched: Sequence[dict[str, Any]]) -> list[str]:
    """Which size the heads of each table were brought to, and how; a plan's ``matched``."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in matched:
        groups[entry["recipe"], entry["encoder"]].append(entry)
    notes = []
    for (recipe, encoder), entries in groups.items():
        each = ", ".join(
            f"{e['head']} {e['parameters']:,}"
            + "".join(f" ({k}={v})" for k, v in e["settings"].items())
            for e in entries
        )
        notes.append(
            f"{recipe}, encoder {encoder}: heads matched to {entries[0]['target']:,} trainable "
            f"parameters within 10 %: {each}"
        )
    return notes


def show(rows: Sequence[dict[str, Any]], baseline: str, console: Console) -> None:
    """The tables on a console."""
    for group in grouped(rows):
        table = Table(title=caption(group[0]), title_justify="left")
        for i, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in group:
            table.add_row(*cells_of(row, baseline))
        console.print(table)
    console.print(f"[dim]{' '.join(notes(rows, baseline))}[/dim]")


# ---- A comparison's rows as LaTeX: plain ``tabular``, no packages.

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
