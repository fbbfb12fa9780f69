"""Several raters of one utterance: what most of them said, and how far they were apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Rating = tuple[float | None, float | None, float | None]
"""Valence, arousal and dominance in 0..1; None = not rated."""


def count_votes(said: Iterable[Sequence[str]]) -> dict[str, float]:
    """Count votes; a rater who gave several labels gives each an equal part of one vote.

    Args:
        said: the labels of each rater.
    """
    votes: dict[str, float] = {}
    for labels in said:
        for label in labels:
            votes[label] = votes.get(label, 0.0) + 1.0 / len(labels)
    return votes


def majority(votes: Mapping[str, float]) -> str | None:
    """Return the label with the most votes; None if two have as many, or there are no votes."""
    first = max(votes.values(), default=0.0)
    best = [label for label, n in votes.items() if n > first - 1e-9]
    return best[0] if len(best) == 1 else None


def mean_and_spread(ratings: Sequence[Rating]) -> tuple[Rating | None, Rating | None]:
    """Return the mean of several ratings, and the standard deviation among the raters.

    Args:
        ratings: one for each rater, in 0..1.

    Returns:
        Mean and deviation (of the population) of each dimension. A dimension that nobody rated is
        None. The deviation is None, too, if only one person rated it. Each of the two is None if
        all three dimensions are.
    """
    mean: list[float | None] = []
    spread: list[float | None] = []
    for values in zip(*ratings, strict=True) if ratings else ((), (), ()):
        known = [v for v in values if v is not None]
        mean.append(float(np.mean(known)) if known else None)
        spread.append(float(np.std(known)) if len(known) > 1 else None)
    return _three(mean), _three(spread)


def _three(values: list[float | None]) -> Rating | None:
    return None if all(v is None for v in values) else (values[0], values[1], values[2])
