"""The contract of an encoder, and the mix of its layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from .registry import Recorded
from .types import Frames


class Encoder(Recorded, nn.Module, ABC):
    """Audio to frames in two steps, with the feature store between them.

    ``audio, lengths -> extract -> hidden [B, K, T, D0], mask [B, T] -> forward -> Frames``

    :meth:`extract` is everything that need not be computed twice: a frozen pretrained model, or
    the parameter-free log-mel front end. :meth:`forward` is what is learned on top of it: a layer
    mix, or the log-mel encoder's network. An utterance's output does not depend on its batch
    neighbours or on padding.

    Attributes:
        dim: ``D``, width of the frames that heads see.
        storable: whether :meth:`extract` is deterministic and without trainable parameters, so
            that its output may be computed once and kept.
        frame_seconds: distance of the frames of ``hidden``; batches are packed by it.
    """

    dim: int
    storable: bool = True
    frame_seconds: float = 0.02  # 320 samples, as in the wav2vec2 family

    @abstractmethod
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``hidden [B, K, T, D0], mask [B, T]`` of ``[B, S]`` float32 16 kHz, ``[B]`` real samples.

        Accepts any length from one sample. Every row of the mask has at least one True; hidden is
        zero where the mask is False.
        """

    @abstractmethod
    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        """``hidden [B, K, T, D0], mask [B, T]`` to frames ``[B, T', D]``; augments in training."""

    def extraction(self) -> dict[str, Any]:
        """Everything that decides what :meth:`extract` gives for an utterance, as plain containers.

        Stored features are kept under it: equal answers share them, so it holds a digest of the
        weights, the kept layers, the number format and the preprocessing, and nothing else.
        """
        raise TypeError(f"{type(self).__name__} is not storable; override extraction()")

    @property
    def bytes_per_second(self) -> float:
        """Size of stored features, in bytes for a second of speech; 0 where it is not known."""
        return 0.0

    def param_groups(self, lr: float, mix_lr: float | None = None) -> list[dict[str, Any]]:
        """Optimiser groups of the trainable parameters (empty when there are none).

        Args:
            lr: learning rate.
            mix_lr: that of a learned mix of layers, where there is one; ``lr`` by default.
        """
        params = [p for p in self.parameters() if p.requires_grad]
        return [{"params": params, "lr": lr}] if params else []

    def frozen_keys(self) -> frozenset[str]:
        """Entries of the state dict that stay as published: not saved, rebuilt from a name."""
        return frozenset()

    def describe(self) -> dict[str, Any]:
        """What the record should know beyond the configuration: model type, digest of weights."""
        return {}

    def layer_weights(self) -> dict[str, float]:
        """Weight of each kept layer in a learned mix; empty when nothing is mixed."""
        return {}


class LayerMix(nn.Module):
    """Softmax-weighted sum of kept layers (the SUPERB featuriser's rule).

    With one layer there is nothing to learn and no parameter.

    Args:
        layers: indices of the kept layers, for naming; 0 is the input of the first block.
    """

    def __init__(self, layers: list[int]) -> None:
        super().__init__()
        self.layers = list(layers)
        self.logits = nn.Parameter(torch.zeros(len(layers))) if len(layers) > 1 else None

    def forward(self, hidden: Tensor) -> Tensor:
        """``[B, K, T, D]`` to ``[B, T, D]``; a single layer keeps its floating type."""
        if self.logits is None:
            return hidden[:, 0]
        weights = self.logits.float().softmax(0)
        return torch.einsum("k,bktd->btd", weights, hidden.float())

    def weights(self) -> dict[str, float]:
        """Layer name to weight; empty for a single layer."""
        if self.logits is None:
            return {}
        logits: Any = self.logits.detach()
        if hasattr(logits, "full_tensor"):  # shared out over processes, all of which come here
            logits = logits.full_tensor()
        w = logits.float().softmax(0).tolist()
        return {f"layer_{k:02d}": v for k, v in zip(self.layers, w, strict=True)}
