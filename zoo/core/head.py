"""The contract of a head: the part that differs between methods of emotion recognition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from .errors import ConfigError
from .registry import Part
from .taxonomy import Taxonomy
from .types import Frames, HeadLoss, Targets


class Head(Part, nn.Module, ABC):
    """Maps encoder frames to scores over the classes of a taxonomy.

    A head sees only frames: it sees no audio, manifest, trainer or logger. It learns through
    :meth:`loss`, which gets targets. It answers through :meth:`scores`, which gets none.
    Subclasses add options to the constructor: keyword-only, annotated, each with a default. A
    configuration may set these options. ``serzoo.zoo.testing.check_head`` checks the contract.

    Attributes:
        needs: ``{"text"}`` if the head reads transcripts to score.
        open_labels: whether it can score classes that it never trained on.
        solves: whether :meth:`solve` finds its weights at once on frames that do not change.
        at_evaluation: options that only :meth:`scores` and :meth:`write` read, and no weight
            depends on. ``serzoo eval RUN head.KEY=VALUE`` may change them after training.
        sizes: integer options that set the size of the head, each with its smallest step. The
            most effective one comes first. Comparisons of heads of equal size use them.
        dim: ``D``, width of the frames.
        taxonomy: the classes that it is trained on.
        utterance: ``F``, width of the vectors beside the frames; 0 if it reads none.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    open_labels: ClassVar[bool] = False
    solves: ClassVar[bool] = False
    at_evaluation: ClassVar[tuple[str, ...]] = ()
    sizes: ClassVar[Mapping[str, int]] = {}

    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.dim = dim
        self.taxonomy = taxonomy
        self.utterance = 0

    @abstractmethod
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        """Return the training loss of a batch.

        An utterance without a label (a row of zeros in ``targets.probs``) or with weight 0 must
        not change the loss. If a batch has only such utterances, the loss is 0, and its backward
        pass still reaches every trainable parameter. ``Targets.average`` does both.
        """

    @classmethod
    def trains_on(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return what training batches carry besides audio; by default :attr:`needs`.

        Args:
            options: those of the constructor.
        """
        return cls.needs

    def solve(self, batches: Iterable[tuple[Frames, Targets]]) -> None:
        """Set the weights to their optimum on the training part; only if :attr:`solves`.

        It is called once before the first step, if the encoder does not change in training. The
        steps then have rate 0. Otherwise the head is trained by :meth:`loss`, as any other.

        Args:
            batches: every training utterance once, in evaluation mode.

        Raises:
            TypeError: if the head does not override it.
        """
        raise TypeError(f"{type(self).__name__} has solves=True; override solve(), too")

    @abstractmethod
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        """Return ``[B, C]`` float32 log-scores over ``taxonomy``; their softmax is the probability.

        The result is deterministic and does not depend on the batch neighbours or on padding. A
        closed head accepts the classes that it was trained on, any subset in any order
        (:meth:`columns`). It refuses other classes with an error that names them.
        """

    def check_trained(self) -> None:
        """Refuse trained weights that cannot answer with the options of :attr:`at_evaluation`.

        It is called after such options were changed. By default nothing is refused.

        Raises:
            ConfigError: if they cannot.
        """

    @property
    def reads_frames(self) -> bool:
        """Whether more of an utterance matters than mean and standard deviation of its frames.

        If not, training on a frozen encoder reads the frames once, and not in every epoch.
        """
        return True

    def write(self, frames: Frames) -> list[str] | None:
        """Return B texts that the head writes freely, or None if the head does not write.

        The texts are for people to read; only :meth:`scores` decides. They are deterministic and
        do not depend on the batch neighbours or on padding.
        """
        return None

    @property
    def writes(self) -> bool:
        """Whether :meth:`write` returns texts; by default, if the class overrides it."""
        return type(self).write is not Head.write

    def class_written(self, text: str, taxonomy: Taxonomy) -> int | None:
        """Return the index of the class that a text of :meth:`write` names, or None."""
        return taxonomy.class_said(text)

    @classmethod
    def explain(cls, taxonomy: Taxonomy, options: Mapping[str, Any]) -> list[str]:
        """Return lines that explain ``options`` for ``taxonomy``; ``serzoo config`` prints them.

        By default there are none. This builds and loads nothing.

        Raises:
            ConfigError: if no head can be built with these options.
        """
        return []

    def columns(self, taxonomy: Taxonomy) -> list[int]:
        """Return the positions of the asked classes among the trained ones, for a closed head.

        Raises:
            ConfigError: if this head cannot score some of the classes; the message names them.
        """
        return self.taxonomy.positions_of(taxonomy)

    def widen(self, taxonomy: Taxonomy) -> None:
        """Add new classes after the trained ones; changes the head in place.

        The rows, codes and spellings of the old classes stay as they are. Widening in one step
        or in several gives the same names and shapes. So saved weights can be loaded.

        Args:
            taxonomy: the new classes; it begins with the trained classes, in their order.

        Raises:
            ConfigError: if ``taxonomy`` begins otherwise, or this head cannot add classes.
        """
        n = len(self.taxonomy)
        if taxonomy.classes[:n] != self.taxonomy.classes:
            raise ConfigError(
                f"a head of {', '.join(self.taxonomy.classes)} cannot be widened to "
                f"{', '.join(taxonomy.classes)}: give the old classes first, in their order, and "
                "then the new ones"
            )
        if len(taxonomy) > n:
            self.add_classes(taxonomy)
        self.taxonomy = taxonomy

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Add the new classes of ``taxonomy``; :meth:`widen` calls this.

        A head that can add classes overrides it. ``self.taxonomy`` still holds the old classes.

        Raises:
            ConfigError: by default.
        """
        new = taxonomy.classes[len(self.taxonomy) :]
        raise ConfigError(
            f"{type(self).__name__} cannot add classes that it was not trained on "
            f"({', '.join(new)}); choose a taxonomy of {', '.join(self.taxonomy.classes)}, or "
            "another head (one that overrides add_classes)"
        )

    def read_utterance(self, width: int) -> None:
        """Read ``Frames.utterance`` from now on, too; changes the new head in place.

        The weights that read the frames are those of a head without it.

        Args:
            width: ``F``, width of the vectors.

        Raises:
            ConfigError: if this head cannot read them.
        """
        self.add_utterance(width)
        self.utterance = width

    def add_utterance(self, width: int) -> None:
        """Add what reads vectors of this width; :meth:`read_utterance` calls this.

        A head that can read them overrides it.

        Raises:
            ConfigError: by default.
        """
        raise ConfigError(
            f"{type(self).__name__} reads frames only, so the {width} numbers of an utterance "
            "would be ignored; leave the key 'utterance' out, or choose another head (one that "
            "overrides add_utterance)"
        )

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the optimiser groups of the trainable parameters.

        By default one group at ``lr``.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]

    def frozen_roots(self) -> dict[str, nn.Module]:
        """Return the pretrained parts that stay as published.

        They are not saved, but rebuilt by name.
        """
        return {}
