"""Speakers as the unit of sampling: a confusion matrix of each, left out or swapped.

Utterances of one speaker are not independent draws, so speakers are left out or exchanged, never
utterances. UAR, WA and macro-F1 are functions of the confusion matrix, and that of any set of
speakers is the sum of theirs. Utterances whose speaker is not known ("" in a table) are no unit:
each may be anybody's, so with one of them there is neither an interval nor a test over speakers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ComparisonError, ConfigError, DataError, suggest
from .metrics import PredictionTable
from .rates import METRICS, FloatArray

Metric = str | Callable[[NDArray[Any]], FloatArray]

ONE_SPEAKER = "one speaker"


def metric_of(metric: Metric) -> Callable[[NDArray[Any]], FloatArray]:
    """A metric by name (``uar``, ``wa``, ``f1``), or a function ``[..., C, C] -> [...]`` as it is.

    Raises:
        ConfigError: no metric of that name.
    """
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ConfigError(f"no metric called '{metric}'{suggest(metric, METRICS)}")
    return METRICS[metric]


def tested(table: PredictionTable) -> tuple[int, str]:
    """How many speakers are known to be tested, and what forbids an interval over them, or "".

    Unlabelled utterances take no part.
    """
    who = {s for s, known in zip(table.speakers, table.labelled, strict=True) if known}
    n = len(who - {""})
    if "" in who:
        return n, "not every speaker is known" if n else "no speaker is known"
    return n, ONE_SPEAKER if n == 1 else ""


def labelled_speakers(table: PredictionTable) -> list[str]:
    """Names of the speakers who have a labelled utterance, sorted; "" stands for the unknown.

    Raises:
        DataError: when no utterance is labelled.
    """
    names = {s for s, known in zip(table.speakers, table.labelled, strict=True) if known}
    if not names:
        raise DataError(
            f"none of {len(table)} utterances is labelled, so there is no interval; evaluate on "
            "labelled speech"
        )
    return sorted(names)


def by_speaker(
    table: PredictionTable, names: list[str], rows: NDArray[Any] | None = None
) -> FloatArray:
    """``[G, C, C]`` confusion of each speaker's labelled utterances.

    Args:
        table: predictions.
        names: G speakers, all those of the rows among them.
        rows: indices of the rows that count; all by default.

    Raises:
        DataError: a score is not finite (a table refuses these, but its arrays can be changed).
    """
    index, c = {s: i for i, s in enumerate(names)}, len(table.classes)
    known = np.flatnonzero(table.labelled)
    known = known if rows is None else np.intersect1d(known, rows)
    bad = known[~np.isfinite(table.scores[known]).all(1)]
    if len(bad):
        raise DataError(
            f"scores of {len(bad)} of {len(known)} utterances are not finite (first: "
            f"{table.ids[bad[0]]}); look for a diverged model, and predict again"
        )
    who = np.array([index[table.speakers[i]] for i in known], dtype=np.int64)
    cells = (who * c + table.labels[known]) * c + table.predicted[known]
    counts = np.bincount(cells, minlength=len(names) * c * c)
    return counts.reshape(len(names), c, c).astype(np.float64)


def paired_speakers(a: PredictionTable, b: PredictionTable) -> tuple[FloatArray, FloatArray]:
    """``[G, C, C]`` confusions of the same speakers in two tables of the same utterances.

    Raises:
        ComparisonError: when ids, labels, speakers or classes of the tables differ.
        DataError: when no utterance is labelled.
    """
    check_same(a, b)
    names = labelled_speakers(a)
    return by_speaker(a, names), by_speaker(b, names)


def left_out(confusions: FloatArray) -> FloatArray:
    """``[G, C, C]`` confusions of all speakers but one, for each of them."""
    return np.asarray(confusions.sum(0) - confusions, dtype=np.float64)


def standard_error(without: FloatArray) -> float:
    """Delete-one jackknife standard error, of the values without each of G speakers.

    ``sqrt((G - 1) / G * sum((value_g - mean)²))`` (Efron & Tibshirani 1993, section 11.2), with
    speakers in the place of observations.
    """
    g = len(without)
    return sqrt((g - 1) / g * float(((without - without.mean()) ** 2).sum()))


def check_level(level: float) -> None:
    """Refuse a level that is not a share, 95 for instance."""
    if not 0 < level < 1:
        raise ConfigError(f"level {level} is no share; want 0 < level < 1, 0.95 for instance")


def check_same(a: PredictionTable, b: PredictionTable) -> None:
    """Refuse two tables that are not of the same utterances, labels, speakers and classes."""
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
