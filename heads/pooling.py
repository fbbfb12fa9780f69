"""From frames to one vector per utterance, padding excluded.

All of it is computed in float32, under autocast too: a sum over hundreds of frames in bfloat16
loses what distinguishes two emotions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..zoo.types import Frames
from .constant_frames import attentive_stats, plain_stats, worthwhile

PoolingName = Literal["mean", "stats", "attentive"]

VARIANCE_FLOOR = 1e-5  # below it the standard deviation has no gradient: a single frame, silence


def weighted_stats(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean and standard deviation over frames.

    ``mu = sum_t w_t x_t`` and ``sd = sqrt(max(sum_t w_t (x_t - mu)^2, floor))``; the second form
    of the variance, ``E[x^2] - mu^2``, cancels in float32 when the mean is large.

    Args:
        x: ``[..., T, D]`` finite values.
        weights: ``[..., T]`` non-negative, summing to 1 over ``T``.

    Returns:
        ``[..., 2D]``, means first.
    """
    w = weights.unsqueeze(-1)
    mean = (w * x).sum(-2)
    variance = (w * (x - mean.unsqueeze(-2)).square()).sum(-2)
    return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=-1)


def _clean(frames: Frames) -> Tensor:
    """``[B, T, D]`` float32 frames, zeros where the mask is False: 0 times NaN is NaN."""
    return frames.x.float().masked_fill(~frames.mask.unsqueeze(-1), 0.0)


def _joined(mean: Tensor, variance: Tensor) -> Tensor:
    """``[B, Q, D]`` each to means and standard deviations, ``[B, Q, 2 D]``."""
    return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=-1)


class MeanPooling(nn.Module):
    """Mean over the frames of speech.

    Args:
        dim: ``D``, width of the frames.

    Attributes:
        width: of the pooled vector, here ``D``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(self, frames: Frames) -> Tensor:
        """Frames to ``[B, width]`` float32."""
        return frames.mean()


class StatsPooling(nn.Module):
    """Mean and standard deviation over the frames of speech.

    Args:
        dim: ``D``, width of the frames.

    Attributes:
        width: of the pooled vector, here ``2 D``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = 2 * dim

    def forward(self, frames: Frames) -> Tensor:
        """Frames to ``[B, width]`` float32."""
        if worthwhile(frames.x):
            return _joined(*plain_stats(frames.x, frames.mask))[:, 0]
        weights = frames.mask.float()
        return weighted_stats(_clean(frames), weights / weights.sum(1, keepdim=True).clamp_min(1.0))


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation under learned weights of the frames.

    ``w = softmax_t(v . tanh(W x_t + b))`` over the frames of speech, then :func:`weighted_stats`:
    attentive statistics pooling (Okabe et al., 2018, "Attentive statistics pooling for deep
    speaker embedding"). The frames are layer-normalised before ``W`` (our choice), so that
    encoders of any scale start with weights that are neither flat nor saturated.

    Args:
        dim: ``D``, width of the frames.
        hidden: width of the attention's hidden layer.
        queries: Q, different weightings of the frames.

    Attributes:
        width: of the pooled vector, here ``2 D``.
    """

    def __init__(self, dim: int, hidden: int = 64, queries: int = 1) -> None:
        super().__init__()
        self.width = 2 * dim
        # no bias in the last layer: the softmax over frames would cancel it
        self.attention = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.Tanh(),
            nn.Linear(hidden, queries, bias=False),
        )  # fmt: skip

    def weights(self, frames: Frames) -> Tensor:
        """``[B, Q, T]`` weights of the frames, 0 where the mask is False, each row summing to 1."""
        with torch.autocast(frames.x.device.type, enabled=False):
            logits: Tensor = self.attention(frames.x.float()).transpose(1, 2)
            return logits.masked_fill(~frames.mask.unsqueeze(1), float("-inf")).softmax(-1)

    def statistics(self, frames: Frames) -> Tensor:
        """Frames to ``[B, Q, width]`` float32: mean and standard deviation for every query."""
        with torch.autocast(frames.x.device.type, enabled=False):
            if worthwhile(frames.x):
                norm, linear, _, last = self.attention
                return _joined(
                    *attentive_stats(frames.x, frames.mask, norm, linear, last)  # type: ignore[arg-type]
                )
            frames = Frames(_clean(frames), frames.mask)
            return weighted_stats(frames.x.unsqueeze(1), self.weights(frames))

    def forward(self, frames: Frames) -> Tensor:
        """Frames to ``[B, width]`` float32, by the first query."""
        return self.statistics(frames)[:, 0]


class PooledEmbedding(nn.Module):
    """Pooling, layer normalisation and dropout: the common first step of the utterance heads.

    Kept in one place so that the heads differ in what follows, not in how they read the frames.
    The normalisation sees one utterance at a time, and so keeps the batch out of its score.

    Args:
        dim: ``D``, width of the frames.
        pooling: ``mean``, ``stats`` (mean and standard deviation) or ``attentive``.
        dropout: share of the pooled values that is dropped in training.

    Attributes:
        width: of the vector.
    """

    def __init__(self, dim: int, pooling: PoolingName, dropout: float) -> None:
        super().__init__()
        self.pooling = build_pooling(pooling, dim)
        self.width = self.pooling.width
        self.norm = nn.LayerNorm(self.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Frames) -> Tensor:
        """Frames to ``[B, width]``."""
        pooled: Tensor = self.dropout(self.norm(self.pooling(frames)))
        return pooled


def build_pooling(name: PoolingName, dim: int) -> MeanPooling | StatsPooling | AttentiveStatistics:
    """The pooling of this name for frames of width ``dim``."""
    if name == "mean":
        return MeanPooling(dim)
    return StatsPooling(dim) if name == "stats" else AttentiveStatistics(dim)
