"""Uncertainty over speakers: intervals and tests that treat speakers as the unit of sampling.

Utterances of one speaker are not independent. So speakers are left out or exchanged, never single
utterances. UAR, WA and macro-F1 are functions of the confusion matrix. The matrix of a set of
speakers is the sum of their matrices (:func:`by_speaker`).

:func:`jackknife` gives an interval, and :func:`paired_jackknife` compares two tables.
:func:`.contrasts.answers` compares heads. :func:`holm` corrects p values. :func:`measure` gives all
numbers of a record.

An utterance whose speaker is unknown ("" in a table) may be from any speaker. :func:`unknown_rule`
says what such utterances do to an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import exp, isnan, log, nan, sqrt
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ComparisonError, ConfigError, DataError, suggest
from .rates import METRICS, FloatArray
from .soft import soft_numbers
from .table import PredictionTable

Metric = str | Callable[[NDArray[Any]], FloatArray]

ONE_SPEAKER = "one speaker"


def metric_of(metric: Metric) -> Callable[[NDArray[Any]], FloatArray]:
    """Return a metric by name (``uar``, ``wa``, ``macro_f1``); a function is returned as it is.

    A metric maps ``[..., C, C]`` confusions to ``[...]`` values.

    Raises:
        ConfigError: if no metric has this name.
    """
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ConfigError(f"no metric is called '{metric}'{suggest(metric, METRICS)}")
    return METRICS[metric]


def unknown_rule(kind: str, n: int, lost: int, total: int) -> tuple[str, str]:
    """Return why no interval over clusters exists, and what to know of unknown ones; or "".

    An utterance of no known cluster may be from any, so it is in none. It counts in the value,
    which needs no cluster. The interval is over the known clusters, as if they were all of the
    test set. If unknown utterances are the minority, and from many clusters, this is too wide
    rather than too narrow. If they are half or more, the value is mostly theirs, and the known
    clusters say little of it. Then there is no interval and no test.

    Args:
        kind: what a cluster is, such as ``speaker``.
        n: number of known clusters.
        lost: number of utterances of no known cluster.
        total: number of utterances.
    """
    if not n:
        return f"no {kind} is known", ""
    if 2 * lost >= total:
        return f"{lost} of {total} utterances are of no known {kind}", ""
    if n == 1:
        return f"one {kind}", ""
    if not lost:
        return "", ""
    return "", (
        f"{lost} of {total} utterances are of no known {kind}: they count in the value, and the "
        f"interval is over the {n} known ones"
    )


class Tested(NamedTuple):
    """The speakers of a table's labelled utterances.

    Attributes:
        n: number of known speakers.
        why: why no interval over speakers exists, or "".
        note: what a reader must know of unknown speakers, or "".
    """

    n: int
    why: str
    note: str


def tested(table: PredictionTable) -> Tested:
    """Return the tested speakers; unlabelled utterances are ignored."""
    who = [s for s, known in zip(table.speakers, table.labelled, strict=True) if known]
    n = len(set(who) - {""})
    return Tested(n, *unknown_rule("speaker", n, who.count(""), len(who)))


def labelled_speakers(table: PredictionTable) -> list[str]:
    """Return the names of the speakers with a labelled utterance, sorted.

    "" means unknown speakers.

    Raises:
        DataError: if no utterance is labelled.
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
    """Return ``[G, C, C]`` confusions of each speaker's labelled utterances.

    Args:
        table: predictions.
        names: G speakers; they include all speakers of the rows.
        rows: indices of the rows that count; all by default.

    Raises:
        DataError: if a score is not finite. A table refuses these, but its arrays can be changed.
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
    """Return ``[G, C, C]`` confusions of each speaker, from two tables of the same utterances.

    Raises:
        ComparisonError: if ids, labels, speakers or classes of the tables differ.
        DataError: if no utterance is labelled.
    """
    check_same(a, b)
    names = labelled_speakers(a)
    return by_speaker(a, names), by_speaker(b, names)


def left_out(confusions: FloatArray) -> FloatArray:
    """Return ``[G, C, C]`` confusions: for each speaker, those of all other speakers."""
    return np.asarray(confusions.sum(0) - confusions, dtype=np.float64)


def standard_error(without: FloatArray) -> float:
    """Return the delete-one jackknife standard error of the values without each of G speakers.

    ``sqrt((G - 1) / G * sum((value_g - mean)²))`` (Efron & Tibshirani 1993, section 11.2);
    speakers are the observations.
    """
    g = len(without)
    return sqrt((g - 1) / g * float(((without - without.mean()) ** 2).sum()))


def check_level(level: float) -> None:
    """Check that a level is a share; 95, for example, is not."""
    if not 0 < level < 1:
        raise ConfigError(f"level {level} is not a share; give 0 < level < 1, for example 0.95")


def check_same(a: PredictionTable, b: PredictionTable) -> None:
    """Check that two tables have the same utterances, labels, speakers and classes."""
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


# Records of intervals and differences, and corrections of p values.

Key = TypeVar("Key", bound=Hashable)


class Interval(NamedTuple):
    """A value and its interval over speakers.

    Attributes:
        value: the metric.
        low: lower bound; NaN if there is no interval.
        high: upper bound; NaN if there is no interval.
        level: nominal coverage.
        n_speakers: number of tested speakers whose name is known.
        note: why there is no interval, what unknown speakers do to it, or "".
    """

    value: float
    low: float
    high: float
    level: float
    n_speakers: int
    note: str = ""


class Difference(NamedTuple):
    """A metric of one table minus that of another, with its interval and a two-sided p.

    Attributes:
        value: the difference.
        low: lower bound; NaN if there is no interval.
        high: upper bound; NaN if there is no interval.
        p: two-sided p value; NaN if there is no test.
        level: nominal coverage.
        n_speakers: number of tested speakers whose name is known.
        note: why there is no interval, what unknown speakers do to it, or "".
    """

    value: float
    low: float
    high: float
    p: float
    level: float
    n_speakers: int
    note: str = ""


class MeanSD(NamedTuple):
    """Mean and sample standard deviation (n - 1); NaN if there are too few values."""

    mean: float
    sd: float
    n: int

    def __str__(self) -> str:
        """Show the standard deviation only if there are three or more values.

        From two values it says almost nothing.
        """
        return f"{self.mean:.3f} ± {self.sd:.3f}" if self.n >= 3 else f"{self.mean:.3f}"


def mean_sd(values: Sequence[float]) -> MeanSD:
    """Return the mean and the standard deviation over seeds or folds."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if len(x) else nan
    return MeanSD(mean, float(x.std(ddof=1)) if len(x) > 1 else nan, len(x))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm's (1979) step-down method; NaN is kept and not counted.

    Raises:
        DataError: if a value is outside 0 to 1.
    """
    values = np.asarray(p, dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        raise DataError(
            f"found the p value {values[(values < 0) | (values > 1)][0]}; give values from 0 to 1"
        )
    out = np.full(len(values), np.nan)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return [float(v) for v in out]


# Jackknife over speakers.
#
# This interval holds with few speakers; the percentile interval of the bootstrap is then too
# narrow. The table shows the measured coverage of 95 % intervals of UAR. It also shows the false
# alarms of tests at 0.05 between two equally good heads. Each number is from 1000 simulated test
# sets of speakers who differ. A speaker has 24 utterances of 3 classes. UAR is 0.54 and 0.86 in the
# population (tests/zoo/statistics/test_jackknife.py):
#
# ======== ==================== ============ =============== ===========
# speakers percentile bootstrap this         bootstrap's p   this one's
# ======== ==================== ============ =============== ===========
# 2        0.48, 0.46           0.94, 0.87   0.42            0.01
# 4        0.80, 0.76           0.95, 0.96   0.19            0.05
# 10       0.92, 0.88           0.96, 0.94   0.10            0.06
# 24       0.95, 0.93           0.96, 0.95   0.06            0.06
# ======== ==================== ============ =============== ===========
#
# So :func:`jackknife` is the interval to print for any number of speakers. It has no random draws
# and no seed. With two speakers it is almost useless: its median width was 0.9 in a similar
# simulation. Its width is 0 if both speakers are all right or have the same rate; this explains the
# 0.87. With 64 utterances of 8 classes per speaker, BCa was no better than percentiles (0.48, 0.78,
# 0.91, 0.95). Bootstrap-t held only from 10 speakers on (0.04, 0.92, 0.95, 0.96).


def jackknife(table: PredictionTable, metric: Metric = "uar", *, level: float = 0.95) -> Interval:
    """Return the interval of a metric, from leaving out each speaker once.

    It uses the jackknife's standard error and the quantiles of t at (speakers - 1) degrees of
    freedom. This is the cluster jackknife (MacKinnon, Nielsen & Webb 2023). It works on the logit
    scale by the delta method (our choice). So it stays within 0 to 1 and widens towards 0.5.

    Args:
        table: predictions; unlabelled utterances are ignored.
        metric: ``uar``, ``wa``, ``macro_f1``, or a function of confusions
            ``[..., C, C] -> [...]`` with values of 0 to 1.
        level: nominal coverage.

    Returns:
        The interval. Its bounds are NaN with one speaker. They are NaN, too, if half of the
        utterances or more are of unknown speakers; ``note`` says so (:func:`unknown_rule`). They
        equal the value if all speakers have the same value.

    Raises:
        DataError: if no utterance is labelled, or the metric is not a share.
    """
    n, why, note = tested(table)
    known, unknown = _split(by_speaker(table, [*sorted({*labelled_speakers(table)} - {""}), ""]))
    found = interval_of(known, metric, level, why, unknown)
    return found._replace(n_speakers=n, note=found.note or note)


def _split(confusions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the confusions of known speakers and those of unknown ones, which are the last."""
    return confusions[:-1], confusions[-1]


