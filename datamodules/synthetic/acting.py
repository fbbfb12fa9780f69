"""The script of the embedded corpus: who says what, and how.

Seven emotions differ by rate, pitch, pitch range, loudness, spectral tilt, breath and trembling.
The directions are those that reviews of acted speech report (Murray & Arnott 1993, J. Acoust. Soc.
Am. 93(2); Juslin & Laukka 2003, Psychol. Bull. 129(5)). The narrow range of fear is from the
latter; the former has a wide one. Surprise and all sizes are our choice. As in acted corpora, every
speaker has a voice, an accent, a neutral manner and a microphone of their own. Every speaker shows
each emotion in an own way and strength, and no two takes are the same.

Of every three takes, the first two have a sentence without emotion in its words
(:data:`NEUTRAL_WORDED`). It is drawn independently of the emotion. The third has a sentence of
:data:`WORDED`: with probability 2/3 one that fits, otherwise one that fits another emotion. So
words tell something, but less than the voice. In corpora of one or two takes they tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .espeak import ACCENTS

NEUTRAL_WORDED = (
    "The meeting starts at nine tomorrow.",
    "The bag is lying on the table.",
    "He put the letters in the drawer.",
    "The train leaves from platform two.",
    "She is walking along the river.",
    "There are seven books on the shelf.",
    "We will come back on Wednesday.",
    "The car is parked behind the house.",
)

WORDED = {
    "angry": ("How dare you lie to me again!", "Stop shouting and get out of here!"),
    "disgust": ("This food smells absolutely rotten.", "That is revolting, take it away."),
    "fearful": ("Please don't leave me alone in the dark.", "Someone is coming, we have to hide."),
    "happy": ("I can't believe we won the prize!", "This is the best day of my life!"),
    "neutral": ("It is a quarter past three.", "The form has two pages to fill in."),
    "sad": ("I miss my mother so much.", "Nobody came to his funeral."),
    "surprised": ("Oh, I never expected to see you!", "Wow, where did that come from?"),
}
EMOTIONS = tuple(WORDED)


@dataclass(frozen=True)
class Manner:
    """The manner of speaking, relative to the speaker's neutral manner.

    Attributes:
        rate: octaves (log2 of the ratio).
        pitch: octaves.
        pitch_range: octaves.
        loudness: dB.
        tilt: dB per octave; above 0 is brighter.
        breath: dB of breath noise.
        tremble: relative F0 perturbation, in per cent.
    """

    rate: float = 0.0
    pitch: float = 0.0
    pitch_range: float = 0.0
    loudness: float = 0.0
    tilt: float = 0.0
    breath: float = 0.0
    tremble: float = 0.0

    def array(self) -> NDArray[np.float64]:
        """Return the ``[7]`` values in the order of the fields."""
        return np.array([getattr(self, f.name) for f in fields(self)])


# at strength 1
MANNERS = {
    "angry": Manner(0.14, 0.18, 0.55, 6.0, 1.5, -1.0, 0.5),
    "disgust": Manner(-0.26, -0.13, 0.10, 0.5, -0.4, 3.0, 0.3),
    "fearful": Manner(0.26, 0.33, -0.50, -0.5, 0.2, 6.0, 1.6),
    "happy": Manner(0.08, 0.25, 0.75, 3.0, 0.8, 0.0, 0.1),
    "neutral": Manner(),
    "sad": Manner(-0.30, -0.07, -0.80, -5.0, -1.5, 4.0, 0.4),
    "surprised": Manner(-0.04, 0.40, 0.85, 2.0, 0.3, 2.0, 0.2),
}
# standard deviations: of a speaker's neutral manner, of how one shows an emotion, of one take
_SPEAKER = Manner(0.06, 0.00, 0.15, 1.5, 0.5, 2.0, 0.1)
_STYLE = Manner(0.04, 0.04, 0.15, 0.8, 0.3, 1.0, 0.15)
_TAKE = Manner(0.05, 0.04, 0.15, 1.0, 0.3, 1.2, 0.15)
_LEVEL, _BREATH, _TREMBLE, _RATE = -31.0, -34.0, 0.4, 185.0  # dBFS, dB to speech, %, words/minute


@dataclass(frozen=True)
class Speaker:
    """A voice: the speaker, the neutral manner, and the microphone."""

    name: str
    gender: str
    accent: str
    pitch_hz: tuple[int, int]
    formants: tuple[int, ...]
    manner: tuple[float, ...]
    expressiveness: float
    equaliser: tuple[float, ...]  # dB at 125, 250, ... 8000 Hz
    noise: float  # dBFS


@dataclass(frozen=True)
class Take:
    """An utterance: the words, the speaker and the manner; it does not depend on other takes."""

    id: str
    speaker: str
    gender: str
    accent: str
    label: str
    text: str
    rate: int
    pitch: int
    pitch_range: int
    loudness: float
    tilt: float
    breath: float
    tremble: float
    seed: tuple[int, ...]

    @property
    def audio(self) -> str:
        """The path below the corpus' root."""
        return f"{self.speaker}/{self.id}.flac"


