"""Figures for TensorBoard and reports; each function returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .statistics.breakdown import Ranks
from .statistics.confidence import BINS, Coverage
from .statistics.table import PredictionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float, float | None, float | None]  # position, value, low, high


def confusion_figure(table: PredictionTable, title: str = "") -> Figure:
    """Draw a confusion matrix: shares of each reference class (rows), with counts in the cells."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    counts = table.confusion()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n = len(table.classes)
    figure = Figure(figsize=(1.8 + 0.55 * n, 1.4 + 0.5 * n), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), table.classes, rotation=45, ha="right")
    axes.set_yticks(range(n), table.classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("reference")
    axes.set_title(f"{title}\nUAR {table.uar():.3f}, n = {int(counts.sum())}".strip(), fontsize=10)
    for i in range(n):
        for j in range(n):
            if counts[i, j]:
                # not black, because a page may invert it: the cell is light in every theme
                colour = "white" if share[i, j] > 0.5 else "#111111"
                axes.text(
                    j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=colour
                )
    figure.colorbar(image, ax=axes, label="share of the reference class", shrink=0.8)
    return figure


def critical_difference_figure(ranks: Ranks, title: str = "") -> Figure:
    """Draw average ranks on a line, the best left; bars join heads without significant difference.

    After figure 1 of Demšar 2006. The critical difference is drawn above the line.
    """
    from matplotlib.figure import Figure

    k = len(ranks.heads)
    left = (k + 1) // 2  # the better half is named on the left
    bars = len(ranks.groups)
    depth = 0.5 + 0.3 * bars
    figure = Figure(figsize=(7, 1.5 + 0.25 * bars + 0.32 * left), layout="constrained")
    axes = figure.subplots()
    line, thin = "black", 0.8
    axes.plot([1, k], [0, 0], color=line, lw=thin)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.12], color=line, lw=thin)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8)
    width = min(ranks.critical, k - 1)
    cut = " (wider than the line)" if ranks.critical > k - 1 else ""
    axes.plot([1, 1 + width], [0.95, 0.95], color=line, lw=1.5, marker="|")
    axes.text(1, 1.05, f"critical difference {ranks.critical:.2f}{cut}", fontsize=8, va="bottom")
    for i, group in enumerate(ranks.groups):
        at = [ranks.ranks[ranks.heads.index(h)] for h in (group[0], group[-1])]
        y = -0.3 * (i + 1)
        axes.plot([at[0] - 0.03, at[1] + 0.03], [y, y], color="tab:blue", lw=4, gid=f"group {i}")
    edge = 0.08 * (k - 1)
    for i, (head, rank) in enumerate(zip(ranks.heads, ranks.ranks, strict=True)):
        on_left = i < left
        y = -depth - 0.4 * (i if on_left else k - 1 - i)
        x = 1 - edge if on_left else k + edge
        axes.plot([rank, rank, x], [0, y, y], color=line, lw=thin)
        label = f"{head}  {rank:.2f} " if on_left else f" {rank:.2f}  {head}"
        axes.text(x, y, label, ha="right" if on_left else "left", va="center", fontsize=9)
    axes.set_ylim(-depth - 0.4 * left, 1.5)
    axes.set_axis_off()
    note = f"{ranks.n_blocks} blocks; average rank, 1 is best"
    axes.set_title(f"{title}\n{note}".strip(), fontsize=10)
    return figure


def reliability_figure(
    tables: Mapping[str, tuple[PredictionTable, PredictionTable]], title: str = ""
) -> Figure:
    """Draw the share of right answers against confidence, before and after a temperature.

    There is one panel per head. A point is at a bin's mean confidence; its area is the share of
    utterances in the bin.
    """
    from matplotlib.figure import Figure

    columns = min(5, len(tables))
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(2.1 * columns + 0.4, 2.3 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(tables) :]:
        axes.set_axis_off()
    for axes, (head, pair) in zip(panels.flat, tables.items(), strict=False):
        axes.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
        looks = ("tab:orange", "before"), ("tab:blue", "after temperature")
        for table, (colour, label) in zip(pair, looks, strict=True):
            at, right, share = reliability_bins(table)
            axes.plot(at, right, color=colour, lw=1.2, label=label)
            axes.scatter(at, right, s=4 + 90 * share, color=colour, lw=0)
        axes.set_title(head, fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panels[0, 0].set_ylabel("share right", fontsize=9)
    panels[-1, 0].set_xlabel("confidence", fontsize=9)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
                  fontsize=8, frameon=False)  # fmt: skip
    figure.suptitle(title, fontsize=10)
    return figure


