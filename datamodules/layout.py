"""Helpers of corpus readers beyond file names: tables, spellings of labels, duplicate copies."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..zoo.core.errors import DataError, some, suggest
from ..zoo.core.files import ENDS, read_text
from .manifest import is_inside

MISSING = frozenset(
    ("nan", "-nan", "none", "null", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "-", "--", "?")
)
"""Words that programs and people write for "unknown", in any case."""

GENDERS = {
    **dict.fromkeys(("f", "female", "w", "woman"), "female"),
    **dict.fromkeys(("m", "male", "man"), "male"),
}
"""Words for a gender, in lower case, and the gender that each means."""


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return these columns of a CSV file with a header, stripped; other columns are ignored.

    Column names match in any case, because documentation and files of a corpus differ in it.

    Raises:
        DataError: if columns are missing, or a line is cut short; the message names them.
    """
    # not splitlines: it also splits at control characters within a cell, which some tables have
    reader = csv.reader(io.StringIO(read_text(path, old=True), newline=""))
    header = {name.strip().lower(): i for i, name in enumerate(next(reader, []))}
    missing = [c for c in columns if c.lower() not in header]
    if missing:
        raise DataError(
            f"{path} lacks the column {', '.join(missing)}; it has "
            f"{', '.join(header) or 'nothing'}: use the publisher's table"
        )
    rows = []
    for cells in reader:
        if not cells:
            continue
        try:
            rows.append({c: cells[header[c.lower()]].strip(" \t") for c in columns})
        except IndexError:
            raise DataError(
                f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has "
                f"{len(header)}; use a complete copy of the file"
            ) from None
    return rows


def read_header(path: Path) -> set[str]:
    """Return the names of the columns of a CSV file, in lower case."""
    first = next(csv.reader(io.StringIO(read_text(path, old=True), newline="")), [])
    return {name.strip().lower() for name in first}


