"""How sure a number is: speaker-clustered bootstrap, paired differences, corrections, spreads.

Utterances of one speaker are not independent draws, so speakers are resampled, not utterances
(Field & Welsh 2007; the cluster bootstrap). UAR, WA and macro-F1 are functions of the confusion
matrix, and the confusion matrix of a resample is a weighted sum of those of its speakers: 2000
draws are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ComparisonError, ConfigError, DataError, suggest
from .metrics import PredictionTable
from .rates import METRICS, FloatArray

Metric = str | Callable[[NDArray[Any]], FloatArray]


class Interval(NamedTuple):
    """A value and its percentile interval; bounds are NaN where there is only one speaker."""

    value: float
    low: float
    high: float
    level: float
    n_speakers: int
    n_draws: int


class Difference(NamedTuple):
    """A metric of one table minus that of another, its interval and a two-sided p."""

    value: float
    low: float
    high: float
    p: float
    level: float
    n_speakers: int
    n_draws: int


class MeanSD(NamedTuple):
    """Mean and sample standard deviation (n - 1); NaN where there are too few values."""

    mean: float
    sd: float
    n: int

    def __str__(self) -> str:
        """The spread is shown from three values on: of two it says next to nothing."""
        return f"{self.mean:.3f} ± {self.sd:.3f}" if self.n >= 3 else f"{self.mean:.3f}"


def mean_sd(values: Sequence[float]) -> MeanSD:
    """Mean and spread over seeds or folds."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if len(x) else nan
    return MeanSD(mean, float(x.std(ddof=1)) if len(x) > 1 else nan, len(x))


def bootstrap(
    table: PredictionTable,
    metric: Metric = "uar",
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a metric, resampling speakers with replacement.

    With few speakers (an EMO-DB fold tests two) the interval is too narrow: pool the folds first.

    Args:
        table: predictions; unlabelled utterances take no part.
        metric: ``uar``, ``wa``, ``f1``, or a function of confusions ``[..., C, C] -> [...]``.
        draws: resamples.
        level: coverage aimed at.
        seed: of the resampling.

    Raises:
        DataError: when no utterance is labelled.
    """
    score = _metric(metric)
    confusions = _by_speaker(table, sorted(_labelled_speakers(table)))
    value = float(score(confusions.sum(0)))
    n = len(confusions)
    low, high = _percentiles(score(_resample(n, draws, level, seed, confusions)[0]), level, n)
    return Interval(value, low, high, level, n, draws)


def paired_bootstrap(
    a: PredictionTable,
    b: PredictionTable,
    metric: Metric = "uar",
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Metric of ``a`` minus metric of ``b`` on the same utterances, with interval and p.

    Both tables are scored on the same resampled speakers. ``p`` is twice the smaller share of
    draws on the other side of zero, draws at zero on both sides, counted from one so that it is
    never 0 (our choice, after Davison & Hinkley 1997, section 4.2); NaN with one speaker.

    Raises:
        ComparisonError: when ids, labels, speakers or classes of the tables differ.
        DataError: when no utterance is labelled.
    """
    score = _metric(metric)
    _check_same(a, b)
    names = sorted(_labelled_speakers(a))
    both = _by_speaker(a, names), _by_speaker(b, names)
    value = float(score(both[0].sum(0)) - score(both[1].sum(0)))
    n = len(names)
    first, second = _resample(n, draws, level, seed, *both)
    diff = score(first) - score(second)
    low, high = _percentiles(diff, level, n)
    # sums in another order may leave 1e-17 where the two are equal
    tail = min(int((diff <= 1e-12).sum()), int((diff >= -1e-12).sum()))
    p = min(1.0, 2 * (tail + 1) / (draws + 1)) if n > 1 else nan
    return Difference(value, low, high, p, level, n, draws)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p values of one family; NaN is kept and not counted."""
    values = np.asarray(p, dtype=np.float64)
    out = np.full(len(values), np.nan)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return [float(v) for v in out]


def _metric(metric: Metric) -> Callable[[NDArray[Any]], FloatArray]:
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ConfigError(f"no metric called '{metric}'{suggest(metric, METRICS)}")
    return METRICS[metric]


def _labelled_speakers(table: PredictionTable) -> set[str]:
    names = {s for s, known in zip(table.speakers, table.labelled, strict=True) if known}
    if not names:
        raise DataError(f"none of {len(table)} utterances is labelled, so there is no interval")
    return names


def _by_speaker(table: PredictionTable, names: list[str]) -> FloatArray:
    """``[G, C, C]`` confusion of each speaker."""
    index, c = {s: i for i, s in enumerate(names)}, len(table.classes)
    known = np.flatnonzero(table.labelled)
    who = np.array([index[table.speakers[i]] for i in known], dtype=np.int64)
    cells = (who * c + table.labels[known]) * c + table.predicted[known]
    counts = np.bincount(cells, minlength=len(names) * c * c)
    return counts.reshape(len(names), c, c).astype(np.float64)


def _resample(
    n: int, draws: int, level: float, seed: int, *confusions: FloatArray
) -> list[FloatArray]:
    """``[draws, C, C]`` confusions of the same resamples, for each ``[G, C, C]`` given."""
    if draws < 1 or not 0 < level < 1:
        raise ConfigError(f"draws is {draws} and level {level}; want draws >= 1 and 0 < level < 1")
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    return [np.tensordot(weights.astype(np.float64), c, axes=1) for c in confusions]


def _percentiles(values: FloatArray, level: float, n_speakers: int) -> tuple[float, float]:
    if n_speakers < 2:
        return nan, nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_same(a: PredictionTable, b: PredictionTable) -> None:
    if a.classes != b.classes:
        raise ComparisonError(
            f"refusing to compare: classes are {', '.join(a.classes)} in the first table and "
            f"{', '.join(b.classes)} in the second; score both under one taxonomy"
        )
    rows = {n: (a.speakers[i], int(a.labels[i])) for i, n in enumerate(a.ids)}
    other = {n: (b.speakers[i], int(b.labels[i])) for i, n in enumerate(b.ids)}
    only = sorted(rows.keys() ^ other.keys())
    if only:
        raise ComparisonError(
            f"refusing to compare: {len(only)} utterances are in one table only "
            f"(first: {only[0]}); test both on the same utterances"
        )
    differing = [n for n in rows if rows[n] != other[n]]
    if differing:
        n = differing[0]
        raise ComparisonError(
            f"refusing to compare: speaker or label of {len(differing)} utterances differs "
            f"(first: {n}, {rows[n]} and {other[n]}); use one manifest and one label column"
        )
