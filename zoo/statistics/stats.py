"""How sure a number is: intervals, paired differences, corrections of p values, spreads.

The intervals themselves are made in :mod:`.jackknife` and :mod:`.probe`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import nan
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import DataError

Key = TypeVar("Key", bound=Hashable)


class Interval(NamedTuple):
    """A value and its interval over speakers.

    Attributes:
        value: the metric.
        low: lower bound; NaN if there is no interval.
        high: upper bound; NaN if there is no interval.
        level: coverage aimed at.
        n_speakers: who were tested, of those whose name is known.
        note: why there is no interval, or "".
    """

    value: float
    low: float
    high: float
    level: float
    n_speakers: int
    note: str = ""


class Difference(NamedTuple):
    """A metric of one table minus that of another, its interval and a two-sided p.

    Attributes:
        value: the difference.
        low: lower bound; NaN if there is no interval.
        high: upper bound; NaN if there is no interval.
        p: NaN if there is no test.
        level: coverage aimed at.
        n_speakers: who were tested, of those whose name is known.
        note: why there is no interval, or "".
    """

    value: float
    low: float
    high: float
    p: float
    level: float
    n_speakers: int
    note: str = ""


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


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p values of one family; NaN is kept and not counted.

    Raises:
        DataError: a value is outside 0 to 1.
    """
    values = np.asarray(p, dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        raise DataError(f"p values are outside 0 to 1: {values[(values < 0) | (values > 1)][0]}")
    out = np.full(len(values), np.nan)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return [float(v) for v in out]


def holm_grid(p: Mapping[Key, float]) -> dict[Key, float]:
    """:func:`holm` over every comparison of a grid, by its key, (recipe, encoder, head) say.

    The family is what is given: a p for every comparison that was made, or the correction is none.
    """
    return dict(zip(p, holm(list(p.values())), strict=True))
