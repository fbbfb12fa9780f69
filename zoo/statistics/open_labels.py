"""What a model says about classes that it never trained on, apart from those that it did."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..taxonomy import Taxonomy
from .measure import uar_interval
from .metrics import PredictionTable


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
