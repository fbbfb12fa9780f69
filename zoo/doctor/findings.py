"""The finding of a check: its level, its message, its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """A finding of a check.

    Attributes:
        name: name of the check.
        level: ``ok``; ``note`` (a fact to know); ``warning`` (training works, but its numbers may
            mislead); ``error`` (training fails, or its numbers have no meaning).
        message: what was found, what is fine, what to do.
        facts: the numbers, for programs.
    """

    name: str
    level: Level
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


def ok(message: str, **facts: Any) -> Finding:
    """Return a finding that needs no action."""
    return Finding("", "ok", message, facts)


def note(message: str, **facts: Any) -> Finding:
    """Return a fact to know."""
    return Finding("", "note", message, facts)


def warning(message: str, **facts: Any) -> Finding:
    """Return a finding to check before you trust the numbers."""
    return Finding("", "warning", message, facts)


def error(message: str, **facts: Any) -> Finding:
    """Return a finding to correct first."""
    return Finding("", "error", message, facts)
