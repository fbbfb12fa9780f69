"""Pooling of frames that do not learn (stored features, a frozen encoder), read once each way.

A step of a small head on stored features is bound by memory: every pass over the frames costs more
than its arithmetic. Here all that the pooling does with an utterance's frames is done while they
are in the processor's cache, forwards and backwards, and nothing of their size is kept in between.
The numbers are those of the plain formulas in ``pooling.py``, which tests compare.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def worthwhile(x: Tensor) -> bool:
    """Whether frames are constant and on the CPU; a GPU is better off with few large kernels."""
    if torch.compiler.is_compiling():  # a tracer wants the plain formulas
        return False
    return x.device.type == "cpu" and not x.requires_grad


def clean(x: Tensor, mask: Tensor) -> Tensor:
    """``[B, T, D]`` with zeros where the mask ``[B, T]`` is False; no copy where they are there."""
    if bool((x[~mask] == 0).all()):  # false for NaN, too
        return x
    return x.masked_fill(~mask.unsqueeze(-1), 0.0)


def utterances(x: Tensor, mask: Tensor) -> list[Tensor]:
    """``[B, T, D]`` and ``[B, T]`` to each utterance up to its last frame of speech, ``[n, D]``."""
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return [row[:n] for row, n in zip(x, (mask * steps).amax(1).tolist(), strict=True)]


class AttentiveStats(torch.autograd.Function):
    """Mean and variance of constant frames under weights that learn, from the frames.

    ``w = softmax_t(v . tanh(W n(x_t) + b))`` with n the layer normalisation without its affine
    part, which is in W and b: ``W n(x) = (W x - m sum(W)) / s`` with a frame's mean m and deviation
    s over D, so that no normalised copy is needed (``s^2 = E x^2 - m^2``, harmless where a frame's
    mean is of the size of its deviation, as in every encoder here). The statistics are taken of
    ``y_t = x_t - c``, c about the utterance's plain mean, and do not cancel: ``mean = c + sum_t w_t
    y_t`` and ``variance = sum_t w_t y_t^2 - (sum_t w_t y_t)^2``, utterance by utterance, so that y
    stays in the processor's cache.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor, W: Tensor, b: Tensor, v: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """``[B, T, D]`` clean, ``[B, T]``, ``[H, D]``, ``[H]``, ``[Q, H]``.

        Returns:
            Mean and variance, ``[B, Q, D]`` each.
        """
        m = x.mean(-1, keepdim=True)
        power = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = power.addcmul_(m, m, value=-1).clamp_min_(0).add_(eps).rsqrt_()
        inner = (x @ W.T).addcmul_(m, W.sum(1), value=-1)
        h = inner.mul_(inverse).add_(b).tanh_()  # [B, T, H]
        logits = (h @ v.T).transpose(1, 2).masked_fill(~mask.unsqueeze(1), float("-inf"))
        weights = logits.softmax(-1)  # [B, Q, T]
        shifts, squares, centres = [], [], []
        for frames, row in zip(utterances(x, mask), weights, strict=True):
            w = row[:, : len(frames)]
            c = frames.new_full((1, len(frames)), 1 / len(frames)) @ frames
            y = frames - c
            shifts.append(w @ y)
            squares.append(w @ y.square_())
            centres.append(c)
        shift, centre = torch.stack(shifts), torch.stack(centres)
        ctx.save_for_backward(x, mask, v, m, inverse, h, weights, shift, centre)
        return shift + centre, torch.stack(squares).addcmul_(shift, shift, value=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of W, b and v."""
        x, mask, v, m, inverse, h, weights, shift, centre = ctx.saved_tensors
        to_mean, to_variance = gradients
        to_y = to_mean - 2 * to_variance * shift  # what multiplies y_t
        back = torch.zeros_like(weights)  # of the weights, up to a constant over time
        for i, frames in enumerate(utterances(x, mask)):
            y = frames - centre[i]
            row = back[i, :, : len(frames)]
            torch.mm(to_y[i], y.T, out=row)
            row.addmm_(to_variance[i], y.square_().T)
        back = weights * (back - (weights * back).sum(-1, keepdim=True))
        out_v = torch.einsum("bqt,bth->qh", back, h)
        inner = (back.transpose(1, 2) @ v).mul_(1 - h.square())  # [B, T, H]
        out_b = inner.sum((0, 1))
        inner = inner.mul_(inverse).flatten(0, 1)
        out_W = inner.T @ x.flatten(0, 1) - inner.T @ m.flatten(0, 1)
        return None, None, out_W, out_b, out_v, None


def attentive_stats(
    x: Tensor, mask: Tensor, norm: nn.LayerNorm, linear: nn.Linear, last: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Mean and variance, ``[B, Q, D]`` each, of ``softmax_t(last(tanh(linear(norm(x)))))``."""
    W = linear.weight * norm.weight
    b = linear.weight @ norm.bias + linear.bias
    found: tuple[Tensor, Tensor] = AttentiveStats.apply(  # type: ignore[no-untyped-call]
        clean(x, mask), mask, W, b, last.weight, norm.eps
    )
    return found


@torch.no_grad()
def plain_stats(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the frames of speech, ``[B, 1, D]`` each."""
    means, variances = [], []
    for frames, speech in zip(utterances(x, mask), mask, strict=True):
        frames = frames[speech[: len(frames)]] if not speech[: len(frames)].all() else frames
        means.append(frames.mean(0, keepdim=True))
        variances.append((frames - means[-1]).square_().mean(0, keepdim=True))
    return torch.stack(means), torch.stack(variances)
