"""Generate the embedded corpora: speech of espeak-ng, for the quickstart and for tests.

``acting.py`` decides who says what and how (``talking.py`` for the corpus of talk), and
``espeak.py`` speaks it. This file adds the effects after the voice (trembling, tilt, breath,
loudness, microphone) and writes the folder. Loudness is a cue and is kept: nothing is normalised to
its peak.

The difficulty was measured with seed 0 in four speaker-disjoint folds (the slow test repeats it). A
linear discriminant on six functionals of the voice has UAR 0.65, naive Bayes on the words 0.33,
chance 0.14.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import uniform_filter1d

from ...zoo.core.errors import ConfigError, DataError, DataWarning
from ...zoo.core.files import new_folder
from ...zoo.core.types import SAMPLE_RATE
from .acting import Speaker, Take, speaker, takes
from .espeak import Espeak, espeak_version
from .talking import sayings, talker

SENTENCES = {"acted": (speaker, takes), "talk": (talker, sayings)}  # who speaks, and what
GENERATOR = 1  # increase with every audible change: the corpus then gets a new folder


def act(espeak: Espeak, who: Speaker, take: Take) -> NDArray[np.int16]:
    """Speak one take.

    Returns:
        ``[S]`` 16-bit samples at 16 kHz.
    """
    rng = np.random.default_rng([*take.seed, 1])
    # the emotion chooses the tune, so the end of a sentence does not reveal the emotion
    spoken = take.text.rstrip(".!?") + ("?" if take.label == "surprised" else ".")
    x = espeak.say(
        spoken,
        accent=who.accent,
        pitch_hz=who.pitch_hz,
        formants=who.formants,
        rate=take.rate,
        pitch=take.pitch,
        pitch_range=take.pitch_range,
    )
    loud = np.flatnonzero(np.abs(x) > 0.003)
    x = _tremble(x[loud[0] : loud[-1] + 1], take.tremble / 100, espeak.sample_rate, rng)
    x = np.asarray(soxr.resample(x, espeak.sample_rate, SAMPLE_RATE), dtype=np.float64)
    x = _filter(x, (100, 8000), (take.tilt * np.log2(100 / 1000), take.tilt * np.log2(8)))
    x /= np.sqrt(np.mean(x**2))
    # breath follows the level of the speech, and is brighter
    envelope = np.sqrt(uniform_filter1d(x**2, 320).clip(0))  # 20 ms; running sums may end below 0
    x += 10 ** (take.breath / 20) * envelope * np.diff(rng.normal(size=len(x) + 1))
    x *= 10 ** (take.loudness / 20)
    before, after = rng.integers(800, 2400, 2)  # 50 to 150 ms
    x = np.concatenate([np.zeros(before), x, np.zeros(after)])
    x = _filter(x, [125 * 2**octave for octave in range(7)], who.equaliser)
    x += 10 ** (who.noise / 20) * rng.normal(size=len(x))
    return np.round(np.clip(x, -1, 1) * 32767).astype(np.int16)


def _tremble(
    x: NDArray[np.float64], depth: float, rate: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Perturb F0 by reading at an uneven speed: smooth noise of about 12 Hz."""
    knots = rng.normal(0, depth, len(x) * 25 // rate + 3)
    speed = 1 + np.interp(np.arange(len(x)) * 25 / rate, np.arange(len(knots)), knots)
    position = np.cumsum(speed)
    return np.interp(position[position < len(x)], np.arange(len(x)), x)


def _filter(
    x: NDArray[np.float64], hertz: Sequence[float], decibel: Sequence[float]
) -> NDArray[np.float64]:
    """Zero-phase filter: straight lines between gains over log frequency, flat beyond them."""
    n = next_fast_len(len(x), real=True)
    frequency = np.log2(np.fft.rfftfreq(n, 1 / SAMPLE_RATE).clip(1))
    gain = np.interp(frequency, np.log2(hertz), decibel)
    return np.fft.irfft(np.fft.rfft(x, n) * 10 ** (gain / 20), n)[: len(x)]


def generate(
    root: Path,
    *,
    seed: int = 0,
    utterances: int = 6,
    speakers: int = 12,
    sentences: str = "acted",
) -> Path:
    """Write the corpus: a FLAC file per utterance, and ``corpus.json``, which lists them.

    The folder is whole or absent. If several processes generate the same corpus, the first one to
    finish keeps its copy, and the others delete theirs. The same options give the same bytes in any
    process. Another kind of machine, or another version of espeak-ng, NumPy or soxr, may give other
    bytes.

    Args:
        root: the folder to write; if it already holds this corpus, nothing is done.
        seed: seed of all random numbers, 0 or more.
        utterances: number per speaker and emotion.
        speakers: number of speakers; half of them are female.
        sentences: ``acted`` (22 sentences), or ``talk`` (by other speakers).

    Returns:
        ``root``.

    Raises:
        ConfigError: if options are out of range.
        DataError: if espeak-ng is not installed, or the folder holds other files.
    """
    options = {"seed": (seed, 0), "utterances": (utterances, 1), "speakers": (speakers, 2)}
    for name, (value, least) in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"synthetic: {name}={value!r}; give a whole number from {least} on")
    if sentences not in SENTENCES:
        raise ConfigError(f"synthetic: sentences={sentences!r}; give one of {', '.join(SENTENCES)}")
    facts: dict[str, Any] = {"generator": GENERATOR, "espeakng-loader": espeak_version()}
    facts |= {"seed": seed, "utterances": utterances, "speakers": speakers}
    facts |= _variant(sentences)
    if _holds(root, facts):
        return root
    found = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    if found or root.is_file():
        raise DataError(
            f"{root} holds something else{f' ({found[0]})' if found else ''}; give a new folder "
            "for the generated speech"
        )
    try:
        with new_folder(root, replace=False) as draft:  # another process may read its copy already
            takes = _write(draft, seed, utterances, speakers, sentences)
            text = json.dumps(facts | {"takes": takes}, indent=1) + "\n"
            (draft / "corpus.json").write_text(text, "utf-8")
    except FileExistsError:
        if not _holds(root, facts):
            raise
    return root


