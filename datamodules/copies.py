"""Corrupted copies of training utterances: generated noise, rooms, channels and coders.

They make a model work in noise that it never heard. Nothing recorded is used: recorded noises and
rooms are for the test (:mod:`.corruption`). A copy depends on the samples of the utterance and on
its number only. So every head, seed and process trains on the same copies, and the feature store
keeps them. The ranges are those of :mod:`.distortions`. The shares are our choice.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from .audio import SAMPLE_RATE, Samples
from .distortions import (
    RANGES,
    Signal,
    at_snr,
    coloured,
    mu_law,
    peak_gain,
    reverberate,
    telephone,
    tilt,
)

VERSION = 1
"""Raise it whenever copies change, so that stored features are computed again."""

CLEAN_SHARE = 0.5
"""Share of the clean utterance in what training draws; the copies share the rest."""

SHARES = {"room": 0.3, "tilt": 0.3, "noise": 0.7, "clip": 0.1, "telephone": 0.15, "mu_law": 0.1}
"""How often each distortion is in a copy. If none is, noise is."""


def corrupted(samples: Samples, copy: int) -> Samples:
    """Return ``[S]`` float32 samples: a corrupted copy of an utterance, aligned with it.

    Args:
        samples: ``[S]`` float32 at 16 kHz. Silence stays as it is.
        copy: number of the copy, from 1.
    """
    if not np.any(samples):
        return samples
    digest = hashlib.sha256(f"copy {VERSION}.{copy}|".encode() + samples.tobytes()).digest()
    rng = np.random.default_rng(list(digest))
    drawn = {kind for kind, share in SHARES.items() if rng.random() < share} or {"noise"}
    x = samples.astype(np.float64)
    if "room" in drawn:
        x = reverberate(x, _room(rng))
    if "tilt" in drawn:
        x = tilt(x, float(rng.uniform(*RANGES["tilt"])))
    if "noise" in drawn:
        noise = coloured(len(x), float(rng.uniform(*RANGES["colour"])), rng)
        x = x + at_snr(x, noise, rng.uniform(*RANGES["snr"]))
    if "clip" in drawn:
        level = np.quantile(np.abs(x), 1 - rng.uniform(*RANGES["clipped"]))
        x = np.clip(x, -level, level)
    if "telephone" in drawn:
        x = telephone(x)[0][: len(samples)]
        x = np.pad(x, (0, len(samples) - len(x)))
    if "mu_law" in drawn:
        x = mu_law(x * peak_gain(x))
    return np.asarray(x * peak_gain(x), dtype=np.float32)


def _room(rng: np.random.Generator) -> Signal:
    """Return the impulse response of a synthetic room: noise that decays exponentially."""
    decay, above = rng.uniform(*RANGES["decay"]), rng.uniform(*RANGES["direct"])
    time = np.arange(round(decay * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.normal(size=len(time)) * np.exp(-3 * math.log(10) * time / decay)
    echo /= np.sqrt(np.sum(echo**2))
    room = echo * 10 ** (-above / 20)
    room[0] = 1.0 + abs(room).max()  # the direct sound is the peak
    return np.asarray(room)
