"""The embedded corpus of talk, which nobody has labelled; see ``datamodules/talking.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..manifest import Utterance
from . import utterance
from .synthetic import listed

VERSION = 1


def prepare(
    root: Path,
    *,
    seed: int | None = None,
    utterances: int | None = None,
    speakers: int | None = None,
    text: bool = False,
) -> Iterator[Utterance]:
    """Utterances of the embedded talk, which is generated where the folder is new or empty.

    They have no label. What the voice acts, and what the words were made for, are kept apart, to
    audit weak labels with: in the label columns ``acted`` and ``worded``.

    Args:
        root: holds ``corpus.json``, or nothing.
        seed: of everything random; None = of what is there, 0 where it is generated.
        utterances: per speaker and emotion; None = what is there, 6 where it is generated.
        speakers: None = who is there, 12 where it is generated.
        text: tell what is said; otherwise it has to be recognised.

    Raises:
        ConfigError: on options out of range.
        DataError: when the folder holds something else, or the corpus with other options; when it
            has to be generated and espeak-ng is not installed.
    """
    wanted = {"seed": seed, "utterances": utterances, "speakers": speakers}
    for take in listed(root, "synthetic_talk", wanted, "talk"):
        yield utterance(
            "synthetic_talk",
            root / take["audio"],
            root,
            speaker=take["speaker"],
            gender=take["gender"],
            language="en",
            labels={"acted": take["label"], "worded": take["worded"]},
            text=take["text"] if text else None,
            text_source="human" if text else None,
        )
