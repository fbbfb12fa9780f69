"""The trial of a run: everything that it would build, and a training step, for the doctor's checks.

:class:`Trial` builds data, encoder, head and optimiser as ``train`` does. :class:`Watch` is the
callback that fills a :class:`Step` with the facts of a training step.
"""

from __future__ import annotations

import random
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from ...datamodules.features import pad_hidden
from ...datamodules.sampler import BucketSampler
from ..core import registry
from ..core.errors import DataError, DataWarning, cut
from ..core.notices import quiet
from ..core.types import SAMPLE_RATE, Batch
from ..core.weights import strip_frozen
from ..run.build import build, open_data
from ..run.devices import PeakMemory, available, device_of, precision_of
from ..run.module import SERModule, evaluating
from ..run.optim import unreached
from ..run.schema import RunConfig
from ..run.spent import CountFlops


class StepFailedError(RuntimeError):
    """The training step raised an error, or needs more memory than the machine has."""


@dataclass
class Step:
    """Facts from training steps on one batch.

    Attributes:
        utterances: number of utterances in the batch.
        padded: seconds of the batch, padding included.
        whole: whether the whole batch was run; False = only a part, because the rest would not fit.
        losses: loss of each step.
        dead: trainable parameters without a gradient after the first step.
        not_finite: parameters whose gradient was not finite in the last step.
        norm: norm of all gradients in the first step.
        seconds: seconds of the last step on the batch.
        scoring: seconds to score the batch.
        growth: bytes in use at the peak, without the weights.
        source: how ``growth`` was measured.
        flops: floating-point operations of a training step, for each padded second.
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
    flops: float = 0.0


class Watch(Callback):
    """Records the facts of training steps; it reads gradients before they are clipped."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def on_before_backward(self, trainer: L.Trainer, module: Any, loss: Any) -> None:
        module._reached = True  # unreached parameters are reported here, instead of an error

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
        for _ in range(2):  # the first one is a warm-up
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


CHUNK = 8  # utterances that are encoded at a time, as for the feature store on a processor


