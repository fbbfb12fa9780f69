"""The mappers of SELM: frames to a prefix, and a prompt to a prefix.

:class:`AudioMapper` and :class:`TextMapper` are the parts that SELM learns beside its language
model. :class:`NullAudio` is the prefix of "no audio", which weighs the model's own preference.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...zoo.core.errors import ConfigError
from ...zoo.core.scaling import Standardiser
from ...zoo.core.types import Frames
from ..pooling import AttentiveStatistics, PoolingName, UtteranceVector, build_pooling

Reduction = Literal["queries", "adaptive", "vector", "stats", "mean"]
Constants = Literal["added", "appended"]

PLAIN: dict[str, PoolingName] = {"stats": "stats", "mean": "mean"}  # reductions without weights


class Projection(nn.Module):
    """``LayerNorm(W1 x + W2 GELU(W1 x))``, frame by frame: ``[..., D]`` to ``[..., W]``.

    Two linear layers with GELU follow summaries of SELM; residual and norm follow Pengi.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(dim, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.norm(x + self.dropout(self.second(nn.functional.gelu(x))))
        return out


class AudioMapper(nn.Module):
    """Maps any number of frames to a prefix of fixed length: ``[B, T, D]`` to ``[B, L, W]``.

    The frames are reduced to L positions and projected; then transformer layers follow. They also
    get learned constants. ``added`` adds one to each position (our choice). ``appended`` puts L
    constants after the positions, as in Pengi. The result is what the layers made of these last L
    positions, so they read the audio by attention only. The reductions:

    ``queries``: L learned queries weight the frames of speech and read their mean and standard
    deviation. The other heads do the same with one query, so heads do not differ in how they read
    the frames. Our choice.

    ``adaptive``: means over L segments of each utterance's own length (:func:`segment_means`).
    This is our reading of a sequence mapper.

    ``vector``: one attentive mean and standard deviation, projected; then a linear layer gives all
    L positions at once. Pengi's mapper also takes one vector.

    ``stats`` and ``mean``: as ``vector``, but of plain statistics of the frames. These are mean and
    standard deviation, or the mean. Other heads read the same vector with ``pooling=stats`` or
    ``pooling=mean``.

    The final norm starts at the size of the model's own token embeddings (our choice).

    Args:
        dim: ``D``, width of the frames.
        width: ``W``, width of the language model's embeddings.
        prefix: ``L``, number of positions.
        layers: transformer layers over the positions.
        dropout: dropout rate in training.
        size: root mean square of the result.
        reduction: ``queries``, ``adaptive``, ``vector``, ``stats`` or ``mean``.
        constants: ``added`` to the positions, or ``appended`` after them.

    Raises:
        ConfigError: if constants are appended, but no layer could read the audio into them.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        prefix: int,
        layers: int,
        dropout: float,
        size: float,
        reduction: Reduction = "queries",
        constants: Constants = "added",
    ) -> None:
        super().__init__()
        if constants == "appended" and layers < 1:
            raise ConfigError(
                f"constants=appended with mapper_layers={layers}: without a layer no audio reaches "
                "the prefix; set mapper_layers=1 or more, or constants=added"
            )
        self.prefix, self.reduction = prefix, reduction
        self.appended = constants == "appended"
        # appended ones start as in Pengi, and as large as the positions beside them
        self.spread_of_constants = 1.0 if self.appended else 0.1
        self.pool: nn.Module | None = None
        read = dim
        if reduction in ("queries", "vector"):
            pool = AttentiveStatistics(dim, queries=prefix if reduction == "queries" else 1)
            self.pool, read = pool, pool.width
        elif reduction in PLAIN:
            plain = build_pooling(PLAIN[reduction], dim)
            self.pool, read = plain, plain.width
        self.scale = Standardiser(read)
        self.read = nn.LayerNorm(read)
        self.project = Projection(read, width, dropout)
        self.one = reduction not in ("queries", "adaptive")
        if self.one:
            self.spread = nn.Linear(width, prefix * width)
        self.constants = nn.Parameter(self.spread_of_constants * torch.randn(prefix, width))
        self.layers = nn.ModuleList(mapper_layer(width, dropout) for _ in range(layers))
        self.norm = SizedNorm(width, size)
        self.width, self.dropout = width, dropout
        self.beside: nn.ModuleList | None = None

    def read_utterance(self, width: int) -> None:
        """Give the utterance's vector, of this width, the last position from now on."""
        self.beside = nn.ModuleList(
            [UtteranceVector(width, self.dropout), Projection(width, self.width, self.dropout)]
        )
        constant = self.spread_of_constants * torch.randn(1, self.width)
        self.constants = nn.Parameter(torch.cat([self.constants.data, constant]))

    def forward(self, frames: Frames) -> Tensor:
        out = self.project(self.read(self.scale(self._reduced(frames))))
        if self.one:
            out = self.spread(out).view(len(out), self.prefix, -1)
        if self.beside is not None:
            vector, project = self.beside
            out = torch.cat([out, project(vector(frames)).unsqueeze(1)], 1)
        if self.appended:
            constants = self.constants.to(out.dtype).expand(len(out), -1, -1)
            out = torch.cat([out, constants], 1)
        else:
            out = out + self.constants
        for layer in self.layers:
            out = layer(out)
        mapped: Tensor = self.norm(out[:, -len(self.constants) :])
        return mapped

    def _reduced(self, frames: Frames) -> Tensor:
        """Return ``[B, L, width]``, or ``[B, 1, width]`` for one vector of the utterance."""
        if self.pool is None:
            return segment_means(frames, self.prefix)
        if isinstance(self.pool, AttentiveStatistics):
            return self.pool.statistics(frames)
        pooled: Tensor = self.pool(frames)
        return pooled.unsqueeze(1)

    @property
    def reads_frames(self) -> bool:
        """Whether it uses more than the mean and deviation of the frames."""
        return self.pool is None or isinstance(self.pool, AttentiveStatistics)


class TextMapper(nn.Module):
    """Transformer layers over the token embeddings of a prompt, ``[1, Lt, W]`` to the same shape.

    SELM has one layer, according to summaries. The final norm is that of :class:`AudioMapper`
    (our choice).
    """

    def __init__(self, width: int, layers: int, dropout: float, size: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(mapper_layer(width, dropout) for _ in range(layers))
        self.norm = SizedNorm(width, size)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        mapped: Tensor = self.norm(x)
        return mapped


def segment_means(frames: Frames, segments: int) -> Tensor:
    """Return ``[B, L, D]`` float32: adaptive average pooling of ``[B, T, D]`` over speech.

    Segment j of an utterance of n frames is the mean of its frames ``floor(j n / L)`` to
    ``ceil((j + 1) n / L) - 1``. Neighbours may share a frame, and if n < L, frames repeat. No
    segment contains padding.
    """
    x = frames.x.float().masked_fill(~frames.mask.unsqueeze(-1), 0.0)
    n = frames.mask.sum(1)[:, None]  # [B, 1]
    j = torch.arange(segments, device=x.device)
    first, last = j * n // segments, -(-(j + 1) * n // segments)  # [B, L]
    place = frames.mask.cumsum(1)[:, None] - 1  # [B, 1, T]: index among the frames of speech
    inside = (place >= first[..., None]) & (place < last[..., None]) & frames.mask[:, None]
    weights = inside.float() / inside.sum(-1, keepdim=True).clamp_min(1)
    with torch.autocast(x.device.type, enabled=False):
        return weights @ x


def heads_for(width: int) -> int:
    """Return the number of attention heads: 8 as in Pengi, or the largest divisor below 8."""
    return next(n for n in (8, 4, 2, 1) if width % n == 0)


def mapper_layer(width: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Return a pre-norm transformer layer with MLP ratio 2, as in Pengi, and GELU (our choice)."""
    layer = nn.TransformerEncoderLayer(
        width, heads_for(width), 2 * width, dropout, "gelu", batch_first=True, norm_first=True
    )
    layer.self_attn.dropout = 0.0  # dropout on attention weights needs a slower kernel
    return layer


class SizedNorm(nn.Module):
    """A layer norm times a fixed size, the root mean square of the model's token embeddings.

    The size is not part of the norm's weights. These would then start near 0.02. An optimiser
    step that is small for a weight near 1 would change the prefix by several per cent.
    """

    def __init__(self, width: int, size: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.size: Tensor
        # saved, because it was measured on random weights
        self.register_buffer("size", torch.tensor(size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.size * self.norm(x)
        return out


NullName = Literal["mean", "zeros"]

MEMORY = 100.0
"""Number of batches over which the mean prefix is averaged (our choice)."""


class NullAudio(nn.Module):
    """A prefix without information about an utterance.

    Calibration by a content-free input is from Zhao et al. 2021 (arXiv 2102.09690). Which input
    means "no audio" is our choice.

    Args:
        kind: ``mean`` is the running average of the prefixes of training. ``zeros`` is the mapper's
            output for a single frame of zeros.
        prefix: ``L``, number of positions.
        width: ``W``, width of the language model's embeddings.
    """

    def __init__(self, kind: NullName, prefix: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        # both kinds keep the average, so that a trained model can be asked either way
        self.mean: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(1, prefix, width))
        self.register_buffer("batches", torch.zeros(()))

    def follow(self, prefix: Tensor, weight: Tensor) -> None:
        """Update the mean with a batch of prefixes ``[B, L, W]`` of weights ``[B]``."""
        if not weight.any():
            return
        share = (weight / weight.sum()).to(self.mean.dtype)[:, None, None]
        kept = torch.where(share > 0, prefix.to(self.mean.dtype), 0.0)
        self.batches += 1
        self.mean.lerp_((share * kept).sum(0, keepdim=True), 1 / self.batches.clamp_max(MEMORY))

    def forward(self, mapper: nn.Module, dim: int, utterance: int = 0) -> Tensor:
        """Return the prefix ``[1, L, W]``.

        Args:
            mapper: the audio mapper, for ``zeros``.
            dim: width of the frame of zeros that the mapper gets.
            utterance: width of the vector of zeros beside it; 0 = none.
        """
        if self.kind == "mean":
            return self.mean
        weight = next(mapper.parameters())
        nothing = torch.zeros(1, 1, dim, device=weight.device)
        mask = torch.ones(1, 1, dtype=torch.bool, device=weight.device)
        vector = torch.zeros(1, utterance, device=weight.device) if utterance else None
        out: Tensor = mapper(Frames(nothing, mask, vector))
        return out
