"""What a test set can show: the smallest difference between two heads that it would find."""

from __future__ import annotations

from math import nan
from typing import NamedTuple

from .clusters import (
    Metric,
    check_level,
    left_out,
    metric_of,
    paired_speakers,
    standard_error,
    tested,
)
from .jackknife import t_quantile
from .metrics import PredictionTable


class Detectable(NamedTuple):
    """The smallest true difference found with this power.

    Attributes:
        value: the difference; NaN where it cannot be told, and ``note`` says why.
        error: standard error of the difference.
        level: 1 minus the two-sided significance level.
        power: how often a difference of that size would be found.
        n_speakers: who were tested.
        note: why there is no value, or "".
    """

    value: float
    error: float
    level: float
    power: float
    n_speakers: int
    note: str


def minimum_detectable(
    a: PredictionTable,
    b: PredictionTable,
    metric: Metric = "uar",
    *,
    level: float = 0.95,
    power: float = 0.8,
) -> Detectable:
    """The true difference that these speakers would show as significant in ``power`` of cases.

    ``(t_(1 + level)/2 + t_power) * error`` at (speakers - 1) degrees of freedom (Bloom 1995), with
    the paired jackknife's standard error over speakers: that of the paired bootstrap times
    ``sqrt(G / (G - 1))``, which the bootstrap leaves out. A property of the test set and of how
    differently the two heads err, not of the difference found; :func:`.jackknife.paired_jackknife`
    is the test that has this power.

    Raises:
        ComparisonError: when ids, labels, speakers or classes of the tables differ.
        DataError: when no utterance is labelled.
        ConfigError: level or power is no share.
    """
    check_level(level)
    check_level(power)
    score, (first, second) = metric_of(metric), paired_speakers(a, b)
    n, why = tested(a)
    if why:
        return Detectable(nan, nan, level, power, n, f"{why}: no spread between speakers")
    error = standard_error(score(left_out(first)) - score(left_out(second)))
    if error < 1e-12:
        why = "the two differ by the same for every speaker: no spread to judge by"
        return Detectable(nan, 0.0, level, power, n, why)
    reach = t_quantile((1 + level) / 2, n, level) + t_quantile(power, n, level)
    return Detectable(reach * error, error, level, power, n, "")
