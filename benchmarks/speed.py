"""Speed as ratios within one run: what a design decision buys on this machine.

    python benchmarks/speed.py                           # prints tables
    python benchmarks/speed.py benchmarks/results/speed  # and writes the numbers
    python benchmarks/speed.py benchmarks/results/speed SELM  # only ratios whose name holds this

Absolute times depend on the machine and its neighbours. So the two sides of a ratio are measured in
turn (A B A B), and the median ratio counts. Encoding speech with a pretrained model is in
``encoding.py``, which this calls, and which runs by itself too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import encoding
import stored
import torch
from lightning import Trainer
from serzoo.heads.classification import ClassificationHead
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.heads.pooling import PoolingName
from serzoo.heads.selm import tree
from serzoo.heads.selm.decoding import search
from serzoo.heads.selm.head import SELMHead
from serzoo.zoo.core.files import write_json
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Frames, Targets
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.encoders.small import SmallEncoder
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.spent import CountFlops
from timing import parser_of, ratio
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

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


def serzoo_small() -> tuple[Callable[[], None], Callable[[], None]]:
    """Encoding 32 utterances of 3 s from audio: with frozen serzoo-small, and the log-mel one."""
    audio, lengths = 0.1 * torch.randn(32, 48_000), torch.full((32,), 48_000)

    @torch.no_grad()
    def run(encoder: SmallEncoder | LogMelEncoder) -> None:
        encoder(*encoder.extract(audio, lengths))

    return partial(run, SmallEncoder().eval()), partial(run, LogMelEncoder().eval())


def steps_of_encoders() -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step on stored features of 32 utterances of 3 s.

    With the log-mel encoder, which learns, and with frozen serzoo-small.
    """
    torch.manual_seed(0)
    audio, lengths = 0.1 * torch.randn(32, 48_000), torch.full((32,), 48_000)
    labels = torch.eye(len(TAXONOMY))[torch.arange(32) % len(TAXONOMY)]
    targets = Targets(labels, torch.ones(32))

    def step(encoder: SmallEncoder | LogMelEncoder, pooling: PoolingName) -> Callable[[], None]:
        hidden, mask = encoder.extract(audio, lengths)
        head = ClassificationHead(encoder.dim, TAXONOMY, pooling=pooling).train()
        encoder.train()

        def run() -> None:
            torch.manual_seed(0)  # the same augmentation, so the same shapes
            head.loss(encoder(hidden, mask), targets).loss.backward()

        return run

    return step(LogMelEncoder(), "attentive"), step(SmallEncoder(), "mean")


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


