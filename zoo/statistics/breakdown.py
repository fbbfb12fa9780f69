"""What a metric depends on: sub-groups of speakers, seeds and folds, and ranks over blocks.

:func:`sub_groups` gives a metric and recalls by gender, speaker, language or duration.
:func:`variance_split` splits the variance of a metric into seeds, folds and speakers.
:func:`average_ranks` ranks heads over blocks, with Friedman's test and Nemenyi's critical
difference.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..core.errors import ComparisonError, DataError
from .rates import FloatArray, recalls_of
from .speakers import (
    Interval,
    Metric,
    by_speaker,
    check_level,
    check_same,
    jackknife,
    labelled_speakers,
    left_out,
    metric_of,
)
from .table import PredictionTable


@dataclass(frozen=True)
class Group:
    """A row of a sub-group table.

    Attributes:
        name: value of the attribute, or its range.
        n: number of labelled utterances.
        score: metric of the table, with interval; if there is none, its note says why. UAR and
            macro-F1 are means over the classes present.
        recalls: recalls of the classes present.
        absent: classes that no utterance of the group has.
        note: a remark on the row, or "".
    """

    name: str
    n: int
    score: Interval
    recalls: dict[str, float]
    absent: list[str]
    note: str


@dataclass(frozen=True)
class SubGroups:
    """A table of groups by one attribute.

    Attributes:
        attribute: name of the attribute.
        groups: the rows, sorted by name, or from low to high.
        worst: name of the group with the lowest score; None if fewer than two groups can be
            compared.
        gap: highest score minus lowest; NaN if fewer than two groups can be compared. With many
            small groups it is large by chance alone, so read it with the intervals.
        unstated: number of labelled utterances whose attribute is unknown; they are in no group.
        left_out: names of the groups that are left out of ``worst`` and ``gap``.
        note: why they are left out, or "".
    """

    attribute: str
    groups: list[Group]
    worst: str | None
    gap: float
    unstated: int
    left_out: list[str]
    note: str


def sub_groups(
    table: PredictionTable,
    attributes: Mapping[str, Mapping[str, Any]],
    attribute: str,
    metric: str = "uar",
    *,
    level: float = 0.95,
) -> SubGroups:
    """Return a metric and recalls by an attribute of the utterances.

    Intervals come from :func:`.speakers.jackknife`, because groups have few speakers. A mean over
    fewer classes cannot be compared. So a group that lacks a class of the table is only shown. It
    does not count for the worst group and the gap, unless the metric is ``wa``.

    Args:
        table: predictions; unlabelled utterances are ignored.
        attributes: the attributes of each id of the table. A float (seconds, years) is cut at the
            terciles of the labelled utterances. Any other value is a group by its ``str``. None,
            NaN and "" mean "not stated". ``speaker`` is read from the table, and "" means "not
            stated" there.
        attribute: name of the attribute.
        metric: ``uar``, ``wa`` or ``macro_f1``.
        level: nominal coverage of the intervals.

    Raises:
        DataError: if an utterance has no attributes, or no utterance has this attribute. Also if
            numbers are mixed with names, or no utterance is labelled.
    """
    rows = np.flatnonzero(table.labelled)
    if not len(rows):
        raise DataError(
            f"none of {len(table)} utterances is labelled, so there are no groups; evaluate on "
            "labelled speech"
        )
    values = _values(table, attributes, attribute, rows)
    groups = _members(rows, values)
    if not groups:
        raise DataError(
            f"no utterance states its {attribute}; "
            f"have {', '.join(sorted({k for a in attributes.values() for k in a})) or 'none'}"
        )
    present = set(table.labels[rows].tolist())
    found = [
        _group(name, table, members, present, metric, level) for name, members in groups.items()
    ]
    asked = {table.classes[i] for i in present if metric != "wa"}
    whole = [g for g in found if not asked & set(g.absent)]
    others = [g for g in found if g not in whole]
    note = "; ".join(f"{g.name}: {g.note}" for g in others)
    worst, gap = None, nan
    if len(whole) > 1:
        ordered = sorted(whole, key=lambda g: g.score.value)
        worst, gap = ordered[0].name, ordered[-1].score.value - ordered[0].score.value
    unstated = len(rows) - sum(g.n for g in found)
    note = note and f"not in the gap: {note}"
    return SubGroups(attribute, found, worst, gap, unstated, [g.name for g in others], note)


def _values(
    table: PredictionTable,
    attributes: Mapping[str, Mapping[str, Any]],
    attribute: str,
    rows: np.ndarray[Any, Any],
) -> list[Any]:
    if attribute == "speaker":
        return [table.speakers[i] for i in rows]
    if missing := [table.ids[i] for i in rows if table.ids[i] not in attributes]:
        raise DataError(
            f"{len(missing)} of {len(rows)} utterances have no attributes (first: {missing[0]}); "
            "take them from the manifest that was tested"
        )
    return [attributes[table.ids[i]].get(attribute) for i in rows]


def _members(rows: np.ndarray[Any, Any], values: list[Any]) -> dict[str, list[int]]:
    """Return the rows of each group; groups are sorted by name, or from low to high."""
    stated = [
        (int(i), v)
        for i, v in zip(rows, values, strict=True)
        if v is not None and v != "" and (not isinstance(v, float) or isfinite(v))
    ]
    numbers = [isinstance(v, float) for _, v in stated]
    groups: dict[str, list[int]] = {}
    if stated and all(numbers):
        low, high = np.quantile([v for _, v in stated], [1 / 3, 2 / 3])
        names = f"up to {low:.3g}", f"{low:.3g} to {high:.3g}", f"above {high:.3g}"
        for i, v in sorted(stated, key=lambda pair: (pair[1], pair[0])):
            groups.setdefault(names[int(v > low) + int(v > high)], []).append(i)
        return groups
    if any(numbers):
        raise DataError(
            f"an attribute is a number for {sum(numbers)} of {len(numbers)} utterances and a name "
            "for the others; give numbers to all, or names"
        )
    for i, v in sorted(stated, key=lambda pair: (str(pair[1]), pair[0])):
        groups.setdefault(str(v), []).append(i)
    return groups


def _group(
    name: str,
    table: PredictionTable,
    members: list[int],
    present: set[int],
    metric: str,
    level: float,
) -> Group:
    part = table.subset(members)
    score, recalls = jackknife(part, metric, level=level), recalls_of(part.confusion())
    absent = [i for i, r in enumerate(recalls) if not np.isfinite(r)]
    notes = []
    if lacking := [table.classes[i] for i in absent if i in present]:
        of = "" if metric == "wa" else f": a mean over {len(recalls) - len(absent)} classes"
        notes.append(f"no {', '.join(lacking)}{of}")
    if score.note:
        notes.append(score.note)
    return Group(
        name,
        len(members),
        score,
        {c: float(r) for c, r in zip(table.classes, recalls, strict=True) if np.isfinite(r)},
        [table.classes[i] for i in absent],
        "; ".join(notes),
    )


class Components(NamedTuple):
    """Variances of a seeds-by-folds table of values; NaN if there is one seed or one fold.

    The estimates are unbiased, so an estimate near zero may be negative.

    Attributes:
        seeds: variance between seeds, the same in every fold.
        folds: variance between folds, the same for every seed.
        residual: remaining variance of a seed in a fold.
    """

    seeds: float
    folds: float
    residual: float


class Variance(NamedTuple):
    """The sources of the variance of one run's metric (one seed, one fold).

    Attributes:
        mean: mean over seeds and folds.
        seeds: variance between seeds, the same in every fold.
        folds: variance between folds, the same for every seed.
        residual: remaining variance of a seed in a fold.
        speakers: the part of ``folds`` that is due to the tested speakers; the rest is due to the
            training speakers. NaN if no fold tests two speakers, or if a speaker is unknown.
        n_seeds: number of seeds.
        n_folds: number of folds.
        n_speakers: number of known speakers tested, over all folds.
        note: the sources that could not be separated, or "".
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
        """Return each variance as a share of the known total; ``speakers`` is a part of ``folds``.

        Negative estimates count as 0. A share is NaN if its variance is unknown, or if the total
        is 0.
        """
        parts = {k: _known(getattr(self, k)) for k in ("seeds", "folds", "residual")}
        total = float(np.nansum(list(parts.values())))
        if not total > 0:
            return dict.fromkeys([*parts, "speakers"], nan)
        within = _known(self.speakers)
        parts["speakers"] = min(within, parts["folds"]) if within == within else nan
        return {k: v / total for k, v in parts.items()}


