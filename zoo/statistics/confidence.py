"""Confidence of predictions: calibration, risk and coverage, and recall on unseen classes.

:func:`calibrations` measures the probabilities before and after a temperature.
:func:`risk_coverage` gives the errors among the utterances with the highest confidence.
:func:`open_numbers` separates classes that the model was trained on from new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.taxonomy import Taxonomy
from .rates import FloatArray, IntArray, brier, ece, log_softmax, nll
from .speakers import uar_interval
from .table import PredictionTable

BINS = 15


class Calibration(NamedTuple):
    """Calibration errors of the probabilities at one temperature; lower is better for all.

    Attributes:
        temperature: the number that divides the scores.
        ece: expected calibration error of the likeliest class.
        classwise_ece: calibration error of every class's probability, averaged over classes.
        brier: Brier score, 0 to 2.
        nll: mean negative log-likelihood, in nats.
    """

    temperature: float
    ece: float
    classwise_ece: float
    brier: float
    nll: float


class Coverage(NamedTuple):
    """Errors among the utterances with the highest confidence.

    Attributes:
        coverage: ``[N]`` share of the labelled utterances that are answered, 1/N to 1.
        risk: ``[N]`` share of wrong answers among these.
        aurc: mean of ``risk``: the area under the curve.
        excess: ``aurc`` minus the smallest one with the same errors, in which all errors have the
            lowest confidence; 0 is best.
    """

    coverage: FloatArray
    risk: FloatArray
    aurc: float
    excess: float

    def at(self, coverages: Sequence[float] = (0.5, 0.7, 0.9, 1.0)) -> dict[float, float]:
        """Return the risk at each of these coverages."""
        if bad := [c for c in coverages if not 0 < c <= 1]:
            raise ConfigError(f"coverage {bad[0]} is not a share; give 0 < coverage <= 1")
        n = len(self.risk)
        # 0.7 * 10 is 7.000000000000001
        return {c: float(self.risk[max(0, int(np.ceil(c * n - 1e-9)) - 1)]) for c in coverages}


def calibrations(
    table: PredictionTable, temperature: float, *, bins: int = BINS
) -> list[Calibration]:
    """Return the calibration before (temperature 1) and after a temperature, in this order.

    Args:
        table: test predictions; unlabelled utterances are ignored.
        temperature: fitted on **validation** data (:meth:`.PredictionTable.temperature`), never
            on this table.
        bins: number of equal-width bins of confidence.

    Raises:
        DataError: if no utterance is labelled.
    """
    scores, labels = _known(table)
    return [
        Calibration(
            t,
            ece(scores, labels, t, bins),
            classwise_ece(scores, labels, t, bins),
            brier(scores, labels, t),
            nll(scores, labels, t),
        )
        for t in (1.0, temperature)
    ]


def classwise_ece(
    scores: FloatArray, labels: IntArray, temperature: float = 1.0, bins: int = BINS
) -> float:
    """Return the calibration error of each class, averaged over all classes (Kull et al. 2019).

    For each class it is |share of the class - mean probability| in equal-width bins ``(low,
    high]`` of its probability, weighted by the number of utterances in each bin.
    """
    n, c = scores.shape
    p = np.exp(log_softmax(scores, temperature))
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1) + bins * np.arange(c)
    gap = np.bincount(index.ravel(), weights=(np.eye(c)[labels] - p).ravel(), minlength=bins * c)
    return float(np.abs(gap).sum() / (n * c))


def risk_coverage(table: PredictionTable, temperature: float = 1.0) -> Coverage:
    """Return the risk-coverage curve and its area.

    Sources: El-Yaniv & Wiener 2010 (curve), Geifman, Uziel & El-Yaniv 2019 (area). Confidence is
    the probability of the likeliest class. Utterances of equal confidence all get their mean
    error, so the order of rows does not matter (our choice).

    Raises:
        DataError: if no utterance is labelled.
    """
    scores, labels = _known(table)
    wrong = (scores.argmax(1) != labels).astype(np.float64)
    _, tie, size = np.unique(
        -log_softmax(scores, temperature).max(1), return_inverse=True, return_counts=True
    )
    expected = np.repeat(np.bincount(tie, weights=wrong) / size, size)
    answered = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(expected) / answered
    best = np.cumsum(np.sort(wrong)) / answered
    aurc = float(risk.mean())
    return Coverage(answered / len(wrong), risk, aurc, aurc - float(best.mean()))


def _known(table: PredictionTable) -> tuple[FloatArray, IntArray]:
    known = table.labelled
    if not known.any():
        raise DataError(
            f"none of {len(table)} utterances is labelled, so there is nothing to calibrate; "
            "evaluate on labelled speech"
        )
    scores = table.scores[known]
    if not np.isfinite(scores).all():
        raise DataError(
            f"scores of {(~np.isfinite(scores).all(1)).sum()} of {len(scores)} utterances are not "
            "finite; look for a diverged model, and predict again"
        )
    return scores, table.labels[known]


# -- classes that the model was and was not trained on -------------------------------------------


def seen_classes(trained: Taxonomy, wanted: Taxonomy) -> list[str]:
    """Return the classes of ``wanted`` that share a canonical label with a class of ``trained``."""
    known = {label for _, labels in trained.members for label in labels}
    return [c for c, labels in wanted.members if known & set(labels)]


def open_numbers(table: PredictionTable, trained: Taxonomy, wanted: Taxonomy) -> dict[str, Any]:
    """Return the recall on seen and on unseen classes, each with its chance level.

    For every utterance the model chooses among all classes of ``wanted``, except in
    ``among_unseen``: there only utterances of unseen classes count, and the model chooses only
    among unseen classes. So a preference for trained classes does not hide what it knows of the
    others (generalised and plain zero-shot evaluation; Chao et al. 2016). A model that ignores the
    audio has a mean recall of one over the number of classes, over all classes. Over a part of
    them this need not hold: a model that never predicts an unseen class has recall 0 there, and
    more than chance on the seen ones.

    Args:
        table: scores over the classes of ``wanted``.
        trained: the model's taxonomy.
        wanted: the taxonomy of the table.

    Returns:
        Plain containers: classes, chance level, mean recalls with intervals over speakers
        (:func:`mean_recall`), and the shares of predictions and of references that are unseen
        classes.
    """
    seen = seen_classes(trained, wanted)
    unseen = [c for c in wanted.classes if c not in seen]
    here = {c: i for i, c in enumerate(table.classes)}
    columns = [here[c] for c in unseen]
    known = table.labelled
    of_unseen = known & np.isin(table.labels, columns)
    found: dict[str, Any] = {
        "seen_classes": seen,
        "unseen_classes": unseen,
        "chance": 1 / len(wanted),
        "all": mean_recall(table, list(here.values())),
        "seen": mean_recall(table, [here[c] for c in seen]),
        "unseen": mean_recall(table, columns),
        "predicted_unseen": float(np.isin(table.predicted[known], columns).mean()),
        "reference_unseen": float(of_unseen[known].mean()),
        "among_unseen": None,
    }
    if len(unseen) > 1 and of_unseen.any():
        rows = np.flatnonzero(of_unseen)
        part = PredictionTable(
            [table.ids[i] for i in rows],
            [table.speakers[i] for i in rows],
            np.array([columns.index(k) for k in table.labels[rows]]),
            table.scores[rows][:, columns],
            unseen,
        )
        every = list(range(len(unseen)))
        found["among_unseen"] = {"chance": 1 / len(unseen), **(mean_recall(part, every) or {})}
    return found


def mean_recall(table: PredictionTable, columns: list[int]) -> dict[str, Any] | None:
    """Return the mean recall of those of these classes that are present, or None if none is.

    Returns:
        ``value``, and its interval in the form of :func:`.speakers.uar_interval`.
    """
    # unlabelled utterances have -1, which is not a column
    rows = np.flatnonzero(np.isin(table.labels, columns))
    if not len(rows):
        return None
    part = table.subset(rows)
    return {"value": part.uar(), **uar_interval(part)}
