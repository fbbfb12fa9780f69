"""What a check of the doctor says: a finding, its level, its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        name: of the check.
        level: ``ok``; ``note`` (a fact to know); ``warning`` (training works, its numbers may not
            mean what they seem to); ``error`` (training fails, or its numbers mean nothing).
        message: what was found, what is fine, what to do.
        facts: the numbers, for programs.
    """

    name: str
    level: Level
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


def ok(message: str, **facts: Any) -> Finding:
    """Nothing to do."""
    return Finding("", "ok", message, facts)


def note(message: str, **facts: Any) -> Finding:
    """A fact to know."""
    return Finding("", "note", message, facts)


def warning(message: str, **facts: Any) -> Finding:
    """To be looked at before the numbers are believed."""
    return Finding("", "warning", message, facts)


def error(message: str, **facts: Any) -> Finding:
    """To be put right first."""
    return Finding("", "error", message, facts)
