"""Corrupted test audio: noise, rooms, clipping, telephone, coding, short clips, prosody.

A condition is written ``KIND`` or ``KIND:VALUE``:

=================  ===========================================================================
``clean``          as it is: what the others are compared with
``white:10dB``     white noise at a signal-to-noise ratio; ``pink:10dB`` falls by 3 dB an octave
``noise:10dB``     recorded noise: an excerpt of a file drawn from a folder
``reverb``         convolved with a room impulse response drawn from a folder
``clip:10%``       the loudest 10 % of the samples held at the level of the quietest of these
``telephone``      8 kHz, 300 to 3400 Hz, mu-law (G.711)
``mp3:16k``        coded and decoded at a bit rate in kbit/s; also ``opus:16k``
``first:2s``       only the first seconds, or the ``centre:2s``
``resynthesised``  analysed and synthesised by WORLD (pyworld): the control of the next
``monotone``       the same, with F0 flattened to the utterance's median
``lowpass:400Hz``  what lies above is gone: the words are not heard any more, the intonation is
``reversed``       from its end to its beginning
=================  ===========================================================================

Length and alignment are kept, except by parts of a clip and in reverse. What would leave -1..1 is
scaled down as a whole and counted, never cut off; the level is kept otherwise. All random choices
are drawn from the kind and the utterance's id: every model hears the very same audio, and two
levels of a noise differ in level only. What a condition is made of is our choice.
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

# ---- Recorded noises and rooms that test audio is corrupted with: where they lie.

FOLDERS = {"noise": (("esc10", ""), ("rir_noise", "noise")), "reverb": (("rir_noise", "rir"),)}
"""Of a kind that needs recordings: folders of ``$SERZOO_DATA``, and a part of the path in them."""

OPTION = {"noise": "noise", "reverb": "rir"}
"""The option that names another folder."""


def recordings(kind: str, given: dict[str, str | Path | None]) -> list[tuple[str, Path]]:
    """Relative name and path of every recording of a kind, sorted.

    Args:
        kind: of :data:`FOLDERS`.
        given: folder by option; None = look in ``$SERZOO_DATA``.

    Raises:
        ConfigError: when there are none.
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
    """Audio below a folder, if there is one; what is not taken is told."""
    if not root.is_dir():
        return []
    found = walk(root)
    for text, fault in found.notes():
        tell(f"{root.name}: {text}", fault=fault)
    return found.take()


# ---- The WORLD vocoder (Morise, Yokomori & Ozawa 2016), by its Python wrapper ``pyworld``.
#
# All take and give ``[S]`` float64 at 16 kHz. F0 is Harvest's (Morise 2017). DIO with StoneMask is
# about forty times faster, and was an octave off in parts of two of eight emotional utterances of
# RAVDESS that we looked at: variability of F0 would measure these errors. Where D4C's Love Train
# (Morise 2016) hears no voice, a measured F0 is dropped, too: of twelve utterances of RAVDESS and
# EMO-DB with F0 flattened, 81 to 90 % of Harvest's frames of speech are within half a semitone of
# the flat F0, and 91 to 99 % of what is left then.


F0_RANGE = (65.0, 700.0)
"""Hertz; our choice: from low men to shouting women."""

LOVE_TRAIN = 0.85
"""Threshold of the voicing decision, as published."""

FRAME_SECONDS = 0.005
"""Distance of WORLD's frames."""


@cache
def pyworld() -> Any:
    """The wrapper's compiled module.

    Raises:
        ConfigError: when it is not installed.
    """
    package = find_spec("pyworld")  # finds it, and does not import it:
    # its __init__ (0.3.5) needs pkg_resources, which setuptools has not had since version 82
    found = package and PathFinder.find_spec("pyworld.pyworld", package.submodule_search_locations)
    if not found or not found.loader:
        raise ConfigError(
            "F0 and the conditions monotone and resynthesised need pyworld; install it with pip "
            "install 'serzoo[prosody]' (where there is no wheel, it is compiled: a C++ compiler "
            "is needed), or leave them out"
        )
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def f0(samples: Signal) -> Signal:
    """``[frames]`` F0 in Hz every 5 ms from time 0 on; 0 where unvoiced."""
    x = np.ascontiguousarray(samples)
    pitch, times = _harvest(x)
    if not np.any(pitch):
        return pitch
    aperiodicity = pyworld().d4c(x, pitch, times, SAMPLE_RATE, threshold=LOVE_TRAIN)
    return np.where(aperiodicity[:, 0] < 0.5, pitch, 0.0)  # 1 where it hears no voice


