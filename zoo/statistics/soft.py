"""Scores against soft labels, which are the votes of raters, and against dimensions.

All functions of votes take ``scores [N, C]`` and ``votes [N, C]``. Scores are log-scores of a
model; they are softmaxed here. Votes are counts or shares of the raters' answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import DataError
from .rates import FloatArray, log_softmax
from .table import PredictionTable


def shares_of(votes: FloatArray) -> FloatArray:
    """Return ``[N, C]`` shares of votes; each row has the sum 1.

    Raises:
        DataError: if votes are negative or not finite, or an utterance has none.
    """
    votes = np.asarray(votes, dtype=np.float64)
    if votes.ndim != 2 or not len(votes):
        raise DataError(f"votes have the shape {votes.shape}; give [N, C], with N above 0")
    bad = ~np.isfinite(votes).all(1) | (votes < 0).any(1) | ~(votes.sum(1) > 0)
    if bad.any():
        raise DataError(
            f"votes of {bad.sum()} of {len(votes)} utterances cannot be used (first: row "
            f"{np.flatnonzero(bad)[0]}); give finite votes of 0 or more, and one above 0"
        )
    return np.asarray(votes / votes.sum(1, keepdims=True), dtype=np.float64)


def cross_entropy(scores: FloatArray, votes: FloatArray) -> float:
    """Return the mean cross-entropy of the votes' shares and the probabilities, in nats."""
    log_p, q = _pair(scores, votes)
    # a class without votes counts nothing, however small its probability is
    return float(-np.where(q > 0, q * log_p, 0).sum(1).mean())


def jensen_shannon(scores: FloatArray, votes: FloatArray) -> float:
    """Return the mean Jensen-Shannon divergence (Lin 1991) to base 2: 0 (equal) to 1 (apart)."""
    log_p, q = _pair(scores, votes)
    p = np.exp(log_p)
    middle = (p + q) / 2

    def to_middle(a: FloatArray) -> FloatArray:
        ratio = np.divide(a, middle, out=np.ones_like(a), where=a > 0)
        return np.asarray((a * np.log2(ratio)).sum(1))

    return float((to_middle(p) + to_middle(q)).mean() / 2)


def cosine(scores: FloatArray, votes: FloatArray) -> float:
    """Return the mean cosine of the probabilities and the votes' shares, 0 to 1."""
    log_p, q = _pair(scores, votes)
    p = np.exp(log_p)
    length = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    return float(((p * q).sum(1) / length).mean())


def any_rater_accuracy(scores: FloatArray, votes: FloatArray) -> float:
    """Return the share of utterances whose predicted class got a vote of any rater."""
    log_p, q = _pair(scores, votes)
    return float((q[np.arange(len(q)), log_p.argmax(1)] > 0).mean())


def soft_numbers(table: PredictionTable, temperature: float = 1.0) -> dict[str, Any] | None:
    """Return the scores of a table against the votes of its raters, as a record holds them.

    Utterances whose raters gave no class of the table are left out. So are votes for classes that
    the table lacks, which its makers drop.

    Args:
        table: predictions of one model, or of several trainings of a head in one.
        temperature: divides the scores first; the accuracy does not change with it.

    Returns:
        ``cross_entropy`` in nats, ``jensen_shannon`` to base 2, ``cosine`` and
        ``any_rater_accuracy``, as the functions of these names. ``entropy`` is the mean entropy of
        the votes' shares in nats; no cross-entropy can be lower. ``n`` is the number of utterances.
        None if no utterance has votes.
    """
    if table.votes is None or not (known := table.votes.sum(1) > 0).any():
        return None
    scores, votes = table.scores[known] / temperature, table.votes[known]
    q = shares_of(votes)
    return {
        "cross_entropy": cross_entropy(scores, votes),
        "entropy": float(-(q * np.log(np.where(q > 0, q, 1))).sum(1).mean()),
        "jensen_shannon": jensen_shannon(scores, votes),
        "cosine": cosine(scores, votes),
        "any_rater_accuracy": any_rater_accuracy(scores, votes),
        "n": int(known.sum()),
    }


def ccc(predicted: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the ``[D]`` concordance correlation coefficient of each dimension (Lin 1989), -1 to 1.

    Variances divide by N, as in Lin's paper. A dimension is NaN if both sides are one constant.

    Args:
        predicted: ``[N, D]``, such as valence and arousal.
        reference: ``[N, D]``, on the same scale.

    Raises:
        DataError: if shapes differ, there are fewer than two utterances, or a value is not finite.
    """
    x = np.asarray(predicted, dtype=np.float64)
    y = np.asarray(reference, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
        raise DataError(
            f"dimensions have the shapes {x.shape} and {y.shape}; give [N, D] twice, N above 1"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("dimensions are not finite; leave utterances without a value out")
    between = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    below = x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2
    out = np.full(x.shape[1], np.nan)
    np.divide(2 * between, below, out=out, where=below > 0)
    return out


def _pair(scores: FloatArray, votes: FloatArray) -> tuple[FloatArray, FloatArray]:
    shares = shares_of(votes)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != shares.shape:
        raise DataError(
            f"scores have the shape {scores.shape} and votes {shares.shape}; give [N, C] twice"
        )
    if not np.isfinite(scores).all():
        raise DataError("scores are not finite; look for a diverged model, and predict again")
    return log_softmax(scores), shares
