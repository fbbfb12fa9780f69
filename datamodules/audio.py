"""Read audio files as samples: any container that libsndfile reads, any rate, any channels.

:func:`read_audio` and :func:`read_utterance` give float32 mono samples at 16 kHz. :func:`decode`
gives them at the file's own rate, and :func:`stream_audio` reads a long file in pieces.
:class:`RawStream` reads raw samples from a pipe as they come.
:class:`Level` refuses samples without audible sound. :func:`mean_loss` measures how much the mean
of channels loses. Every refusal is an :class:`AudioError` with a short reason, by which refusals
are counted.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..zoo.core.errors import ConfigError, DataError, counted, suggest
from .archives import holds, inside, open_file
from .containers import Claim, Patched, claim, mp3_claim
from .manifest import Utterance
from .placeholders import problem

# Do the channels of a recording hold the same sound? All of these numbers are our choice.
BANDS = (250, 500, 1000, 2000, 4000)  # Hz, centres of the octaves of speech
QUIET = 30.0  # dB below the loudest octave; quieter octaves are noise, which differs by channel
FAINT = 20.0  # dB below the loudest channel of an octave; fainter channels do not harm the mean
LOSS = 2.0  # dB, between 0 (the same sound) and 3 (two sounds)
CHUNK = 2**16  # samples per spectrum


def mean_loss(samples: npt.NDArray[np.float32], rate: int) -> float:
    """Return how many dB weaker the mean of the channels is than the mean of equal channels.

    The channels are first brought to one level. Then the loss is measured in the octaves from 250
    to 4000 Hz. It is averaged over the octaves within 30 dB of the loudest one. So low notes do not
    decide alone; a short delay does them no harm. In each octave a channel counts if it is within
    20 dB of the loudest channel.

    The same sound at different levels loses nothing, and neither does one channel with a silent
    one. Two different sounds lose 3 dB, for example two speakers of a call. A delayed copy, as from
    a second microphone, loses some octaves almost completely (a comb filter). An inverted copy
    loses everything.

    Args:
        samples: ``[S, channels]``, finite.
        rate: sample rate, in Hz.

    Returns:
        0 for one channel, or if there is no sound; at most 60.
    """
    count = samples.shape[1]
    if count < 2:
        return 0.0
    edges = np.array([BANDS[0] / 2**0.5, *(b * 2**0.5 for b in BANDS)])
    cross = np.zeros((len(BANDS), count, count))
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK].astype(np.float64)
        spectrum = np.fft.rfft(chunk, axis=0)
        octave = np.digitize(np.fft.rfftfreq(len(chunk), 1 / rate), edges) - 1
        for i in range(len(BANDS)):
            part = spectrum[octave == i]
            cross[i] += (part.conj().T @ part).real
    power = np.einsum("ijj->ij", cross)
    whole, loudest = power.sum(1), power.max(1, keepdims=True)
    losses = []
    for i in np.flatnonzero(whole > max(whole.max() * 10 ** (-QUIET / 10), 0.0)).tolist():
        counted = np.flatnonzero(power[i] > loudest[i] * 10 ** (-FAINT / 10))
        scale = 1 / np.sqrt(power[i][counted])
        alike = cross[i][np.ix_(counted, counted)] * np.outer(scale, scale)
        losses.append(-10 * np.log10(np.clip(alike.mean(), 1e-6, 1.0)))
    return float(np.mean(losses)) if losses else 0.0


# Errors and limits.

SAMPLE_RATE = 16_000  # as in zoo/core/types.py; `serzoo prepare` must not import torch
SUFFIXES = (
    *(".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph"),
)
"""Suffixes of the files that are read, in lower case."""

UNREADABLE_SUFFIXES = (
    *(".m4a", ".m4b", ".aac", ".wma", ".amr", ".awb", ".ac3", ".eac3", ".dts", ".ape", ".wv"),
    *(".tta", ".tak", ".mpc", ".dsf", ".dff", ".ra", ".spx", ".mka", ".weba", ".webm", ".mp4"),
    *(".m4v", ".mkv", ".mov", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".3gp", ".3g2"),
)
"""Suffixes of audio files that libsndfile cannot read, in lower case; convert these files."""

SILENCE = 1e-4  # peak relative to full scale, -80 dB (our choice)
LOUDEST = 2.0**31  # floats may hold 32-bit integers; larger values have no valid scale (our choice)
CANCELLED = 0.01  # peak of the mean relative to the channels' peak (our choice)
OF_A_FILE = (
    *(errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
)
"""System errors that concern only one file; other files can still be read."""

BLOCK = 2**20  # samples that are read at a time
LONG = 2**26  # more samples than this are not read at once: 70 minutes at 16 kHz

Samples = npt.NDArray[np.float32]
"""``[S]``, or ``[S, channels]`` before the channels are mixed."""


class AudioError(DataError):
    """A file, or the requested part of it, cannot be used.

    Args:
        message: the message for people.
        reason: a short reason from a small set, by which refusals are counted.
    """

    reason = "unreadable"

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class EmptyAudioError(AudioError):
    """A file, or the requested part of it, has no samples."""

    reason = "empty"


class MissingAudioError(AudioError):
    """The file does not exist."""

    reason = "missing"


# Reading.


def parse_channel(channel: str | int | None, others: tuple[str, ...] = ()) -> int | None:
    """Return the number of a channel, counted from 1, or None for the mean of all channels.

    Args:
        channel: ``mean``, ``first``, or a number; None = ``mean``.
        others: more words that the caller takes, for the message.

    Raises:
        ConfigError: if the value is not ``mean``, ``first``, 1, 2, ...
    """
    if channel is None or channel == "mean":
        return None
    if channel == "first":
        return 1
    text = str(channel)
    if isinstance(channel, bool) or not (text.isascii() and text.isdigit()) or int(text) < 1:
        have = ", ".join(["mean", "first", *others])
        raise ConfigError(f"channel is '{channel}'; have {have}, or a number from 1")
    return int(text)


def decode(
    path: str | Path, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> tuple[Samples, int]:
    """Return the samples of a file at its own rate, of one channel.

    For an utterance use :func:`decode_utterance`.

    Args:
        path: a file of any format that libsndfile reads; its content decides, not its name.
        start: seconds into the file.
        end: seconds into the file; None, or a time after the end, means the end.
        channel: counted from 1; None = the mean of all channels.

    Returns:
        ``[S]`` float32 in -1..1 (float files may exceed it), and the sample rate in Hz.

    Raises:
        MissingAudioError: if the file does not exist.
        EmptyAudioError: if this part has no samples.
        AudioError: if it is not audio, is damaged or cut short, or lacks this channel.
    """
    samples, rate = decode_channels(path, start, end)
    return mix(samples, channel, str(path)), rate


def decode_channels(
    path: str | Path, start: float = 0.0, end: float | None = None
) -> tuple[Samples, int]:
    """Return the same as :func:`decode`, but all channels: ``[S, channels]``."""
    path = Path(path)
    with _opened(path) as (file, header):
        rate, frames = int(file.samplerate), int(file.frames)
        _refuse_cut(path, header, frames / rate)
        first = round(start * rate)
        last = frames if end is None else min(round(end * rate), frames)
        if last > first >= 0:
            samples = _between(file, first, None if frames >= UNKNOWN <= last else last)
        if not last > first >= 0 or not len(samples):
            until = "its end" if end is None else f"{end:.3f} s"
            holds = f": it holds {frames / rate:.3f} s" if frames < UNKNOWN else ""
            raise EmptyAudioError(
                f"{path} has no samples between {start:.3f} s and {until}{holds}; check start and "
                "end"
            )
    if frames < UNKNOWN:
        _check_whole(path, last - first, len(samples), rate)
    return samples, rate


def mix(samples: Samples, channel: int | None, name: str) -> Samples:
    """Mix ``[S, channels]`` to ``[S]``: one channel, counted from 1, or the mean of all.

    Raises:
        AudioError: if the channel does not exist.
    """
    have = samples.shape[1]
    if channel is not None and channel > have:
        raise AudioError(
            f"{name} has {counted(have, 'channel')}, so there is no channel "
            f"{channel} (they are counted from 1); set channel=first, or channel=mean",
            f"no channel {channel}",
        )
    if channel is not None or have == 1:
        return np.ascontiguousarray(samples[:, (channel or 1) - 1])
    # other code reports values that are not finite
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))


def read_audio(
    path: str | Path, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> Samples:
    """Return the samples of a file as encoders need them: float32, mono, 16 kHz.

    Args:
        path: a file of any format that libsndfile reads, of any rate and number of channels.
        start: seconds into the file.
        end: seconds into the file; None = to its end.
        channel: counted from 1; None = the mean of all channels.

    Returns:
        ``[S]`` float32.

    Raises:
        AudioError: if the file is missing, unreadable, damaged or empty.
    """
    return resample(*decode(path, start, end, channel))


def decode_utterance(
    utterance: Utterance, root: str | Path, seconds: float | None = None
) -> tuple[Samples, int]:
    """Return the samples of an utterance at its file's rate: its part of the file, its channel.

    Args:
        utterance: the utterance.
        root: folder of its corpus.
        seconds: largest duration; None = all of it.

    Returns:
        ``[S]`` float32, and the sample rate in Hz.

    Raises:
        AudioError: as :func:`decode` does.
    """
    end = utterance.end if seconds is None else min(utterance.end, utterance.start + seconds)
    return decode(Path(root) / utterance.audio, utterance.start, end, utterance.channel)


def read_utterance(utterance: Utterance, root: str | Path, seconds: float | None = None) -> Samples:
    """Return the same as :func:`decode_utterance`, but at 16 kHz: ``[S]`` float32."""
    return resample(*decode_utterance(utterance, root, seconds))


def stream_audio(
    path: str | Path, seconds: float = 30.0, channel: int | None = None
) -> Iterator[Samples]:
    """Yield a file of any length in pieces; joined, they are the samples of :func:`read_audio`.

    Args:
        path: a file of any format that libsndfile reads, of any rate and number of channels.
        seconds: seconds of audio in memory at a time.
        channel: counted from 1; None = the mean of all channels.

    Yields:
        ``[S]`` float32, mono, 16 kHz; no piece is empty.

    Raises:
        AudioError: if the file is missing, unreadable or empty. It is raised after the good pieces
            if a later part is damaged or cut short. So it is if nothing is audible
            (:class:`Level`).
    """
    path, level = Path(path), Level(channel)
    with _opened(path) as (file, header):
        rate, promised = int(file.samplerate), int(file.frames)
        blocks = _blocks(file, max(1, round(seconds * rate)))
        yield from _mono(blocks, rate, channel, str(path), level)
        _refuse_cut(path, header, level.samples / rate)
    if not level.samples:
        raise EmptyAudioError(f"{path} holds no samples; download or convert it again")
    if promised < UNKNOWN:
        _check_whole(path, promised, level.samples, rate)
    level.check(str(path))


def channel_count(path: str | Path) -> int:
    """Return the number of channels of a file.

    Raises:
        AudioError: if the file is missing or unreadable.
    """
    with _opened(Path(path)) as (file, _):
        return int(file.channels)


def _blocks(file: Any, count: int) -> Iterator[Samples]:
    """Yield a file in blocks ``[S, channels]``; the last one is empty."""
    while True:
        block = _block(file, count)
        yield block
        if not len(block):
            return


def _mono(
    blocks: Iterable[Samples], rate: int, channel: int | None, name: str, level: Level
) -> Iterator[Samples]:
    """Yield blocks of samples as mono samples at 16 kHz.

    Args:
        blocks: ``[S, channels]`` each, at their own rate. The last one is empty.
        rate: that rate, in Hz.
        channel: counted from 1; None = the mean of all channels.
        name: name of the audio in messages.
        level: the samples are added to it.
    """
    import soxr

    stream = (
        soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        if rate != SAMPLE_RATE
        else None
    )
    for raw in blocks:
        piece = mix(raw, channel, name)
        level.add(raw, piece)
        if level.broken:
            level.check(name)
        if stream is not None:  # the last call returns the samples that are still in the filter
            piece = np.asarray(stream.resample_chunk(piece, last=not len(raw)), np.float32)
        if len(piece):
            yield piece


def array_audio(samples: Samples, rate: int, channel: int | None, name: str) -> Samples:
    """Do the same as :func:`read_audio`, for ``[S, channels]`` samples of any rate in memory.

    Raises:
        AudioError: if there are no samples, or no audible sound (:class:`Level`).
    """
    mono, level = mix(samples, channel, name), Level(channel)
    if not len(mono):
        raise EmptyAudioError(f"{name} has no samples; leave it out, or give at least one")
    level.add(samples, mono)
    level.check(name)
    return resample(mono, rate)


def resample(samples: Samples, rate: int) -> Samples:
    """Return the samples at 16 kHz, band-limited (soxr, high quality).

    Args:
        samples: ``[S]``.
        rate: sample rate, in Hz.

    Returns:
        ``[S * 16000 / rate]`` float32; the same array if the rate is already 16 kHz.
    """
    if rate == SAMPLE_RATE:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


# Raw samples from a pipe.

RAW = {
    "s16le": ("PCM_16", "LITTLE", 2),
    "s16be": ("PCM_16", "BIG", 2),
    "s24le": ("PCM_24", "LITTLE", 3),
    "s24be": ("PCM_24", "BIG", 3),
    "s32le": ("PCM_32", "LITTLE", 4),
    "s32be": ("PCM_32", "BIG", 4),
    "f32le": ("FLOAT", "LITTLE", 4),
    "f32be": ("FLOAT", "BIG", 4),
    "f64le": ("DOUBLE", "LITTLE", 8),
    "f64be": ("DOUBLE", "BIG", 8),
    "s8": ("PCM_S8", "FILE", 1),
    "u8": ("PCM_U8", "FILE", 1),
    "mulaw": ("ULAW", "FILE", 1),
    "alaw": ("ALAW", "FILE", 1),
}
"""Formats of raw samples, as ffmpeg names them: libsndfile's name, byte order, bytes."""