def read_tabs(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a file with tabs, in which a quote is a plain character.

    Args:
        path: the file; its first line is the header.
        columns: columns that must be there; all columns are returned.

    Raises:
        DataError: if columns are missing, or a line has more or fewer cells than the header.
    """
    lines = ENDS.split(read_text(path))
    header = lines[0].split("\t")
    if absent := [c for c in columns if c not in header]:
        raise DataError(
            f"{path.name}, line 1: no column {', '.join(absent)}, but {some(header)}; use the "
            "publisher's table"
        )
    rows = []
    for n, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if not line.strip():
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{path.name}, line {n}: {len(cells)} cells, but the header has {len(header)}; "
                "download it again"
            )
        rows.append({k: v.strip() for k, v in zip(header, cells, strict=True)})
    return rows


def is_missing(word: str) -> bool:
    """Return whether a word means "unknown"."""
    return word.strip().casefold() in MISSING


def known_speaker(name: str | None) -> str | None:
    """Return a speaker's name; None if it is empty, ``unknown``, or a word of :data:`MISSING`."""
    return None if not name or name.casefold() == "unknown" or is_missing(name) else name


def inside_root(audio: str, root: Path, where: str, remedy: str) -> str:
    """Return a path of a table relative to the root, with forward slashes.

    Args:
        audio: the path as it is written; an absolute one must be below the root.
        root: the folder that the user names.
        where: file and line, for the message.
        remedy: what the user should do if the path is elsewhere.

    Raises:
        DataError: if the path is not below the root.
    """
    path = Path(audio)
    if path.is_absolute():  # otherwise the root is not looked at, which takes time on every row
        for base in (root, root.absolute(), root.resolve()):
            if path.is_relative_to(base):
                audio = path.relative_to(base).as_posix()
                break
    audio = PurePosixPath(audio.replace("\\", "/")).as_posix()
    if not is_inside(audio):
        raise DataError(f"{where}: '{audio}' is not below root={root}; {remedy}")
    return audio


def one_spelling(
    words: Iterable[str | None], rename: Mapping[str, str], *, missing: bool
) -> tuple[dict[str, str | None], list[str]]:
    """Return the label of each word; words that differ only in spelling become one label.

    Spelling means case, blanks, the Unicode form, and ``0`` for ``0.0``. ``rename`` has priority
    for words that it contains exactly. So words can be kept apart, and a word for "unknown" can be
    a label.

    Args:
        words: the words of all utterances.
        rename: maps a word to its label.
        missing: whether words of :data:`MISSING` mean "unknown".

    Returns:
        A mapping of word to label (None = unknown), and clauses with counts for the user.

    Raises:
        DataError: if a key of ``rename`` is not a word of the utterances, or a label is empty.
    """
    counts = Counter(w for w in words if w is not None)
    groups: dict[str, list[str]] = {}
    for word, _ in counts.most_common():  # the most frequent first; among equals, the earlier one
        groups.setdefault(_spelled(word), []).append(word)
    named: dict[str, dict[str, str]] = {}
    for key, label in rename.items():
        group, number = _spelled(key), _number(key)
        if label.strip() in ("", "null", "~"):
            raise DataError(
                f"rename: '{key}' becomes '{label}', which is not a label; leave the key out, and "
                "use a taxonomy without it"
            )
        if key not in counts and not (number and group in groups):
            raise DataError(f"rename: no utterance is labelled '{key}'{suggest(key, counts)}")
        named.setdefault(group, {})[key] = label
    found: dict[str, str | None] = {}
    unknown: list[str] = []
    clauses: list[str] = []
    for group, spellings in groups.items():
        given = named.get(group, {})
        if missing and group in MISSING and not given:
            found.update(dict.fromkeys(spellings))
            unknown += spellings
            continue
        usual = spellings[0]
        rest = given[next(iter(given))] if len(set(given.values())) == 1 else None
        for word in spellings:
            found[word] = given.get(word, rest or given.get(usual, usual))
        if len(spellings) > 1 and len({found[w] for w in spellings}) < len(spellings):
            listed = ", ".join(f"'{w}' ({counts[w]})" for w in spellings)
            clauses.append(
                f"{listed} are one label, '{found[usual]}': they differ in case or blanks only; "
                "name each in rename= to keep them apart"
            )
    if unknown:
        listed = ", ".join(f"'{w}' ({counts[w]})" for w in sorted(unknown))
        clauses.append(
            f"{listed} are read as no label: {sum(counts[w] for w in unknown)} utterances are "
            f"unlabelled; if one is a label, set for example rename={{{unknown[0]}: neutral}}"
        )
    return found, clauses


def _spelled(word: str) -> str:
    """Return a word in its normal spelling."""
    word = " ".join(unicodedata.normalize("NFC", word).casefold().split())
    return re.sub(r"\.0*$", "", word) if _number(word) else word


def _number(word: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.0*)?", word) is not None


def check_once(corpus: str, root: Path, named: Iterable[tuple[str, Path]]) -> None:
    """Check that a folder holds no recording twice.

    Some mirrors contain a second copy of the corpus inside the first one; every utterance would
    count twice.

    Args:
        corpus: name of the corpus, for the message.
        root: paths are shown relative to it.
        named: pairs of utterance name and file.

    Raises:
        DataError: if recordings are there twice; the message gives their number and the first
            pair.
    """
    seen: dict[str, Path] = {}
    twice: list[tuple[str, Path]] = []
    for name, path in named:
        if seen.setdefault(name, path) != path:
            twice.append((name, path))
    if twice:
        name, path = twice[0]
        both = " and ".join(p.relative_to(root).as_posix() for p in (seen[name], path))
        raise DataError(
            f"{corpus}: {len(twice)} of {len(seen)} utterances are there twice, first {name}: "
            f"{both}; set root= to one copy"
        )


def listing(names: Iterable[str]) -> str:
    """Return a text such as ``"4 (first: a, b, c)"``, or "" if there are no names."""
    # not some() of core/errors.py: that tells how many more there are, and this one how many in all
    found = list(names)
    return f"{len(found)} (first: {', '.join(found[:3])})" if found else ""
