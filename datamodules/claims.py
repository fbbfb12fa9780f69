"""Processes share the filling of a store without talking to each other.

Whoever wants rows takes the store's lock for a moment, reads what is there and what others have
claimed, claims the next chunk, and lets go; then it computes and writes the chunk. Workers of a
comparison, ranks of one run and strangers are all the same here. A claim is a file on which its
owner holds an advisory lock: the system drops it with the process, however that ends, so the claim
of a killed process is void, and its chunk falls to the next who asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..zoo.errors import ConfigError
from .store import DTYPES, Shards, Values

POLL = 0.1  # seconds between two looks at what others are doing


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a store's folder, which is made where there is none."""
    path = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = path.open("a")
        except FileNotFoundError:  # removed between the two lines
            continue
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(handle.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:  # else the store was removed while we waited, and this lock with it
                yield
                return


def claimed(folder: Path) -> dict[str, set[str]]:
    """Living claims: name of the shard to its keys. Void ones are removed; needs the lock."""
    living = {}
    for path in folder.glob("*.claim"):
        try:
            handle = path.open("r+")
        except FileNotFoundError:  # its owner has just ended it
            continue
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                living[path.stem] = _keys(handle)
                continue
            path.unlink(missing_ok=True)
    return living


def _keys(handle: IO[str]) -> set[str]:
    """Of a living claim. One that cannot be read claims nothing: its rows may be made twice."""
    try:
        return set(json.load(handle))
    except (ValueError, TypeError):
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
        self.handle = self.path.open("x")
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.dump(self.keys, self.handle)
            self.handle.flush()
        except BaseException:  # a full disk, for one
            self.release()
            raise

    def release(self) -> None:
        """Give the rows up, written or not."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what a full disk did not take
            self.handle.close()


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
