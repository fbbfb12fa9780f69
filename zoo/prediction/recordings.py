"""What is to be predicted: files, folders, patterns and arrays, as recordings to read in pieces."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import registry
from ..errors import ConfigError, DataError

Samples = npt.NDArray[np.float32]
MAX_CHANNELS = 64


@dataclass(frozen=True)
class Recording:
    """Something to predict.

    Attributes:
        name: path of a file as it was found; ``[i]`` for the i-th input when it is an array.
        pieces: reads it from the start: float32, mono, 16 kHz, piece by piece. Raises
            ``DataError`` where it cannot be read, and may be called more than once.
    """

    name: str
    pieces: Callable[[], Iterator[Samples]]


def recordings(
    inputs: Any, rate: int = 16_000, channel: str | int | None = None
) -> list[Recording]:
    """Paths and arrays to recordings, in the order given.

    A folder is searched, with everything below it, for files that can be read (wav, flac, mp3, ogg,
    opus, aiff, ...), in the order of their names; a pattern (``*``, ``?``, ``[]``, ``**``) stands
    for what matches it, unless a file has that very name. What does not exist becomes a recording
    that says so when it is read, so that the others go on.

    Args:
        inputs: one of, or a sequence of: path, folder, pattern; numpy array or torch tensor of
            shape ``[S]`` or ``[channels, S]``.
        rate: of arrays, in Hz; files know their own.
        channel: ``mean`` of all (default), ``first``, or a number counted from 1.

    Raises:
        ConfigError: when an input is none of these, or there is none; a channel that is no number.
    """
    heard = registry.attribute("serzoo.datamodules.audio:parse_channel")(channel)
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
    path = Path(item).expanduser()
    pattern = str(path)
    if path.is_dir():
        paths = _below(path)
        suffixes = ", ".join(s[1:] for s in _suffixes())
        return [_of_file(p, channel) for p in paths] or [
            _broken(str(item), f"the folder has no {suffixes} file, nor has any below it")
        ]
    if not path.exists() and glob.has_magic(pattern):
        matches = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
        # `**` finds a folder and what is in it: a file once
        files = [p for p in matches if not p.is_dir()]
        if not files:
            files = [p for folder in matches for p in _below(folder)]
        return [_of_file(p, channel) for p in files] or [_broken(str(item), "no file matches")]
    if not path.exists():
        remedy = registry.attribute("serzoo.datamodules.layout:absent")(path)
        return [_broken(str(item), remedy or "there is no such file or folder")]
    return [_of_file(path, channel)]


def _below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in _suffixes() and p.is_file())


def _suffixes() -> tuple[str, ...]:
    suffixes: tuple[str, ...] = registry.attribute("serzoo.datamodules.audio:SUFFIXES")
    return suffixes


def _of_file(path: Path, channel: int | None) -> Recording:
    stream = registry.attribute("serzoo.datamodules.audio:stream_audio")
    return Recording(str(path), lambda: stream(path, channel=channel))


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
            "(a batch: a list of arrays)"
        )
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / (np.iinfo(array.dtype).max + 1)
    elif not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(
            f"input {name} holds {array.dtype}; give floats in -1..1, or signed integers"
        )

    def pieces() -> Iterator[Samples]:
        read = registry.attribute("serzoo.datamodules.audio:array_audio")
        with np.errstate(over="ignore"):  # 64 bits to 32: told as not finite
            samples = np.atleast_2d(array).T.astype(np.float32)
        yield read(samples, rate, channel, f"input {name}")

    return Recording(name, pieces)


def _broken(name: str, reason: str) -> Recording:
    def pieces() -> Iterator[Samples]:
        raise DataError(f"{name}: {reason}")

    return Recording(name, pieces)
