"""Linear probes: how much of a quantity a frozen representation tells about new speakers.

A probe is a ridge regression from one vector per utterance. Features are standardised on the
training part. Speaker-disjoint folds inside it choose the strength of the penalty. The score is the
share of squared error that the probe saves on held-out speakers (R²), with intervals over speakers.
What has no citation is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, some
from .rates import FloatArray, IntArray
from .speakers import (
    ONE_SPEAKER,
    Difference,
    Interval,
    check_level,
    left_out,
    standard_error,
    t_quantile,
)

Names = NDArray[Any]

STRENGTHS = 10.0 ** np.arange(-4, 6)
"""Candidate penalties; each is multiplied by the number of training utterances."""

INNER = 5
"""Largest number of folds of training speakers that choose the strength."""


@dataclass(frozen=True)
class Fold:
    """Rows to fit on and rows to score; no speaker is in both."""

    train: IntArray
    test: IntArray


@dataclass(frozen=True)
class Probed:
    """The result of a probe of one quantity, summed by speaker.

    Attributes:
        speakers: G names.
        error: ``[G]`` squared error of the probe.
        total: ``[G]`` squared error of the training speakers' mean (of 0, within speakers).
        utterances: number of scored utterances.
        strengths: the chosen strengths, one for each fold.
    """

    speakers: list[str]
    error: FloatArray
    total: FloatArray
    utterances: int
    strengths: list[float]


def probe(
    features: FloatArray,
    targets: Mapping[str, FloatArray],
    speakers: Sequence[str],
    folds: Sequence[Fold],
    *,
    within: bool = False,
) -> dict[str, Probed]:
    """Fit and score a probe of each quantity; return the results by quantity.

    Args:
        features: ``[N, D]``.
        targets: maps a quantity to ``[N]`` values; an utterance with NaN is ignored.
        speakers: N names.
        folds: folds with disjoint test parts.
        within: first subtract each speaker's mean from features and targets. The rest shows how a
            speaker varies, but not who it is.

    Raises:
        DataError: if a speaker is in both parts of a fold, or an utterance is tested twice. Also
            if fewer than two speakers train, or a feature is not finite.
    """
    names = np.asarray(speakers)
    _check(features, names, folds)
    values = np.stack([np.asarray(y, dtype=np.float64) for y in targets.values()], 1)
    finite = np.isfinite(values)
    found: dict[str, Probed] = {}
    for pattern in np.unique(finite, axis=1).T:  # quantities of the same utterances share one fit
        columns = np.flatnonzero((finite == pattern[:, None]).all(0))
        group = [list(targets)[q] for q in columns]
        done = _probe(features, values[:, columns], names, pattern, folds, within)
        found |= dict(zip(group, done, strict=True))
    return {name: found[name] for name in targets}


def _probe(
    features: FloatArray,
    targets: FloatArray,
    names: Names,
    known: NDArray[np.bool_],
    folds: Sequence[Fold],
    within: bool,
) -> list[Probed]:
    """Probe the columns of ``targets [N, Q]``, on the rows that are known."""
    x, y = features.astype(np.float64), targets.copy()
    if within:
        for name in np.unique(names):
            rows = known & (names == name)
            if rows.any():
                x[rows] -= x[rows].mean(0)
                y[rows] -= y[rows].mean(0)
    error, total = np.zeros_like(y), np.zeros_like(y)
    tested, strengths = np.zeros(len(y), dtype=bool), []
    for fold in folds:
        train, test = fold.train[known[fold.train]], fold.test[known[fold.test]]
        if not len(test):
            continue
        chosen = choose(x[train], y[train], names[train])
        said = fit_predict(x[train], y[train], x[test], chosen[None])[0]
        middle = 0.0 if within else y[train].mean(0)
        error[test], total[test] = (y[test] - said) ** 2, (y[test] - middle) ** 2
        tested[test] = True
        strengths.append(chosen)
    scored, who = np.unique(names[tested], return_inverse=True)

    def by_speaker(values: FloatArray) -> FloatArray:
        return np.bincount(who, values, len(scored)).astype(np.float64)

    return [
        Probed(
            scored.tolist(),
            by_speaker(error[tested, q]),
            by_speaker(total[tested, q]),
            int(tested.sum()),
            [float(chosen[q]) for chosen in strengths],
        )
        for q in range(y.shape[1])
    ]


def choose(x: FloatArray, y: FloatArray, names: Names) -> FloatArray:
    """Return, for each quantity, the strength with the least squared error on held-out speakers.

    Args:
        x: ``[n, D]``.
        y: ``[n, Q]``.
        names: ``[n]`` speakers.

    Returns:
        ``[Q]`` values of :data:`STRENGTHS`.

    Raises:
        DataError: if there are fewer than two speakers.
    """
    speakers = np.unique(names)
    if len(speakers) < 2:
        raise DataError(
            f"found {len(speakers)} training speakers, but a probe needs at least two to choose "
            "its penalty; use a protocol with fewer test speakers"
        )
    group = np.searchsorted(speakers, names) % INNER
    tried = np.repeat(STRENGTHS[:, None], y.shape[1], 1)
    errors = np.zeros(tried.shape)
    for k in np.unique(group):
        held = group == k
        said = fit_predict(x[~held], y[~held], x[held], tried)
        errors += ((said - y[held]) ** 2).sum(1)
    return np.asarray(STRENGTHS[errors.argmin(0)])


def fit_predict(x: FloatArray, y: FloatArray, new: FloatArray, strengths: FloatArray) -> FloatArray:
    """Fit a ridge regression and return its predictions for new rows.

    It minimises ``sum((y - b - z w)²) + strength n |w|²`` for each column of ``y``, where z is the
    standardised x. The solution is in closed form, by one decomposition for all strengths.

    Args:
        x: ``[n, D]``.
        y: ``[n, Q]``.
        new: ``[m, D]``.
        strengths: ``[S, Q]``.

    Returns:
        ``[S, m, Q]``.
    """
    mean, scale = x.mean(0), x.std(0)
    scale[scale < 1e-12] = 1.0  # a constant feature has no information
    z, middle = (x - mean) / scale, y.mean(0)
    if len(x) < x.shape[1]:
        _, s, vt = np.linalg.svd(z, full_matrices=False)
        power, v = s**2, vt.T
    else:
        power, v = np.linalg.eigh(z.T @ z)
        power = power.clip(0)
    weights = (v.T @ (z.T @ (y - middle))) / (power[:, None] + strengths[:, None] * len(x))
    return np.asarray(middle + ((new - mean) / scale @ v) @ weights)


def r2(probed: Probed, *, level: float = 0.95) -> Interval:
    """Return ``R² = 1 - error / total`` with its jackknife interval over speakers; 1 is perfect.

    0 is the score of the training speakers' mean; a probe may be worse. The interval is that of
    :mod:`.speakers`; the probe is not fitted again without each speaker.
    """
    check_level(level)
    n = len(probed.speakers)
    value = float(_r2(probed.error.sum(), probed.total.sum()))
    if n < 2 or value != value:
        return Interval(value, nan, nan, level, n, _why(n))
    half = t_quantile((1 + level) / 2, n, level) * standard_error(_without(probed))
    return Interval(value, value - half, value + half, level, n)


def r2_difference(a: Probed, b: Probed, *, level: float = 0.95) -> Difference:
    """Return R² of ``a`` minus that of ``b``, paired by speaker, with interval and two-sided p.

    Raises:
        DataError: if they do not probe one quantity on the same utterances.
    """
    from scipy.special import stdtr

    check_level(level)
    if a.speakers != b.speakers or not np.allclose(a.total, b.total):
        raise DataError(
            f"the two probes differ in quantity or speakers ({len(a.speakers)} and "
            f"{len(b.speakers)} speakers); probe both on one corpus and protocol"
        )
    n = len(a.speakers)
    value = float(_r2(a.error.sum(), a.total.sum()) - _r2(b.error.sum(), b.total.sum()))
    if n < 2 or value != value:
        return Difference(value, nan, nan, nan, level, n, _why(n))
    error = standard_error(_without(a) - _without(b))
    if error < 1e-12:
        return Difference(value, value, value, 1.0 if abs(value) < 1e-12 else nan, level, n)
    half = t_quantile((1 + level) / 2, n, level) * error
    p = 2 * float(stdtr(n - 1, -abs(value) / error))
    return Difference(value, value - half, value + half, p, level, n)


def _why(n: int) -> str:
    return f"{ONE_SPEAKER if n < 2 else 'nothing varies'}: no interval"


def _without(probed: Probed) -> FloatArray:
    """Return ``[G]`` R² without each speaker."""
    return _r2(left_out(probed.error), left_out(probed.total))


def _r2(error: FloatArray, total: FloatArray) -> FloatArray:
    """Return ``1 - error / total``; NaN if the total is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total > 0, 1 - error / total, nan))


def _check(features: FloatArray, names: Names, folds: Sequence[Fold]) -> None:
    bad = int((~np.isfinite(features)).any(1).sum())
    if bad:
        raise DataError(
            f"frames of {bad} of {len(features)} utterances are not finite; look for a diverged "
            "model, or for damaged audio"
        )
    tested = np.zeros(len(names), dtype=int)
    for k, fold in enumerate(folds):
        shared = sorted(set(names[fold.train]) & set(names[fold.test]))
        if shared:
            raise DataError(
                f"fold {k} has {len(shared)} speakers in training and test ({some(shared)}), so a "
                "probe could learn the speaker instead; use a speaker-disjoint protocol"
            )
        tested[fold.test] += 1
    if (tested > 1).any():
        raise DataError(
            f"{int((tested > 1).sum())} utterances are tested by several folds; choose one of "
            "them, or a protocol that tests each utterance once"
        )
