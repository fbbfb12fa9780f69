"""Linear probes: how much of a quantity a frozen representation says, of speakers it did not meet.

Ridge regression from one vector of each utterance. Features are standardised on the training part;
the strength of the penalty is chosen by speaker-disjoint folds inside it. A probe is scored by the
share of squared error that it saves on held-out speakers (R²), with intervals over speakers. What
is not cited is our choice.
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
"""Penalties that are tried, times the number of training utterances (features have variance 1)."""

INNER = 5
"""Folds of training speakers that the strength is chosen by, at most."""


@dataclass(frozen=True)
class Fold:
    """Rows to fit on and rows to score; no speaker is in both."""

    train: IntArray
    test: IntArray


@dataclass(frozen=True)
class Probed:
    """A probe of one quantity, summed by speaker.

    Attributes:
        speakers: G names.
        error: ``[G]`` squared error of the probe.
        total: ``[G]`` squared error of the training speakers' mean (of 0, within speakers).
        utterances: that were scored.
        strengths: that were chosen, one for each fold.
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
    """A probe of each quantity.

    Args:
        features: ``[N, D]``.
        targets: quantity to ``[N]``; where it is NaN the utterance takes no part.
        speakers: N names.
        folds: whose test parts are disjoint.
        within: take each speaker's mean off features and targets first: what is left is how the
            speaker varies, and says nothing of who it is.

    Raises:
        DataError: when a speaker is in both parts of a fold, an utterance is tested twice, fewer
            than two speakers train, or a feature is not finite.
    """
    names = np.asarray(speakers)
    _check(features, names, folds)
    values = np.stack([np.asarray(y, dtype=np.float64) for y in targets.values()], 1)
    finite = np.isfinite(values)
    found: dict[str, Probed] = {}
    for pattern in np.unique(finite, axis=1).T:  # quantities of the same utterances share work
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
    """Of the columns of ``targets [N, Q]``, on the rows that are known."""
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
    """The strength with the least squared error on held-out speakers of these, for each quantity.

    Args:
        x: ``[n, D]``.
        y: ``[n, Q]``.
        names: ``[n]`` speakers.

    Returns:
        ``[Q]`` of :data:`STRENGTHS`.

    Raises:
        DataError: when there are fewer than two speakers.
    """
    speakers = np.unique(names)
    if len(speakers) < 2:
        raise DataError(
            f"a probe needs two training speakers at least, to choose its penalty by; there are "
            f"{len(speakers)}: use a protocol with fewer test speakers"
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
    """Ridge regression, and what it says of new rows.

    The least ``sum((y - b - z w)²) + strength n |w|²`` for each column of ``y``, z being x
    standardised; in closed form, by one decomposition for all strengths.

    Args:
        x: ``[n, D]``.
        y: ``[n, Q]``.
        new: ``[m, D]``.
        strengths: ``[S, Q]``.

    Returns:
        ``[S, m, Q]``.
    """
    mean, scale = x.mean(0), x.std(0)
    scale[scale < 1e-12] = 1.0  # what is constant says nothing
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
    """``1 - error / total``, with the jackknife over speakers (as :mod:`.jackknife`); 1 is all.

    0 is what the mean of the training speakers says, and a probe may do worse. The probe is not
    fitted again without each speaker.
    """
    check_level(level)
    n = len(probed.speakers)
    value = float(_r2(probed.error.sum(), probed.total.sum()))
    if n < 2 or value != value:
        return Interval(value, nan, nan, level, n, _why(n))
    half = t_quantile((1 + level) / 2, n, level) * standard_error(_without(probed))
    return Interval(value, value - half, value + half, level, n)


def r2_difference(a: Probed, b: Probed, *, level: float = 0.95) -> Difference:
    """R² of ``a`` minus that of ``b``, paired by speaker, with interval and two-sided p.

    Raises:
        DataError: when they are not probes of one quantity on the same utterances.
    """
    from scipy.special import stdtr

    check_level(level)
    if a.speakers != b.speakers or not np.allclose(a.total, b.total):
        raise DataError(
            f"two probes are not of the same quantity on the same speakers ({len(a.speakers)} and "
            f"{len(b.speakers)}); probe both on one corpus and protocol"
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
    """``[G]`` R² without each speaker."""
    return _r2(left_out(probed.error), left_out(probed.total))


def _r2(error: FloatArray, total: FloatArray) -> FloatArray:
    """NaN where nothing varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total > 0, 1 - error / total, nan))


def _check(features: FloatArray, names: Names, folds: Sequence[Fold]) -> None:
    bad = int((~np.isfinite(features)).any(1).sum())
    if bad:
        raise DataError(
            f"frames of {bad} of {len(features)} utterances are not finite; look for a diverged "
            "model, or audio that is damaged"
        )
    tested = np.zeros(len(names), dtype=int)
    for k, fold in enumerate(folds):
        shared = sorted(set(names[fold.train]) & set(names[fold.test]))
        if shared:
            raise DataError(
                f"fold {k} fits and scores {len(shared)} speakers alike ({some(shared)}); "
                "a probe could then tell the speaker instead: use a speaker-disjoint protocol"
            )
        tested[fold.test] += 1
    if (tested > 1).any():
        raise DataError(
            f"{int((tested > 1).sum())} utterances are tested by several folds; choose one of "
            "them, or a protocol that tests each utterance once"
        )
