"""Classes of utterances: by a taxonomy, as a share of each class, and from weak labels.

A weak label is a label that a model gave (``label_source`` begins with ``weak:``). It is a word of
the canonical vocabulary, for any corpus. Only training uses it: weak labels never select or score a
model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..zoo.core.errors import DataError
from ..zoo.core.taxonomy import Coverage, Taxonomy
from ..zoo.statistics.rates import FloatArray
from .info import CorpusInfo, canonical_label
from .manifest import Utterance


def labels_of(utterances: Sequence[Utterance], column: str) -> list[str | None]:
    """Return the canonical label of each utterance; None if it has none.

    Args:
        utterances: utterances of any corpora.
        column: the column that holds the label.
    """
    infos = {c: CorpusInfo.load(c) for c in {u.corpus for u in utterances}}
    return [infos[u.corpus].canonical_label(u, column) for u in utterances]


def class_indices(utterances: Sequence[Utterance], taxonomy: Taxonomy, label: str) -> list[int]:
    """Return the class of each utterance; -1 if the taxonomy has none."""
    return [
        -1 if name is None or (index := taxonomy.class_of(name)) is None else index
        for name in labels_of(utterances, label)
    ]


def coverage_of(labels: Iterable[str | None], taxonomy: Taxonomy) -> Coverage:
    """Count what a taxonomy keeps and drops; an utterance without a label is ``(no label)``."""
    return taxonomy.coverage(name or "(no label)" for name in labels)


def vote_rows(utterances: Sequence[Utterance], taxonomy: Taxonomy) -> FloatArray | None:
    """Return the ``[N, C]`` votes of the raters for each class; None if there is no vote at all.

    Votes for a label that the taxonomy leaves out are dropped. The row of an utterance without
    votes is zero.

    Raises:
        DataError: if the corpus does not know a code that was voted for.
    """
    found = np.zeros((len(utterances), len(taxonomy)))
    for row, u in zip(found, utterances, strict=True):
        for code, n in u.votes.items():
            name = canonical_label(replace(u, label=code, label_source=None))
            index = taxonomy.class_of(name) if name is not None else None
            if index is not None:
                row[index] += n
    return found if found.any() else None


def vote_targets(
    utterances: Sequence[Utterance], classes: Sequence[int], taxonomy: Taxonomy
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return ``[N, C]`` targets from the votes of raters, and what was counted.

    A row holds the share of the votes for each class. Votes for labels that the taxonomy leaves out
    are not in it, and are counted. A row without votes for any
    class is one-hot, and so is that of a weak label.

    Args:
        utterances: those of the training part.
        classes: class of each utterance; -1 = unlabelled.
        taxonomy: the classes.

    Returns:
        The targets, and counts for the record. ``voted`` counts utterances whose row is from votes.
        ``minority`` is the share of their votes for other classes than their own.
        ``left_out`` counts votes by label, and ``sha`` is a hash of the targets.

    Raises:
        DataError: if no utterance has votes.
    """
    found = vote_rows(utterances, taxonomy)
    rows = np.zeros((len(utterances), len(taxonomy)), dtype=np.float32)
    left_out: dict[str, float] = {}
    voted = 0
    minority: list[float] = []
    for i, (u, c) in enumerate(zip(utterances, classes, strict=True)):
        if found is not None and not u.weak and found[i].sum() > 0:
            rows[i] = found[i] / found[i].sum()
            voted += 1
            minority.append(1.0 - float(rows[i, c]) if c >= 0 else 1.0)
        elif c >= 0:
            rows[i, c] = 1.0
        for code, n in u.votes.items():
            name = canonical_label(replace(u, label=code, label_source=None))
            if name is None or taxonomy.class_of(name) is None:
                left_out[name or code] = left_out.get(name or code, 0.0) + n
    if not voted:
        raise DataError(
            f"data.targets needs votes, but none of {len(utterances)} training utterances has any "
            "for these classes; set data.targets=majority, or prepare a corpus with votes"
        )
    return rows, {
        "voted": voted,
        "of": len(utterances),
        "minority": round(float(np.mean(minority)), 4),
        "left_out": {name: round(n, 4) for name, n in sorted(left_out.items())},
        "sha": hashlib.sha256(rows.tobytes()).hexdigest()[:12],
    }


def drawn_targets(probs: np.ndarray, ids: Sequence[str], seed: int, epoch: int) -> np.ndarray:
    """Return one-hot ``[B, C]`` targets, each drawn from the distribution in its row.

    The draw depends on the seed, the epoch and the utterance alone. So it does not depend on the
    order of the batches, and a resumed run draws the same.

    Args:
        probs: ``[B, C]`` rows that sum to 1; a row of zeros stays as it is.
        ids: ids of the B utterances.
        seed: seed of the run.
        epoch: number of the epoch.
    """
    drawn = np.zeros_like(probs)
    for row, shares, name in zip(drawn, probs, ids, strict=True):
        total = float(shares.sum())
        if total > 0:
            number = int(digest([str(seed), str(epoch), name]), 16) / 16**16
            row[min(int((shares.cumsum() <= number * total).sum()), len(row) - 1)] = 1.0
    return drawn


