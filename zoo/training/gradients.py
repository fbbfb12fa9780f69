"""Does training reach what it is said to train?"""

from __future__ import annotations

from torch import nn

from ..errors import ConfigError


def unreached(module: nn.Module) -> list[str]:
    """Names of trainable parameters without a gradient, after a backward pass.

    A gradient of zeros counts as one: a fresh adapter's first matrix has it, since its second one
    starts at zero.
    """
    return [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]


def check_reached(module: nn.Module) -> None:
    """Refuse a module of which some trainable parameter did not take part in the loss.

    Such a parameter would count as trained, stay as it was made, and end training on several
    devices with an error that does not name it.

    Raises:
        ConfigError: naming the first of them and their number.
    """
    if names := unreached(module):
        total = sum(p.requires_grad for p in module.parameters())
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise ConfigError(
            f"{len(names)} of {total} trainable parameters get no gradient from the loss "
            f"({shown}); an adapter on a layer that the encoder never calls, a head with an unused "
            "part: freeze them (requires_grad_(False)), remove them, or choose other "
            "encoder.lora_targets"
        )
