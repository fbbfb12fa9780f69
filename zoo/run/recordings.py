"""The inputs of a prediction: files, folders, patterns and arrays, read in pieces."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...datamodules.audio import (
    SUFFIXES,
    array_audio,
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
    """

    name: str
    pieces: Callable[[], Iterator[Samples]]
    file: Path | None = None
    channel: int | None = None
    speaker: str = ""


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
        channel: ``mean`` of all (default), ``first``, or a number counted from 1.

    Raises:
        ConfigError: if an input is none of these, there is no input, or the channel is none.
    """
    heard = parse_channel(channel)
    if not rate > 0:
        raise ConfigError(f"rate is {rate}; give the samples per second of the arrays")
    if isinstance(inputs, (str, Path)) or hasattr(inputs, "shape"):
        inputs = [inputs]
    found: list[Recording] = []
    if not isinstance(inputs, Sequence):
        inputs = list(inputs)
    for i, item in enumerate(inputs):
        if isinstance(item, (str, Path)):
            found += _of_path(item, heard)
        else:
            found.append(_of_array(item, f"[{i}]", rate, heard))
    if not found:
        raise ConfigError("nothing to predict; give files, folders, patterns or arrays")
    return found


def _of_path(item: str | Path, channel: int | None) -> list[Recording]:
    path = Path(item)
    with suppress(RuntimeError):  # the name begins with ~, and there is no such user
        path = path.expanduser()
    try:
        if str(item) == "-" and not path.exists():
            return [_broken("-", f"standard input {TWICE}")]
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


def _of_array(item: Any, name: str, rate: int, channel: int | None) -> Recording:
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

    def pieces() -> Iterator[Samples]:
        read = array_audio
        with np.errstate(over="ignore"):  # too large for 32 bits: refused below as not finite
            samples = np.atleast_2d(array).T.astype(np.float32)
        yield read(samples, rate, channel, f"input {name}")

    return Recording(name, pieces)


def _broken(name: str, reason: str) -> Recording:
    def pieces() -> Iterator[Samples]:
        raise DataError(f"{name}: {reason}")

    return Recording(name, pieces)
