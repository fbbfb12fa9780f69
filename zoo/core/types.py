"""The records that flow between the data, the encoder and the heads.

The letters of shapes mean the same everywhere:

====== =====================================================
letter meaning
====== =====================================================
``B``  utterances in a batch
``S``  audio samples (16 kHz, mono)
``T``  encoder frames
``K``  kept encoder layers (1 for the log-mel encoder)
``D``  encoder width
``F``  numbers in a vector of an utterance
``C``  classes of the taxonomy
====== =====================================================
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

SAMPLE_RATE = 16_000

_T = TypeVar("_T", bound="_TensorRecord")


def first_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none: where all but training runs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _TensorRecord:
    """Base of frozen dataclasses that hold tensors: moves them between devices and pins them.

    Lightning moves a frozen dataclass only if it has its own ``to``. The DataLoader pins an
    object only if it has its own ``pin_memory``.
    """

    def _map(self: _T, method: str, *args: Any, **kwargs: Any) -> _T:
        changed = {
            f.name: getattr(value, method)(*args, **kwargs)
            for f in fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), (Tensor, _TensorRecord))
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self: _T, *args: Any, **kwargs: Any) -> _T:
        """Return a copy whose tensors went through ``Tensor.to`` with these arguments."""
        return self._map("to", *args, **kwargs)

    def pin_memory(self: _T) -> _T:
        """Return a copy whose tensors lie in page-locked memory."""
        return self._map("pin_memory")


@dataclass(frozen=True)
class Targets(_TensorRecord):
    """Labels of the utterances of a batch.

    Attributes:
        probs: ``[B, C]`` one-hot labels, distributions of annotators, or weak labels. A row of
            zeros means that the utterance has no label.
        weight: ``[B]`` non-negative weights: class balance, confidence of a weak label.
        dims: ``[B, 3]`` valence, arousal, dominance in 0..1, NaN where not rated; or None.
        gender: ``[B, 2]`` female and male, one-hot; a row of zeros if it is unknown; or None.
        speaker: ``[B, speakers]`` one-hot over the training speakers, zeros as for gender; or
            None. Both are for auxiliary tasks, and only training has them.
    """

    probs: Tensor
    weight: Tensor
    dims: Tensor | None = None
    gender: Tensor | None = None
    speaker: Tensor | None = None

    @property
    def item_weight(self) -> Tensor:
        """``[B]`` weight of each utterance in a loss; zero if the utterance has no label."""
        return self.weight * (self.probs.sum(-1) > 0)

    def average(self, per_item: Tensor) -> Tensor:
        """Return the weighted mean of ``[B]`` losses.

        0, still differentiable, if no item has weight.
        """
        w = self.item_weight.to(per_item.dtype)
        # select first, then multiply: zero times NaN is NaN, not zero
        kept = torch.where(w > 0, per_item, 0.0)
        return (kept * w).sum() / w.sum().clamp_min(torch.finfo(per_item.dtype).tiny)


@dataclass(frozen=True)
class Batch(_TensorRecord):
    """A batch of utterances; exactly one of ``audio`` and ``hidden`` is set.

    Attributes:
        ids: B utterance ids.
        speakers: B speaker names; "" if the speaker is unknown.
        text: B transcripts ("" if an utterance has none), or None if no head asked for them.
        audio: ``[B, S]`` float32, 16 kHz mono, zero-padded on the right.
        lengths: ``[B]`` int64, the number of real samples in each row of ``audio``.
        hidden: ``[B, K, T, D]`` stored output of ``Encoder.extract``, in the store's dtype.
        mask: ``[B, T]`` bool, True = speech; set if ``hidden`` is set.
        utterance: ``[B, F]`` float32 stored vectors that heads get beside the frames, or None.
        seconds: ``[B]`` seconds of speech; set if ``hidden`` holds one or two vectors per
            utterance: its only frame (``Encoder.frame_seconds`` is 0), or the statistics of
            its frames (:func:`serzoo.datamodules.features.statistics`).
        targets: the labels.

    Raises:
        ValueError: if both or neither of ``audio`` and ``hidden`` are given.
    """

    ids: list[str]
    speakers: list[str]
    targets: Targets
    text: list[str] | None = None
    audio: Tensor | None = None
    lengths: Tensor | None = None
    hidden: Tensor | None = None
    mask: Tensor | None = None
    utterance: Tensor | None = None
    seconds: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.audio is None) == (self.hidden is None):
            found = "neither" if self.audio is None else "both"
            raise ValueError(f"a Batch got {found} of audio and hidden; give one of them")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Frames(_TensorRecord):
    """The input of a head: encoder frames of a batch and the mask of speech.

    Attributes:
        x: ``[B, T, D]`` encoder frames, zero where ``mask`` is False. Their type is the stored
            one, float32 or bfloat16; a head computes in float32.
        mask: ``[B, T]`` bool, True = speech; every row has at least one True.
        utterance: ``[B, F]`` float32 vectors of the whole utterances (functionals), or None.
    """

    x: Tensor
    mask: Tensor
    utterance: Tensor | None = None

    def mean(self) -> Tensor:
        """Return the ``[B, D]`` mean over the frames of speech, in float32."""
        m = self.mask.unsqueeze(-1)
        total = self.x.float().masked_fill(~m, 0.0).sum(1)
        return total / self.mask.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class HeadLoss:
    """A training loss, and further scalars to log as curves.

    Attributes:
        loss: scalar, differentiable.
        extras: detached scalars, logged as ``head/<name>/<key>``.
    """

    loss: Tensor
    extras: dict[str, Tensor]
