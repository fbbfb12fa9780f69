"""The common parts of the encoders from scratch, which read log-mel spectrograms.

:class:`LogMel` turns audio into log-mel spectrograms. It has no parameters and sees one utterance
at a time. :func:`tempo_and_pitch` and :func:`hide` augment spectrograms in training. :class:`OnMel`
is the base class of the encoders. :func:`strides_first` avoids a fault of oneDNN.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.encoder import Encoder
from ..core.types import SAMPLE_RATE

# Log-mel spectrograms.


def mel_filters(bands: int, n_fft: int, low: float, high: float) -> Tensor:
    """Return ``[n_fft // 2 + 1, bands]`` triangular filters, evenly spaced on the HTK mel scale.

    Args:
        bands: number of filters.
        n_fft: length of the Fourier transform, in samples at 16 kHz.
        low: lower edge of the first filter, in Hz.
        high: upper edge of the last filter, in Hz.
    """
    bottom, top = (2595 * math.log10(1 + hz / 700) for hz in (low, high))
    mel = torch.linspace(bottom, top, bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hz = torch.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rise = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp_min(0).float()


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """Return a mask ``[B, size]`` of ``[B]`` lengths: True where an index is below the length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class LogMel(nn.Module):
    """Log-mel spectrogram in bel (log10 of power), without leading and trailing silence.

    Frames that are more than ``trim`` bel below the loudest one are cut at both ends. In noise no
    frame is that quiet. So a second threshold lies between noise floor and loudest frame, at the
    share ``noise`` of the way up. The noise floor is the level that a tenth of the frames does not
    exceed. In a clean recording with pauses it is ``trim / (1 - noise)`` bel (6.2) or more below
    the loudest frame. Then nothing changes. Frames within ``loud`` bel of the loudest are never
    cut.

    Values are limited to at least ``floor`` bel below the loudest cell. The window is 32 ms, the
    hop 16 ms. That is about half the frames of the usual 10 ms, without a measurable loss of
    accuracy. All constants are our choice.

    Args:
        bands: number of mel bands between 50 Hz and 8 kHz.
    """

    win, hop, n_fft = 512, 256, 1024  # samples
    trim, floor = 4.0, 8.0  # bel
    margin = 3  # frames kept at each cut
    quiet, noise = 0.1, 0.35  # share of the frames below the noise floor; share of the way up
    loud = 1.0  # bel

    filters: Tensor
    window: Tensor

    def __init__(self, bands: int = 64) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(bands, self.n_fft, 50, 8000), persistent=False)
        self.register_buffer("window", torch.hann_window(self.win), persistent=False)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the spectrogram of an utterance."""
        return {
            "type": "logmel",
            "bands": self.filters.shape[1],
            "samples": [self.win, self.hop, self.n_fft],
            "bel": [self.trim, self.floor],
            "margin": self.margin,
            "noise": [self.quiet, self.noise, self.loud],
        }

    @torch.no_grad()
    def forward(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spectrogram ``[B, 1, T, bands]`` and its mask ``[B, T]``.

        Audio is ``[B, S]`` with lengths ``[B]`` of at least one sample. The last frame is filled
        up with zeros.
        """
        audio = audio.float() * frame_mask(lengths, audio.shape[1])
        count = (lengths - self.win).clamp_min(0).add(self.hop - 1) // self.hop + 1
        total = int(count.max())
        need = (total - 1) * self.hop + self.win
        audio = nn.functional.pad(audio, (0, max(0, need - audio.shape[1])))
        frames = audio[:, :need].unfold(1, self.win, self.hop)
        frames = (frames - frames.mean(-1, keepdim=True)) * self.window
        power = torch.fft.rfft(frames, n=self.n_fft).abs().square()
        mel = power @ self.filters + 1e-10

        real = frame_mask(count, total)
        energy = mel.sum(-1).log10().masked_fill(~real, -99.0)
        active = energy > self._threshold(energy, real)
        index = torch.arange(total, device=audio.device).expand_as(active)
        first = (index.masked_fill(~active, total).amin(1) - self.margin).clamp_min(0)
        last = index.masked_fill(~active, -1).amax(1) + self.margin
        size = torch.minimum(last, count - 1) - first + 1
        steps = torch.arange(int(size.max()), device=audio.device)
        pick = (first[:, None] + steps).clamp_max(total - 1)
        mel = mel.log10().gather(1, pick[..., None].expand(-1, -1, mel.shape[-1]))
        mask = frame_mask(size, len(steps))
        peak = mel.masked_fill(~mask[..., None], -99.0).amax((1, 2), keepdim=True)
        return (torch.maximum(mel, peak - self.floor) * mask[..., None])[:, None], mask

    def _threshold(self, energy: Tensor, real: Tensor) -> Tensor:
        """Return ``[B, 1]``: the level in bel that frames of speech exceed.

        Args:
            energy: ``[B, T]`` level of each frame.
            real: ``[B, T]``, False for padding.
        """
        peak = energy.amax(1, keepdim=True)
        heard = energy.masked_fill(~real, math.nan)
        floor = torch.nanquantile(heard, self.quiet, dim=1, keepdim=True)
        above = torch.minimum(floor + self.noise * (peak - floor), peak - self.loud)
        return torch.maximum(peak - self.trim, above)


