"""The HPARAMS tab of TensorBoard: a row for each run, and columns that fit all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import record
from ..config import RunConfig

EVENTS = "events.out.tfevents.*"
COLUMNS = ".columns"  # how the name of the file that declares them ends
ADAPTED = ("shots", "draw", "tuning")  # what an adaptation is, in its record and in its row
FIRST = ("encoder", "fold", "head", "recipe", "seed", *ADAPTED)  # what tells cells from each other
SHOWN = 5  # columns that the tab shows before it is asked for more
NUMBERS = {
    "uar": "test UAR",
    "wa": "test WA",
    "f1": "test macro-F1",
    "nll": "test NLL",
    "val_uar": "validation UAR",
    "ece": "test ECE",
}


def write(experiment: Any, cfg: RunConfig, entry: Mapping[str, Any], step: int) -> None:
    """The configuration and the final numbers, as a row of the HPARAMS tab.

    The tab's columns are not declared here: TensorBoard would take those of one run for all, and
    knobs of other heads would not be seen (:func:`declare`).
    """
    from torch.utils.tensorboard import summary

    m = entry["metrics"]
    numbers = {key: m[key] for key in NUMBERS if key in m}
    numbers["val_uar"] = entry["selection"]["val/uar"]
    metrics = {f"hp/{key}": value for key, value in numbers.items() if value is not None}
    for tag, value in metrics.items():
        experiment.add_scalar(tag, value, step)
    point = entry.get("axes", {}) | {key: entry[key] for key in ADAPTED if key in entry}
    values = row_of(cfg, point) | {
        "trainable": entry["parameters"]["trainable"],
        "fit_seconds": entry["seconds"]["fit"],
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
    first = first[: max(SHOWN, differing)]
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