def _known(variance: float) -> float:
    """Return 0 for a negative estimate, and NaN for NaN."""
    return variance if variance != variance else max(0.0, variance)


def crossed_components(values: FloatArray) -> Components:
    """Split the variance of ``[S, F]`` values of S seeds in F folds, both random draws.

    This is the ANOVA estimator for two-way crossed random effects without replication. It equates
    mean squares to their expectations (Searle, Casella & McCulloch 1992, chapter 4). With one seed
    only the sum of folds and residual is known; it is returned as folds. With one fold the sum of
    seeds and residual is returned as seeds.

    Raises:
        DataError: if a value is not finite.
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

    :func:`crossed_components` gives seeds and folds. The part of the speakers comes from the
    jackknife, which leaves each speaker out of its fold. The covariance of two seeds'
    values is averaged over pairs of seeds and over folds. It is the variance due to the speakers
    alone: the interaction of seed and speaker cancels (our choice). With one seed it is the
    jackknife variance, which includes this interaction.

    Raises:
        ComparisonError: if a fold lacks a seed that another fold has, or its seeds test different
            utterances.
        DataError: if no utterance is labelled. Also if a class is absent in a fold and the metric
            is a mean over classes.
    """
    if not tables:
        raise DataError(
            "found no tables to split the variance of; give one for each fold and each seed"
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
                "other classes than in other folds; split the variance of wa, or merge folds"
            )
    score = metric_of(metric)
    values = np.stack([score(p.sum(1)) for p in parts], axis=1)
    found = crossed_components(values)
    apart = [] if unknown else [p for p in parts if p.shape[1] > 1]
    each = [shared_variance(p, metric) for p in apart]
    speakers = float(np.mean(each)) if each else nan
    notes = []
    if len(seeds) < 2:
        notes.append("one seed: the part of folds includes the residual, that of seeds is unknown")
    if len(folds) < 2:
        notes.append("one fold: the part of seeds includes the residual, that of folds is unknown")
    if not each:
        why = "not every speaker is known" if unknown else "one speaker per fold"
        notes.append(f"{why}: speakers and folds cannot be separated")
    alone = sum(bool(((p[0].sum(-1) > 0).sum(0) == 1).any()) for p in apart)
    if alone and metric != "wa":
        notes.append(
            f"in {alone} folds a class has only one speaker: without this speaker the mean is over "
            "other classes, so the part of speakers is too large"
        )
    return Variance(
        float(values.mean()), *found, speakers, len(seeds), len(folds), total, "; ".join(notes)
    )


