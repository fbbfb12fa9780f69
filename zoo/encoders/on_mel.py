"""What the encoders from scratch share: a log-mel front end, its augmentation, low precision."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..encoder import Encoder
from ..types import SAMPLE_RATE
from .augment import hide, tempo_and_pitch
from .mel_spectrogram import LogMel


class OnMel(Encoder):
    """An encoder whose ``extract`` is :class:`.mel_spectrogram.LogMel`.

    Attributes:
        stride: spectrogram frames of 16 ms in a frame of the encoder.

    Args:
        dim: ``D``, width of the frames.
        bands: mel bands.
        stretch: largest change of tempo in training, as a natural logarithm.
        shift: largest shift along the mel axis in training, in bands.
        masks: hidden stretches per axis in training.
        bfloat16: compute in bfloat16 in training.
    """

    stride: int
    frame_seconds = LogMel.hop / SAMPLE_RATE

    def __init__(
        self, dim: int, bands: int, *, stretch: float, shift: float, masks: int, bfloat16: bool
    ) -> None:
        super().__init__()
        self.dim, self.low_precision = dim, bfloat16
        self.stretch, self.shift, self.masks = stretch, shift, masks
        self.frontend = LogMel(bands)

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return cast("tuple[Tensor, Tensor]", self.frontend(audio, lengths))

    def extraction(self) -> dict[str, Any]:
        return self.frontend.settings()

    @property
    def bytes_per_second(self) -> float:
        return 4 * self.frontend.filters.shape[1] / self.frame_seconds

    def prepared(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
        """Tempo and pitch changed in training; padded to a multiple of 32 frames elsewhere.

        Args:
            hidden: ``[B, 1, T, F]``.
            mask: ``[B, T]``.

        Returns:
            The spectrogram ``[B, 1, T', F]``, its mask ``[B, T']``, and how many frames of the
            encoder are to be kept.
        """
        x = hidden.float()
        if self.training:
            x = tempo_and_pitch(x, mask, self.stretch, self.shift)
            mask = mask.new_ones(x.shape[0], x.shape[2])
        frames = -(-x.shape[2] // self.stride)
        pad = -x.shape[2] % 32  # few different shapes: kernels are prepared for each
        if pad and not self.training:
            x = nn.functional.pad(x, (0, 0, 0, pad))
            mask = nn.functional.pad(mask, (0, pad))
        return x, mask, frames

    def with_holes(self, x: Tensor) -> Tensor:
        """``[B, C, T, F]`` with stretches of time and bands set to zero, in training."""
        if self.training:
            x = hide(x, 2, self.masks, min(20, 0.2 * x.shape[2]))
            x = hide(x, 3, self.masks, x.shape[3] / 8)
        return x

    def autocast(self, x: Tensor) -> torch.autocast:
        """Low precision in training where it was chosen; else an enclosing autocast as it is."""
        low = self.low_precision and self.training
        enabled = low or torch.is_autocast_enabled(x.device.type)
        return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled)


def strides_first(network: nn.Module) -> None:
    """Make narrow, strided 1x1 convolutions take every second input first, in place.

    oneDNN 3.12 writes past its memory in the backward pass of such a convolution, with channels
    last and fewer channels than one block holds (issue 6035 of uxlfoundation/oneDNN). Gradients
    are wrong, or the process dies, mostly with more than one thread. The result is the same
    either way. Wide ones keep their stride, which is faster.

    Args:
        network: its weights keep their names and shapes.
    """
    block = 16  # channels in a block of oneDNN for AVX-512; 8 for AVX2
    for conv in network.modules():
        if not isinstance(conv, nn.Conv2d) or conv.in_channels >= block:
            continue
        if conv.kernel_size == (1, 1) and conv.stride != (1, 1):
            conv.register_forward_pre_hook(partial(_every, conv.stride))
            conv.stride = (1, 1)


def _every(stride: tuple[int, int], module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
    """Every ``stride``-th row and column of a convolution's input ``[B, C, T, F]``."""
    x = args[0][:, :, :: stride[0], :: stride[1]]
    return x.contiguous(memory_format=torch.channels_last)
