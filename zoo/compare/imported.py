"""`serzoo compare import`: another toolkit's predictions as a row of a comparison.

The row is in the tables of a recipe, as a head is, with their certificate. It has the same
utterances, in the same folds, with the same reference. Predictions do not show how the toolkit was
trained and selected. The record holds what its user says about that.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..core import registry
from ..core.errors import ComparisonError, ConfigError, DataError, counted, some, suggest
from ..core.files import json_lines, read_text
from ..report.report import report
from ..report.runs import BUDGET, PREDICTIONS, Run, find_cells
from ..run.record import (
    Record,
    SuiteRecord,
    environment,
    read_plan,
    read_record,
    write_plan,
    write_record,
    written,
)
from ..run.words import parse, types_of, words
from ..statistics.rates import FloatArray
from ..statistics.table import PredictionTable, merge

SUFFIXES = (".csv", ".tsv", ".jsonl")
SCALES = ("auto", "probabilities", "logits", "ranks")
SUM = 1e-3  # largest difference of a sum of probabilities from 1
SMALLEST = 1e-6  # replaces smaller probabilities, since 0 has no logarithm; its loss is 14 nats


@dataclass(frozen=True)
class Columns:
    """The columns of a file of predictions.

    Attributes:
        id: column of the utterance ids.
        label: column of the predicted labels; only read if the file has no scores.
        fold: column of the folds; None = each id is tested in one fold.
        prefix: prefix of the columns of scores, as ``prob_`` for ``prob_angry``.
        id_prefix: text before each id, as ``ravdess/`` for ids without their corpus.
        rename: the toolkit's names of classes to ours.
    """

    id: str = "id"
    label: str = "label"
    fold: str | None = None
    prefix: str = ""
    id_prefix: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)


PLAIN = Columns()


@dataclass(frozen=True)
class Foreign:
    """The predictions of a file with N rows.

    Attributes:
        ids: N utterance ids; one can occur more than once.
        folds: N numbers of folds, or None.
        scores: ``[N, C]`` in the order of the classes: logits, ranks, or log-probabilities if
            ``scale`` is ``probabilities``. For ``labels``, 1 for the predicted class, else 0.
        scale: ``probabilities``, ``logits``, ``ranks`` or ``labels``.
    """

    ids: list[str]
    folds: list[int] | None
    scores: FloatArray
    scale: str

    @property
    def probabilities(self) -> bool:
        """Whether the scores are confidences."""
        return self.scale in ("probabilities", "logits")


def read(
    path: Path, classes: Sequence[str], columns: Columns = PLAIN, scale: str = "auto"
) -> Foreign:
    """Read a file of predictions.

    Scores are a column per class, or an object ``scores`` of each JSON line. If the file has
    scores, its label column is ignored, because in many files it is the reference. Else the label
    column is the prediction.

    Args:
        path: ``.csv``, ``.tsv`` or ``.jsonl``.
        classes: C classes of the taxonomy.
        columns: columns of the file.
        scale: what the scores are. ``auto`` expects probabilities, from 0 to 1 with a sum of 1.
            ``ranks`` (margins, votes) only order the classes.

    Raises:
        DataError: if lines, columns, labels or ids cannot be used; names and counts them.
    """
    if scale not in SCALES:
        raise DataError(f"scores is '{scale}'{suggest(scale, SCALES)}")
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} holds no predictions; it should have a line per utterance")
    found = list(rows[0])
    if columns.id not in found:
        raise DataError(
            f"{path} has no column '{columns.id}' of utterance ids{suggest(columns.id, found)}; "
            "name it with id=COLUMN"
        )
    ids = [columns.id_prefix + str(row.get(columns.id)) for row in rows]
    folds = _folds(path, rows, columns.fold) if columns.fold else None
    known = {columns.rename.get(k.removeprefix(columns.prefix), k) for k in _score_keys(rows[0])}
    named = known & set(classes) or any(
        columns.prefix + c in rows[0] for c in (*classes, *columns.rename)
    )
    if "scores" in rows[0] or named:
        values = _scores(path, rows, ids, classes, columns)
        values, scale = _as_scale(path, values, ids, scale)
        return Foreign(ids, folds, values, scale)
    if columns.label not in found:
        raise DataError(
            f"{path} has neither scores ({', '.join(columns.prefix + c for c in classes)}) nor a "
            f"column '{columns.label}' of labels{suggest(columns.label, found)}; name it with "
            "label=COLUMN, or the scores with prefix=TEXT"
        )
    labels = [str(row.get(columns.label)) for row in rows]
    labels = [columns.rename.get(label, label) for label in labels]
    unknown = Counter(label for label in labels if label not in classes)
    if unknown:
        counts = ", ".join(f"'{label}' ({n})" for label, n in unknown.most_common(5))
        raise DataError(
            f"{path}: {unknown.total()} labels are not classes of the taxonomy: {counts}; it has "
            f"{', '.join(classes)}. Map names with class.THEIRS=OURS"
        )
    one_hot = np.eye(len(classes))[[list(classes).index(label) for label in labels]]
    return Foreign(ids, folds, one_hot, "labels")


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: its ending is '{path.suffix}'; give predictions as a file that ends in "
            f"{', '.join(SUFFIXES)}"
        )
    if path.suffix.lower() == ".jsonl":
        return [
            row
            for _, row in json_lines(
                path, remedy="write it again, as UTF-8", what=("a line of JSON", "predictions")
            )
        ]
    text = read_text(path, remedy="save it as CSV in UTF-8")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows: list[dict[str, Any]] = []
    # not splitlines, which also breaks at characters that a cell can contain
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in _checked(reader, path):
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {reader.line_num}: more or fewer cells than the header; was the "
                "file cut off, or has it another separator?"
            )
        rows.append({str(k).strip(): str(v).strip() for k, v in row.items()})
    return rows


def _checked(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, Any]]:
    """Return the rows; an error of the reader names file and line."""
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: cannot be read ({error}); write a quote twice"
        ) from None


def _score_keys(row: Mapping[str, Any]) -> Iterable[str]:
    scores = row.get("scores")
    return [str(k) for k in scores] if isinstance(scores, Mapping) else list(row)


def _folds(path: Path, rows: Sequence[Mapping[str, Any]], column: str) -> list[int]:
    folds = []
    for number, row in enumerate(rows, 1):
        try:
            folds.append(int(str(row[column])))
        except (KeyError, ValueError):
            raise DataError(
                f"{path}, row {number}: column '{column}' is {row.get(column)!r}; it should be the "
                "number of a fold"
            ) from None
    return folds


def _scores(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    classes: Sequence[str],
    columns: Columns,
) -> FloatArray:
    theirs = {ours: name for name, ours in columns.rename.items()}
    keys = [columns.prefix + theirs.get(c, c) for c in classes]
    values = np.full((len(rows), len(classes)), np.nan)
    for i, row in enumerate(rows):
        found = row.get("scores", row)
        if not isinstance(found, Mapping):
            raise DataError(
                f"{path}: scores of '{ids[i]}' are {found!r}; write {{class: number}} with every "
                "class"
            )
        if missing := [k for k in keys if k not in found]:
            raise DataError(
                f"{path}: '{ids[i]}' has no score of {', '.join(missing)} (it has "
                f"{', '.join(map(str, found))}); every class needs one. Map names with "
                "class.THEIRS=OURS"
            )
        surplus = [k for k in found if k not in keys] if "scores" in row else []
        if surplus:
            raise DataError(
                f"{path}: '{ids[i]}' has scores of {', '.join(surplus)}, which the taxonomy lacks; "
                "leave them out and let the others sum to 1, or map names with class.THEIRS=OURS"
            )
        try:
            values[i] = [float(found[k]) for k in keys]
        except (TypeError, ValueError):
            bad = next(f"{k}={found[k]!r}" for k in keys if not _is_number(found[k]))
            raise DataError(
                f"{path}: a score of '{ids[i]}' is not a number: {bad}; give a number for each "
                "class"
            ) from None
    bad_rows = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad_rows):
        raise DataError(
            f"{path}: scores of {len(bad_rows)} of {len(ids)} utterances are not finite "
            f"({some(ids[int(i)] for i in bad_rows)}); the toolkit diverged, or left cells empty: "
            "train it again, or fill the cells in"
        )
    return values


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _as_scale(
    path: Path, values: FloatArray, ids: Sequence[str], scale: str
) -> tuple[FloatArray, str]:
    """Return log-probabilities if the scores are probabilities, else the scores; and the scale."""
    if scale in ("logits", "ranks"):
        return values, scale
    bad = np.flatnonzero(
        (np.abs(values.sum(1) - 1) > SUM) | (values < 0).any(1) | (values > 1 + SUM).any(1)
    )
    if len(bad):
        row = int(bad[0])
        first = ", ".join(f"{v:g}" for v in values[row])
        raise DataError(
            f"{path}: scores of {len(bad)} of {len(ids)} utterances are not probabilities (first: "
            f"{ids[row]}: {first}); say scores=logits if softmax makes them probabilities, or "
            "scores=ranks if they only order the classes"
        )
    return np.log(np.maximum(values, SMALLEST)), "probabilities"


Place = tuple[tuple[str, str], int, int]  # table, fold, seed


def places_of(
    folder: Path,
    plan: SuiteRecord,
    recipe: str | None,
    encoder: str | None,
    fold: int | None,
    seed: int | None,
    where: Mapping[str, Any] = MappingProxyType({}),
) -> dict[Place, Run]:
    """Find where predictions belong: a trained cell of each table, fold and seed.

    Args:
        folder: folder of the comparison.
        plan: its ``suite.json``.
        recipe: only tables of this recipe; None = of the only one.
        encoder: only tables of this encoder; None = of all.
        fold: only this fold; None = all.
        seed: only this seed; None = all.
        where: only cells whose records have these values, by ``key.key``. Without ``condition``,
            cells on corrupted audio are left out if there are others.

    Returns:
        Each table, fold and seed, to a finished cell that was not imported.

    Raises:
        ComparisonError: if no cell is left, or cells of several recipes or conditions are.
    """
    own = [r for r in find_cells(folder, plan.cells).runs if r.record.imported is None]
    if "condition" not in where and any(r.record.corruption is None for r in own):
        # predictions on the original audio do not belong beside those on corrupted audio
        own = [r for r in own if r.record.corruption is None]
    if not own:
        raise ComparisonError(
            f"{folder} has no finished cell, which would show the test utterances; run `serzoo "
            f"compare {folder.name}` first"
        )

    def keep(what: str, wanted: Any, of: Any) -> None:
        nonlocal own
        found = sorted({of(run) for run in own})
        if wanted is None:
            return
        if found == [""]:
            raise ComparisonError(
                f"{folder} has no finished cell of {what} {wanted}, since no record has the key "
                f"'{what}'; name one of record.json: where.condition=NAME, where.config.fold=0"
            )
        if wanted not in found:
            known = suggest(str(wanted), [str(f) for f in found])
            raise ComparisonError(f"{folder} has no finished cell of {what} {wanted}{known}")
        own = [run for run in own if of(run) == wanted]

    keep("recipe", recipe, _stem)
    if len(recipes := sorted({_stem(run) for run in own})) > 1:
        raise ComparisonError(
            f"{folder} has the recipes {', '.join(recipes)}; name that of these predictions with "
            "recipe=NAME"
        )
    keep("encoder", encoder, lambda run: run.group[1])
    keep("fold", fold, lambda run: run.fold)
    keep("seed", seed, lambda run: run.seed)
    for path, value in where.items():
        keep(path, str(value), partial(_fact, path=path))
    if "condition" not in where and len(tested := sorted({_condition_of(run) for run in own})) > 1:
        raise ComparisonError(
            f"{folder} tests under several conditions ({', '.join(tested)}); name that of these "
            "predictions with where.condition=NAME"
        )
    return {(run.group, run.fold, run.seed): run for run in reversed(own)}


def _fact(run: Run, path: str) -> str:
    """Return a record's value at ``key.key`` as text; empty if it has none."""
    found: Any = run.record.to_json()
    for key in path.split("."):
        found = found.get(key, "") if isinstance(found, Mapping) else ""
    return str(found)


