"""Utterances by class: which a taxonomy gives them, and a share of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from ..zoo.errors import DataError
from ..zoo.taxonomy import Taxonomy
from .info import CorpusInfo
from .manifest import Utterance


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
