"""A head under test and what it is tested with: small, random, of mixed lengths, repeatable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..head import Head
from ..taxonomy import Taxonomy
from ..types import Frames, HeadLoss, Targets

LENGTHS = (9, 1, 14, 6)  # frames; the single one is where a standard deviation has no gradient
TOLERANCE = 1e-4  # relative to the largest score: rounding follows the largest terms of a sum


class ContractError(AssertionError):
    """A head breaks its contract.

    Attributes:
        failures: name of each failed check to its message.
    """

    def __init__(self, message: str, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


@dataclass(frozen=True)
class Case:
    """A head under test, and the inputs that it is tested with.

    Attributes:
        cls: the head's class.
        dim: ``D``, width of the frames.
        taxonomy: what the head is trained on.
        knobs: further arguments of the constructor.
    """

    cls: type[Head]
    dim: int = 24
    taxonomy: Taxonomy = field(
        default_factory=lambda: Taxonomy.of(["angry", "happy", "neutral", "sad", "fearful"])
    )
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def head(self, seed: int = 0) -> Head:
        """A new head in training mode; the caller's random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.cls(self.dim, self.taxonomy, **self.knobs).train()

    def frames(self, lengths: Sequence[int] = LENGTHS, seed: int = 1) -> Frames:
        """Random frames: each utterance has its own mean, and zeros behind its end."""
        g = torch.Generator().manual_seed(seed)
        mask = torch.arange(max(lengths)) < torch.tensor(list(lengths)).unsqueeze(1)
        own = torch.randn(len(lengths), 1, self.dim, generator=g)
        x = own + torch.randn(len(lengths), max(lengths), self.dim, generator=g)
        return Frames(x * mask.unsqueeze(-1), mask)

    def targets(self, n: int = len(LENGTHS), shift: int = 0) -> Targets:
        """One-hot labels that go round the classes, all of weight 1."""
        C = len(self.taxonomy)
        return Targets(torch.eye(C)[(torch.arange(n) + shift) % C], torch.ones(n))

    def text(self, n: int) -> list[str] | None:
        """Transcripts, one of them empty, for a head that reads them."""
        known = ["kids are talking by the door", "", "dogs are sitting by the door", "no"]
        return [known[i % 4] for i in range(n)] if "text" in self.cls.needs else None

    def loss(self, head: Head, frames: Frames, targets: Targets, seed: int = 2) -> HeadLoss:
        """``head.loss`` with the random numbers of ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return head.loss(frames, targets, self.text(len(targets.probs)))

    def scores(self, head: Head, frames: Frames, taxonomy: Taxonomy | None = None) -> Tensor:
        """``head.scores`` in evaluation mode."""
        with torch.no_grad():
            text = self.text(len(frames.mask))
            return head.eval().scores(frames, taxonomy or self.taxonomy, text)

    def part(self, positions: Sequence[int]) -> Taxonomy:
        """The classes at these positions, in this order."""
        return Taxonomy("part", tuple(self.taxonomy.members[i] for i in positions))


def demand(ok: bool, message: str) -> None:
    """Raise :class:`ContractError` unless ``ok``."""
    if not ok:
        raise ContractError(message)


def demand_close(a: Tensor, b: Tensor, message: str, scale: Tensor | None = None) -> None:
    """Raise :class:`ContractError`, with the gap, unless two tensors agree to the tolerance.

    The tolerance is relative to the largest number of ``scale``, or else of both tensors: scores
    of a language model lie around -50, those of a new linear layer around 0.1. Give a ``scale`` if
    the tensors are differences of larger numbers.
    """
    size = max(x.abs().max().item() for x in ((a, b) if scale is None else (scale,)))
    gap, allowed = (a - b).abs().max().item(), TOLERANCE * size
    demand(
        gap <= allowed < math.inf,
        f"{message} (largest difference {gap:.3g}, allowed {allowed:.3g}, which is {TOLERANCE:g} "
        f"of the largest score, {size:.3g})",
    )


def some(names: Sequence[str]) -> str:
    """How many, and the first five by name."""
    shown = ", ".join(names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"


def trainable(head: Head) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    return {n: p for n, p in head.named_parameters() if p.requires_grad}
