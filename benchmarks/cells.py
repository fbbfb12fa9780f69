"""What the cells of a comparison cost on stored frames of a published encoder.

    python benchmarks/cells.py            # prints
    python benchmarks/cells.py out.json   # and writes

It reads RAVDESS in SERZOO_DATA and whisper-base in SERZOO_MODELS.

Three heads on all six folds of RAVDESS with three seeds are 54 cells. They have the settings that a
frozen published encoder brings. Batches are of 64, as in the shipped suites on such frames. The
time is divided by that of one pass of Whisper-base over the corpus. Both use the same cores, in the
same run.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.run.build import build, open_data
from serzoo.zoo.run.config import load
from timing import script

CORES = os.cpu_count() or 1
HEADS = ("classification", "linear_svm", "prototype")
SETTINGS = ("encoder=whisper-base", "encoder.layers=[4]", "trainer.progress=false",
            "trainer.accelerator=cpu", "trainer.threads=1", "data.batch_size=64")  # fmt: skip
SUITE = f"""
title: What a cell costs
axes: {{recipe: [ravdess], head: [{", ".join(HEADS)}], fold: all, seed: [1, 2, 3]}}
overrides: [{", ".join(f'"{s}"' for s in SETTINGS)}]
"""


def measure() -> dict[str, Any]:
    """Encode the corpus once, then train and test all cells."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SERZOO_CACHE"] = f"{folder}/cache"
        cfg = load("ravdess", SETTINGS)
        data = open_data(cfg)
        encoder = build(cfg, data.taxonomy).encoder
        torch.set_num_threads(CORES)
        filled = data.store_features(encoder)
        suite = Path(folder) / "cells.yaml"
        suite.write_text(SUITE, "utf-8")
        began = time.perf_counter()
        found = compare(str(suite), out=f"{folder}/runs", workers=CORES)
        seconds = time.perf_counter() - began
    return {
        "cores": CORES,
        "cells": found["done"],
        "failed": found["failed"],
        "encoded": filled.encoded,
        "speech_seconds": filled.speech_seconds,
        "pass_seconds": filled.seconds,
        "cells_seconds": round(seconds, 1),
        "ratio": round(seconds / filled.seconds, 2),
    }


def show(result: dict[str, Any]) -> None:
    """Print what was found."""
    print(
        f"one pass of the encoder over {result['encoded']} utterances: "
        f"{result['pass_seconds']:.0f} s; {result['cells']} cells on its frames: "
        f"{result['cells_seconds']:.0f} s, {result['ratio']:.2f} times as long, on "
        f"{result['cores']} cores"
    )


if __name__ == "__main__":
    script(__doc__, measure, show)
