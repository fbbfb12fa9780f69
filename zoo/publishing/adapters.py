"""Adapters in peft's own layout: names of weights here and there, and the file of their options."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

FOLDER = "adapter"
WEIGHTS = "adapter_model.safetensors"

_OURS = re.compile(r"^encoder\.backbone\.(.+\.lora_(?:A|B|magnitude_vector))\.default\.weight$")
_PEFTS = re.compile(r"^base_model\.model\.(.+\.lora_(?:A\.weight|B\.weight|magnitude_vector))$")


def split(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A module's weights as all that are no adapters, and the adapters under peft's names."""
    names = {key: _to_peft(key) for key in weights}
    rest = {key: value for key, value in weights.items() if names[key] is None}
    return rest, {name: weights[key] for key, name in names.items() if name is not None}


def join(rest: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of :func:`split`; a name that peft would not write is kept, and so found surplus."""
    return {**rest, **{_from_peft(name): value for name, value in adapters.items()}}


def write_config(config: Any, folder: Path, base: str, revision: str | None) -> None:
    """``adapter_config.json``.

    Args:
        config: of the adapters that were put in.
        folder: where to.
        base: name of the published model that they belong to.
        revision: its commit, tag or branch.
    """
    config = copy.deepcopy(config)
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = True  # as peft saves
    config.save_pretrained(str(folder))


def _to_peft(key: str) -> str | None:
    if (found := _OURS.match(key)) is None:
        return None
    stem = found[1]
    # peft keeps magnitudes as bare parameters, for the sake of its older files
    return f"base_model.model.{stem}" + ("" if stem.endswith("magnitude_vector") else ".weight")


def _from_peft(name: str) -> str:
    if (found := _PEFTS.match(name)) is None:
        return name
    return f"encoder.backbone.{found[1].removesuffix('.weight')}.default.weight"