RATES = (4000, 384_000)
"""Lowest and highest rate of raw samples, in Hz: what recorders use (our choice)."""

CHANNELS = 64
"""Most channels of raw samples (our choice)."""

HEADERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF"}
"""How files begin that have a header, and are no raw samples."""

READ = 2**16  # bytes that are read from a pipe at a time, at most


@dataclass(frozen=True)
class Raw:
    """What raw samples are, since they have no header that says it.

    Attributes:
        rate: samples per second of each channel.
        form: a name of :data:`RAW`.
        channels: number of channels; their samples take turns.

    Raises:
        ConfigError: if one of them is out of range.
    """

    rate: int
    form: str = "s16le"
    channels: int = 1

    def __post_init__(self) -> None:
        lowest, highest = RATES
        if not lowest <= self.rate <= highest:
            raise ConfigError(
                f"the rate of the raw samples is {self.rate}; give samples per second, {lowest} "
                f"to {highest}, such as 16000"
            )
        if self.form not in RAW:
            raise ConfigError(f"the raw format is '{self.form}'{suggest(self.form, RAW)}")
        if not 1 <= self.channels <= CHANNELS:
            raise ConfigError(
                f"the raw samples have {counted(self.channels, 'channel')}; give 1 to {CHANNELS}"
            )

    @property
    def frame(self) -> int:
        """Bytes of one sample of every channel."""
        return RAW[self.form][2] * self.channels


