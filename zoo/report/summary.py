"""The numbers of a comparison: one row per corpus, encoder and head, from predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.errors import ComparisonError
from ..statistics.rates import METRICS
from ..statistics.speakers import Interval, interval_of, mean_sd, tested
from .answers import NAMES, Asked, number, to_baseline
from .grids import Grid, grids
from .runs import Run


def summarise(runs: Sequence[Run], asked: Asked | str = "classification") -> list[dict[str, Any]]:
    """Return a row for each corpus, encoder and head; out of domain for each pair of corpora.

    If no fold and seed of a corpus and encoder is finished by every head, it has no row.
    ``partial`` counts what was left out for that reason. How each number is computed is in
    :data:`.table.NOTES`.

    Args:
        runs: finished cells.
        asked: what the suite asks, or the name of its baseline.

    Raises:
        ComparisonError: if cells are not comparable, or two are the same head, fold and seed.
    """
    made, refused = grids(runs)
    for reason in refused.values():
        if reason.startswith("refusing"):
            raise ComparisonError(reason)
    return rows_of(made, Asked(asked) if isinstance(asked, str) else asked)


def rows_of(made: Sequence[Grid], asked: Asked) -> list[dict[str, Any]]:
    """Return the rows of all tables, each with its difference to the baseline of its table."""
    found = to_baseline(made, asked)
    return [
        _row(grid, head, asked) | {"difference": found.get((grid.recipe, grid.encoder, head))}
        for grid in made
        for head in grid.runs
    ]


def _row(grid: Grid, head: str, asked: Asked) -> dict[str, Any]:
    runs, table = grid.runs[head], grid.pooled[head]
    totals = grid.totals(head)
    interval = _interval(grid, head, asked.metric)
    parameters = runs[0].record.parameters or {}
    utterances = len(table) // len(grid.seeds)  # each seed tests the same
    values = {m: mean_sd(METRICS[m](totals).tolist())._asdict() for m in NAMES}
    score = METRICS[asked.metric]
    return {
        "recipe": grid.recipe,
        "encoder": grid.encoder,
        "head": head,
        "folds": len(grid.folds),
        "seeds": len(grid.seeds),
        "speakers": tested(table).n,
        "clusters": len(grid.clusters.names),
        "cluster": grid.clusters.kind,
        "remarks": grid.remarks,
        "why": grid.clusters.why,
        "without_speaker": table.speakers.count("") // len(grid.seeds),
        "unsure": sorted({u for r in runs for u in r.record.unsure}),
        "utterances": utterances,
        "metric": asked.metric,
        "score": values[asked.metric],
        "interval": [number(interval.low), number(interval.high)],
        "uar": values["uar"],
        "wa": values["wa"],
        "f1": values["macro_f1"],
        "top2": table.top(2) if len(table.classes) > 2 else None,
        "absent": table.metrics()["absent"],
        "recalls": table.recalls(),
        "by_fold": {
            f: float(np.mean([score(r.table.confusion()) for r in runs if r.fold == f]))
            for f in grid.folds
        },
        "seconds": _mean([r.record.seconds.get("fit") for r in runs]),
        "processor_seconds": _mean([r.record.processor_seconds.get("fit") for r in runs]),
        "training_flops": _mean([r.record.flops.get("training") for r in runs]),
        "scoring_flops": _mean([r.record.flops.get("scoring") for r in runs]),
        "inference_ms": _mean([r.record.inference_seconds_per_utterance for r in runs], 1000.0),
        "memory_mb": _mean([r.record.peak_memory_mb for r in runs]),
        "trainable": parameters.get("trainable"),
        "head_parameters": parameters.get("head"),
        "head_trainable": parameters.get("head_trainable"),
        "partial": grid.partial,
        "certificate": grid.certificate["hash"],
    }


def _interval(grid: Grid, head: str, metric: str) -> Interval:
    """Return the jackknife interval of a head over clusters, with its seeds pooled."""
    cells, rest = grid.cells(head).sum(0), grid.unknown(head).sum(0)
    return interval_of(cells, METRICS[metric], 0.95, grid.clusters.why, rest)


def _mean(values: Sequence[float | None], scale: float = 1.0) -> float | None:
    """Mean of the recorded values; None if none was recorded."""
    known = [v for v in values if v is not None]
    return scale * float(np.mean(known)) if known else None
