"""A table of your own: any column names, one row per utterance, with commas or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path, PurePosixPath

from ...zoo.core.errors import DataError, some, suggest
from ...zoo.core.files import OLD, decode
from ..audio import SUFFIXES
from ..layout import GENDERS, inside_root, is_missing, known_speaker, one_spelling
from ..manifest import Utterance
from ..ratings import count_votes, majority, mean_and_spread
from . import note
from .folder import NO_SPEAKERS

VERSION = 3
DELIMITERS = ",\t;|"
FACTS = ("gender", "language", "session", "valence", "arousal", "dominance")
"""Fields that may be "unknown" in words: ``nan``, ``N/A``."""

JUDGED = ("label", "valence", "arousal", "dominance")
"""Fields in which the rows of several raters may differ."""

MEANT = re.compile("label|emo|class|categ|affect|mood|sentiment|feeling|target", re.IGNORECASE)
"""Matches names of columns that may hold the label."""

SEVERAL = re.compile(r"[|;,{\[]")
"""Matches characters between or around several labels in one cell."""

_QUOTES = "put a cell that holds a quote in quotes, and write the quote in it twice"


@dataclass(frozen=True, slots=True)
class _Row:
    """The cells of one row, by field, without empty cells."""

    cells: dict[str, str]
    labels: dict[str, str]
    table: str
    line: int
    columns: list[str]

    @property
    def where(self) -> str:
        """The table and the line, for messages."""
        return f"{self.table}, line {self.line}"

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
    rater: str | None = None,
    labels: list[str] | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the utterances of a table.

    An option names the column of a field. Without the option, a column with the field's own name
    is used, in upper or lower case. An empty cell means "unknown". So does a word of
    :data:`.layout.MISSING`, such as ``nan`` or ``N/A``, except as a path, id, text or time. Labels
    that differ only in case or blanks are one label. The delimiter is comma, tab, semicolon or bar.
    A line ``sep=;`` above the header states it, as Excel writes. Otherwise it is the one that
    divides the first line best. The text is UTF-8, UTF-16 or Windows-1252.

    Args:
        root: the folder to which the paths in the table are relative.
        table: the file, relative to root; needed if root holds several csv or tsv files.
        audio: column of the path of the audio file.
        label: column of the label.
        speaker: column of the speaker. Without one all speakers are unknown. A cell means "unknown"
            if it is empty, ``unknown``, or one of :data:`..layout.MISSING`. A warning counts these.
        text: column of the transcript, written by a person.
        gender: column of the gender: ``female``/``f``/``w`` or ``male``/``m``, in any case.
        language: column of the ISO 639-1 code.
        session: column of the recording session.
        start: column of the start of a segment, in seconds.
        end: column of the end of a segment, in seconds.
        id: column of a unique name; without it, the path, and the segment if there is one.
        valence: column of the rated valence.
        arousal: column of the rated arousal.
        dominance: column of the rated dominance.
        rater: column of the person who gave the label. Rows of one recording then become one
            utterance with votes, and its label is that of most raters.
        labels: further columns to keep in ``Utterance.labels``.
        scale: lowest and highest rating of the three dimensions, mapped to 0..1.
        rename: maps a word in the label column to its label; for numbers, ``0`` equals ``0.0``.

    Raises:
        DataError: if the folder, the table or a column does not exist. Also if a cell is not
            allowed for its field. The message names the columns found, or the line.
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
        "rater": rater,
    }
    if not scale[0] < scale[1]:
        raise DataError(f"scale={list(scale)}; give the lowest rating, then the highest")
    rows, fields = _read(path, named, labels or [])
    _tell_labels(path, rows, fields, label)
    words = _labels(rows, rename or {})
    _unknown(rows)
    rated = _ratings(path, rows, root, id, "rater" in fields)
    if "speaker" not in fields:
        columns = ", ".join(sorted(fields.values()))
        remedy = f"name the column by options.speaker=COLUMN (columns: {columns})"
        note("csv: " + NO_SPEAKERS.format(n=len(rated), remedy=remedy))
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
    several = "rater" in fields or len(rated) < len(rows)
    split: list[str] = []
    for group in rated:
        one = [_utterance(row, root, scale, words, genders) for row in group]
        yield _merged(group, one, split) if several else one[0]
    if split:
        note(
            f"csv: {len(split)} of {len(rated)} recordings have two labels with as many votes "
            f"(first: {split[0]}); they have no label, and are left out of training and testing"
        )
    if genders:
        found = ", ".join(f"'{g}' ({n})" for g, n in genders.items())
        note(f"csv: gender {found} is kept as unknown; known: female, f, w, male, m")


def _utterance(
    row: _Row,
    root: Path,
    scale: tuple[float, float],
    words: Mapping[str, str | None],
    genders: Counter[str],
) -> Utterance:
    cells = row.cells
    if "audio" not in cells:
        raise DataError(f"{row.where}: no audio path; fill it in, or delete the row")
    audio = _relative(cells["audio"], root, row.where)
    gender = GENDERS.get(cells.get("gender", "").lower())
    if gender is None and "gender" in cells:
        genders[cells["gender"]] += 1
    return Utterance(
        id=f"csv/{_name(cells, audio)}",
        corpus="csv",
        audio=audio,
        start=row.number("start", 0.0),
        end=row.number("end", nan),
        sample_rate=0,
        speaker=_speaker(cells),
        session=cells.get("session"),
        gender=gender,
        language=cells.get("language"),
        label=words.get(cells["label"]) if "label" in cells else None,
        labels=row.labels,
        dims=_dims(row, *scale),
        text=cells.get("text"),
        text_source="human" if "text" in cells else None,
    )


def _speaker(cells: dict[str, str]) -> str | None:
    """Return the name in a row's cells, or None if it is unknown."""
    return known_speaker(cells.get("speaker"))


