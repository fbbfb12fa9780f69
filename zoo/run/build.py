"""What the configuration of a run describes: its model, untrained, and its data, opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...datamodules import opening
from ...datamodules.protocols import PARTS, Protocol
from ..core import own, registry
from ..core.encoder import Encoder
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from ..core.weights import published_parts
from .checkpoint import construct, how_built
from .config import RunConfig, build_taxonomy, load
from .module import SERModule
from .start import start_from
from .trained import refuse_seen


def build(
    cfg: RunConfig, taxonomy: Taxonomy, metadata: dict[str, Any] | None = None, **made: Any
) -> SERModule:
    """The encoder, the head and their module; see :func:`.checkpoint.construct`."""
    return construct(cfg, taxonomy, metadata, kind=SERModule, **made)


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


def build_run(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    head: type[Head] | str | None = None,
    encoder: type[Encoder] | str | None = None,
    corpus: Callable[..., Any] | str | None = None,
) -> tuple[SERModule, Any]:
    """A recipe's module and data module, for a ``lightning.Trainer`` of one's own.

    They are what ``serzoo train`` fits: the same weights to begin with, folds and batches. How they
    are trained is the trainer's: of ``optim``, the keys ``epochs``, ``min_steps``, ``accumulate``
    and ``clip``, and all of ``trainer``, have an effect in ``serzoo train`` only.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, as on the command line; they
            hold for the other arguments, too (``head.width=8``).
        head: a class of your own, or what ``head=`` takes; None = the recipe's.
        encoder: the same for the encoder.
        corpus: a reader function of your own, or what ``corpus=`` takes; None = the recipe's.

    Returns:
        A :class:`SERModule` and a :class:`SpeechDataModule`.
    """
    given: tuple[tuple[str, registry.Kind, Any], ...] = (
        ("encoder", "encoders", encoder), ("head", "heads", head), ("corpus", "corpora", corpus),
    )  # fmt: skip
    picked = [f"{key}={own.name_for(kind, part)}" for key, kind, part in given if part is not None]
    cfg = load(recipe, [*picked, *overrides])
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
    return opening.open_data(
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
        module = opening.open_data(
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
