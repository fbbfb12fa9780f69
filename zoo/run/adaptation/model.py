"""A trained model made ready for another tuning: what can be tuned, and what is put on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...core import registry
from ...core.errors import CheckpointError, ConfigError
from ...core.taxonomy import Taxonomy
from ...core.weights import strip_frozen
from ...encoders.hf import Lora
from .. import checkpoint, config
from ..config import RunConfig
from ..module import SERModule

TUNINGS = ("lora", "head", "full", "scratch")
BACKBONE = "encoder.backbone."


def obstacles(node: Mapping[str, Any], trainable: bool = True) -> dict[str, str]:
    """Each tuning to why an encoder cannot be tuned so; "" where it can.

    Args:
        node: the encoder's configuration.
        trainable: whether anything in it can be trained, where it is no published one.
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
            f"adapters stand on published weights, and this encoder was tuned (encoder.tuning="
            f"{tuned}), so that they would not fit the published model"
        )
    if kind == "hf" and tuned == "lora":
        full = "this encoder has adapters, which are tuned instead (tuning=lora)"
    elif kind == "trained" or (kind != "hf" and not trainable):
        full = f"the encoder '{kind}' is fixed and has nothing to train"
    return {"lora": lora, "head": "", "full": full, "scratch": ""}


def refuse(tuning: str, reasons: Mapping[str, str]) -> None:
    """Refuse a tuning that is unknown or not possible.

    Raises:
        ConfigError: saying what is.
    """
    if tuning not in TUNINGS:
        raise ConfigError(f"tuning is '{tuning}'; have {', '.join(TUNINGS)}")
    if why := reasons[tuning]:
        able = ", ".join(t for t, reason in reasons.items() if not reason)
        raise ConfigError(f"tuning={tuning} is not possible: {why}; possible here: {able}")


def chosen(module: SERModule, tuning: str | None) -> str:
    """The tuning asked for, or by default ``lora`` where it is possible, else ``head``.

    Raises:
        ConfigError: when it is unknown or not possible, saying what is.
    """
    node = RunConfig.from_dict(module.metadata["config"]).encoder
    reasons = obstacles(node, any(p.requires_grad for p in module.encoder.parameters()))
    if tuning is None:
        return "head" if reasons["lora"] else "lora"
    refuse(tuning, reasons)
    return tuning


def encoder_of(node: dict[str, Any], tuning: str, lora: Lora) -> dict[str, Any]:
    """The encoder's configuration under a tuning."""
    if node["type"] != "hf" or tuning not in ("lora", "full"):
        return dict(node)
    if node["tuning"] != "frozen":  # what was trained is trained on
        return dict(node)
    new = {**node, "tuning": tuning, "dtype": "float32"}
    if tuning == "lora":
        fields = ("rank", "alpha", "dropout", "targets", "dora", "rslora")
        new |= {f"lora_{k}": getattr(lora, k) for k in fields}
    return new


def ready(module: SERModule, cfg: RunConfig, taxonomy: Taxonomy, path: Any) -> SERModule:
    """The trained model with the encoder of ``cfg`` and a head over ``taxonomy``.

    Args:
        module: as trained; it is changed where its encoder stays as it is.
        cfg: of the adapted model.
        taxonomy: begins with the trained one.
        path: where the model was found, for messages.

    Raises:
        CheckpointError: when its weights do not fit.
    """
    if cfg.encoder != RunConfig.from_dict(module.metadata["config"]).encoder:
        had = strip_frozen(module.state_dict(), module.frozen_keys())
        made = checkpoint.rebuild(
            {**module.metadata, "config": cfg.to_dict()}, path, kind=type(module)
        )
        own = strip_frozen(made.state_dict(), made.frozen_keys())
        strange = [k for k in own.keys() ^ had.keys() if not (k in own and k.startswith(BACKBONE))]
        if strange:
            raise CheckpointError(
                f"{path}: {len(strange)} weights do not fit the adapted model ({strange[0]})"
            )
        made.load_state_dict(had, strict=False)
        module = made
    module.head.widen(taxonomy)
    return module


def new_head(name: str) -> dict[str, Any]:
    """The complete configuration of a head by its name."""
    node = config.read_group("head", name)
    kind = node.pop("type")
    return {"type": kind, **registry.complete("heads", kind, node)}


def from_scratch(
    module: SERModule, node: dict[str, Any], taxonomy: Taxonomy, seed: int
) -> SERModule:
    """The model with a new head on its encoder.

    Args:
        module: whose head goes.
        node: the new head's configuration.
        taxonomy: its classes.
        seed: of its weights.
    """
    options = {k: v for k, v in node.items() if k != "type"}
    torch.manual_seed(seed)
    head = registry.get("heads", node["type"])(module.encoder.dim, taxonomy, **options)
    return SERModule(module.encoder, head, metadata=module.metadata).eval()