def _name(cells: Mapping[str, str], audio: str) -> str:
    """Return the id of a row: the one in the table, or its path and segment."""
    segment = f"#{cells.get('start', '0')}-{cells.get('end', '')}"
    stem = PurePosixPath(audio).with_suffix("").as_posix()
    return cells.get("id", stem + (segment if {"start", "end"} & set(cells) else ""))


def _labels(rows: list[_Row], rename: Mapping[str, str]) -> dict[str, str | None]:
    """Map each word in the label column to its label.

    The other columns of labels are replaced in place.
    """
    words, clauses = one_spelling((r.cells.get("label") for r in rows), rename, missing=True)
    for clause in clauses:
        note(f"csv: label: {clause}")
    for column in dict.fromkeys(c for row in rows for c in row.labels):
        found, clauses = one_spelling((r.labels.get(column) for r in rows), {}, missing=True)
        for clause in clauses:
            note(f"csv: {column}: {clause}")
        for row in rows:
            if (label := found.get(row.labels.pop(column, ""))) is not None:
                row.labels[column] = label
    return words


def _tell_labels(
    path: Path, rows: list[_Row], fields: Mapping[str, str], label: str | None
) -> None:
    """Write notes on unexpected content of the label column."""
    if "label" not in fields and label is None:
        columns = [name for name in rows[0].columns if name not in fields.values()]
        close = [name for name in columns if MEANT.search(name)]
        note(
            f"csv: {path.name} has no column 'label', so no row is labelled; if a column holds "
            f"the labels, name it with options.label={close[0] if close else 'COLUMN'} (columns: "
            f"{', '.join(rows[0].columns)})"
        )
    odd = [row for row in rows if SEVERAL.search(row.cells.get("label", ""))]
    if odd:
        note(
            f"csv: {len(odd)} of {len(rows)} labels look like several in one cell (first: "
            f"{odd[0].where}: '{odd[0].cells['label']}') and are read as one word each; an "
            "utterance has one label: write the one that most raters gave"
        )


