"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


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
    made = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
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
