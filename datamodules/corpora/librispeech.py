"""LibriSpeech: read books with transcripts, unlabelled, English (Panayotov et al. 2015).

``dev-clean/84/121123/84-121123-0000.flac`` is part, speaker, chapter and utterance. The words are
in ``84-121123.trans.txt`` beside it, and the speakers' genders in ``SPEAKERS.TXT``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ...zoo.core.files import ENDS, read_text
from ..layout import GENDERS, check_once, listing
from ..manifest import Utterance
from . import find_files, left_out, note, nothing_found, split_names, utterance

VERSION = 1
PART = re.compile(r"(?:train|dev|test)-(?:clean|other)(?:-\d+)?")
_NAME = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d{4}")


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of LibriSpeech, without labels.

    ``labels["subset"]`` is the folder of the part, such as ``train-clean-100``.

    Args:
        root: ``LibriSpeech``, one of its parts, or any folder with its files.

    Raises:
        DataError: if no file has a name of the corpus, a recording is there twice, or a transcript
            is damaged.
    """
    named, other = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("librispeech", root, "dev-clean/84/121123/84-121123-0000.flac")
    left_out("librispeech", {"not named like 84-121123-0000.flac": other})
    check_once("librispeech", root, ((path.stem, path) for path, _ in named))
    texts: dict[str, str] = {}
    genders: dict[str, str] = {}
    for path in find_files(root, (".txt",)):
        if path.name.endswith(".trans.txt"):
            texts |= _transcript(path)
        elif path.name.upper() == "SPEAKERS.TXT":
            genders |= _genders(path)
    if silent := listing(p.stem for p, _ in named if p.stem not in texts):
        note(f"librispeech: utterances without a transcript: {silent}", fault=bool(texts))
    for path, match in named:
        subset = next((p for p in reversed(path.parts[:-1]) if PART.fullmatch(p)), None)
        text = texts.get(path.stem)
        yield utterance(
            "librispeech",
            path,
            root,
            speaker=match["speaker"],
            session=f"{match['speaker']}-{match['chapter']}",
            gender=genders.get(match["speaker"]),
            language="en",
            labels={} if subset is None else {"subset": subset},
            text=text,
            text_source=None if text is None else "human",
        )


def _transcript(path: Path) -> dict[str, str]:
    found = {}
    for n, line in enumerate(ENDS.split(read_text(path)), 1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        if not _NAME.fullmatch(name) or not text:
            raise DataError(
                f"{path.name}, line {n}: '{line[:60]}' is not an utterance and its words; download "
                "it again"
            )
        found[name] = text
    return found


def _genders(path: Path) -> dict[str, str]:
    """Return the gender of each speaker: lines such as ``84 | F | dev-clean | 8.02 | Name``."""
    found = {}
    for line in ENDS.split(read_text(path, old=True)):
        cells = [cell.strip() for cell in line.split("|")]
        if not line.startswith(";") and len(cells) > 2 and cells[1].casefold() in GENDERS:
            found[cells[0]] = GENDERS[cells[1].casefold()]
    return found
