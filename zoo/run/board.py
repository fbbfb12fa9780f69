"""What a run shows in TensorBoard, under the same tags for every head.

Curves are logged by :mod:`.module` while it trains. Here is what is written once, when a run has
ended (only the layout of the curves comes before): HPARAMS, figures, precision against recall,
embeddings of the test part, and the errors that it was surest of.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from ...datamodules.features import load_wave
from ..core.errors import ConfigError
from ..core.head import Head
from ..core.table import Line, Table, cell
from ..core.taxonomy import Taxonomy
from ..core.types import SAMPLE_RATE, Frames
from ..plots import confusion_figure, reliability_figure
from ..statistics.table import PredictionTable
from . import record
from .config import RunConfig
from .record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The HPARAMS tab of TensorBoard: one row for each run.

EVENTS = "events.out.tfevents.*"
COLUMNS = ".columns"  # how the name of the file that declares them ends
ADAPTED = ("shots", "draw", "tuning")  # what an adaptation is, in its record and in its row
FIRST = ("encoder", "fold", "head", "recipe", "seed", *ADAPTED)  # what tells cells from each other
COLUMNS_SHOWN = 5  # columns that the tab shows before it is asked for more
NUMBERS = {
    "uar": "test UAR",
    "wa": "test WA",
    "f1": "test macro-F1",
    "nll": "test NLL",
    "val_uar": "validation UAR",
    "ece": "test ECE",
}


def write_row(experiment: Any, cfg: RunConfig, entry: Record, step: int) -> None:
    """The configuration and the final numbers, as a row of the HPARAMS tab.

    The tab's columns are not declared here: TensorBoard would take those of one run for all, and
    knobs of other heads would not be seen (:func:`declare`).
    """
    from torch.utils.tensorboard import summary

    m = entry.metrics
    numbers = {key: m[key] for key in NUMBERS if key in m}
    numbers["val_uar"] = entry.selection["val/uar"]
    metrics = {f"hp/{key}": value for key, value in numbers.items() if value is not None}
    for tag, value in metrics.items():
        experiment.add_scalar(tag, value, step)
    point = entry.axes | entry.pick(ADAPTED)
    values = row_of(cfg, point) | {
        "trainable": (entry.parameters or {})["trainable"],
        "fit_seconds": entry.seconds["fit"],
    }
    summaries: Any = summary.hparams  # which torch has not typed
    _, start, end = summaries(values, metrics)
    writer = experiment._get_file_writer()
    writer.add_summary(start)
    writer.add_summary(end)


def row_of(cfg: RunConfig, point: Mapping[str, Any]) -> dict[str, str | float]:
    """Name to text or number of all that decides a run's numbers, and what it is called.

    Args:
        cfg: the run.
        point: values of a suite's free axes, and of :data:`ADAPTED`.
    """
    values = {"recipe": Path(cfg.recipe).stem, "head": cfg.called, "encoder": cfg.encoder["type"]}
    values |= {k if k in ADAPTED else f"axis {k}": value for k, value in point.items()}
    flat = record.flatten(cfg.identity) | record.flatten(values)
    if "draw" in point:
        del flat["seed"]  # the draw is it
    return {k: str(v).lower() if isinstance(v, bool) else v for k, v in flat.items()}


def declare(folder: Path, cells: Mapping[str, tuple[RunConfig, Mapping[str, Any]]]) -> None:
    """The columns of a suite's HPARAMS tab, for all its cells at once.

    What tells cells from each other comes first, then the knobs. They are declared by the first
    cell, in a file of its own: TensorBoard takes the first declaration that it finds.

    Args:
        folder: of the cells.
        cells: name to the run and its point, as for :func:`row_of`.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard import SummaryWriter

    rows = [row_of(cfg, point) for cfg, point in cells.values()]
    known: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            known.setdefault(key, []).append(value)
    first = [key for key in known if key.startswith("axis ") or key in FIRST]
    first.sort(key=lambda key: (len(set(known[key])) == 1, key))  # those that differ
    differing = sum(len(set(known[key])) > 1 for key in first)
    first = first[: max(COLUMNS_SHOWN, differing)]
    infos = []
    for key, values in {**known, "trainable": [0.0], "fit_seconds": [0.0]}.items():
        text = any(isinstance(v, str) for v in values)
        kind = api_pb2.DATA_TYPE_STRING if text else api_pb2.DATA_TYPE_FLOAT64
        info = api_pb2.HParamInfo(name=key, type=kind)
        info.differs = key in first  # by which TensorBoard sorts
        infos.append(info)
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"hp/{key}"), display_name=shown)
        for key, shown in NUMBERS.items()
    ]
    for earlier in folder.glob(f"*/{EVENTS}{COLUMNS}"):
        earlier.unlink()
    writer: Any = SummaryWriter(str(folder / next(iter(cells))), filename_suffix=COLUMNS)
    found = HParamsPluginData(
        experiment=api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    )
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, tensor=metadata.NULL_TENSOR)
    value.metadata.CopyFrom(metadata.create_summary_metadata(found))
    writer._get_file_writer().add_summary(Summary(value=[value]))
    writer.close()


# Texts that heads write, and the share of them that names no class.

TEXTS_SHOWN = 50
"""Utterances whose text is shown, the same in every epoch: the first by id."""


def unparsable(head: Head, table: PredictionTable, taxonomy: Taxonomy) -> dict[str, float]:
    """``{"unparsable": share}`` of texts that name no class; nothing if there are none."""
    if not table.texts:
        return {}
    lost = sum(head.class_written(text, taxonomy) is None for text in table.texts)
    return {"unparsable": lost / len(table.texts)}


