"""The numbers of a comparison: one row per corpus, encoder and head, from predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import ComparisonError
from ..core.taxonomy import Taxonomy
from ..statistics.rates import METRICS
from ..statistics.speakers import Interval, MeanSD, interval_of, mean_sd, tested
from .answers import NAMES, Asked, Difference, number, to_baseline
from .grids import Grid, grids, info_of
from .runs import Run


@dataclass(frozen=True)
class Human:
    """How well listeners recognise the classes of a table.

    Attributes:
        uar: mean over classes of the share of listeners who recognised it; None if unknown.
        wa: mean of that share over recordings; None if unknown.
        source: where this is from.
    """

    uar: float | None
    wa: float | None
    source: str


@dataclass(frozen=True)
class Result:
    """The numbers of a head in one table; None for a number that does not exist.

    How each is computed is in :data:`.table.NOTES`.

    Attributes:
        recipe: name of the table's recipe.
        encoder: name of the encoder.
        head: name of the head.
        folds: number of folds.
        seeds: number of seeds.
        speakers: number of tested speakers.
        clusters: number of clusters of the labelled utterances.
        cluster: what a cluster is, such as ``speaker``.
        remarks: notes on the interval.
        why: why there is no interval, or "".
        without_speaker: number of test utterances whose speaker is unknown.
        unsure: what the audits of the splits could not check.
        dependent: number of tested speakers of whom the model of their fold was trained.
        utterances: number of test utterances.
        metric: the suite's metric: ``uar``, ``wa`` or ``macro_f1``.
        score: that metric over seeds.
        interval: bounds of its 95 % interval.
        uar: mean recall over classes, over seeds.
        wa: accuracy, over seeds.
        f1: macro-F1, over seeds.
        top2: share of utterances whose label is among the two highest scores.
        absent: classes that no test utterance has.
        recalls: recall by class.
        by_fold: the suite's metric by fold, as the mean over seeds.
        seconds: mean seconds of a fit.
        processor_seconds: the same, on all cores.
        training_flops: operations of a fit.
        scoring_flops: operations of scoring a second of speech.
        inference_ms: milliseconds of scoring an utterance.
        memory_mb: peak memory, in MiB.
        trainable: number of trained parameters.
        head_parameters: number of the head's parameters.
        head_trainable: number of those that are trained.
        partial: how many folds of seeds are left out, because a head has not finished them.
        certificate: hash of the data of the table.
        human: how well listeners recognise the classes of the table; None if it is not known.
        difference: the difference to the baseline of the table; None for the baseline.
    """

    recipe: str
    encoder: str
    head: str
    folds: int
    seeds: int
    speakers: int
    clusters: int
    cluster: str
    remarks: list[str]
    why: str
    without_speaker: int
    unsure: list[str]
    dependent: int
    utterances: int
    metric: str
    score: MeanSD
    interval: tuple[float | None, float | None]
    uar: MeanSD
    wa: MeanSD
    f1: MeanSD
    top2: float | None
    absent: list[str]
    recalls: dict[str, float]
    by_fold: dict[int, float]
    seconds: float | None
    processor_seconds: float | None
    training_flops: float | None
    scoring_flops: float | None
    inference_ms: float | None
    memory_mb: float | None
    trainable: int | None
    head_parameters: int | None
    head_trainable: int | None
    partial: int
    certificate: str
    human: Human | None
    difference: Difference | None


def summarise(runs: Sequence[Run], asked: Asked | str = "classification") -> list[Result]:
    """Return a row for each corpus, encoder and head; out of domain for each pair of corpora.

    If no fold and seed of a corpus and encoder is finished by every head, it has no row.

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


def rows_of(made: Sequence[Grid], asked: Asked) -> list[Result]:
    """Return the rows of all tables, each with its difference to the baseline of its table."""
    found = to_baseline(made, asked)
    return [
        _row(grid, head, asked, found.get((grid.recipe, grid.encoder, head)))
        for grid in made
        for head in grid.runs
    ]


