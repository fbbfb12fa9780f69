"""A suite in four files: every record, prediction and attribute of its cells, without loss.

    suite.json         the plan, byte for byte as the comparison wrote it
    records.jsonl.xz   JSON lines: the version, then each utterance, then each cell with its record
    predictions.npz    the scores of all cells, one after the other, and their rows of utterances
    SHA256SUMS         checksums of the three; ``sha256sum -c SHA256SUMS`` checks them, too

Thousands of small files make a clone slow. Records of cells are much alike, so they shrink
thirtyfold when they are compressed together. :func:`pack` makes the files from a folder of cells,
and :func:`unpack` makes the folder again. Packing the same suite twice gives the same bytes.
Reading needs numpy and the standard library, and no pickle.

Lines of ``records.jsonl.xz``:

    {"packed": 2}
    {"id": ..., "speaker": ..., "label": ..., "about": {"gender": ..., ...}}    an utterance
    {"cell": ..., "record": {...}, "classes": [...], "order": 0, "texts": [...], "votes": [...],
     "valid": {"classes": [...], "order": 1}}

``valid`` is the validation part. Suites of version 1 have none.

Arrays of ``predictions.npz``:

- ``scores`` (float32): for each cell its N utterances times C classes, then its validation part.
- ``rows`` (int32): numbers of utterances.
- ``order_ends`` (int64): where each order ends in ``rows``.

Cells of one fold have their utterances in the same order. An order is kept once, and a cell names
its number.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.files import new_folder, write_json
from ..run.record import (
    PLAN,
    RECORD,
    UTTERANCES,
    VALID,
    Record,
    read_attributes,
    read_plan,
    read_record,
    write_attributes,
)
from ..statistics.table import PredictionTable

VERSION = 2
PREDICTIONS = "predictions.jsonl"
RECORDS = "records.jsonl.xz"
ARRAYS = "predictions.npz"
SUMS = "SHA256SUMS"
CONTENT = (PLAN, RECORDS, ARRAYS)
TYPES = {"scores": np.float32, "rows": np.int32, "order_ends": np.int64}
STAMP = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip: the bytes do not depend on the clock
UNIX = 3  # the system that the zip names; otherwise it would differ on Windows
REMEDY = "restore it from git, or pack the suite again"

Content = dict[str, Any]  # the content of a record.json


@dataclass(frozen=True)
class Packed:
    """The content of a packed suite.

    Attributes:
        folder: the folder of the files.
        cells: the line of each ended cell by its name, in the order of the plan.
        utterances: the line of each utterance.
        arrays: ``scores``, ``rows`` and ``order_ends``.
        starts: index in ``scores`` at which each cell begins.
    """

    folder: Path
    cells: dict[str, dict[str, Any]]
    utterances: list[dict[str, Any]]
    arrays: dict[str, NDArray[Any]]
    starts: dict[str, int]

    def record(self, name: str) -> Record | None:
        """Return the record of a cell; None if the cell has not ended.

        Raises:
            DataError: if it is damaged, or newer than this serzoo.
        """
        line = self.cells.get(name)
        if line is None:
            return None
        return Record.from_json(line["record"], f"{self.folder / RECORDS}, {name}", REMEDY)

    def table(self, name: str) -> PredictionTable:
        """Return the test predictions of a cell.

        Raises:
            DataError: if the cell has none.
        """
        line = self.cells.get(name, {})
        if "classes" not in line:
            raise DataError(f"{self.folder / ARRAYS} holds no predictions of {name}; {REMEDY}")
        return self._part(name, line, self.starts[name])

    def validation(self, name: str) -> PredictionTable | None:
        """Return the validation predictions of a cell; None if none were packed."""
        line = self.cells.get(name, {}).get("valid")
        return None if line is None else self._part(name, line, self.starts[f"{name}/{VALID}"])

    def _part(self, name: str, line: Mapping[str, Any], start: int) -> PredictionTable:
        classes = [str(c) for c in line["classes"]]
        where = {c: i for i, c in enumerate(classes)} | {None: -1}
        rows = [self.utterances[i] for i in self._order(line["order"])]
        if strange := {row["label"] for row in rows} - set(where):
            raise DataError(
                f"{self.folder / RECORDS}: an utterance of {name} is labelled '{strange.pop()}', "
                f"but its classes are {', '.join(classes)}; {REMEDY}"
            )
        scores = self.arrays["scores"][start : start + len(rows) * len(classes)]
        return PredictionTable(
            [row["id"] for row in rows],
            [row["speaker"] for row in rows],
            np.array([where[row["label"]] for row in rows]),
            scores.reshape(len(rows), len(classes)).astype(np.float64),
            classes,
            line.get("texts"),
            None if "votes" not in line else np.array(line["votes"], dtype=np.float64),
        )

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Return gender, language and seconds by the id of an utterance, if they were kept."""
        return {u["id"]: dict(u["about"]) for u in self.utterances if "about" in u}

    def _order(self, number: int) -> list[int]:
        ends = self.arrays["order_ends"]
        start = int(ends[number - 1]) if number else 0
        found: list[int] = self.arrays["rows"][start : int(ends[number])].tolist()
        return found


