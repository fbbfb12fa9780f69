"""Corrupted copies of training audio: generated, the same for everybody, drawn anew each epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from serzoo.datamodules import copies
from serzoo.datamodules.copies import SHARES, corrupted
from serzoo.datamodules.distortions import coloured, mu_law, tilt
from serzoo.datamodules.sampler import BucketSampler
from serzoo.zoo.run.build import build, open_data
from serzoo.zoo.run.config import load

TIME = np.arange(16_000)
TONES = 0.3 * np.sin(0.05 * TIME) + 0.1 * np.sin(1.6 * TIME)  # 127 and 4074 Hz
WAVE = (TONES * np.hanning(16_000)).astype(np.float32)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def test_a_copy_depends_on_samples_and_number_only() -> None:
    first = corrupted(WAVE, 1)
    assert np.array_equal(first, corrupted(WAVE.copy(), 1))
    assert first.dtype == np.float32
    assert first.shape == WAVE.shape
    assert not np.array_equal(first, corrupted(WAVE, 2))
    assert not np.array_equal(corrupted(WAVE[:-1], 1), first[:-1])


@pytest.mark.parametrize("samples", [1, 2, 3, 700, 16_000])
def test_copies_are_in_range_finite_and_never_the_utterance_itself(samples: int) -> None:
    wave = WAVE[4000 : 4000 + samples]
    for copy in range(1, 30):
        found = corrupted(wave, copy)
        assert found.shape == wave.shape
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 1
        assert samples < 700 or not np.allclose(found, wave, atol=1e-4)


def test_silence_stays_silent() -> None:
    silence = np.zeros(800, np.float32)
    assert np.array_equal(corrupted(silence, 1), silence)


@pytest.mark.parametrize("kind", SHARES)
def test_each_distortion_alone_is_heard(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SHARES", {k: float(k == kind) for k in SHARES})
    found = corrupted(WAVE, 1)
    assert rms(found - WAVE) > 0.01 * rms(WAVE)
    assert np.corrcoef(found, WAVE)[0, 1] > 0.2  # it is aligned


def test_the_colour_of_noise_is_the_fall_of_its_power() -> None:
    for exponent in (0.0, 1.0, 2.0):
        noise = coloured(2**16, exponent, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(noise)) ** 2
        low, high = power[1000:2000].mean(), power[8000:16_000].mean()
        assert np.log2(low / high) == pytest.approx(3 * exponent, abs=0.2)


def test_a_tilt_of_six_db_is_six_at_8_khz_and_none_at_1_khz() -> None:
    time = np.arange(16_000) / 16_000
    both = np.sin(2 * np.pi * 1000 * time) + np.sin(2 * np.pi * 4000 * time)
    before, after = (np.abs(np.fft.rfft(x)) for x in (both, tilt(both, 6.0)))
    gains = 20 * np.log10(after[[1000, 4000]] / before[[1000, 4000]])
    assert gains[1] - gains[0] == pytest.approx(4.0, abs=0.01)  # two of three octaves
    assert rms(tilt(both, 6.0)) == pytest.approx(rms(both))


def test_mu_law_has_255_levels_and_small_errors_at_small_levels() -> None:
    x = np.linspace(-1, 1, 100_001)
    y = mu_law(x)
    assert len(np.unique(y)) == 255
    assert np.abs(y - x).max() < 0.025
    assert np.abs(y - x)[np.abs(x) < 0.01].max() < 0.0005


def test_an_epoch_draws_half_of_the_items_clean_and_each_once() -> None:
    seconds = np.linspace(1, 3, 600)
    options = {"size": 8, "budget": 100.0, "seed": 3}
    plain = BucketSampler(seconds, **options)
    sampler = BucketSampler(seconds, copies=3, **options)
    drawn = [i for batch in sampler.batches() for i in batch]
    assert sorted(i % 600 for i in drawn) == list(range(600))
    # the order is that without copies
    assert [i % 600 for i in drawn] == [i for batch in plain.batches() for i in batch]
    share = np.bincount([i // 600 for i in drawn]) / 600
    assert share == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.06)
    sampler.set_epoch(1)
    other = [i for batch in sampler.batches() for i in batch]
    assert {i for i in other if i >= 600} != {i for i in drawn if i >= 600}
    ranks = [BucketSampler(seconds, copies=3, rank=r, world=2, **options) for r in (0, 1)]
    together = [i for sampler in ranks for batch in sampler for i in batch]
    assert sorted(together) == sorted(drawn)


@pytest.fixture
def recipe(tmp_path: Path, write_wave, monkeypatch: pytest.MonkeyPatch) -> str:
    """Six speakers who say two words."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = ["audio,label,speaker"]
    for speaker in range(6):
        for label in ("happy", "sad"):
            name = f"{label}{speaker}.wav"
            write_wave(tmp_path / "speech" / name, 0.1 * rng.normal(size=6000))
            rows.append(f"{name},{label},s{speaker}")
    (tmp_path / "speech" / "table.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""
corpus: csv
protocol: kfold-3
groups: {{encoder: functionals, head: linear_svm}}
data: {{root: {tmp_path / "speech"}, corrupted_copies: 2}}
trainer: {{accelerator: cpu, progress: false, threads: 1}}
"""
    )
    return str(path)


def test_stored_copies_are_those_that_are_computed_live(recipe: str) -> None:
    cfg = load(recipe)
    data = open_data(cfg)
    encoder, train = build(cfg, data.taxonomy).encoder, data.datasets["train"]
    n = len(train)
    assert n == 4
    live = train[[0, n, 2 * n + 3]]
    assert live.ids == [train.utterances[i].id for i in (0, 0, 3)]
    expected = [
        encoder.extract(live.audio[i : i + 1], live.lengths[i : i + 1])[0] for i in range(3)
    ]
    filled = data.store_features(encoder)
    assert (filled.encoded, filled.reused) == (12 + 2 * n, 0)
    stored = train[[0, n, 2 * n + 3]]
    torch.testing.assert_close(stored.hidden, torch.cat(expected), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(stored.hidden[0], stored.hidden[1])
    data.use_statistics()
    for i in (0, n, 2 * n + 3):
        mean = train[[i]].hidden.mean(2)
        torch.testing.assert_close(mean, train.store.read(train.rows[i]).mean(1)[None])
    assert data.store_features(encoder).encoded == 0


def test_only_training_has_copies_and_a_solver_gets_all(recipe: str) -> None:
    data = open_data(load(recipe))
    assert [data.datasets[part].copies for part in ("train", "valid", "test")] == [2, 0, 0]
    weights: dict[str, list[float]] = {}
    for batch in data.training_part():
        for name, weight in zip(batch.ids, batch.targets.weight.tolist(), strict=True):
            weights.setdefault(name, []).append(weight)
    assert list(weights.values()) == [[0.5, 0.25, 0.25]] * 4
    assert sum(len(batch) for batch in data.whole("train")) == 4
    assert open_data(load(recipe), everything=True).datasets["train"].copies == 0