def _condition_of(run: Run) -> str:
    """Return the condition of the test audio; empty for the original audio."""
    return run.record.condition if run.record.corruption is not None else ""


def _stem(run: Run) -> str:
    return Path(run.record.config["recipe"]).stem


def reference_of(places: Mapping[Place, Run]) -> dict[int, PredictionTable]:
    """Return each fold's test table: ids, speakers and labels, the same in all cells.

    Raises:
        ComparisonError: if two cells of a fold were tested on different utterances.
    """
    found: dict[int, Run] = {}
    for (_, fold, _), run in sorted(places.items()):
        first = found.setdefault(fold, run)
        if first.record.data != run.record.data or set(first.table.ids) != set(run.table.ids):
            raise ComparisonError(
                f"{first.name} and {run.name} were not tested on the same utterances; choose one "
                "of them with where.KEY=VALUE (of its record), or, if one is out of date, remove "
                "it and compare again"
            )
    return {fold: run.table for fold, run in found.items()}


def split(
    path: Path, given: Foreign, reference: Mapping[int, PredictionTable], fold: int | None
) -> dict[int, PredictionTable]:
    """Divide predictions into folds, in the order of the reference and with its labels.

    Args:
        path: their file, for errors.
        given: the predictions.
        reference: test table of each fold; see :func:`reference_of`.
        fold: the only fold of the file; None = several.

    Returns:
        The table of each fold.

    Raises:
        DataError: if the file does not hold each test utterance once.
    """
    home: dict[str, list[int]] = defaultdict(list)
    for k, table in reference.items():
        for i in table.ids:
            home[i].append(k)
    if given.folds is not None:
        folds = given.folds
        if strange := sorted(set(folds) - set(reference)):
            raise DataError(
                f"{path}: folds {', '.join(map(str, strange))} are not finished in the comparison, "
                f"which has {', '.join(map(str, sorted(reference)))}; leave their rows out, or run "
                "these folds first"
            )
    else:
        if fold is None and (several := [i for i, ks in home.items() if len(ks) > 1]):
            raise DataError(
                f"{len(several)} utterances are tested in several folds ({some(several)}); give "
                "fold_column=COLUMN, or a file for each fold with fold=NUMBER"
            )
        folds = [home[i][0] if home.get(i) else -1 for i in given.ids]
    problems = []
    counts = Counter(zip(folds, given.ids, strict=True))
    wanted = {(k, i) for k, table in reference.items() for i in table.ids}
    for what, ids in (
        ("missing", [i for k, i in sorted(wanted) if (k, i) not in counts]),
        ("not among the test utterances", [i for k, i in counts if (k, i) not in wanted]),
        ("there more than once", [i for (_, i), n in counts.items() if n > 1]),
    ):
        if ids:
            problems.append(f"{len(ids)} ids are {what} ({some(ids)})")
    if problems:
        raise DataError(
            f"{path} does not hold each of the {len(wanted)} test utterances once: "
            f"{'; '.join(problems)}. Predict all test utterances; if ids lack their corpus, add "
            "id_prefix=TEXT; if the file holds one fold, add fold=NUMBER"
        )
    row = {key: n for n, key in enumerate(zip(folds, given.ids, strict=True))}
    return {
        k: PredictionTable(
            list(table.ids),
            list(table.speakers),
            table.labels,
            given.scores[[row[k, i] for i in table.ids]],
            list(table.classes),
        )
        for k, table in reference.items()
    }


