"""Audio inside archives: a path may go on inside a tar, a parquet or an arrow file.

``shard-0.tar/clip7.wav`` is a member of a tar. ``train.parquet/audio/17`` is the cell of row 17, in
the column ``audio``. Row numbers count from 0. Only the bytes of one recording are read; nothing is
unpacked to the disk. A parquet file is compressed in groups of rows, so its last groups are kept in
memory (:data:`KEPT`).
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

from ..zoo.core.errors import DataError

ARCHIVES = (".tar", ".parquet", ".arrow")
"""Suffixes of the archives, in lower case."""

KEPT = 2  # groups of rows in memory; a group of published audio is about 100 rows
_LOCK = Lock()  # several threads wait for one group of rows, instead of each reading it


def inside(path: str | Path) -> tuple[Path, str] | None:
    """Return the archive and the member that a path leads to; None for an ordinary path."""
    text = os.fspath(path).replace(os.sep, "/").lower()
    if not any(f"{suffix}/" in text for suffix in ARCHIVES):  # nearly always
        return None
    path = Path(path)
    for parent in path.parents:
        if parent.suffix.lower() in ARCHIVES and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def holds(path: str | Path) -> bool:
    """Return whether there is a file at a path, on the disk or inside an archive.

    It is called for each file of a corpus, and a text is faster than a :class:`~pathlib.Path`.

    Raises:
        DataError: if the archive cannot be read.
    """
    if os.path.isfile(path):
        return True
    found = inside(path)
    if found is None:
        return False
    archive, member = found
    if archive.suffix.lower() == ".tar":
        return member in members(archive)
    column, _, row = member.rpartition("/")
    return row.isdecimal() and column in columns(archive) and int(row) < rows_of(archive)


def facts(path: str | Path) -> os.stat_result:
    """Return size and times of a file, or those of the archive that holds it."""
    found = inside(path)
    return os.stat(path if found is None else found[0])


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading, on the disk or inside an archive.

    Raises:
        OSError: if there is no such file.
        DataError: if the archive cannot be read.
    """
    found = inside(path)
    return path.open("rb") if found is None else io.BytesIO(_read(*found))


def _read(archive: Path, member: str) -> bytes:
    if archive.suffix.lower() == ".tar":
        start, size = members(archive)[member]
        with archive.open("rb") as file:
            file.seek(start)
            return file.read(size)
    column, _, row = member.rpartition("/")
    cell = _cell(archive, column, int(row))
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        # an error of this row alone, so that the other rows can be used
        raise OSError(errno.EIO, f"row {row} has no bytes in the column '{column}'")
    return data


# Tar files, such as the shards of WebDataset.


def members(archive: Path) -> dict[str, tuple[int, int]]:
    """Return position and size, in bytes, of each file in a tar, in its order.

    Raises:
        DataError: if the tar is compressed, cut short or damaged.
    """
    stat = archive.stat()
    return _members(archive, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _members(archive: Path, size: int, mtime: int) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(archive, "r:") as tar:
            files = [m for m in tar if m.isfile()]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{archive} cannot be read as a tar ({error}); decompress it (gunzip, unzstd), or "
            "download it again"
        ) from None
    return {m.name.removeprefix("./"): (m.offset_data, m.size) for m in files}


# Tables with audio in a column: parquet, and the arrow files of saved data sets.


def columns(archive: Path) -> list[str]:
    """Return the names of the columns of a parquet or arrow file."""
    return list(schema(archive).names)


def schema(archive: Path) -> Any:
    """Return the ``pyarrow.Schema`` of a parquet or arrow file."""
    found = _table(archive)
    return found.schema_arrow if archive.suffix.lower() == ".parquet" else found.schema


def rows_of(archive: Path) -> int:
    """Return the number of rows of a parquet or arrow file."""
    found = _table(archive)
    return int(found.metadata.num_rows if archive.suffix.lower() == ".parquet" else found.num_rows)


def read_columns(archive: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Return whole columns of a parquet or arrow file, as lists; the others are not read.

    A nested field is named with a dot (``audio.path``); its list has the name ``audio.path``, too.
    """
    found = _table(archive)
    read: dict[str, list[Any]] = {}
    for name in wanted:
        top, _, field = name.partition(".")
        if archive.suffix.lower() == ".parquet":
            column = found.read(columns=[name]).column(0)
        else:
            column = found.column(top)
        if field and _is_struct(column.type):
            column = _field(column, field)
        read[name] = column.to_pylist()
    return read


def embedded(archive: Path, column: str) -> bool:
    """Return whether a column holds the bytes of audio, and not only paths to it."""
    import pyarrow.types

    kind = schema(archive).field(column).type
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return True
    if not _is_struct(kind) or "bytes" not in [kind.field(i).name for i in range(kind.num_fields)]:
        return False
    found = _table(archive)
    if archive.suffix.lower() != ".parquet":
        return bool(_field(found.column(column), "bytes").null_count < found.num_rows)
    for i in range(found.metadata.num_row_groups):
        group = found.metadata.row_group(i)
        for j in range(group.num_columns):
            one = group.column(j)
            if one.path_in_schema == f"{column}.bytes":
                empty = one.statistics and one.statistics.null_count
                if empty is None or empty < group.num_rows:
                    return True
    return False


def _is_struct(kind: Any) -> bool:
    import pyarrow.types

    return bool(pyarrow.types.is_struct(kind))


def _field(column: Any, field: str) -> Any:
    import pyarrow.compute

    return pyarrow.compute.struct_field(column, field)


def _table(archive: Path) -> Any:
    stat = archive.stat()
    return _opened(archive, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _opened(archive: Path, size: int, mtime: int) -> Any:
    """Return a ``ParquetFile``, or the ``Table`` of an arrow file, mapped into memory."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{archive} needs the package pyarrow; install it: pip install 'serzoo[datasets]'"
        ) from None
    try:
        if archive.suffix.lower() == ".parquet":
            return pyarrow.parquet.ParquetFile(archive, memory_map=True)
        source = pyarrow.memory_map(str(archive))
        try:
            return pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(source).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{archive} cannot be read as {archive.suffix[1:]} ({reason}); download it again, or "
            "save the data set again"
        ) from None


def _cell(archive: Path, column: str, row: int) -> Any:
    stat = archive.stat()
    found = _opened(archive, stat.st_size, stat.st_mtime_ns)
    if archive.suffix.lower() != ".parquet":
        return found.column(column)[row].as_py()
    starts = _starts(archive, stat.st_size, stat.st_mtime_ns)
    group = bisect_right(starts, row) - 1
    with _LOCK:
        cells = _group(archive, stat.st_size, stat.st_mtime_ns, column, group)
    return cells[row - starts[group]].as_py()


@lru_cache(maxsize=64)
def _starts(archive: Path, size: int, mtime: int) -> list[int]:
    """Return the first row of each group of rows."""
    facts = _opened(archive, size, mtime).metadata
    starts = [0]
    for i in range(facts.num_row_groups - 1):
        starts.append(starts[-1] + facts.row_group(i).num_rows)
    return starts


@lru_cache(maxsize=KEPT)
def _group(archive: Path, size: int, mtime: int, column: str, group: int) -> Any:
    import pyarrow

    try:
        return _opened(archive, size, mtime).read_row_group(group, columns=[column]).column(0)
    except (pyarrow.ArrowException, OSError) as error:
        raise OSError(errno.EIO, f"group {group} of its rows is damaged ({error})") from None
