"""Errors a user can act on: what was found, what is allowed, what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SerzooError(ValueError):
    """Base of all errors that the command line prints without a traceback."""


class ConfigError(SerzooError):
    """A recipe, an override or a constructor argument cannot be used."""


class DataError(SerzooError):
    """A corpus, a manifest or an audio file cannot be used."""


class DataWarning(UserWarning):
    """Something of a corpus was left out or could not be filled in; the message counts it."""


class CheckpointError(SerzooError):
    """A checkpoint does not fit the model that it is loaded into."""


class ExportError(SerzooError):
    """A model cannot be written in another toolkit's format, or comes out different."""


class ProcessError(SerzooError):
    """A process of a run on several devices has ended, and the run with it."""


class ComparisonError(SerzooError):
    """Runs that are not comparable were asked to stand in one table."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The second half of an "unknown name" message.

    Args:
        name: What the user wrote.
        known: What would have been accepted.

    Returns:
        ``"; have a, b, c; did you mean 'b'?"``; the question only where something is close.
    """
    options = sorted(known)
    text = f"; have {', '.join(options)}" if options else "; there are none"
    close = get_close_matches(str(name), options, n=1, cutoff=0.6)
    return text + (f"; did you mean '{close[0]}'?" if close else "")
