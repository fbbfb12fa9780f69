"""Utterances by class: which a taxonomy gives them, and a share of each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..zoo.core.errors import DataError
from ..zoo.core.taxonomy import Taxonomy
from .info import CorpusInfo
from .manifest import Utterance

if TYPE_CHECKING:
    pass


def class_indices(utterances: Sequence[Utterance], taxonomy: Taxonomy, label: str) -> list[int]:
    """Class of each utterance; -1 where the taxonomy has none."""
    infos = {c: CorpusInfo.load(c) for c in {u.corpus for u in utterances}}
    found = []
    for u in utterances:
        name = infos[u.corpus].canonical_label(u, label)
        index = taxonomy.class_of(name) if name is not None else None
        found.append(-1 if index is None else index)
    return found


def share_of(
    utterances: Sequence[Utterance], classes: Sequence[int], share: float, seed: int
) -> list[int]:
    """Positions of a share of each class' utterances, rounded, one of each class at least.

    Drawn by the seed alone, so every head of a comparison gets the same, and the utterances of a
    smaller share are among those of a larger one. The order is kept.
    """
    chosen: list[int] = []
    for c in sorted(set(classes)):
        rows = [i for i, found in enumerate(classes) if found == c]
        # in an order that the manifest's has no part in
        rows.sort(key=lambda i: digest([str(seed), utterances[i].id]))
        chosen += rows[: max(1, round(share * len(rows)))]
    return sorted(chosen)


def digest(texts: Iterable[str]) -> str:
    """16 hexadecimal digits of texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def refuse_unlabelled(labels: Sequence[str | None], column: str) -> None:
    """Refuse speech of which nothing has a label.

    Args:
        labels: of all utterances.
        column: that they are of, for the message.

    Raises:
        DataError: saying how it gets some.
    """
    if any(name is not None for name in labels):
        return
    raise DataError(
        f"none of {len(labels)} utterances is labelled (column '{column}'), and training and "
        "testing need labels; of a table, name the column with data.options.label=COLUMN (of "
        "`serzoo prepare`: options.label=COLUMN), or make weak labels with `serzoo label`"
    )


def auto_taxonomy(utterances: Sequence[Utterance], label: str) -> Taxonomy:
    """One class per label found, in alphabetical order."""
    infos = {c: CorpusInfo.load(c) for c in {u.corpus for u in utterances}}
    found = {infos[u.corpus].canonical_label(u, label) for u in utterances} - {None}
    if len(found) < 2:
        listed = ", ".join(sorted(map(str, found))) or "none"
        raise DataError(
            f"column '{label}' holds {len(found)} labels ({listed}); at least 2 are needed"
        )
    return Taxonomy.of(sorted(str(f) for f in found), name="auto")


# ---- Weak labels in training: hard or soft, weighted by their confidence, shuffled as a control.
#
# A weak label is one that a model gave (``label_source`` begins with ``weak:``). It is a word of
# the canonical vocabulary, whatever codes the corpus has, and it is learned from only: nothing is
# selected or scored by it.

CARRIED = ("label", "label_source", "label_score")


def refuse_weak(part: str, utterances: Sequence[Utterance], label: str = "label") -> None:
    """Refuse weak labels where something is selected or scored.

    Args:
        part: ``valid`` or ``test``.
        utterances: of the part.
        label: the column that is used; other columns than ``label`` are not weak.

    Raises:
        DataError: with how many there are, and which protocols keep them in training.
    """
    found = [u for u in utterances if u.weak] if label == "label" else []
    if found:
        raise DataError(
            f"{len(found)} of {len(utterances)} utterances of the {part} part have weak labels "
            f"(first: {found[0].id}, {found[0].label_source}), and a model's guess is nothing to "
            "select or score by; train on them with protocol=train-only (the last epoch is kept) "
            "or protocol=weak-train (human-labelled corpora beside them validate and test: "
            "corpus=[WEAK,HUMAN]), and evaluate on a manifest that people have labelled"
        )


def shuffled(utterances: Sequence[Utterance], seed: int) -> tuple[list[Utterance], dict[str, str]]:
    """Weak labels dealt out anew among the utterances that have one, with their confidences.

    What was said and what the label says are then independent, while there is as much speech of as
    many labels: what shuffled labels teach is not owed to words.

    Args:
        utterances: others than weakly labelled ones stay as they are.
        seed: of the permutation, which depends on nothing else but the ids.

    Returns:
        The utterances in their order, and the id whose label each weak one has now.
    """
    ids = sorted(u.id for u in utterances if u.weak)
    order = np.random.default_rng([seed, 1]).permutation(len(ids))
    giver = {ids[i]: ids[int(j)] for i, j in enumerate(order)}
    by_id = {u.id: u for u in utterances}
    found = []
    for u in utterances:
        if u.id in giver:
            other = by_id[giver[u.id]]
            u = replace(u, **{name: getattr(other, name) for name in CARRIED})
        found.append(u)
    return found, giver


def confidences(utterances: Sequence[Utterance]) -> list[float]:
    """``label_score`` of weak labels; 1 for all others, and where none is given."""
    return [1.0 if u.label_score is None or not u.weak else u.label_score for u in utterances]


def weak_counts(utterances: Sequence[Utterance]) -> dict[str, int]:
    """Weak labels by the model that gave them."""
    return dict(Counter(str(u.label_source) for u in utterances if u.weak))


def soft_rows(
    utterances: Sequence[Utterance],
    classes: Sequence[int],
    soft: Mapping[str, Sequence[float]],
    n_classes: int,
) -> np.ndarray:
    """``[N, C]`` targets: a weak label's scores of all classes; one-hot for the others.

    Raises:
        DataError: when a weakly labelled utterance has no scores.
    """
    rows = np.zeros((len(utterances), n_classes), dtype=np.float32)
    for row, u, c in zip(rows, utterances, classes, strict=True):
        if u.weak:
            if u.id not in soft:
                raise DataError(
                    f"{u.id} has a weak label and no row of scores; run `serzoo label` again, or "
                    "train on hard labels (data.weak=hard)"
                )
            row[:] = soft[u.id]
        elif c >= 0:
            row[c] = 1.0
    return rows
