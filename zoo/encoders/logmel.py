"""The log-mel encoder, the offline default: a small residual network, trained from scratch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.registry import Amount, Count, Dropout, Size
from ..core.types import Frames
from .mel import OnMel, strides_first


class MaskedBatchNorm(nn.Module):
    """Batch normalisation of ``[B, C, T, F]`` over real frames only (Ioffe & Szegedy 2015).

    A mask of None means that all frames are real; this case uses one fused kernel.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise ``[B, C, T, F]`` by mask ``[B, T]``.

        The result is zero where the mask is False.
        """
        norm = nn.functional.batch_norm
        if mask is None:
            return norm(
                x, self.mean, self.variance, self.weight, self.bias, self.training,
                self.momentum, self.eps,
            )  # fmt: skip
        cells = mask[:, None, :, None].to(x.dtype)
        mean, variance = self.mean, self.variance
        if self.training:
            real = (x.float() * cells, cells.sum() * x.shape[3])
            mean = real[0].sum((0, 2, 3)) / real[1]
            centred = (x.float() - mean[:, None, None]) * cells
            variance = centred.square().sum((0, 2, 3)) / real[1]
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                # the running variance is the unbiased one, as in torch
                self.variance.lerp_(variance * real[1] / (real[1] - 1).clamp_min(1), self.momentum)
            scale = (variance + self.eps).rsqrt() * self.weight
            y = centred * scale[:, None, None] + self.bias[:, None, None]
            return (y * cells).to(x.dtype)
        return norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps) * cells


class Block(nn.Module):
    """Two 3x3 convolutions around a strided, projected skip connection."""

    def __init__(self, before: int, width: int, stride: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.stride, self.dropout = stride, dropout
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        # the layer itself is strided: slicing before it would lose the fast memory layout
        self.skip = nn.Conv2d(before, width, 1, stride if stride[0] > 1 else 1, bias=False)
        self.norm1, self.norm2, self.norm3 = (MaskedBatchNorm(width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        time, mel = self.stride
        mask = None if mask is None else mask[:, ::time]
        y = self.norm1(self.conv1(x), mask).relu_()
        y = self.norm2(self.conv2(nn.functional.dropout2d(y, self.dropout, self.training)), mask)
        if time == 1:  # only mel is halved: average pairs of bands
            x = nn.functional.avg_pool2d(x, (1, mel), ceil_mode=True, count_include_pad=False)
        x = self.norm3(self.skip(x), mask)
        return (x + y).relu_(), mask


class LogMelEncoder(OnMel):
    """Log-mel spectrogram to frames of 128 ms, by a residual network of about 1 M parameters.

    ``extract`` is :class:`.mel.LogMel`, which has no parameters; ``forward`` learns. The network
    sees two views of the spectrogram. One is without the utterance's mean spectrum (voice and
    channel removed). The other is without its mean level (timbre kept). All of this is our choice;
    ``docs/concepts/log-mel-recipe.md`` shows the alternatives that were compared.

    In training the spectrogram is augmented (tempo and crop to one common length, mel shift,
    SpecAugment). Evaluation is float32, and the frames of an utterance do not depend on its
    neighbours.

    Args:
        bands: number of mel bands.
        dim: ``D``, width of the frames.
        widths: channels of the stem and of the three residual blocks.
        dropout: dropout rate of channels inside the blocks, in training.
        stretch: largest change of tempo in training, as a natural logarithm.
        shift: largest shift along the mel axis in training, in bands.
        masks: number of hidden stretches per axis in training.
        bfloat16: convolve in bfloat16 in training; this is several times faster on processors with
            matrix units for it. Weights and statistics stay float32.
    """

    stride = 8  # frames of 16 ms

    def __init__(
        self,
        *,
        bands: Size = 64,
        dim: Size = 192,
        widths: tuple[int, ...] = (32, 64, 128, 192),
        dropout: Dropout = 0.1,
        stretch: Amount = 0.2,
        shift: Amount = 3.0,
        masks: Count = 2,
        bfloat16: bool = True,
    ) -> None:
        super().__init__(dim, bands, stretch=stretch, shift=shift, masks=masks, bfloat16=bfloat16)
        self.stem = nn.Conv2d(2, widths[0], 5, 2, 2, bias=False)
        self.norm = MaskedBatchNorm(widths[0])
        strides = [(2, 2), (2, 2), (1, 2)]
        self.blocks = nn.ModuleList(
            Block(before, width, stride, dropout)
            for before, width, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        left = math.ceil(bands / 16)
        self.out = nn.Linear(widths[-1] * left, dim)
        self.out_norm = nn.LayerNorm(dim)
        strides_first(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        x, mask, frames = self.prepared(hidden, mask)
        x = self.with_holes(self._views(x, mask))
        inner = None if bool(mask.all()) else mask[:, ::2]
        with self.autocast(x):
            x = self.stem(x.contiguous(memory_format=torch.channels_last))
            x = self.norm(x, inner).relu_()
            for block in self.blocks:
                x, inner = block(x, inner)
            x = self.out(x.permute(0, 2, 1, 3).flatten(2))
        mask = mask[:, :: self.stride][:, :frames]
        x = self.out_norm(x.float()[:, :frames]).relu()
        return Frames(x * mask[..., None], mask)

    @staticmethod
    def _views(x: Tensor, mask: Tensor) -> Tensor:
        """Return ``[B, 2, T, F]``: ``x`` minus its mean spectrum, and ``x`` minus its mean level.

        Neither depends on the loudness of the whole recording.
        """
        cells = mask[:, None, :, None].to(x.dtype)
        mean = (x * cells).sum(2, keepdim=True) / cells.sum(2, keepdim=True)
        return torch.cat([x - mean, x - mean.mean(3, keepdim=True)], 1) * cells
