"""Weak labels against people's: who is right how often, at which coverage, and how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from ...zoo.errors import DataError
from ...zoo.statistics.clusters import by_speaker
from ...zoo.statistics.jackknife import jackknife
from ...zoo.statistics.metrics import PredictionTable
from ...zoo.statistics.rates import uar_of
from ...zoo.statistics.reliability import calibrations, risk_coverage
from ...zoo.statistics.stats import Interval
from ..manifest import Utterance
from ..split import speaker_of
from .select import THRESHOLDS
from .shuffling import beside, shuffles
from .wording import DRAWS

BINS = 10


@dataclass(frozen=True)
class Said:
    """What the text was taken to say, by id; classes are indices of the people's taxonomy.

    Attributes:
        best: best class and its score, of those that pass all criteria but threshold and caps.
        chosen: class of those that were selected.
        soft: probabilities of all classes, of all that were scored; None where no scores are kept.
    """

    best: Mapping[str, tuple[int, float]]
    chosen: Mapping[str, int]
    soft: Mapping[str, Sequence[float]] | None


def compare(
    utterances: Sequence[Utterance],
    classes: Sequence[int],
    names: Sequence[str],
    said: Said,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Weak labels beside those of people, as plain containers.

    Args:
        utterances: that both looked at.
        classes: by people; -1 = none, which is left out.
        names: of the classes.
        said: by the model.
        draws: shuffles of the people's labels within each speaker, for the test against chance.
        seed: of these.

    Returns:
        ``utterances`` labelled by people; ``selected``, the labels as they are in the manifest:
        :func:`score`, ``confusion`` (people by rows), ``unlabelled`` (by class of the people),
        and ``shuffled`` and ``p`` of the UAR against shuffled labels; ``sweep``, :func:`score` at
        thresholds; ``reliability`` of the score of the best class: bins of equal width with their
        number, mean score and accuracy, and their expected calibration ``error``; and ``soft``,
        calibration and area under risk and coverage of the soft labels, untempered.
    """
    known = [(u, c) for u, c in zip(utterances, classes, strict=True) if c >= 0]
    chosen = _table(known, names, said.chosen)
    confusion = chosen.confusion()
    selected = score(chosen, len(known)) | {
        "confusion": confusion.tolist(),
        "unlabelled": {
            name: sum(c == i for _, c in known) - int(confusion[i].sum())
            for i, name in enumerate(names)
        },
    }
    if len(chosen):
        selected |= _by_chance(chosen, draws, seed)
    sweep = []
    for threshold in THRESHOLDS:
        over = {i: c for i, (c, s) in said.best.items() if s >= threshold}
        sweep.append({"threshold": threshold, **score(_table(known, names, over), len(known))})
    return {
        "utterances": len(known),
        "classes": list(names),
        "selected": selected,
        "sweep": sweep,
        "reliability": _reliability(known, said.best),
        "soft": None if said.soft is None else _soft(known, names, said.soft),
    }


def score(table: PredictionTable, total: int) -> dict[str, Any]:
    """Number, share of ``total``, number of classes present, UAR and accuracy with intervals."""
    found: dict[str, Any] = {"n": len(table), "coverage": len(table) / max(1, total)}
    if not len(table):
        return found
    for name in ("uar", "wa"):
        found[name] = _interval(jackknife(table, name))
    present = len(set(table.labels.tolist()))
    return found | {"present": present, "chance": 1 / present}


def _interval(interval: Interval) -> dict[str, float | None]:
    return {k: v if isfinite(v := getattr(interval, k)) else None for k in ("value", "low", "high")}


def _table(
    known: Sequence[tuple[Utterance, int]], names: Sequence[str], said: Mapping[str, int]
) -> PredictionTable:
    """Of the utterances that something was said of."""
    rows = [(u, c) for u, c in known if u.id in said]
    return PredictionTable(
        ids=[u.id for u, _ in rows],
        speakers=[speaker_of(u) for u, _ in rows],
        labels=np.array([c for _, c in rows], dtype=np.int64),
        scores=np.eye(len(names))[[said[u.id] for u, _ in rows]].reshape(-1, len(names)),
        classes=list(names),
    )


def _by_chance(table: PredictionTable, draws: int, seed: int) -> dict[str, float]:
    """UAR of the same answers to labels shuffled within each speaker; one-sided p.

    Raises:
        DataError: when not every speaker is known.
    """
    if unknown := table.speakers.count(""):
        raise DataError(
            f"labels are shuffled within each speaker, and {unknown} of {len(table)} utterances "
            "have no speaker; name the speakers, or leave these out of the manifest"
        )
    names = sorted(set(table.speakers))
    who = np.array([names.index(s) for s in table.speakers], dtype=np.int64)
    c, answers = len(table.classes), table.predicted
    value = float(uar_of(by_speaker(table, names).sum(0)))
    found = [
        float(uar_of(np.bincount(y * c + answers, minlength=c * c).reshape(c, c)))
        for y in shuffles(table.labels, who, draws, seed)
    ]
    return beside(value, found)


def _reliability(
    known: Sequence[tuple[Utterance, int]], best: Mapping[str, tuple[int, float]]
) -> dict[str, Any]:
    """Bins ``(low, high]`` of the score; what people call so, and what the model is sure of."""
    rows = [(best[u.id][0] == c, best[u.id][1]) for u, c in known if u.id in best]
    right, sure = np.array([r for r, _ in rows], dtype=float), np.array([s for _, s in rows])
    index = np.clip(np.ceil(sure * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
    bins = []
    for k in sorted(set(index.tolist())):
        mine = index == k
        bins.append(
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "n": int(mine.sum()),
                "score": float(sure[mine].mean()),
                "accuracy": float(right[mine].mean()),
            }
        )
    gaps = [b["n"] * abs(b["accuracy"] - b["score"]) for b in bins]
    return {"bins": bins, "error": sum(gaps) / len(rows) if rows else None}


def _soft(
    known: Sequence[tuple[Utterance, int]],
    names: Sequence[str],
    soft: Mapping[str, Sequence[float]],
) -> dict[str, float] | None:
    rows = [(u, c) for u, c in known if u.id in soft]
    if not rows:
        return None
    chances = np.array([soft[u.id] for u, _ in rows], dtype=np.float64)
    table = PredictionTable(
        ids=[u.id for u, _ in rows],
        speakers=[speaker_of(u) for u, _ in rows],
        labels=np.array([c for _, c in rows], dtype=np.int64),
        scores=np.log(np.maximum(chances, 1e-30)),
        classes=list(names),
    )
    honest, risk = calibrations(table, 1.0)[0], risk_coverage(table)
    return {
        "n": len(rows),
        "ece": honest.ece,
        "classwise_ece": honest.classwise_ece,
        "brier": honest.brier,
        "nll": honest.nll,
        "aurc": risk.aurc,
        "excess_aurc": risk.excess,
    }