def is_packed(folder: Path) -> bool:
    """Return whether a folder has at least one file of a packed suite."""
    return any((folder / name).is_file() for name in (RECORDS, ARRAYS, SUMS))


def open_packed(folder: Path) -> Packed | None:
    """Read and check a packed suite; None if the folder holds none.

    Raises:
        DataError: if a file is missing, damaged or of another version. Also if the folder holds
            the suite in both forms.
    """
    if not is_packed(folder):
        return None
    if (folder / "cells").is_dir():
        raise DataError(
            f"{folder} holds a packed suite and also a folder of cells; two forms of one suite "
            f"may differ: move the cells away, or remove {RECORDS}, {ARRAYS} and {SUMS}"
        )
    content = _checked(folder)
    utterances, cells = _lines(folder / RECORDS, content[RECORDS])
    arrays = _arrays(folder / ARRAYS, content[ARRAYS])
    return Packed(folder, cells, utterances, arrays, _starts(folder, cells, utterances, arrays))


def cell_readers(
    folder: Path,
) -> tuple[Callable[[str], Record | None], Callable[[str], PredictionTable]]:
    """Return functions from a cell's name to its record, and to its test predictions.

    They read cells or a packed suite.

    Raises:
        DataError: if a packed suite is damaged. The functions raise it if a cell's file is.
    """
    packed, cells = open_packed(folder), folder / "cells"
    if packed is None:
        return (lambda name: read_record(cells / name)), (lambda name: read_table(cells / name))
    return packed.record, packed.table


def record_reader(folder: Path) -> Callable[[str], Record | None]:
    """Return the first of :func:`cell_readers`."""
    return cell_readers(folder)[0]


def validation_reader(folder: Path) -> Callable[[str], PredictionTable | None]:
    """Return a function from a cell's name to its validation predictions, or None without any.

    Raises:
        DataError: if a packed suite is damaged. The function raises it if a cell's file is.
    """
    packed = open_packed(folder)
    if packed is not None:
        return packed.validation
    return lambda name: _table(folder / "cells" / name, VALID)


def pack(source: Path, target: Path, clean: Callable[[Content], Content] = dict) -> Path:
    """Write the packed form of a suite's folder of cells; it appears whole or not at all.

    Records, predictions and attributes of the cells that the plan names are kept. Checkpoints, logs
    and what a report wrote are not.

    Args:
        source: folder with ``suite.json`` and ``cells``.
        target: another folder; packed files that lie in it are replaced.
        clean: function from a record, or the plan, to the one that is kept.

    Raises:
        DataError: if a cell cannot be read, the source is packed, or the target holds cells.
        ComparisonError: if the source has no plan.
    """
    if (target / "cells").is_dir():
        raise DataError(
            f"{target} holds a folder of cells, and a packed suite may not lie beside one; "
            "name another folder to pack into"
        )
    if is_packed(source):
        raise DataError(f"{source} is packed already; unpack it first, or copy its files")
    names = read_plan(source).cells
    packed = _Packing(read_attributes(source, names))
    for name in names:
        cell = source / "cells" / name
        record = read_record(cell)
        if record is not None:
            packed.add(name, clean(record.to_json()), _table(cell), _table(cell, VALID))
    plan = clean(json.loads((source / PLAN).read_bytes()))
    text = f"{json.dumps(plan, indent=1, ensure_ascii=False)}\n".encode()
    with new_folder(target, (*CONTENT, SUMS)) as draft:
        sums = ""
        for file, data in zip(CONTENT, (text, packed.lines(), packed.arrays()), strict=True):
            (draft / file).write_bytes(data)
            sums += f"{hashlib.sha256(data).hexdigest()}  {file}\n"
        (draft / SUMS).write_text(sums, "utf-8")
    return target


