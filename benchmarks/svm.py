"""A linear SVM on features of utterances: scaled by the training part, C chosen on validation.

It is another one than the head ``linear_svm``. openSMILE gives more features than a corpus has
utterances, so this one solves the dual problem on their products. The primal one of RAVDESS with
ComParE did not end in 450 s. The grid of C is our choice.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.protocols import speaker_of
from serzoo.heads.linear_svm import check_trained
from serzoo.zoo.statistics.table import PredictionTable

GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a training part; what is NaN or constant there becomes 0."""

    mean: Values
    deviation: Values

    @classmethod
    def of(cls, x: Values) -> Scale:
        """Return the scale of ``[N, F]`` features."""
        with warnings.catch_warnings():  # of a feature that is NaN everywhere
            warnings.simplefilter("ignore", RuntimeWarning)
            mean = np.nan_to_num(np.nanmean(x, axis=0))
            deviation = np.nanstd(x, axis=0)
        usable = np.isfinite(deviation) & (deviation > 1e-12)
        return cls(mean, np.where(usable, deviation, np.inf))

    def __call__(self, x: Values) -> Values:
        return np.nan_to_num((x - self.mean) / self.deviation)


@dataclass(frozen=True)
class Fitted:
    """A linear SVM, and how its C was chosen.

    Attributes:
        scale: of its features.
        train: ``[N, F]`` that it was fitted on, scaled.
        model: of sklearn, on the products with ``train``.
        c: chosen.
        valid_uar: by C; empty where C was given.
    """

    scale: Scale
    train: Values
    model: Any
    c: float
    valid_uar: dict[float, float]

    def table(self, data: SpeechDataset, x: Values, classes: Sequence[str]) -> PredictionTable:
        """Decision values of a part, whose features are ``x``."""
        values = self.model.decision_function(self.scale(x) @ self.train.T)
        if values.ndim == 1:  # two classes: the side of one boundary
            values = np.stack([-values, values], axis=1)
        us = data.utterances
        speakers = [speaker_of(u) for u in us]
        return PredictionTable(
            [u.id for u in us], speakers, data.classes.numpy(), values, list(classes)
        )


def fit(
    train: tuple[SpeechDataset, Values],
    valid: tuple[SpeechDataset, Values] | None,
    classes: Sequence[str],
    *,
    balance: bool = True,
    grid: Sequence[float] = GRID,
    scale: Scale | None = None,
) -> Fitted:
    """Fit on train, choose C on valid.

    Args:
        train: the part, and its ``[N, F]``.
        valid: the same of validation speakers; None where ``grid`` has one value.
        classes: of the taxonomy, in its order.
        balance: weigh classes by inverse frequency, as the heads' losses do.
        grid: values of C, ascending.
        scale: of other speech, instead of the training part's.

    Raises:
        DataError: for a class without training.
    """
    from sklearn.svm import SVC

    y = train[0].classes.numpy()
    check_trained(classes, y.tolist())
    scale = scale or Scale.of(train[1])
    x = scale(train[1])
    kernel = x @ x.T  # linear; the same for every C
    best: Fitted | None = None
    found: dict[float, float] = {}
    for c in grid:
        # one class against another; with ties broken, the highest value is the answer
        weight = "balanced" if balance else None
        model = SVC(C=c, kernel="precomputed", class_weight=weight, break_ties=True)
        fitted = Fitted(scale, x, model.fit(kernel, y), c, found)
        if valid is None:
            return fitted
        found[c] = fitted.table(*valid, classes).uar()
        if best is None or found[c] > found[best.c]:
            best = fitted
    assert best is not None
    return best
