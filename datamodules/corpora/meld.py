"""MELD: dialogues of a television series, 7 emotions, English (Poria et al. 2019).

``train_sent_emo.csv``, ``dev_sent_emo.csv`` and ``test_sent_emo.csv`` list the utterances.
``dia0_utt0`` exists in every split, so the split is part of an utterance's id, and a column
(``labels["split"]``). The folder of a file gives its split. The publisher ships video; extract the
audio first. Speakers are names of characters. The six main ones are in every split, and ``Man`` or
``All`` is not one voice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ..layout import check_once, listing, read_table
from ..manifest import Utterance
from . import find_files, left_out, note, nothing_found, utterance

VERSION = 1
# some systems lose the case of names
_NAME = re.compile(r"dia(?P<dialogue>\d+)_utt(?P<utterance>\d+)", re.IGNORECASE)
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")

# the publisher's folder for each split
FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
_SPLIT = re.compile("|".join(FOLDERS))
# bytes of Windows-1252 that became control characters in the UTF-8 tables
_REPAIR = {c: bytes([c]).decode("cp1252", errors="ignore") for c in range(0x80, 0xA0)}


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of MELD, one per row of the tables.

    A row without audio is yielded too, so that it counts as missing (the publisher's own copy
    lacks some).

    Args:
        root: a folder with the tables, and one folder per split with its audio.

    Raises:
        DataError: if there is no table, or no audio. If there is only video, the message says how
            to extract the audio.
    """
    tables = _tables(root)
    audio = _audio(root)
    for split, files in audio.items():
        table = tables.get(split)
        if table is None:
            note(f"meld: no {split}_sent_emo.csv under {root}: {len(files)} audio files left out")
            continue
        # a missing file would be in the folder of the others
        beside = next(iter(files.values()), root / FOLDERS[split] / "dia0_utt0.wav")
        seen: set[str] = set()
        for row in read_table(table, _COLUMNS):
            name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            if not _NAME.fullmatch(name) or name in seen:
                raise DataError(
                    f"{table} lists '{name}'{' twice' if name in seen else ''}; Dialogue_ID and "
                    "Utterance_ID must be whole numbers, unique for a row: use the publisher's "
                    "table"
                )
            seen.add(name)
            yield utterance(
                "meld",
                files.get(name, beside.with_name(name + beside.suffix)),
                root,
                id=f"meld/{split}-{name}",
                speaker=row["Speaker"].translate(_REPAIR) or None,
                session=f"{split}-dia{row['Dialogue_ID']}",
                language="en",
                label=row["Emotion"],
                labels={"sentiment": row["Sentiment"], "split": split},
                text=row["Utterance"].translate(_REPAIR),
                text_source="human",
                label_source="perceived",
            )
        if extra := listing(sorted(set(files) - seen)):
            note(f"meld: audio files of {split} in no row of {table.name}, left out: {extra}")


def _tables(root: Path) -> dict[str, Path]:
    """Return the table of each split that exists."""
    found = find_files(root, (".csv",))
    tables: dict[str, Path] = {}
    for split in FOLDERS:
        name = f"{split}_sent_emo.csv"
        same = [p for p in found if p.name == name]
        if len(same) > 1:
            paths = ", ".join(p.relative_to(root).as_posix() for p in same)
            raise DataError(
                f"meld: {len(same)} tables {name} under {root} ({paths}); point root= at one copy"
            )
        if same:
            tables[split] = same[0]
    if not tables:
        raise DataError(
            f"meld: no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv under {root}; "
            "copy them from data/MELD of the corpus' repository"
        )
    return tables


def _audio(root: Path) -> dict[str, dict[str, Path]]:
    """Return the audio files by split and name."""
    audio: dict[str, dict[str, Path]] = {split: {} for split in FOLDERS}
    named, unnamed, unsplit = [], [], []
    for path in find_files(root):
        split = _split_of(path, root)
        if not _NAME.fullmatch(path.stem):
            unnamed.append(path)
        elif split is None:
            unsplit.append(path)
        else:
            audio[split][path.stem.lower()] = path
            named.append((f"{split}-{path.stem.lower()}", path))
    if not named:
        raise _no_audio(root, unsplit)
    left_out(
        "meld", {"not named like dia0_utt0": unnamed, "in no folder named after a split": unsplit}
    )
    check_once("meld", root, named)
    return audio


def _split_of(path: Path, root: Path) -> str | None:
    """Return the split in the name of the nearest folder that names one."""
    for folder in reversed(path.relative_to(root).parts[:-1]):
        if match := _SPLIT.search(folder.lower()):
            return match[0]
    return None


def _no_audio(root: Path, unsplit: list[Path]) -> DataError:
    if unsplit:
        return DataError(
            f"meld: {len(unsplit)} audio files under {root} (first: {unsplit[0].name}) are in no "
            f"folder that names their split; expected {', '.join(FOLDERS.values())}"
        )
    videos = find_files(root, (".mp4",))
    if not videos:
        return nothing_found("meld", root, "train_splits/dia0_utt0.wav")
    return DataError(
        f"meld: {len(videos)} video files under {root}, no audio; take it out first: in each "
        'folder of videos run  for f in *.mp4; do ffmpeg -i "$f" -vn -ac 1 -ar 16000 '
        '"${f%.mp4}.wav"; done'
    )
