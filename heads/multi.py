"""A main head with auxiliary tasks on the same frames; only the main head scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..zoo.core import registry
from ..zoo.core.errors import ConfigError, DataError, suggest
from ..zoo.core.head import Head
from ..zoo.core.registry import Dropout
from ..zoo.core.scaling import Standardiser, VectorStandardiser
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .losses import cross_entropy
from .pooling import PooledEmbedding, PoolingName

TASKS = ("gender", "speaker", "transcript")
GENDERS = 2
BLANK = 256
"""The blank of CTC; the other symbols are the 256 bytes of UTF-8."""


class MultiHead(Head):
    """A main head, and auxiliary tasks that share its frames in training.

    ``L = L_main + sum_k weight_k L_k``. The scores are those of the main head. The auxiliary tasks
    shape what they share with it: an encoder that learns, and ``shared``, a layer over the frames.
    On a frozen encoder with ``shared=0`` they change nothing. The tasks:

    ``gender``: cross-entropy of pooled frames, over female and male.

    ``speaker``: cross-entropy over the training speakers, with the gradient reversed before it
    (Ganin and Lempitsky 2015, arXiv 1409.7495). The shared frames learn to hide the speaker.

    ``transcript``: connectionist temporal classification of the transcript's bytes, in lower case
    (Graves et al. 2006), per byte. An utterance with fewer frames than CTC needs does not count.
    If ``optim.mixup`` mixes two utterances, the transcript is that of the larger part.

    An utterance counts for a task if it has a label of emotion and the task's own. Each loss is
    logged, as ``loss_main`` and ``loss_gender``; ``with_gender`` is the share of utterances that
    count.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes of the main head.
        main: a registered head, or its ``type`` with its options: ``{type: selm, prefix: 8}``.
        auxiliary: maps ``gender``, ``speaker`` or ``transcript`` to the weight of its loss.
        shared: width of a layer that all tasks share; 0 = none.
        pooling: how frames become one vector in the auxiliary tasks. It is the default of the
            main head, too.
        dropout: dropout rate after the shared layer and in the auxiliary tasks, in training.
        reverse: factor of the reversed gradient of ``speaker``; 0 = the speakers are recognised,
            and change nothing.
        speakers: the largest number of training speakers.

    Raises:
        ConfigError: if a task or the main head is unknown, or a number is out of its range.
    """

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        main: str | dict[str, Any] = "classification",
        auxiliary: dict[str, float] | None = None,
        shared: int = 128,
        pooling: PoolingName = "attentive",
        dropout: Dropout = 0.1,
        reverse: float = 1.0,
        speakers: int = 256,
    ) -> None:
        super().__init__(dim, taxonomy)
        self.weights = _weights(auxiliary)
        if shared < 0 or reverse < 0 or speakers < 2:
            raise ConfigError(
                f"shared={shared}, reverse={reverse}, speakers={speakers}; give 0 or more for the "
                "first two, and 2 or more for the last"
            )
        self.reverse = reverse
        self.shared = SharedFrames(dim, shared, dropout) if shared else None
        width = shared or dim
        kind, options = _main(main)
        if "pooling" in registry.schema_of(registry.get("heads", kind)):
            options = {"pooling": pooling} | options
        self.main: Head = registry.get("heads", kind)(width, taxonomy, **options)
        outputs = {"gender": GENDERS, "speaker": speakers}
        tasks: dict[str, nn.Module] = {
            name: Task(width, pooling, dropout, outputs[name])
            for name in self.weights
            if name in outputs
        }
        if "transcript" in self.weights:
            tasks["transcript"] = Transcript(width, dropout)
        self.tasks = nn.ModuleDict(tasks)
        if shared:
            # the run measures the encoder's frames, which only the shared layer reads
            for part in (*self.main.modules(), *self.tasks.modules()):
                if isinstance(part, Standardiser) and not isinstance(part, VectorStandardiser):
                    part.fitted.fill_(1.0)
        # as instance attributes, because they are those of the main head
        self.needs, self.open_labels = self.main.needs, self.main.open_labels  # type: ignore[misc]

    @classmethod
    def trains_on(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return what the main head reads, and the transcript if it is a task."""
        kind, own = _main(options.get("main", "classification"))
        task = "transcript" in (options.get("auxiliary") or {})
        read: frozenset[str] = registry.get("heads", kind).trains_on(own)
        return read | {"text"} if task else read

    @classmethod
    def explain(cls, taxonomy: Taxonomy, options: Mapping[str, Any]) -> list[str]:
        kind, own = _main(options.get("main", "classification"))
        lines: list[str] = registry.get("heads", kind).explain(taxonomy, own)
        if options.get("auxiliary") and options.get("shared") == 0:
            return [*lines, "shared=0: on a frozen encoder the auxiliary tasks change no score"]
        return lines

    def _seen(self, frames: Frames) -> Frames:
        return frames if self.shared is None else self.shared(frames)

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        seen = self._seen(frames)
        out = self.main.loss(seen, targets, text)
        total, extras = out.loss, {**out.extras, "loss_main": out.loss.detach()}
        for name, weight in self.weights.items():
            per_item, known = self._task(name, seen, targets, text)
            kept = replace(targets, weight=targets.weight * known)
            loss = kept.average(per_item)
            total = total + weight * loss
            extras[f"loss_{name}"] = loss.detach()
            extras[f"with_{name}"] = (kept.item_weight > 0).float().mean()
        return HeadLoss(total, extras)

    def _task(
        self, name: str, seen: Frames, targets: Targets, text: list[str] | None
    ) -> tuple[Tensor, Tensor]:
        """Return ``[B]`` losses of a task, and ``[B]`` bool: which utterances count."""
        if name == "transcript":
            found: tuple[Tensor, Tensor] = self.tasks[name](seen, text)
            return found
        if name == "speaker":
            seen = replace(seen, x=Reversed.apply(seen.x, self.reverse))  # type: ignore[no-untyped-call]
        z: Tensor = self.tasks[name](seen)
        given = targets.gender if name == "gender" else targets.speaker
        probs = torch.zeros_like(z)
        if given is not None:
            if given.shape[1] > z.shape[1]:
                raise DataError(
                    f"training has {given.shape[1]} speakers, and head.speakers={z.shape[1]}; set "
                    f"head.speakers={given.shape[1]} or more"
                )
            probs[:, : given.shape[1]] = given.to(z)
        return cross_entropy(z, probs), probs.sum(-1) > 0

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        return self.main.scores(self._seen(frames), taxonomy, text)

    @property
    def reads_frames(self) -> bool:
        pooled = [task for task in self.tasks.values() if isinstance(task, Task)]
        return (
            self.shared is not None
            or self.main.reads_frames
            or len(pooled) < len(self.tasks)
            or any(task.embed.pooling.reads_frames for task in pooled)
        )

    @property
    def writes(self) -> bool:
        return self.main.writes

    def write(self, frames: Frames) -> list[str] | None:
        return self.main.write(self._seen(frames))

    def class_written(self, text: str, taxonomy: Taxonomy) -> int | None:
        return self.main.class_written(text, taxonomy)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Widen the main head."""
        self.main.widen(taxonomy)

    def add_utterance(self, width: int) -> None:
        """Let the main head read the vectors."""
        self.main.read_utterance(width)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the groups of the main head, and one at ``lr`` for everything else."""
        groups = self.main.param_groups(lr)
        main = {id(p) for p in self.main.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in main]
        return [*groups, {"params": rest, "lr": lr}] if rest else groups

    def frozen_roots(self) -> dict[str, nn.Module]:
        return {f"main.{name}": root for name, root in self.main.frozen_roots().items()}


