"""Figures for TensorBoard and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .metrics import PredictionTable
from .ranks import Ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_figure(table: PredictionTable, title: str = "") -> Figure:
    """Confusion matrix in shares of each reference class (rows), counts written in the cells."""
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
                colour = "white" if share[i, j] > 0.5 else "black"
                axes.text(
                    j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=colour
                )
    figure.colorbar(image, ax=axes, label="share of the reference class", shrink=0.8)
    return figure


def critical_difference_figure(ranks: Ranks, title: str = "") -> Figure:
    """Average ranks on a line, the best left; bars join heads that are not told apart.

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