class RawStream:
    """Raw samples that are read once, as they come: from a pipe, or from a program.

    Args:
        source: where the bytes are from; ``read1`` returns those that are there.
        raw: what they are.
        name: name of the source, for messages.
    """

    def __init__(self, source: Any, raw: Raw, name: str) -> None:
        self.source, self.raw, self.name = source, raw, name
        self.left = b""
        self.levels: dict[int | None, Level] = {}

    def blocks(self) -> Iterator[Samples]:
        """Yield what has come, as ``[S, channels]`` float32; the last block is empty.

        Raises:
            AudioError: if the bytes begin as a file that has a header.
        """
        import soundfile

        subtype, endian, _ = RAW[self.raw.form]
        began, got = False, b"-"
        while got:
            got = self.source.read1(READ)
            self.left += got
            if not began:
                if got and len(self.left) < 4:  # a header cannot be told yet
                    continue
                self._refuse_header()
                began = True
            whole = len(self.left) - len(self.left) % self.raw.frame
            if whole:
                block, _ = soundfile.read(
                    BytesIO(self.left[:whole]), samplerate=self.raw.rate,
                    channels=self.raw.channels, format="RAW", subtype=subtype, endian=endian,
                    dtype="float32", always_2d=True,
                )  # fmt: skip
                self.left = self.left[whole:]
                yield block
        yield np.zeros((0, self.raw.channels), np.float32)

    def _refuse_header(self) -> None:
        for magic, kind in HEADERS.items():
            if self.left.startswith(magic):
                raise AudioError(
                    f"{self.name} is a {kind} file, and not raw samples; convert it on the way: "
                    f"ffmpeg -i FILE -f {self.raw.form} -ac {self.raw.channels} -ar "
                    f"{self.raw.rate} -",
                    "not raw",
                )

    def mono(self, blocks: Iterable[Samples], channel: int | None) -> Iterator[Samples]:
        """Yield a channel of :meth:`blocks` as :func:`stream_audio` yields a file.

        Args:
            blocks: those of this stream.
            channel: counted from 1; None = the mean of all channels.
        """
        level = self.levels[channel] = Level(channel)
        try:
            yield from _mono(blocks, self.raw.rate, channel, self.name, level)
        except AudioError as error:
            if level.broken:  # most often bytes that were read as floats
                why = ", ".join(level.fault() or ())
                raise AudioError(
                    f"{self.name} holds no sound if it is read as {self.raw.form}: {why}; check "
                    "the format",
                    error.reason,
                ) from None
            raise

    def check(self, channel: int | None) -> None:
        """Check the stream when it has ended. That it is silent is told by its windows.

        Args:
            channel: a channel that was read.

        Raises:
            AudioError: if there was nothing, the last sample is cut, or the channels cancel.
        """
        level = self.levels[channel]
        if self.left:
            raise AudioError(
                f"{self.name} ended within a sample: {counted(len(self.left), 'byte')} left over, "
                f"and {counted(self.raw.channels, 'channel')} of {self.raw.form} need "
                f"{self.raw.frame}; check the format and the number of channels",
                "cut short",
            )
        if not level.samples:
            raise EmptyAudioError(f"{self.name} held no samples; pipe raw samples into it")
        if (fault := level.fault()) is not None and fault[0] != "silent":
            level.check(self.name)