def interval_of(
    confusions: FloatArray,
    metric: Metric,
    level: float,
    why: str = "",
    unknown: FloatArray | None = None,
) -> Interval:
    """Return the interval of :func:`jackknife` from ``[G, C, C]`` confusions of speakers.

    Args:
        confusions: one matrix per speaker.
        metric: as for :func:`jackknife`.
        level: nominal coverage.
        why: the reason why no interval exists (:func:`tested`), or "".
        unknown: ``[C, C]`` confusions of unknown speakers. They count in the value only.
    """
    score, n = metric_of(metric), len(confusions)
    value = float(score(confusions.sum(0) + (0 if unknown is None else unknown)))
    if not 0 <= value <= 1:
        raise DataError(f"the metric is {value}, not a share from 0 to 1; use paired_jackknife")
    check_level(level)
    if n < 2 or why:
        return Interval(value, nan, nan, level, n, f"{why or ONE_SPEAKER}: no interval")
    half = t_quantile((1 + level) / 2, n, level) * standard_error(score(left_out(confusions)))
    if not half or not 0 < value < 1:
        # 0 and 1 have no logit; the spread of the other values, if any, is used on the plain scale
        return Interval(value, max(0.0, value - half), min(1.0, value + half), level, n)
    middle, reach = log(value / (1 - value)), half / (value * (1 - value))
    return Interval(value, _share(middle - reach), _share(middle + reach), level, n)


