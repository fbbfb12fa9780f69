"""The embedded corpus of unlabelled talk; see ``datamodules/synthetic/talking.py``."""

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
    """Yield the utterances of the embedded talk; it is generated if the folder is new or empty.

    They have no label. Two other label columns serve to audit weak labels. ``acted`` is the emotion
    of the voice, and ``worded`` the emotion that the words were written for.

    Args:
        root: a folder with ``corpus.json``, or an empty one.
        seed: seed of all random numbers; None = that of the folder, or 0 for a new corpus.
        utterances: number per speaker and emotion; None = as in the folder, or 6 for a new corpus.
        speakers: number of speakers; None = as in the folder, or 12 for a new corpus.
        text: give the transcripts; otherwise speech recognition must find the words.

    Raises:
        ConfigError: if options are out of range.
        DataError: if the folder holds other files, or the corpus with other options. Also if
            espeak-ng is needed and not installed.
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
