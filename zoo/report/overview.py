"""Sections of a report that are made of its rows: results, differences, curves, corpora, cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataError
from ..core.files import new_file, write_json
from ..core.table import Cell, Line, Table, cell, p_cell, plain, span, span_cell
from ..plots import Point, cost_figure, curve_figure, difference_figure, heat_figure
from ..run.record import Record, read_plan
from ..statistics.speakers import paired_jackknife
from ..statistics.table import PredictionTable
from .packed import record_reader
from .page import Context, Figure, Fold, Row, Section, Text, draw, drawn
from .runs import Run, encoder_name, pooled, read_runs
from .summary import Grid, difference, number
from .table import by_fold, grouped, name_of, notes, recalls, remarks, tables

# ---- What a condition costs: UAR of each head under it, minus its own on clean audio.

CLEAN = "clean"
# what was processed alike but for the one thing that is asked about
CONTROLS = {"monotone": "resynthesised"}


def degradation(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per recipe, encoder, head and condition, over the folds and seeds that all share.

    Returns:
        ``recipe``, ``encoder``, ``head``, ``condition``, ``uar``, and ``difference`` (to clean, on
        the same utterances: ``value``, and ``low`` and ``high`` of a jackknife interval over
        speakers, None if there is one only; no difference for clean itself), and ``control``,
        the same to the condition that it is to be compared with (:data:`CONTROLS`).
        ``cells`` counts the folds and seeds, ``left_out`` those that lack a condition or a head.
    """
    tables: dict[tuple[str, str], dict[tuple[str, str], dict[tuple[int, int], Run]]] = {}
    for run in runs:
        cfg = run.record.config
        key = Path(cfg["recipe"]).stem, encoder_name(cfg["encoder"])
        column = run.head, run.record.condition
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


def degradation_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """One per recipe and encoder: conditions down, heads across."""
    made = []
    for key in dict.fromkeys((r["recipe"], r["encoder"]) for r in rows):
        mine = [r for r in rows if (r["recipe"], r["encoder"]) == key]
        heads = list(dict.fromkeys(r["head"] for r in mine))
        found = {(r["condition"], r["head"]): r for r in mine}
        body: list[Line] = []
        for condition in dict.fromkeys(r["condition"] for r in mine):
            of = [found.get((condition, head)) for head in heads]
            body.append([condition, *map(_loss_cell, of)])
            against = [r and r["control"] for r in of]
            if any(against):
                less = [Cell(_difference(d), d["value"]) if d else None for d in against]
                body.append([f"{condition} less {CONTROLS[condition]}", *less])
        left = mine[0]["left_out"]
        said = f"{left} folds of seeds left out: not every head has every condition."
        title = f"{key[0]}, encoder {key[1]}"
        made.append(Table(title, ("condition", *heads), body, [said] if left else []))
    return made


def degradation_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The tables, and what their numbers are."""
    return "".join(f"{table.markdown()}\n" for table in degradation_tables(rows)) + (
        "UAR, all folds' test utterances pooled; in brackets its difference to the same head on "
        "clean audio, with a 95 % interval (paired jackknife over speakers).\n"
    )


def _loss_cell(row: dict[str, Any] | None) -> Cell | None:
    if row is None:
        return None
    d = row["difference"]
    return Cell(f"{row['uar']:.3f}" + (f" ({_difference(d)})" if d else ""), row["uar"])


def _difference(d: dict[str, Any]) -> str:
    if d["low"] is None:
        return f"{d['value']:+.3f}"
    return f"{d['value']:+.3f}; {d['low']:+.3f} to {d['high']:+.3f}"


def write_degradation(folder: Path) -> Path:
    """``degradation.json`` and ``.md`` of a suite of conditions; the latter's path."""
    plan = read_plan(folder)
    runs, _ = read_runs(folder, plan["cells"])
    rows = degradation(runs)
    write_json(folder / "degradation.json", {"suite": plan["name"], "rows": rows})
    path = folder / "degradation.md"
    with new_file(path) as draft:
        draft.write_text(f"# {plan['title']}\n\n{degradation_markdown(rows)}", "utf-8")
    return path


# ---- Learning curves of a suite of adaptations, as a table: what k utterances of each class bring.

BASE = {"none"}
IMPORTED = "imported"


