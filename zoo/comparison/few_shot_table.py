"""Learning curves of a suite of adaptations, as a table: what k utterances of each class bring."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..record import write_json
from ..reporting.packed import record_reader
from ..swap import new_file

BASE = {"none"}
IMPORTED = "imported"


def points(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """One point per head, tuning and number of shots, over its draws; of finished cells.

    Each holds ``head``, ``encoder``, ``tuning`` (``none`` without shots), ``shots``, ``draws``,
    and of the draws the mean, standard deviation (None of one draw), lowest and highest UAR of
    the query, the mean change of the source's UAR (None where it was not scored), the mean seconds
    of fitting and the mean bytes that changed (None of imported predictions).
    """
    found: dict[tuple[str, str, str, int], dict[int, dict[str, Any]]] = {}
    read = record_reader(folder)
    for name in names:
        entry = read(name)
        if entry is None or entry.get("status") != "ok":
            continue
        head, tuning = entry["source"]["head"], entry["tuning"]
        if brought := entry.get("imported"):  # in the table of each tuning, and the same in all
            head, tuning = brought["name"], "none" if tuning == "none" else IMPORTED
        key = (head, entry["source"]["encoder"]["type"], tuning, int(entry["shots"]))
        found.setdefault(key, {})[int(entry["draw"])] = entry
    return [
        {
            "head": head,
            "encoder": encoder,
            "tuning": tuning,
            "shots": shots,
            **_over_draws(list(entries.values())),
        }
        for (head, encoder, tuning, shots), entries in sorted(found.items())
    ]


def _over_draws(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    uar = [e["metrics"]["uar"] for e in entries]
    forgot = [e["forgetting"]["change"]["uar"] for e in entries if e.get("forgetting")]
    return {
        "draws": len(entries),
        "uar": statistics.fmean(uar),
        "deviation": statistics.stdev(uar) if len(uar) > 1 else None,
        "lowest": min(uar),
        "highest": max(uar),
        "forgetting": statistics.fmean(forgot) if forgot else None,
        "seconds": _mean(e["seconds"].get("fit") for e in entries),
        "bytes": _mean((e.get("bytes") or {}).get("changed") for e in entries),
        "supports": sorted({e["support"]["sha"] for e in entries}),
        "short": sorted({c for e in entries for c in e["support"]["short"]}),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def write(folder: Path, names: Sequence[str]) -> Path:
    """``learning_curves.json`` and ``learning_curves.md``; the latter's path.

    The heads of a point must have been adapted to the same supports; where they were not, because
    cells are missing, the table says so.
    """
    found = points(folder, names)
    write_json(folder / "learning_curves.json", found)
    path = folder / "learning_curves.md"
    body = table(found) if found else "No cell has ended well.\n"
    with new_file(path) as draft:
        draft.write_text(f"# {folder.name}: learning curves\n\n{body}", "utf-8")
    return path


def table(found: list[dict[str, Any]]) -> str:
    """Points as a Markdown table: heads and tunings down, shots across."""
    shots = sorted({p["shots"] for p in found})
    lines = [
        "UAR of the query by shots of each class: mean over draws, and their standard deviation. "
        "Without a shot nothing is tuned, and a head has one value. `change` is that of the "
        "source's UAR at the most shots; seconds of fitting and bytes that changed are there, too.",
        "",
        "| head | tuning | " + " | ".join(f"k = {k}" for k in shots) + " | change | s | kB |",
        "|---|---|" + "---|" * (len(shots) + 3),
    ]
    zero = {p["head"]: p for p in found if p["tuning"] in BASE}
    curves = sorted({(p["head"], p["tuning"]) for p in found if p["tuning"] not in BASE})
    curves = curves or [(head, "none") for head in zero]
    at = {(p["head"], p["tuning"], p["shots"]): p for p in found}
    for head, tuning in curves:
        row = [at.get((head, tuning, k)) or (zero.get(head) if k == 0 else None) for k in shots]
        if tuning == "scratch" and 0 in shots:
            row[shots.index(0)] = None  # a new head knows nothing without a shot
        last = next((p for p in reversed(row) if p is not None), None)
        costs = ["", "", ""]
        if last is not None:
            change = last["forgetting"]
            costs = ["" if change is None else f"{change:+.3f}"]
            costs += ["" if last["seconds"] is None else f"{last['seconds']:.1f}"]
            costs += ["" if last["bytes"] is None else f"{last['bytes'] / 1000:.0f}"]
        cells = [_cell(p) for p in row]
        lines.append(f"| {head} | {tuning} | " + " | ".join([*cells, *costs]) + " |")
    notes = []
    for k in shots:
        same = {tuple(p["supports"]) for p in found if p["shots"] == k}
        if len(same) > 1:
            notes.append(f"- k = {k}: cells are missing, so heads differ in their supports.")
        if short := sorted({c for p in found if p["shots"] == k for c in p["short"]}):
            notes.append(f"- k = {k}: fewer than that were there of {', '.join(short)}; all taken.")
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _cell(point: dict[str, Any] | None) -> str:
    if point is None:
        return ""
    spread = point["deviation"]
    return f"{point['uar']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
