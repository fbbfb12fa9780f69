"""Are the probabilities honest? Likelihood, calibration error, Brier score, temperature.

Arguments are the same everywhere: ``scores [N, C]`` log-scores, ``labels [N]`` class indices, all
of them labelled, and the temperature that divides the scores.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from .rates import FloatArray, IntArray


def log_softmax(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """``[N, C]`` log-probabilities."""
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}; it must be above 0")
    z = scores / temperature
    z = z - z.max(1, keepdims=True, initial=-np.inf)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)), dtype=np.float64)


def nll(scores: FloatArray, labels: IntArray, temperature: float = 1.0) -> float:
    """Mean negative log-probability of the label, in nats."""
    return float(-log_softmax(scores, temperature)[np.arange(len(labels)), labels].mean())


def ece(scores: FloatArray, labels: IntArray, temperature: float = 1.0, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence| over equal-width bins of confidence.

    Guo et al. 2017 (equation 3), bins ``(low, high]``, weighted by the utterances in each.
    """
    confidence = np.exp(log_softmax(scores, temperature).max(1))
    right = scores.argmax(1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def brier(scores: FloatArray, labels: IntArray, temperature: float = 1.0) -> float:
    """Mean squared distance of the probabilities to the one-hot label, 0 to 2 (Brier 1950)."""
    error = np.exp(log_softmax(scores, temperature)) - np.eye(scores.shape[1])[labels]
    return float((error**2).sum(1).mean())


def fit_temperature(scores: FloatArray, labels: IntArray) -> float:
    """The temperature in 1/100..100 that minimises :func:`nll`.

    Temperature scaling after Guo et al. 2017 (section 4.2). The likelihood is convex in the
    inverse temperature, so it has one valley in its logarithm, which is searched (our choice).
    """
    from scipy.optimize import minimize_scalar

    edge = float(np.log(100.0))
    found = minimize_scalar(
        lambda t: nll(scores, labels, float(np.exp(t))), bounds=(-edge, edge), method="bounded"
    )
    return float(np.exp(found.x))
