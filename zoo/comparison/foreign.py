"""Predictions of another toolkit, as it writes them: CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, suggest
from ..statistics.rates import FloatArray
from ..text import json_lines, read_text

SUFFIXES = (".csv", ".tsv", ".jsonl")
SCALES = ("auto", "probabilities", "logits", "ranks")
SUM = 1e-3  # how far a row of probabilities may be from 1
SMALLEST = 1e-6  # a probability of 0 has no logarithm; so small a one costs 14 nats


@dataclass(frozen=True)
class Columns:
    """Where things are in a file.

    Attributes:
        id: column of the utterance ids.
        label: column of the predicted labels, which is read where there are no scores.
        fold: column of the folds; None = an id tells its fold.
        prefix: of the columns of scores: ``prob_`` for ``prob_angry``.
        id_prefix: put before each id: ``ravdess/`` where files have no corpus.
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
    """What a file says about N utterances.

    Attributes:
        ids: N, as they stand there, maybe more than once.
        folds: N numbers, or None.
        scores: ``[N, C]`` in the order of the classes; log-probabilities where ``scale`` is
            ``probabilities`` or ``logits``.
        scale: ``probabilities``, ``logits``, ``ranks``, or ``labels``: then a score is 1 for the
            class that was named and 0 for the others, and says nothing about confidence.
    """

    ids: list[str]
    folds: list[int] | None
    scores: FloatArray
    scale: str

    @property
    def probabilities(self) -> bool:
        """Whether confidence can be read from the scores."""
        return self.scale in ("probabilities", "logits")


def read(
    path: Path, classes: Sequence[str], columns: Columns = PLAIN, scale: str = "auto"
) -> Foreign:
    """Read a file of predictions.

    Scores are a column per class, or (JSON lines) an object ``scores``; where there are any, the
    label column is not looked at: in many files it is the reference. Otherwise it is the answer.

    Args:
        path: ``.csv``, ``.tsv`` or ``.jsonl``.
        classes: of the taxonomy.
        columns: where things are.
        scale: what scores are. ``auto`` takes rows that are between 0 and 1 and sum to 1 for
            probabilities and refuses others. ``ranks`` (margins, votes) order the classes only.

    Raises:
        DataError: saying which lines, columns, labels or ids cannot be used, with counts.
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
        told = ", ".join(f"'{label}' ({n})" for label, n in unknown.most_common(5))
        raise DataError(
            f"{path}: {unknown.total()} labels are no classes of the taxonomy: {told}; it has "
            f"{', '.join(classes)}. Map names with class.THEIRS=OURS"
        )
    one_hot = np.eye(len(classes))[[list(classes).index(label) for label in labels]]
    return Foreign(ids, folds, one_hot, "labels")


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: predictions are read from {', '.join(SUFFIXES)} files")
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
    # not splitlines: it also breaks at characters that stand within a cell
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in _told(reader, path):
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {reader.line_num}: not as many cells as the header has; was the "
                "file cut off, or is it separated by something else?"
            )
        rows.append({str(k).strip(): str(v).strip() for k, v in row.items()})
    return rows


def _told(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, Any]]:
    """The rows; what is no table is told with its line."""
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
            raise DataError(f"{path}: scores of '{ids[i]}' are {found!r}, not {{class: number}}")
        if missing := [k for k in keys if k not in found]:
            raise DataError(
                f"{path}: '{ids[i]}' has no score of {', '.join(missing)} (it has "
                f"{', '.join(map(str, found))}); every class needs one. Map names with "
                "class.THEIRS=OURS"
            )
        surplus = [k for k in found if k not in keys] if "scores" in row else []
        if surplus:
            raise DataError(
                f"{path}: '{ids[i]}' has scores of {', '.join(surplus)}, which the taxonomy has "
                "not; leave them out and let the others sum to 1, or map names with "
                "class.THEIRS=OURS"
            )
        try:
            values[i] = [float(found[k]) for k in keys]
        except (TypeError, ValueError):
            bad = next(f"{k}={found[k]!r}" for k in keys if not _is_number(found[k]))
            raise DataError(f"{path}: a score of '{ids[i]}' is no number: {bad}") from None
    bad_rows = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad_rows):
        raise DataError(
            f"{path}: scores of {len(bad_rows)} of {len(ids)} utterances are not finite "
            f"({some(ids[int(i)] for i in bad_rows)}); the toolkit diverged, or left cells empty"
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
    """Log-probabilities where the scores are probabilities; else as they are."""
    if scale in ("logits", "ranks"):
        return values, scale
    bad = np.flatnonzero(
        (np.abs(values.sum(1) - 1) > SUM) | (values < 0).any(1) | (values > 1 + SUM).any(1)
    )
    if len(bad):
        row = int(bad[0])
        first = ", ".join(f"{v:g}" for v in values[row])
        raise DataError(
            f"{path}: scores of {len(bad)} of {len(ids)} utterances are no probabilities (first: "
            f"{ids[row]}: {first}); say scores=logits if softmax makes them such, or "
            "scores=ranks if they only order the classes"
        )
    return np.log(np.maximum(values, SMALLEST)), "probabilities"


def some(names: Iterable[str], n: int = 5) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f", ... {len(listed) - n} more" if len(listed) > n else ""
    return ", ".join(listed[:n]) + more
