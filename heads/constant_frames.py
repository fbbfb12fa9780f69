"""Pooling of frames that do not learn (stored features, a frozen encoder), without large copies.

A step of a small head on stored features is bound by memory: every intermediate of the size of the
frames costs more than its arithmetic. Here the frames are read once or twice, in pieces that stay
in the processor's cache, and nothing of their size is kept for the backward pass. The numbers are
those of the plain formulas in ``pooling.py``, which tests compare.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

PIECE = 2**18  # values of a piece, 1 MiB


def worthwhile(x: Tensor) -> bool:
    """Whether frames are constant and on the CPU; a GPU is better off with few large kernels."""
    if torch.compiler.is_compiling():  # traced for export, where no value may be looked at
        return False
    return x.device.type == "cpu" and not x.requires_grad


def pieces(x: Tensor) -> Iterator[slice]:
    """Ranges of utterances of ``[B, T, D]`` that are about :data:`PIECE` values each."""
    step = max(1, PIECE // max(1, x[0].numel()))
    for first in range(0, len(x), step):
        yield slice(first, first + step)


class ConstantStats(torch.autograd.Function):
    """Mean and variance of constant frames under weights that learn.

    With ``y = x - c`` around the utterance's plain mean c: ``mean = c + sum_t w_t y_t`` and
    ``variance = sum_t w_t y_t^2 - (sum_t w_t y_t)^2``, which does not cancel, since y is centred.
    Weights sum to 1 over time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, T, D]`` (zeros behind the end), ``[B, Q, T]``, ``[B, 1, 1]`` real frames.

        Returns:
            Mean and variance, ``[B, Q, D]`` each.
        """
        mean = x.new_empty(*weights.shape[:2], x.shape[2])
        square = torch.empty_like(mean)
        centre = x.sum(1, keepdim=True) / counts
        for part in pieces(x):
            y = x[part] - centre[part]
            torch.bmm(weights[part], y, out=mean[part])
            torch.bmm(weights[part], y.square_(), out=square[part])
        ctx.save_for_backward(x, weights, centre, mean)
        return mean + centre, square - mean.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        """Gradient of the weights alone."""
        x, weights, centre, mean = ctx.saved_tensors
        to_mean, to_variance = gradients
        out = torch.empty_like(weights)
        linear = to_mean - 2 * to_variance * mean  # what multiplies y_t
        for part in pieces(x):
            y = x[part] - centre[part]
            of_y = torch.bmm(linear[part], y.transpose(1, 2))
            torch.baddbmm(of_y, to_variance[part], y.square_().transpose(1, 2), out=out[part])
        return None, out + (to_mean * centre).sum(-1, keepdim=True), None


def normed_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """``linear(norm(x))`` of constant ``[..., D]``, without the normalised copy.

    ``W (g (x - m) / s + b) = ((W g) x - m sum(W g)) / s + W b``: one product of the frames as they
    are. The variance is ``E x^2 - m^2`` over D, which is harmless where a frame's mean is of the
    size of its deviations, as in every encoder here.
    """
    size = x.shape[-1]
    with torch.no_grad():
        m = x.mean(-1, keepdim=True)
        power = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / size
        scale = (power - m.square()).clamp_min(0).add(norm.eps).rsqrt()
    weight = linear.weight * norm.weight
    bias = linear.weight @ norm.bias
    if linear.bias is not None:
        bias = bias + linear.bias
    return (x @ weight.T - m * weight.sum(1)) * scale + bias
