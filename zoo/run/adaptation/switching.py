"""Several adaptations on one model in memory, of which one answers at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ...core import registry
from ...core.errors import CheckpointError, ConfigError, suggest
from ...core.head import Head
from ...core.taxonomy import Taxonomy
from ...core.weights import check_keys
from .. import published
from ..module import SERModule
from ..published import ADAPTER, WEIGHTS, read_weights

OWN = ("tuning", "dtype")  # and lora_*: what an adaptation's encoder may differ in from its base


class Adaptations:
    """A trained model and adaptations of it, switched without loading anything again.

    The published encoder is in memory once. Each adaptation brings its adapters, in peft's own
    layers, its head, and what else of the encoder it changed (a mix of layers, or the weights of
    an encoder that was trained from scratch). A head that stands on a published language model
    brings that, too.

    >>> held = Adaptations("runs/emodb")                      # doctest: +SKIP
    >>> held.add("polish", "runs/adapted/nemo/...")           # doctest: +SKIP
    >>> held.use("polish").predict(["speech.wav"])            # doctest: +SKIP

    Args:
        base: the model that all were adapted from, or where it lies.
    """

    def __init__(self, base: SERModule | str | Path) -> None:
        self.module = base if isinstance(base, SERModule) else SERModule.load_from_checkpoint(base)
        self.module.eval()
        encoder: Any = self.module.encoder
        self._backbone: nn.Module | None = getattr(encoder, "backbone", None)
        own = "default" if getattr(encoder, "adapters", None) is not None else None
        weights = {k: v.detach().clone() for k, v in self._movable().items()}
        told = (self.module.metadata, self.module.temperature)
        self._held: dict[str | None, _Held] = {None: _Held(self.module.head, weights, own, *told)}
        self.active: str | None = None

    @property
    def names(self) -> list[str]:
        """Of the adaptations that are held, in the order added."""
        return [name for name in self._held if name is not None]

    def add(self, name: str, folder: str | Path) -> None:
        """Take in an adaptation that ``serzoo adapt`` saved; the active one stays.

        Raises:
            ConfigError: when the name is taken.
            CheckpointError: when the folder is no adaptation of this model.
        """
        if name in self._held:
            raise ConfigError(f"an adaptation '{name}' is held already; have {self.names}")
        folder = Path(folder)
        told = published.read(folder)
        self._check(told, folder)
        rest = read_weights(folder / WEIGHTS)
        head = _head(self.module.encoder.dim, told, rest, folder)
        weights = {k: v for k, v in rest.items() if not k.startswith("head.")}
        if strange := sorted(set(weights) ^ set(self._movable())):
            raise CheckpointError(
                f"{folder} and its base differ in {len(strange)} weights of the encoder "
                f"({strange[0]}); load it by itself with serzoo.zoo.load"
            )
        adapter = None
        if (folder / ADAPTER).is_file():
            adapter = f"held{len(self._held)}"
            self._put(adapter, folder)
        device = next(self.module.parameters()).device
        meta = {k: told.get(k) for k in ("taxonomy", "fingerprint", "adapted", "speakers", "head")}
        meta |= {"config": {**told["training"], "encoder": told["encoder"], "head": told["head"]}}
        meta["taxonomy_fingerprint"] = told["taxonomy_fingerprint"]
        self._held[name] = _Held(head.to(device).eval(), weights, adapter, meta, None)
        self.use(self.active)

    def use(self, name: str | None) -> SERModule:
        """Have an adaptation answer; None = the model as it was before.

        Returns:
            The module, which is the same object for all.

        Raises:
            ConfigError: when no adaptation of this name is held.
        """
        if name not in self._held:
            raise ConfigError(f"no adaptation '{name}' is held{suggest(str(name), self.names)}")
        held, module = self._held[name], self.module
        module.head, module._frozen = held.head, None
        module.metadata, module.temperature = held.metadata, held.temperature
        with torch.no_grad():
            for key, value in self._movable().items():
                value.copy_(held.weights[key])
        for layer in self._layers():
            layer.enable_adapters(held.adapter is not None)
            if held.adapter is not None:
                layer.set_adapter(held.adapter)
        module.requires_grad_(False)
        self.active = name
        return module.eval()

    def _layers(self) -> list[BaseTunerLayer]:
        found = self._backbone.modules() if self._backbone is not None else ()
        return [m for m in found if isinstance(m, BaseTunerLayer)]

    def _movable(self) -> dict[str, Tensor]:
        """What a folder holds of the encoder besides adapters."""
        state = {f"encoder.{k}": v for k, v in self.module.encoder.state_dict().items()}
        frozen = self.module.encoder.frozen_keys()
        kept = {k: v for k, v in state.items() if k.removeprefix("encoder.") not in frozen}
        # adapters of any name stay where they are, and so do the weights under them
        return {k: v for k, v in kept.items() if ".lora_" not in k}

    def _put(self, adapter: str, folder: Path) -> None:
        backbone: Any = self._backbone
        config = LoraConfig.from_pretrained(str(folder / published.ADAPTER_FOLDER))
        inject_adapter_in_model(config, backbone, adapter_name=adapter)
        stem = "base_model.model."
        state = {k.removeprefix(stem): v for k, v in read_weights(folder / ADAPTER).items()}
        told: Any = set_peft_model_state_dict(backbone, state, adapter_name=adapter)
        lost = [k for k in told.missing_keys if f".{adapter}" in k]
        if lost or told.unexpected_keys:
            raise CheckpointError(
                f"{folder / ADAPTER} does not fit its base ({[*lost, *told.unexpected_keys][0]}); "
                "save it again"
            )

    def _check(self, told: dict[str, Any], folder: Path) -> None:
        source = (told.get("adapted") or {}).get("from", {})
        base = self._held[None].metadata
        if source.get("fingerprint") != base.get("fingerprint"):
            raise CheckpointError(
                f"{folder} was adapted from the run {source.get('fingerprint')}, but this is "
                f"{base.get('fingerprint')}; hold it on its own source"
            )
        mine = {k: v for k, v in base["config"]["encoder"].items() if k not in OWN}
        other = {k: v for k, v in told["encoder"].items() if k not in OWN}
        differ = [
            k
            for k in sorted(mine.keys() | other.keys())
            if not k.startswith("lora_") and mine.get(k) != other.get(k)
        ]
        if differ or told["encoder"].get("tuning") in ("full", "last_k"):
            raise CheckpointError(
                f"{folder} changed more of the encoder than adapters "
                f"({', '.join(differ) or 'tuning'}); load it by itself with serzoo.zoo.load"
            )


class _Held:
    def __init__(
        self,
        head: Head,
        weights: dict[str, Tensor],
        adapter: str | None,
        metadata: dict[str, Any],
        temperature: float | None,
    ) -> None:
        self.head, self.weights, self.adapter = head, weights, adapter
        self.metadata, self.temperature = metadata, temperature


def _head(dim: int, told: dict[str, Any], rest: dict[str, Tensor], folder: Path) -> Head:
    options = {k: v for k, v in told["head"].items() if k != "type"}
    taxonomy = Taxonomy.from_dict(told["taxonomy"])
    first = told.get("widened_from")
    made_for = Taxonomy.from_dict(first) if first else taxonomy
    head: Head = registry.get("heads", told["head"]["type"])(dim, made_for, **options)
    head.widen(taxonomy)
    roots = tuple(f"{name}." for name in head.frozen_roots())
    frozen = {k for k in head.state_dict() if roots and k.startswith(roots)}
    own = {k.removeprefix("head."): v for k, v in rest.items() if k.startswith("head.")}
    try:
        check_keys(own, head.state_dict(), frozen)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    head.load_state_dict(own, strict=False)
    return head
