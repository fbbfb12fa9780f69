"""The embedded corpus: seven emotions acted by espeak-ng; see ``datamodules/synthetic.py``."""

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
    """Utterances of the embedded corpus, which is generated where the folder is new or empty.

    Args:
        root: holds ``corpus.json``, or nothing.
        seed: of everything random; None = of what is there, 0 where it is generated.
        utterances: per speaker and emotion; None = what is there, 6 where it is generated.
        speakers: None = who is there, 12 where it is generated.

    Raises:
        ConfigError: on options out of range.
        DataError: when the folder holds something else, or the corpus with other options; when it
            has to be generated and espeak-ng is not installed.
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
    """The takes of an embedded corpus, which is generated where its folder is new or empty.

    Args:
        root: holds ``corpus.json``, or nothing.
        corpus: its name, for messages.
        options: of :func:`.synthetic.generate`; None = what is there.
        sentences: which of the two it is.
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
            f"{listing} is not a listing of the corpus '{corpus}'; remove the folder, and it is "
            "generated again"
        ) from None
    if variant != sentences:
        raise DataError(
            f"{root} holds the embedded corpus with sentences={variant}, which '{corpus}' is not; "
            "give a new folder, or leave root out"
        )
    if there != wanted:
        found = ", ".join(f"{name}={value}" for name, value in there.items())
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise DataError(
            f"{root} holds the corpus with {found}, not {asked}; leave the options out to take it "
            "as it is, or give a new folder"
        )
    return takes
