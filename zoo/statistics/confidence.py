"""Can a head's confidence be used? Calibration before and after a temperature; risk-coverage."""

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
    """How honest the probabilities are, at one temperature; lower is better throughout.

    Attributes:
        temperature: that divides the scores.
        ece: expected calibration error, of the likeliest class.
        classwise_ece: the same of every class's probability, averaged over classes.
        brier: 0 to 2.
        nll: in nats.
    """

    temperature: float
    ece: float
    classwise_ece: float
    brier: float
    nll: float


class Coverage(NamedTuple):
    """Errors among the utterances that a head is surest of.

    Attributes:
        coverage: ``[N]`` share of the labelled utterances answered, 1/N to 1.
        risk: ``[N]`` share of wrong answers among these.
        aurc: mean of ``risk``: the area under the curve.
        excess: ``aurc`` minus that of a head with the same errors, all least sure: 0 is best.
    """

    coverage: FloatArray
    risk: FloatArray
    aurc: float
    excess: float

    def at(self, coverages: Sequence[float] = (0.5, 0.7, 0.9, 1.0)) -> dict[float, float]:
        """Risk where at least this share is answered."""
        if bad := [c for c in coverages if not 0 < c <= 1]:
            raise ConfigError(f"coverage {bad[0]} is no share; want 0 < coverage <= 1")
        n = len(self.risk)
        # 0.7 * 10 is 7.000000000000001
        return {c: float(self.risk[max(0, int(np.ceil(c * n - 1e-9)) - 1)]) for c in coverages}


def calibrations(
    table: PredictionTable, temperature: float, *, bins: int = BINS
) -> list[Calibration]:
    """Calibration before (temperature 1) and after a temperature, in this order.

    Args:
        table: test predictions; unlabelled utterances take no part.
        temperature: fitted on **validation** (:meth:`.PredictionTable.temperature`), never here.
        bins: equal-width bins of confidence.

    Raises:
        DataError: when no utterance is labelled.
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
    """Calibration error of each class's probability, averaged over all classes (Kull et al. 2019).

    Of every class, |share of the class - mean probability| in equal-width bins ``(low, high]`` of
    its probability, weighted by the utterances in each.
    """
    n, c = scores.shape
    p = np.exp(log_softmax(scores, temperature))
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1) + bins * np.arange(c)
    gap = np.bincount(index.ravel(), weights=(np.eye(c)[labels] - p).ravel(), minlength=bins * c)
    return float(np.abs(gap).sum() / (n * c))


def risk_coverage(table: PredictionTable, temperature: float = 1.0) -> Coverage:
    """Risk-coverage curve (El-Yaniv & Wiener 2010) and its area (Geifman, Uziel & El-Yaniv 2019).

    Confidence is the probability of the likeliest class. Utterances of equal confidence are taken
    in every order at once: each carries the mean error of its ties, so that the order of rows is
    of no matter (our choice).

    Raises:
        DataError: when no utterance is labelled.
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


# ---- What a model says about classes that it never trained on, apart from those that it did.


def seen_classes(trained: Taxonomy, wanted: Taxonomy) -> list[str]:
    """Classes of ``wanted`` that gather a canonical label which ``trained`` gathers, too."""
    known = {label for _, labels in trained.members for label in labels}
    return [c for c, labels in wanted.members if known & set(labels)]


def open_numbers(table: PredictionTable, trained: Taxonomy, wanted: Taxonomy) -> dict[str, Any]:
    """Recall on seen and on unseen classes, each against its chance level.

    All classes of ``wanted`` are on offer for every utterance, except in ``among_unseen``: there
    only utterances of unseen classes are asked, and only unseen classes are on offer, so that a
    preference for what was trained does not hide what is known of the rest (generalised and plain
    zero-shot evaluation; Chao et al. 2016). Whoever does not listen has a mean recall of one over
    the number of classes on offer over all of them, but not over a part of them: who never says an
    unseen class has none there, and more than chance on the seen ones.

    Args:
        table: scores over the classes of ``wanted``.
        trained: the model's taxonomy.
        wanted: the one that it was asked about.

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
    """Mean recall of these classes, of those that are present; None where none is.

    Returns:
        ``value``, and its interval as :func:`.measure.uar_interval` gives it.
    """
    rows = np.flatnonzero(np.isin(table.labels, columns))  # -1, unlabelled, is no column
    if not len(rows):
        return None
    part = table.subset(rows)
    return {"value": part.uar(), **uar_interval(part)}
