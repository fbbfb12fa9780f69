"""The inputs of a prediction: files, folders, patterns, arrays and pipes, read in pieces."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...datamodules.audio import (
    SUFFIXES,
    Raw,
    RawStream,
    array_audio,
    channel_count,
    parse_channel,
    read_utterance,
    stream_audio,
)
from ...datamodules.catalog import open_corpora
from ...datamodules.manifest import Utterance
from ...datamodules.placeholders import problem
from ...datamodules.protocols import speaker_of
from ...datamodules.walk import walk
from ..core.errors import ConfigError, DataError
from ..core.notices import tell

Samples = npt.NDArray[np.float32]
MAX_CHANNELS = 64
SEPARATE = "separate"
"""Value of ``channel`` that makes a recording of each channel, such as each speaker of a call."""
TWICE = "cannot be read twice: write the sound to a file first"
LOST = ("annex", "lfs", "dvc", "dangling")
"""Kinds of files that a walk leaves out, but that are recordings here, each with its error."""


@dataclass(frozen=True)
class Recording:
    """A recording to predict.

    Attributes:
        name: path of the file as it was found; ``[i]`` if the i-th input is an array.
        pieces: reads the recording from its start: float32, mono, 16 kHz, piece by piece. It may be
            called repeatedly, and raises ``DataError`` if the recording cannot be read.
        file: the file; None for an array.
        channel: the channel that is heard, counted from 1; None = the mean of all.
        speaker: ``corpus/name`` of its only speaker; "" if unknown.
        apart: whether the other channels of the file are recordings of their own.
        ending: for a stream, which is read only once. It is called when the stream has ended. It
            raises ``DataError`` if something was wrong with it. None = not a stream.
    """

    name: str
    pieces: Callable[[], Iterator[Samples]]
    file: Path | None = None
    channel: int | None = None
    speaker: str = ""
    apart: bool = False
    ending: Callable[[], None] | None = None


def recordings(
    inputs: Any, rate: int = 16_000, channel: str | int | None = None
) -> list[Recording]:
    """Return the recordings of paths and arrays, in the order given.

    A folder gives all audio files in it and below it, in the order of their names. A warning counts
    the files that are left out. A pattern (``*``, ``?``, ``[]``, ``**``) gives the files that match
    it, unless a file has that name. A manifest of `serzoo prepare` (``.jsonl``) gives its
    utterances, with their speakers. A missing file is a recording that raises an error when it is
    read, so that the others go on.

    Args:
        inputs: one or several of: path, folder, pattern, numpy array or torch tensor of shape
            ``[S]`` or ``[channels, S]``.
        rate: sample rate of arrays, in Hz; files have their own.
        channel: ``mean`` of all (default), ``first``, or a number counted from 1; ``separate``
            makes a recording of each channel.

    Raises:
        ConfigError: if an input is none of these, there is no input, or the channel is none.
    """
    apart = channel == SEPARATE
    heard = None if apart else parse_channel(channel, (SEPARATE,))
    if not rate > 0:
        raise ConfigError(
            f"rate is {rate}; give the samples per second of the arrays, such as 16000"
        )
    if isinstance(inputs, (str, Path)) or hasattr(inputs, "shape"):
        inputs = [inputs]
    found: list[Recording] = []
    if not isinstance(inputs, Sequence):
        inputs = list(inputs)
    for i, item in enumerate(inputs):
        if isinstance(item, (str, Path)):
            each = _of_path(item, heard)
            found += [r for one in each for r in _channels(one)] if apart else each
        else:
            found += _of_array(item, f"[{i}]", rate, heard, apart)
    if not found:
        raise ConfigError("nothing to predict; give files, folders, patterns or arrays")
    return found


def live(name: str, raw: Raw, channel: str | int | None = None) -> list[Recording]:
    """Return the recording of a pipe with raw samples; with ``separate``, one of each channel.

    The recordings of one pipe must be read in turn, so that memory stays bounded.

    Args:
        name: ``-`` for standard input, or a named pipe.
        raw: what the samples are.
        channel: as in :func:`recordings`.

    Raises:
        ConfigError: if standard input is a terminal or closed, or there is no such channel.
    """
    if name == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise ConfigError(f"standard input is closed; {PIPE}")
        if sys.stdin.isatty():
            raise ConfigError(f"standard input is a terminal, so nothing comes; {PIPE}")
        source: Any = sys.stdin.buffer
    else:
        source = open(name, "rb")  # noqa: SIM115  (it is read as long as the process lives)
    stream = RawStream(source, raw, "standard input" if name == "-" else name)
    numbers: list[int | None] = [None]
    if channel == SEPARATE:
        numbers = list(range(1, raw.channels + 1))
    elif (heard := parse_channel(channel, (SEPARATE,))) is not None:
        if heard > raw.channels:
            raise ConfigError(
                f"channel is {heard}, and the raw samples have {raw.channels}; give --channels, "
                "or another channel"
            )
        numbers = [heard]

    def of(blocks: Iterator[Samples], number: int | None) -> Recording:
        held = [blocks]  # given away, so that a channel that failed keeps no samples for nobody
        return Recording(
            name,
            lambda: stream.mono(held.pop(), number),
            channel=number,
            apart=channel == SEPARATE,
            ending=lambda: stream.check(number),
        )

    return [of(*pair) for pair in zip(tee(stream.blocks(), len(numbers)), numbers, strict=True)]


PIPE = "pipe raw samples into it, such as: ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | serzoo ..."


def is_pipe(name: str) -> bool:
    """Return whether a name is `-`, and so means standard input, or is that of a pipe."""
    try:
        return (name == "-" and not Path(name).exists()) or Path(name).is_fifo()
    except OSError:
        return False


def _channels(whole: Recording) -> list[Recording]:
    """Return a recording of each channel of a file; what is no file, or a bad one, stays one."""
    if whole.file is None:  # an utterance of a manifest has the channel that the manifest names
        return [whole]
    try:
        count = channel_count(whole.file)
    except (DataError, OSError):  # the same error comes when it is read, as a row
        return [whole]
    return [
        replace(_of_file(whole.file, number), apart=True, name=whole.name)
        for number in range(1, count + 1)
    ]


def _of_path(item: str | Path, channel: int | None) -> list[Recording]:
    path = Path(item)
    with suppress(RuntimeError):  # the name begins with ~, and there is no such user
        path = path.expanduser()
    try:
        if str(item) == "-" and not path.exists():
            return [_broken("-", f"standard input {TWICE}")]  # `serzoo predict --rate` reads it
        if path.is_dir():
            return _below(path, str(item), channel)
        if not path.exists() and glob.has_magic(str(path)):
            return _matching(str(path), channel)
        if not os.path.lexists(path):
            return [_broken(str(item), _problem(path) or "there is no such file or folder")]
    except OSError as error:  # such as a name that is too long, or a folder without permission
        return [_broken(str(item), error.strerror or str(error))]
    return _of_manifest(path) if path.suffix == ".jsonl" else [_of_file(path, channel)]


def _of_manifest(path: Path) -> list[Recording]:
    """Return the utterances of a prepared corpus; each has the channel that its manifest names."""
    speech = open_corpora([], manifest=str(path))

    def of(utterance: Utterance) -> Recording:
        root = speech.roots[utterance.corpus]

        def pieces() -> Iterator[Samples]:
            yield read_utterance(utterance, root)

        return Recording(utterance.id, pieces, speaker=speaker_of(utterance))

    return [of(u) for u in speech.utterances]


def _matching(pattern: str, channel: int | None) -> list[Recording]:
    """Return the files that match; if only folders match, the files in them."""
    if "**" in Path(pattern).parts:
        files, folders = _matching_at_any_depth(Path(pattern))
    else:
        matches = [Path(p) for p in sorted(glob.glob(pattern))]
        files = [p for p in matches if not p.is_dir()]
        folders = [p for p in matches if p.is_dir()]
    if not files:
        found = [r for folder in folders for r in _below(folder, str(folder), channel)]
        return found or [_broken(pattern, "no file matches")]
    return [_of_file(p, channel) for p in files]


def _matching_at_any_depth(pattern: Path) -> tuple[list[Path], list[Path]]:
    """Return matching files and folders by :func:`walk`; ``glob`` would follow links in circles."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:first]), parts[first:]
    found = walk(root)
    left = found.left()
    lost = [p for kind in LOST for p in left.get(kind, ())]
    other = {p for kind, paths in left.items() if kind != "closed" for p in paths}
    for text, fault in found.notes(without=other):
        tell(f"{pattern}: {text}", fault=fault)

    def fitting(paths: Iterable[Path]) -> list[Path]:
        return sorted((p for p in paths if _fits(p.relative_to(root).parts, rest)), key=str)

    return fitting({*found.files, *lost}), fitting(found.folders)


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_fits(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _below(folder: Path, name: str, channel: int | None) -> list[Recording]:
    """Return audio below a folder, in order; files that were not fetched are errors when read."""
    found = walk(folder)
    suffixes = _suffixes()
    left = found.left()
    lost = [p for kind in LOST for p in left.get(kind, ()) if p.suffix.lower() in suffixes]
    paths = sorted([*found.take(), *lost], key=lambda p: p.as_posix())
    notes = found.notes(without=lost)
    if not paths:
        held = "; ".join([f"it holds {found.holds()}", *(text for text, _ in notes)])
        ends = ", ".join(s[1:] for s in suffixes)
        return [_broken(name, f"the folder has no {ends} file, nor has any below it; {held}")]
    for text, fault in notes:
        tell(f"{name}: {text}", fault=fault)
    return [_of_file(p, channel) for p in paths]


def _suffixes() -> tuple[str, ...]:
    suffixes: tuple[str, ...] = SUFFIXES
    return suffixes


def _problem(path: Path) -> str | None:
    found: str | None = problem(path)
    return found


def _of_file(path: Path, channel: int | None) -> Recording:
    stream = stream_audio
    return Recording(str(path), lambda: stream(path, channel=channel), path, channel)


def _of_array(item: Any, name: str, rate: int, channel: int | None, apart: bool) -> list[Recording]:
    array = item.detach().cpu().numpy() if hasattr(item, "detach") else item
    if not isinstance(array, np.ndarray):
        raise ConfigError(
            f"input {name} is a {type(item).__name__}; give a path, or a numpy array or torch "
            "tensor of samples"
        )
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > MAX_CHANNELS):
        raise ConfigError(
            f"input {name} has shape {list(array.shape)}; give [samples] or [channels, samples] "
            "(give a batch as a list of arrays)"
        )
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / (np.iinfo(array.dtype).max + 1)
    elif not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(
            f"input {name} holds {array.dtype}; give floats in -1..1, or signed integers"
        )

    def of(number: int | None) -> Recording:
        def pieces() -> Iterator[Samples]:
            read = array_audio
            with np.errstate(over="ignore"):  # too large for 32 bits: refused below as not finite
                samples = np.atleast_2d(array).T.astype(np.float32)
            yield read(samples, rate, number, f"input {name}")

        return Recording(name, pieces, channel=number if apart else None, apart=apart)

    if not apart:
        return [of(channel)]
    return [of(number) for number in range(1, np.atleast_2d(array).shape[0] + 1)]


def _broken(name: str, reason: str) -> Recording:
    def pieces() -> Iterator[Samples]:
        raise DataError(f"{name}: {reason}")

    return Recording(name, pieces)
