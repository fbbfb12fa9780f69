"""A run that starts from the weights of another: pre-training, then fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from ..core.hub import weights_digest
from ..core.speakers import REFUSE
from ..core.weights import check_published, published_parts, strip_frozen
from .trained import read_trained, refuse_heard

if TYPE_CHECKING:
    from .module import SERModule


def start_from(
    folder: str, module: SERModule, *, head: bool = False, unknown_speakers: str = REFUSE
) -> dict[str, Any]:
    """Give a module the encoder of a finished run, to be trained further.

    All that the run trained of its encoder is taken over: all weights, adapters, the mix of layers.
    What it left as published has to be the same here. The head is new, unless asked for. A
    checkpoint holds what it trained, so nothing is needed of the other run from then on.

    Args:
        folder: folder of a finished ``serzoo train``, or one that ``serzoo save`` wrote.
        module: built, not yet trained; its metadata holds the speakers of its parts.
        head: take the head over, too.
        unknown_speakers: ``refuse`` if some speakers of the other run are unknown, or ``accept``.

    Returns:
        Where the weights come from, for records and checkpoints.

    Raises:
        ConfigError: when there is no finished run, or its encoder (or head, or its classes) is
            another than the module's.
        DataError: when the other run was trained or selected on speakers that this one validates
            or tests on.
    """
    source = read_trained(folder, "init")
    meta = source.metadata
    refuse_heard(
        f"the run in {folder} (init)",
        meta.get("speakers"),
        module.metadata["speakers"],
        unknown_speakers,
    )
    parts = published_parts(source)
    if "encoder" in parts:
        mine = published_parts(module)
        check_published({"encoder": parts["encoder"]}, mine, f"the run in {folder} (init)")
    take(f"init={folder}", "encoder", source.encoder, module.encoder, meta["config"]["encoder"])
    if head:
        here, there = module.head.taxonomy.fingerprint, source.head.taxonomy.fingerprint
        if here != there:
            raise ConfigError(
                f"init_head: the run in {folder} has the classes "
                f"{', '.join(source.head.taxonomy.classes)}, this one "
                f"{', '.join(module.head.taxonomy.classes)}; leave init_head out for a new head"
            )
        take(f"init={folder}", "head", source.head, module.head, meta["config"]["head"])
    return {
        "run": meta.get("fingerprint"),
        "folder": Path(folder).name,
        "weights": weights_digest(source.encoder),
        "head": head,
        "corpora": list(meta["config"]["corpus"]),
        "classes": source.head.taxonomy.classes,
        "trained_head": meta.get("head_name"),
        "weak_labels": meta.get("weak_labels") or {},
        "weak_shuffle": meta["config"]["data"].get("weak_shuffle"),
        "origin": meta.get("origin"),
    }


def take(what: str, part: str, source: Any, own: Any, options: dict[str, Any]) -> None:
    """Copy what the source trained into the same part of another model."""
    trained = strip_frozen(source.state_dict(), _frozen(source))
    here = strip_frozen(own.state_dict(), _frozen(own))
    problems = [k for k, v in trained.items() if k not in here or here[k].shape != v.shape]
    # adapters may be new: on published weights they start without effect
    fresh = [k for k in here if k not in trained and ".lora_" not in k]
    # parts that the other left as published start as published
    published = _frozen(source)
    fresh = [k for k in fresh if k not in published]
    if problems or fresh:
        text = ", ".join(f"{k}={v}" for k, v in options.items())
        name = (problems or fresh)[0]
        raise ConfigError(
            f"{what}: its {part} does not fit this run's ({len(problems) + len(fresh)} "
            f"weights differ; first: {name}); it was trained with {text}: set the same {part}"
        )
    own.load_state_dict({k: v.clone() for k, v in trained.items()}, strict=False)


def _frozen(part: Any) -> frozenset[str]:
    """Entries of a part's state dict that are rebuilt from a name."""
    if hasattr(part, "frozen_keys"):
        return frozenset(part.frozen_keys())
    roots = tuple(f"{name}." for name in part.frozen_roots())
    return frozenset(k for k in part.state_dict() if roots and k.startswith(roots))
