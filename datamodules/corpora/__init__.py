"""Readers of published corpora, one file each, and what they share.

A reader is ``prepare(root, *, ...)``: it reads names and tables, never audio, and yields an
:class:`~serzoo.datamodules.manifest.Utterance` per recording, with ``end=nan`` and
``sample_rate=0``, which the engine (:func:`serzoo.datamodules.prepare.prepare`) fills in. What it
leaves out it says with :func:`note`.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...zoo.errors import DataError, DataWarning
from ..audio import SUFFIXES
from ..manifest import Utterance


def note(message: str) -> None:
    """Tell the engine, and whoever runs a reader without it, what was left out and how many."""
    warnings.warn(message, DataWarning, stacklevel=2)


def left_out(corpus: str, files: Mapping[str, Sequence[Path]]) -> None:
    """One :func:`note` for all files that a reader does not take.

    Args:
        corpus: its name.
        files: what they are, to the files; kinds without files are passed over.
    """
    parts = [f"{len(p)} {kind} (first: {p[0].name})" for kind, p in files.items() if p]
    if parts:
        note(f"{corpus}: left out {', '.join(parts)}")


def find_files(root: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """All files under a folder that end so, sorted by path; case of the suffix does not count.

    Hidden files and folders, and what macOS puts beside files in an archive, are not of the corpus.

    Raises:
        DataError: when the folder is not there.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"root={root} {what}; give the folder that holds the unpacked corpus")
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # large corpora are often linked into place: follow links to folders, but no circle twice
    for folder, folders, names in os.walk(root, followlinks=True):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and not name.startswith(".") and path.is_file():
                found.append(path)
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def nothing_found(corpus: str, root: Path, example: str) -> DataError:
    """What a reader raises when no name under the root is one of its corpus."""
    others = find_files(root)
    seen = f"{len(others)} other audio files (first: {others[0].name})" if others else "no audio"
    return DataError(
        f"{corpus}: no file of it under {root}, but {seen}; expected names such as {example}: "
        "point root= at the unpacked corpus"
    )


def utterance(corpus: str, path: Path, root: Path, **facts: Any) -> Utterance:
    """An utterance that is a whole file, with the id ``<corpus>/<stem>``.

    Args:
        corpus: its name.
        path: of the audio file.
        root: that ``audio`` shall be relative to.
        **facts: fields of :class:`~serzoo.datamodules.manifest.Utterance`; ``id``, ``start`` and
            ``end`` may be given too.
    """
    return Utterance(
        id=facts.pop("id", f"{corpus}/{path.stem}"),
        corpus=corpus,
        audio=path.relative_to(root).as_posix(),
        start=facts.pop("start", 0.0),
        end=facts.pop("end", math.nan),
        sample_rate=0,
        **facts,
    )


def split_names(
    paths: Iterable[Path], pattern: str | re.Pattern[str]
) -> tuple[list[tuple[Path, re.Match[str]]], list[Path]]:
    """Files whose stem is matched in full by a pattern, with the match; and the others."""
    matches = [(path, re.fullmatch(pattern, path.stem)) for path in paths]
    return [(p, m) for p, m in matches if m], [p for p, m in matches if not m]
