"""A model on one utterance without padding, as a module that can be traced.

The published modules are called directly; nothing looks at a value, and the length is the only
thing that may vary. What it gives is that of the model itself, up to rounding (tests compare).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..encoder import Encoder
from ..encoders.backbone import HFEncoder
from ..encoders.families import ConvolutionFamily, SEWFamily
from ..encoders.logmel import LogMelEncoder
from ..encoders.masked_norm import EPSILON
from ..errors import ExportError
from ..module import SERModule
from ..types import Frames


class Unpadded(nn.Module, ABC):
    """Input of one utterance to ``scores [1, C]`` and their softmax.

    Args:
        module: the model.

    Attributes:
        input: name of the input.
        axis: that varies in length.
        least: its smallest length.
    """

    input: str
    axis: int
    least: int

    def __init__(self, module: SERModule) -> None:
        super().__init__()
        self.encoder: Any = module.encoder
        self.head = module.head
        self.temperature = 1.0 if module.temperature is None else module.temperature

    @abstractmethod
    def example(self) -> Tensor:
        """An input to trace with."""

    @abstractmethod
    def frames(self, x: Tensor) -> Tensor:
        """The input to ``[1, T, D]``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.frames(x)
        mask = torch.ones_like(frames[..., 0], dtype=torch.bool)
        scores = self.head.scores(Frames(frames, mask), self.head.taxonomy).float()
        return scores, (scores / self.temperature).softmax(-1)


class UnpaddedAudio(Unpadded):
    """Published encoders of the convolutional families: ``audio [1, samples]``."""

    input, axis = "audio", 1

    def __init__(self, module: SERModule) -> None:
        super().__init__(module)
        self.family: Any = self.encoder.family
        self.least = int(self.family.min_samples)

    def example(self) -> Tensor:
        return 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))

    def frames(self, x: Tensor) -> Tensor:
        family = self.family
        hidden = self.before_blocks(x)
        handed, states = None, {}
        for k, block in enumerate(family.blocks):
            states[k] = hidden
            hidden, handed = family.step(block, hidden, handed, {"attention_mask": None})
        states[len(family.blocks)] = family.finish(hidden)
        kept = torch.stack([states[k] for k in self.encoder.layers], 1)
        mixed: Tensor = self.encoder.mix(kept)
        return mixed

    def before_blocks(self, x: Tensor) -> Tensor:
        """Samples to the input of the first block."""
        family = self.family
        if family.normalise:
            x = x - x.mean(1, keepdim=True)
            x = x / torch.sqrt(x.square().mean(1, keepdim=True) + EPSILON)
        features = x[:, None]
        for layer in family.model.feature_extractor.conv_layers:
            features = layer(features)
        hidden: Tensor = family.project(features.transpose(1, 2))
        encoder = family.model.encoder
        if isinstance(family, SEWFamily):
            wide = hidden.transpose(1, 2)
            position, pooled = encoder.pos_conv_embed(wide), encoder.pool(wide)
            # as long as the shorter of the two
            size = hidden.shape[1] // family.squeeze
            hidden = (pooled[..., :size] + position[..., :size]).transpose(1, 2)
            normed: Tensor = encoder.layer_norm(hidden)
            return normed
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not family.stable:
            hidden = encoder.layer_norm(hidden)
        return hidden


class UnpaddedSpectrogram(Unpadded):
    """The log-mel encoder behind its front end: ``spectrogram [1, 1, T, bands]``."""

    input, axis, least = "spectrogram", 2, 1

    def example(self) -> Tensor:
        bands = self.encoder.frontend.filters.shape[1]
        return torch.randn(1, 1, 100, bands, generator=torch.Generator().manual_seed(0))

    def frames(self, x: Tensor) -> Tensor:
        encoder = self.encoder
        mean = x.mean(2, keepdim=True)
        x = torch.cat([x - mean, x - mean.mean(3, keepdim=True)], 1)  # the two views
        x = encoder.norm(encoder.stem(x), None).relu()
        for block in encoder.blocks:
            x, _ = block(x, None)
        x = encoder.out_norm(encoder.out(x.permute(0, 2, 1, 3).flatten(2)))
        return x.relu()


def unpadded(module: SERModule) -> Unpadded:
    """The traceable form of a model.

    Raises:
        ExportError: when there is none, with the reason.
    """
    head, encoder = module.head, module.encoder
    name = type(head).__name__
    if head.needs or head.open_labels:
        why = "needs " + ", ".join(sorted(head.needs)) if head.needs else "writes with a tokeniser"
        raise ExportError(
            f"{name} {why} besides the audio, which one graph from audio to scores cannot hold; "
            "export a head with fixed classes: classification, gen_ser"
        )
    if isinstance(encoder, LogMelEncoder):
        return UnpaddedSpectrogram(module)
    if isinstance(encoder, HFEncoder):
        if encoder.dtype != torch.float32:
            raise ExportError(
                "encoder.dtype=bfloat16 is not exported, since its rounding cannot be repeated; "
                "train the head with encoder.dtype=float32"
            )
        if isinstance(encoder.family, ConvolutionFamily):
            return UnpaddedAudio(module)
    raise ExportError(f"{_what(encoder)} is not exported; {_ALLOWED}")


_ALLOWED = (
    "have logmel, and hf with wav2vec2, hubert, wavlm, data2vec-audio, unispeech-sat, sew "
    "(spectra of other families are computed outside their network)"
)


def _what(encoder: Encoder) -> str:
    kind = encoder.describe().get("model_type")
    return f"an encoder of model_type '{kind}'" if kind else type(encoder).__name__
