"""The start of Gen-SER's path: an utterance as one vector, or as its frames."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...zoo.core.types import Frames
from ..pooling import PooledEmbedding, PoolingName, UtteranceVector

StateName = Literal["utterance", "frames"]

VARIANCE_FLOOR = 1e-5  # added to the variance, as in a batch normalisation


class Standardise(nn.Module):
    """Standardises each dimension to mean 0 and variance 1, by the training data so far.

    It returns ``(x - mean) / sqrt(variance + 1e-5)``. In training, the labelled vectors of a batch
    first update the statistics. The pairwise update of Chan et al. (1979) is exact for any batch
    sizes. Then the statistics standardise the batch. So training and evaluation use one formula,
    unlike batch normalisation, and a score does not depend on the batch. No gradient flows through
    the statistics. Under data parallelism every process adds the vectors of all processes, so all
    hold the same statistics. It is meant for frozen encoders: if the encoder learns, the statistics
    lag behind.

    Args:
        width: width of the vectors.

    Attributes:
        count: vectors seen, scalar.
        mean: ``[width]``.
        squares: ``[width]`` sum of squared deviations from the mean.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("squares", torch.zeros(width))

    @torch.no_grad()
    def add(self, x: Tensor, kept: Tensor) -> None:
        """Update the statistics with the vectors ``[..., width]`` whose ``kept [...]`` is True."""
        kept = kept.unsqueeze(-1).float()
        x = torch.where(kept > 0, x.detach().float(), 0.0)
        axes = list(range(x.dim() - 1))
        first = _over_processes(torch.cat([kept.sum(axes), x.sum(axes)]))
        count, mean = first[0], first[1:] / first[0].clamp_min(1)
        squares = _over_processes(((x - mean) * kept).square().sum(axes))
        total = self.count + count
        share = count / total.clamp_min(1)
        gap = mean - self.mean
        self.squares += squares + gap.square() * self.count * share
        self.mean += gap * share
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., width]`` standardised vectors; unchanged if no vector was seen yet."""
        variance = torch.where(self.count > 1, self.squares / self.count.clamp_min(1), 1.0)
        return (x - self.mean) * (variance + VARIANCE_FLOOR).rsqrt()


def _over_processes(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(x)
    return x


class UtteranceState(PooledEmbedding):
    """Pooling, normalisation and dropout: the first step that the utterance heads share.

    Args:
        dim: ``D``, width of the frames.
        pooling: ``mean``, ``stats``, ``attentive``.
        dropout: dropout rate of the pooled values, in training.
        standardise: use :class:`Standardise` instead of the layer normalisation.
    """

    def __init__(self, dim: int, pooling: PoolingName, dropout: float, standardise: bool) -> None:
        super().__init__(dim, pooling, dropout)
        self.statistics = Standardise(self.width) if standardise else None
        if standardise:
            self.norm = nn.Identity()  # type: ignore[assignment]

    def forward(self, frames: Frames, labelled: Tensor | None = None) -> Tensor:
        """Return the ``[B, width]`` vectors of the utterances.

        Args:
            frames: the frames of the batch.
            labelled: ``[B]`` bool, in training: which vectors update the statistics.
        """
        pooled = self.scale(self.pooling(frames))
        if self.statistics is not None:
            if self.training and labelled is not None:
                self.statistics.add(pooled, labelled)
            pooled = self.statistics(pooled)
        state: Tensor = self.dropout(self.norm(pooled))
        return self.joined(state, frames)


class FrameState(nn.Module):
    """Normalisation and dropout of every frame.

    Args:
        dim: ``D``, width of the frames.
        dropout: dropout rate of the values, in training.
        standardise: use :class:`Standardise` over the frames of speech, instead of the layer
            normalisation.

    Attributes:
        width: width of a frame.
        beside: reads the vectors of utterances; None if there are none.
    """

    def __init__(self, dim: int, dropout: float, standardise: bool) -> None:
        super().__init__()
        self.width = dim
        self.statistics = Standardise(dim) if standardise else None
        self.norm = nn.Identity() if standardise else nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.beside: UtteranceVector | None = None

    def read_utterance(self, width: int) -> None:
        """Append the utterance's vector, of this width, to each of its frames from now on."""
        self.beside = UtteranceVector(width, self.dropout.p)
        self.width += width

    def forward(self, frames: Frames, labelled: Tensor | None = None) -> Tensor:
        """Return ``[B, T, width]`` frames; those of padding are finite."""
        x = frames.x.float().masked_fill(~frames.mask.unsqueeze(-1), 0.0)
        if self.statistics is not None:
            if self.training and labelled is not None:
                self.statistics.add(x, frames.mask & labelled.unsqueeze(1))
            x = self.statistics(x)
        state: Tensor = self.dropout(self.norm(x))
        if self.beside is None:
            return state
        vectors = self.beside(frames).unsqueeze(1).expand(-1, state.shape[1], -1)
        return torch.cat([state, vectors], -1)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the ``[..., B, d]`` mean of ``[..., B, T, d]`` over the frames of speech.

    Args:
        x: values of frames; or values of utterances, ``[..., B, d]``, which stay unchanged.
        mask: ``[B, T]`` bool for values of frames, None for values of utterances.
    """
    if mask is None:
        return x
    return torch.where(mask.unsqueeze(-1), x, 0.0).sum(-2) / mask.sum(-1, keepdim=True)