def _weights(auxiliary: Mapping[str, float] | None) -> dict[str, float]:
    found = dict(auxiliary or {})
    for name, weight in found.items():
        if name not in TASKS:
            raise ConfigError(f"auxiliary: no task is called '{name}'{suggest(name, TASKS)}")
        if not 0 < weight < float("inf"):
            raise ConfigError(
                f"auxiliary has {name}={weight}; give a weight above 0, or leave the task out"
            )
    return {name: float(found[name]) for name in TASKS if name in found}


def _main(main: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the registered name and the checked options of the main head."""
    options = {"type": main} if isinstance(main, str) else dict(main)
    kind = options.pop("type", None)
    if not isinstance(kind, str) or kind == "multi":
        raise ConfigError(
            f"main={main}; give a registered head other than multi, or a mapping with its type: "
            "{type: classification, hidden: 64}"
        )
    options = registry.check_options("heads", kind, options)
    return kind, options


class SharedFrames(nn.Module):
    """Standardisation, layer normalisation, a linear layer, GELU and dropout, frame by frame.

    Args:
        dim: ``D``, width of the frames.
        width: width of the result.
        dropout: dropout rate in training.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.scale = Standardiser(dim)
        self.layers = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, width), nn.GELU(), nn.Dropout(dropout)
        )

    def forward(self, frames: Frames) -> Frames:
        """Return frames ``[B, T, width]``, zero where the mask is False."""
        outside = ~frames.mask.unsqueeze(-1)
        x = self.layers(self.scale(frames.x.float().masked_fill(outside, 0.0)))
        return replace(frames, x=x.masked_fill(outside, 0.0))


