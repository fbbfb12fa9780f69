"""A feature store on disk: shards of rows, each with its index, in a folder that says what it is.

``<cache>/features/<digest>/`` holds

- ``store.json``: what the rows are, in words and as the encoder's ``extraction()``;
- ``<name>.bin``: the values of many rows, one behind the other, little-endian, nothing else;
- ``<name>.json``: the index of that shard: key, shape and seconds of speech of each row;
- ``<name>.claim`` and ``.lock``: see ``claims.py``.

A shard is written under another name, reaches the disk, is measured, takes its name; then its index
does the same. So an index tells of a whole shard, and a shard without an index, or of another size
than its index says, is never read. No pickle, and no torch: the command line lists stores fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..zoo.errors import DataWarning

FORMAT = 1  # raise when the layout changes: older stores are then left alone, and not read
DTYPES = {"float32": "<f4", "bfloat16": "<u2"}  # NumPy has no bfloat16; its bits are kept
ABOUT = (
    "hidden states of a frozen speech encoder, made by serzoo; each .bin holds rows [K, T, D] "
    "(layers, frames, width) one behind the other, and the .json of the same name their keys; "
    "`serzoo cache clear` removes it, and what is needed is computed again"
)

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """Where an utterance's features lie.

    Attributes:
        shard: name of the shard.
        start: of its values, counted in values.
        shape: ``(K, T, D)``.
        seconds: of speech.
    """

    shard: str
    start: int
    shape: tuple[int, int, int]
    seconds: float

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def digest(extraction: dict[str, Any]) -> str:
    """16 hexadecimal digits that name the store of an extraction, and of this layout."""
    text = json.dumps([FORMAT, extraction], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Shards:
    """The shards of one store, as far as this process has looked.

    Args:
        folder: of the store; need not exist yet.
        dtype: of the values: ``float32`` or ``bfloat16``.
    """

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        self.folder, self.dtype = folder, np.dtype(DTYPES[dtype])
        self.rows: dict[str, Row] = {}
        self._seen: dict[str, bool] = {}  # index to whether it was believed

    def refresh(self) -> None:
        """Read the indexes that are new; needs no lock."""
        for name in _names(self.folder, ".json") - self._seen.keys() - {"store"}:
            rows = _read_index(self.folder, name, self.dtype.itemsize)
            self._seen[name] = rows is not None
            self.rows.update(rows or {})

    def sweep(self, living: set[str]) -> None:
        """Remove what nobody will complete; only under the store's lock.

        Args:
            living: names of shards that a living process is writing.
        """
        self.refresh()
        whole = {name for name, good in self._seen.items() if good} | living
        broken = [name for name, good in self._seen.items() if not good]
        for name in broken:
            warnings.warn(
                f"shard {name} of the feature store {self.folder} was damaged and is removed; its "
                "features are computed again",
                DataWarning,
                stacklevel=2,
            )
            del self._seen[name]
        for suffix in (".json", ".bin", ".part"):
            for name in _names(self.folder, suffix) - whole - {"store"}:
                _remove(self.folder, name)

    def write(self, name: str, rows: Sequence[tuple[str, Values, float]]) -> None:
        """Write a shard; it is believed from the moment when its index has its name.

        Args:
            name: of the shard, not in use.
            rows: key, values ``[K, T, D]`` and seconds of speech of each.

        Raises:
            OSError: when it could not be written; nothing of it is left then.
        """
        values = [np.ascontiguousarray(v, self.dtype) for _, v, _ in rows]
        size = sum(v.nbytes for v in values)
        index = {
            "format": FORMAT,
            "bytes": size,
            "keys": [key for key, _, _ in rows],
            "shapes": [v.shape for v in values],
            "seconds": [round(seconds, 4) for _, _, seconds in rows],
        }
        try:
            _write(self.folder / f"{name}.bin", (v.data.cast("B") for v in values), size)
            text = json.dumps(index).encode()
            _write(self.folder / f"{name}.json", [text], len(text))
        except BaseException:
            _remove(self.folder, name)
            raise
        self.refresh()

    def data(self, name: str) -> Path:
        """The file of a shard's values."""
        return self.folder / f"{name}.bin"

    def describe(self, facts: dict[str, Any]) -> None:
        """Write ``store.json`` where there is none, or a damaged one; only under the lock."""
        path = self.folder / "store.json"
        try:
            known = facts.keys() <= dict(json.loads(path.read_bytes())).keys()
        except (OSError, ValueError, TypeError):
            known = False
        if not known:
            text = json.dumps({"about": ABOUT, "format": FORMAT, **facts}, indent=1).encode()
            _write(path, [text], len(text))

    def touch(self) -> None:
        """Remember that the store is in use today, for its user's housekeeping."""
        with contextlib.suppress(OSError):  # it may be shared and read-only
            os.utime(self.folder / "store.json")


def _names(folder: Path, suffix: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {e.name.partition(".")[0] for e in entries if e.name.endswith(suffix)}
    except FileNotFoundError:
        return set()


def _read_index(folder: Path, name: str, itemsize: int) -> dict[str, Row] | None:
    """The rows of a shard; None when it is not to be believed."""
    rows: dict[str, Row] = {}
    start = 0
    try:
        index = json.loads((folder / f"{name}.json").read_bytes())
        if index["format"] != FORMAT:
            return None
        for key, shape, seconds in zip(
            index["keys"], index["shapes"], index["seconds"], strict=True
        ):
            k, t, d = shape
            rows[key] = Row(name, start, (int(k), int(t), int(d)), float(seconds))
            start += rows[key].size
        size = (folder / f"{name}.bin").stat().st_size
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return rows if size == index["bytes"] == start * itemsize else None


def _write(path: Path, parts: Iterable[bytes | memoryview], size: int) -> None:
    """A file that is whole and on the disk before it has its name."""
    draft = path.with_name(f"{path.stem}{path.suffix}.part")
    with draft.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if draft.stat().st_size != size:
        raise OSError(f"{draft} has {draft.stat().st_size} bytes after writing {size}")
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the name, too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove(folder: Path, name: str) -> None:
    """A shard, its index first: what stays behind is not believed."""
    for suffix in (".json", ".json.part", ".bin", ".bin.part"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
