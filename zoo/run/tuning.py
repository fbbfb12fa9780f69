"""Tune a trained model on a few utterances: the options, the possible tunings, the steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias, get_type_hints

import lightning as L
import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.utils.data import DataLoader

from ...datamodules.dataset import SpeechDataset
from ...datamodules.fewshot import PER, check_shots
from ..core import registry
from ..core.errors import ConfigError
from ..core.types import Frames
from . import config, devices
from .checkpoint import OPTIONS
from .module import SERModule
from .schema import (
    Flag,
    FromOne,
    NotNegative,
    OptimConfig,
    Positive,
    Seed,
    Share,
    one_of,
)
from .spent import CountFlops

TUNINGS = ("lora", "head", "full", "scratch")
RATES = {"lora": 2e-4, "full": 2e-5}
"""Peak rates of a published encoder, as in configs/optim; nothing was searched for."""

RATE_OF_OTHERS = 3e-4
"""Learning rate of an encoder that was trained from scratch: about a third of its rate there.

This is our choice. It was measured from EMO-DB to fold 3 of RAVDESS, with a draw each of 4, 16 and
64 shots. At
1e-4 the larger supports gained less. At 1e-3 the smallest gained less, and more was forgotten.
"""


def _shots(n: int) -> int:
    check_shots(n)
    return n


Shots: TypeAlias = Annotated[int, Field(strict=True), AfterValidator(_shots)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an adaptation that a suite has once; :func:`.schema.read_as` checks them."""

    steps: FromOne = 60  # of the optimiser, for any number of shots
    batch_size: FromOne = 16  # most utterances in a step
    # peak rate of the encoder; None = RATES, or RATE_OF_OTHERS
    lr: Positive | None = None
    head_lr: Positive = 1e-3  # peak rate of the head, and of a learned mix of layers
    weight_decay: NotNegative = 1e-2  # of matrices; biases and norms do not decay
    warmup: Share = 0.1  # share of the steps in which the rate rises; then half a cosine to zero
    clip: NotNegative = 1.0  # largest norm of the gradient; 0 = no limit
    scratch_head: str = "classification"  # configuration of the head that scratch trains
    lora_rank: FromOne = 8  # of new adapters; a model that has adapters keeps its own
    lora_alpha: Annotated[float, Field(strict=True)] = 16.0  # of new adapters
    forgetting: Flag = True  # score the source's test part before and after
    save: Flag = True  # keep the adapted model
    # class: shots are of each class, by training speakers. speaker: shots are of each class of each
    # tested speaker, and the query is the rest (personalisation)
    per: Annotated[str, one_of(*PER)] = "class"


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """All settings of an adaptation; :func:`.schema.read_as` checks them."""

    shots: Shots = 4  # utterances of each class, from 0 (the model is only scored) to 64
    draw: Seed = 1  # seed of the support, and of everything random in the adaptation
    # lora (adapters in the encoder, and the head), head (alone), full (both), scratch (a new head,
    # the same encoder); None = lora if it is possible, else head
    tuning: str | None = None

    def optim(self, had: OptimConfig, tuning: str, encoder: str) -> OptimConfig:
        """Return these options as the group ``optim`` of a run's configuration.

        Args:
            had: the group of the source's run; keys without effect here stay as they are.
            tuning: what is tuned.
            encoder: registered name of the encoder.
        """
        published = RATES.get(tuning) if encoder == "hf" else None
        own = {k: getattr(self, k) for k in ("head_lr", "weight_decay", "warmup", "clip")}
        own |= {"lr": self.lr or published or RATE_OF_OTHERS, "mix_lr": self.head_lr}
        return OptimConfig(**{**asdict(had), **own, "schedule": "cosine", "mixup": 0.0, "ema": 0.0})


def option_types() -> dict[str, Any]:
    """Return the types of all fields of :class:`Options`, by name."""
    return get_type_hints(Options)


def obstacles(node: Mapping[str, Any], trainable: bool = True) -> dict[str, str]:
    """Return for each tuning why an encoder does not allow it; "" if it does.

    Args:
        node: the encoder's configuration.
        trainable: whether an encoder that is not published has weights to train.
    """
    kind, tuned = node["type"], node.get("tuning")
    lora = full = ""
    if kind != "hf":
        lora = (
            f"it puts adapters into the blocks of a published transformer, and the encoder "
            f"'{kind}' has none"
        )
    elif tuned in ("full", "last_k"):
        lora = (
            f"adapters need published weights, and this encoder was tuned (encoder.tuning="
            f"{tuned}), so that they would not fit the published model"
        )
    if kind == "hf" and tuned == "lora":
        full = "this encoder has adapters, which are tuned instead (tuning=lora)"
    elif kind == "trained" or (kind != "hf" and not trainable):
        full = f"the encoder '{kind}' is fixed and has nothing to train"
    return {"lora": lora, "head": "", "full": full, "scratch": ""}


def refuse(tuning: str, reasons: Mapping[str, str]) -> None:
    """Refuse a tuning that is unknown or not possible.

    Args:
        tuning: name of the tuning.
        reasons: what :func:`obstacles` returned.

    Raises:
        ConfigError: if it is refused. It names the possible ones.
    """
    if tuning not in TUNINGS:
        raise ConfigError(f"tuning is '{tuning}'; have {', '.join(TUNINGS)}")
    if why := reasons[tuning]:
        able = ", ".join(t for t, reason in reasons.items() if not reason)
        raise ConfigError(f"tuning={tuning} is not possible: {why}; possible here: {able}")


