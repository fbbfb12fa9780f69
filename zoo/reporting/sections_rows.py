"""Sections of a report that are made of its rows: results, differences, curves, corpora, cost."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from .cells import Run
from .page import Cell, Figure, Fold, Line, Row, Section, Table, Text, draw
from .plots import Point, cost_figure, curve_figure, difference_figure, heat_figure
from .section import Context, cell, drawn
from .summary import Grid
from .tables import COLUMNS, caption, cells_of, grouped, notes, p_text, plain, remarks, span

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


def name_of(group: Rows) -> str:
    """Of a table."""
    return f"{group[0]['recipe']}, {group[0]['encoder']}"


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
    for group in grouped(c.rows):
        body = [list(map(Cell, cells_of(row, c.baseline), _sorts(row))) for row in group]
        section.parts.append(
            Table(caption(group[0]), COLUMNS, body, [f"{r}." for r in remarks(group)])
        )
        recalls = [[r["head"], *(cell(v, ".2f") for v in r["recalls"].values())] for r in group]
        folds = [[r["head"], *(cell(v) for v in r["by_fold"].values())] for r in group]
        inner = [
            Table("Recall by class, folds pooled", ("head", *group[0]["recalls"]), recalls),
            Table(
                "UAR by fold, seeds averaged",
                ("head", *(f"fold {f}" for f in group[0]["by_fold"])),
                folds,
            ),
        ]
        section.parts.append(Fold(f"By class and by fold: {name_of(group)}", inner))
    said = [Text(note) for note in notes(c.rows, c.baseline)]
    section.parts.append(Fold("How the columns are computed", said))
    if not c.rows:
        section.messages.append("There is no table; the sections above and below say why.")


def _sorts(row: dict[str, Any]) -> list[float | None]:
    """What each of :data:`.tables.COLUMNS` is sorted by."""
    d = row["difference"] or {}
    return [
        None, row["uar"]["mean"], row["interval"][0], d.get("value"), d.get("p"),
        d.get("detectable"), row["wa"]["mean"], row["f1"]["mean"], row["seconds"],
        row["inference_ms"], row["trainable"],
    ]  # fmt: skip


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
            ps = [Cell(p_text(d[k]), d[k]) for k in ("p", "p_holm", "smallest_p")]
            bounds = Cell(span(d["low"], d["high"], "+.3f"), d["low"])
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
    axes, condition = dict(run.record.get("axes") or {}), str(run.record.get("condition") or "")
    shots = run.record.get("shots")
    if isinstance(shots, int):
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
        stem = Path(run.record["config"]["recipe"]).stem
        name = ", ".join(part for part in (stem, run.pair, g.encoder, rest) if part)
        for head in g.runs:
            curves[name, words][head].append(point(c.row(g, head), amount))
    for (name, words), heads in curves.items():  # without any shot nothing was tuned
        for (other, _), more in curves.items() if words == AMOUNTS["shots"] else ():
            if name.startswith(f"{other}, ") and not name.endswith(", scratch"):
                for head in heads:
                    heads[head] += [p for p in more.get(head, ()) if p[0] == 0]
    figures: list[Figure] = []
    tables: list[Table] = []
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
        tables.append(Table(title, ("head", *(f"{x:g}" for x in at)), body))
    section.parts += [Row(figures), *tables] if figures else []
    if not section.parts:
        section.parts.append(Text("Not applicable: all cells of a table had one amount of labels."))


def conditions(section: Section, c: Context) -> None:
    """What each head keeps under the conditions of a comparison, or with its free axes."""
    section.intro = "UAR of every head under each condition, and under each setting of a free axis."
    found: dict[str, list[Grid]] = defaultdict(list)
    for g in c.grids:
        run = next(iter(g.runs.values()))[0]
        stem = Path(run.record["config"]["recipe"]).stem
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
        "Seconds are of the machine that ran the cells, with whatever else it did; sizes are of "
        "the model. Lines are 95 % intervals."
    )
    columns = ("head", "UAR", "trainable", "of the head", "s / fit", "ms / utt", "peak MiB")
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
            times = [cell(r["seconds"], ".1f"), cell(r["inference_ms"], ".1f")]
            row_of = [r["head"], cell(r["uar"]["mean"]), *(cell(s, ",") for s in sizes), *times]
            body.append([*row_of, cell(r["memory_mb"], ".0f")])
        section.parts.append(Table(f"Cost: {name}", columns, body))
