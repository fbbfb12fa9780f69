"""Heads whose output is continuous or ordered: valence, arousal and dominance, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..zoo.core.errors import ConfigError
from ..zoo.core.registry import Count, Dropout
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .pooling import PooledHead, PoolingName

NAMES = ("valence", "arousal", "dominance")

DimensionLoss = Literal["ccc", "mse"]

SPREAD = 0.15
"""Deviation of ratings around the point of their class, for the scores (our choice).

One temperature per run, fitted on validation, corrects it.
"""


APART = 2.0
"""First distance of thresholds, in log-odds (our choice).

With 1.0, 32 utterances of five levels were learned to 0.88 in 400 steps; with 2.0, to 0.95.
"""


def ccc_loss(predicted: Tensor, rated: Tensor, weight: Tensor) -> Tensor:
    """Return ``[D]``, 1 minus the concordance correlation coefficient (Lin, 1989).

    ``ccc = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2)`` with weighted moments over the
    batch. They are biased, as in Lin's paper. A dimension without weight has loss 0.

    Args:
        predicted: ``[B, D]``.
        rated: ``[B, D]``, finite where the weight is above 0.
        weight: ``[B, D]``, 0 or more.
    """
    known, total = weight > 0, weight.sum(0)
    # select first, then multiply: zero times NaN is NaN, not zero
    x, y = (torch.where(known, values, 0.0) for values in (predicted, rated))
    share = weight / total.clamp_min(torch.finfo(weight.dtype).tiny)
    mean_x, mean_y = (share * x).sum(0), (share * y).sum(0)
    between = (share * (x - mean_x) * (y - mean_y)).sum(0)
    spread = (share * ((x - mean_x).square() + (y - mean_y).square())).sum(0)
    # the floor: in a batch of one utterance both sides are constant, and 0 / 0 has no gradient
    below = (spread + (mean_x - mean_y).square()).clamp_min(1e-8)
    return (1 - 2 * between / below) * (total > 0)


def mse_loss(predicted: Tensor, rated: Tensor, weight: Tensor) -> Tensor:
    """Return ``[D]``, the weighted mean squared error of each dimension; see :func:`ccc_loss`."""
    squares = torch.where(weight > 0, predicted - rated, 0.0).square()
    return (weight * squares).sum(0) / weight.sum(0).clamp_min(torch.finfo(weight.dtype).tiny)


def points_of(taxonomy: Taxonomy, points: Mapping[str, Sequence[float]] | None = None) -> Tensor:
    """Return ``[C, 3]`` float32 valence, arousal and dominance of each class, in 0..1.

    Args:
        taxonomy: C classes. A class of several labels stands at the mean of their points.
        points: points of classes, instead of those of ``configs/taxonomy/canonical.yaml``.

    Raises:
        ConfigError: if a class has no point, or a given point is not three numbers in 0..1. Also
            if two classes have the same point.
    """
    given = dict(points or {})
    for name, point in given.items():
        if len(point) != 3 or not all(0 <= value <= 1 for value in point):
            raise ConfigError(
                f"points has {name}: {list(point)}; give valence, arousal and dominance, each from "
                "0 to 1"
            )
    found = [given.get(c, own) for c, own in zip(taxonomy.classes, taxonomy.points, strict=True)]
    if missing := [c for c, point in zip(taxonomy.classes, found, strict=True) if point is None]:
        raise ConfigError(
            f"no valence, arousal and dominance are known of {', '.join(missing)}; give them as "
            f"head.points={{{missing[0]}: [V, A, D]}}, from 0 to 1, or choose another head"
        )
    rows = torch.tensor(found, dtype=torch.float32)
    for i, j in torch.combinations(torch.arange(len(rows))).tolist():
        if torch.equal(rows[i], rows[j]):
            raise ConfigError(
                f"the classes {taxonomy.classes[i]} and {taxonomy.classes[j]} have the same "
                f"valence, arousal and dominance ({found[i]}); give one of them another point as "
                "head.points"
            )
    return rows


class DimensionsHead(PooledHead):
    """Predicts valence, arousal and dominance; the class with the nearest point is the answer.

    Pooling, a linear layer or a small network, and a sigmoid give three numbers in 0..1. The loss
    is one minus the concordance correlation with the ratings (:func:`ccc_loss`), or their squared
    error, averaged over dimensions. The ratings are ``Targets.dims``. A
    dimension that is not rated takes the expected point of the utterance's label distribution,
    ``sum_c p_c point_c``. So the head also learns from corpora with classes only.

    The points of classes are in ``configs/taxonomy/canonical.yaml``. The score of a class is
    ``-||y - point_c||^2 / (2 s^2)``, the log-likelihood of a Gaussian around each point.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        hidden: width of a hidden layer; 0 = none.
        dropout: dropout rate before each layer, in training.
        loss: ``ccc`` or ``mse``. The coefficient compares the utterances of a batch, so batches
            should be large.
        points: maps a class to its valence, arousal and dominance in 0..1, instead of the shipped
            point.

    Raises:
        ConfigError: as :func:`points_of`.
    """

    sizes: ClassVar[Mapping[str, int]] = {"hidden": 1}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        hidden: Count = 0,
        dropout: Dropout = 0.1,
        loss: DimensionLoss = "ccc",
        points: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__(dim, taxonomy, pooling, dropout)
        self.kind, self.given = loss, points
        self.points: Tensor
        # not saved: it follows from the classes
        self.register_buffer("points", points_of(taxonomy, points), persistent=False)
        self.output = self.layers(hidden, len(NAMES))

    def dimensions(self, frames: Frames) -> Tensor:
        """Return ``[B, 3]`` float32 valence, arousal and dominance in 0..1."""
        z: Tensor = self.output(self.embed(frames))
        return z.float().sigmoid()

    def targets(self, targets: Targets) -> Tensor:
        """Return ``[B, 3]`` ratings, or expected points of the classes where nothing is rated."""
        expected = targets.probs @ self.points.to(targets.probs)
        if targets.dims is None:
            return expected
        return torch.where(targets.dims.isnan(), expected, targets.dims.to(expected))

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        found, wanted = self.dimensions(frames), self.targets(targets).float()
        weight = targets.item_weight.float().unsqueeze(1).expand_as(found)
        each = (ccc_loss if self.kind == "ccc" else mse_loss)(found, wanted, weight)
        extras = dict(zip(NAMES, each.detach(), strict=True))
        if targets.dims is not None:
            extras["rated"] = (~targets.dims.isnan()).float().mean()
        return HeadLoss(each.mean(), extras)

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        columns = self.columns(taxonomy)
        gaps = self.dimensions(frames).unsqueeze(1) - self.points[columns]
        return -gaps.square().sum(-1) / (2 * SPREAD**2)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Accept new classes by their points; this adds no weights."""
        self.points = points_of(taxonomy, self.given).to(self.points)


