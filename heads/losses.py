"""Losses per utterance, for heads with one output per class.

Each takes logits ``z [B, C]`` and the target distributions ``p [B, C]`` and returns ``[B]``.
:meth:`Targets.average` takes the weighted mean over the batch. Class weights are part of the
weights of the utterances (``data.balance``).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

LossName = Literal["ce", "kl", "bce", "mse", "focal"]

FLOOR = 1e-6  # smallest 1 - q in the focal loss: a power below 1 has no finite gradient at 0


def smooth(p: Tensor, share: float) -> Tensor:
    """Return ``(1 - s) p + s / C``: label smoothing (Szegedy et al., 2016)."""
    return (1 - share) * p + share / p.shape[-1]


def cross_entropy(z: Tensor, p: Tensor) -> Tensor:
    """Return ``-sum_c p_c log softmax(z)_c``, the cross-entropy.

    It is the Kullback-Leibler divergence from ``p`` plus the entropy of ``p``.
    """
    return -(p * z.log_softmax(-1)).sum(-1)


def kl_divergence(z: Tensor, p: Tensor) -> Tensor:
    """Return ``sum_c p_c (log p_c - log softmax(z)_c)``, the Kullback-Leibler divergence.

    It has the gradient of the cross-entropy. It is 0 at the optimum, also for soft labels.
    """
    return nn.functional.kl_div(z.log_softmax(-1), p, reduction="none").sum(-1)


def focal(z: Tensor, p: Tensor, gamma: float) -> Tensor:
    """Return the focal loss, ``-sum_c p_c (1 - q_c)^gamma log q_c`` with ``q = softmax(z)``.

    After Lin et al. (2017), "Focal loss for dense object detection". Two things are our choice: a
    softmax replaces their sigmoid, and soft labels take the expectation over ``p``. With ``gamma``
    0 it is the cross-entropy.
    """
    log_q = z.log_softmax(-1)
    rest = (-torch.expm1(log_q)).clamp_min(FLOOR)
    return -(p * rest**gamma * log_q).sum(-1)


def binary_cross_entropy(z: Tensor, p: Tensor) -> Tensor:
    """Return ``-sum_c p_c log sigmoid(z_c) + (1 - p_c) log sigmoid(-z_c)``."""
    return nn.functional.binary_cross_entropy_with_logits(z, p, reduction="none").sum(-1)


def squared_error(z: Tensor, p: Tensor) -> Tensor:
    """Return ``sum_c (z_c - (2 p_c - 1))^2``: one linear regression for each class, on +1 and -1.

    Hui and Belkin (arXiv 2006.07322) found it as good as the cross-entropy for classification.
    The plain sum over classes is our choice.
    """
    return (z - (2 * p - 1)).square().sum(-1)
