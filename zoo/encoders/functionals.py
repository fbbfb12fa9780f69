"""Functionals: one vector of named statistics that describes an utterance, without any learning.

They are spectral and cepstral statistics, F0 and voicing, level, timing and modulation.
:func:`names` lists every number. ``docs/reference/functionals.md`` has formulas, units and sources.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import fft
from torch import Tensor

from ..core.encoder import Encoder
from ..core.types import SAMPLE_RATE, Frames
from .mel import mel_filters
from .pitch import BLOCK, WINDOW, Floats, track, windows

VERSION = 1
"""A change of any formula raises it, so that stored vectors are computed again."""

WIN, HOP, N_FFT = 400, 160, 512  # samples: 25 ms, 10 ms
STEP = HOP / SAMPLE_RATE  # seconds
BANDS, CEPSTRA = 40, 24

RANGE, NOISE, LOUD = 40.0, 0.35, 6.0
"""Speech, in dB. It is at most RANGE below the loudest frame. In noise its distance to the 10th
percentile is also at least the share NOISE of that of the loudest. Frames within LOUD of the
loudest are always speech.
"""

CELL = 60.0  # dB below the loudest cell of a spectrogram at which all values are cut off
SILENT = 1e-6  # largest sample of a silent recording, relative to full scale: -120 dB
PAUSE = 10  # frames: 100 ms without speech
NOTHING = -120.0  # `level_mean` of a silent recording, in dB

MODULATIONS = ((0.5, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32))  # Hz
GROUPS = 8  # of neighbouring mel bands whose modulation is measured

PERCENTILES = {f"p{q:02d}": q / 100 for q in (5, 10, 25, 50, 75, 90, 95)}
SHAPE = (
    *("centroid", "spread", "rolloff", "entropy", "flatness", "flux"),
    *("slope_low", "slope_mid", "alpha", "hammarberg", "high"),
)
FIVE = ("mean", "sd", "p10", "p50", "p90")


@dataclass(frozen=True)
class Group:
    """Contours over frames, and the statistics of each.

    Attributes:
        contours: names of the contours.
        statistics: ``mean``, ``sd`` (of the population) and percentiles.
        voiced: whether the frames are those with a voice, instead of all frames of speech.
    """

    contours: tuple[str, ...]
    statistics: tuple[str, ...]
    voiced: bool = False


GROUPED: dict[str, Group] = {
    "cepstra": Group(
        tuple(f"c{k:02d}" for k in range(1, CEPSTRA + 1)),
        ("mean", "sd", "p10", "p25", "p75", "p90"),
    ),
    "deltas": Group(tuple(f"c{k:02d}_delta" for k in range(1, CEPSTRA + 1)), ("sd", "p10", "p90")),
    "voiced": Group(tuple(f"c{k:02d}_voiced" for k in range(1, 13)), ("mean", "sd"), voiced=True),
    "shape": Group(SHAPE, FIVE),
    "level": Group(("level",), ("sd", *PERCENTILES)),
    "level_delta": Group(("level_delta",), ("sd", "p10", "p90")),
    "f0": Group(("f0",), ("mean", "sd", *PERCENTILES), voiced=True),
    "hnr": Group(("hnr",), FIVE, voiced=True),
    "periodicity": Group(("periodicity",), FIVE),
}
TIMING = ("seconds", "speech_share", "pause_rate", "pause_longest")
VOICING = ("voiced_share", "voiced_rate", "voiced_mean", "voiced_sd", "voiced_longest")
LEVEL = ("level_mean", "level_slope", "level_begin", "level_end", "level_crest", "level_voiced")
F0 = ("f0_slope", "f0_begin", "f0_end", "f0_rise", "f0_fall", "f0_rising", "f0_level")
STEPS = ("jitter", "shimmer")
BAND_NAMES = tuple(
    f"modulation_{group}.{low:g}-{high:g}Hz"
    for group in range(1, GROUPS + 1)
    for low, high in MODULATIONS
)


@cache
def names() -> tuple[str, ...]:
    """Return the names of the F numbers in their order, such as ``c01.mean`` and ``seconds``."""
    grouped = (
        f"{contour}.{statistic}"
        for group in GROUPED.values()
        for contour in group.contours
        for statistic in group.statistics
    )
    return (*grouped, *TIMING, *VOICING, *LEVEL, *F0, *STEPS, *BAND_NAMES)


class VectorEncoder(Encoder):
    """An encoder that measures one vector of an utterance, as its only frame; nothing is learned.

    Each utterance is measured alone, on the CPU.
    """

    frame_seconds = 0.0  # one frame for the whole utterance

    @abstractmethod
    def measure(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``[F]`` numbers of ``[S]`` samples at 16 kHz, NaN if a sample is not finite."""

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        samples = audio.detach().float().cpu().numpy()
        rows = [self.measure(row[:n]) for row, n in zip(samples, lengths.tolist(), strict=True)]
        hidden = torch.from_numpy(np.stack(rows)).to(audio.device)
        mask = torch.ones(len(rows), 1, dtype=torch.bool, device=audio.device)
        return hidden[:, None, None], mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(hidden[:, 0], mask)

    @property
    def plain(self) -> bool:
        return True

    def describe(self) -> dict[str, Any]:
        """Return what decides the numbers, and how many there are."""
        return {**self.extraction(), "dim": self.dim, "parameters": 0}


