"""One figure and one table of all formulations: in domain, on other corpora, and with few labels.

    python benchmarks/formulations.py       # from benchmarks/results: the suites on Whisper
    python benchmarks/formulations.py head_to_head_whisper cross_corpus_whisper few_shot_whisper

It reads the packed suites, so every point has its records. Points are means over seeds, and lines
are 95 % intervals to new speakers. Of few shots, points are means over draws, and lines are one
standard deviation. The figure is written to ``docs/results/formulations.svg``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serzoo.zoo.core.errors import DataError, SerzooError
from serzoo.zoo.core.files import new_file
from serzoo.zoo.core.table import Table, cell
from serzoo.zoo.report.overview import Adapted, points
from serzoo.zoo.report.runs import find_cells
from serzoo.zoo.report.summary import Result, summarise
from serzoo.zoo.run.record import read_plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "results" / "formulations.svg"
SUITES = ("head_to_head_whisper", "cross_corpus_whisper", "few_shot_whisper")
SHOWN = ("classification", "linear_svm", "selm", "gen_ser", "gen_ser_target_only", "prototype")
"""Heads of the figure, in their order; controls are left to the tables."""


def rows(folder: Path) -> list[Result]:
    """Return the rows of the figure's heads in a suite.

    Raises:
        DataError: if the folder holds no finished cells.
    """
    if not (folder / "suite.json").is_file():
        raise DataError(f"{folder} holds no comparison; pack one with publish.py pack FOLDER")
    found = summarise(find_cells(folder).runs, read_plan(folder).baseline)
    return [row for row in found if row.head in SHOWN]


def adapted(folder: Path) -> list[Adapted]:
    """Return the points of a suite's heads where nothing or only the head was tuned."""
    found = points(folder, read_plan(folder).cells)
    return [p for p in found if p.head in SHOWN and p.tuning in ("none", "head")]


def short(name: str) -> str:
    """Return the name of a table as the figure shows it: a corpus, or a pair of corpora."""
    return name.rpartition(", ")[2]


def table(home: Sequence[Result], away: Sequence[Result], few: Sequence[Adapted]) -> Table:
    """Return a line for each head: mean UAR in domain, on other corpora and by shots, and costs.

    A mean is over the corpora, or pairs of corpora, and only if the head has all of them.
    """
    shots = sorted({p.shots for p in few})
    heads = [h for h in SHOWN if any(r.head == h for r in home)]

    def mean(found: Sequence[Result], head: str) -> float | None:
        mine = [r for r in found if r.head == head]
        whole = len({r.recipe for r in found})
        return statistics.fmean(r.uar.mean for r in mine) if found and len(mine) == whole else None

    body = []
    for head in heads:
        mine = [r for r in home if r.head == head]
        at = {p.shots: p.value for p in few if p.head == head}
        seconds = [r.processor_seconds for r in mine if r.processor_seconds is not None]
        body.append(
            [
                head,
                cell(mean(home, head), ".3f"),
                cell(mean(away, head), ".3f"),
                *(cell(at.get(k), ".3f") for k in shots),
                cell(max((r.trainable or 0) for r in mine), ",d"),
                cell(statistics.fmean(seconds) if seconds else None, ".1f"),
            ]
        )
    corpora, pairs = ({r.recipe for r in found} for found in (home, away))
    columns = (
        "head",
        f"in domain, {len(corpora)} corpora",
        f"other corpora, {len(pairs)} pairs",
        *(f"{k} shots" for k in shots),
        "trained weights, at most",
        "processor s / fit",
    )
    return Table("UAR of each formulation on the same frozen frames", columns, body)


def figure(home: Sequence[Result], away: Sequence[Result], few: Sequence[Adapted]) -> Figure:
    """Draw three panels: in domain, on other corpora, and by shots of each class."""
    from matplotlib.figure import Figure

    heads = [h for h in SHOWN if any(r.head == h for r in home)]
    drawn = Figure(figsize=(12, 4.2), layout="constrained")
    axes = drawn.subplots(1, 3, width_ratios=[3, 5, 3])
    _dots(axes[0], home, heads, "tested on speakers never heard")
    _dots(axes[1], away, heads, "trained on one corpus, tested on another")
    _curves(axes[2], few, heads)
    axes[0].set_ylabel("UAR")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(heads),
                 fontsize=8, frameon=False)  # fmt: skip
    return drawn


def _dots(axes: Axes, found: Sequence[Result], heads: Sequence[str], title: str) -> None:
    names = list(dict.fromkeys(short(r.recipe) for r in found))
    for i, head in enumerate(heads):
        shift = (i - (len(heads) - 1) / 2) * 0.11
        label: str | None = head
        for row in (r for r in found if r.head == head):
            x, (low, high) = names.index(short(row.recipe)) + shift, row.interval
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=f"C{i}", lw=1.2, alpha=0.6)
            axes.plot([x], [row.uar.mean], "o", ms=4, color=f"C{i}", label=label)
            label = None
    turned = len(names) > 4
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=20 if turned else 0,
                    ha="right" if turned else "center")  # fmt: skip
    axes.set_title(title, fontsize=9)
    axes.grid(axis="y", lw=0.4, alpha=0.5)


def _curves(axes: Axes, few: Sequence[Adapted], heads: Sequence[str]) -> None:
    shots = sorted({p.shots for p in few})
    for i, head in enumerate(heads):
        mine = sorted((p for p in few if p.head == head), key=lambda p: p.shots)
        if mine:
            x = [shots.index(p.shots) + (i - 2) * 0.04 for p in mine]
            spread = [p.deviation or 0.0 for p in mine]
            axes.errorbar(x, [p.value for p in mine], spread, color=f"C{i}", fmt="o-", ms=4, lw=1)
    axes.set_xticks(range(len(shots)), [str(k) for k in shots], fontsize=8)
    axes.set_xlabel("utterances of each emotion of the new corpus", fontsize=8)
    axes.set_title("its head adapted to another corpus", fontsize=9)
    axes.grid(axis="y", lw=0.4, alpha=0.5)


def main(arguments: Sequence[str] | None = None, folder: Path = RESULTS) -> Mapping[str, int]:
    """Write the figure and print the table; return how many points each panel has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, given in zip(("home", "away", "few"), SUITES, strict=True):
        parser.add_argument(name, nargs="?", default=given, help=f"suite (default: {given})")
    parser.add_argument("--out", type=Path, default=PICTURE, help="file of the figure")
    asked = parser.parse_args(arguments)
    home, away = rows(folder / asked.home), rows(folder / asked.away)
    few = adapted(folder / asked.few)
    with new_file(asked.out) as draft:
        figure(home, away, few).savefig(draft, format="svg", metadata={"Date": None})
    print(table(home, away, few).markdown())
    return {"home": len(home), "away": len(away), "few": len(few)}


if __name__ == "__main__":
    try:
        main()
    except SerzooError as error:
        sys.exit(f"formulations.py: {error}")
