"""Confidence of predictions: calibration, risk and coverage, and recall on unseen classes.

:func:`calibrations` measures the probabilities before and after a temperature.
:func:`fit_bias` fits a temperature and a bias for each class. :func:`fit_folds` does so on the
validation parts of all folds. :func:`calibration_error` is debiased and has an interval over
speakers.
:func:`risk_coverage` gives the errors among the utterances with the highest confidence.
:func:`open_numbers` separates classes that the model was trained on from new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.taxonomy import Taxonomy
from .rates import FloatArray, IntArray, brier, ece, log_softmax, nll
from .speakers import labelled_speakers, standard_error, t_quantile, tested, uar_interval
from .table import PredictionTable, merge

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
        excess: ``aurc`` minus the smallest one with the same errors; 0 is best. The smallest one
            has all errors at the lowest confidence.
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

    For each class, utterances are put into equal-width bins ``(low, high]`` of its probability. The
    error is |share of the class - mean probability|, weighted by the utterances in each bin.
    """
    n, c = scores.shape
    p = np.exp(log_softmax(scores, temperature))
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1) + bins * np.arange(c)
    gap = np.bincount(index.ravel(), weights=(np.eye(c)[labels] - p).ravel(), minlength=bins * c)
    return float(np.abs(gap).sum() / (n * c))


# A bias for each class, and an error without the bias of its bins.


class Scaling(NamedTuple):
    """Turns scores into probabilities: ``softmax(scores / temperature + bias)``.

    Attributes:
        temperature: the number that divides the scores.
        bias: ``[C]``, of sum 0: how much the fitted speech favours each class, in log-odds.
    """

    temperature: float
    bias: FloatArray

    def apply(self, scores: FloatArray) -> FloatArray:
        """Return the ``[N, C]`` scaled log-scores."""
        return np.asarray(scores / self.temperature + self.bias, dtype=np.float64)

    def scaled(self, table: PredictionTable) -> PredictionTable:
        """Return the table with its scores scaled."""
        return replace(table, scores=self.apply(table.scores))


def fit_bias(table: PredictionTable, *, penalty: float = 1.0) -> Scaling:
    """Return the temperature and class biases that minimise the negative log-likelihood.

    This is bias-corrected temperature scaling (Alexandari, Kundaje & Shrikumar 2020).
    ``penalty/2 |bias|^2`` is added to the summed negative log-likelihood (our choice), so that few
    utterances move no class far. A temperature alone cannot move a prior. Training weighs classes
    to a uniform prior, so the probabilities at a temperature are for that prior. With the bias they
    are for the class shares of this table. So use it only on speech with the same shares.

    With few utterances the biases stay near 0, and the temperature is noisy. Nothing holds it, so
    utterances that are all right drive it towards its lower end, 0.01. We simulated 8 classes and
    an accuracy of 0.59, with 20, 60, 240 and 1000 utterances. Scaling lost 0.11, 0.06, 0.016 and
    0.004 nats against the best scaling. A temperature alone lost 0.04, 0.01, 0.002 and 0.001. So on
    speech with the prior of training, a temperature alone is better. In that simulation with one
    class of 47 %, a temperature alone lost 0.29 nats with any number of utterances. The bias was
    better from 20 utterances on.

    Args:
        table: **validation** predictions, also those of several folds of a head in one
            (:func:`.table.merge`); unlabelled utterances are ignored.
        penalty: above 0; a standard deviation of 1 of the biases is 1.

    Raises:
        ConfigError: if the penalty is not above 0.
        DataError: if no utterance is labelled.
    """
    from scipy.optimize import minimize

    if not penalty > 0:
        raise ConfigError(f"penalty is {penalty}; it must be above 0")
    scores, labels = _known(table)
    scores = scores - scores.max(1, keepdims=True)
    n, c = scores.shape
    true = np.eye(c)[labels]

    def value(x: FloatArray) -> tuple[float, FloatArray]:
        log_p = log_softmax(x[0] * scores + x[1:])
        over = np.exp(log_p) - true
        slope = np.concatenate([[(over * scores).sum()], over.sum(0) + penalty * x[1:]])
        loss = -log_p[np.arange(n), labels].sum() + penalty / 2 * float(x[1:] @ x[1:])
        return float(loss) / n, slope / n

    # convex in the inverse temperature and the biases; the range is that of fit_temperature
    start = np.concatenate([[1.0], np.zeros(c)])
    ends = [(0.01, 100.0), *[(None, None)] * c]
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 5000}
    x = minimize(value, start, jac=True, bounds=ends, method="L-BFGS-B", options=options).x
    return Scaling(1 / float(x[0]), np.asarray(x[1:] - x[1:].mean(), dtype=np.float64))


