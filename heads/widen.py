"""Add outputs for new classes, or inputs, to layers; the old ones stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def wider_rows(rows: Tensor, n: int) -> Tensor:
    """Extend ``[C, ...]`` to ``[n, ...]``: each new row is the mean of the old rows.

    Until it is trained, a new class then scores in the middle of the old ones. All new classes
    score the same. Nothing is random. Our choice.
    """
    new = rows.mean(0, keepdim=True).expand(n - len(rows), *rows.shape[1:])
    return torch.cat([rows, new])


def wider_linear(layer: nn.Linear, n: int) -> nn.Linear:
    """Return a linear layer with ``n`` outputs; the old outputs are as before."""
    wider = nn.Linear(layer.in_features, n, device=layer.weight.device, dtype=layer.weight.dtype)
    wider.weight = nn.Parameter(wider_rows(layer.weight, n))
    wider.bias = nn.Parameter(wider_rows(layer.bias, n))
    return wider


@torch.no_grad()
def more_inputs(layer: nn.Linear, n: int) -> nn.Linear:
    """Return a linear layer with ``n`` more inputs; the weights of the old inputs are as before."""
    old = layer.in_features
    made = nn.Linear(
        old + n,
        layer.out_features,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    made.weight[:, :old] = layer.weight
    if layer.bias is not None:
        made.bias.copy_(layer.bias)
    return made
