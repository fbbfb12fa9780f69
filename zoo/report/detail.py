"""Sections of a report made of predictions: confusions, sub-groups, label shift, errors."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..core.errors import ComparisonError, DataError, counted
from ..core.table import UNKNOWN, Cell, Line, Table, cell, span
from ..plots import (
    confusion_figure,
    critical_difference_figure,
)
from ..run.record import ATTRIBUTES, Record, SuiteRecord, flatten, of_table
from ..statistics.breakdown import SubGroups, Variance, average_ranks, sub_groups, variance_split
from ..statistics.priors import TRANSDUCTIVE, matched
from ..statistics.table import PredictionTable
from .grids import Grid
from .page import (
    FAULTS,
    Code,
    Context,
    Figure,
    Fold,
    Part,
    Row,
    Section,
    Text,
    as_message,
    draw,
    per_grid,
)
from .runs import Run, pooled
from .table import matching_notes, source_notes

# Where the time of a comparison went.

PARTS = ("encode", "fit", "evaluate")


def totals(records: Iterable[Record]) -> dict[str, Any]:
    """Return seconds of all processes by part, and how many rows of features were made and reused.

    ``other`` is the rest: reading the corpus, loading the encoder, writing. Older records lack
    ``encode`` and ``evaluate``, so these are in ``other``. ``processor`` are processor seconds in
    total, or None if a record has none. Imported rows and ensembles ran no process here and are
    not counted.
    """
    parts = (*PARTS, "other", "total", "processor")
    sums: dict[str, Any] = {"cells": 0, **dict.fromkeys(parts, 0.0), "encoded": 0, "reused": 0}
    for record in records:
        if record.imported is not None:
            continue
        seconds = {"total": 0.0} | record.seconds
        store = record.feature_store
        sums["cells"] += 1
        sums["total"] += seconds["total"]
        used = record.processor_seconds.get("total")
        sums["processor"] = None if None in (used, sums["processor"]) else sums["processor"] + used
        for part in PARTS:
            sums[part] += seconds.get(part, 0.0)
        sums["other"] += seconds["total"] - sum(seconds.get(part, 0.0) for part in PARTS)
        for rows in ("encoded", "reused"):
            sums[rows] += store.get(rows, 0)
    return {k: round(v, 1) if isinstance(v, float) else v for k, v in sums.items()}


def in_words(sums: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> str:
    """Return the totals and calls as one line for people."""
    whose = "its process" if sums["cells"] == 1 else "their processes"
    text = (
        f"{counted(sums['cells'], 'cell')} took {sums['total']:.0f} s of {whose}: encoding "
        f"{sums['encode']:.0f}, fitting {sums['fit']:.0f}, evaluating {sums['evaluate']:.0f}, "
        f"other {sums['other']:.0f}"
    )
    if sums["cells"] and sums["processor"] is not None:
        text += f"; {sums['processor']:.0f} s of processors"
    if sums["encoded"] or sums["reused"]:
        text += f"; {sums['encoded']} rows of features were made and {sums['reused']} reused"
    ran = [call for call in calls if call["cells"]]
    if ran:
        wall = sum(call["seconds"] for call in ran)
        text += f"; {wall:.0f} s on the clock" + (f" in {len(ran)} parts" * (len(ran) > 1))
    return text


# Sections about what numbers vary with: folds, seeds, speakers.


def ranks(section: Section, c: Context) -> None:
    """Add average ranks over the folds of all tables."""
    section.intro = (
        f"Heads ranked by {c.asked.name} in every fold of every table (seeds averaged), 1 is best. "
        "Bars join heads that Nemenyi's test does not tell apart (Demšar 2006). The test assumes "
        "that blocks are independent. Corpora are, but folds of one corpus share training speech. "
        "So the critical difference is too small: judge by the paired differences."
    )
    shared = [h for h in (c.grids[0].runs if c.grids else ()) if all(h in g.runs for g in c.grids)]
    if len(shared) < 2:
        section.absent = "ranks need two heads that are in every table"
        return
    found = average_ranks(
        {
            head: {
                f"{g.name}, fold {f}": value
                for g in c.grids
                for f, value in c.row(g, head).by_fold.items()
            }
            for head in shared
        }
    )
    said = ", ".join(f"{h} {r:.2f}" for h, r in zip(found.heads, found.ranks, strict=True))
    title = f"Average rank over {found.n_blocks} blocks"
    body: list[Line] = [[h, cell(r, ".2f")] for h, r in zip(found.heads, found.ranks, strict=True)]
    section.parts.append(
        draw(
            critical_difference_figure(found),
            f"{title}: {said}; critical difference {found.critical:.2f}",
            Table(title, ("head", "average rank"), body),
            name="ranks",
        )
    )
    apart = "; ".join(", ".join(g) for g in found.groups) or "none"
    note = (
        f"Friedman's chi² {found.chi2:.2f}, p {found.p:.2g}; Iman and Davenport's F {found.f:.2f}, "
        f"p {found.f_p:.2g}; critical difference {found.critical:.2f}. Not told apart: {apart}."
    )
    if found.chi2 != found.chi2:
        note = f"All heads tie in every block: no test. Not told apart: {apart}."
    section.parts.append(Table(title, ("head", "average rank"), body, [note]))


def variance(section: Section, c: Context) -> None:
    """Add the variance between seeds, folds and speakers."""
    section.intro = (
        f"Standard deviations of one run's {c.asked.name} (one seed, one fold): between seeds, "
        "between folds, and the rest of a seed in a fold. Speakers are the part of folds that is "
        "due to who was tested. Variances are estimated without bias; one below zero is shown as 0."
    )

    def make(g: Grid) -> list[Part]:
        body: list[Line] = []
        remarks: dict[str, None] = {}
        metric = c.asked.name
        for head, runs in g.runs.items():
            split, fault = _split({(r.fold, r.seed): r.table for r in runs}, c.asked.metric)
            if fault:
                metric, remarks[f"{fault}: WA is split instead"] = "WA", None
            if split.note:
                remarks[split.note] = None
            parts = split.seeds, split.folds, split.residual, split.speakers
            deviations = [cell(None if v != v else max(0.0, v) ** 0.5) for v in parts]
            shares = ", ".join(f"{k} {s:.0%}" for k, s in split.shares().items() if s == s)
            body.append([head, cell(split.mean), *deviations, Cell(shares or UNKNOWN)])
        columns = ("head", f"{metric}, mean of runs", "seeds", "folds", "rest", "speakers",
                   "shares of the variance")  # fmt: skip
        return [Table(f"Spread of runs: {g.name}", columns, body, [f"{r}." for r in remarks])]

    per_grid(section, c.grids, make)


def _split(tables: dict[tuple[int, int], PredictionTable], metric: str) -> tuple[Variance, str]:
    """Return the split of a metric and ""; if a fold lacks a class, that of WA and the reason."""
    try:
        return variance_split(tables, metric), ""
    except DataError as error:
        return variance_split(tables, "wa"), str(error).partition(";")[0]


# Sections about the cells: what was compared, what is missing, what made them.


def compared(section: Section, c: Context) -> None:
    """Add what was compared, and what makes it comparable."""
    section.intro = (
        "The certificate is a hash of four things: the manifest (utterances, labels, speakers, "
        "audio), the split of every fold, the taxonomy, and the rule that selects an epoch. All "
        "heads of a table share it; cells of different certificates are refused."
    )
    for (recipe, encoder), why in sorted(c.refused.items()):
        section.messages.append(f"No table for {recipe}, {encoder}: {why}.")
    text = f"Finished: {len(c.found.runs)} of {counted(len(c.plan.cells), 'cell')}."
    if axes := c.plan.axes:
        text += f" Compared: {'; '.join(f'{k} {_listed(v)}' for k, v in axes.items())}."
    audited = [r.record.audit for r in c.found.runs if r.record.audit]
    if audited:
        passed = sum(bool(a.get("ok")) and not a.get("unsure") for a in audited)
        text += (
            f" In {passed} of {len(audited)} audited cells no speaker, utterance or recording is "
            "in two parts of the fold."
        )
    unsure = Counter(u for a in audited for u in a.get("unsure", ()))
    section.messages.extend(f"For {n} cells it is unknown {u}." for u, n in unsure.items())
    section.parts.append(Text(text))
    section.parts.extend(Text(f"{note}.") for note in matching_notes(c.plan.matched))
    section.parts.extend(Text(f"{note}.") for note in source_notes(c.plan.pretraining))
    foreign = {r.head: r.record.imported for r in c.found.runs if r.record.imported}
    for head, about in foreign.items():
        said = "; ".join(f"{k}: {v}" for k, v in flatten(about).items() if v not in (None, "None"))
        if members := about.get("members"):
            section.parts.append(
                Text(
                    f"{head} is an ensemble: the mean of the calibrated probabilities of "
                    f"{', '.join(members)}. {said}."
                )
            )
            continue
        section.parts.append(
            Text(
                f"{head} is a row of another toolkit's predictions of the same utterances. How it "
                f"was trained and selected is what its user says: {said}."
            )
        )
    columns = ("table", "certificate", "manifest", "taxonomy", "folds", "seeds", "utterances",
               "speakers", "rule of selection")  # fmt: skip
    rows = []
    for g in c.grids:
        first, mark = c.row(g, next(iter(g.runs))), g.certificate
        counts = (len(g.folds), len(g.seeds), first.utterances, first.speakers)
        rows.append(
            [g.name, mark["hash"], str(mark["manifest"]), str(mark["taxonomy"])]
            + [cell(n, "d") for n in counts]
            + [str(mark["rule"])]
        )
    section.parts.append(Table("Certificates", columns, rows))
    section.parts.extend(_settings(g) for g in c.grids)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _settings(g: Grid) -> Fold:
    """Return the hashes of each fold's parts, and the settings that all heads of a table share."""
    splits = {f"fold {fold}": parts for fold, parts in g.certificate["splits"].items()}
    parts = {n: p if isinstance(p, Mapping) else {"all": p} for n, p in splits.items()}
    names = list(next(iter(parts.values())))
    body = [[fold, *(str(of.get(n, "")) for n in names)] for fold, of in parts.items()]
    run = next(iter(g.runs.values()))[0]
    hidden = ("head", "head_name", "fold", "seed")
    config = flatten({k: v for k, v in run.record.config.items() if k not in hidden})
    shared = {k: v for k, v in config.items() if k not in ("data.root", "trainer.out")}
    classes = ", ".join(next(iter(g.pooled.values())).classes)
    made: list[Part] = [
        Text(f"Classes: {classes}."),
        Table(f"Hashes of the parts: {g.name}", ("fold", *names), body),
        Text("Settings that all heads share:"),
        Code(yaml.safe_dump(shared, sort_keys=False, allow_unicode=True).strip()),
    ]
    return Fold(f"Split and settings: {g.name}", made)


