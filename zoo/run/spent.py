"""What a run costs beside the clock: processor seconds, and floating-point operations.

Seconds on the clock tell what a machine did with its neighbours on it. Processor seconds leave the
neighbours out, and operations leave the machine out.
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
    """Processor seconds that were used up to a moment.

    Attributes:
        own: user and system seconds of this process, all threads, and of its ended children.
        running: the same of each child that runs, its own children included, by process id.
    """

    own: float
    running: dict[int, float]

    @classmethod
    def now(cls) -> Used:
        """What was used so far."""
        seconds = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            seconds += usage.ru_utime + usage.ru_stime
        return cls(seconds, {p.pid: _tree(p) for p in psutil.Process().children()})

    def since(self, before: Used, without: Sequence[int] = ()) -> float:
        """The seconds between two moments.

        Args:
            before: the earlier one.
            without: children that count themselves.
        """
        now, then = (
            moment.own + sum(s for pid, s in moment.running.items() if pid not in without)
            for moment in (self, before)
        )
        return now - then


def _tree(process: psutil.Process) -> float:
    """Processor seconds of a process and of all below it; 0 if it is gone."""
    seconds = 0.0
    with suppress(psutil.Error):
        seconds += sum(process.cpu_times()[:4])  # user and system, then those of ended children
        seconds += sum(_tree(child) for child in process.children())
    return seconds


def processor_seconds(
    total: tuple[Used, Used], parts: Mapping[str, tuple[Used, Used]], world: int = 1
) -> dict[str, float]:
    """Processor seconds of a run by part, as its record holds them.

    User and system seconds of this process with all its threads, of its children (they read
    audio), and of the other ranks with theirs. A GPU's time is none of it, nor is what a process
    took before the run: its imports. Of a resumed run only the last start is counted, as on the
    clock.

    Args:
        total: the begin and the end of the run.
        parts: the same of each part. Encoding is done while fitting begins: if both are there,
            ``fit`` is given without ``encode``.
        world: processes that train together. Each has to call this.

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
    """What every process of a run has found, by rank; each has to call this."""
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
    """Operations of the one kernel that torch runs for a transformer layer in evaluation."""
    rows, length, width = x
    own = [w for w in weights if isinstance(w, torch.Size) and len(w) == 2][:4]
    products = 2 * rows * length * sum(math.prod(w) for w in own)
    return products + 4 * rows * length * length * width


def _vector(matrix: Size, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


_aten = torch.ops.aten
# what torch has no formula for: it counts the attention of GPUs only
_OWN = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._transformer_encoder_layer_fwd: _encoder_layer,
    _aten.mv: _vector,
}
FORMULAS = {kind: shape_wrapper(formula) for kind, formula in _OWN.items()}


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

    A multiplication and an addition are two operations, so that a linear layer has ``2 B I O``.
    Matrix products, convolutions and attention are counted, forward and, in training, backward.
    Nothing else has a formula: no element-wise operation, norm, softmax, Fourier transform or
    optimiser step is counted. Counting looks on: it changes no number and draws none.

    Attributes:
        flops: of the counted batch; None = no batch was counted.
        size: of the counted batch: audio samples or stored frames, padding included.
        speech: seconds of the counted batch, without padding.
        seen: the sizes of all batches.
        batches: their number.
    """

    def __init__(self) -> None:
        self.flops: int | None = None
        self.size, self.seen, self.batches = 0, 0, 0
        self.speech = 0.0
        self._counter: Any = None

    def start(self, batch: Batch, encoder: Any) -> None:
        """A batch begins; the first one is counted until :meth:`stop`."""
        size = _size(batch)
        self.seen, self.batches = self.seen + size, self.batches + 1
        if self.batches == 1:
            self.size, self.speech = size, _speech(batch, encoder)
            self._counter = _Counter()
            self._counter.__enter__()

    def stop(self) -> None:
        """What is counted of a batch is over."""
        counter, self._counter = self._counter, None
        if counter is not None:
            counter.__exit__(None, None, None)
            self.flops = counter.total

    @contextmanager
    def counting(self, batch: Batch, encoder: Any) -> Iterator[None]:
        """Count what is done with a batch, if it is the first one."""
        self.start(batch, encoder)
        try:
            yield
        finally:
            self.stop()

    def of_batches(self, number: int) -> int | None:
        """Operations of this many batches, by the mean size of those that were seen."""
        if self.flops is None or not self.size:
            return None
        return round(self.flops / self.size * self.seen / self.batches * number)

    def per_second(self) -> float | None:
        """Operations for a second of speech, padding included; None = not counted."""
        return None if self.flops is None or not self.speech else self.flops / self.speech


def _size(batch: Batch) -> int:
    found = batch.mask if batch.hidden is not None else batch.audio
    return 0 if found is None else found.numel()


def _speech(batch: Batch, encoder: Any) -> float:
    if batch.mask is not None:
        return float(batch.mask.sum()) * float(encoder.frame_seconds)
    return 0.0 if batch.lengths is None else float(batch.lengths.sum()) / SAMPLE_RATE


class CountFlops(Callback):
    """Counts the first batch that is trained, and the first that is scored.

    If weights are shared out over processes (FSDP), nothing is counted: it is not tested there.

    Attributes:
        training: forward and backward.
        scoring: of the validation part.
    """

    def __init__(self) -> None:
        self.training, self.scoring = Tally(), Tally()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, _: int) -> None:
        if isinstance(batch, Batch) and module.device_mesh is None:
            self.training.start(batch, module.encoder)

    def on_after_backward(self, *_: Any) -> None:
        self.training.stop()

    def on_train_batch_end(self, *_: Any) -> None:
        self.training.stop()  # of a step that had no backward

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
    """Operations of a run, as its record holds them (:class:`Tally` says what counts).

    ``training`` is of the whole training, all ranks and all starts together: of one batch, times
    the number of batches, in proportion to their sizes. That is an estimate, since operations do
    not grow quite as sizes do: 3 to 5 % too high for four heads on the synthetic corpus.
    ``scoring`` is of one second of speech. Features that are read from a store cost nothing in
    either.

    Args:
        training: of this process.
        scoring: likewise.
        batches: that this process trained on, before it was resumed, too.
        world: processes that train together. Each has to call this.
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
