"""Lengths in headers: what was cut, what is a stream, and MP3s that tell a wrong length."""

import io
import struct

import numpy as np
import pytest
import soundfile
from facts import says
from serzoo.datamodules.audio import AudioError, decode, read_audio, stream_audio
from serzoo.datamodules.containers import Claim, Patched, claim

RATE = 16_000
WAVE = (
    0.1 * np.sin(np.arange(3 * RATE) / 13) + 0.02 * np.random.default_rng(0).normal(size=3 * RATE)
).astype(np.float32)
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "24 bits": ("WAV", "PCM_24"),
    "8 bits": ("WAV", "PCM_U8"),
    "float": ("WAV", "FLOAT"),
    "adpcm": ("WAV", "IMA_ADPCM"),
    "gsm": ("WAV", "GSM610"),
    "wavex": ("WAVEX", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "aifc": ("AIFF", "ULAW"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "alac": ("CAF", "ALAC_16"),
    "nist": ("NIST", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.fixture(scope="module")
def written():
    """``written(name)``: three seconds in one of FORMATS, as bytes."""
    done = {}

    def write(name):
        if name not in done:
            file = io.BytesIO()
            container, subtype = FORMATS[name]
            soundfile.write(file, WAVE, RATE, format=container, subtype=subtype)
            done[name] = file.getvalue()
        return done[name]

    return write


@pytest.fixture
def saved(tmp_path):
    def save(raw, name="x.wav"):
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return save


def read_all(path):
    """The length that each of the two ways to read finds, which has to be one."""
    samples, rate = decode(path)
    assert sum(map(len, stream_audio(path, 0.7))) == round(len(samples) * RATE / rate)
    return len(samples)


def wav(data=None, riff=None, before=b"", after=b"", samples=WAVE):
    """A WAV of 16 bits with sizes of one's own in its header."""
    sound = np.rint(samples * 32767).astype("<i2").tobytes()
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16) + before
    body += b"data" + struct.pack("<I", len(sound) if data is None else data) + sound + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_read_and_half_of_it_refused(written, saved, name):
    raw = written(name)
    assert read_all(saved(raw)) == pytest.approx(len(WAVE), abs=1152)
    for share in (0.4, 0.5, 0.9):
        path = saved(raw[: round(share * len(raw))])
        for read in (decode, lambda path: list(stream_audio(path, 0.5))):
            with pytest.raises(AudioError, match=r"x\.wav .*(cut short|lost sync)") as caught:
                read(path)
            assert caught.value.reason in ("cut short", "unreadable")


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("flac", "mp3")])
def test_a_part_of_a_file_that_was_cut_is_refused_too(written, saved, name):
    path = saved(written(name)[: len(written(name)) // 2])
    with pytest.raises(AudioError, match="cut short"):
        read_audio(path, 0.1, 0.5)


def test_a_stream_gives_what_is_before_the_cut(saved):
    path, found = saved(wav()[: 44 + 2 * RATE]), []

    def read():
        for piece in stream_audio(path, 0.25):
            found.append(piece)

    with pytest.raises(AudioError, match=says("96000 bytes", "32000")):
        read()
    np.testing.assert_allclose(np.concatenate(found), WAVE[:RATE], atol=1e-4)


@pytest.mark.parametrize(
    ("data", "riff"),
    [
        (0, 0),
        (0, None),
        (2**32 - 1, 2**32 - 1),  # ffmpeg
        (2**31 - 1, 2**31 - 1),
        (0x7FFFF000, 0x7FFFF024),  # sox, espeak
        (0x7F000000, 0x7F000024),
        (0x7FFF0000, 0x7FFF0024),  # GStreamer
        (2**31, 2**31 + 36),  # arecord
        (2**32 - 37, 2**32 - 1),
    ],
)
def test_sizes_of_streams_promise_nothing(saved, data, riff):
    assert read_all(saved(wav(data, riff))) == len(WAVE)
    part = read_audio(saved(wav(data, riff)), 1.0, 1.5)
    np.testing.assert_allclose(part, WAVE[16000:24000], atol=1e-4)


@pytest.mark.parametrize(
    "raw",
    [
        wav(riff=0),
        wav(riff=2**32 - 1),
        wav(after=b"\1"),
        wav(after=b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.29.100\0"),
        wav(before=b"fact\4\0\0\0\0\0\0\0LIST\x04\0\0\0INFO"),
        wav(before=b"bext\3\0\0\0abc\0"),
        wav(data=2 * len(WAVE) + 44),  # a writer that counts the header
    ],
    ids=["riff0", "riff-1", "odd", "list after", "chunks before", "odd chunk", "header counted"],
)
def test_what_is_around_the_sound_is_no_cut(saved, raw):
    assert read_all(saved(raw)) == len(WAVE)


def test_a_header_that_promises_less_than_there_is_counts(saved):
    assert read_all(saved(wav(data=RATE))) == RATE // 2


def test_no_sound_at_all_is_empty_and_all_of_it_missing_is_cut(saved):
    nothing = WAVE[:0]
    for raw in (wav(samples=nothing), wav(samples=nothing, after=b"LIST\x04\0\0\0INFO")):
        with pytest.raises(AudioError, match="no samples") as caught:
            read_audio(saved(raw))
        assert caught.value.reason == "empty"
    with pytest.raises(AudioError, match=says("96000 bytes", 0)):
        read_audio(saved(wav()[:44]))


def test_big_endian_and_64_bit_sizes(saved):
    def ds64(size):
        raw = wav(data=2**32 - 1, riff=2**32 - 1)
        return b"RF64" + raw[4:12] + b"ds64" + struct.pack("<IQQQI", 28, 0, size, 0, 0) + raw[12:]

    for size, lacking in ((2 * len(WAVE), 0), (4 * len(WAVE), 1), (0, 0), (2**64 - 1, 0)):
        with saved(ds64(size)).open("rb") as file:
            assert claim(file).lacking == lacking
        if not lacking:
            assert read_all(saved(ds64(size))) == len(WAVE)
    rifx = io.BytesIO()
    soundfile.write(rifx, WAVE, RATE, format="WAV", subtype="PCM_16", endian="BIG")
    assert rifx.getvalue()[:4] == b"RIFX"
    with pytest.raises(AudioError, match=says("96000 bytes")):
        read_audio(saved(rifx.getvalue()[:50_000]))


@pytest.mark.parametrize(
    ("name", "field", "sizes"),
    [
        ("caf", (b"data", 4, ">Q"), (2**64 - 1, 2**63 - 1, 0)),  # -1: "to the end of the file"
        ("au", (b".snd", 8, ">I"), (2**32 - 1, 2**31 - 1, 0)),
        ("aiff", (b"SSND", 4, ">I"), (2**32 - 1, 0x7F000008, 0)),
        ("w64", (b"data\xf3", 16, "<Q"), (2**64 - 1, 0)),
        ("nist", (b"-i 48000", 3, "5s"), (b"0    ",)),
    ],
)
def test_other_containers_are_streamed_too(written, saved, name, field, sizes):
    raw, (mark, offset, layout) = bytearray(written(name)), field
    at = raw.index(mark) + offset
    for size in sizes:
        raw[at : at + struct.calcsize(layout)] = struct.pack(layout, size)
        assert read_all(saved(bytes(raw))) == len(WAVE)


def test_a_flac_from_a_pipe_does_not_know_its_length(written, saved):
    raw = bytearray(written("flac"))
    raw[21] &= 0xF0  # 36 bits of samples in STREAMINFO: 0 = unknown
    raw[22:26] = bytes(4)
    path = saved(bytes(raw))
    assert read_all(path) == len(WAVE)
    np.testing.assert_allclose(read_audio(path, 1.0, 1.5), WAVE[16000:24000], atol=1e-4)
    assert len(read_audio(path, 1.0, 99.0)) == 2 * RATE
    with pytest.raises(AudioError, match=r"no samples between 5.000 s and 6.000 s"):
        read_audio(path, 5.0, 6.0)


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_an_ogg_ends_with_a_page_that_says_so(written, saved, name):
    raw = written(name)
    last = raw.rindex(b"OggS")
    open_end = bytearray(raw)
    open_end[last + 5] &= 0xFB
    for cut, words in (
        (raw[:last], "ffmpeg -i IN -c copy OUT"),
        (bytes(open_end), "ffmpeg -i IN -c copy OUT"),
        (raw[:-1], "last page"),
        (raw[: last + 20], "last page"),
        (raw[:4000] + bytes(200_000), "no page of Ogg"),
    ):
        with pytest.raises(AudioError, match=f"cut short: .*{words}"):
            read_audio(saved(cut))
    assert read_all(saved(raw + b"\1")) == len(WAVE)


@pytest.mark.parametrize(
    "raw", [b"R", b".snd1234", b"RIFF0000WAVE", b"caff" + bytes(9000), b"OggS"]
)
def test_rubbish_claims_nothing_and_takes_no_time(saved, raw):
    with saved(raw).open("rb") as file:
        assert claim(file).lacking == 0


def test_a_patched_file_is_read_as_any_other():
    file = Patched(io.BytesIO(b"0123456789"), Claim(head=b"abc", skip=4))
    assert file.read() == b"abc456789"
    for at, count in ((0, 2), (2, 4), (5, 99), (9, 1), (0, 0)):
        assert file.seek(at) == at
        assert file.read(count) == b"abc456789"[at : at + count]
    assert file.seek(-2, io.SEEK_END) == 7
    assert file.seek(1, io.SEEK_CUR) == file.tell() == 8


# -- MP3 -------------------------------------------------------------------------------------------


def mp3(samples, rate=RATE, mode="VARIABLE", level=0.5):
    """An MP3, and its frames without the first, which holds the length."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": mode}
    with soundfile.SoundFile(file, "w", rate, channels, compression_level=level, **how) as out:
        out.write(samples)
    raw = file.getvalue()
    tag = max(raw.find(b"Xing"), raw.find(b"Info"))
    first = raw[:2]  # of every frame's header
    return raw, raw[raw.index(first, tag) :]


def swelling(rate=RATE, seconds=10):
    """Noise, then silence: an MP3 of variable rate has large frames, then small ones."""
    rng = np.random.default_rng(1)
    wave = 0.3 * rng.normal(size=seconds * rate)
    wave[4 * rate :] *= 1e-4
    return wave.clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("flip", [1, -1], ids=["loud first", "silence first"])
def test_an_mp3_of_variable_rate_without_its_length_is_read_to_its_end(saved, rate, flip):
    wave = swelling(rate)[::flip]
    _, bare = mp3(wave, rate)
    path = saved(bare, "x.mp3")
    assert abs(soundfile.info(path).frames - len(wave)) > rate  # libsndfile guesses
    samples, found = decode(path)
    assert found == rate
    assert 0 <= len(samples) - len(wave) < 3 * 1152
    at = rate if flip == 1 else 7 * rate  # where it is loud
    loud, heard = wave[at : at + rate // 2], samples[at : at + rate // 2 + 4000]
    delay = int(np.argmax(np.correlate(heard, loud, "valid")))
    same = np.corrcoef(heard[delay : delay + rate // 2], loud)[0, 1]
    assert same > (0.6 if rate == 44_100 else 0.8)  # the coder drops the highest frequencies
    assert sum(map(len, stream_audio(path, 1.0))) == pytest.approx(
        len(samples) * RATE / rate, abs=2
    )
    part, _ = decode(path, 7.0, 9.5)
    assert np.array_equal(part, samples[7 * rate : round(9.5 * rate)])


def test_an_mp3_of_constant_rate_without_its_length_is_read_as_before(saved):
    _, bare = mp3(swelling(), mode="CONSTANT")
    path = saved(bare, "x.mp3")
    assert np.array_equal(decode(path)[0], soundfile.read(path, dtype="float32")[0])


def test_joined_mp3s_are_read_to_the_end_of_the_last(saved):
    (one, _), (two, _) = mp3(swelling()), mp3(swelling(seconds=5))
    tag = b"TAG" + bytes(125)
    front = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    for raw in (one + two, one + tag + two + tag, front + one + two, one + front + two):
        found = len(decode(saved(raw, "x.mp3"))[0])
        assert found == pytest.approx(15 * RATE, abs=4 * 1152)
    assert len(decode(saved(front + one + tag, "x.mp3"))[0]) == 10 * RATE


def test_an_mp3_cut_in_half_is_refused_by_xing_and_by_vbri(saved):
    raw, bare = mp3(swelling())
    with pytest.raises(AudioError, match="cut short"):
        decode(saved(raw[: len(raw) // 2], "x.mp3"))
    # Fraunhofer's header: at 36 bytes; its number of frames at 50
    frames = 279
    first = raw[:4] + bytes(32) + b"VBRI" + bytes(10) + struct.pack(">I", frames) + bytes(26)
    first = first.ljust(len(raw) - len(bare), b"\0")
    assert len(decode(saved(first + bare, "x.mp3"))[0]) == pytest.approx(10 * RATE, abs=3 * 1152)
    with pytest.raises(AudioError, match=says(f"{frames} frames")):
        decode(saved(first + bare[: len(bare) // 2], "x.mp3"))


def test_a_part_of_an_mp3_is_the_same_samples_as_in_the_whole(saved):
    rng = np.random.default_rng(2)
    wave = (0.2 * np.sin(np.arange(20 * RATE) / 8) + 0.05 * rng.normal(size=20 * RATE)).astype("f4")
    for raw in mp3(wave, level=0.9):
        path = saved(raw, "x.mp3")
        whole, _ = decode(path)
        for start in (0.05, 1.0, 7.7, 19.0):
            part, _ = decode(path, start, start + 0.5)
            first = round(start * RATE)
            assert np.array_equal(part, whole[first : first + RATE // 2])


def test_a_damaged_header_that_promises_more_than_any_memory_is_a_cut(saved):
    raw = bytearray(mp3(swelling())[0])
    at = raw.index(b"Xing") + 8
    raw[at : at + 4] = b"\xff\xff\xff\xf0"
    for read in (decode, lambda path: list(stream_audio(path))):
        with pytest.raises(AudioError, match="cut short"):
            read(saved(bytes(raw), "x.mp3"))


def test_a_chunk_larger_than_any_file_ends_the_walk(written, saved):
    raw = bytearray(written("caf"))
    at = raw.index(b"desc") + 4
    raw[at : at + 8] = b"\xfe" * 8
    with saved(bytes(raw)).open("rb") as file:
        assert claim(file) == Claim()
