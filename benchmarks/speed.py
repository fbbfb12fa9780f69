"""Speed as ratios within one run: what a design decision buys on this machine.

    python benchmarks/speed.py                           # prints tables
    python benchmarks/speed.py benchmarks/records/speed  # and writes the numbers

Absolute times depend on the machine and its neighbours; the two sides of a ratio are measured in
turn, A B A B ..., and the median ratio is what counts. Encoding speech with a pretrained model is
in ``encoding.py``, which this calls, and which runs by itself too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoding
import stored
import torch
from serzoo.heads.classification import ClassificationHead
from serzoo.heads.gen_ser import GenSERHead
from serzoo.heads.selm import SELMHead
from serzoo.zoo.logmel import LogMelEncoder
from serzoo.zoo.record import write_json
from serzoo.zoo.taxonomy import Taxonomy
from serzoo.zoo.types import Frames, Targets
from timing import ratio

TAXONOMY = Taxonomy.load("ravdess8")


def encoder_step(low: bool) -> Callable[[], None]:
    """One training step of the log-mel encoder at batch 32, 2 s of speech."""
    torch.manual_seed(0)
    encoder = LogMelEncoder(bfloat16=low).train()
    hidden, mask = torch.randn(32, 1, 128, 64), torch.ones(32, 128, dtype=torch.bool)

    def step() -> None:
        torch.manual_seed(0)  # the same augmentation, so the same shapes
        encoder(hidden, mask).x.square().mean().backward()

    return step


def stored_against_live() -> tuple[Callable[[], None], Callable[[], None]]:
    """An evaluation forward from audio, and from stored log-mel spectrograms."""
    encoder = LogMelEncoder().eval()
    audio, lengths = 0.1 * torch.randn(32, 48_000), torch.full((32,), 48_000)
    hidden, mask = encoder.extract(audio, lengths)

    @torch.no_grad()
    def live() -> None:
        encoder(*encoder.extract(audio, lengths))

    @torch.no_grad()
    def stored() -> None:
        encoder(hidden, mask)

    return live, stored


def head_inference(head: Any, encoder: LogMelEncoder) -> Callable[[], None]:
    """Scores of a batch of stored features, encoder included."""
    hidden, mask = torch.randn(32, 1, 128, 64), torch.ones(32, 128, dtype=torch.bool)
    encoder.eval()
    head.eval()

    @torch.no_grad()
    def run() -> None:
        head.scores(encoder(hidden, mask), TAXONOMY)

    return run


def ranking() -> tuple[Callable[[], None], Callable[[], None]]:
    """SELM's ranking of 8 labels: a full pass per label, and one prefix shared by all."""
    torch.manual_seed(0)
    head = SELMHead(192, TAXONOMY).eval()
    frames = Frames(torch.randn(32, 16, 192), torch.ones(32, 16, dtype=torch.bool))

    @torch.no_grad()
    def each() -> None:
        for index in range(len(TAXONOMY)):
            probs = torch.zeros(32, len(TAXONOMY))
            probs[:, index] = 1
            head.loss(frames, Targets(probs, torch.ones(32)))

    @torch.no_grad()
    def shared() -> None:
        head.scores(frames, TAXONOMY)

    return each, shared


def main() -> None:
    torch.set_num_threads(1)
    encoder = LogMelEncoder()
    base = head_inference(ClassificationHead(192, TAXONOMY), encoder)
    measured = {
        "training step of the encoder: float32 / bfloat16": ratio(
            encoder_step(False), encoder_step(True)
        ),
        "evaluation: from audio / from stored features": ratio(*stored_against_live()),
        "SELM ranks 8 labels: a pass per label / shared prefix": ratio(*ranking()),
        "inference: Gen-SER, 1 step / classification": ratio(
            head_inference(GenSERHead(192, TAXONOMY), encoder), base
        ),
        "inference: SELM / classification": ratio(
            head_inference(SELMHead(192, TAXONOMY), encoder), base
        ),
    }
    for name, row in measured.items():
        print(
            f"{name:55} {row['ratio']:5.2f}  ({row['lowest']:.2f} to {row['highest']:.2f}; "
            f"{row['slow_ms']:.1f} ms / {row['fast_ms']:.1f} ms)"
        )
    found = {"ratios": measured, "encoding": encoding.measure()}
    encoding.show(found["encoding"])
    if os.environ.get("SERZOO_DATA"):
        found["stored"] = stored.measure()
        stored.show(found["stored"])
    else:
        print("training on stored features: not measured, since SERZOO_DATA is not set")
    for name, values in found.items() if len(sys.argv) > 1 else ():
        write_json(Path(sys.argv[1]) / f"{name}.json", values)


if __name__ == "__main__":
    main()
