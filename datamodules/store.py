"""A feature store on disk: shards of rows, each with its index, in a folder that says what it is.

``<cache>/features/<digest>/`` holds

- ``store.json``: what the rows are, in words and as the encoder's ``extraction()``;
- ``<name>.bin``: the values of many rows, one behind the other, little-endian, nothing else;
- ``<name>.json``: the index of that shard: key, shape and seconds of speech of each row;
- ``<name>.claim`` and ``.lock``: see below.

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
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import Timeout

from ..zoo.core import files
from ..zoo.core.errors import ConfigError, DataWarning

# ---- Processes share the filling of a store without talking to each other.
#
# Whoever wants rows takes the store's lock for a moment, reads what is there and what others have
# claimed, claims the next chunk, and lets go; then it computes and writes the chunk. Workers of a
# comparison, ranks of one run and strangers are all the same here. A claim is a file on which its
# owner holds an advisory lock: the system drops it with the process, however that ends, so the
# claim of a killed process is void, and its chunk falls to the next who asks.

POLL = 0.1  # seconds between two looks at what others are doing


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a store's folder, which is made if there is none."""
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
    """Living claims: name of the shard to its keys. Void ones are removed; needs the lock."""
    living = {}
    for path in folder.glob("*.claim"):
        try:
            with files.file_lock(path).acquire(blocking=False):
                path.unlink(missing_ok=True)
        except Timeout:
            living[path.stem] = _keys(path)
    return living


def _keys(path: Path) -> set[str]:
    """The rows of a living claim. If it cannot be read, it has none: they may be made twice."""
    try:
        return set(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return set()


class Claim:
    """Rows that this process is going to write; made under the lock.

    Args:
        folder: of the store.
        keys: of the rows.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.name, self.keys = secrets.token_hex(8), list(keys)
        self.path = folder / f"{self.name}.claim"
        self.lock = files.file_lock(self.path)
        self.lock.acquire(blocking=False)
        try:
            self.path.write_text(json.dumps(self.keys))
        except BaseException:  # a full disk, for one
            self.release()
            raise

    def release(self) -> None:
        """Give the rows up, written or not."""
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
    """Bring a store to hold all rows that are wanted, together with whoever else does so.

    Args:
        shards: the store.
        wanted: keys, in the order in which to make them.
        facts: what ``store.json`` shall say.
        take: of the keys that nobody has, the next to claim (at least one).
        make: keys to rows as :meth:`Shards.write` takes them. What it raises ends the claim.
        look: called with the number of missing rows whenever it may have changed.

    Returns:
        The keys that this process wrote.

    Raises:
        OSError: when the store cannot be written.
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
    """What feature stores there are, the one that was used last first; see ``serzoo cache list``.

    Args:
        base: the folder that holds a folder of each.
    """
    found = []
    for path in base.glob("*/store.json"):
        try:
            facts = _facts(path)
            shards = Shards(path.parent, facts["dtype"] if facts["dtype"] in DTYPES else "float32")
            occupied, used = _occupied(path.parent), path.stat().st_mtime
        except (OSError, KeyError, TypeError, ValueError):  # on its way out, or not one of ours
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
    """What a ``store.json`` says; of a damaged one, enough to see the store and to clear it."""
    try:
        facts = json.loads(path.read_bytes())
    except ValueError:
        return {"dtype": "?", "extraction": {"type": "? (its store.json is damaged)"}}
    return {**facts, "dtype": str(facts["dtype"]), "extraction": dict(facts["extraction"])}


def remove(folder: Path) -> int:
    """Remove a store, and return the bytes that it took.

    Raises:
        ConfigError: when a living process is writing it.
    """
    with locked(folder):
        if claimed(folder):
            raise ConfigError(
                f"a process is writing features to {folder}; wait for it, or end it, and clear "
                "again"
            )
        freed = _occupied(folder)
        # indexes first: a reader never finds one whose shard is gone
        for path in sorted(folder.iterdir(), key=lambda p: p.suffix != ".json"):
            path.unlink()
        with contextlib.suppress(OSError):  # somebody begins it anew
            folder.rmdir()
    return freed


def _occupied(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


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

    def __contains__(self, shard: str) -> bool:
        """Return whether a shard of this name was read and is whole."""
        return self._seen.get(shard, False)

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
        """Write ``store.json`` if there is none, or a damaged one; only under the lock."""
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