# Samples without audible sound.


class Level:
    """Checks whether samples have audible sound; ``prepare`` and ``predict`` share it.

    It refuses samples that are not finite, and samples above 2**31 of full scale, whose squares
    overflow. It refuses a peak below 1e-4 of full scale. It also refuses channels that cancel each
    other: their mean keeps less than a hundredth of their own peak.

    Args:
        channel: the channel in use, counted from 1; None = the mean of all channels.
    """

    def __init__(self, channel: int | None = None) -> None:
        self.mixed = channel is None
        self.samples = self.infinite = 0
        self.peak = self.loudest = 0.0

    def add(self, channels: Samples, mono: Samples) -> None:
        """Add a part of a recording.

        Args:
            channels: ``[S, channels]`` samples of the file.
            mono: ``[S]`` samples in use.
        """
        self.samples += len(mono)
        if not len(mono):
            return
        peak = float(np.abs(mono).max())
        if not np.isfinite(peak):
            finite = np.isfinite(mono)
            self.infinite += len(mono) - int(finite.sum())
            peak = float(np.abs(mono[finite]).max(initial=0.0))
        self.peak = max(self.peak, peak)
        if self.mixed and channels.shape[1] > 1:
            self.loudest = max(self.loudest, float(np.abs(channels).max()))

    @property
    def broken(self) -> bool:
        """Whether the recording is refused whatever samples follow."""
        return self.infinite > 0 or self.peak > LOUDEST

    def fault(self) -> tuple[str, str] | None:
        """Return a short reason and the numbers, or None if the sound is audible."""
        if self.infinite:
            return "not finite", f"{self.infinite} of {self.samples} samples"
        if self.peak > LOUDEST:
            return "out of range", f"peak {self.peak:.1e} of full scale, at most {LOUDEST:.1e}"
        if self.loudest >= SILENCE and self.peak < self.loudest * CANCELLED:
            return (
                "channels cancel",
                f"peak {self.loudest:.1e}, of their mean {self.peak:.1e}; set channel=first",
            )
        if self.samples and self.peak < SILENCE:
            return "silent", f"peak {self.peak:.1e} of full scale, needed {SILENCE:.0e}"
        return None

    def check(self, name: str) -> None:
        """Check the recording.

        Raises:
            AudioError: if it has no audible sound; the message says why.
        """
        found = self.fault()
        if found is None:
            return
        reason, detail = found
        what = "its channels cancel" if reason == "channels cancel" else f"it is {reason}"
        raise AudioError(
            f"{name} has no audible sound: {what} ({detail}); use another copy, or leave it out",
            reason,
        )


