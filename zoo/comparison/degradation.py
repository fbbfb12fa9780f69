"""What a condition costs: UAR of each head under it, minus its own on clean audio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..record import read_plan, write_json
from ..reporting.cells import Run, encoder_name, pooled, read_runs
from ..reporting.summary import number
from ..statistics.jackknife import paired_jackknife
from ..statistics.metrics import PredictionTable
from ..swap import new_file

CLEAN = "clean"
# what was processed alike but for the one thing that is asked about
CONTROLS = {"monotone": "resynthesised"}


def degradation(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per recipe, encoder, head and condition, over the folds and seeds that all share.

    Returns:
        ``recipe``, ``encoder``, ``head``, ``condition``, ``uar``, and ``difference`` (to clean, on
        the same utterances: ``value``, and ``low`` and ``high`` of a jackknife interval over
        speakers, None where there is one only; no difference for clean itself), and ``control``,
        the same to the condition that it is to be compared with (:data:`CONTROLS`).
        ``cells`` counts the folds and seeds, ``left_out`` those that lack a condition or a head.
    """
    tables: dict[tuple[str, str], dict[tuple[str, str], dict[tuple[int, int], Run]]] = {}
    for run in runs:
        cfg = run.record["config"]
        key = Path(cfg["recipe"]).stem, encoder_name(cfg["encoder"])
        column = run.head, str(run.record["condition"])
        tables.setdefault(key, defaultdict(dict))[column][run.fold, run.seed] = run
    rows = []
    for (recipe, encoder), columns in tables.items():
        common = set.intersection(*(set(cells) for cells in columns.values()))
        every = set.union(*(set(cells) for cells in columns.values()))
        if not common:
            continue
        made = {c: pooled([cells[k] for k in sorted(common)]) for c, cells in columns.items()}
        for (head, condition), table in made.items():
            control = CONTROLS.get(condition, "")
            rows.append(
                {
                    "recipe": recipe,
                    "encoder": encoder,
                    "head": head,
                    "condition": condition,
                    "uar": table.uar(),
                    "difference": _less(table, made.get((head, CLEAN)), condition != CLEAN),
                    "control": _less(table, made.get((head, control)), bool(control)),
                    "cells": len(common),
                    "left_out": len(every) - len(common),
                }
            )
    return rows


def _less(
    table: PredictionTable, other: PredictionTable | None, wanted: bool
) -> dict[str, Any] | None:
    """What a condition costs beyond another; None where that is not there, or not asked."""
    if other is None or not wanted:
        return None
    d = paired_jackknife(table, other)
    return {"value": d.value, "low": number(d.low), "high": number(d.high)}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table per recipe and encoder: conditions down, heads across."""
    text = ""
    for key in dict.fromkeys((r["recipe"], r["encoder"]) for r in rows):
        mine = [r for r in rows if (r["recipe"], r["encoder"]) == key]
        heads = list(dict.fromkeys(r["head"] for r in mine))
        cells = {(r["condition"], r["head"]): r for r in mine}
        text += f"**{key[0]}, encoder {key[1]}**\n\n| condition | {' | '.join(heads)} |\n"
        text += "|" + "---|" * (1 + len(heads)) + "\n"
        for condition in dict.fromkeys(r["condition"] for r in mine):
            shown = [_cell(cells.get((condition, head))) for head in heads]
            text += f"| {condition} | {' | '.join(shown)} |\n"
            against = [(cells.get((condition, head)) or {}).get("control") for head in heads]
            if any(against):
                shown = [_difference(d) if d else "–" for d in against]
                text += f"| {condition} less {CONTROLS[condition]} | {' | '.join(shown)} |\n"
        if left := mine[0]["left_out"]:
            text += f"\n{left} folds of seeds left out: not every head has every condition.\n"
        text += "\n"
    return text + (
        "UAR, all folds' test utterances pooled; in brackets its difference to the same head on "
        "clean audio, with a 95 % interval (paired jackknife over speakers).\n"
    )


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    d = row["difference"]
    if d is None:
        return f"{row['uar']:.3f}"
    return f"{row['uar']:.3f} ({_difference(d)})"


def _difference(d: dict[str, Any]) -> str:
    if d["low"] is None:
        return f"{d['value']:+.3f}"
    return f"{d['value']:+.3f}; {d['low']:+.3f} to {d['high']:+.3f}"


def write(folder: Path) -> Path:
    """``degradation.json`` and ``.md`` of a suite of conditions; the latter's path."""
    plan = read_plan(folder)
    runs, _ = read_runs(folder, plan["cells"])
    rows = degradation(runs)
    write_json(folder / "degradation.json", {"suite": plan["name"], "rows": rows})
    path = folder / "degradation.md"
    with new_file(path) as draft:
        draft.write_text(f"# {plan['title']}\n\n{markdown(rows)}", "utf-8")
    return path
