"""Conditions: what is written is what is done, measured from the parts; refusals."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from scipy.signal import fftconvolve
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.corruption import KINDS, WORLD, Condition, Corruption, remembered
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.distortions import (
    CODECS,
    MP3_RATES,
    at_snr,
    code,
    mp3,
    pink,
    reverberate,
    telephone,
)
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError

RATE = 16_000


def speechlike(seconds: float = 1.5, seed: int = 0, peak: float = 0.5) -> np.ndarray:
    """Harmonics of a moving pitch in syllables, float32."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (140 * t + 3 * np.sin(2 * np.pi * 0.9 * t + seed))
    wave = sum(np.sin(k * phase) / k for k in range(1, 20)) * np.sin(2 * np.pi * 2 * t) ** 2
    wave += 1e-3 * np.random.default_rng(seed).normal(size=len(t))
    return (peak * wave / np.abs(wave).max()).astype(np.float32)


@pytest.fixture(scope="module")
def recordings(write_wave: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As $SERZOO_DATA: two noises of unlike length, one of them mostly silent, and two rooms."""
    base = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(1)
    short = np.zeros(4_000)
    short[1_000:1_400] = 0.3 * rng.normal(size=400)
    write_wave(base / "esc10_mini" / "audio" / "rain.wav", 0.1 * rng.normal(size=40_000))
    write_wave(base / "rir_noise_mini" / "audio" / "noise" / "door.wav", short)
    for name, delay in (("a", 40), ("b", 333)):
        room = np.zeros(3_000)
        room[delay] = 0.5
        room[delay + 1 :] = (
            0.05 * rng.normal(size=2_999 - delay) * np.exp(-np.arange(2_999 - delay) / 600)
        )
        write_wave(base / "rir_noise_mini" / "audio" / "rir" / f"{name}.wav", room)
    return base


ALL = (
    "clean", "white:10dB", "pink:-5dB", "noise:0dB", "reverb", "clip:10%", "telephone", "mp3:16k",
    "opus:16k", "first:0.5s", "centre:0.5s", "resynthesised", "monotone", "lowpass:400Hz",
    "reversed",
)  # fmt: skip


def ready(text: str, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> Corruption:
    if text in WORLD and not find_spec("pyworld"):
        pytest.skip("needs pyworld: pip install 'serzoo[prosody]'")
    monkeypatch.setenv("SERZOO_DATA", str(recordings))
    return Corruption(Condition.parse(text))


# Every condition.


def test_every_kind_is_tested() -> None:
    assert len(KINDS) == len(ALL) == 15
    assert {Condition.parse(t).kind for t in ALL} == set(KINDS)


@pytest.mark.parametrize("text", ALL)
def test_a_condition_is_what_it_says_again_and_again(
    text: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(Condition.parse(text)) == text
    x = speechlike()
    first = ready(text, recordings, monkeypatch)
    done = first.apply(x, "c/u1")
    assert done.samples.dtype == np.float32
    assert len(done.samples) == (RATE // 2 if text.endswith("0.5s") else len(x))
    assert np.isfinite(done.samples).all()
    assert np.abs(done.samples).max() <= 1
    again = ready(text, recordings, monkeypatch)
    again.apply(speechlike(seed=3), "c/u2")  # what came before changes nothing
    assert np.array_equal(again(x, "c/u1"), done.samples)
    others = [again.apply(x, f"c/u{i}").samples for i in range(2, 9)]
    drawn = Condition.parse(text).kind in ("white", "pink", "noise", "reverb")
    assert all(np.array_equal(other, done.samples) for other in others) == (not drawn)


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("n", [1, 2, 37, 400])
def test_any_length(text: str, n: int, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = ready(text, recordings, monkeypatch).apply(speechlike()[5_000 : 5_000 + n], "c/u")
    assert len(done.samples) == n
    assert np.isfinite(done.samples).all()


@pytest.mark.parametrize("text", ALL)
def test_silence_stays_silence(
    text: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corruption = ready(text, recordings, monkeypatch)
    assert np.abs(corruption(np.zeros(8_000, np.float32), "c/u")).max() < 1e-3
    told = Condition.parse(text).kind in ("white", "pink", "noise", "reverb")
    assert corruption.counts == {"utterances": 1, "scaled": 0, "silent": int(told)}


# Noise.


@pytest.mark.parametrize("kind", ["white", "pink", "noise"])
@pytest.mark.parametrize("snr", [30.0, 10.0, 0.0, -10.0])
def test_the_ratio_is_that_of_the_parts(
    kind: str, snr: float, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = speechlike(peak=0.9)
    done = ready(f"{kind}:{snr:g}dB", recordings, monkeypatch).apply(x, "c/u")
    noise = done.samples / done.gain - x
    found = 10 * np.log10(np.mean(x.astype(float) ** 2) / np.mean(noise.astype(float) ** 2))
    assert found == pytest.approx(snr, abs=0.01)
    if snr == -10:  # louder than full scale: all of it is scaled, nothing is cut off
        assert done.gain < 1
        assert np.abs(done.samples).max() == pytest.approx(1)
    if snr == 30:
        assert done.gain == 1


def test_two_levels_differ_in_level_only(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = speechlike(peak=0.1)
    low, high = (ready(f"noise:{d}dB", recordings, monkeypatch).apply(x, "c/u") for d in (20, 10))
    assert low.source == high.source
    a, b = (d.samples / d.gain - x for d in (low, high))
    assert_like(b, a * np.float32(10**0.5), digits=5)


def test_pink_noise_falls_by_3_db_an_octave() -> None:
    power = np.abs(np.fft.rfft(pink(2**17, np.random.default_rng(0)))) ** 2
    octaves = [10 * np.log10(power[2**k : 2 ** (k + 1)].mean()) for k in range(11, 16)]
    np.testing.assert_allclose(np.diff(octaves), -3.01, atol=0.4)
    assert abs(power[0]) < 1e-12


def test_at_snr_by_hand() -> None:
    scaled = at_snr(np.array([2.0, -2.0]), np.array([1.0, 1.0]), 20)
    np.testing.assert_allclose(scaled, [0.2, 0.2])


def test_noise_is_an_excerpt_of_a_recording(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corruption = ready("noise:0dB", recordings, monkeypatch)
    assert [n for n, _ in corruption.files] == [
        "esc10_mini/audio/rain.wav",
        "rir_noise_mini/audio/noise/door.wav",
    ]
    x = speechlike(0.1)
    sources = set()
    for i in range(20):
        done = corruption.apply(x, f"c/u{i}")
        sources.add(done.source)
        noise = (done.samples / done.gain - x).astype(float)
        whole = read_audio(recordings / str(done.source)).astype(float)
        twice = np.concatenate([whole, whole[: len(x)]])  # around its end
        match = np.correlate(twice, noise, "valid") / np.linalg.norm(noise)
        norms = np.sqrt(np.convolve(twice**2, np.ones(len(x)), "valid"))
        assert (match / np.maximum(norms, 1e-9)).max() > 0.999
    assert len(sources) == 2


# Rooms, clipping, telephone, coding, length.


def test_a_room_keeps_time_and_power(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = speechlike(peak=0.1)
    corruption = ready("reverb", recordings, monkeypatch)
    assert len(corruption.files) == 2
    for i in range(6):
        done = corruption.apply(x, f"c/u{i}")
        room = read_audio(recordings / str(done.source)).astype(float)
        wet = fftconvolve(x.astype(float), room)[int(np.abs(room).argmax()) :][: len(x)]
        wet *= np.linalg.norm(x) / np.linalg.norm(wet)
        np.testing.assert_allclose(done.samples / done.gain, wet, atol=1e-6)
        impulse = np.zeros(8_000, np.float32)
        impulse[1_000] = 0.5
        assert int(np.abs(corruption.apply(impulse, f"c/u{i}").samples).argmax()) == 1_000


def test_a_room_of_one_echo_by_hand() -> None:
    x = np.array([1.0, 0, 0, 0])
    wet = reverberate(x, np.array([0, 0.5, 0.25]))
    np.testing.assert_allclose(wet / wet[0], [1, 0.5, 0, 0], atol=1e-12)
    assert np.sum(wet**2) == pytest.approx(1)


def test_clipping_holds_the_loudest_share() -> None:
    x = speechlike()
    y = Corruption(Condition.parse("clip:10%")).apply(x, "u").samples
    level = np.abs(y).max()
    assert np.mean(np.abs(x) > level) == pytest.approx(0.1, abs=0.001)
    quiet = np.abs(x) < level
    assert np.array_equal(y[quiet], x[quiet])
    assert np.array_equal(np.sign(y), np.sign(x))


@pytest.mark.parametrize(("hz", "passes"), [(100, 0), (1000, 1), (2500, 1), (3900, 0), (6000, 0)])
def test_the_telephone_lets_its_band_through(hz: int, passes: int) -> None:
    tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)
    middle = slice(4_000, 12_000)
    gain = np.std(telephone(tone)[0][middle]) / np.std(tone[middle])
    assert gain == pytest.approx(1, abs=0.05) if passes else gain < 0.12


def test_mu_law_is_heard_and_in_time() -> None:
    tone = 0.3 * np.sin(2 * np.pi * 1013.7 * np.arange(RATE) / RATE)  # meets many levels
    middle = slice(4_000, 12_000)
    error = (telephone(tone)[0][:RATE] - tone)[middle]
    ratio = 10 * np.log10(np.mean(tone[middle] ** 2) / np.mean(error**2))
    assert 30 < ratio < 45  # 8 bits of mu-law give about 38 dB at most levels


def lag(x: np.ndarray, y: np.ndarray) -> int:
    n = len(x) + len(y)
    product = np.fft.rfft(y, n) * np.conj(np.fft.rfft(x, n))
    k = int(np.fft.irfft(product, n).argmax())
    return k if k < n // 2 else k - n


@pytest.mark.parametrize("rate", MP3_RATES)
def test_mp3_has_its_rate_its_length_and_its_time(rate: int) -> None:
    x = speechlike(4.0).astype(float)
    level = min(0.999, (160 - rate) / 152)
    coded, size = code(x, "MP3", "MPEG_LAYER_III", level, bitrate_mode="CONSTANT")
    seconds = len(mp3_frames(coded, x)) / RATE
    assert size * 8 / 1000 / seconds == pytest.approx(rate, rel=0.05)
    assert abs(len(mp3(x, rate)) - len(x)) < 1_200
    assert abs(lag(x, mp3(x, rate)[: len(x)])) <= 2


def mp3_frames(coded: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What was coded is whole frames of 576 samples, at least with the delay before them."""
    n = max(len(coded), len(x) + 1_105)
    return np.zeros(-(-n // 576) * 576)


@pytest.mark.parametrize("rate", [8, 16, 32, 64])
def test_opus_has_about_its_rate_its_length_and_its_time(rate: int) -> None:
    x = speechlike(10.0).astype(float)
    x *= 1 + np.random.default_rng(0).normal(size=len(x))  # a pure harmonic sound takes less
    x /= np.abs(x).max()
    coded, size = code(x, "OGG", "OPUS", (256 - rate) / 250)
    assert size * 8 / 1000 / 10 == pytest.approx(rate, rel=0.25)
    assert len(coded) == len(x)
    assert abs(lag(x, CODECS["opus"](x, rate))) <= 2


@pytest.mark.parametrize("kind", ["mp3", "opus"])
def test_a_lower_rate_does_more_harm(kind: str) -> None:
    x = speechlike(2.0).astype(float)
    errors = [np.mean((CODECS[kind](x, rate)[: len(x)] - x) ** 2) for rate in (8, 32, 128)]
    assert errors[0] > errors[1] > errors[2]


def test_what_is_out_of_range_is_scaled_and_counted() -> None:
    loud = speechlike(peak=2.5)
    for text in ("telephone", "mp3:64k", "opus:32k", "white:40dB"):
        corruption = Corruption(Condition.parse(text))
        y = corruption(loud, "u")
        assert np.abs(y).max() <= 1
        assert corruption.counts["scaled"] == 1
        gain = corruption.apply(loud, "u").gain
        middle = slice(2_000, -2_000)
        if text == "telephone":  # which takes the lowest tones away, and is scaled after that
            assert gain == pytest.approx(corruption.apply(loud * 0.5, "u").gain / 2, rel=0.01)
        else:
            ratio = np.std(y[middle] / gain) / np.std(loud[middle])
            assert ratio == pytest.approx(1, abs=0.1)


def test_parts_of_a_clip() -> None:
    x = np.arange(1.0, 32_001, dtype=np.float32) / 32_000
    for text, start in (("first:0.5s", 0), ("centre:0.5s", 12_000)):
        corruption = Corruption(Condition.parse(text))
        assert np.array_equal(corruption(x, "u"), x[start : start + 8_000])
        assert np.array_equal(corruption(x[:300], "u"), x[:300])
        assert corruption.seconds(2.0) == 0.5
        assert corruption.seconds(0.2) == 0.2
    assert Corruption(Condition.parse("telephone")).seconds(2.0) == 2.0


# Refusals.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noize:10dB", "'noize:10dB'.*'noise'"),
        ("white", r"'white'.* -40\b.* 80 dB.* white:10dB"),
        ("white:loud", r"'white:loud'.* -40\b.* 80 dB"),
        ("white:10%", r"'white:10%'.* -40\b.* 80 dB"),
        ("noise:nan", r"'noise:nan'.* -40\b.* 80 dB"),
        ("reverb:3", "'reverb:3'.* reverb$"),
        ("mp3:20k", "'mp3:20k'.*16 kHz.* 8, 16, 24"),
        ("mp3:320k", r"'mp3:320k'.* 8 .* 160 k\b"),
        ("clip:100%", r"'clip:100%'.* 0\.01 .* 99 %"),
        ("first:0s", r"'first:0s'.* 0\.05 .* 3600 s\b"),
        ("lowpass:10kHz", r"'lowpass:10kHz'.* 50 .* 7000 Hz.* lowpass:50Hz"),
        ("monoton", "'monoton'.*'monotone'"),
        ("reversed:1", "'reversed:1'.* reversed$"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Condition.parse(text)


def test_the_unit_may_be_left_out() -> None:
    assert str(Condition.parse("white:7.5")) == "white:7.5dB"


def test_recordings_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERZOO_DATA", raising=False)
    with pytest.raises(ConfigError, match=says("noise=FOLDER", "esc10", "rir_noise", "white")):
        Corruption(Condition.parse("noise:10dB"))
    with pytest.raises(ConfigError, match=says("reverb", tmp_path, "rir=FOLDER")):
        Corruption(Condition.parse("reverb"), rir=tmp_path)
    with pytest.raises(ConfigError, match=says("reverb", "rir=FOLDER", "SERZOO_DATA")):
        Corruption(Condition.parse("reverb"))
    Corruption(Condition.parse("pink:10dB"))  # needs none


def test_recordings_of_silence(tmp_path: Path, write_wave: Callable[..., Path]) -> None:
    write_wave(tmp_path / "n.wav", np.zeros(1_000))
    corruption = Corruption(Condition.parse("noise:10dB"), noise=tmp_path)
    with pytest.raises(DataError, match=says("silent", 100, 24000)):
        corruption.apply(speechlike(), "u")


# In batches.


def test_batches_hold_corrupted_audio_and_no_stored_features(
    tmp_path: Path, write_wave: Callable[..., Path]
) -> None:
    waves = [speechlike(s, seed=i) for i, s in enumerate((0.5, 0.3))]
    us = []
    for i, wave in enumerate(waves):
        write_wave(tmp_path / f"{i}.wav", wave, subtype="FLOAT")
        us.append(Utterance(f"c/{i}", "c", f"{i}.wav", 0.0, len(wave) / RATE, RATE, "s"))
    dataset = SpeechDataset(us, [0, 1], 2, roots={"c": tmp_path}, max_seconds=20)
    corruption = remembered("white:10dB")
    dataset.corrupt(corruption)
    batch = dataset[[0, 1]]
    assert batch.audio is not None
    for i, wave in enumerate(waves):
        alone = Corruption(Condition.parse("white:10dB")).apply(wave, f"c/{i}").samples
        assert torch.equal(batch.audio[i, : len(wave)], torch.from_numpy(alone))
    assert corruption.describe() == {
        "name": "white:10dB", "kind": "white", "value": 10.0,
        "utterances": 2, "scaled": 0, "silent": 0,
    }  # fmt: skip
    assert remembered("white:10dB") is corruption  # what it made serves the next model
    assert corruption.counts["utterances"] == 0
    with pytest.raises(DataError, match=says("white:10dB", "stored")):
        dataset.use(object())  # type: ignore[arg-type]
    short = remembered("first:0.1s")
    dataset.corrupt(short)
    assert dataset.seconds == [0.1, 0.1]
    assert dataset[[0, 1]].lengths.tolist() == [1_600, 1_600]  # type: ignore[union-attr]


def test_real_noises_and_rooms(real_data: Callable[[str], Path]) -> None:
    noises = Corruption(Condition.parse("noise:5dB"), noise=real_data("esc10"))
    rooms = Corruption(Condition.parse("reverb"), rir=real_data("rir_noise") / "audio" / "rir")
    assert (len(noises.files), len(rooms.files)) == (40, 4)
    x = speechlike()
    for i in range(40):
        done = noises.apply(x, f"u{i}")
        noise = (done.samples / done.gain - x).astype(float)
        assert 10 * np.log10(np.mean(x.astype(float) ** 2) / np.mean(noise**2)) == pytest.approx(
            5, abs=0.01
        )
        impulse = np.zeros(8_000, np.float32)
        impulse[1_000] = 0.5
        assert int(np.abs(rooms.apply(impulse, f"u{i}").samples).argmax()) == 1_000
    assert noises.describe()["recordings"] == 40
    assert len(noises.describe()["sha"]) == 12