class FunctionalsEncoder(VectorEncoder):
    """One vector of statistics for an utterance, as its only frame; nothing is learned.

    All numbers but ``level_mean`` are independent of the gain of the recording. If an utterance has
    no voice, its numbers of voiced frames are 0. If it is silent, all numbers are 0, except for a
    ``level_mean`` of -120 dB.
    """

    dim = len(names())

    def __init__(self) -> None:  # without it, a configuration could set any keyword
        super().__init__()

    def measure(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return functionals(samples)

    def extraction(self) -> dict[str, Any]:
        return {"type": "functionals", "version": VERSION}


def functionals(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return ``[F]`` statistics of ``[S]`` samples at 16 kHz; :func:`names` names them.

    They are finite for every recording of one sample or more. If a sample is not finite, none is.
    """
    if not np.isfinite(samples).all():
        return np.full(len(names()), np.nan, np.float32)
    silence = np.zeros(len(names()), np.float32)
    silence[names().index("level_mean")] = NOTHING
    peak = float(np.abs(samples).max())
    if peak < SILENT:
        return silence
    whole = samples / np.float32(peak)  # all but one number are independent of the gain
    count = max(0, -(-(len(whole) - WIN) // HOP)) + 1
    frames = windows(whole, WIN, HOP, count, 0)
    level = _levels(frames)
    if level.max() < NOTHING:
        return silence
    speech = is_speech(level)
    first, last = np.flatnonzero(speech)[[0, -1]]
    level, speech, count = level[first : last + 1], speech[first : last + 1], last - first + 1
    before = (WINDOW - WIN) // 2 - first * HOP  # the frames of F0 have the same centres
    pitch = track(whole[max(0, -before) :], HOP, count, max(0, before))
    voiced = speech & (pitch.hz > 0)
    mel, shape = _spectra(frames[first : last + 1])
    cepstra = fft.dct(mel, norm="ortho")[:, 1 : CEPSTRA + 1]
    tone = np.where(voiced, 12 * np.log2(np.maximum(pitch.hz, 1) / 100), 0.0)
    periodic = np.clip(pitch.strength, 0.01, 0.9999)
    relative = level - level[speech].mean()
    contours = {
        "cepstra": cepstra,
        "deltas": deltas(cepstra),
        "voiced": cepstra[:, :12],
        "shape": shape,
        "level": relative[:, None],
        "level_delta": deltas(relative[:, None]),
        "f0": tone[:, None],
        "hnr": 10 * np.log10(periodic / (1 - periodic))[:, None],
        "periodicity": pitch.strength[:, None],
    }
    parts = [
        statistics(contours[key][voiced if group.voiced else speech], group.statistics)
        for key, group in GROUPED.items()
    ]
    loudness = float(level[speech].mean()) + 20 * np.log10(peak)
    parts += [
        np.array(_timing(speech)),
        np.array(_voicing(voiced, speech)),
        np.array([loudness, *_level(relative, speech, voiced)]),
        np.array(_f0(tone, relative, voiced)),
        np.array(_steps(pitch.hz, relative, voiced)),
        modulation(mel),
    ]
    return np.concatenate(parts).astype(np.float32)


def statistics(x: Floats, which: tuple[str, ...]) -> Floats:
    """Return ``[d * len(which)]`` statistics of ``[n, d]`` values, the first column's first.

    If there is no value, they are 0. Percentiles are interpolated linearly.
    """
    n = len(x)
    if not n:
        return np.zeros(x.shape[1] * len(which))
    ordered = np.sort(x, axis=0)
    found = []
    for name in which:
        if name == "mean":
            found.append(x.mean(0))
        elif name == "sd":
            found.append(x.std(0))
        else:
            place = PERCENTILES[name] * (n - 1)
            low = int(place)
            high = min(low + 1, n - 1)
            found.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    return np.stack(found, 1).ravel()


def is_speech(level: Floats) -> npt.NDArray[np.bool_]:
    """Return which frames of levels ``[T]`` in dB are speech; at least the loudest is."""
    top = float(level.max())
    floor = float(np.percentile(level, 10))
    least = max(top - RANGE, floor + NOISE * (top - floor))
    return np.asarray(level >= min(least, top - LOUD))


def deltas(x: Floats) -> Floats:
    """Return the slope of ``[T, d]`` contours for each frame, by regression over five frames.

    The unit is that of the contour for a frame of 10 ms. Values at the ends are repeated.
    """
    p = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    return (2 * (p[4:] - p[:-4]) + p[3:-1] - p[1:-3]) / 10


def _levels(frames: npt.NDArray[np.float32]) -> Floats:
    """Return the level of each frame ``[T, WIN]`` in dB: mean power under a Hann window."""
    w = _hann(WIN)
    power = np.concatenate(
        [
            np.square((f - f.mean(1, keepdims=True)) * w).sum(1, dtype=np.float64)
            for f in _blocks(frames)
        ]
    )
    mean = power / np.square(w, dtype=np.float64).sum()
    return np.asarray(10 * np.log10(np.maximum(mean, 1e-13)))


def _blocks(frames: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    return [frames[i : i + BLOCK] for i in range(0, len(frames), BLOCK)]


@cache
def _hann(size: int) -> npt.NDArray[np.float32]:
    return np.hanning(size + 1)[:-1].astype(np.float32)


@cache
def _filters() -> npt.NDArray[np.float32]:
    return np.asarray(mel_filters(BANDS, N_FFT, 50, 8000).numpy())


def _spectra(frames: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return the log-mel spectrogram ``[T, BANDS]`` in dB, and ``[T, 11]`` shapes (SHAPE)."""
    w = _hann(WIN)
    blocks = _blocks(frames)
    power = [np.square(np.abs(fft.rfft((f - f.mean(1, keepdims=True)) * w, N_FFT))) for f in blocks]
    top = max(float(p.max()) for p in power)
    mel = np.concatenate([p @ _filters() for p in power]).astype(np.float64)
    mel = 10 * np.log10(np.maximum(mel, mel.max() * 10 ** (-CELL / 10)))
    least = top * 10 ** (-CELL / 10)
    shapes = [_shapes(np.maximum(p, least).astype(np.float64)) for p in power]
    spectra = np.concatenate([s for s, _ in shapes])
    amplitude = np.concatenate([a for _, a in shapes])
    step = np.linalg.norm(np.diff(amplitude, axis=0, prepend=amplitude[:1]), axis=1)
    spectra[:, SHAPE.index("flux")] = step
    return mel, spectra


def _shapes(power: Floats) -> tuple[Floats, npt.NDArray[np.float32]]:
    """Return ``[T, 11]`` shapes, with flux left out, and ``[T, bins]`` spectra of length 1."""
    hz = np.arange(power.shape[1]) * SAMPLE_RATE / N_FFT
    khz = hz / 1000
    p = power / power.sum(1, keepdims=True)
    db = 10 * np.log10(power)
    centroid = p @ khz
    spread = np.sqrt(np.maximum(p @ np.square(khz) - np.square(centroid), 0))
    rolloff = khz[(np.cumsum(p, 1) < 0.85).sum(1).clip(max=len(khz) - 1)]
    entropy = -(p * np.log2(p)).sum(1)
    flatness = db.mean(1) - 10 * np.log10(power.mean(1))

    def total(low: float, high: float) -> Floats:
        inside = (hz >= low) & (hz < high)
        return np.asarray(10 * np.log10(power[:, inside].sum(1)))

    def slope(low: float, high: float) -> Floats:
        inside = (hz >= low) & (hz < high)
        x = khz[inside] - khz[inside].mean()
        return np.asarray(db[:, inside] @ (x / np.square(x).sum()))

    def highest(low: float, high: float) -> Floats:
        return np.asarray(db[:, (hz >= low) & (hz < high)].max(1))

    found = np.stack(
        [
            *(centroid, spread, rolloff, entropy, flatness, np.zeros(len(p))),
            *(slope(0, 500), slope(500, 1500)),
            total(50, 1000) - total(1000, 5000),
            highest(0, 2000) - highest(2000, 5000),
            total(4000, 8001) - total(0, 8001),
        ],
        1,
    )
    return found, np.sqrt(p).astype(np.float32)


def _runs(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return np.asarray(edges[1::2] - edges[::2])


def _timing(speech: npt.NDArray[np.bool_]) -> list[float]:
    seconds = len(speech) * STEP
    pauses = _runs(~speech)
    pauses = pauses[pauses >= PAUSE]
    return [seconds, speech.mean(), len(pauses) / seconds, pauses.max(initial=0) * STEP]


def _voicing(voiced: npt.NDArray[np.bool_], speech: npt.NDArray[np.bool_]) -> list[float]:
    runs = _runs(voiced) * STEP
    if not len(runs):
        return [0.0] * len(VOICING)
    share = voiced.sum() / speech.sum()
    return [share, len(runs) / (len(speech) * STEP), runs.mean(), runs.std(), runs.max()]


def _level(
    level: Floats, speech: npt.NDArray[np.bool_], voiced: npt.NDArray[np.bool_]
) -> list[float]:
    """Return the numbers of LEVEL after the first; levels are relative to their mean."""
    rest = speech & ~voiced
    gap = level[voiced].mean() - level[rest].mean() if voiced.any() and rest.any() else 0.0
    begin, end = _thirds(level[speech])
    return [slope_of(level, speech), begin, end, level[speech].max(), gap]


def _f0(tone: Floats, level: Floats, voiced: npt.NDArray[np.bool_]) -> list[float]:
    if not voiced.any():
        return [0.0] * len(F0)
    step = np.diff(tone)[voiced[1:] & voiced[:-1]]
    rise, fall = step[step > 0], step[step < 0]
    begin, end = _thirds(tone[voiced] - tone[voiced].mean())
    return [
        *(slope_of(tone, voiced), begin, end),
        rise.mean() if len(rise) else 0.0,
        fall.mean() if len(fall) else 0.0,
        len(rise) / max(1, len(step)),
        _correlation(tone[voiced], level[voiced]),
    ]


def _steps(hz: Floats, level: Floats, voiced: npt.NDArray[np.bool_]) -> list[float]:
    inside = voiced[1:] & voiced[:-1]
    if not inside.any():
        return [0.0] * len(STEPS)
    period = 1 / np.maximum(hz, 1.0)
    jitter = np.abs(np.diff(period))[inside].mean() / period[voiced].mean()
    return [100 * jitter, np.abs(np.diff(level))[inside].mean()]


def _thirds(x: Floats) -> tuple[float, float]:
    """Return the mean of the first and of the last third of ``[n]`` values, n >= 1."""
    n = -(-len(x) // 3)
    return float(x[:n].mean()), float(x[-n:].mean())


def slope_of(x: Floats, used: npt.NDArray[np.bool_]) -> float:
    """Return the slope of ``[T]`` values in units per second, by regression over used frames."""
    t = np.flatnonzero(used) * STEP
    t = t - t.mean()
    squares = float(np.square(t).sum())
    return float(x[used] @ t) / squares if squares else 0.0


def _correlation(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
    return float(x @ y) / size if size > 1e-9 else 0.0


def modulation(mel: Floats) -> Floats:
    """Return ``[GROUPS * 6]`` levels in dB of the changes of bands over time.

    Args:
        mel: ``[T, BANDS]`` in dB.
    """
    x = mel.reshape(len(mel), GROUPS, -1).mean(2)
    window = np.hanning(len(x) + 2)[1:-1, None]
    size = max(1024, fft.next_fast_len(len(x), real=True))
    power = np.square(np.abs(fft.rfft((x - x.mean(0)) * window, size, axis=0)))
    power /= np.square(window).sum()
    hz = np.arange(len(power)) / (size * STEP)
    bands = [power[(hz >= low) & (hz < high)].mean(0) for low, high in MODULATIONS]
    return 10 * np.log10(np.stack(bands, 1) + 1e-2).ravel()
