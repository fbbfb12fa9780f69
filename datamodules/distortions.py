"""Distortions of speech: noise, rooms, telephones, coders; pure functions of samples.

All functions take and return ``[S]`` float64 at 16 kHz.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..zoo.core.errors import ConfigError
from .audio import SAMPLE_RATE

MP3_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of MPEG-2, at 16 kHz
MP3_DELAY = 576 + 529  # samples of encoder and decoder, if the file does not state its delay
TELEPHONE = (8_000, 300.0, 3_400.0)  # rate and band, Hz

RANGES = {
    "snr": (5.0, 35.0),  # dB of the speech above an added noise
    "colour": (0.0, 2.0),  # exponent of a noise's falling power: white to brown
    "decay": (0.15, 0.8),  # seconds in which a room's echo falls by 60 dB
    "direct": (0.0, 15.0),  # dB of the direct sound above the echo
    "tilt": (-6.0, 6.0),  # dB at 8 kHz (:func:`tilt`)
    "clipped": (0.01, 0.1),  # share of the samples that clipping holds at one level
}
"""Ranges from which training draws distortions: :mod:`.copies` and :mod:`.corrupting`. Our choice.
Recorded noises and rooms are for the test (:mod:`.corruption`)."""

Signal = npt.NDArray[np.float64]


def peak_gain(x: Signal) -> float:
    """Return the factor that brings the largest sample into -1..1; 1 if it is inside."""
    return 1.0 / max(1.0, float(np.abs(x).max(initial=0.0)))


def at_snr(speech: Signal, noise: Signal, snr: float) -> Signal:
    """Return ``noise [S]`` scaled to a mean power ``snr`` dB below that of ``speech [S]``.

    Both means are over the whole utterance, pauses included.
    """
    power = np.mean(speech**2) / np.mean(noise**2)
    return np.asarray(noise * np.sqrt(power * 10 ** (-snr / 10)))


def pink(n: int, rng: np.random.Generator) -> Signal:
    """Return ``[n]`` noise, n >= 2, whose power falls by 3 dB per octave, without constant part."""
    return coloured(n, 1.0, rng)


def coloured(n: int, exponent: float, rng: np.random.Generator) -> Signal:
    """Return ``[n]`` noise without constant part, whose power falls with a frequency's power.

    Args:
        n: number of samples; noise of one sample has no colour.
        exponent: 0 = white, 1 = pink (3 dB an octave), 2 = brown (6 dB an octave).
        rng: draws the noise.
    """
    if n < 2:
        return rng.normal(size=n)
    spectrum = np.fft.rfft(rng.normal(size=n))
    spectrum[0] = 0
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
    return np.asarray(np.fft.irfft(spectrum, n))


def tilt(speech: Signal, gain: float) -> Signal:
    """Return ``[S]`` with a tilted spectrum, and with the old power.

    Args:
        speech: ``[S]``.
        gain: dB at 8 kHz; as much is lost at 125 Hz, and nothing changes at 1 kHz. Between them the
            gain is linear in octaves, and below 125 Hz it is constant.
    """
    spectrum = np.fft.rfft(speech)
    hertz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE).clip(125)
    tilted = np.fft.irfft(spectrum * 10 ** (gain * np.log2(hertz / 1000) / 3 / 20), len(speech))
    power = np.mean(tilted**2)
    return np.asarray(tilted * np.sqrt(np.mean(speech**2) / power) if power > 0 else tilted)


def mu_law(speech: Signal) -> Signal:
    """Return ``[S]`` within -1..1 after the 8 bits of mu-law (ITU-T G.711, its formula)."""
    small = np.sign(speech) * np.log1p(255 * np.abs(speech)) / np.log(256)
    coded = np.round(small * 127) / 127
    return np.asarray(np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255)


def reverberate(speech: Signal, room: Signal) -> Signal:
    """Return ``speech [S]`` in a room, with its old power.

    The direct sound (the peak of the response) keeps its time. The tail after the end of the
    utterance is cut.
    """
    from scipy.signal import fftconvolve

    direct = int(np.abs(room).argmax())
    wet = fftconvolve(speech, room)[direct : direct + len(speech)]
    power = np.mean(wet**2)
    return np.asarray(wet * np.sqrt(np.mean(speech**2) / power) if power > 0 else wet)


def telephone(speech: Signal) -> tuple[Signal, float]:
    """Return ``[S]`` through a telephone line, and the factor by which it was scaled.

    The line has a rate of 8 kHz, a zero-phase band-pass (Butterworth, order 4) and G.711 mu-law.
    The scaling comes before mu-law, which allows only -1..1.
    """
    import soundfile
    import soxr
    from scipy.signal import butter, sosfiltfilt

    rate, low, high = TELEPHONE
    narrow = soxr.resample(speech, SAMPLE_RATE, rate, quality="HQ")
    sections = butter(4, (low, high), btype="bandpass", fs=rate, output="sos")
    if len(narrow) > 1:
        narrow = sosfiltfilt(sections, narrow, padlen=min(len(narrow) - 1, 3 * 9))
    gain = peak_gain(narrow)
    file = io.BytesIO()
    soundfile.write(file, narrow * gain, rate, format="WAV", subtype="ULAW")
    file.seek(0)
    wide = soxr.resample(soundfile.read(file)[0], rate, SAMPLE_RATE, quality="HQ")
    return np.asarray(wide), gain


def lowpass(speech: Signal, cutoff: float) -> Signal:
    """Return ``[S]`` without the frequencies above ``cutoff`` in Hz; level and time stay.

    A Butterworth filter of order 8 runs forwards and backwards. It gives 6 dB less at the cut-off,
    96 dB less one octave above it. Our choice.
    """
    from scipy.signal import butter, sosfiltfilt

    sections = butter(8, cutoff, fs=SAMPLE_RATE, output="sos")
    if len(speech) < 2:
        return speech
    return np.asarray(sosfiltfilt(sections, speech, padlen=min(len(speech) - 1, 3 * 17)))


def mp3(speech: Signal, rate: float) -> Signal:
    """Return ``[S]`` within -1..1 coded as MP3 at a constant rate in kbit/s, without its delay."""
    level = min(0.999, (160 - rate) / 152)  # libsndfile's scale at 16 kHz; it refuses 1
    coded = code(speech, "MP3", "MPEG_LAYER_III", level, bitrate_mode="CONSTANT")[0]
    # at low rates there is no space for a header, so the samples begin with the delay
    return coded if len(coded) == len(speech) else coded[MP3_DELAY:]


def opus(speech: Signal, rate: float) -> Signal:
    """Return ``[S]`` within -1..1 coded as Opus in Ogg at a mean rate of about ``rate`` kbit/s."""
    return code(speech, "OGG", "OPUS", (256 - rate) / 250)[0]


CODECS: dict[str, Callable[..., Signal]] = {"mp3": mp3, "opus": opus}


def code(
    speech: Signal, container: str, subtype: str, level: float, **options: Any
) -> tuple[Signal, int]:
    """Code and decode samples in memory; return them, and the number of coded bytes."""
    import soundfile

    file = io.BytesIO()
    try:
        with soundfile.SoundFile(
            file, "w", SAMPLE_RATE, 1, format=container, subtype=subtype,
            compression_level=level, **options,
        ) as coder:  # fmt: skip
            coder.write(speech.astype(np.float32))
        size = len(file.getvalue())
        file.seek(0)
        return soundfile.read(file)[0], size
    except (soundfile.SoundFileError, ValueError) as error:
        raise ConfigError(
            f"libsndfile {soundfile.__libsndfile_version__} cannot code {subtype} ({error}); "
            "install soundfile 0.13 or later, or leave the condition out"
        ) from None
