"""Sections of a report about probabilities: calibration, and scores against raters' votes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..core.errors import ComparisonError, DataError
from ..core.table import Cell, Line, Table, cell, span_cell
from ..plots import reliability_bins, reliability_figure, risk_coverage_figure
from ..statistics.confidence import (
    CalibrationError,
    Coverage,
    calibration_error,
    calibrations,
    fit_folds,
    risk_coverage,
)
from ..statistics.soft import soft_numbers
from ..statistics.table import PredictionTable
from .detail import sure, tempered
from .grids import Grid
from .packed import validation_reader
from .page import Context, Part, Section, Text, draw, drawn, per_grid
from .runs import Run, pooled

Validation = Callable[[str], PredictionTable | None]

COLUMNS = (
    "head", "temperature", "ECE", "ECE after", "class-wise ECE", "after", "Brier", "Brier after",
    "NLL", "NLL after", "debiased after", "95 % interval", "AURC", "excess",
)  # fmt: skip
POOLED = (
    "head", "temperature", "largest bias", "validated", "debiased ECE", "95 % interval",
    "ECE", "class-wise ECE", "Brier", "NLL", "NLL of a temperature",
)  # fmt: skip
VOTES = (
    "head", "utterances", "cross-entropy", "entropy of the votes", "Jensen-Shannon",
    "right by any rater", "right by the label",
)  # fmt: skip


def calibration(section: Section, c: Context) -> None:
    """Add the calibration of the confidence of each head."""
    section.intro = (
        "Before and after the temperature that each cell fitted on its validation part; lower is "
        "better. ECE: expected calibration error over 15 bins of equal width. Class-wise ECE: the "
        "same for each class's probability. Brier: 0 to 2. NLL: in nats. AURC: area under the "
        "risk-coverage curve after temperature. Excess: AURC minus that of the best order of the "
        "same errors. Debiased error: root mean square over 15 bins of equal mass after "
        "temperature, with a 95 % interval over speakers. Unlike ECE it is 0 on average for "
        "perfect probabilities. Second table: temperature and class biases, fitted for each fold "
        "on all validation parts without its test speakers. Largest bias: in log-odds. Validated: "
        "the fewest utterances that a scaling was fitted on."
    )
    validation = validation_reader(c.folder)

    def make(g: Grid) -> list[Part]:
        heads = [head for head in g.runs if sure(g, head)]
        if not heads:
            raise ComparisonError("no head gives probabilities: there is nothing to calibrate")
        left_out = [
            f"{head}: left out, its predictions hold no probabilities."
            for head in g.runs
            if head not in heads
        ]
        first, figures = _tempered(section, c, g, heads, left_out)
        return [first, *_pooled(g, heads, validation), *figures]

    per_grid(section, c.grids, make)


def _tempered(
    section: Section, c: Context, g: Grid, heads: Sequence[str], notes: Sequence[str]
) -> tuple[Table, list[Part]]:
    """Every cell at its own temperature, as a table and as figures."""
    i = c.grids.index(g)
    body: list[Line] = []
    remarks: dict[str, None] = {}
    brought: list[str] = []
    pairs: dict[str, tuple[PredictionTable, PredictionTable]] = {}
    curves: dict[str, Coverage] = {}
    for head in heads:
        runs, before = g.runs[head], g.pooled[head]
        after, temperatures = before, [1.0] * len(runs)
        if all(run.record.imported for run in runs):
            brought.append(head)
        else:
            try:
                after, temperatures = tempered(runs)
            except DataError as error:
                section.messages.append(f"{g.name}, {head}: {error}. It is shown without one.")
        (one, _), (two, _) = calibrations(before, 1.0), calibrations(after, 1.0)
        curves[head], pairs[head] = risk_coverage(after), (before, after)
        numbers = [x for k in ("ece", "classwise_ece", "brier", "nll")
                   for x in (getattr(one, k), getattr(two, k))]  # fmt: skip
        unbiased = debiased(_divided(runs, temperatures))
        body.append(
            [
                head,
                _temperatures(temperatures),
                *map(cell, (*numbers, unbiased.value)),
                span_cell(unbiased.low, unbiased.high),
                *map(cell, (curves[head].aurc, curves[head].excess)),
            ]
        )
        if unbiased.note:
            remarks[f"Debiased error: {unbiased.note}."] = None
    if brought:
        said = f"Imported or averaged, so shown without a temperature: {', '.join(brought)}."
        notes = [*notes, said]
    notes = [*notes, *remarks, f"{priors_of(g)} A temperature does not move the prior."]
    notes += g.of_speakers
    table = Table(f"Calibration: {g.name}", COLUMNS, body, notes)
    if not drawn(section, i):
        return table, []
    said = "; ".join(f"{h} {k.aurc:.3f}" for h, k in curves.items())
    risk = f"Risk by coverage: {g.name}. Areas: {said}"
    reliability = (
        f"Reliability of each head before and after temperature: {g.name}; the errors are "
        "in the table"
    )
    return table, [
        draw(risk_coverage_figure(curves, g.name), risk, _risks(curves), name=f"risk-{i}"),
        draw(reliability_figure(pairs, g.name), reliability, _bins(pairs), name=f"reliability-{i}"),
    ]


PERCENT = [k / 100 for k in range(1, 101)]


def _risks(curves: Mapping[str, Coverage]) -> Table:
    """Return the risk of each head at every percent of coverage."""
    found = {head: curve.at(PERCENT) for head, curve in curves.items()}
    rows: list[Line] = [[cell(x, ".2f"), *(cell(at[x]) for at in found.values())] for x in PERCENT]
    return Table("", ("coverage", *found), rows)


def _bins(pairs: Mapping[str, tuple[PredictionTable, PredictionTable]]) -> Table:
    """Return confidence, share right and share of utterances of each bin."""
    rows: list[Line] = [
        [head, when, *map(cell, found)]
        for head, pair in pairs.items()
        for when, table in zip(("before", "after temperature"), pair, strict=True)
        for found in zip(*(v.tolist() for v in reliability_bins(table)), strict=True)
    ]
    return Table("", ("head", "temperature", "confidence", "share right", "share"), rows)


def _pooled(g: Grid, heads: Sequence[str], validation: Validation) -> list[Part]:
    """Every fold at the temperature and biases of all folds' validation parts."""
    title = f"Calibrated on the validation parts of all folds: {g.name}"
    body: list[Line] = []
    notes: list[str] = []
    shares: dict[str, None] = {}
    for head in heads:
        if all(run.record.imported for run in g.runs[head]):
            continue  # the table of temperatures names it
        try:
            scaled, about, valid = scaled_runs(g.runs[head], validation)
        except DataError as error:
            notes.append(f"{head}: {error}.")
            continue
        shares[_shares(valid)] = None
        after = pooled(scaled)
        found, _ = calibrations(after, 1.0)
        unbiased = debiased(scaled)
        body.append(
            [
                head,
                _temperatures([t for t, _, _ in about]),
                cell(max(b for _, b, _ in about), ".2f"),
                cell(min(n for _, _, n in about), "d"),
                cell(unbiased.value),
                span_cell(unbiased.low, unbiased.high),
                *map(cell, (found.ece, found.classwise_ece, found.brier, found.nll)),
                cell(_own(g.runs[head])),
            ]
        )
    if not body:
        return [Text(f"{title}: cannot be made. {' '.join(dict.fromkeys(notes))}")]
    notes += [
        "Probabilities are for the class shares of the validation speech, and no longer for the "
        f"prior of training: {said}."
        for said in shares
    ]
    return [Table(title, POOLED, body, [*notes, *g.of_speakers])]


