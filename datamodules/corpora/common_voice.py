"""Common Voice: sentences read by volunteers, with transcripts, unlabelled (Ardila et al. 2020).

``validated.tsv`` of a language lists ``clips/common_voice_en_1.mp3``, its words and its speaker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError, some
from ..layout import known_speaker, read_tabs
from ..manifest import Utterance
from . import utterance

VERSION = 1
COLUMNS = ("client_id", "path", "sentence")


def prepare(root: Path, *, table: str = "validated.tsv") -> Iterator[Utterance]:
    """Yield the utterances of one language of Common Voice, without labels.

    A row without a file is yielded too, so that it counts as missing.

    Args:
        root: folder of the language; it holds ``clips`` and the tables.
        table: the table to read, such as ``train.tsv``.

    Raises:
        DataError: if the table is missing or damaged. The message names the line.
    """
    path = root / table
    if not path.is_file():
        have = some(sorted(p.name for p in root.glob("*.tsv"))) or "no tsv"
        raise DataError(
            f"common_voice: no {table} in {root}, which has {have}; give the folder of one "
            "language as root=, or another table in options.table"
        )
    for row in read_tabs(path, COLUMNS):
        clip = row["path"] if "/" in row["path"] else f"clips/{row['path']}"
        text, locale = row["sentence"], row.get("locale", "")
        yield utterance(
            "common_voice",
            root / clip,
            root,
            speaker=known_speaker(row["client_id"]),
            gender=_gender(row.get("gender", "")),
            language=locale.partition("-")[0] or None,
            text=text or None,
            text_source="human" if text else None,
        )


def _gender(word: str) -> str | None:
    """Return the gender; newer releases write ``female_feminine``, ``male_masculine``."""
    said = word.partition("_")[0]
    return said if said in ("female", "male") else None
