"""How fast what is trained moves: the learning rate over the steps, and what decays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

Schedule = Literal["cosine", "linear"]


def rate_over_steps(total: int, warmup: float, schedule: Schedule) -> Callable[[int], float]:
    """Factor of the peak learning rate at each step: a linear rise, then a fall to zero.

    Args:
        total: steps of the whole run.
        warmup: share of them that rises; one step at least.
        schedule: of the fall: half a ``cosine``, or ``linear``.
    """
    rising = max(1, round(warmup * total))

    def scale(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        fallen = min(1.0, (step - rising) / max(1, total - rising))
        if schedule == "linear":
            return 1 - fallen
        return 0.5 * (1 + math.cos(math.pi * fallen))

    return scale


def rounds(epochs: int, batches: int, accumulate: int, min_steps: int) -> int:
    """Rounds of the training part that make an epoch, so that a run has ``min_steps`` at least.

    Args:
        epochs: of the run, each validated once.
        batches: of a round, of one process.
        accumulate: batches of a step.
        min_steps: of the whole run.
    """
    return max(1, -(-min_steps // (epochs * -(-batches // accumulate))))


def exempt_vectors(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Optimiser groups in which biases, norms and other vectors do not decay."""
    split: list[dict[str, Any]] = []
    for group in groups:
        matrices = [p for p in group["params"] if p.ndim > 1]
        vectors = [p for p in group["params"] if p.ndim <= 1]
        if matrices:
            split.append({**group, "params": matrices})
        if vectors:
            split.append({**group, "params": vectors, "weight_decay": 0.0})
    return split


def adamw(groups: list[dict[str, Any]], weight_decay: float, precision: str) -> torch.optim.AdamW:
    """AdamW in one kernel where there is one: a third of the time of a small head's step.

    Parameters that are shared out over processes take the plain one, and so does mixed precision:
    Lightning refuses to clip the gradients of a kernel that unscales them itself, and goes by what
    the kernel could do, also in bfloat16, where nothing is scaled.

    Args:
        groups: of parameters, with their learning rates.
        weight_decay: of matrices; vectors are exempt.
        precision: of the trainer.
    """
    parameters = [p for group in groups for p in group["params"]]
    fused = not precision.endswith("-mixed") and all(
        p.device.type in ("cpu", "cuda") and not hasattr(p, "full_tensor") for p in parameters
    )
    return torch.optim.AdamW(exempt_vectors(groups), weight_decay=weight_decay, fused=fused)
