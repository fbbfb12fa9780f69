"""A feature store on disk: a folder with shards of rows, and an index of each shard.

``<cache>/features/<digest>/`` holds

- ``store.json``: a description of the rows, in words and as the encoder's ``extraction()``;
- ``<name>.bin``: a shard, the values of many rows one after another, little-endian;
- ``<name>.json``: the index of the shard: key, shape and seconds of speech of each row;
- ``<name>.claim`` and ``.lock``: files to be locked, see below; with leases, also ``*.lease``.

A shard is written under another name, checked for its size, flushed to the disk, and renamed. Then
its index is written in the same way. So every index belongs to a complete shard. A shard without an
index, or of another size than its index says, is never read. This module does not import torch, so
that the command line lists stores fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import BaseFileLock, Timeout

from ..zoo.core import files
from ..zoo.core.errors import ConfigError, DataWarning

# Several processes fill one store together, and need only its files for this. A process takes the
# store's lock and reads which rows exist or are claimed. It claims a chunk of missing rows and
# frees the lock. Then it computes and writes the chunk. All processes are equal: workers of a
# comparison, ranks of one run, and other runs. A claim is a file on which its owner holds an
# advisory lock. The system frees this lock when the process ends in any way. So the claim of a
# killed process is invalid, and another process takes its chunk. Machines may share a disk on which
# they do not see each other's locks. There, locks are leases (``files.file_lock``).

POLL = 0.1  # seconds between two looks at the work of other processes


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context that holds the lock of a store's folder; a missing folder is made."""
    with contextlib.ExitStack() as held:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(files.locked(folder / ".lock"))
                break
            except FileNotFoundError:  # the store was removed while we waited, and its lock too
                continue
        yield


def claimed(folder: Path) -> dict[str, set[str]]:
    """Return the keys that living processes have claimed, by the name of the shard.

    Claims of dead processes are removed, so the caller must hold the store's lock.
    """
    living = {}
    paths = set(folder.glob("*.claim"))
    for path in [p for p in _WATCHED if p.parent == folder and p not in paths]:
        del _WATCHED[path]
    for path in paths:
        lock = _WATCHED.setdefault(path, files.file_lock(path))
        try:
            with lock.acquire(blocking=False):
                path.unlink(missing_ok=True)
        except Timeout:
            living[path.stem] = _keys(path)
    return living


_WATCHED: dict[Path, BaseFileLock] = {}
"""Locks of claims that were looked at. A lease runs out only for a lock that watches it."""