def fit_folds(
    valid: Mapping[int, PredictionTable],
    test: Mapping[int, PredictionTable],
    *,
    penalty: float = 1.0,
) -> dict[int, Scaling]:
    """Return the scaling of each fold, fitted on the validation parts of all folds of a training.

    One validation part has two speakers or so, and :func:`fit_bias` needs more utterances than
    theirs. The models of all folds are trained alike, so their scores are scaled alike. A speaker
    whom a fold tests may be validated in another one. So the scaling of a fold is fitted without
    its test speakers. It is fitted without its test utterances, too: their speakers may be unknown.

    Args:
        valid: validation predictions by fold, of one head and seed.
        test: test predictions by fold; every fold needs validation predictions too.
        penalty: penalty of :func:`fit_bias`.

    Raises:
        DataError: if a fold lacks validation predictions, or none is left for it.
    """
    if missing := sorted(set(test) - set(valid)):
        raise DataError(f"fold {missing[0]} has no validation predictions; evaluate it again")
    found = {}
    for fold, tested_here in test.items():
        who, what = set(tested_here.speakers) - {""}, set(tested_here.ids)
        parts = []
        for other, table in valid.items():
            pairs = zip(table.ids, table.speakers, strict=True)
            rows = [i for i, (name, s) in enumerate(pairs) if s not in who and name not in what]
            part = table.subset(rows)
            # two folds may validate one utterance, each with its own model
            parts.append(replace(part, ids=[f"{name}#{other}" for name in part.ids]))
        found[fold] = fit_bias(merge(parts), penalty=penalty)
    return found


class CalibrationError(NamedTuple):
    """A debiased calibration error and its interval.

    Attributes:
        value: root of ``square``; 0 if that is negative.
        low: lower bound; NaN if there is no interval.
        high: upper bound; NaN if there is no interval.
        square: the unbiased mean squared error; it may be negative.
        note: why there is no interval, what unknown speakers do to it, or "".
    """

    value: float
    low: float
    high: float
    square: float
    note: str = ""


def calibration_error(
    tables: Sequence[PredictionTable], *, bins: int = BINS, level: float = 0.95
) -> CalibrationError:
    """Return the root mean squared calibration error of the likeliest class, without its bias.

    :func:`.rates.ece` is above 0 even for perfect probabilities, since the accuracy in a bin is
    noisy. Here the sampling variance of each bin's gap is subtracted from its square (Bröcker
    2012; Kumar, Liang & Ma 2019). Bins have equal mass, and equal confidences share a bin. The
    interval leaves out each speaker once, on the squared scale, with t at (speakers - 1) degrees
    of freedom. The subtracted variance takes utterances as independent.

    Args:
        tables: one for each training of a model, with scaled scores over the same speakers; their
            squared errors are averaged. Never pool trainings: copies of an utterance would count
            as independent ones.
        bins: number of bins of confidence; fewer if a bin would have less than two utterances.
        level: nominal coverage.

    Raises:
        DataError: if there is no table, a table has fewer than two labelled utterances, or the
            speakers of tables differ.
    """
    if not tables:
        raise DataError("there is no table to measure calibration of; give one or more")
    who = labelled_speakers(tables[0])
    n_speakers, why, note = tested(tables[0])
    squares, without = [], []
    for table in tables:
        if labelled_speakers(table) != who:
            raise DataError("tables have different speakers; give trainings with one test part")
        sums = _gaps(table, who, bins)
        squares.append(float(_debiased(sums.sum(0))))
        known = sums[1:] if note else sums  # names are sorted, so unknown speakers are the first
        without.append(_debiased(known.sum(0) - known))
    square = float(np.mean(squares))
    value = float(np.sqrt(max(0.0, square)))
    if why or n_speakers < 2:
        why = why or "one speaker"
        return CalibrationError(value, np.nan, np.nan, square, f"{why}: no interval")
    spread = standard_error(np.mean(without, axis=0))
    half = t_quantile((1 + level) / 2, n_speakers, level) * spread
    low, high = np.sqrt(np.maximum(0.0, [square - half, square + half]))
    return CalibrationError(value, float(low), float(high), square, note)


