"""The first stage: what is said. Human text stays; other utterances go through a recogniser."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...zoo.errors import ConfigError
from ..audio import read_utterance
from ..manifest import Utterance
from ..sampler import pack
from .recognisers import Heard, Recogniser
from .stage import Stage

REASONS = ("long", "empty", "repeated", "short", "unsure")
"""Why an utterance goes no further: in this order, the first that holds."""

SHORTEST = 0.1  # seconds; less holds no word, and less than a frame that models cannot hear


class Transcribe(Stage):
    """Rows ``{id, text, text_source, language, confidence, rejected}``.

    Args:
        recogniser: for utterances without text; None where all have theirs.
        roots: corpus to the folder of its audio.
        min_words: fewer are ``short``; of human text, too.
        min_confidence: a mean log-probability per token below it is ``unsure``; None = no limit;
            ``auto`` = that of the recogniser: -1 for Whisper (Radford et al. 2022, section 4.5),
            none for others, whose confidence is on scales of their own.
        max_ratio: a text that zlib shrinks by more is ``repeated``: 2.4, same section.
        max_repeats: the same one to four words more often than this in a row are ``repeated`` too
            (our choice: loops of short texts shrink less).
        max_seconds: longer utterances are ``long``, and not listened to; never more than the
            window of the model (30 for Whisper).
        batch_size: utterances in a batch at most.
        batch_seconds: padded seconds in a batch at most.
    """

    name = "transcripts"

    def __init__(
        self,
        recogniser: Recogniser | None,
        roots: dict[str, Path],
        *,
        min_words: int = 3,
        min_confidence: float | Literal["auto"] | None = "auto",
        max_ratio: float = 2.4,
        max_repeats: int = 4,
        max_seconds: float = 30.0,
        batch_size: int = 16,
        batch_seconds: float = 160.0,
    ) -> None:
        if min_words < 1 or max_repeats < 1 or batch_size < 1 or max_seconds <= 0:
            raise ConfigError(
                f"min_words={min_words}, max_repeats={max_repeats}, batch_size={batch_size}, "
                f"max_seconds={max_seconds}; give 1 or more, and max_seconds above 0"
            )
        self.recogniser, self.roots = recogniser, roots
        if recogniser is not None:
            max_seconds = min(max_seconds, recogniser.longest)
        if min_confidence == "auto":
            min_confidence = None if recogniser is None else recogniser.least
        self.limits: dict[str, Any] = {
            "min_words": min_words,
            "min_confidence": min_confidence,
            "max_ratio": max_ratio,
            "max_repeats": max_repeats,
            "max_seconds": max_seconds,
        }
        self.max_seconds = max_seconds
        self.batch_size, self.batch_seconds = batch_size, batch_seconds

    def settings(self) -> dict[str, Any]:
        batches = {"batch_size": self.batch_size, "batch_seconds": self.batch_seconds}
        asr = None if self.recogniser is None else self.recogniser.settings()
        return {"asr": asr, **self.limits, **batches}

    def rows(self, items: Sequence[Utterance]) -> Iterator[dict[str, Any]]:
        mute = [u for u in items if not has_text(u)]
        for u in items:
            if has_text(u):
                heard = Heard((u.text or "").strip(), None, u.language)
                yield self._row(u, heard, u.text_source or "human")
        for u in mute:
            if u.duration > self.max_seconds:
                yield self._row(u, Heard(""), None, "long")
            elif u.duration < SHORTEST:
                yield self._row(u, Heard(""), None)
        short = [u for u in mute if SHORTEST <= u.duration <= self.max_seconds]
        if short and self.recogniser is None:
            raise ConfigError(
                f"{short[0].id} has no text, and there is no recogniser; set asr=MODEL"
            )
        if not short or self.recogniser is None:
            return
        size = self.batch_size if self.recogniser.batched else 1
        seconds = np.array([u.duration for u in short])
        for batch in pack(range(len(short)), seconds, size, self.batch_seconds):
            part = [short[i] for i in batch]
            waves = [read_utterance(u, self.roots[u.corpus]) for u in part]
            for u, heard in zip(part, self.recogniser.hear(waves), strict=True):
                yield self._row(u, heard, f"asr:{self.recogniser.source}")

    def _row(
        self, u: Utterance, heard: Heard, source: str | None, rejected: str | None = None
    ) -> dict[str, Any]:
        machine = has_text(u) is False
        reason = rejected or self._fault(heard, machine)
        return {
            "id": u.id,
            "text": heard.text or None,
            "text_source": source,
            "language": heard.language,
            "confidence": None if heard.confidence is None else round(heard.confidence, 6),
            "rejected": reason,
        }

    def _fault(self, heard: Heard, machine: bool) -> str | None:
        least = self.limits["min_confidence"]
        if not any(c.isalnum() for c in heard.text):
            return "empty"
        if machine and repeats(heard.text, self.limits["max_ratio"], self.limits["max_repeats"]):
            return "repeated"
        if len(heard.text.split()) < self.limits["min_words"]:
            return "short"
        unsure = least is not None and heard.confidence is not None and heard.confidence < least
        return "unsure" if unsure else None


def has_text(u: Utterance) -> bool:
    """Whether an utterance comes with words, which stay."""
    return bool(u.text and u.text.strip())


def repeats(text: str, max_ratio: float = 2.4, max_repeats: int = 4) -> bool:
    """Whether a text loops, as recognisers do in silence and noise.

    Args:
        text: of any case and punctuation.
        max_ratio: bytes of UTF-8 over bytes that zlib makes of them.
        max_repeats: how often one to four words may follow themselves.
    """
    raw = text.encode()
    if len(raw) / len(zlib.compress(raw)) > max_ratio:
        return True
    words = ["".join(filter(str.isalnum, w)) for w in text.casefold().split()]
    for n in range(1, 5):
        same = 0  # words in a row that equal the one n before
        for i in range(n, len(words)):
            same = same + 1 if words[i] == words[i - n] else 0
            if same >= n * max_repeats:
                return True
    return False


def with_text(utterances: Sequence[Utterance], rows: Sequence[dict[str, Any]]) -> list[Utterance]:
    """The utterances that go on, with their text: those that are not rejected.

    Args:
        utterances: of the manifest.
        rows: of this stage, in the same order.
    """
    return [
        replace(u, text=row["text"], text_source=row["text_source"])
        for u, row in zip(utterances, rows, strict=True)
        if row["rejected"] is None
    ]
