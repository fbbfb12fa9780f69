"""A data folder of Kaldi: ``wav.scp``, and beside it ``segments``, ``utt2spk``, ``text``.

``utt2emo`` holds labels, as recipes for emotion have it; ``spk2gender`` holds genders. A line of
``wav.scp`` that is a command (it ends in ``|``) is refused: nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from pathlib import Path

from ...zoo.core.errors import DataError, some
from ...zoo.core.files import ENDS, read_text
from ..corpora import note, utterance
from ..layout import known_speaker, listing
from ..manifest import Utterance
from . import Paths, finish, number

VERSION = 1


def prepare(
    root: Path,
    *,
    data: str = ".",
    label: str = "utt2emo",
    language: str | None = None,
    strip: str | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the utterances of a data folder.

    Args:
        root: folder to which the paths in ``wav.scp`` are relative.
        data: the data folder, relative to the root; it holds ``wav.scp``.
        label: file that maps an utterance to its label.
        language: ISO 639-1 code of all utterances.
        strip: beginning of the paths to take away.
        rename: maps a label to another one.

    Raises:
        DataError: if ``wav.scp`` is missing, or a line is damaged or names a command. Also if a
            segment names a recording that ``wav.scp`` lacks. The message names file and line.
    """
    folder = root / data
    if not (folder / "wav.scp").is_file():
        raise DataError(
            f"kaldi: no wav.scp in {folder}; set root= to the folder that its paths start from, "
            "and options.data= to the data folder"
        )
    paths = Paths(root, strip)
    audio = {}
    for where, name, rest in _lines(folder / "wav.scp"):
        if rest.endswith("|") or rest.startswith("|"):
            raise DataError(
                f"{where}: '{rest[:60]}' is a command, and serzoo runs none; write the audio to "
                "files first (wav-copy scp:wav.scp), and give their paths"
            )
        if rest.rpartition(":")[2].isdecimal() and ".ark:" in rest:
            raise DataError(
                f"{where}: '{rest}' is inside a Kaldi archive, which is not read; write the audio "
                "to files first (wav-copy), and give their paths"
            )
        audio[name] = paths.below(rest, where)
    pieces = {name: (name, 0.0, nan) for name in audio}
    if (folder / "segments").is_file():
        pieces = _segments(folder / "segments", audio)
    speakers, labels = _mapping(folder / "utt2spk"), _mapping(folder / label)
    texts, genders = _mapping(folder / "text"), _mapping(folder / "spk2gender")
    if not labels:
        have = some(sorted(p.name for p in folder.iterdir() if p.is_file()), 12)
        note(
            f"kaldi: no {label} in the data folder, so nothing is labelled; name the file in "
            f"options.label (files: {have})"
        )
    for file, facts in (("utt2spk", speakers), (label, labels), ("text", texts)):
        if facts and (absent := sorted(set(facts) - set(pieces))):
            note(f"kaldi: {file} names utterances that do not exist: {listing(absent)}")
    found = []
    for name, (recording, start, end) in pieces.items():
        speaker = known_speaker(speakers.get(name))
        found.append(
            utterance(
                "kaldi",
                root / audio[recording],
                root,
                id=f"kaldi/{name}",
                start=start,
                end=end,
                speaker=speaker,
                gender=genders.get(speaker or ""),
                language=language,
                label=labels.get(name),
                text=texts.get(name) or None,
                text_source="human" if texts.get(name) else None,
            )
        )
    yield from finish("kaldi", found, rename, "write them into utt2spk")


def _segments(path: Path, audio: dict[str, str]) -> dict[str, tuple[str, float, float]]:
    pieces = {}
    for where, name, rest in _lines(path):
        words = rest.split()
        if len(words) != 3:
            raise DataError(
                f"{where}: {len(words) + 1} words; write utterance, recording, start and end"
            )
        if words[0] not in audio:
            raise DataError(f"{where}: wav.scp has no recording '{words[0]}'; add it there")
        start, end = (number(w, where, k, nan) for w, k in zip(words[1:], TIMES, strict=True))
        if end == -1:  # Kaldi's mark for the end of the recording
            end = nan
        elif not 0 <= start < end:
            raise DataError(f"{where}: {start:g} s to {end:g} s; the end must be after the start")
        pieces[name] = (words[0], start, end)
    return pieces


TIMES = ("start", "end")


def _mapping(path: Path) -> dict[str, str]:
    """Return the first word of each line and the rest; empty if there is no such file."""
    return {n: rest for _, n, rest in _lines(path, bare=True)} if path.is_file() else {}


def _lines(path: Path, *, bare: bool = False) -> Iterator[tuple[str, str, str]]:
    """Yield file and line, the first word and the rest of each line that is not empty.

    Args:
        path: the file.
        bare: whether a line may have only its first word.
    """
    seen: dict[str, int] = {}
    for n, line in enumerate(ENDS.split(read_text(path)), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {n}"
        name, _, rest = line.strip().partition(" ")
        if "\t" in name:
            name, _, rest = line.strip().partition("\t")
        if not rest.strip() and not bare:
            raise DataError(f"{where}: the line holds only '{name}'; write its value after it")
        if name in seen:
            raise DataError(
                f"{where}: '{name}' is in line {seen[name]} already; names must be unique"
            )
        seen[name] = n
        yield where, name, rest.strip()
