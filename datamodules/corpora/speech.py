"""A folder of speech of your own, without labels: audio at any depth, and texts beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ...zoo.core.files import read_text
from ..manifest import Utterance
from . import find_files, note, utterance
from .folder import BY_PATTERN, NO_SPEAKERS, group_of

VERSION = 1


def prepare(
    root: Path, *, speaker: str | None = None, language: str | None = None, texts: bool = True
) -> Iterator[Utterance]:
    r"""Yield every recording below a folder, without a label.

    ``a.txt`` beside ``a.wav`` holds its words.

    Args:
        root: the folder.
        speaker: regular expression with one group, searched in each path below the root (forward
            slashes). Without it, and if it is not found in a path, the speaker is unknown.
        language: ISO 639-1 code of all recordings.
        texts: whether to read the texts.

    Raises:
        DataError: if there is no audio, or a text is not UTF-8.
        ConfigError: if ``speaker`` is not a regular expression with one group.
    """
    pattern = group_of(speaker)
    files = find_files(root)
    if not files:
        raise DataError(f"speech: no audio under {root}; give the folder of the recordings")
    unknown = 0
    for path in files:
        name = path.relative_to(root).as_posix()
        match = pattern.search(name) if pattern else None
        unknown += match is None or not match[1]
        side = path.with_suffix(".txt")
        text = read_text(side).strip() if texts and side.is_file() else ""
        yield utterance(
            "speech",
            path,
            root,
            id=f"speech/{path.relative_to(root).with_suffix('').as_posix()}",
            speaker=match[1] if match else None,
            language=language,
            text=text or None,
            text_source="human" if text else None,
        )
    if unknown == len(files):
        note("speech: " + NO_SPEAKERS.format(n=unknown, remedy=BY_PATTERN))
    elif unknown:
        note(f"speech: speaker='{speaker}' names no speaker in {unknown} of {len(files)} paths")
