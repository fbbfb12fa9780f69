"""`serzoo compare import`: another toolkit's predictions as a row of a comparison.

The row stands in the tables of a recipe as a head does, under their certificate: the same
utterances, tested in the same folds, with the same reference. What cannot be checked from
predictions, how the toolkit was trained and selected, is what its user says about it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import ComparisonError, ConfigError, DataError
from ..record import RECORD, environment, read_plan, read_record, write_json
from ..reporting.cells import PREDICTIONS, Run
from ..statistics.metrics import PredictionTable, merge
from . import foreign
from .exchange_places import places_of, reference_of, split, taken
from .foreign import PLAIN, Columns, Foreign
from .search import KEYS

CONFIDENCE = ("nll", "ece")  # what only probabilities have
CALIBRATED = ("nll_calibrated", "ece_calibrated", "temperature")  # fitted on a validation part
SHARED = (
    *("classes", "data", "speakers", "axes", "condition", "features", "corruption", "tested"),
    *("kind", "source", "shots", "draw", "tuning", "support"),  # of an adaptation
)


@dataclass(frozen=True)
class Imported:
    """What an import wrote, or would.

    Attributes:
        cells: names.
        folder: of the comparison.
        uar: of all rows, folds pooled.
        utterances: number of them.
        notes: for people.
    """

    cells: list[str]
    folder: Path
    uar: float
    utterances: int
    notes: list[str]


def import_predictions(
    suite: str,
    file: str | Path,
    *,
    name: str,
    recipe: str | None = None,
    encoder: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
    where: Mapping[str, Any] = MappingProxyType({}),
    columns: Columns = PLAIN,
    scores: str = "auto",
    toolkit: str | None = None,
    selection: str | None = None,
    fit_seconds: float | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    out: str = "runs",
) -> Imported:
    """Check predictions and write them as cells of a comparison that was run.

    Args:
        suite: the comparison; its folder is ``out/<suite>``.
        file: CSV, TSV or JSON lines, see :func:`.foreign.read`.
        name: of the row.
        recipe: whose tables it shall stand in; needed where the suite has several.
        encoder: in the table of this encoder only; all of the recipe's by default.
        fold: the file holds this fold only; by default all of the protocol's.
        seed: it stands for this seed; by default for every seed of the suite, which is what a
            method without random choices would give.
        where: stands beside cells only whose record says so, by path:
            ``{"condition": "noise:10dB"}``, ``{"axes.protocol": "loco"}``, ``{"shots": 4}``.
        columns: of the file.
        scores: ``auto``, ``probabilities``, ``logits`` or ``ranks``.
        toolkit: name and version, for the record.
        selection: how it was selected, in words, for the record.
        fit_seconds: of one fold, for the table.
        overwrite: replace other predictions of this name.
        dry_run: check only.
        out: folder of all runs.

    Raises:
        ComparisonError: when there is no such comparison, recipe, encoder, fold or seed in it, or
            the name is taken.
        DataError: when ids are missing, surplus or there twice, or values cannot be used.
    """
    from .running import lock

    path, folder = Path(file).expanduser(), Path(out) / Path(suite).stem
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise ConfigError(f"name is '{name}'; give letters, digits and . _ + - only")
    plan = read_plan(folder)
    places = places_of(folder, plan, recipe, encoder, fold, seed, where)
    reference = reference_of(places)
    classes = next(iter(reference.values())).classes
    given = foreign.read(path, classes, columns, scores)
    tables = split(path, given, reference, fold)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {
        "name": name,
        "toolkit": toolkit,
        "file": path.name,
        "sha256": sha,
        "rows": len(given.ids),
        "scores": given.scale,
        "selection": selection,
        "same_for_all_seeds": seed is None and len({s for _, _, s in places}) > 1,
    }
    entries: dict[str, tuple[dict[str, Any], PredictionTable]] = {}
    for (group, k, s), template in places.items():
        slug = re.sub(r"[^\w.-]+", "_", "-".join(group)).strip("_")
        cell = f"{slug}-{name}-f{k}-s{s}-{sha[:6]}"
        entries[cell] = _record(template, tables[k], s, about, given, fit_seconds), tables[k]
    whole = merge(replace(t, ids=[f"{i}#{k}" for i in t.ids]) for k, t in tables.items())
    result = Imported(list(entries), folder, whole.uar(), len(given.ids), _notes(given, whole))
    old = taken(folder, plan, name, places, sha, overwrite)
    if dry_run:
        return result
    with lock(folder):
        for cell, (entry, table) in entries.items():
            table.write_jsonl(folder / "cells" / cell / PREDICTIONS)
            write_json(folder / "cells" / cell / RECORD, entry)
        gone = [c for c in old if c not in entries]
        cells = [c for c in plan["cells"] if c not in gone and c not in entries]
        write_json(folder / "suite.json", {**plan, "cells": [*cells, *entries]})
        for cell in gone:
            shutil.rmtree(folder / "cells" / cell, ignore_errors=True)
    return result


def imported(folder: Path) -> list[str]:
    """Cells of a comparison that were imported; its next call keeps them."""
    path = folder / "suite.json"
    if not path.is_file():
        return []
    try:
        names = read_plan(folder)["cells"]
    except ComparisonError:
        return []
    return [n for n in names if _is_imported(folder / "cells" / n)]


def _is_imported(cell: Path) -> bool:
    try:
        return "imported" in (read_record(cell) or {})
    except DataError:
        return False


def _record(
    template: Run,
    table: PredictionTable,
    seed: int,
    about: Mapping[str, Any],
    given: Foreign,
    fit_seconds: float | None,
) -> dict[str, Any]:
    """A record as of a head in the template's table; what is the toolkit's own is ``imported``."""
    from ..statistics.measure import measure

    source = template.record
    searched = source.get("search")
    numbers = measure(table)
    unknown = CALIBRATED if given.probabilities else (*CALIBRATED, *CONFIDENCE)
    numbers["metrics"] |= dict.fromkeys(unknown)
    head = {"head": {"type": "imported"}, "head_name": about["name"]}
    return {
        "status": "ok",
        "format": 1,
        # of the table that it stands in; the toolkit shares its corpus, protocol and fold only
        "config": {**source["config"], **head, "seed": seed},
        "selection": {"rule": source["selection"]["rule"], "val/uar": None, "epoch": None},
        **{k: source[k] for k in SHARED if k in source},
        "search": {k: searched[k] for k in KEYS} if searched else None,
        "imported": dict(about),
        "probabilities": given.probabilities,
        "parameters": None,
        "seconds": {"total": 0.0} | ({} if fit_seconds is None else {"fit": fit_seconds}),
        "inference_seconds_per_utterance": None,
        **numbers,
        **environment(),
    }


def _notes(given: Foreign, whole: PredictionTable) -> list[str]:
    notes = []
    if not given.probabilities:
        notes.append("no probabilities: left out of calibration")
    known = whole.labelled
    if known.any() and np.array_equal(whole.predicted[known], whole.labels[known]):
        notes.append("every answer is right: is the label column the reference?")
    return notes
