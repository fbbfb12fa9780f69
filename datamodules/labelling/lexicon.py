"""A scorer without a model: it counts cue words. This is not entailment."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import numpy as np

from ...zoo.core import shipped
from ...zoo.core.errors import ConfigError, suggest
from ...zoo.core.shipped import read_yaml
from .scorers import Hypothesis, Scorer, Scores

Cues = dict[str, re.Pattern[str]]


class Lexicon(Scorer):
    """Counts the cue words of each class in a transcript.

    A class has the cues of its canonical labels (``configs/lexicon``). A text has ``h`` cues of the
    class and ``r`` cues of other classes. The score is ``log((h + 1/2) / (r + 1/2))``. This is the
    log-odds of a vote with half a word on each side (our choice). It is 0 for a text without cues,
    as for the empty premise. It is 1.1 (three to one) for one word. A cue within three words of a
    negator counts for no class. Neutral has no cues. A text without any cue of the whole lexicon,
    negated or not, counts as one word for it. The template has no effect.

    Args:
        language: name of a file in ``configs/lexicon``.

    Raises:
        ConfigError: if this language has no lexicon.
    """

    scale: ClassVar[str] = "log-odds of cue words, half a word added to each side; no entailment"

    def __init__(self, *, language: str = "english") -> None:
        text = _text(language)
        self.source = f"lexicon-{language}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        data = read_yaml(text)
        self.cues: dict[str, list[str]] = data["cues"]
        self._every = _pattern([cue for cues in self.cues.values() for cue in cues])
        negators = "|".join(map(re.escape, data["negators"]))
        self._negated = re.compile(rf"(?:\b(?:{negators})|n't)(?:\s+[\w']+){{0,2}}\s*$")

    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        """Score as the contract says.

        Raises:
            ConfigError: if a class has no cues and does not contain neutral.
        """
        # each class once, although every template has it
        classes = list(dict.fromkeys(h.labels for h in hypotheses))
        patterns = [self._of(labels) for labels in classes]
        table = np.empty((len(premises), len(classes)))
        for row, premise in enumerate(premises):
            text = _plain(premise)
            hits = [self._count(pattern, text) for pattern in patterns]
            if text and not self._every.search(text):
                hits = [int("neutral" in labels) for labels in classes]
            rest = sum(hits)
            table[row] = [math.log((h + 0.5) / (rest - h + 0.5)) for h in hits]
        column = {labels: index for index, labels in enumerate(classes)}
        return table[:, [column[h.labels] for h in hypotheses]]

    def found(self, text: str, labels: Sequence[str]) -> list[str]:
        """Return the words of a text that count for a class of these labels: why it was chosen."""
        pattern, plain = self._of(tuple(labels)), _plain(text)
        if pattern is None:
            return []
        return [m[0] for m in pattern.finditer(plain) if not self._denied(plain, m)]

    def _of(self, labels: tuple[str, ...]) -> re.Pattern[str] | None:
        """Return the pattern of the cues of a class; None for neutral alone."""
        cues = [cue for label in labels for cue in self.cues.get(label, ())]
        if not cues and "neutral" not in labels:
            raise ConfigError(
                f"{self.source} has no cue words for the class of {', '.join(labels)}"
                f"{suggest(labels[0] if labels else '', self.cues)}; choose another taxonomy, or "
                "scorer=nli"
            )
        return _pattern(cues) if cues else None

    def _count(self, pattern: re.Pattern[str] | None, text: str) -> int:
        if pattern is None:
            return 0
        return sum(not self._denied(text, match) for match in pattern.finditer(text))

    def _denied(self, text: str, match: re.Match[str]) -> bool:
        return self._negated.search(text[: match.start()]) is not None


def languages() -> list[str]:
    """Return the languages that have a lexicon."""
    return shipped.names("lexicon")


def _text(language: str) -> str:
    if language not in languages():
        raise ConfigError(f"no lexicon is for '{language}'{suggest(language, languages())}")
    return shipped.text("lexicon", language)


def _pattern(cues: Sequence[str]) -> re.Pattern[str]:
    return _compiled(tuple(cues))


@cache
def _compiled(cues: tuple[str, ...]) -> re.Pattern[str]:
    """Return one pattern for all cues, the longest first, so that a phrase wins over its words."""
    parts = [
        rf"{re.escape(cue[:-1])}[\w']*" if cue.endswith("*") else rf"{re.escape(cue)}(?![\w'])"
        for cue in sorted(cues, key=lambda cue: (-len(cue), cue))
    ]
    return re.compile(rf"(?<![\w'])(?:{'|'.join(parts)})")


def _plain(text: str) -> str:
    """Return a text in lower case, with one kind of apostrophe and single spaces."""
    return " ".join(text.lower().replace("’", "'").split())
