"""The LightningDataModule: a split and a taxonomy to batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from ..zoo.core import own
from ..zoo.core.encoder import Encoder
from ..zoo.core.errors import DataError
from ..zoo.core.taxonomy import Coverage, Taxonomy
from ..zoo.core.types import Batch
from .audit import AuditReport
from .catalog import Speech
from .copies import CLEAN_SHARE
from .dataset import SpeechDataset
from .features import FeatureStore, Filled
from .info import ATTRIBUTES
from .labels import (
    class_indices,
    confidences,
    digest,
    drawn_targets,
    refuse_weak,
    share_of,
    soft_rows,
    vote_targets,
    weak_counts,
)
from .manifest import Utterance
from .protocols import PARTS, Split, listed_speakers, speaker_of, without_speaker
from .sampler import BucketSampler, EvalSampler

KEPT_BYTES = 256 << 20  # memory for statistics of frames: 65,000 utterances of width 512


class SpeechDataModule(L.LightningDataModule):
    """The batches of one fold.

    Args:
        speech: utterances and their folders.
        split: the parts; they hold only utterances that the taxonomy keeps.
        taxonomy: the classes.
        label: the column that holds the label.
        batch_size: largest number of utterances in a batch.
        batch_seconds: largest number of padded seconds in a batch.
        max_seconds: longer utterances are cut to this; ``cut`` counts them.
        balance: weight training utterances by inverse class frequency.
        train_share: share of each class' training utterances (:func:`share_of`); the other parts
            and the split's fingerprint stay the same.
        weak: ``hard`` weak labels; ``soft``, a distribution over the classes; or ``independent``,
            a separate probability of each class.
        targets: what training learns. ``majority`` is the label. ``distribution`` is the votes of
            the raters, as a distribution over the classes. ``sampled`` is a class that is drawn
            from it anew in each epoch.
        weak_weight: weight weakly labelled utterances by the confidence of their label.
        workers: number of DataLoader processes.
        seed: seed of the training order, and of the share.
        text: whether batches have transcripts.
        copies: number of corrupted copies of each training utterance (:mod:`.copies`). Half of
            what an epoch draws is clean, and half are copies.
        refit: train on the training and validation parts together; then nothing is validated. The
            split and its fingerprint stay the same.
        coverage: what the taxonomy left out, for the record; None = unknown.
        audit: what the split was checked for, for the record; None = it was not.

    Raises:
        DataError: if training has no utterance of a class, or ``targets`` finds no votes. Also
            if ``refit`` would add labels by people to weak ones.
    """

    def __init__(
        self,
        speech: Speech,
        split: Split,
        taxonomy: Taxonomy,
        *,
        label: str = "label",
        batch_size: int = 32,
        batch_seconds: float = 160.0,
        max_seconds: float = 20.0,
        balance: bool = True,
        train_share: float = 1.0,
        weak: str = "hard",
        targets: str = "majority",
        weak_weight: bool = True,
        workers: int = 0,
        seed: int = 1,
        text: bool = False,
        copies: int = 0,
        refit: bool = False,
        coverage: Coverage | None = None,
        audit: AuditReport | None = None,
    ) -> None:
        super().__init__()
        self.speech = speech
        self.split = split
        self.taxonomy = taxonomy
        self.label = label
        self.batch_size, self.batch_seconds = batch_size, batch_seconds
        self.workers, self.seed = workers, seed
        self.targets, self.votes = targets, dict[str, Any]()
        if targets != "majority" and label in ATTRIBUTES:
            raise DataError(
                f"data.targets={targets} learns from votes on the label, but data.label is "
                f"'{label}'; set data.targets=majority"
            )
        parts: dict[str, list[Utterance]] = {p: getattr(split, p) for p in PARTS}
        if refit:
            if label == "label" and weak_counts(split.train):
                raise DataError(
                    "optim.refit adds the validation part to the training part, but training has "
                    "weak labels and validation has people's; set optim.refit=false"
                )
            joined = {u.id for u in (*split.train, *split.valid)}
            inside = [u for u in speech.utterances if u.id in joined]  # in the manifest's order
            parts |= {"train": inside, "valid": []}
        classes = {p: class_indices(us, taxonomy, label) for p, us in parts.items()}
        self.share: dict[str, Any] = {"share": train_share, "available": len(parts["train"])}
        if train_share < 1:
            drawn = share_of(parts["train"], classes["train"], train_share, seed)
            parts["train"] = [parts["train"][i] for i in drawn]
            classes["train"] = [classes["train"][i] for i in drawn]
            self.share["utterances"] = digest(u.id for u in parts["train"])
        counts = Counter(classes["train"])
        absent = [c for i, c in enumerate(taxonomy.classes) if not counts[i]]
        if parts["train"] and absent:
            raise DataError(
                f"training has no utterance of {', '.join(absent)}; choose a taxonomy or protocol "
                "in which training has every class"
            )
        n = len(parts["train"])
        weights = [
            n / (len(taxonomy) * counts[i]) if balance and n else 1.0 for i in range(len(taxonomy))
        ]
        learned = parts["train"]
        self.weak = weak_counts(learned) if label == "label" else {}
        given: dict[str, Any] = {"weights": weights, "copies": copies}
        if self.weak and weak_weight:
            given["trust"] = confidences(learned)
        if self.weak and weak != "hard":
            given["soft"] = soft_rows(learned, classes["train"], speech.soft, len(taxonomy))
        if targets != "majority" and learned:
            rows, self.votes = vote_targets(learned, classes["train"], taxonomy)
            if (soft := given.get("soft")) is not None:
                weakly = [u.weak for u in learned]
                rows[weakly] = soft[weakly]
            given["soft"] = rows
        given["speakers"] = sorted({speaker_of(u) for u in learned} - {""})
        self.datasets = {
            part: SpeechDataset(
                us,
                classes[part],
                len(taxonomy),
                **(given if part == "train" else {}),
                roots=speech.roots,
                max_seconds=max_seconds,
                text=text,
            )
            for part, us in parts.items()
        }
        self.cut = sum(u.duration > max_seconds for us in parts.values() for u in us)
        self.first_epoch = 0
        self.coverage, self.audit = coverage, audit

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch at which to resume.

        Its first batches are drawn before Lightning calls ``set_epoch``.
        """
        assert self.trainer is not None
        return {"first_epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of :meth:`state_dict`."""
        self.first_epoch = int(state_dict["first_epoch"])

    def store_features(
        self,
        encoder: Encoder,
        *,
        parts: Sequence[str] = PARTS,
        device: torch.device | str = "cpu",
        progress: bool = False,
    ) -> Filled:
        """Read features from the store; missing ones are computed first.

        If the encoder gives heads vectors of utterances, these are stored, too. An encoder that
        cannot be stored then reads audio, and only the vectors come from the store.

        Args:
            encoder: an encoder with ``storable`` extraction, or with vectors that have it.
            parts: the parts whose features are read; by default all.
            device: device of the extraction.
            progress: show a bar.

        Returns:
            What was done; ``live`` if the features do not fit on the disk, so audio is used.
        """
        wanted = [e for e in (encoder, encoder.utterance) if e is not None and e.storable]
        first = self.datasets["train"]
        everything = [u for part in parts for u in self.datasets[part].utterances]
        stores: dict[bool, FeatureStore] = {}  # of frames: False; of vectors: True
        filled = Filled("live")
        for one in wanted:
            store = FeatureStore(
                own.extraction_of(one),
                first.roots,
                max_seconds=first.max_seconds,
                frame_seconds=one.frame_seconds,
            )
            more = store.fill(one, everything, device=device, progress=progress)
            if first.copies and "train" in parts and more.kind == "stored":
                made = store.fill(
                    one, first.utterances, copies=first.copies, device=device, progress=progress
                )
                rest = made.reused - len(first.utterances)  # the clean ones are counted above
                more = more.and_(replace(made, reused=max(0, rest)))
            filled = filled.and_(more) if stores else more
            if more.kind != "stored":
                self.use_store(None, parts)
                return filled
            stores[one is not encoder] = store
        self.use_store(stores.get(False), parts, vectors=stores.get(True))
        return filled if False in stores else replace(filled, kind="live")

    def use_store(
        self,
        store: FeatureStore | None,
        parts: Sequence[str] = PARTS,
        *,
        vectors: FeatureStore | None = None,
    ) -> None:
        """Read features of these parts from a store; None = read audio.

        Args:
            store: store of the encoder's features.
            parts: names of parts.
            vectors: store of the vectors that heads get beside the frames.
        """
        for part in parts:
            self.datasets[part].use(store, vectors)

    def use_statistics(self) -> bool:
        """Give mean and deviation of the stored frames instead of the frames, in every part.

        Returns:
            False, and nothing was changed, if they would take more than :data:`KEPT_BYTES`.
        """
        rows = [row for dataset in self.datasets.values() for row in dataset.rows]
        if sum(8 * row.shape[0] * row.shape[2] for row in rows) > KEPT_BYTES:
            return False
        for dataset in self.datasets.values():
            dataset.use_statistics()
        return True

    def counts(self) -> dict[str, Any]:
        """Return counts for the record: kept per part and class, left out per label, and cut."""
        kept = {
            part: {c: int((d.classes == i).sum()) for i, c in enumerate(self.taxonomy.classes)}
            for part, d in self.datasets.items()
        }
        left_out = dict(self.coverage.dropped) if self.coverage else {}
        found = {"kept": kept, "left_out_by_taxonomy": left_out, "cut_to_max_seconds": self.cut}
        found |= {"weak_labels": self.weak} if self.weak else {}
        found |= {"votes": {"targets": self.targets, **self.votes}} if self.votes else {}
        unknown = {p: len(without_speaker(d.utterances)) for p, d in self.datasets.items()}
        found |= {"without_speaker": unknown} if any(unknown.values()) else {}
        return found if self.share["share"] == 1 else {**found, "train_share": self.share}

    def speakers(self) -> dict[str, list[str]]:
        """Return the speakers of each part, as in records (:mod:`serzoo.zoo.core.speakers`)."""
        return {part: listed_speakers(d.utterances) for part, d in self.datasets.items()}

    def _loader(self, part: str, training: bool) -> DataLoader[Batch]:
        dataset = self.datasets[part]
        if not training:
            refuse_weak(part, dataset.utterances, self.label)
        rank = self.trainer.global_rank if self.trainer else 0
        world = self.trainer.world_size if self.trainer else 1
        common: dict[str, Any] = {"size": self.batch_size, "budget": self.batch_seconds}
        common |= {"rank": rank, "world": world}
        sampler = (
            BucketSampler(
                dataset.seconds, seed=self.seed, copies=dataset.copies, clean=CLEAN_SHARE, **common
            )
            if training
            else EvalSampler(dataset.seconds, **common)
        )
        if isinstance(sampler, BucketSampler):
            sampler.set_epoch(self.first_epoch)
        # the same few batches in every epoch; Lightning would use single utterances instead
        settled = bool(getattr(self.trainer, "overfit_batches", 0))
        # batch_size=None passes the sampler's lists of indices on to the dataset. Lightning calls
        # set_epoch on `sampler`, but never on `batch_sampler`.
        return DataLoader(
            _Batches(dataset, list(sampler)) if settled else dataset,
            sampler=None if settled else sampler,
            batch_size=None,
            # a new iterator draws a random number; its own generator keeps the run's unchanged
            generator=torch.Generator(),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            multiprocessing_context="spawn" if self.workers else None,
            pin_memory=bool(self.trainer and self.trainer.accelerator.name() == "cuda"),
        )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Draw the classes of a training batch, if targets are ``sampled``.

        Lightning calls this in the process that trains, which knows the epoch.
        """
        training = self.trainer is not None and self.trainer.training
        if self.targets != "sampled" or not training or batch.targets is None:
            return batch
        assert self.trainer is not None
        probs = drawn_targets(
            batch.targets.probs.numpy(), batch.ids, self.seed, self.trainer.current_epoch
        )
        return replace(batch, targets=replace(batch.targets, probs=torch.from_numpy(probs)))

    def training_part(self) -> Iterator[Batch]:
        """Yield every training utterance once, in batches that every process gets alike.

        If there are corrupted copies, each of them follows, with the weight that training gives it
        on average.
        """
        dataset = self.datasets["train"]
        if not dataset.copies:
            yield from self.whole("train")
            return
        for copy in range(dataset.copies + 1):
            share = (1 - CLEAN_SHARE) / dataset.copies if copy else CLEAN_SHARE
            for rows in self._in_order("train"):
                batch = dataset[[copy * len(dataset) + i for i in rows]]
                weight = share * batch.targets.weight
                yield replace(batch, targets=replace(batch.targets, weight=weight))

    def whole(self, part: str) -> Iterator[Batch]:
        """Yield every utterance of a part once, as it is; every process gets all."""
        for rows in self._in_order(part):
            yield self.datasets[part][rows]

    def _in_order(self, part: str) -> EvalSampler:
        seconds = self.datasets[part].seconds
        return EvalSampler(seconds, size=self.batch_size, budget=self.batch_seconds)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return length-bucketed batches, reshuffled each epoch."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return every validation utterance once."""
        return self._loader("valid", training=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return every test utterance once."""
        return self._loader("test", training=False)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test part."""
        return self._loader("test", training=False)


class _Batches(Dataset[Batch]):
    """Batches with fixed utterances.

    Args:
        dataset: the dataset of utterances.
        chosen: the indices of each batch.
    """

    def __init__(self, dataset: SpeechDataset, chosen: list[list[int]]) -> None:
        self.dataset, self.chosen = dataset, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Batch:
        return self.dataset[self.chosen[number]]
