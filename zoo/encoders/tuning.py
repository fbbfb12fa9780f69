"""What of a published encoder is trained: nothing, adapters, its upper blocks, or all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from ..errors import ConfigError
from .family import Family

Tuning = Literal["frozen", "lora", "last_k", "full"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        rank: of the update of each adapted matrix.
        alpha: the update is scaled by ``alpha / rank`` (``alpha / sqrt(rank)`` with rslora).
        dropout: of the adapter's input, in training.
        targets: names of linear layers inside a block; None = the family's attention projections.
        dora: learn magnitudes apart from directions (Liu et al. 2024, arXiv 2402.09353).
        rslora: scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] | None = None
    dora: bool = False
    rslora: bool = False


def adapt(family: Family, options: Lora, name: str) -> LoraConfig:
    """Put adapters into a family's blocks; everything else is frozen.

    Every adapted layer is listed by its full name, so that the adapter also fits the whole
    published model, whose upper blocks were cut off here.

    Raises:
        ConfigError: when there is no block, or no linear layer of a wanted name.
    """
    wanted = list(options.targets or family.lora_targets)
    prefix = next(n for n, m in family.model.named_modules() if m is family.blocks)
    linear = [f"{prefix}.{n}" for n, m in family.blocks.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(
            f"encoder.tuning=lora adapts blocks, but no block of '{name}' is left below the kept "
            "layers; keep a higher layer (encoder.layers), or set encoder.tuning=frozen"
        )
    found = {w: [n for n in linear if n.endswith(f".{w}")] for w in wanted}
    if unknown := [w for w, names in found.items() if not names]:
        have = sorted({n.split(".", len(prefix.split(".")) + 1)[-1] for n in linear})
        raise ConfigError(
            f"encoder.lora_targets: no linear layer called '{unknown[0]}' in the blocks of "
            f"'{name}'; have {', '.join(have)}"
        )
    config = LoraConfig(
        task_type=None,  # any other would wrap the model in a text-shaped forward
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # a float is fine, the hint is narrow
        lora_dropout=options.dropout,
        target_modules=sorted({n for names in found.values() for n in names}),
        use_dora=options.dora,
        use_rslora=options.rslora,
        bias="none",
    )
    inject_adapter_in_model(config, family.model)
    return config


def thaw(family: Family, blocks: int | None, front_end_frozen: bool, name: str) -> None:
    """Train the upper blocks, or all (None) with or without the front end.

    Raises:
        ConfigError: when more blocks are to be trained than there are.
    """
    model: nn.Module = family.model
    if blocks is None:
        # what was published as fixed (Whisper's positions) stays so
        fixed = [p for p in model.parameters() if not p.requires_grad]
        model.requires_grad_(True)
        for parameter in fixed:
            parameter.requires_grad_(False)
        for module in family.front_end() if front_end_frozen else []:
            module.requires_grad_(False)
        return
    if not 1 <= blocks <= len(family.blocks):
        raise ConfigError(
            f"encoder.last_k={blocks}: '{name}' has {len(family.blocks)} blocks below the deepest "
            "kept layer; give a number from 1 to that"
        )
    model.requires_grad_(False)
    family.blocks[-blocks:].requires_grad_(True)


def trained_keys(model: nn.Module) -> set[str]:
    """Entries of the state dict that training moves: parameters, and buffers of what it trains."""
    keys: set[str] = set()
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if any(p.requires_grad for p in own.values()):
            stem = f"{path}." if path else ""
            keys |= {stem + n for n, p in own.items() if p.requires_grad}
            keys |= {stem + n for n, _ in module.named_buffers(recurse=False)}
    return keys & set(model.state_dict())


def layered_groups(family: Family, lr: float, decay: float) -> list[dict[str, Any]]:
    """Optimiser groups with a rate that falls from the last block down (layer-wise decay).

    The last block learns at ``lr``, each one below at ``decay`` times the rate of the one above,
    everything before the first block at once more ``decay`` times.
    """
    blocks = family.blocks
    inside = {id(p) for p in blocks.parameters()}
    below = [p for p in family.model.parameters() if id(p) not in inside]
    parts: Sequence[Sequence[nn.Parameter]] = [below, *(list(b.parameters()) for b in blocks)]
    groups = []
    for height, parameters in enumerate(parts):
        trained = [p for p in parameters if p.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": lr * decay ** (len(parts) - 1 - height)})
    return groups
