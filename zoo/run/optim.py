"""Optimisation: learning rate, weight decay, averaged weights, mixup, unreached weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, some
from ..core.types import Targets

Schedule = Literal["cosine", "linear"]


def rate_over_steps(total: int, warmup: float, schedule: Schedule) -> Callable[[int], float]:
    """Return the factor of the peak learning rate at each step: a linear rise, then a fall to zero.

    Args:
        total: steps of the whole run.
        warmup: share of the steps in which the rate rises; at least one step does.
        schedule: how the rate falls: half a ``cosine``, or ``linear``.
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
    """Return how often an epoch repeats the training part, so that a run has enough steps.

    Args:
        epochs: number of epochs of the run, each validated once.
        batches: number of batches of the training part, in one process.
        accumulate: batches in a step.
        min_steps: fewest steps of the whole run.
    """
    return max(1, -(-min_steps // (epochs * -(-batches // accumulate))))


def exempt_vectors(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split the optimiser's groups so that biases, norms and other vectors do not decay."""
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
    """Return AdamW (Loshchilov and Hutter 2019), in one kernel if possible.

    One kernel takes a third of the time of a small head's step. Weights that processes share need
    the plain version. Mixed precision needs it, too. Lightning refuses to clip the gradients of a
    kernel that can unscale them itself. It does so even in bfloat16, which scales nothing.

    Args:
        groups: groups of parameters, with their learning rates.
        weight_decay: weight decay of matrices; vectors do not decay.
        precision: precision of the trainer.
    """
    parameters = [p for group in groups for p in group["params"]]
    fused = not precision.endswith("-mixed") and all(
        p.device.type in ("cpu", "cuda") and not hasattr(p, "full_tensor") for p in parameters
    )
    return torch.optim.AdamW(exempt_vectors(groups), weight_decay=weight_decay, fused=fused)


# Lightning's EMAWeightAveraging follows another rule. Its decay does not rise. It also averages
# integer buffers, so that the count of a batch normalisation stays at 1. It copies the whole model
# with its frozen encoder, and a plain Trainer would not average without the callback.


class AveragedWeights:
    """Exponential moving average of all trained weights and running statistics.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so that early weights are forgotten.

    Args:
        decay: decay of one step of the optimiser.

    Attributes:
        weights: the average; empty before the first step.
        swapped: whether the model holds the average, and ``weights`` the trained weights.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self.swapped = False

    def restart(self, weights: dict[str, Tensor] | None = None) -> None:
        """Go on from these weights; without any, from those after the next step."""
        self.weights, self.swapped = dict(weights or {}), False

    @torch.no_grad()
    def update(self, current: dict[str, Tensor], step: int) -> None:
        """Move the average towards the current weights."""
        if not self.weights:
            self.weights = {k: v.detach().clone() for k, v in current.items()}
            return
        for k, v in current.items():  # weights of a checkpoint are on the CPU
            self.weights[k] = self.weights[k].to(v.device)
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        floats = [k for k, v in current.items() if v.is_floating_point()]
        ours = [self.weights[k] for k in floats]
        torch._foreach_lerp_(ours, [current[k] for k in floats], share)
        for k, v in current.items():
            if not v.is_floating_point():
                self.weights[k].copy_(v)

    @torch.no_grad()
    def swap(self, current: dict[str, Tensor]) -> None:
        """Exchange average and current weights in place; do nothing before the first step."""
        self.swapped = bool(self.weights) and not self.swapped
        for k, v in current.items() if self.weights else ():
            held = v.clone()
            v.copy_(self.weights[k])
            self.weights[k].copy_(held)


MIXED = 0.5  # share of the utterances that mixup mixes (our choice)


def mix(
    hidden: Tensor,
    mask: Tensor,
    targets: Targets,
    alpha: float,
    vectors: Tensor | None = None,
) -> tuple[Tensor, Targets, Tensor | None]:
    """Mix encoder inputs and targets: each item with a partner of its batch (Zhang et al. 2018).

    Args:
        hidden: ``[B, K, T, D]`` inputs of the encoder.
        mask: ``[B, T]``, True for frames of speech.
        targets: labels, weights, dimensions, genders and speakers, all mixed. If a dimension is
            missing in one item of a pair, the mixed item lacks it. A pair with an unlabelled item
            is not mixed.
        alpha: a of Beta(a, a). An item's own share is at least one half.
        vectors: ``[B, F]`` vectors of the utterances, mixed as the inputs are; or None.

    Returns:
        Mixed inputs, targets and vectors, of the same shapes.
    """
    size = len(hidden)
    share = torch.distributions.Beta(alpha, alpha).sample((size,)).to(hidden.device)
    share = torch.maximum(share, 1 - share)
    partner = torch.randperm(size, device=hidden.device)
    labelled = targets.probs.sum(-1) > 0
    chosen = labelled & labelled[partner] & (torch.rand(size, device=hidden.device) < MIXED)
    share = torch.where(chosen, share, 1.0)
    # the partner is stretched to the item's length, so that no part is mixed with padding
    length = mask.sum(1, keepdim=True)
    time = torch.arange(mask.shape[1], device=hidden.device) * length[partner] // length
    time = torch.minimum(time, length[partner] - 1)[:, None, :, None]
    other = hidden[partner].gather(2, time.expand_as(hidden))
    lam = share.to(hidden.dtype)[:, None, None, None]
    mixed = (lam * hidden + (1 - lam) * other) * mask[:, None, :, None]
    lam = share[:, None]
    probs = lam * targets.probs + (1 - lam) * targets.probs[partner]
    weight = share * targets.weight + (1 - share) * targets.weight[partner]
    dims = targets.dims
    if dims is not None:
        dims = torch.where(lam < 1, lam * dims + (1 - lam) * dims[partner], dims)
    others = {
        name: lam * given + (1 - lam) * given[partner]
        for name in ("gender", "speaker")
        if (given := getattr(targets, name)) is not None
    }
    if vectors is not None:
        vectors = lam * vectors + (1 - lam) * vectors[partner]
    return mixed, replace(targets, probs=probs, weight=weight, dims=dims, **others), vectors


def unreached(module: nn.Module) -> list[str]:
    """Return the names of trainable parameters without a gradient, after a backward pass.

    A gradient of zeros counts. The first matrix of a new adapter has one, since its second matrix
    starts at zero.
    """
    return [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]


def check_reached(module: nn.Module) -> None:
    """Refuse a module if a trainable parameter has no part in the loss.

    It would count as trained, but keep its first value. On several devices, training would end
    with an error that does not name it.

    Raises:
        ConfigError: if there are such parameters. It names their number and the first ones.
    """
    if names := unreached(module):
        total = sum(p.requires_grad for p in module.parameters())
        raise ConfigError(
            f"{len(names)} of {total} trainable parameters get no gradient from the loss "
            f"({some(names, 4)}); they may adapt a layer that the encoder never calls, or be an "
            "unused part of a head; freeze them (requires_grad_(False)), remove them, or choose "
            "other encoder.lora_targets"
        )
