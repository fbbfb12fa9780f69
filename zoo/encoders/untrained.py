"""The same encoder before anybody trained it: what a trained one is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .. import checkpoint, registry
from ..encoder import Encoder
from ..errors import ConfigError
from .backbone import HFEncoder
from .pretrained import weights_digest
from .trained import TrainedEncoder


def untrained(encoder: Encoder, options: Mapping[str, Any], seed: int = 1) -> Encoder:
    """An encoder of the same shape with the weights that it would start from.

    One that is trained from scratch is built again from the run's seed. A published one keeps its
    architecture, kept layers and normalisation, and its weights are drawn as ``transformers``
    draws them for a new model; adapters have no effect, layers are mixed equally.

    Args:
        encoder: as it was trained; not changed.
        options: of it, as a run's configuration holds them, ``type`` among them.
        seed: of the weights.

    Raises:
        ConfigError: when it stands on published weights in a way that is not known here.
    """
    if isinstance(encoder, TrainedEncoder):
        run = checkpoint.load(encoder.name)
        config = run.metadata["config"]
        return untrained(run.encoder, config["encoder"], config["seed"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = options["type"]
        fresh: Encoder = registry.get("encoders", kind)(
            **{k: v for k, v in options.items() if k != "type"}
        )
        if isinstance(fresh, HFEncoder):
            torch.manual_seed(seed)  # adapters, where there are any, drew before
            _draw(fresh)
        elif fresh.frozen_keys():
            raise ConfigError(
                f"encoder '{kind}' stands on weights that others trained, and how they would be "
                "drawn anew is not known; name another model with --against, or --against none"
            )
    return fresh.eval()


@torch.no_grad()
def _draw(encoder: HFEncoder) -> None:
    """New weights for a published encoder, in place."""
    backbone: Any = encoder.backbone
    new = type(backbone)(backbone.config).state_dict()
    own = backbone.state_dict()
    # as peft calls what it wraps; blocks above the deepest kept layer are gone
    plain = {key: key.replace(".base_layer.", ".") for key in own if ".lora_" not in key}
    if lacking := [key for key, name in plain.items() if name not in new]:
        raise ConfigError(
            f"the weights of '{encoder.name}' cannot be drawn anew: a new {type(backbone).__name__}"
            f" has no {lacking[0]}; name another model with --against, or --against none"
        )
    backbone.load_state_dict({key: new[name] for key, name in plain.items()}, strict=False)
    encoder.source["weights"] = weights_digest(backbone)  # stored features are kept under it
