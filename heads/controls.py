"""Control heads: the generative heads must be better than these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..zoo.core.registry import Count, Dropout, Size
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .gen_ser.head import GenSERHead
from .pooling import PooledHead, PoolingName
from .widen import wider_rows


class RegressCodesHead(GenSERHead):
    """Gen-SER without generation: the network learns the codes by squared error at t = 1.

    The loss is ``L = E ||f(x_1, x_1, 1) - x_0||^2``, and one evaluation decides. This is
    ``gen_ser`` with ``source_share=1``, which draws nothing. The bridge has no noise at t = 1.
    So a single-step Gen-SER decides by the same function of the utterance. Any gain over this head
    is therefore due to training along the path. This control is ours; we do not know whether the
    paper (arXiv 2601.20573) has one.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes; their order is the order of the codes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        code_dim: width of the codes, even.
        spacing: distance of neighbouring classes in the position encoding.
        width: width of the network's hidden layers.
        depth: number of its residual blocks.
        dropout: dropout rate after pooling and inside the blocks, in training.
    """

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        code_dim: int = 128,
        spacing: float = 1000.0,
        width: Size = 256,
        depth: Count = 2,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__(
            dim,
            taxonomy,
            pooling=pooling,
            code_dim=code_dim,
            spacing=spacing,
            width=width,
            depth=depth,
            dropout=dropout,
            source_share=1.0,
        )


class PrototypeHead(PooledHead):
    """Scores a class by the distance of the utterance to the learned prototype of the class.

    ``log p(c | x) = log softmax_c(-||g(x) - m_c||^2 / sqrt(E))``. ``g`` is a linear embedding of
    the pooled utterance. It and the prototypes ``m_c`` are trained by cross-entropy. These are
    prototypical networks (Snell et al., 2017) with two changes of ours. The prototypes are
    parameters, not means over a support set. The distances are divided by ``sqrt(E)``.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        embedding: E, width of the embedding in which distances are computed.
        dropout: dropout rate after pooling, in training.
    """

    reader = "project"
    sizes: ClassVar[Mapping[str, int]] = {"embedding": 1}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        embedding: Size = 64,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__(dim, taxonomy, pooling, dropout)
        # no bias: it would shift embeddings and prototypes by the same vector
        self.project = nn.Linear(self.embed.width, embedding, bias=False)
        self.prototypes = nn.Parameter(torch.randn(len(taxonomy), embedding) * embedding**-0.5)

    def distances(self, frames: Frames) -> Tensor:
        """Return ``[B, C]`` float32 squared distances to the prototypes over ``sqrt(E)``."""
        z: Tensor = self.project(self.embed(frames)).float()
        gaps = z.unsqueeze(1) - self.prototypes.float()
        return gaps.square().sum(-1) / math.sqrt(self.prototypes.shape[-1])

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        z = -self.distances(frames)
        right = (z.argmax(-1) == targets.probs.argmax(-1)).float()
        per_item = -(targets.probs * z.log_softmax(-1)).sum(-1)
        return HeadLoss(targets.average(per_item), {"accuracy": targets.average(right).detach()})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        columns = self.columns(taxonomy)
        return -self.distances(frames)[:, columns]

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Add a prototype for each new class; it starts as the mean of the old ones."""
        self.prototypes = nn.Parameter(wider_rows(self.prototypes, len(taxonomy)))