def paired_jackknife(
    a: PredictionTable, b: PredictionTable, metric: Metric = "uar", *, level: float = 0.95
) -> Difference:
    """Return the metric of ``a`` minus that of ``b``, with interval and two-sided p.

    Both tables hold the same utterances. The method is that of :func:`jackknife`, on the plain
    scale. Interval and p agree: p is below ``1 - level`` if the interval excludes zero. For the WA
    of speakers with equally many utterances this is the paired t test of their accuracies. With
    one speaker, or if half of the utterances are of unknown ones, there is neither interval nor p.

    Raises:
        ComparisonError: if ids, labels, speakers or classes of the tables differ.
        DataError: if no utterance is labelled.
    """
    from scipy.special import stdtr

    check_level(level)
    score, pair = metric_of(metric), paired_speakers(a, b)
    n, why, note = tested(a)
    value = float(score(pair[0].sum(0)) - score(pair[1].sum(0)))
    if why:
        return Difference(value, nan, nan, nan, level, n, f"{why}: no interval and no test")
    # names are sorted, so unknown speakers are the first
    first, second = (x[1:] if note else x for x in pair)
    error = standard_error(score(left_out(first)) - score(left_out(second)))
    if error < 1e-12:  # every speaker differs by the same amount, so there is no spread
        p = 1.0 if abs(value) < 1e-12 else nan
        return Difference(value, value, value, p, level, n, note)
    half = t_quantile((1 + level) / 2, n, level) * error
    p = 2 * float(stdtr(n - 1, -abs(value) / error))
    return Difference(value, value - half, value + half, p, level, n, note)


