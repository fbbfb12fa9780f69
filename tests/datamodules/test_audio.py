import numpy as np
import pytest
import soundfile
from facts import says
from serzoo.datamodules import audio
from serzoo.datamodules.audio import (
    EmptyAudioError,
    MissingAudioError,
    decode,
    read_audio,
    stream_audio,
)
from serzoo.zoo.errors import DataError
from serzoo.zoo.types import SAMPLE_RATE

RNG = np.random.default_rng(0)


def sine(rate, seconds=1.0, hz=440.0):
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def test_one_sample_rate_for_all():
    assert audio.SAMPLE_RATE == SAMPLE_RATE


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_sixteen_bits_are_read_exactly(tmp_path, suffix):
    codes = RNG.integers(-32768, 32768, 5000, dtype=np.int16)
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, codes, 16000, subtype="PCM_16")
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.shape == (5000,)
    assert np.array_equal(samples * 32768, codes.astype(np.float32))


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
def test_lossy_formats_sound_the_same(tmp_path, write_wave, suffix):
    reference = sine(16000, 2.0) * 0.5
    samples = read_audio(write_wave(tmp_path / f"x{suffix}", reference))
    assert abs(len(samples) - 32000) <= 1152
    n = min(len(samples), 32000)
    assert np.corrcoef(samples[2000 : n - 2000], reference[2000 : n - 2000])[0, 1] > 0.99


def test_channels_are_averaged(tmp_path, write_wave):
    left, right = RNG.uniform(-0.5, 0.5, (2, 3000)).astype(np.float32)
    path = write_wave(tmp_path / "x.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    assert np.allclose(read_audio(path), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_rate_becomes_16_khz(tmp_path, write_wave, rate):
    path = write_wave(tmp_path / "x.wav", sine(rate) * 0.5, rate=rate, subtype="FLOAT")
    samples = read_audio(path)
    assert len(samples) == 16000
    inner = slice(1000, 15000)  # a sine that starts at full slope rings at its edges
    assert np.abs(samples[inner] - 0.5 * sine(16000)[inner]).max() < 2e-3
    assert decode(path)[1] == rate


def test_resampling_removes_what_16_khz_cannot_hold(tmp_path, write_wave):
    path = write_wave(tmp_path / "x.wav", sine(48000, hz=12000.0), rate=48000)
    assert np.abs(read_audio(path)[1000:-1000]).max() < 1e-3


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_segment_is_that_part_of_the_file(tmp_path, rate):
    codes = RNG.integers(-32768, 32768, 2 * rate, dtype=np.int16)
    soundfile.write(tmp_path / "x.flac", codes, rate)
    whole, _ = decode(tmp_path / "x.flac")
    part, _ = decode(tmp_path / "x.flac", 0.5, 1.25)
    assert np.array_equal(part, whole[round(0.5 * rate) : round(1.25 * rate)])
    rest, _ = decode(tmp_path / "x.flac", 1.5)
    assert np.array_equal(rest, whole[round(1.5 * rate) :])
    beyond, _ = decode(tmp_path / "x.flac", 1.5, 99.0)
    assert np.array_equal(beyond, rest)
    assert len(read_audio(tmp_path / "x.flac", 0.5, 1.25)) == 12000


def test_what_a_file_holds_counts_not_its_name(tmp_path, write_wave):
    flac = write_wave(tmp_path / "x.flac")
    (tmp_path / "y.wav").write_bytes(flac.read_bytes())
    assert np.array_equal(read_audio(tmp_path / "y.wav"), read_audio(flac))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_text_in_an_audio_name_is_unreadable(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("these are words, not samples\n" * 50)
    with pytest.raises(DataError, match=r"x\.\w+\b.*\bwav\b.*\bflac\b"):
        read_audio(path)


def test_empty_and_missing(tmp_path, write_wave):
    (tmp_path / "zero.wav").write_bytes(b"")
    with pytest.raises(EmptyAudioError, match=says("zero.wav", "0 bytes")):
        read_audio(tmp_path / "zero.wav")
    header_only = write_wave(tmp_path / "header.wav", np.zeros(0))
    with pytest.raises(EmptyAudioError, match=says("header.wav", "0.000 s")):
        read_audio(header_only)
    with pytest.raises(EmptyAudioError, match=r"short\.wav.* 2\.000 s.* 3\.000 s.* 0\.500 s"):
        read_audio(write_wave(tmp_path / "short.wav"), 2.0, 3.0)
    with pytest.raises(DataError, match=says("none.wav", "root=")):
        read_audio(tmp_path / "none.wav")


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".ogg"])
def test_half_a_file_is_not_taken_for_a_whole_one(tmp_path, write_wave, suffix):
    whole = write_wave(tmp_path / f"x{suffix}", seconds=3.0).read_bytes()
    (tmp_path / f"half{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=says(f"half{suffix}")):
        read_audio(tmp_path / f"half{suffix}")


# -- piece by piece ------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_pieces_joined_are_the_whole_file(write_wave, tmp_path, rate, suffix):
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, (round(1.234 * rate), 2))
    path = write_wave(tmp_path / f"a.{suffix}", wave, rate=rate)
    whole = read_audio(path)
    for seconds in (0.1, 0.333, 30.0):
        pieces = list(stream_audio(path, seconds))
        assert len(pieces) > 1.2 / seconds
        assert all(p.dtype == np.float32 and len(p) for p in pieces)
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


def test_a_stream_of_a_damaged_file_gives_what_is_before_the_damage(write_wave, tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    path = write_wave(tmp_path / "a.flac", wave)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = []

    def read():
        for piece in stream_audio(path, 0.1):
            found.append(piece)

    with pytest.raises(DataError, match=says("a.flac")):
        read()
    np.testing.assert_allclose(np.concatenate(found), wave[: sum(map(len, found))], atol=1e-4)
    assert 0.5 < sum(map(len, found)) / 16_000 < 1.1
    for bad, error in (("absent.wav", MissingAudioError), ("empty.wav", EmptyAudioError)):
        if bad == "empty.wav":
            write_wave(tmp_path / bad, np.zeros(0))
        with pytest.raises(error):
            next(stream_audio(tmp_path / bad))
