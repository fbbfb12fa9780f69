"""What the configuration of a run stands for: its model, untrained, and its data, opened."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from ...datamodules.opening import open_data as open_corpora
from ...datamodules.protocols import PARTS, Protocol
from ..core import registry
from ..core.encoder import Encoder
from ..core.errors import ConfigError
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from .checkpoint import published_parts
from .config import RunConfig, build_taxonomy, load
from .module import SERModule
from .schema import OptimConfig
from .start import start_from
from .trained import refuse_seen

KINDS: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads"}
OPTIONS = ("lr", "head_lr", "mix_lr", "weight_decay", "warmup", "schedule", "mixup", "ema")
"""Of the module's constructor: those of ``optim`` that are not the trainer's."""


def build(
    cfg: RunConfig,
    taxonomy: Taxonomy,
    metadata: dict[str, Any] | None = None,
    *,
    encoder: Encoder | None = None,
    head: Head | None = None,
    kind: type[SERModule] = SERModule,
    **options: Any,
) -> SERModule:
    """The encoder, the head and their module.

    Both are built from the run's seed, each on its own, so that every head of a comparison starts
    from the very same encoder.

    Args:
        cfg: the run.
        taxonomy: the head's classes.
        metadata: of the module; how it is built, by default.
        encoder: instead of the configured one.
        head: the same.
        kind: class of the module.
        options: of its constructor, instead of the configured ones.
    """
    if encoder is None:
        own = {k: v for k, v in cfg.encoder.items() if k != "type"}
        torch.manual_seed(cfg.seed)
        encoder = registry.get("encoders", cfg.encoder["type"])(**own)
    if head is None:
        own = {k: v for k, v in cfg.head.items() if k != "type"}
        torch.manual_seed(cfg.seed + 1)
        head = registry.get("heads", cfg.head["type"])(encoder.dim, taxonomy, **own)
    how = {key: getattr(cfg.optim, key) for key in OPTIONS} | {"seed": cfg.seed}
    return kind(
        encoder, head, **{**how, "metadata": metadata or how_built(cfg, taxonomy), **options}
    )


def how_built(cfg: RunConfig, taxonomy: Taxonomy) -> dict[str, Any]:
    """What a checkpoint says of its model, so that it can be built again."""
    return {
        "config": cfg.to_dict(),
        "head": dict(cfg.head),
        "head_name": cfg.called,
        "taxonomy": taxonomy.to_dict(),
        "taxonomy_fingerprint": taxonomy.fingerprint,
    }


def described(module: SERModule) -> dict[str, Any]:
    """:func:`how_built` of a module that was put together in Python, by hand.

    Its parts are told by their registered names and the options that they were made with. ``own``
    tells of those that have no name: whoever loads the model has to build them.
    """
    own = {}
    nodes: dict[str, dict[str, Any]] = {}
    for part, kind in KINDS.items():
        made = getattr(module, part)
        name, knobs = registry.name_of(kind, made), registry.schema_of(type(made))
        options = {k: v for k, v in made.made_with[1].items() if k in knobs}
        try:
            if name is not None:
                registry.check_options(kind, name, options)
                nodes[part] = {"type": name, **registry.complete(kind, name, options)}
                continue
            own[part] = f"{type(made).__module__}.{type(made).__qualname__}"
        except ConfigError as error:  # objects, where a configuration has text and numbers
            own[part] = f"made with options that no configuration holds ({error})"
        nodes[part] = {"type": type(made).__name__}
    head, average = module.head, module.average
    how = {key: getattr(module, key) for key in OPTIONS if key != "ema"}
    optim = OptimConfig(**how, ema=average.decay if average is not None else 0.0)
    cfg = RunConfig(encoder=nodes["encoder"], head=nodes["head"], optim=optim, seed=module.seed)
    told = how_built(cfg, head.taxonomy) | ({"own": own} if own else {})
    arguments, keywords = head.made_with
    first = inspect.signature(type(head)).bind(*arguments, **keywords).arguments.get("taxonomy")
    if isinstance(first, Taxonomy) and first != head.taxonomy:  # it was widened
        told["widened_from"] = first.to_dict()
    return told


def assemble(cfg: RunConfig, data: Any, metadata: dict[str, Any]) -> SERModule:
    """The module of a run, untrained: its weights published, new, or those of ``init``.

    Args:
        cfg: the run.
        data: its data module.
        metadata: of the module; what the published parts are, and where weights come from, is
            added.

    Raises:
        DataError: when an encoder that was trained before has heard speakers that are tested.
    """
    metadata["speakers"] = data.speakers()
    metadata["weak_labels"] = data.weak
    module = build(cfg, data.taxonomy, metadata)
    unknown = cfg.data.unknown_speakers
    refuse_seen(module.encoder, metadata["speakers"], unknown)
    if cfg.init:
        metadata["origin"] = start_from(
            cfg.init, module, head=cfg.init_head, unknown_speakers=unknown
        )
    metadata["published"] = published_parts(module)
    return module


def build_run(recipe: str, overrides: Sequence[str] = ()) -> tuple[SERModule, Any]:
    """A recipe's module and data module, for a ``lightning.Trainer`` of one's own.

    They are what ``serzoo train`` fits: the same weights to begin with, folds and batches. How they
    are trained is the trainer's: of ``optim``, the keys ``epochs``, ``min_steps``, ``accumulate``
    and ``clip``, and all of ``trainer``, have an effect in ``serzoo train`` only.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, as on the command line.

    Returns:
        A :class:`SERModule` and a :class:`SpeechDataModule`.
    """
    cfg = load(recipe, overrides)
    data = open_data(cfg)
    return assemble(cfg, data, how_built(cfg, data.taxonomy)), data


def open_data(
    cfg: RunConfig,
    taxonomy: Taxonomy | None = None,
    *,
    text: bool | None = None,
    everything: bool = False,
) -> Any:
    """The run's data module: prepared, labelled, split and audited.

    Args:
        cfg: the run.
        taxonomy: instead of the configured one.
        text: whether batches carry transcripts; by default, where the configured head reads them.
        everything: no protocol: all utterances are the test part.
    """
    d = cfg.data
    if text is None:
        text = "text" in registry.get("heads", cfg.head["type"]).needs
    return open_corpora(
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


def audit_folds(cfg: RunConfig, folds: Sequence[int] | None = None) -> list[int]:
    """Open a run's data and audit each fold (all of the protocol's by default).

    Returns:
        The folds' numbers.

    Raises:
        DataError: naming the fold whose audit fails.
    """
    found: list[int] = []
    wanted = folds
    while wanted is None or len(found) < len(wanted):
        fold = len(found) if wanted is None else wanted[len(found)]
        module = open_data(
            cfg.corpus,
            protocol=cfg.protocol,
            fold=fold,
            taxonomy=build_taxonomy(cfg),
            root=cfg.data.root,
            manifest=cfg.data.manifest,
            options=cfg.data.options,
            label=cfg.data.label,
            weak=cfg.data.weak,
            unknown_speakers=cfg.data.unknown_speakers,
        )
        found.append(fold)
        if wanted is None:
            used = [u for part in PARTS for u in getattr(module.split, part)]
            wanted = list(range(Protocol.load(str(cfg.protocol)).n_folds(used)))
    return found
