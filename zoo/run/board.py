"""TensorBoard: writes the results of a finished run, with the same tags for every head.

:mod:`.module` logs the curves while it trains. Before training, this module writes the layout of
the curves. When a run has ended, it writes HPARAMS, figures, precision against recall,
test embeddings, and the most confident errors.
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
from .record import Record
from .schema import RunConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The HPARAMS tab of TensorBoard: one row for each run.

EVENTS = "events.out.tfevents.*"
COLUMNS = ".columns"  # ending of the file that declares the columns
ADAPTED = ("shots", "draw", "tuning")  # keys of an adaptation, in its record and in its row
FIRST = ("encoder", "fold", "head", "recipe", "seed", *ADAPTED)  # keys in which cells may differ
COLUMNS_SHOWN = 5  # columns that the tab shows at first
NUMBERS = {
    "uar": "test UAR",
    "wa": "test WA",
    "f1": "test macro-F1",
    "nll": "test NLL",
    "val_uar": "validation UAR",
    "ece": "test ECE",
}


def write_row(experiment: Any, cfg: RunConfig, entry: Record, step: int) -> None:
    """Write the configuration and the final numbers, as a row of the HPARAMS tab.

    It does not declare the columns. TensorBoard would use those of one run for all runs, and keys
    of other heads would be missing (see :func:`declare`).
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
    summaries: Any = summary.hparams  # torch has no types for it
    _, start, end = summaries(values, metrics)
    writer = experiment._get_file_writer()
    writer.add_summary(start)
    writer.add_summary(end)


def row_of(cfg: RunConfig, point: Mapping[str, Any]) -> dict[str, str | float]:
    """Return the names of a run and all keys that decide its numbers, each as text or number.

    Args:
        cfg: the run.
        point: values of a suite's free axes, and of :data:`ADAPTED`.
    """
    values = {"recipe": Path(cfg.recipe).stem, "head": cfg.called, "encoder": cfg.encoder["type"]}
    values |= {k if k in ADAPTED else f"axis {k}": value for k, value in point.items()}
    flat = record.flatten(cfg.identity) | record.flatten(values)
    if "draw" in point:
        del flat["seed"]  # it equals the draw
    return {k: str(v).lower() if isinstance(v, bool) else v for k, v in flat.items()}


def declare(folder: Path, cells: Mapping[str, tuple[RunConfig, Mapping[str, Any]]]) -> None:
    """Declare the columns of a suite's HPARAMS tab, for all its cells at once.

    Keys in which cells may differ come first, then all others. The declaration is in a file of the
    first cell, since TensorBoard takes the first one that it finds.

    Args:
        folder: folder of the cells.
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
    first.sort(key=lambda key: (len(set(known[key])) == 1, key))  # keys that differ come first
    differing = sum(len(set(known[key])) > 1 for key in first)
    first = first[: max(COLUMNS_SHOWN, differing)]
    infos = []
    # not summary_v2.hparams_config_pb of TensorBoard: it cannot set ``differs``
    for key, values in {**known, "trainable": [0.0], "fit_seconds": [0.0]}.items():
        text = any(isinstance(v, str) for v in values)
        kind = api_pb2.DATA_TYPE_STRING if text else api_pb2.DATA_TYPE_FLOAT64
        info = api_pb2.HParamInfo(name=key, type=kind)
        info.differs = key in first  # TensorBoard sorts by it
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
"""Number of utterances whose texts are shown: the first ones by id, the same in every epoch."""


def unparsable(head: Head, table: PredictionTable, taxonomy: Taxonomy) -> dict[str, float]:
    """Return ``{"unparsable": share}``, the share of texts that name no class; {} without texts."""
    if not table.texts:
        return {}
    lost = sum(head.class_written(text, taxonomy) is None for text in table.texts)
    return {"unparsable": lost / len(table.texts)}


def show_texts(experiment: Any, part: str, table: PredictionTable, step: int) -> None:
    """Show texts beside labels and predictions, as ``<part>/written`` in the text tab.

    Args:
        experiment: TensorBoard's writer; with another logger, nothing is shown.
        part: ``val`` or ``test``.
        table: predictions; without texts, nothing is shown.
        step: position on the time axis.
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


POINTS = 500  # most test utterances in the projector: every k-th by id, the same for all heads
WIDTH = 32  # principal components of each, which keeps the files of cells small
ERRORS = 20  # rows of the table of errors
CLIP = 5.0  # most seconds of an error's audio

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
        "curves of single heads": ["Multiline", ["head/.*"]],
        "weights of the encoder's layers": ["Multiline", ["encoder/.*"]],
    },
}
"""Layout of the custom scalars tab: one chart with all runs. TensorBoard joins equal layouts."""


