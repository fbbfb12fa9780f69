"""Hugging Face ``datasets``: a saved folder, parquet files, or ``AudioFolder`` with metadata.

Audio that is embedded in parquet or arrow files is read from there (:mod:`..archives`). Integers of
a ``ClassLabel`` become its names. No script of a data set is run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path, PurePosixPath
from typing import Any

from ...zoo.core.errors import ConfigError, DataError, first_line, some
from ...zoo.core.files import json_lines, read_json, read_text
from .. import archives
from ..audio import SUFFIXES
from ..corpora import find_files, note, utterance
from ..manifest import Utterance
from . import SPLITS, Columns, Given, Paths, finish, part_of, takes_columns

VERSION = 1
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""What ``AudioFolder`` calls its tables."""

FETCHED = tuple(f"*{s}" for s in (".parquet", ".arrow", ".json", ".jsonl", ".csv", *SUFFIXES))
"""What is fetched from the hub; no code and no pickle."""

REMEDY = "save the data set again, or download it again"
SPEAKER = "name the column with options.speaker=COLUMN"


@dataclass(frozen=True)
class _Row:
    where: str
    name: str
    audio: Any
    split: str | None
    cells: dict[str, Any]


@takes_columns("column")
def prepare(
    root: Path,
    *,
    hub: str | None = None,
    revision: str | None = None,
    audio: str | None = None,
    id: str | None = None,
    split: str | None = None,
    given: Given,
    strip: str | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the rows of a data set.

    The split is kept as ``labels["split"]``. It is that of the column, of the saved folder, or of
    the file's name (``train-00000-of-00001.parquet``).

    Args:
        root: the saved folder, a folder of parquet files, or one with ``metadata.csv`` or
            ``metadata.jsonl`` beside the audio. With ``hub``, where the data set is put.
        hub: name of a data set on the hub, ``OWNER/NAME``; it is fetched into the root.
        revision: branch, tag or commit of the hub's data set.
        audio: column of the audio; by default the only one of type ``Audio``, or ``file_name``.
        id: column of a unique name; by default file and row.
        split: column of the part.
        given: the options of :func:`takes_columns`, which name label, speaker and so on.
        strip: beginning of the paths to take away.
        rename: maps a label to another one.

    Raises:
        DataError: if there is no data set, a file is damaged, or a row has no audio. The message
            names file and row.
        ConfigError: if the hub's data set cannot be fetched.
    """
    if hub is not None:
        _fetch(hub, revision, root)
    if not root.is_dir():
        raise DataError(f"root={root} is not a folder; give that of the data set")
    tables = _tables(root)
    if tables:
        known = list(dict.fromkeys(c for t, _ in tables for c in archives.columns(t)))
        columns = given.find("huggingface", known, split=split)
        rows = _table_rows(root, tables, audio, id, columns)
    else:
        rows, known = _metadata_rows(root, audio or "file_name")
        columns = given.find("huggingface", known, split=split)
    paths, found = Paths(root, strip), []
    for row in rows:
        facts = columns.facts(row.cells, row.where)
        if row.split is not None:
            facts["labels"].setdefault("split", row.split)
        name = row.name
        if id is not None:
            name = str(row.cells.get(id) or "")
            if not name:
                raise DataError(f"{row.where}: no {id}; leave options.id out, or complete it")
        place = paths.below(row.audio, row.where)
        found.append(
            utterance(
                "huggingface",
                root / place,
                root,
                id=f"huggingface/{name}",
                end=nan,
                **facts,
            )
        )
    yield from finish("huggingface", found, rename, SPEAKER)


# The hub.


def _fetch(hub: str, revision: str | None, root: Path) -> None:
    """Put the files of a data set into the root; those that are there are not fetched again."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            hub,
            repo_type="dataset",
            revision=revision,
            local_dir=root,
            allow_patterns=list(FETCHED),
        )
    except Exception as error:  # the client raises errors of four libraries
        raise ConfigError(
            f"hub={hub}: the data set cannot be fetched ({first_line(error)}); check the name and "
            "the connection. Without a connection: download it elsewhere, put it into root=, and "
            "leave hub= out"
        ) from None


# Tables with embedded audio.


def _tables(root: Path) -> list[tuple[Path, str | None]]:
    """Return the parquet and arrow files of a data set, each with its part."""
    if (root / "dataset_dict.json").is_file():
        parts = read_json(root / "dataset_dict.json", remedy=REMEDY).get("splits")
        if not isinstance(parts, list) or not all(isinstance(p, str) for p in parts):
            raise DataError(f"{root / 'dataset_dict.json'}: splits is {parts!r}; {REMEDY}")
        return [(f, SPLITS.get(p, p)) for p in parts for f in _saved(root / p)]
    if (root / "state.json").is_file():
        return [(file, None) for file in _saved(root)]
    files = [p for p in find_files(root, (".parquet",)) if p.name not in METADATA]
    return [(p, part_of(p.relative_to(root))) for p in files]


def _saved(folder: Path) -> list[Path]:
    """Return the arrow files of a saved data set, in its order."""
    state = folder / "state.json"
    if not state.is_file():
        raise DataError(f"huggingface: no state.json in {folder}; {REMEDY}")
    listed = read_json(state, remedy=REMEDY).get("_data_files")
    names = [d.get("filename") for d in listed] if isinstance(listed, list) else []
    absent = [n for n in names if not isinstance(n, str) or not (folder / n).is_file()]
    if absent or not names:
        raise DataError(
            f"{state}: {some(map(str, absent)) or 'no data file'} is not in the folder; {REMEDY}"
        )
    return [folder / str(n) for n in names]


