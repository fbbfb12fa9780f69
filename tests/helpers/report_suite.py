"""A small comparison on disk for tests of its report, and what the report says of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.report import report
from serzoo.zoo.report.runs import PREDICTIONS
from serzoo.zoo.run.record import RECORD
from serzoo.zoo.statistics.table import PredictionTable

CLASSES = ["angry", "happy", "sad"]
HEADS = ("classification", "a_b<i>")
DATA = ("label", "batch_size", "batch_seconds", "max_seconds", "balance")


def record(recipe: str, head: str, fold: int, seed: int = 1, **extra: Any) -> dict[str, Any]:
    """Of a finished cell."""
    return {
        "status": "ok",
        "config": {
            "recipe": recipe, "corpus": [recipe], "encoder": {"type": "logmel"},
            "head": {"type": head}, "fold": fold, "seed": seed, "optim": {"lr": 0.001},
            "data": dict.fromkeys(DATA), "trainer": {"precision": "32-true"},
        },
        "data": {"manifest": "m", "split": {"train": "x", "test": f"t{fold}"}, "taxonomy": "t"},
        "selection": {"rule": "highest val/uar"},
        "seconds": {"fit": 2.0, "total": 3.0},
        "inference_seconds_per_utterance": 0.002,
        "parameters": {"trainable": 1234, "head": 1000},
        "metrics": {"temperature": 1.5},
        "versions": {"python": "3.11", "serzoo": "0"},
        **extra,
    }  # fmt: skip


def predictions(
    recipe: str, head: str, fold: int, seed: int = 1, *, speakers: int = 2, sure: float = 1.0
) -> PredictionTable:
    """24 utterances of 3 classes; from ``sure=9`` on all are right."""
    labels = np.arange(24) % 3
    rng = np.random.default_rng([fold, seed, len(recipe), len(head)])
    scores = sure * np.eye(3)[labels] + (rng.normal(size=(24, 3)) if sure < 9 else 0)
    who = [f"{recipe}/s{speakers * fold + i // 3 % speakers}" for i in range(24)]
    return PredictionTable(
        [f"{recipe}/f{fold}u{i}" for i in range(24)], who, labels, scores, CLASSES
    )


def write_suite(
    folder: Path,
    recipes: Sequence[str] = ("one", "two"),
    folds: Sequence[int] = (0, 1),
    **kind: Any,
) -> Path:
    """Two heads in every fold of every recipe; cells are called ``recipe-head-fold``."""
    cells = []
    for recipe in recipes:
        for fold in folds:
            for k, head in enumerate(HEADS):
                cells.append(f"{recipe}-{k}-{fold}")
                at = folder / "cells" / cells[-1]
                write_json(at / RECORD, record(recipe, head, fold))
                predictions(recipe, head, fold, **kind).write_jsonl(at / PREDICTIONS)
    axes = {"recipe": list(recipes), "fold": "all"}
    plan = {"name": "s", "title": "A <suite> & more", "baseline": HEADS[0], "cells": cells}
    write_json(folder / "suite.json", {**plan, "axes": axes, "overrides": ["a=b c"]})
    return folder


class Reader(HTMLParser):
    """Text of each section, and all ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.now = ""
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "section":
            self.now = str(found["id"])
            self.sections[self.now] = ""

    def handle_data(self, data: str) -> None:
        if self.now:
            self.sections[self.now] += data


def made(folder: Path, **flags: bool) -> tuple[dict[str, str], str]:
    """Text of the sections, and the page."""
    report(folder, console=Console(file=io.StringIO(), width=180), **flags)
    text = (folder / "report.html").read_text()
    return Reader(text).sections, text