def taken(
    folder: Path,
    plan: SuiteRecord,
    name: str,
    places: Collection[Place],
    sha: str,
    overwrite: bool,
) -> list[str]:
    """Return earlier cells of a row of this name, which new ones replace.

    Args:
        folder: folder of the comparison.
        plan: its ``suite.json``.
        name: name of the row.
        places: places of the new cells.
        sha: digest of the new predictions.
        overwrite: whether other predictions may be replaced.

    Raises:
        ComparisonError: if a head has this name, or other predictions and ``overwrite`` is false.
    """
    old = []
    tables = {table for table, _, _ in places}
    for run in find_cells(folder, plan.cells).runs:
        if run.head != name or run.group not in tables:
            continue
        found = run.record.imported
        if found is None:
            raise ComparisonError(f"'{name}' is a head of this comparison; choose another name")
        if found["sha256"] != sha and (run.group, run.fold, run.seed) in places:
            if not overwrite:
                raise ComparisonError(
                    f"'{name}' was imported from other predictions ({found['file']}); choose "
                    "another name, or overwrite=true to replace them"
                )
            old.append(run.name)
    return old


CONFIDENCE = ("nll", "ece", "top2")  # metrics that need probabilities
CALIBRATED = ("nll_calibrated", "ece_calibrated", "temperature")  # metrics that need validation
OF_TABLE = (  # keys of a record that all rows of a table have in common
    *("classes", "data", "speakers", "axes", "condition", "features", "corruption", "tested"),
    *("kind", "source", "shots", "draw", "tuning", "support"),  # of an adaptation
)


