"""Read and write files safely: whole files or none, and text with clear errors.

Writing: :func:`new_file` and :func:`new_folder` make a draft beside the target. The draft replaces
the target only when it is complete. :func:`write_text` and :func:`write_json` use them.

Reading: :func:`read_text`, :func:`read_json` and :func:`json_lines` read all text files that people
and programs have written. If a file cannot be read, the error names file, line and remedy.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import json
import math
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from .errors import ConfigError, DataError, SerzooError, cut

SHORT = 60  # characters of the target's name in the name of its draft, which is longer


@contextmanager
def new_file(
    path: Path, *, keep: bool = False, sync: bool = False, draft: Path | None = None
) -> Iterator[Path]:
    """Context that gives a draft beside ``path``; at its end the draft replaces ``path``.

    If anything fails, ``path`` stays as before. If several processes write at once, the last one
    wins. A device or a pipe (``/dev/null``) is written to directly.

    Args:
        path: the target file; it may exist, and its parents need not exist.
        keep: if anything fails, keep the draft beside ``path``, with the suffix ``.part``. A note
            of the error says where.
        sync: put the draft on the disk before it gets the name ``path``, and then the name. So a
            loss of power leaves no file that is cut.
        draft: path of the draft, for a caller that removes drafts of killed processes. Only one
            process may write it at a time. None = a name that no other writer uses.

    Raises:
        OSError: if ``path`` cannot be written, or is a folder; the error names ``path``.
    """
    own = _own()
    draft = draft or path.with_name(f".{path.name[:SHORT]}.{own}")
    with named(path, draft):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():
            yield path
            return
        try:
            yield draft
            if sync:
                _sync(draft)
            draft.replace(path)
            if sync:
                _sync(path.parent)
        except BaseException as error:
            if keep and draft.is_file() and draft.stat().st_size:
                part = path.with_name(f"{path.name[:SHORT]}.{own}.part")
                draft.rename(part)
                error.add_note(f"what was written before is in {part}")
            raise
        finally:
            draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def check_place(path: Path) -> None:
    """Check, before long work, that a file can be written at its end.

    Args:
        path: the target file; neither it nor its parents are made.

    Raises:
        OSError: if it cannot be written; the error names ``path``.
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
    """Context in which errors of the system name ``path``.

    Users do not know the name of the draft, and the error of a full disk names no file.
    """
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
    """Return a suffix that no other writer uses.

    The process id alone is not enough. A process has several threads, and containers that share a
    disk can have equal process ids.
    """
    return secrets.token_hex(6)


@contextmanager
def new_folder(folder: Path, ours: Collection[str] = (), *, replace: bool = True) -> Iterator[Path]:
    """Context that gives a temporary folder beside ``folder``; at its end it replaces ``folder``.

    If anything fails, ``folder`` stays as before. Other files in ``folder`` are kept.

    Args:
        folder: the target folder; it may exist, and its parents need not exist.
        ours: names (``a/b``) that are replaced; those that are not written again are removed.
        replace: False = ``folder`` is missing or empty, and the first of several writers wins.
            Nobody who reads its copy loses a file.

    Raises:
        FileExistsError: without ``replace``, if ``folder`` has files at the end.
        OSError: if it cannot be written; the error names ``folder``.
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
            if replace and folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                raise FileExistsError(errno.EEXIST, "it has files", str(folder)) from error
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    if not old.exists():
        return
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old)
        if path.is_file() and name.as_posix() not in ours:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(folder / name)
    shutil.rmtree(old)


# Locks between processes. The system drops a lock when its process ends, however it ends.


LOCKS = "SERZOO_LOCKS"
"""Environment variable: the kind of locks, ``system`` or ``lease``."""
LEASE = 60.0
"""Seconds after which the lease of a process that died counts as free (our choice)."""


def file_lock(path: Path) -> BaseFileLock:
    """Return a lock on a file, not yet taken.

    ``$SERZOO_LOCKS`` chooses its kind:

    - ``system`` (the default): a lock of the system on the file, which is made if it is missing,
      and stays. It ends with its process. On some network disks, other machines do not see it.
    - ``lease``: a further file, ``<name>.lease``, which only one process can make, and which it
      renews. It works on any disk that the machines share. It outlives a killed process by
      :data:`LEASE` seconds.

    Raises:
        ConfigError: if ``$SERZOO_LOCKS`` has another value.
    """
    kind = os.environ.get(LOCKS) or "system"
    if kind == "lease":
        name = path.with_name(f"{path.name}.lease")
        return SoftFileLease(name, lease_duration=LEASE, thread_local=False)
    if kind != "system":
        raise ConfigError(f"{LOCKS}={kind} is no kind of locks; have system, lease")
    # fallback_to_soft=False: a soft lock would outlive a killed process; an error is better
    return FileLock(path, fallback_to_soft=False, thread_local=False)


@contextmanager
def locked(path: Path, refusal: Callable[[str], SerzooError] | None = None) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        path: path of the lock file, in a folder that exists.
        refusal: makes the error if another process holds the lock, from its id (or ``?``). None =
            wait until it is free.

    Raises:
        SerzooError: if another process holds the lock and ``refusal`` is given.
        FileNotFoundError: if the folder is missing, or is removed while this waits.
    """
    lock = file_lock(path)
    # whose lease it is may have died: that shows only after a while
    patience = 1.5 * LEASE if isinstance(lock, SoftFileLease) else 0.0
    try:
        held = lock.acquire(timeout=-1 if refusal is None else patience, poll_interval=0.02)
    except Timeout:
        assert refusal is not None
        raise refusal(path.read_text().strip() or "?") from None
    with held:
        if refusal is not None:
            path.write_text(str(os.getpid()))
        yield


