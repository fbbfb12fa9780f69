"""The bar, drawn into memory."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from serzoo.zoo.core import progress
from serzoo.zoo.core.progress import Bar, Pace


def screen(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def drawn(console: Console) -> str:
    """The last line that stays, without the orders to the terminal."""
    return re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", console.file.getvalue()).splitlines()[-1]


def test_it_says_what_is_done_how_far_and_what_is_noted() -> None:
    console = screen(terminal=True)
    with Bar("listening", 3, console=console, stays=True) as bar:
        bar.advance()
        bar.advance()
        bar.note("a[b].wav")
    last = drawn(console)
    assert last.startswith("listening ")
    assert "2/3" in last
    assert last.rstrip().endswith("a[b].wav")
    assert bar.done == 2


def test_another_work_takes_its_place() -> None:
    console = screen(terminal=True)
    with Bar("", 0, console=console, stays=True) as bar:
        bar.reach(1, 2, "one")
        bar.reach(5, 7, "two")
    assert drawn(console).startswith("two ")
    assert "5/7" in drawn(console)


def test_where_nobody_watches_nothing_is_drawn() -> None:
    for console, shown in ((screen(terminal=False), True), (screen(terminal=True), False)):
        with Bar("listening", 1, console=console, shown=shown, stays=True) as bar:
            bar.advance()
        assert console.file.getvalue() == ""
        assert bar.done == 1


def test_work_without_a_bar_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    pace, due = Pace(first=10, every=60), []
    for now in (109.0, 111.0, 170.0, 171.0, 172.0):  # noqa: B007
        due.append(pace.due())
    assert due == [False, True, False, True, False]
    assert pace.left(done=1, total=4) == 72 * 3
