"""Figures for TensorBoard and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .metrics import PredictionTable

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
