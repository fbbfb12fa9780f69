"""What ``serzoo label audit`` says: verdicts in words; tables, printed and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...zoo.reporting.tables import p_text, plain, span
from .wording import LEVEL, Control

CARRY = {
    "none": "the words of {} carry no emotion: weak labels from text can only reflect words, and "
    "are useless here",
    "little": "the words of {} carry next to no emotion: weak labels from text can only reflect "
    "words, and are of little use here",
    "some": "the words of {} tell something of its emotions: weak labels from text can be of use",
}
FUNCTIONS = {
    "sentences": "which sentence it is, learned on other speakers",
    "words": "its words, learned on other speakers (naive Bayes)",
    "scorer": "the scorer",
}
WIDE = 0.1
"""Above chance: of an upper end of an interval, what is said not to be excluded."""


@dataclass(frozen=True)
class Grid:
    """A table: what it shows, its columns, its rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def words(name: str, found: Control) -> str:
    """The verdict, and the numbers that it stands on."""
    best, r = max(found.reached.items(), key=lambda item: item[1].uar)
    wide = r.high == r.high and r.high - found.chance > WIDE and found.verdict != "some"
    return (
        f"{CARRY[found.verdict].format(name)} ({found.utterances} utterances say "
        f"{found.sentences} distinct sentences, {found.shared:.0%} of them under several labels; "
        f"{found.bits['value']:.3f} bits of mutual information, {found.bits['shuffled']:.3f} with "
        f"labels shuffled; the best from text alone is {FUNCTIONS[best]}: UAR {r.uar:.3f} "
        f"({_span(r.low, r.high)}), chance {found.chance:.3f}, p {p_text(r.corrected)}"
        + (f"; with so few, up to {r.high:.3f} is not excluded)" if wide else ")")
    )


def unlike_chance(name: str, selected: Mapping[str, Any]) -> list[str]:
    """A warning, where weak labels are no better than ones dealt out anew."""
    if not selected["n"]:
        return [f"none of the utterances of {name} that people labelled has a weak label"]
    if selected["p"] < LEVEL:
        return []
    return [
        f"the weak labels of {name} are no better than chance: UAR {selected['uar']['value']:.3f}, "
        f"{selected['shuffled']:.3f} against shuffled labels, p {p_text(selected['p'])}"
    ]


def grids(found: Mapping[str, Any]) -> Iterator[Grid]:
    """The tables of one corpus of a record."""
    text = found["text"]
    rows = [
        [
            FUNCTIONS[k] if k != "scorer" else f"{FUNCTIONS[k]} {found['scorer']}",
            _number(r["uar"]), span(r["low"], r["high"]), _number(r["shuffled"]),
            p_text(r["p"]), p_text(r["corrected"]), str(r["says"]),
        ]
        for k, r in text["reached"].items()
    ]  # fmt: skip
    yield Grid(
        f"{found['name']}: what text alone tells of {found['column']} "
        f"({len(text['classes'])} classes, chance {text['chance']:.3f}; {text['protocol']})",
        (
            "a function of the text",
            "UAR",
            "95 % interval",
            "shuffled",
            "p",
            "p (Holm)",
            "classes said",
        ),
        rows,
    )
    rows = [
        [what, _number(v["value"]), _number(v["shuffled"]), p_text(v["p"])]
        for what, v in (
            ("mutual information, bits", text["bits"]),
            ("greatest UAR of any function", text["ceiling"]),
        )
    ]
    yield Grid(
        f"{found['name']}: {text['sentences']} distinct sentences in {text['utterances']} "
        f"utterances of {text['speakers']} speakers",
        ("sentence and label", "found", "shuffled", "p"),
        rows,
    )
    if found["labels"] is not None:
        yield from _labels(found["name"], found["labels"])


