"""Readers of published corpora, one file each, and what they share.

A reader is ``prepare(root, *, ...)``: it reads names and tables, never audio, and yields an
:class:`~serzoo.datamodules.manifest.Utterance` per recording, with ``end=nan`` and
``sample_rate=0``, which the engine (:func:`serzoo.datamodules.prepare.prepare`) fills in. What it
leaves out it says with :func:`note`.

Each has a ``VERSION``. Raise it with every change of what it yields or says for the same files:
prepared corpora are remembered under it. Of a reader without one the whole file counts.
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
    """Tell the engine, and whoever runs a reader without it, what was left out and how many.

    Args:
        message: what, how many, what to do next.
        fault: False = a fact to know, which is no reason for ``prepare`` to end with 1.
    """
    warnings.warn(shown(message), DataWarning if fault else DataNote, stacklevel=2)


def left_out(corpus: str, files: Mapping[str, Sequence[Path]]) -> None:
    """One :func:`note` for all files that a reader does not take.

    Args:
        corpus: its name.
        files: what they are, to the files; kinds without files are passed over.
    """
    parts = [f"{len(p)} {kind} (first: {p[0].name})" for kind, p in files.items() if p]
    if parts:
        note(f"{corpus}: left out {', '.join(parts)}")


def look(root: Path, suffixes: Sequence[str] = SUFFIXES) -> Found:
    """What lies under a folder; a :func:`note` for every kind of what is not taken.

    Args:
        root: the folder.
        suffixes: that will be taken.

    Raises:
        DataError: when the folder is not there, or cannot be read.
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
    """All files under a folder that end so, sorted by path; case of the suffix does not count.

    See :mod:`..walk` for what is passed over; a :func:`note` counts it.

    Raises:
        DataError: when the folder is not there, or cannot be read.
    """
    return look(root, suffixes).take(suffixes)


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
