"""Room for classes that a trained head did not have: what is added, and what stays."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def wider_rows(rows: Tensor, n: int) -> Tensor:
    """``[C, ...]`` to ``[n, ...]``: each new row is the mean of the old ones.

    A new class then scores amid the old ones, neither first nor last, until it is trained; several
    new ones are alike until then. Nothing is drawn. Our choice.
    """
    new = rows.mean(0, keepdim=True).expand(n - len(rows), *rows.shape[1:])
    return torch.cat([rows, new])


def wider_linear(layer: nn.Linear, n: int) -> nn.Linear:
    """A linear layer with as many outputs as ``n``; the old ones are as before."""
    wider = nn.Linear(layer.in_features, n, device=layer.weight.device, dtype=layer.weight.dtype)
    wider.weight = nn.Parameter(wider_rows(layer.weight, n))
    wider.bias = nn.Parameter(wider_rows(layer.bias, n))
    return wider