class Board(Callback):
    """Write the layout at the start, and keep the mean frames of test utterances.

    Attributes:
        pooled: id to mean frame ``[D]``, for those of :data:`POINTS` utterances that this process
            scored.
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
    """Return TensorBoard's writer; None on other ranks, and with other loggers."""
    found: Any = getattr(trainer.logger, "experiment", None)
    return found if trainer.is_global_zero and hasattr(found, "add_custom_scalars") else None


def write(trainer: L.Trainer, module: Any, cfg: RunConfig, entry: Record, data: Any) -> None:
    """Write everything that TensorBoard shows of a finished run.

    Args:
        trainer: one of its callbacks is a :class:`Board`.
        module: holds the table of the test part.
        cfg: the run.
        entry: its record.
        data: its data module, for audio of the test part.
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
    """Write all that needs only the predictions: HPARAMS, figures, PR curves and errors.

    Returns:
        The labelled rows of the table.
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
    """Return a figure with one bar for each name."""
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
    """Write mean frames into the projector, each with label, prediction, speaker and id."""
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
    """Reduce ``[N, D]`` to at most :data:`WIDTH` principal components, with four digits."""
    x = x.astype(np.float64)
    if x.shape[1] > WIDTH:
        x = x - x.mean(0)
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        x = u[:, :WIDTH] * s[:WIDTH]
    short = [[float(f"{v:.4g}") for v in row] for row in x.tolist()]
    return np.array(short, dtype=np.float32)


def surest_errors(table: PredictionTable, n: int) -> list[int]:
    """Return the rows of at most ``n`` wrong answers, the most confident first."""
    sure = table.probabilities().max(1)
    wrong = np.flatnonzero(table.labelled & (table.predicted != table.labels))
    return [int(i) for i in wrong[np.argsort(-sure[wrong], kind="stable")][:n]]


def show_errors(experiment: Any, table: PredictionTable, step: int) -> None:
    """Write a table of the most confident errors, as ``errors/surest`` in the text tab."""
    rows: list[Line] = []
    sure = table.probabilities().max(1)
    for number, i in enumerate(surest_errors(table, ERRORS), 1):
        label, said = table.classes[table.labels[i]], table.classes[table.predicted[i]]
        who = table.speakers[i], table.ids[i]
        rows.append([cell(number, "d"), label, said, cell(sure[i]), *who])
    columns = ("", "label", "predicted", "probability", "speaker", "utterance")
    experiment.add_text("errors/surest", Table("", columns, rows).markdown(), step)


def play_errors(experiment: Any, table: PredictionTable, data: Any, n: int, step: int) -> None:
    """Copy audio of the ``n`` most confident errors, as ``errors/<number>``."""
    dataset = data.datasets["test"]
    known = {u.id: u for u in dataset.utterances}
    for number, i in enumerate(surest_errors(table, n), 1):
        wave = load_wave(known[table.ids[i]], dataset.roots, CLIP)
        experiment.add_audio(f"errors/{number}", wave[None], step, sample_rate=SAMPLE_RATE)


# An adaptation has no validation, so its only curve is the loss. It has no points in the projector,
# since a suite has hundreds of adaptations with the same query.


def write_adapted(
    folder: Path,
    cfg: RunConfig,
    entry: Record,
    table: PredictionTable,
    losses: Sequence[float],
) -> None:
    """Write everything that TensorBoard shows of an adaptation, and remove earlier attempts.

    Args:
        folder: folder of its record.
        cfg: its configuration.
        entry: its record.
        table: predictions on its query.
        losses: the loss of each step.
    """
    from torch.utils.tensorboard import SummaryWriter

    for earlier in folder.glob(EVENTS):
        if not earlier.name.endswith(COLUMNS):  # columns belong to the whole suite
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
    """Return the folder that TensorBoard shows.

    For a suite, it is the folder of the cells, without the trials of a search.

    Args:
        what: a suite that was run (its name or file), or a folder.
        out: folder of all runs.

    Raises:
        ConfigError: if there is no such folder, or it has nothing to show.
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
            f"{found} holds no event files ({EVENTS}); a run writes them when its first epoch has "
            "ended: wait for it, or give another folder"
        )
    return found


def serve(
    what: str, *, out: str = "runs", host: str = "localhost", port: int = 6006, wait: bool = True
) -> str:
    """Start TensorBoard, and wait until Ctrl-C or SIGTERM.

    Args:
        what: a suite that was run, or a folder.
        out: folder of all runs.
        host: address that it listens on.
        port: number of the port; 0 = any free one.
        wait: False = return while it serves in a thread.

    Returns:
        The address, as a URL.

    Raises:
        ConfigError: if the folder has no runs, the port is taken, or the host is none.
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
            "(0 = any free one)"
        ) from error
    except SystemExit as error:  # its web server ends the process for an address that is none
        raise ConfigError(
            f"TensorBoard cannot serve on {host}: this is no address of this machine; choose "
            "another --host, such as localhost"
        ) from error
    print(f"TensorBoard of {folder}: {url} (Ctrl-C ends it)", flush=True)
    if wait:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        ended.wait()
    return url