def training_step() -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step of SELM on 32 utterances: context, then label; and both in one pass.

    Pairs in another order than the utterances take the two passes.
    """
    torch.manual_seed(0)
    head = SELMHead(192, TAXONOMY).train()
    frames = Frames(torch.randn(32, 16, 192), torch.ones(32, 16, dtype=torch.bool))
    answers = head._classes(TAXONOMY)
    labels = torch.arange(32) % len(TAXONOMY)

    def step(order: torch.Tensor) -> None:
        audio, lead = head.audio_mapper(frames), head.text(head.views.categorical.prompts[0])
        log_p = head.language.log_likelihood(audio, answers.spelt, order, labels[order], lead)
        (-log_p.mean()).backward()

    ordered = torch.arange(32)
    return partial(step, ordered.flip(0)), partial(step, ordered)


def gpt2_sized(other: str) -> dict[str, Any]:
    """One utterance ranked in one pass by a random GPT-2 small, against another way, two threads.

    A prefix of 48 positions and 8 labels of 3 tokens; no two begin alike. ``passes``: a
    pass per label, which computes logits at the label's own positions only. ``beam``: an
    unconstrained beam search, 3 wide, over 8 new tokens.

    Raises:
        AssertionError: when the two rankings differ by 1e-5 or more.
    """
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    embed = model.get_input_embeddings()
    context = 0.02 * torch.randn(1, 48, 768)
    labels = torch.randperm(50_000)[:24].view(8, 3)

    @torch.inference_mode()
    def ranked() -> torch.Tensor:
        return tree.rank(model, embed, context, [(None, labels.tolist())])[0][0]

    @torch.inference_mode()
    def passes() -> torch.Tensor:
        found = []
        for ids in labels:
            read = torch.cat([context, embed(ids[None, :-1])], 1)
            log_p = model(inputs_embeds=read, logits_to_keep=3).logits[0].log_softmax(-1)
            found.append(log_p[range(3), ids].sum())
        return torch.stack(found)

    def beam() -> None:
        search(model, context, end=50_256, tokens=8, beams=3)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    gap = (ranked() - passes()).abs().max().item()
    assert gap < 1e-5, gap
    found = ratio(passes if other == "passes" else beam, ranked)
    torch.set_num_threads(threads)
    return found | {"largest_difference": gap}


def fits(steps: int = 100) -> tuple[Callable[[], None], Callable[[], None]]:
    """A fit of some steps and one validation, with its operations counted, and without."""
    torch.manual_seed(0)
    rows, mask = torch.randn(8, 1, 64, 64), torch.ones(8, 64, dtype=torch.bool)
    names, probs = [str(i) for i in range(8)], torch.eye(len(TAXONOMY))
    batch = Batch(names, names, Targets(probs, torch.ones(8)), hidden=rows, mask=mask)

    def fit(counted: bool) -> None:
        torch.manual_seed(0)  # the same augmentation, so the same shapes
        module = SERModule(LogMelEncoder(), ClassificationHead(192, TAXONOMY))
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            num_sanity_val_steps=0,
            callbacks=[CountFlops()] if counted else [],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        given: list[Any] = [batch] * steps
        trainer.fit(module, DataLoader(given, None), DataLoader(given[:4], None))

    return partial(fit, True), partial(fit, False)


def head_against_base(head: Any, encoder: LogMelEncoder) -> dict[str, float]:
    """Inference with a head against the classification head, encoder included."""
    base = head_inference(ClassificationHead(192, TAXONOMY), encoder)
    return ratio(head_inference(head(192, TAXONOMY), encoder), base)


def asked() -> tuple[str, str]:
    """Return the folder of the numbers and a part of the names of ratios; "" if not given."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", nargs="?", default="", help="where the numbers are written")
    parser.add_argument("only", nargs="?", default="", help="part of the names of the ratios")
    given = parser.parse_args()
    return given.folder, given.only


def main() -> None:
    torch.set_num_threads(1)
    folder, only = asked()
    encoder = LogMelEncoder()
    ratios: dict[str, Callable[[], dict[str, Any]]] = {
        "training step of the encoder: float32 / bfloat16": lambda: ratio(
            encoder_step(False), encoder_step(True)
        ),
        "evaluation: from audio / from stored features": lambda: ratio(*stored_against_live()),
        "encoding from audio: serzoo-small / log-mel": lambda: ratio(*serzoo_small()),
        "a training step: log-mel learns / serzoo-small is frozen": lambda: ratio(
            *steps_of_encoders()
        ),
        "SELM ranks 8 labels: a pass per label / shared prefix": lambda: ratio(*ranking()),
        "a training step of SELM: two passes / one pass": lambda: ratio(*training_step()),
        "SELM of GPT-2's size: 8 labels, a pass each / one pass": partial(gpt2_sized, "passes"),
        "SELM of GPT-2's size: beam 3 over 8 tokens / ranking": partial(gpt2_sized, "beam"),
        "inference: Gen-SER, 1 step / classification": partial(
            head_against_base, GenSERHead, encoder
        ),
        "a fit of 100 small steps: operations counted / not": lambda: ratio(*fits(), pairs=3),
        "inference: SELM / classification": partial(head_against_base, SELMHead, encoder),
    }
    measured = {name: measure() for name, measure in ratios.items() if only in name}
    for name, row in measured.items():
        print(
            f"{name:55} {row['ratio']:5.2f}  ({row['lowest']:.2f} to {row['highest']:.2f}; "
            f"{row['slow_ms']:.1f} ms / {row['fast_ms']:.1f} ms)"
        )
    if folder:
        path = Path(folder) / "ratios.json"
        known = json.loads(path.read_text("utf-8")) if only and path.is_file() else {}
        kept = {name: row for name, row in (known | measured).items() if name in ratios}
        write_json(path, {name: kept[name] for name in ratios if name in kept})
    if only:
        return
    found = {"encoding": encoding.measure()}
    encoding.show(found["encoding"])
    if os.environ.get("SERZOO_DATA"):
        found["stored"] = stored.measure()
        stored.show(found["stored"])
    else:
        print("training on stored features: not measured, since SERZOO_DATA is not set")
    for name, values in found.items() if folder else ():
        write_json(Path(folder) / f"{name}.json", values)


if __name__ == "__main__":
    main()
