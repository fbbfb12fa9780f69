"""F0 by autocorrelation, against tones, noise and the textbook formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import chirp
from serzoo.zoo.encoders.pitch import Pitch, track, windows

RATE, HOP = 16_000, 160


def tracked(x: np.ndarray) -> Pitch:
    return track(x.astype(np.float32), HOP, max(1, (len(x) - 400) // HOP + 1), 168)


def voice(hz: float, seconds: float = 1.0) -> np.ndarray:
    """Seven harmonics, each weaker than the one below."""
    t = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 8))


@pytest.mark.parametrize("hz", [80.0, 123.4, 220.0, 440.0, 590.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_tone_has_its_own_pitch(hz: float, noise: float) -> None:
    x = voice(hz)
    found = tracked(x + noise * np.random.default_rng(0).standard_normal(len(x)))
    assert (found.hz > 0).all()
    assert np.abs(found.hz / hz - 1).max() < 0.01  # a sixth of a semitone, in every frame
    assert found.strength.mean() > 0.97


def test_a_gliding_tone_is_followed() -> None:
    t = np.arange(2 * RATE) / RATE
    found = tracked(chirp(t, 100, 2, 300))
    middle = np.arange(len(found.hz)) * HOP / RATE + 200 / RATE  # of each frame, in seconds
    inside = slice(3, -3)  # frames at the ends hold zeros
    assert np.abs(found.hz - (100 + 100 * middle))[inside].max() < 3


def test_noise_and_silence_have_no_voice() -> None:
    noise = tracked(0.1 * np.random.default_rng(0).standard_normal(RATE))
    assert not noise.hz.any()
    assert noise.strength.mean() < 0.3
    silence = tracked(np.zeros(RATE))
    assert not silence.hz.any()
    assert not silence.strength.any()


def test_a_pause_between_tones_is_unvoiced() -> None:
    quiet = np.zeros(RATE // 2)
    found = tracked(np.concatenate([voice(150, 0.5), quiet, voice(150, 0.5)]))
    assert (found.hz[:46] > 0).all()
    assert not found.hz[56:94].any()
    assert (found.hz[104:] > 0).all()


def test_half_a_pitch_is_not_taken_for_it() -> None:
    """A missing low harmonic, and a frame whose autocorrelation is as high at two periods."""
    t = np.arange(RATE) / RATE
    without_first = 0.1 * sum(np.sin(2 * np.pi * 200 * k * t) for k in (2, 3, 4))
    assert np.abs(tracked(without_first).hz - 200).max() < 2


def test_periodicity_is_the_share_of_the_harmonic_power() -> None:
    """Boersma 1993, eq. 4: r = H / (H + N), here of a voice in noise at 10 dB."""
    x = voice(200, 4.0)
    power = np.square(x).mean()
    noise = np.sqrt(power / 10) * np.random.default_rng(1).standard_normal(len(x))
    found = tracked(x + noise)
    assert found.strength.mean() == pytest.approx(10 / 11, abs=0.02)


def test_a_long_recording_is_transformed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = voice(180, 1.0)
    whole = tracked(x)
    monkeypatch.setattr("serzoo.zoo.encoders.pitch.BLOCK", 7)
    parts = tracked(x)
    assert np.allclose(whole.hz, parts.hz)
    assert np.allclose(whole.strength, parts.strength)


def test_windows_lie_where_they_should() -> None:
    found = windows(np.arange(1, 6, dtype=np.float32), 4, 2, 3, 1)
    assert found.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 0]]