def points(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """One point per head, tuning and number of shots, over its draws; of finished cells.

    Each holds ``head``, ``encoder``, ``tuning`` (``none`` without shots), ``shots``, ``draws``,
    and of the draws the mean, standard deviation (None of one draw), lowest and highest UAR of
    the query, the mean change of the source's UAR (None where it was not scored), the mean seconds
    of fitting and the mean bytes that changed (None of imported predictions).
    """
    found: dict[tuple[str, str, str, int], dict[int, Record]] = {}
    read = record_reader(folder)
    for name in names:
        entry = read(name)
        if entry is None or not entry.ok:
            continue
        head, tuning = entry.source["head"], str(entry.tuning)
        if brought := entry.imported:  # in the table of each tuning, and the same in all
            head, tuning = brought["name"], "none" if tuning == "none" else IMPORTED
        if entry.shots is None or entry.draw is None:
            raise DataError(
                f"the record of {name} in {folder} has no shots or no draw, so that it is of no "
                "adaptation; remove the cell's folder, and it is run again"
            )
        key = (head, entry.source["encoder"]["type"], tuning, entry.shots)
        found.setdefault(key, {})[entry.draw] = entry
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


def _over_draws(entries: Sequence[Record]) -> dict[str, Any]:
    uar = [e.metrics["uar"] for e in entries]
    forgot = [e.forgetting["change"]["uar"] for e in entries if e.forgetting]
    return {
        "draws": len(entries),
        "uar": statistics.fmean(uar),
        "deviation": statistics.stdev(uar) if len(uar) > 1 else None,
        "lowest": min(uar),
        "highest": max(uar),
        "forgetting": statistics.fmean(forgot) if forgot else None,
        "seconds": _mean(e.seconds.get("fit") for e in entries),
        "bytes": _mean(e.bytes.get("changed") for e in entries),
        "supports": sorted({e.support["sha"] for e in entries}),
        "short": sorted({c for e in entries for c in e.support["short"]}),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def write_few_shot(folder: Path, names: Sequence[str]) -> Path:
    """``learning_curves.json`` and ``learning_curves.md``; the latter's path.

    The heads of a point must have been adapted to the same supports; where they were not, because
    cells are missing, the table says so.
    """
    found = points(folder, names)
    write_json(folder / "learning_curves.json", found)
    path = folder / "learning_curves.md"
    body = few_shot_table(found).markdown() if found else "No cell has ended well.\n"
    with new_file(path) as draft:
        draft.write_text(f"# {folder.name}: learning curves\n\n{body}", "utf-8")
    return path


def few_shot_table(found: Sequence[dict[str, Any]]) -> Table:
    """Points as a table: heads and tunings down, shots across."""
    shots = sorted({p["shots"] for p in found})
    zero = {p["head"]: p for p in found if p["tuning"] in BASE}
    curves = sorted({(p["head"], p["tuning"]) for p in found if p["tuning"] not in BASE})
    curves = curves or [(head, "none") for head in zero]
    at = {(p["head"], p["tuning"], p["shots"]): p for p in found}
    body: list[Line] = []
    for head, tuning in curves:
        row = [at.get((head, tuning, k)) or (zero.get(head) if k == 0 else None) for k in shots]
        if tuning == "scratch" and 0 in shots:
            row[shots.index(0)] = None  # a new head knows nothing without a shot
        last: dict[str, Any] = next((p for p in reversed(row) if p is not None), {})
        size = last.get("bytes")
        costs = [cell(last.get("forgetting"), "+.3f"), cell(last.get("seconds"), ".1f")]
        costs.append(cell(None if size is None else size / 1000, ".0f"))
        body.append([head, tuning, *map(_point_cell, row), *costs])
    notes = [
        "Without a shot nothing is tuned, and a head has one value. `change` is that of the "
        "source's UAR at the most shots; seconds of fitting and bytes that changed are there, too."
    ]
    for k in shots:
        same = {tuple(p["supports"]) for p in found if p["shots"] == k}
        if len(same) > 1:
            notes.append(f"k = {k}: cells are missing, so heads differ in their supports.")
        if short := sorted({c for p in found if p["shots"] == k for c in p["short"]}):
            notes.append(f"k = {k}: fewer than that were there of {', '.join(short)}; all taken.")
    return Table(
        "UAR of the query by shots of each class: mean over draws ± their standard deviation",
        ("head", "tuning", *(f"k = {k}" for k in shots), "change", "s", "kB"),
        body,
        notes,
    )


def _point_cell(point: dict[str, Any] | None) -> Cell | None:
    if point is None:
        return None
    spread = point["deviation"]
    text = f"{point['uar']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
    return Cell(text, point["uar"])


# ---- The section of a report on what its cells started from.

CONTROL = "shuffled"


def started(section: Section, c: Context) -> None:
    """Paired differences between starts, of each head and table."""
    section.intro = (
        "UAR after one start minus that after another, on the same utterances, with the same "
        f"labels and seeds. What is left of a gain against '{CONTROL}' is owed to what the labels "
        "say, not to more speech or more steps. p is not corrected for the number of rows."
    )
    columns = ("head", "after", "minus after", "difference", "95 % interval", "p", "detectable",
               "speakers")  # fmt: skip
    amounts = [amount_of(next(iter(grid.runs.values()))[0]) for grid in c.grids]
    what = {found[1] if found else "table" for found in amounts}
    first = what.pop() if len(what) == 1 else "table"  # said once, not in every row
    body: list[Line] = []
    for grid, amount in zip(c.grids, amounts, strict=True):
        of = grid.name if amount is None else f"{amount[0]:g}"
        if amount is not None and first == "table":
            of = f"{amount[1]}: {of}"
        for head, starts in starts_of(grid).items():
            for one, other in pairs(list(starts)):
                d = difference(grid.pooled[starts[one]], grid.pooled[starts[other]])
                bounds = span_cell(d["low"], d["high"], "+.3f")
                numbers = [cell(d["value"], "+.3f"), bounds, p_cell(d["p"])]
                numbers += [cell(d["detectable"]), cell(d["n_speakers"], "d")]
                body.append([of, head, one, other, *numbers])
    if body:
        section.parts.append(Table("Differences between starts", (first, *columns), body))
    else:
        section.parts.append(Text("Not applicable: all cells started from new weights."))


def starts_of(grid: Grid) -> dict[str, dict[str, str]]:
    """Names of rows by what they started from, for each head that has several starts."""
    found: dict[str, dict[str, str]] = {}
    for name, runs in grid.runs.items():
        arm = runs[0].record.pretraining
        if arm is not None:
            found.setdefault(name.removesuffix(f" after {arm}"), {})[str(arm)] = name
    return {head: starts for head, starts in found.items() if len(starts) > 1}


def pairs(starts: list[str]) -> list[tuple[str, str]]:
    """Each start against none, then each other against the control, then the rest."""
    ranks = {"none": 0, CONTROL: 1}
    order = sorted(starts, key=lambda s: ranks.get(s, 2))
    return [(b, a) for a, b in combinations(order, 2)]


# an axis of a suite that is an amount of labels, as records name it, and in words
AMOUNTS = {
    "shots": "shots per class",
    "share": "share of the training utterances",
    "data.train_share": "share of the training utterances",
}
COSTS = {
    "trainable": "million trainable parameters",
    "seconds": "seconds of a fit",
    "inference_ms": "ms per utterance",
}
Rows = list[dict[str, Any]]


def point(row: dict[str, Any], at: float = 0.0) -> Point:
    """A row's UAR with its interval, at a place on the other axis."""
    low, high = row["interval"]
    return at, row["uar"]["mean"], low, high


def results(section: Section, c: Context) -> None:
    """The main table."""
    section.intro = (
        "UAR is the mean recall over classes, ± its standard deviation over seeds; differences "
        f"are to {c.baseline} on the same utterances. How each column is computed is said below."
    )
    for group, table in zip(grouped(c.rows), tables(c.rows, c.baseline), strict=True):
        more = Fold(f"By class and by fold: {name_of(group)}", [recalls(group), by_fold(group)])
        section.parts += [table, more]
    said = [Text(note) for note in notes(c.rows, c.baseline)]
    section.parts.append(Fold("How the columns are computed", said))
    if not c.rows:
        section.messages.append("There is no table; the sections above and below say why.")


def differences(section: Section, c: Context) -> None:
    """Paired differences to the baseline."""
    section.intro = (
        f"UAR of each head minus that of {c.baseline} on the same utterances. An interval that "
        "holds zero is no proof that two heads are equal: read it with the detectable difference "
        "(found in 80 % of cases at 0.05). Smallest p: the least that this many speakers can give."
    )
    columns = ("head", "difference", "95 % interval", "p", "p after Holm", "detectable",
               "smallest p", "speakers")  # fmt: skip
    for i, group in enumerate(grouped([r for r in c.rows if r["difference"]])):
        body, points = [], {}
        for row in group:
            d = row["difference"]
            points[row["head"]] = (0.0, d["value"], d["low"], d["high"])
            ps = [p_cell(d[k]) for k in ("p", "p_holm", "smallest_p")]
            bounds = span_cell(d["low"], d["high"], "+.3f")
            row_of = [row["head"], cell(d["value"], "+.3f"), bounds, *ps[:2], cell(d["detectable"])]
            body.append([*row_of, ps[2], cell(d["n_speakers"], "d")])
        said = "; ".join(
            f"{h} {v:+.3f} ({span(a, b, '+.3f')})" for h, (_, v, a, b) in points.items()
        )
        title = f"Difference to {c.baseline}: {name_of(group)}"
        if drawn(section, i):
            figure = difference_figure(points, name_of(group), c.baseline)
            alt = f"{title}, with 95 % intervals. {said}"
            section.parts.append(draw(figure, alt, name=f"difference-{i}"))
        section.parts.append(Table(title, columns, body, [f"{r}." for r in remarks(group)]))
    if not section.parts:
        section.messages.append(
            f"Not applicable: no table holds the baseline {c.baseline} and another head."
        )


def amount_of(run: Run) -> tuple[float, str, str] | None:
    """Amount of labels, what it is, and all else that tells the run's table from others.

    None where a run's record names no amount.
    """
    axes, condition = dict(run.record.axes), run.record.condition
    shots = run.record.shots
    if shots is not None:
        rest = [part for part in condition.split(", ") if part != f"{shots} shots"]
        return float(shots), "shots per class", ", ".join([*rest, *_said(axes)])
    for key in AMOUNTS:
        if isinstance(axes.get(key), (int, float)):
            amount = float(axes.pop(key))
            return amount, AMOUNTS[key], ", ".join([*filter(None, [condition]), *_said(axes)])
    return None


def _said(axes: dict[str, Any]) -> list[str]:
    return [f"{k}={v}" for k, v in axes.items()]


def learning(section: Section, c: Context) -> None:
    """UAR by shots, or by the share of the labels."""
    section.intro = (
        "Bands are 95 % intervals over speakers; seeds, which draw the labels, are pooled."
    )
    curves: dict[tuple[str, str], dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for g in c.grids:
        run = next(iter(g.runs.values()))[0]
        found = amount_of(run)
        if found is None:
            continue
        amount, words, rest = found
        stem = Path(run.record.config["recipe"]).stem
        name = ", ".join(part for part in (stem, run.pair, g.encoder, rest) if part)
        for head in g.runs:
            curves[name, words][head].append(point(c.row(g, head), amount))
    for (name, words), heads in curves.items():  # without any shot nothing was tuned
        for (other, _), more in curves.items() if words == AMOUNTS["shots"] else ():
            if name.startswith(f"{other}, ") and not name.endswith(", scratch"):
                for head in heads:
                    heads[head] += [p for p in more.get(head, ()) if p[0] == 0]
    figures: list[Figure] = []
    made: list[Table] = []
    for i, ((name, words), heads) in enumerate(curves.items()):
        at = sorted({p[0] for points in heads.values() for p in points})
        if len(at) < 2:
            continue
        values = {h: {p[0]: p[1] for p in points} for h, points in heads.items()}
        said = "; ".join(
            f"{h}: " + ", ".join(f"{v:.3f} at {x:g}" for x, v in sorted(of.items()))
            for h, of in values.items()
        )
        title = f"UAR by {words}: {name}"
        figures.append(
            draw(curve_figure(heads, words, name), f"{title}. {said}", name=f"learning-{i}")
        )
        body: list[Line] = [[h, *(cell(of.get(x)) for x in at)] for h, of in values.items()]
        made.append(Table(title, ("head", *(f"{x:g}" for x in at)), body))
    section.parts += [Row(figures), *made] if figures else []
    if not section.parts:
        section.parts.append(Text("Not applicable: all cells of a table had one amount of labels."))


def conditions(section: Section, c: Context) -> None:
    """What each head keeps under the conditions of a comparison, or with its free axes."""
    section.intro = "UAR of every head under each condition, and under each setting of a free axis."
    found: dict[str, list[Grid]] = defaultdict(list)
    for g in c.grids:
        run = next(iter(g.runs.values()))[0]
        stem = Path(run.record.config["recipe"]).stem
        found[", ".join(part for part in (stem, run.pair, g.encoder) if part)].append(g)
    for i, (name, members) in enumerate(found.items()):
        if len(members) < 2:
            continue
        heads = list(dict.fromkeys(h for g in members for h in g.runs))
        down = [next(iter(g.runs.values()))[0].condition or "as trained" for g in members]
        values = [
            [c.row(g, h)["uar"]["mean"] if h in g.runs else None for h in heads] for g in members
        ]
        title = f"UAR by condition: {name}"
        said = "; ".join(
            f"{d}: " + ", ".join(f"{h} {plain(v, '.3f')}" for h, v in zip(heads, row, strict=True))
            for d, row in zip(down, values, strict=True)
        )
        grid = np.array([[np.nan if v is None else v for v in row] for row in values])
        figure = heat_figure(grid, down, heads, name, ("", ""))
        section.parts.append(draw(figure, f"{title}. {said}", name=f"conditions-{i}"))
        body: list[Line] = [[d, *map(cell, row)] for d, row in zip(down, values, strict=True)]
        section.parts.append(Table(title, ("condition", *heads), body))
    if not section.parts:
        section.parts.append(
            Text("Not applicable: heads and encoders were compared under one condition.")
        )


def across(section: Section, c: Context) -> None:
    """Trained on one corpus, tested on another."""
    section.intro = (
        "UAR by corpora of training (down) and of test (across); pooled as in the results."
    )
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for g in c.grids:
        for head, runs in g.runs.items():
            source, arrow, target = runs[0].pair.partition(" to ")
            if not arrow:  # tested on what it was trained on: the diagonal
                source = target = " and ".join(n for n in runs[0].table.by_corpus() if n)
            encoder = ", ".join(part for part in (g.encoder, runs[0].condition) if part)
            found[encoder, head][source, target] = c.row(g, head)["uar"]["mean"]
    for i, ((encoder, head), values) in enumerate(found.items()):
        if all(a == b for a, b in values):
            continue
        down, over = sorted({a for a, _ in values}), sorted({b for _, b in values})
        grid = np.array([[values.get((a, b), np.nan) for b in over] for a in down])
        name = f"{head}, {encoder}"
        said = "; ".join(f"{a} to {b} {v:.3f}" for (a, b), v in sorted(values.items()))
        figure = heat_figure(grid, down, over, name, ("trained on", "tested on"))
        section.parts.append(
            draw(figure, f"UAR across corpora: {name}. {said}", name=f"across-{i}")
        )
        body: list[Line] = [[a, *(cell(values.get((a, b))) for b in over)] for a in down]
        section.parts.append(Table(f"UAR across corpora: {name}", ("trained on", *over), body))
    if not section.parts:
        section.parts.append(
            Text("Not applicable: every model was tested on the corpora that it was trained on.")
        )


def cost(section: Section, c: Context) -> None:
    """What a point of UAR costs."""
    section.intro = (
        "Seconds are of the machine that ran the cells, with whatever else it did; CPU seconds add "
        "up what all processes of a run computed; sizes are of the model. Operations (FLOP) are of "
        "matrix products, convolutions and attention, and of nothing else: of a fit, and of "
        "scoring a second of speech. Frozen features from a store cost none. Lines are 95 % "
        "intervals."
    )
    columns = ("head", "UAR", "trainable", "of the head", "s / fit", "CPU s / fit", "GFLOP / fit",
               "ms / utt", "GFLOP / s", "peak MiB")  # fmt: skip
    for i, group in enumerate(grouped(c.rows)):
        name = name_of(group)
        panels = {
            words: {
                r["head"]: point(r, float(r[key]) * (1e-6 if key == "trainable" else 1))
                for r in group
                if r[key]
            }
            for key, words in COSTS.items()
        }
        panels = {words: points for words, points in panels.items() if points}
        if panels and drawn(section, i):
            said = "; ".join(
                f"{r['head']}: UAR {r['uar']['mean']:.3f}, {plain(r['trainable'], ',')} "
                f"parameters, {plain(r['seconds'], '.0f')} s"
                for r in group
            )
            alt = f"UAR against cost: {name}. {said}"
            section.parts.append(draw(cost_figure(panels, name), alt, name=f"cost-{i}"))
        body = []
        for r in group:
            sizes = (r["trainable"], r["head_trainable"] or r["head_parameters"])
            times = [cell(r["seconds"], ".1f"), cell(r["processor_seconds"], ".1f")]
            times += [_giga(r["training_flops"], ",.1f"), cell(r["inference_ms"], ".1f")]
            times.append(_giga(r["scoring_flops"], ",.3f"))
            row_of = [r["head"], cell(r["uar"]["mean"]), *(cell(s, ",") for s in sizes), *times]
            body.append([*row_of, cell(r["memory_mb"], ".0f")])
        section.parts.append(Table(f"Cost: {name}", columns, body))


def _giga(flops: float | None, form: str) -> Cell:
    return cell(None if flops is None else flops / 1e9, form)
