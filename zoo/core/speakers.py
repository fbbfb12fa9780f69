"""Speakers by name, as records and tables keep them: ``corpus/name``.

In a list of speakers ``corpus/`` stands for those of a corpus whom nobody knows, and in a table ""
stands for the unknown speaker of an utterance. Two unknown speakers may be one person or two, and
an unknown one may be any of those who have a name.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import counted

REFUSE, ACCEPT = "refuse", "accept"
UNKNOWN_SPEAKERS = (REFUSE, ACCEPT)
"""What may be done with utterances without a speaker where a split is to be speaker-disjoint."""


def is_known(speaker: str) -> bool:
    """Whether a name is one: neither "" nor ``corpus/``."""
    corpus, slash, name = speaker.partition("/")
    return bool(name if slash else corpus)


def known(speakers: Iterable[str]) -> set[str]:
    """Those who have a name."""
    return {s for s in speakers if is_known(s)}


def shared(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """Who is in both lists for certain, sorted."""
    return sorted(known(a) & known(b))


def cannot_tell(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """Corpora that both lists have speakers of, one of them unknown: they may share anybody."""
    first, second = set(a), set(b)
    both = {s.partition("/")[0] for s in first} & {s.partition("/")[0] for s in second}
    return sorted(c for c in both if f"{c}/" in first | second)


def counted_speakers(speakers: Iterable[str]) -> str:
    """``1 speaker``, ``3 speakers``, ``3 speakers and unknown ones``, ``unknown speakers``."""
    names = set(speakers)
    n = len(known(names))
    told = counted(n, "speaker")
    if n == len(names):
        return told
    return f"{told} and unknown ones" if n else "unknown speakers"
