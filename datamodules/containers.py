"""Lengths that audio files claim, for formats that libsndfile does not check.

libsndfile takes the smaller of the promised and the found length. So it reads half a download as a
whole recording. It also guesses the length of an MP3 that does not state it.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

MOST_CHUNKS = 1000  # chunks before the sound: damaged files may hold millions of empty ones
TAIL = 2 * 65_307  # bytes of the two largest Ogg pages
MP3_RATES = {  # kbit/s of layer III, by the version in a header (3: MPEG-1; 0, 2: 2.5 and 2)
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True)
class Claim:
    """The length that a header claims.

    Attributes:
        promised: units of sound in the whole file; None = the header does not say.
        found: units that are in the file.
        unit: name of the unit.
        samples: samples of each channel, if they were counted.
        broken: fault at the end of a file that states no length; None = no fault.
        head: bytes that replace the first ``skip`` bytes, because libsndfile trusts the header.
        skip: see ``head``.
    """

    promised: int | None = None
    found: int = 0
    unit: str = "bytes"
    samples: int | None = None
    broken: str | None = None
    head: bytes = b""
    skip: int = 0

    @property
    def lacking(self) -> float:
        """The missing part as a share of the found part; infinite if nothing is found."""
        missing = max(0, (self.promised or 0) - self.found)
        return missing / self.found if self.found > 0 else float("inf") if missing else 0.0


def claim(file: IO[bytes]) -> Claim:
    """Return the claim of an audio file's header; an empty one if libsndfile checks the format.

    For an MP3, use :func:`mp3_claim`.

    Args:
        file: a file opened for reading, at any position.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(16)
    file.seek(0)
    if len(magic) < 16:
        return Claim()
    if magic[:4] == b"OggS":
        return Claim(broken=_ogg_end(file, size))
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
        return _riff(file, size, magic)
    if magic[:4] == b"riff":  # Sony's Wave64: 16 bytes of name, 8 of size; the size counts all 24
        return _data(file, size, 40, "<16sQ", b"data", header_counts=True, pad=8)
    if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
        return _data(file, size, 12, ">4sI", b"SSND", pad=2)
    if magic[:4] == b"caff":
        return _data(file, size, 8, ">4sQ", b"data", mend=True)
    if magic[:4] in (b".snd", b"dns."):
        order = ">" if magic[:1] == b"." else "<"
        start, length = struct.unpack(order + "II", magic[4:12])
        if _streamed(length):
            return _mended(file, start, 8, order + "I", size - start)
        return Claim(length, size - start)
    return _sphere(file, size) if magic[:8] == b"NIST_1A\n" else Claim()