def _row(grid: Grid, head: str, asked: Asked, difference: Difference | None) -> Result:
    runs, table = grid.runs[head], grid.pooled[head]
    totals = grid.totals(head)
    interval = _interval(grid, head, asked.metric)
    parameters = runs[0].record.parameters or {}
    utterances = len(table) // len(grid.seeds)  # each seed tests the same
    values = {m: mean_sd(METRICS[m](totals).tolist()) for m in NAMES}
    score = METRICS[asked.metric]
    return Result(
        recipe=grid.recipe,
        encoder=grid.encoder,
        head=head,
        folds=len(grid.folds),
        seeds=len(grid.seeds),
        speakers=tested(table).n,
        clusters=len(grid.clusters.names),
        cluster=grid.clusters.kind,
        remarks=grid.remarks,
        why=grid.clusters.why,
        without_speaker=table.speakers.count("") // len(grid.seeds),
        unsure=sorted({u for r in runs for u in r.record.unsure}),
        dependent=len({s for r in runs for s in _dependent(r)}),
        utterances=utterances,
        metric=asked.metric,
        score=values[asked.metric],
        interval=(number(interval.low), number(interval.high)),
        uar=values["uar"],
        wa=values["wa"],
        f1=values["macro_f1"],
        top2=table.top(2) if len(table.classes) > 2 else None,
        absent=table.metrics()["absent"],
        recalls=table.recalls(),
        by_fold={
            f: float(np.mean([score(r.table.confusion()) for r in runs if r.fold == f]))
            for f in grid.folds
        },
        seconds=_mean([r.record.seconds.get("fit") for r in runs]),
        processor_seconds=_mean([r.record.processor_seconds.get("fit") for r in runs]),
        training_flops=_mean([r.record.flops.get("training") for r in runs]),
        scoring_flops=_mean([r.record.flops.get("scoring") for r in runs]),
        inference_ms=_mean([r.record.inference_seconds_per_utterance for r in runs], 1000.0),
        memory_mb=_mean([r.record.peak_memory_mb for r in runs]),
        trainable=parameters.get("trainable"),
        head_parameters=parameters.get("head"),
        head_trainable=parameters.get("head_trainable"),
        partial=grid.partial,
        certificate=grid.certificate["hash"],
        human=human_of(grid),
        difference=difference,
    )


def human_of(grid: Grid) -> Human | None:
    """Return how well listeners recognise what a table tests; None if nobody has published it.

    It is known for one corpus, clean, in all classes of its own taxonomy.
    """
    run = next(iter(grid.runs.values()))[0]
    info = info_of(grid.corpora[0]) if len(grid.corpora) == 1 else None
    heard_clean = not run.record.condition or run.record.kind == "adaptation"
    if info is None or info.listeners is None or info.taxonomy is None or not heard_clean:
        return None
    if run.record.config.get("data", {}).get("label", "label") not in (None, "label"):
        return None
    table, said = grid.pooled[run.head], info.listeners
    if set(table.classes) != set(Taxonomy.load(info.taxonomy).classes):
        return None
    if not said.votes:
        return Human(said.uar, said.wa, f"{said.source}; of the whole corpus")
    if table.votes is None:
        return None
    known = table.labelled & (table.votes.sum(1) > 0)
    votes, labels = table.votes[known], table.labels[known]
    if not len(labels):
        return None
    right = votes[np.arange(len(labels)), labels] / votes.sum(1)
    means = [float(right[labels == c].mean()) for c in np.unique(labels)]
    return Human(float(np.mean(means)), float(right.mean()), said.source)


def _dependent(run: Run) -> set[str]:
    """Return the tested speakers whom the model heard in training or validation."""
    parts = run.record.speakers
    heard = {s for part in ("train", "valid") for s in parts.get(part, ())}
    return {s for s in heard & set(parts.get("test", ())) if not s.endswith("/")}


def _interval(grid: Grid, head: str, metric: str) -> Interval:
    """Return the jackknife interval of a head over clusters, with its seeds pooled."""
    cells, rest = grid.cells(head).sum(0), grid.unknown(head).sum(0)
    return interval_of(cells, METRICS[metric], 0.95, grid.clusters.why, rest)


def _mean(values: Sequence[float | None], scale: float = 1.0) -> float | None:
    """Mean of the recorded values; None if none was recorded."""
    known = [v for v in values if v is not None]
    return scale * float(np.mean(known)) if known else None
