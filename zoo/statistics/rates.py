"""Metrics as plain functions: rates of confusion matrices, and errors of probabilities.

:func:`uar_of`, :func:`wa_of` and :func:`f1_of` take confusion matrices. :func:`nll`, :func:`ece`
and :func:`brier` take log-scores and labels, and :func:`fit_temperature` fits a temperature.

The classes of a mean decide the number: three libraries give 0.5, 0.375 and 0.75 for the same
predictions. So it is fixed here: **UAR and macro-F1 are means over the classes present in the
reference**. A class without a labelled utterance is listed as absent and is not averaged. A
prediction of an absent class is an error of the utterance's true class. WA is plain accuracy.

Functions of confusions take leading dimensions, so all speakers can be left out, or exchanged, in
one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def recalls_of(confusion: NDArray[Any]) -> FloatArray:
    """Return the ``[..., C]`` recalls of ``[..., C, C]`` confusions; NaN for absent classes."""
    hits, support, _ = _marginals(confusion)
    return _ratio(hits, support)


def uar_of(confusion: NDArray[Any]) -> FloatArray:
    """Return the ``[...]`` unweighted average recall over the classes present in the reference."""
    return _mean_present(recalls_of(confusion))


def wa_of(confusion: NDArray[Any]) -> FloatArray:
    """Return the ``[...]`` weighted accuracy, the field's name for plain accuracy."""
    hits, support, _ = _marginals(confusion)
    return _ratio(hits.sum(-1), support.sum(-1))


def f1_of(confusion: NDArray[Any]) -> FloatArray:
    """Return the ``[...]`` macro-F1 over the classes present in the reference."""
    hits, support, predicted = _marginals(confusion)
    # 2 hits / (support + predicted), only for the classes that have support
    return _mean_present(_ratio(2 * hits, np.where(support > 0, support + predicted, 0)))


def _marginals(confusion: NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return, ``[..., C]`` each, hits, utterances of the class, and predictions of the class."""
    c = np.asarray(confusion, dtype=np.float64)
    return np.diagonal(c, axis1=-2, axis2=-1), c.sum(-1), c.sum(-2)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> FloatArray:
    """Return ``above / below``; NaN if ``below`` is zero."""
    out = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=out, where=np.asarray(below) > 0)
    return out


def _mean_present(values: FloatArray) -> FloatArray:
    return _ratio(np.nansum(values, -1), np.isfinite(values).sum(-1))


def absent_of(confusion: NDArray[Any]) -> NDArray[np.bool_]:
    """Return ``[..., C]``, True for classes without a labelled utterance.

    UAR and macro-F1 leave these classes out. scikit-learn's ``f1_score`` also averages over
    predicted classes, with 0 for an absent one. So its value is lower if one was predicted.
    """
    return np.asarray(_marginals(confusion)[1] == 0)


# "f1" is the name of macro-F1 in records and in older settings
METRICS = {"uar": uar_of, "wa": wa_of, "macro_f1": f1_of, "f1": f1_of}


# Errors of probabilities. All functions take ``scores [N, C]`` log-scores, ``labels [N]`` class
# indices without unlabelled ones, and the temperature that divides the scores.


def log_softmax(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return ``[N, C]`` log-probabilities."""
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}; give a number above 0")
    z = scores / temperature
    z = z - z.max(1, keepdims=True, initial=-np.inf)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)), dtype=np.float64)


def nll(scores: FloatArray, labels: IntArray, temperature: float = 1.0) -> float:
    """Return the mean negative log-probability of the label, in nats."""
    return float(-log_softmax(scores, temperature)[np.arange(len(labels)), labels].mean())


def ece(scores: FloatArray, labels: IntArray, temperature: float = 1.0, bins: int = 15) -> float:
    """Return the expected calibration error: |accuracy - confidence| over bins of confidence.

    After Guo et al. 2017 (equation 3), with equal-width bins ``(low, high]``, weighted by the
    number of utterances in each.
    """
    confidence = np.exp(log_softmax(scores, temperature).max(1))
    right = scores.argmax(1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def brier(scores: FloatArray, labels: IntArray, temperature: float = 1.0) -> float:
    """Return the mean squared distance of the probabilities to the one-hot label, 0 to 2.

    After Brier 1950.
    """
    error = np.exp(log_softmax(scores, temperature)) - np.eye(scores.shape[1])[labels]
    return float((error**2).sum(1).mean())


def fit_temperature(scores: FloatArray, labels: IntArray) -> float:
    """Return the temperature in 1/100..100 that minimises :func:`nll`.

    Temperature scaling after Guo et al. 2017 (section 4.2). The likelihood is convex in the inverse
    temperature, so it has one minimum over the logarithm of the temperature. A search finds it (our
    choice).
    """
    from scipy.optimize import minimize_scalar

    edge = float(np.log(100.0))
    found = minimize_scalar(
        lambda t: nll(scores, labels, float(np.exp(t))), bounds=(-edge, edge), method="bounded"
    )
    return float(np.exp(found.x))
