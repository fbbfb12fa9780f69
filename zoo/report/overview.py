"""Sections of a report from its rows: results, differences, conditions, curves, corpora, cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataError, counted
from ..core.files import write_json, write_text
from ..core.table import Cell, Line, Table, cell, plain, span
from ..plots import (
    Point,
    cost_figure,
    curve_figure,
    difference_figure,
    heat_figure,
    verdict_figure,
)
from ..run.record import Record, read_plan
from ..run.schema import METRIC_KEYS
from ..statistics.contrasts import NEW
from ..statistics.rates import METRICS
from ..statistics.speakers import paired_jackknife
from ..statistics.table import PredictionTable, merge
from .answers import (
    AMOUNTS,
    CLEAN,
    COLUMNS,
    CONTROLS,
    NAMES,
    Asked,
    Kept,
    Question,
    amount_of,
    answer_cells,
    ask,
    between,
    first_run,
    kept,
    number,
    verdicts,
)
from .grids import Grid, corpora_of, grids, interval_remarks, sentences
from .packed import cell_readers
from .page import Context, Figure, Fold, Points, Row, Section, Text, draw, drawn
from .runs import Run, pooled, read_runs, suite_attributes
from .summary import Result
from .table import (
    answer_table,
    by_fold,
    grouped,
    name_of,
    notes,
    recalls,
    results_table,
)

# The cost of a condition: a head's metric under it, minus its metric on clean audio.


@dataclass(frozen=True)
class Loss:
    """What a condition costs a head; the bounds are of a jackknife interval over speakers.

    With one speaker there are no bounds.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Show the value with its bounds, if there are any."""
        if self.low is None:
            return f"{self.value:+.3f}"
        return f"{self.value:+.3f}; {self.low:+.3f} to {self.high:+.3f}"


@dataclass(frozen=True)
class Degraded:
    """The metric of a head under a condition.

    Attributes:
        recipe: name of the recipe, with the settings by which the compared models differ.
        encoder: name of the encoder.
        head: name of the head.
        condition: what was done to the audio; ``clean`` if nothing was.
        metric: ``uar``, ``wa`` or ``macro_f1``.
        value: the metric.
        difference: difference to clean audio on the same utterances; None for clean itself.
        control: the same to the control of the condition (:data:`.answers.CONTROLS`).
        remarks: remarks on the intervals.
        cells: number of folds and seeds.
        left_out: number of those that lack a condition or a head.
    """

    recipe: str
    encoder: str
    head: str
    condition: str
    metric: str
    value: float
    difference: Loss | None
    control: Loss | None
    remarks: list[str]
    cells: int
    left_out: int


def degradation(runs: Sequence[Run], metric: str = "uar") -> list[Degraded]:
    """Return a row for each recipe, encoder, head and condition, over the cells that all share.

    If a suite trained its heads with several settings, each of these is a recipe of its own.
    """
    tables: dict[tuple[str, str], dict[tuple[str, str], dict[tuple[int, int], Run]]] = {}
    for run in runs:
        settings = (f"{k}={v}" for k, v in run.record.axes.items())
        key = ", ".join([Path(run.record.config["recipe"]).stem, *settings]), run.group[1]
        column = run.head, run.record.condition
        tables.setdefault(key, defaultdict(dict))[column][run.fold, run.seed] = run
    rows = []
    for (recipe, encoder), columns in tables.items():
        common = set.intersection(*(set(cells) for cells in columns.values()))
        every = set.union(*(set(cells) for cells in columns.values()))
        if not common:
            continue
        made = {c: pooled([cells[k] for k in sorted(common)]) for c, cells in columns.items()}
        first = next(iter(next(iter(columns.values())).values()))
        remarks = interval_remarks(corpora_of(first), "speaker")
        for (head, condition), table in made.items():
            control = CONTROLS.get(condition, "")
            rows.append(
                Degraded(
                    recipe,
                    encoder,
                    head,
                    condition,
                    metric,
                    float(METRICS[metric](table.confusion())),
                    _less(table, made.get((head, CLEAN)), metric, condition != CLEAN),
                    _less(table, made.get((head, control)), metric, bool(control)),
                    remarks,
                    cells=len(common),
                    left_out=len(every) - len(common),
                )
            )
    return rows


def _less(
    table: PredictionTable, other: PredictionTable | None, metric: str, wanted: bool
) -> Loss | None:
    """Return the cost of a condition beyond another's; None without another, or if unwanted."""
    if other is None or not wanted:
        return None
    d = paired_jackknife(table, other, metric)
    return Loss(d.value, number(d.low), number(d.high))