def shared_variance(confusions: FloatArray, metric: Metric) -> float:
    """Return the variance due to the speakers that S seeds share.

    Args:
        confusions: ``[S, G, C, C]``, of G > 1 speakers.
        metric: as for :func:`.speakers.jackknife`.
    """
    without = np.stack([metric_of(metric)(left_out(c)) for c in confusions])
    away = without - without.mean(1, keepdims=True)
    s, g = without.shape
    covariance = (g - 1) / g * (away @ away.T)
    if s == 1:
        return float(covariance[0, 0])
    return float((covariance.sum() - np.trace(covariance)) / (s * (s - 1)))


# Ranks of heads over blocks, after Demšar 2006. A block is a corpus, or a fold and seed of one, on
# which every head was run once. Friedman's test assumes independent blocks. Corpora are
# independent. **Folds of one corpus are not** (their training sets overlap), and seeds share
# everything but the draw. With such blocks the critical difference is too small and p is too low.
# Then use the ranks only as a description, and judge by speakers (``answers`` in contrasts.py).

Block = TypeVar("Block", bound=Hashable)


class Ranks(NamedTuple):
    """Heads by average rank, the best first.

    Attributes:
        heads: names of the heads.
        ranks: average rank of each head; 1 is best, and equal values share a rank.
        n_blocks: number of blocks.
        chi2: Friedman's statistic, corrected for ties; NaN if all heads tie in every block.
        p: p value of ``chi2``, at (heads - 1) degrees of freedom.
        f: Iman and Davenport's statistic; infinite if all blocks have the same ranks.
        f_p: p value of ``f``, which is less conservative.
        critical: critical difference (Nemenyi); smaller differences of ranks are not significant.
        level: 1 minus the significance level of ``critical``.
        groups: the largest sets of neighbours in ``heads`` that do not differ significantly; []
            if there are none.
    """

    heads: list[str]
    ranks: list[float]
    n_blocks: int
    chi2: float
    p: float
    f: float
    f_p: float
    critical: float
    level: float
    groups: list[list[str]]