def reliability_bins(table: PredictionTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean confidence, share right and share of utterances of each non-empty bin."""
    known = table.labelled
    sure = table.probabilities()[known].max(1)
    right = table.predicted[known] == table.labels[known]
    index = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    n = np.bincount(index, minlength=BINS)
    full = n > 0
    mean = [np.bincount(index, weights=w, minlength=BINS)[full] / n[full] for w in (sure, right)]
    return mean[0], mean[1], n[full] / n.sum()


def risk_coverage_figure(curves: Mapping[str, Coverage], title: str = "") -> Figure:
    """Draw the share of wrong answers among the most confident utterances, against their share."""
    figure, axes = _panel(title)
    for i, (head, curve) in enumerate(curves.items()):
        label = f"{head} ({curve.aurc:.3f})"
        axes.plot(curve.coverage, curve.risk, **_look(i), lw=1.4, label=label)
    axes.set(xlabel="coverage: share answered", ylabel="risk: share wrong", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    _legend(figure, axes, "area under it")
    return figure


def difference_figure(
    rows: Mapping[str, Point], title: str, baseline: str, *, metric: str = "UAR"
) -> Figure:
    """Draw differences to the baseline with their intervals, one line each; zero is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", lw=0.8, ls=":")
    for i, (_, value, low, high) in enumerate(rows.values()):
        if low is not None and high is not None:
            axes.plot([low, high], [i, i], color="tab:blue", lw=2)
        axes.plot([value], [i], "o", color="tab:blue", ms=6)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{metric} minus {baseline}'s", fontsize=9)
    axes.set_title(title, fontsize=10)
    return figure


VERDICTS = {
    "better": ("tab:green", "^"),
    "worse": ("tab:red", "v"),
    "equivalent": ("tab:blue", "s"),
    "identical": ("tab:blue", "D"),
    "undecided": ("tab:gray", "o"),
}
"""Colour and mark of each verdict."""


def verdict_figure(
    tables: Mapping[str, Mapping[str, tuple[str, Point]]],
    baseline: str,
    *,
    margin: float,
    metric: str = "UAR",
) -> Figure:
    """Draw all differences to the baseline in one figure, with their verdicts.

    Args:
        tables: for each table, and each head of it, the verdict and the point; its second value is
            the difference.
        baseline: the head that others are compared to.
        margin: largest difference that counts as equivalent; it is drawn as a band.
        metric: name of what is compared.
    """
    from matplotlib.figure import Figure

    rows = sum(len(heads) for heads in tables.values())
    figure = Figure(figsize=(6.8, 1.2 + 0.24 * rows + 0.3 * len(tables)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-margin, margin, color="tab:blue", alpha=0.12, lw=0)
    axes.axvline(0, color="black", lw=0.8, ls=":")
    places: list[float] = []
    names: list[str] = []
    seen: dict[str, Any] = {}
    y = 0.0
    for title, heads in tables.items():
        axes.text(0.01, y, title, fontsize=9, weight="bold", transform=axes.get_yaxis_transform())
        for head, (verdict, (_, value, low, high)) in heads.items():
            y += 1
            colour, mark = VERDICTS[verdict]
            if low is not None and high is not None:
                axes.plot([low, high], [y, y], color=colour, lw=2)
            (seen[verdict],) = axes.plot([value], [y], mark, color=colour, ms=6, ls="none")
            places.append(y)
            names.append(head)
        y += 1.3
    axes.set_yticks(places, names, fontsize=9)
    axes.set_ylim(y - 0.6, -0.8)
    axes.set_xlabel(f"{metric} minus {baseline}'s; band: within {margin:g}", fontsize=9)
    shown = [v for v in VERDICTS if v in seen]
    figure.legend([seen[v] for v in shown], shown, loc="outside lower center", ncols=5,
                  fontsize=8, frameon=False)  # fmt: skip
    return figure


def cost_figure(
    panels: Mapping[str, Mapping[str, Point]], title: str = "", *, metric: str = "UAR"
) -> Figure:
    """Draw a metric with its interval against its costs, one panel per kind of cost.

    The axis of a cost is logarithmic if the highest cost is at least ten times the lowest.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(3.4 * len(panels) + 1.6, 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (cost, heads) in zip(grid, panels.items(), strict=True):
        for i, (head, (x, value, low, high)) in enumerate(heads.items()):
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=f"C{i % 10}", lw=1, alpha=0.6)
            axes.plot([x], [value], "os^D"[i // 10 % 4], color=f"C{i % 10}", label=head)
        at = [x for x, *_ in heads.values()]
        if max(at) >= 10 * min(at):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="x", nbins=4)
            axes.set_xlim(0, 1.08 * max(at))
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
        axes.set_xlabel(cost, fontsize=9)
    grid[0].set_ylabel(metric, fontsize=9)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center", fontsize=8,
                  frameon=False)  # fmt: skip
    figure.suptitle(title, fontsize=10)
    return figure


def curve_figure(
    curves: Mapping[str, Sequence[Point]], across: str, title: str = "", *, metric: str = "UAR"
) -> Figure:
    """Draw a metric by an amount (shots, share of the labels), with a band for the interval.

    If the amounts span a factor of eight or more, the axis has equal steps for each doubling. Zero
    is then drawn before the smallest amount.
    """
    figure, axes = _panel(title)
    amounts = sorted({p[0] for points in curves.values() for p in points})
    least = min((x for x in amounts if x > 0), default=1.0)
    if amounts[-1] >= 8 * least:
        axes.set_xscale("symlog", base=2, linthresh=least, linscale=0.5)
    axes.set_xticks(amounts, [f"{x:g}" for x in amounts])
    axes.minorticks_off()
    for i, (head, points) in enumerate(curves.items()):
        x, value, low, high = zip(*sorted(points), strict=True)
        axes.plot(x, value, **_look(i), marker="o", lw=1.4, ms=4, label=head)
        known = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if None not in (b, c)]
        if known:
            at, bottom, top = zip(*known, strict=True)
            axes.fill_between(at, bottom, top, color=f"C{i % 10}", alpha=0.15, lw=0)
    axes.set(xlabel=across, ylabel=metric)
    _legend(figure, axes)
    return figure


def heat_figure(
    values: np.ndarray,
    down: Sequence[str],
    across: Sequence[str],
    title: str,
    names: tuple[str, str],
    *,
    metric: str = "UAR",
) -> Figure:
    """Draw ``[R, C]`` values of 0 to 1 as a map; NaN stays empty.

    Args:
        values: the values.
        down: names of the R rows.
        across: names of the C columns.
        title: title of the figure.
        names: names of the vertical and the horizontal axis.
        metric: name of the values.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 + 0.85 * len(across), 1.5 + 0.5 * len(down)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(across)), across, rotation=30, ha="right", fontsize=9)
    axes.set_yticks(range(len(down)), down, fontsize=9)
    axes.set(ylabel=names[0], xlabel=names[1])
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 0.5 else "#111111"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label=metric, shrink=0.9)
    return figure


def _panel(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    return figure, axes


def _look(i: int) -> dict[str, Any]:
    """Return colour and line style of head i; after the ten colours, the line style differs."""
    return {"color": f"C{i % 10}", "ls": ("-", "--", ":", "-.")[i // 10 % 4]}


def _legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """Draw the legend: inside the axes for few heads, otherwise beside them.

    It has no frame, because a frame would have the colour of one theme.
    """
    lines, names = axes.get_legend_handles_labels()
    if len(names) <= 6:
        axes.legend(fontsize=8, frameon=False, title=title, title_fontsize=8)
        return
    figure.set_figwidth(7.4)
    figure.legend(lines, names, loc="outside right center", fontsize=8, frameon=False, title=title)
