"""What an adaptation shows in TensorBoard: the tags of a run, and a row that says of what kind.

Nothing validates, so there are no curves but the loss of each step; and no points in the projector,
since a suite has hundreds of adaptations of one query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..statistics.metrics import PredictionTable
from . import show, written
from .columns import COLUMNS, EVENTS


def write(
    folder: Path,
    cfg: RunConfig,
    entry: Mapping[str, Any],
    table: PredictionTable,
    losses: Sequence[float],
) -> None:
    """Everything that is shown of an adaptation, in place of what an earlier attempt showed.

    Args:
        folder: of its record.
        cfg: the run that it became.
        entry: its record.
        table: predictions of its query.
        losses: of each step.
    """
    from torch.utils.tensorboard import SummaryWriter

    for earlier in folder.glob(EVENTS):
        if not earlier.name.endswith(COLUMNS):  # which a suite has declared
            earlier.unlink()
    writer: Any = SummaryWriter(str(folder))
    writer.add_custom_scalars(show.LAYOUT)
    for step, loss in enumerate(losses, 1):
        writer.add_scalar("train/loss", loss, step)
    step = entry["steps"]
    for name in ("uar", "wa", "f1"):
        writer.add_scalar(f"test/{name}", entry["metrics"][name], step)
    show.numbers(writer, cfg, entry, table, step, f"{cfg.called}, {entry['condition']}")
    written.show(writer, "test", table, step)
    writer.close()