def missing(section: Section, c: Context) -> None:
    """Add the cells that are not in the tables, and the classes that a fold lacks."""
    rows = [[n, "failed", why] for n, why in c.found.failed.items()]
    rows += [[n, "cannot be read", why] for n, why in c.found.broken.items()]
    rows += [[n, "has not run", ""] for n in c.found.missing]
    if rows:
        are = "is" if len(rows) == 1 else "are"
        section.messages.append(
            f"{len(rows)} of {len(c.plan.cells)} cells {are} in no table. The same `serzoo "
            "compare` runs them again, and no other."
        )
        section.parts.append(Table("Cells without a result", ("cell", "state", "why"), rows))
    else:
        section.absent = "every cell of the plan is finished"
    for g in c.grids:
        for run in {r.fold: r for r in next(iter(g.runs.values()))}.values():
            if absent := run.table.metrics()["absent"]:
                section.absent = ""
                section.messages.append(
                    f"{g.name}, fold {run.fold} tests no {', '.join(absent)}: UAR of that fold is "
                    "the mean over the other classes."
                )


def made_with(section: Section, c: Context) -> None:
    """Add the command and the versions."""
    section.parts.append(Code(command(c.plan, c.folder)))
    records = [r.record for r in c.found.runs]
    packages = dict.fromkeys(n for r in records for n in r.versions)
    counts = {n: Counter(str(r.versions.get(n)) for r in records) for n in packages}
    counts["code"] = Counter(map(commit, records))
    for key in ("device", "threads", "features"):
        values = (getattr(r, key) for r in records)
        counts[key] = Counter(str(v) for v in values if v is not None)
    counts["machine"] = Counter(
        ", ".join(f"{k} {v}" for k, v in r.machine.items()) for r in records if r.machine
    )
    body: list[list[Cell | str]] = [[name, Cell(_counted(k))] for name, k in counts.items() if k]
    section.parts.append(Table("What the cells were made with", ("what", "value"), body))
    section.parts.append(Text(f"{c.time}."))


