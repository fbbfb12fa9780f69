"""The rows of a comparison as tables: on a console, as Markdown, as LaTeX."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ..core.errors import counted
from ..core.table import (
    UNKNOWN,
    Cell,
    Table,
    cell,
    number_cell,
    p_text,
    plain,
    seconds_text,
    span,
    span_cell,
    spread,
)

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


def cells_of(row: dict[str, Any], baseline: str) -> list[Cell]:
    """A row's cells, in the order of :data:`COLUMNS`."""
    diff = row["difference"]
    said = "baseline" if row["head"] == baseline else ""
    change = [number_cell(said, None), number_cell("", None), number_cell("", None)]
    if diff:
        p = f"{p_text(diff['p'])} ({p_text(diff['p_holm'])})"
        change = [number_cell(_difference(diff), diff["value"]), number_cell(p, diff["p"])]
        change.append(cell(diff["detectable"]))
    return [
        Cell(row["head"]),
        number_cell(spread(row["uar"]), row["uar"]["mean"]),
        span_cell(*row["interval"]),
        *change,
        number_cell(spread(row["wa"]), row["wa"]["mean"]),
        number_cell(spread(row["f1"]), row["f1"]["mean"]),
        number_cell(seconds_text(row["seconds"]), row["seconds"]),
        cell(row["inference_ms"], ".1f"),
        number_cell(plain(row["trainable"], ","), row["trainable"]),
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


def tables(rows: Sequence[dict[str, Any]], baseline: str) -> list[Table]:
    """A table for each corpus and encoder."""
    return [
        Table(
            caption(group[0]),
            COLUMNS,
            [cells_of(row, baseline) for row in group],
            [f"{remark}." for remark in remarks(group)],
        )
        for group in grouped(rows)
    ]


def name_of(group: Sequence[dict[str, Any]]) -> str:
    """Recipe and encoder of the rows of one table."""
    return f"{group[0]['recipe']}, {group[0]['encoder']}"


def recalls(group: Sequence[dict[str, Any]]) -> Table:
    """Recall of every class, of the rows of one table."""
    classes = list(group[0]["recalls"])
    body = [[r["head"], *(cell(r["recalls"].get(c), ".2f") for c in classes)] for r in group]
    return Table(f"Recall by class, folds pooled: {name_of(group)}", ("head", *classes), body)


def by_fold(group: Sequence[dict[str, Any]]) -> Table:
    """UAR of every fold, of the rows of one table."""
    folds = list(group[0]["by_fold"])
    body = [[r["head"], *(cell(r["by_fold"].get(f)) for f in folds)] for r in group]
    columns = ("head", *(f"fold {f}" for f in folds))
    return Table(f"UAR by fold, seeds averaged: {name_of(group)}", columns, body)


def markdown(rows: Sequence[dict[str, Any]], baseline: str) -> str:
    """The tables as Markdown."""
    text = "".join(f"{table.markdown()}\n" for table in tables(rows, baseline))
    return text + " ".join(notes(rows, baseline)) + "\n"


def remarks(group: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be known of a table's differences: why one has no p, or none that could be low."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in group:
        if row["difference"] and row["difference"]["note"]:
            found[row["difference"]["note"]].append(row["head"])
    return [f"{', '.join(heads)}: {note}" for note, heads in found.items()]


def source_notes(pretraining: dict[str, Any] | None) -> list[str]:
    """What each pre-training is, by what ``suite.json`` holds; nothing if there is none."""
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
    for table in tables(rows, baseline):
        console.print(table.rich())
    console.print(" ".join(notes(rows, baseline)), style="dim", markup=False, highlight=False)


def latex(rows: Sequence[dict[str, Any]], baseline: str) -> str:
    """A LaTeX ``table`` for each corpus and encoder; how numbers were computed is a comment."""
    text = "% made by serzoo report; needs no package, set in \\footnotesize\n"
    for table in tables(rows, baseline):
        # a column of a paper is narrow: the other forms have the times of a machine
        text += table.without("s / fit", "ms / utt").latex() + "\n"
    return text + f"% {' '.join(notes(rows, baseline))}\n"
