"""The engine of a labelling stage: one row per utterance, in shards.

It may be killed at any moment.

``<folder>/<name>/`` holds

- ``settings.json``: everything that determines a row, and the utterances; other ones are refused;
- ``shard-1-of-4.jsonl`` and so on: rows, appended as they are computed;
- ``*.lock``: a lock that only a living process can hold;

and ``<folder>/<name>.jsonl`` holds all rows in the manifest's order, once all are computed.

Utterances are divided into **chunks** once, by size and in the same way for all shards. Shard k of
n takes the chunks k, k + n and so on. A chunk is computed as a whole and written in one step. The
rest of a partial chunk is deleted and computed again. A batch's neighbours may change the last bits
of a number. Even so, a row does not depend on the number of processes, or on when one was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...zoo.core.errors import ConfigError, DataError, cut, some
from ...zoo.core.files import json_lines, locked, read_json
from ..manifest import Utterance, write_lines

# Settings: rows of different settings are never in one file.

FORMAT = 1  # increase if the layout changes: older folders are then refused


def plan_of(
    utterances: Iterable[Utterance], chunk: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that the rows of a stage depend on, for its ``settings.json``.

    Args:
        utterances: the utterances of all shards.
        chunk: number of utterances that are computed together.
        settings: settings of the stage.
    """
    digest, count = hashlib.sha256(), 0
    for u in utterances:
        heard = [u.id, u.audio, u.start, u.end, u.sha, u.text, u.text_source]
        heard += [] if u.channel is None else [u.channel]
        digest.update(json.dumps(heard).encode() + b"\n")
        count += 1
    plan = {
        "format": FORMAT,
        "chunk": chunk,
        "utterances": {"count": count, "digest": digest.hexdigest()[:16]},
        "settings": settings,
    }
    return dict(json.loads(json.dumps(plan, allow_nan=False)))


def agree(path: Path, plan: dict[str, Any]) -> None:
    """Write a plan if the file does not exist, otherwise compare it.

    Raises:
        ConfigError: if the file holds another plan; the message names the differences.
    """
    if not path.is_file():
        write_lines(path, [json.dumps(plan, indent=1, ensure_ascii=False)])
        return
    remedy = "remove the folder; its rows are then computed again"
    old, new = _flat(read_json(path, ConfigError, remedy=remedy)), _flat(plan)
    differ = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if differ:
        changes = [f"{k}: {_short(old.get(k))} there, now {_short(new.get(k))}" for k in differ]
        raise ConfigError(
            f"{path.parent} holds rows of other settings ({some(changes, 5, '; ')}); rows of "
            "different settings must not mix: choose another out=, use the old settings, or remove "
            "the folder (and those of later stages) to compute the rows again"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        pairs = [_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items()]
        return {k: v for pair in pairs for k, v in pair.items()}
    return {re.sub("^settings[.]", "", prefix): value}


def _short(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), 60)


# The engine.

Shard = tuple[int, int]
Place = tuple[Path, int, int]  # place of a row: file, first byte, bytes with the end of the line


class Stage(ABC):
    """A stage for the engine: settings, and rows from utterances.

    Attributes:
        name: name of the folder and of the file of all rows.
        chunk: number of utterances that are computed and written together; a kill loses at most
            these.
    """

    name: str
    chunk: int = 32

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything that determines a row (model, revision, templates), as plain JSON."""

    @abstractmethod
    def rows(self, items: Sequence[Utterance]) -> Iterator[dict[str, Any]]:
        """Yield a plain-JSON row with the key ``id`` for each item of a chunk, in any order.

        A row may depend only on the settings and on the chunk. After a kill a chunk is computed
        again, perhaps in another process.
        """

    def size(self, item: Utterance) -> float:
        """Return the size by which utterances are sorted into chunks, here seconds."""
        return item.duration


@dataclass(frozen=True)
class Done:
    """The progress of a stage.

    Attributes:
        path: the file of all rows, once ``complete``.
        total: number of utterances.
        found: number of rows from earlier calls.
        computed: number of rows of this call.
        present: number of rows of all shards.
    """

    path: Path
    total: int
    found: int
    computed: int
    present: int

    @property
    def complete(self) -> bool:
        """Whether all rows are computed and merged."""
        return self.present == self.total


def run(
    stage: Stage,
    utterances: Sequence[Utterance],
    folder: str | Path,
    *,
    shard: Shard = (1, 1),
    report: Callable[[int, int], None] | None = None,
) -> Done:
    """Compute the missing rows of a shard; merge all shards if all their rows exist.

    Args:
        stage: the stage to compute.
        utterances: the utterances of all shards.
        folder: folder of the labels; missing parents are made.
        shard: (k, n), k from 1: this process computes the k-th of n parts. A later call may use
            another n: finished chunks of any process are found.
        report: called after each chunk with the numbers of finished rows and of all rows of this
            shard.

    Raises:
        ConfigError: if the folder holds rows of other settings or utterances. Also if another
            process works on this shard, or the shard does not exist.
        DataError: if an id occurs twice, a row is not of its chunk, or a shard's file is damaged.
    """
    k, n = shard
    if not 1 <= k <= n:
        raise ConfigError(f"there is no shard {k} of {n}; give shard=1/{n} to shard={n}/{n}")
    parts = chunks(stage, utterances)
    base, merged = Path(folder) / stage.name, Path(folder) / f"{stage.name}.jsonl"
    base.mkdir(parents=True, exist_ok=True)
    with locked(base / "settings.lock"):
        agree(base / "settings.json", plan_of(utterances, stage.chunk, stage.settings()))
    file = base / f"shard-{k}-of-{n}.jsonl"
    with locked(file.with_suffix(".lock"), _refusal(file)):
        known = _present(base, parts, repair=file)
        mine = parts[k - 1 :: n]
        total, done = sum(map(len, mine)), sum(u.id in known for p in mine for u in p)
        found = done
        todo = [p for p in mine if p[0].id not in known]
        if report:
            report(done, total)
        with file.open("ab") as target:
            for part in todo:
                target.write(_lines(stage, part))
                target.flush()
                os.fsync(target.fileno())
                done += len(part)
                if report:
                    report(done, total)
    with locked(base / "settings.lock"):
        places = _present(base, parts)
        if len(places) == len(utterances):
            write_lines(merged, (_read(places[u.id]) for u in utterances))
    return Done(merged, len(utterances), found, done - found, len(places))


def rows_of(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a merged file.

    Raises:
        DataError: if the file does not exist, or a line is not a row.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no {path}; this stage has not finished: run `serzoo label` again")
    remedy = "remove the file, and run `serzoo label` again"
    for _, row in json_lines(path, remedy=remedy, what=("a row of JSON", "rows")):
        yield row


def read_labels(folder: Path) -> dict[str, Any]:
    """Return ``labels.json`` of a folder of weak labels.

    Raises:
        DataError: if it is damaged, or lacks a part.
    """
    path, remedy = folder / "labels.json", "run `serzoo label` again with the settings that it had"
    found: dict[str, Any] = read_json(path, remedy=remedy)
    for key in ("files", "taxonomy", "transcripts", "scores", "selection"):
        if not isinstance(found.get(key), dict):
            raise DataError(f"{path} is damaged: {key} is {found.get(key)!r}; {remedy}")
    return found


def chunks(stage: Stage, utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Divide utterances into chunks of similar size, the largest first.

    So an utterance that is too large fails early.
    """
    seen: set[str] = set()
    for u in utterances:
        if u.id in seen:
            raise DataError(f"the id {u.id} occurs more than once; run `serzoo prepare` again")
        seen.add(u.id)
    order = sorted(utterances, key=lambda u: (-stage.size(u), u.id))
    return [order[i : i + stage.chunk] for i in range(0, len(order), stage.chunk)]


