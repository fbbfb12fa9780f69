"""Augmentation of log-mel spectrograms in training: tempo, pitch, hidden stretches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def resample(x: Tensor, lengths: Tensor, size: int, shift: Tensor) -> Tensor:
    """Stretch every utterance to one length and move it along the mel axis, by interpolation.

    Args:
        x: ``[B, 1, T, F]``.
        lengths: ``[B]`` real frames.
        size: frames of the result.
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
    """All utterances of a batch at one common length: random tempo, random crop, random mel shift.

    One length for all leaves no padding, so that batch statistics need no mask; a multiple of 16
    frames keeps the number of different shapes, for each of which kernels are prepared, small.
    Utterances much longer than the others are cropped at random.

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
        number: stretches per utterance.
        widest: largest width, in frames or bands.
    """
    size = x.shape[axis]
    place = torch.arange(size, device=x.device)
    for _ in range(number):
        width = torch.rand(len(x), 1, device=x.device) * min(widest, size)
        start = torch.rand(len(x), 1, device=x.device) * (size - width)
        kept = (place < start) | (place >= start + width)
        x = x * (kept[:, None, :, None] if axis == 2 else kept[:, None, None, :])
    return x
