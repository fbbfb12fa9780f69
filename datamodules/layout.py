"""What readers need beyond file names: old texts, tables, copies held twice, absent files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..zoo.errors import DataError


def read_text(path: Path) -> str:
    """A text file of unknown age: UTF-8 (with or without mark), or else Windows-1252."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, as these columns, stripped; other columns are ignored.

    Column names match in any case: documentation and files of a corpus disagree about it.

    Raises:
        DataError: naming the columns that are missing, or the line that is cut short.
    """
    # not splitlines: it also breaks at control characters that some tables hold within a cell
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
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
