"""A table of one's own: the user's column names, one row per utterance, comma- or tab-separated."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path, PurePosixPath

from ...zoo.errors import DataError, suggest
from ..manifest import Utterance, is_inside
from . import note
from .folder import NO_SPEAKERS, check_rename

DELIMITERS = ",\t;|"
NOBODY = ("unknown", "Unknown", "nan", "NaN", "None", "null", "N/A", "n/a", "<NA>", "?")
"""What tables write where nobody knows who speaks; no name of a person."""
_GENDERS = {
    **dict.fromkeys(("f", "female", "w", "woman"), "female"),
    **dict.fromkeys(("m", "male", "man"), "male"),
}


@dataclass(frozen=True)
class _Row:
    """Cells of one row, by field; empty cells are not in it."""

    cells: dict[str, str]
    labels: dict[str, str]
    where: str

    def number(self, field: str, default: float) -> float:
        if field not in self.cells:
            return default
        try:
            value = float(self.cells[field])
        except ValueError:
            value = nan
        if not isfinite(value):
            raise DataError(f"{self.where}: {field} is '{self.cells[field]}'; expected a number")
        return value


def prepare(
    root: Path,
    *,
    table: str | None = None,
    audio: str = "audio",
    label: str | None = None,
    speaker: str | None = None,
    text: str | None = None,
    gender: str | None = None,
    language: str | None = None,
    session: str | None = None,
    start: str | None = None,
    end: str | None = None,
    id: str | None = None,
    valence: str | None = None,
    arousal: str | None = None,
    dominance: str | None = None,
    labels: list[str] | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Utterances of a table.

    An option names the column that holds a field; where it is not given, a column of the field's
    own name is used, if there is one. An empty cell means "not known". The delimiter (comma, tab,
    semicolon or bar) is the commonest in the first line.

    Args:
        root: folder that the paths in the table are relative to.
        table: the file, relative to root; needed where root holds more than one csv or tsv file.
        audio: column of the path of the audio file.
        label: column of the label.
        speaker: column of the speaker. Without one, or where the cell is empty or one of
            :data:`NOBODY`, the speaker is unknown, which a warning tells.
        text: column of the transcript, written by a person.
        gender: column of the gender: ``female``/``f``/``w`` or ``male``/``m``, in any case.
        language: column of the ISO 639-1 code.
        session: column of the recording session.
        start: column of the start of a segment, in seconds.
        end: column of the end of a segment, in seconds.
        id: column of a name that is unique; without it, the path, and the segment where there is.
        valence: column of the rated valence.
        arousal: column of the rated arousal.
        dominance: column of the rated dominance.
        labels: further columns to keep in ``Utterance.labels``.
        scale: lowest and highest rating of the three dimensions, mapped to 0..1.
        rename: word in the label column to label, where they differ.

    Raises:
        DataError: no such folder, table or column (naming the columns found), or a cell that cannot
            be what its field needs (naming the line).
    """
    path = _table(root, table)
    named = {
        "audio": audio,
        "label": label,
        "speaker": speaker,
        "text": text,
        "gender": gender,
        "language": language,
        "session": session,
        "start": start,
        "end": end,
        "id": id,
        "valence": valence,
        "arousal": arousal,
        "dominance": dominance,
    }
    if not scale[0] < scale[1]:
        raise DataError(f"scale={list(scale)}; give the lowest rating, then the highest")
    rows, fields = _read(path, named, labels or [])
    check_rename(rename, (row.cells.get("label") for row in rows))
    if "speaker" not in fields:
        remedy = f"name the column with speaker=... (columns: {', '.join(sorted(fields.values()))})"
        note("csv: " + NO_SPEAKERS.format(n=len(rows), remedy=remedy))
    else:
        said = [r.cells.get("speaker", "") for r in rows if _speaker(r.cells) is None]
        if said:
            found = ", ".join(f"'{cell}' {n}" for cell, n in Counter(said).items())
            note(
                f"csv: the speaker of {len(said)} of {len(rows)} rows is unknown ({found}), so "
                "folds by speaker are refused (see data.unknown_speakers) and numbers have no "
                "interval; name them in the table"
            )
    genders: Counter[str] = Counter()
    for row in rows:
        yield _utterance(row, root, scale, rename or {}, genders)
    if genders:
        found = ", ".join(f"'{g}' ({n})" for g, n in genders.items())
        note(f"csv: gender {found} is kept as unknown; known: female, f, w, male, m")