def degradation_tables(rows: Sequence[Degraded]) -> list[Table]:
    """Return a table for each recipe and encoder: conditions down, heads across."""
    made = []
    for key in dict.fromkeys((r.recipe, r.encoder) for r in rows):
        mine = [r for r in rows if (r.recipe, r.encoder) == key]
        heads = list(dict.fromkeys(r.head for r in mine))
        found = {(r.condition, r.head): r for r in mine}
        body: list[Line] = []
        for condition in dict.fromkeys(r.condition for r in mine):
            of = [found.get((condition, head)) for head in heads]
            body.append([condition, *map(_loss_cell, of)])
            against = [r and r.control for r in of]
            if any(against):
                less = [Cell(str(d), d.value) if d else None for d in against]
                body.append([f"{condition} less {CONTROLS[condition]}", *less])
        left = mine[0].left_out
        said = [f"Left out: {counted(left, 'fold')} of seeds. Not every head has every condition."]
        said = [*(said if left else []), *_remarks(r.remarks for r in mine)]
        title = f"{NAMES[mine[0].metric]}: {key[0]}, encoder {key[1]}"
        made.append(Table(title, ("condition", *heads), body, said))
    return made


def degradation_markdown(rows: Sequence[Degraded]) -> str:
    """Return the tables as Markdown, and what their numbers are."""
    return "".join(f"{table.markdown()}\n" for table in degradation_tables(rows)) + (
        "All folds' test utterances are pooled. In brackets is the difference to the same head on "
        "clean audio, with a 95 % interval (paired jackknife over speakers).\n"
    )


def _loss_cell(row: Degraded | None) -> Cell | None:
    if row is None:
        return None
    cost = f" ({row.difference})" if row.difference else ""
    return Cell(f"{row.value:.3f}{cost}", row.value)


def write_degradation(folder: Path) -> Path:
    """Write ``degradation.json`` and ``.md`` of a suite of conditions; return the latter's path."""
    plan = read_plan(folder)
    asked = Asked.of(plan)
    runs, _ = read_runs(folder, plan.cells)
    made, _ = grids(runs, suite_attributes(folder, plan.cells))
    rows, beyond = degradation(runs, asked.metric), kept(made, asked)
    write_json(folder / "degradation.json", {"suite": plan.name, "rows": rows, "kept": beyond})
    path = folder / "degradation.md"
    text = f"# {plan.title}\n\n{degradation_markdown(rows)}\n{kept_markdown(beyond, asked)}"
    write_text(path, text)
    return path


# What a head keeps beyond what the baseline keeps.

KEPT = (
    "Change: how a head's {metric} changes from the reference, minus how the baseline's does. "
    "Above 0 the head keeps more. Share: what a head keeps of its {metric} above chance, minus "
    "what the baseline keeps. A head that starts lower may lose less only because it has less to "
    "lose; the share allows for this. All changes of a corpus are one family of questions, and "
    "all shares are another."
)


