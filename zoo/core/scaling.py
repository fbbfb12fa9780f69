"""Mean and deviation of frames that do not change in training, and the scale that they give.

:func:`moments` and :func:`moments_of` compute them, for the feature store and for heads.

Frames of a published encoder have dimensions of very different size. A head that starts on raw
frames needs another learning rate for each encoder. So a run with a steady encoder measures
:class:`FrameStatistics` before its first step. Every :class:`Standardiser` of its head uses them.
They are part of the saved model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .types import Frames

FLOOR = 1e-5
"""A smaller deviation counts as none, and 1 takes its place: noise must not become large."""


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the (population) variance of one utterance's frames.

    It takes two passes, so nothing cancels. ``torch.var_mean`` takes 15 times as long on a CPU.

    Args:
        x: ``[..., T, D]`` frames.

    Returns:
        ``[..., D]`` each, in the type of ``x``.
    """
    mean = x.mean(-2)
    return mean, (x - mean.unsqueeze(-2)).square_().mean(-2)


@torch.no_grad()
def moments_of(frames: Frames, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return :func:`moments` of each utterance, over its frames of speech.

    Args:
        frames: a batch; padding may hold anything.
        dtype: type to compute in.

    Returns:
        ``[B, D]`` each.
    """
    mask = frames.mask
    if mask.shape[1] <= 2 and bool(mask.all()):  # two vectors that the feature store made of many
        return moments(frames.x.to(dtype))
    ends = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).tolist()
    found = []
    # one utterance at a time, so that it stays in cache
    for row, speech, end in zip(frames.x, mask, ends, strict=True):
        x, heard = row[:end], speech[:end]
        found.append(moments((x if bool(heard.all()) else x[heard]).to(dtype)))
    means, variances = zip(*found, strict=True)
    return torch.stack(means), torch.stack(variances)


@dataclass(frozen=True)
class FrameStatistics:
    """Mean and deviation, over utterances, of their mean frame and of the deviation of frames.

    Attributes:
        location: ``[2 D]`` float32: averages over utterances, first of the mean of an utterance's
            frames, then of their (population) standard deviation.
        deviation: ``[2 D]`` float32: standard deviations over utterances of the same.
        utterances: how many were measured; each counts once, whatever its length.
        vectors: mean and deviation, ``[F]`` each, of the utterances' vectors; None if they have
            none.
    """

    location: Tensor
    deviation: Tensor
    utterances: int
    vectors: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, batches: Iterable[Frames]) -> FrameStatistics:
        """Measure frames, in float64, so that the order of batches does not matter.

        Args:
            batches: every training utterance once.

        Raises:
            ValueError: if there is no utterance.
        """
        pooled, beside = _Moments(), _Moments()
        for frames in batches:
            if frames.utterance is not None:
                beside.add(frames.utterance)
            mean, variance = moments_of(frames, torch.float64)
            pooled.add(torch.cat([mean, variance.sqrt()], -1))
        vectors = beside.result() if beside.number else None
        return cls(*pooled.result(), pooled.number, vectors)


class _Moments:
    """Sums of vectors in float64, from which mean and standard deviation are computed."""

    def __init__(self) -> None:
        self.number, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, vectors: Tensor) -> None:
        """Add ``[B, width]`` vectors."""
        x = vectors.double()
        self.number += len(x)
        self.total = self.total.to(x) + x.sum(0)
        self.squares = self.squares.to(x) + x.square().sum(0)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, ``[width]`` float32 each; no deviation is below FLOOR.

        Raises:
            ValueError: if there is no vector.
        """
        if not self.number:
            raise ValueError("found no utterance to measure; give frames of at least one")
        location = self.total / self.number
        spread = (self.squares / self.number - location.square()).clamp_min(0).sqrt()
        return location.float(), torch.where(spread > FLOOR, spread, 1.0).float()


def vector_statistics(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation, ``[F]`` each, of vectors ``[B, F]`` of utterances.

    Raises:
        ValueError: if there is no vector.
    """
    moments = _Moments()
    for vectors in batches:
        moments.add(vectors)
    return moments.result()


class Standardiser(nn.Module):
    """Gives each dimension of pooled frames mean 0 and deviation 1 over the training utterances.

    Until :meth:`fit` it changes nothing. It has no parameters, and its buffers are saved with the
    model. A vector depends on its own utterance only, so a score does not depend on the batch.

    Args:
        width: ``D`` for means of frames, ``2 D`` for means and deviations.
    """

    location: Tensor
    deviation: Tensor
    fitted: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("fitted", torch.zeros(()))

    def fit(self, statistics: FrameStatistics) -> None:
        """Use these statistics from now on."""
        width = len(self.location)
        self.location.copy_(statistics.location[:width])
        self.deviation.copy_(statistics.deviation[:width])
        self.fitted.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., width]`` standardised vectors."""
        return (x - self.location) / self.deviation


class VectorStandardiser(Standardiser):
    """Does the same for the vectors of utterances that heads get beside the frames.

    The vectors do not change in training, whatever the encoder learns. So they are always
    standardised.

    Args:
        width: ``F``.
    """

    def fit(self, statistics: FrameStatistics) -> None:
        """Use the statistics of the vectors from now on."""
        if statistics.vectors is not None:
            self.fit_vectors(*statistics.vectors)

    def fit_vectors(self, location: Tensor, deviation: Tensor) -> None:
        """Use these ``[F]`` statistics from now on."""
        self.location.copy_(location)
        self.deviation.copy_(deviation)
        self.fitted.fill_(1.0)


ADDED_LATER = (
    *(f".scale.{name}" for name in ("location", "deviation", "fitted")),
    *(f".null.{name}" for name in ("mean", "batches")),
)
"""Ends of the names of buffers that models lack which were saved before these existed."""


def standardisers(module: nn.Module) -> list[Standardiser]:
    """Return the standardisers of a head that are not fitted yet."""
    parts = [part for part in module.modules() if isinstance(part, Standardiser)]
    return [part for part in parts if not bool(part.fitted)]