def speaker(seed: int, index: int) -> Speaker:
    """Return the speaker with this number; even ones are female, odd ones male."""
    return voice(np.random.default_rng([seed, 0, index]), index)


def voice(rng: np.random.Generator, index: int, prefix: str = "") -> Speaker:
    """Draw a speaker; even ones are female, odd ones male, and the name begins with the prefix."""
    female = index % 2 == 0
    low = rng.uniform(135, 175) if female else rng.uniform(78, 108)
    size = rng.uniform(108, 120) if female else rng.uniform(92, 104)
    return Speaker(
        name=f"{prefix}{'f' if female else 'm'}{index // 2 + 1:02d}",
        gender="female" if female else "male",
        accent=ACCENTS[index // 2 % len(ACCENTS)],
        pitch_hz=(round(low), round(low * rng.uniform(1.38, 1.5))),
        formants=tuple(int(f) for f in np.round(size + rng.normal(0, 3, 9))),
        manner=tuple(float(x) for x in rng.normal(0, _SPEAKER.array())),
        expressiveness=rng.uniform(0.85, 1.2),
        equaliser=tuple(float(x) for x in rng.normal(0, 2.5, 7)),
        noise=rng.uniform(-68, -58),
    )


def takes(who: Speaker, *, seed: int, index: int, utterances: int) -> Iterator[Take]:
    """Yield the takes of a speaker; the first takes do not depend on ``utterances``."""
    for number, label in enumerate(EMOTIONS):
        rng = np.random.default_rng([seed, 1, index, number])
        strength, style = style_of(who, rng)
        order = rng.permutation(len(NEUTRAL_WORDED))
        for count in range(utterances):
            key = (seed, 2, index, number, count)
            rng = np.random.default_rng(key)
            if count % 3 == 2:
                fits = rng.random() < 2 / 3
                others = [e for e in EMOTIONS if e != label]
                text = str(rng.choice(WORDED[label if fits else str(rng.choice(others))]))
            else:
                text = NEUTRAL_WORDED[order[(count - count // 3) % len(order)]]
            yield Take(
                id=f"{who.name}-{label}-{count + 1:02d}",
                text=text,
                seed=key,
                **delivery(who, rng, label, strength, style),
            )


def style_of(who: Speaker, rng: np.random.Generator) -> tuple[float, NDArray[np.float64]]:
    """Return how strongly, and in which own way (``[7]``), a speaker shows an emotion."""
    return who.expressiveness * rng.uniform(0.85, 1.2), rng.normal(0, _STYLE.array())


def delivery(
    who: Speaker,
    rng: np.random.Generator,
    label: str,
    strength: float,
    style: NDArray[np.float64],
) -> dict[str, Any]:
    """Return the manner of one take: the fields of :class:`Take` except its id, text and seed."""
    # a neutral manner is not an emotion: it varies, but has no strength
    acted = MANNERS[label].array() * strength * rng.uniform(0.85, 1.15)
    how = Manner(*(np.array(who.manner) + acted + style + rng.normal(0, _TAKE.array())))
    return {
        "speaker": who.name,
        "gender": who.gender,
        "accent": who.accent,
        "label": label,
        "rate": round(float(np.clip(_RATE * 2**how.rate, 90, 400))),
        "pitch": round(float(np.clip(50 + 60 * how.pitch, 0, 99))),
        "pitch_range": round(float(np.clip(40 * 2**how.pitch_range, 5, 99))),
        "loudness": round(_LEVEL + how.loudness, 2),
        "tilt": round(how.tilt, 2),
        "breath": round(_BREATH + how.breath, 2),
        "tremble": round(max(0.0, _TREMBLE + how.tremble), 2),
    }
