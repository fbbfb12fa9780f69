"""Costs of a run beside its time: processor seconds and floating-point operations.

The time of a run depends on what else the machine does. Processor seconds do not, but they depend
on the machine. Operations depend on neither.
"""

from __future__ import annotations

import math
import os
import platform
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import lightning as L
import psutil
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)

from ..core.types import SAMPLE_RATE, Batch

# Processor seconds.


class Used(NamedTuple):
    """The processor seconds used up to a moment.

    Attributes:
        own: user and system seconds of this process (all threads) and of its ended children.
        running: the same for each running child with its own children, by process id.
    """

    own: float
    running: dict[int, float]

    @classmethod
    def now(cls) -> Used:
        """Measure the seconds used so far."""
        seconds = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            seconds += usage.ru_utime + usage.ru_stime
        return cls(seconds, {p.pid: _tree(p) for p in psutil.Process().children()})

    def since(self, before: Used, without: Sequence[int] = ()) -> float:
        """Return the seconds between two moments.

        Args:
            before: the earlier moment.
            without: process ids of children that count their own seconds.
        """
        now, then = (
            moment.own + sum(s for pid, s in moment.running.items() if pid not in without)
            for moment in (self, before)
        )
        return now - then


def _tree(process: psutil.Process) -> float:
    """Return the processor seconds of a process and its descendants; 0 if it has ended."""
    seconds = 0.0
    with suppress(psutil.Error):
        seconds += sum(process.cpu_times()[:4])  # user and system, then those of ended children
        seconds += sum(_tree(child) for child in process.children())
    return seconds


def processor_seconds(
    total: tuple[Used, Used], parts: Mapping[str, tuple[Used, Used]], world: int = 1
) -> dict[str, float]:
    """Return the processor seconds of a run by part, as its record holds them.

    They are user and system seconds of all ranks, with their threads and their children, which
    read audio. The time of a GPU is not included, nor are imports before the run. For a resumed
    run only the last start is counted, as for its time.

    Args:
        total: the start and the end of the run.
        parts: the same for each part. Encoding happens during the fit: if both are given,
            ``fit`` is returned without ``encode``.
        world: number of processes that train together. Each has to call this.

    Returns:
        Seconds of each part, and their ``total``.
    """
    node, own = platform.node(), os.getpid()
    ranks = [pid for other, pid in gathered((node, own), world) if other == node and pid != own]
    laps = {**parts, "total": total}
    mine = {part: end.since(begin, ranks) for part, (begin, end) in laps.items()}
    if {"encode", "fit"} <= mine.keys():
        mine["fit"] -= mine["encode"]
    everyone = gathered(mine, world)
    return {part: round(sum(rank[part] for rank in everyone), 2) for part in laps}


def gathered(found: Any, world: int) -> list[Any]:
    """Return the values of all processes of a run, by rank; each has to call this."""
    if world == 1:
        return [found]
    everyone: list[Any] = [None] * world
    torch.distributed.all_gather_object(everyone, found)
    return everyone


# Floating-point operations.

Size = Sequence[int]


