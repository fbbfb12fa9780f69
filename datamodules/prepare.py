"""A raw corpus to a manifest: the reader tells the facts, the engine listens to every file.

Bad audio is refused here, counted and recorded, so that training never meets it.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from ..zoo import registry
from ..zoo.errors import DataError, DataWarning
from .audio import EmptyAudioError, MissingAudioError, Samples, decode
from .counts import Notice, count_notice, nothing_labelled, unknown_words
from .info import CorpusInfo
from .manifest import Utterance, is_inside, write_lines, write_manifest

SHORTEST = 0.1  # seconds; shorter than any emotional utterance, longer than a click (our choice)
SILENCE = 1e-4  # peak of full scale, -80 dB (our choice)
SLACK = 0.05  # seconds that an annotated end may lie behind the end of the file (our choice)


@dataclass(frozen=True)
class Refusal:
    """An utterance that is not in the manifest.

    Attributes:
        id: of the utterance.
        path: of its audio, relative to the root.
        reason: few different ones, to be counted.
        detail: what exactly was found; may be empty.
    """

    id: str
    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus.

    Attributes:
        corpus: registered name.
        root: folder that the utterances' ``audio`` is relative to.
        utterances: what the manifest holds.
        refusals: what it does not.
        warnings: see :class:`Notice`.
        out: the manifest, where one was written.
    """

    corpus: str
    root: Path
    utterances: list[Utterance]
    refusals: list[Refusal]
    warnings: list[Notice]
    out: Path | None = None

    @property
    def refused(self) -> dict[str, int]:
        """Refusals by reason, the most frequent first."""
        return dict(Counter(r.reason for r in self.refusals).most_common())

    def notes(self) -> dict[str, Any]:
        """For run records: numbers of utterances and refusals, and the warnings' texts."""
        return {
            "utterances": len(self.utterances),
            "refused": self.refused,
            "warnings": [w.message for w in self.warnings],
        }

    def __str__(self) -> str:
        seconds = sum(u.duration for u in self.utterances)
        text = (
            f"{self.corpus}: {len(self.utterances)} utterances of "
            f"{len({u.speaker for u in self.utterances})} speakers, {seconds / 60:.1f} min"
        )
        if self.refusals:
            text += f"; refused {len(self.refusals)} ({_counted(self.refused)})"
        return text


