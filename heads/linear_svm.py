"""The classical anchor: a linear support vector machine on pooled frames."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..zoo.core.errors import ConfigError, DataError
from ..zoo.core.head import Head
from ..zoo.core.notices import tell
from ..zoo.core.scaling import Standardiser
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .pooling import PoolingName, UtteranceVector, build_pooling
from .widen import more_inputs, wider_linear

TOLERANCE, ROUNDS = 1e-4, 5000  # where scikit-learn's solver stops


def check_trained(classes: Sequence[str], labels: Iterable[int]) -> None:
    """Check that every class has a training utterance.

    Args:
        classes: names of the classes.
        labels: the class of each training utterance, as its place in ``classes``.

    Raises:
        DataError: if a class has none.
    """
    seen = set(labels)
    if absent := [name for i, name in enumerate(classes) if i not in seen]:
        raise DataError(
            f"no training utterance of {', '.join(absent)}; give labelled utterances of every "
            "class, or a taxonomy without these classes"
        )


class LinearSVMHead(Head):
    """One linear boundary per class against all others, with the squared hinge loss.

    On an encoder that does not change in training, scikit-learn finds the optimum at once
    (:meth:`solve`). For each class it is that of
    ``|w|^2 / 2 + C sum_i a_i max(0, 1 - y_i w.x_i)^2``. Here x are the standardised pooled frames,
    and a the utterances' weights. No step of the optimiser changes it. On an encoder that learns,
    steps train the head with the same loss. Weight decay then takes the place of C. The margins
    of the classes are its log-scores. They rank the classes; as probabilities they need a
    temperature.

    It is the reference for other heads on the same frames: it has an optimum, whatever the seed.
    A head with a lower score than this one is not well trained.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats`` (mean and deviation) or
            ``attentive``, which needs an encoder that learns.
        C: weight of the errors, above 0; the smaller, the more regularised.

    Raises:
        ConfigError: if C is not above 0.
    """

    solves: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "mean",
        C: float = 1e-3,
    ) -> None:
        super().__init__(dim, taxonomy)
        if not C > 0:
            raise ConfigError(f"C={C}; give a number above 0, such as 0.001")
        self.C = C
        self.pooling = build_pooling(pooling, dim)
        self.scale = Standardiser(self.pooling.width)
        self.output = nn.Linear(self.pooling.width, len(taxonomy))
        self.beside: UtteranceVector | None = None

    def add_utterance(self, width: int) -> None:
        """Append the utterances' standardised vectors to the pooled frames."""
        self.beside = UtteranceVector(width, norm=False)
        self.output = more_inputs(self.output, width)

    def vectors(self, frames: Frames) -> Tensor:
        """Return the ``[B, width]`` standardised pooled frames, with the utterances' vectors."""
        x: Tensor = self.scale(self.pooling(frames))
        return x if self.beside is None else torch.cat([x, self.beside(frames)], -1)

    def margins(self, frames: Frames) -> Tensor:
        """Return ``[B, C]`` signed distances from the boundaries, in units of the margin."""
        z: Tensor = self.output(self.vectors(frames))
        return z.float()

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        z, probs = self.margins(frames), targets.probs
        positive, negative = (1 - z).clamp_min(0).square(), (1 + z).clamp_min(0).square()
        per_item = (probs * positive + (1 - probs) * negative).sum(-1)
        right = (z.argmax(-1) == probs.argmax(-1)).float()
        return HeadLoss(targets.average(per_item), {"accuracy": targets.average(right).detach()})

    @torch.no_grad()
    def solve(self, batches: Iterable[tuple[Frames, Targets]]) -> None:
        """Fit the boundaries to the training part.

        An utterance whose label is a distribution counts for its most probable class. One without
        a label does not count.

        Args:
            batches: every training utterance once.

        Raises:
            ConfigError: if the pooling would have to learn.
            DataError: if a class has no utterance.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        if any(p.requires_grad for p in self.pooling.parameters()):
            raise ConfigError(
                "linear_svm on a frozen encoder is solved at once, so its pooling cannot learn; "
                "set head.pooling=stats or head.pooling=mean"
            )
        made = [
            (self.vectors(frames)[kept], targets.probs.argmax(-1)[kept], targets.weight[kept])
            for frames, targets in batches
            if (kept := targets.item_weight > 0).any()
        ]
        check_trained(self.taxonomy.classes, (int(c) for _, classes, _ in made for c in classes))
        x, labels, weights = (
            torch.cat(values).double().cpu().numpy() for values in zip(*made, strict=True)
        )
        early = []
        for index, name in enumerate(self.taxonomy.classes):
            svm = LinearSVC(
                C=self.C, dual=len(x) < x.shape[1], tol=TOLERANCE, max_iter=ROUNDS, random_state=0
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # told below, for all classes
                svm.fit(x, np.where(labels == index, 1, -1), sample_weight=weights)
            if svm.n_iter_ >= ROUNDS:
                early.append(name)
            self.output.weight[index] = torch.from_numpy(svm.coef_[0])
            self.output.bias[index] = float(svm.intercept_[0])
        if early:
            tell(
                f"linear_svm: after {ROUNDS} rounds the boundaries of {', '.join(early)} are not "
                f"at their optimum; set head.C below {self.C:g}, which needs fewer rounds, or use "
                "them as they are"
            )

    @property
    def reads_frames(self) -> bool:
        return self.pooling.reads_frames

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Add a row to the output layer for each new class, the mean of the old rows."""
        self.output = wider_linear(self.output, len(taxonomy))

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        return self.margins(frames)[:, self.columns(taxonomy)]