# Opening files.

UNKNOWN = 2**48  # frames; for a header without a length (FLAC from a pipe) libsndfile has 2**63 - 1


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Claim]]:
    import soundfile  # here, so that the command line prints its help fast

    _refuse_missing(path)
    header = Claim()
    try:
        with open_file(path) as raw:
            if not raw.read(1):
                raise EmptyAudioError(f"{path} has 0 bytes; download or convert it again")
            header = claim(raw)
            # as bytes, because a name need not be UTF-8; soundfile needs the rate of a `.raw` file
            plain = not header.head and path.suffix.lower() != ".raw"
            # "-" alone would mean standard input
            where = os.path.abspath(path)
            name = os.fsencode(where) if os.name == "posix" else where
            source: Any = name if plain else Patched(raw, header)
            if plain and inside(path) is not None:
                raw.seek(0)
                source = raw
            with soundfile.SoundFile(source) as file:
                if file.format == "MP3":
                    header = mp3_claim(raw)
                if file.format != "MP3" or not header.head or _agrees(file, header):
                    yield _sequential(file), header
                    return
            with soundfile.SoundFile(Patched(raw, header)) as file:
                yield _sequential(file), header
    except (soundfile.SoundFileError, RuntimeError) as error:
        _refuse_cut(path, header, 1.0)
        # libsndfile repeats the path in its message
        reason = str(error).partition(": ")[2] or str(error)
        raise _unreadable(path, reason.strip()) from None
    except OSError as error:
        if error.errno not in OF_A_FILE:  # an error of the machine, such as too many open files
            raise
        raise AudioError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions and its disk"
        ) from None