def _utterance(
    row: _Row,
    root: Path,
    scale: tuple[float, float],
    rename: dict[str, str],
    genders: Counter[str],
) -> Utterance:
    cells = row.cells
    if "audio" not in cells:
        raise DataError(f"{row.where}: no audio path; delete the row or fill it in")
    audio = _relative(cells["audio"], root, row.where)
    stem = PurePosixPath(audio).with_suffix("").as_posix()
    segment = f"#{cells.get('start', '0')}-{cells.get('end', '')}"
    name = cells.get("id", stem + (segment if {"start", "end"} & set(cells) else ""))
    gender = _GENDERS.get(cells.get("gender", "").lower())
    if gender is None and "gender" in cells:
        genders[cells["gender"]] += 1
    label = cells.get("label")
    return Utterance(
        id=f"csv/{name}",
        corpus="csv",
        audio=audio,
        start=row.number("start", 0.0),
        end=row.number("end", nan),
        sample_rate=0,
        speaker=_speaker(cells),
        session=cells.get("session"),
        gender=gender,
        language=cells.get("language"),
        label=rename.get(label, label) if label is not None else None,
        labels=row.labels,
        dims=_dims(row, *scale),
        text=cells.get("text"),
        text_source="human" if "text" in cells else None,
    )


def _speaker(cells: dict[str, str]) -> str | None:
    """The name in a row's cells; None if nobody knows it."""
    name = cells.get("speaker", "")
    return None if not name or name in NOBODY else name


def _dims(
    row: _Row, low: float, high: float
) -> tuple[float | None, float | None, float | None] | None:
    values = []
    for field in ("valence", "arousal", "dominance"):
        value = row.number(field, nan)
        if value < low or value > high:
            raise DataError(
                f"{row.where}: {field} is {value:g}, outside scale={[low, high]}; give the scale "
                "that was rated on"
            )
        values.append(None if value != value else (value - low) / (high - low))
    return (values[0], values[1], values[2]) if any(v is not None for v in values) else None


def _relative(audio: str, root: Path, where: str) -> str:
    path = Path(audio)
    if path.is_absolute() and path.is_relative_to(root.resolve()):
        audio = path.relative_to(root.resolve()).as_posix()
    audio = PurePosixPath(audio.replace("\\", "/")).as_posix()
    if not is_inside(audio):
        raise DataError(
            f"{where}: '{audio}' is not below root={root}; set root= to a folder above it"
        )
    return audio


def _table(root: Path, table: str | None) -> Path:
    if not root.is_dir():
        if root.exists():
            raise DataError(f"root={root} is a file; give its folder, and the file as table=")
        raise DataError(
            f"root={root} does not exist; give the folder that the paths in the table start from"
        )
    if table is not None:
        if not (root / table).is_file():
            raise DataError(f"no table {root / table}; table= is relative to root=")
        return root / table
    found = sorted(p.name for p in root.iterdir() if p.suffix.lower() in (".csv", ".tsv"))
    if len(found) != 1:
        listed = f" ({', '.join(found)})" if found else ""
        raise DataError(
            f"{root} holds {len(found)} csv and tsv files{listed}; name one with table="
        )
    return root / found[0]


def _read(
    path: Path, named: dict[str, str | None], labels: list[str]
) -> tuple[list[_Row], dict[str, str]]:
    """Rows, and the column of each field that has one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = max(DELIMITERS, key=first.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        try:
            header = [name.strip() for name in next(reader, [])]
            position = {name: i for i, name in enumerate(header)}
            fields = {
                field: column if column is not None else field
                for field, column in named.items()
                if column is not None or field in position
            }
            for option, column in [*fields.items(), *(("labels", c) for c in labels)]:
                if column not in position:
                    raise DataError(
                        f"{path.name} has no column '{column}' ({option}=)"
                        f"{suggest(column, position)}"
                    )
                if header.count(column) > 1:
                    raise DataError(
                        f"{path.name} has {header.count(column)} columns '{column}' ({option}=); "
                        "rename all but one"
                    )
            rows = []
            for cells in reader:
                where = f"{path.name}, line {reader.line_num}"
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{where}: {len(cells)} cells where the header has {len(header)}; put "
                        "quotes around cells that hold the delimiter"
                    )
                values = {f: cells[position[c]].strip() for f, c in fields.items()}
                extra = {c: cells[position[c]].strip() for c in labels}
                rows.append(
                    _Row(
                        {f: v for f, v in values.items() if v},
                        {c: v for c, v in extra.items() if v},
                        where,
                    )
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); save it as UTF-8 csv or tsv"
            ) from None
    if not rows:
        raise DataError(f"{path} has no rows below its header; columns: {', '.join(header)}")
    return rows, fields
