"""Chance, by shuffled labels: what is found when nothing can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def shuffles(y: Ints, who: Ints, draws: int, seed: int) -> Iterator[Ints]:
    """Labels dealt out anew among the utterances of each speaker, ``draws`` times.

    So every speaker keeps their labels, and what tells the speaker tells nothing else.

    Args:
        y: ``[N]`` labels.
        who: ``[N]`` speakers, as numbers.
        draws: how many times.
        seed: of the draws.
    """
    rng, base = np.random.default_rng(seed), np.argsort(who, kind="stable")
    for _ in range(draws):
        dealt = np.empty_like(y)
        dealt[base] = y[np.lexsort((rng.random(len(y)), who))]
        yield dealt


def beside(value: float, shuffled: Sequence[float]) -> dict[str, float]:
    """``shuffled``, the mean of what shuffled labels give, and ``p``, one-sided.

    The share of values at least as great; the observed one counts with them, so that p is never 0.
    """
    at_least = sum(v >= value - 1e-12 for v in shuffled)  # sums in another order
    p = (at_least + 1) / (len(shuffled) + 1)
    return {"shuffled": float(np.mean(shuffled)), "p": p}
