"""What a run shows in TensorBoard, under the same tags for every head.

Curves are logged by :mod:`.module` while it trains. Here is what is written once, when a run has
ended (only the layout of the curves comes before): HPARAMS, figures, precision against recall,
embeddings of the test part, and the errors that it was surest of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from .. import registry
from ..config import RunConfig
from ..reporting.plots import confusion_figure, reliability_figure
from ..statistics.metrics import PredictionTable
from ..types import SAMPLE_RATE, Frames
from . import columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOAD_WAVE = "serzoo.datamodules.encoding:load_wave"
POINTS = (
    500  # test utterances in the projector at most: every k-th by id, so the same for all heads
)
WIDTH = 32  # numbers of each, the leading principal components: what keeps a cell's file small
ERRORS = 20  # rows of the table of errors
CLIP = 5.0  # seconds of an error's audio at most

LAYOUT = {
    "heads compared": {
        "validation UAR": ["Multiline", ["val/uar$"]],
        "training loss": ["Multiline", ["train/loss$"]],
        "validation NLL": ["Multiline", ["val/nll$"]],
        "validation macro-F1": ["Multiline", ["val/f1$"]],
        "test UAR": ["Multiline", ["test/uar$"]],
    },
    "how they train": {
        "learning rate": ["Multiline", ["lr$"]],
        "utterances per second": ["Multiline", ["time/utt_per_s$"]],
        "what single heads log": ["Multiline", ["head/.*"]],
        "weights of the encoder's layers": ["Multiline", ["encoder/.*"]],
    },
}
"""Of the custom scalars tab: one chart, all runs in it. TensorBoard joins equal layouts of runs."""


class Board(Callback):
    """Writes the layout at the start, and keeps the mean frame of each test utterance.

    Attributes:
        pooled: id to ``[D]``, of at most :data:`POINTS` utterances of this process' share.
    """

    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self.pooled: dict[str, np.ndarray] = {}
        self._frames: Frames | None = None
        self._hook: Any = None

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        experiment = experiment_of(trainer)
        if experiment is not None:
            experiment.add_custom_scalars(LAYOUT)

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        encoder: Any = module.encoder
        data: Any = getattr(trainer, "datamodule", None)
        names = sorted(u.id for u in data.datasets["test"].utterances) if data else []
        self.wanted = set(names[:: max(1, -(-len(names) // POINTS))])
        self._hook = encoder.register_forward_hook(self._keep)

    def _keep(self, encoder: Any, inputs: Any, frames: Frames) -> None:
        self._frames = frames

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._frames is not None:
            means = self._frames.mean().detach().cpu().numpy()
            found = zip(batch.ids, means, strict=True)
            self.pooled |= {name: mean for name, mean in found if name in self.wanted}
        self._frames = None

    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._hook.remove()


def experiment_of(trainer: L.Trainer) -> Any:
    """TensorBoard's writer; None on other ranks, and for other loggers."""
    found: Any = getattr(trainer.logger, "experiment", None)
    return found if trainer.is_global_zero and hasattr(found, "add_custom_scalars") else None


def write(
    trainer: L.Trainer, module: Any, cfg: RunConfig, entry: Mapping[str, Any], data: Any
) -> None:
    """Everything that is shown of a run that has ended.

    Args:
        trainer: whose callbacks hold a :class:`Board`.
        module: with its table of the test part.
        cfg: the run.
        entry: its record.
        data: with the test part's utterances, for audio.
    """
    experiment, table = experiment_of(trainer), module.tables["test"]
    if experiment is None:
        return
    step = int(trainer.global_step)
    known = numbers(experiment, cfg, entry, table, step, f"{cfg.called}, fold {cfg.fold}")
    for board in (c for c in trainer.callbacks if isinstance(c, Board)):  # type: ignore[attr-defined]
        project(experiment, table, board.pooled)
    if cfg.trainer.board_audio:
        play_errors(experiment, known, data, cfg.trainer.board_audio, step)
    trainer.logger.save()  # type: ignore[union-attr]
    trainer.logger.finalize("success")  # type: ignore[union-attr]