class OrdinalHead(PooledHead):
    """Predicts the rank of the class: CORAL, after Cao, Mirjalili and Raschka (2020).

    The classes are levels, lowest first, in the order of the taxonomy (``sentiment3``,
    ``arousal3``). One score ``f(x)`` of the pooled frames and ``C - 1`` thresholds say
    whether the level is above the k-th (arXiv 1901.07884)::

        P(y > k | x) = sigmoid(f(x) + b_k)
        L = -sum_k P(y > k) log sigmoid(f + b_k) + (1 - P(y > k)) log sigmoid(-f - b_k)

    With soft labels ``P(y > k)`` is the target's share above level k. The weights of the last
    layer are shared, so the optimum has ``b_1 >= b_2 >= ...`` (their theorem 1). Here it holds
    from the first step: ``b_k`` is ``b_1`` minus a sum of softplus terms (our choice). So every
    class has a probability, ``P(y > k - 1) - P(y > k)``, and its logarithm is the score.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the levels, lowest first.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        hidden: width of a hidden layer; 0 = none.
        dropout: dropout rate before each layer, in training.
    """

    sizes: ClassVar[Mapping[str, int]] = {"hidden": 1}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        hidden: Count = 0,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__(dim, taxonomy, pooling, dropout)
        self.output = self.layers(hidden, 1, bias=False)
        questions = len(taxonomy) - 1
        # around 0 and so far apart that every level is the likeliest somewhere
        self.first = nn.Parameter(torch.tensor([APART * (questions - 1) / 2]))
        gaps = torch.full((questions - 1,), APART).expm1().log()  # their softplus is APART
        self.gaps = nn.Parameter(gaps) if len(gaps) else None  # two levels have one threshold

    @classmethod
    def explain(cls, taxonomy: Taxonomy, options: Mapping[str, Any]) -> list[str]:
        return [f"levels, lowest first: {', '.join(taxonomy.classes)}"]

    def logits(self, frames: Frames) -> Tensor:
        """Return ``[B, C - 1]`` float32 log-odds that the level is above each but the last."""
        z: Tensor = self.output(self.embed(frames))
        if self.gaps is None:
            return z.float() + self.first
        below = nn.functional.softplus(self.gaps).cumsum(0)
        return z.float() + torch.cat([self.first, self.first - below])

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        z = self.logits(frames)
        # the share above level k; rounding must not leave 0..1
        above = targets.probs.flip(-1).cumsum(-1).flip(-1)[:, 1:].clamp(0, 1).to(z)
        per_item = nn.functional.binary_cross_entropy_with_logits(z, above, reduction="none").sum(
            -1
        )
        level, wanted = (z > 0).sum(-1), targets.probs.argmax(-1)
        error = (level - wanted).abs().float()
        return HeadLoss(
            targets.average(per_item),
            {
                "accuracy": targets.average((error == 0).float()).detach(),
                "levels_off": targets.average(error).detach(),
            },
        )

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        columns = self.columns(taxonomy)
        return level_log_probabilities(self.logits(frames))[:, columns]

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Refuse new classes: their place among the levels is unknown.

        Raises:
            ConfigError: always.
        """
        new = taxonomy.classes[len(self.taxonomy) :]
        raise ConfigError(
            f"an ordinal head ranks {' < '.join(self.taxonomy.classes)}, and the rank of "
            f"{', '.join(new)} among them is unknown; train anew on a taxonomy that lists all "
            "levels in their order"
        )


def level_log_probabilities(z: Tensor) -> Tensor:
    """Return ``[B, C]`` log-probabilities of levels from falling log-odds ``[B, C - 1]``.

    ``P(k) = sigmoid(z_k-1) - sigmoid(z_k)``. It is computed as
    ``sigmoid(z_k-1) sigmoid(-z_k) (1 - exp(z_k - z_k-1))``, which does not cancel.
    """
    log = nn.functional.logsigmoid
    fall = -torch.expm1(z[:, 1:] - z[:, :-1])
    inner = log(z[:, :-1]) + log(-z[:, 1:]) + fall.clamp_min(torch.finfo(z.dtype).tiny).log()
    return torch.cat([log(-z[:, :1]), inner, log(z[:, -1:])], 1)
