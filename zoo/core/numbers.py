"""Numbers as text, for tables and sentences."""

from __future__ import annotations

from typing import Any

UNKNOWN = "–"


def spread(v: dict[str, Any]) -> str:
    """Return mean ± standard deviation.

    Without the deviation if there are fewer than three values.
    """
    return f"{v['mean']:.3f} ± {v['sd']:.3f}" if v["n"] >= 3 else f"{v['mean']:.3f}"


def span(low: float | None, high: float | None, form: str = ".3f") -> str:
    """Return an interval as text, or a dash if there is none."""
    return UNKNOWN if low is None or high is None else f"{low:{form}} to {high:{form}}"


def p_text(p: float | None) -> str:
    """Return a p value as text, never as 0."""
    if p is None:
        return UNKNOWN
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.1g}"


def plain(value: float | None, form: str) -> str:
    """Return a number as text, or a dash."""
    return UNKNOWN if value is None else f"{value:{form}}"


def seconds_text(seconds: float | None) -> str:
    """Return seconds as text, with one decimal below ten."""
    return plain(seconds, ".0f" if seconds is not None and seconds >= 10 else ".1f")
