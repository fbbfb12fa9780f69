"""How a comparison's rows are shown: on a console and as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def wide_console() -> Console:
    """A console whose tables are not broken where output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


COLUMNS = (
    "head",
    "UAR",
    "95 % interval",
    "difference",
    "WA",
    "macro-F1",
    "s / fit",
    "ms / utt",
    "trainable",
)


def cells_of(row: dict[str, Any], baseline: str) -> list[str]:
    """A row's texts, in the order of :data:`COLUMNS`."""

    def spread(v: dict[str, Any]) -> str:
        return f"{v['mean']:.3f} ± {v['sd']:.3f}" if v["n"] >= 3 else f"{v['mean']:.3f}"

    low, high = row["interval"]
    diff = row["difference"]
    return [
        row["head"],
        spread(row["uar"]),
        f"{low:.3f} to {high:.3f}",
        f"{diff['value']:+.3f} ({diff['low']:+.3f} to {diff['high']:+.3f})"
        if diff
        else ("baseline" if row["head"] == baseline else ""),
        spread(row["wa"]),
        spread(row["f1"]),
        f"{row['seconds']:.0f}" if row["seconds"] >= 10 else f"{row['seconds']:.1f}",
        f"{row['inference_ms']:.1f}",
        f"{row['trainable']:,}",
    ]


def caption(row: dict[str, Any]) -> str:
    """What the numbers of a table stand on."""
    text = (
        f"{row['recipe']}, encoder {row['encoder']}: {row['utterances']} test utterances of "
        f"{row['speakers']} speakers, {row['folds']} folds, "
        f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}"
    )
    if row["partial"]:
        text += f"; {row['partial']} folds of seeds left out, not finished by every head"
    return text


def _tables(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["recipe"], row["encoder"]].append(row)
    return groups


NOTES = (
    "UAR: mean recall over classes, all folds' test utterances pooled; mean ± standard deviation "
    "over seeds (from 3 seeds on). Interval: bootstrap over speakers. Difference: UAR minus "
    "{baseline}'s on the same utterances, with its interval."
)


def markdown(rows: Sequence[dict[str, Any]], baseline: str) -> str:
    """The tables as Markdown."""
    text = ""
    for group in _tables(rows).values():
        text += f"**{caption(group[0])}**\n\n"
        text += "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS) + "\n"
        for row in group:
            text += "| " + " | ".join(cells_of(row, baseline)) + " |\n"
        text += "\n"
    return text + NOTES.format(baseline=baseline) + "\n"


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
    for group in _tables(rows).values():
        table = Table(title=caption(group[0]), title_justify="left")
        for i, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in group:
            table.add_row(*cells_of(row, baseline))
        console.print(table)
    console.print(f"[dim]{NOTES.format(baseline=baseline)}[/dim]")