class Patched:
    """A file whose first bytes are replaced as its :class:`Claim` says.

    Args:
        file: a file opened for reading.
        claim: the claim of this file.
    """

    def __init__(self, file: IO[bytes], claim: Claim) -> None:
        self.file = file
        self.head = claim.head
        self.skip = claim.skip
        self.position = 0
        self.size = file.seek(0, io.SEEK_END) - self.skip + len(self.head)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek, as any file does."""
        self.position = max(0, offset + (0, self.position, self.size)[whence])
        return self.position

    def tell(self) -> int:
        """Return the position, as any file does."""
        return self.position

    def read(self, count: int = -1) -> bytes:
        """Read bytes, as any file does."""
        end = self.size if count < 0 else min(self.size, self.position + count)
        part = self.head[self.position : end]
        if end > self.position + len(part):
            self.file.seek(self.position + len(part) - len(self.head) + self.skip)
            part += self.file.read(end - self.position - len(part))
        self.position += len(part)
        return part


def _streamed(size: int) -> bool:
    """Return whether a size means "unknown": its writer could not go back to the header.

    ffmpeg writes 2**32 - 1, sox and espeak 0x7FFFF000 (or 0x7F000000), GStreamer 0x7FFF0000,
    arecord 2**31, others 0. So the size is 0, -1 in 64 bits, or in the
    last 32 MiB below 2 or 4 GiB.
    """
    return size >= 2**62 or (size <= 2**32 and (size + 2**25) % 2**31 <= 2**25)


def _chunks(
    file: IO[bytes], start: int, layout: str, header_counts: bool, pad: int
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first byte and size of each chunk."""
    head, size = struct.calcsize(layout), file.seek(0, io.SEEK_END)
    for _ in range(MOST_CHUNKS):
        if start >= size:  # a damaged size can point beyond the file
            return
        file.seek(start)
        raw = file.read(head)
        if len(raw) < head:
            return
        name, length = struct.unpack(layout, raw)
        length -= head if header_counts else 0
        yield name[:4], start + head, length
        start += head + -(-max(0, length) // pad) * pad


def _data(
    file: IO[bytes],
    size: int,
    start: int,
    layout: str,
    wanted: bytes,
    *,
    header_counts: bool = False,
    pad: int = 1,
    mend: bool = False,
) -> Claim:
    """Return the claim of the first chunk with a name.

    ``mend`` corrects its size if the size means "unknown".
    """
    for name, first, length in _chunks(file, start, layout, header_counts, pad):
        if name != wanted:
            continue
        if not _streamed(length):
            return Claim(length, max(0, size - first))
        return _mended(file, first, first - 8, ">Q", size - first) if mend else Claim()
    return Claim()


def _mended(file: IO[bytes], start: int, at: int, layout: str, found: int) -> Claim:
    """Return a claim with a corrected header, because libsndfile trusts the size in the header.

    Args:
        file: a file whose sound starts at ``start``.
        start: number of bytes of the header.
        at: position of the size in the header.
        layout: binary layout of the size.
        found: the true size.
    """
    if not 0 < start <= 2**20 or found <= 0:
        return Claim()
    file.seek(0)
    head = bytearray(file.read(start))
    head[at : at + struct.calcsize(layout)] = struct.pack(layout, found)
    return Claim(head=bytes(head), skip=start)


def _riff(file: IO[bytes], size: int, magic: bytes) -> Claim:
    order = ">" if magic[:4] == b"RIFX" else "<"
    long, at = None, 0
    for name, first, length in _chunks(file, 12, order + "4sI", False, 2):
        if name == b"ds64":  # sizes that do not fit into 32 bits
            at = first + 8
            file.seek(at)
            long = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        if name != b"data":
            continue
        found = max(0, size - first)
        if length == 2**32 - 1 and long is not None:
            length = long
        if not _streamed(length):
            return Claim(length, found)
        if long is not None:
            return _mended(file, first, at, "<Q", found)
        if length or _only_chunks(file, first, size, order):
            return Claim()  # libsndfile reads to the end, or the file has no sound
        return _mended(file, first, first - 4, order + "I", min(found, 2**32 - 1))
    return Claim()


def _only_chunks(file: IO[bytes], start: int, size: int, order: str) -> bool:
    """Return whether the rest of a file consists of chunks without sound."""
    end = start
    for name, first, length in _chunks(file, start, order + "4sI", False, 2):
        if not name.isascii() or not name.decode().isprintable():
            return False
        end = first + length
    return size - 1 <= end <= size + 1


def _sphere(file: IO[bytes], size: int) -> Claim:
    text = file.read(1024).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -[irs]\d* (.+?)\s*$", text, re.MULTILINE))
    try:
        start = int(text.split("\n")[1])
        names = ("sample_count", "channel_count", "sample_n_bytes")
        count, channels, width = (int(fields[name]) for name in names)
    except (KeyError, ValueError, IndexError):
        return Claim()
    # compressed: the number of bytes does not tell the length
    if "embedded" in fields.get("sample_coding", ""):
        return Claim()
    return Claim(count * channels * width, max(0, size - start))


def _ogg_end(file: IO[bytes], size: int) -> str | None:
    """Return the fault of the last page, or None: it must be whole, and marked as the last."""
    file.seek(max(0, size - TAIL))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if page[:4] != b"OggS":
        return "its end holds no page of Ogg"
    lacing = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(page) < 27 + page[26] + sum(lacing):
        return "its last page is not whole"
    if not page[5] & 4:
        return (
            "its last page does not say that the sound ends there (a recorder that never says so: "
            "`ffmpeg -i IN -c copy OUT` mends it)"
        )
    return None


# MP3: ISO 11172-3 and 13818-3, layer III; the Xing and VBRI headers in its first frame.


def _mp3_frame(h: bytes) -> tuple[int, int, int] | None:
    """Return bytes, samples and offset of the main data of the frame with this header."""
    if len(h) < 4 or h[0] != 0xFF or h[1] & 0xE6 != 0xE2:  # sync, layer III
        return None
    version, rate, hertz = (h[1] >> 3) & 3, h[2] >> 4, (h[2] >> 2) & 3
    if version == 1 or rate in (0, 15) or hertz == 3:
        return None
    first, mono = version == 3, h[3] >> 6 == 3
    bits = 1000 * MP3_RATES[3 if first else 2][rate - 1]
    length = (144 if first else 72) * bits // HERTZ[version][hertz] + ((h[2] >> 1) & 1)
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return length, 1152 if first else 576, 4 + side


def mp3_claim(file: IO[bytes]) -> Claim:
    """Return the claim of an MP3, from all its frames.

    Some files do not state their number of frames, and joined files state that of the first one.

    Args:
        file: a file, opened for reading.
    """
    with _mapped(file) as data:
        frames = _mp3_frames(data)
        start = next(frames, None)
        if start is None:
            return Claim()
        length, samples, main = _mp3_frame(data[start : start + 4]) or (0, 0, 0)
        places = [start, *frames]
        count, last = len(places), places[-1]
        whole = last + (_mp3_frame(data[last : last + 4]) or (0,))[0] <= len(data)
        found = count - (not whole)
        first = data[start : start + length]
        promised: int | None = None
        tagged = first[main : main + 4] in (b"Xing", b"Info")
        if tagged and len(first) >= main + 12 and first[main + 7] & 1:
            promised = struct.unpack(">I", first[main + 8 : main + 12])[0]
            if promised and promised + 2 >= found - 1:
                return Claim()  # libsndfile reads this one, and detects a cut
        elif first[36:40] == b"VBRI" and len(first) >= 54:
            promised = struct.unpack(">I", first[50:54])[0]
        elif not tagged:
            main = 0
        # a frame like the first one, with a bit rate that has space for the number of frames
        kept = found - (1 if main else 0)
        head = bytearray(first[:4])
        head[1] |= 1  # no checksum
        head[2] = (0x90 if samples == 1152 else 0xC0) | head[2] & 0x0C
        size, _, at = _mp3_frame(bytes(head)) or (0, 0, 0)
        frame = bytes(head).ljust(at, b"\0") + b"Xing" + struct.pack(">II", 1, kept)
        cut = promised is not None and first[36:40] == b"VBRI"
        return Claim(
            promised=promised if cut else None,
            found=kept,
            unit="frames",
            samples=kept * samples,
            head=frame.ljust(size, b"\0"),
            skip=start + length if main else start,
        )


@contextmanager
def _mapped(file: IO[bytes]) -> Iterator[Any]:
    """Yield the content of a file as bytes, without reading all of it from the disk."""
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _mp3_frames(data: Any) -> Iterator[int]:
    """Yield the start of each frame; data between frames (tags, noise) is skipped."""
    at, synced = 0, False
    while at < len(data) - 4:
        head = data[at : at + 4]
        frame = _mp3_frame(head)
        if frame and (synced or _mp3_frame(data[at + frame[0] : at + frame[0] + 4])):
            yield at
            at, synced = at + frame[0], True
        elif head[:3] == b"ID3":
            size = data[at + 6 : at + 10].ljust(4, b"\0")
            at += 10 + sum(b << s for b, s in zip(size, (21, 14, 7, 0), strict=True))
            synced = False
        else:
            found = data.find(b"\xff", at + 1)
            if found < 0:
                return
            at, synced = found, False
