"""Where the time of a comparison went: encoding, fitting, evaluating, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .tables import counted

PARTS = ("encode", "fit", "evaluate")


def totals(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of all processes by part, and the rows of features that were made and reused.

    ``other`` is what no part accounts for: reading the corpus, loading the encoder, writing.
    Older records have no ``encode`` and ``evaluate``; theirs are in ``other``.
    """
    sums = {"cells": 0, **dict.fromkeys((*PARTS, "other", "total"), 0.0), "encoded": 0, "reused": 0}
    for record in records:
        seconds = {"total": 0.0} | (record.get("seconds") or {})
        store = record.get("feature_store") or {}
        sums["cells"] += 1
        sums["total"] += seconds["total"]
        for part in PARTS:
            sums[part] += seconds.get(part, 0.0)
        sums["other"] += seconds["total"] - sum(seconds.get(part, 0.0) for part in PARTS)
        for rows in ("encoded", "reused"):
            sums[rows] += store.get(rows, 0)
    return {k: round(v, 1) if isinstance(v, float) else v for k, v in sums.items()}


def in_words(sums: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> str:
    """One line for people."""
    whose = "its process" if sums["cells"] == 1 else "their processes"
    text = (
        f"{counted(sums['cells'], 'cell')} took {sums['total']:.0f} s of {whose}: encoding "
        f"{sums['encode']:.0f}, fitting {sums['fit']:.0f}, evaluating {sums['evaluate']:.0f}, "
        f"other {sums['other']:.0f}"
    )
    if sums["encoded"] or sums["reused"]:
        text += f"; {sums['encoded']} rows of features were made and {sums['reused']} reused"
    ran = [call for call in calls if call["cells"]]
    if ran:
        wall = sum(call["seconds"] for call in ran)
        text += f"; {wall:.0f} s on the clock" + (f" in {len(ran)} parts" * (len(ran) > 1))
    return text
