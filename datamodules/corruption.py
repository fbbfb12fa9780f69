"""Corrupted test audio: noise, rooms, clipping, telephone, coding, short clips, prosody.

A condition is written ``KIND`` or ``KIND:VALUE``:

=================  ===========================================================================
``clean``          unchanged audio, the reference of the others
``white:10dB``     white noise at a signal-to-noise ratio; ``pink:10dB`` falls by 3 dB an octave
``noise:10dB``     recorded noise: an excerpt of a file drawn from a folder
``reverb``         convolved with a room impulse response drawn from a folder
``clip:10%``       the loudest 10 % of the samples held at the level of the quietest of these
``telephone``      8 kHz, 300 to 3400 Hz, mu-law (G.711)
``mp3:16k``        coded and decoded at a bit rate in kbit/s; also ``opus:16k``
``first:2s``       only the first seconds, or the ``centre:2s``
``resynthesised``  analysed and synthesised by WORLD (pyworld): the control of ``monotone``
``monotone``       the same, with F0 flattened to the utterance's median
``lowpass:400Hz``  without higher frequencies: removes the words and keeps the intonation
``reversed``       from its end to its beginning
=================  ===========================================================================

All conditions except ``first``, ``centre`` and ``reversed`` keep length and alignment. Audio that
would leave -1..1 is scaled down as a whole and counted; it is never cut off. Otherwise the level is
kept. All random choices depend only on the kind and the utterance's id. So every model hears the
same audio, and two levels of a noise differ only in level. The parts of a condition are our choice.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..zoo.core.errors import ConfigError, DataError, suggest
from ..zoo.core.notices import tell
from .audio import SAMPLE_RATE, SUFFIXES, Samples, read_audio
from .distortions import (
    CODECS,
    MP3_RATES,
    Signal,
    at_snr,
    lowpass,
    peak_gain,
    pink,
    reverberate,
    telephone,
)
from .walk import walk

# Recorded noises and rooms.

FOLDERS = {"noise": (("esc10", ""), ("rir_noise", "noise")), "reverb": (("rir_noise", "rir"),)}
"""For each kind that needs recordings: folders of ``$SERZOO_DATA``, and a part of their paths."""

OPTION = {"noise": "noise", "reverb": "rir"}
"""For each kind, the option that names another folder."""


def recordings(kind: str, given: dict[str, str | Path | None]) -> list[tuple[str, Path]]:
    """Return the relative name and the path of every recording of a kind, sorted.

    Args:
        kind: a key of :data:`FOLDERS`.
        given: maps an option to its folder; None = look in ``$SERZOO_DATA``.

    Raises:
        ConfigError: if there are no recordings.
    """
    option = OPTION[kind]
    folder = given[option]
    if folder is not None:
        roots = [(Path(folder).expanduser(), "")]
    else:
        base = Path(os.environ.get("SERZOO_DATA") or "/nonexistent").expanduser()
        names = [(name + end, part) for name, part in FOLDERS[kind] for end in ("", "_mini")]
        roots = [(base / name, part) for name, part in names]
    found = [
        (path.relative_to(root.parent).as_posix(), path)
        for root, part in roots
        for path in _audio(root)
        if not part or part in path.relative_to(root).parts
    ]
    if found:
        return sorted(found)
    where = f"no recordings in {folder}" if folder is not None else "no folder of recordings"
    also = ", or use white and pink noise, which need none" if kind == "noise" else ""
    raise ConfigError(
        f"condition {kind}: {where}; give {option}=FOLDER with {', '.join(SUFFIXES)} files, or set "
        f"SERZOO_DATA to a folder that holds {' and '.join(n for n, _ in FOLDERS[kind])}{also}"
    )


def _audio(root: Path) -> list[Path]:
    """Return the audio files below a folder, if it exists; files that are not used are reported."""
    if not root.is_dir():
        return []
    found = walk(root)
    for text, fault in found.notes():
        tell(f"{root.name}: {text}", fault=fault)
    return found.take()


# The WORLD vocoder (Morise, Yokomori & Ozawa 2016), by its Python wrapper ``pyworld``.
#
# All functions take and return ``[S]`` float64 at 16 kHz. F0 comes from Harvest (Morise 2017). DIO
# with StoneMask is about forty times faster. But it was wrong by an octave in parts of two of the
# eight RAVDESS utterances that we looked at. The variability of F0 would measure these errors. If
# D4C's Love Train (Morise 2016) finds no voice in a frame, its F0 is dropped too. We checked this
# on twelve utterances of RAVDESS and EMO-DB with flattened F0. 81 to 90 % of Harvest's frames of
# speech are within half a semitone of the flat F0. Of the frames that remain, 91 to 99 % are.


F0_RANGE = (65.0, 700.0)
"""Hertz, from low men to shouting women (our choice)."""

LOVE_TRAIN = 0.85
"""Threshold of the voicing decision, as published."""

FRAME_SECONDS = 0.005
"""Distance between WORLD's frames in seconds."""


