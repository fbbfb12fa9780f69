"""The contract of an encoder, and how its kept layers become one sequence of frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .registry import Part
from .types import SAMPLE_RATE, Frames


class Encoder(Part, nn.Module, ABC):
    """Turns audio into frames in two steps; the feature store can keep the result of the first.

    ``audio, lengths -> extract -> hidden [B, K, T, D0], mask [B, T] -> forward -> Frames``

    :meth:`extract` is computed once: a frozen pretrained model, or the log-mel front end, which has
    no parameters. :meth:`forward` is the learned part: a layer mix, or the log-mel encoder's
    network. The output of an utterance does not depend on its batch neighbours or on padding.

    Attributes:
        dim: ``D``, width of the frames that heads see.
        storable: whether :meth:`extract` is deterministic and has no trainable parameters. Only
            then can its output be stored.
        frame_seconds: distance between frames of ``hidden`` in seconds; batches are sized by it.
            0 = an utterance is one frame, however long it is.
    """

    dim: int
    storable: bool = True
    frame_seconds: float = 0.02  # 320 samples, as in the wav2vec2 family

    @abstractmethod
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``hidden [B, K, T, D0]`` and ``mask [B, T]`` of a batch of audio.

        Args:
            audio: ``[B, S]`` float32, 16 kHz mono; at least one sample.
            lengths: ``[B]`` number of real samples of each row.

        Returns:
            hidden: zero where the mask is False.
            mask: bool, True = speech; every row has at least one True.
        """

    @abstractmethod
    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        """Turn ``hidden [B, K, T, D0]`` and ``mask [B, T]`` into frames ``[B, T', D]``.

        Augments in training mode.
        """

    def extraction(self) -> dict[str, Any]:
        """Return everything that decides the output of :meth:`extract`, as plain containers.

        The feature store uses it as the key: encoders with equal answers share stored features. So
        it holds a digest of the weights, the kept layers, the number format and the preprocessing,
        and nothing else.

        Raises:
            TypeError: if the encoder is not storable.
        """
        raise TypeError(f"{type(self).__name__} is not storable; override extraction()")

    @property
    def utterance(self) -> Encoder | None:
        """An encoder of one vector per utterance, which heads get beside the frames; or None."""
        return cast("Encoder | None", self._modules.get("utterance"))

    @utterance.setter
    def utterance(self, encoder: Encoder | None) -> None:
        self._modules["utterance"] = encoder

    @torch.no_grad()
    def vectors(self, audio: Tensor, lengths: Tensor) -> Tensor | None:
        """Return the ``[B, F]`` vectors of :attr:`utterance`; None if there is no such encoder.

        Args:
            audio: ``[B, S]`` float32, 16 kHz mono.
            lengths: ``[B]`` number of real samples of each row.
        """
        if self.utterance is None:
            return None
        frames: Frames = self.utterance(*self.utterance.extract(audio, lengths))
        return frames.x[:, 0].float()

    @property
    def steady(self) -> bool:
        """Whether training leaves the frames as they are, except for a learned mix of layers.

        Then heads standardise them by statistics of the training part (:mod:`.scaling`).
        """
        learned = (n for n, p in self.named_parameters() if p.requires_grad)
        return self.storable and all(name.startswith("mix.") for name in learned)

    @torch.no_grad()
    def stored_shape(self) -> tuple[int, int]:
        """Return ``K`` and ``D0`` of what :meth:`extract` returns, by asking it for a second."""
        device = next((t.device for t in (*self.parameters(), *self.buffers())), None)
        audio = torch.zeros(1, SAMPLE_RATE, device=device)
        hidden, _ = self.extract(audio, torch.tensor([SAMPLE_RATE], device=device))
        return hidden.shape[1], hidden.shape[3]

    @property
    def plain(self) -> bool:
        """Whether frames are the stored features as they are, and nothing learns."""
        return False

    @property
    def bytes_per_second(self) -> float:
        """Return the size of stored features in bytes per second of speech; 0 if it is unknown."""
        return 0.0

    def param_groups(self, lr: float, mix_lr: float | None = None) -> list[dict[str, Any]]:
        """Return the optimiser groups of the trainable parameters; empty if it has none.

        Args:
            lr: learning rate.
            mix_lr: learning rate of a learned mix of layers, if any; ``lr`` by default.
        """
        params = [p for p in self.parameters() if p.requires_grad]
        return [{"params": params, "lr": lr}] if params else []

    def frozen_keys(self) -> frozenset[str]:
        """Return the state dict entries that stay as published: not saved, but rebuilt by name."""
        return frozenset()

    def describe(self) -> dict[str, Any]:
        """Return facts for the record beyond the configuration: model type, digest of weights."""
        return {}

    def layer_weights(self) -> dict[str, float]:
        """Return the weight of each kept layer in a learned mix; empty if nothing is mixed."""
        return {}


Join = Literal["mix", "concat"]


class LayerMix(nn.Module):
    """The kept layers as one sequence of frames.

    ``mix`` is their softmax-weighted sum, as in the featuriser of SUPERB. ``concat`` puts them side
    by side: frames are K times as wide, and nothing is learned. One layer has no parameters.

    Args:
        layers: indices of the kept layers, for naming; 0 is the input of the first block.
        join: ``mix`` or ``concat``.
    """

    def __init__(self, layers: list[int], join: Join = "mix") -> None:
        super().__init__()
        self.layers = list(layers)
        learned = join == "mix" and len(layers) > 1
        self.logits = nn.Parameter(torch.zeros(len(layers))) if learned else None
        self.times = len(layers) if join == "concat" else 1

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``[B, T, D]`` of ``[B, K, T, D]``, or ``[B, T, K * D]`` if it concatenates.

        Only a mix of several layers changes the floating type, to float32.
        """
        if self.times > 1:
            return hidden.transpose(1, 2).flatten(2)
        if self.logits is None:
            return hidden[:, 0]
        weights = self.logits.float().softmax(0)
        return torch.einsum("k,bktd->btd", weights, hidden.float())

    def weights(self) -> dict[str, float]:
        """Return a mapping of layer name to weight; empty if nothing is mixed."""
        if self.logits is None:
            return {}
        logits: Any = self.logits.detach()
        if hasattr(logits, "full_tensor"):  # sharded over processes; every process comes here
            logits = logits.full_tensor()
        w = logits.float().softmax(0).tolist()
        return {f"layer_{k:02d}": v for k, v in zip(self.layers, w, strict=True)}
