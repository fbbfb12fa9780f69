"""The baseline: pool, a small network, cross-entropy."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ..zoo.head import Head
from ..zoo.taxonomy import Taxonomy
from ..zoo.types import Frames, HeadLoss, Targets
from .pooling import PooledEmbedding, PoolingName


class ClassificationHead(Head):
    """Pooling, an optional hidden layer, and one output per class.

    With ``loss="ce"`` the loss is the cross-entropy to the label's distribution ``p``, softened by
    label smoothing ``s``: ``-sum_c ((1 - s) p_c + s / C) log softmax(z)_c``. With ``loss="bce"``
    each class is a yes-no question, ``-sum_c p_c log sigmoid(z_c) + (1 - p_c) log sigmoid(-z_c)``,
    as in the weak supervision of LanSER (arXiv 2309.03978, by its patent's text), and the
    log-scores are ``log sigmoid(z)``. The network around them is our choice.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        hidden: width of the hidden layer; 0 for none, a linear classifier.
        dropout: share dropped before the hidden and the output layer, in training.
        label_smoothing: ``s`` above, 0 to 1.
        loss: ``ce`` (one class of several) or ``bce`` (each class by itself).
    """

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        hidden: int = 0,
        dropout: float = 0.1,
        label_smoothing: float = 0.0,
        loss: Literal["ce", "bce"] = "ce",
    ) -> None:
        super().__init__(dim, taxonomy)
        self.label_smoothing = label_smoothing
        self.kind = loss
        self.embed = PooledEmbedding(dim, pooling, dropout)
        width = self.embed.width
        layers: list[nn.Module] = []
        if hidden:
            layers = [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout)]
        self.output = nn.Sequential(*layers, nn.Linear(hidden or width, len(taxonomy)))

    def logits(self, frames: Frames) -> Tensor:
        """``[B, C]`` float32, before softmax or sigmoid."""
        z: Tensor = self.output(self.embed(frames))
        return z.float()

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        z, p = self.logits(frames), targets.probs
        s = self.label_smoothing
        soft = (1 - s) * p + s / p.shape[-1]
        if self.kind == "ce":
            per_item = -(soft * z.log_softmax(-1)).sum(-1)
        else:
            per_item = nn.functional.binary_cross_entropy_with_logits(
                z, soft, reduction="none"
            ).sum(-1)
        right = (z.argmax(-1) == p.argmax(-1)).float()
        return HeadLoss(targets.average(per_item), {"accuracy": targets.average(right).detach()})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        columns = self.columns(taxonomy)
        z = self.logits(frames)
        z = nn.functional.logsigmoid(z) if self.kind == "bce" else z
        return z[:, columns]