@cache
def pyworld() -> Any:
    """Return the compiled module of the wrapper.

    Raises:
        ConfigError: if it is not installed.
    """
    # find_spec does not import it: its __init__ (0.3.5) needs pkg_resources, which setuptools does
    # not have since version 82
    package = find_spec("pyworld")
    found = package and PathFinder.find_spec("pyworld.pyworld", package.submodule_search_locations)
    if not found or not found.loader:
        raise ConfigError(
            "F0 and the conditions monotone and resynthesised need pyworld; install it with pip "
            "install 'serzoo[prosody]' (without a wheel for this system, pip needs a C++ compiler "
            "to build it), or leave them out"
        )
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def f0(samples: Signal) -> Signal:
    """Return ``[frames]`` F0 in Hz, every 5 ms from time 0 on; 0 if unvoiced."""
    x = np.ascontiguousarray(samples)
    pitch, times = _harvest(x)
    if not np.any(pitch):
        return pitch
    aperiodicity = pyworld().d4c(x, pitch, times, SAMPLE_RATE, threshold=LOVE_TRAIN)
    return np.where(aperiodicity[:, 0] < 0.5, pitch, 0.0)  # 1 = no voice


def resynthesised(samples: Signal, *, monotone: bool = False) -> Signal:
    """Return ``[S]`` samples after WORLD's analysis and synthesis.

    The analysis gives F0, CheapTrick's envelope, and D4C's aperiodicity.

    Args:
        samples: ``[S]``; silence stays silence.
        monotone: give voiced frames the utterance's median F0, and keep timing, loudness and the
            spectral envelope. It differs from the plain resynthesis only in F0.
    """
    n = len(samples)
    if not np.any(samples):
        return samples
    world, x = pyworld(), np.ascontiguousarray(samples)
    pitch, times = _harvest(x)
    envelope = world.cheaptrick(x, pitch, times, SAMPLE_RATE)
    aperiodicity = world.d4c(x, pitch, times, SAMPLE_RATE)
    if monotone and np.any(pitch):
        pitch = np.where(pitch > 0, np.median(pitch[pitch > 0]), 0.0)
    y = world.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE, FRAME_SECONDS * 1000)
    return np.asarray(y[:n], dtype=np.float64)


def _harvest(x: Signal) -> tuple[Signal, Signal]:
    """Return F0 and the times of its frames."""
    low, high = F0_RANGE
    found: tuple[Signal, Signal] = pyworld().harvest(
        x, SAMPLE_RATE, f0_floor=low, f0_ceil=high, frame_period=FRAME_SECONDS * 1000
    )
    return found


# Conditions.

