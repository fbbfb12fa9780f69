"""Cells of comparisons: finished ones, written without training, and some for tests of engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serzoo.zoo.core import registry
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run import config
from serzoo.zoo.run.record import read_record
from serzoo.zoo.statistics.table import PredictionTable


def write_cell(
    folder: Path,
    table: PredictionTable,
    head: str,
    fold: int,
    seed: int,
    recipe: str = "synthetic",
    **metrics: Any,
) -> str:
    """Write record and predictions of a head, with further metrics; the cell's name."""
    name = f"{recipe}-{head}-f{fold}-s{seed}"
    cfg = config.load("synthetic", [f"head={head}", f"fold={fold}", f"seed={seed}"]).to_dict()
    record = {
        "status": "ok",
        "config": {**cfg, "recipe": recipe},
        "classes": list(table.classes),
        "data": {"manifest": "m", "split": f"split{fold}", "taxonomy": "t"},
        "speakers": {"train": ["c/x"], "valid": ["c/y"], "test": sorted(set(table.speakers))},
        "selection": {"rule": "highest val/uar"},
        "seconds": {"fit": 2.0, "total": 3.0},
        "inference_seconds_per_utterance": 0.002,
        "parameters": {"trainable": 1234, "head": 1000},
        "features": "live",
        "metrics": {**table.metrics(), **metrics},
    }
    table.write_jsonl(folder / "cells" / name / "predictions.jsonl")
    write_json(folder / "cells" / name / "record.json", record)
    return name


def write_suite(folder: Path, cells: list[str]) -> None:
    """Write the plan of a comparison with these cells, against ``classification``."""
    plan = {"name": "mine", "title": "Mine", "baseline": "classification", "cells": cells}
    write_json(folder / "suite.json", plan)


MEASURED = (
    *("seconds", "processor_seconds", "inference_seconds_per_utterance", "peak_memory_mb"),
    "feature_store",  # which cell came first, and encoded for the others
)
"""Keys of a record that a second run of the same cell changes."""


def same_but_times(one: Path, other: Path) -> None:
    """Check that two folders hold the same cell, byte for byte, without what was measured."""
    both = [json.loads((folder / "record.json").read_text()) for folder in (one, other)]
    kept = [{k: v for k, v in record.items() if k not in MEASURED} for record in both]
    assert [set(MEASURED) <= set(record) for record in both] == [True, True]
    assert json.dumps(kept[0]) == json.dumps(kept[1])
    for name in ("predictions.jsonl", "valid.jsonl", "utterances.jsonl", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


FAULTY = """
import os, signal, time
from serzoo.heads.classification import ClassificationHead

class Dies(ClassificationHead):
    def loss(self, *given, **more):
        os.kill(os.getpid(), signal.SIGKILL)

class Slow(ClassificationHead):
    def loss(self, *given, **more):
        time.sleep(0.2)
        return super().loss(*given, **more)

class Hangs(ClassificationHead):
    def loss(self, *given, **more):
        time.sleep(600)
"""
"""A file of heads that die, are slow, or never end, for tests of engines."""


class Comparison:
    """A comparison on a tiny corpus, for tests of engines; its heads may be those of FAULTY.

    Args:
        folder: holds its suite; what it writes goes to ``runs``.
        recipe: a recipe file.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder, self.recipe = folder, recipe
        self.out, self.here = folder / "runs", folder / "runs" / "some"
        registry._ADDED["heads"].clear()  # of an earlier test, from another file
        self.own = folder / "own.py"
        self.own.write_text(FAULTY)

    def suite(self, heads: Sequence[str], seeds: Sequence[int] = (1,), epochs: int = 2) -> str:
        """Write the suite; its file."""
        names = [f"{self.own}:{h}" if h in ("Dies", "Slow", "Hangs") else h for h in heads]
        axes = {"recipe": [self.recipe], "head": names, "fold": [0], "seed": list(seeds)}
        overrides = [f"optim.epochs={epochs}", "optim.min_steps=0"]
        content = {"title": "S", "axes": axes, "overrides": overrides, "baseline": names[0]}
        path = self.folder / "some.yaml"
        path.write_text(json.dumps(content))
        return str(path)

    def records(self, pattern: str = "*") -> list[Any]:
        return [read_record(folder) for folder in sorted((self.here / "cells").glob(pattern))]

    def trained(self, head: str = "slow") -> int:
        """Return the number of cells of this head that have a checkpoint."""
        return len(list((self.here / "cells").glob(f"*-{head}-*/checkpoints/last.ckpt")))

    def events(self, event: str, submission: str) -> list[list[str]]:
        """Return for each task of a submission the cells of its events of this kind."""
        logs = sorted((self.here / "engine" / submission).glob("task-*.jsonl"))
        rows = [[json.loads(line) for line in log.read_text().split("\n") if line] for log in logs]
        return [[row.get("name", "") for row in of if row["event"] == event] for of in rows]


LATE = """
import time
ours = time.time
time.time = lambda: ours() + 30
"""
"""A ``sitecustomize.py`` that makes the clock of Python go 30 seconds ahead."""
