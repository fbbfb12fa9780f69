"""Notices for users: findings about the data, and filters for warnings of other libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import DataNote, DataWarning

PARTS = 7  # how many parts of a message a terminal shows (our choice)
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL


def level() -> int:
    """Return how much a command says: :data:`QUIET`, :data:`NORMAL` or :data:`VERBOSE`.

    A quiet command shows results, warnings and errors. A verbose one cuts no message. It also shows
    messages of other libraries, and where in the code an error is from.
    """
    return _level


def tell(text: str, *, fault: bool = True) -> None:
    """Tell a user something about data: as a warning in a program, as a line on a terminal.

    If several processes open the same data, only the first one tells it.

    Args:
        text: what was found, how many, what to do next.
        fault: True for a fault of the data, False for a fact to know.
    """
    if any((os.environ.get(name) or "0") != "0" for name in RANKS):
        return
    warnings.warn(shown(text), DataWarning if fault else DataNote, stacklevel=2)


def shown(text: str) -> str:
    r"""Return a text that any file can hold: name bytes that are not UTF-8 become ``\xNN``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which no name can hold
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _brief(text: str) -> str:
    """Return a shortened text: its first parts, and the last one (what to do next)."""
    parts = text.split("; ")
    if len(parts) <= PARTS:
        return text
    first = parts[: PARTS - 2]
    return "; ".join([*first, f"and {len(parts) - len(first) - 1} more like these", parts[-1]])


@contextmanager
def on_terminal(level: int = NORMAL) -> Iterator[None]:
    """Context in which findings about data go to standard error, each text once.

    Args:
        level: how much is said in it, see :func:`level`. A quiet command says no notes.
    """
    global _level
    said: set[str] = set()
    before_level, _level = _level, level
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        before = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **options: Any) -> None:
            if not issubclass(category, DataWarning):
                before(message, category, *where, **options)
            elif (text := str(message)) not in said:
                said.add(text)
                kind = "note" if category is DataNote else "warning"
                if kind == "warning" or level != QUIET:
                    shown = text if level == VERBOSE else _brief(text)
                    print(f"{kind}: {shown}", file=sys.stderr)

        warnings.showwarning = show
        try:
            yield
        finally:
            _level = before_level


@contextmanager
def collected() -> Iterator[list[tuple[str, bool]]]:
    """Context in which each notice is also kept, as a pair of text and "is a fault"."""
    kept: list[tuple[str, bool]] = []
    with warnings.catch_warnings():
        before = warnings.showwarning

        def keep(message: Any, category: type[Warning], *where: Any, **options: Any) -> None:
            before(message, category, *where, **options)
            if issubclass(category, DataWarning):
                kept.append((str(message), category is not DataNote))

        warnings.showwarning = keep
        yield kept


def quiet() -> None:
    """Silence notices of other libraries that need no action of the user, unless all are wanted."""
    if _level == VERBOSE:
        return
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*GPU available but not used.*",
        ".*The `srun` command is available.*",  # on the login node of a cluster
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*Trying to infer the `batch_size`.*",
        ".*Encountered `nan` values in tensor.*",  # our own error says which utterances
        ".*have no `val_dataloader`.*",  # a few-shot adaptation has no validation part
        ".*in eval mode at the start of training.*",  # a frozen encoder is meant to be
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # all ranks log the same number
    ):
        warnings.filterwarnings("ignore", text)
