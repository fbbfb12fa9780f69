"""Conditions that take prosody away, or leave little but prosody: what is gone, and what is not."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from facts import says
from serzoo.datamodules import corruption
from serzoo.datamodules import corruption as world
from serzoo.datamodules.corruption import Condition, Corruption
from serzoo.datamodules.distortions import lowpass
from serzoo.zoo.compare.conditions import load
from serzoo.zoo.core.errors import ConfigError

RATE = 16_000


def glide(start: float, end: float, seconds: float = 1.0, formant: float = 700) -> np.ndarray:
    """``[S]`` float32: a vowel whose F0 moves evenly from ``start`` to ``end`` Hz."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (start * t + (end - start) * t**2 / (2 * seconds))
    hertz = start + (end - start) * t / seconds
    wave = np.zeros_like(t)
    for k in range(1, 25):
        wave += np.sin(k * phase) / (1 + ((k * hertz - formant) / 150) ** 2)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def under(text: str, x: np.ndarray) -> np.ndarray:
    return Corruption(Condition.parse(text)).apply(x, "c/u").samples


def semitones(x: np.ndarray) -> np.ndarray:
    """F0 of the middle, in semitones above 100 Hz."""
    f0 = world.f0(x.astype(np.float64))[20:-20]
    assert np.mean(f0 > 0) > 0.95
    return 12 * np.log2(f0[f0 > 0] / 100)


def loudest_band(x: np.ndarray) -> float:
    """Hz: the centre of gravity of the spectrum of the middle."""
    power = np.abs(np.fft.rfft(x[4_000:12_000] * np.hanning(8_000))) ** 2
    return float((power * np.fft.rfftfreq(8_000, 1 / RATE)).sum() / power.sum())


@pytest.fixture
def pyworld() -> None:
    if not find_spec("pyworld"):
        pytest.skip("needs pyworld: pip install 'serzoo[prosody]'")


# Monotone, and its control.


def test_monotone_flattens_f0_and_resynthesis_keeps_it(pyworld: None) -> None:
    x = glide(120, 240)  # an octave
    before = semitones(x)
    assert before.std() > 2.5
    np.testing.assert_allclose(semitones(under("resynthesised", x)), before, atol=0.35)
    flat = semitones(under("monotone", x))
    assert flat.std() < 0.05
    assert np.median(flat) == pytest.approx(np.median(before), abs=0.1)


def test_monotone_keeps_timing_level_and_vowel(pyworld: None) -> None:
    quiet = np.zeros(RATE // 4, np.float32)
    x = np.concatenate([quiet, glide(150, 200), quiet, glide(200, 150), quiet])
    for text in ("resynthesised", "monotone"):
        y = under(text, x)
        assert len(y) == len(x)
        power = [np.sqrt(np.mean(w.reshape(-1, RATE // 4).astype(float) ** 2, 1)) for w in (x, y)]
        silent = power[0] == 0
        assert silent.tolist() == [True, *[False] * 4, True, *[False] * 4, True]
        assert (power[1][silent] < 0.1 * power[1].max()).all()
        np.testing.assert_allclose(power[1][~silent], power[0][~silent], rtol=0.2)
    low, high = (under("monotone", glide(140, 160, formant=f)) for f in (500, 1_200))
    assert loudest_band(low) == pytest.approx(500, abs=150)
    assert loudest_band(high) == pytest.approx(1_200, abs=150)


def test_where_there_is_nothing_to_flatten_it_is_its_control(pyworld: None) -> None:
    x = glide(150, 150)
    control, flat = (np.abs(np.fft.rfft(under(c, x))) ** 2 for c in corruption.WORLD)
    # the power of each harmonic of 150 Hz, in dB
    bands = [10 * np.log10(p[75 : 75 + 150 * 24].reshape(24, -1).sum(1)) for p in (control, flat)]
    np.testing.assert_allclose(bands[1], bands[0], atol=0.5)


def test_what_is_never_voiced_is_not_given_a_pitch(pyworld: None) -> None:
    x = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.05
    f0 = world.f0(x.astype(np.float64))
    if not np.any(f0):
        assert np.array_equal(under("monotone", x), under("resynthesised", x))
    assert np.mean(f0 > 0) < 0.2


def test_pyworld_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world.pyworld.cache_clear()
    monkeypatch.setattr(world, "find_spec", lambda name: None)
    for text in corruption.WORLD:
        with pytest.raises(ConfigError, match=says("pyworld", "pip install 'serzoo[prosody]'")):
            Corruption(Condition.parse(text))
    Corruption(Condition.parse("lowpass:400Hz"))  # needs none
    world.pyworld.cache_clear()


# Low-pass.


@pytest.mark.parametrize(("hz", "decibel"), [(100, 0), (300, -0.1), (400, -6.02), (800, -96)])
def test_the_low_pass_takes_what_it_says(hz: int, decibel: float) -> None:
    x = np.sin(2 * np.pi * hz * np.arange(2 * RATE) / RATE)
    y = lowpass(x, 400)
    middle = slice(RATE // 2, -RATE // 2)
    found = 20 * np.log10(np.std(y[middle]) / np.std(x[middle]))
    assert found == pytest.approx(decibel, abs=0.2 if decibel > -90 else 2)
    if decibel > -1:  # in time
        np.testing.assert_allclose(y[middle], x[middle], atol=0.02)


def test_the_low_pass_removes_words_and_leaves_intonation(pyworld: None) -> None:
    x = glide(120, 190)
    y = under("lowpass:400Hz", x)
    power = np.abs(np.fft.rfft(np.stack([x, y]) * np.hanning(RATE))) ** 2
    assert 10 * np.log10(power[1, 600:].sum() / power[0, 600:].sum()) < -60  # the vowel: 700 Hz
    assert 10 * np.log10(power[1, :300].sum() / power[0, :300].sum()) == pytest.approx(0, abs=0.1)
    np.testing.assert_allclose(semitones(y), semitones(x), atol=0.5)


# Reversed.


def test_reversed_twice_is_as_it_was() -> None:
    x = glide(120, 240)
    assert np.array_equal(under("reversed", x), x[::-1])
    assert np.array_equal(under("reversed", under("reversed", x)), x)


def test_reversed_speech_has_the_same_f0_the_other_way_round(pyworld: None) -> None:
    x = glide(120, 240)
    there, back = semitones(x), semitones(under("reversed", x))
    assert there[-1] - there[0] > 9 > -9 > back[-1] - back[0]
    assert there.mean() == pytest.approx(back.mean(), abs=0.1)
    assert there.std() == pytest.approx(back.std(), abs=0.1)


# The suite.


def test_the_suite_of_prosody_holds_each_control() -> None:
    suite = load("prosody")
    assert suite.conditions == [
        "clean", "resynthesised", "monotone", "lowpass:400Hz", "reversed"
    ]  # fmt: skip
    assert suite.of == "head_to_head"
