"""The LightningModule of every model: an encoder and a head. Both can be exchanged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from ..core.normalising import SpeakerNormaliser
from ..core.notices import tell
from ..core.scaling import (
    FrameStatistics,
    Standardiser,
    VectorStandardiser,
    standardisers,
    vector_statistics,
)
from ..core.speakers import NONE
from ..core.taxonomy import Taxonomy
from ..core.types import Batch, Frames, Targets
from ..core.weights import FORMAT, check_keys, check_published, published_parts, strip_frozen
from ..statistics.rates import FloatArray
from ..statistics.table import PredictionTable, merge
from . import published
from .board import show_texts, unparsable
from .checkpoint import described
from .devices import share_out
from .optim import AveragedWeights, Schedule, adamw, check_reached, mix, rate_over_steps
from .schema import refused_precision

STANDARDISED_BY = (
    "pooled frames of the frozen encoder are not standardised, since this Trainer has no data "
    "module with training_part(); fit with a SpeechDataModule (serzoo.zoo.build_run makes one), or "
    "set standardise=False to train without"
)


VECTORS_BY = (
    "the vectors of utterances are standardised by the training part, but this Trainer has no data "
    "module with training_part(); fit with a SpeechDataModule (serzoo.zoo.build_run makes one)"
)


NORMALISED_BY = (
    "data.normalise={way} measures the speakers of the training part, but this Trainer has no data "
    "module with whole(); fit with a SpeechDataModule (serzoo.zoo.build_run makes one)"
)


class Scored(NamedTuple):
    """A model's answer to a batch of B utterances.

    Attributes:
        values: ``[B, C]`` float64 log-scores of the head. Some may not be finite.
        texts: B texts that the head wrote freely; None if it does not write.
    """

    values: FloatArray
    texts: list[str] | None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode within the block; afterwards each part has its old mode."""
    trained = [part for part in module.modules() if part.training]
    if trained:
        module.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