class Task(nn.Module):
    """Pooling and a linear layer: logits ``[B, outputs]`` of one label of an utterance."""

    def __init__(self, width: int, pooling: PoolingName, dropout: float, outputs: int) -> None:
        super().__init__()
        self.embed = PooledEmbedding(width, pooling, dropout)
        self.output = nn.Linear(self.embed.width, outputs)

    def forward(self, frames: Frames) -> Tensor:
        z: Tensor = self.output(self.embed(frames))
        return z.float()


class Transcript(nn.Module):
    """Connectionist temporal classification of the bytes of a transcript."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, BLANK + 1)
        )

    def forward(self, frames: Frames, text: list[str] | None) -> tuple[Tensor, Tensor]:
        """Return ``[B]`` losses per byte, and ``[B]`` bool: which transcripts fit their frames.

        Args:
            frames: ``[B, T, width]``.
            text: B transcripts; an empty one does not count.

        Raises:
            DataError: if there are no transcripts at all.
        """
        if text is None:
            raise DataError(
                "the task transcript needs transcripts, and this batch has none; give batches with "
                "text, or leave transcript out of head.auxiliary"
            )
        x = frames.x.float().masked_fill(~frames.mask.unsqueeze(-1), 0.0)
        z: Tensor = self.layers(x)
        spelt = [list(" ".join(t.lower().split()).encode()) for t in text]
        lengths = frames.mask.sum(1)
        # between two equal bytes CTC needs a frame of blank
        needed = [len(s) + sum(a == b for a, b in pairwise(s)) for s in spelt]
        fits = torch.tensor(needed, device=z.device) <= lengths
        known = fits & torch.tensor([bool(s) for s in spelt], device=z.device)
        counts = torch.tensor([max(1, len(s)) for s in spelt], device=z.device)
        padded = torch.zeros(len(spelt), int(counts.max()), dtype=torch.long, device=z.device)
        for row, ids in zip(padded, spelt, strict=True):
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        with torch.autocast(z.device.type, enabled=False):
            loss = nn.functional.ctc_loss(
                z.float().log_softmax(-1).transpose(0, 1), padded, lengths, counts,
                blank=BLANK, reduction="none", zero_infinity=True,
            )  # fmt: skip
        return loss / counts, known


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a negative factor (arXiv 1409.7495)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return ``x``; ``factor`` is 0 or more."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the reversed gradient."""
        return -ctx.factor * gradients[0], None
