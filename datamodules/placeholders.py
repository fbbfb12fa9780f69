"""Recognise files whose content is elsewhere, and say how to get it.

git-annex and DVC leave dangling links, and Git LFS leaves a small text. A pipe also has a name like
a file, but no content to read twice.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ..zoo.core.notices import shown

POINTER = 1024  # bytes; a pointer file of version control is smaller than this
REMEDY = {
    "annex": "run `git annex get .`",
    "lfs": "run `git lfs pull`",
    "dvc": "run `dvc pull`",
    "dangling": "restore what the link points to, or remove it",
    "special": "write the sound to a file first",
}
"""The remedy for the user, by the kind of placeholder."""


def problem(path: Path) -> str | None:
    """Return why a file name has no audio, and the remedy; None if no problem is known."""
    try:
        facts = path.stat()
    except (OSError, ValueError):  # os.path also answers for names that no system can have
        if os.path.islink(path):
            kind, why = dangling(path)
            said = f"it is a link to nothing ({shown(why)})"
            if kind != "dangling":
                said = f"its content was not fetched ({shown(why)})"
            return f"{said}: {REMEDY[kind]}"
        return f"its content was not fetched: {REMEDY['dvc']}" if _of_dvc(path) else None
    if pointer := pointer_of(path, facts):
        said = "it is a Git LFS pointer" if pointer == "lfs" else "its content was not fetched"
        return f"{said}: {REMEDY[pointer]}"
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
        return f"it is {special(facts.st_mode)}, which cannot be read twice: {REMEDY['special']}"
    return None


def dangling(path: Path) -> tuple[str, str]:
    """Return the kind of a dangling link, and its target."""
    target = target_of(path) or "?"
    parts = target.replace("\\", "/")
    if ".git/annex/" in parts:
        return "annex", f"-> {target}"
    used = any((folder / ".dvc").is_dir() for folder in path.absolute().parents)
    if ".dvc/cache" in parts or used or _of_dvc(path):
        return "dvc", f"-> {target}"
    return "dangling", f"-> {target}"


def _of_dvc(path: Path) -> bool:
    """Return whether DVC keeps this file or folder.

    DVC writes a file beside each file or folder that it keeps.
    """
    return any(os.path.isfile(f"{place}.dvc") for place in (path, *path.parents) if place.name)


def target_of(path: Path) -> str | None:
    """Return the target of a link; None if the path is not a link."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def pointer_of(path: Path, facts: os.stat_result) -> str | None:
    """Return the kind of a small text that version control wrote instead of a file, or None."""
    if not (stat.S_ISREG(facts.st_mode) and 0 < facts.st_size < POINTER):
        return None
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    if start.startswith(b"version https://git-lfs"):
        return "lfs"
    return "annex" if start.startswith(b"/annex/objects/") else None


_SPECIAL: dict[str, Callable[[int], bool]] = {
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def special(mode: int) -> str:
    """Return the kind of a name that is neither file nor folder.

    ``mode`` is that of its ``stat``.
    """
    return next((name for name, is_one in _SPECIAL.items() if is_one(mode)), "no file")
