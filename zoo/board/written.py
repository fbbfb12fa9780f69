"""What heads write freely: how much of it names no class, and where it can be read."""

from __future__ import annotations

from typing import Any

from ..head import Head
from ..statistics.metrics import PredictionTable
from ..taxonomy import Taxonomy

SHOWN = 50
"""Utterances whose text is shown, the same in every epoch: the first by id."""


def unparsable(head: Head, table: PredictionTable, taxonomy: Taxonomy) -> dict[str, float]:
    """``{"unparsable": share}`` of texts that name no class; nothing where there are none."""
    if not table.texts:
        return {}
    lost = sum(head.class_written(text, taxonomy) is None for text in table.texts)
    return {"unparsable": lost / len(table.texts)}


def show(experiment: Any, part: str, table: PredictionTable, step: int) -> None:
    """Texts beside labels and predictions, as ``<part>/written`` in TensorBoard's text tab.

    Args:
        experiment: TensorBoard's writer; anything that takes no text is left alone.
        part: ``val`` or ``test``.
        table: of predictions; one without texts is not shown.
        step: where on the time axis.
    """
    if not table.texts or not hasattr(experiment, "add_text"):
        return
    lines = ["| utterance | label | predicted | written |", "|---|---|---|---|"]
    for i in range(min(SHOWN, len(table))):
        label = table.classes[table.labels[i]] if table.labels[i] >= 0 else ""
        cells = (table.ids[i], label, table.classes[table.predicted[i]], table.texts[i])
        lines.append("| " + " | ".join(_cell(c) for c in cells) + " |")
    experiment.add_text(f"{part}/written", "\n".join(lines), step)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
