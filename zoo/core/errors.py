"""Errors that users can act on: each says what was found, what is allowed and what to do next."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class SerzooError(ValueError):
    """Base of all errors that the command line prints without a traceback."""


class ConfigError(SerzooError):
    """A recipe, an override or a constructor argument cannot be used."""


class DataError(SerzooError):
    """A corpus, a manifest or an audio file cannot be used."""


class DataWarning(UserWarning):
    """Part of a corpus was left out or could not be filled in; the message says how much."""


class DataNote(DataWarning):
    """A fact about a corpus that is not a fault; the message says how much."""


class CheckpointError(SerzooError):
    """A checkpoint does not fit the model that it is loaded into."""


class DamagedError(CheckpointError):
    """A checkpoint cannot be read: it was cut off or changed, or holds more than data."""


class ExportError(SerzooError):
    """A model cannot be written in another toolkit's format, or gives other output there."""


class ProcessError(SerzooError):
    """One process of a run on several devices has ended, so the run ended too."""


class ComparisonError(SerzooError):
    """Runs that cannot be compared were put into one table."""


class ContractError(AssertionError):
    """A head, an encoder or a corpus reader breaks its contract.

    Attributes:
        failures: name of each failed check to its message.
    """

    def __init__(self, message: str, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the second half of an "unknown name" message.

    Args:
        name: What the user wrote.
        known: What would have been accepted.

    Returns:
        ``"; have a, b, c; did you mean 'b'?"``; the question only if a known name is similar.
    """
    options = sorted(known)
    text = f"; have {', '.join(options)}" if options else "; there are none"
    close = get_close_matches(str(name), options, n=1, cutoff=0.6)
    return text + (f"; did you mean '{close[0]}'?" if close else "")


_ELSEWHERE = "choose another folder"
_FREE = f"free some space, or {_ELSEWHERE}, and start the same command again"
_SYSTEM = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("your share of the disk is used up", _FREE),
    errno.EFBIG: ("the file is larger than this system allows (see `ulimit -f`)", _ELSEWHERE),
    errno.EROFS: ("this disk can only be read", _ELSEWHERE),
    errno.EACCES: ("permission is denied", f"change its permissions, or {_ELSEWHERE}"),
    errno.EPERM: ("it is not permitted", f"change its permissions, or {_ELSEWHERE}"),
    errno.EISDIR: ("it is a folder, not a file", "give the name of a file"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "check the path"),
    errno.EEXIST: (
        "something with this name is there already",
        "choose another name, or remove it",
    ),
    errno.ENOTEMPTY: ("the folder is not empty", "choose another name, or empty it"),
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("its links lead in a circle", "remove one of them"),
    errno.EMFILE: (
        "too many files are open",
        "raise the limit (`ulimit -n`) or use fewer workers",
    ),
    errno.ENFILE: ("too many files are open on this machine", "end other programs"),
    errno.EIO: ("the disk failed to read or write", "copy its files, and check the disk"),
    errno.ENOLCK: ("this disk has no locks for files", _ELSEWHERE),
    errno.EOPNOTSUPP: ("this disk cannot do what is needed here", _ELSEWHERE),
    errno.ENOMEM: ("there is not enough memory", "end other programs, or use smaller batches"),
}
# errors that no bug of serzoo can cause: shown even if another library has wrapped them
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.EIO)
LONGEST = 160  # characters of a path that are shown (our choice)


def system_error(error: BaseException) -> str | None:
    """Return one line for the user about an error of the system: where, what, and what to do next.

    Args:
        error: an ``OSError``, or an error that a library raised because of one. Also the error
            of Python for a path that it cannot use.

    Returns:
        None if the error is another one: an error of serzoo, or a fault of the program.
    """
    if isinstance(error, SerzooError):
        return None
    text = str(error)
    if isinstance(error, ValueError) and "embedded null" in text:
        return "a path holds a NUL character, which no path may hold; check the settings"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return (
            "the home folder is not known (for '~', or the cache); set HOME, or set SERZOO_CACHE "
            "to a folder and write other paths in full"
        )
    number, where = _refused(error)
    if number is None:
        return (" ".join(text.split())[:600] or repr(error)) if isinstance(error, OSError) else None
    other = (os.strerror(number), "check the path")
    what, remedy = _SYSTEM.get(number, other)
    return f"{where}: {what}; {remedy}" if where else f"{what}; {remedy}"


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """Return a path as one line of at most 160 characters, for a message."""
    text = os.fsdecode(path)
    text = text if text.isprintable() else ascii(text)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def _refused(error: BaseException) -> tuple[int | None, str]:
    """Return the number and path of the system's error, from the error, its text, or its cause."""
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename2 or error.filename
        return error.errno, "" if name is None or isinstance(name, int) else shown(name)
    # worker processes and libraries in other languages give the error only as text
    found = re.search(r"\[Errno (\d+)\][^:\n]*(?:: '([^'\n]*)')?|\(os error (\d+)\)", str(error))
    if found and (isinstance(error, OSError) or int(found[1] or found[3]) in _OF_THE_MACHINE):
        return int(found[1] or found[3]), shown(found[2] or "")
    for number in _OF_THE_MACHINE:
        if os.strerror(number) in str(error):
            return number, ""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE:
        return _refused(cause)
    return None, ""


# Numbers and lists in messages.


def some(names: Iterable[object], n: int = 5, between: str = ", ") -> str:
    """Return the first names, and how many more there are; a set is sorted.

    >>> some("abcd", 2)
    'a, b, ... 2 more'
    >>> some("abcd", 2, "; ")
    'a; b; ... 2 more'
    """
    listed = [str(name) for name in names]
    if isinstance(names, (set, frozenset)):
        listed.sort()
    more = [f"... {len(listed) - n} more"] if len(listed) > n else []
    return between.join([*listed[:n], *more])


def cut(text: str, longest: int, *, keep_end: bool = False) -> str:
    """Return a text of at most ``longest`` characters; three dots show that it was cut.

    Args:
        text: the text.
        longest: number of characters with the dots, 3 or more.
        keep_end: cut the beginning, and not the end.

    >>> cut("abcdefgh", 6), cut("abcdefgh", 6, keep_end=True)
    ('abc...', '...fgh')
    """
    if len(text) <= longest:
        return text
    kept = longest - 3
    return f"...{text[len(text) - kept :]}" if keep_end else f"{text[:kept]}..."


def counted(n: int, what: str, ending: str = "s") -> str:
    """Return ``1 table``, ``2 tables``; with the ending ``es``, ``2 processes``."""
    return f"{n} {what}" + ending * (n != 1)


def tally(counts: Mapping[str, int]) -> str:
    """Return counts as ``missing 2, silent 1``."""
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's text without its full stop, or else the error's class.

    >>> first_line(OSError("cannot connect.\nMore about it"))
    'cannot connect'
    """
    return str(error).strip().split("\n")[0].rstrip(". ") or type(error).__name__