def numbers(
    experiment: Any,
    cfg: RunConfig,
    entry: Mapping[str, Any],
    table: PredictionTable,
    step: int,
    title: str,
) -> PredictionTable:
    """HPARAMS, figures, precision against recall, and errors: what needs only the predictions.

    Returns:
        The part of the table that is labelled.
    """
    columns.write(experiment, cfg, entry, step)
    experiment.add_figure("test/confusion", confusion_figure(table, title), step)
    calm = replace(table, scores=table.scores / entry["metrics"]["temperature"])
    experiment.add_figure("test/reliability", reliability_figure({cfg.called: (table, calm)}), step)
    if entry["layer_weights"]:
        figure = bars_figure(entry["layer_weights"], "weight", title)
        experiment.add_figure("encoder/layers", figure, step)
    known = table.subset(np.flatnonzero(table.labelled))
    probabilities = known.probabilities()
    for i, name in enumerate(table.classes):
        experiment.add_pr_curve(f"pr/{name}", known.labels == i, probabilities[:, i], step)
    show_errors(experiment, known, step)
    return known


def bars_figure(values: Mapping[str, float], what: str, title: str = "") -> Figure:
    """One bar for each name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.32 * len(values), 2.6), layout="constrained")
    axes = figure.subplots()
    names = [name.rpartition("/")[2] for name in values]
    axes.bar(range(len(values)), list(values.values()), color="tab:blue")
    axes.set_xticks(range(len(values)), names, rotation=90 if len(values) > 6 else 0, fontsize=8)
    axes.set_ylabel(what)
    axes.set_title(title, fontsize=10)
    return figure


def project(experiment: Any, table: PredictionTable, pooled: Mapping[str, np.ndarray]) -> None:
    """The test part's mean frames in the projector: label, prediction, speaker and id of each."""
    rows = [i for i, name in enumerate(table.ids) if name in pooled]
    rows = [i for i in rows if np.isfinite(pooled[table.ids[i]]).all()]
    if len(rows) < 2:
        return
    x = components(np.stack([pooled[table.ids[i]] for i in rows]))
    header = ["label", "predicted", "right", "speaker", "id"]
    facts = []
    for i in rows:
        label = table.classes[table.labels[i]] if table.labels[i] >= 0 else "(none)"
        said = table.classes[table.predicted[i]]
        cells = (label, said, "yes" if said == label else "no", table.speakers[i], table.ids[i])
        facts.append([" ".join(cell.split()) for cell in cells])
    experiment.add_embedding(x, metadata=facts, metadata_header=header, tag="test/frames")


def components(x: np.ndarray) -> np.ndarray:
    """``[N, D]`` to at most :data:`WIDTH` principal components, to four digits."""
    x = x.astype(np.float64)
    if x.shape[1] > WIDTH:
        x = x - x.mean(0)
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        x = u[:, :WIDTH] * s[:WIDTH]
    short = [[float(f"{v:.4g}") for v in row] for row in x.tolist()]
    return np.array(short, dtype=np.float32)


def surest_errors(table: PredictionTable, n: int) -> list[int]:
    """Rows of the wrong answers, the surest first; of equals, the first by position."""
    sure = table.probabilities().max(1)
    wrong = np.flatnonzero(table.labelled & (table.predicted != table.labels))
    return [int(i) for i in wrong[np.argsort(-sure[wrong], kind="stable")][:n]]


def show_errors(experiment: Any, table: PredictionTable, step: int) -> None:
    """A table of them, as ``errors/surest`` in the text tab."""
    lines = ["| | label | predicted | probability | speaker | utterance |", "|---" * 6 + "|"]
    sure = table.probabilities().max(1)
    for number, i in enumerate(surest_errors(table, ERRORS), 1):
        label, said = table.classes[table.labels[i]], table.classes[table.predicted[i]]
        cells = (str(number), label, said, f"{sure[i]:.3f}", table.speakers[i], table.ids[i])
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    experiment.add_text("errors/surest", "\n".join(lines), step)


def play_errors(experiment: Any, table: PredictionTable, data: Any, n: int, step: int) -> None:
    """Audio of the first ``n`` of them, as ``errors/<number>``: copies of the corpus' speech."""
    load_wave = registry.attribute(LOAD_WAVE)
    dataset = data.datasets["test"]
    known = {u.id: u for u in dataset.utterances}
    for number, i in enumerate(surest_errors(table, n), 1):
        wave = load_wave(known[table.ids[i]], dataset.roots, CLIP)
        experiment.add_audio(f"errors/{number}", wave[None], step, sample_rate=SAMPLE_RATE)
