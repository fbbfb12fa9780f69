"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

SHORT = 60  # characters of a name in a draft's, which must not be too long where the name is not


@contextmanager
def new_file(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """While open, a draft beside ``path``; at the end it takes its place.

    When anything fails, ``path`` is as before. Of several who write at once the last one stays. A
    device or a pipe (``/dev/null``) is written to as it is.

    Args:
        path: may exist; its parents need not.
        keep: when anything fails, what was written stays beside ``path``, under a name that ends
            in ``.part``, and a note of the error says where.

    Raises:
        OSError: naming ``path``: it cannot be written, or is a folder.
    """
    own = _own()
    draft = path.with_name(f".{path.name[:SHORT]}.{own}")
    with named(path, draft):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():
            yield path
            return
        try:
            yield draft
            draft.replace(path)
        except BaseException as error:
            if keep and draft.is_file() and draft.stat().st_size:
                part = path.with_name(f"{path.name[:SHORT]}.{own}.part")
                draft.rename(part)
                error.add_note(f"what was written before is in {part}")
            raise
        finally:
            draft.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Refuse, before a long work, a file that cannot be written at its end.

    Args:
        path: of the file; neither it nor its parents are made.

    Raises:
        OSError: naming ``path``.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # a device or a pipe
        return
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    draft = parent / f".{path.name[:SHORT]}.{_own()}"
    with named(path, draft):
        draft.touch()
        draft.unlink()


@contextmanager
def named(path: Path, draft: Path | None = None) -> Iterator[None]:
    """Errors of the system name ``path``: nobody knows its draft, and a full disk names nothing."""
    try:
        yield
    except OSError as error:
        where = error.filename
        ours = where is None or (draft is not None and str(where).startswith(str(draft)))
        if error.errno is None or not ours:
            raise
        named = OSError(error.errno, os.strerror(error.errno), str(path))
        for note in getattr(error, "__notes__", ()):
            named.add_note(note)
        raise named from error


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
    own = _own()
    made = folder.with_name(f".{folder.name[:SHORT]}.{own}.new")
    old = folder.with_name(f".{folder.name[:SHORT]}.{own}.old")
    with named(folder, made):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
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
