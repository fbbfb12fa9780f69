"""Label shift: predictions whose mean probability is matched to a declared class prior.

A model that is tested on other speech prefers some classes because of that speech: another
microphone, language or speaker. :func:`matched` adds one number per class to the scores. The mean
probability of the classes is then the declared prior. It needs no training and no labels.

Such predictions are **transductive**: each of them depends on the other test utterances. Report
them beside the plain ones, and never in their place. They also assume the prior. Acted corpora have
about as many utterances of each class and speaker, so a uniform prior fits them by design. In
natural speech it does not, and matching each speaker to it can do harm.

An alternative estimates the prior of the test speech from the scores by expectation maximisation
(Saerens, Latinne & Decaestecker 2002). It assumes calibrated scores, which a model lacks on other
speech, so the prior is declared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DataError, suggest
from .rates import FloatArray, log_softmax
from .table import PredictionTable

WAYS = ("table", "corpus", "speaker")
SHRINK = 1.0
TRANSDUCTIVE = "transductive: uses the test speech's own predictions"


def prior_of(classes: list[str], given: Mapping[str, float] | None = None) -> FloatArray:
    """Return the ``[C]`` prior in class order; uniform if none is given.

    Args:
        classes: C class names.
        given: a positive weight of every class; they are scaled to the sum 1.

    Raises:
        ConfigError: if a class is missing or unknown, or a weight is not positive and finite.
    """
    if given is None:
        return np.full(len(classes), 1 / len(classes))
    if unknown := [c for c in given if c not in classes]:
        raise ConfigError(
            f"the prior names '{unknown[0]}'{suggest(unknown[0], classes)}; "
            f"the classes are {', '.join(classes)}"
        )
    if missing := [c for c in classes if c not in given]:
        raise ConfigError(f"the prior lacks {', '.join(missing)}; give a weight of every class")
    weights = np.array([float(given[c]) for c in classes])
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ConfigError(f"the prior is {dict(given)}; every weight must be finite and above 0")
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def read_prior(text: str | None, classes: list[str]) -> dict[str, float] | None:
    """Return the weights that a setting declares: ``neutral:3,angry:1``; None for ``uniform``.

    Raises:
        ConfigError: if it cannot be read, or :func:`prior_of` refuses it.
    """
    if text is None or text == "uniform":
        return None
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().rpartition(":")
        try:
            value = float(weight)
        except ValueError:
            value = float("nan")
        if not name or name in given or value != value:
            raise ConfigError(
                f"prior is '{text}', in which '{part.strip()}' is not a new class with a number; "
                "give uniform, or a weight of every class: neutral:3,angry:1"
            )
        given[name] = value
    prior_of(classes, given)
    return given


def matching_bias(scores: FloatArray, prior: FloatArray, *, shrink: float = SHRINK) -> FloatArray:
    """Return the ``[C]`` bias, of sum 0, that moves the mean probability to a prior.

    The bias ``b`` minimises ``sum_n logsumexp(scores_n + b) - N prior.b + shrink/2 |b|^2``, which
    is convex. So ``N (mean probability - prior) + shrink b = 0``: with ``shrink=0`` the mean
    probability is the prior, and with many utterances it nearly is. The penalty (our choice) is for
    few utterances. One utterance can tell nothing of a prior: without the penalty its probabilities
    would become the prior. With it and a uniform prior, one utterance keeps the order of its
    classes.

    Args:
        scores: ``[N, C]`` log-scores.
        prior: ``[C]``, positive, of sum 1.
        shrink: 0 or more; how many utterances weigh as much as the penalty.

    Raises:
        ConfigError: if ``shrink`` is negative.
        DataError: if there are no scores, or no bias is found.
    """
    from scipy.optimize import minimize

    if not shrink >= 0:
        raise ConfigError(f"shrink is {shrink}; it must be 0 or more")
    n, c = scores.shape
    if not n or not np.isfinite(scores).all():
        raise DataError(
            f"scores [{n}, {c}] are empty or not finite; give finite ones, a row or more"
        )

    def value(b: FloatArray) -> tuple[float, FloatArray]:
        z = scores + b
        top = z.max(1)
        total = float((top + np.log(np.exp(z - top[:, None]).sum(1))).sum())
        slope = np.exp(log_softmax(z)).sum(0) - n * prior + shrink * b
        return (total - n * float(prior @ b) + shrink / 2 * float(b @ b)) / n, slope / n

    def curve(b: FloatArray) -> FloatArray:
        p = np.exp(log_softmax(scores + b))
        return np.asarray((np.diag(p.sum(0)) - p.T @ p + shrink * np.eye(c)) / n)

    options = {"gtol": 1e-9}
    try:
        b = minimize(
            value, np.zeros(c), jac=True, hess=curve, method="trust-exact", options=options
        ).x
        left = float(np.abs(value(b)[1]).max())
    except ValueError:  # its matrices overflow if scores differ by a hundred thousand
        left = np.inf
    if left > 1e-5:
        raise DataError(
            f"no bias matches the mean probability of {n} utterances to the prior (off by "
            f"{left:.2g}); the scores may be too far apart: divide them by a temperature"
        )
    return np.asarray(b - b.mean(), dtype=np.float64)


def matched(
    table: PredictionTable,
    by: str = "table",
    *,
    prior: Mapping[str, float] | None = None,
    shrink: float = SHRINK,
) -> PredictionTable:
    """Return the table with its mean probabilities moved to a prior.

    Unlabelled utterances count, since labels are not used. Each corpus starts from the bias of the
    table, and each speaker from that of the corpus. So a speaker with few utterances stays near
    the others. An utterance of an unknown speaker gets the bias of its corpus.

    Args:
        table: predictions of one model. Match the folds and seeds of a head one by one.
        by: ``table``, ``corpus`` or ``speaker``: what has the prior.
        prior: a weight of every class; uniform by default.
        shrink: see :func:`matching_bias`.

    Raises:
        ConfigError: if ``by`` or the prior cannot be used.
        DataError: if the table is empty, or no bias is found.
    """
    if by not in WAYS:
        raise ConfigError(f"by is '{by}'{suggest(by, WAYS)}; have {', '.join(WAYS)}")
    wanted = prior_of(table.classes, prior)
    scores = table.scores.copy()
    for rows in _groups(table, by):
        scores[rows] += matching_bias(scores[rows], wanted, shrink=shrink)
    return replace(table, scores=scores)


def _groups(table: PredictionTable, by: str) -> list[list[int]]:
    """Return the rows of each group, the wide groups before the narrow ones."""
    everyone = list(range(len(table)))
    found = [everyone]
    if by == "table":
        return found
    at = {name: i for i, name in enumerate(table.ids)}
    corpora = [[at[name] for name in part.ids] for part in table.by_corpus().values()]
    found += corpora if len(corpora) > 1 else []
    if by == "speaker":
        speakers: dict[str, list[int]] = {}
        for i, name in enumerate(table.speakers):
            if name:
                speakers.setdefault(name, []).append(i)
        found += [speakers[name] for name in sorted(speakers)]
    return found


def label_shift(
    table: PredictionTable, *, prior: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return plain and matched metrics in plain containers, as a record holds them.

    Returns:
        ``prior`` by class, and ``note``. Three times :meth:`.PredictionTable.metrics`: ``plain``,
        ``matched`` (each corpus has the prior) and ``per_speaker`` (each speaker has it). A matched
        part is None if it cannot be made, and ``why`` then gives the reason.

    Raises:
        ConfigError: if the prior cannot be used.
        DataError: if no utterance is labelled.
    """
    found: dict[str, Any] = {
        "prior": dict(zip(table.classes, prior_of(table.classes, prior).tolist(), strict=True)),
        "note": TRANSDUCTIVE,
        "plain": table.metrics(),
        "matched": None,
        "per_speaker": None,
        "why": "" if any(table.speakers) else "no speaker is known",
    }
    try:
        found["matched"] = matched(table, "corpus", prior=prior).metrics()
        if any(table.speakers):
            found["per_speaker"] = matched(table, "speaker", prior=prior).metrics()
    except DataError as error:
        found["why"] = str(error)
    return found
