"""Audio files to samples: any container that libsndfile reads, any rate, any channels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..zoo.errors import DataError

SAMPLE_RATE = 16_000  # as in zoo.types, which imports torch; `serzoo prepare` does without
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
UNREADABLE_SUFFIXES = (".m4a", ".aac", ".wma", ".webm", ".mp4")

Samples = npt.NDArray[np.float32]


class EmptyAudioError(DataError):
    """A file, or the part of it that was asked for, has no samples."""


class MissingAudioError(DataError):
    """There is no such file."""


def decode(path: str | Path, start: float = 0.0, end: float | None = None) -> tuple[Samples, int]:
    """Samples of a file at its own rate, channels averaged.

    Args:
        path: a wav, flac, mp3 or ogg file; what it holds counts, not what it is called.
        start: seconds into the file.
        end: seconds into the file; None = to its end. Beyond the end reads to the end.

    Returns:
        ``[S]`` float32 in -1..1 (float files may exceed it), and the sample rate in Hz.

    Raises:
        MissingAudioError: no such file.
        EmptyAudioError: no samples there.
        DataError: not audio, or damaged.
    """
    path = Path(path)
    with _opened(path) as file:
        rate, frames = int(file.samplerate), int(file.frames)
        first = round(start * rate)
        last = frames if end is None else min(round(end * rate), frames)
        if last <= first or first < 0:
            until = "its end" if end is None else f"{end:.3f} s"
            raise EmptyAudioError(
                f"{path} has no samples between {start:.3f} s and {until}: it holds "
                f"{frames / rate:.3f} s"
            )
        file.seek(first)
        samples: npt.NDArray[Any] = file.read(last - first, dtype="float32", always_2d=True)
    _check_whole(path, last - first, len(samples), rate)
    return _mono(samples), rate


def stream_audio(path: str | Path, seconds: float = 30.0) -> Iterator[Samples]:
    """A file of any length, piece by piece: joined, the pieces are :func:`read_audio`'s samples.

    Args:
        path: a wav, flac, mp3 or ogg file of any rate and number of channels.
        seconds: of audio in memory at a time.

    Yields:
        ``[S]`` float32, mono, 16 kHz; none of them empty.

    Raises:
        DataError: when the file is missing, unreadable or empty; when it turns out to be damaged
            further on, after the pieces before.
    """
    import soxr

    with _opened(Path(path)) as file:
        rate, promised, found = int(file.samplerate), int(file.frames), 0
        stream = (
            soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            if rate != SAMPLE_RATE
            else None
        )
        while True:
            raw = file.read(max(1, round(seconds * rate)), dtype="float32", always_2d=True)
            found += len(raw)
            piece = _mono(raw)
            if stream is not None:  # the last call gives what the filter still holds
                piece = np.asarray(stream.resample_chunk(piece, last=not len(raw)), np.float32)
            if len(piece):
                yield piece
            if not len(raw):
                break
    if not found:
        raise EmptyAudioError(f"{path} holds no samples; download or convert it again")
    _check_whole(Path(path), promised, found, rate)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import soundfile  # after the command line has printed its help

    if not path.is_file():
        raise MissingAudioError(
            f"no audio file at {path}; check root=, which paths are relative to"
        )
    if path.stat().st_size == 0:
        raise EmptyAudioError(f"{path} has 0 bytes; download or convert it again")
    try:
        # a name that is not UTF-8 is a name, too; and "-" alone would be standard input
        name = os.path.abspath(path)
        with soundfile.SoundFile(os.fsencode(name) if os.name == "posix" else name) as file:
            yield file
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        # libsndfile repeats the path in its message
        reason = str(error).partition(": ")[2] or str(error)
        raise DataError(
            f"{path} cannot be read as audio ({reason.strip()}); convert it to wav or flac, or "
            "remove it"
        ) from None


def _mono(samples: npt.NDArray[Any]) -> Samples:
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return np.ascontiguousarray(mono)


def _check_whole(path: Path, promised: int, found: int, rate: int) -> None:
    if promised - found > 0.1 * rate:  # the header of an MP3 may be off by a frame
        raise DataError(
            f"{path} is cut short: {promised} samples are promised, {found} are there; "
            "download or convert it again"
        )


def resample(samples: Samples, rate: int) -> Samples:
    """Samples at 16 kHz, band-limited (soxr, high quality).

    Args:
        samples: ``[S]``.
        rate: of these, in Hz.

    Returns:
        ``[S * 16000 / rate]`` float32; the same array where the rate is 16 kHz already.
    """
    if rate == SAMPLE_RATE:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def read_audio(path: str | Path, start: float = 0.0, end: float | None = None) -> Samples:
    """Samples of a file as encoders want them: float32, mono, 16 kHz.

    Args:
        path: a wav, flac, mp3 or ogg file of any rate and number of channels.
        start: seconds into the file.
        end: seconds into the file; None = to its end.

    Returns:
        ``[S]`` float32.

    Raises:
        DataError: when the file is missing, unreadable, damaged or empty.
    """
    return resample(*decode(path, start, end))
