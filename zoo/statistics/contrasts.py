"""Verdicts on the differences of a table: better, worse, equivalent, undecided or identical.

:func:`answers` takes all contrasts of one corpus. Each is a function of confusions by training and
cluster. :func:`difference` is the metric of one head minus that of another. :func:`interaction` is
what a head loses under a condition beyond what the baseline loses. There are two questions, and
each answer has both:

* **These models**: the clusters are a sample, the trainings are fixed. The jackknife gives each
  cluster a value (its influence), and the test flips the signs of clusters. The flips are the
  same for all contrasts. So the step-down max-T of Westfall and Young (1993) corrects for the
  family and uses how alike its heads are. The interval is the test's inversion.
* **New trainings**: clusters and trainings are both samples. The variance of the mean of the
  crossed table is ``(MS_cluster + MS_training - MS_rest) / (S G)``. Both marginal mean squares
  hold the rest, so it is subtracted once, from that with more values (:func:`parts_of`). Clusters
  and trainings have Student's quantiles at their own degrees of freedom. Their half widths are
  added by a power (:func:`half_width`). With two trainings there is one degree of freedom, and the
  quantile is 12.7. So the interval is wide unless trainings hardly differ. The family is corrected
  by the step-down minimum of p values that correlate as the contrasts do.

``benchmarks/error_rates.py`` simulates 4 to 90 clusters, 1 to 10 trainings and families of 1 to 8
heads. ``benchmarks/results/coverage.json`` has the rates. For 95 % intervals and tests at 0.05 it
says:

* These models, from 6 clusters on: intervals hold for 0.94 to 0.98 of true values. Those of a
  family hold for all its heads in 0.94 to 0.99 of families. At most 0.06 of families raise a false
  alarm (standard error 0.007). That case, 8 heads on 10 clusters, gave 0.049 in 12,000 families.
* These models, up to 5 clusters: **no interval, and no p below 0.05**, whatever the difference. The
  smallest p is 0.125 with 4 clusters. An answer's note says so.
* New trainings: intervals hold for 0.97 of true values with 2 trainings. It is 0.96 with 3 and 5,
  and 0.95 with 10. Those of a family hold for all its heads in 0.95 to 0.98 of families. At most
  0.05 of families raise a false alarm, within the standard error of 0.006. Trainings had no effect
  of their own, a small or a large one, or a large one in one head. One training has no interval.
* By integration over ratios of the variances, intervals for new trainings hold for 0.949 of true
  values or more. They hold for at most 0.985 with 2 trainings, 0.979 with 3 and 0.973 with more.
* More than 0.97 is stated as 0.98 by an answer's note. So what is stated holds within 0.02. Such
  are 2 trainings with up to 10 clusters, which hold for 0.971 to 0.981. Families with 2 trainings
  hold for 0.975, and 3 trainings on 4 clusters for 0.971. ``notes`` of the file names each.
* Few trainings cost power. A true difference of 0.1 in a family of 8 is found in 0.03 of cases with
  2 trainings. It is 0.11 with 3, 0.45 with 5 and 0.61 with 10 (mean over numbers of clusters). For
  these models it is 0.07 with 6 clusters, 0.35 with 10 and 0.82 with 24. Found is a p up to 0.05.

**An interval for new trainings may be narrower than that for these models**, if its trainings are
alike by chance. Otherwise it holds too often: if trainings never narrow it, for up to 0.986 with 2
trainings. It is 0.976 with 3 and 0.968 with 5. No rule has less (linear programming in
``error_rates.py``). With 2 trainings a rule below 0.97 needs intervals 0.7 to 0.8 times as wide. So
intervals and p have the stated rate over all tables. In a table whose trainings agree by chance,
that is not enough. There the verdict must hold for these models, too, and a note says so.

The variance of trainings is not pooled over heads, because one head may be unstable. With 3
trainings, 24 clusters and 8 heads, a pooled variance raised false alarms in 0.11 of 1500 families.
Quantiles at Satterthwaite's degrees of freedom hold for too few. In the worst case it is 0.87 with
2 trainings, 0.92 with 3 and 0.94 with 5.

Clusters of the simulation are normal and of equal size. Other ones may do worse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import ComparisonError, ConfigError, suggest
from .rates import FloatArray
from .speakers import Key, Metric, by_speaker, metric_of, unknown_rule
from .table import PredictionTable

EXACT = 12
CLUSTERS = ("speaker", "session", "dialogue")
NEW, THESE = "new trainings", "these models"
LEAST_P = 1e-14  # smaller ones are not computed
UNDECLARED = "not a declared question: uncorrected"
IDENTICAL = "identical"
# Some 95 % intervals hold this often in the simulation, within 0.02
# (benchmarks/results/coverage.json). For new trainings :func:`_wide` says which. For these models
# they are those of a family on FEW clusters.
HELD = 0.98
FEW = 6


class Contrast(NamedTuple):
    """A number that compares cells of a table.

    Attributes:
        cells: confusions by training and cluster, ``[S, G, C, C]`` each. G is the same for all
            contrasts of a family, in the same order of clusters.
        of: function of the metric's values of the cells, ``[...]`` each, to ``[...]`` values.
        unknown: confusions of the utterances of no known cluster, ``[S, C, C]`` for each of
            ``cells``; empty if every cluster is known. See :func:`clusters_of`.
    """

    cells: tuple[FloatArray, ...]
    of: Callable[..., FloatArray]
    unknown: tuple[FloatArray, ...] = ()


class Span(NamedTuple):
    """Uncertainty of a contrast; every number is NaN if it does not exist.

    ``p`` is at most ``1 - level`` if and only if ``low`` to ``high`` excludes zero. If the
    family's interval excludes zero, ``p_family`` is at most ``1 - level``. The reverse may fail,
    because ``p_family`` steps down: a contrast is not compared with those that are clearer.

    Attributes:
        low: lower bound of the contrast's own interval.
        high: upper bound.
        p: two-sided p of the contrast alone.
        p_family: p corrected for the family; equal to ``p`` for an undeclared contrast.
        low_family: lower bound of the interval that holds for all of the family at once.
        high_family: upper bound.
        error: standard error.
        df: degrees of freedom.
    """

    low: float = nan
    high: float = nan
    p: float = nan
    p_family: float = nan
    low_family: float = nan
    high_family: float = nan
    error: float = nan
    df: float = nan


@dataclass(frozen=True)
class Answer:
    """A contrast with its uncertainty and its verdict.

    Attributes:
        value: the contrast, as the mean over trainings.
        smallest_p: the smallest p, corrected or not, that the flips of these clusters can give.
        detectable: the smallest true difference found with ``power`` at the family's level. NaN if
            no difference of any size can be found.
        power: how often a difference of that size is found.
        level: nominal coverage; 1 minus the significance level.
        margin: largest difference that counts as equivalent.
        n_clusters: number of clusters.
        n_seeds: number of trainings.
        cluster: what a cluster is: ``speaker``, ``session`` or ``dialogue``.
        verdict: ``better``, ``worse``, ``equivalent``, ``undecided`` or ``identical``.
        basis: the span that the verdict uses: ``new trainings``, or ``these models``.
        note: why there is no interval, why no p can be significant, and the like; or "".
        these: the span over clusters, for these trained models.
        new: the span over clusters and trainings; NaN with one training.
    """

    value: float
    smallest_p: float
    detectable: float
    power: float
    level: float
    margin: float
    n_clusters: int
    n_seeds: int
    cluster: str
    verdict: str
    basis: str
    note: str
    these: Span
    new: Span


def difference(a: FloatArray, b: FloatArray, *, unknown: tuple[FloatArray, ...] = ()) -> Contrast:
    """Return the contrast "metric of ``a`` minus that of ``b``"; ``[S, G, C, C]`` each.

    ``unknown`` is as in :class:`Contrast`.
    """
    return Contrast((a, b), lambda x, y: x - y, unknown)


def interaction(
    head: FloatArray,
    head_clean: FloatArray,
    base: FloatArray,
    base_clean: FloatArray,
    *,
    chance: float | None = None,
    unknown: tuple[FloatArray, ...] = (),
) -> Contrast:
    """Return how much more a head keeps under a condition than the baseline keeps.

    Args:
        head: the head's ``[S, G, C, C]`` confusions under the condition.
        head_clean: the head's without it.
        base: the baseline's under the condition.
        base_clean: the baseline's without it.
        chance: if given, each keeps a share of its clean value above chance. The contrast is
            then the difference of the shares. It is NaN if a clean value is not above
            chance. Otherwise the contrast is the difference of the losses.
        unknown: as in :class:`Contrast`, in the order of these four.
    """

    def loss(a: FloatArray, a_clean: FloatArray, b: FloatArray, b_clean: FloatArray) -> FloatArray:
        return (a - a_clean) - (b - b_clean)

    def share(a: FloatArray, a_clean: FloatArray, b: FloatArray, b_clean: FloatArray) -> FloatArray:
        return _above(a, a_clean, chance or 0.0) - _above(b, b_clean, chance or 0.0)

    cells = (head, head_clean, base, base_clean)
    return Contrast(cells, loss if chance is None else share, unknown)


def _above(value: FloatArray, clean: FloatArray, chance: float) -> FloatArray:
    room = np.asarray(clean - chance, dtype=np.float64)
    out = np.full(room.shape, np.nan)
    np.divide(value - chance, room, out=out, where=room > 1e-9)
    return out


def answers(
    contrasts: Mapping[Key, Contrast],
    metric: Metric = "uar",
    *,
    margin: float = 0.03,
    level: float = 0.95,
    power: float = 0.8,
    primary: Collection[Key] | None = None,
    cluster: str = "speaker",
    why: str = "",
    draws: int = 10_000,
    seed: int = 0,
) -> dict[Key, Answer]:
    """Return the answer to each contrast of one family: one corpus, all its heads and conditions.

    ``better`` and ``worse`` need a family-corrected p of at most ``1 - level``. ``equivalent``
    needs the simultaneous interval at ``1 - 2 (1 - level)`` within the margin (two one-sided
    tests). Everything else is ``undecided``. The verdict is about new trainings if there are two
    or more, and about these models otherwise. If the interval for new trainings is narrower than
    Student's over clusters alone, the verdict must be that of both. Two rows with the same
    confusions in every training and cluster are ``identical``, which no test has to show.
    Trainings with the same confusions count as one, because they do not say how others differ.

    With up to 12 clusters, all sign flips are tried, so no p is below ``2 / 2^clusters``.
    Otherwise ``draws`` random ones are, and the observed signs count as one of them.

    Args:
        contrasts: contrasts by key. Trainings of the cells of one contrast are matched by their
            order. If their numbers differ, values are averaged and count as one training.
        metric: ``uar``, ``wa``, ``macro_f1``, or a function ``[..., C, C] -> [...]``.
        margin: largest difference that counts as equivalent.
        level: nominal coverage, 0 to 1.
        power: power of the detectable difference, 0 to 1.
        primary: keys of the declared questions. Only these are corrected, for each other; all by
            default. An undeclared contrast has its own p and never changes that of another.
        cluster: what a cluster is: ``speaker``, ``session`` or ``dialogue``.
        why: the reason why no interval exists, or "".
        draws: number of random flips, and of draws for the minimum of p values.
        seed: seed of both.

    Raises:
        ComparisonError: if shapes of cells do not fit together.
        ConfigError: if an argument is out of its range, or ``primary`` names an unknown key.
    """
    _check(contrasts, margin, level, power, primary, cluster, draws)
    if not contrasts:
        return {}
    score = metric_of("f1" if metric == "macro_f1" else metric)
    tables = {key: influences(c, score) for key, c in contrasts.items()}
    repeated = [k for k, c in contrasts.items() if len(tables[k]) > 1 and _one_training(c)]
    trainings = {key: len(table) for key, table in tables.items()}
    tables |= {key: tables[key][:1] for key in repeated}
    g = next(iter(contrasts.values())).cells[0].shape[1]
    no_test = why or (f"one {cluster}" if g < 2 else "")
    usable = [k for k, u in tables.items() if not no_test and np.isfinite(u).all()]
    family = [k for k in usable if primary is None or k in primary]
    alpha = round(1 - level, 12)  # 1 - 0.9 is less than the p of 50 in 500 flips
    flips = _flips(g, draws, seed) if usable else np.ones((1, g))
    these: dict[Key, _Inside] = {}
    new: dict[Key, _Inside] = {}
    for keys in [family, *([k] for k in usable if k not in family)]:
        if not keys:
            continue
        x = np.stack([tables[k].mean(0) for k in keys])
        these.update(zip(keys, _by_flips(x, flips, alpha), strict=True))
        crossed = [k for k in keys if len(tables[k]) > 1]
        if crossed:
            found = _by_trainings([tables[k] for k in crossed], alpha, draws, seed)
            new.update(zip(crossed, found, strict=True))
    out = {}
    for key, table in tables.items():
        basis = NEW if len(table) > 1 else THESE
        inside = (new if basis == NEW else these).get(key, _Inside())
        value = float(table.mean())
        notes = [f"{no_test}: no interval and no test"] if no_test else []
        if not no_test and key not in usable:
            notes.append("the contrast is not a finite number: no interval and no test")
        trained = sorted({len(cell) for cell in contrasts[key].cells})
        if len(trained) > 1:
            notes.append(
                f"its cells have {' and '.join(map(str, trained))} trainings, which do not pair: "
                "their means are compared, as one training"
            )
        if key in repeated:
            notes.append(f"its {trainings[key]} trainings have identical predictions: one counts")
        same = _same_sides(contrasts[key])
        if same:
            notes.append("both rows have identical predictions")
        smallest = nan if key not in usable else 1 / len(flips)
        if smallest > alpha and not same:
            notes.append(f"{g} {cluster}s cannot give these models a p below {smallest:g}")
        wide = _wide(len(table), g, len(family) if key in family else 1)
        if wide and key in new and not inside.flat and not same:
            notes.append(
                f"with {len(table)} trainings and {g} {cluster}s, 95 % intervals for new trainings "
                f"hold about {HELD:.2f} of true values: they are too wide"
            )
        if basis == THESE and g == FEW and key in family and len(family) > 1 and not same:
            notes.append(
                f"with {g} {cluster}s, 95 % intervals hold for all heads in {HELD:.2f} of cases: "
                "they are too wide"
            )
        verdict = _verdict(value, inside, margin, alpha)
        detectable = _detectable(inside, power)
        if basis == NEW and key in new and _narrowed(inside.span, these[key].span, alpha):
            notes.append(
                "trainings are alike by chance: the verdict must hold for these models, too"
            )
            if verdict != _verdict(value, these[key], margin, alpha):
                verdict = "undecided"
            detectable = float(np.maximum(detectable, _detectable(these[key], power)))
        if inside.flat:
            notes.append(f"every {cluster} and training differs by the same amount: no test")
        if primary is not None and key not in primary:
            notes.append(UNDECLARED)
        out[key] = Answer(
            value=value,
            smallest_p=smallest,
            detectable=detectable,
            power=power,
            level=level,
            margin=margin,
            n_clusters=g,
            n_seeds=len(table),
            cluster=cluster,
            verdict=IDENTICAL if same else verdict,
            basis=basis,
            note="; ".join(notes),
            these=these.get(key, _Inside()).span,
            new=new.get(key, _Inside()).span,
        )
    return out


def _check(
    contrasts: Mapping[Key, Contrast],
    margin: float,
    level: float,
    power: float,
    primary: Collection[Key] | None,
    cluster: str,
    draws: int,
) -> None:
    if not 0.5 <= level < 1:
        raise ConfigError(f"level is {level}; give 0.5 or more and below 1, for example 0.95")
    if not 0 < power < 1:
        raise ConfigError(f"power is {power}; give a share between 0 and 1, for example 0.8")
    if not margin > 0:
        raise ConfigError(f"margin is {margin}; give a difference above 0, for example 0.03")
    if draws < 1:
        raise ConfigError(f"draws is {draws}; give at least 1")
    if cluster not in CLUSTERS:
        raise ConfigError(f"no cluster is called '{cluster}'{suggest(cluster, CLUSTERS)}")
    for key in primary or ():
        if key not in contrasts:
            names = [str(k) for k in contrasts]
            raise ConfigError(f"primary names '{key}'{suggest(str(key), names)}")
    shapes = {key: [np.shape(cell) for cell in c.cells] for key, c in contrasts.items()}
    first = next((s[0] for s in shapes.values() if s), ())
    for key, found in shapes.items():
        if any(len(s) != 4 or s[1:] != first[1:] or not s[0] or not s[1] for s in found):
            raise ComparisonError(
                f"cells of contrast '{key}' have shapes {found}; give [trainings, clusters, "
                f"classes, classes] with the clusters and classes of all others: {first[1:]}"
            )
        wanted = [(s[0], *s[2:]) for s in found]
        unknown = [np.shape(u) for u in contrasts[key].unknown]
        if unknown and unknown != wanted:
            raise ComparisonError(
                f"unknown clusters of contrast '{key}' have shapes {unknown}; give [trainings, "
                f"classes, classes] for each of its cells: {wanted}"
            )


def influences(contrast: Contrast, score: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return ``[S, G]`` jackknife pseudo-values whose mean over clusters is each value exactly.

    Utterances of no known cluster count in the value. The spread is that of the known clusters,
    as if they were all of the test set.
    """
    unknown = contrast.unknown or (np.zeros(()),) * len(contrast.cells)
    whole = [
        score(np.asarray(c).sum(1) + u) for c, u in zip(contrast.cells, unknown, strict=True)
    ]  # [S]
    without = [score(np.asarray(c).sum(1, keepdims=True) - c) for c in contrast.cells]  # [S, G]
    if len({len(v) for v in whole}) > 1:
        whole, without = (
            [v.mean(0, keepdims=True) for v in whole],
            [v.mean(0, keepdims=True) for v in without],
        )
    value, left = contrast.of(*whole), contrast.of(*without)
    if left.shape[1] < 2:  # without the one cluster nothing is left
        return np.asarray(value[:, None], dtype=np.float64)
    pseudo = -(left.shape[1] - 1) * left
    # the plain mean of pseudo-values corrects for bias, but the table prints the value itself
    out = pseudo - pseudo.mean(1, keepdims=True) + value[:, None]
    return np.asarray(out, dtype=np.float64)


