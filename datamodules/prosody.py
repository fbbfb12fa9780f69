"""Prosody in numbers: F0, loudness and speaking rate. Probes predict them from frames.

================ =================================================================================
``f0_mean``      semitones above 100 Hz: mean over the voiced frames of speech (WORLD's Harvest)
``f0_sd``        semitones: standard deviation over the same frames
``energy_mean``  dB relative to full scale: mean level of the frames of speech
``energy_sd``    dB: standard deviation of the same
``rate``         syllables per second, from the first to the last frame of speech, with pauses
================ =================================================================================

Frames are 32 ms, every 5 ms. One is speech if its level is at most 30 dB below the recording's loud
frames. Syllables come from transcripts (``text``) or from audio (``audio``). Transcripts are used
if every utterance has one in Latin letters. A syllable is then a group of vowel letters, at least
one per word, silent letters too. In audio it is a voiced peak of the level between dips of 2 dB (de
Jong & Wempe 2009). All numbers without a source are our choice.

:func:`prosody` measures utterances. The cache keeps the results by content, so a killed call can
continue. :func:`open_probing` gives the utterances, quantities and folds for probes.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..zoo.core import own
from ..zoo.core.encoder import Encoder
from ..zoo.core.errors import ConfigError, DataError, some
from ..zoo.core.files import cache_dir
from ..zoo.core.progress import Bar
from ..zoo.core.types import Batch
from ..zoo.statistics.probe import Fold
from .audio import SAMPLE_RATE, Samples, read_utterance
from .catalog import Speech, open_corpora
from .corruption import F0_RANGE, FRAME_SECONDS, LOVE_TRAIN, f0, pyworld
from .dataset import SpeechDataset
from .features import FeatureStore, feature_key, hash_of_sound
from .info import CorpusInfo
from .manifest import Utterance
from .protocols import Protocol, speaker_of, without_speaker
from .sampler import EvalSampler

UNITS = {
    "f0_mean": "semitones above 100 Hz",
    "f0_sd": "semitones",
    "energy_mean": "dB",
    "energy_sd": "dB",
    "rate": "syllables a second",
}
QUANTITIES = tuple(UNITS)

RateFrom = Literal["auto", "text", "audio"]
SOURCES = ("auto", "text", "audio")

WINDOW = 512
"""Samples of a frame: 32 ms, long enough that the periods of a low voice do not give dips."""

RANGE, SILENCE = 30.0, -70.0
"""dB. Speech is at most RANGE below the loud frames (their 99th percentile), and never below
SILENCE relative to full scale."""

LEAST_VOICED = 10
"""An utterance with fewer voiced frames than this (50 ms) has no F0."""

DIP, LOUD, APART, SMOOTH = 2.0, 25.0, 0.08, 0.02
"""Syllables in audio. DIP is the depth of the dips around a peak, in dB. LOUD is the largest
distance of a peak below the loud frames, in dB. APART is the smallest distance of two peaks, in
seconds. SMOOTH is the standard deviation of the Gaussian that smooths the level, in seconds.
"""

METHOD = {
    "version": 1,
    "f0": ["harvest, love train", LOVE_TRAIN, *F0_RANGE, FRAME_SECONDS, LEAST_VOICED],
    "level": [WINDOW, RANGE, SILENCE],
    "nuclei": [DIP, LOUD, APART, SMOOTH],
}


@dataclass(frozen=True)
class Measured:
    """Measurements of an utterance from audio alone; NaN if it has no speech, or no voice.

    Attributes:
        f0_mean: semitones above 100 Hz.
        f0_sd: semitones.
        energy_mean: dB relative to full scale.
        energy_sd: dB.
        seconds: duration from the first frame of speech to the last; 0 if there is no speech.
        nuclei: number of syllables in the audio.
    """

    f0_mean: float
    f0_sd: float
    energy_mean: float
    energy_sd: float
    seconds: float
    nuclei: int


def measure(samples: Samples) -> Measured:
    """Measure ``[S]`` samples at 16 kHz.

    Raises:
        ConfigError: if pyworld is not installed.
    """
    pitch = f0(samples.astype(np.float64))
    level = levels(samples)[: len(pitch)]
    loud = float(np.percentile(level, 99))
    speech = np.flatnonzero(level >= max(loud - RANGE, SILENCE))
    if not len(speech):
        return Measured(nan, nan, nan, nan, 0.0, 0)
    voiced = pitch[speech][pitch[speech] > 0]
    tones = 12 * np.log2(voiced / 100) if len(voiced) >= LEAST_VOICED else np.array([nan])
    return Measured(
        f0_mean=float(tones.mean()),
        f0_sd=float(tones.std()),
        energy_mean=float(level[speech].mean()),
        energy_sd=float(level[speech].std()),
        seconds=float(speech[-1] - speech[0] + 1) * FRAME_SECONDS,
        nuclei=nuclei(level, pitch, loud),
    )


def levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Return ``[frames]`` levels in dB relative to full scale, every 5 ms; silence is -120."""
    hop = round(FRAME_SECONDS * SAMPLE_RATE)
    padded = np.pad(np.square(samples.astype(np.float64)), WINDOW // 2)
    total = np.concatenate([[0.0], np.cumsum(padded)])
    starts = np.arange(0, len(samples) + 1, hop)
    power = (total[starts + WINDOW] - total[starts]) / WINDOW
    return np.asarray(10 * np.log10(np.maximum(power, 1e-12)))


def nuclei(level: npt.NDArray[np.float64], pitch: npt.NDArray[np.float64], loud: float) -> int:
    """Count the voiced peaks of the level.

    Args:
        level: ``[frames]`` dB.
        pitch: ``[frames]`` Hz, 0 where unvoiced.
        loud: level of the loud frames.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    smooth = gaussian_filter1d(level, SMOOTH / FRAME_SECONDS)
    peaks, _ = find_peaks(
        smooth, height=loud - LOUD, prominence=DIP, distance=round(APART / FRAME_SECONDS)
    )
    return int((pitch[peaks] > 0).sum())


def syllables(text: str) -> int | None:
    """Count groups of vowel letters, at least one per word; None for text without Latin letters."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words = re.findall(r"[a-zßæœø]+", plain.replace("'", "").replace("’", ""))
    if not words:
        return None
    return sum(max(1, len(re.findall(r"[aeiouyæœø]+", word))) for word in words)


@dataclass(frozen=True)
class Prosody:
    """The targets of a probe.

    Attributes:
        values: maps a quantity to ``[N]`` values; NaN if an utterance has none.
        rate_from: ``text`` or ``audio``.
    """

    values: dict[str, npt.NDArray[np.float64]]
    rate_from: str


def prosody(
    utterances: Sequence[Utterance],
    roots: dict[str, Path],
    *,
    max_seconds: float,
    rate_from: RateFrom = "auto",
    progress: bool = False,
) -> Prosody:
    """Return the quantities of all utterances; earlier measurements come from the cache.

    Args:
        utterances: N utterances.
        roots: maps a corpus to its folder.
        max_seconds: longer utterances are cut to this. The transcript of a cut utterance is too
            long, so its rate comes from audio.
        rate_from: ``auto`` = from text if every utterance has one, otherwise from audio.
        progress: show a bar.

    Raises:
        ConfigError: if pyworld is not installed, or ``rate_from`` is unknown.
        DataError: if ``rate_from`` is ``text`` and utterances have no usable transcript.
    """
    if rate_from not in SOURCES:
        raise ConfigError(f"rate_from is '{rate_from}'; have {', '.join(SOURCES)}")
    counts = [syllables(u.text or "") if u.duration <= max_seconds else None for u in utterances]
    without = [u.id for u, count in zip(utterances, counts, strict=True) if count is None]
    if rate_from == "text" and without:
        raise DataError(
            f"{len(without)} of {len(utterances)} utterances have no transcript in Latin letters, "
            f"or are cut (first: {without[0]}); set rate_from=audio"
        )
    source = "text" if rate_from == "text" or (rate_from == "auto" and not without) else "audio"
    rows = list(_measured(utterances, roots, max_seconds, progress))
    audio_counts = [row.nuclei for row in rows]
    spoken = counts if source == "text" else audio_counts
    values = {
        name: np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in QUANTITIES[:-1]
    }
    values["rate"] = np.array(
        [
            (n or 0) / row.seconds if row.seconds > 0 else nan
            for n, row in zip(spoken, rows, strict=True)
        ]
    )
    return Prosody(values, source)


def _measured(
    utterances: Sequence[Utterance], roots: dict[str, Path], max_seconds: float, progress: bool
) -> Iterator[Measured]:
    pyworld()
    store = _Store()
    with Bar("prosody", len(utterances), shown=progress) as bar:
        for u in utterances:
            key = feature_key(u, u.sha or hash_of_sound(u, roots), max_seconds)
            found = store.get(key)
            if found is None:
                found = measure(read_utterance(u, roots[u.corpus], max_seconds))
                store.put(key, found)
            yield found
            bar.advance()


class _Store:
    """A file of JSON lines in the cache, one file for each way of measuring."""

    def __init__(self) -> None:
        method = json.dumps({**METHOD, "pyworld": version("pyworld")}, sort_keys=True)
        self.path = cache_dir() / "prosody" / f"{sha256(method.encode()).hexdigest()[:12]}.jsonl"
        self.rows: dict[str, Measured] = {}
        whole = True
        if self.path.is_file():
            # a killed process may leave a partial line, see below
            text = self.path.read_text("utf-8", errors="replace")
            whole = text.endswith("\n") or not text
            for line in text.splitlines():
                try:
                    row: dict[str, Any] = json.loads(line)
                    key = row.pop("key")
                    self.rows[key] = Measured(**_numbers(row))
                except (ValueError, KeyError, TypeError):
                    continue  # a partial line: measure this utterance again
        self.start = "" if whole else "\n"

    def get(self, key: str) -> Measured | None:
        return self.rows.get(key)

    def put(self, key: str, row: Measured) -> None:
        """Append a line in one write, so that lines of several processes do not mix."""
        values = {k: None if v != v else v for k, v in asdict(row).items()}
        line = self.start + json.dumps({"key": key, **values}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
        self.start, self.rows[key] = "", row


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {k: nan if v is None else v for k, v in row.items()}


# Corpora, quantities and folds for probes of prosody.


@dataclass(frozen=True)
class Probing:
    """Utterances, the quantities to predict from their frames, and folds.

    Attributes:
        speech: utterances (labels are not used) and their folders.
        prosody: quantities by name, ``[N]``.
        folds: probes are fitted on training and validation speakers, and scored on test speakers.
        protocol: name and version of the protocol.
        max_seconds: longer utterances are cut to this.
    """

    speech: Speech
    prosody: Prosody
    folds: list[Fold]
    protocol: str
    max_seconds: float

    @property
    def speakers(self) -> list[str]:
        """``corpus/speaker`` of each utterance."""
        return [speaker_of(u) for u in self.speech.utterances]

    def batches(
        self, encoder: Encoder, *, size: int, budget: float, stored: bool, device: Any = "cpu"
    ) -> Iterator[tuple[list[int], Batch]]:
        """Yield the rows and the batch, every utterance once, shortest first.

        Args:
            encoder: the encoder that will read the batches.
            size: largest number of utterances in a batch.
            budget: largest number of padded seconds in a batch.
            stored: read features from the store, if the encoder allows it and the disk has space.
                Missing features are computed first, and kept.
            device: device of this computation.
        """
        utterances = self.speech.utterances
        dataset = SpeechDataset(
            utterances,
            [-1] * len(utterances),
            1,
            roots=self.speech.roots,
            max_seconds=self.max_seconds,
        )
        if stored and encoder.storable:
            store = FeatureStore(
                own.extraction_of(encoder),
                self.speech.roots,
                max_seconds=self.max_seconds,
                frame_seconds=encoder.frame_seconds,
            )
            if store.fill(encoder, utterances, device=device).kind == "stored":
                dataset.use(store)
        for rows in EvalSampler(dataset.seconds, size=size, budget=budget):
            yield rows, dataset[rows]


def open_probing(
    corpora: Sequence[str],
    *,
    protocol: str | None = None,
    fold: int | None = None,
    root: str | None = None,
    manifest: str | None = None,
    options: dict[str, Any] | None = None,
    max_seconds: float = 20.0,
    rate_from: RateFrom = "auto",
    progress: bool = False,
) -> Probing:
    """Open corpora for probes: measure prosody, and split the utterances.

    Args:
        corpora: registered names.
        protocol: name of the protocol; by default that of the corpus, or ``loco`` for several.
        fold: use only this fold; None = all folds, whose test parts must not overlap.
        root: folder of the corpus.
        manifest: a prepared manifest to read instead.
        options: options of the corpus' reader.
        max_seconds: longer utterances are cut to this.
        rate_from: where the speaking rate comes from: ``auto``, ``text``, ``audio``.
        progress: show bars.

    Raises:
        DataError: if the protocol's parts share speakers, a speaker is unknown, or the data have
            another fault.
        ConfigError: if pyworld is not installed.
    """
    speech = open_corpora(corpora, root=root, manifest=manifest, options=options, progress=progress)
    utterances = speech.utterances
    if lost := without_speaker(utterances):
        raise DataError(
            f"a probe is fitted on some speakers and scored on others, but {len(lost)} of "
            f"{len(utterances)} utterances have no speaker ({some(u.id for u in lost)}); name the "
            "speakers (options.speaker=..., or in the manifest), or leave these utterances out"
        )
    names = sorted({u.corpus for u in utterances})
    if protocol is None:
        protocol = CorpusInfo.load(names[0]).protocol if len(names) == 1 else "loco"
    rule = Protocol.load(protocol or "kfold")
    row = {u.id: i for i, u in enumerate(utterances)}
    wanted = range(rule.n_folds(utterances)) if fold is None else [fold]
    folds = []
    for k in wanted:
        split = rule.split(utterances, k)
        train = {speaker_of(u) for u in [*split.train, *split.valid]}
        if shared := train & {speaker_of(u) for u in split.test}:
            raise DataError(
                f"{rule.name}, fold {k}: {len(shared)} speakers are in training and test; a probe "
                "needs a speaker-disjoint protocol, such as protocol=kfold"
            )
        fit, score = ([row[u.id] for u in us] for us in ([*split.train, *split.valid], split.test))
        folds.append(Fold(np.array(sorted(fit)), np.array(sorted(score))))
    found = prosody(
        utterances, speech.roots, max_seconds=max_seconds, rate_from=rate_from, progress=progress
    )
    return Probing(speech, found, folds, rule.name, max_seconds)
