"""VoxPopuli: speeches of the European Parliament with transcripts, unlabelled (Wang et al. 2021).

``asr_train.tsv``, ``asr_dev.tsv`` and ``asr_test.tsv`` of a language list the utterances; the audio
is below the folders of the years.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ..layout import GENDERS, known_speaker, listing, read_tabs
from ..manifest import Utterance
from . import find_files, note, utterance

VERSION = 1
PARTS = {"train": "train", "dev": "valid", "test": "test"}
COLUMNS = ("id", "raw_text", "normalized_text", "speaker_id", "gender")


def prepare(root: Path, *, language: str | None = None) -> Iterator[Utterance]:
    """Yield the transcribed utterances of one language of VoxPopuli, without labels.

    ``labels["split"]`` is the part. The words are those with punctuation, if there are any.

    Args:
        root: the folder of a language below ``transcribed_data``.
        language: ISO 639-1 code; by default the name of the folder, if it has two letters.

    Raises:
        DataError: if there is no table or no audio, or a line is cut short.
    """
    tables = {part: root / f"asr_{part}.tsv" for part in PARTS}
    if not any(path.is_file() for path in tables.values()):
        raise DataError(
            f"voxpopuli: no asr_train.tsv, asr_dev.tsv or asr_test.tsv in {root}; give the folder "
            "of one language below transcribed_data"
        )
    audio = {p.stem: p for p in find_files(root)}
    if not audio:
        raise DataError(f"voxpopuli: no audio under {root}; unpack it beside the tables")
    tongue = language or (root.resolve().name if len(root.resolve().name) == 2 else None)
    listed: set[str] = set()
    for part, path in tables.items():
        if not path.is_file():
            note(f"voxpopuli: no {path.name} in the folder, so the part {part} is left out")
            continue
        for row in read_tabs(path, COLUMNS):
            listed.add(row["id"])
            text = row["raw_text"] or row["normalized_text"]
            yield utterance(
                "voxpopuli",
                audio.get(row["id"], root / row["id"][:4] / f"{row['id']}.ogg"),
                root,
                id=f"voxpopuli/{row['id']}",
                speaker=known_speaker(row["speaker_id"]),
                gender=GENDERS.get(row["gender"].casefold()),
                language=tongue,
                labels={"split": PARTS[part]},
                text=text or None,
                text_source="human" if text else None,
            )
    if unlisted := listing(sorted(audio.keys() - listed)):
        note(f"voxpopuli: audio files that no table lists: {unlisted}")
