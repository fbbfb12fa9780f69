"""The manifest: one utterance per line of JSON, facts only.

No split, no taxonomy: a manifest says what exists and what the corpus claims about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled stretch of speech.

    Attributes:
        id: unique, ``<corpus>/<name>``.
        corpus: name of the corpus.
        audio: path relative to the corpus' root, with forward slashes.
        start: seconds into the file.
        end: seconds into the file; ``end - start`` is the duration.
        sample_rate: of the file, in Hz.
        speaker: unique within the corpus.
        session: recording session (IEMOCAP), dialogue (MELD); None where there is none.
        gender: ``female``, ``male`` or None.
        language: ISO 639-1 code, or None.
        label: the corpus' own code; None = unlabelled.
        labels: other label columns of the corpus (``{"voice_vote": "A"}``), in its own codes.
        dims: valence, arousal, dominance in 0..1; None where not rated.
        text: transcript; None where there is none.
        text_source: ``human``, ``asr:<model>`` or None.
        label_source: ``acted``, ``perceived``, ``weak:<model>`` or None.
        label_score: confidence of the label in 0..1, or None.
        sha: 16 hexadecimal digits of the SHA-256 of the decoded samples.
    """

    id: str
    corpus: str
    audio: str
    start: float
    end: float
    sample_rate: int
    speaker: str
    session: str | None = None
    gender: str | None = None
    language: str | None = None
    label: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    dims: tuple[float | None, float | None, float | None] | None = None
    text: str | None = None
    text_source: str | None = None
    label_source: str | None = None
    label_score: float | None = None
    sha: str | None = None

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start
