"""Pooling: frames to one vector per utterance, without padding.

:class:`PooledEmbedding` is the common first step of the utterance heads. It uses one of
:class:`MeanPooling`, :class:`StatsPooling` and :class:`AttentiveStatistics`. Frames that do not
learn (stored features, a frozen encoder) take a faster way on the CPU, :func:`attentive_stats` and
:func:`.moments_of`.

All of it computes in float32, under autocast too. A sum over hundreds of frames in bfloat16 loses
the differences between emotions.
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..zoo.core.errors import DataError
from ..zoo.core.head import Head
from ..zoo.core.scaling import Standardiser, VectorStandardiser, moments_of
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames
from .widen import more_inputs

# Fast pooling of frames that do not learn. For a small head on stored features, memory limits the
# speed of a step. A pass over the frames costs more than its arithmetic. A new tensor of their size
# costs more than a pass. So this code reads the frames as they are stored, in few passes through
# the same memory. It keeps nothing of their size between forward and backward. Tests compare its
# numbers with the plain formulas below.


def worthwhile(x: Tensor) -> bool:
    """Return whether the fast way applies: the frames are constant and on the CPU.

    A GPU is faster with few large kernels, which the plain formulas use.
    """
    if torch.compiler.is_compiling():  # a tracer needs the plain formulas
        return False
    return x.device.type == "cpu" and not x.requires_grad


def centre(x: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``[B, 1, D]``, a vector near the mean of each utterance, from every eighth frame."""
    few, speech = x[:, ::8].to(dtype), mask[:, ::8, None]
    return few.masked_fill(~speech, 0.0).sum(1, keepdim=True) / speech.sum(1, True).clamp_min(1)


_kept = threading.local()
KEPT_BYTES = 64 << 20  # enough for a batch of clips; a long recording allocates its own memory


