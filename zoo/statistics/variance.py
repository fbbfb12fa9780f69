"""What a number varies with: seeds, folds, and the speakers that were tested."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import NamedTuple

import numpy as np

from ..errors import ComparisonError, DataError
from .clusters import Metric, by_speaker, check_same, labelled_speakers, left_out, metric_of
from .metrics import PredictionTable
from .rates import FloatArray


class Components(NamedTuple):
    """Variances of a seeds-by-folds table of values; NaN where there is one seed or one fold.

    Estimates without bias, so that one near zero may come out negative.

    Attributes:
        seeds: between seeds, alike in every fold.
        folds: between folds, alike for every seed.
        residual: of a seed in a fold beyond both.
    """

    seeds: float
    folds: float
    residual: float


class Variance(NamedTuple):
    """Where the variance of one run's metric (one seed, one fold) comes from.

    Attributes:
        mean: over seeds and folds.
        seeds: variance between seeds, alike in every fold.
        folds: variance between folds, alike for every seed.
        residual: variance of a seed in a fold beyond both.
        speakers: the part of ``folds`` that is due to who is tested; the rest is due to who was
            trained on. NaN where no fold tests two speakers, or not all of them are known.
        n_seeds: seeds.
        n_folds: folds.
        n_speakers: known speakers tested, over all folds.
        note: what could not be told apart, or "".
    """

    mean: float
    seeds: float
    folds: float
    residual: float
    speakers: float
    n_seeds: int
    n_folds: int
    n_speakers: int
    note: str

    def shares(self) -> dict[str, float]:
        """Shares of what is known, negative estimates as 0; ``speakers`` lies within ``folds``.

        NaN where a variance is not known, or there is none at all.
        """
        parts = {k: _known(getattr(self, k)) for k in ("seeds", "folds", "residual")}
        total = float(np.nansum(list(parts.values())))
        if not total > 0:
            return dict.fromkeys([*parts, "speakers"], nan)
        within = _known(self.speakers)
        parts["speakers"] = min(within, parts["folds"]) if within == within else nan
        return {k: v / total for k, v in parts.items()}


def _known(variance: float) -> float:
    """A negative estimate as 0; NaN as it is."""
    return variance if variance != variance else max(0.0, variance)


def crossed_components(values: FloatArray) -> Components:
    """Split ``[S, F]`` values of S seeds in F folds, both taken as random draws.

    Two-way crossed random effects without replication, by equating mean squares to what they
    expect (the ANOVA estimator; Searle, Casella & McCulloch 1992, chapter 4). With one seed (or
    one fold) only the sum of folds (seeds) and residual is known, and is given as folds (seeds).

    Raises:
        DataError: a value is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise DataError(
            f"{(~np.isfinite(x)).sum()} of {x.size} values are not finite; finish those cells, or "
            "leave their seed out in all folds"
        )
    s, f = x.shape
    if s < 2 or f < 2:
        alone = float(x.var(ddof=1)) if x.size > 1 else nan
        return Components(alone if f < 2 else nan, alone if s < 2 else nan, nan)
    row, column = x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    rest = float(((x - row - column + x.mean()) ** 2).sum() / ((s - 1) * (f - 1)))
    return Components(float(row.var(ddof=1)) - rest / f, float(column.var(ddof=1)) - rest / s, rest)


def variance_split(
    tables: Mapping[tuple[int, int], PredictionTable], metric: Metric = "uar"
) -> Variance:
    """Split the variance of a head's metric over ``(fold, seed)``.

    Seeds and folds by :func:`crossed_components`. Speakers by leaving each out of its fold: the
    jackknife's covariance of two seeds' values, averaged over pairs of seeds and over folds, is
    the variance due to the speakers alone (what a seed makes of a speaker cancels; our choice).
    With one seed it is the jackknife variance, which holds that too.

    Raises:
        ComparisonError: a fold lacks a seed that another has, or tests other utterances by seed.
        DataError: a class is absent in a fold and the metric is a mean over classes, or nothing
            is labelled.
    """
    if not tables:
        raise DataError(
            "there are no tables to split the variance of; give one for each fold and each seed"
        )
    folds, seeds = sorted({f for f, _ in tables}), sorted({s for _, s in tables})
    if missing := [(f, s) for f in folds for s in seeds if (f, s) not in tables]:
        raise ComparisonError(
            f"fold {missing[0][0]} has no seed {missing[0][1]} ({len(missing)} cells are missing); "
            "finish them, or leave this seed out in all folds"
        )
    parts: list[FloatArray] = []  # per fold [S, G, C, C]
    total, unknown = 0, False
    for fold in folds:
        first = tables[fold, seeds[0]]
        names = labelled_speakers(first)
        total += len(set(names) - {""})
        unknown = unknown or "" in names
        for seed in seeds[1:]:
            check_same(first, tables[fold, seed])
        parts.append(np.stack([by_speaker(tables[fold, s], names) for s in seeds]))
        absent = [c for c, k in zip(first.classes, parts[-1][0].sum((0, 2)), strict=True) if not k]
        if absent and metric != "wa":
            raise DataError(
                f"fold {fold} has no utterance of {', '.join(absent)}, so its value is a mean over "
                "other classes than that of the others; split the variance of wa, or merge folds"
            )
    score = metric_of(metric)
    values = np.stack([score(p.sum(1)) for p in parts], axis=1)
    found = crossed_components(values)
    apart = [] if unknown else [p for p in parts if p.shape[1] > 1]
    each = [shared_variance(p, metric) for p in apart]
    speakers = float(np.mean(each)) if each else nan
    notes = []
    if len(seeds) < 2:
        notes.append("one seed: folds hold the residual too, and seeds are not known")
    if len(folds) < 2:
        notes.append("one fold: seeds hold the residual too, and folds are not known")
    if not each:
        why = "not every speaker is known" if unknown else "one speaker per fold"
        notes.append(f"{why}: speakers and folds cannot be told apart")
    alone = sum(bool(((p[0].sum(-1) > 0).sum(0) == 1).any()) for p in apart)
    if alone and metric != "wa":
        notes.append(
            f"in {alone} folds a class is one speaker's: without her the mean is over other "
            "classes, and speakers are overstated"
        )
    return Variance(
        float(values.mean()), *found, speakers, len(seeds), len(folds), total, "; ".join(notes)
    )


def shared_variance(confusions: FloatArray, metric: Metric) -> float:
    """Variance due to speakers that S seeds share, of ``[S, G, C, C]`` confusions, G above 1."""
    without = np.stack([metric_of(metric)(left_out(c)) for c in confusions])
    away = without - without.mean(1, keepdims=True)
    s, g = without.shape
    covariance = (g - 1) / g * (away @ away.T)
    if s == 1:
        return float(covariance[0, 0])
    return float((covariance.sum() - np.trace(covariance)) / (s * (s - 1)))
