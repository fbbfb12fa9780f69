"""What a comparison could find with other numbers of trainings, from the cells that exist.

A pilot gives the spread over clusters and over trainings. What it would be for another number of
trainings is tested as in :mod:`.contrasts`. Clusters cannot be added: they are the speakers of a
corpus.
"""

from __future__ import annotations

from math import nan

from .contrasts import Parts, TwoWay, parts_of
from .rates import FloatArray

MOST = 20
"""Largest number of trainings that is planned (our choice)."""


def detectable(
    pilot: FloatArray,
    trainings: int,
    *,
    level: float = 0.95,
    power: float = 0.8,
    family: int = 1,
) -> float:
    """Return the smallest true difference that is found with ``power``; NaN if none can be planned.

    Args:
        pilot: ``[S, G]`` values by training and cluster (:func:`.contrasts.influences`), at least
            two of each.
        trainings: the planned number of trainings, at least 2.
        level: nominal coverage.
        power: how often a difference of that size is to be found.
        family: number of questions that are corrected together, by Bonferroni. The real correction
            is a little better.
    """
    from scipy.special import stdtrit

    s, g = pilot.shape
    if s < 2 or g < 2 or trainings < 2:
        return nan
    rows, columns = pilot.mean(1), pilot.mean(0)
    rest = pilot - rows[:, None] - columns + pilot.mean()
    both = float((rest**2).sum()) / ((s - 1) * (g - 1))
    of_cluster = max(float(columns.var(ddof=1)) - both / s, 0.0)
    of_training = max(float(rows.var(ddof=1)) - both / g, 0.0)
    n = trainings
    squares = (of_cluster / g + both / (n * g), of_training / n + both / (n * g), both / (n * g))
    spread = sum(x**2 / f for x, f in zip(squares, (g - 1, n - 1, (n - 1) * (g - 1)), strict=True))
    if not spread:
        return nan
    found = TwoWay(Parts(*map(float, parts_of(*squares, n, g))), nan, n, g)
    df = max(found.error**4 / spread, min(n, g) - 1.0)
    return found.half((1 - level) / family) + float(stdtrit(df, power)) * found.error


def trainings_for(
    pilot: FloatArray, size: float, *, power: float = 0.8, family: int = 1
) -> int | None:
    """Return the fewest trainings that find a difference of ``size``; None if 20 do not.

    Args:
        pilot: as for :func:`detectable`.
        size: the difference, above 0.
        power: how often it is to be found.
        family: number of questions.
    """
    for n in range(2, MOST + 1):
        if detectable(pilot, n, power=power, family=family) <= size:
            return n
    return None
