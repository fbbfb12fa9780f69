"""Mixup of encoder inputs and targets, the same for every head."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..types import Targets

MIXED = 0.5  # share of the utterances that mixup mixes (our choice)


def mix(hidden: Tensor, mask: Tensor, targets: Targets, alpha: float) -> tuple[Tensor, Targets]:
    """Mixup of encoder inputs: each item with a partner of its batch, targets alike.

    Args:
        hidden: ``[B, K, T, D]``.
        mask: ``[B, T]``.
        targets: labels, weights and dimensions, all mixed (what one half of a pair is not rated
            for, the pair is not); a pair with an unlabelled half is left alone.
        alpha: of the Beta distribution; the share of an item is at least one half.
    """
    size = len(hidden)
    share = torch.distributions.Beta(alpha, alpha).sample((size,)).to(hidden.device)
    share = torch.maximum(share, 1 - share)
    partner = torch.randperm(size, device=hidden.device)
    labelled = targets.probs.sum(-1) > 0
    chosen = labelled & labelled[partner] & (torch.rand(size, device=hidden.device) < MIXED)
    share = torch.where(chosen, share, 1.0)
    # the partner is read at its own pace over the item's length, so that no part is half silent
    length = mask.sum(1, keepdim=True)
    time = torch.arange(mask.shape[1], device=hidden.device) * length[partner] // length
    time = torch.minimum(time, length[partner] - 1)[:, None, :, None]
    other = hidden[partner].gather(2, time.expand_as(hidden))
    lam = share.to(hidden.dtype)[:, None, None, None]
    mixed = (lam * hidden + (1 - lam) * other) * mask[:, None, :, None]
    lam = share[:, None]
    probs = lam * targets.probs + (1 - lam) * targets.probs[partner]
    weight = share * targets.weight + (1 - share) * targets.weight[partner]
    dims = targets.dims
    if dims is not None:
        dims = torch.where(lam < 1, lam * dims + (1 - lam) * dims[partner], dims)
    return mixed, replace(targets, probs=probs, weight=weight, dims=dims)
