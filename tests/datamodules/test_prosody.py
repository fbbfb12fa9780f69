"""Prosody in numbers, on sounds whose F0, level and rhythm are known by how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from facts import says
from serzoo.datamodules import prosody as module
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.prosody import QUANTITIES, Measured, measure, prosody, syllables
from serzoo.zoo.core.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(
    not find_spec("pyworld"), reason="needs pyworld: pip install 'serzoo[prosody]'"
)

RATE = 16_000


def voice(hertz: np.ndarray) -> np.ndarray:
    """``[S]``: ten harmonics of equal power of a moving F0, of root mean square 0.1."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    x = sum(np.sin(k * phase) for k in range(1, 11))
    return (0.1 * x / np.sqrt(np.mean(x**2))).astype(np.float32)


def seconds(n: float) -> np.ndarray:
    return np.arange(int(n * RATE)) / RATE


# F0.


@pytest.mark.parametrize("hertz", [90.0, 200.0, 440.0])
def test_a_steady_tone_has_its_f0_and_no_variability(hertz: float) -> None:
    found = measure(voice(np.full(RATE, hertz)))
    assert found.f0_mean == pytest.approx(12 * np.log2(hertz / 100), abs=0.05)
    assert found.f0_sd < 0.25  # the ends


@pytest.mark.parametrize("reach", [2.0, 6.0])
def test_a_glide_has_the_deviation_of_a_uniform_distribution(reach: float) -> None:
    tones = 6 + reach * (seconds(1.5) / 1.5 - 0.5)  # semitones above 100 Hz, evenly in time
    found = measure(voice(100 * 2 ** (tones / 12)))
    assert found.f0_mean == pytest.approx(6, abs=0.1)
    assert found.f0_sd == pytest.approx(reach / np.sqrt(12), rel=0.06)


def test_f0_does_not_depend_on_level_nor_level_on_f0() -> None:
    x = voice(150 + 30 * np.sin(2 * np.pi * seconds(1)))
    loud, quiet = measure(x), measure(0.1 * x)
    assert loud.f0_mean == pytest.approx(quiet.f0_mean, abs=0.02)
    assert loud.f0_sd == pytest.approx(quiet.f0_sd, abs=0.02)
    assert loud.energy_mean - quiet.energy_mean == pytest.approx(20, abs=0.01)
    assert loud.energy_sd == pytest.approx(quiet.energy_sd, abs=0.01)


def test_noise_and_silence_have_no_f0() -> None:
    silent = measure(np.zeros(RATE, np.float32))
    assert np.isnan([silent.f0_mean, silent.f0_sd, silent.energy_mean, silent.energy_sd]).all()
    assert (silent.seconds, silent.nuclei) == (0, 0)
    noise = measure(np.random.default_rng(0).normal(0, 0.1, 400).astype(np.float32))
    assert np.isnan(noise.f0_mean)
    assert noise.energy_mean == pytest.approx(-20, abs=2.5)


# Level.


def test_a_steady_sound_has_its_level_whatever_is_around_it() -> None:
    x = voice(np.full(2 * RATE, 150.0))
    alone = measure(x)
    assert alone.energy_mean == pytest.approx(-20, abs=0.15)
    within = measure(np.pad(x, RATE))  # silence is no speech
    assert within.energy_mean == pytest.approx(alone.energy_mean, abs=0.15)
    assert within.seconds == pytest.approx(alone.seconds, abs=0.04) == pytest.approx(2, abs=0.04)


def test_two_levels_have_their_mean_and_deviation() -> None:
    gain = np.where(seconds(4) < 2, 1, 10 ** (-12 / 20))
    found = measure((voice(np.full(4 * RATE, 150.0)) * gain).astype(np.float32))
    assert found.energy_mean == pytest.approx(-26, abs=0.2)
    assert found.energy_sd == pytest.approx(6, abs=0.2)


# Rate.


@pytest.mark.parametrize("rate", [2, 4, 6])
def test_what_swells_n_times_a_second_has_n_syllables_a_second(rate: int) -> None:
    gain = np.sin(np.pi * rate * seconds(3)) ** 2
    found = measure((voice(np.full(3 * RATE, 150.0)) * gain).astype(np.float32))
    assert found.nuclei == 3 * rate
    assert found.nuclei / found.seconds == pytest.approx(rate, rel=0.05)


