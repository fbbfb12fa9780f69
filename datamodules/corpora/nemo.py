"""nEMO: 9 actors, 6 emotions, Polish (Christop 2024).

Names are ``EB0_anger_1``: speaker, emotion, sentence. ``data.tsv`` beside the folder ``samples``
holds transcripts and gender; without it, transcripts are None.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ...zoo.core.files import read_text
from ..layout import check_once, listing
from ..manifest import Utterance
from . import find_files, left_out, note, nothing_found, split_names, utterance

VERSION = 1
GENDERS = {  # as in data.tsv, for copies that come without it
    **dict.fromkeys(("EB0", "IC0", "KD0", "MK0"), "female"),
    **dict.fromkeys(("KS0", "MP0", "SM0", "TP0", "WR0"), "male"),
}
_NAME = re.compile(r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>[a-z]+)_\d+")
COLUMNS = ("file_id", "emotion", "raw_text", "speaker_id", "gender")


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of the audio anywhere below a folder, with the publisher's file names.

    A warning counts files with other names, and rows of the table without a file.

    Args:
        root: holds ``samples/EB0_anger_1.wav`` and ``data.tsv``, at any depth.

    Raises:
        DataError: if the folder does not exist or holds no file of nEMO. Also if it holds a
            recording twice, or the table contradicts a file's name.
    """
    named, others = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("nemo", root, "samples/EB0_anger_1.wav")
    left_out("nemo", {"files of other names": others})
    check_once("nemo", root, ((path.stem, path) for path, _ in named))
    tables = [p for p in find_files(root, (".tsv",)) if p.name == "data.tsv"]
    rows = _read(tables[0]) if tables else {}
    if tables:
        have = {path.stem for path, _ in named}
        for what, ids in (
            ("rows of data.tsv without an audio file", sorted(set(rows) - have)),
            ("audio files without a row in data.tsv", sorted(have - set(rows))),
        ):
            if ids:
                note(f"nemo: {what}: {listing(ids)}")
    else:
        note(f"nemo: no data.tsv under {root}: no transcripts; the corpus' repository has it")
    for path, match in named:
        row = rows.get(path.stem)
        if row and (row["speaker_id"], row["emotion"]) != (match["speaker"], match["emotion"]):
            raise DataError(
                f"{tables[0]} says speaker {row['speaker_id']}, emotion {row['emotion']} of "
                f"{path.name}; take table and audio from one release"
            )
        text = row["raw_text"] or None if row else None
        yield utterance(
            "nemo",
            path,
            root,
            speaker=match["speaker"],
            gender=row["gender"] if row else GENDERS.get(match["speaker"]),
            language="pl",
            label=match["emotion"],
            text=text,
            text_source="human" if text else None,
            label_source="acted",
        )


def _read(table: Path) -> dict[str, dict[str, str]]:
    """Return the rows by file name without suffix.

    Values are stripped, because the published speaker ids are padded.
    """
    text = io.StringIO(read_text(table), newline="")
    # quotation marks are part of the sentences
    reader = csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{table} lacks the columns {', '.join(missing)}; found "
            f"{', '.join(reader.fieldnames or ['none'])}: use the publisher's table"
        )
    rows = [{c: (row[c] or "").strip() for c in COLUMNS} for row in reader]
    return {Path(row["file_id"]).stem: row for row in rows}
