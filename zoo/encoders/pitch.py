"""F0 and voicing of a recording, by autocorrelation (Boersma 1993).

Boersma 1993: "Accurate short-term analysis of the fundamental frequency" (Institute of Phonetic
Sciences, Amsterdam, 17). Costs and thresholds are those of Praat's "To Pitch (ac)". The range and
the number of candidates are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from ..core.types import SAMPLE_RATE

Floats = npt.NDArray[np.float64]

LOW, HIGH = 65.0, 600.0
"""Range of F0 in Hz."""

WINDOW = 736
"""Samples of a frame: 46 ms, three periods of the lowest F0."""

SIZE = 1024  # of the Fourier transform: WINDOW and the longest lag fit in, so nothing wraps around
CANDIDATES = 6  # peaks of the autocorrelation that are kept of each frame

VOICING, SILENCE = 0.45, 0.03
OCTAVE, JUMP, CHANGE = 0.01, 0.35, 0.14
"""Costs of a low octave, of a jump by an octave, and of a change between voiced and unvoiced."""

BLOCK = 4096
"""Frames that are transformed at a time, so that a long recording takes little memory."""


@dataclass(frozen=True)
class Pitch:
    """F0 and periodicity of T frames.

    Attributes:
        hz: ``[T]`` F0 in Hz; 0 if the frame is unvoiced.
        strength: ``[T]`` normalised autocorrelation at the period, from 0 (noise) to 1 (periodic).
            If the frame is unvoiced, it is that of the strongest candidate.
    """

    hz: Floats
    strength: Floats


def windows(
    samples: npt.NDArray[np.float32], size: int, hop: int, count: int, before: int
) -> npt.NDArray[np.float32]:
    """Return a view ``[count, size]`` of samples, one window every ``hop``; zeros around them.

    Args:
        samples: ``[S]``.
        size: samples of a window.
        hop: samples from one window to the next.
        count: number of windows.
        before: zeros before the first sample.
    """
    need = (count - 1) * hop + size
    padded = np.pad(samples, (before, max(0, need - before - len(samples))))
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]


def track(samples: npt.NDArray[np.float32], hop: int, count: int, before: int) -> Pitch:
    """Return F0 and periodicity.

    Args:
        samples: ``[S]`` at 16 kHz.
        hop: samples from one frame to the next.
        count: T, number of frames.
        before: samples of the first window that lie before the first sample.
    """
    frames = windows(samples, WINDOW, hop, count, before)
    found = [_candidates(frames[i : i + BLOCK]) for i in range(0, count, BLOCK)]
    hz, r, peak = (np.concatenate(part) for part in zip(*found, strict=True))
    return _best_path(hz, r, peak / max(float(peak.max()), 1e-30), hop / SAMPLE_RATE)


def _candidates(frames: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Floats]:
    """Return F0 ``[T, N]`` and autocorrelation ``[T, N]`` of the candidates, and peaks ``[T]``."""
    x = frames - frames.mean(1, keepdims=True)
    peak = np.abs(x).max(1)
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    first, last = int(SAMPLE_RATE / HIGH), int(SAMPLE_RATE / LOW) + 1
    r = _autocorrelation(x * window)[:, first - 1 : last + 2]
    own = _autocorrelation(window[None])[:, first - 1 : last + 2]
    r = r / own
    left, middle, right = r[:, :-2], r[:, 1:-1], r[:, 2:]
    is_peak = (middle > left) & (middle >= right) & (middle > 0)
    # a parabola through three lags gives the place and the height of the peak
    bend = np.where(is_peak, left - 2 * middle + right, -1.0)
    shift = np.clip(0.5 * (left - right) / np.minimum(bend, -1e-12), -0.5, 0.5)
    height = np.where(is_peak, np.minimum(middle - 0.25 * (left - right) * shift, 1.0), 0.0)
    lag = np.arange(first, last + 1) + shift
    strength = np.where(is_peak, height - OCTAVE * np.log2(LOW * lag / SAMPLE_RATE), -np.inf)
    best = np.argsort(-strength, axis=1, kind="stable")[:, :CANDIDATES]
    kept = np.take_along_axis(is_peak, best, 1)
    hz = np.where(kept, SAMPLE_RATE / np.take_along_axis(lag, best, 1), 0.0)
    return hz, np.take_along_axis(height, best, 1), peak.astype(np.float64)


def _autocorrelation(x: npt.NDArray[np.float32]) -> Floats:
    """Return ``[T, SIZE]`` autocorrelations of ``[T, WINDOW]``, 1 at lag 0; zeros of silence."""
    power = np.square(np.abs(fft.rfft(x, SIZE)))
    r = fft.irfft(power, SIZE).astype(np.float64)
    return np.asarray(r / np.maximum(r[:, :1], 1e-20))


def _best_path(hz: Floats, r: Floats, peak: Floats, step: float) -> Pitch:
    """Return the path of the largest strength minus costs (Viterbi); candidate 0 is unvoiced."""
    count, scale = len(hz), 0.01 / step
    strength = r - OCTAVE * np.log2(LOW / np.maximum(hz, LOW))
    strength[hz == 0] = -np.inf
    unvoiced = VOICING + np.maximum(0.0, 2 - peak * (1 + VOICING) / SILENCE)
    strength = np.concatenate([unvoiced[:, None], strength], 1)
    tone = np.concatenate([np.zeros((count, 1)), np.log2(np.maximum(hz, 1.0))], 1)
    voiced = np.concatenate([np.zeros((count, 1), bool), hz > 0], 1)
    both = voiced[:-1, :, None] & voiced[1:, None]
    cost = scale * np.where(
        both,
        JUMP * np.abs(tone[:-1, :, None] - tone[1:, None]),
        CHANGE * (voiced[:-1, :, None] != voiced[1:, None]),
    )
    total, back = strength[0], np.zeros(strength.shape, np.int64)
    places = np.arange(strength.shape[1])
    for t in range(1, count):
        ways = total[:, None] - cost[t - 1]
        back[t] = ways.argmax(0)
        total = ways[back[t], places] + strength[t]
    path = np.zeros(count, np.int64)
    path[-1] = int(total.argmax())
    for t in range(count - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    rows = np.arange(count)
    chosen = np.concatenate([np.zeros((count, 1)), hz], 1)[rows, path]
    heights = np.concatenate([r.max(1, keepdims=True), r], 1)[rows, path]
    return Pitch(chosen, heights)
