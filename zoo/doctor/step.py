"""A training step as the doctor sees it: what it did, and the callback that looks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ..training.gradients import unreached


class StepFailedError(RuntimeError):
    """The training step raised an error, or needs more memory than there is."""


@dataclass
class Step:
    """What training steps on one batch showed.

    Attributes:
        utterances: in the batch.
        padded: seconds of the batch, padding included.
        whole: whether the batch was run; False = a part only, the rest would not have fitted.
        losses: of each step.
        dead: trainable parameters without a gradient, after the first.
        not_finite: parameters whose gradient was not finite, in the last.
        norm: of all gradients, in the first.
        seconds: of the last step, on the batch.
        scoring: seconds to score the batch.
        growth: bytes in use at the peak beyond the weights.
        source: where ``growth`` comes from.
    """

    utterances: int
    padded: float
    whole: bool = True
    losses: list[float] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    norm: float = 0.0
    seconds: float = 0.0
    scoring: float = 0.0
    growth: int = 0
    source: str = ""


class Watch(Callback):
    """Notes what happens in training steps; looks at gradients before they are clipped."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def on_before_backward(self, trainer: L.Trainer, module: Any, loss: Any) -> None:
        module._reached = True  # it is reported here, all of it, instead of refused

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        step = self.step
        found = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        if not step.losses:
            step.dead = unreached(module)
            norms = [g.detach().float().norm() for g in found.values()]
            step.norm = float(torch.stack(norms).norm()) if norms else 0.0
        step.not_finite = [n for n, g in found.items() if not bool(g.isfinite().all())]

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, _: int) -> None:
        self.began = self._now(module)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        self.step.seconds = self._now(module) - self.began
        self.step.losses.append(float(outputs["loss"]))
        self.batch = batch

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        module.eval()
        for _ in range(2):  # the first one warms up
            began = self._now(module)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                module(self.batch)
            self.step.scoring = self._now(module) - began
        module.train()

    @staticmethod
    def _now(module: Any) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return time.perf_counter()