def test_swelling_noise_and_ripples_are_no_syllables() -> None:
    gain = np.sin(np.pi * 4 * seconds(2)) ** 2
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE) * gain
    assert measure(noise.astype(np.float32)).nuclei <= 1  # unvoiced
    ripple = 1 + 0.1 * np.sin(2 * np.pi * 4 * seconds(2))  # dips of less than 2 dB
    assert measure((voice(np.full(2 * RATE, 150.0)) * ripple).astype(np.float32)).nuclei <= 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Kids are talking by the door", 8),
        ("Der Lappen liegt auf dem Eisschrank.", 8),
        ("Über's Öl, naïve café", 7),
        ("hmm", 1),
        ("...", None),
        ("", None),
        ("話す", None),
    ],
)
def test_syllables_are_groups_of_vowel_letters(text: str, number: int | None) -> None:
    assert syllables(text) == number


# The prosody of a corpus.


@pytest.fixture
def spoken(
    tmp_path: Path, write_wave: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Utterance], dict[str, Path]]:
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    us = []
    for i, (hertz, n) in enumerate([(100.0, 1), (200.0, 2), (150.0, 1)]):
        write_wave(tmp_path / f"{i}.wav", voice(np.full(n * RATE, hertz)))
        us.append(Utterance(f"c/{i}", "c", f"{i}.wav", 0.0, float(n), RATE, "s", text="no, no"))
    return us, {"c": tmp_path}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def spy(samples: np.ndarray) -> Measured:
        calls.append(len(samples))
        return measure(samples)

    monkeypatch.setattr(module, "measure", spy)
    return calls


def test_quantities_in_order_and_rate_from_text(
    spoken: tuple[list[Utterance], dict[str, Path]],
) -> None:
    us, roots = spoken
    found = prosody(us, roots, max_seconds=20)
    assert tuple(found.values) == QUANTITIES
    assert len(QUANTITIES) == 5
    np.testing.assert_allclose(found.values["f0_mean"], [0, 12, 12 * np.log2(1.5)], atol=0.1)
    assert found.rate_from == "text"
    np.testing.assert_allclose(found.values["rate"], [2, 1, 2], rtol=0.03)


def test_one_utterance_without_text_and_all_are_listened_to(
    spoken: tuple[list[Utterance], dict[str, Path]],
) -> None:
    us, roots = spoken
    mute = [*us[:2], Utterance("c/2", "c", "2.wav", 0.0, 1.0, RATE, "s")]
    found = prosody(mute, roots, max_seconds=20)
    assert found.rate_from == "audio"
    assert (found.values["rate"] <= 1).all()  # steady sounds have no dips
    assert prosody(us, roots, max_seconds=20, rate_from="audio").rate_from == "audio"
    with pytest.raises(DataError, match=says("1 of 3", "c/2")):
        prosody(mute, roots, max_seconds=20, rate_from="text")
    with pytest.raises(DataError, match=says("1 of 3", "c/1", "rate_from=audio")):
        prosody(us, roots, max_seconds=1.5, rate_from="text")
    with pytest.raises(ConfigError, match=says("'words'", "auto, text, audio")):
        prosody(us, roots, max_seconds=20, rate_from="words")  # type: ignore[arg-type]


def test_what_was_measured_is_kept_and_torn_lines_are_measured_again(
    spoken: tuple[list[Utterance], dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    us, roots = spoken
    calls = counted(monkeypatch)
    first = prosody(us, roots, max_seconds=20)
    assert calls == [RATE, 2 * RATE, RATE]
    again = prosody(us[::-1], roots, max_seconds=20)
    assert len(calls) == 3
    for name in QUANTITIES:
        np.testing.assert_array_equal(first.values[name], again.values[name][::-1])
    prosody(us, roots, max_seconds=1.5)  # only what is cut is another sound
    assert calls[3:] == [24_000]
    (path,) = (tmp_path / "cache" / "prosody").glob("*.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][:20]]))
    prosody(us, roots, max_seconds=1.5)
    assert calls[4:] == [24_000]
    assert [json.loads(line)["nuclei"] for line in path.read_text().splitlines()[4:]] == [0]
    prosody(us, roots, max_seconds=1.5)
    assert len(calls) == 5


def test_another_way_of_measuring_is_another_file(
    spoken: tuple[list[Utterance], dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    us, roots = spoken
    silence = np.zeros(RATE, np.float32)
    monkeypatch.setattr(module, "read_utterance", lambda *_: silence)
    found = prosody(us, roots, max_seconds=20)
    assert all(np.isnan(found.values[name]).all() for name in QUANTITIES)
    assert np.isnan(prosody(us, roots, max_seconds=20).values["f0_mean"]).all()  # from the file
    monkeypatch.setitem(module.METHOD, "version", 2)
    prosody(us, roots, max_seconds=20)
    assert len(list((tmp_path / "cache" / "prosody").glob("*.jsonl"))) == 2
