"""Codes of the classes that are learned first, and then stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..zoo.types import Targets
from .decision import similarity
from .losses import cross_entropy


class LearnedCodes(nn.Module):
    """Prototypes that learn for a number of training batches, and are the codes thereafter.

    While they learn, the cross-entropy of their cosines with ``x_1`` (over 0.2, as in the decision)
    is added to the loss, and their directions, without gradient, are the codes: both ends of the
    path move, and the cross-entropy keeps them from moving together. Then the codes stay as they
    are. Everything that decides when that is lies in buffers, so that a run resumes exactly. Our
    choice.

    Args:
        start: ``[C, d]`` codes to begin with.
        steps: training batches after which they stay.

    Attributes:
        prototypes: ``[C, d]``, of which only the directions matter.
        seen: training batches so far.
    """

    seen: Tensor

    def __init__(self, start: Tensor, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.prototypes = nn.Parameter(start.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def advance(self) -> Tensor | None:
        """Begin a training batch: ``[C, d]`` codes, or None once they stay as they are."""
        learning = bool(self.seen < self.steps)
        self.seen += 1
        if not learning:
            return None
        radius = math.sqrt(self.prototypes.shape[-1] / 2)
        return radius * nn.functional.normalize(self.prototypes.detach().float(), dim=-1)

    def widen(self, codes: Tensor) -> None:
        """Go on with ``codes [C', d]``, whose first are those of now; from here on they stay."""
        new = codes[len(self.prototypes) :].to(self.prototypes)
        self.prototypes = nn.Parameter(torch.cat([self.prototypes.detach(), new]))
        self.seen.clamp_(min=self.steps)

    def loss(self, x_1: Tensor, targets: Targets) -> Tensor:
        """Scalar to add to the loss for ``x_1 [B, d]``; afterwards zero, still reaching them."""
        cosine = similarity("cosine", x_1, self.prototypes)
        learning = (self.seen <= self.steps).to(cosine.dtype)
        return learning * targets.average(cross_entropy(cosine, targets.probs))