def _labels(name: str, found: Mapping[str, Any]) -> Iterator[Grid]:
    classes, selected = found["classes"], found["selected"]
    lines = [("as selected", selected)]
    steps = [s for s in found["sweep"] if s["n"]]
    lines += [  # the last threshold of those that let the same through
        (f"score of {s['threshold']:g} and more", s)
        for s, after in zip(steps, [*steps[1:], None], strict=True)
        if after is None or after["n"] != s["n"]
    ]
    yield Grid(
        f"{name}: weak labels of {found['source']} against {found['utterances']} by people"
        + (f"; p {p_text(selected['p'])} against shuffled ones" if selected["n"] else ""),
        ("labels", "n", "coverage", "accuracy", "95 % interval", "UAR", "95 % interval", "chance"),
        [
            [what, str(s["n"]), f"{s['coverage']:.1%}", *_score(s, "wa"), *_score(s, "uar"),
             plain(s.get("chance"), ".3f")]
            for what, s in lines
        ],
    )  # fmt: skip
    yield Grid(
        f"{name}: people's labels (rows) and the selected weak ones",
        ("", *classes, "none"),
        [
            [c, *map(str, row), str(selected["unlabelled"][c])]
            for c, row in zip(classes, selected["confusion"], strict=True)
        ],
    )
    honest = found["reliability"]
    if honest["bins"]:
        yield Grid(
            f"{name}: is a score what it says? Calibration error {honest['error']:.3f}",
            ("score", "n", "mean score", "accuracy"),
            [
                [f"{b['low']:.1f} to {b['high']:.1f}", str(b["n"]), _number(b["score"]),
                 _number(b["accuracy"])]
                for b in honest["bins"]
            ],
        )  # fmt: skip
    if found["soft"] is not None:
        soft = found["soft"]
        yield Grid(
            f"{name}: soft labels of {soft['n']} utterances, untempered",
            ("ECE", "classwise ECE", "Brier", "NLL", "AURC", "excess AURC"),
            [[_number(soft[k]) for k in
              ("ece", "classwise_ece", "brier", "nll", "aurc", "excess_aurc")]],
        )  # fmt: skip


def show(record: Mapping[str, Any], console: Console) -> None:
    """Print a record: tables, notes, verdicts, and what is to be warned of last."""
    for found in record["corpora"]:
        for grid in grids(found):
            console.print(grid.title, highlight=False, markup=False, soft_wrap=True)
            table = Table()
            for i, column in enumerate(grid.columns):
                table.add_column(column, justify="left" if i == 0 else "right")
            for row in grid.rows:
                table.add_row(*map(escape, row))
            console.print(table)
        for note in found["notes"]:
            console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
        if found["verdict"] not in found["warnings"]:
            console.print(found["verdict"], highlight=False, markup=False, soft_wrap=True)
        for warning in found["warnings"]:
            console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)


def markdown(record: Mapping[str, Any]) -> str:
    """The same as a page."""
    lines = [f"# Audit of the labels of {record['source']}"]
    for found in record["corpora"]:
        lines += ["", f"## {found['name']}", ""]
        plain_ = [] if found["verdict"] in found["warnings"] else [found["verdict"]]
        lines += [f"- {line}" for line in plain_]
        lines += [f"- **warning:** {line}" for line in found["warnings"]]
        lines += [f"- {line}" for line in found["notes"]]
        for grid in grids(found):
            lines += ["", grid.title, "", _row(grid.columns)]
            lines += [_row(["---", *["--:"] * (len(grid.columns) - 1)]), *map(_row, grid.rows)]
    lines += [
        "",
        f"Intervals are over speakers. Shuffled: people's labels, within each speaker, "
        f"{record['draws']} times (seed {record['seed']}), and learned anew; p is one-sided.",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _score(found: Mapping[str, Any], name: str) -> list[str]:
    if name not in found:
        return [plain(None, ""), plain(None, "")]
    return [_number(found[name]["value"]), span(found[name]["low"], found[name]["high"])]


def _number(value: float) -> str:
    return f"{value:.3f}"


def _span(low: float, high: float) -> str:
    return span(low, high) if low == low else span(None, None)