def _gaps(table: PredictionTable, who: list[str], bins: int) -> FloatArray:
    """Return ``[G, 3, bins]``: of each speaker, count, gaps and squared gaps in each bin."""
    scores, labels = _known(table)
    if len(labels) < 2:
        raise DataError("one utterance is labelled; a debiased error needs two or more")
    confidence = np.exp(log_softmax(scores).max(1))
    gap = (scores.argmax(1) == labels) - confidence
    bins = max(1, min(bins, len(labels) // 2))
    edges = np.quantile(confidence, np.arange(1, bins) / bins)
    at = {name: i for i, name in enumerate(who)}
    rows = np.array([at[table.speakers[i]] for i in np.flatnonzero(table.labelled)])
    cells = rows * bins + np.searchsorted(edges, confidence, side="left")
    parts = [np.bincount(cells, w, len(who) * bins) for w in (np.ones_like(gap), gap, gap**2)]
    return np.stack(parts, 0).reshape(3, len(who), bins).transpose(1, 0, 2).astype(np.float64)


def _debiased(sums: FloatArray) -> FloatArray:
    """Return the ``[...]`` mean squared gap of ``[..., 3, bins]`` sums, less its variance."""
    n, total, squared = np.moveaxis(sums, -2, 0)
    n = np.where(n > 1.5, n, 0)  # one utterance has no variance
    m = np.maximum(n, 2)
    mean = total / m
    variance = np.maximum(0, squared - m * mean**2) / (m - 1)
    return np.asarray((n * (mean**2 - variance / m)).sum(-1) / np.maximum(1, n.sum(-1)))


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


# Classes that the model was and was not trained on.


def seen_classes(trained: Taxonomy, wanted: Taxonomy) -> list[str]:
    """Return the classes of ``wanted`` that share a canonical label with a class of ``trained``."""
    known = {label for _, labels in trained.members for label in labels}
    return [c for c, labels in wanted.members if known & set(labels)]


def open_numbers(table: PredictionTable, trained: Taxonomy, wanted: Taxonomy) -> dict[str, Any]:
    """Return the recall on seen and on unseen classes, each with its chance level.

    For every utterance the model chooses among all classes of ``wanted``, except in
    ``among_unseen``. There only utterances of unseen classes count, and the model chooses only
    among unseen classes. So a preference for trained classes does not hide what it knows of the
    others. The two are generalised and plain zero-shot evaluation (Chao et al. 2016). A model that
    ignores the audio has a mean recall of one over the number of classes, over all classes. Over a
    part of them this need not hold. A model that never predicts an unseen class has recall 0 there,
    and more than chance on the seen ones.

    Args:
        table: scores over the classes of ``wanted``.
        trained: the model's taxonomy.
        wanted: the taxonomy of the table.

    Returns:
        Plain containers: classes, chance level and mean recalls with intervals over speakers
        (:func:`mean_recall`). Also the shares of predictions and of references that are unseen
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
