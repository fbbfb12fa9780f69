"""Amounts of work that no busy machine changes, in place of seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def instructions(function: Callable[[], Any]) -> int:
    """How many instructions of Python a call takes, in ``function`` and in all below it.

    A loop takes some in every round; one call of NumPy takes a few, whatever its size.
    """
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal counted
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function()
    finally:
        sys.settrace(before)
    return counted