def _features(table: Path) -> dict[str, Any]:
    """Return the features that ``datasets`` wrote into a table: column to type."""
    stored = (archives.schema(table).metadata or {}).get(b"huggingface")
    try:
        found = json.loads(stored or b"{}")["info"]["features"] if stored else {}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{table}: its features cannot be read; {REMEDY}") from None
    return dict(found)


def _table_rows(
    root: Path,
    tables: list[tuple[Path, str | None]],
    audio: str | None,
    id: str | None,
    columns: Columns,
) -> list[_Row]:
    rows: list[_Row] = []
    bare: set[str] = set()
    for table, part in tables:
        features, have = _features(table), archives.columns(table)
        sound = audio or _sound(table, features, have)
        if sound not in have:
            raise DataError(
                f"{table.name}: no column '{sound}' (audio=), but {', '.join(have)}; name the "
                "column of the audio in options.audio"
            )
        wanted = [*columns.names.values(), *columns.labels, *([id] if id else [])]
        cells = archives.read_columns(table, [c for c in dict.fromkeys(wanted) if c in have])
        for column, values in cells.items():
            names = _names(features.get(column))
            if names is not None:
                cells[column] = [_named(v, names, table, column, i) for i, v in enumerate(values)]
            elif column == columns.names.get("label") and any(type(v) is int for v in values):
                bare.add(column)
        inner = archives.embedded(table, sound)
        outer = [] if inner else _paths(table, sound)
        where = table.relative_to(root).as_posix()
        for i in range(archives.rows_of(table)):
            row = {column: values[i] for column, values in cells.items()}
            place = f"{where}/{sound}/{i}" if inner else outer[i]
            name = f"{PurePosixPath(where).with_suffix('').as_posix()}#{i}"
            rows.append(_Row(f"{where}, row {i}", name, place, part, row))
    for column in sorted(bare):
        note(
            f"huggingface: the labels in '{column}' are numbers without names; name them, such as "
            "options.rename={0: angry, 1: happy}"
        )
    return rows


def _sound(table: Path, features: Mapping[str, Any], have: list[str]) -> str:
    typed = [c for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "Audio"]
    typed = typed or [c for c in ("audio", "wav", "file") if c in have]
    if len(typed) != 1:
        raise DataError(
            f"{table.name}: {len(typed)} columns hold audio ({some(typed) or some(have)}); name "
            "one in options.audio"
        )
    return typed[0]


def _names(feature: Any) -> list[str] | None:
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return names if isinstance(names, list) else None
    return None


def _named(value: Any, names: list[str], table: Path, column: str, row: int) -> str | None:
    if value is None or value == -1:  # datasets' mark for "no label"
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise DataError(
            f"{table.name}, row {row}: {column} is {value!r}, but its ClassLabel has "
            f"{len(names)} names ({some(names)}); {REMEDY}"
        )
    return names[value]


def _paths(table: Path, sound: str) -> list[Any]:
    """Return the paths of audio that is not embedded."""
    kind = archives.schema(table).field(sound).type
    nested = hasattr(kind, "num_fields") and kind.num_fields > 0
    column = f"{sound}.path" if nested else sound
    return archives.read_columns(table, [column])[column]


# AudioFolder: a table beside the audio.


def _metadata_rows(root: Path, audio: str) -> tuple[list[_Row], list[str]]:
    found = sorted(
        p for p in find_files(root, (".csv", ".jsonl", ".parquet")) if p.name in METADATA
    )
    if not found:
        raise DataError(
            f"huggingface: no data set in {root}; expected a saved folder (state.json), parquet "
            f"files, or {' or '.join(METADATA)} beside the audio. Folders that are labels are read "
            "by corpus=folder"
        )
    rows: list[_Row] = []
    known: dict[str, None] = {}
    for table in found:
        folder = table.parent.relative_to(root)
        part = part_of(folder / "x") if folder.parts else None
        for where, cells in _cells(table):
            name = cells.get(audio)
            if not isinstance(name, str) or not name:
                raise DataError(
                    f"{where}: no {audio}; AudioFolder needs it, or name the column of the path in "
                    "options.audio"
                )
            place = (PurePosixPath(folder.as_posix()) / name).as_posix()
            known.update(dict.fromkeys(cells))
            stem = PurePosixPath(place).with_suffix("").as_posix()
            rows.append(_Row(where, stem, place, part, cells))
    return rows, list(known)


def _cells(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and line, and the cells, of each row of a metadata table."""
    if table.suffix == ".jsonl":
        for n, row in json_lines(table, remedy=REMEDY):
            yield f"{table.name}, line {n}", row
        return
    if table.suffix == ".parquet":
        columns = archives.read_columns(table, archives.columns(table))
        for i in range(archives.rows_of(table)):
            yield f"{table.name}, row {i}", {c: values[i] for c, values in columns.items()}
        return
    reader = csv.reader(io.StringIO(read_text(table, old=True), newline=""), strict=True)
    begun = 1
    try:
        header = next(reader, [])
        begun = reader.line_num + 1
        for cells in reader:
            where = f"{table.name}, line {begun}"
            begun = reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} cells, but the header has {len(header)}; put quotes "
                    "around cells that hold a comma, and complete short rows"
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:  # a quote may stay open to the end
        raise DataError(f"{table.name}, line {begun}: cannot be read ({error}); {REMEDY}") from None
