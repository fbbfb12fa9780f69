"""Scores of many fine emotions as scores of a few broad ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ...zoo.errors import ConfigError
from ...zoo.taxonomy import Taxonomy
from .entail import DIGITS, lift_of, mean_score

THROUGH = "ekman"
"""The taxonomy that says what finer emotions are of."""


def fold(fine: Taxonomy, coarse: Taxonomy, through: str | None = THROUGH) -> dict[str, str | None]:
    """Each class of a fine taxonomy to the class of a coarse one that it is of, or None.

    A label belongs to the coarse class that gathers it; where none does, to the one that gathers
    the name of its class in ``through`` (grateful is happy in ekman, and so positive in
    sentiment3). A class goes where all its labels go that go anywhere; where they disagree, it
    goes nowhere. Classes that go nowhere keep nothing of what they were given: say how much.

    Raises:
        ConfigError: when some coarse class gets nothing.
    """
    found = _mapped(fine, coarse, through)
    if empty := [c for c in coarse.classes if c not in found.values()]:
        raise ConfigError(
            f"no class of taxonomy '{fine.name}' folds into {', '.join(empty)} of "
            f"'{coarse.name}'; choose a coarse taxonomy whose classes it all has"
        )
    return found


def reachable(fine: Taxonomy, coarse: Taxonomy, through: str | None = THROUGH) -> Taxonomy:
    """The coarse taxonomy without the classes that nothing folds into.

    Raises:
        ConfigError: when fewer than two are left.
    """
    found = set(_mapped(fine, coarse, through).values())
    kept = {name: list(labels) for name, labels in coarse.members if name in found}
    if len(kept) < 2:
        raise ConfigError(
            f"of the classes of '{coarse.name}' ({', '.join(coarse.classes)}), '{fine.name}' can "
            f"tell {len(kept)}, and two are needed; choose another coarse taxonomy"
        )
    return Taxonomy.from_dict({"name": coarse.name, "classes": kept})


def _mapped(fine: Taxonomy, coarse: Taxonomy, through: str | None) -> dict[str, str | None]:
    between = Taxonomy.load(through) if through is not None else None
    found: dict[str, str | None] = {}
    for name, labels in fine.members:
        places = {_place(label, coarse, between) for label in labels} - {None}
        index = places.pop() if len(places) == 1 else None
        found[name] = None if index is None else coarse.classes[index]
    return found


def _place(label: str, coarse: Taxonomy, between: Taxonomy | None) -> int | None:
    index = coarse.class_of(label)
    if index is None and between is not None:
        via = between.class_of(label)
        index = None if via is None else coarse.class_of(between.classes[via])
    return index


def fold_rows(
    rows: Iterable[Mapping[str, Any]],
    fine: Taxonomy,
    coarse: Taxonomy,
    through: str | None = THROUGH,
) -> Iterator[dict[str, Any]]:
    """Rows of scores of a fine taxonomy as rows of a coarse one.

    A coarse class has the greatest score of those that fold into it, per template: it follows when
    one of them does. (A sum would favour the class with most members: 13 of ekman's are happy. Our
    choice.) Scores of classes that fold into none are left out.
    """
    mapped = fold(fine, coarse, through)
    columns = [
        [i for i, c in enumerate(fine.classes) if mapped[c] == name] for name in coarse.classes
    ]
    for row in rows:
        lift = lift_of(row, fine.classes)
        if lift is None:
            yield dict(row)
            continue
        folded = np.stack([lift[:, held].max(-1) for held in columns], -1)
        scores = mean_score(folded).round(DIGITS).tolist()
        yield dict(row) | {
            "scores": dict(zip(coarse.classes, scores, strict=True)),
            "by_template": folded.tolist(),
        }
