"""Whom a head serves worse: metrics by gender, speaker, language, duration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from ..errors import DataError
from .clusters import by_speaker, tested
from .jackknife import interval_of
from .metrics import PredictionTable
from .rates import recalls_of
from .stats import Interval


@dataclass(frozen=True)
class Group:
    """One row of a sub-group table.

    Attributes:
        name: value of the attribute, or its range.
        n: labelled utterances.
        uar: over the classes present, with interval; its note says why there is none.
        wa: with interval.
        recalls: of the classes present.
        absent: classes that no utterance of the group has.
        note: what is to be known of the row, or "".
    """

    name: str
    n: int
    uar: Interval
    wa: Interval
    recalls: dict[str, float]
    absent: list[str]
    note: str


@dataclass(frozen=True)
class SubGroups:
    """A table of groups by one attribute.

    Attributes:
        attribute: its name.
        groups: rows, by name, or from low to high.
        worst: name of the group with the lowest UAR; None without two groups that can be compared.
        gap: highest UAR minus lowest; NaN without two groups that can be compared. Of many small
            groups it is large by chance alone: read it with the intervals.
        unstated: labelled utterances of which the attribute is not known; in no group.
        note: groups left out of ``worst`` and ``gap``, and why; or "".
    """

    attribute: str
    groups: list[Group]
    worst: str | None
    gap: float
    unstated: int
    note: str


def sub_groups(
    table: PredictionTable,
    attributes: Mapping[str, Mapping[str, Any]],
    attribute: str,
    *,
    level: float = 0.95,
) -> SubGroups:
    """UAR, WA and recalls by an attribute of the utterances.

    Intervals are those of :func:`.jackknife.jackknife`, because groups have few speakers. A UAR
    over fewer classes is another number, so groups that lack a class of the table's labelled
    utterances are shown, and left out of the worst group and the gap.

    Args:
        table: predictions; unlabelled utterances take no part.
        attributes: of each id of the table. A float (seconds, years) is cut at the terciles of
            the labelled utterances, anything else is a group by its ``str``; None, NaN and "" are
            not stated. ``speaker`` is taken from the table, where "" is not stated.
        attribute: which one.
        level: coverage aimed at by the intervals.

    Raises:
        DataError: an utterance without attributes, an attribute that no utterance has, numbers
            mixed with names, or no labelled utterance.
    """
    rows = np.flatnonzero(table.labelled)
    if not len(rows):
        raise DataError(
            f"none of {len(table)} utterances is labelled, so there are no groups; evaluate on "
            "labelled speech"
        )
    values = _values(table, attributes, attribute, rows)
    groups = _members(rows, values)
    if not groups:
        raise DataError(
            f"no utterance states its {attribute}; "
            f"have {', '.join(sorted({k for a in attributes.values() for k in a})) or 'none'}"
        )
    present = set(table.labels[rows].tolist())
    found = [_group(name, table, members, present, level) for name, members in groups.items()]
    asked = {table.classes[i] for i in present}
    whole = [g for g in found if not asked & set(g.absent)]
    note = "; ".join(f"{g.name}: {g.note}" for g in found if g not in whole)
    worst, gap = None, nan
    if len(whole) > 1:
        ordered = sorted(whole, key=lambda g: g.uar.value)
        worst, gap = ordered[0].name, ordered[-1].uar.value - ordered[0].uar.value
    unstated = len(rows) - sum(g.n for g in found)
    return SubGroups(attribute, found, worst, gap, unstated, note and f"not in the gap: {note}")


def _values(
    table: PredictionTable,
    attributes: Mapping[str, Mapping[str, Any]],
    attribute: str,
    rows: np.ndarray[Any, Any],
) -> list[Any]:
    if attribute == "speaker":
        return [table.speakers[i] for i in rows]
    if missing := [table.ids[i] for i in rows if table.ids[i] not in attributes]:
        raise DataError(
            f"{len(missing)} of {len(rows)} utterances have no attributes (first: {missing[0]}); "
            "take them from the manifest that was tested"
        )
    return [attributes[table.ids[i]].get(attribute) for i in rows]


def _members(rows: np.ndarray[Any, Any], values: list[Any]) -> dict[str, list[int]]:
    """Rows of each group; groups by name, or from low to high."""
    stated = [
        (int(i), v)
        for i, v in zip(rows, values, strict=True)
        if v is not None and v != "" and (not isinstance(v, float) or isfinite(v))
    ]
    numbers = [isinstance(v, float) for _, v in stated]
    groups: dict[str, list[int]] = {}
    if stated and all(numbers):
        low, high = np.quantile([v for _, v in stated], [1 / 3, 2 / 3])
        names = f"up to {low:.3g}", f"{low:.3g} to {high:.3g}", f"above {high:.3g}"
        for i, v in sorted(stated, key=lambda pair: (pair[1], pair[0])):
            groups.setdefault(names[int(v > low) + int(v > high)], []).append(i)
        return groups
    if any(numbers):
        raise DataError(
            f"an attribute is a number for {sum(numbers)} of {len(numbers)} utterances and a name "
            "for the others; give numbers to all, or names"
        )
    for i, v in sorted(stated, key=lambda pair: (str(pair[1]), pair[0])):
        groups.setdefault(str(v), []).append(i)
    return groups


def _group(
    name: str, table: PredictionTable, members: list[int], present: set[int], level: float
) -> Group:
    confusions = by_speaker(table, sorted({table.speakers[i] for i in members}), np.array(members))
    n, why = tested(table.subset(members))
    recalls = recalls_of(confusions.sum(0))
    absent = [i for i, r in enumerate(recalls) if not np.isfinite(r)]
    notes = []
    if lacking := [table.classes[i] for i in absent if i in present]:
        notes.append(f"no {', '.join(lacking)}: UAR over {len(recalls) - len(absent)} classes")
    uar, wa = (
        interval_of(confusions, metric, level, why)._replace(n_speakers=n)
        for metric in ("uar", "wa")
    )
    if uar.note:
        notes.append(uar.note)
    return Group(
        name,
        len(members),
        uar,
        wa,
        {c: float(r) for c, r in zip(table.classes, recalls, strict=True) if np.isfinite(r)},
        [table.classes[i] for i in absent],
        "; ".join(notes),
    )