def prepare(
    corpus: str,
    *,
    root: str | Path,
    out: str | Path | None = None,
    options: dict[str, Any] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Prepared:
    """Read a corpus, decode every file once, refuse what is not usable speech.

    Refused are files that are missing, unreadable, empty, silent (peak below 1e-4 of full scale),
    not finite, or shorter than 0.1 s; segments that lie outside their file; labels that an explicit
    label map does not know. Any sample rate and number of channels is accepted.

    Args:
        corpus: registered name of a reader.
        root: folder that holds the corpus as its publisher distributes it.
        out: manifest to write, with ``<out>.refused.jsonl`` (one refusal per line) and
            ``<out>.json`` (root and notes) beside it, where ``<out>`` loses a ``.jsonl``.
        options: keywords of the reader.
        strict: whether counts other than the published ones are an error, not a warning.
        progress: whether to show a bar on a terminal.

    Returns:
        Utterances in the reader's order, with ``end``, ``sample_rate`` and ``sha`` filled in.

    Raises:
        ConfigError: no such corpus, or options that its reader does not have.
        DataError: what the reader found wrong with the folder; an id that occurs twice; no
            utterance left; with ``strict``, counts that are off.
    """
    root = Path(root) if Path(root).is_dir() else Path(root).expanduser()
    reader = registry.get("corpora", corpus)
    options = registry.check_options("corpora", corpus, options or {})
    info = CorpusInfo.load(corpus)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found: list[Utterance] = list(reader(root, **options))
    notices = []
    for warning in caught:
        if issubclass(warning.category, DataWarning):
            # run records hold these: they shall not tell where a user keeps their data
            message = str(warning.message).replace(str(root), "root")
            notices.append(Notice("reader", message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    _refuse_duplicates(corpus, found)

    utterances: list[Utterance] = []
    refusals: list[Refusal] = []
    wanted = []
    for utterance in found:
        if utterance.label is not None and utterance.label not in info.labels:
            known = f"known: {', '.join(info.labels)}"
            reason = f"unknown label '{utterance.label}'"
            refusals.append(Refusal(utterance.id, utterance.audio, reason, known))
        else:
            wanted.append(utterance)
    for result in _listen(wanted, root, progress):
        if isinstance(result, Refusal):
            refusals.append(result)
        else:
            utterances.append(result)
    if not utterances:
        reasons = _counted(dict(Counter(r.reason for r in refusals).most_common()))
        first = f" (first: {refusals[0].path}: {refusals[0].detail})" if refusals else ""
        raise DataError(
            f"{corpus}: none of {len(found)} utterances under {root} can be used"
            f"{': ' + reasons if reasons else ''}{first}"
        )
    off = count_notice(info, utterances, len(refusals))
    if off is not None:
        if strict:
            raise DataError(off.message)
        notices.append(off)
    notices += unknown_words(info, utterances)
    notices += nothing_labelled(info, utterances)
    prepared = Prepared(
        corpus, root, utterances, refusals, notices, Path(out) if out is not None else None
    )
    if prepared.out is not None:
        _write(prepared, prepared.out)
    return prepared


def _refuse_duplicates(corpus: str, found: list[Utterance]) -> None:
    counts = Counter(u.id for u in found)
    twice = [i for i, n in counts.items() if n > 1]
    if twice:
        first, second = [u.audio for u in found if u.id == twice[0]][:2]
        raise DataError(
            f"{corpus}: {len(twice)} ids occur more than once (first: {twice[0]}, {first} and "
            f"{second}); ids must be unique: remove the second copy, or point root= at one of them"
        )


def _listen(
    utterances: list[Utterance], root: Path, progress: bool
) -> Iterator[Utterance | Refusal]:
    """Decode every file once, in threads (libsndfile releases the interpreter lock); in order."""
    by_file: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_file.setdefault(utterance.audio, []).append(utterance)
    done: dict[str, Utterance | Refusal] = {}
    workers = min(8, os.cpu_count() or 1)
    with _bar(len(by_file), progress) as advance, ThreadPoolExecutor(workers) as pool:
        for results in pool.map(lambda group: _hear(group, root), by_file.values()):
            done.update((result.id, result) for result in results)
            advance()
    return (done[u.id] for u in utterances)


def _hear(group: list[Utterance], root: Path) -> list[Utterance | Refusal]:
    """The utterances of one file, completed or refused."""
    audio = group[0].audio
    if not is_inside(audio):
        reason, detail = "path outside root", "paths are relative to root, with forward slashes"
        return [Refusal(u.id, audio, reason, detail) for u in group]
    try:
        samples, rate = decode(root / audio)
    except DataError as error:
        kinds = {MissingAudioError: "missing", EmptyAudioError: "empty"}
        reason = kinds.get(type(error), "unreadable")
        return [Refusal(u.id, audio, reason, str(error)) for u in group]
    return [_check(utterance, samples, rate) for utterance in group]


def _check(utterance: Utterance, samples: Samples, rate: int) -> Utterance | Refusal:
    length = len(samples) / rate
    start = utterance.start
    end = length if isnan(utterance.end) else utterance.end

    def refuse(reason: str, detail: str) -> Refusal:
        return Refusal(utterance.id, utterance.audio, reason, detail)

    if not 0 <= start < end or end > length + SLACK:
        return refuse("segment outside the file", f"{start} s to {end} s of {length:.3f} s")
    end = min(end, length)
    part = samples[round(start * rate) : round(end * rate)]
    if end - start < SHORTEST or not len(part):
        return refuse(f"shorter than {SHORTEST} s", f"{len(part)} samples at {rate} Hz")
    finite = np.isfinite(part)
    if not finite.all():
        return refuse("not finite", f"{len(part) - int(finite.sum())} of {len(part)} samples")
    peak = float(np.abs(part).max())
    if peak < SILENCE:
        return refuse("silent", f"peak {peak:.1e} of full scale, needed {SILENCE:.0e}")
    return replace(utterance, end=end, sample_rate=rate, sha=sample_hash(part))


def sample_hash(samples: Samples) -> str:
    """16 hexadecimal digits over what is heard: :attr:`Utterance.sha`.

    In 16 bits at the file's own rate: the same recording as wav and as flac has the same hash.
    """
    whole = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return hashlib.sha256(whole.tobytes()).hexdigest()[:16]


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Any]:
    """A function to call once per file; draws on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    ticks = iter(
        track(
            range(total),
            "listening",
            console=console,
            disable=not (progress and console.is_terminal),
            transient=True,
        )
    )
    try:
        yield lambda: next(ticks, None)
    finally:
        for _ in ticks:  # run to its end, which removes the bar
            pass


def _write(prepared: Prepared, out: Path) -> None:
    """Refusals and notes first: the manifest's presence says that all three are whole."""
    base = out.with_suffix("") if out.suffix == ".jsonl" else out
    write_lines(
        base.with_name(base.name + ".refused.jsonl"),
        (json.dumps(asdict(r), ensure_ascii=False) for r in prepared.refusals),
    )
    sidecar = {"root": str(prepared.root.resolve()), "notes": prepared.notes()}
    write_lines(
        base.with_name(base.name + ".json"), [json.dumps(sidecar, indent=1, ensure_ascii=False)]
    )
    write_manifest(out, prepared.utterances)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counts.items())