def kept_tables(rows: Sequence[Kept], asked: Asked) -> list[Table]:
    """Return two tables for each corpus, encoder and reference: changes, and shares.

    Args:
        rows: rows of :func:`.answers.kept`.
        asked: what the suite asks.
    """
    made = []
    for key in dict.fromkeys((r.reference, r.encoder) for r in rows):
        mine = [r for r in rows if (r.reference, r.encoder) == key]
        for kind, form, what in (
            ("change", "+.3f", f"Change of {asked.name} minus that of {asked.baseline}"),
            ("share", "+.2f", f"Share of {asked.name} kept minus that of {asked.baseline}"),
        ):
            answers = [r.change if kind == "change" else r.share for r in mine]
            body: list[Line] = [
                [r.recipe, r.head, cell(a.value, form), *answer_cells(a)]
                for r, a in zip(mine, answers, strict=True)
            ]
            found = {f"{r.head} ({r.recipe})": a for r, a in zip(mine, answers, strict=True)}
            said = [verdicts(found, asked.baseline), *_remarks(r.remarks for r in mine)]
            title = f"{what}, from {key[0]}, encoder {key[1]}"
            made.append(Table(title, ("table", "head", kind, *COLUMNS), body, said))
    return made


def _remarks(rows: Iterable[list[str]]) -> list[str]:
    """Return the remarks on the intervals of rows, as sentences, each once."""
    return sentences(list(dict.fromkeys(text for remarks in rows for text in remarks)))


def kept_markdown(rows: Sequence[Kept], asked: Asked) -> str:
    """Return the tables as Markdown, and what their numbers are; "" without rows."""
    text = "".join(f"{table.markdown()}\n" for table in kept_tables(rows, asked))
    return f"{text}{KEPT.format(metric=asked.name)}\n" if text else ""


def beyond(section: Section, c: Context) -> None:
    """Add what each head keeps beyond the baseline: conditions, amounts of labels, corpora."""
    section.intro = KEPT.format(metric=c.asked.name)
    section.parts += kept_tables(kept(c.grids, c.asked), c.asked)
    if not section.parts:
        section.absent = "no table has a reference of the same test utterances"


# Learning curves of a suite of adaptations, as a table: the metric by shots of each class.

BASE = {"none"}
IMPORTED = "imported"


@dataclass(frozen=True)
class Adapted:
    """A point of a learning curve: a head after adaptations by several draws.

    A draw has a support in each fold of the target. Its metric is that of all queries together.

    Attributes:
        head: name of the head.
        encoder: type of the encoder.
        tuning: what was tuned; ``none`` without shots.
        shots: number of utterances of each class.
        draws: number of draws that are finished.
        metric: ``uar``, ``wa`` or ``macro_f1``, of the queries.
        value: its mean over draws.
        deviation: its standard deviation over draws; None for one draw.
        lowest: its lowest value.
        highest: its highest value.
        forgetting: mean change of the source's metric; None if it was not scored.
        seconds: mean seconds of fitting.
        bytes: mean number of bytes that changed; None for imported predictions.
        supports: hashes of the supports.
        short: classes that had fewer utterances.
    """

    head: str
    encoder: str
    tuning: str
    shots: int
    draws: int
    metric: str
    value: float
    deviation: float | None
    lowest: float
    highest: float
    forgetting: float | None
    seconds: float | None
    bytes: float | None
    supports: list[str]
    short: list[str]


def points(folder: Path, names: Sequence[str], metric: str = "uar") -> list[Adapted]:
    """Return a point for each head, tuning and number of shots, over the draws that are finished.

    Raises:
        DataError: if a record is not that of an adaptation.
    """
    found: dict[tuple[str, str, str, int], dict[int, dict[str, Record]]] = {}
    read, table = cell_readers(folder)
    for name in names:
        entry = read(name)
        if entry is None or not entry.ok:
            continue
        head, tuning = entry.source["head"], str(entry.tuning)
        if brought := entry.imported:  # it stands in the table of each tuning, and is the same
            head, tuning = brought["name"], "none" if tuning == "none" else IMPORTED
        if entry.shots is None or entry.draw is None:
            raise DataError(
                f"the record of {name} in {folder} lacks shots or draw, so it does not "
                "describe an adaptation; remove the cell's folder, and it is run again"
            )
        key = (head, entry.source["encoder"]["type"], tuning, entry.shots)
        found.setdefault(key, {}).setdefault(entry.draw, {})[name] = entry
    return [
        Adapted(*key, **_over_draws(list(draws.values()), metric, table))
        for key, draws in sorted(found.items())
    ]


