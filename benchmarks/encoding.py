"""Speed of encoding speech with a model of wav2vec2-base's size, as ratios within one run.

    python benchmarks/encoding.py            # prints
    python benchmarks/encoding.py out.json   # and writes the numbers

The model has random weights: its arithmetic is that of the published one. The speech is RAVDESS
and LibriSpeech clips in shuffled order, from ``SERZOO_DATA`` (default ``../shared/data``), or noise
of such lengths. The plain side is a loop over the model of ``transformers`` in float32. It takes 8
clips at a time in the given order, padded, with an attention mask. Ours is ``HFEncoder.extract`` in
the batches of the feature store. Errors are against the plain model on each clip alone.
"""

from __future__ import annotations

import csv
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.features import BATCH, pad_waves
from serzoo.datamodules.sampler import pack
from serzoo.zoo.encoders.families import real_samples
from serzoo.zoo.encoders.hf import HFEncoder
from timing import in_turn, matrix_limit, script, spread
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

THREADS = 2
CLIPS = {"ravdess": 24, "librispeech_mini": 16}
DEPTHS = [0, 3, 6, 9, 12]
PLAIN_BATCH = 8


def speech(share: float = 1.0) -> tuple[list[Tensor], str]:
    """Clips ``[S_i]`` at 16 kHz in shuffled order, and what they are; a share of ``CLIPS``."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    base = Path(os.environ.get("SERZOO_DATA") or beside)
    pick, clips = random.Random(0), []
    numbers = {corpus: max(round(share * number), 1) for corpus, number in CLIPS.items()}
    if all((base / corpus / "manifest.csv").is_file() for corpus in CLIPS):
        for corpus, number in numbers.items():
            with (base / corpus / "manifest.csv").open(encoding="utf-8") as file:
                names = [row["file"] for row in csv.DictReader(file)]
            for name in pick.sample(names, number):
                clips.append(torch.from_numpy(read_audio(base / corpus / name)))
        what = ", ".join(f"{number} clips of {corpus}" for corpus, number in numbers.items())
    else:
        torch.manual_seed(0)
        short, long = numbers.values()
        seconds = [pick.uniform(3, 5) for _ in range(short)]
        seconds += [pick.uniform(8, 20) for _ in range(long)]
        clips = [0.1 * torch.randn(int(16_000 * s)) for s in seconds]
        what = f"random noise: no speech under {base}"
    pick.shuffle(clips)
    return clips, what


def save_model(folder: Path) -> None:
    """A random wav2vec2-base as a hub download would be."""
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(folder)
    text = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(text), "utf-8")


def plain(model: Wav2Vec2Model, clips: list[Tensor], size: int) -> Callable[[], list[Tensor]]:
    """The loop that everybody writes first: frames ``[T_i, D]`` of each clip."""

    @torch.no_grad()
    def run() -> list[Tensor]:
        frames: list[Tensor] = []
        for begin in range(0, len(clips), size):
            audio, lengths = pad_waves(clips[begin : begin + size])
            samples = real_samples(audio, lengths, normalise=True)
            mask = torch.arange(audio.shape[1]) < lengths[:, None]
            hidden = model(samples, attention_mask=mask.long()).last_hidden_state
            counts = model._get_feat_extract_output_lengths(lengths).tolist()
            frames += [h[:n] for h, n in zip(hidden, counts, strict=True)]
        return frames

    return run


def ours(encoder: HFEncoder, clips: list[Tensor]) -> Callable[[], list[Tensor]]:
    """As the feature store encodes on a processor: like lengths together, the longest first."""
    seconds = np.array([len(clip) / 16_000 for clip in clips])
    order = sorted(range(len(clips)), key=lambda i: -seconds[i])
    batches = pack(order, seconds, *BATCH["cpu"])

    @torch.no_grad()
    def run() -> list[Tensor]:
        frames = dict[int, Tensor]()
        for batch in batches:
            hidden, mask = encoder.extract(*pad_waves([clips[i] for i in batch]))
            counts = mask.sum(1).tolist()
            frames |= {i: h[0, :n] for i, h, n in zip(batch, hidden, counts, strict=True)}
        return [frames[i] for i in range(len(clips))]

    return run


def errors(found: list[Tensor], expected: list[Tensor]) -> dict[str, float]:
    """Largest relative error (Frobenius) of an utterance, and largest difference of a number."""
    pairs = list(zip(found, expected, strict=True))
    return {
        "relative": max(float((a - b).norm() / b.norm()) for a, b in pairs),
        "absolute": max(float((a - b).abs().max()) for a, b in pairs),
        "scale": float(torch.cat(expected).std()),
    }


def operations(config: Wav2Vec2Config, samples: int, depth: int) -> float:
    """Multiplications and additions of an utterance's real frames, up to block ``depth``."""
    total, frames, channels = 0, samples, 1
    for kernel, stride, width in zip(
        config.conv_kernel, config.conv_stride, config.conv_dim, strict=True
    ):
        frames = (frames - kernel) // stride + 1
        total += 2 * frames * kernel * channels * width
        channels = width
    D, groups = config.hidden_size, config.num_conv_pos_embedding_groups
    total += 2 * frames * channels * D
    total += 2 * frames * D * (D // groups) * config.num_conv_pos_embeddings
    block = 2 * frames * (4 * D * D + 2 * D * config.intermediate_size) + 4 * frames * frames * D
    return float(total + depth * block)


def against_plain(folder: str, clips: list[Tensor], rounds: int) -> dict[str, Any]:
    """Ratios to the plain loop, errors against the plain model alone, shares of the limit."""
    model = Wav2Vec2Model.from_pretrained(folder).eval()
    depth, seconds = model.config.num_hidden_layers, sum(len(c) for c in clips) / 16_000
    work = sum(operations(model.config, len(clip), depth) for clip in clips)
    sides: dict[str, Callable[[], list[Tensor]]] = {"plain": plain(model, clips, PLAIN_BATCH)}
    for dtype in ("float32", "bfloat16"):
        sides[dtype] = ours(HFEncoder(name=folder, layers=[depth], dtype=dtype), clips)
    expected = plain(model, clips, 1)()
    wrong = {name: errors(run(), expected) for name, run in sides.items()}
    limits = {d: matrix_limit(getattr(torch, d)) for d in ("float32", "bfloat16")}
    times = in_turn(sides, rounds, warm=True)
    result: dict[str, Any] = {
        "speech_seconds": seconds,
        "gflop_per_second_of_speech": work / seconds / 1e9,
        "matrix_limit_tflops": {d: limit / 1e12 for d, limit in limits.items()},
        "plain": {"real_time": spread([seconds / t for t in times["plain"]]), **wrong["plain"]},
    }
    for dtype, limit in limits.items():
        result[dtype] = {
            "ratio": spread([a / b for a, b in zip(times["plain"], times[dtype], strict=True)]),
            "real_time": spread([seconds / t for t in times[dtype]]),
            "share_of_limit": spread([work / t / limit for t in times[dtype]]),
            **wrong[dtype],
        }
    return result


def by_depth(folder: str, clips: list[Tensor], rounds: int) -> dict[str, Any]:
    """Time with one kept layer, in bfloat16, and its fit by a front end and equal blocks."""
    config = Wav2Vec2Config.from_pretrained(folder)
    sides = {k: ours(HFEncoder(name=folder, layers=[k], dtype="bfloat16"), clips) for k in DEPTHS}
    times = in_turn({str(k): run for k, run in sides.items()}, rounds)
    best = np.array([min(times[str(k)]) for k in DEPTHS])  # other work only adds to a time
    slope, start = np.polyfit(DEPTHS, best, 1)
    work = [sum(operations(config, len(clip), k) for clip in clips) for k in DEPTHS]
    return {
        "speech_seconds": sum(len(c) for c in clips) / 16_000,
        "front_end_in_blocks": float(start / slope),
        "layers": {
            str(k): {
                "time_over_all": float(t / best[-1]),
                "operations_over_all": w / work[-1],
                "time_over_fit": float(t / (start + slope * k)),
            }
            for k, t, w in zip(DEPTHS, best, work, strict=True)
        },
    }


def measure(rounds: int = 3, share: float = 1.0) -> dict[str, Any]:
    """Everything of this file, with two threads, on a share of the speech."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    clips, what = speech(share)
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder))
            result = {
                "speech": what,
                "threads": THREADS,
                "rounds": rounds,
                "batch": dict(zip(("utterances", "padded_seconds"), BATCH["cpu"], strict=True)),
                "encoding": against_plain(folder, clips, rounds),
                "one_kept_layer": by_depth(folder, clips[:12], 2 * rounds),
            }
    finally:
        torch.set_num_threads(before)
    return result


def show(result: dict[str, Any]) -> None:
    """Print the ratios."""
    row = result["encoding"]

    def line(values: dict[str, float], form: str = ".2f") -> str:
        return (
            f"{values['median']:{form}} ({values['lowest']:{form}} to {values['highest']:{form}})"
        )

    print(f"encoding {row['speech_seconds']:.0f} s of speech ({result['speech']})")
    print(f"plain loop, float32: {line(row['plain']['real_time'], '.0f')} times real time")
    for dtype in ("float32", "bfloat16"):
        mine = row[dtype]
        print(
            f"ours, {dtype}: {line(mine['ratio'])} times the plain loop, "
            f"{line(mine['real_time'], '.0f')} times real time, "
            f"{line(mine['share_of_limit'])} of {row['matrix_limit_tflops'][dtype]:.2f} TFLOP/s; "
            f"relative error {mine['relative']:.1e}, largest difference {mine['absolute']:.1e}"
        )
    for k, values in result["one_kept_layer"]["layers"].items():
        print(
            f"layer {k:>2} alone: {values['time_over_all']:.2f} of the time of all blocks, "
            f"{values['operations_over_all']:.2f} of their operations, "
            f"{values['time_over_fit']:.2f} of front end + blocks"
        )


if __name__ == "__main__":
    script(__doc__, measure, show)
