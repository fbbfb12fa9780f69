"""How fast what is trained moves: the learning rate over the steps, and what decays."""

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
    """AdamW in one kernel if there is one: a third of the time of a small head's step.

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


# ---- Averaged weights: what is validated, selected and tested, where a run asks for it.


# Lightning's EMAWeightAveraging has another rule: it averages integer buffers too, so the count of
# a batch normalisation stays at 1, and its decay does not rise. It copies the whole model, frozen
# encoder included, and a plain Trainer would not average without the callback.


class AveragedWeights:
    """Exponential moving average of everything that is trained, running statistics included.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so that early weights are forgotten.

    Args:
        decay: of one optimiser step.

    Attributes:
        weights: the average; empty before the first step.
        swapped: whether the model holds the average, and ``weights`` what is trained.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self.swapped = False

    def restart(self, weights: dict[str, Tensor] | None = None) -> None:
        """Go on from these; without any, from the weights after the next step."""
        self.weights, self.swapped = dict(weights or {}), False

    @torch.no_grad()
    def update(self, current: dict[str, Tensor], step: int) -> None:
        """Move the average towards the current weights."""
        if not self.weights:
            self.weights = {k: v.detach().clone() for k, v in current.items()}
            return
        for k, v in current.items():  # a checkpoint is read into main memory
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
        """Exchange the average and the current weights, in place; nothing before the first step."""
        self.swapped = bool(self.weights) and not self.swapped
        for k, v in current.items() if self.weights else ():
            held = v.clone()
            v.copy_(self.weights[k])
            self.weights[k].copy_(held)


# ---- Mixup of encoder inputs and targets, the same for every head.

MIXED = 0.5  # share of the utterances that mixup mixes (our choice)


def mix(hidden: Tensor, mask: Tensor, targets: Targets, alpha: float) -> tuple[Tensor, Targets]:
    """Mixup of encoder inputs: each item with a partner of its batch, targets alike.

    Args:
        hidden: ``[B, K, T, D]``.
        mask: ``[B, T]``.
        targets: labels, weights and dimensions, all mixed (what one half of a pair is not rated
            for, the pair is not); a pair with an unlabelled half is left alone.
        alpha: of the Beta distribution; the share of an item is at least one half.
    """
    size = len(hidden)
    share = torch.distributions.Beta(alpha, alpha).sample((size,)).to(hidden.device)
    share = torch.maximum(share, 1 - share)
    partner = torch.randperm(size, device=hidden.device)
    labelled = targets.probs.sum(-1) > 0
    chosen = labelled & labelled[partner] & (torch.rand(size, device=hidden.device) < MIXED)
    share = torch.where(chosen, share, 1.0)
    # the partner is read at its own pace over the item's length, so that no part is half silent
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
    return mixed, replace(targets, probs=probs, weight=weight, dims=dims)


# ---- Does training reach what it is said to train?


def unreached(module: nn.Module) -> list[str]:
    """Names of trainable parameters without a gradient, after a backward pass.

    A gradient of zeros counts as one: a fresh adapter's first matrix has it, since its second one
    starts at zero.
    """
    return [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]


def check_reached(module: nn.Module) -> None:
    """Refuse a module if a trainable parameter did not take part in the loss.

    Such a parameter would count as trained, stay as it was made, and end training on several
    devices with an error that does not name it.

    Raises:
        ConfigError: naming the first of them and their number.
    """
    if names := unreached(module):
        total = sum(p.requires_grad for p in module.parameters())
        raise ConfigError(
            f"{len(names)} of {total} trainable parameters get no gradient from the loss "
            f"({some(names, 4)}); an adapter on a layer that the encoder never calls, a head with "
            "an unused part: freeze them (requires_grad_(False)), remove them, or choose other "
            "encoder.lora_targets"
        )
