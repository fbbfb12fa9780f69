"""How far the channels of a recording are the same sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BANDS = (250, 500, 1000, 2000, 4000)  # Hz, middles of the octaves that carry speech
QUIET = 30.0  # dB below the loudest octave; what is quieter is noise, and channels differ in noise
LOSS = 2.0  # dB, half-way (our choice) between 0, the same sound, and 3, sounds of their own
CHUNK = 2**16  # samples whose spectrum is taken at a time


def mean_loss(samples: npt.NDArray[np.float32], rate: int) -> float:
    """Decibels by which the mean of channels is weaker than that of channels which agree.

    The mean of channels with amplitudes a, b, ... that hold the same sound has their mean
    amplitude, whatever their levels: 0 dB, also if one of them is silent. Two different sounds of
    one level lose 3 dB, as do two speakers of a call. A copy that comes later, as from a second
    microphone, loses some octaves almost wholly (a comb filter); an inverted copy loses everything.
    The loss is measured in octaves from 250 to 4000 Hz and averaged over those within 30 dB of the
    loudest, so that low notes, where a short delay does no harm, do not decide alone.

    Args:
        samples: ``[S, channels]``, finite.
        rate: of these, in Hz.

    Returns:
        0 for one channel, or where nothing is to be heard; at most 60.
    """
    count = samples.shape[1]
    if count < 2:
        return 0.0
    edges = np.array([BANDS[0] / 2**0.5, *(b * 2**0.5 for b in BANDS)])
    mixed, each = np.zeros(len(BANDS)), np.zeros((len(BANDS), count))
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK].astype(np.float64)
        spectrum = np.fft.rfft(chunk, axis=0)
        octave = np.digitize(np.fft.rfftfreq(len(chunk), 1 / rate), edges) - 1
        for i in range(len(BANDS)):
            part = spectrum[octave == i]
            each[i] += np.square(np.abs(part)).sum(0)
            mixed[i] += np.square(np.abs(part.mean(1))).sum()
    agreeing = np.square(np.sqrt(each).mean(1))
    power = each.sum(1)
    heard = power > power.max() * 10 ** (-QUIET / 10)
    if not heard.any():
        return 0.0
    share = mixed[heard] / agreeing[heard]
    return float(np.mean(-10 * np.log10(np.clip(share, 1e-6, 1.0))))
