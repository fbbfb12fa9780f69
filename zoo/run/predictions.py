"""Rows of predictions, in memory and as CSV or JSONL."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, overload

from ..core.errors import ConfigError, DataError, counted
from ..core.files import new_file
from ..core.notices import shown
from ..core.table import pandas
from . import annotate

FORMATS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """The prediction of a window of a recording, or an error.

    Attributes:
        file: name of the recording.
        start: seconds into it.
        end: seconds into it.
        label: the likeliest class.
        probs: class to probability.
        calibrated: whether the probabilities were scaled by a temperature fitted on validation.
        text: text that the head wrote freely, if it writes.
        error: why there is no prediction: for the recording, for its rest from ``start``, or from
            ``start`` to ``end``.
        channel: the channel, counted from 1, if each is a recording of its own.
    """

    file: str
    start: float | None = None
    end: float | None = None
    label: str | None = None
    probs: dict[str, float] = field(default_factory=dict)
    calibrated: bool = False
    text: str | None = None
    error: str | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Columns:
    r"""How rows are written: all rows of a model have the same columns.

    These are ``file, [channel,] start, end, label, p_<class> ..., calibrated, [text,] error``.
    Seconds have three decimals, and probabilities six. Bytes of a name that are not UTF-8 are
    written as ``\xNN``.

    Attributes:
        classes: the classes, in the model's order.
        text: whether the head writes freely.
        channel: whether each channel is a recording of its own.
    """

    classes: Sequence[str]
    text: bool = False
    channel: bool = False

    def row(self, row: Row) -> dict[str, Any]:
        """Return a row as plain values, column to value; None for a missing value."""
        values: dict[str, Any] = {"file": shown(row.file)}
        if self.channel:
            values["channel"] = row.channel
        values["start"] = None if row.start is None else round(row.start, 3)
        values["end"] = None if row.end is None else round(row.end, 3)
        values["label"] = row.label
        for name in self.classes:
            values[f"p_{name}"] = round(row.probs[name], 6) if row.probs else None
        values["calibrated"] = row.calibrated if row.probs else None
        if self.text:
            values["text"] = row.text
        values["error"] = None if row.error is None else shown(row.error)
        return values

    def write(self, rows: Iterable[Row], file: IO[str], suffix: str) -> Iterator[Row]:
        """Write each row when it comes, and yield it.

        Args:
            rows: any number of rows.
            file: opened with ``newline=""``.
            suffix: ``.csv`` or ``.jsonl``.
        """
        if suffix == ".jsonl":
            for row in rows:
                file.write(json.dumps(self.row(row), ensure_ascii=False) + "\n")
                file.flush()
                yield row
            return
        names = list(self.row(Row("")))
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: _cell(v) for k, v in self.row(row).items()})
            file.flush()
            yield row


class Predictions(Sequence[Row]):
    """All rows of a prediction, in the order of the inputs.

    Args:
        rows: the rows.
        columns: how they are written.
    """

    def __init__(self, rows: Iterable[Row], columns: Columns) -> None:
        self.rows, self.columns = list(rows), columns

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Row | Predictions:
        if isinstance(index, slice):
            return Predictions(self.rows[index], self.columns)
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def errors(self) -> list[Row]:
        """The rows that have an error instead of a prediction."""
        return [row for row in self.rows if row.error is not None]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain values; see :meth:`Columns.row`."""
        return [self.columns.row(row) for row in self.rows]

    def to_csv(self, path: str | Path) -> Path:
        """Write the rows as CSV, and return the path."""
        return self._write(Path(path), ".csv")

    def to_jsonl(self, path: str | Path) -> Path:
        """Write the rows as one JSON object per line, and return the path."""
        return self._write(Path(path), ".jsonl")

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``; see :meth:`Columns.row`.

        Raises:
            ConfigError: if pandas is not installed.
        """
        frame = pandas().DataFrame
        return frame(self.to_dicts(), columns=list(self.columns.row(Row(""))))

    def to_textgrid(self, folder: str | Path) -> list[Path]:
        """Write a TextGrid of Praat for each recording, and return the folder.

        Raises:
            DataError: if no window was predicted.
        """
        from .timeline import TextGrids

        if len(self.errors) == len(self.rows):
            raise DataError("no window was predicted for a TextGrid; see the errors of the rows")
        return TextGrids(folder, []).write(self.rows, self.columns.classes, {})

    def to_label_studio(self, path: str | Path) -> list[Path]:
        """Write tasks of Label Studio, and the labelling configuration beside them."""
        return annotate.write_label_studio(self.rows, path, self.columns.classes)

    def to_audformat(self, folder: str | Path) -> Path:
        """Write a database of audformat, and return its header; see :mod:`.annotate`."""
        return annotate.write_audformat(self.rows, folder, self.columns.classes)

    def _write(self, path: Path, suffix: str) -> Path:
        with new_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
            for _ in self.columns.write(self.rows, file, suffix):
                pass
        return path

    def __repr__(self) -> str:
        files = len({row.file for row in self.rows})
        kind = "calibrated" if any(row.calibrated for row in self.rows) else "not calibrated"
        lines = [
            f"Predictions: {counted(len(self.rows), 'row')} of {counted(files, 'recording')}, "
            f"{len(self.errors)} with errors; {', '.join(self.columns.classes)} ({kind})"
        ]
        for row in self.rows[:10]:
            where = "" if row.channel is None else f" channel {row.channel}"
            if row.start is not None and row.end is not None:
                where += f" {row.start:.2f}-{row.end:.2f} s"
            if row.error is not None:
                what = row.error
            else:
                what = f"{row.label} {row.probs[str(row.label)]:.2f}"
                what += f" {row.text!r}" if row.text is not None else ""
            lines.append(f"  {shown(f'{row.file}{where}: {what}')}")
        if len(self.rows) > 10:
            lines.append(f"  ... {len(self.rows) - 10} more")
        return "\n".join(lines)


def suffix_of(out: str | Path | None) -> str:
    """Return the ending of an output file; ``.csv`` without a file.

    Raises:
        ConfigError: if the name ends in neither format.
    """
    if out is None:
        return ".csv"
    suffix = Path(out).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"out is '{out}'; give a name that ends in {' or '.join(FORMATS)}, or --format "
            f"{'|'.join(annotate.FORMATS)}"
        )
    return suffix


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
