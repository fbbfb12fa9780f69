"""Paired permutation test: were the two heads' answers exchanged, speaker by speaker?"""

from __future__ import annotations

from math import nan
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from .clusters import Metric, metric_of, paired_speakers, tested
from .metrics import PredictionTable
from .rates import FloatArray

EXACT = 4096


class Permutation(NamedTuple):
    """A difference and its two-sided p.

    Attributes:
        value: metric of the first table minus that of the second.
        p: NaN with one speaker, or with a speaker who is not known.
        smallest: the least p that this test can give with these speakers and swaps.
        exact: whether every swap was tried.
        n_speakers: who could be swapped.
        n_swaps: how many swaps were tried.
        note: what keeps the test from finding anything, or "".
    """

    value: float
    p: float
    smallest: float
    exact: bool
    n_speakers: int
    n_swaps: int
    note: str


def paired_permutation(
    a: PredictionTable,
    b: PredictionTable,
    metric: Metric = "uar",
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Permutation:
    """Test that two heads are the same, exchanging their predictions by speaker.

    All utterances of a speaker (of all seeds, in a pooled table) are exchanged together, because
    they are not independent. ``p`` is the share of exchanges with a difference at least as large
    in either direction: of all ``2^speakers`` up to 4096 of them, else of random ones, the
    observed one counted with them so that p is never 0 (Phipson & Smyth 2010). Needs no
    distribution; holds its level with any number of speakers, and with 5 or fewer cannot reach
    0.05.

    Args:
        a: predictions.
        b: predictions of the same utterances.
        metric: ``uar``, ``wa``, ``f1``, or a function of confusions ``[..., C, C] -> [...]``.
        draws: random exchanges, where there are too many for all of them.
        seed: of these.

    Raises:
        ComparisonError: when ids, labels, speakers or classes of the tables differ.
        DataError: when no utterance is labelled.
    """
    if draws < 1:
        raise ConfigError(f"draws is {draws}; want at least 1")
    score, (first, second) = metric_of(metric), paired_speakers(a, b)
    n, why = tested(a)
    value = float(score(first.sum(0)) - score(second.sum(0)))
    if why:
        return Permutation(value, nan, nan, True, n, 0, f"{why}: no test")
    exact = 2**n <= EXACT
    if exact:
        swaps = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (draws, n)).astype(np.float64)
    moved: FloatArray = np.tensordot(swaps, second - first, axes=1)
    found = score(first.sum(0) + moved) - score(second.sum(0) - moved)
    # sums in another order may leave 1e-17 between equal differences
    extreme = int((np.abs(found) >= abs(value) - 1e-12).sum())
    p = extreme / len(found) if exact else (extreme + 1) / (draws + 1)
    # exchanging the same answers changes nothing
    differing = int((first != second).any((1, 2)).sum())
    smallest = min(1.0, 2 / 2**differing) if exact else 1 / (draws + 1)
    note = ""
    if not differing:
        note = "the two answer alike for every speaker"
    elif smallest > 0.05:
        note = f"{differing} speakers answered differently cannot give a p below {smallest:g}"
    return Permutation(value, p, smallest, exact, n, len(found), note)
