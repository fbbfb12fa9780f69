"""The dataset: a list of indices to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..zoo.core.errors import DataError
from ..zoo.core.types import Batch, Targets
from .corruption import Corruption
from .features import FeatureStore, HeldFrames, load_copy, pad_hidden, pad_waves
from .manifest import GENDERS, Utterance
from .protocols import speaker_of
from .store import Row


class SpeechDataset(Dataset[Batch]):
    """The utterances of one part of a split, as batches.

    Args:
        utterances: the utterances of the part.
        classes: class index of each utterance; -1 = unlabelled.
        n_classes: C, number of classes.
        weights: loss weight of each class, ``[C]``.
        trust: confidence of each utterance's label, a factor of its weight; 1 by default.
        soft: ``[N, C]`` targets instead of one-hot ones.
        speakers: the training speakers, as ``corpus/speaker``; then targets have gender and
            speaker, for auxiliary tasks.
        roots: maps a corpus to the folder to which ``Utterance.audio`` is relative.
        max_seconds: longer utterances are cut to this.
        store: features to use instead of audio.
        text: whether batches carry transcripts.
        copies: number of corrupted copies (:mod:`.copies`). Index ``c * N + i`` of N utterances is
            copy c of utterance i; copy 0 is clean.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        classes: Sequence[int],
        n_classes: int,
        *,
        weights: Sequence[float] | None = None,
        trust: Sequence[float] | None = None,
        soft: np.ndarray | None = None,
        speakers: Sequence[str] = (),
        roots: dict[str, Path],
        max_seconds: float,
        store: FeatureStore | None = None,
        text: bool = False,
        copies: int = 0,
    ) -> None:
        self.utterances = list(utterances)
        self.classes = torch.tensor(list(classes), dtype=torch.long)
        self.n_classes = n_classes
        self.weights = torch.tensor(weights if weights is not None else [1.0] * n_classes)
        self.trust = None if trust is None else torch.tensor(list(trust), dtype=torch.float32)
        self.soft = None if soft is None else torch.from_numpy(soft).float()
        self.speakers = {name: place for place, name in enumerate(speakers)}
        self.roots = roots
        self.max_seconds = max_seconds
        self.text, self.copies = text, copies
        self.corruption: Corruption | None = None
        self.use(store)

    def use(
        self,
        store: FeatureStore | HeldFrames | None,
        vectors: FeatureStore | HeldFrames | None = None,
    ) -> None:
        """Read features from a store that holds all utterances; None = read audio.

        Args:
            store: store of the encoder's features.
            vectors: store of the vectors beside the frames. They are read here, once, and
                kept in memory. None = there are none, or the audio's reader computes them.

        Raises:
            DataError: if the audio is corrupted and the store is one on disk, because that holds
                features of clean audio.
        """
        given = [s for s in (store, vectors) if s is not None]
        held = all(isinstance(s, HeldFrames) for s in given)
        if self.corruption is not None and not held:
            raise DataError(
                f"stored features are of clean audio, not of condition "
                f"{self.corruption.condition}; encode corrupted audio as it is read (no store)"
            )
        self.store = store
        self.rows: list[Row] = self._rows_of(store) if store else []
        self.statistics: Tensor | None = None
        self.utterance: Tensor | None = None
        if vectors is not None and self.utterances:
            found = [vectors.read(row)[0, 0].float() for row in self._rows_of(vectors)]
            self.utterance = torch.stack(found)
        self._spoken: Tensor | None = None
        if isinstance(store, (FeatureStore, HeldFrames)) and not store.frame_seconds:
            self._spoken = torch.tensor(self.seconds)

    def _rows_of(self, store: FeatureStore | HeldFrames) -> list[Row]:
        """Return the rows of all utterances, and then those of each copy."""
        rows = [store.row(u) for u in self.utterances]
        if self.copies:
            assert isinstance(store, FeatureStore)
            more = range(1, self.copies + 1)
            rows += [store.row(u, copy) for copy in more for u in self.utterances]
        return rows

    def use_statistics(self) -> None:
        """Give mean and deviation of stored frames instead of the frames (:func:`statistics`).

        They are computed here, once, and kept in memory. Durations, and so batches, stay the same.
        """
        assert isinstance(self.store, FeatureStore)
        if self.rows:
            self.statistics = torch.stack([self.store.statistics(row) for row in self.rows])
            self._spoken = torch.tensor(self.seconds)

    def corrupt(self, corruption: Corruption) -> None:
        """Corrupt all audio as it is read, and do not use stored features of clean audio."""
        self.use(None)
        self.corruption = corruption

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def seconds(self) -> list[float]:
        """The duration of each utterance in use, in seconds: that of its stored frames, if any.

        Stored frames are more accurate than the file, because silence around the speech may have
        been removed.
        """
        if self.store is not None:
            frame = self.store.frame_seconds
            clean = self.rows[: len(self)]
            return [row.shape[1] * frame if frame else row.seconds for row in clean]
        seconds = [min(u.duration, self.max_seconds) for u in self.utterances]
        if self.corruption is not None:
            return [self.corruption.seconds(s) for s in seconds]
        return seconds

    def __getitem__(self, indices: list[int]) -> Batch:
        """Return the batch of these utterances, or of copies of them, in this order."""
        places = indices  # of rows, which the copies have, too
        copies, indices = [i // len(self) for i in places], [i % len(self) for i in places]
        chosen = [self.utterances[i] for i in indices]
        labels = self.classes[indices]
        known = labels >= 0
        probs = torch.zeros(len(chosen), self.n_classes)
        probs[known, labels[known]] = 1.0
        if self.soft is not None:
            probs = self.soft[indices]
        weight = torch.where(known, self.weights[labels.clamp_min(0)], 0.0)
        if self.trust is not None:
            weight = weight * self.trust[indices]
        dims = None
        if any(u.dims for u in chosen):
            nan = float("nan")
            dims = torch.tensor(
                [[nan if v is None else v for v in u.dims or (None,) * 3] for u in chosen]
            )
        about = self._speakers_of(chosen) if self.speakers else {}
        common = {
            "ids": [u.id for u in chosen],
            "speakers": [speaker_of(u) for u in chosen],
            "targets": Targets(probs, weight, dims, **about),
            "text": [u.text or "" for u in chosen] if self.text else None,
        }
        if self.utterance is not None:
            common["utterance"] = self.utterance[places]
        if self._spoken is not None:
            common["seconds"] = self._spoken[indices]
        if self.statistics is not None:
            hidden = self.statistics[places]
            mask = torch.ones(len(indices), 2, dtype=torch.bool)
            return Batch(hidden=hidden, mask=mask, **common)  # type: ignore[arg-type]
        if self.store is not None:
            hidden, mask = pad_hidden([self.store.read(self.rows[i]) for i in places])
            return Batch(hidden=hidden, mask=mask, **common)  # type: ignore[arg-type]
        audio, lengths = pad_waves([self.wave(u, c) for u, c in zip(chosen, copies, strict=True)])
        return Batch(audio=audio, lengths=lengths, **common)  # type: ignore[arg-type]

    def _speakers_of(self, chosen: Sequence[Utterance]) -> dict[str, Tensor]:
        """Return one-hot gender and training speaker; a row of zeros if it is unknown."""
        gender = torch.zeros(len(chosen), 2)
        speaker = torch.zeros(len(chosen), len(self.speakers))
        for row, u in enumerate(chosen):
            if u.gender in GENDERS[:2]:
                gender[row, GENDERS.index(u.gender)] = 1.0
            if (place := self.speakers.get(speaker_of(u))) is not None:
                speaker[row, place] = 1.0
        return {"gender": gender, "speaker": speaker}

    def wave(self, utterance: Utterance, copy: int = 0) -> torch.Tensor:
        """Return ``[S]`` samples at 16 kHz as a head hears them: cut, and corrupted."""
        wave = load_copy(utterance, copy, self.roots, self.max_seconds)
        if self.corruption is None:
            return wave
        return torch.from_numpy(self.corruption(wave.numpy(), utterance.id))
