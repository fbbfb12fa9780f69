"""The networks of Gen-SER: from state, utterance and time to the quantity that the path needs."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...zoo.core.errors import ConfigError
from .path import over

NetworkName = Literal["mlp", "transformer"]
ATTENTION_HEADS = 4


def time_layers() -> nn.Sequential:
    """Return the layers that follow :func:`time_waves`."""
    return nn.Sequential(nn.Linear(64, 64), nn.SiLU())


def frequencies() -> Tensor:
    """Return ``[32]`` frequencies from 1 to 1/1000."""
    return torch.exp(-math.log(1000.0) * torch.arange(32) / 32)


def time_waves(t: Tensor, omega: Tensor) -> Tensor:
    """Return ``[..., 64]`` sines and cosines of ``100 t`` for times ``[...]`` (our choice)."""
    angle = 100.0 * t.unsqueeze(-1) * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class _Network(nn.Module):
    """The layers of both networks; they are made in one order, so a seed gives the same weights.

    Attributes:
        attends: whether attention over frames comes before each block.
    """

    attends: ClassVar[bool]

    def __init__(self, code_dim: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        steps = 2 if self.attends else 1  # residual steps of a block; each has its own norm
        self.enter = nn.Linear(2 * code_dim, width)
        self.time = time_layers()
        norms = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(steps * depth))
        self.norms = nn.ModuleList(norms)
        self.modulations = nn.ModuleList(nn.Linear(64, 2 * steps * width) for _ in range(depth))
        if self.attends:
            mixers = (nn.Linear(width, 3 * width, bias=False) for _ in range(depth))
            self.mixers = nn.ModuleList(mixers)
            self.mixed = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.blocks = nn.ModuleList(_mlp(width, dropout) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, code_dim))
        self.register_buffer("omega", frequencies(), persistent=False)


class TransportNetwork(_Network):
    """``f(x_t, x_1, t)``: a residual MLP with an input for the time.

    ``[x_t; x_1]`` enters a linear layer. Each of ``depth`` blocks then adds
    ``W_2 GELU(W_1 (LN(h) (1 + a(t)) + c(t)))``. This is an adaptive layer normalisation by a
    sinusoidal embedding of t. ``x_1`` conditions every step, as in the predecessor (arXiv
    2509.07521); the architecture is our choice. No gate starts at zero. An encoder that learns from
    scratch needs a gradient through this network from the first step on.

    Args:
        code_dim: width of ``x_0``, ``x_t`` and ``x_1``.
        width: width of the hidden layers.
        depth: number of residual blocks.
        dropout: dropout rate inside the blocks, in training.
    """

    attends = False

    def forward(self, x_t: Tensor, x_1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``[..., d]`` float32 from states and utterances ``[..., d]``.

        Args:
            x_t: the states.
            x_1: the utterances, of the same shape.
            t: times, with the leading axes of ``x_t``; all frames of a state have one time.
            mask: not used, because each frame is processed alone.
        """
        time = self.time(over(time_waves(t, self.get_buffer("omega")), x_t, last=1))
        h = self.enter(torch.cat([x_t, x_1], dim=-1))
        for norm, modulation, block in zip(self.norms, self.modulations, self.blocks, strict=True):
            scale, shift = modulation(time).chunk(2, dim=-1)
            h = h + block(norm(h) * (1 + scale) + shift)
        estimate: Tensor = self.leave(h)
        return estimate.float()


class TransportTransformer(_Network):
    """``f(x_t, x_1, t)`` over frames: :class:`TransportNetwork` with attention before each block.

    No frame attends to padding. There is no position code. The frames of an encoder already know
    their context, and the pooling of other heads ignores their order too. Our choice.

    Args:
        code_dim: width of ``x_0``, ``x_t`` and ``x_1``.
        width: width of the hidden layers; a multiple of 4, the number of attention heads.
        depth: number of blocks.
        dropout: dropout rate inside the blocks, in training.

    Raises:
        ConfigError: if the width is not a multiple of the number of attention heads.
    """

    attends = True

    def __init__(self, code_dim: int, width: int, depth: int, dropout: float) -> None:
        if width % ATTENTION_HEADS:
            raise ConfigError(
                f"width={width} cannot be divided among the {ATTENTION_HEADS} attention heads of "
                f"network=transformer; choose a multiple of {ATTENTION_HEADS}"
            )
        super().__init__(code_dim, width, depth, dropout)

    def forward(self, x_t: Tensor, x_1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``[..., B, T, d]`` float32 from states and utterances ``[..., B, T, d]``.

        Args:
            x_t: the states.
            x_1: the utterances, of the same shape.
            t: ``[..., B]`` times.
            mask: ``[B, T]`` bool, True = speech, with at least one True in every row.
        """
        time = self.time(time_waves(t, self.get_buffer("omega"))).reshape(-1, 1, 64)
        h = self.enter(torch.cat([x_t, x_1], dim=-1)).flatten(0, -3)
        keys = None if mask is None else mask.expand(x_t.shape[:-1]).flatten(0, -2)[:, None, None]
        for i, block in enumerate(self.blocks):
            a, b, c, d = self.modulations[i](time).chunk(4, dim=-1)
            parts = self.mixers[i](self.norms[2 * i](h) * (1 + a) + b)
            q, k, v = parts.unflatten(-1, (3, ATTENTION_HEADS, -1)).permute(2, 0, 3, 1, 4)
            found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keys)
            h = h + self.mixed[i](found.transpose(1, 2).flatten(2))
            h = h + block(self.norms[2 * i + 1](h) * (1 + c) + d)
        estimate: Tensor = self.leave(h)
        return estimate.float().view_as(x_t)


def _mlp(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
    )


def build_network(
    name: NetworkName, code_dim: int, width: int, depth: int, dropout: float
) -> nn.Module:
    """Return the network of this name."""
    cls = TransportNetwork if name == "mlp" else TransportTransformer
    return cls(code_dim, width, depth, dropout)
