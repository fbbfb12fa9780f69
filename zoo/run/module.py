"""The one LightningModule: an encoder and a head that can be exchanged."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ..core.encoder import Encoder
from ..core.errors import ConfigError, DataError
from ..core.head import Head
from ..core.scaling import FrameStatistics, standardisers
from ..core.taxonomy import Taxonomy
from ..core.types import Batch, Frames
from ..core.weights import FORMAT, check_keys, check_published, published_parts, strip_frozen
from ..statistics.rates import FloatArray
from ..statistics.table import PredictionTable, merge
from . import published
from .board import show_texts, unparsable
from .checkpoint import described
from .config import refused_precision
from .devices import share_out
from .optim import AveragedWeights, Schedule, adamw, check_reached, mix, rate_over_steps


class Scored(NamedTuple):
    """What a model says about a batch of B utterances.

    Attributes:
        values: ``[B, C]`` float64 log-scores, as the head gave them: they may not be finite.
        texts: B texts that the head wrote freely; None if it does not write.
    """

    values: FloatArray
    texts: list[str] | None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every part has the mode it had."""
    trained = [part for part in module.modules() if part.training]
    if trained:
        module.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


class SERModule(L.LightningModule):
    """Trains a head on an encoder and collects one row of scores per utterance.

    No metric is averaged over batches or ranks: evaluation gathers rows, keyed by id, and every
    number comes from the one :class:`PredictionTable` of all ranks, kept in :attr:`tables`.

    Args:
        encoder: audio to frames.
        head: frames to scores, built for ``encoder.dim``.
        lr: peak learning rate of the encoder (and of the head, unless ``head_lr`` is given).
        head_lr: peak learning rate of the head.
        mix_lr: peak learning rate of a learned mix of layers; ``lr`` by default.
        weight_decay: of AdamW; biases, norms and other vectors are exempt.
        warmup: share of the steps with linearly rising rate.
        schedule: how the rate then falls to zero: ``cosine`` or ``linear``.
        mixup: parameter a of Beta(a, a); 0 = off (Zhang et al. 2018, on the encoder's input).
        ema: decay of the averaged weights that are validated, selected and tested; 0 = off.
        seed: with epoch and rank decides all randomness of training, so that a run that was
            killed and resumed at an epoch's start ends in the same weights.
        standardise: let the head standardise pooled frames by the training part, if the encoder is
            steady (:mod:`..core.scaling`).
        metadata: plain containers stored in every checkpoint under ``serzoo``.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        *,
        lr: float = 1e-3,
        head_lr: float | None = None,
        mix_lr: float | None = None,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        schedule: Schedule = "cosine",
        mixup: float = 0.0,
        ema: float = 0.0,
        seed: int = 1,
        standardise: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.lr, self.head_lr, self.mix_lr = lr, head_lr, mix_lr  # None = lr, which may be tuned
        self.weight_decay, self.warmup, self.schedule = weight_decay, warmup, schedule
        self.mixup, self.seed = mixup, seed
        self.average = AveragedWeights(ema) if ema > 0 else None
        self.standardise = standardise
        self.metadata = metadata or {}
        self.temperature: float | None = None  # of the scores; None = not calibrated
        self.tables: dict[str, PredictionTable] = {}
        self.validated_as = "val"  # what names of validation's numbers begin with
        self.strict_loading = False  # frozen roots are not saved; check_keys does the checking
        self._loss = MeanMetric()
        self._extras: dict[str, MeanMetric] = {}
        self._rows: list[PredictionTable] = []
        self._epoch_start = 0.0
        self._seen = 0
        self._frozen: frozenset[str] | None = None
        self._published: dict[str, Any] | None = None
        self._reached, self._averaged, self._shared_out = False, 0, False

    def setup(self, stage: str) -> None:
        """Refuse what this module cannot be trained or scored with, before any batch is read.

        Raises:
            ConfigError: for a trainer's precision or strategy, saying which to set.
        """
        if refusal := refused_precision(str(self.trainer.precision)):
            raise ConfigError(f"Trainer(precision=...) {refusal}")
        if isinstance(self.trainer.strategy, FSDPStrategy):
            raise ConfigError(
                "Trainer(strategy='fsdp') is the first FSDP, which cannot move serzoo's batches; "
                "set strategy=ModelParallelStrategy(save_distributed_checkpoint=False)"
            )

    def configure_model(self) -> None:
        """Share the weights out, where the strategy asks for it."""
        if self.device_mesh is not None and not self._shared_out:
            share_out(self)
            self._shared_out = True

    # -- forward -------------------------------------------------------------------------------

    def frames(self, batch: Batch) -> Frames:
        """Frames of a batch, from stored features where it carries them."""
        return self._frames(*self._hidden(batch))

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Batch):  # of a loader of the user's own
            raise DataError(
                f"a loader gave a {type(batch).__name__}, where a serzoo.zoo.Batch is needed; let "
                "its collate_fn make one, or its dataset hold whole batches, with batch_size=None"
            )
        if batch.hidden is not None and batch.mask is not None:
            return batch.hidden, batch.mask  # as stored
        assert batch.audio is not None
        assert batch.lengths is not None
        if not self.encoder.storable:
            return self.encoder.extract(batch.audio, batch.lengths)
        # full precision also under autocast: as in the feature store
        with torch.autocast(self.device.type, enabled=False):
            return self.encoder.extract(batch.audio, batch.lengths)

    def _frames(self, hidden: Tensor, mask: Tensor) -> Frames:
        frames: Frames = self.encoder(hidden, mask)
        return frames

    def forward(self, batch: Batch) -> Tensor:
        """``[B, C]`` log-scores over the head's taxonomy, in the mode that the module is in."""
        return self._heard(batch, self.head.taxonomy)[1]

    def _heard(self, batch: Batch, taxonomy: Taxonomy) -> tuple[Frames, Tensor]:
        frames = self.frames(batch)
        return frames, self.head.scores(frames, taxonomy, batch.text)

    # -- training ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._reached = False
        self._averaged = self.global_step
        if self.average is not None and self.average.swapped:  # a validation was interrupted
            self.average.swap(self._trained())
        if not self.training:  # as `load` gives it; Lightning leaves the mode as it is
            self.train()

    def on_train_start(self) -> None:
        self._measure_frames()

    def _measure_frames(self) -> None:
        """Fit the head's standardisers, if the encoder is steady.

        Every process measures the whole training part, so all hold the same numbers, and any
        number of processes gives the same.
        """
        parts = standardisers(self.head)
        data: Any = getattr(self.trainer, "datamodule", None)
        if not (self.standardise and parts and self.encoder.steady and data is not None):
            return
        every = getattr(data, "training_part", None)
        if every is None:  # a data module of the user's own
            return
        with evaluating(self), torch.no_grad():
            found = FrameStatistics.of(self.frames(b.to(self.device)) for b in every())
        for part in parts:
            part.fit(found)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(_mix(self.seed, self.current_epoch, self.global_rank))
        self._epoch_start, self._seen = time.perf_counter(), 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        hidden, mask = self._hidden(batch)
        targets = batch.targets
        if self.mixup > 0:
            hidden, targets = mix(hidden, mask, targets, self.mixup)
        out = self.head.loss(self._frames(hidden, mask), targets, batch.text)
        self._loss.update(out.loss.detach())
        for key, value in out.extras.items():
            self._extra(key).update(value)
        self._seen += len(batch)
        return out.loss

    def on_after_backward(self) -> None:
        if not self._reached:  # once, in the first step of a fit
            check_reached(self)
            self._reached = True

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None and self.global_step > self._averaged:
            self._averaged = self.global_step  # not after batches that only add to a gradient
            self.average.update(self._trained(), self.global_step)

    def _trained(self) -> dict[str, Tensor]:
        return strip_frozen(self.state_dict(), self.frozen_keys())

    def _extra(self, key: str) -> MeanMetric:
        if key not in self._extras:
            self._extras[key] = MeanMetric()
        return self._extras[key].to(self.device)

    @property
    def _head_name(self) -> str:
        own = self.metadata.get("head", {}).get("type", type(self.head).__name__)
        return str(self.metadata.get("head_name") or own)

    def on_train_epoch_end(self) -> None:
        values: dict[str, Any] = {"train/loss": self._loss.compute()}
        values |= {f"head/{self._head_name}/{k}": m.compute() for k, m in self._extras.items()}
        self._loss.reset()
        for metric in self._extras.values():
            metric.reset()
        seconds = max(time.perf_counter() - self._epoch_start, 1e-9)
        values["time/utt_per_s"] = self._seen * self.trainer.world_size / seconds
        values["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        values |= {f"encoder/{k}": v for k, v in self.encoder.layer_weights().items()}
        self.log_dict(values, batch_size=1)

    def configure_optimizers(self) -> Any:
        groups = self.encoder.param_groups(self.lr, self.mix_lr)
        groups += self.head.param_groups(self.lr if self.head_lr is None else self.head_lr)
        optimizer = adamw(groups, self.weight_decay, str(self.trainer.precision))
        steps = self.trainer.estimated_stepping_batches
        if not 0 <= steps < math.inf:  # Lightning says -1 where a loader has no length
            raise ConfigError(
                "the learning rate falls to zero over the run, but this Trainer does not say when "
                "it ends (max_epochs=-1, or a loader without a length); set max_steps"
            )
        total = max(1, int(steps))
        scale = rate_over_steps(total, self.warmup, self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    # -- evaluation ----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        if self.average is not None:
            self.average.swap(self._trained())
        if self.trainer.world_size > 1:
            # ranks saw other batches: running statistics are those of the first, and so are the
            # averaged ones, which is why they are swapped in before
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def _put_back(self) -> None:
        """What is trained in place of the average, before any checkpoint is written."""
        if self.average is not None:
            self.average.swap(self._trained())

    on_predict_epoch_end = _put_back

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._rows.append(self.score(batch))  # of several loaders, too: one table

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._rows.append(self.score(batch))

    @torch.no_grad()
    def scored(self, batch: Batch, taxonomy: Taxonomy | None = None) -> Scored:
        """What the model says about a batch: the one way from a batch to numbers.

        Training's validation and test, ``serzoo eval``, ``predict`` and ``adapt`` all come here.
        The model answers in evaluation mode, and has its own mode again afterwards. Autocast is
        the caller's: a trainer scores in its own precision, everybody else in the weights'. Frames
        that a feature store may hold are made without autocast in any case. Scores become float32
        on the device, and float64 on the CPU.

        Args:
            batch: on the module's device.
            taxonomy: C classes that are asked for; the head's own by default.

        Raises:
            DataError: when the batch is none of serzoo's.
            ConfigError: when a closed head does not have a class that is asked for.
        """
        with evaluating(self):
            frames, scores = self._heard(batch, taxonomy or self.head.taxonomy)
            values = scores.float().cpu().numpy().astype(np.float64)
            return Scored(values, self.head.write(frames))

    def score(self, batch: Batch, taxonomy: Taxonomy | None = None) -> PredictionTable:
        """The prediction table of a batch, by :meth:`scored`.

        Args:
            batch: on the module's device; its targets are over ``taxonomy``. An utterance without
                a target is unlabelled.
            taxonomy: what is asked; the head's own by default.

        Raises:
            DataError: as for a :class:`PredictionTable`, and for :meth:`scored`.
        """
        taxonomy = taxonomy or self.head.taxonomy
        found = self.scored(batch, taxonomy)
        probs = batch.targets.probs.cpu()
        labels = torch.where(probs.sum(-1) > 0, probs.argmax(-1), -1).numpy()
        ids, speakers = list(batch.ids), list(batch.speakers)
        return PredictionTable(ids, speakers, labels, found.values, taxonomy.classes, found.texts)

    def on_validation_epoch_end(self) -> None:
        self._put_back()
        table = self._gather("valid")
        # every rank holds the whole table, so every rank logs (and selects by) the same number
        m = table.metrics()
        values = {f"{self.validated_as}/{k}": float(m[k]) for k in ("uar", "wa", "f1")}
        values[f"{self.validated_as}/nll"] = table.nll()
        self.log_dict({**values, **self._written("val")}, batch_size=1)

    def on_test_epoch_end(self) -> None:
        self._put_back()
        m = self._gather("test").metrics()
        values = {f"test/{k}": float(m[k]) for k in ("uar", "wa", "f1")}
        self.log_dict({**values, **self._written("test")}, batch_size=1)

    def _written(self, part: str) -> dict[str, float]:
        """Shows what was written, and says how much of it names no class."""
        table = self.tables["valid" if part == "val" else part]
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            experiment = getattr(self.logger, "experiment", None)
            show_texts(experiment, part, table, self.current_epoch)
        share = unparsable(self.head, table, self.head.taxonomy)
        where = f"head/{self._head_name}/" + ("test_" if part == "test" else "")
        return {f"{where}{k}": v for k, v in share.items()}

    def _gather(self, part: str) -> PredictionTable:
        rows, self._rows = self._rows, []
        if self.trainer.world_size > 1:
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, rows)
            rows = [table for tables in everyone for table in tables]
        # Lightning's own sampler lets ranks share utterances, so that all have equally many: of
        # other neighbours in the batch, whose padding is heard in the last digits
        self.tables[part] = merge(rows, noise=1e-2 if self.trainer.world_size > 1 else 0.0)
        return self.tables[part]

    # -- checkpoints ---------------------------------------------------------------------------

    def frozen_keys(self) -> frozenset[str]:
        """Entries of the state dict that are rebuilt from a name, not saved."""
        if self._frozen is None:  # asked for in every step, where weights are averaged
            roots = tuple(f"head.{name}." for name in self.head.frozen_roots())
            self._frozen = frozenset(f"encoder.{key}" for key in self.encoder.frozen_keys()) | {
                key for key in self.state_dict() if roots and key.startswith(roots)
            }
        return self._frozen

    def described(self) -> dict[str, Any]:
        """The metadata, and how encoder and head were made, where it does not say so."""
        found = {**({} if "config" in self.metadata else described(self)), **self.metadata}
        if "published" not in found:
            if self._published is None:  # a digest of large weights, which stay as they are
                self._published = published_parts(self)
            found["published"] = self._published
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = strip_frozen(checkpoint["state_dict"], self.frozen_keys())
        checkpoint["state_dict"] = state
        checkpoint["serzoo"] = {"format": FORMAT, **self.described()}
        if self.average is not None:
            checkpoint["ema"] = self.average.weights
            if self.average.swapped:  # saved in the middle of a validation
                checkpoint["state_dict"], checkpoint["ema"] = self.average.weights, state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("serzoo", {}).get("published", {})
        check_published(saved, self.metadata.get("published", saved), "the checkpoint")
        average = checkpoint.get("ema") or {}
        if self._trainer is not None and self._trainer.state.fn not in (None, "fit") and average:
            # what was selected is what is scored; only training goes on from the other weights
            checkpoint["state_dict"], average = dict(average), {}
        if "state_dict" in checkpoint:  # weights that are shared out were loaded before
            check_keys(checkpoint["state_dict"], self.state_dict(), self.frozen_keys())
        if self.average is not None:
            self.average.restart(average)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # hparams are no file's
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        *,
        encoder: Encoder | type[Encoder] | None = None,
        head: Head | type[Head] | None = None,
        base: str | None = None,
        revision: str | None = None,
        weights_only: bool = True,
        **options: Any,
    ) -> Self:
        """The trained module of a checkpoint, a run, a saved folder or a hub id.

        It is in evaluation mode; fitting it further puts it into training mode. Its weights are
        the averaged ones, if there are any. Nothing is unpickled.

        Args:
            checkpoint_path: a ``.ckpt`` file that Lightning's ``Trainer`` or ``serzoo train``
                wrote, a run's folder, a folder that `serzoo save` wrote, or the hub id of one.
            map_location: device that the model is put on; the CPU by default.
            encoder: if its class is not registered: the class, which is built with the options
                of the training, or one that is built as it was trained.
            head: the same.
            base: folder or hub id of the published encoder, instead of its name.
            revision: commit, tag or branch, if the path is a hub id.
            weights_only: True; a checkpoint that holds more is not loaded.
            options: of the constructor, instead of those of the checkpoint (``lr=1e-4``).

        Raises:
            CheckpointError: when it cannot be read, or does not say how its model is built, or
                does not fit it.
        """
        if not weights_only:
            raise ConfigError(
                "weights_only=False would run what a checkpoint holds; serzoo's hold weights and "
                "plain containers only: leave it out"
            )
        signature(cls).bind_partial(**options)  # a misspelt option is told before anything is read
        own = {"encoder": encoder, "head": head, "kind": cls, **options}
        module = published.load(checkpoint_path, base=base, revision=revision, **own)
        return cast(Self, module if map_location is None else module.to(map_location))


def _mix(*parts: int) -> int:
    return int(np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(1)[0])