def scratch(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return memory of this shape, the same memory at every call.

    New memory pages cost more time than the arithmetic. The caller may use the memory until the
    next call in the same thread.
    """
    size = shape.numel()
    if dtype != torch.float32 or size * 4 > KEPT_BYTES:
        return torch.empty(shape, dtype=dtype)
    kept: Tensor | None = getattr(_kept, "memory", None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):  # otherwise training could not write to it
            kept = _kept.memory = torch.empty(size)
    return kept[:size].view(shape)


class AttentiveStats(torch.autograd.Function):
    """Mean and variance of constant frames under learned weights.

    We timed a training step of the classification head on one core: 32 utterances, 150 frames,
    width 768. The plain formulas take 2.7 times as long in float32, 4.4 times in bfloat16. For 16
    frames of width 192 both take equally long.

    The weights are ``w = softmax_t(v . tanh(W n(x_t) + b))``. Here n is the layer normalisation
    without its affine part, which is folded into W and b. ``W n(x) = (W x - m sum(W)) / s`` with
    the mean m and the deviation s of a frame over D. So no normalised copy is needed.
    ``s^2 = E x^2 - m^2`` is accurate, because a frame's mean is about as large as its deviation.
    This holds in every encoder here.

    The statistics use ``y_t = x_t - c`` with c near the utterance's plain mean, so they do not
    cancel: ``mean = c + sum_t w_t y_t`` and ``variance = sum_t w_t y_t^2 - (sum_t w_t y_t)^2``.

    The product with W has the precision of the frames. Frames that are stored in bfloat16 are
    multiplied in bfloat16. The error is as large as that of storing them (one part in 500). A
    processor with bfloat16 units is several times as fast. All else is float32.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor, W: Tensor, b: Tensor, v: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance, ``[B, Q, D]`` each, in float32.

        Args:
            ctx: the context of autograd.
            x: ``[B, T, D]`` frames of any floating type.
            mask: ``[B, T]`` bool, True = speech.
            W: ``[H, D]`` weights of the hidden layer.
            b: ``[H]`` its bias.
            v: ``[Q, H]`` weights of the queries.
            eps: added to the variance of a frame.
        """
        y = scratch(x.shape, v.dtype).copy_(x)
        norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        if not bool(norm.isfinite().all()):  # NaN after the end: weight 0 times NaN is NaN
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
            norm = torch.linalg.vector_norm(y.copy_(x), dim=-1, keepdim=True)
        m = y.mean(-1, keepdim=True)
        power = norm.square_().div_(x.shape[-1])
        inverse = power.addcmul_(m, m, value=-1).clamp_min_(0).add_(eps).rsqrt_()
        inner = (x @ W.T.to(x.dtype)).to(v.dtype).addcmul_(m, W.sum(1), value=-1)
        h = inner.mul_(inverse).add_(b).tanh_()  # [B, T, H]
        logits = (h @ v.T).mT.masked_fill(~mask.unsqueeze(1), float("-inf"))
        weights = logits.softmax(-1)  # [B, Q, T]
        c = centre(x, mask, v.dtype)
        shift = weights @ y.sub_(c)
        variance = (weights @ y.square_()).addcmul_(shift, shift, value=-1)
        ctx.save_for_backward(x, c, v, m, inverse, h, weights, shift)
        return shift + c, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of W, b and v."""
        x, c, v, m, inverse, h, weights, shift = ctx.saved_tensors
        to_mean, to_variance = gradients
        y = scratch(x.shape, v.dtype).copy_(x).sub_(c)
        # gradient of the weights, up to a constant over time
        back = (to_mean - 2 * to_variance * shift) @ y.mT
        back += to_variance @ y.square_().mT
        back = weights * (back - (weights * back).sum(-1, keepdim=True))
        out_v = (back @ h).sum(0)
        inner = (back.mT @ v).mul_(1 - h.square())  # [B, T, H]
        out_b = inner.sum((0, 1))
        inner = inner.mul_(inverse).flatten(0, 1)
        out_W = (inner.T.to(x.dtype) @ x.flatten(0, 1)).to(v.dtype)
        out_W -= inner.T @ m.flatten(0, 1)
        return None, None, out_W, out_b, out_v, None


def attentive_stats(
    x: Tensor, mask: Tensor, norm: nn.LayerNorm, linear: nn.Linear, last: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Return mean and variance, ``[B, Q, D]`` each, under attentive weights.

    The weights are ``softmax_t(last(tanh(linear(norm(x)))))``.
    """
    W = linear.weight * norm.weight
    b = linear.weight @ norm.bias + linear.bias
    found: tuple[Tensor, Tensor] = AttentiveStats.apply(  # type: ignore[no-untyped-call]
        x, mask, W, b, last.weight, norm.eps
    )
    return found


# Pooling layers, by plain formulas.

PoolingName = Literal["mean", "stats", "attentive"]

VARIANCE_FLOOR = 1e-5  # smallest variance with a gradient; below are single frames and silence


def weighted_stats(x: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean and standard deviation over frames.

    ``mu = sum_t w_t x_t`` and ``sd = sqrt(max(sum_t w_t (x_t - mu)^2, floor))``. The shorter
    formula for the variance, ``E[x^2] - mu^2``, cancels in float32 if the mean is large.

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
    """Return the ``[B, T, D]`` float32 frames, zero where the mask is False.

    Multiplying by the mask is not enough: 0 times NaN is NaN.
    """
    return frames.x.float().masked_fill(~frames.mask.unsqueeze(-1), 0.0)


def _joined(mean: Tensor, variance: Tensor) -> Tensor:
    """Return ``[..., 2 D]`` means and standard deviations from means and variances."""
    return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=-1)


class MeanPooling(nn.Module):
    """Mean over the frames of speech.

    Args:
        dim: ``D``, width of the frames.

    Attributes:
        width: width of the pooled vector, here ``D``.
        reads_frames: whether it uses more than mean and deviation of the frames.
    """

    reads_frames = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(self, frames: Frames) -> Tensor:
        """Return the ``[B, width]`` float32 vectors of the utterances."""
        return frames.mean()


class StatsPooling(nn.Module):
    """Mean and standard deviation over the frames of speech.

    Args:
        dim: ``D``, width of the frames.

    Attributes:
        width: width of the pooled vector, here ``2 D``.
        reads_frames: as that of :class:`MeanPooling`.
    """

    reads_frames = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = 2 * dim

    def forward(self, frames: Frames) -> Tensor:
        """Return the ``[B, width]`` float32 vectors of the utterances."""
        if worthwhile(frames.x):
            # In the step of AttentiveStats with this pooling, the plain formulas take 6.9 times as
            # long in float32. In bfloat16 it is 6.5 times. For 16 frames of width 192 it is 0.7.
            return _joined(*moments_of(frames))
        weights = frames.mask.float()
        return weighted_stats(_clean(frames), weights / weights.sum(1, keepdim=True).clamp_min(1.0))


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation of the frames under learned weights.

    This is attentive statistics pooling (Okabe et al., 2018, "Attentive statistics pooling for deep
    speaker embedding"). ``w = softmax_t(v . tanh(W x_t + b))`` over the frames of speech, then
    :func:`weighted_stats`. Layer normalisation of the frames before ``W`` is our choice. The
    weights of encoders of any scale then start neither flat nor saturated.

    Args:
        dim: ``D``, width of the frames.
        hidden: width of the attention's hidden layer.
        queries: Q, the number of weightings of the frames.

    Attributes:
        width: width of the pooled vector, here ``2 D``.
        reads_frames: as that of :class:`MeanPooling`.
    """

    reads_frames = True

    def __init__(self, dim: int, hidden: int = 64, queries: int = 1) -> None:
        super().__init__()
        self.width = 2 * dim
        # no bias in the last layer: the softmax over frames cancels it
        self.attention = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.Tanh(),
            nn.Linear(hidden, queries, bias=False),
        )  # fmt: skip

    def weights(self, frames: Frames) -> Tensor:
        """Return ``[B, Q, T]`` weights of the frames: 0 at padding, and each row sums to 1."""
        with torch.autocast(frames.x.device.type, enabled=False):
            logits: Tensor = self.attention(frames.x.float()).transpose(1, 2)
            return logits.masked_fill(~frames.mask.unsqueeze(1), float("-inf")).softmax(-1)

    def statistics(self, frames: Frames) -> Tensor:
        """Return ``[B, Q, width]`` float32: mean and standard deviation for every query."""
        with torch.autocast(frames.x.device.type, enabled=False):
            if worthwhile(frames.x):
                norm, linear, _, last = self.attention
                return _joined(
                    *attentive_stats(frames.x, frames.mask, norm, linear, last)  # type: ignore[arg-type]
                )
            frames = Frames(_clean(frames), frames.mask)
            return weighted_stats(frames.x.unsqueeze(1), self.weights(frames))

    def forward(self, frames: Frames) -> Tensor:
        """Return the ``[B, width]`` float32 vectors of the utterances, by the first query."""
        return self.statistics(frames)[:, 0]


class UtteranceVector(nn.Module):
    """The vectors beside the frames: standardised by the training part, normalised, dropped out.

    Args:
        width: ``F``, width of the vectors.
        dropout: dropout rate in training.
        norm: whether a layer normalisation follows.
    """

    def __init__(self, width: int, dropout: float = 0.0, *, norm: bool = True) -> None:
        super().__init__()
        self.scale = VectorStandardiser(width)
        self.norm: nn.Module = nn.LayerNorm(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Frames) -> Tensor:
        """Return ``[B, F]`` float32.

        Raises:
            DataError: if the frames have no vectors.
        """
        if frames.utterance is None:
            raise DataError(
                "this model reads a vector of each utterance beside its frames, and there is none; "
                "give audio, or set Batch.utterance (Encoder.vectors makes it)"
            )
        vectors: Tensor = self.dropout(self.norm(self.scale(frames.utterance.float())))
        return vectors


class PooledEmbedding(nn.Module):
    """Pooling, normalisation and dropout: the common first step of the utterance heads.

    All utterance heads share it, so that they do not differ in how they read the frames. Pooled
    values are standardised by the training part if the encoder is steady
    (:mod:`serzoo.zoo.core.scaling`); then a layer normalisation follows. Both see one utterance at
    a time, so a score does not depend on the batch.

    Args:
        dim: ``D``, width of the frames.
        pooling: ``mean``, ``stats`` (mean and standard deviation) or ``attentive``.
        dropout: dropout rate of the pooled values, in training.

    Attributes:
        width: width of the vector.
        beside: reads the vectors of utterances; None if there are none.
    """

    def __init__(self, dim: int, pooling: PoolingName, dropout: float) -> None:
        super().__init__()
        self.pooling = build_pooling(pooling, dim)
        self.width = self.pooling.width
        self.scale = Standardiser(self.width)
        self.norm = nn.LayerNorm(self.width)
        self.dropout = nn.Dropout(dropout)
        self.beside: UtteranceVector | None = None

    def read_utterance(self, width: int) -> None:
        """Append the utterances' vectors, of this width, to the pooled frames from now on."""
        self.beside = UtteranceVector(width, self.dropout.p)
        self.width += width

    def joined(self, state: Tensor, frames: Frames) -> Tensor:
        """Return pooled frames ``[B, D]``, followed by the utterances' vectors if there are any."""
        return state if self.beside is None else torch.cat([state, self.beside(frames)], -1)

    def forward(self, frames: Frames) -> Tensor:
        """Return the ``[B, width]`` vectors of the utterances."""
        pooled: Tensor = self.dropout(self.norm(self.scale(self.pooling(frames))))
        return self.joined(pooled, frames)


class PooledHead(Head):
    """A head whose first step is one vector per utterance, and whose next layer reads it.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        dropout: dropout rate of the pooled values, in training.

    Attributes:
        embed: frames to ``[B, embed.width]``.
        reader: name of the attribute that reads these vectors: a linear layer, or a sequence that
            begins with one. A subclass makes it.
    """

    reader: ClassVar[str] = "output"

    def __init__(self, dim: int, taxonomy: Taxonomy, pooling: PoolingName, dropout: float) -> None:
        super().__init__(dim, taxonomy)
        self.embed = PooledEmbedding(dim, pooling, dropout)

    def layers(self, hidden: int, out: int, *, bias: bool = True) -> nn.Sequential:
        """Return a linear layer of ``out`` outputs, or two with a GELU between them.

        Args:
            hidden: width of the hidden layer; 0 = none.
            out: number of outputs.
            bias: whether the last layer has one.
        """
        width = self.embed.width
        first: list[nn.Module] = []
        if hidden:
            dropout = nn.Dropout(self.embed.dropout.p)
            first = [nn.Linear(width, hidden), nn.GELU(), dropout]
        return nn.Sequential(*first, nn.Linear(hidden or width, out, bias=bias))

    @property
    def reads_frames(self) -> bool:
        return self.embed.pooling.reads_frames

    def add_utterance(self, width: int) -> None:
        """Append the utterances' vectors to the pooled frames."""
        self.embed.read_utterance(width)
        layer = getattr(self, self.reader)
        if isinstance(layer, nn.Sequential):
            layer[0] = more_inputs(layer[0], width)  # type: ignore[arg-type]
        else:
            setattr(self, self.reader, more_inputs(layer, width))


def build_pooling(name: PoolingName, dim: int) -> MeanPooling | StatsPooling | AttentiveStatistics:
    """Return the pooling layer of this name for frames of width ``dim``."""
    if name == "mean":
        return MeanPooling(dim)
    return StatsPooling(dim) if name == "stats" else AttentiveStatistics(dim)
