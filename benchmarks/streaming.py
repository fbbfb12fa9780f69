"""Real-time factor of `serzoo predict`: seconds of work for a second of sound.

    python benchmarks/streaming.py            # prints
    python benchmarks/streaming.py out.json   # and writes the numbers

First, a file of two channels is predicted, each channel on its own. A window has 10 s, and the hop
is 5 s. Then one channel is read from a pipe, window by window, as it would come. A window has 3 s,
and the hop is 1 s. The sound is noise, because the work does not depend on what is heard. The
models are serzoo-small, and a random model of wav2vec2-base's size. Two threads.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import torch
from encoding import save_model
from serzoo.datamodules.audio import Raw
from serzoo.heads.classification import ClassificationHead
from serzoo.zoo.core.encoder import Encoder
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.encoders.small import SmallEncoder
from serzoo.zoo.run import predict as predicting
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.recordings import live
from timing import script, spread

RATE, THREADS, ROUNDS = 16_000, 2, 3
SECONDS = {"serzoo-small": (600.0, 120.0), "wav2vec2-base's size": (30.0, 30.0)}
"""Seconds of the file, and seconds of the pipe."""
FILE, PIPE = (10.0, 5.0), (3.0, 1.0)  # window and hop, in seconds


def noise(seconds: float, channels: int) -> np.ndarray:
    """Sound ``[S, channels]``."""
    return 0.1 * np.random.default_rng(0).normal(size=(int(seconds * RATE), channels))


def of_file(module: SERModule, path: Path, seconds: float) -> dict[str, Any]:
    """Real-time factor of a file of two channels, for each round."""
    factors = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = predicting.predict(
            module, path, window=FILE[0], hop=FILE[1], channel="separate", batch_seconds=160
        )
        factors.append((time.perf_counter() - began) / seconds)
        assert not found.errors
    return {"channels": 2, "windows": len(found), "real_time_factor": spread(factors)}


def of_pipe(module: SERModule, seconds: float) -> dict[str, Any]:
    """Real-time factor of a pipe, milliseconds of a window, and how memory grows."""
    data = (noise(seconds, 1) * 32767).astype("<i2").tobytes()
    factors, delays, sizes = [], [], []
    process, standard = psutil.Process(), sys.stdin
    for _ in range(ROUNDS):
        sys.stdin = io.TextIOWrapper(io.BytesIO(data))
        job = predicting._job(module, *PIPE, "none", 160.0, False)
        began = before = time.perf_counter()
        held = []
        for row in predicting._rows(job, live("-", Raw(RATE)), progress=False):
            assert row.error is None
            now = time.perf_counter()
            delays.append(1000 * (now - before))
            held.append(process.memory_info().rss)
            before = now
        factors.append((before - began) / seconds)
        sizes.append((held[-1] - held[len(held) // 2]) / 1e6)
    sys.stdin = standard
    return {
        "windows": len(held),
        "real_time_factor": spread(factors),
        "window_ms": spread(delays),
        "growth_mb": spread(sizes),
    }


def measure() -> dict[str, Any]:
    """Everything of this file."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    taxonomy = Taxonomy.load("ravdess8")
    found: dict[str, Any] = {"threads": THREADS, "rounds": ROUNDS, "file": FILE, "pipe": PIPE}
    found["models"] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder))
            encoders: dict[str, Encoder] = {
                "serzoo-small": SmallEncoder(),
                "wav2vec2-base's size": HFEncoder(name=folder, dtype="bfloat16"),
            }
            for name, encoder in encoders.items():
                torch.manual_seed(0)
                module = SERModule(encoder, ClassificationHead(encoder.dim, taxonomy)).eval()
                long, short = SECONDS[name]
                path = Path(folder) / "call.wav"
                soundfile.write(path, noise(long, 2), RATE)
                found["models"][name] = {
                    "file": {"seconds": long, **of_file(module, path, long)},
                    "pipe": {"seconds": short, **of_pipe(module, short)},
                }
    finally:
        torch.set_num_threads(before)
    return found


def show(found: dict[str, Any]) -> None:
    """Print the factors."""

    def line(values: dict[str, float], form: str) -> str:
        low, middle, high = (format(values[k], form) for k in ("lowest", "median", "highest"))
        return f"{middle} ({low} to {high})"

    for name, row in found["models"].items():
        file, pipe = row["file"], row["pipe"]
        print(f"{name}, {found['threads']} threads")
        print(
            f"  file of {file['seconds']:.0f} s, two channels: "
            f"{line(file['real_time_factor'], '.3f')} of real time"
        )
        print(
            f"  pipe, {pipe['seconds']:.0f} s: {line(pipe['real_time_factor'], '.3f')} of real "
            f"time; a window takes {line(pipe['window_ms'], '.0f')} ms; memory grows in the second "
            f"half by {line(pipe['growth_mb'], '.1f')} MB"
        )


if __name__ == "__main__":
    script(__doc__, measure, show)