def _unknown(rows: list[_Row]) -> None:
    """Remove words for "unknown" from the facts, and count them."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for field in FACTS:
            if is_missing(row.cells.get(field, "")):
                found[field][row.cells.pop(field)] += 1
    for field, words in found.items():
        listed = ", ".join(f"'{word}' ({n})" for word, n in words.most_common())
        note(f"csv: {field}: {listed} are read as unknown")


def _ratings(
    path: Path, rows: list[_Row], root: Path, id: str | None, raters: bool
) -> list[list[_Row]]:
    """Return the rows of each recording: one, or the ratings of several people.

    Raises:
        DataError: if rows with one id are different recordings, contradict each other in other
            facts than ratings, or are copies. Also if one person rated a recording twice.
    """
    by_id: dict[str, list[_Row]] = {}
    for row in rows:
        name = row.where
        if "audio" in row.cells:
            name = _name(row.cells, _relative(row.cells["audio"], root, row.where))
        by_id.setdefault(name, []).append(row)
    twice = {name: same for name, same in by_id.items() if len(same) > 1}
    if not twice:
        return list(by_id.values())
    name, same = next(iter(twice.items()))
    lines = some([row.line for row in same], 4)
    what = f"{path.name}: {len(twice)} ids occur more than once (first: {name}, lines {lines}"
    if len({row.cells["audio"] for row in same}) > 1:
        raise DataError(
            f"{what}, which are different recordings); ids must be unique, but those of "
            f"options.id={id or 'id'} are not: leave it out, or name another column"
        )
    judged = [[{k: r.cells.get(k) for k in JUDGED} for r in same] for same in twice.values()]
    if not raters and all(one == many[0] for many in judged for one in many):
        raise DataError(
            f"{what}): the rows of a recording say the same, so they are copies; keep one row of "
            "each, or name the column of the people who rated them: options.rater=COLUMN. If they "
            "are parts of it, give their start and end"
        )
    for same in twice.values():
        first = same[0]
        for row in same[1:]:
            for field in sorted({*first.cells, *row.cells} - {*JUDGED, "rater"}):
                if row.cells.get(field) != first.cells.get(field):
                    raise DataError(
                        f"{row.where}: {field} is '{row.cells.get(field, '')}', but line "
                        f"{first.line} of the same recording has '{first.cells.get(field, '')}'; "
                        "rows of several raters may differ in their ratings only"
                    )
        named = Counter(row.cells["rater"] for row in same if "rater" in row.cells)
        if (again := next((who for who, n in named.items() if n > 1), None)) is not None:
            which = [row.line for row in same if row.cells.get("rater") == again]
            raise DataError(
                f"{path.name}, lines {some(which, 4)}: rater '{again}' rates one recording "
                f"{len(which)} times; keep one of these rows"
            )
    if not raters:
        note(
            f"csv: {len(twice)} of {len(by_id)} recordings have several rows, which are taken as "
            f"votes of several raters (first: {name}, lines {lines}); name the raters in "
            "options.rater=COLUMN"
        )
    return list(by_id.values())


def _merged(rows: list[_Row], found: list[Utterance], split: list[str]) -> Utterance:
    """Return the utterance that several people rated; ids without a majority go to ``split``."""
    said = [[u.label] if u.label is not None else [] for u in found]
    votes = count_votes(said)
    label = majority(votes)
    if label is None and votes:
        split.append(found[0].id)
    named = {
        row.cells["rater"]: u.label
        for row, u in zip(rows, found, strict=True)
        if "rater" in row.cells and u.label is not None
    }
    dims, spread = mean_and_spread([u.dims for u in found if u.dims is not None])
    labels = {
        column: best
        for column in dict.fromkeys(c for u in found for c in u.labels)
        if (best := majority(Counter(u.labels[column] for u in found if column in u.labels)))
    }
    return replace(
        found[0],
        label=label,
        labels=labels,
        votes=votes,
        raters=named,
        dims=dims,
        dims_spread=spread,
        label_source="perceived",
    )


def _dims(
    row: _Row, low: float, high: float
) -> tuple[float | None, float | None, float | None] | None:
    values = []
    for field in ("valence", "arousal", "dominance"):
        value = row.number(field, nan)
        if value < low or value > high:
            raise DataError(
                f"{row.where}: {field} is {value:g}, outside scale={[low, high]}; give the scale "
                "of the ratings"
            )
        values.append(None if value != value else (value - low) / (high - low))
    return (values[0], values[1], values[2]) if any(v is not None for v in values) else None


def _relative(audio: str, root: Path, where: str) -> str:
    return inside_root(audio, root, where, "set root= to a folder above it")


def _table(root: Path, table: str | None) -> Path:
    if not root.is_dir():
        if root.exists():
            raise DataError(f"root={root} is a file; give its folder, and the file as table=")
        raise DataError(
            f"root={root} does not exist; give the folder that the paths in the table start from"
        )
    if table is not None:
        if not (root / table).is_file():
            raise DataError(f"no table at {root / table}; give table= as a path below root=")
        return root / table
    files = (p.name for p in root.iterdir() if p.suffix.lower() in (".csv", ".tsv"))
    found = sorted(name for name in files if name[0] != ".")
    if len(found) != 1:
        listed = f" ({', '.join(found)})" if found else ""
        raise DataError(
            f"{root} holds {len(found)} csv and tsv files{listed}; name one with options.table="
        )
    return root / found[0]


def _read(
    path: Path, named: Mapping[str, str | None], labels: list[str]
) -> tuple[list[_Row], dict[str, str]]:
    """Return the rows, and the column of each field that has one."""
    text, encoding = decode(path.read_bytes(), path, old=True, remedy="save it as CSV in UTF-8")
    if encoding == OLD:
        _tell_old(path, text)
    text, skipped, delimiter = _start(text, named)
    # not splitlines: it also splits at control characters within a cell, which some tables have
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begun = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        fields = {field: column for field, column in named.items() if column is not None}
        for field in named:
            if field not in fields and _columns(header, field):
                fields[field] = field
        fields.setdefault("audio", "audio")
        position = {
            column: _position(path, header, column, option)
            for option, column in [*fields.items(), *(("labels", c) for c in labels)]
        }
        rows = []
        begun = reader.line_num + 1
        for cells in reader:
            begun = reader.line_num + 1
            line = reader.line_num + skipped
            if not any(cell.strip() for cell in cells):
                continue
            surplus = cells[len(header) :]
            if len(cells) < len(header) or any(cell.strip() for cell in surplus):
                raise DataError(
                    f"{path.name}, line {line}: {len(cells)} cells, but the header has "
                    f"{len(header)}; put quotes around cells that hold the delimiter, and complete "
                    "short rows"
                )
            values = {f: cells[position[c]].strip() for f, c in fields.items()}
            extra = {c: cells[position[c]].strip() for c in labels}
            rows.append(
                _Row(
                    {f: v for f, v in values.items() if v},
                    {c: v for c, v in extra.items() if v},
                    path.name,
                    line,
                    header,
                )
            )
    except csv.Error as error:
        line = begun + skipped  # first line of the row: a quote may stay open to the end
        raise DataError(f"{path.name}, line {line}: cannot be read ({error}); {_QUOTES}") from None
    if not rows:
        raise DataError(
            f"{path} has no rows below its header; write one row for each utterance, with the "
            f"columns {', '.join(header)}"
        )
    return rows, fields


def _start(text: str, named: Mapping[str, str | None]) -> tuple[str, int, str]:
    """Return the text from its header on, the number of lines above it, and the delimiter."""
    skipped = 0
    lines = io.StringIO(text, newline="")  # splits lines as the reader of cells does
    wanted = {(column or field).casefold() for field, column in named.items()}
    stated = None
    while line := lines.readline():
        if stated is None and (given := re.fullmatch(r'\s*"?sep=(.)"?\s*', line, re.IGNORECASE)):
            stated, skipped = given[1], skipped + 1  # by Excel
            continue
        after = lines.tell()
        following = lines.readline()
        lines.seek(after)
        delimiter = stated or _delimiter(line, wanted)
        comment = line.startswith("#") and len(_cells(line, delimiter)) != len(
            _cells(following, stated or _delimiter(following, wanted))
        )
        if line.strip() and not comment:
            return line + lines.read(), skipped, delimiter
        skipped += 1
    return "", 0, ","


def _delimiter(line: str, wanted: set[str]) -> str:
    """Return the delimiter that gives the most wanted columns, or otherwise the most columns."""

    def found(delimiter: str) -> tuple[int, int]:
        cells = _cells(line, delimiter)
        return len({cell.strip().casefold() for cell in cells} & wanted), len(cells)

    return max(DELIMITERS, key=found)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _columns(header: list[str], column: str) -> list[int]:
    """Return the positions of a column: those with its exact name, otherwise in any case."""
    exact = [i for i, name in enumerate(header) if name == column]
    return exact or [i for i, name in enumerate(header) if name.casefold() == column.casefold()]


def _position(path: Path, header: list[str], column: str, option: str) -> int:
    found = _columns(header, column)
    if len(found) > 1:
        raise DataError(
            f"{path.name} has {len(found)} columns '{column}' ({option}=); rename all but one"
        )
    if found:
        return found[0]
    if any(name.lower().endswith(tuple(SUFFIXES)) for name in header):
        remedy = "; its first line is a row: put names of columns above it: audio,label,speaker"
    elif len(header) == 1 and len(header[0].split()) > 1:
        remedy = "; its columns are separated by blanks: separate them with commas or tabs"
    else:
        remedy = f"; name the column with options.{option}=COLUMN"
    raise DataError(
        f"{path.name} has no column '{column}' ({option}=){suggest(column, header)}{remedy}"
    )


def _tell_old(path: Path, text: str) -> None:
    lines = io.StringIO(text, newline="")
    number, line = next((i, x) for i, x in enumerate(lines, 1) if not x.isascii())
    odd = next(word for word in re.split(rf"[\s{DELIMITERS}]+", line) if not word.isascii())
    note(
        f"csv: {path.name} is not UTF-8 and is read as Windows-1252 (first: line {number}: "
        f"'{odd}'); if that looks wrong, save it as UTF-8"
    )
