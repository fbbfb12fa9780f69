"""Find speech in recordings: by energy, with our own threshold, or by Silero's network.

A detector reads a recording piece by piece, and returns its segments of speech, in samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ..core.errors import ConfigError
from ..core.types import SAMPLE_RATE

Voice = Literal["none", "energy", "silero"]
VOICES = ("none", "energy", "silero")
Samples = npt.NDArray[np.float32]
Segments = list[tuple[int, int]]
Detector = Callable[[Iterable[Samples]], Segments]

STEP = SAMPLE_RATE // 100
"""Samples between two levels: 10 ms."""

CONTRAST, RANGE, STEADY, SILENCE = 10.0, 30.0, 6.0, -70.0
"""Decibels, all our choice. Speech is at least CONTRAST above the floor (the 10th percentile of
levels). It is at most RANGE below the loudest (the 99th percentile). The threshold is at least
STEADY below the loudest. Levels under SILENCE, relative to full scale, are never speech.
"""

BRIDGE, SHORTEST, MARGIN = 0.4, 0.1, 0.1
"""Seconds, our choice: longest pause within speech, shortest speech, and margin around speech."""

CHUNK = 512
"""Samples that Silero's network reads at a time, at 16 kHz."""


def check_voice(voice: str) -> None:
    """Check the name of a detector.

    Raises:
        ConfigError: if there is no such detector.
    """
    if voice not in VOICES:
        raise ConfigError(f"voice is '{voice}'; have {', '.join(VOICES)}")


def detector(voice: str) -> Detector | None:
    """Return the detector of a name; None for ``none``.

    Raises:
        ConfigError: if there is no such detector, or its package is not installed.
    """
    check_voice(voice)
    return {"none": lambda: None, "energy": lambda: by_energy, "silero": silero}[voice]()


def by_energy(pieces: Iterable[Samples]) -> Segments:
    """Find stretches whose level is clearly above the recording's own floor.

    Levels are root mean squares of 10 ms, smoothed over 50 ms. The threshold is the higher of
    floor + 10 dB and loudest - 30 dB. It is at least 6 dB below the loudest, so that a recording
    without pauses is kept. Percentiles ignore clicks, and do not depend on the share of silence.

    Args:
        pieces: samples of a recording, at 16 kHz.

    Returns:
        First sample and end of each stretch, in order.
    """
    levels, total = _levels(pieces)
    if not len(levels):
        return []
    floor, loudest = np.percentile(levels, [10, 99])
    threshold = min(max(floor + CONTRAST, loudest - RANGE), loudest - STEADY)
    speech = levels >= max(threshold, SILENCE)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speech.astype(int), [0]])))
    runs = [(int(a) * STEP, int(b) * STEP) for a, b in edges.reshape(-1, 2)]
    runs = [(a, b) for a, b in _join(runs, BRIDGE * SAMPLE_RATE) if b - a >= SHORTEST * SAMPLE_RATE]
    margin = round(MARGIN * SAMPLE_RATE)
    return _join([(max(0, a - margin), min(total, b + margin)) for a, b in runs], 0)


def _levels(pieces: Iterable[Samples]) -> tuple[npt.NDArray[np.float64], int]:
    """Return levels in dB of full scale, every 10 ms with a shorter rest, and the sample count."""
    powers, total = [], 0
    for chunk in rechunk(pieces, SAMPLE_RATE * 10, STEP):
        total += len(chunk)
        whole = np.zeros(-(-len(chunk) // STEP) * STEP)
        whole[: len(chunk)] = chunk
        powers.append(np.square(whole).reshape(-1, STEP).mean(1))
    if not powers:
        return np.zeros(0), 0
    power = np.concatenate(powers)
    count = np.convolve(np.ones(len(power)), np.ones(5), "same")
    smooth = np.convolve(power, np.ones(5), "same") / count
    return 10 * np.log10(np.maximum(smooth[: len(power)], 1e-12)), total


def _join(runs: Segments, gap: float) -> Segments:
    """Join stretches that are at most ``gap`` samples apart."""
    joined: Segments = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def rechunk(pieces: Iterable[Samples], size: int, unit: int = 1) -> Iterator[Samples]:
    """Yield the same samples in pieces of at least ``size``, in multiples of ``unit``.

    The last piece may be shorter.
    """
    kept: list[Samples] = []
    length = 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length >= size:
            whole = np.concatenate(kept)
            cut = length - length % unit
            yield whole[:cut]
            kept, length = [whole[cut:]], length - cut
    if length:
        yield np.concatenate(kept)


def silero() -> Detector:
    """Return the detector of ``silero-vad``: its ONNX network on the CPU, with our margins.

    Raises:
        ConfigError: if it is not installed.
    """
    threads = torch.get_num_threads()
    try:
        import onnxruntime  # noqa: F401
        import silero_vad
    except ImportError as e:
        raise ConfigError(
            f"voice=silero needs a package that is not installed ({e.name}); "
            "pip install 'serzoo[vad]', or use voice=energy"
        ) from e
    finally:
        torch.set_num_threads(threads)  # its import sets one thread for the whole process
    model: Any = silero_vad.load_silero_vad(onnx=True)  # the other format, TorchScript, is code

    def detect(pieces: Iterable[Samples]) -> Segments:
        model.reset_states()
        odds: list[float] = []
        total = 0
        for block in rechunk(pieces, CHUNK, CHUNK):
            total += len(block)
            for i in range(0, len(block), CHUNK):
                chunk = torch.zeros(CHUNK)
                part = torch.from_numpy(block[i : i + CHUNK])
                chunk[: len(part)] = part
                odds.append(float(model(chunk, SAMPLE_RATE)))
        found = silero_vad.get_speech_timestamps_from_probs(
            odds,
            sampling_rate=SAMPLE_RATE,
            audio_length_samples=total,
            min_silence_duration_ms=round(1000 * BRIDGE),
            speech_pad_ms=round(1000 * MARGIN),
        )
        return [(int(f["start"]), int(f["end"])) for f in found]

    return detect