def _attention(query: Size, key: Size, value: Size, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(out: Size, query: Size, key: Size, value: Size, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(out, query, key, value))  # type: ignore[no-untyped-call]


def _encoder_layer(x: Size, *weights: Any, **_: Any) -> int:
    """Return the operations of torch's fused kernel of a transformer layer in evaluation."""
    rows, length, width = x
    own = [w for w in weights if isinstance(w, torch.Size) and len(w) == 2][:4]
    products = 2 * rows * length * sum(math.prod(w) for w in own)
    return products + 4 * rows * length * length * width


def _vector(matrix: Size, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


_aten = torch.ops.aten
# kernels without a formula in torch, which counts attention on GPUs only
_OWN = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._transformer_encoder_layer_fwd: _encoder_layer,
    _aten.mv: _vector,
}
FORMULAS = {
    kind: shape_wrapper(formula)  # type: ignore[no-untyped-call]
    for kind, formula in _OWN.items()
}


class _Counter(TorchDispatchMode):
    """Adds up the formulas of ``torch.utils.flop_counter`` over the operations that run.

    ``FlopCounterMode`` also replaces operations by others, which rounds differently: a run that
    was resumed then ended in other weights. This one only looks on. Operations that consist of
    others are seen as these under ``no_grad`` and in training, but not in inference mode.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        kind = func._overloadpacket
        if formula := FORMULAS.get(kind) or flop_registry.get(kind):
            self.total += int(formula(*args, **given, out_val=out))
        return out


class Tally:
    """Counts the operations of one batch, and the size of every batch.

    A multiplication and an addition are two operations, so a linear layer has ``2 B I O``. Matrix
    products, convolutions and attention are counted: forward and, in training, backward. Other
    operations are not: element-wise ones, norms, softmax, Fourier transforms, optimiser steps.
    Counting changes no result and uses no random number.

    Attributes:
        flops: operations of the counted batch; None = no batch was counted.
        size: size of the counted batch in audio samples or stored frames, with padding.
        speech: seconds of speech in the counted batch, without padding.
        seen: sum of the sizes of all batches.
        batches: number of all batches.
    """

    def __init__(self) -> None:
        self.flops: int | None = None
        self.size, self.seen, self.batches = 0, 0, 0
        self.speech = 0.0
        self._counter: Any = None

    def start(self, batch: Batch, encoder: Any) -> None:
        """Begin a batch; the first one is counted until :meth:`stop`."""
        size = _size(batch)
        self.seen, self.batches = self.seen + size, self.batches + 1
        if self.batches == 1:
            self.size, self.speech = size, _speech(batch, encoder)
            self._counter = _Counter()
            self._counter.__enter__()

    def stop(self) -> None:
        """End the count of a batch."""
        counter, self._counter = self._counter, None
        if counter is not None:
            counter.__exit__(None, None, None)
            self.flops = counter.total

    @contextmanager
    def counting(self, batch: Batch, encoder: Any) -> Iterator[None]:
        """Count the operations in this context if the batch is the first one."""
        self.start(batch, encoder)
        try:
            yield
        finally:
            self.stop()

    def of_batches(self, number: int) -> int | None:
        """Estimate the operations of ``number`` batches from the mean size of the seen ones."""
        if self.flops is None or not self.size:
            return None
        return round(self.flops / self.size * self.seen / self.batches * number)

    def per_second(self) -> float | None:
        """Return operations for a second of speech, with those for padding; None = not counted."""
        return None if self.flops is None or not self.speech else self.flops / self.speech


def _size(batch: Batch) -> int:
    found = batch.mask if batch.hidden is not None else batch.audio
    return 0 if found is None else found.numel()


def _speech(batch: Batch, encoder: Any) -> float:
    if batch.seconds is not None:
        return float(batch.seconds.sum())
    if batch.mask is not None:
        return float(batch.mask.sum()) * float(encoder.frame_seconds)
    return 0.0 if batch.lengths is None else float(batch.lengths.sum()) / SAMPLE_RATE


class CountFlops(Callback):
    """Counts the first batch that is trained, and the first that is scored.

    Nothing is counted if weights are sharded over processes (FSDP), since that is not tested.

    Attributes:
        training: count of the training batch, forward and backward.
        scoring: count of the batch of the validation part.
    """

    def __init__(self) -> None:
        self.training, self.scoring = Tally(), Tally()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, _: int) -> None:
        if isinstance(batch, Batch) and module.device_mesh is None:
            self.training.start(batch, module.encoder)

    def on_after_backward(self, *_: Any) -> None:
        self.training.stop()

    def on_train_batch_end(self, *_: Any) -> None:
        self.training.stop()  # if the step had no backward pass

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: Any, batch: Any, *_: Any
    ) -> None:
        if not isinstance(batch, Batch) or module.device_mesh is not None:
            return
        if self.scoring.batches:
            self.scoring.start(batch, module.encoder)
            return
        # once more, and not in inference mode, which hides the parts of an operation
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            self.scoring.counting(batch, module.encoder),
        ):
            module.score(batch, module.head.taxonomy)

    def on_exception(self, *_: Any) -> None:
        self.training.stop()
        self.scoring.stop()


def flops(
    training: Tally | None, scoring: Tally | None, batches: int, world: int = 1
) -> dict[str, float]:
    """Return the operations of a run, as its record holds them (:class:`Tally` counts them).

    ``training`` counts the whole training with all ranks and starts. It is the count of one batch,
    scaled to the sizes of all batches. That is an estimate, since operations do not grow quite as
    sizes do. It is 3 to 5 % too high for four heads on the synthetic corpus. ``scoring`` counts one
    second of speech. Features that are read from a store cost nothing in either.

    Args:
        training: count of this process; None = not counted.
        scoring: likewise, for the validation part.
        batches: number of batches that this process trained on, before a resume, too.
        world: number of processes that train together. Each has to call this.
    """
    own = None if training is None else training.of_batches(batches)
    every = [n for n in gathered(own, world) if n is not None]
    found: dict[str, float] = {}
    if len(every) == world:
        found["training"] = sum(every)
    per_second = None if scoring is None else scoring.per_second()
    if per_second is not None:
        found["scoring"] = round(per_second, 1)
    return found
