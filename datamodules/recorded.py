"""Recorded noises and rooms that test audio is corrupted with: where they lie."""

from __future__ import annotations

import os
from pathlib import Path

from ..zoo.errors import ConfigError
from ..zoo.notices import tell
from .audio import SUFFIXES
from .walk import walk

FOLDERS = {"noise": (("esc10", ""), ("rir_noise", "noise")), "reverb": (("rir_noise", "rir"),)}
"""Of a kind that needs recordings: folders of ``$SERZOO_DATA``, and a part of the path in them."""

OPTION = {"noise": "noise", "reverb": "rir"}
"""The option that names another folder."""


def recordings(kind: str, given: dict[str, str | Path | None]) -> list[tuple[str, Path]]:
    """Relative name and path of every recording of a kind, sorted.

    Args:
        kind: of :data:`FOLDERS`.
        given: folder by option; None = look in ``$SERZOO_DATA``.

    Raises:
        ConfigError: when there are none.
    """
    option = OPTION[kind]
    folder = given[option]
    if folder is not None:
        roots = [(Path(folder).expanduser(), "")]
    else:
        base = Path(os.environ.get("SERZOO_DATA") or "/nonexistent").expanduser()
        names = [(name + end, part) for name, part in FOLDERS[kind] for end in ("", "_mini")]
        roots = [(base / name, part) for name, part in names]
    found = [
        (path.relative_to(root.parent).as_posix(), path)
        for root, part in roots
        for path in _audio(root)
        if not part or part in path.relative_to(root).parts
    ]
    if found:
        return sorted(found)
    where = f"no recordings in {folder}" if folder is not None else "no folder of recordings"
    also = ", or use white and pink noise, which need none" if kind == "noise" else ""
    raise ConfigError(
        f"condition {kind}: {where}; give {option}=FOLDER with {', '.join(SUFFIXES)} files, or set "
        f"SERZOO_DATA to a folder that holds {' and '.join(n for n, _ in FOLDERS[kind])}{also}"
    )


def _audio(root: Path) -> list[Path]:
    """Audio below a folder, if there is one; what is not taken is told."""
    if not root.is_dir():
        return []
    found = walk(root)
    for text, fault in found.notes():
        tell(f"{root.name}: {text}", fault=fault)
    return found.take()