@dataclass(frozen=True)
class Imported:
    """The cells that an import wrote, or that a dry run would write.

    Attributes:
        cells: names of the cells.
        folder: folder of the comparison.
        uar: UAR of the predictions, folds pooled.
        utterances: number of rows of the file.
        notes: remarks for people.
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
    """Check predictions and write them as cells of a finished comparison.

    Args:
        suite: the comparison; its folder is ``out/<suite>``.
        file: CSV, TSV or JSON lines, see :func:`.read`.
        name: name of the row.
        recipe: the row goes to the tables of this recipe; needed if the suite has several.
        encoder: the row goes to the table of this encoder; None = to all of the recipe.
        fold: the only fold of the file; None = the file holds all folds.
        seed: seed of the row; None = the row is repeated for every seed, as for a method without
            random choices.
        where: keys of records and their values; the row goes beside cells that have them, as
            ``{"condition": "noise:10dB"}``, ``{"axes.protocol": "loco"}``, ``{"shots": 4}``.
        columns: names of the file's columns.
        scores: ``auto``, ``probabilities``, ``logits`` or ``ranks``.
        toolkit: name and version, for the record.
        selection: how its models were selected, for the record.
        fit_seconds: training time of one fold, for the table.
        overwrite: replace other predictions of this name.
        dry_run: check only.
        out: folder of all runs.

    Raises:
        ComparisonError: if there is no such comparison, recipe, encoder, fold or seed, or the name
            is taken.
        DataError: if ids are missing, surplus or repeated, or values cannot be used.
    """
    path, folder = Path(file).expanduser(), Path(out) / Path(suite).stem
    check_name(name)
    plan = read_plan(folder)
    places = places_of(folder, plan, recipe, encoder, fold, seed, where)
    reference = reference_of(places)
    classes = next(iter(reference.values())).classes
    given = read(path, classes, columns, scores)
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
    entries: dict[str, tuple[Record, PredictionTable]] = {}
    timed = {} if fit_seconds is None else {"fit": fit_seconds}
    for place, template in places.items():
        _, k, s = place
        record = record_of(template, tables[k], s, about, given.probabilities, timed)
        entries[cell_name(place, name, sha)] = record, tables[k]
    whole = merge(replace(t, ids=[f"{i}#{k}" for i in t.ids]) for k, t in tables.items())
    result = Imported(list(entries), folder, whole.uar(), len(given.ids), _notes(given, whole))
    old = taken(folder, plan, name, places, sha, overwrite)
    if dry_run:
        return result
    put(folder, plan, entries, old)
    return result


def put(
    folder: Path,
    plan: SuiteRecord,
    entries: Mapping[str, tuple[Record, PredictionTable]],
    old: Collection[str],
) -> None:
    """Write cells into a comparison, and their names into its plan.

    Args:
        folder: folder of the comparison.
        plan: its ``suite.json``.
        entries: record and test predictions of each new cell, by its name.
        old: cells that the new ones replace; see :func:`taken`.
    """
    from .pool import lock

    with lock(folder):
        for cell, (entry, table) in entries.items():
            table.write_jsonl(folder / "cells" / cell / PREDICTIONS)
            write_record(folder / "cells" / cell, entry)
        gone = [c for c in old if c not in entries]
        kept = [c for c in plan.cells if c not in gone and c not in entries]
        write_plan(folder, replace(plan, cells=[*kept, *entries]))
        for cell in gone:
            shutil.rmtree(folder / "cells" / cell, ignore_errors=True)


def cell_name(place: Place, name: str, sha: str) -> str:
    """Return the folder name of an added row's cell.

    Args:
        place: its table, fold and seed.
        name: name of the row.
        sha: digest of the predictions.
    """
    group, fold, seed = place
    slug = re.sub(r"[^\w.-]+", "_", "-".join(group)).strip("_")
    return f"{slug}-{name}-f{fold}-s{seed}-{sha[:6]}"


def check_name(name: str) -> None:
    """Check the name of an added row, which becomes part of file names.

    Raises:
        ConfigError: if it has other characters than letters, digits and ``._+-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise ConfigError(f"name is '{name}'; give letters, digits and . _ + - only")