def average_ranks(scores: Mapping[str, Mapping[Block, float]], *, level: float = 0.95) -> Ranks:
    """Rank the heads in each block and return their average ranks.

    Sources: Friedman 1937 (statistic), Iman & Davenport 1980 (F), Nemenyi 1963 (critical
    difference), as in Demšar 2006, sections 3.2.2 and 3.2.3.

    Args:
        scores: for each head, its value in each block; higher is better.
        level: 1 minus the significance level of the critical difference.

    Raises:
        ComparisonError: if a head lacks a block that another has, or there are fewer than two
            heads.
        DataError: if a value is not finite, or there are no blocks.
    """
    from scipy.special import chdtrc, fdtrc
    from scipy.stats import rankdata

    check_level(level)
    values = _matrix(scores)
    n, k = values.shape
    placed = rankdata(-values, axis=1)
    mean = placed.mean(0)
    # spread of ranks within blocks; without ties it is k (k² - 1) / 12 per block
    spread = float(((placed - (k + 1) / 2) ** 2).sum())
    chi2 = p = f = f_p = nan
    if spread > 0:
        chi2 = float((k - 1) * n**2 * ((mean - (k + 1) / 2) ** 2).sum() / spread)
        p = float(chdtrc(k - 1, chi2))
        if n > 1:
            below = n * (k - 1) - chi2
            f = (n - 1) * chi2 / below if below > 1e-9 else inf
            f_p = float(fdtrc(k - 1, (k - 1) * (n - 1), f)) if f < inf else 0.0
    critical = critical_difference(k, n, level=level)
    names = list(scores)
    order = [int(i) for i in np.argsort(mean, kind="stable")]
    heads, ranks = [names[i] for i in order], [float(mean[i]) for i in order]
    groups = _groups(heads, ranks, critical)
    return Ranks(heads, ranks, n, chi2, p, f, f_p, critical, level, groups)


def critical_difference(heads: int, blocks: int, *, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference, ``q * sqrt(k (k + 1) / 6 N)``.

    k is the number of heads, N that of blocks (Demšar 2006, equation in section 3.2.2). ``q`` is
    the studentised range for infinite degrees of freedom, divided by the root of two.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(level, heads, inf)) / sqrt(2)
    return q * sqrt(heads * (heads + 1) / (6 * blocks))


def _matrix(scores: Mapping[str, Mapping[Block, float]]) -> FloatArray:
    if len(scores) < 2:
        raise ComparisonError(f"found {len(scores)} heads to rank; give at least 2")
    blocks = list(dict.fromkeys(b for of in scores.values() for b in of))
    if not blocks:
        raise DataError(
            f"found nothing to rank: none of the heads {', '.join(scores)} has a value; finish "
            "their cells first"
        )
    for head, of in scores.items():
        if missing := [b for b in blocks if b not in of]:
            raise ComparisonError(
                f"refusing to rank: {head} lacks {len(missing)} of {len(blocks)} blocks "
                f"(first: {missing[0]}); finish its cells, or leave these blocks out for all"
            )
    values = np.array([[of[b] for of in scores.values()] for b in blocks], dtype=np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"the value of {list(scores)[column]} in block {blocks[row]} is "
            f"{values[row, column]}; run it again, or leave the block out for all"
        )
    return values


def _groups(heads: list[str], ranks: list[float], critical: float) -> list[list[str]]:
    found: list[list[str]] = []
    last = 0
    for i in range(len(heads)):
        end = max(j for j in range(i, len(heads)) if ranks[j] - ranks[i] < critical) + 1
        if end - i > 1 and end > last:
            found.append(heads[i:end])
            last = end
    return found
