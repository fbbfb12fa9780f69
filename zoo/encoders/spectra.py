"""Spectral inputs that published encoders were trained on, batched and on any device.

Each equals the feature extractor of ``transformers`` for the same model (tests compare them), with
its constants; an utterance's values do not depend on its batch neighbours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank, window_function

from ..types import SAMPLE_RATE
from .mel_spectrogram import frame_mask

HOP, WINDOW = 160, 400  # samples: 10 ms and 25 ms, in both


def whisper_log_mel(audio: Tensor, bins: int) -> Tensor:
    """Whisper's log-mel spectrogram (Radford et al. 2022, arXiv 2212.04356, section 2.2).

    Args:
        audio: ``[B, S]`` float32, zero-padded to the model's window.
        bins: mel bins, 80 or 128.

    Returns:
        ``[B, bins, S / 160]``, scaled to about -1..1.5 by the utterance's own maximum.
    """
    filters = mel_filter_bank(
        1 + WINDOW // 2, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    mel = torch.from_numpy(filters).to(audio.device, torch.float32)
    window = torch.hann_window(WINDOW, device=audio.device)
    spectrum = torch.stft(audio.float(), WINDOW, HOP, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    bel = (mel.T @ power).clamp_min(1e-10).log10()
    return (torch.maximum(bel, bel.amax((1, 2), keepdim=True) - 8) + 4) / 4


def kaldi_filter_bank(audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """80 log-mel energies after Kaldi, normalised per bin, two frames stacked (w2v-BERT 2.0).

    Args:
        audio: ``[B, S]`` float32, zero behind the real samples.
        lengths: ``[B]`` real samples, at least 560 (two frames).

    Returns:
        ``[B, T, 160]``, zero behind the real frames, and their counts ``[B]``.
    """
    filters = mel_filter_bank(
        257, 80, 20, SAMPLE_RATE // 2, SAMPLE_RATE,
        norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    mel = torch.from_numpy(filters).to(audio.device, torch.float64)
    window = torch.from_numpy(window_function(WINDOW, "povey", periodic=False)).to(audio.device)
    # the bins are normalised over time, so what is lost in rounding would be amplified
    frames = (audio.double() * 2**15).unfold(1, WINDOW, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    first = frames[..., :1] * (1 - 0.97)
    frames = torch.cat([first, frames[..., 1:] - 0.97 * frames[..., :-1]], -1) * window
    # rounded where the published extractor rounds
    power = torch.fft.rfft(frames, n=512).to(torch.complex64).to(torch.complex128).abs().square()
    energy = (power @ mel).clamp_min(1.192092955078125e-07).log().float().double()

    counts = (lengths - WINDOW) // HOP + 1
    real = frame_mask(counts, energy.shape[1])[..., None]
    n = counts[:, None, None]
    mean = (energy * real).sum(1, keepdim=True) / n
    centred = (energy - mean) * real
    variance = centred.square().sum(1, keepdim=True) / (n - 1)
    normed = centred / torch.sqrt(variance + 1e-7)
    pairs = normed.shape[1] // 2
    stacked = normed[:, : 2 * pairs].reshape(len(audio), pairs, 160).float()
    counts = counts // 2
    return stacked * frame_mask(counts, pairs)[..., None], counts


def windows(audio: Tensor, size: int) -> Tensor:
    """``[B, S]`` to ``[B, n, size]``, the last window filled up with zeros."""
    number = max(1, math.ceil(audio.shape[1] / size))
    padded = torch.nn.functional.pad(audio, (0, number * size - audio.shape[1]))
    return padded.view(len(audio), number, size)
