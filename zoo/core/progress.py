"""The one progress bar, on a terminal; in a file, lines that tell how far the work is."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import notices

FIRST, EVERY = 5.0, 30.0
"""Seconds until the first line of progress in a file, and between two lines (our choice)."""


class Bar:
    """A progress bar on a terminal. In a file, a line after five seconds, and then every thirty.

    A quiet command shows neither (:func:`.notices.level`).

    Use it as ``with Bar("listening", len(files)) as bar: ...; bar.advance()``.

    Args:
        what: one word for the work. It is shown as it is, with any brackets.
        total: number of pieces of work; 0 = not known yet.
        shown: whether to draw it at all.
        console: where to draw it; standard error by default.
        stays: whether its last state stays on the screen.
        lines: whether to print lines if there is no terminal.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        shown: bool = True,
        console: Console | None = None,
        stays: bool = False,
        lines: bool = True,
    ) -> None:
        console = console or Console(stderr=True)
        shown = shown and notices.level() != notices.QUIET
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        self.visible = shown and console.is_terminal
        self._progress = Progress(
            *columns,
            console=console,
            disable=not self.visible,
            transient=not stays,
            redirect_stdout=False,  # results may go there while the bar is shown
        )
        self._task = self._progress.add_task(what, total=total, note="")
        self._pace = Pace(FIRST, EVERY) if lines and shown and not self.visible else None

    def advance(self, n: int = 1) -> None:
        """Add `n` finished pieces."""
        self._progress.advance(self._task, n)
        self._line()

    def reach(self, done: int, total: int | None = None, what: str | None = None) -> None:
        """Set the number of finished pieces; optionally total and name."""
        self._progress.update(self._task, completed=done, total=total, description=what)
        self._line()

    def note(self, text: str) -> None:
        """Show a text behind the bar."""
        self._progress.update(self._task, note=text)

    def _line(self) -> None:
        if self._pace and self.done and self._pace.due():
            task = self._progress.tasks[0]
            total = int(task.total or 0)
            rest = f", about {seconds_left(self._pace.left(self.done, total))}" if total else ""
            print(f"{task.description}: {self.done} of {total or '?'}{rest}", file=sys.stderr)

    @property
    def done(self) -> int:
        """The number of finished pieces."""
        return int(self._progress.tasks[0].completed)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def seconds_left(seconds: float) -> str:
    """Return a duration as a text: ``40 s left``, ``3 min left``."""
    return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"


class Pace:
    """The clock of a work: when a line about it is due, and how long it will still take.

    Args:
        first: seconds until the first line.
        every: seconds between two lines.
    """

    def __init__(self, first: float = 0.0, every: float = 0.0) -> None:
        self._began = time.monotonic()
        self._next, self._every = first, every

    def due(self) -> bool:
        """Return whether it is time for a line; then the next one is due later."""
        taken = time.monotonic() - self._began
        if taken < self._next:
            return False
        self._next = taken + self._every
        return True

    def left(self, done: int, total: int) -> float:
        """Return the seconds that the rest takes if it goes on as before.

        Args:
            done: pieces that are done, 1 or more.
            total: all pieces.
        """
        return (time.monotonic() - self._began) / done * (total - done)
