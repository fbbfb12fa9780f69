"""A folder of your own: one sub-folder per label, with audio at any depth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import ConfigError, DataError
from ..layout import one_spelling
from ..manifest import Utterance
from ..walk import Found
from . import left_out, look, note, utterance

VERSION = 1
NO_SPEAKERS = (
    "nothing tells who speaks: the speaker of all {n} utterances is unknown, so folds by speaker "
    "are refused (see data.unknown_speakers) and numbers have no interval; {remedy}"
)
BY_PATTERN = (
    "name them by options.speaker='(PATTERN)' (data.options.speaker in a run), a regular "
    "expression whose group is the part of the path that names the speaker"
)


def prepare(
    root: Path,
    *,
    speaker: str | None = None,
    language: str | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    r"""Yield the utterances of a folder with one sub-folder per label.

    Args:
        root: holds ``<label>/**/*.wav`` (or flac, mp3, ogg). Ids are paths without their suffix.
        speaker: regular expression with one group, searched in each path below the root (forward
            slashes), for example ``r"spk(\d+)"``. Without it the speakers are unknown, with a
            warning.
        language: ISO 639-1 code of all files.
        rename: maps a sub-folder to its label, if its name is not the label.

    Raises:
        DataError: if the folder does not exist, or no sub-folder has audio. Also if ``speaker``
            does not match some files, or a key of ``rename`` is not a sub-folder.
        ConfigError: if ``speaker`` is not a regular expression with one group.
    """
    pattern = group_of(speaker)
    found = look(root)
    files = found.take()
    named = [p for p in files if p.parent != root]
    if not named:
        raise DataError(
            f"folder: no audio in sub-folders of {root} ({len(files)} files lie directly in it); "
            "make one sub-folder per label, such as angry/clip1.wav"
        )
    if bare := sorted(_labels(found) - {p.relative_to(root).parts[0] for p in named}):
        held = ", ".join(f"{name} (holds {found.holds(root / name)})" for name in bare)
        note(f"folder: nothing was taken from {len(bare)} sub-folders: {held}")
    left_out("folder", {"files without a label's folder": [p for p in files if p.parent == root]})
    labels = {p: p.relative_to(root).parts[0] for p in named}
    words, clauses = one_spelling(labels.values(), rename or {}, missing=False)
    for clause in clauses:
        note(f"folder: {clause}")
    speakers: dict[Path, str] = {}
    if pattern is None:
        note("folder: " + NO_SPEAKERS.format(n=len(named), remedy=BY_PATTERN))
    else:
        matches = {p: pattern.search(p.relative_to(root).as_posix()) for p in named}
        failed = [p for p, m in matches.items() if m is None or not m[1]]
        if failed:
            raise DataError(
                f"speaker='{speaker}' finds no speaker in {len(failed)} of {len(named)} paths "
                f"(first: {failed[0].relative_to(root).as_posix()}); give a pattern that matches "
                "each path below root, with forward slashes and the suffix"
            )
        speakers = {p: m[1] for p, m in matches.items() if m is not None}
    for path in named:
        yield utterance(
            "folder",
            path,
            root,
            id=f"folder/{path.relative_to(root).with_suffix('').as_posix()}",
            speaker=speakers.get(path),
            language=language,
            label=words[labels[path]],
        )


def _labels(found: Found) -> set[str]:
    """Return the folders directly below the root, also those that could not be read."""
    closed = [
        p for kind in ("closed", "annex", "dvc", "dangling") for p in found.passed.get(kind, ())
    ]
    folders = [*found.folders, *(p for p in closed if not p.suffix)]
    return {p.name for p in folders if p.parent == found.root}


def group_of(speaker: str | None) -> re.Pattern[str] | None:
    """Return the pattern with one group that names a speaker; None if none was given.

    Raises:
        ConfigError: if it is not a regular expression with one group.
    """
    if speaker is None:
        return None
    try:
        pattern = re.compile(speaker)
    except re.error as error:
        raise ConfigError(
            f"speaker='{speaker}' is not a regular expression ({error}); write one such as "
            r"'spk(\d+)'"
        ) from None
    if pattern.groups != 1:
        raise ConfigError(
            f"speaker='{speaker}' has {pattern.groups} groups; put brackets around the one part "
            r"that names the speaker, as in 'spk(\d+)'"
        )
    return pattern
