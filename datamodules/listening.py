"""Listening: every file of a corpus is decoded once, in threads or processes, and resumes.

While the work goes on, what was heard is kept in a file beside the manifest (:class:`Journal`). If
the work is killed, the next call takes what is there, and decodes the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import isnan
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..zoo.core.errors import ConfigError, DataError, system_error
from ..zoo.core.files import named
from ..zoo.core.notices import shown
from ..zoo.core.progress import Bar
from .archives import facts as facts_of
from .audio import (
    OF_A_FILE,
    AudioError,
    Level,
    Samples,
    decode_channels,
    mean_loss,
    mix,
)
from .manifest import Utterance, is_inside

SHORTEST = 0.1  # seconds; shorter than any emotional utterance, longer than a click (our choice)
SLACK = 0.05  # seconds by which an annotated end may lie behind the file's end (our choice)
CHUNK = 64  # files of a task; many, so that processes spend little time on messages (our choice)
MANY = 2000  # files from which several processes are worth their start (our choice)


@dataclass(frozen=True)
class Refusal:
    """An utterance that is not in the manifest.

    Attributes:
        id: id of the utterance.
        path: path of its audio, relative to the root.
        reason: one of a few, so that refusals can be counted by it.
        detail: what was found; may be empty.
    """

    id: str
    path: str
    reason: str
    detail: str = ""


Group = list[Utterance]
"""The utterances of one file."""

Heard = tuple[list[Utterance | Refusal], float | None]
"""The utterances of one file, completed or refused, and the loss of averaging its channels."""


class Journal:
    """What was heard so far, in a file of JSON lines, so that killed work can go on.

    A line holds a file's path, size and time of change, and its utterances. A line counts only for
    the same file and the same utterances. Damaged lines, such as the last one of a killed process,
    are ignored.

    Args:
        path: the file; None = nothing is kept.
        version: another version heard something else; its lines are ignored.
    """

    def __init__(self, path: Path | None, version: int) -> None:
        self.path, self.version = path, version
        self._file: IO[str] | None = None
        self._kept = 0
        self._known: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Journal:
        if self.path is None:
            return self
        if self.path.is_file():
            with self.path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    with suppress(ValueError, KeyError, TypeError):
                        row = json.loads(line)
                        if row["v"] == self.version:
                            self._known[str(row["key"])] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8", newline="\n")
        if self._known:  # after a line that was cut
            self._file.write("\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None or self.path is None:
            return
        try:
            with named(self.path):
                self._file.close()
        except OSError:
            self.remove()
            if kind is None:  # otherwise the first error is told
                raise
        if kind is not None and issubclass(kind, OSError):
            self.remove()  # such as a full disk, which needs the space
        elif not (self._kept or self._known):
            self.remove()

    def remove(self) -> None:
        """Remove the file; the work is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def known(self) -> int:
        """Number of files that an earlier call heard."""
        return len(self._known)

    def take(self, group: Group, root: Path) -> Heard | None:
        """Return what was heard of a file before, if neither it nor its utterances changed."""
        if not self._known:
            return None
        row = self._known.get(key := _key(group, root))
        if not key or row is None or len(row["heard"]) != len(group):
            return None
        found: list[Utterance | Refusal] = []
        for u, (ok, *said) in zip(group, row["heard"], strict=True):
            if ok:
                end, rate, sha = said
                found.append(replace(u, end=end, sample_rate=rate, sha=sha))
            else:
                reason, detail = said
                found.append(Refusal(u.id, u.audio, reason, detail))
        return found, row["loss"]

    def keep(self, group: Group, root: Path, heard: Heard) -> None:
        """Write what was heard of a file; a missing file is looked for again."""
        if self._file is None or not (key := _key(group, root)):
            return
        rows = [
            [1, r.end, r.sample_rate, r.sha]
            if isinstance(r, Utterance)
            else [0, r.reason, r.detail]
            for r in heard[0]
        ]
        row = {"v": self.version, "key": key, "heard": rows, "loss": heard[1]}
        assert self.path is not None
        with named(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._kept += 1
            if self._kept % CHUNK == 0:  # from here on, the lines outlive this process
                self._file.flush()


def _key(group: Group, root: Path) -> str:
    """Return a hash of a file's facts and of its utterances; "" if there is no such file."""
    try:
        stat = facts_of(os.path.join(root, group[0].audio))
    except (OSError, DataError):
        return ""
    facts = [group[0].audio, stat.st_size, stat.st_mtime_ns]
    facts += [[u.id, u.start, str(u.end), u.channel] for u in group]
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def processes_of(wanted: int | None, files: int) -> int:
    """Return the number of processes: as asked for, else one for each core if files are many.

    Raises:
        ConfigError: if it is below 1.
    """
    if wanted is None:
        return _cores() if files >= MANY else 1
    if isinstance(wanted, bool) or wanted < 1:
        raise ConfigError(f"processes is {wanted}; give 1 or more")
    return wanted


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def listen(
    utterances: Sequence[Utterance],
    root: Path,
    *,
    journal: Journal,
    progress: bool = False,
    processes: int = 1,
) -> tuple[list[Utterance | Refusal], dict[str, float]]:
    """Decode every file once, and return utterances or refusals in their order.

    Args:
        utterances: what the reader yields.
        root: folder of the corpus.
        journal: what was heard before, and what is heard now; it must be open.
        progress: show a bar.
        processes: 1 = threads of this process, since libsndfile releases the interpreter's lock.
            More are new Python processes, so a script needs ``if __name__ == "__main__"``.

    Returns:
        The results, and the loss of averaging the channels of each file that has several
        (:func:`.audio.mean_loss`).
    """
    by_file: dict[str, Group] = {}
    for utterance in utterances:
        by_file.setdefault(utterance.audio, []).append(utterance)
    done: dict[str, Utterance | Refusal] = {}
    losses: dict[str, float] = {}

    def finish(group: Group, heard: Heard) -> None:
        results, loss = heard
        done.update((result.id, result) for result in results)
        if loss is not None:
            losses[group[0].audio] = loss
        bar.advance()

    with Bar("listening", len(by_file), shown=progress) as bar:
        rest = []
        for group in by_file.values():
            before = journal.take(group, root)
            if before is None:
                rest.append(group)
            else:
                finish(group, before)
        if again := len(by_file) - len(rest):
            bar.note(f"{again} decoded before")
        for group, heard in _heard(rest, root, processes):
            journal.keep(group, root, heard)
            finish(group, heard)
    order = list(by_file)
    losses = {audio: losses[audio] for audio in order if audio in losses}
    return [done[u.id] for u in utterances], losses


def _heard(groups: list[Group], root: Path, processes: int) -> Iterator[tuple[Group, Heard]]:
    """Yield each file with what was heard; few tasks wait at a time, so memory stays small."""
    chunks = (groups[i : i + CHUNK] for i in range(0, len(groups), CHUNK))
    pool: Executor
    if processes > 1:
        # a forked process would inherit the threads' locks of this one
        pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    else:
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        chunks = ([group] for group in groups)
    with pool:
        work: Callable[[list[Group]], list[Heard]] = partial(_hear_all, root=root)
        waiting: list[tuple[list[Group], Future[list[Heard]]]] = []
        try:
            for chunk in islice(chunks, 4 * max(processes, 8)):
                waiting.append((chunk, pool.submit(work, chunk)))
            while waiting:
                chunk, task = waiting.pop(0)
                yield from zip(chunk, task.result(), strict=True)
                for following in islice(chunks, 1):
                    waiting.append((following, pool.submit(work, following)))
        finally:
            for _, task in waiting:
                task.cancel()


def _hear_all(groups: list[Group], root: Path) -> list[Heard]:
    return [hear(group, root) for group in groups]


def hear(group: Group, root: Path) -> Heard:
    """Return the utterances of one file, completed or refused, and the loss of averaging it."""
    audio = group[0].audio
    if not is_inside(audio):
        reason, detail = "path outside root", "paths are relative to root, with forward slashes"
        return [Refusal(u.id, audio, reason, detail) for u in group], None
    try:
        samples, rate = decode_channels(root / audio)
    except AudioError as error:
        return [Refusal(u.id, audio, error.reason, shown(str(error))) for u in group], None
    except OSError as error:
        if error.errno not in OF_A_FILE:
            raise
        detail = str(system_error(error))
        return [Refusal(u.id, audio, "unreadable", detail) for u in group], None
    results = [_check(utterance, samples, rate) for utterance in group]
    heard = any(u.channel is None for u in results if isinstance(u, Utterance))
    return results, mean_loss(samples, rate) if heard and samples.shape[1] > 1 else None


def _check(utterance: Utterance, samples: Samples, rate: int) -> Utterance | Refusal:
    """Check one utterance of a file, whose samples are ``[S, channels]``."""
    length = len(samples) / rate
    start = utterance.start
    end = length if isnan(utterance.end) else utterance.end

    def refuse(reason: str, detail: str) -> Refusal:
        return Refusal(utterance.id, utterance.audio, reason, detail)

    if not 0 <= start < end or end > length + SLACK:
        return refuse(
            "segment outside the file",
            f"{start} s to {end} s of {length:.3f} s; correct start and end",
        )
    end = min(end, length)
    part = samples[round(start * rate) : round(end * rate)]
    if end - start < SHORTEST or not len(part):
        return refuse(
            f"shorter than {SHORTEST} s",
            f"{len(part)} samples at {rate} Hz; leave it out, or give a longer piece",
        )
    try:
        mono = mix(part, utterance.channel, utterance.audio)
    except AudioError as error:
        return refuse(error.reason, str(error))
    level = Level(utterance.channel)
    level.add(part, mono)
    if (fault := level.fault()) is not None:
        reason, detail = fault
        return refuse(reason, f"{detail}; use another copy, or leave it out")
    return replace(utterance, end=end, sample_rate=rate, sha=sample_hash(mono))


def sample_hash(samples: Samples) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the samples: :attr:`Utterance.sha`.

    The samples are hashed in 16 bits at the file's own rate. So a recording has the same hash as
    wav and as flac.

    Args:
        samples: ``[S]``, of one channel, within -1 and 1.
    """
    whole = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return hashlib.sha256(whole.tobytes()).hexdigest()[:16]
