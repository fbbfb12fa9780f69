"""A fixed number of steps on a support: nothing is selected, so nothing must be validated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.types import Batch, Frames, Targets
from ..module import SERModule
from ..optim import adamw, check_reached, rate_over_steps


@dataclass(frozen=True)
class Steps:
    """How what is trained is moved.

    Attributes:
        steps: of the optimiser.
        batch_size: utterances in a step; a smaller support is one batch.
        lr: peak learning rate of the encoder.
        head_lr: peak learning rate of the head.
        weight_decay: of matrices.
        warmup: share of the steps that rises; then half a cosine to zero.
        clip: gradient norm; 0 = none.
    """

    steps: int
    batch_size: int
    lr: float
    head_lr: float
    weight_decay: float
    warmup: float
    clip: float


def fit(
    module: SERModule,
    support: Any,
    columns: Sequence[int],
    how: Steps,
    *,
    encoder: bool,
    seed: int,
) -> list[float]:
    """Move the head, and the encoder where asked, by a number of steps.

    The encoder stays in evaluation mode: its running statistics are those of the source, since
    those of a few utterances tell little, and nothing is dropped or augmented in it (our choice).
    An encoder that is not trained hears each utterance once.

    Args:
        module: on its device; in evaluation mode thereafter.
        support: a dataset of the target's utterances, over the target's classes.
        columns: where these stand in the head's taxonomy.
        how: the steps.
        encoder: whether what is trainable in it is trained.
        seed: of the order of the utterances, and of what the head draws.

    Returns:
        The loss of each step.
    """
    torch.manual_seed(seed)
    device = next(module.parameters()).device
    module.eval()
    if not encoder:
        module.encoder.requires_grad_(False)
    module.head.train()
    groups = module.encoder.param_groups(how.lr, how.head_lr) if encoder else []
    groups += module.head.param_groups(how.head_lr)
    optimizer = adamw(groups, how.weight_decay, "32-true")
    scale = rate_over_steps(how.steps, how.warmup, "cosine")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    trained = [p for group in groups for p in group["params"]]
    batches = _Batches(module, support, columns, how.batch_size, live=encoder, seed=seed)
    losses: list[float] = []
    for frames, targets, text in batches.first(how.steps, device):
        loss = module.head.loss(frames, targets, text).loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if not losses:
            check_reached(module)
        if how.clip:
            torch.nn.utils.clip_grad_norm_(trained, how.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    module.eval()
    return losses


class _Batches:
    def __init__(
        self,
        module: SERModule,
        support: Any,
        columns: Sequence[int],
        size: int,
        *,
        live: bool,
        seed: int,
    ) -> None:
        self.module, self.support, self.live = module, support, live
        self.columns, self.classes = list(columns), len(module.head.taxonomy)
        n = len(support)
        self.size = -(-n // -(-n // size))  # no small rest
        self.order = torch.Generator().manual_seed(seed)
        self.kept: dict[tuple[int, ...], Any] = {}

    def first(
        self, steps: int, device: torch.device
    ) -> Iterator[tuple[Frames, Targets, list[str] | None]]:
        left: list[list[int]] = []
        for _ in range(steps):
            if not left:
                order = torch.randperm(len(self.support), generator=self.order)
                left = [sorted(part.tolist()) for part in torch.split(order, self.size)]
            yield self._of(left.pop(0), device)

    def _of(
        self, rows: list[int], device: torch.device
    ) -> tuple[Frames, Targets, list[str] | None]:
        if self.live:
            batch = self._read(tuple(rows)).to(device)
            return self.module.frames(batch), self._targets(batch), batch.text
        found = [self._heard(row, device) for row in rows]
        longest = max(frames.x.shape[1] for frames, _, _ in found)
        x = torch.cat([_padded(frames.x, longest) for frames, _, _ in found])
        mask = torch.cat([_padded(frames.mask, longest) for frames, _, _ in found])
        given = [targets for _, targets, _ in found]
        dims = None
        if any(t.dims is not None for t in given):
            nothing = torch.full((1, 3), float("nan"), device=device)
            dims = torch.cat([nothing if t.dims is None else t.dims for t in given])
        probs, weight = (torch.cat([getattr(t, k) for t in given]) for k in ("probs", "weight"))
        texts = [text for _, _, text in found]
        joined = None if texts[0] is None else [t for text in texts for t in text or ()]
        return Frames(x, mask), Targets(probs, weight, dims), joined

    def _heard(self, row: int, device: torch.device) -> Any:
        """Frames of one utterance, by an encoder that does not change."""
        if (row,) not in self.kept:
            batch: Batch = self.support[[row]].to(device)
            with torch.no_grad():
                frames = self.module.frames(batch)
            self.kept[(row,)] = (frames, self._targets(batch), batch.text)
        return self.kept[(row,)]

    def _read(self, rows: tuple[int, ...]) -> Batch:
        """A batch of audio, kept where it is the whole support."""
        if len(rows) < len(self.support):
            return self.support[list(rows)]  # type: ignore[no-any-return]
        if rows not in self.kept:
            self.kept[rows] = self.support[list(rows)]
        return self.kept[rows]  # type: ignore[no-any-return]

    def _targets(self, batch: Batch) -> Targets:
        """Over the head's classes instead of the target's."""
        given = batch.targets
        probs = given.probs.new_zeros(len(given.probs), self.classes)
        probs[:, self.columns] = given.probs
        return Targets(probs, given.weight, given.dims)


def _padded(x: Tensor, length: int) -> Tensor:
    """``[1, T, ...]`` to ``[1, length, ...]`` by zeros behind."""
    short = length - x.shape[1]
    return x if not short else torch.cat([x, x.new_zeros(1, short, *x.shape[2:])], 1)
