"""``serzoo label`` on the command line: what was typed to what is done, and its words."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...zoo.config import option_types, parse
from ...zoo.errors import ConfigError
from ...zoo.registry import Knob
from .audit import AUDIT_KNOBS, audit, audit_settings
from .audit_page import show
from .trace import shown, trace
from .verb import KNOBS, Told, asr_knobs, label, scorer_knobs, settings

EVERY = 30.0  # seconds between lines of progress where there is no terminal


def run(first: str, rest: Sequence[str]) -> int:
    """What ``serzoo label FIRST REST...`` does; the exit code."""
    return COMMANDS[first](rest) if first in COMMANDS else _label(first, rest)


def _label(source: str, words: Sequence[str]) -> int:
    keywords = settings(_values(words, KNOBS, source))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    terminal = console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not terminal
    ) as bar:
        done = label(source, **keywords, told=_bar(bar) if terminal else _lines())
    if os.environ.get("RANK", "0") == "0":  # all ranks found the same
        print("\n".join(done.lines))
    return 0


def _trace(words: Sequence[str]) -> int:
    if len(words) != 2:
        raise ConfigError("say `serzoo label trace OUT ID`, with OUT the folder of the labels")
    print("\n".join(shown(trace(*words))))
    return 0


def _audit(words: Sequence[str]) -> int:
    if not words or "=" in words[0]:
        raise ConfigError(
            "say `serzoo label audit OUT [human=MANIFEST]`, with OUT the folder of the labels, a "
            "manifest or a corpus"
        )
    done = audit(words[0], **audit_settings(_values(words[1:], AUDIT_KNOBS, words[0])))
    console = Console()
    show(done.record, console if console.is_terminal else Console(width=150))
    for path in done.written:
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0 if done.ok else 1


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"audit": _audit, "trace": _trace}
"""First word to what it does, where it is not a manifest or a corpus."""


def _values(words: Sequence[str], knobs: Mapping[str, Knob], source: str) -> dict[str, Any]:
    """Settings as typed, where a folder or a name is meant; see :func:`.config.parse`."""
    scorer = dict(parse(words)).get("scorer", "nli")
    known = {**knobs}
    known |= {f"asr.{k}": v for k, v in asr_knobs().items()}
    known |= {f"scorer.{k}": v for k, v in scorer_knobs(str(scorer)).items()}
    types = {name: knob.annotation for name, knob in known.items()}
    return dict(parse(words, {**types, **option_types([source])}))


def _bar(bar: Progress) -> Told:
    tasks = {}

    def told(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done)

    return told


def _lines() -> Told:
    last = time.monotonic()

    def told(name: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            print(f"{name}: {done} of {total}", file=sys.stderr, flush=True)

    return told