def brief(error: Exception) -> str:
    """Return type and message of an error in one readable line."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {cut(text, 400)}"


class Trial:
    """Data, encoder, head and optimiser of a run, built as ``train`` builds them.

    Args:
        cfg: the configuration of the run.

    Attributes:
        everything: all utterances that the taxonomy keeps, as one part.
        data: the run's fold; ``everything`` if the fold cannot be used.
        refusal: why the fold cannot be used; None if it can.
        module: encoder and head, on the CPU.
        device: device of the steps: the requested one, or the CPU if it does not exist.
        precision: precision of the steps: the requested one, or ``32-true`` if the device cannot.

    Raises:
        SerzooError: as ``train`` does, except for faults of single folds.
    """

    def __init__(self, cfg: RunConfig) -> None:
        self.cfg = cfg
        text = "text" in registry.get("heads", cfg.head["type"]).trains_on(cfg.head)
        self.refusal: str | None = None
        with _reported() as in_report:
            self.everything = open_data(cfg, text=text, everything=True)
            for notes in self.everything.speech.notes.values():
                in_report += [*notes.get("warnings", ()), *notes.get("remarks", ())]
            try:
                # as in ``train``, an automatic taxonomy is that of all utterances
                self.data = open_data(cfg, self.everything.taxonomy, text=text)
            except DataError as error:
                self.data, self.refusal = self.everything, str(error)
        self.dataset = self.data.datasets["test" if self.refusal else "train"]
        self.module: SERModule = build(cfg, self.data.taxonomy)
        self.device, self.precision = device_of(cfg), precision_of(cfg)

    @property
    def stored(self) -> bool:
        """Whether training would read features from the store."""
        return self.cfg.data.features != "live" and bool(self.module.encoder.storable)

    @property
    def world(self) -> int:
        """The number of processes that share the training."""
        return self.cfg.trainer.devices * self.cfg.trainer.num_nodes

    @cached_property
    def batches(self) -> list[list[int]]:
        """The indices of the first epoch's batches, by padded seconds."""
        d = self.cfg.data
        sampler = BucketSampler(
            self.dataset.seconds, size=d.batch_size, budget=d.batch_seconds, seed=self.cfg.seed
        )
        return sorted(sampler.batches(), key=self.padded)

    def padded(self, indices: Sequence[int]) -> float:
        """Return the seconds of a batch, padding included."""
        seconds = self.dataset.seconds
        return float(len(indices) * max(seconds[i] for i in indices))

    @cached_property
    def chosen(self) -> list[int]:
        """The batch of the trial: the one of median size, with the longest utterance first."""
        seconds = self.dataset.seconds
        return sorted(self.batches[len(self.batches) // 2], key=lambda i: -seconds[i])

    @cached_property
    def loaded(self) -> tuple[Batch, float]:
        """The chosen batch as audio, and the seconds of reading it."""
        began = time.perf_counter()
        return self.dataset[self.chosen], time.perf_counter() - began

    @cached_property
    def encoded(self) -> tuple[Batch, float]:
        """The chosen batch as stored features, and the seconds of encoding one second of speech."""
        batch, _ = self.loaded
        rows, seconds = self.encode()
        hidden, mask = pad_hidden(rows)
        assert batch.audio is not None
        assert batch.lengths is not None
        vectors = self.module.encoder.vectors(batch.audio, batch.lengths)
        rest = {"hidden": hidden, "mask": mask, "utterance": vectors}
        made = Batch(batch.ids, batch.speakers, batch.targets, batch.text, **rest)
        return made, seconds

    def encode(self) -> tuple[list[Tensor], float]:
        """Encode the chosen batch in small parts.

        Returns:
            ``[K, T, D]`` of each utterance, and the seconds of encoding one second of speech.
        """
        batch, _ = self.loaded
        assert batch.audio is not None
        assert batch.lengths is not None
        encoder = self.module.encoder.eval().to(self.device)
        seconds, rows = [], []
        for first in [0, *range(0, len(batch), CHUNK)]:  # the first one twice, as a warm-up
            lengths = batch.lengths[first : first + CHUNK]
            audio = batch.audio[first : first + CHUNK, : int(lengths.max())]
            began = time.perf_counter()
            with torch.no_grad():
                hidden, mask = encoder.extract(audio.to(self.device), lengths.to(self.device))
                found = [h[:, :n].cpu() for h, n in zip(hidden, mask.sum(1), strict=True)]
            seconds.append(time.perf_counter() - began)
            rows += found
        encoder.cpu()
        length = float(batch.lengths.sum()) / SAMPLE_RATE
        return rows[min(CHUNK, len(batch)) :], sum(seconds[1:]) / length

    def batch(self, utterances: int | None = None) -> Batch:
        """Return the chosen batch as training sees it, or only its first utterances."""
        batch = self.encoded[0] if self.stored else self.loaded[0]
        return batch if utterances is None else first_of(batch, utterances)

    @cached_property
    def step(self) -> Step:
        """Run two steps on the chosen batch, after one on a quarter; restore the weights.

        The step on a quarter prevents a batch that is too large for the memory from ending the
        process.

        Raises:
            StepFailedError: if a step raised an error; the message is that of the error.
        """
        module = self.module
        kept = strip_frozen(module.state_dict(), module.frozen_keys())
        kept = {k: v.detach().clone() for k, v in kept.items()}
        try:
            with evaluating(module.cpu()):
                module.standardise_by(lambda: [self.batch()])
            return self._stepped(module)
        except Exception as error:
            raise StepFailedError(brief(error)) from error
        finally:
            module.cpu().zero_grad(set_to_none=True)
            module.load_state_dict(kept, strict=False)
            if module.average is not None:
                module.average.restart()

    def _stepped(self, module: SERModule) -> Step:
        n = len(self.chosen)
        few = min(n, max(2, n // 4))
        step = Step(few, self.padded(self.chosen[:few]), whole=few == n)
        self.batch()  # encode before memory is measured
        weights = bytes_of(module.parameters()) if self.device.type == "cuda" else 0
        # gradients and AdamW's two moments do not grow with the batch
        fixed = 3 * bytes_of(p for p in module.parameters() if p.requires_grad)
        with PeakMemory(self.device) as peak:
            self._fit(module, step, self.batch(few), 1, counted := CountFlops())
        step.flops = (counted.training.flops or 0) / step.padded
        step.growth, step.source = max(0, peak.growth - weights), peak.source
        share = self.padded(self.chosen) / step.padded
        need = weights + fixed + share * max(0, step.growth - fixed)
        if need > available(self.device):
            return step
        step.utterances, step.padded, step.whole = n, self.padded(self.chosen), True
        with PeakMemory(self.device) as peak:
            self._fit(module, step, self.batch(), 2)
        # memory of the first fit may still be held, and be used again
        step.growth = max(step.growth, peak.growth - weights)
        return step

    def _fit(
        self, module: SERModule, step: Step, batch: Batch, steps: int, *more: Callback
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = L.Trainer(
                accelerator=self.device.type,
                devices=1,
                precision=self.precision,  # type: ignore[arg-type]
                max_epochs=1,
                gradient_clip_val=self.cfg.optim.clip or None,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
                limit_val_batches=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[Watch(step), *more],
                plugins=[LightningEnvironment()],  # one process, also inside a cluster's job
                default_root_dir=folder,
            )
            # its own generator keeps the random numbers of the run unchanged
            loader: DataLoader[Batch] = DataLoader(
                [batch] * steps,  # type: ignore[arg-type]  # a list is a dataset
                batch_size=None,
                generator=torch.Generator(),
            )
            trainer.fit(module, loader)


def first_of(batch: Batch, n: int) -> Batch:
    """Return the first utterances of a batch whose first utterance is the longest."""

    def cut(tensor: Any) -> Any:
        return None if tensor is None else tensor[:n]

    targets = type(batch.targets)(*(cut(getattr(batch.targets, k)) for k in _TARGETS))
    rows = {k: cut(getattr(batch, k)) for k in ("audio", "lengths", "hidden", "mask", "utterance")}
    return Batch(batch.ids[:n], batch.speakers[:n], targets, cut(batch.text), **rows)


_TARGETS = ("probs", "weight", "dims")


def bytes_of(tensors: Any) -> int:
    """Return the size of tensors in memory."""
    return sum(t.numel() * t.element_size() for t in tensors)


@contextmanager
def _reported() -> Iterator[list[str]]:
    """Context that gives a list of texts; warnings with these texts are not shown.

    The report shows them, so that opening the data need not show them too.
    """
    texts: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            yield texts
    except BaseException:  # there is no report in this case
        texts.clear()
        raise
    finally:
        for text, w in {str(w.message): w for w in caught}.items():  # each once
            if text not in texts:
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


@contextmanager
def undisturbed(threads: int | None) -> Iterator[None]:
    """Context that restores random states and the number of threads at its end.

    Args:
        threads: number of threads meanwhile; None = unchanged.
    """
    before = torch.get_num_threads()
    states = random.getstate(), np.random.get_state()
    if threads:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            quiet()
            warnings.filterwarnings("ignore", ".*but have no `val_dataloader`.*")
            yield
    finally:
        torch.set_num_threads(before)
        random.setstate(states[0])
        np.random.set_state(states[1])