def imported(folder: Path) -> list[str]:
    """Return the names of a comparison's imported cells, which its next call keeps."""
    try:
        names = read_plan(folder).cells
    except ComparisonError:  # there is none, or it is damaged
        return []
    return [n for n in names if _is_imported(folder / "cells" / n)]


def _is_imported(cell: Path) -> bool:
    try:
        return (read_record(cell) or Record()).imported is not None
    except DataError:
        return False


def record_of(
    template: Run,
    table: PredictionTable,
    seed: int,
    about: Mapping[str, Any],
    probabilities: bool,
    seconds: Mapping[str, float],
) -> Record:
    """Return the record of an added row's cell.

    Args:
        template: a finished cell of the same table and fold.
        table: the test predictions.
        seed: seed of the cell.
        about: the record's ``imported``; ``name`` is the name of the row.
        probabilities: whether the scores are log-probabilities.
        seconds: known times, as ``fit``.
    """
    from ..statistics.speakers import measure

    source = template.record
    searched = source.search
    numbers = measure(table)
    unknown = CALIBRATED if probabilities else (*CALIBRATED, *CONFIDENCE)
    numbers["metrics"] |= dict.fromkeys(unknown)
    head = {"head": {"type": "imported"}, "head_name": about["name"]}
    return written(
        status="ok",
        # the template's, for its corpus, protocol and fold; the rest does not hold for the toolkit
        config={**source.config, **head, "seed": seed},
        selection={"rule": source.selection["rule"], "val/uar": None, "epoch": None},
        **source.pick(OF_TABLE),
        search={k: searched[k] for k in BUDGET if k in searched} if searched else None,
        imported=dict(about),
        probabilities=probabilities,
        parameters=None,
        seconds={"total": 0.0, **seconds},
        inference_seconds_per_utterance=None,
        **numbers,
        **environment(),
    )


