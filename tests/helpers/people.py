"""Utterances of people, made up; nothing is said in them."""

from __future__ import annotations

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
