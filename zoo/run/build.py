"""Build a run from its configuration: the untrained model, and the opened data."""

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
from .config import build_taxonomy, load
from .module import SERModule
from .schema import RunConfig
from .start import start_from
from .trained import refuse_seen


def build(
    cfg: RunConfig, taxonomy: Taxonomy, metadata: dict[str, Any] | None = None, **made: Any
) -> SERModule:
    """Build encoder, head and their module; see :func:`.checkpoint.construct`."""
    return construct(cfg, taxonomy, metadata, kind=SERModule, **made)


def assemble(cfg: RunConfig, data: Any, metadata: dict[str, Any]) -> SERModule:
    """Build a run's module before training. Its weights are published, new, or those of ``init``.

    Args:
        cfg: the run.
        data: its data module.
        metadata: metadata of the module, to which speakers, published parts and the origin of the
            weights are added.

    Raises:
        DataError: if an encoder that was trained before has heard speakers that are tested.
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
    """Build a recipe's module and data module, for your own ``lightning.Trainer``.

    ``serzoo train`` fits the same two: the same initial weights, folds and batches. Your trainer
    decides how they are trained. So ``trainer``, and the keys ``epochs``, ``min_steps``,
    ``accumulate`` and ``clip`` of ``optim``, have an effect only in ``serzoo train``.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, as on the command line. They may set keys of
            the parts below, too (``head.width=8``).
        head: your own class, or a value of ``head=``; None = the recipe's.
        encoder: your own class, or a value of ``encoder=``; None = the recipe's.
        corpus: your own reader function, or a value of ``corpus=``; None = the recipe's.

    Returns:
        A :class:`SERModule` and a :class:`SpeechDataModule`.

    Raises:
        ConfigError: if a key, name or value is wrong.
        DataError: if the data cannot be used.
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
    refit: bool = False,
) -> Any:
    """Open a run's data module: prepared, labelled, split and audited.

    Args:
        cfg: the run.
        taxonomy: used instead of the configured one.
        text: whether batches carry transcripts; by default, if the configured head reads them.
        everything: make all utterances the test part, without a protocol.
        refit: train on the training and validation parts together.

    Raises:
        DataError: if the data cannot be used, or the audit fails.
    """
    d = cfg.data
    if text is None:
        text = "text" in registry.get("heads", cfg.head["type"]).trains_on(cfg.head)
    return _opened(
        cfg,
        taxonomy or build_taxonomy(cfg),
        protocol=None if everything else cfg.protocol,
        fold=cfg.fold,
        progress=cfg.trainer.progress,
        batch_size=d.batch_size,
        batch_seconds=d.batch_seconds,
        max_seconds=d.max_seconds,
        balance=d.balance,
        train_share=d.train_share,
        weak_weight=d.weak_weight,
        targets=d.targets,
        weak_shuffle=d.weak_shuffle,
        copies=0 if everything else d.corrupted_copies,
        workers=d.workers,
        seed=cfg.seed,
        text=text,
        refit=refit,
    )


def _opened(cfg: RunConfig, taxonomy: Taxonomy | None, **more: Any) -> Any:
    """Open the corpora of a run with what decides about the utterances of a fold.

    The audit of folds gives no more. It looks at whole parts, so it draws no share of the training
    part. It looks at the labels as they are, so it shuffles none.
    """
    d = cfg.data
    return opening.open_data(
        cfg.corpus,
        taxonomy=taxonomy,
        root=d.root,
        manifest=d.manifest,
        options=d.options,
        label=d.label,
        weak=d.weak,
        unknown_speakers=d.unknown_speakers,
        **more,
    )


def data_hashes(data: Any) -> dict[str, str]:
    """Return the hashes of an opened data module that tell whether two runs had the same data."""
    return {
        "manifest": data.speech.sha,
        "split": data.split.fingerprint(),
        "taxonomy": data.taxonomy.fingerprint,
    }


def audit_folds(cfg: RunConfig, folds: Sequence[int] | None = None) -> list[int]:
    """Open a run's data and audit each fold; by default all folds of the protocol.

    Returns:
        Numbers of the folds.

    Raises:
        DataError: if the audit of a fold fails. It names the fold.
    """
    found: list[int] = []
    wanted = folds
    while wanted is None or len(found) < len(wanted):
        fold = len(found) if wanted is None else wanted[len(found)]
        module = _opened(cfg, build_taxonomy(cfg), protocol=cfg.protocol, fold=fold)
        found.append(fold)
        if wanted is None:
            used = [u for part in PARTS for u in getattr(module.split, part)]
            wanted = list(range(Protocol.load(str(cfg.protocol)).n_folds(used)))
    return found