def _one_training(contrast: Contrast) -> bool:
    """Whether all trainings have the same confusions in every cell."""
    return all((c == np.asarray(c)[:1]).all() for c in (*contrast.cells, *contrast.unknown))


def _same_sides(contrast: Contrast) -> bool:
    """Whether the first half of the cells has the same confusions as the second half."""
    halves = [
        (cells[: len(cells) // 2], cells[len(cells) // 2 :])
        for cells in (contrast.cells, contrast.unknown)
    ]
    return all(len(a) == len(b) and all(map(np.array_equal, a, b)) for a, b in halves)


class _Inside(NamedTuple):
    """A span, what :func:`_verdict` needs at twice the level, and the family's critical value."""

    span: Span = Span()
    low: float = nan
    high: float = nan
    critical: float = nan
    flat: bool = False


def _wide(trainings: int, clusters: int, family: int) -> bool:
    """Return whether 95 % intervals for new trainings hold for more than 0.97 of true values."""
    if trainings == 2:
        return clusters <= 10 or family > 1
    return trainings == 3 and clusters <= 4


def _narrowed(new: Span, these: Span, alpha: float) -> bool:
    """Whether an interval for new trainings is narrower than Student's over clusters."""
    from scipy.special import stdtrit

    alone = -2 * float(stdtrit(these.df, alpha / 2)) * these.error
    return new.high - new.low < alone * (1 - 1e-9)


def _verdict(value: float, inside: _Inside, margin: float, alpha: float) -> str:
    if inside.span.p_family <= alpha:
        return "better" if value > 0 else "worse"
    return "equivalent" if -margin <= inside.low and inside.high <= margin else "undecided"


def _detectable(inside: _Inside, power: float) -> float:
    from scipy.special import stdtrit

    span = inside.span
    if not np.isfinite(inside.critical) or not span.error > 0:
        return nan
    return float((inside.critical + stdtrit(span.df, power)) * span.error)


# Clusters of a table.


class Clusters(NamedTuple):
    """The clusters of a table's labelled utterances.

    Attributes:
        kind: what a cluster is: ``speaker``, ``session`` or ``dialogue``.
        of: cluster of each id; "" if it is unknown.
        names: G names of the known clusters, sorted.
        why: why no interval exists, or "". Give it to :func:`answers`.
        note: what a reader must know of unknown clusters, or "".
    """

    kind: str
    of: dict[str, str]
    names: list[str]
    why: str
    note: str


def clusters_of(
    table: PredictionTable,
    kind: str = "speaker",
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Clusters:
    """Return the clusters of a table; see :func:`.speakers.unknown_rule` for unknown ones.

    Args:
        table: predictions; unlabelled utterances are ignored.
        kind: what a cluster is; a property of the corpus (``CorpusInfo.cluster``).
        attributes: the attributes of each id. A session or dialogue is read from them, by its
            kind. An id without is of no known cluster. A speaker is read from the table.

    Raises:
        ConfigError: if no cluster is called so.
    """
    if kind not in CLUSTERS:
        raise ConfigError(f"no cluster is called '{kind}'{suggest(kind, CLUSTERS)}")
    known = attributes or {}
    of = {
        name: speaker if kind == "speaker" else str(known.get(name, {}).get(kind) or "")
        for name, speaker, labelled in zip(table.ids, table.speakers, table.labelled, strict=True)
        if labelled
    }
    names = sorted(set(of.values()) - {""})
    lost = sum(not cluster for cluster in of.values())
    return Clusters(kind, of, names, *unknown_rule(kind, len(names), lost, len(of)))


def confusions_of(
    tables: Sequence[PredictionTable], clusters: Clusters
) -> tuple[FloatArray, FloatArray]:
    """Return confusions of S trainings: ``[S, G, C, C]`` of known clusters, ``[S, C, C]`` of none.

    The two are ``cells`` and ``unknown`` of a :class:`Contrast`. Without a known cluster, all
    utterances are one cluster, so the value exists.

    Raises:
        ComparisonError: if a table's labelled utterances are not those of ``clusters``.
    """
    found = []
    for table in tables:
        ids = {i for i, known in zip(table.ids, table.labelled, strict=True) if known}
        if ids != clusters.of.keys():
            name = min(ids ^ clusters.of.keys())
            raise ComparisonError(
                f"refusing to compare: labelled utterances are not the same (first: {name}); test "
                "all on one part of one corpus"
            )
        grouped = replace(table, speakers=[clusters.of.get(i, "") for i in table.ids])
        found.append(by_speaker(grouped, [*clusters.names, ""]))
    each = np.stack(found)
    if not clusters.names:
        return each, np.zeros_like(each[:, 0])
    return each[:, :-1], each[:, -1]


# These models: sign flips of clusters.


def _flips(g: int, draws: int, seed: int) -> FloatArray:
    """Return ``[N, G]`` signs, the observed ones first.

    A flip and its opposite give the same two-sided statistic, so one of the two is enough.
    """
    if g <= EXACT:
        bits = np.arange(2 ** (g - 1))[:, None] >> np.arange(g) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (draws + 1, g))
        bits[0] = 0
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def _by_flips(x: FloatArray, flips: FloatArray, alpha: float) -> list[_Inside]:
    """Return the span of each of K contrasts from ``[K, G]`` influences."""
    g, n = x.shape[1], len(flips)
    t = _studentised(x, flips)  # [N, K]; row 0 is observed
    corrected = _step_down(t)
    most = _family_maxima(x, t, flips)
    out = []
    for k, u in enumerate(x):
        value, error = float(u.mean()), float(u.std(ddof=1)) / sqrt(g)
        lows, highs = _crossings(u, flips)
        p = float(((lows <= 0) & (highs >= 0)).sum()) / n
        own, both, wide = (_inverted(lows, highs, a) for a in (alpha, alpha, 2 * alpha))
        critical = _critical(most, alpha)
        if len(x) > 1:
            both = _hull(own, _around(value, critical * error))
            wide = _hull(wide, _around(value, _critical(most, 2 * alpha) * error))
        p_family = p if len(x) == 1 else max(p, float(corrected[k]))
        span = Span(*own, p, p_family, *both, error, g - 1.0)
        out.append(_Inside(span, *wide, critical))
    return out


def _studentised(x: FloatArray, flips: FloatArray) -> FloatArray:
    """Return ``[N, K]`` absolute t of each contrast under each flip.

    Flips leave the sum of squares as it is, so the error under a flip needs the mean only.
    """
    g = x.shape[1]
    mean = flips @ x.T / g
    squares = (x**2).sum(1)
    rest = squares - g * mean**2
    flat = rest <= 1e-10 * squares
    t = np.abs(mean) * sqrt(g * (g - 1)) / np.sqrt(np.where(flat, 1.0, np.maximum(rest, 0)))
    return np.asarray(np.where(flat, np.where(squares > 1e-24, inf, 0.0), t), dtype=np.float64)


def _family_maxima(x: FloatArray, t: FloatArray, flips: FloatArray) -> FloatArray:
    """Return ``[N]`` maxima over the family, whose quantiles are half widths in standard errors.

    If no head differs from the baseline, ``t`` gives them. If all heads truly differ, all their
    clusters have one sign. Flips then move all statistics together, and the maximum is too small.
    If 8 heads differ by 3 times the spread of clusters, 95 % intervals held for 0.86 of families.
    So each contrast is also centred on its own value. The larger of the two quantiles counts, so
    that no interval excludes zero without its p.
    """
    if len(x) == 1:
        return np.asarray(t[:, 0], dtype=np.float64)
    centred = _studentised(x - x.mean(1, keepdims=True), flips)
    centred[0] = inf  # the observed signs count as one of the flips
    both = np.maximum(np.sort(t.max(1)), np.sort(centred.max(1)))
    return np.asarray(both, dtype=np.float64)


def _step_down(t: FloatArray) -> FloatArray:
    """Return ``[K]`` corrected p of statistics ``[N, K]``; row 0 is observed.

    Algorithm 2.8 of Westfall & Young (1993): the k-th largest is compared with the maximum of
    itself and all smaller ones.
    """
    order = np.argsort(-t[0], kind="stable")
    most = np.maximum.accumulate(t[:, order[::-1]], axis=1)[:, ::-1]
    # equal statistics may differ in their last digits, because the order of the sum differs
    p = (most >= t[0, order] * (1 - 1e-9)).mean(0)
    out = np.empty(len(order))
    out[order] = np.maximum.accumulate(p)
    return out


def _critical(most: FloatArray, alpha: float) -> float:
    """Return the largest statistic that is not significant; inf if nothing can be."""
    k = int(alpha * len(most) + 1e-9)
    return inf if k < 1 else float(np.sort(most)[::-1][k])


def _crossings(u: FloatArray, flips: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ``[N]`` bounds of the null values for which each flip is as extreme as observed.

    A flip has two means: that of the clusters that it flips, and that of the others. It is at least
    as extreme as the observed signs if and only if the null value lies between them. All these
    ranges hold the observed mean, so the test's inversion is exact and needs no search.
    """
    kept = (flips > 0).sum(1)
    sums = flips @ u
    total = u.sum()
    moved = len(u) - kept
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (total + sums) / 2 / kept, (total - sums) / 2 / moved
    empty = (kept == 0) | (moved == 0)
    low = np.where(empty, -inf, np.minimum(a, b))
    high = np.where(empty, inf, np.maximum(a, b))
    return low.round(12).astype(np.float64), high.round(12).astype(np.float64)


def _inverted(lows: FloatArray, highs: FloatArray, alpha: float) -> tuple[float, float]:
    """Return the range of null values with a p above alpha; NaN if it has no end."""
    k = int(alpha * len(lows) + 1e-9)
    low, high = float(np.sort(lows)[k]), float(np.sort(highs)[::-1][k])
    return (low, high) if np.isfinite(low) and np.isfinite(high) else (nan, nan)


def _hull(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return the smallest interval that holds both; NaN if one of them has no end."""
    return float(np.minimum(a[0], b[0])), float(np.maximum(a[1], b[1]))


def _around(value: float, half: float) -> tuple[float, float]:
    # rounded, because a bound that should be 0 may come out as 1e-17 and exclude it
    return (round(value - half, 12), round(value + half, 12)) if np.isfinite(half) else (nan, nan)


# New trainings: clusters and trainings are random.


def _by_trainings(tables: list[FloatArray], alpha: float, draws: int, seed: int) -> list[_Inside]:
    """Return the span of each of K contrasts from their crossed ``[S, G]`` tables."""
    values = [float(u.mean()) for u in tables]
    found = [two_way(u) for u in tables]
    p = np.array([f.p(v) for v, f in zip(values, found, strict=True)])
    tested = np.flatnonzero(np.isfinite(p))
    corrected, stars = p.copy(), (alpha, 2 * alpha)
    if len(tested) > 1:
        lowest = _minima([tables[k] for k in tested], p[tested], draws, seed)
        corrected[tested] = lowest.p
        stars = (lowest.at(alpha), lowest.at(2 * alpha))
    out = []
    for value, parts, own_p, family_p in zip(values, found, p, corrected, strict=True):
        if np.isnan(own_p):
            out.append(_Inside(Span(error=0.0, df=parts.df), flat=True))
            continue
        own, both, wide = (_around(value, parts.half(a)) for a in (alpha, *stars))
        span = Span(*own, float(own_p), float(family_p), *both, parts.error, parts.df)
        critical = parts.half(stars[0]) / parts.error if parts.error else inf
        out.append(_Inside(span, *wide, critical))
    return out


class Parts(NamedTuple):
    """What the variance of the mean of an ``[S, G]`` table consists of, for :func:`half_width`.

    Rows or columns are called scarce if there are fewer of them; rows are if there are as many.

    Attributes:
        scarce: the mean square of the scarce ones, divided by ``S G``. It holds the rest, too.
        other: that of the others, without the rest; 0 if they vary no more than it.
        least: a ninth of that of the others, below which the sum never counts.
        df: degrees of freedom of ``other``.
    """

    scarce: Any
    other: Any
    least: Any
    df: Any


def parts_of(columns: Any, rows: Any, both: Any, s: int, g: int) -> Parts:
    """Return the parts of a variance from mean squares, each divided by ``S G``.

    Rows and columns both hold the rest, so it is subtracted once. The scarce ones keep it, because
    their quantile is the larger one. With the rest taken from rows, a family of 8 heads, 60
    clusters and 3 trainings raised 0.15 alarms.

    A difference of mean squares is less certain than the first of them. So its degrees of freedom
    are fewer (our choice): times ``(other / mean square)^e`` with ``e = (m - 1) / 2 (n - 1)`` for m
    scarce ones and n others. They are not below ``(m - 1) / 2`` and 1.

    Two trainings whose means are equal by chance would leave nothing. So half an interval is never
    below a third of the one by the others alone (``least``).

    Args:
        columns: mean square of columns, ``[...]``.
        rows: mean square of rows, ``[...]``.
        both: mean square of what neither explains, ``[...]``.
        s: number of rows.
        g: number of columns.
    """
    scarce, square = (rows, columns) if s <= g else (columns, rows)
    m, n = min(s, g), max(s, g)
    other = np.maximum(square - both, 0.0)
    share = other / np.maximum(square, 1e-300)
    df = np.clip((n - 1) * share ** ((m - 1) / 2 / (n - 1)), max(1.0, (m - 1) / 2), n - 1)
    return Parts(scarce, other, np.maximum(square, both) / 9, df)


def power_of_sum(s: int, g: int) -> float:
    """Return the q of :func:`half_width`."""
    return 2 + 6 / (min(s, g) - 1) ** 2


def half_width(parts: Parts, s: int, g: int, alpha: float) -> Any:
    """Return half the width of intervals at ``1 - alpha``, ``[...]``.

    Each part has Student's quantile at its own degrees of freedom. The half widths of both are
    added as ``(a^q + b^q)^(1/q)``. Howe (1974) has ``q = 2``. That is right for many trainings,
    and too wide for few, whose t has heavy tails. Here ``q`` is ``2 + 6 / (m - 1)^2`` for m scarce
    ones (our choice). ``benchmarks/error_rates.py`` integrates the coverage over ratios of the
    variances.
    """
    from scipy.special import stdtrit

    q = power_of_sum(s, g)
    a = np.sqrt(parts.scarce) * -stdtrit(min(s, g) - 1, alpha / 2)
    b = np.sqrt(parts.other) * -stdtrit(parts.df, alpha / 2)
    least = np.sqrt(parts.least) * -stdtrit(max(s, g) - 1, alpha / 2)
    return np.maximum((a**q + b**q) ** (1 / q), least)


class TwoWay(NamedTuple):
    """Variance of the mean of an ``[S, G]`` table whose rows and columns are both random.

    Attributes:
        parts: what it consists of.
        df: Satterthwaite's degrees of freedom of the sum, from ``min(S, G) - 1``.
        s: number of rows.
        g: number of columns.
    """

    parts: Parts
    df: float
    s: int
    g: int

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return sqrt(max(self.parts.scarce + self.parts.other, self.parts.least))

    def half(self, alpha: float) -> float:
        """Return half the width of the interval at ``1 - alpha``."""
        return float(half_width(self.parts, self.s, self.g, alpha))

    def p(self, value: float) -> float:
        """Return the alpha whose interval ends at zero; NaN if there is no spread to judge by."""
        from scipy.optimize import brentq
        from scipy.special import stdtr

        distance = abs(value)
        if not self.error:
            return 1.0 if distance < 1e-12 else nan
        if distance < 1e-12:
            return 1.0
        fewer, more = sorted((self.s, self.g))
        alone = [
            (self.parts.scarce, fewer - 1),
            (self.parts.other, self.parts.df),
            (self.parts.least, more - 1),
        ]

        def largest(scale: float) -> float:
            """Return the largest p of a part alone, at a share of the distance."""
            tails = [stdtr(df, -distance / scale / sqrt(v)) for v, df in alone if v > 0]
            return max(2 * float(max(tails)), LEAST_P)

        # the sum of two half widths is between the larger one and 2^(1/q) times it
        low, high = largest(1.0), largest(2 ** (1 / power_of_sum(self.s, self.g)))
        if self.half(low) <= distance:
            return low
        ends = np.log(low) - 1e-6, min(np.log(high) + 1e-6, 0.0)  # half widths are rounded
        root = brentq(lambda x: self.half(np.exp(x)) - distance, *ends, xtol=1e-9)
        return min(1.0, float(np.exp(root)))


def two_way(u: FloatArray) -> TwoWay:
    """Return the variance of the mean of an ``[S, G]`` table with at least two of each."""
    s, g = u.shape
    rows, columns = u.mean(1), u.mean(0)
    rest = u - rows[:, None] - columns + u.mean()
    squares = (
        float(columns.var(ddof=1)) / g,
        float(rows.var(ddof=1)) / s,
        float((rest**2).sum()) / ((s - 1) * (g - 1)) / (s * g),
    )
    if max(squares) < 1e-24:
        return TwoWay(Parts(0.0, 0.0, 0.0, 1.0), min(s, g) - 1.0, s, g)
    freedom = (g - 1, s - 1, (s - 1) * (g - 1))
    spread = sum(x**2 / n for x, n in zip(squares, freedom, strict=True))
    parts = Parts(*map(float, parts_of(*squares, s, g)))
    found = TwoWay(parts, nan, s, g)
    return found._replace(df=max(found.error**4 / spread, min(s, g) - 1.0))


class _Minima(NamedTuple):
    p: FloatArray
    lowest: FloatArray

    def at(self, alpha: float) -> float:
        """Return the p below which the lowest of the family lies in ``alpha`` of draws."""
        share = alpha / self.p.size  # Bonferroni's, which always holds
        return max(share, min(alpha, float(np.quantile(self.lowest, alpha))))


def _minima(tables: list[FloatArray], p: FloatArray, draws: int, seed: int) -> _Minima:
    """Correct p values by the step-down minimum of p values that correlate as the tables do.

    A Gaussian copula: draws are normal with the correlation of the means. Holm's correction holds
    whatever the correlation, so it bounds the result. Clusters give the correlation. Trainings
    are too few to give one, so their part counts as independent, which corrects more.
    """
    from scipy.special import ndtr

    g = tables[0].shape[1]
    columns = np.stack([u.mean(0) for u in tables])
    cov = np.cov(columns) / g
    cov = cov + np.diag([u.mean(1).var(ddof=1) / len(u) for u in tables])
    size = np.sqrt(np.diag(cov))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(cov / size / size[:, None])
    root = vectors * np.sqrt(np.maximum(values, 0))
    z = np.random.default_rng(seed).standard_normal((draws, len(p))) @ root.T
    drawn = 2 * ndtr(-np.abs(z))
    order = np.argsort(p, kind="stable")
    least = np.minimum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]
    joint = ((least <= p[order]).sum(0) + 1) / (draws + 1)
    holm = p[order] * np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(
        1.0, np.maximum.accumulate(np.maximum(p[order], np.minimum(joint, holm)))
    )
    return _Minima(out, drawn.min(1))