def _notes(given: Foreign, whole: PredictionTable) -> list[str]:
    notes = []
    if not given.probabilities:
        notes.append("no probabilities: the row has no calibration")
    known = whole.labelled
    if known.any() and np.array_equal(whole.predicted[known], whole.labels[known]):
        notes.append("every answer is right: is the label column the reference?")
    return notes


# the settings of `serzoo compare import SUITE FILE name=NAME`
COLUMNS = {"fold_column": "fold", **{k: k for k in ("id", "label", "prefix", "id_prefix")}}
REMEDIES = {
    "overwrite": "have true, false",
    **dict.fromkeys(("fold", "seed"), "give a whole number"),
    "fit_seconds": "give a number",
}


def import_rows(arguments: Sequence[str], *, out: str = "runs", dry_run: bool = False) -> Imported:
    """Run `serzoo compare import`: check predictions, write cells, tabulate, and print.

    Args:
        arguments: see :func:`import_settings`.
        out: folder of all runs.
        dry_run: only check.

    Returns:
        What was imported.

    Raises:
        ConfigError: if a setting is missing, unknown or wrong.
        ComparisonError: see :func:`import_predictions`.
        DataError: see :func:`import_predictions`.
    """
    suite, file, given = import_settings(arguments)
    done = import_predictions(suite, file, **given, out=out, dry_run=dry_run)
    would = "would be written" if dry_run else "written"
    print(
        f"{Path(file).name}: UAR {done.uar:.3f} on {counted(done.utterances, 'utterance')}; "
        f"{counted(len(done.cells), 'cell')} {would} in {done.folder}"
    )
    for note in done.notes:
        print(f"  {note}")
    if not dry_run:
        report(done.folder)
    return done


