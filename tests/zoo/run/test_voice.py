"""Voice activity: our threshold on made and on real speech, and the adapter of Silero's network."""

from __future__ import annotations

import builtins
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from facts import says
from serzoo.datamodules.audio import read_audio
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.voice import CHUNK, by_energy, detector, rechunk

RATE = 16_000


def seconds(segments):
    return [(a / RATE, b / RATE) for a, b in segments]


def tone(duration, level):
    """A sine of this level in dB relative to full scale."""
    t = np.arange(round(duration * RATE)) / RATE
    return (10 ** (level / 20) * np.sqrt(2) * np.sin(2 * np.pi * 300 * t)).astype(np.float32)


def hiss(duration, level=-60.0, seed=0):
    noise = np.random.default_rng(seed).normal(size=round(duration * RATE))
    return (10 ** (level / 20) * noise).astype(np.float32)


# The detector by energy.


@pytest.mark.parametrize("gain", [0.0, -20.0])
def test_speech_is_what_stands_out_of_the_floor(gain):
    wave = hiss(8, gain - 50)
    wave[2 * RATE : 3 * RATE] += tone(1, gain - 10)
    wave[5 * RATE : 7 * RATE] += tone(2, gain - 25)
    found = seconds(by_energy([wave]))
    assert found == [pytest.approx((1.88, 3.12), abs=0.02), pytest.approx((4.88, 7.12), abs=0.02)]


def test_pauses_are_bridged_and_clicks_are_not_speech():
    wave = hiss(6)
    for start, end in ((1.0, 1.5), (1.8, 2.3), (2.8, 3.3)):  # 0.3 s and 0.5 s apart
        wave[round(start * RATE) : round(end * RATE)] += tone(end - start, -15)
    wave[5 * RATE : 5 * RATE + 160] += 0.9  # 10 ms
    found = seconds(by_energy([wave]))
    assert found == [pytest.approx((0.88, 2.42), abs=0.02), pytest.approx((2.68, 3.42), abs=0.02)]


def test_what_never_varies_is_all_speech_unless_it_is_silent():
    assert by_energy([hiss(3, -30)]) == [(0, 3 * RATE)]
    assert by_energy([tone(3, -30)]) == [(0, 3 * RATE)]
    assert by_energy([np.zeros(3 * RATE, np.float32)]) == []
    assert by_energy([hiss(3, -90)]) == []
    assert by_energy([]) == []
    assert by_energy([tone(0.05, -10)]) == []  # shorter than any word


def test_a_recording_without_pauses_is_kept_whole():
    t = np.arange(4 * RATE) / RATE
    wave = (0.2 * (1.2 + np.sin(20 * t)) * np.sin(2000 * t)).astype(np.float32)
    assert by_energy([wave]) == [(0, 4 * RATE)]


def test_pieces_do_not_matter():
    wave = np.concatenate([hiss(2), tone(1.234, -20), hiss(15, seed=1), tone(2, -20), hiss(1)])
    want = by_energy([wave])
    assert len(want) == 2
    for size in (7_001, 160_000):
        assert by_energy(wave[i : i + size] for i in range(0, len(wave), size)) == want


def test_rechunked_pieces_are_the_same_samples():
    wave = np.arange(1000, dtype=np.float32)
    pieces = list(rechunk([wave[:10], wave[10:700], wave[700:701], wave[701:]], 100, 32))
    assert np.array_equal(np.concatenate(pieces), wave)
    assert all(len(p) % 32 == 0 and len(p) >= 96 for p in pieces[:-1])


def test_two_real_utterances_are_two_segments(real_data):
    ravdess = real_data("ravdess")
    one, two = (
        read_audio(next(ravdess.rglob(f"{name}.*")))
        for name in ("03-01-05-02-01-01-05", "03-01-03-01-02-01-12")
    )
    silence = np.zeros(3 * RATE // 2, np.float32)
    found = by_energy([np.concatenate([silence, one, silence, two, silence])])
    first, second = len(silence), 2 * len(silence) + len(one)
    assert len(found) == 2
    assert first <= found[0][0] < found[0][1] <= first + len(one)
    assert second <= found[1][0] < found[1][1] <= second + len(two)
    assert all(b - a > RATE for a, b in found)  # each sentence takes longer than a second
    alone = [by_energy([w]) for w in (one, two)]
    assert [len(a) for a in alone] == [1, 1]


# Detectors by name.


def test_names():
    assert detector("none") is None
    assert detector("energy") is by_energy
    with pytest.raises(ConfigError, match=says("'whisper'", "none, energy, silero")):
        detector("whisper")


def test_an_absent_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "silero_vad":
            raise ModuleNotFoundError("No module named 'silero_vad'", name="silero_vad")
        return real(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match=says("silero_vad", "pip install 'serzoo[vad]'", "voice=energy")
    ):
        detector("silero")


def test_the_adapter_hands_over_chunks_of_512_and_leaves_the_threads(monkeypatch):
    seen, resets = [], []

    class Model:
        def reset_states(self):
            resets.append(True)

        def __call__(self, chunk, rate):
            assert (tuple(chunk.shape), chunk.dtype, rate) == ((CHUNK,), torch.float32, RATE)
            seen.append(chunk.clone())
            return torch.tensor([[float(chunk.abs().max())]])

    def timestamps(odds, *, sampling_rate, audio_length_samples, **knobs):
        assert (len(odds), sampling_rate, audio_length_samples) == (3, RATE, 1300)
        assert knobs == {"min_silence_duration_ms": 400, "speech_pad_ms": 100}
        return [{"start": 512, "end": 1300}] if max(odds) > 0 else []

    fake = SimpleNamespace(
        load_silero_vad=lambda onnx: Model() if onnx else None,
        get_speech_timestamps_from_probs=timestamps,
    )
    monkeypatch.setitem(sys.modules, "silero_vad", fake)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    wave = np.arange(1, 1301, dtype=np.float32)
    detect = detector("silero")
    assert detect([wave[:100], wave[100:1100], wave[1100:]]) == [(512, 1300)]
    assert torch.equal(torch.cat(seen)[:1300], torch.from_numpy(wave))
    assert not torch.cat(seen)[1300:].any()
    assert detect([np.zeros(1300, np.float32)]) == []
    assert len(resets) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning:silero_vad.*")
def test_silero_itself_equals_its_own_function_in_pieces(real_data):
    silero_vad = pytest.importorskip("silero_vad", reason="needs serzoo[vad]")
    pytest.importorskip("onnxruntime", reason="needs serzoo[vad]")
    threads = torch.get_num_threads()
    detect = detector("silero")
    assert torch.get_num_threads() == threads
    one = read_audio(next(real_data("ravdess").rglob("03-01-05-02-01-01-05.*")))
    wave = np.concatenate([one, np.zeros(2 * RATE, np.float32), one])
    found = detect(wave[i : i + 7_001] for i in range(0, len(wave), 7_001))
    want = silero_vad.get_speech_timestamps(
        torch.from_numpy(wave),
        silero_vad.load_silero_vad(onnx=True),
        min_silence_duration_ms=400,
        speech_pad_ms=100,
    )
    assert found == [(w["start"], w["end"]) for w in want]
    assert len(found) == 2
    assert detect([np.zeros(RATE, np.float32)]) == []