def show_texts(experiment: Any, part: str, table: PredictionTable, step: int) -> None:
    """Texts beside labels and predictions, as ``<part>/written`` in TensorBoard's text tab.

    Args:
        experiment: TensorBoard's writer; anything that takes no text is left alone.
        part: ``val`` or ``test``.
        table: of predictions; one without texts is not shown.
        step: where on the time axis.
    """
    if not table.texts or not hasattr(experiment, "add_text"):
        return
    rows = []
    for i in range(min(TEXTS_SHOWN, len(table))):
        label = table.classes[table.labels[i]] if table.labels[i] >= 0 else ""
        cells = (table.ids[i], label, table.classes[table.predicted[i]], table.texts[i])
        rows.append([" ".join(c.split()) for c in cells])
    shown = Table("", ("utterance", "label", "predicted", "written"), rows)
    experiment.add_text(f"{part}/written", shown.markdown(), step)


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
"""Layout of the custom scalars tab: one chart with all runs. TensorBoard joins equal layouts."""


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


def write(trainer: L.Trainer, module: Any, cfg: RunConfig, entry: Record, data: Any) -> None:
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
    entry: Record,
    table: PredictionTable,
    step: int,
    title: str,
) -> PredictionTable:
    """HPARAMS, figures, precision against recall, and errors: what needs only the predictions.

    Returns:
        The part of the table that is labelled.
    """
    write_row(experiment, cfg, entry, step)
    experiment.add_figure("test/confusion", confusion_figure(table, title), step)
    calm = replace(table, scores=table.scores / entry.metrics["temperature"])
    experiment.add_figure("test/reliability", reliability_figure({cfg.called: (table, calm)}), step)
    if entry.layer_weights:
        figure = bars_figure(entry.layer_weights, "weight", title)
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
    rows: list[Line] = []
    sure = table.probabilities().max(1)
    for number, i in enumerate(surest_errors(table, ERRORS), 1):
        label, said = table.classes[table.labels[i]], table.classes[table.predicted[i]]
        who = table.speakers[i], table.ids[i]
        rows.append([cell(number, "d"), label, said, cell(sure[i]), *who])
    columns = ("", "label", "predicted", "probability", "speaker", "utterance")
    experiment.add_text("errors/surest", Table("", columns, rows).markdown(), step)


def play_errors(experiment: Any, table: PredictionTable, data: Any, n: int, step: int) -> None:
    """Audio of the first ``n`` of them, as ``errors/<number>``: copies of the corpus' speech."""
    dataset = data.datasets["test"]
    known = {u.id: u for u in dataset.utterances}
    for number, i in enumerate(surest_errors(table, n), 1):
        wave = load_wave(known[table.ids[i]], dataset.roots, CLIP)
        experiment.add_audio(f"errors/{number}", wave[None], step, sample_rate=SAMPLE_RATE)


# What TensorBoard shows of an adaptation.
#
# Nothing validates, so there are no curves but the loss of each step; and no points in the
# projector, since a suite has hundreds of adaptations of one query.


def write_adapted(
    folder: Path,
    cfg: RunConfig,
    entry: Record,
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
    writer.add_custom_scalars(LAYOUT)
    for step, loss in enumerate(losses, 1):
        writer.add_scalar("train/loss", loss, step)
    step = int(entry.steps or 0)
    for name in ("uar", "wa", "f1"):
        writer.add_scalar(f"test/{name}", entry.metrics[name], step)
    numbers(writer, cfg, entry, table, step, f"{cfg.called}, {entry.condition}")
    show_texts(writer, "test", table, step)
    writer.close()


# The command `serzoo tensorboard`.


def folder_of(what: str, out: str = "runs") -> Path:
    """The folder whose runs are to be compared.

    A suite's cells, without the trials of its search; else the folder as it is given.

    Args:
        what: a suite that was run (its name, or its file), or a folder.
        out: folder of all runs.

    Raises:
        ConfigError: if there is none, or nothing in it that TensorBoard could show.
    """
    path = Path(what)
    tried = (
        [Path(out) / path.stem] if path.suffix in (".yaml", ".yml") else [Path(out) / what, path]
    )
    found = next((p for p in tried if p.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"no folder {' or '.join(map(str, tried))}; run `serzoo compare {what}` first, or give "
            "a folder of runs"
        )
    if (found / "cells").is_dir():
        found /= "cells"
    if next(found.rglob(EVENTS), None) is None:
        raise ConfigError(
            f"{found} holds no event files ({EVENTS}); they are written once the first epoch of a "
            "run has ended"
        )
    return found


def serve(
    what: str, *, out: str = "runs", host: str = "localhost", port: int = 6006, wait: bool = True
) -> str:
    """Start TensorBoard, and stay until Ctrl-C or SIGTERM.

    Args:
        what: a suite that was run, or a folder.
        out: folder of all runs.
        host: address to serve on.
        port: 0 = any that is free.
        wait: False = return while it serves in a thread.

    Returns:
        Its address.

    Raises:
        ConfigError: for a folder without runs, or a port that is taken.
    """
    from tensorboard import program

    folder = folder_of(what, out)
    board = program.TensorBoard()
    title = f"serzoo: {folder.parent.name if folder.name == 'cells' else folder.name}"
    options: dict[str, Any] = {"logdir": str(folder), "host": host, "port": port}
    board.configure(**options, window_title=title, reload_interval=15)
    try:
        url = str(board.launch())
    except program.TensorBoardServerException as error:
        raise ConfigError(
            f"TensorBoard cannot serve on {host}, port {port}: {error}; choose another --port "
            "(0 = any that is free)"
        ) from error
    print(f"TensorBoard of {folder}: {url} (Ctrl-C ends it)", flush=True)
    if wait:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        ended.wait()
    return url
