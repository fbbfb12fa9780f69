"""What readers need beyond file names: tables with a header, words of labels, copies held twice."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..zoo.core.errors import DataError, suggest
from ..zoo.core.files import read_text

MISSING = frozenset(
    ("nan", "-nan", "none", "null", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "-", "--", "?")
)
"""Words that programs and people write for "not known", in any case."""


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, as these columns, stripped; other columns are ignored.

    Column names match in any case: documentation and files of a corpus disagree about it.

    Raises:
        DataError: naming the columns that are missing, or the line that is cut short.
    """
    # not splitlines: it also breaks at control characters that some tables hold within a cell
    reader = csv.reader(io.StringIO(read_text(path, old=True), newline=""))
    header = {name.strip().lower(): i for i, name in enumerate(next(reader, []))}
    missing = [c for c in columns if c.lower() not in header]
    if missing:
        raise DataError(
            f"{path} lacks the column {', '.join(missing)}; has {', '.join(header) or 'nothing'}: "
            "is this the publisher's table?"
        )
    rows = []
    for cells in reader:
        if not cells:
            continue
        try:
            rows.append({c: cells[header[c.lower()]].strip(" \t") for c in columns})
        except IndexError:
            raise DataError(
                f"{path}, line {reader.line_num}: {len(cells)} cells where the header has "
                f"{len(header)}; is the file complete?"
            ) from None
    return rows


def is_missing(word: str) -> bool:
    """Whether a word stands for "not known"."""
    return word.strip().casefold() in MISSING


def one_spelling(
    words: Iterable[str | None], rename: Mapping[str, str], *, missing: bool
) -> tuple[dict[str, str | None], list[str]]:
    """The label of each word, where words that differ in nothing but their spelling are one.

    Spelling is case, blanks, the Unicode form, and ``0`` for ``0.0``. A word that ``rename`` has as
    it stands is what that says; so words can be kept apart, and a word for "not known" can be a
    label.

    Args:
        words: of all utterances.
        rename: word to label.
        missing: whether :data:`MISSING` words are no labels.

    Returns:
        Word to label, None = not known; and what should be known of it, a clause each, counted.

    Raises:
        DataError: a key of ``rename`` that is no word.
    """
    counts = Counter(w for w in words if w is not None)
    groups: dict[str, list[str]] = {}
    for word, _ in counts.most_common():  # the commonest first, the earlier of equals
        groups.setdefault(_spelled(word), []).append(word)
    named: dict[str, dict[str, str]] = {}
    for key, label in rename.items():
        group, number = _spelled(key), _number(key)
        if label.strip() in ("", "null", "~"):
            raise DataError(
                f"rename: '{key}' becomes '{label}', which is no label; leave the key out, and use "
                "a taxonomy without it"
            )
        if key not in counts and not (number and group in groups):
            raise DataError(f"rename: no utterance is labelled '{key}'{suggest(key, counts)}")
        named.setdefault(group, {})[key] = label
    found: dict[str, str | None] = {}
    unknown: list[str] = []
    told: list[str] = []
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
            told.append(
                f"{listed} are one label, '{found[usual]}': they differ in case or blanks only; "
                "name each in rename= to keep them apart"
            )
    if unknown:
        listed = ", ".join(f"'{w}' ({counts[w]})" for w in sorted(unknown))
        told.append(
            f"{listed} stand for no label: {sum(counts[w] for w in unknown)} utterances are "
            f"unlabelled; if one is meant as a label, say so: rename={{{unknown[0]}: neutral}}"
        )
    return found, told


def _spelled(word: str) -> str:
    """A word without its spelling."""
    word = " ".join(unicodedata.normalize("NFC", word).casefold().split())
    return re.sub(r"\.0*$", "", word) if _number(word) else word


def _number(word: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.0*)?", word) is not None


def check_once(corpus: str, root: Path, named: Iterable[tuple[str, Path]]) -> None:
    """Refuse a tree that holds a recording twice.

    Some mirrors nest a second copy of a whole corpus in the first; every utterance would count
    twice.

    Args:
        corpus: for the message.
        root: paths are shown relative to it.
        named: utterance name and file.

    Raises:
        DataError: with the first pair, and how many there are.
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
            f"{both}; point root= at one copy"
        )


def listing(names: Iterable[str]) -> str:
    """``"4 (first: a, b, c)"``, or "" when there is none."""
    found = list(names)
    return f"{len(found)} (first: {', '.join(found[:3])})" if found else ""
