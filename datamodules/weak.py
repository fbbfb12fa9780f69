"""Weak labels in training: hard or soft, weighted by their confidence, shuffled as a control.

A weak label is one that a model gave (``label_source`` begins with ``weak:``). It is a word of the
canonical vocabulary, whatever codes the corpus has, and it is learned from only: nothing is
selected or scored by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..zoo.errors import DataError
from ..zoo.taxonomy import Taxonomy

if TYPE_CHECKING:
    from .catalog import Speech
    from .manifest import Utterance

PREFIX = "weak:"
CARRIED = ("label", "label_source", "label_score")


def is_weak(utterance: Utterance) -> bool:
    """Whether a model gave its label."""
    return (utterance.label_source or "").startswith(PREFIX)


def refuse_weak(part: str, utterances: Sequence[Utterance], label: str = "label") -> None:
    """Refuse weak labels where something is selected or scored.

    Args:
        part: ``valid`` or ``test``.
        utterances: of the part.
        label: the column that is used; other columns than ``label`` are not weak.

    Raises:
        DataError: with how many there are, and which protocols keep them in training.
    """
    found = [u for u in utterances if is_weak(u)] if label == "label" else []
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
    ids = sorted(u.id for u in utterances if is_weak(u))
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
    return [1.0 if u.label_score is None or not is_weak(u) else u.label_score for u in utterances]


def weak_counts(utterances: Sequence[Utterance]) -> dict[str, int]:
    """Weak labels by the model that gave them."""
    return dict(Counter(str(u.label_source) for u in utterances if is_weak(u)))


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
        if is_weak(u):
            if u.id not in soft:
                raise DataError(
                    f"{u.id} has a weak label and no row of scores; run `serzoo label` again, or "
                    "train on hard labels (data.weak=hard)"
                )
            row[:] = soft[u.id]
        elif c >= 0:
            row[c] = 1.0
    return rows


def soft_scores(manifest: str | Path, taxonomy: Taxonomy, kind: str) -> dict[str, list[float]]:
    """Targets of all classes by id, of the file of scores beside a manifest of weak labels.

    Args:
        manifest: that ``serzoo label`` wrote.
        taxonomy: the classes, which are those that were scored.
        kind: ``soft`` adds up to one, ``independent`` is a probability of each class by itself; see
            :func:`.labelling.select.soft_targets`.

    Scores of a finer taxonomy are folded, as the labels were.

    Raises:
        ConfigError: when finer classes fold into none of the run's.
        DataError: when there is no such file, or it holds other classes.
    """
    from .labelling.folding import fold_rows
    from .labelling.select import soft_targets
    from .labelling.stage import read_labels, rows_of

    path = Path(manifest).with_name("scores.jsonl")
    if not path.is_file():
        raise DataError(
            f"data.weak={kind}: there is no {path.name} beside {manifest}; give the manifest in "
            "the folder of `serzoo label`, or train on hard labels (data.weak=hard)"
        )
    name: Any = "distribution" if kind == "soft" else kind
    rows: Any = rows_of(path)
    record = path.with_name("labels.json")
    if record.is_file() and (about := read_labels(record.parent)).get("folded"):
        fine = Taxonomy.from_dict(about["scores"]["settings"]["taxonomy"])
        rows = fold_rows(rows, fine, taxonomy)
    found = soft_targets(rows, taxonomy, name)
    return {i: [float(v) for v in row] for i, row in found.items()}


def with_weak(
    speech: Speech,
    manifest: str | None,
    taxonomy: Taxonomy | None,
    weak: str,
    seed: int | None,
) -> Speech:
    """Speech with the scores that soft labels are, and with labels dealt out anew."""
    if weak != "hard":
        if manifest is None or taxonomy is None:
            raise DataError(
                f"data.weak={weak} takes the scores beside the manifest of weak labels, in the "
                "order of a taxonomy; set data.manifest=FOLDER/manifest.jsonl and taxonomy=NAME"
            )
        speech = replace(speech, soft=soft_scores(manifest, taxonomy, weak))
    if seed is None:
        return speech
    utterances, giver = shuffled(speech.utterances, seed)
    soft = {i: speech.soft[g] for i, g in giver.items() if g in speech.soft}
    return replace(speech, utterances=utterances, soft=soft)
