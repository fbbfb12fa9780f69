"""A head of a third party: it imports serzoo, and nothing of serzoo knows it."""

from __future__ import annotations

from serzoo.zoo import Frames, Head, HeadLoss, Targets, Taxonomy
from torch import Tensor, nn


class OutsideHead(Head):
    """The mean of the frames, a linear layer, cross-entropy.

    Args:
        dim: width of the frames.
        taxonomy: the classes.
        scale: of the scores.
    """

    def __init__(self, dim: int, taxonomy: Taxonomy, *, scale: float = 1.0) -> None:
        super().__init__(dim, taxonomy)
        self.linear, self.scale = nn.Linear(dim, len(taxonomy)), scale

    def _logits(self, frames: Frames) -> Tensor:
        z: Tensor = self.linear(frames.mean())
        return self.scale * z.float()

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        """Cross-entropy to the label's distribution."""
        per_item = -(targets.probs * self._logits(frames).log_softmax(-1)).sum(-1)
        return HeadLoss(targets.average(per_item), {})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        """``[B, C]`` logits."""
        return self._logits(frames)[:, self.columns(taxonomy)]
