"""What SELM hears when it hears nothing: the audio of its prior."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..zoo.types import Frames

NullName = Literal["mean", "zeros"]

MEMORY = 100.0
"""Batches over which the mean prefix is averaged (our choice)."""


class NullAudio(nn.Module):
    """A prefix that tells nothing about an utterance.

    Calibration by a content-free input is of Zhao et al. 2021 (arXiv 2102.09690); which input
    stands for no audio is our choice.

    Args:
        kind: ``mean``, the running average of the prefixes of training, or ``zeros``, what the
            mapper makes of a single frame of zeros.
        prefix: ``L``.
        width: ``W``.
    """

    def __init__(self, kind: NullName, prefix: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.mean: Tensor
        self.batches: Tensor
        if kind == "mean":
            self.register_buffer("mean", torch.zeros(1, prefix, width))
            self.register_buffer("batches", torch.zeros(()))

    def follow(self, prefix: Tensor, weight: Tensor) -> None:
        """Take a batch of prefixes ``[B, L, W]`` of weight ``[B]`` into the mean."""
        if self.kind != "mean" or not weight.any():
            return
        share = (weight / weight.sum()).to(self.mean.dtype)[:, None, None]
        kept = torch.where(share > 0, prefix.to(self.mean.dtype), 0.0)
        self.batches += 1
        self.mean.lerp_((share * kept).sum(0, keepdim=True), 1 / self.batches.clamp_max(MEMORY))

    def forward(self, mapper: nn.Module, dim: int) -> Tensor:
        """``[1, L, W]``, with frames of width ``dim`` where the mapper is asked."""
        if self.kind == "mean":
            return self.mean
        weight = next(mapper.parameters())
        nothing = torch.zeros(1, 1, dim, device=weight.device)
        out: Tensor = mapper(Frames(nothing, torch.ones(1, 1, dtype=torch.bool,
                                                       device=weight.device)))  # fmt: skip
        return out
