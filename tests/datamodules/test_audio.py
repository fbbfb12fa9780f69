import io
import os

import numpy as np
import pytest
import soundfile
from facts import says
from serzoo.datamodules import audio
from serzoo.datamodules.audio import (
    RAW,
    SUFFIXES,
    UNREADABLE_SUFFIXES,
    AudioError,
    EmptyAudioError,
    MissingAudioError,
    Raw,
    RawStream,
    decode,
    decode_utterance,
    parse_channel,
    read_audio,
    read_utterance,
    stream_audio,
)
from serzoo.datamodules.corpora import find_files
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.types import SAMPLE_RATE

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


# -- what files are called, and what they hold -----------------------------------------------------

WRITTEN = {  # suffix: how soundfile writes one
    ".wav": ("WAV", "PCM_16"),
    ".wave": ("WAV", "PCM_24"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_24"),
    ".aifc": ("AIFF", "ULAW"),
    ".au": ("AU", "PCM_16"),
    ".snd": ("AU", "ULAW"),
    ".caf": ("CAF", "ALAC_16"),
    ".w64": ("W64", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
    ".sph": ("NIST", "PCM_16"),
}


def test_every_suffix_is_tried_and_none_is_in_both_tables():
    assert set(WRITTEN) == set(SUFFIXES)
    assert len(SUFFIXES) == 16
    assert not set(SUFFIXES) & set(UNREADABLE_SUFFIXES)
    assert {".m4a", ".aac", ".wma", ".webm", ".mp4"} <= set(UNREADABLE_SUFFIXES)
    assert all(s == s.lower() and s[0] == "." for s in (*SUFFIXES, *UNREADABLE_SUFFIXES))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_is_found_in_a_folder_and_read(tmp_path, suffix):
    path = tmp_path / f"x{suffix.upper()}"
    container, subtype = WRITTEN[suffix]
    soundfile.write(path, sine(16000, 2.0) * 0.5, 16000, format=container, subtype=subtype)
    assert find_files(tmp_path) == [path]
    samples = read_audio(path)
    assert len(samples) == 32000
    assert np.corrcoef(samples[2000:30000], 0.5 * sine(16000, 2.0)[2000:30000])[0, 1] > 0.99
    assert sum(map(len, stream_audio(path))) == 32000


@pytest.mark.parametrize("suffix", UNREADABLE_SUFFIXES)
def test_what_cannot_be_read_names_a_command_that_converts(tmp_path, suffix):
    path = tmp_path / f"it's{suffix}"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(AudioError) as error:
        read_audio(path)
    assert suffix in str(error.value)
    assert "ffmpeg -i " in str(error.value)
    assert "it'\"'\"'s.wav" in str(error.value)  # quoted for a shell
    assert error.value.reason == suffix


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s32--ab.wav\n", "git annex get"),
        (b"<!DOCTYPE html>\n<title>404</title>", "HTML"),
        (b"\xef\xbb\xbf \n<HTML><body>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "XML"),
        (b"\0\0\0\x20ftypM4A ", r"MPEG-4.*ffmpeg -i .*x\.wav .*x_converted\.wav"),
        (b"\x1a\x45\xdf\xa3" + bytes(50), "WebM.*ffmpeg"),
        (b"\x30\x26\xb2\x75" + bytes(50), "Windows Media.*ffmpeg"),
        (b"#!AMR\n" + bytes(50), "AMR.*ffmpeg"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS.*leave it out"),
    ],
)
def test_another_content_in_an_audio_name_says_what_it_is(tmp_path, content, words):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(AudioError, match=words) as error:
        read_audio(tmp_path / "x.wav")
    assert error.value.reason != "unreadable"


def test_raw_samples_tell_no_rate(tmp_path):
    (tmp_path / "x.raw").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(AudioError, match=r"ffmpeg -f s16le -ar"):
        read_audio(tmp_path / "x.raw")
    soundfile.write(tmp_path / "y.wav", sine(16000), 16000)
    (tmp_path / "y.wav").rename(tmp_path / "y.raw")
    assert len(read_audio(tmp_path / "y.raw")) == 16000  # what it holds counts


def test_a_link_to_nothing_says_how_to_get_the_file(tmp_path):
    (tmp_path / "kept.dvc").write_text("outs:")
    (tmp_path / "kept").mkdir()
    (tmp_path / "under" / ".dvc").mkdir(parents=True)
    (tmp_path / "under" / "dvc").mkdir()
    (tmp_path / "one.wav.dvc").write_text("outs:")
    for name, target, words in (
        ("a.wav", "../.git/annex/objects/ab/x.wav", says("a.wav", "git annex get")),
        ("under/dvc/b.wav", "/shared/cache/files/md5/ab", says("b.wav", "dvc pull")),
        ("kept/c.wav", None, says("c.wav", "dvc pull")),
        ("one.wav", None, says("one.wav", "dvc pull")),
        ("d.wav", "elsewhere/d.wav", says("d.wav", "-> elsewhere/d.wav")),
        ("loop.wav", "loop.wav", says("-> loop.wav")),
        ("e.wav", None, "check root="),
    ):
        if target is not None:
            (tmp_path / name).symlink_to(target)
        with pytest.raises(MissingAudioError, match=words):
            read_audio(tmp_path / name)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(AudioError, match="is a folder"):
        read_audio(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="is a pipe"):
        read_audio(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="File name too long"):
        read_audio(tmp_path / ("x" * 300))


def test_a_file_without_permission_is_told(tmp_path, write_wave, monkeypatch):
    path = write_wave(tmp_path / "x.wav")
    opened = type(path).open

    def refuse(self, *args, **kwargs):  # root may read everything: chmod would test nothing
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(AudioError, match=r"x\.wav cannot be read: Permission denied"):
        read_audio(path)


def test_a_name_need_not_be_utf_8(tmp_path, write_wave):
    path = write_wave(tmp_path / "x.wav")
    odd = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.rename(odd)
    assert len(read_audio(odd)) == sum(map(len, stream_audio(odd))) == 8000


# -- channels --------------------------------------------------------------------------------------


def test_one_channel_is_that_of_the_file(tmp_path, write_wave):
    sides = RNG.uniform(-0.5, 0.5, (3000, 3)).astype(np.float32)
    path = write_wave(tmp_path / "x.wav", sides, subtype="FLOAT")
    for channel in (1, 2, 3):
        want = sides[:, channel - 1]
        assert np.array_equal(read_audio(path, channel=channel), want)
        assert np.array_equal(np.concatenate(list(stream_audio(path, 0.1, channel))), want)
        spoken = Utterance(
            "a/x", "a", "x.wav", 0.05, 0.15, 16000, "s", channel=channel
        )  # fmt: skip
        assert np.array_equal(decode_utterance(spoken, tmp_path)[0], want[800:2400])
        assert np.array_equal(read_utterance(spoken, tmp_path, 0.05), want[800:1600])
    for read in (lambda c: read_audio(path, channel=c), lambda c: list(stream_audio(path, 1, c))):
        with pytest.raises(AudioError, match=r"has 3 channels.*channel 4.*channel=first") as error:
            read(4)
        assert error.value.reason == "no channel 4"


@pytest.mark.parametrize(
    ("typed", "channel"), [("mean", None), (None, None), ("first", 1), (1, 1), ("2", 2), (12, 12)]
)
def test_a_channel_is_typed_as_a_word_or_a_number(typed, channel):
    assert parse_channel(typed) == channel


@pytest.mark.parametrize("typed", [0, "0", -1, "left", True, 1.5, "", "²", [1]])
def test_no_other_channel_can_be_typed(typed):
    with pytest.raises(ConfigError, match=says("channel", "mean, first", 1)):
        parse_channel(typed)


# -- raw samples from a pipe -----------------------------------------------------------------------


class Pipe(io.BytesIO):
    """Bytes that come a few at a time, as from a slow program."""

    def read1(self, size=-1):
        return super().read1(min(size, 7))


def stream(data, raw, source=io.BytesIO):
    """All blocks of a stream as one array, and the stream."""
    found = RawStream(source(data), raw, "standard input")
    return np.concatenate(list(found.blocks())), found


@pytest.mark.parametrize("form", RAW)
def test_raw_samples_are_those_that_were_written(form):
    assert len(RAW) == 14
    subtype, endian, size = RAW[form]
    wave = np.stack([sine(8000, 0.05), -0.5 * sine(8000, 0.05)], 1)
    file = io.BytesIO()
    soundfile.write(file, wave, 8000, format="RAW", subtype=subtype, endian=endian)
    assert len(file.getvalue()) == wave.size * size
    found, _ = stream(file.getvalue(), Raw(8000, form, 2), Pipe)
    near = {1: 0.06 if "law" in form else 0.02, 2: 1e-4}.get(size, 1e-6)
    np.testing.assert_allclose(found, wave, atol=near)
    assert np.abs(found[:, 0] - found[:, 1]).max() > 1


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_a_pipe_gives_the_samples_of_a_file(tmp_path, write_wave, rate):
    path = write_wave(tmp_path / "a.wav", sine(rate, 0.7), rate=rate)
    data = (np.int16(soundfile.read(path, dtype="int16")[0])).astype("<i2").tobytes()
    source = RawStream(Pipe(data), Raw(rate), "standard input")
    found = np.concatenate(list(source.mono(source.blocks(), None)))
    source.check(None)
    assert np.array_equal(found, np.concatenate(list(stream_audio(path))))


@pytest.mark.parametrize(
    ("data", "raw", "words"),
    [
        (b"", Raw(8000), says("standard input", "no samples")),
        (b"abc", Raw(8000), says("1 byte", "1 channel", "s16le", 2)),
        (bytes(range(1, 8)), Raw(8000, "s16le", 2), says("3 bytes", "2 channels", "s16le", 4)),
        (b"RIFF" + bytes(40), Raw(8000), says("WAV", "ffmpeg", "-f s16le", "-ar 8000")),
        (b"fLaC" + bytes(40), Raw(8000), says("FLAC", "ffmpeg")),
        (b"\xff" * 40, Raw(8000, "f32le"), says("f32le", "not finite", "format")),
    ],
)
def test_what_is_wrong_with_a_pipe_is_told(data, raw, words):
    source = RawStream(io.BytesIO(data), raw, "standard input")

    def read():
        list(source.mono(source.blocks(), None))
        source.check(None)

    with pytest.raises(AudioError, match=words):
        read()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((16,), says(16, 4000, 384000, 16000)),
        ((-8000,), says(-8000)),
        ((8000, "s16"), says("'s16'", "s16le", "mulaw", "did you mean")),
        ((8000, "s16le", 0), says("0 channels", 64)),
        ((8000, "s16le", 65), says("65 channels", 64)),
    ],
)
def test_raw_samples_that_cannot_be_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        Raw(*values)