def _lines(stage: Stage, part: Sequence[Utterance]) -> bytes:
    """Return the rows of a chunk as lines, in the chunk's order."""
    rows: dict[str, dict[str, Any]] = {}
    wanted = {u.id for u in part}
    for row in stage.rows(part):
        key = row.get("id")
        if key not in wanted or key in rows:
            raise DataError(
                f"stage {stage.name} gave {'a second' if key in rows else 'an unwanted'} row of "
                f"{key!r}; its rows() must give one row for each utterance"
            )
        rows[key] = row
    if missing := [u.id for u in part if u.id not in rows]:
        raise DataError(
            f"stage {stage.name} gave no row of {missing[0]} ({len(missing)} missing); its rows() "
            "must give one row for each utterance"
        )
    return b"".join(_line(stage, rows[u.id]) for u in part)


def _line(stage: Stage, row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(
            f"stage {stage.name} gave a row of {row['id']} that is not plain JSON ({error}); its "
            "rows() must give text, finite numbers, lists and dicts"
        ) from None


def _present(
    base: Path, parts: Sequence[Sequence[Utterance]], repair: Path | None = None
) -> dict[str, Place]:
    """Return the place of each row that is in a complete chunk, from all shards.

    A partial chunk is cut from the file ``repair``.
    """
    first = {part[0].id: part for part in parts}
    places: dict[str, Place] = {}
    for file in sorted(base.glob("shard-*-of-*.jsonl")):
        lines = _places(file)
        at = 0
        while at < len(lines):
            key, part = lines[at][0], first.get(lines[at][0])
            if part is None:
                raise _damaged(file, f"holds {key} at a place where a chunk must begin")
            here = lines[at : at + len(part)]
            if [k for k, _ in here] != [u.id for u in part][: len(here)]:
                raise _damaged(file, f"has a partial chunk of {key}, followed by more rows")
            if len(here) < len(part):
                break
            places.update(here)
            at += len(part)
        if file == repair:
            _, whole, size = lines[at - 1][1] if at else (file, 0, 0)
            with file.open("rb+") as target:
                target.truncate(whole + size)
    return places


def _places(file: Path) -> list[tuple[str, Place]]:
    """Return id and place of each row of a shard; a last line without its end does not count."""
    found: list[tuple[str, Place]] = []
    start = 0
    with file.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            try:
                key = json.loads(line)["id"]
            except (ValueError, TypeError, KeyError):
                raise _damaged(file, f"has no row in line {len(found) + 1}") from None
            found.append((key, (file, start, len(line))))
            start += len(line)
    return found


def _damaged(file: Path, what: str) -> DataError:
    return DataError(f"{file} {what}; remove the file; its rows are then computed again")


def _read(place: Place) -> str:
    file, start, size = place
    with file.open("rb") as rows:
        rows.seek(start)
        return rows.read(size - 1).decode()


def _refusal(file: Path) -> Callable[[str], ConfigError]:
    """Return a function that makes the error if another process writes a file of rows."""
    return lambda process: ConfigError(
        f"another process ({process}) writes {file.stem} in {file.parent}; wait for it, or give "
        "another shard"
    )