def _agrees(file: Any, header: Claim) -> bool:
    """Return whether libsndfile finds the counted length, within two frames of an MP3.

    libsndfile guesses the length from the first frame; this is right if all frames have one size.
    """
    return header.samples is not None and abs(file.frames - header.samples) <= 2304


def _sequential(file: Any) -> Any:
    """Return a file in which soundfile does not seek to its own position after each read.

    libsndfile cannot seek if it does not know the length. And some frames of an MP3 differ after a
    seek, because they depend on the frames before.
    """
    if file.frames >= UNKNOWN or file.format == "MP3":
        file.seekable = lambda: False
    return file


def _block(file: Any, count: int) -> Samples:
    samples: Samples = file.read(count, dtype="float32", always_2d=True)
    return samples


def _between(file: Any, first: int, last: int | None) -> Samples:
    """Return ``[S, channels]`` between two samples; None as last sample means all that follow."""
    if file.seekable():
        file.seek(first)
    else:
        left = first
        while left and (got := len(_block(file, min(left, BLOCK)))):
            left -= got
    if last is not None and last - first <= LONG:
        return _block(file, last - first)
    # not at once: a damaged header may promise more samples than fit into memory
    parts, left = [_block(file, 0)], UNKNOWN if last is None else last - first
    while left and len(part := _block(file, min(left, BLOCK))):
        parts.append(part)
        left -= len(part)
    return np.concatenate(parts)


