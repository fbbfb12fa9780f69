"""Average ranks of heads over blocks, Friedman's test, Nemenyi's critical difference.

After Demšar 2006. A block is what every head was run on once: a corpus, or a fold and seed of one.
The test takes blocks as independent. Corpora are; **folds of one corpus are not** (their training
sets overlap), and seeds share everything but the draw, so with such blocks the critical difference
is too small and p too low. Then read the ranks as a description and judge by speakers
(:mod:`.permutation`, :mod:`.jackknife`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import inf, nan, sqrt
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import ComparisonError, DataError
from .clusters import check_level
from .rates import FloatArray

Block = TypeVar("Block", bound=Hashable)


class Ranks(NamedTuple):
    """Heads by average rank, the best first.

    Attributes:
        heads: names.
        ranks: average rank of each; 1 is best, equal values share a rank.
        n_blocks: over how many blocks.
        chi2: Friedman's statistic, corrected for ties; NaN where all heads tie in every block.
        p: of ``chi2``, at (heads - 1) degrees of freedom.
        f: Iman and Davenport's statistic; infinite where every block ranks alike.
        f_p: of ``f``, the less conservative one.
        critical: average ranks that differ by less are not told apart (Nemenyi).
        level: 1 minus the significance level of ``critical``.
        groups: the largest sets of heads not told apart, each a run of ``heads``; [] if none.
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
    """Rank heads in each block and average.

    Friedman 1937 (statistic), Iman & Davenport 1980 (F), Nemenyi 1963 (critical difference), as in
    Demšar 2006, sections 3.2.2 and 3.2.3.

    Args:
        scores: of each head, its value in each block; higher is better.
        level: 1 minus the significance level of the critical difference.

    Raises:
        ComparisonError: a head lacks a block that another has, or there are fewer than two heads.
        DataError: a value is not finite, or there are no blocks.
    """
    from scipy.special import chdtrc, fdtrc
    from scipy.stats import rankdata

    check_level(level)
    values = _matrix(scores)
    n, k = values.shape
    placed = rankdata(-values, axis=1)
    mean = placed.mean(0)
    # spread of ranks within blocks; equals k (k² - 1) / 12 per block where nothing ties
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
    """Nemenyi's ``q * sqrt(k (k + 1) / 6 N)`` for k heads and N blocks (Demšar 2006, eq. in 3.2.2).

    ``q`` is the studentised range for infinite degrees of freedom over the root of two.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(level, heads, inf)) / sqrt(2)
    return q * sqrt(heads * (heads + 1) / (6 * blocks))


def _matrix(scores: Mapping[str, Mapping[Block, float]]) -> FloatArray:
    if len(scores) < 2:
        raise ComparisonError(f"ranks of {len(scores)} heads say nothing; give at least two")
    blocks = list(dict.fromkeys(b for of in scores.values() for b in of))
    if not blocks:
        raise DataError(
            f"there is nothing to rank: none of the heads {', '.join(scores)} has a value; finish "
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
