"""Averaged weights: what is validated, selected and tested, where a run asks for it."""

from __future__ import annotations

import torch
from torch import Tensor


class AveragedWeights:
    """Exponential moving average of everything that is trained, running statistics included.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so that early weights are forgotten.

    Args:
        decay: of one optimiser step.

    Attributes:
        weights: the average; empty before the first step.
        swapped: whether the model holds the average, and ``weights`` what is trained.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self.swapped = False

    def restart(self, weights: dict[str, Tensor] | None = None) -> None:
        """Go on from these; without any, from the weights after the next step."""
        self.weights, self.swapped = dict(weights or {}), False

    @torch.no_grad()
    def update(self, current: dict[str, Tensor], step: int) -> None:
        """Move the average towards the current weights."""
        if not self.weights:
            self.weights = {k: v.detach().clone() for k, v in current.items()}
            return
        for k, v in current.items():  # a checkpoint is read into main memory
            self.weights[k] = self.weights[k].to(v.device)
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        floats = [k for k, v in current.items() if v.is_floating_point()]
        ours = [self.weights[k] for k in floats]
        torch._foreach_lerp_(ours, [current[k] for k in floats], share)
        for k, v in current.items():
            if not v.is_floating_point():
                self.weights[k].copy_(v)

    @torch.no_grad()
    def swap(self, current: dict[str, Tensor]) -> None:
        """Exchange the average and the current weights, in place; nothing before the first step."""
        self.swapped = bool(self.weights) and not self.swapped
        for k, v in current.items() if self.weights else ():
            held = v.clone()
            v.copy_(self.weights[k])
            self.weights[k].copy_(held)
