"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """While open, a draft beside ``path``; at the end it takes its place.

    When anything fails, ``path`` is as before. Of several who write at once the last one stays.

    Args:
        path: may exist; its parents need not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{_own()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _own() -> str:
    """Of nobody else: a process has threads, and containers that share a disk have equal ids."""
    return secrets.token_hex(6)


@contextmanager
def new_folder(folder: Path, ours: Collection[str]) -> Iterator[Path]:
    """While open, a temporary folder beside ``folder``; at the end it takes its place.

    When anything fails, ``folder`` is as before. What lies in it and is not ours is kept.

    Args:
        folder: may exist; its parents need not.
        ours: names (``a/b``) that are replaced, or removed where they are not written again.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = _own()
    made = folder.with_name(f".{folder.name}.{own}.new")
    old = folder.with_name(f".{folder.name}.{own}.old")
    made.mkdir()
    try:
        yield made
        if not folder.exists():
            made.rename(folder)
            return
        folder.rename(old)
        made.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old)
        if path.is_file() and name.as_posix() not in ours:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(folder / name)
    shutil.rmtree(old)
