"""Names of speakers, as records and tables keep them: ``corpus/name``.

In a list of speakers, ``corpus/`` means the unknown speakers of that corpus. In a table, "" means
that the speaker of an utterance is unknown. Two unknown speakers may be one person or two. An
unknown speaker may also be any of the named ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import counted

REFUSE, ACCEPT = "refuse", "accept"
UNKNOWN_SPEAKERS = (REFUSE, ACCEPT)
"""Ways in which a speaker-disjoint split may treat utterances of unknown speakers."""

NONE, SPEAKER, ENROL = "none", "speaker", "enrol:"
"""Ways to normalise features by speaker: not at all, by all utterances, by K of them."""


def enrolled(way: str) -> int | None:
    """Return how many utterances give a speaker's statistics; 0 = all, None = there are none.

    Args:
        way: ``none``, ``speaker`` or ``enrol:K``.

    Raises:
        ValueError: if it is none of these.
    """
    if way in (NONE, SPEAKER):
        return None if way == NONE else 0
    number = way.removeprefix(ENROL)
    if way == f"{ENROL}{number}" and number.isascii() and number.isdigit() and int(number):
        return int(number)
    raise ValueError(
        f"is '{way}'; have {NONE}, {SPEAKER} (all utterances of a speaker), and {ENROL}K "
        f"(K of them, as in {ENROL}16)"
    )


def is_known(speaker: str) -> bool:
    """Return whether a name is known: it is neither "" nor ``corpus/``."""
    corpus, slash, name = speaker.partition("/")
    return bool(name if slash else corpus)


def known(speakers: Iterable[str]) -> set[str]:
    """Return the speakers that have a name."""
    return {s for s in speakers if is_known(s)}


def shared(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """Return the speakers that are certainly in both lists, sorted."""
    return sorted(known(a) & known(b))


def cannot_tell(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """Return the corpora that may share a speaker between the lists, sorted.

    Both lists have speakers of such a corpus, and at least one of these is unknown.
    """
    first, second = set(a), set(b)
    both = {s.partition("/")[0] for s in first} & {s.partition("/")[0] for s in second}
    return sorted(c for c in both if f"{c}/" in first | second)


def counted_speakers(speakers: Iterable[str]) -> str:
    """Return a text such as ``3 speakers``, ``3 speakers and unknown ones``."""
    names = set(speakers)
    n = len(known(names))
    text = counted(n, "speaker")
    if n == len(names):
        return text
    return f"{text} and unknown ones" if n else "unknown speakers"
