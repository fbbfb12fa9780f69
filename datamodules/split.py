"""What a protocol makes of a manifest: train, valid and test, and what they may share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..zoo.errors import ConfigError
from ..zoo.speakers import REFUSE
from .manifest import Utterance

PARTS = ("train", "valid", "test")
PAIRS = (("train", "valid"), ("train", "test"), ("valid", "test"))


@dataclass(frozen=True)
class Sharing:
    """Which parts may have speakers in common, and the words that say why."""

    parts: tuple[str, ...]
    why: str

    @classmethod
    def from_data(cls, name: str, data: Any) -> Sharing | None:
        """From ``shares`` of a protocol file: words (for all parts), or parts and why.

        Raises:
            ConfigError: when there are no words.
        """
        if data is None:
            return None
        given = {"why": data} if isinstance(data, str) else dict(data)
        parts, why = tuple(given.get("parts", PARTS)), str(given.get("why") or "").strip()
        if not why or len(parts) < 2 or not set(parts) <= set(PARTS):
            raise ConfigError(
                f"protocol '{name}': shares must say why in words, and name two or three parts of "
                f"{', '.join(PARTS)}; it says {data}"
            )
        return cls(parts, why)

    def allows(self, a: str, b: str) -> bool:
        """Whether parts ``a`` and ``b`` may share a speaker."""
        return a in self.parts and b in self.parts


@dataclass(frozen=True)
class Split:
    """One fold of a protocol.

    Attributes:
        train: utterances to learn from, in the order of the manifest, as in the other parts.
        valid: utterances to choose a model by.
        test: utterances to score once.
        protocol: name and version.
        fold: which fold, from 0.
        sharing: the protocol's word on parts that share speakers; None = none may.
        notes: facts about this split that its reader should know.
        unknown_speakers: ``accept`` if utterances without a speaker may be in any part; ``refuse``.
    """

    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]
    protocol: str = "custom@1"
    fold: int = 0
    sharing: Sharing | None = None
    notes: list[str] = field(default_factory=list)
    unknown_speakers: str = REFUSE

    def parts(self) -> Iterator[tuple[str, list[Utterance]]]:
        """Name and utterances of each part."""
        yield from zip(PARTS, (self.train, self.valid, self.test), strict=True)

    def fingerprint(self) -> dict[str, str]:
        """12 hexadecimal digits for each part: its utterances' ids, whatever their order."""
        return {
            part: hashlib.sha256("\n".join(sorted(u.id for u in us)).encode()).hexdigest()[:12]
            for part, us in self.parts()
        }


def speaker_of(utterance: Utterance) -> str:
    """``corpus/speaker``: names are unique within a corpus only; "" if nobody knows who speaks."""
    return f"{utterance.corpus}/{utterance.speaker}" if utterance.speaker else ""


def speakers_of(utterances: Iterable[Utterance]) -> set[str]:
    """The ``corpus/speaker`` names of these utterances, of those that are known."""
    return {speaker_of(u) for u in utterances} - {""}


def without_speaker(utterances: Iterable[Utterance]) -> list[Utterance]:
    """Those of which nobody knows who speaks."""
    return [u for u in utterances if not speaker_of(u)]


def unit_of(utterance: Utterance) -> str:
    """What is dealt as one: all of a speaker, or an utterance by itself if nobody knows whose."""
    return speaker_of(utterance) or utterance.id


def listed_speakers(utterances: Iterable[Utterance]) -> list[str]:
    """What a record keeps: ``corpus/speaker``, and ``corpus/`` for those who are not known."""
    return sorted({speaker_of(u) or f"{u.corpus}/" for u in utterances})


def some(names: Iterable[str], n: int = 5) -> str:
    """The first names, sorted, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:n]) + (f", ... {len(names) - n} more" if len(names) > n else "")