def _keys(path: Path) -> set[str]:
    """Return the keys of a living claim; none if it cannot be read, so they may be made twice."""
    try:
        return set(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return set()


class Claim:
    """Rows that this process is going to write; made while it holds the store's lock.

    Args:
        folder: folder of the store.
        keys: keys of the rows.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.name, self.keys = secrets.token_hex(8), list(keys)
        self.path = folder / f"{self.name}.claim"
        self.lock = files.file_lock(self.path)
        self.lock.acquire(blocking=False)
        try:
            self.path.write_text(json.dumps(self.keys))
        except BaseException:  # for example a full disk
            self.release()
            raise

    def release(self) -> None:
        """End the claim, whether the rows were written or not."""
        self.path.unlink(missing_ok=True)
        self.lock.release()


def complete(
    shards: Shards,
    wanted: Sequence[str],
    facts: dict[str, Any],
    take: Callable[[list[str]], list[str]],
    make: Callable[[list[str]], list[tuple[str, Values, float]]],
    look: Callable[[int], None] = lambda missing: None,
) -> set[str]:
    """Add all missing rows to a store, together with other processes that do the same.

    Args:
        shards: the store.
        wanted: keys of the rows, in the order in which to make them.
        facts: the content of ``store.json``.
        take: chooses at least one key to claim next from the keys that are not claimed.
        make: makes rows of keys, as :meth:`Shards.write` takes them. An error of it ends the claim.
        look: called with the number of missing rows whenever it may have changed.

    Returns:
        The keys that this process wrote.

    Raises:
        OSError: if the store cannot be written.
    """
    done: set[str] = set()
    missing = list(wanted)
    while True:
        claim = None
        shards.refresh()
        missing = [key for key in missing if key not in shards.rows]
        look(len(missing))
        if not missing:
            return done
        with locked(shards.folder):
            shards.describe(facts)
            others = claimed(shards.folder)
            shards.sweep(set(others))
            taken = set().union(*others.values())
            free = [key for key in missing if key not in shards.rows and key not in taken]
            if free:
                claim = Claim(shards.folder, take(free))
        if claim is None:
            time.sleep(POLL)
            continue
        try:
            shards.write(claim.name, make(claim.keys))
        finally:
            claim.release()
        done.update(claim.keys)


def stores(base: Path) -> list[dict[str, Any]]:
    """Return facts about all feature stores, the last used one first, for ``serzoo cache list``.

    Args:
        base: the folder that holds the folders of the stores.
    """
    found = []
    for path in base.glob("*/store.json"):
        try:
            facts = _facts(path)
            shards = Shards(path.parent, facts["dtype"] if facts["dtype"] in DTYPES else "float32")
            occupied, used = _occupied(path.parent), path.stat().st_mtime
        except (OSError, KeyError, TypeError, ValueError):  # just being removed, or not a store
            continue
        shards.refresh()
        extraction = facts["extraction"]
        kind = str(extraction.get("model_type") or extraction.get("type") or "?")
        name = (facts.get("first_used_by") or {}).get("name")
        found.append(
            {
                "store": path.parent.name,
                "encoder": f"{kind} {name}" if name else kind,
                "layers": extraction.get("layers"),
                "dtype": facts["dtype"],
                "rows": len(shards.rows),
                "hours": sum(row.seconds for row in shards.rows.values()) / 3600,
                "bytes": occupied,
                "used": used,
            }
        )
    return sorted(found, key=lambda s: -s["used"])


def _facts(path: Path) -> dict[str, Any]:
    """Return the content of a ``store.json``.

    For a damaged file the result is just enough to list the store and to clear it.
    """
    try:
        facts = json.loads(path.read_bytes())
    except ValueError:
        return {"dtype": "?", "extraction": {"type": "? (its store.json is damaged)"}}
    return {**facts, "dtype": str(facts["dtype"]), "extraction": dict(facts["extraction"])}


def remove(folder: Path) -> int:
    """Remove a store, and return the number of bytes that this freed.

    Raises:
        ConfigError: if a living process is writing it.
    """
    with locked(folder):
        if claimed(folder):
            raise ConfigError(
                f"a process is writing features to {folder}; wait for it, or end it, and clear "
                "again"
            )
        freed = _occupied(folder)
        # indexes first, so that a reader never finds an index without its shard
        for path in sorted(folder.iterdir(), key=lambda p: p.suffix != ".json"):
            if path.suffix != ".lease":  # ours, which its release removes
                path.unlink()
    with contextlib.suppress(OSError):  # another process has begun the store again
        folder.rmdir()
    return freed


def _occupied(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


FORMAT = 1  # raise it with each change of the layout; stores of another format are not read
DTYPES = {"float32": "<f4", "bfloat16": "<u2"}  # NumPy has no bfloat16, so its bits are kept
ABOUT = (
    "hidden states of a frozen speech encoder, made by serzoo; each .bin holds rows [K, T, D] "
    "(layers, frames, width) one after another, and the .json of the same name holds their keys; "
    "`serzoo cache clear` removes the store, and missing rows are computed again"
)

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """The place of an utterance's features.

    Attributes:
        shard: name of the shard.
        start: number of values before it in the shard.
        shape: ``(K, T, D)``.
        seconds: seconds of speech.
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
    """Return the name of an extraction's store: 16 hexadecimal digits, also by :data:`FORMAT`."""
    text = json.dumps([FORMAT, extraction], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Shards:
    """The shards of one store, as of the last :meth:`refresh`.

    Args:
        folder: folder of the store, which need not exist yet.
        dtype: number format of the values: ``float32`` or ``bfloat16``.

    Attributes:
        rows: the place of each row, by key.
    """

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        self.folder, self.dtype = folder, np.dtype(DTYPES[dtype])
        self.rows: dict[str, Row] = {}
        self._seen: dict[str, bool] = {}  # maps an index to whether it is valid

    def __contains__(self, shard: str) -> bool:
        """Return whether a shard of this name was read and is whole."""
        return self._seen.get(shard, False)

    def refresh(self) -> None:
        """Read the indexes that are new; this needs no lock."""
        for name in _names(self.folder, ".json") - self._seen.keys() - {"store"}:
            rows = _read_index(self.folder, name, self.dtype.itemsize)
            self._seen[name] = rows is not None
            self.rows.update(rows or {})

    def sweep(self, living: set[str]) -> None:
        """Remove shards that no process will complete; the caller must hold the store's lock.

        Args:
            living: names of the shards that living processes are writing.
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
        """Write a shard; it is valid from the moment when its index has its name.

        Args:
            name: name of the shard, not in use.
            rows: key, values ``[K, T, D]`` and seconds of speech of each row.

        Raises:
            OSError: if it cannot be written; nothing of it is left then.
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
        """Return the path of a shard's values."""
        return self.folder / f"{name}.bin"

    def describe(self, facts: dict[str, Any]) -> None:
        """Write ``store.json`` if it is missing or damaged; the caller must hold the lock."""
        path = self.folder / "store.json"
        try:
            known = facts.keys() <= dict(json.loads(path.read_bytes())).keys()
        except (OSError, ValueError, TypeError):
            known = False
        if not known:
            text = json.dumps({"about": ABOUT, "format": FORMAT, **facts}, indent=1).encode()
            _write(path, [text], len(text))

    def touch(self) -> None:
        """Set the time of the last use to now, for ``serzoo cache list``."""
        with contextlib.suppress(OSError):  # the store may be shared and read-only
            os.utime(self.folder / "store.json")


def _names(folder: Path, suffix: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {e.name.partition(".")[0] for e in entries if e.name.endswith(suffix)}
    except FileNotFoundError:
        return set()


def _read_index(folder: Path, name: str, itemsize: int) -> dict[str, Row] | None:
    """Return the rows of a shard; None if the shard is not valid."""
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
    """Write a file so that it is complete and on the disk before it has its name."""
    draft = path.with_name(f"{path.name}.part")  # _remove knows this name after a killed process
    with files.new_file(path, sync=True, draft=draft):
        with draft.open("wb") as file:
            for part in parts:
                file.write(part)
        if (found := draft.stat().st_size) != size:
            raise OSError(f"{path} has {found} bytes after writing {size}; check the disk")


def _remove(folder: Path, name: str) -> None:
    """Remove a shard, its index first: a shard without an index is not valid."""
    for suffix in (".json", ".json.part", ".bin", ".bin.part"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