# Augmentation in training.


def resample(x: Tensor, lengths: Tensor, size: int, shift: Tensor) -> Tensor:
    """Stretch every utterance to one length and shift it along the mel axis, by interpolation.

    Args:
        x: ``[B, 1, T, F]``.
        lengths: ``[B]`` number of real frames.
        size: number of frames of the result.
        shift: ``[B]`` mel bands; positive moves the content down.

    Returns:
        ``[B, 1, size, F]``.
    """
    batch, _, frames, bands = x.shape
    time = (torch.arange(size, device=x.device) + 0.5) * (lengths / size)[:, None] - 0.5
    time = torch.minimum(time.clamp_min(0), (lengths - 1)[:, None].to(time.dtype))
    band = torch.arange(bands, device=x.device) + shift[:, None]
    grid = torch.stack(
        [
            ((2 * band + 1) / bands - 1)[:, None].expand(batch, size, bands),
            ((2 * time + 1) / frames - 1)[..., None].expand(batch, size, bands),
        ],
        -1,
    )
    return nn.functional.grid_sample(
        x, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def tempo_and_pitch(x: Tensor, mask: Tensor, stretch: float, shift: float) -> Tensor:
    """Bring all utterances of a batch to one length, by random tempo, crop and mel shift.

    With one length there is no padding, so batch statistics need no mask. The length is a multiple
    of 16 frames, because kernels are prepared for each different shape. Utterances that are much
    longer than the others are cropped at random.

    Args:
        x: ``[B, 1, T, F]``.
        mask: ``[B, T]``.
        stretch: largest change of tempo, as a natural logarithm.
        shift: largest shift along the mel axis, in bands.

    Returns:
        ``[B, 1, T', F]``, without padding.
    """
    batch, lengths, device = len(x), mask.sum(1), x.device
    limit = math.exp(stretch)
    tempo = math.exp((2 * float(torch.rand(())) - 1) * stretch / 2)
    wish = min(float(lengths.float().median()) * tempo, 1.1 * limit * int(lengths.min()))
    size = max(16, (int(wish) + 8) // 16 * 16)
    keep = lengths.clamp_max(int(size * limit))
    start = (torch.rand(batch, device=device) * (lengths - keep + 1)).long()
    start = torch.minimum(start, lengths - keep)
    pick = start[:, None] + torch.arange(int(keep.max()), device=device)
    pick = pick.clamp_max(x.shape[2] - 1)
    x = x.gather(2, pick[:, None, :, None].expand(-1, 1, -1, x.shape[3]))
    moved = (2 * torch.rand(batch, device=device) - 1) * shift
    return resample(x, keep, size, moved)


def hide(x: Tensor, axis: int, number: int, widest: float) -> Tensor:
    """Set random stretches of an axis to zero (SpecAugment, Park et al. 2019, section 2).

    Args:
        x: ``[B, ..., T, F]``.
        axis: 2 (time) or 3 (mel).
        number: number of stretches per utterance.
        widest: largest width of a stretch, in frames or bands.
    """
    size = x.shape[axis]
    place = torch.arange(size, device=x.device)
    for _ in range(number):
        width = torch.rand(len(x), 1, device=x.device) * min(widest, size)
        start = torch.rand(len(x), 1, device=x.device) * (size - width)
        kept = (place < start) | (place >= start + width)
        x = x * (kept[:, None, :, None] if axis == 2 else kept[:, None, None, :])
    return x


# Base class of the encoders.


class OnMel(Encoder):
    """An encoder whose ``extract`` is :class:`LogMel`.

    Attributes:
        stride: number of spectrogram frames (16 ms) in a frame of the encoder.

    Args:
        dim: ``D``, width of the frames.
        bands: number of mel bands.
        stretch: largest change of tempo in training, as a natural logarithm.
        shift: largest shift along the mel axis in training, in bands.
        masks: number of hidden stretches per axis in training.
        bfloat16: compute in bfloat16 in training.
    """

    stride: int
    frame_seconds = LogMel.hop / SAMPLE_RATE

    def __init__(
        self, dim: int, bands: int, *, stretch: float, shift: float, masks: int, bfloat16: bool
    ) -> None:
        super().__init__()
        self.dim, self.low_precision = dim, bfloat16
        self.stretch = stretch
        self.shift = shift
        self.masks = masks
        self.frontend = LogMel(bands)

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return cast("tuple[Tensor, Tensor]", self.frontend(audio, lengths))

    def extraction(self) -> dict[str, Any]:
        return self.frontend.settings()

    @property
    def bytes_per_second(self) -> float:
        return 4 * self.frontend.filters.shape[1] / self.frame_seconds

    def prepared(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
        """Augment tempo and pitch in training; otherwise pad to a multiple of 32 frames.

        Args:
            hidden: ``[B, 1, T, F]`` spectrogram.
            mask: ``[B, T]`` its mask.

        Returns:
            The spectrogram ``[B, 1, T', F]``, its mask ``[B, T']``, and the number of encoder
            frames to keep.
        """
        x = hidden.float()
        if self.training:
            x = tempo_and_pitch(x, mask, self.stretch, self.shift)
            mask = mask.new_ones(x.shape[0], x.shape[2])
        frames = -(-x.shape[2] // self.stride)
        pad = -x.shape[2] % 32  # few different shapes, because kernels are prepared for each
        if pad and not self.training:
            x = nn.functional.pad(x, (0, 0, 0, pad))
            mask = nn.functional.pad(mask, (0, pad))
        return x, mask, frames

    def with_holes(self, x: Tensor) -> Tensor:
        """Set random stretches of time and bands of ``[B, C, T, F]`` to zero, in training."""
        if self.training:
            x = hide(x, 2, self.masks, min(20, 0.2 * x.shape[2]))
            x = hide(x, 3, self.masks, x.shape[3] / 8)
        return x

    def autocast(self, x: Tensor) -> torch.autocast:
        """Return low precision in training if it was chosen.

        Otherwise keep an enclosing autocast.
        """
        low = self.low_precision and self.training
        enabled = low or torch.is_autocast_enabled(x.device.type)
        return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled)


def strides_first(network: nn.Module) -> None:
    """Make narrow, strided 1x1 convolutions select every second input first; changes in place.

    oneDNN 3.12 writes beyond its memory in the backward pass of such a convolution. It does so with
    channels last and fewer channels than a block (issue 6035 of uxlfoundation/oneDNN). Gradients
    are then wrong, or the process dies, mostly with more than one thread. This change gives the
    same result. Wide convolutions keep their stride, which is faster.

    Args:
        network: the network; its weights keep their names and shapes.
    """
    block = 16  # channels in a block of oneDNN for AVX-512; 8 for AVX2
    for conv in network.modules():
        if not isinstance(conv, nn.Conv2d) or conv.in_channels >= block:
            continue
        if conv.kernel_size == (1, 1) and conv.stride != (1, 1):
            conv.register_forward_pre_hook(partial(_every, conv.stride))
            conv.stride = (1, 1)


def _every(stride: tuple[int, ...], module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
    """Return every ``stride``-th row and column of a convolution's input ``[B, C, T, F]``."""
    x = args[0][:, :, :: stride[0], :: stride[1]]
    return x.contiguous(memory_format=torch.channels_last)