def unpack(source: Path, target: Path) -> Path:
    """Write a packed suite as a folder of cells; it appears whole or not at all.

    A cell gets ``record.json``, ``predictions.jsonl.gz`` and, if it was packed, ``valid.jsonl``.
    The suite gets ``suite.json`` and, if attributes were kept, ``utterances.jsonl``.

    Raises:
        DataError: if the source is not a packed suite or is damaged, or the target is not empty.
    """
    packed = open_packed(source)
    if packed is None:
        raise DataError(f"no packed suite in {source}; it needs {', '.join((*CONTENT, SUMS))}")
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"{target} is not empty; name a folder that is, or a new one")
    with new_folder(target, ()) as draft:
        (draft / PLAN).write_bytes((source / PLAN).read_bytes())
        for name, line in packed.cells.items():
            cell = draft / "cells" / name
            write_json(cell / RECORD, line["record"])
            if "classes" in line:
                plain = packed.table(name).write_jsonl(cell / PREDICTIONS)
                data = gzip.compress(plain.read_bytes(), mtime=0)
                (cell / f"{PREDICTIONS}.gz").write_bytes(data)
                plain.unlink()
            if (valid := packed.validation(name)) is not None:
                valid.write_jsonl(cell / VALID)
        if known := packed.attributes():
            write_attributes(draft / UTTERANCES, known)
    return target


def read_table(folder: Path) -> PredictionTable:
    """Read the predictions of a cell's own folder, compressed or not."""
    return _read(folder / PREDICTIONS)


def _read(path: Path) -> PredictionTable:
    if not path.exists() and (compressed := path.with_name(f"{path.name}.gz")).exists():
        path = compressed
    return PredictionTable.read_jsonl(path)


def _table(cell: Path, name: str = PREDICTIONS) -> PredictionTable | None:
    """Read the predictions of a cell; None if it has none, because it failed, for instance."""
    there = any((cell / f"{name}{end}").is_file() for end in ("", ".gz"))
    return _read(cell / name) if there else None


class _Packing:
    """The lines and arrays of a suite, as its cells are added."""

    def __init__(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        self.known = dict(known)
        self.utterances: dict[tuple[str, str, str | None], int] = {}
        self.orders: dict[tuple[int, ...], int] = {}
        self.cells: list[dict[str, Any]] = []
        self.scores: list[NDArray[np.float32]] = []

    def add(
        self,
        name: str,
        record: Content,
        table: PredictionTable | None,
        valid: PredictionTable | None,
    ) -> None:
        line: dict[str, Any] = {"cell": name, "record": record}
        line |= {} if table is None else self._part(table)
        line |= {} if valid is None else {"valid": self._part(valid)}
        self.cells.append(line)

    def _part(self, table: PredictionTable) -> dict[str, Any]:
        labels = [table.classes[i] if i >= 0 else None for i in table.labels.tolist()]
        keys = zip(table.ids, table.speakers, labels, strict=True)
        order = tuple(self.utterances.setdefault(k, len(self.utterances)) for k in keys)
        line: dict[str, Any] = {"classes": table.classes}
        line["order"] = self.orders.setdefault(order, len(self.orders))
        line |= {} if table.texts is None else {"texts": table.texts}
        line |= {} if table.votes is None else {"votes": table.votes.tolist()}
        # a table's scores have six digits, so float32 loses nothing
        self.scores.append(table.scores.astype(np.float32).ravel())
        return line

    def lines(self) -> bytes:
        rows: list[dict[str, Any]] = [{"packed": VERSION}]
        known = dict(self.known)  # an id with two labels has its attributes once
        for (
            name,
            speaker,
            label,
        ) in self.utterances:
            about = {"about": dict(known.pop(name))} if name in known else {}
            rows.append({"id": name, "speaker": speaker, "label": label, **about})
        rows += [{"id": name, "about": dict(about)} for name, about in sorted(known.items())]
        text = "".join(
            json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
            for row in [*rows, *self.cells]
        )
        return lzma.compress(text.encode("utf-8"), preset=6 | lzma.PRESET_EXTREME)

    def arrays(self) -> bytes:
        nothing = np.zeros(0, dtype=np.float32)
        arrays = {
            "scores": np.concatenate([nothing, *self.scores]),
            "rows": np.array([i for order in self.orders for i in order], dtype=np.int32),
            "order_ends": np.cumsum([len(order) for order in self.orders], dtype=np.int64),
        }
        file = io.BytesIO()
        # numpy.savez puts the time of day into its file, and deflate does less for scores than xz
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, array, allow_pickle=False)
                info = zipfile.ZipInfo(f"{name}.npy", STAMP)
                info.compress_type, info.create_system = zipfile.ZIP_LZMA, UNIX
                archive.writestr(info, member.getvalue())
        return file.getvalue()