# Text and JSON that people and programs have written is read here. Encodings are never guessed
# silently. UTF-8, with or without a byte order mark, and UTF-16 are recognised. Only tables may
# also be in an older encoding (``old=True``): Windows-1252, if no byte contradicts it.

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, because it begins with UTF-16's mark
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ENDS = re.compile(r"\r\n|\r|\n")
"""The ends of a line. ``str.splitlines`` also splits at other characters."""

OLD = "cp1252"
NO_TEXT = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "an old office document",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
}


def read_text(
    path: str | Path,
    error: type[SerzooError] = DataError,
    *,
    old: bool = False,
    remedy: str = "save it as UTF-8",
) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        error: the kind of error to raise.
        old: also read Windows-1252.
        remedy: what the user should do if the file is not text.

    Raises:
        SerzooError: of the kind ``error``, if the file cannot be opened or is not text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise error(f"cannot read {path}: {e.strerror or e}") from e
    return decode(data, path, error, old=old, remedy=remedy)[0]


def decode(
    data: bytes,
    where: str | Path,
    error: type[SerzooError] = DataError,
    *,
    old: bool = False,
    remedy: str = "save it as UTF-8",
) -> tuple[str, str]:
    """Decode bytes; return the text and the name of its encoding.

    The byte order mark is removed. Ends of lines stay as they are.

    Args:
        data: the bytes of a file.
        where: the name of the file, for messages.
        error: the kind of error to raise.
        old: read bytes that are not UTF-8 as Windows-1252.
        remedy: what the user should do if the bytes are not text.

    Raises:
        SerzooError: if the bytes are not text in one of the encodings, mix two of them, or hold a
            NUL. It is of the kind ``error`` and names the line of the first unreadable byte.
    """
    for start, kind in NO_TEXT.items():
        if data.startswith(start):
            raise error(f"{where} is {kind}, not text; {remedy}")
    name, text = _encoding(data), ""
    try:
        text = data.decode(name)
    except UnicodeDecodeError as e:
        what = f"byte 0x{data[e.start]:02x}" if e.start < len(data) else "the end"
        line = _line(data[: e.start].decode(name, errors="ignore"))
        if name != "utf-8":
            raise error(f"{where}, line {line}: {what} is not {name.upper()}; {remedy}") from e
        if not old:
            raise error(f"{where}, line {line}: {what} is not UTF-8; {remedy}") from e
        name, text = OLD, _old(data, where, error, f"{where}, line {line}: {what}", remedy)
    text = text.lstrip("\ufeff")
    if "\0" in text:
        line = _line(text[: text.index("\0")])
        raise error(
            f"{where}, line {line}: a NUL byte, but text has none; the file was damaged, or not "
            f"written to its end: {remedy}"
        )
    return text, name