def _over_draws(
    draws: Sequence[dict[str, Record]], metric: str, table: Callable[[str], PredictionTable]
) -> dict[str, Any]:
    values = []
    for cells in draws:
        alone = next(iter(cells.values())).metrics if len(cells) == 1 else None
        metrics = merge([table(name) for name in cells]).metrics() if alone is None else alone
        values.append(metrics[METRIC_KEYS[metric]])
    entries = [entry for cells in draws for entry in cells.values()]
    forgot = [e.forgetting["change"][METRIC_KEYS[metric]] for e in entries if e.forgetting]
    return {
        "draws": len(draws),
        "metric": metric,
        "value": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "lowest": min(values),
        "highest": max(values),
        "forgetting": statistics.fmean(forgot) if forgot else None,
        "seconds": _mean(e.seconds.get("fit") for e in entries),
        "bytes": _mean(e.bytes.get("changed") for e in entries),
        "supports": sorted({e.support["sha"] for e in entries}),
        "short": sorted({c for e in entries for c in e.support["short"]}),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def write_few_shot(
    folder: Path, names: Sequence[str], metric: str = "uar", beyond: str = ""
) -> Path:
    """Write ``learning_curves.json`` and ``learning_curves.md``; return the latter's path.

    If cells are missing, heads of a point may have different supports; the table says so.

    Args:
        folder: folder of the suite.
        names: names of its cells.
        metric: what the curves show.
        beyond: Markdown that follows the curves (:func:`kept_markdown`).
    """
    found = points(folder, names, metric)
    write_json(folder / "learning_curves.json", found)
    path = folder / "learning_curves.md"
    body = few_shot_table(found).markdown() if found else "No cell has ended well.\n"
    text = f"# {folder.name}: learning curves\n\n{body}" + (f"\n{beyond}" if beyond else "")
    write_text(path, text)
    return path


def few_shot_table(found: Sequence[Adapted]) -> Table:
    """Return points as a table: heads and tunings down, shots across."""
    shots = sorted({p.shots for p in found})
    metric = NAMES[found[0].metric] if found else NAMES["uar"]
    zero = {p.head: p for p in found if p.tuning in BASE}
    curves = sorted({(p.head, p.tuning) for p in found if p.tuning not in BASE})
    curves = curves or [(head, "none") for head in zero]
    at = {(p.head, p.tuning, p.shots): p for p in found}
    body: list[Line] = []
    for head, tuning in curves:
        row = [at.get((head, tuning, k)) or (zero.get(head) if k == 0 else None) for k in shots]
        if tuning == "scratch" and 0 in shots:
            row[shots.index(0)] = None  # a new head has learned nothing without a shot
        last = next((p for p in reversed(row) if p is not None), None)
        change, seconds, size = (last.forgetting, last.seconds, last.bytes) if last else (None,) * 3
        costs = [cell(change, "+.3f"), cell(seconds, ".1f")]
        costs.append(cell(None if size is None else size / 1000, ".0f"))
        body.append([head, tuning, *map(_point_cell, row), *costs])
    notes = [
        "Without a shot nothing is tuned, and a head has one value. `change` is how the source's "
        f"{metric} changes at the most shots; s and kB are those of fitting at the most shots."
    ]
    for k in shots:
        same = {tuple(p.supports) for p in found if p.shots == k}
        if len(same) > 1:
            notes.append(f"k = {k}: cells are missing, so heads differ in their supports.")
        if short := sorted({c for p in found if p.shots == k for c in p.short}):
            notes.append(
                f"k = {k}: {', '.join(short)} had fewer utterances; all of them were taken."
            )
    return Table(
        f"{metric} of the query by shots of each class: mean over draws ± their standard deviation",
        ("head", "tuning", *(f"k = {k}" for k in shots), "change", "s", "kB"),
        body,
        notes,
    )


def _point_cell(point: Adapted | None) -> Cell | None:
    if point is None:
        return None
    spread = "" if point.deviation is None else f" ± {point.deviation:.3f}"
    return Cell(f"{point.value:.3f}{spread}", point.value)


# The section of a report on what its cells started from.

CONTROL = "shuffled"


def started(section: Section, c: Context) -> None:
    """Add the differences between starts, of each head and table."""
    section.intro = (
        f"{c.asked.name} after one start minus that after another, on the same utterances, with "
        f"the same labels and seeds. A gain over '{CONTROL}' is due to what the labels say, and "
        "not to more speech or more steps. All rows of a corpus are one family of questions."
    )
    amounts = [amount_of(first_run(grid)) for grid in c.grids]
    what = {found[1] if found else "table" for found in amounts}
    first = what.pop() if len(what) == 1 else "table"  # said once, not in every row
    asked: dict[tuple[str, str, str, str], Question] = {}
    for grid, amount in zip(c.grids, amounts, strict=True):
        of = grid.name if amount is None else f"{amount[0]:g}"
        if amount is not None and first == "table":
            of = f"{amount[1]}: {of}"
        for head, starts in starts_of(grid).items():
            for one, other in pairs(list(starts)):
                contrast = between(grid, starts[one], starts[other])
                key = of, head, one, other
                asked[key] = Question((grid.name, *key), grid, contrast, declared=True)
    found = ask(asked.values(), c.asked)
    rows = {key: found[q.key] for key, q in asked.items()}
    body: list[Line] = [[*k, cell(d.value, "+.3f"), *answer_cells(d)] for k, d in rows.items()]
    if body:
        columns = (first, "head", "after", "minus after", "difference", *COLUMNS)
        said = _remarks(grid.remarks for grid in c.grids)
        section.parts.append(Table("Differences between starts", columns, body, said))
    else:
        section.absent = "all cells started from new weights"


def starts_of(grid: Grid) -> dict[str, dict[str, str]]:
    """Return names of rows by what they started from, for each head that has several starts."""
    found: dict[str, dict[str, str]] = {}
    for name, runs in grid.runs.items():
        arm = runs[0].record.pretraining
        if arm is not None:
            found.setdefault(name.removesuffix(f" after {arm}"), {})[str(arm)] = name
    return {head: starts for head, starts in found.items() if len(starts) > 1}


def pairs(starts: list[str]) -> list[tuple[str, str]]:
    """Return pairs: each start against none, then the others against the control, then the rest."""
    ranks = {"none": 0, CONTROL: 1}
    order = sorted(starts, key=lambda s: ranks.get(s, 2))
    return [(b, a) for a, b in combinations(order, 2)]


COSTS = {
    "trainable": "million trainable parameters",
    "seconds": "seconds of a fit",
    "inference_ms": "ms per utterance",
}


def point(row: Result, at: float = 0.0) -> Point:
    """Return a row's metric with its interval, at a place on the other axis."""
    low, high = row.interval
    return at, row.score.mean, low, high


ANSWERED = 6
"""Most tables that the figure at the top holds; more do not fit on a screen (our choice)."""


def answer(section: Section, c: Context) -> None:
    """Add the verdicts in words, all differences in one figure, and who was tested."""
    tables = grouped(c.rows)
    if not tables:
        section.absent = "there is no table"
        return
    section.parts.append(Points([_said(group, c) for group in tables[: 2 * ANSWERED]]))
    if (more := len(tables) - 2 * ANSWERED) > 0:
        section.parts.append(Text(f"{counted(more, 'further table')}: see the paired differences."))
    section.parts += _all_differences(tables, c)
    heads = list(dict.fromkeys(r.head for r in c.rows))
    others = ", ".join(h for h in heads if h != c.baseline)
    whom = "; ".join(
        dict.fromkeys(
            f"{r.recipe}: {counted(r.utterances, 'utterance')} of {counted(r.speakers, 'speaker')}"
            for r in (group[0] for group in tables[: 2 * ANSWERED])
        )
    )
    section.parts.append(
        Text(f"Compared with {c.baseline}: {others or 'nothing'}. Tested on {whom}.")
    )
    audited = [r.record.audit for r in c.found.runs if r.record.audit]
    if audited and all(a.get("ok") and not a.get("unsure") for a in audited):
        section.parts.append(Text("No tested speaker was heard in training; an audit checked it."))
    section.intro = (
        f"A head is better or worse if its corrected p is at most 0.05. It is equivalent if the 90 "
        f"% interval of its difference is within {c.asked.margin:g}. Otherwise it is undecided: "
        "these data cannot tell."
    )


def _said(group: Sequence[Result], c: Context) -> tuple[str, str]:
    """Return name and verdicts of a table."""
    found = {row.head: row.difference for row in group if row.difference}
    text = verdicts(found, c.baseline)
    at = {row.head: row.score.mean for row in group}
    if c.baseline in at:
        text = f"{c.asked.name} of {c.baseline} is {at[c.baseline]:.3f}. {text}"
    else:
        best = max(at, key=lambda head: at[head])
        text = f"{best} has the highest {c.asked.name}, {at[best]:.3f}; {c.baseline} is not here."
    return name_of(group), text.strip()


def _all_differences(tables: Sequence[Sequence[Result]], c: Context) -> list[Figure]:
    """Return one figure of the differences of the first tables; nothing without differences."""
    shown: dict[str, dict[str, tuple[str, Point]]] = {}
    for group in tables[:ANSWERED]:
        points: dict[str, tuple[str, Point]] = {}
        for row in group:
            if (d := row.difference) and d.value is not None:
                s = d.new if d.basis == NEW else d.these
                points[row.head] = d.verdict, (0.0, d.value, s.low_family, s.high_family)
        if points:
            shown[name_of(group)] = points
    if not shown:
        return []
    rows: list[Line] = [
        [name, head, verdict, cell(value), cell(low), cell(high)]
        for name, points in shown.items()
        for head, (verdict, (_, value, low, high)) in points.items()
    ]
    data = Table("", ("table", "head", "verdict", "difference", "low", "high"), rows)
    said = "; ".join(f"{n}: {h} {v}" for n, of in shown.items() for h, (v, _) in of.items())
    alt = f"{c.asked.name} of every head minus that of {c.baseline}, with 95 % intervals. {said}"
    figure = verdict_figure(shown, c.baseline, margin=c.asked.margin, metric=c.asked.name)
    return [draw(figure, alt, data, name="answer")]


def results(section: Section, c: Context) -> None:
    """Add the results of each table, folded with recalls and folds."""
    section.intro = (
        f"{c.asked.name} and other rates, ± their standard deviation over seeds; differences are "
        f"to {c.baseline} on the same utterances. How each column is computed is said below."
    )
    for group in grouped(c.rows):
        more = Fold(f"By class and by fold: {name_of(group)}", [recalls(group), by_fold(group)])
        section.parts += [results_table(group, c.baseline), more]
    said = [Text(note) for note in notes(c.rows, c.baseline)]
    section.parts.append(Fold("How the columns are computed", said))
    if not c.rows:
        section.messages.append("There is no table; the sections above and below say why.")


def differences(section: Section, c: Context) -> None:
    """Add the differences to the baseline, with their verdicts."""
    section.intro = (
        f"{c.asked.name} of each head minus that of {c.baseline} on the same utterances. These "
        "models: the trainings are given, and the speakers are a sample. New trainings: both are a "
        "sample. Intervals and p hold for all declared questions of a corpus at once. Undecided is "
        "no proof that two heads are equal: read it with the detectable difference."
    )
    for i, group in enumerate(grouped([r for r in c.rows if r.difference])):
        table = answer_table(group, c.baseline)
        assert table is not None
        section.parts += [*_drawn(section, i, group, c), table]
    if not section.parts:
        section.messages.append(f"No table holds the baseline {c.baseline} and another head.")


def _drawn(section: Section, i: int, group: Sequence[Result], c: Context) -> list[Figure]:
    """Return the figure of a table's differences, with the interval that its verdicts use."""
    if not drawn(section, i):
        return []
    found = {row.head: row.difference for row in group if row.difference}
    points = {}
    for head, d in found.items():
        s = d.new if d.basis == NEW else d.these
        if isfinite(d.value):
            points[head] = (0.0, d.value, number(s.low_family), number(s.high_family))
    said = "; ".join(f"{h} {v:+.3f} ({span(a, b, '+.3f')})" for h, (_, v, a, b) in points.items())
    basis = ", ".join(dict.fromkeys(d.basis for d in found.values()))
    alt = (
        f"{c.asked.name} minus {c.baseline}'s, with 95 % intervals for {basis}: "
        f"{name_of(group)}. {said}"
    )
    figure = difference_figure(points, name_of(group), c.baseline, metric=c.asked.name)
    rows: list[Line] = [[h, cell(v), cell(a), cell(b)] for h, (_, v, a, b) in points.items()]
    data = Table("", ("head", "difference", "low", "high"), rows)
    return [draw(figure, alt, data, name=f"difference-{i}")]


def learning(section: Section, c: Context) -> None:
    """Add curves of the metric by shots, or by the share of the labels."""
    section.intro = (
        "Bands are 95 % intervals over speakers; seeds, which draw the labels, are pooled."
    )
    curves: dict[tuple[str, str], dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    notes_of: dict[str, list[str]] = {}
    for g in c.grids:
        run = first_run(g)
        found = amount_of(run)
        if found is None:
            continue
        amount, words, rest = found
        stem = Path(run.record.config["recipe"]).stem
        name = ", ".join(part for part in (stem, run.pair, g.encoder, rest) if part)
        notes_of[name] = sentences(g.remarks)
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
        title = f"{c.asked.name} by {words}: {name}"
        figure = curve_figure(heads, words, name, metric=c.asked.name)
        data: list[Line] = [
            [h, cell(x, "g"), cell(v), cell(a), cell(b)]
            for h, points in heads.items()
            for x, v, a, b in sorted(points, key=lambda p: p[0])
        ]
        behind = Table("", ("head", words, c.asked.name, "low", "high"), data)
        figures.append(draw(figure, f"{title}. {said}", behind, name=f"learning-{i}"))
        body: list[Line] = [[h, *(cell(of.get(x)) for x in at)] for h, of in values.items()]
        made.append(Table(title, ("head", *(f"{x:g}" for x in at)), body, notes_of[name]))
    section.parts += [Row(figures), *made] if figures else []
    if not section.parts:
        section.absent = "all cells of a table had one amount of labels"


def conditions(section: Section, c: Context) -> None:
    """Add the metric of each head under each condition, or with each value of a free axis."""
    section.intro = (
        f"{c.asked.name} of every head under each condition, and under each setting of a free axis."
    )
    found: dict[str, list[Grid]] = defaultdict(list)
    for g in c.grids:
        run = first_run(g)
        stem = Path(run.record.config["recipe"]).stem
        found[", ".join(part for part in (stem, run.pair, g.encoder) if part)].append(g)
    for i, (name, members) in enumerate(found.items()):
        if len(members) < 2:
            continue
        heads = list(dict.fromkeys(h for g in members for h in g.runs))
        down = [first_run(g).condition or "as trained" for g in members]
        values = [[c.row(g, h).score.mean if h in g.runs else None for h in heads] for g in members]
        title = f"{c.asked.name} by condition: {name}"
        said = "; ".join(
            f"{d}: " + ", ".join(f"{h} {plain(v, '.3f')}" for h, v in zip(heads, row, strict=True))
            for d, row in zip(down, values, strict=True)
        )
        grid = np.array([[np.nan if v is None else v for v in row] for row in values])
        figure = heat_figure(grid, down, heads, name, ("", ""), metric=c.asked.name)
        body: list[Line] = [[d, *map(cell, row)] for d, row in zip(down, values, strict=True)]
        table = Table(title, ("condition", *heads), body)
        section.parts.append(draw(figure, f"{title}. {said}", table, name=f"conditions-{i}"))
        section.parts.append(table)
    if not section.parts:
        section.absent = "heads and encoders were compared under one condition"


def across(section: Section, c: Context) -> None:
    """Add a table of training corpora by test corpora for each head."""
    section.intro = (
        f"{c.asked.name} by corpora of training (down) and of test (across), pooled as in the "
        "results."
    )
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for g in c.grids:
        for head, runs in g.runs.items():
            source, arrow, target = runs[0].pair.partition(" to ")
            if not arrow:  # tested on what it was trained on: the diagonal
                source = target = " and ".join(n for n in runs[0].table.by_corpus() if n)
            encoder = ", ".join(part for part in (g.encoder, runs[0].condition) if part)
            found[encoder, head][source, target] = c.row(g, head).score.mean
    for i, ((encoder, head), values) in enumerate(found.items()):
        if all(a == b for a, b in values):
            continue
        down, over = sorted({a for a, _ in values}), sorted({b for _, b in values})
        grid = np.array([[values.get((a, b), np.nan) for b in over] for a in down])
        name = f"{head}, {encoder}"
        said = "; ".join(f"{a} to {b} {v:.3f}" for (a, b), v in sorted(values.items()))
        axes = ("trained on", "tested on")
        figure = heat_figure(grid, down, over, name, axes, metric=c.asked.name)
        title = f"{c.asked.name} across corpora: {name}"
        body: list[Line] = [[a, *(cell(values.get((a, b))) for b in over)] for a in down]
        table = Table(title, ("trained on", *over), body)
        section.parts.append(draw(figure, f"{title}. {said}", table, name=f"across-{i}"))
        section.parts.append(table)
    if not section.parts:
        section.absent = "every model was tested on the corpora that it was trained on"


def cost(section: Section, c: Context) -> None:
    """Add what a point of the metric costs."""
    section.intro = (
        "Seconds are of the machine that ran the cells, with all its other work; CPU seconds add "
        "up what all processes of a run computed. Sizes are of the model. Operations (FLOP) are of "
        "matrix products, convolutions and attention, and of nothing else: of a fit, and of "
        "scoring a second of speech. Frozen features from a store cost none. Lines are 95 % "
        "intervals."
    )
    metric = c.asked.name
    columns = ("head", metric, "trainable", "of the head", "s / fit", "CPU s / fit",
               "GFLOP / fit", "ms / utt", "GFLOP / s", "peak MiB")  # fmt: skip
    for i, group in enumerate(grouped(c.rows)):
        name = name_of(group)
        panels = {
            words: {
                r.head: point(r, float(getattr(r, key)) * (1e-6 if key == "trainable" else 1))
                for r in group
                if getattr(r, key)
            }
            for key, words in COSTS.items()
        }
        panels = {words: points for words, points in panels.items() if points}
        if panels and drawn(section, i):
            said = "; ".join(
                f"{r.head}: {metric} {r.score.mean:.3f}, {plain(r.trainable, ',')} "
                f"parameters, {plain(r.seconds, '.0f')} s"
                for r in group
            )
            figure = cost_figure(panels, name, metric=metric)
            alt = f"{metric} against cost: {name}. {said}"
            rows: list[Line] = [
                [
                    r.head,
                    *map(cell, (r.score.mean, *r.interval)),
                    *(cell(getattr(r, key)) for key in COSTS),
                ]
                for r in group
            ]
            data = Table("", ("head", metric, "low", "high", *COSTS), rows)
            section.parts.append(draw(figure, alt, data, name=f"cost-{i}"))
        body: list[Line] = []
        for r in group:
            sizes = (r.trainable, r.head_trainable or r.head_parameters)
            times = [cell(r.seconds, ".1f"), cell(r.processor_seconds, ".1f")]
            times += [_giga(r.training_flops, ",.1f"), cell(r.inference_ms, ".1f")]
            times.append(_giga(r.scoring_flops, ",.3f"))
            first = [cell(r.score.mean), *(cell(s, ",") for s in sizes)]
            body.append([r.head, *first, *times, cell(r.memory_mb, ".0f")])
        section.parts.append(
            Table(f"Cost: {name}", columns, body, _remarks(r.remarks for r in group))
        )


def _giga(flops: float | None, form: str) -> Cell:
    return cell(None if flops is None else flops / 1e9, form)
