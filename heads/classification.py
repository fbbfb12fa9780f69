"""The baseline head: pooling, a small network, cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from ..zoo.core.errors import ConfigError
from ..zoo.core.registry import Count, Dropout
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .losses import (
    LossName,
    binary_cross_entropy,
    cross_entropy,
    focal,
    kl_divergence,
    smooth,
    squared_error,
)
from .pooling import PooledHead, PoolingName
from .widen import wider_linear

LOSSES = {
    "ce": cross_entropy,
    "kl": kl_divergence,
    "bce": binary_cross_entropy,
    "mse": squared_error,
}


class ClassificationHead(PooledHead):
    """Pooling, layer normalisation, an optional hidden layer, and one output per class.

    The losses are in :mod:`.losses`. Their target is the label distribution ``p`` after label
    smoothing. It is one-hot, a soft weak label (``data.weak``), or the shares of the raters' votes
    (``data.targets=distribution``). So this is also the head that learns a distribution. ``ce``
    treats the classes as exclusive. ``kl`` has the same gradient, and is 0 at the optimum.
    ``data.targets=sampled`` draws one class from the votes instead. ``focal`` is ``ce`` with less
    weight on utterances that are already classified well. ``bce`` asks a yes-no question for each
    class, as LanSER's weak supervision does (arXiv 2309.03978, by its patent's text). Its
    log-scores are ``log sigmoid(z)``. ``mse`` regresses +1 for the class and -1 for the others. Its
    outputs rank the classes; as probabilities they need a temperature. Class weights come from
    ``data.balance``: the inverse class frequency, as weights of the utterances. The network is our
    choice.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        hidden: width of the hidden layer; 0 for none, a linear classifier.
        dropout: dropout rate before the hidden and the output layer, in training.
        label_smoothing: share of the label's mass that is spread over all classes, 0 to 1.
        loss: ``ce``, ``kl``, ``bce``, ``mse`` or ``focal``.
        focal_gamma: exponent of ``focal``, 0 or more; 0 is ``ce``. Other losses ignore it.

    Raises:
        ConfigError: if label smoothing or the exponent is out of its range.
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
        label_smoothing: float = 0.0,
        loss: LossName = "ce",
        focal_gamma: float = 2.0,
    ) -> None:
        super().__init__(dim, taxonomy, pooling, dropout)
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing={label_smoothing}; give a share from 0 to 1")
        if not focal_gamma >= 0:
            raise ConfigError(f"focal_gamma={focal_gamma}; give 0 (cross-entropy) or more")
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma
        self.kind = loss
        self.output = self.layers(hidden, len(taxonomy))

    def logits(self, frames: Frames) -> Tensor:
        """Return the ``[B, C]`` float32 logits, before softmax or sigmoid."""
        z: Tensor = self.output(self.embed(frames))
        return z.float()

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        z, soft = self.logits(frames), smooth(targets.probs, self.label_smoothing)
        if self.kind == "focal":
            per_item = focal(z, soft, self.focal_gamma)
        else:
            per_item = LOSSES[self.kind](z, soft)
        right = (z.argmax(-1) == targets.probs.argmax(-1)).float()
        return HeadLoss(targets.average(per_item), {"accuracy": targets.average(right).detach()})

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Add a row to the output layer for each new class, the mean of the old rows."""
        last = self.output[-1]
        assert isinstance(last, nn.Linear)
        self.output[-1] = wider_linear(last, len(taxonomy))

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        columns = self.columns(taxonomy)
        z = self.logits(frames)
        z = nn.functional.logsigmoid(z) if self.kind == "bce" else z
        return z[:, columns]