def _refuse_cut(path: Path, header: Claim, seconds: float) -> None:
    """Refuse a file that is shorter than its header says; it holds ``seconds``."""
    again = "; download or convert it again"
    if header.broken:
        raise AudioError(f"{path} is cut short: {header.broken}{again}", "cut short")
    if (header.found or header.promised) and header.lacking * max(seconds, 1e-9) > 0.1:
        raise AudioError(
            f"{path} is cut short: its header promises {header.promised} {header.unit}, but it "
            f"holds {header.found}{again}",
            "cut short",
        )


def _check_whole(path: Path, promised: int, found: int, rate: int) -> None:
    if promised - found > 0.1 * rate:  # the header of an MP3 may be off by a frame
        raise AudioError(
            f"{path} is cut short: its header promises {promised} samples, but it holds {found}; "
            "download or convert it again",
            "cut short",
        )


def _refuse_missing(path: Path) -> None:
    """Refuse a path without a file, and a placeholder of a file that is elsewhere."""
    if inside(path) is not None and holds(path):
        return
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise AudioError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from None
    why = problem(path)
    if why and there:
        raise AudioError(
            f"{path}: {why}", "not fetched" if path.is_file() else "a pipe or a device"
        )
    if folder:
        raise AudioError(f"{path} is a folder, not an audio file; give a file", "a folder")
    if not there:
        more = why or "check root=, the folder to which paths are relative"
        raise MissingAudioError(f"no audio file at {path}; {more}")


_CONTENTS = (
    # bytes, their position, what they mean (the reason of a refusal), what to do
    (b"\0\5\26\7", 0, "what macOS puts beside a file", "leave it out"),
    (b"ftyp", 4, "MPEG-4 (m4a, mp4)", ""),
    (b"\x1aE\xdf\xa3", 0, "Matroska or WebM", ""),
    (b"0&\xb2u", 0, "Windows Media (wma)", ""),
    (b"#!AMR", 0, "AMR", ""),
    (b"\xff\xf1", 0, "AAC", ""),
    (b"\xff\xf9", 0, "AAC", ""),
    (b"\x0bw", 0, "AC-3", ""),
    (b"MAC ", 0, "Monkey's Audio (ape)", ""),
    (b"wvpk", 0, "WavPack", ""),
    (b"DSD ", 0, "DSD (dsf)", ""),
)


def _unreadable(path: Path, reason: str) -> AudioError:
    """Return the error for a file that libsndfile cannot read: what it is, and what to do."""
    with open_file(path) as file:
        start = file.read(512)
    quoted, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix(".wav")))
    if path.suffix.lower() == ".wav":
        target = shlex.quote(str(path.with_name(path.stem + "_converted.wav")))
    convert = f"convert it: `ffmpeg -i {quoted} {target}`"
    for magic, at, what, remedy in _CONTENTS:
        if start[at : at + len(magic)] == magic:
            return AudioError(
                f"{path} holds {what}, not audio that can be read; {remedy or convert}", what
            )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return AudioError(
            f"{path} is an HTML page or XML, not audio: the download failed; download it again",
            "a web page",
        )
    suffix = path.suffix.lower()
    if suffix in UNREADABLE_SUFFIXES:
        return AudioError(f"{path} cannot be read: {suffix} is not supported; {convert}", suffix)
    if suffix in (".raw", ".pcm"):
        return AudioError(
            f"{path} has no header, so its rate is unknown; convert it with its true format, rate "
            f"and channels: `ffmpeg -f s16le -ar 16000 -ac 1 -i {quoted} {target}`"
        )
    return AudioError(
        f"{path} cannot be read as audio ({reason}); convert it to wav or flac, or remove it"
    )