def scaled_runs(
    runs: Sequence[Run], validation: Validation
) -> tuple[list[Run], list[tuple[float, float, int]], list[PredictionTable]]:
    """A head's cells with the scaling of their fold, fitted for each seed on all of its folds.

    Returns:
        The cells, a tuple for each, and the validation tables of the first seed. A tuple has the
        temperature, the largest bias and the number of utterances of the fit.

    Raises:
        DataError: a cell keeps no validation predictions.
    """
    seeds: dict[int, list[Run]] = {}
    for run in runs:
        seeds.setdefault(run.seed, []).append(run)
    scaled: list[Run] = []
    about: list[tuple[float, float, int]] = []
    first: list[PredictionTable] = []
    for own in seeds.values():
        valid = {run.fold: _validated(run, validation) for run in own}
        found = fit_folds(valid, {run.fold: run.table for run in own})
        first = first or list(valid.values())
        for run in own:
            tested = set(run.table.speakers) - {""}
            n = sum(who not in tested for table in valid.values() for who in table.speakers)
            scaling = found[run.fold]
            about.append((scaling.temperature, float(np.abs(scaling.bias).max()), n))
            scaled.append(replace(run, table=scaling.scaled(run.table)))
    return scaled, about, first


def _validated(run: Run, validation: Validation) -> PredictionTable:
    table = validation(run.name)
    if table is None:
        raise DataError(
            "its cells keep no validation predictions (older records do not); run them again"
        )
    if table.classes != run.table.classes:
        raise DataError("its validation part has other classes than its test part; leave it out")
    return table


