"""The embedded corpus: seven emotions acted by espeak-ng; see ``datamodules/synthetic``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...zoo.core.errors import DataError
from ..manifest import Utterance
from ..synthetic.generate import generate
from . import utterance

VERSION = 1


def prepare(
    root: Path,
    *,
    seed: int | None = None,
    utterances: int | None = None,
    speakers: int | None = None,
) -> Iterator[Utterance]:
    """Yield the utterances of the embedded corpus; it is generated if the folder is new or empty.

    Args:
        root: a folder with ``corpus.json``, or an empty one.
        seed: seed of all random numbers; None = that of the folder, or 0 for a new corpus.
        utterances: number per speaker and emotion; None = as in the folder, or 6 for a new corpus.
        speakers: number of speakers; None = as in the folder, or 12 for a new corpus.

    Raises:
        ConfigError: if options are out of range.
        DataError: if the folder holds other files, or the corpus with other options. Also if
            espeak-ng is needed and not installed.
    """
    wanted = {"seed": seed, "utterances": utterances, "speakers": speakers}
    for take in listed(root, "synthetic", wanted):
        yield utterance(
            "synthetic",
            root / take["audio"],
            root,
            speaker=take["speaker"],
            gender=take["gender"],
            language="en",
            label=take["label"],
            text=take["text"],
            text_source="human",
            label_source="acted",
        )


def listed(
    root: Path, corpus: str, options: Mapping[str, int | None], sentences: str = "acted"
) -> list[dict[str, Any]]:
    """Return the takes of an embedded corpus; it is generated if its folder is new or empty.

    Args:
        root: a folder with ``corpus.json``, or an empty one.
        corpus: name of the corpus, for messages.
        options: options of :func:`.synthetic.generate`; None = as in the folder.
        sentences: which of the two embedded corpora it is.
    """
    wanted = {name: value for name, value in options.items() if value is not None}
    listing = root / "corpus.json"
    if not listing.is_file():
        generate(root, sentences=sentences, **wanted)
    try:
        facts = json.loads(listing.read_text("utf-8"))
        takes: list[dict[str, Any]] = facts["takes"]
        there = {name: facts[name] for name in wanted}
        variant = facts.get("sentences", "acted")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(
            f"{listing} is not a listing of the corpus '{corpus}'; remove the folder to generate "
            "the corpus again"
        ) from None
    if variant != sentences:
        raise DataError(
            f"{root} holds the embedded corpus with sentences={variant}, not '{corpus}'; "
            "give a new folder, or leave root out"
        )
    if there != wanted:
        found = ", ".join(f"{name}={value}" for name, value in there.items())
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise DataError(
            f"{root} holds the corpus with {found}, not {asked}; leave the options out to use this "
            "corpus, or give a new folder"
        )
    return takes