class SERModule(L.LightningModule):
    """Train a head on an encoder, and collect one row of scores per utterance.

    No metric is averaged over batches or ranks. Evaluation gathers the rows of all ranks by id into
    one :class:`PredictionTable` in :attr:`tables`. Every number is computed from it.

    Args:
        encoder: turns audio into frames.
        head: turns frames into scores, and was built for ``encoder.dim``.
        lr: peak learning rate of the encoder (and of the head, unless ``head_lr`` is given).
        head_lr: peak learning rate of the head.
        mix_lr: peak learning rate of a learned mix of layers; ``lr`` by default.
        weight_decay: weight decay of AdamW; biases, norms and other vectors are exempt.
        warmup: share of the steps in which the rate rises linearly.
        schedule: how the rate then falls to zero: ``cosine`` or ``linear``.
        mixup: a of Beta(a, a), which mixes the encoder's inputs (Zhang et al. 2018); 0 = off.
        ema: decay of the averaged weights that are validated, selected and tested; 0 = off.
        seed: with epoch and rank it decides everything random in training. So a run that is killed
            and resumed at the start of an epoch ends with the same weights.
        standardise: let the head standardise pooled frames by the training part, if the encoder is
            steady (:mod:`..core.scaling`).
        normalise: ``none``; or subtract the mean of each speaker's unlabelled utterances:
            ``speaker`` takes all, ``enrol:K`` takes K (:mod:`..core.normalising`).
        metadata: plain containers that every checkpoint holds under ``serzoo``.

    Raises:
        ConfigError: if encoder and head disagree about vectors of utterances: only one of them has
            these, or they have other widths. Also if speakers are to be normalised, but the
            features that the encoder extracts are trained.
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
        normalise: str = NONE,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = 0 if encoder.utterance is None else encoder.utterance.dim
        if given != head.utterance:
            raise ConfigError(
                f"the encoder gives vectors of {given} numbers for each utterance, but the head "
                f"reads {head.utterance}; call head.read_utterance({given}) before, or set "
                "encoder.utterance to the encoder that the head was made for"
            )
        self.encoder, self.head = encoder, head
        self.lr, self.head_lr, self.mix_lr = lr, head_lr, mix_lr  # None = lr, which may be tuned
        self.weight_decay, self.warmup, self.schedule = weight_decay, warmup, schedule
        self.mixup, self.seed = mixup, seed
        self.average = AveragedWeights(ema) if ema > 0 else None
        self.standardise = standardise
        self.normaliser: SpeakerNormaliser | None = None
        if normalise != NONE:
            if not encoder.storable:
                raise ConfigError(
                    f"data.normalise={normalise} needs features that training leaves as they are, "
                    f"and {type(encoder).__name__} trains them; freeze the encoder "
                    "(encoder.tuning=frozen), or set data.normalise=none"
                )
            self.normaliser = SpeakerNormaliser(normalise, encoder.stored_shape(), given)
        self._enrolled: dict[str, Any] = {}  # part to the dataset whose speakers were measured
        self._draws = torch.Generator()
        self.metadata = metadata or {}
        self.schedule_share = 1.0  # share of the schedule's steps after which training ends
        self.temperature: float | None = None  # of the scores; None = not calibrated
        self.tables: dict[str, PredictionTable] = {}
        self.validated_as = "val"  # first part of the names of validation's numbers
        self.strict_loading = False  # frozen weights are not saved; check_keys checks the others
        self._loss = MeanMetric()
        self._extras: dict[str, MeanMetric] = {}
        self._rows: list[PredictionTable] = []
        self._epoch_start = 0.0
        self._seen = 0
        self._frozen: frozenset[str] | None = None
        self._published: dict[str, Any] | None = None
        self._reached, self._averaged, self._shared_out = False, 0, False

    def setup(self, stage: str) -> None:
        """Refuse a trainer that cannot train or score this module, before any batch is read.

        Raises:
            ConfigError: if its precision or strategy is not supported. It says what to set.
        """
        if refusal := refused_precision(str(self.trainer.precision)):
            raise ConfigError(f"Trainer(precision=...) {refusal}")
        if isinstance(self.trainer.strategy, FSDPStrategy):
            raise ConfigError(
                "Trainer(strategy='fsdp') is PyTorch's first FSDP, which cannot move serzoo's "
                "batches; set strategy=ModelParallelStrategy(save_distributed_checkpoint=False)"
            )

    def configure_model(self) -> None:
        """Share the weights out over the processes, if the strategy asks for it."""
        if self.device_mesh is not None and not self._shared_out:
            share_out(self)
            self._shared_out = True

    def frames(self, batch: Batch) -> Frames:
        """Return the frames of a batch, from stored features if it carries them."""
        return self._frames(*self._inputs(batch))

    def _inputs(
        self, batch: Batch, draw: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features, mask and vectors of a batch, normalised by speaker if asked for.

        Args:
            batch: the batch.
            draw: use random utterances of each training speaker.
        """
        hidden, mask = self._hidden(batch)
        vectors = self.vectors(batch)
        if self.normaliser is not None:
            offsets = self.normaliser.offsets(batch.ids, draw)
            hidden, vectors = self.normaliser(hidden, mask, vectors, offsets)
        return hidden, mask, vectors

    @torch.no_grad()
    def enrol(self, batches: Iterable[Batch], *, learn: bool = False) -> None:
        """Measure the speakers of unlabelled utterances, if the module normalises speakers.

        Without it, utterances use the training mean.

        Args:
            batches: every utterance of a part once, on any device.
            learn: these are the training part.

        Raises:
            ConfigError: if ``learn`` is set, and no utterance has a known speaker.
        """
        if self.normaliser is None:
            return
        moved = (batch.to(self.device) for batch in batches)
        measure = self.normaliser.measured
        found = ((b.ids, b.speakers, measure(*self._hidden(b), self.vectors(b))) for b in moved)
        try:
            with evaluating(self):
                self.normaliser.enrol(found, learn=learn)
        except ValueError as error:
            raise ConfigError(
                f"data.normalise={self.normaliser.way}: {error} in the training part; name the "
                "speakers in the manifest, or set data.normalise=none"
            ) from error

    def _enrol_part(self, part: str) -> None:
        """Enrol a part of the trainer's data module, once for each of its datasets."""
        if self.normaliser is None:
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if getattr(data, "whole", None) is None:
            if part == "train":
                raise ConfigError(NORMALISED_BY.format(way=self.normaliser.way))
            return  # the user's own loader: the normaliser says that nobody was enrolled
        dataset = data.datasets[part]
        if self._enrolled.get(part) is not dataset:
            self.enrol(data.whole(part), learn=part == "train")
            self._enrolled[part] = dataset

    def on_validation_start(self) -> None:
        self._enrol_part("valid")

    def on_test_start(self) -> None:
        self._enrol_part("test")

    on_predict_start = on_test_start

    def vectors(self, batch: Batch) -> Tensor | None:
        """Return the ``[B, F]`` vectors of a batch; None if heads get none."""
        if self.encoder.utterance is None or batch.utterance is not None:
            return batch.utterance
        if batch.audio is None or batch.lengths is None:
            raise DataError(
                "this batch has stored frames, but not the vectors that the head reads beside "
                "them; set Batch.utterance (Encoder.vectors makes it), or give audio"
            )
        with torch.autocast(self.device.type, enabled=False):
            return self.encoder.vectors(batch.audio, batch.lengths)

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Batch):  # the user's own loader made it
            raise DataError(
                f"a loader gave a {type(batch).__name__}, but a serzoo.zoo.Batch is needed; let "
                "its collate_fn make one, or its dataset hold whole batches, with batch_size=None"
            )
        if batch.hidden is not None and batch.mask is not None:
            return batch.hidden, batch.mask
        assert batch.audio is not None
        assert batch.lengths is not None
        if not self.encoder.storable:
            return self.encoder.extract(batch.audio, batch.lengths)
        # full precision also under autocast, as the feature store has it
        with torch.autocast(self.device.type, enabled=False):
            return self.encoder.extract(batch.audio, batch.lengths)

    def _frames(self, hidden: Tensor, mask: Tensor, utterance: Tensor | None) -> Frames:
        frames: Frames = self.encoder(hidden, mask)
        return frames if utterance is None else replace(frames, utterance=utterance)

    def forward(self, batch: Batch) -> Tensor:
        """Return log-scores ``[B, C]`` over the head's taxonomy, in the module's present mode."""
        return self._answer(batch, self.head.taxonomy)[1]

    def _answer(self, batch: Batch, taxonomy: Taxonomy) -> tuple[Frames, Tensor]:
        frames = self.frames(batch)
        return frames, self.head.scores(frames, taxonomy, batch.text)

    # Training.

    def on_fit_start(self) -> None:
        self._reached = False
        self._averaged = self.global_step
        if self.average is not None and self.average.swapped:  # a validation was interrupted
            self.average.swap(self._trained())
        if not self.training:  # `load` returns evaluation mode, and Lightning does not change it
            self.train()

    def on_train_start(self) -> None:
        with evaluating(self), torch.no_grad():
            self._enrol_part("train")
            self._measure_frames()
            if self.solved and self.trainer.current_epoch == 0:
                self.head.solve(self._training_part())

    def _measure_frames(self) -> None:
        """Fit the head's standardisers by the training part.

        Every process measures the whole training part. So all hold the same numbers, however many
        they are.

        Raises:
            ConfigError: if vectors of utterances cannot be measured.
        """
        if self._every is not None:
            self.standardise_by(self._every)
            return
        frames, vectors = self._unfitted()
        if vectors:
            raise ConfigError(VECTORS_BY)
        if frames:
            tell(STANDARDISED_BY, fault=False)

    def _unfitted(self) -> tuple[list[Standardiser], list[VectorStandardiser]]:
        """Return what is unfitted: for frames if the encoder is steady, for vectors always."""
        every = standardisers(self.head)
        vectors = [part for part in every if isinstance(part, VectorStandardiser)]
        frames = [part for part in every if part not in vectors]
        return frames if self.standardise and self.encoder.steady else [], vectors

    @torch.no_grad()
    def standardise_by(self, every: Callable[[], Iterable[Batch]]) -> None:
        """Fit the head's standardisers that are not fitted yet.

        Args:
            every: gives the utterances to measure, each once.
        """
        frames, vectors = self._unfitted()
        if frames:
            found = FrameStatistics.of(x for x, _ in self._framed(every()))
            for part in [*frames, *vectors]:
                part.fit(found)
        elif vectors:
            self._standardise_vectors(every())

    @torch.no_grad()
    def _standardise_vectors(self, batches: Iterable[Batch]) -> None:
        """Fit the head's standardisers of utterances' vectors, if it has unfitted ones.

        Args:
            batches: every utterance once.
        """
        parts = [p for p in standardisers(self.head) if isinstance(p, VectorStandardiser)]
        if not parts:
            return
        draw, moved = self._same_draw(), (batch.to(self.device) for batch in batches)
        if self.normaliser is None:
            found = (self.vectors(batch) for batch in moved)
        else:
            found = (self._inputs(batch, draw)[2] for batch in moved)
        measured = vector_statistics(x for x in found if x is not None)
        for part in parts:
            part.fit_vectors(*measured)

    @property
    def _every(self) -> Callable[[], Iterator[Batch]] | None:
        """What gives every training utterance once; None if the data are not a data module."""
        return getattr(getattr(self.trainer, "datamodule", None), "training_part", None)

    def _training_part(self) -> Iterator[tuple[Frames, Targets]]:
        assert self._every is not None
        yield from self._framed(self._every())

    def _framed(self, batches: Iterable[Batch]) -> Iterator[tuple[Frames, Targets]]:
        draw = self._same_draw()
        for batch in batches:
            moved = batch.to(self.device)
            yield self._frames(*self._inputs(moved, draw)), moved.targets

    def _same_draw(self) -> torch.Generator:
        """Return a new generator that draws the same in every process and in every pass."""
        return torch.Generator().manual_seed(_mix(self.seed))

    @property
    def solved(self) -> bool:
        """Whether the head's weights are found at once (:meth:`.Head.solve`), and not by steps."""
        return self.solvable and self._every is not None

    @property
    def solvable(self) -> bool:
        """Whether they can be: nothing of the encoder learns, and the head has an optimum."""
        learns = any(p.requires_grad for p in self.encoder.parameters())
        return self.head.solves and self.encoder.steady and not learns

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(_mix(self.seed, self.current_epoch, self.global_rank))
        self._draws.manual_seed(_mix(self.seed, self.current_epoch, self.global_rank, 1))
        self._epoch_start, self._seen = time.perf_counter(), 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        hidden, mask, vectors = self._inputs(batch, self._draws)
        targets = batch.targets
        if self.mixup > 0:
            hidden, targets, vectors = mix(hidden, mask, targets, self.mixup, vectors)
        out = self.head.loss(self._frames(hidden, mask, vectors), targets, batch.text)
        self._loss.update(out.loss.detach())
        for key, value in out.extras.items():
            self._extra(key).update(value)
        self._seen += len(batch)
        return out.loss

    def on_after_backward(self) -> None:
        if not self._reached:  # only in the first step of a fit
            check_reached(self)
            self._reached = True

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None and self.global_step > self._averaged:
            self._averaged = self.global_step  # batches that only add to a gradient make no step
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
        head_lr = self.lr if self.head_lr is None else self.head_lr
        groups += self.head.param_groups(0.0 if self.solved else head_lr)
        optimizer = adamw(groups, self.weight_decay, str(self.trainer.precision))
        steps = self.trainer.estimated_stepping_batches
        if not 0 <= steps < math.inf:  # Lightning says -1 if a loader has no length
            raise ConfigError(
                "the learning rate falls to zero over the run, but this Trainer does not say when "
                "it ends (max_epochs=-1, or a loader without a length); set max_steps"
            )
        total = max(1, round(int(steps) / self.schedule_share))
        scale = rate_over_steps(total, self.warmup, self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    # Evaluation.

    def on_validation_epoch_start(self) -> None:
        if self.average is not None:
            self.average.swap(self._trained())
        if self.trainer.world_size > 1:
            # Each rank saw other batches, so all take the running statistics of the first one. The
            # averaged statistics must be in place before.
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def _put_back(self) -> None:
        """Put the trained weights back in place of the average, before a checkpoint is written."""
        if self.average is not None:
            self.average.swap(self._trained())

    on_predict_epoch_end = _put_back

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._rows.append(self.score(batch))  # several loaders fill one table

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._rows.append(self.score(batch))

    @torch.no_grad()
    def scored(self, batch: Batch, taxonomy: Taxonomy | None = None) -> Scored:
        """Return the model's answer to a batch: the only way from a batch to numbers.

        Validation and test of a training, ``serzoo eval``, ``predict`` and ``adapt`` all use it.
        The model answers in evaluation mode, and has its own mode again afterwards. The caller
        decides about autocast: a trainer scores in its own precision, all others in that of the
        weights. Frames that a feature store may hold are always made without autocast. Scores are
        float32 on the device, and float64 on the CPU.

        Args:
            batch: on the module's device.
            taxonomy: C classes to choose among; the head's own by default.

        Raises:
            DataError: if the batch is not a :class:`Batch`.
            ConfigError: if a closed head lacks one of the classes.
        """
        with evaluating(self):
            frames, scores = self._answer(batch, taxonomy or self.head.taxonomy)
            values = scores.float().cpu().numpy().astype(np.float64)
            return Scored(values, self.head.write(frames))

    def score(self, batch: Batch, taxonomy: Taxonomy | None = None) -> PredictionTable:
        """Return the prediction table of a batch, by :meth:`scored`.

        Args:
            batch: on the module's device, with targets over ``taxonomy``. An utterance without a
                target is unlabelled.
            taxonomy: classes to choose among; the head's own by default.

        Raises:
            DataError: if the batch is not a :class:`Batch`, or a score is not finite.
            ConfigError: as for :meth:`scored`.
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
        # each rank has the whole table, so all log the same number, and select by it
        m = table.metrics()
        values = {f"{self.validated_as}/{k}": float(m[k]) for k in ("uar", "wa", "f1")}
        values[f"{self.validated_as}/nll"] = table.nll()
        self.log_dict({**values, **self._texts("val")}, batch_size=1)

    def on_test_epoch_end(self) -> None:
        self._put_back()
        m = self._gather("test").metrics()
        values = {f"test/{k}": float(m[k]) for k in ("uar", "wa", "f1")}
        self.log_dict({**values, **self._texts("test")}, batch_size=1)

    def _texts(self, part: str) -> dict[str, float]:
        """Show the texts that a head wrote, and return the share that names no class."""
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
        # Lightning's own sampler gives some utterances to two ranks, so that all have equally many.
        # Padding by other neighbours in the batch changes the last digits of their scores.
        self.tables[part] = merge(rows, noise=1e-2 if self.trainer.world_size > 1 else 0.0)
        return self.tables[part]

    # Checkpoints.

    def frozen_keys(self) -> frozenset[str]:
        """Return the keys of the state dict that are not saved, but rebuilt from a name."""
        if self._frozen is None:  # kept, since averaging the weights needs it in every step
            roots = tuple(f"head.{name}." for name in self.head.frozen_roots())
            self._frozen = frozenset(f"encoder.{key}" for key in self.encoder.frozen_keys()) | {
                key for key in self.state_dict() if roots and key.startswith(roots)
            }
        return self._frozen

    def described(self) -> dict[str, Any]:
        """Return the metadata, completed by how encoder and head were made."""
        found = {**({} if "config" in self.metadata else described(self)), **self.metadata}
        if "published" not in found:
            if self._published is None:  # kept, since it digests large weights that do not change
                self._published = published_parts(self)
            found["published"] = self._published
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = strip_frozen(checkpoint["state_dict"], self.frozen_keys())
        checkpoint["state_dict"] = state
        checkpoint["serzoo"] = {"format": FORMAT, **self.described()}
        if self.average is not None:
            checkpoint["ema"] = self.average.weights
            if self.average.swapped:  # the checkpoint is written during a validation
                checkpoint["state_dict"], checkpoint["ema"] = self.average.weights, state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("serzoo", {}).get("published", {})
        check_published(saved, self.metadata.get("published", saved), "the checkpoint")
        average = checkpoint.get("ema") or {}
        if self._trainer is not None and self._trainer.state.fn not in (None, "fit") and average:
            # the selected weights are scored; only training goes on from the others
            checkpoint["state_dict"], average = dict(average), {}
        if "state_dict" in checkpoint:  # weights that processes share were loaded before
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
        """Load the trained module of a checkpoint, a run, a saved folder or a hub id.

        It is in evaluation mode; fitting it further puts it into training mode. Its weights are
        the averaged ones, if there are any. Nothing is unpickled.

        Args:
            checkpoint_path: a ``.ckpt`` file of Lightning's ``Trainer`` or of ``serzoo train``.
                Or a run's folder, a folder of ``serzoo save``, or its hub id.
            map_location: device of the model; the CPU by default.
            encoder: an encoder whose class is not registered. Give the class, to be built with the
                options of the training, or an encoder that was built with them.
            head: the same for the head.
            base: folder or hub id of the published encoder, instead of its name.
            revision: commit, tag or branch, if the path is a hub id.
            weights_only: must be True, so that no pickled code is run.
            options: options of the constructor, instead of those of the checkpoint (``lr=1e-4``).

        Raises:
            CheckpointError: if it cannot be read, does not say how to build its model, or does not
                fit that model.
            ConfigError: if ``weights_only`` is False.
        """
        if not weights_only:
            raise ConfigError(
                "weights_only=False would run code that a checkpoint may hold; serzoo's hold only "
                "weights and plain containers: leave it out"
            )
        signature(cls).bind_partial(**options)  # refuses a misspelt option before files are read
        own = {"encoder": encoder, "head": head, "kind": cls, **options}
        module = published.load(checkpoint_path, base=base, revision=revision, **own)
        return cast(Self, module if map_location is None else module.to(map_location))


def _mix(*parts: int) -> int:
    return int(np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(1)[0])