def new_head(name: str) -> dict[str, Any]:
    """Return the complete configuration of a head by its name."""
    node = config.read_group("head", name)
    kind = node.pop("type")
    return {"type": kind, **registry.complete("heads", kind, node)}


class Adapting(SERModule):
    """The module that is trained on a support: a fixed number of steps, without validation.

    The encoder stays in evaluation mode (our choice). So it keeps the running statistics of the
    source, since a few utterances give poor ones. Nothing is dropped or augmented in it. For the
    same reason, pooled frames are standardised as in the source, or not at all.

    Attributes:
        encoded: whether batches already hold the encoder's frames.
        losses: the loss of each step.
    """

    def __init__(self, *parts: Any, encoded: bool, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.encoded = encoded
        self.losses: list[float] = []

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.head.train()
        self.encoder.eval()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        torch.manual_seed(self.seed)

    def _frames(self, hidden: Tensor, mask: Tensor, utterance: Tensor | None) -> Frames:
        if self.encoded:
            return Frames(hidden[:, 0], mask, utterance)
        return super()._frames(hidden, mask, utterance)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        # the norm's last digit depends on the order of weights, which the optimiser changes
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, *rest: Any) -> None:
        super().on_train_batch_end(outputs, *rest)
        self.losses.append(float(outputs["loss"]))


class _EncodedSupport:
    """A support's frames in memory, used like a feature store; each utterance is encoded alone."""

    def __init__(self, module: SERModule, support: SpeechDataset) -> None:
        self.frames: dict[str, Tensor] = {}
        vectors: list[Tensor] = []
        device = next(module.parameters()).device
        for row, utterance in enumerate(support.utterances):
            with torch.no_grad():
                found = module.frames(support[[row]].to(device))
            self.frames[utterance.id] = found.x[0][found.mask[0]][None].cpu()
            if found.utterance is not None:
                vectors.append(found.utterance[0].cpu())
        self.vectors = torch.stack(vectors) if vectors else None

    def row(self, utterance: Any) -> str:
        return str(utterance.id)

    def read(self, row: str) -> Tensor:
        return self.frames[row]


def batches(n: int, size: int, steps: int, seed: int) -> list[list[int]]:
    """Return the rows of each step: all ``n`` in ever new orders, in batches of equal size.

    Args:
        n: number of rows.
        size: most rows in a batch.
        steps: number of batches.
        seed: seed of the orders.
    """
    order = torch.Generator().manual_seed(seed)
    size = -(-n // -(-n // size))  # avoids a small last batch
    found: list[list[int]] = []
    while len(found) < steps:
        parts = torch.split(torch.randperm(n, generator=order), size)
        found += [sorted(part.tolist()) for part in parts]
    return found[:steps]


def fit(
    module: SERModule,
    support: SpeechDataset,
    columns: Sequence[int],
    wanted: Options,
    optim: OptimConfig,
    *,
    encoder: bool,
    counted: CountFlops | None = None,
) -> list[float]:
    """Train the head, and the encoder if asked, for a number of steps.

    An encoder that is not trained encodes each utterance once.

    Args:
        module: on its device and in evaluation mode; both stay so.
        support: a dataset of the target's utterances, over the target's classes.
        columns: positions of these classes in the head's taxonomy.
        wanted: number and size of the steps, and their seed.
        optim: learning rates, schedule and clipping.
        encoder: whether the encoder's trainable weights are trained.
        counted: counts the operations of a step.

    Returns:
        The loss of each step.
    """
    device, where = next(module.parameters()).device, torch.tensor(list(columns))
    wide = copy.copy(support)
    wide.n_classes, wide.classes = len(module.head.taxonomy), where[support.classes]
    wide.weights = torch.zeros(wide.n_classes).index_copy(0, where, support.weights)
    if not encoder:
        module.encoder.requires_grad_(False)
        store: Any = _EncodedSupport(module, support)
        wide.use(store)
        wide.utterance = store.vectors
    rows: Any = batches(len(wide), wanted.batch_size, wanted.steps, wanted.draw)
    # batch_size=None passes lists of rows on; with its own generator, the loader does not change
    # the head's random numbers
    loader = DataLoader(wide, sampler=rows, batch_size=None, generator=torch.Generator())
    how = {key: getattr(optim, key) for key in OPTIONS}
    how |= {"seed": wanted.draw, "standardise": False}  # a support is too small to measure frames
    learner = Adapting(module.encoder, module.head, **how, encoded=not encoder)
    if encoder:  # otherwise the frames are normalised already
        learner.normaliser = module.normaliser
    learner.to(device).standardise_by(lambda: [wide[list(range(len(wide)))]])  # of a new head
    trainer = L.Trainer(
        accelerator=device.type,
        devices=1,
        plugins=devices.plugins(),
        max_epochs=1,  # one epoch has all steps
        gradient_clip_val=optim.clip or None,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[] if counted is None else [counted],
    )
    trainer.fit(learner, loader)
    module.to(device).eval()  # Lightning leaves it on the CPU
    return learner.losses
