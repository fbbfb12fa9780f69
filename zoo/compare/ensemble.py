"""`serzoo compare ensemble`: the average of several finished cells, as one row of the tables.

The row is the mean of its members' probabilities. A member is a row of the comparison: a head with
all of its seeds, or imported predictions. Its probabilities are calibrated by the temperature of
its validation part. Nothing is trained or chosen on test speakers. Weights are equal, or maximise
the likelihood of the same fold's validation part. The row has the certificate of its table.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from ..core import registry
from ..core.errors import ComparisonError, ConfigError, DataError, counted, suggest
from ..report.packed import validation_reader
from ..report.report import report
from ..report.runs import Run, by_pair, find_cells, pooled
from ..run.record import VALID, Record, SuiteRecord, read_plan
from ..run.words import parse, types_of, words
from ..statistics.rates import FloatArray, log_softmax
from ..statistics.speakers import check_same
from ..statistics.table import PredictionTable
from .imported import Place, cell_name, check_name, places_of, put, record_of, reference_of, taken

Seeds = Literal["together", "apart"]
Weights = Literal["equal", "validation"]
ROUNDS = 500  # rounds of the fit of weights; it converges far earlier


@dataclass(frozen=True)
class Ensemble:
    """The cells that were written, or that a dry run would write.

    Attributes:
        folder: folder of the comparison.
        uar: each table (corpus and encoder) to the row's UAR, folds pooled.
        alone: each table to the mean UAR of its members.
        weights: each table and fold to the weights of the members.
        seeds: each member to the seeds whose cells were averaged.
        rows: the cells with their records and predictions.
    """

    folder: Path
    uar: dict[str, float]
    alone: dict[str, float]
    weights: dict[str, dict[str, float]]
    seeds: dict[str, list[int]]
    rows: list[Run]

    @property
    def cells(self) -> list[str]:
        """Names of the cells."""
        return [row.name for row in self.rows]


def ensemble(
    suite: str,
    *,
    members: Sequence[str] = (),
    name: str | None = None,
    seeds: Seeds = "together",
    weights: Weights = "equal",
    recipe: str | None = None,
    encoder: str | None = None,
    where: Mapping[str, Any] = MappingProxyType({}),
    overwrite: bool = False,
    dry_run: bool = False,
    out: str = "runs",
) -> Ensemble:
    """Average the predictions of finished cells, and write the result as cells of the comparison.

    Args:
        suite: the comparison; its folder is ``out/<suite>``.
        members: names of rows, or the name of one row, whose seeds are averaged.
        name: name of the new row; by default the members' names, joined by ``+``, or
            ``NAME+seeds`` for one member.
        seeds: ``together`` averages all seeds of a member, so the row is the same for every seed.
            ``apart`` averages the members seed by seed.
        weights: ``equal``, or fitted on the fold's ``validation`` part.
        recipe: the row goes to the tables of this recipe; needed if the suite has several.
        encoder: the row goes to the table of this encoder; None = to all of the recipe.
        where: keys of records and their values; the row goes beside cells that have them.
        overwrite: replace other cells of this name.
        dry_run: check and compute only.
        out: folder of all runs.

    Raises:
        ComparisonError: if there is no such comparison, recipe, encoder or member. Also if a member
            lacks a fold or a seed that it has elsewhere, or the name is taken.
        ConfigError: if a setting cannot be used.
        DataError: if a member has no probabilities, or no validation predictions.
    """
    for knob, value, kind in (("seeds", seeds, Seeds), ("weights", weights, Weights)):
        if value not in get_args(kind):
            raise ConfigError(f"{knob} is '{value}'{suggest(value, get_args(kind))}")
    chosen = list(dict.fromkeys([members] if isinstance(members, str) else members))
    if not chosen:
        raise ConfigError("no rows to average were named; add members='[classification,selm]'")
    if seeds == "apart" and len(chosen) == 1:
        raise ConfigError(
            f"seeds=apart averages the members of one seed, but {chosen[0]} is the only member; "
            "add another member, or say seeds=together"
        )
    called = name or ("+".join(chosen) if len(chosen) > 1 else f"{chosen[0]}+seeds")
    check_name(called)
    folder = Path(out) / Path(suite).stem
    plan = read_plan(folder)
    places = places_of(folder, plan, recipe, encoder, None, None, where)
    reference_of(places)  # raises if cells of one fold were tested on different utterances
    cells = _cells(folder, plan, chosen, places)
    made: dict[Place, tuple[PredictionTable, list[Run], list[float]]] = {}
    answers: dict[tuple[Any, ...], tuple[PredictionTable, list[Run], list[float]]] = {}
    for place in places:
        group, fold, seed = place
        # with seeds together, all seeds share one answer
        key: tuple[Any, ...] = place if seeds == "apart" else (group, fold)
        if key not in answers:
            mine = [_of_seed(cells[group, fold, m], seed, seeds, m, place) for m in chosen]
            found = _weights(mine, weights, folder)
            table = _mean(places[place].table, mine, found)
            answers[key] = table, [run for runs in mine for run in runs], found
        made[place] = answers[key]
    used = {run.name: run for _, runs, _ in answers.values() for run in runs}
    sha = hashlib.sha256(json.dumps([chosen, weights, seeds, sorted(used)]).encode()).hexdigest()
    about = _about(called, chosen, sha, weights, seeds)
    rows = []
    for place, (table, runs, _) in made.items():
        record = _record(places[place], place, table, runs, about)
        rows.append(Run(cell_name(place, called, sha), record, table))
    done = Ensemble(
        folder,
        _uar(rows),
        _uar(list(used.values())),
        {_place_text(key): dict(zip(chosen, w, strict=True)) for key, (_, _, w) in answers.items()},
        {m: sorted({run.seed for run in used.values() if run.head == m}) for m in chosen},
        rows,
    )
    old = taken(folder, plan, called, places, sha, overwrite)
    if not dry_run:
        put(folder, plan, {row.name: (row.record, row.table) for row in rows}, old)
    return done


def _place_text(key: tuple[Any, ...]) -> str:
    """Return a table and a fold, and a seed if the key has one, as text."""
    group, fold, *seed = key
    return ", ".join([*group, f"fold {fold}", *(f"seed {s}" for s in seed)])


Members = dict[tuple[tuple[str, str], int, str], list[Run]]


def _cells(
    folder: Path, plan: SuiteRecord, members: Sequence[str], places: Mapping[Place, Run]
) -> Members:
    """Find the cells of each member, with the same seeds in all folds of a table."""
    groups = {group for group, _, _ in places}
    runs = [r for r in find_cells(folder, plan.cells).runs if r.group in groups]
    known = sorted({r.head for r in runs})
    found: Members = defaultdict(list)
    for run in runs:
        found[run.group, run.fold, run.head].append(run)
    again = f"run `serzoo compare {folder.name}` again, or leave it out of members"
    for member in members:
        if member not in known:
            raise ComparisonError(
                f"{folder} has no finished row '{member}'{suggest(member, known)}"
            )
        for (group, fold, _), template in places.items():
            mine = found.get((group, fold, member), [])
            here = {r.seed for r in mine}
            if len(here) < len(mine):
                raise ComparisonError(
                    f"'{member}' has several cells of one seed in {_place_text((group, fold))} "
                    f"({', '.join(r.name for r in mine)}); say with where.KEY=VALUE (of their "
                    "records) which of them are meant"
                )
            every = {r.seed for r in runs if r.head == member and r.group == group}
            lacking = sorted(every - here)
            if lacking or not every:
                what = f" of seed {', '.join(map(str, lacking))}" if every else ""
                where = _place_text((group, fold))
                raise ComparisonError(f"'{member}' has no finished cell{what} in {where}; {again}")
            for run in mine:
                _check(run, template)
    return found


def _check(run: Run, template: Run) -> None:
    """Check that a cell has probabilities of the same classes and utterances."""
    if not run.record.probabilities:
        raise DataError(
            f"{run.name} has ranks or labels and no probabilities, so it cannot be averaged; "
            "import its probabilities, or leave it out of members"
        )
    _alike(template.name, template.table, run.name, run.table)


def _alike(one: str, a: PredictionTable, two: str, b: PredictionTable) -> None:
    """Check that two cells have the same utterances, labels, speakers and classes."""
    try:
        check_same(a, b)
    except ComparisonError as error:
        raise ComparisonError(f"{one} and {two}: {error}") from error


def _of_seed(runs: Sequence[Run], seed: int, seeds: str, member: str, place: Place) -> list[Run]:
    if seeds == "together":
        return _different(runs)
    mine = [run for run in runs if run.seed == seed]
    if not mine:
        raise ComparisonError(
            f"'{member}' has no finished cell of seed {seed} in {', '.join(place[0])}, fold "
            f"{place[1]}; say seeds=together, or run it"
        )
    return mine


def _different(runs: Sequence[Run]) -> list[Run]:
    """Drop cells that repeat an imported row for another seed; keep all cells of a head."""
    repeated = [r for r in runs if (r.record.imported or {}).get("same_for_all_seeds")]
    return [*repeated[:1], *(r for r in runs if r not in repeated)]


def _probabilities(
    table: PredictionTable, ids: Sequence[str], temperature: float | None
) -> FloatArray:
    """Return calibrated probabilities ``[N, C]``, in the order of these ids."""
    row = {name: i for i, name in enumerate(table.ids)}
    scores = table.scores[[row[i] for i in ids]]
    return np.asarray(np.exp(log_softmax(scores, temperature or 1.0)))


def _mean(
    reference: PredictionTable, members: Sequence[Sequence[Run]], weights: Sequence[float]
) -> PredictionTable:
    """Return the weighted mean of the members; a member is the mean of its cells."""
    ids = list(reference.ids)
    p = sum(
        w * np.mean([_probabilities(r.table, ids, r.record.temperature) for r in runs], axis=0)
        for w, runs in zip(weights, members, strict=True)
    )
    tiny = np.finfo(np.float32).tiny  # a probability of 0 has no logarithm
    scores = np.log(np.maximum(p, tiny))
    return replace(reference, ids=ids, scores=scores, texts=None)


def _weights(members: Sequence[Sequence[Run]], weights: str, folder: Path) -> list[float]:
    """Return one weight per member; they sum to 1."""
    if weights == "equal" or len(members) == 1:
        return [1 / len(members)] * len(members)
    validation = validation_reader(folder)
    cells = [[(run, _validated(validation, run)) for run in runs] for runs in members]
    first, reference = cells[0][0]
    known = reference.labelled
    if not known.any():
        raise DataError(
            f"no validation utterance of {first.name} is labelled, so no weights can be fitted; "
            "say weights=equal"
        )
    for run, table in (pair for pairs in cells for pair in pairs):
        _alike(f"validation of {first.name}", reference, f"of {run.name}", table)
    ids, labels = list(reference.ids), reference.labels[known]
    parts = [
        np.mean([_probabilities(t, ids, r.record.temperature) for r, t in pairs], axis=0)
        for pairs in cells
    ]
    return mixture(np.stack([p[known][np.arange(len(labels)), labels] for p in parts], axis=1))


def mixture(likelihood: FloatArray) -> list[float]:
    """Return the weights of M models that maximise the likelihood of their mixture.

    The problem is concave, and expectation-maximisation finds the maximum (Dempster, Laird & Rubin
    1977). In each round a weight becomes the mean share that its model has in the mixture.

    Args:
        likelihood: ``[N, M]`` probability that each model gives to the label.

    Returns:
        M weights from 0 to 1 that sum to 1.
    """
    p = np.maximum(likelihood, np.finfo(np.float64).tiny)
    w = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(ROUNDS):
        part = p * w
        w = (part / part.sum(1, keepdims=True)).mean(0)
    return [float(x) for x in w]


def _validated(validation: Callable[[str], PredictionTable | None], run: Run) -> PredictionTable:
    table = validation(run.name)
    if table is None:
        raise DataError(
            f"{run.name} has no validation predictions ({VALID} is missing), so its weight cannot "
            "be fitted; say weights=equal, or leave it out of members"
        )
    return table


def _about(name: str, members: Sequence[str], sha: str, weights: str, seeds: str) -> dict[str, Any]:
    return {
        "name": name,
        "toolkit": "serzoo",
        "file": f"ensemble of {', '.join(members)}",
        "sha256": sha,
        "scores": "probabilities",
        "selection": f"members as they were selected; weights: {weights}; seeds: {seeds}",
        "same_for_all_seeds": seeds == "together",
        "members": list(members),
    }


def _record(
    template: Run, place: Place, table: PredictionTable, used: Sequence[Run], about: dict[str, Any]
) -> Record:
    """Return the record of a cell; its costs are the sums of the members' costs."""
    records = [run.record for run in used]
    fit = [r.seconds.get("fit") for r in records]
    seconds = {} if None in fit else {"fit": float(sum(f or 0.0 for f in fit))}
    made = record_of(template, table, place[2], {**about, "cells": len(used)}, True, seconds)
    slow = [r.inference_seconds_per_utterance for r in records]
    known = None if None in slow else float(sum(s or 0.0 for s in slow))
    made.processor_seconds = _summed([r.processor_seconds for r in records], ("fit",))
    made.flops = _summed([r.flops for r in records], ("training", "scoring"))
    return made.add({"inference_seconds_per_utterance": known})