def resynthesised(samples: Signal, *, monotone: bool = False) -> Signal:
    """``[S]`` after WORLD's analysis (F0, CheapTrick's envelope, D4C's aperiodicity) and synthesis.

    Args:
        samples: ``[S]``; silence stays silence.
        monotone: voiced frames get the utterance's median F0; timing, loudness and the spectral
            envelope stay. It differs from the plain resynthesis in F0 only.
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
    """F0 and the times of its frames."""
    low, high = F0_RANGE
    found: tuple[Signal, Signal] = pyworld().harvest(
        x, SAMPLE_RATE, f0_floor=low, f0_ceil=high, frame_period=FRAME_SECONDS * 1000
    )
    return found


# ----

# unit, least and greatest value; None = takes no value
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
    """What is done to test audio; ``str()`` is how it is written.

    Attributes:
        kind: of :data:`KINDS`.
        value: in the kind's unit; None where it has none.
    """

    kind: str
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Condition:
        """From ``noise:10dB``; the unit may be left out.

        Raises:
            ConfigError: naming the kinds, or the values that the kind takes.
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
            raise ConfigError(f"condition '{text}': MP3 at 16 kHz has {rates} kbit/s")
        return cls(kind, value)

    def __str__(self) -> str:
        takes = KINDS[self.kind]
        return self.kind if takes is None else f"{self.kind}:{self.value:g}{takes[0]}"


@dataclass(frozen=True)
class Corrupted:
    """An utterance under a condition.

    Attributes:
        samples: ``[S]`` float32, within -1..1.
        gain: what everything was scaled by to stay in range; 1 = nothing.
        source: file of the noise or the room, relative to its folder.
        silent: the utterance has no power, so no ratio to it can be set; it was left as it is.
    """

    samples: Samples
    gain: float = 1.0
    source: str | None = None
    silent: bool = False


class Corruption:
    """A condition, ready to be applied.

    Args:
        condition: what to do.
        noise: folder of recorded noises, with all below; by default ``esc10`` and
            ``rir_noise/**/noise`` (or ``..._mini``) of ``$SERZOO_DATA``.
        rir: folder of room impulse responses; by default ``rir_noise/**/rir`` there.

    Attributes:
        counts: utterances so far: ``utterances``, ``scaled`` to stay in range, ``silent``.

    Raises:
        ConfigError: when recordings or pyworld are needed and not there.
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
            pyworld()  # what is not installed is told before work
        self.counts: Counter[str] = Counter(utterances=0, scaled=0, silent=0)
        self._kept: dict[tuple[str, bytes], Corrupted] = {}
        self._bytes = 0

    def __call__(self, samples: Samples, name: str) -> Samples:
        """The samples ``[S]`` of utterance ``name`` under the condition; counted."""
        key = (name, hashlib.blake2b(samples.tobytes(), digest_size=16).digest())
        done = self._kept.get(key)
        if done is None:
            done = self.apply(samples, name)
            if self._bytes + done.samples.nbytes <= KEEP_BYTES:  # for the next model
                self._kept[key] = done
                self._bytes += done.samples.nbytes
        self.counts["utterances"] += 1
        self.counts["scaled"] += done.gain != 1.0
        self.counts["silent"] += done.silent
        return done.samples

    def apply(self, samples: Samples, name: str) -> Corrupted:
        """The same, with what was done."""
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
        """``[n]`` of a file from a random place on, around its end; never digital silence."""
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
        """How long an utterance of this duration is under the condition."""
        cut = self.condition.kind in ("first", "centre")
        return min(duration, float(self.condition.value or 0)) if cut else duration

    def describe(self) -> dict[str, Any]:
        """For the record: the condition, a digest of the recordings it draws from, and counts."""
        found: dict[str, Any] = {"name": str(self.condition), "kind": self.condition.kind}
        found["value"] = self.condition.value
        if self.files:
            digest = hashlib.sha256()
            for name, path in self.files:
                digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
            found |= {"recordings": len(self.files), "sha": digest.hexdigest()[:12]}
        return {**found, **self.counts}


def remembered(condition: str, *, noise: str | None = None, rir: str | None = None) -> Corruption:
    """A condition as it is written, ready to be applied; counts begin at zero.

    The last one is kept with what it made: models that are evaluated one after another under one
    condition share the work.
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
    """``[n]``: a few samples too many are cut, too few are zeros."""
    return np.pad(x[:n], (0, max(0, n - len(x))))


@lru_cache(maxsize=128)
def _read(path: Path) -> Signal:
    return read_audio(path).astype(np.float64)