def read_json(
    path: str | Path,
    error: type[SerzooError] = DataError,
    *,
    remedy: str,
    kind: type = dict,
    names: bool = False,
) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        error: the kind of error to raise.
        remedy: what the user should do if the file is damaged; it follows a semicolon.
        kind: the expected type of the content, ``dict`` or ``list``.
        names: whether the file holds names of files, which need not be UTF-8.

    Raises:
        SerzooError: of the kind ``error``, if the file cannot be read, is not JSON, or holds
            another type.
    """
    text = read_text(path, error, remedy=remedy)
    if not text.strip():
        raise error(f"{path} is empty; {remedy}")
    try:
        return parse_json(text, kind, names=names)
    except ValueError as e:
        raise error(f"{path} is damaged ({e}); {remedy}") from e


def json_lines(
    path: str | Path,
    error: type[SerzooError] = DataError,
    *,
    remedy: str,
    what: tuple[str, str] = ("a line of JSON", "lines"),
    finite: bool = False,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and content of each line of a file of JSON objects.

    Lines may end in any way. Blank lines and a byte order mark are skipped.

    Args:
        path: the file; if its name ends in ``.gz``, it is decompressed.
        error: the kind of error to raise.
        remedy: what the user should do if the file is damaged; it follows a semicolon.
        what: the names of one line and of the lines, for messages.
        finite: refuse NaN and Infinity, which are not JSON.

    Raises:
        SerzooError: of the kind ``error``, if the file cannot be read, or a line is not an object.
            The message names the line.
    """
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if str(path).endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as e:
        raise error(f"cannot read {what[1]} from {path} ({e}); {remedy}") from e
    # not splitlines: it also splits at characters that a JSON string may contain
    text = decode(data, path, error, remedy=remedy)[0]
    del data  # a manifest may be large
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            yield number, parse_json(line, finite=finite)
        except ValueError as e:
            raise error(
                f"{path}, line {number}: not {what[0]} ({e}): {line.strip()[:80]!r}; {remedy}"
            ) from e


def parse_json(text: str, kind: type = dict, *, finite: bool = False, names: bool = False) -> Any:
    """Parse JSON that holds a ``dict`` or a ``list``, and return it.

    Args:
        text: JSON.
        kind: the expected type of the content, ``dict`` or ``list``.
        finite: refuse NaN and Infinity, which are not JSON.
        names: accept name bytes that are not UTF-8, as Python writes them.

    Raises:
        ValueError: if the text is not such JSON; the message says why.
    """
    try:
        content = _FINITE.decode(text) if finite else json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, kind):
        wanted = "an object {...}" if kind is dict else "a list [...]"
        raise ValueError(f"it holds {_shown(content)}, expected {wanted}")
    if re.search(r"\\u[dD][89a-fA-F]", text):  # no file can hold half of a surrogate pair
        try:
            json.dumps(content, ensure_ascii=False).encode(
                "utf-8", "surrogateescape" if names else "strict"
            )
        except UnicodeEncodeError as e:
            raise ValueError("a name in it has half of a character (\\ud8...)") from e
    return content


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text one by one, as :data:`ENDS` divides it."""
    begin = 0
    for end in ENDS.finditer(text):
        yield text[begin : end.start()]
        begin = end.end()
    yield text[begin:]


def _encoding(data: bytes) -> str:
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    # no byte order mark: the text begins with an ASCII character (a letter, a brace, a quote)
    zeros = [byte == 0 for byte in data[:4]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    if zeros == [True, False, True, False]:
        return "utf-16-be"
    return "utf-8"


def _old(data: bytes, where: str | Path, error: type[SerzooError], found: str, remedy: str) -> str:
    """Decode Windows-1252.

    Refuse bytes that are partly UTF-8, because the file is damaged or mixed.
    """
    if re.search(r"[^\x00-\x7f\udc80-\udcff]", data.decode("utf-8", errors="surrogateescape")):
        raise error(
            f"{found} is not UTF-8, but other characters of the file are: two texts were "
            f"mixed, or it is damaged; {remedy}"
        )
    try:
        return data.decode(OLD)
    except UnicodeDecodeError as e:
        line = _line(data[: e.start].decode("latin-1"))
        raise error(
            f"{where}, line {line}: byte 0x{data[e.start]:02x} is neither UTF-8 nor Windows-1252; "
            f"{remedy}"
        ) from e


def _line(text: str) -> int:
    """Return the number of the line that follows a text; lines may end in any way."""
    return 1 + len(ENDS.findall(text))


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_FINITE = json.JSONDecoder(parse_constant=_not_json)  # json.loads would make one for each line


def _shown(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), 40)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 atomically: it is whole, or as before.

    Raises:
        OSError: if it cannot be written; the error names ``path``.
    """
    with new_file(path) as draft:
        draft.write_text(text, "utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically: the file is whole or absent.

    NaN becomes null. Dataclasses and named tuples become objects, with their fields in order.
    """
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """Return data as JSON, with one line feed at the end; see :func:`write_json`."""
    return json.dumps(_clean(data), indent=1, ensure_ascii=False) + "\n"


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _clean(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _clean(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # an array, a tensor, or a number out of one
        return _clean(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return value


# The folder for everything that serzoo can make again.


def cache_dir() -> Path:
    """Return ``$SERZOO_CACHE``, or ``serzoo`` in the user's cache folder."""
    base = os.environ.get("SERZOO_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "serzoo"


def features_dir() -> Path:
    """Return the folder of the feature stores; each store has its own folder in it."""
    return cache_dir() / "features"