def _checked(folder: Path) -> dict[str, bytes]:
    """Read the files, and check them against their checksums."""
    sums: dict[str, str] = {}
    for line in _bytes(folder / SUMS).decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    if set(sums) != set(CONTENT):
        raise DataError(
            f"{folder / SUMS} names {', '.join(sorted(sums)) or 'nothing'}; a packed suite has "
            f"{', '.join(CONTENT)}: {REMEDY}"
        )
    content = {name: _bytes(folder / name) for name in CONTENT}
    for name, data in content.items():
        if (found := hashlib.sha256(data).hexdigest()) != sums[name]:
            raise DataError(
                f"{folder / name} is damaged: its SHA-256 is {found[:12]}..., and {SUMS} says "
                f"{sums[name][:12]}...; {REMEDY}"
            )
    return content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path} of a packed suite ({error.strerror or error}); {REMEDY}"
        ) from error


def _lines(path: Path, data: bytes) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the utterances, and the cells by their name."""
    try:
        rows = [json.loads(line) for line in lzma.decompress(data).decode("utf-8").split("\n")[:-1]]
        version = rows[0]["packed"]
    except (lzma.LZMAError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is not a packed suite ({error}); {REMEDY}") from error
    if version not in (1, VERSION):
        raise DataError(
            f"{path} is of version {version}, and this serzoo reads versions 1 and {VERSION}; use "
            "the serzoo that wrote it"
        )
    for number, row in enumerate(rows[1:], 2):
        if not (_is_cell(row) if isinstance(row, dict) and "cell" in row else _is_utterance(row)):
            raise DataError(
                f"{path}, line {number} is neither a cell nor an utterance: "
                f"{str(row)[:80]!r}; {REMEDY}"
            )
    return [row for row in rows if "id" in row], {row["cell"]: row for row in rows if "cell" in row}


def _is_cell(row: dict[str, Any]) -> bool:
    name, classes = row["cell"], row.get("classes", [])
    # a name becomes a folder when the suite is unpacked, and may not lead out of the suite's
    plain = isinstance(name, str) and name not in ("", "..") and Path(name).name == name
    if not plain or not isinstance(row.get("record"), dict) or not isinstance(classes, list):
        return False
    valid = row.get("valid")
    right = not classes or _is_part(row)
    return right and (valid is None or (isinstance(valid, dict) and _is_part(valid)))


def _is_part(row: dict[str, Any]) -> bool:
    lists = (row.get("classes"), row.get("texts", []), row.get("votes", []))
    return type(row.get("order")) is int and all(isinstance(x, list) for x in lists)


def _is_utterance(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        return False
    said = "speaker" not in row or (
        isinstance(row["speaker"], str) and isinstance(row.get("label"), str | None)
    )
    return said and isinstance(row.get("about", {}), dict)


def _arrays(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in TYPES}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {REMEDY}") from error
    for name, array in found.items():
        if array.dtype != TYPES[name] or array.ndim != 1:
            raise DataError(
                f"{path}: {name} is {array.dtype} of {array.ndim} axes, but must be "
                f"{np.dtype(TYPES[name])} of one axis; {REMEDY}"
            )
    return found


def _starts(
    folder: Path,
    cells: Mapping[str, Mapping[str, Any]],
    utterances: Iterable[Mapping[str, Any]],
    arrays: Mapping[str, NDArray[Any]],
) -> dict[str, int]:
    """Return where the scores of each cell and of its ``CELL/valid.jsonl`` begin.

    Raises:
        DataError: if the lines and the arrays do not fit.
    """
    lengths = np.diff(arrays["order_ends"], prepend=0)
    rows, heard = arrays["rows"], sum("speaker" in u for u in utterances)
    fits = not rows.size or 0 <= int(rows.min()) <= int(rows.max()) < heard
    fits = fits and bool((lengths >= 0).all()) and int(lengths.sum()) == rows.size
    starts, at = {}, 0
    parts: dict[str, Mapping[str, Any]] = {}
    for name, line in cells.items():
        parts |= {name: line} if "classes" in line else {}
        parts |= {f"{name}/{VALID}": line["valid"]} if line.get("valid") else {}
    for name, line in parts.items():
        fits = fits and 0 <= line["order"] < len(lengths)
        starts[name] = at
        at += int(lengths[line["order"]]) * len(line["classes"]) if fits else 0
    if not fits or at != arrays["scores"].size:
        raise DataError(f"{folder}: {RECORDS} and {ARRAYS} belong to different suites; {REMEDY}")
    return starts
