"""Training a head on stored features: seconds, and the share of the step that loading takes.

    SERZOO_DATA=/folder/with/ravdess python benchmarks/stored.py            # prints
    SERZOO_DATA=/folder/with/ravdess python benchmarks/stored.py out.json   # and writes

A whole run of ``serzoo train``: the classification head on one layer of a random encoder of
wav2vec2-base's size. It trains on RAVDESS, fold 0, with two threads. The first run fills the store
and is not counted.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from encoding import THREADS, save_model
from serzoo.zoo.run.build import build, open_data
from serzoo.zoo.run.config import load
from serzoo.zoo.run.train import train
from timing import script

EPOCHS = 50
POOLINGS = ("attentive", "stats")  # the default first


def measure(rounds: int = 2, epochs: int = EPOCHS) -> dict[str, Any]:
    """Whole runs on features that are stored, and passes over their batches alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SERZOO_CACHE"] = f"{folder}/cache"
        save_model(Path(folder) / "encoder")
        settings = [
            "encoder=hf", f"encoder.name={folder}/encoder", "encoder.layers=[4]",
            "encoder.dtype=bfloat16", "data.batch_size=32", "trainer.progress=false",
            "trainer.accelerator=cpu", f"trainer.threads={THREADS}", f"trainer.out={folder}/runs",
        ]  # fmt: skip
        first = train(load("ravdess", [*settings, "optim.epochs=1"]))
        fits: dict[str, list[float]] = {pooling: [] for pooling in POOLINGS}
        passes = []
        for seed in range(2, 2 + rounds):
            for pooling in POOLINGS:
                chosen = [f"head.pooling={pooling}", f"optim.epochs={epochs}", f"seed={seed}"]
                cfg = load("ravdess", [*settings, *chosen])
                fits[pooling].append(train(cfg).seconds["fit"])
            data = open_data(cfg)
            data.store_features(build(cfg, data.taxonomy).encoder)
            loader = data.train_dataloader()
            for epoch in range(3):
                loader.sampler.set_epoch(epoch)
                began = time.perf_counter()
                batches = sum(1 for _ in loader)
                passes.append((time.perf_counter() - began) / batches)
    steps = epochs * batches
    load_ms = 1000 * min(passes)  # best rounds: other work only adds to them
    return {
        "epochs": epochs,
        "batches": batches,
        "utterances": sum(first.counts["kept"]["train"].values()),
        "store": {k: first.feature_store[k] for k in ("encoded", "bytes", "seconds")},
        "load_ms": load_ms,
        "pooling": {
            pooling: {
                "fit_seconds": sorted(seconds),
                "step_ms": 1000 * min(seconds) / steps,
                "load_share": load_ms * steps / 1000 / min(seconds),
            }
            for pooling, seconds in fits.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print what was found."""
    for pooling, row in result["pooling"].items():
        fits = ", ".join(f"{s:.1f}" for s in row["fit_seconds"])
        print(
            f"{result['epochs']} epochs of {result['utterances']} stored utterances, {pooling} "
            f"pooling: {fits} s; a step with its share of validation {row['step_ms']:.1f} ms, "
            f"loading {result['load_ms']:.2f} ms, {row['load_share']:.0%}"
        )


if __name__ == "__main__":
    script(__doc__, measure, show)