def import_settings(arguments: Sequence[str]) -> tuple[str, str, dict[str, Any]]:
    """Read the arguments of `serzoo compare import`.

    Args:
        arguments: suite, file, and settings: keywords of :func:`import_predictions`; ``id``,
            ``label``, ``prefix``, ``fold_column`` and ``id_prefix`` (see :class:`Columns`);
            ``class.THEIRS=OURS``; ``where.KEY=VALUE``.

    Returns:
        Suite, file, and keywords of :func:`import_predictions`.

    Raises:
        ConfigError: if an argument is missing, unknown or of a wrong type.
    """
    plain = [a for a in arguments if "=" not in a or Path(a).is_file()]
    if len(plain) != 2:
        raise ConfigError(
            f"give `serzoo compare import SUITE FILE name=NAME`; found {len(plain)} of SUITE and "
            f"FILE ({', '.join(plain) or 'none'})"
        )
    typed = [a for a in arguments if a not in plain]
    others = ("where", "columns", "dry_run", "out")
    types = {k: kind for k, kind in types_of(import_predictions).items() if k not in others}
    values: dict[str, Any] = {}
    columns: dict[str, str] = {}
    groups: dict[str, dict[str, str]] = {"class": {}, "where": {}}
    for key, value in parse(typed, {key: types.get(key, str) for key, _ in words(typed)}):
        group, dot, name = key.partition(".")
        if dot and group in groups:
            groups[group][name] = value or ""
        elif key in COLUMNS:
            columns[COLUMNS[key]] = value or ""
        elif key in types:
            values[key] = value
        else:
            known = (*types, *COLUMNS, "class.THEIRS", "where.KEY")
            raise ConfigError(f"unknown setting '{key}'{suggest(key, known)}")
    for key, remedy in REMEDIES.items():
        if key in values and not registry.fits(values[key], types[key]):
            raise ConfigError(f"{key} is '{values[key]}'; {remedy}")
    if "name" not in values:
        raise ConfigError("the row has no name; add name=NAME")
    values |= {"where": groups["where"]} if groups["where"] else {}
    return plain[0], plain[1], {**values, "columns": Columns(**columns, rename=groups["class"])}