def ensure_synthetic(
    cache: Path,
    *,
    seed: int = 0,
    utterances: int = 6,
    speakers: int = 12,
    sentences: str = "acted",
) -> Path:
    """Return the folder of the corpus in a cache; it is generated on first use.

    The folder's name has the options and the versions of the generator and of espeak-ng. See
    :func:`generate`.

    Args:
        cache: the folder of the cache.
        seed: seed of all random numbers, 0 or more.
        utterances: number per speaker and emotion.
        speakers: number of speakers; half of them are female.
        sentences: ``acted`` or ``talk``.
    """
    variant = _variant(sentences)
    key = json.dumps([GENERATOR, espeak_version(), seed, utterances, speakers, *variant.values()])
    root = Path(cache) / f"synthetic-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if root.exists() and (damage := _damage(root)):
        warnings.warn(
            f"the embedded corpus {root} of the cache {damage}; it is generated again",
            DataWarning,
            stacklevel=2,
        )
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=cache) as bin:
            root.rename(Path(bin, "old"))  # atomic, because another process may read it
    return generate(root, seed=seed, utterances=utterances, speakers=speakers, sentences=sentences)


def _damage(root: Path) -> str:
    """Return the fault of a corpus in the cache; "" if it has none."""
    try:
        takes = json.loads((root / "corpus.json").read_bytes())["takes"]
        audio = [root / take["audio"] for take in takes]
    except (OSError, ValueError, KeyError, TypeError):
        return "has no listing that can be read"
    bad = [path for path in audio if not (path.is_file() and path.stat().st_size)]
    return f"lacks {len(bad)} of {len(audio)} recordings (first: {bad[0].name})" if bad else ""


def _variant(sentences: str) -> dict[str, str]:
    """Return what ``corpus.json`` says about the sentences.

    It is empty for the acted corpus, which is older than the other one.
    """
    return {} if sentences == "acted" else {"sentences": sentences}


def _write(
    folder: Path, seed: int, utterances: int, speakers: int, sentences: str
) -> list[dict[str, Any]]:
    """Speak all takes into a folder, and return their list."""
    person, said = SENTENCES[sentences]
    done = []
    with Espeak() as espeak:
        for index in range(speakers):
            who = person(seed, index)
            (folder / who.name).mkdir()
            for take in said(who, seed=seed, index=index, utterances=utterances):
                (folder / take.audio).write_bytes(_flac(act(espeak, who, take)))
                done.append({"audio": take.audio, **asdict(take)})
    return done


def _flac(samples: NDArray[np.int16]) -> bytes:
    """Encode samples in memory.

    If libsndfile writes to a file, it waits for the disk at every close.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _holds(root: Path, facts: dict[str, Any]) -> bool:
    """Return whether a folder holds the corpus of these options and versions."""
    try:
        found = json.loads((root / "corpus.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    facts = {"sentences": None, **facts}
    return isinstance(found, dict) and all(found.get(k) == v for k, v in facts.items())
