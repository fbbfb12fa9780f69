"""What probes found: numbers for the record, and a table."""

from __future__ import annotations

from typing import Any

from .. import registry
from ..statistics.probe import Probed, r2, r2_difference
from ..statistics.stats import Difference, Interval

UNITS = "serzoo.datamodules.prosody:UNITS"
WAYS = {"all": False, "within": True}
"""Of looking at a quantity: as it is, and without the means of speakers."""

Found = dict[str, dict[str, Probed]]
"""Way to quantity to probe."""


def numbers(found: dict[str, Found]) -> dict[str, Any]:
    """For the record: of each quantity its unit, and R² of each way and model."""
    units = registry.attribute(UNITS)
    result: dict[str, Any] = {}
    for name in found["model"]["all"]:
        result[name] = {"unit": units[name]}
        for way in WAYS:
            mine = found["model"][way][name]
            entry: dict[str, Any] = {
                "utterances": mine.utterances,
                "model": _plain(r2(mine)) | {"strengths": mine.strengths},
            }
            if "against" in found:
                other = found["against"][way][name]
                entry["against"] = _plain(r2(other)) | {"strengths": other.strengths}
                difference = r2_difference(mine, other)
                entry["difference"] = _plain(difference) | {"p": difference.p}
            result[name][way] = entry
    return result


def told(entry: dict[str, Any]) -> str:
    """A record, for reading."""
    data, compared = entry["data"], entry["against"] is not None
    head = ["", "R² of the model", *(["R² of the other", "difference"] if compared else [])]
    titles = {"all": "as it is", "within": "within speakers (each speaker's mean taken off)"}
    rows = []
    for way, title in titles.items():
        rows.append([title])
        for name, quantity in entry["quantities"].items():
            found = quantity[way]
            cells = [found[k] for k in ("model", "against", "difference") if k in found]
            rows.append([f"  {name}", *map(_cell, cells)])
    widths = [max(len(r[i]) for r in [head, *rows] if len(r) > 1) for i in range(len(head))]
    text = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=False)) for r in [head, *rows]]
    lines = [line.rstrip() for line in text]
    n = max(q["all"]["utterances"] for q in entry["quantities"].values())
    lines.append(
        f"{n} utterances of {len(data['speakers'])} speakers of {', '.join(data['corpora'])}, "
        f"{data['folds']} folds of {data['protocol']}; 95 % intervals over speakers; "
        f"the rate is from {data['rate_from']}"
    )
    if compared:
        other = entry["against"]
        what = other.get("path") or other.get("recipe") or "the same encoder, untrained"
        lines.append(f"the other: {what}")
    if heard := entry["speakers_heard"]:
        lines.append(
            f"{len(heard)} of these speakers were heard when the encoder was trained; fold=K "
            "scores one fold's only"
        )
    if unsure := entry.get("speakers_unsure"):
        lines.append(
            "cannot tell whether the encoder heard these speakers: not every speaker of "
            f"{', '.join(unsure)} is known"
        )
    return "\n".join(lines)


def _cell(v: dict[str, Any]) -> str:
    value, low, high = (v[k] for k in ("value", "low", "high"))
    if value is None or value != value:
        return "–"
    return f"{value:.2f}" + ("" if low is None or low != low else f" ({low:.2f} to {high:.2f})")


def _plain(v: Interval | Difference) -> dict[str, Any]:
    return {"value": v.value, "low": v.low, "high": v.high}