def t_quantile(share: float, n_speakers: int, level: float) -> float:
    """Return Student's t quantile at (speakers - 1) degrees of freedom."""
    from scipy.special import stdtrit

    check_level(level)
    return float(stdtrit(n_speakers - 1, share))


def _share(logit: float) -> float:
    return 1 / (1 + exp(-logit)) if logit > -700 else 0.0


# All numbers of a record.


def measure(test: PredictionTable, temperature: float = 1.0) -> dict[str, Any]:
    """Return all numbers of a table of test predictions, as a record holds them.

    ``metrics`` has ``votes`` (:func:`.soft.soft_numbers`, at the temperature) if raters voted.
    """
    corpora = test.by_corpus()
    votes = soft_numbers(test, temperature)
    return {
        "metrics": {
            **test.metrics(),
            **uar_interval(test),
            "top2": test.top(2) if len(test.classes) > 2 else None,
            "nll": test.nll(),
            "nll_calibrated": test.nll(temperature),
            "ece": test.ece(),
            "ece_calibrated": test.ece(temperature),
            "temperature": temperature,
            **({} if votes is None else {"votes": votes}),
        },
        "by_speaker": test.by_speaker(),
        "by_corpus": {
            name: {**table.metrics(), **uar_interval(table)}
            for name, table in corpora.items()
            if len(corpora) > 1 and table.labelled.any()
        },
    }


def uar_interval(table: PredictionTable) -> dict[str, Any]:
    """Return the keys ``uar_interval`` and ``uar_interval_by`` of a record.

    ``uar_interval`` is two bounds or None. ``uar_interval_by`` is the method, or why there is no
    interval. Older records lack the second key. Their interval is a percentile bootstrap, which is
    too narrow with few speakers, so it is not shown.
    """
    found = jackknife(table)
    if isnan(found.low):
        return {"uar_interval": None, "uar_interval_by": found.note}
    by = f"jackknife over {found.n_speakers} speakers"
    by += f"; {found.note}" if found.note else ""
    return {"uar_interval": [found.low, found.high], "uar_interval_by": by}


def interval_text(metrics: Mapping[str, Any]) -> str:
    """Return the text after a UAR, in brackets: its interval, or why there is none."""
    by = metrics.get("uar_interval_by")
    if by is None:
        return "(no interval: the record is older than the jackknife)"
    if metrics["uar_interval"] is None:
        return f"({by})"
    low, high = metrics["uar_interval"]
    if low == high:  # this looks like certainty, but it only means that no spread was observed
        return f"(95 % interval of no width: all speakers scored alike; {by})"
    return f"(95 % interval {low:.3f} to {high:.3f}, {by})"
