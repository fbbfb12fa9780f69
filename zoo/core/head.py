"""The contract of a head: the one thing that differs between the ways of posing SER."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from .errors import ConfigError
from .registry import Recorded
from .taxonomy import Taxonomy
from .types import Frames, HeadLoss, Targets


class Head(Recorded, nn.Module, ABC):
    """Maps encoder frames to scores over the classes of a taxonomy.

    A head sees frames, not files: no audio, manifest, trainer or logger. It learns through
    :meth:`loss`, which gets targets, and answers through :meth:`scores`, which does not.
    Subclasses add keyword-only, annotated, defaulted knobs to the constructor; these are what a
    configuration may set. ``serzoo.zoo.testing.check_head`` says whether a head keeps the contract.

    Attributes:
        needs: ``{"text"}`` if the head reads transcripts.
        open_labels: whether it may score classes that it never trained on.
        sizes: knobs that scale it, integers that count something, each with the step in which it
            may be changed, the most telling first; for comparisons of heads of equal size.
        dim: ``D``, width of the frames.
        taxonomy: what it is trained on.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    open_labels: ClassVar[bool] = False
    sizes: ClassVar[Mapping[str, int]] = {}

    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.dim = dim
        self.taxonomy = taxonomy

    @abstractmethod
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        """Training loss of a batch.

        An utterance without a label (a row of zeros in ``targets.probs``) or of zero weight
        must not move it; a batch of only such utterances has loss 0 and still a backward pass
        that reaches every trainable parameter. ``Targets.average`` does both.
        """

    @abstractmethod
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        """``[B, C]`` float32 log-scores over ``taxonomy``; their softmax is the probability.

        Deterministic, independent of the batch neighbours and of padding. A closed head accepts
        any subset or order of the classes that it was trained on (:meth:`columns`) and refuses
        others by name.
        """

    def write(self, frames: Frames) -> list[str] | None:
        """B texts that the head writes freely, for heads that write; None for the others.

        For reading only: :meth:`scores` decides. Deterministic, independent of the batch
        neighbours and of padding.
        """
        return None

    def class_written(self, text: str, taxonomy: Taxonomy) -> int | None:
        """Index of the class that a text of :meth:`write` names; None where it names none."""
        return taxonomy.class_said(text)

    @classmethod
    def explain(cls, taxonomy: Taxonomy, options: Mapping[str, Any]) -> list[str]:
        """Lines on what ``options`` mean over ``taxonomy``, which ``serzoo config`` prints.

        By default none. Nothing is built or loaded.

        Raises:
            ConfigError: for options that make no head.
        """
        return []

    def columns(self, taxonomy: Taxonomy) -> list[int]:
        """Positions of the asked classes among those trained on, for a closed head.

        Raises:
            ConfigError: naming the classes that this head cannot score.
        """
        return self.taxonomy.positions_of(taxonomy)

    def widen(self, taxonomy: Taxonomy) -> None:
        """Take in classes that it was not trained on, behind those that it was; in place.

        What the old classes have (rows, codes, spellings) stays as it is. Widening in one step or
        in several gives weights of the same names and shapes, so that a saved one can be loaded.

        Args:
            taxonomy: begins with the classes trained on, in their order.

        Raises:
            ConfigError: when it begins otherwise, or this head has no room for further classes.
        """
        n = len(self.taxonomy)
        if taxonomy.classes[:n] != self.taxonomy.classes:
            raise ConfigError(
                f"a head of {', '.join(self.taxonomy.classes)} cannot be widened to "
                f"{', '.join(taxonomy.classes)}: new classes stand behind the old ones, in their "
                "order"
            )
        if len(taxonomy) > n:
            self.add_classes(taxonomy)
        self.taxonomy = taxonomy

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """What :meth:`widen` does for a head that can; ``self.taxonomy`` still holds the old ones.

        Raises:
            ConfigError: by default.
        """
        new = taxonomy.classes[len(self.taxonomy) :]
        raise ConfigError(
            f"{type(self).__name__} has no room for classes that it was not trained on "
            f"({', '.join(new)}); choose a taxonomy of {', '.join(self.taxonomy.classes)}, or "
            "another head (a head that can overrides add_classes)"
        )

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups of the trainable parameters; one group at ``lr`` unless overridden."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]

    def frozen_roots(self) -> dict[str, nn.Module]:
        """Pretrained parts that stay as published: not saved, rebuilt from their name."""
        return {}