# unit, smallest and largest value; None = the kind takes no value
KINDS: dict[str, tuple[str, float, float] | None] = {
    "clean": None,
    "white": ("dB", -40, 80),
    "pink": ("dB", -40, 80),
    "noise": ("dB", -40, 80),
    "reverb": None,
    "clip": ("%", 0.01, 99),
    "telephone": None,
    "mp3": ("k", 8, 160),
    "opus": ("k", 6, 256),
    "first": ("s", 0.05, 3600),
    "centre": ("s", 0.05, 3600),
    "resynthesised": None,
    "monotone": None,
    "lowpass": ("Hz", 50, 7000),
    "reversed": None,
}
WORLD = ("resynthesised", "monotone")
KEEP_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Condition:
    """A change of test audio; ``str()`` gives its written form.

    Attributes:
        kind: one of :data:`KINDS`.
        value: its value in the unit of the kind; None if the kind takes no value.
    """

    kind: str
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Parse a text such as ``noise:10dB``; the unit may be omitted.

        Raises:
            ConfigError: if the kind is unknown, or the value is not allowed; the message lists
                the kinds, or the values.
        """
        kind, colon, rest = str(text).strip().partition(":")
        if kind not in KINDS:
            raise ConfigError(f"unknown condition '{text}'{suggest(kind, KINDS)}")
        takes = KINDS[kind]
        if takes is None:
            if colon:
                raise ConfigError(f"condition '{text}': {kind} takes no value; write {kind}")
            return cls(kind)
        unit, low, high = takes
        found = re.fullmatch(rf"(-?\d+(?:\.\d+)?)\s*(?:{unit})?", rest.strip())
        value = float(found[1]) if found else float("nan")
        if not low <= value <= high:
            raise ConfigError(
                f"condition '{text}': {kind} takes {low:g} to {high:g} {unit}; "
                f"write {kind}:{max(low, 10):g}{unit}"
            )
        if kind == "mp3" and value not in MP3_RATES:
            rates = ", ".join(map(str, MP3_RATES))
            raise ConfigError(
                f"condition '{text}': MP3 at 16 kHz has no such rate; give one of {rates} kbit/s"
            )
        return cls(kind, value)

    def __str__(self) -> str:
        takes = KINDS[self.kind]
        return self.kind if takes is None else f"{self.kind}:{self.value:g}{takes[0]}"


@dataclass(frozen=True)
class Corrupted:
    """An utterance under a condition.

    Attributes:
        samples: ``[S]`` float32, within -1..1.
        gain: the factor that keeps the samples in range; 1 = not scaled.
        source: file of the noise or the room, relative to its folder.
        silent: the utterance has no power, so no signal-to-noise ratio exists; it is unchanged.
    """

    samples: Samples
    gain: float = 1.0
    source: str | None = None
    silent: bool = False


class Corruption:
    """A condition, ready to be applied.

    Args:
        condition: the condition to apply.
        noise: folder of recorded noises, with all sub-folders; by default ``esc10`` and
            ``rir_noise/**/noise`` (or ``..._mini``) of ``$SERZOO_DATA``.
        rir: folder of room impulse responses; by default ``rir_noise/**/rir`` there.

    Attributes:
        counts: utterances so far: ``utterances``, ``scaled`` to stay in range, ``silent``.
        held: what an evaluation made of the corrupted audio, for the next one
            (:func:`serzoo.zoo.run.score.evaluate`).

    Raises:
        ConfigError: if the condition needs recordings or pyworld, and they are missing.
    """

    def __init__(
        self,
        condition: Condition,
        *,
        noise: str | Path | None = None,
        rir: str | Path | None = None,
    ) -> None:
        self.condition = condition
        self.files: list[tuple[str, Path]] = []
        if condition.kind in FOLDERS:
            self.files = recordings(condition.kind, {"noise": noise, "rir": rir})
        if condition.kind in WORLD:
            pyworld()  # fail before any work if it is not installed
        self.counts: Counter[str] = Counter(utterances=0, scaled=0, silent=0)
        self._kept: dict[tuple[str, bytes], Corrupted] = {}
        self._bytes = 0
        self.held: dict[str, Any] = {}

    def __call__(self, samples: Samples, name: str) -> Samples:
        """Return the samples ``[S]`` of utterance ``name`` under the condition, and count it."""
        key = (name, hashlib.blake2b(samples.tobytes(), digest_size=16).digest())
        done = self._kept.get(key)
        if done is None:
            done = self.apply(samples, name)
            if self._bytes + done.samples.nbytes <= KEEP_BYTES:  # keep it for the next model
                self._kept[key] = done
                self._bytes += done.samples.nbytes
        self.counts["utterances"] += 1
        self.counts["scaled"] += done.gain != 1.0
        self.counts["silent"] += done.silent
        return done.samples

    def apply(self, samples: Samples, name: str) -> Corrupted:
        """Return the same samples, together with what was done."""
        kind, value = self.condition.kind, self.condition.value or 0.0
        rng = np.random.default_rng(_seed(kind, name))
        n = len(samples)
        if kind == "clean":
            return Corrupted(samples)
        if kind in ("first", "centre"):
            keep = min(n, max(1, round(value * SAMPLE_RATE)))
            start = 0 if kind == "first" else (n - keep) // 2
            return Corrupted(np.ascontiguousarray(samples[start : start + keep]))
        if kind == "reversed":
            return Corrupted(np.ascontiguousarray(samples[::-1]))
        x = samples.astype(np.float64)
        if kind in WORLD:
            return _in_range(_fit(resynthesised(x, monotone=kind == "monotone"), n))
        if kind == "lowpass":
            return _in_range(lowpass(x, value))
        if kind == "clip":
            level = np.quantile(np.abs(x), 1 - value / 100)
            return _in_range(np.clip(x, -level, level))
        if kind == "telephone":
            y, gain = telephone(x)
            return _in_range(_fit(y, n), gain)
        if kind in ("mp3", "opus"):
            return _in_range(_fit(CODECS[kind](x * peak_gain(x), value), n), peak_gain(x))
        if not np.any(x):
            return Corrupted(samples, silent=True)
        if kind == "reverb":
            source, path = self.files[int(rng.integers(len(self.files)))]
            return _in_range(reverberate(x, _read(path)), source=source)
        if kind == "noise":
            source, noise = self._excerpt(n, rng)
            return _in_range(x + at_snr(x, noise, value), source=source)
        noise = rng.normal(size=n) if kind == "white" else pink(n, rng)
        return _in_range(x + at_snr(x, noise, value))

    def _excerpt(self, n: int, rng: np.random.Generator) -> tuple[str, Signal]:
        """Return ``[n]`` samples of a file from a random place, cyclic; never digital silence."""
        for _ in range(100):
            source, path = self.files[int(rng.integers(len(self.files)))]
            whole = _read(path)
            noise = np.take(whole, np.arange(n) + rng.integers(len(whole)), mode="wrap")
            if np.any(noise):
                return source, noise
        raise DataError(
            f"the noises ({self.files[0][1].parent}, ...) are silent: 100 excerpts of {n} samples "
            "hold zeros only; give a folder of other recordings (noise=FOLDER)"
        )

    def seconds(self, duration: float) -> float:
        """Return the duration under the condition of an utterance of this duration, in seconds."""
        cut = self.condition.kind in ("first", "centre")
        return min(duration, float(self.condition.value or 0)) if cut else duration

    def describe(self) -> dict[str, Any]:
        """Return facts for the record: the condition, a digest of its recordings, the counts."""
        found: dict[str, Any] = {"name": str(self.condition), "kind": self.condition.kind}
        found["value"] = self.condition.value
        if self.files:
            digest = hashlib.sha256()
            for name, path in self.files:
                digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
            found |= {"recordings": len(self.files), "sha": digest.hexdigest()[:12]}
        return {**found, **self.counts}


def remembered(condition: str, *, noise: str | None = None, rir: str | None = None) -> Corruption:
    """Return the corruption of a written condition, ready to use; its counts start at zero.

    The last one is kept with its corrupted audio. So models that are evaluated one after another
    under one condition share the work.
    """
    found = _remembered(condition, noise, rir, os.environ.get("SERZOO_DATA"))
    found.counts = Counter(dict.fromkeys(found.counts, 0))
    return found


@lru_cache(maxsize=1)
def _remembered(condition: str, noise: str | None, rir: str | None, _: str | None) -> Corruption:
    return Corruption(Condition.parse(condition), noise=noise, rir=rir)


def _seed(kind: str, name: str) -> list[int]:
    return list(hashlib.sha256(f"{kind}|{name}".encode()).digest())


def _in_range(x: Signal, gain: float = 1.0, source: str | None = None) -> Corrupted:
    last = peak_gain(x)
    return Corrupted((x * last).astype(np.float32), gain * last, source)


def _fit(x: Signal, n: int) -> Signal:
    """Return ``[n]`` samples: surplus samples are cut, and missing ones are zeros."""
    return np.pad(x[:n], (0, max(0, n - len(x))))


@lru_cache(maxsize=128)
def _read(path: Path) -> Signal:
    return read_audio(path).astype(np.float64)