def share_of(
    utterances: Sequence[Utterance], classes: Sequence[int], share: float, seed: int
) -> list[int]:
    """Return the positions of a share of each class' utterances, rounded, at least one per class.

    The draw depends only on the seed, so every head of a comparison gets the same utterances. A
    larger share contains those of a smaller one. The order is kept.
    """
    chosen: list[int] = []
    for c in sorted(set(classes)):
        rows = [i for i, found in enumerate(classes) if found == c]
        # in an order that does not depend on that of the manifest
        rows.sort(key=lambda i: digest([str(seed), utterances[i].id]))
        chosen += rows[: max(1, round(share * len(rows)))]
    return sorted(chosen)


def digest(texts: Iterable[str]) -> str:
    """Return 16 hexadecimal digits of a hash of texts, in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def refuse_unlabelled(labels: Sequence[str | None], column: str) -> None:
    """Check that at least one utterance has a label.

    Args:
        labels: the labels of all utterances.
        column: the column of the labels, for the message.

    Raises:
        DataError: if no utterance has one; the message says how to get labels.
    """
    if any(name is not None for name in labels):
        return
    raise DataError(
        f"none of {len(labels)} utterances is labelled (column '{column}'), but training and "
        "testing need labels; for a table, name the column with data.options.label=COLUMN (in "
        "`serzoo prepare`: options.label=COLUMN), or make weak labels with `serzoo label`"
    )


def auto_taxonomy(utterances: Sequence[Utterance], label: str) -> Taxonomy:
    """Return a taxonomy with one class per label found, in alphabetical order."""
    found = set(labels_of(utterances, label)) - {None}
    if len(found) < 2:
        listed = ", ".join(sorted(map(str, found))) or "none"
        raise DataError(
            f"column '{label}' holds {len(found)} labels ({listed}), but at least 2 are needed; "
            "name another column with data.label=COLUMN"
        )
    return Taxonomy.of(sorted(str(f) for f in found), name="auto")


# Weak labels: hard or soft, weighted by their confidence, shuffled as a control.

CARRIED = ("label", "label_source", "label_score")


def refuse_weak(part: str, utterances: Sequence[Utterance], label: str = "label") -> None:
    """Check that validation and test have no weak labels.

    Args:
        part: ``valid`` or ``test``.
        utterances: the utterances of the part.
        label: the label column in use; only the column ``label`` can be weak.

    Raises:
        DataError: if there are weak labels. The message gives their number, and the protocols
            that keep them in training.
    """
    found = [u for u in utterances if u.weak] if label == "label" else []
    if found:
        raise DataError(
            f"{len(found)} of {len(utterances)} utterances of the {part} part have weak labels "
            f"(first: {found[0].id}, {found[0].label_source}); only labels by people may select "
            "or score a model. Set protocol=train-only, and evaluate on a manifest that people "
            "have labelled. Or set protocol=weak-train with corpus=[WEAK,HUMAN]: the corpus HUMAN "
            "validates and tests"
        )


def shuffled(utterances: Sequence[Utterance], seed: int) -> tuple[list[Utterance], dict[str, str]]:
    """Permute the weak labels, with their confidences, among the utterances that have one.

    The label is then independent of the words, while amounts of speech and labels stay the same.
    So anything that a model learns from shuffled labels is not due to the words.

    Args:
        utterances: utterances without a weak label stay as they are.
        seed: seed of the permutation, which otherwise depends only on the ids.

    Returns:
        The utterances in their order, and for each weak one the id that its label came from.
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
    """Return the ``label_score`` of weak labels; 1 for all other labels, and if there is none."""
    return [1.0 if u.label_score is None or not u.weak else u.label_score for u in utterances]


def weak_counts(utterances: Sequence[Utterance]) -> dict[str, int]:
    """Count the weak labels by the model that gave them."""
    return dict(Counter(str(u.label_source) for u in utterances if u.weak))


def soft_rows(
    utterances: Sequence[Utterance],
    classes: Sequence[int],
    soft: Mapping[str, Sequence[float]],
    n_classes: int,
) -> np.ndarray:
    """Return ``[N, C]`` targets: the class scores of a weak label; one-hot for other labels.

    Raises:
        DataError: if a weakly labelled utterance has no scores.
    """
    rows = np.zeros((len(utterances), n_classes), dtype=np.float32)
    for row, u, c in zip(rows, utterances, classes, strict=True):
        if u.weak:
            if u.id not in soft:
                raise DataError(
                    f"{u.id} has a weak label but no row of scores; run `serzoo label` again, or "
                    "train on hard labels (data.weak=hard)"
                )
            row[:] = soft[u.id]
        elif c >= 0:
            row[c] = 1.0
    return rows