def _counted(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{v} ({counted(n, 'cell')})" for v, n in values.most_common())


def commit(record: Record) -> str:
    """Return the commit of the code that made a cell."""
    git = record.git or {}
    return str(git.get("commit", "unknown"))[:10] + (" with changes" if git.get("changed") else "")


def command(plan: SuiteRecord, folder: Path) -> str:
    """Return the command that makes this comparison, with every axis and override."""
    words = ["serzoo", "compare", plan.name or folder.name]
    for key, value in plan.axes.items():
        text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
        words.append(f"{key}={text}")
    words += plan.overrides
    return " ".join(shlex.quote(w) for w in words)


ERRORS = 8  # of each head
WORDS = {"seconds": "duration in seconds"}
MATRICES = 60  # more are left out of a page: a suite of conditions has hundreds
AUDIO_LIMIT = 24 * 2**20  # characters of all clips; limits the size of a page


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
            counts: list[Line] = [
                [name, *(cell(n, ".0f") for n in row)]
                for name, row in zip(table.classes, table.confusion().tolist(), strict=True)
            ]
            data = Table(alt, ("reference, by predicted", *table.classes), counts)
            figures.append(draw(confusion_figure(table, head), alt, data, name=at))
        return [Fold(g.name, [Row(figures)], opened=g is c.grids[0])]

    per_grid(section, c.grids, make)


def groups(section: Section, c: Context) -> None:
    """Add the metric of each head for each sub-group of utterances."""
    section.intro = (
        f"{c.asked.name} with its 95 % interval (jackknife over the speakers of the group; none "
        "with one speaker). Durations are cut at their terciles. Groups that lack a class are "
        "shown, but not counted in the gap of a mean over classes. With many small groups the gap "
        "is large by chance alone."
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
                    head: sub_groups(t, of_table(t.ids, c.attributes), attribute, c.asked.metric)
                    for head, t in g.pooled.items()
                }
            except FAULTS as error:
                section.messages.append(f"{g.name}, by {attribute}: {as_message(error)}.")
                continue
            parts += _group_table(g, attribute, found, c.asked.name)
            if len(next(iter(found.values())).groups) > 1:
                worst[WORDS.get(attribute, attribute)] = found
        if worst:
            parts.append(_worst(g, worst))
        return [Fold(g.name, parts, opened=g is c.grids[0])] if parts else []

    per_grid(section, c.grids, make)


def _group_table(g: Grid, attribute: str, found: dict[str, SubGroups], metric: str) -> list[Part]:
    """Return the metric of every head in every group; many groups are folded."""
    first = next(iter(found.values()))
    words = WORDS.get(attribute, attribute)
    if len(first.groups) == 1:
        only = first.groups[0].name
        return [Text(f"By {words}: all {first.groups[0].n} utterances are {only}.")]
    body = []
    for i, group in enumerate(first.groups):
        row = [Cell(group.name), cell(group.n, "d")]
        for of in found.values():
            score = of.groups[i].score
            bounds = "" if np.isnan(score.low) else f" ({span(score.low, score.high, '.2f')})"
            row.append(Cell(f"{score.value:.3f}{bounds}", score.value))
        body.append(row)
    notes = [f"{first.note}."] if first.note and attribute != "speaker" else []
    if first.unstated:
        notes.append(f"Utterances that do not state it: {first.unstated}.")
    if first.left_out and attribute == "speaker":
        names = ", ".join(first.left_out)
        notes.append(f"Not counted in the gaps, since a class is absent: {names}.")
    if len(body) > 1 and attribute != "speaker":  # one speaker has no interval
        notes += g.of_speakers
    table = Table(f"{metric} by {words}: {g.name}", (words, "utterances", *found), body, notes)
    return [table if len(body) <= 8 else Fold(f"The {len(body)} groups by {words}", [table])]


def _worst(g: Grid, found: dict[str, dict[str, SubGroups]]) -> Table:
    """Return the worst group and the gap of every head, by every attribute."""
    body = []
    for head in g.runs:
        row: list[Cell] = [Cell(head)]
        for of in found.values():
            gap = of[head].gap
            row += [Cell(of[head].worst or UNKNOWN), cell(gap)]
        body.append(row)
    columns = [c for words in found for c in (f"worst by {words}", "gap")]
    return Table(f"Worst groups: {g.name}", ("head", *columns), body)


def sure(g: Grid, head: str) -> bool:
    """Whether a head's scores are probabilities: another toolkit's may only order the classes."""
    return all(run.record.probabilities for run in g.runs[head])


def tempered(runs: Sequence[Run]) -> tuple[PredictionTable, list[float]]:
    """The pooled table with every cell's scores divided by its own temperature, and these.

    Raises:
        DataError: a record that holds no temperature.
    """
    temperatures, scaled = [], []
    for run in runs:
        t = run.record.temperature
        if not t:
            raise DataError(
                f"the record of {run.name} holds no temperature fitted on validation; run it again"
            )
        temperatures.append(t)
        scaled.append(replace(run, table=replace(run.table, scores=run.table.scores / t)))
    return pooled(scaled), temperatures


def label_shift(section: Section, c: Context) -> None:
    """Add the gain by a declared class prior on corpora that were not trained on."""
    section.intro = (
        "UAR on corpora that were not trained on, plain and with a bias for each class. The bias "
        f"makes the mean probability uniform ({TRANSDUCTIVE}). Matched: each test corpus has the "
        "uniform prior; per speaker: each speaker has it. No label is used, but the prior is "
        "assumed: acted corpora have it by design, natural speech does not. Every model is matched "
        "for itself; then folds and seeds are pooled as in the results."
    )
    columns = ("head", "UAR plain", "matched", "per speaker", "gain", "gain per speaker")
    over: dict[str, list[list[float]]] = {}

    def make(g: Grid) -> list[Part]:
        left_out = [h for h in g.runs if not sure(g, h)]
        body: list[Line] = []
        for head, runs in g.runs.items():
            if head in left_out:
                continue
            values = [g.pooled[head].uar()]
            for by in ("corpus", "speaker"):
                moved = [replace(run, table=matched(run.table, by)) for run in runs]
                values.append(pooled(moved).uar())
            over.setdefault(head, []).append(values)
            body.append(_gains(head, values))
        if not body:
            raise ComparisonError("no head gives probabilities: there is nothing to match")
        notes = [f"{h}: left out, its predictions hold no probabilities." for h in left_out]
        return [Table(f"Matched to a uniform prior: {g.name}", columns, body, notes)]

    away = [g for g in c.grids if all(run.pair for runs in g.runs.values() for run in runs)]
    per_grid(section, away, make)
    several = {h: v for h, v in over.items() if 1 < len(v) == max(map(len, over.values()))}
    if several:
        tables = len(next(iter(several.values())))
        body = [_gains(h, np.mean(v, axis=0).tolist()) for h, v in several.items()]
        section.parts.insert(0, Table(f"Mean of {tables} tables", columns, body))
    if not away:
        section.absent = "every model was tested on the corpora that it was trained on"


def _gains(head: str, values: Sequence[float]) -> Line:
    plain, *moved = values
    return [head, *map(cell, values), *(cell(v - plain, "+.3f") for v in moved)]


def errors(section: Section, c: Context) -> None:
    """Add the wrong answers of each head with the highest probability."""
    section.intro = (
        f"The {ERRORS} wrong answers of each head with the highest probability (after temperature "
        "if the record has one; the surest of the seeds)."
        + ("" if c.audio else " `serzoo report SUITE --audio` puts players beside them.")
    )
    left = [AUDIO_LIMIT]
    faults: dict[str, None] = {}

    def clip(runs: Sequence[Run], name: str) -> Cell:
        run = next(r for r in runs if name in r.table.ids)
        try:
            uri = c.corpora.clip(run, name)
        except FAULTS as error:
            faults[f"{as_message(error)}: no audio."] = None
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
    """Return utterance, row and probability of the surest wrong answers, an utterance once."""
    known = np.flatnonzero(table.labelled & (table.predicted != table.labels))
    share = table.probabilities().max(1)
    found: dict[str, tuple[int, float]] = {}
    for i in known[np.argsort(-share[known], kind="stable")]:
        found.setdefault(table.ids[i].rpartition("#")[0], (int(i), float(share[i])))
    return [(name, i, p) for name, (i, p) in list(found.items())[:n]]