def _summed(costs: Sequence[Mapping[str, float]], keys: Iterable[str]) -> dict[str, float]:
    """Return the sum over the members of each cost that all of them recorded."""
    return {k: float(sum(c[k] for c in costs)) for k in keys if all(k in c for c in costs)}


def _uar(runs: Sequence[Run]) -> dict[str, float]:
    """Return each table's mean UAR over rows and their seeds, folds pooled."""
    rows: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in by_pair(runs):
        rows[", ".join(run.group)][run.head].append(run)
    return {
        table: float(np.mean([pooled(cells).uar() for cells in heads.values()]))
        for table, heads in rows.items()
    }


def ensemble_rows(
    suite: str, typed: Sequence[str], *, out: str = "runs", dry_run: bool = False
) -> Ensemble:
    """Run `serzoo compare ensemble`: compute, write, tabulate, and print.

    Args:
        suite: the comparison.
        typed: ``key=value`` keywords of :func:`ensemble`, and ``where.KEY=VALUE``.
        out: folder of all runs.
        dry_run: write nothing.

    Returns:
        What was averaged.

    Raises:
        ConfigError: if a setting is missing, unknown or wrong.
        ComparisonError: see :func:`ensemble`.
        DataError: see :func:`ensemble`.
    """
    types = {k: v for k, v in types_of(ensemble).items() if k not in ("dry_run", "out", "where")}
    values = dict(parse(typed, {key: types.get(key, str) for key, _ in words(typed)}))
    where = {k[6:]: values.pop(k) or "" for k in list(values) if k.startswith("where.")}
    if isinstance(values.get("members"), str):
        values["members"] = [values["members"]]
    knobs = registry.schema_of(ensemble)
    given = registry.check_knobs("compare ensemble", {k: knobs[k] for k in types}, values)
    done = ensemble(suite, **given, where=where, out=out, dry_run=dry_run)
    for member, seeds in done.seeds.items():
        print(f"{member}: seeds {', '.join(map(str, seeds))}")
    for group, uar in done.uar.items():
        print(f"{group}: UAR {uar:.3f}; its members alone {done.alone[group]:.3f} on average")
    for place, found in done.weights.items():
        if len(set(found.values())) > 1:
            print(f"  {place}: " + ", ".join(f"{m} {w:.2f}" for m, w in found.items()))
    would = "would be written" if dry_run else "written"
    print(f"{counted(len(done.cells), 'cell')} {would} in {done.folder}")
    if not dry_run:
        report(done.folder)
    return done