def _shares(tables: Sequence[PredictionTable]) -> str:
    labels = np.concatenate([table.labels[table.labelled] for table in tables])
    counts = np.bincount(labels, minlength=len(tables[0].classes))
    shares = zip(tables[0].classes, counts / counts.sum(), strict=True)
    return ", ".join(f"{name} {share:.2f}" for name, share in shares)


def _own(runs: Sequence[Run]) -> float | None:
    """The NLL of every cell at its own temperature; None if a record holds none."""
    try:
        return tempered(runs)[0].nll()
    except DataError:
        return None


def _temperatures(values: Sequence[float]) -> Cell:
    low, high = min(values), max(values)
    text = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    return Cell(text, float(np.mean(values)))


def _divided(runs: Sequence[Run], temperatures: Sequence[float]) -> list[Run]:
    return [
        replace(run, table=replace(run.table, scores=run.table.scores / t))
        for run, t in zip(runs, temperatures, strict=True)
    ]


def debiased(runs: Sequence[Run]) -> CalibrationError:
    """The calibration error of a head's cells, whose scores are scaled; a mean over seeds."""
    seeds: dict[int, list[Run]] = {}
    for run in runs:
        seeds.setdefault(run.seed, []).append(run)
    return calibration_error([pooled(own) for own in seeds.values()])


def priors_of(g: Grid) -> str:
    """For which class prior the probabilities of a table are."""
    ways = {
        (run.record.config.get("data") or {}).get("balance")
        for runs in g.runs.values()
        for run in runs
    }
    said = {
        True: "a uniform class prior: training weighed all classes alike",
        False: "the class shares of the training speech: it was not weighed",
        None: "a class prior that the records do not tell",
    }
    prior = " or ".join(said[way] for way in (True, False, None) if way in ways)
    return f"Probabilities are for {prior}."


def votes(section: Section, c: Context) -> None:
    """Add the distance between each head and the raters' votes."""
    section.intro = (
        "Probabilities, after temperature if the record has one, against the shares of the "
        "raters' votes. Cross-entropy in nats: no model has less than the entropy of the votes. "
        "Jensen-Shannon divergence to base 2, 0 to 1. Right by any rater: the predicted class got "
        "a vote. Right by the label: WA of the same utterances. Votes for classes that the table "
        "lacks are left out."
    )

    def make(g: Grid) -> list[Part]:
        body: list[Line] = []
        for head in g.runs:
            if not sure(g, head):
                continue
            try:
                table, _ = tempered(g.runs[head])
            except DataError:
                table = g.pooled[head]
            found = soft_numbers(table)
            if found is None or table.votes is None:
                continue
            right = (table.predicted == table.labels)[table.votes.sum(1) > 0].mean()
            keys = ("cross_entropy", "entropy", "jensen_shannon", "any_rater_accuracy")
            body.append([head, cell(found["n"], "d"), *(cell(found[k]) for k in keys), cell(right)])
        notes = [f"{priors_of(g)} Utterances are counted once for each seed."]
        return [Table(f"Against the votes of raters: {g.name}", VOTES, body, notes)] if body else []

    per_grid(section, c.grids, make)
    if not section.parts and not section.messages:
        section.absent = "the manifests hold no votes of single raters"
