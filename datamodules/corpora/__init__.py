"""Readers of published corpora, one file each, and their common functions.

A reader is a function ``prepare(root, *, ...)``. It reads names and tables, but no audio. It yields
an :class:`~serzoo.datamodules.manifest.Utterance` for each recording, with ``end=nan`` and
``sample_rate=0``; the engine (:func:`serzoo.datamodules.prepare.prepare`) fills these in. It
reports with :func:`note` what it leaves out.

Every reader here has a ``VERSION``, by which prepared corpora are cached. Raise it with each change
of what the reader yields or reports for the same files. Without a version, the hash of the
reader's file is used.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...zoo.core.errors import DataError, DataNote, DataWarning
from ...zoo.core.notices import shown
from ..audio import SUFFIXES
from ..manifest import Utterance
from ..walk import Found, walk


def note(message: str, *, fault: bool = True) -> None:
    """Report what a reader left out, to the engine or to a user without the engine.

    Args:
        message: what, how many, what to do next.
        fault: False = a fact to know; ``prepare`` then still ends with exit code 0.
    """
    warnings.warn(shown(message), DataWarning if fault else DataNote, stacklevel=2)


def left_out(corpus: str, files: Mapping[str, Sequence[Path]]) -> None:
    """Write one :func:`note` for all files that a reader does not take.

    Args:
        corpus: name of the corpus.
        files: maps a kind of file to the files; kinds without files are skipped.
    """
    parts = [f"{len(p)} {kind} (first: {p[0].name})" for kind, p in files.items() if p]
    if parts:
        note(f"{corpus}: left out {', '.join(parts)}")


def look(root: Path, suffixes: Sequence[str] = SUFFIXES) -> Found:
    """Return the files below a folder; write a :func:`note` for every kind that is not taken.

    Args:
        root: the folder.
        suffixes: suffixes of the files to take.

    Raises:
        DataError: if the folder does not exist, or cannot be read.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"root={root} {what}; give the folder that holds the unpacked corpus")
    found = walk(root)
    if root in found.passed.get("closed", ()):
        raise DataError(f"root={root} cannot be read ({found.why[root]}); change its permissions")
    for text, fault in found.notes(suffixes):
        note(text, fault=fault)
    return found


def find_files(root: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return all files below a folder with these suffixes (upper or lower case), sorted by path.

    :mod:`..walk` says which files are skipped; a :func:`note` counts them.

    Raises:
        DataError: if the folder does not exist, or cannot be read.
    """
    return look(root, suffixes).take(suffixes)


def nothing_found(corpus: str, root: Path, example: str) -> DataError:
    """Return the error of a reader that finds no file of its corpus below the root."""
    others = find_files(root)
    seen = f"{len(others)} other audio files (first: {others[0].name})" if others else "no audio"
    return DataError(
        f"{corpus}: no file of this corpus is under {root}, which holds {seen}; expected names "
        f"such as {example}: set root= to the folder of the unpacked corpus"
    )


def utterance(corpus: str, path: Path, root: Path, **facts: Any) -> Utterance:
    """Return an utterance that is a whole file, with the id ``<corpus>/<stem>``.

    Args:
        corpus: name of the corpus.
        path: path of the audio file.
        root: the folder to which ``audio`` is relative.
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
    """Return the files whose whole stem matches a pattern, with the match; and the other files."""
    matches = [(path, re.fullmatch(pattern, path.stem)) for path in paths]
    return [(p, m) for p, m in matches if m], [p for p, m in matches if not m]
