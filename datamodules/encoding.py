"""Filling a feature store: chunks of utterances of like length, from audio to rows.

What is to be made is sorted by length, packed into batches and cut into chunks of whole batches; a
chunk is what a process claims, encodes and writes at a time (``claims.py``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ..zoo.encoder import Encoder
from ..zoo.errors import DataError
from .audio import read_utterance
from .claims import complete
from .manifest import Utterance
from .sampler import pack
from .store import Shards, Values

# utterances and padded seconds of an encoding batch: a processor's caches like few of equal length
BATCH = {"cpu": (8, 40.0), "cuda": (64, 320.0)}
CHUNK_SECONDS = 240.0  # of speech in a shard: what a killed process loses at most
SHARD_BYTES = 128 * 2**20  # of a shard, and so of what is held in memory, about
MARGIN_BYTES = 512 * 2**20  # of the disk that are left free
READERS = 4  # threads that decode ahead of the encoder

ADVICE = "set SERZOO_CACHE to a folder on another disk, or data.features=live to store nothing"


class DiskFullError(Exception):
    """What is missing will not fit on the disk; the message says what to do."""


class Filling:
    """One process' part in bringing a store to hold some utterances.

    Args:
        encoder: with ``storable`` extraction.
        shards: of the store.
        dtype: of its values.
        device: where to extract.
        utterances: what is missing, by key.
        seconds: of each as it is used.
        wave: an utterance to its samples, ``[S]``.
    """

    def __init__(
        self,
        encoder: Encoder,
        shards: Shards,
        dtype: str,
        device: torch.device,
        utterances: dict[str, Utterance],
        seconds: dict[str, float],
        wave: Callable[[Utterance], Tensor],
    ) -> None:
        self.encoder, self.shards, self.dtype, self.device = encoder, shards, dtype, device
        self.utterances, self.seconds, self.wave = utterances, seconds, wave
        self.rate = encoder.bytes_per_second

    @torch.no_grad()
    def run(self, facts: dict[str, Any], progress: bool = False) -> set[str]:
        """Extract until nothing is missing, and return the keys that this process made.

        Args:
            facts: what ``store.json`` shall say.
            progress: show a bar.

        Raises:
            DiskFullError: before anything is extracted, when it would not fit (after the first
                chunk, where the encoder does not say how large features are).
            OSError: when the store cannot be written.
            DataError: when audio cannot be read, or features are not finite.
        """
        # the longest first: what is too large for the memory fails at once, and the end is even
        order = sorted(self.utterances, key=lambda key: (-self.seconds[key], key))
        self.shards.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_if_full(order)
        was_training = self.encoder.training
        before = next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        self.encoder.eval().to(self.device)
        try:
            with ThreadPoolExecutor(READERS) as self.reader, _Bar(len(order), progress) as self.bar:
                return complete(self.shards, order, facts, self._take, self._make, self.bar.left)
        finally:
            self.encoder.to(before).train(was_training)

    def _batches(self, keys: Sequence[str]) -> list[list[str]]:
        size, padded = BATCH.get(self.device.type, BATCH["cuda"])
        if self.rate:
            padded = min(padded, SHARD_BYTES / self.rate)
        lengths = np.array([self.seconds[key] for key in keys])
        return [[keys[i] for i in b] for b in pack(range(len(keys)), lengths, size, padded)]

    def _take(self, free: list[str]) -> list[str]:
        """The first batches of what nobody makes: one at least, a chunk at most."""
        chunk: list[str] = []
        total = 0.0
        for batch in self._batches(free):
            total += sum(self.seconds[key] for key in batch)
            if chunk and (total > CHUNK_SECONDS or total * self.rate > SHARD_BYTES):
                break
            chunk += batch
        return chunk

    def _make(self, keys: list[str]) -> list[tuple[str, Values, float]]:
        """A chunk to the rows of a shard; audio is decoded ahead, in threads."""
        waves = {key: self.reader.submit(self.wave, self.utterances[key]) for key in keys}
        rows: list[tuple[str, Values, float]] = []
        for batch in self._batches(keys):
            found = self._encode([waves.pop(key).result() for key in batch])
            for key, values in zip(batch, found, strict=True):
                if values is None:
                    raise DataError(
                        f"the encoder's features of {self.utterances[key].id} are not finite; "
                        "listen to the file, or choose another precision or another layer"
                    )
                rows.append((key, values, self.seconds[key]))
            self.bar.advance(len(batch))
        if not self.rate:  # now it is known
            self.rate = sum(v.nbytes for _, v, _ in rows) / sum(s for _, _, s in rows)
            self._refuse_if_full([key for key in self.utterances if key not in self.shards.rows])
        return rows

    def _encode(self, waves: list[Tensor]) -> list[Values | None]:
        """``[K, T_i, D]`` of each wave, in the store's number format; None where not finite."""
        audio, lengths = pad_waves(waves)
        hidden, mask = self.encoder.extract(audio.to(self.device), lengths.to(self.device))
        frames = mask.sum(1).tolist()
        finite = hidden.flatten(1).isfinite().all(1).tolist()
        if self.dtype == "bfloat16":
            short = hidden.bfloat16()
            if all(finite) and not torch.equal(short.to(hidden.dtype), hidden):
                raise TypeError(
                    f"{type(self.encoder).__name__}.extraction() promises bfloat16, but extract() "
                    "gives numbers that it does not have"
                )
            values = short.view(torch.int16).cpu().numpy().view("<u2")
        else:
            values = hidden.float().cpu().numpy()
        # copies: a row must not hold its whole batch
        return [
            v[:, :n].copy() if ok else None for v, n, ok in zip(values, frames, finite, strict=True)
        ]

    def _refuse_if_full(self, keys: Sequence[str]) -> None:
        """Judge before time is lost whether what is missing fits on the disk."""
        seconds = sum(self.seconds[key] for key in keys)
        need, free = self.rate * seconds, shutil.disk_usage(self.shards.folder).free
        if need + MARGIN_BYTES > free:
            raise DiskFullError(
                f"features of {len(keys)} utterances ({seconds / 3600:.2f} h) need {_gib(need)} "
                f"and {_gib(MARGIN_BYTES)} are to stay free, but {_gib(free)} are free at "
                f"{self.shards.folder}; they are computed anew in every epoch instead, which is "
                f"slow. Free some space (`serzoo cache list`), keep fewer layers, or {ADVICE}"
            )


class _Bar:
    """How many rows are there, of all that were missing; drawn on a terminal's standard error."""

    def __init__(self, total: int, progress: bool) -> None:
        console = Console(stderr=True)
        shown = progress and console.is_terminal
        self.total = total
        self.progress = Progress(console=console, disable=not shown, transient=True)
        self.task = self.progress.add_task("features", total=total)

    def left(self, missing: int) -> None:
        self.progress.update(self.task, completed=self.total - missing)

    def advance(self, number: int) -> None:
        self.progress.advance(self.task, number)

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def _gib(number: float) -> str:
    return f"{number / 2**30:.2f} GiB"


def load_wave(utterance: Utterance, roots: dict[str, Path], max_seconds: float) -> Tensor:
    """``[S]`` float32 at 16 kHz, at most ``max_seconds`` long."""
    return torch.from_numpy(read_utterance(utterance, roots[utterance.corpus], max_seconds))


def pad_waves(waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """List of ``[S_i]`` to ``audio [B, S]`` (zeros on the right) and ``lengths [B]``."""
    lengths = torch.tensor([len(w) for w in waves])
    return torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True), lengths
