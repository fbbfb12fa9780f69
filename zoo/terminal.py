"""What all verbs share on a terminal: options of every verb, JSON, errors, and exit codes."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cyclopts import CycloptsError, UnusedCliTokensError

from .core.errors import ConfigError, SerzooError, system_error
from .core.notices import NORMAL, QUIET, VERBOSE, on_terminal

EXIT_CODES = {
    0: "it did what was asked",
    1: "it ran and found a fault: a failed audit, a failed cell, refused recordings",
    2: "it could not run; the message says what to do",
    130: "you stopped it",
    141: "the reader of its output has gone, as after `serzoo list | head -1`",
}


def exit_code(work: Callable[[], int | None], called: str, level: int) -> int:
    """Do the work of a command line, tell its error in one line, and return its exit code.

    Args:
        work: calls the verb, and returns its code; None = 0.
        called: the verb as it was typed; every message begins with it.
        level: how much is said (:func:`.notices.level`).

    Returns:
        A code of :data:`EXIT_CODES`.

    Raises:
        Exception: if the error is neither of the user nor of the system, but a fault of serzoo.
    """
    try:
        with on_terminal(level):
            code = work()
        sys.stdout.flush()  # a full disk shows here, and the handlers below still tell it
    except KeyboardInterrupt as e:
        _tell("interrupted", e)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 141
    except SystemExit as e:
        if isinstance(e.__context__, BrokenPipeError):  # rich ends the process by itself, with 1
            return 141
        if isinstance(e.__context__, KeyboardInterrupt):  # so does Lightning, and says nothing
            _tell("interrupted", e)
            return 130
        raise
    except CycloptsError as e:  # no such verb, option or argument
        more = isinstance(e, UnusedCliTokensError) and " ".join(e.unused_tokens or ())
        fault = f"too many words: {more}." if more else " ".join(str(e).split())
        _tell(f"{called}: {fault} See `{called} --help`.", e)
        return 2
    except Exception as e:
        said = str(e) if isinstance(e, SerzooError) else system_error(e)
        if said is None:
            raise
        if level == VERBOSE:
            traceback.print_exception(e)
        # one line, even if a file's name or a library's message has several
        _tell(f"{called}: {' '.join(said.splitlines())}", e)
        return 2
    return int(code or 0)


def _tell(line: str, error: BaseException) -> None:
    """Print an error and its notes on standard error, unless that is closed or full."""
    with contextlib.suppress(OSError):
        print("\n".join([line, *getattr(error, "__notes__", ())]), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # Python would flush once more at its end, and change the exit code
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def safe_streams() -> None:
    """Make the standard streams take every text, so that no name or sign ends a command.

    A closed stream gets a place that keeps nothing. Where the locale's encoding lacks a character,
    its code is written instead.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the shell closed it: `serzoo list >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and not is_unicode(stream.encoding):
            stream.reconfigure(errors="backslashreplace")


def is_unicode(encoding: str) -> bool:
    """Return whether an encoding holds every character."""
    return codecs.lookup(encoding).name.startswith("utf-")


def check_folder() -> None:
    """Check that the working directory is still there, before libraries fail without it.

    Raises:
        ConfigError: if it was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError as e:
        raise ConfigError(
            "the working directory was removed; change to a folder that exists (cd FOLDER)"
        ) from e


def without_system_errors(others: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a hook for errors of threads that drops system errors, such as a full disk.

    TensorBoard writes in a thread, and raises the same error again where the next value is written.

    Args:
        others: the hook for all other errors.
    """
    return lambda seen: None if system_error(seen.exc_value) else others(seen)


@contextlib.contextmanager
def result_only(wanted: bool) -> Iterator[None]:
    """Context for `--json`: what is printed for people goes to standard error.

    Args:
        wanted: whether `--json` was given.
    """
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield


def print_json(value: Any) -> None:
    """Print the result of a verb as JSON.

    Args:
        value: plain containers.
    """
    from .core.files import json_text

    print(json_text(value), end="")


def without_globals(typed: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Take out the options that every verb has, and move a lone ``-`` to the names at the end.

    A lone ``-`` means standard input. Cyclopts would read it as an option.

    Args:
        typed: words after ``serzoo``.

    Returns:
        The other words, the values of ``--part``, and how much to say (:func:`.notices.level`).
    """
    left: list[str] = []
    parts: list[str] = []
    names: list[str] = []
    level = NORMAL
    words = iter(typed)
    for word in words:
        if word == "--":  # all that follow are names
            names += words
        elif word == "-":
            names.append(word)
        elif word == "--part":
            parts.append(next(words, ""))
        elif word.startswith("--part="):
            parts.append(word.removeprefix("--part="))
        elif word in ("-q", "--quiet"):
            level = QUIET
        elif word in ("-v", "--verbose"):
            level = VERBOSE
        else:
            left.append(word)
    return [*left, *(["--", *names] if names else [])], parts, level
