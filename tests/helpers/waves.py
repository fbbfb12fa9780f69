"""Sounds like speech: a tone that swells, in noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def speech(samples: int, seed: int = 0) -> Tensor:
    """``[S]`` at 16 kHz."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / 16_000
    tone = torch.sin(2 * math.pi * (150 + 40 * seed) * t) * (1 + torch.sin(2 * math.pi * 3 * t))
    return 0.1 * tone + 0.01 * torch.randn(samples, generator=g)


def padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """``[B, S]`` and ``[B]``: one of each length."""
    audio = torch.zeros(len(lengths), max(lengths))
    for i, n in enumerate(lengths):
        audio[i, :n] = speech(n, i)
    return audio, torch.tensor(lengths)
