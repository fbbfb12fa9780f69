"""Utterances of people, made up; nothing is said in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serzoo.datamodules.manifest import Utterance


def utterances(corpus: str, speakers: dict[str, str], n: int = 3, **fields: Any) -> list[Utterance]:
    """``n`` utterances of each speaker, given with their sex."""
    return [
        Utterance(
            f"{corpus}/{s}-{i}", corpus, f"{s}-{i}.wav", 0, 1, 16000, s,
            gender=g or None, text=f"Sentence {i}.", **fields,
        )
        for s, g in speakers.items()
        for i in range(n)
    ]  # fmt: skip


def alternating(names: list[str]) -> dict[str, str]:
    """Every other one a man."""
    return {s: ("male", "female")[i % 2] for i, s in enumerate(names)}


def iemocap() -> list[Utterance]:
    """Utterances of five sessions with a woman and a man each, as IEMOCAP has them."""
    return [
        replace(u, session=u.speaker[:5])
        for u in utterances(
            "iemocap",
            {f"Ses0{i}{g}": {"F": "female", "M": "male"}[g] for i in range(1, 6) for g in "FM"},
        )
    ]
