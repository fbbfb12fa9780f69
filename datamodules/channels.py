"""How far the channels of a recording are the same sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BANDS = (250, 500, 1000, 2000, 4000)  # Hz, middles of the octaves that carry speech
QUIET = 30.0  # dB below the loudest octave; what is quieter is noise, and channels differ in noise
FAINT = 20.0  # dB below the loudest channel of an octave; less does no harm to the mean
LOSS = 2.0  # dB, between 0, the same sound, and 3, two sounds (all of these are our choice)
CHUNK = 2**16  # samples whose spectrum is taken at a time


def mean_loss(samples: npt.NDArray[np.float32], rate: int) -> float:
    """Decibels by which the mean of channels is weaker than that of channels which agree.

    Measured in the octaves from 250 to 4000 Hz, of channels brought to one level, and averaged over
    the octaves within 30 dB of the loudest, so that low notes, where a short delay does no harm, do
    not decide alone. In each octave a channel counts if it is within 20 dB of the loudest.

    The same sound at any levels loses nothing, nor does one channel beside silence. Two sounds lose
    3 dB, as do two speakers of a call. A copy that comes later, as from a second microphone, loses
    some octaves almost wholly (a comb filter); an inverted copy loses everything.

    Args:
        samples: ``[S, channels]``, finite.
        rate: of these, in Hz.

    Returns:
        0 for one channel, or if nothing is to be heard; at most 60.
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
