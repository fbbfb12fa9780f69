"""Sections of a report made of predictions: confusions, sub-groups, calibration, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..attributes import ATTRIBUTES, of_table
from ..errors import ComparisonError, DataError
from ..statistics.groups import SubGroups, sub_groups
from ..statistics.metrics import PredictionTable
from ..statistics.reliability import Coverage, calibrations, risk_coverage
from .cells import Run, pooled
from .page import Cell, Figure, Fold, Line, Part, Row, Section, Table, Text, draw
from .plots import confusion_figure, reliability_figure, risk_coverage_figure
from .section import FAULTS, Context, cell, drawn, per_grid, told
from .summary import Grid
from .tables import UNKNOWN, span

ERRORS = 8  # of each head
WORDS = {"seconds": "duration in seconds"}
MATRICES = 60  # more are left out of a page: a suite of conditions has hundreds
AUDIO_LIMIT = 24 * 2**20  # characters of all clips: what a page of a report may weigh


def confusions(section: Section, c: Context) -> None:
    """A matrix of each head."""
    section.intro = (
        "Folds and seeds pooled; rows are the reference, shades are shares of a row, numbers are "
        "utterances (each once per seed)."
    )

    matrices = [0]

    def make(g: Grid) -> list[Part]:
        matrices[0] += len(g.pooled)
        if matrices[0] > MATRICES:
            raise ComparisonError(f"left out: a report draws {MATRICES} matrices at most")
        figures: list[Figure] = []
        for head, table in g.pooled.items():
            said = ", ".join(f"{k} {v:.2f}" for k, v in table.recalls().items())
            alt = f"Confusion matrix of {head}, {g.name}. Recalls: {said}"
            at = f"confusion-{c.grids.index(g)}-{head}"
            figures.append(draw(confusion_figure(table, head), alt, name=at))
        return [Fold(g.name, [Row(figures)], opened=g is c.grids[0])]

    per_grid(section, c.grids, make)


def groups(section: Section, c: Context) -> None:
    """Whom a head serves worse."""
    section.intro = (
        "UAR with its 95 % interval (jackknife over the speakers of the group; a dash with one "
        "speaker). Durations are cut at their terciles. Groups that lack a class are shown and "
        "are in no gap. Of many small groups the gap is large by chance alone."
    )
    if c.attributes_fault:
        section.messages.append(c.attributes_fault)
    elif not c.attributes:
        section.messages.append(
            "Gender, language and duration are missing: these records hold no utterances.jsonl. "
            "Where the corpora are at hand, `serzoo report SUITE --attributes` takes them from "
            "there and keeps them beside suite.json. Speakers are known without."
        )

    def make(g: Grid) -> list[Part]:
        parts: list[Part] = []
        worst: dict[str, dict[str, SubGroups]] = {}
        for attribute in (*ATTRIBUTES, "speaker"):
            if attribute != "speaker" and not c.attributes:
                continue
            try:
                found = {
                    head: sub_groups(t, of_table(t.ids, c.attributes), attribute)
                    for head, t in g.pooled.items()
                }
            except FAULTS as error:
                section.messages.append(f"{g.name}, by {attribute}: {told(error)}.")
                continue
            parts += _group_table(g, attribute, found)
            if len(next(iter(found.values())).groups) > 1:
                worst[WORDS.get(attribute, attribute)] = found
        if worst:
            parts.append(_worst(g, worst))
        return [Fold(g.name, parts, opened=g is c.grids[0])] if parts else []

    per_grid(section, c.grids, make)


def _group_table(g: Grid, attribute: str, found: dict[str, SubGroups]) -> list[Part]:
    """UAR of every head in every group; folded away where there are many."""
    first = next(iter(found.values()))
    words = WORDS.get(attribute, attribute)
    if len(first.groups) == 1:
        only = first.groups[0].name
        return [Text(f"By {words}: all {first.groups[0].n} utterances are {only}.")]
    body = []
    for i, group in enumerate(first.groups):
        row = [Cell(group.name), cell(group.n, "d")]
        for of in found.values():
            uar = of.groups[i].uar
            bounds = "" if np.isnan(uar.low) else f" ({span(uar.low, uar.high, '.2f')})"
            row.append(Cell(f"{uar.value:.3f}{bounds}", uar.value))
        body.append(row)
    notes = [f"{first.note}."] if first.note and attribute != "speaker" else []
    if first.unstated:
        notes.append(f"Utterances that do not state it: {first.unstated}.")
    lacking = [x.name for x in first.groups if x.note.startswith("no ")]
    if lacking and attribute == "speaker":
        notes.append(f"Without an utterance of some class, and in no gap: {', '.join(lacking)}.")
    table = Table(f"UAR by {words}: {g.name}", (words, "utterances", *found), body, notes)
    return [table if len(body) <= 8 else Fold(f"The {len(body)} groups by {words}", [table])]


def _worst(g: Grid, found: dict[str, dict[str, SubGroups]]) -> Table:
    """Worst group and gap of every head, by every attribute."""
    body = []
    for head in g.runs:
        row: list[Cell] = [Cell(head)]
        for of in found.values():
            gap = of[head].gap
            row += [Cell(of[head].worst or UNKNOWN), cell(None if np.isnan(gap) else gap)]
        body.append(row)
    columns = [c for words in found for c in (f"worst by {words}", "gap")]
    return Table(f"Worst groups: {g.name}", ("head", *columns), body)


def sure(g: Grid, head: str) -> bool:
    """Whether a head's scores are probabilities: another toolkit's may only order the classes."""
    return all(run.record.get("probabilities", True) for run in g.runs[head])


def tempered(runs: Sequence[Run]) -> tuple[PredictionTable, list[float]]:
    """The pooled table with every cell's scores divided by its own temperature, and these.

    Raises:
        DataError: a record that holds no temperature.
    """
    temperatures, scaled = [], []
    for run in runs:
        t = (run.record.get("metrics") or {}).get("temperature")
        if not t:
            raise DataError(
                f"the record of {run.name} holds no temperature fitted on validation; run it again"
            )
        temperatures.append(float(t))
        scaled.append(replace(run, table=replace(run.table, scores=run.table.scores / t)))
    return pooled(scaled), temperatures


def calibration(section: Section, c: Context) -> None:
    """Can the confidence be used?"""
    section.intro = (
        "Before, and after the temperature that each cell fitted on its validation part. ECE: "
        "expected calibration error, 15 equal bins; class-wise ECE: the same of every class's "
        "probability; Brier 0 to 2; NLL in nats. AURC: area under the risk-coverage curve, after "
        "temperature; excess: beyond that of the best order of the same errors. Lower is better "
        "throughout."
    )
    columns = ("head", "temperature", "ECE", "ECE after", "class-wise ECE", "after", "Brier",
               "Brier after", "NLL", "NLL after", "AURC", "excess")  # fmt: skip

    def make(g: Grid) -> list[Part]:
        i = c.grids.index(g)
        body: list[Line] = []
        pairs: dict[str, tuple[PredictionTable, PredictionTable]] = {}
        curves: dict[str, Coverage] = {}
        left_out = [h for h in g.runs if not sure(g, h)]
        for head, runs in g.runs.items():
            if head in left_out:
                continue
            before = g.pooled[head]
            try:
                after, temperatures = tempered(runs)
            except DataError as error:
                section.messages.append(f"{g.name}, {head}: {error}, so it is as before.")
                after, temperatures = before, [1.0]
            (one, _), (two, _) = calibrations(before, 1.0), calibrations(after, 1.0)
            curves[head], pairs[head] = risk_coverage(after), (before, after)
            low, high = min(temperatures), max(temperatures)
            shown = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
            numbers = [x for k in ("ece", "classwise_ece", "brier", "nll")
                       for x in (getattr(one, k), getattr(two, k))]  # fmt: skip
            numbers += [curves[head].aurc, curves[head].excess]
            body.append([head, Cell(shown, float(np.mean(temperatures))), *map(cell, numbers)])
        if not body:
            raise ComparisonError("no head gives probabilities: there is nothing to calibrate")
        said = "; ".join(f"{h} {k.aurc:.3f}" for h, k in curves.items())
        figures: list[Part] = []
        if drawn(section, i):
            risk = f"Risk by coverage: {g.name}. Areas: {said}"
            reliability = (
                f"Reliability of each head before and after temperature: {g.name}; the errors are "
                "in the table"
            )
            figures = [
                draw(risk_coverage_figure(curves, g.name), risk, name=f"risk-{i}"),
                draw(reliability_figure(pairs, g.name), reliability, name=f"reliability-{i}"),
            ]
        notes = [f"{h}: left out, its predictions hold no probabilities." for h in left_out]
        table = Table(f"Calibration: {g.name}", columns, body, notes)
        return [table, *figures]

    per_grid(section, c.grids, make)


def errors(section: Section, c: Context) -> None:
    """What a head was surest of, and wrong."""
    section.intro = (
        f"The {ERRORS} wrong answers of each head with the highest probability (after temperature "
        "where the record has one; the surest of the seeds)."
        + ("" if c.audio else " `serzoo report SUITE --audio` puts players beside them.")
    )
    left = [AUDIO_LIMIT]
    faults: dict[str, None] = {}

    def clip(runs: Sequence[Run], name: str) -> Cell:
        run = next(r for r in runs if name in r.table.ids)
        try:
            uri = c.corpora.clip(run, name)
        except FAULTS as error:
            faults[f"{told(error)}: no audio."] = None
            return Cell("not at hand")
        if len(uri) > left[0]:
            faults[f"Audio beyond {AUDIO_LIMIT // 2**20} MiB is left out."] = None
            return Cell("left out")
        left[0] -= len(uri)
        return Cell(f"play {name}", None, uri)

    def make(g: Grid) -> list[Part]:
        parts: list[Part] = []
        for head, runs in g.runs.items():
            if not sure(g, head):
                parts.append(Text(f"{head} gives no probabilities: none of its errors is surest."))
                continue
            try:
                table, _ = tempered(runs)
            except DataError:
                table = g.pooled[head]
            body = []
            for name, i, share in surest_errors(table):
                row = [name, table.speakers[i] or UNKNOWN, table.classes[table.labels[i]],
                       table.classes[table.predicted[i]], cell(share, ".2f")]  # fmt: skip
                row += [] if table.texts is None else [table.texts[i]]
                body.append([*row, clip(runs, name)] if c.audio else row)
            columns = ["utterance", "speaker", "reference", "predicted", "probability"]
            columns += ["wrote"] * (table.texts is not None) + ["audio"] * c.audio
            parts.append(Table(f"Most confident errors of {head}: {g.name}", columns, body))
        return [Fold(g.name, parts, opened=g is c.grids[0])]

    per_grid(section, c.grids, make)
    section.messages.extend(faults)


def surest_errors(table: PredictionTable, n: int = ERRORS) -> list[tuple[str, int, float]]:
    """Utterance, row and probability of the surest wrong answers, an utterance once."""
    known = np.flatnonzero(table.labelled & (table.predicted != table.labels))
    share = table.probabilities().max(1)
    found: dict[str, tuple[int, float]] = {}
    for i in known[np.argsort(-share[known], kind="stable")]:
        found.setdefault(table.ids[i].rpartition("#")[0], (int(i), float(share[i])))
    return [(name, i, p) for name, (i, p) in list(found.items())[:n]]
