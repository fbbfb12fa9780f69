"""What the configuration of a run stands for: its model, untrained, and its data, opened."""

from __future__ import annotations

from typing import Any

import torch

from .. import registry
from ..config import RunConfig, build_taxonomy
from ..module import SERModule
from ..taxonomy import Taxonomy

OPEN_DATA = "serzoo.datamodules.opening:open_data"


def build(cfg: RunConfig, taxonomy: Taxonomy, metadata: dict[str, Any] | None = None) -> SERModule:
    """The encoder, the head and their module.

    Both are built from the run's seed, each on its own, so that every head of a comparison starts
    from the very same encoder.
    """
    options = {k: v for k, v in cfg.encoder.items() if k != "type"}
    torch.manual_seed(cfg.seed)
    encoder = registry.get("encoders", cfg.encoder["type"])(**options)
    options = {k: v for k, v in cfg.head.items() if k != "type"}
    torch.manual_seed(cfg.seed + 1)
    head = registry.get("heads", cfg.head["type"])(encoder.dim, taxonomy, **options)
    return SERModule(
        encoder,
        head,
        lr=cfg.optim.lr,
        head_lr=cfg.optim.head_lr,
        mix_lr=cfg.optim.mix_lr,
        weight_decay=cfg.optim.weight_decay,
        warmup=cfg.optim.warmup,
        schedule=cfg.optim.schedule,  # type: ignore[arg-type]  # check_ranges has seen to it
        mixup=cfg.optim.mixup,
        ema=cfg.optim.ema,
        seed=cfg.seed,
        metadata=metadata or {"head": dict(cfg.head), "head_name": cfg.called},
    )


def open_data(
    cfg: RunConfig,
    taxonomy: Taxonomy | None = None,
    *,
    text: bool = False,
    everything: bool = False,
) -> Any:
    """The run's data module: prepared, labelled, split and audited.

    Args:
        cfg: the run.
        taxonomy: instead of the configured one.
        text: whether batches carry transcripts.
        everything: no protocol: all utterances are the test part.
    """
    d = cfg.data
    return registry.attribute(OPEN_DATA)(
        cfg.corpus,
        protocol=None if everything else cfg.protocol,
        fold=cfg.fold,
        taxonomy=taxonomy or build_taxonomy(cfg),
        root=d.root,
        manifest=d.manifest,
        options=d.options,
        label=d.label,
        progress=cfg.trainer.progress,
        batch_size=d.batch_size,
        batch_seconds=d.batch_seconds,
        max_seconds=d.max_seconds,
        balance=d.balance,
        train_share=d.train_share,
        weak=d.weak,
        weak_weight=d.weak_weight,
        weak_shuffle=d.weak_shuffle,
        unknown_speakers=d.unknown_speakers,
        workers=d.workers,
        seed=cfg.seed,
        text=text,
    )
