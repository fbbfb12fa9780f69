"""The contract of a family of published speech encoders: all that stands around their blocks.

A family turns samples into the input of the first block and says how a block is called. The loop
over blocks, the kept layers and the tuning are the same for all (``backbone.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.masking_utils import create_bidirectional_mask

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class Embedded:
    """A batch before the first block.

    Attributes:
        hidden: ``[N, T, D]``; N is B, or the number of windows of a family with a fixed input.
        mask: ``[B, T']`` of the frames that come out.
        keywords: what every block is called with besides its input.
        gather: ``[N, T, D]`` to ``[B, T', D]``, where they differ.
    """

    hidden: Tensor
    mask: Tensor
    keywords: dict[str, Any] = field(default_factory=dict)
    gather: Callable[[Tensor], Tensor] | None = None


class Family(ABC):
    """One kind of published encoder.

    Args:
        model: the bare model of ``transformers``; its blocks are ``model.encoder.layers``.
        normalise: whether it wants utterances of zero mean and unit variance.

    Attributes:
        lora_targets: names of the linear layers that LoRA adapts by default, inside a block.
        min_samples: what one frame needs; shorter audio is padded with zeros to it.
        frame_seconds: distance of the frames.
    """

    lora_targets: ClassVar[tuple[str, ...]] = ATTENTION
    min_samples: int
    frame_seconds: float

    def __init__(self, model: Any, normalise: bool) -> None:
        self.model, self.normalise = model, normalise
        if hasattr(model, "masked_spec_embed"):  # UniSpeech-SAT makes one though nothing is masked
            del model.masked_spec_embed

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer (or conformer) blocks."""
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    @abstractmethod
    def front_end(self) -> list[nn.Module]:
        """The convolutions over samples or spectra, which full tuning leaves frozen by default."""

    @abstractmethod
    def frame_counts(self, lengths: Tensor) -> Tensor:
        """``[B]`` real samples to ``[B]`` real frames, at least one."""

    @abstractmethod
    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        """``[B, S]`` samples, of which ``lengths`` are real and at least ``min_samples`` exist."""

    def step(
        self, block: nn.Module, hidden: Tensor, state: Tensor | None, keywords: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """One block: its output, and what it hands on to the next beside it."""
        return block(hidden, **keywords), state

    def project(self, features: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, T, D]``."""
        hidden = self.model.feature_projection(features)
        # all but HuBERT's return the unprojected features as well
        projected: Tensor = hidden[0] if isinstance(hidden, tuple) else hidden
        return projected

    def attention_mask(self, hidden: Tensor, mask: Tensor) -> Tensor | None:
        """As the model's own kind of attention wants it; None where nothing is padded."""
        if bool(mask.all()):
            return None
        made: Any = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=mask
        )
        wanted: Tensor | None = made
        return wanted

    def cut(self, blocks: int) -> None:
        """Remove all blocks above the given number, so that nothing above is computed or held."""
        whole = blocks == len(self.blocks)
        del self.blocks[blocks:]
        self.model.config.num_hidden_layers = blocks
        self.drop_end(whole)

    def drop_end(self, whole: bool) -> None:  # noqa: B027 - most have nothing there
        """Remove what stands behind the last kept block and is no part of a hidden state."""

    def finish(self, hidden: Tensor) -> Tensor:
        """What ``transformers`` does to the last block's output before it calls it a state."""
        return hidden


def padded(audio: Tensor, samples: int) -> Tensor:
    """``[B, S]`` with at least ``samples`` columns, zeros added."""
    return pad(audio, (0, max(samples - audio.shape[1], 0)))
