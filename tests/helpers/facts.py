"""Patterns that hold on to the facts of a message, and leave its wording free."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def says(*facts: object) -> str:
    r"""A pattern for ``match=``: a message that holds all these facts, in any order.

    A fact is what a reader can check or change: a name, a number, a setting, a file. It is found
    as a whole: ``says(1)`` is not in "10", "0.1" or "-1", and ``says("lr")`` is not in "lr_find".
    """
    return r"(?s)\A" + "".join(f"(?=.*{_whole(str(fact))})" for fact in facts)


def tells(messages: str | Iterable[str], *facts: object) -> bool:
    """Whether the message, or one of several, holds all these facts; see :func:`says`."""
    several = [messages] if isinstance(messages, str) else messages
    return any(re.search(says(*facts), message) for message in several)


def messages(prepared: Any, kind: str) -> list[str]:
    """What a prepared corpus warns of, in one kind."""
    return [w.message for w in prepared.warnings if w.kind == kind]


def _whole(fact: str) -> str:
    before = r"(?<!\w)" * (re.match(r"\w", fact) is not None)
    before += r"(?<!\d\.)(?<!-)" * (re.match(r"\d", fact) is not None)
    after = r"(?!\w)" * (re.search(r"\w\Z", fact) is not None)
    after += r"(?!\.\d)" * (re.search(r"\d\Z", fact) is not None)
    return before + re.escape(fact) + after
