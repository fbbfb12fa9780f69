"""Functionals, against formulas of scipy and signals whose numbers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy
import torch
from close import assert_like
from serzoo.datamodules.features import pad_waves
from serzoo.zoo.encoders.functionals import (
    F0,
    GROUPED,
    LEVEL,
    VERSION,
    FunctionalsEncoder,
    deltas,
    functionals,
    is_speech,
    modulation,
    names,
    slope_of,
    statistics,
)
from serzoo.zoo.encoders.mel import mel_filters
from serzoo.zoo.run.config import load
from serzoo.zoo.run.train import train
from waves import speech

RATE = 16_000
T = np.arange(RATE) / RATE


def measured(x: np.ndarray) -> dict[str, float]:
    return dict(zip(names(), functionals(x.astype(np.float32)).tolist(), strict=True))


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def voice(hz: float) -> np.ndarray:
    return 0.1 * sum(np.sin(2 * np.pi * hz * k * T) / k for k in range(1, 8))


def test_every_number_has_a_name_of_its_own() -> None:
    assert len(names()) == len(set(names())) == FunctionalsEncoder.dim == len(functionals(noise()))


def test_the_documentation_lists_every_contour_and_number() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "functionals.md"
    if not page.is_file():
        pytest.skip("the tests run without the documentation")
    text = page.read_text("utf-8")
    contours = {n.partition(".")[0] for n in names()}
    series = {n for n in contours if n[0] == "c" and n[1:3].isdigit()}
    alone = {n for n in contours - series if not n.startswith("modulation_")}
    assert [n for n in sorted(alone) if f"`{n}`" not in text] == []
    for pattern in ("`cNN`", "`cNN_delta`", "`cNN_voiced`", "`modulation_G.LOW-HIGHHz`"):
        assert pattern in text
    assert f"{len(names())} numbers" in text


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.01])
def test_the_level_of_a_sine_is_its_effective_value(amplitude: float) -> None:
    found = measured(amplitude * np.sin(2 * np.pi * 200 * T))
    assert found["level_mean"] == pytest.approx(20 * np.log10(amplitude / np.sqrt(2)), abs=0.05)
    assert found["level.sd"] < 0.05
    assert found["level_slope"] == pytest.approx(0, abs=0.1)


def test_a_rising_level_has_its_slope() -> None:
    found = measured(10 ** (12 * (T - 1) / 20) * np.sin(2 * np.pi * 200 * T))  # 12 dB a second
    assert found["level_slope"] == pytest.approx(12, abs=0.5)
    assert found["level_delta.p90"] == pytest.approx(0.12, abs=0.02)
    thirds = 12 * found["seconds"] * 2 / 3  # between the middles of the first and the last third
    assert found["level_end"] - found["level_begin"] == pytest.approx(thirds, abs=0.2)


@pytest.mark.parametrize("hz", [110.0, 220.0, 400.0])
def test_f0_is_in_semitones_above_100_hz(hz: float) -> None:
    found = measured(voice(hz))
    tone = 12 * np.log2(hz / 100)
    for name in ("mean", "p05", "p50", "p95"):
        assert found[f"f0.{name}"] == pytest.approx(tone, abs=0.05)
    assert found["f0.sd"] < 0.05
    assert found["voiced_share"] == 1
    assert found["jitter"] < 0.1  # per cent
    assert found["hnr.mean"] > 18


def test_a_glide_of_an_octave_has_its_slope_and_range() -> None:
    phase = 100 * (2**T - 1) / np.log(2)  # 100 Hz to 200 Hz: 12 semitones a second
    found = measured(0.3 * np.sin(2 * np.pi * phase))
    assert found["f0_slope"] == pytest.approx(12, abs=0.4)
    assert found["f0.mean"] == pytest.approx(6, abs=0.3)
    assert found["f0.p95"] - found["f0.p05"] == pytest.approx(0.9 * 12, abs=0.6)
    assert found["f0_rise"] == pytest.approx(0.12, abs=0.02)
    assert found["f0_rising"] > 0.95


def test_what_has_no_voice_has_no_numbers_of_voice() -> None:
    found = measured(noise())
    of_voice = [f"{c}.{s}" for g in GROUPED.values() if g.voiced for c in g.contours
                for s in g.statistics]  # fmt: skip
    for name in (*of_voice, *F0, "voiced_share", "jitter", "shimmer"):
        assert found[name] == 0, name


def test_pauses_and_stretches_of_voice_are_counted() -> None:
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(RATE // 2)
    found = measured(np.concatenate([quiet, voice(150), quiet, voice(150), quiet]))
    assert found["seconds"] == pytest.approx(2.5, abs=0.06)  # without silence at both ends
    assert found["pause_longest"] == pytest.approx(0.5, abs=0.06)
    assert found["pause_rate"] == pytest.approx(1 / 2.5, abs=0.02)
    assert found["speech_share"] == pytest.approx(2 / 2.5, abs=0.03)
    assert found["voiced_rate"] == pytest.approx(2 / 2.5, abs=0.03)
    assert found["voiced_mean"] == pytest.approx(1, abs=0.06)
    assert found["voiced_sd"] < 0.03


def test_frames_above_the_noise_are_speech() -> None:
    clean = np.array([-90, -85, -60, -20, -12, -10, -30, -55, -90.0])
    assert is_speech(clean).tolist() == [False] * 3 + [True] * 4 + [False] * 2
    # in noise at -20 dB, 40 dB below the loudest holds everywhere
    assert is_speech(np.array([-20, -20, -19, -2, 0, -18.5])).tolist() == [
        *(False, False, False, True, True, False)
    ]
    assert is_speech(np.full(5, -30.0)).all()


def test_cepstra_equal_their_definition() -> None:
    x = noise(0.025, seed=3)  # one frame
    x = x / np.abs(x).max()
    power = np.abs(np.fft.rfft((x - x.mean()) * scipy.signal.get_window("hann", 400), 512)) ** 2
    mel = 10 * np.log10(power @ mel_filters(40, 512, 50, 8000).double().numpy())
    mel = np.maximum(mel, mel.max() - 60)
    wanted = scipy.fft.dct(mel, type=2, norm="ortho")[1:25]
    found = measured(x)
    assert np.allclose([found[f"c{k:02d}.mean"] for k in range(1, 25)], wanted, atol=1e-3)
    assert found["c05.sd"] == 0
    assert found["c05.p90"] == pytest.approx(wanted[4], abs=1e-3)


def test_shapes_equal_their_definitions() -> None:
    x = noise(0.025, seed=4)
    power = np.abs(np.fft.rfft((x - x.mean()) * scipy.signal.get_window("hann", 400), 512)) ** 2
    power = np.maximum(power, power.max() * 1e-6)
    khz, p, db = np.arange(257) / 32, power / power.sum(), 10 * np.log10(power)
    found = measured(x)

    def inside(low: float, high: float) -> np.ndarray:
        return (khz >= low) & (khz < high)

    wanted = {
        "centroid": (p * khz).sum(),
        "spread": np.sqrt((p * (khz - (p * khz).sum()) ** 2).sum()),
        "rolloff": khz[np.searchsorted(np.cumsum(p), 0.85)],
        "entropy": scipy.stats.entropy(p, base=2),
        "flatness": 10 * np.log10(scipy.stats.gmean(power) / power.mean()),
        "slope_low": np.polyfit(khz[inside(0, 0.5)], db[inside(0, 0.5)], 1)[0],
        "slope_mid": np.polyfit(khz[inside(0.5, 1.5)], db[inside(0.5, 1.5)], 1)[0],
        "alpha": 10 * np.log10(power[inside(0.05, 1)].sum() / power[inside(1, 5)].sum()),
        "hammarberg": db[inside(0, 2)].max() - db[inside(2, 5)].max(),
        "high": 10 * np.log10(power[khz >= 4].sum() / power.sum()),
    }
    for name, value in wanted.items():
        assert found[f"{name}.mean"] == pytest.approx(value, abs=1e-3), name
    assert found["flux.mean"] == 0  # of one frame


def test_statistics_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).standard_normal((37, 3))
    which = ("mean", "sd", "p05", "p10", "p25", "p50", "p75", "p90", "p95")
    wanted = [x.mean(0), x.std(0), *np.percentile(x, [5, 10, 25, 50, 75, 90, 95], axis=0)]
    assert np.allclose(statistics(x, which), np.stack(wanted, 1).ravel())
    assert statistics(x[:0], which).tolist() == [0.0] * 27


def test_slopes_are_those_of_a_regression() -> None:
    x = np.random.default_rng(1).standard_normal(40)
    used = np.random.default_rng(2).random(40) > 0.4
    assert slope_of(x, used) == pytest.approx(np.polyfit(np.flatnonzero(used) / 100, x[used], 1)[0])
    inner = [np.polyfit(np.arange(5), x[i - 2 : i + 3], 1)[0] for i in range(2, 38)]
    assert np.allclose(deltas(x[:, None])[2:-2, 0], inner)


def test_modulation_is_strongest_at_its_own_rate() -> None:
    t = np.arange(300) / 100
    mel = np.zeros((300, 40))
    mel[:, :5] = 10 * np.sin(2 * np.pi * 3 * t)[:, None]  # the lowest group, three times a second
    found = modulation(mel).reshape(8, 6)
    assert found[0].argmax() == 2  # 2 to 4 Hz
    assert found[0, 2] - found[0, [0, 4, 5]].max() > 20
    assert np.allclose(found[1:], 10 * np.log10(1e-2))


def test_only_the_mean_level_depends_on_the_gain() -> None:
    x = speech(RATE, seed=1).numpy()
    loud, quiet = functionals(x), functionals(x * np.float32(1 / 32))
    difference = dict(zip(names(), (loud - quiet).tolist(), strict=True))
    assert difference.pop("level_mean") == pytest.approx(20 * np.log10(32), abs=1e-3)
    assert max(map(abs, difference.values())) < 1e-3


@pytest.mark.parametrize("samples", [1, 2, 159, 399, 400, 401, 3000])
def test_any_length_has_finite_numbers(samples: int) -> None:
    for x in (noise(1)[:samples], np.full(samples, 0.5), voice(200)[:samples]):
        assert np.isfinite(functionals(x.astype(np.float32))).all()


def test_a_long_recording_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = speech(RATE, seed=2).numpy()
    whole = functionals(x)
    monkeypatch.setattr("serzoo.zoo.encoders.functionals.BLOCK", 7)
    assert_like(torch.from_numpy(functionals(x)), torch.from_numpy(whole))


@pytest.mark.parametrize("value", [0.0, 1e-8])
def test_silence_has_only_a_level(value: float) -> None:
    found = measured(np.full(5000, value))
    assert found.pop("level_mean") == -120
    assert not any(found.values())
    assert "level_mean" in LEVEL


def test_samples_that_are_not_finite_spoil_every_number() -> None:
    x = noise()
    x[77] = np.nan
    assert np.isnan(functionals(x.astype(np.float32))).all()


def test_alone_equals_batched_to_the_bit() -> None:
    waves = [speech(n, seed=n) for n in (1, 400, 3000, 9000)]
    encoder = FunctionalsEncoder()
    hidden, mask = encoder.extract(*pad_waves(waves))
    assert hidden.shape == (4, 1, 1, encoder.dim)
    assert mask.tolist() == [[True]] * 4
    for row, wave in zip(hidden, waves, strict=True):
        alone, _ = encoder.extract(wave[None], torch.tensor([len(wave)]))
        assert torch.equal(alone[0], row)


def test_stored_vectors_are_those_of_these_formulas() -> None:
    """Some numbers of a fixed signal. If they change, VERSION rises, and so do they here."""
    x = np.concatenate([voice(130), 0.3 * noise(0.5, seed=5), voice(260)])
    found = measured(x)
    kept = {
        "c01.mean": 121.31,
        "c02.sd": 38.444,
        "f0.mean": 10.572,
        "level.sd": 0.36175,
        "centroid.mean": 0.33801,
        "modulation_3.2-4Hz": 14.527,
        "voiced_share": 0.995,
        "shimmer": 0.026575,
    }
    assert VERSION == 1
    assert {name: found[name] for name in kept} == pytest.approx(kept, rel=1e-3)


@pytest.mark.parametrize("head", ["linear_svm", "classification", "prototype", "gen_ser", "selm"])
def test_every_head_works_on_the_one_frame(tiny_recipe: str, tmp_path: Path, head: str) -> None:
    """Trained on stored vectors, and scored in the same way on live ones."""
    more = ["head.reduction=mean", "head.lm_width=32"] if head == "selm" else []
    words = ["encoder=functionals", f"head={head}", "optim.epochs=2", *more]
    stored = train(load(tiny_recipe, words), tmp_path / "stored")
    live = train(load(tiny_recipe, [*words, "data.features=live"]), tmp_path / "live")
    assert stored.status == live.status == "ok"
    rows = [(tmp_path / run / "predictions.jsonl").read_text() for run in ("stored", "live")]
    assert rows[0] == rows[1]


def test_options_are_those_of_a_frozen_encoder(tiny_recipe: str) -> None:
    cfg = load(tiny_recipe, ["encoder=functionals"])
    assert cfg.head["pooling"] == "mean"
    assert cfg.optim.select == "last"
    plain = load(tiny_recipe, ["encoder=functionals", "data.standardise=none"])
    assert cfg.fingerprint != plain.fingerprint  # it decides the numbers
