"""Stored features: the output of an encoder, computed once and kept on disk.

``Encoder.extract`` runs once per utterance. :class:`FeatureStore` keeps its output on disk
(``store.py``). All runs with the same extraction share it: heads, folds, seeds, suites, ranks.
:class:`Filling` computes what is missing. :func:`pad_waves` and :func:`pad_hidden` make batches.
"""

from __future__ import annotations

import errno
import json
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..zoo.core.encoder import Encoder
from ..zoo.core.errors import DataError, DataWarning
from ..zoo.core.files import features_dir
from ..zoo.core.notices import tell
from ..zoo.core.progress import Bar, Pace
from ..zoo.core.scaling import moments
from .archives import facts as facts_of
from .archives import holds
from .audio import decode, read_utterance
from .copies import VERSION, corrupted
from .listening import sample_hash
from .manifest import Utterance
from .sampler import pack
from .store import FORMAT, Row, Shards, Values, complete, digest

# Filling a store: from audio to rows. Missing utterances are sorted by length, packed into batches,
# and cut into chunks of whole batches. A process claims, encodes and writes one chunk at a time
# (``store.py``).

# utterances and padded seconds of an encoding batch: few of equal length suit a processor's caches
BATCH = {"cpu": (8, 40.0), "cuda": (64, 320.0)}
CHUNK_SECONDS = 240.0  # speech in a shard; a killed process loses at most this
SHARD_BYTES = 128 * 2**20  # approximate size of a shard, and so of the memory in use
MARGIN_BYTES = 512 * 2**20  # space on the disk that stays free
READERS = 4  # threads that decode ahead of the encoder

ADVICE = "set SERZOO_CACHE to a folder on another disk, or data.features=live to store nothing"


class DiskFullError(Exception):
    """The missing features do not fit on the disk; the message says what to do."""


class Said:
    """Notes about long work while no bar is shown: how much is done, and how long it will take.

    Args:
        total: number of utterances.
        seconds: seconds of speech in them.
    """

    FIRST, EVERY = 10.0, 60.0  # seconds until the first note, and between two notes

    def __init__(self, total: int, seconds: float) -> None:
        self.total, self.hours = total, seconds / 3600
        self.pace = Pace(self.FIRST, self.EVERY)

    def reach(self, done: int) -> None:
        """Tell how far the work is, if it is time for a note."""
        if not done or not self.pace.due():
            return
        left = self.pace.left(done, self.total)
        tell(
            f"features: {done} of {self.total} utterances ({self.hours:.2f} h of speech) are "
            f"encoded, about {left / 60:.1f} min left; they are kept for later runs",
            fault=False,
        )


class Filling:
    """One process' part of adding missing utterances to a store.

    Args:
        encoder: an encoder with ``storable`` extraction.
        shards: the shards of the store.
        dtype: number format of the store.
        device: device of the extraction.
        utterances: the missing utterances, by key.
        seconds: the used duration of each utterance.
        wave: returns the samples ``[S]`` of a key.
    """

    def __init__(
        self,
        encoder: Encoder,
        shards: Shards,
        dtype: str,
        device: torch.device,
        utterances: dict[str, Utterance],
        seconds: dict[str, float],
        wave: Callable[[str], Tensor],
    ) -> None:
        self.encoder = encoder
        self.shards = shards
        self.dtype = dtype
        self.device = device
        self.utterances = utterances
        self.seconds = seconds
        self.wave = wave
        self.rate = encoder.bytes_per_second

    @torch.no_grad()
    def run(self, facts: dict[str, Any], progress: bool = False) -> set[str]:
        """Extract until nothing is missing, and return the keys that this process made.

        Args:
            facts: the content of ``store.json``.
            progress: show a bar.

        Raises:
            DiskFullError: if the features would not fit. It is raised before the extraction. If
                the encoder does not tell the size of features, it is raised after one chunk.
            OSError: if the store cannot be written.
            DataError: if audio cannot be read, or features are not finite.
        """
        # the longest first: too large batches fail at once, and processes end at the same time
        order = sorted(self.utterances, key=lambda key: (-self.seconds[key], key))
        self.shards.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_if_full(order)
        was_training = self.encoder.training
        before = next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        self.encoder.eval().to(self.device)
        try:
            bar = Bar("features", len(order), shown=progress, lines=False)
            said = Said(len(order), sum(self.seconds[key] for key in order))

            def look(missing: int) -> None:
                bar.reach(len(order) - missing)
                if not bar.visible:
                    said.reach(len(order) - missing)

            with ThreadPoolExecutor(READERS) as self.reader, bar as self.bar:
                return complete(self.shards, order, facts, self._take, self._make, look)
        finally:
            self.encoder.to(before).train(was_training)

    def _batches(self, keys: Sequence[str]) -> list[list[str]]:
        size, padded = _batch_of(self.device)
        if self.rate:
            padded = min(padded, SHARD_BYTES / self.rate)
        lengths = np.array([self.seconds[key] for key in keys])
        return [[keys[i] for i in b] for b in pack(range(len(keys)), lengths, size, padded)]

    def _take(self, free: list[str]) -> list[str]:
        """Return the first batches that no other process makes: at least one, at most a chunk."""
        chunk: list[str] = []
        total = 0.0
        for batch in self._batches(free):
            total += sum(self.seconds[key] for key in batch)
            if chunk and (total > CHUNK_SECONDS or total * self.rate > SHARD_BYTES):
                break
            chunk += batch
        return chunk

    def _make(self, keys: list[str]) -> list[tuple[str, Values, float]]:
        """Turn a chunk into the rows of a shard; threads decode audio ahead."""
        waves = {key: self.reader.submit(self.wave, key) for key in keys}
        rows: list[tuple[str, Values, float]] = []
        for batch in self._batches(keys):
            found = self._encode([waves.pop(key).result() for key in batch])
            for key, values in zip(batch, found, strict=True):
                if values is None:
                    raise DataError(unusable(self.utterances[key].id))
                rows.append((key, values, self.seconds[key]))
            self.bar.advance(len(batch))
        if not self.rate:  # the size is known from here on
            self.rate = sum(v.nbytes for _, v, _ in rows) / sum(s for _, _, s in rows)
            self._refuse_if_full([key for key in self.utterances if key not in self.shards.rows])
        return rows

    def _encode(self, waves: list[Tensor]) -> list[Values | None]:
        """Return ``[K, T_i, D]`` of each wave, in the store's format; None if not finite."""
        audio, lengths = pad_waves(waves)
        hidden, mask = self.encoder.extract(audio.to(self.device), lengths.to(self.device))
        frames = mask.sum(1).tolist()
        finite = hidden.flatten(1).isfinite().all(1).tolist()
        if self.dtype == "bfloat16":
            short = hidden.bfloat16()
            if all(finite) and not torch.equal(short.to(hidden.dtype), hidden):
                raise TypeError(
                    f"{type(self.encoder).__name__}.extraction() promises bfloat16, but extract() "
                    "returns numbers that bfloat16 cannot hold; correct one of the two"
                )
            values = short.view(torch.int16).cpu().numpy().view("<u2")
        else:
            values = hidden.float().cpu().numpy()
        # copies, because a view would keep the whole batch in memory
        return [
            v[:, :n].copy() if ok else None for v, n, ok in zip(values, frames, finite, strict=True)
        ]

    def _refuse_if_full(self, keys: Sequence[str]) -> None:
        """Check, before work, whether the missing features fit on the disk."""
        seconds = sum(self.seconds[key] for key in keys)
        need, free = self.rate * seconds, shutil.disk_usage(self.shards.folder).free
        if need + MARGIN_BYTES > free:
            raise DiskFullError(
                f"features of {len(keys)} utterances ({seconds / 3600:.2f} h) need {_gib(need)} "
                f"and {_gib(MARGIN_BYTES)} must stay free, but {_gib(free)} are free at "
                f"{self.shards.folder}; they are computed again in every epoch instead, which is "
                f"slow. Free some space (`serzoo cache list`), keep fewer layers, or {ADVICE}"
            )


def _gib(number: float) -> str:
    return f"{number / 2**30:.2f} GiB"


def load_wave(utterance: Utterance, roots: dict[str, Path], max_seconds: float) -> Tensor:
    """Return ``[S]`` float32 samples at 16 kHz, at most ``max_seconds`` long."""
    return torch.from_numpy(read_utterance(utterance, roots[utterance.corpus], max_seconds))


def load_copy(
    utterance: Utterance, copy: int, roots: dict[str, Path], max_seconds: float
) -> Tensor:
    """Return :func:`load_wave`, or its corrupted copy of a number from 1 (:mod:`.copies`)."""
    wave = load_wave(utterance, roots, max_seconds)
    return torch.from_numpy(corrupted(wave.numpy(), copy)) if copy else wave


def pad_waves(waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad a list of ``[S_i]`` with zeros on the right to ``audio [B, S]``; add ``lengths [B]``."""
    lengths = torch.tensor([len(w) for w in waves])
    return torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True), lengths


# The store.


@dataclass(frozen=True)
class Filled:
    """The result of a call of :meth:`FeatureStore.fill`.

    Attributes:
        kind: ``stored``, or ``live`` if the features do not fit on the disk.
        reused: number of rows that existed, or that other processes made meanwhile.
        encoded: number of rows that this process made.
        speech_seconds: seconds of speech in the rows that this process made.
        seconds: seconds that the call took.
        bytes: size of all requested rows.
        store: name of the store.
    """

    kind: str
    reused: int = 0
    encoded: int = 0
    speech_seconds: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    store: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for the record."""
        return asdict(self)

    def and_(self, other: Filled) -> Filled:
        """Return the sums of both; live if the other is, and the store of this one."""
        names = ("reused", "encoded", "speech_seconds", "seconds", "bytes")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return replace(self, kind=other.kind, **sums)


class FeatureStore:
    """Hidden states of one extraction, by utterance.

    The key of a row is the extraction, the samples, and the part of them that is used. Names and
    folders are not part of it, nor is ``max_seconds`` if it does not cut the utterance. A store of
    more layers of the same extraction serves too. Its rows are read, and only the layers that are
    wanted.

    Args:
        extraction: ``encoder.extraction()``.
        roots: maps a corpus to its folder.
        max_seconds: longer utterances are cut to this.
        frame_seconds: distance between stored frames in seconds; 0 = a row is one frame.
        folder: folder of all stores; by default that of the cache.
    """

    def __init__(
        self,
        extraction: dict[str, Any],
        roots: dict[str, Path],
        *,
        max_seconds: float,
        frame_seconds: float = 0.02,
        folder: Path | None = None,
    ) -> None:
        self.extraction, self.frame_seconds = extraction, frame_seconds
        self.roots, self.max_seconds = roots, max_seconds
        self.dtype = str(extraction.get("dtype", "float32"))
        self.name = digest(extraction)
        base = folder or features_dir()
        self.shards = Shards(base / self.name, self.dtype)
        self._wider = [
            (Shards(wide, self.dtype), places) for wide, places in wider(base, extraction)
        ]
        self._maps: dict[str, Tensor] = {}
        self._places: dict[str, list[int]] = {}  # shard of a wider store to the layers wanted of it

    def key(self, utterance: Utterance, copy: int = 0) -> str:
        """Return the key of an utterance's features.

        Args:
            utterance: the utterance.
            copy: number of its corrupted copy (:mod:`.copies`); 0 = as it is.
        """
        sha = utterance.sha or hash_of_sound(utterance, self.roots)
        key = feature_key(utterance, sha, self.max_seconds)
        return f"{key}#copy{VERSION}.{copy}" if copy else key

    def refresh(self) -> None:
        """Read what was added to the store, and to the stores of more layers."""
        for shards in (self.shards, *(s for s, _ in self._wider)):
            shards.refresh()

    def __contains__(self, utterance: Utterance) -> bool:
        return self.holds(utterance)

    def holds(self, utterance: Utterance, copy: int = 0) -> bool:
        """Return whether the features of an utterance, or of a corrupted copy, are stored."""
        return self._find(self.key(utterance, copy)) is not None

    def __len__(self) -> int:
        """Return the number of rows, of this store and of those of more layers."""
        return sum(len(shards.rows) for shards in (self.shards, *(s for s, _ in self._wider)))

    def of_file(self, file: Path, channel: int | None = None) -> Row | None:
        """Return the place of a whole file's features; None if they are not stored.

        Args:
            file: a recording.
            channel: counted from 1; None = the mean of all.

        Raises:
            AudioError: if the file cannot be read.
        """
        samples, rate = decode(file, channel=channel)
        return self._find(_key(sample_hash(samples), rate, 0.0, len(samples) / rate))

    def _find(self, key: str) -> Row | None:
        if (row := self.shards.rows.get(key)) is not None:
            return row
        for shards, places in self._wider:
            if (row := shards.rows.get(key)) is not None:
                self._places[row.shard] = places
                return row
        return None

    def __getitem__(self, utterance: Utterance) -> Tensor:
        """Return the stored ``[K, T, D]``, without padding."""
        return self.read(self.row(utterance))

    def row(self, utterance: Utterance, copy: int = 0) -> Row:
        """Return the place of an utterance's features, or of a corrupted copy's.

        One look-up serves many reads.
        """
        key = self.key(utterance, copy)
        if (row := self._find(key)) is None:
            raise KeyError(key)
        return row

    def read(self, row: Row) -> Tensor:
        """Return ``[K, T, D]`` of a row; without a copy, unless a wider store has other layers."""
        flat = self._maps.get(row.shard)
        if flat is None:
            flat = self._maps[row.shard] = self._map(row.shard)
        values = flat[row.start : row.start + row.size].view(row.shape)
        places = self._places.get(row.shard)
        if places is None:
            return values
        first, last = places[0], places[-1]
        return values[first : last + 1] if last - first + 1 == len(places) else values[places]

    def statistics(self, row: Row) -> Tensor:
        """Return :func:`statistics` of a row; the process keeps them for the next run."""
        key = (row.shard, row.start, *self._places.get(row.shard, ()))
        if (found := _measured.get(key)) is None:
            found = statistics(self.read(row))
            if (len(_measured) + 1) * found.nbytes > MEASURED_BYTES:
                _measured.clear()
            _measured[key] = found
        return found

    def _map(self, shard: str) -> Tensor:
        homes = [self.shards, *(s for s, _ in self._wider if shard in self._places)]
        path = next((p for s in homes if (p := s.data(shard)).is_file()), self.shards.data(shard))
        dtype = getattr(torch, self.dtype)
        try:
            values = path.stat().st_size // self.shards.dtype.itemsize
            # not np.memmap: Python's maps keep their files open, but a process may open only few.
            # The map is private: writing into a row changes a copy, in this process only
            return torch.from_file(str(path), shared=False, size=values, dtype=dtype)
        except FileNotFoundError:
            raise DataError(
                f"shard {shard} of the feature store {self.shards.folder} is gone: it was removed "
                "while in use; start the run again, which computes missing features again"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # each worker process maps the files itself

    def fill(
        self,
        encoder: Encoder,
        utterances: Sequence[Utterance],
        *,
        copies: int = 0,
        device: torch.device | str = "cpu",
        progress: bool = False,
    ) -> Filled:
        """Extract missing features; processes that call this at the same time share the work.

        Args:
            encoder: an encoder with ``storable`` extraction; its state and device are restored.
            utterances: the utterances whose features are needed.
            copies: how many corrupted copies of each are needed, too (:mod:`.copies`).
            device: device of the extraction.
            progress: show a bar.

        Returns:
            What was done. ``live`` if the disk is too full: then nothing was added, and a warning
            says how much space is missing.

        Raises:
            DataError: if the cache cannot be written, or the disk becomes full during the work.
                Also if audio cannot be read, or features are not finite.
        """
        began = time.perf_counter()
        numbered = {self.key(u, c): (u, c) for c in range(copies + 1) for u in utterances}
        wanted = {key: u for key, (u, _) in numbered.items()}
        seconds = {key: min(u.duration, self.max_seconds) for key, u in wanted.items()}
        done: set[str] = set()
        try:
            self.refresh()
            missing = {k: u for k, u in wanted.items() if self._find(k) is None}
            if missing:
                work = Filling(
                    encoder,
                    self.shards,
                    self.dtype,
                    torch.device(device),
                    missing,
                    seconds,
                    lambda key: load_copy(*numbered[key], self.roots, self.max_seconds),
                )
                done = work.run(self._facts(encoder), progress)
        except DiskFullError as full:
            warnings.warn(str(full), DataWarning, stacklevel=2)
            return Filled("live", seconds=round(time.perf_counter() - began, 3))
        except OSError as error:
            raise DataError(self._explained(error)) from error
        found = [self._find(key) for key in wanted]
        rows = [row for row in found if row is not None]
        for shards in (self.shards, *(s for s, _ in self._wider)):
            if any(row.shard in shards for row in rows):
                shards.touch()
        for row in rows:
            self.read(row)  # mapped rows stay readable even if the cache is cleared
        return Filled(
            "stored",
            reused=len(wanted) - len(done),
            encoded=len(done),
            speech_seconds=round(sum(seconds[key] for key in done), 1),
            seconds=round(time.perf_counter() - began, 3),
            bytes=sum(self.read(row).numel() for row in rows) * self.shards.dtype.itemsize,
            store=self.name,
        )

    def _facts(self, encoder: Encoder) -> dict[str, Any]:
        """Return the content of ``store.json``."""
        described = encoder.describe()
        return {
            "dtype": self.dtype,
            "frame_seconds": self.frame_seconds,
            "extraction": self.extraction,
            "first_used_by": {k: described[k] for k in ("name", "revision") if k in described},
        }

    def _explained(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"the disk ran full while features were written to {self.shards.folder}; what was "
                f"finished is kept. Free some space (`serzoo cache list`), or {ADVICE}"
            )
        return (
            f"features cannot be written to {self.shards.folder} ({error}); make it writable, "
            f"or {ADVICE}"
        )


_measured: dict[tuple[Any, ...], Tensor] = {}  # by shard (its name is random), place and layers
MEASURED_BYTES = 256 * 2**20  # of statistics that a process keeps: our choice


class HeldFrames:
    """Frames of a dataset's audio in memory, as :class:`FeatureStore` keeps those of clean audio.

    It is for corrupted audio. The models of a suite that share an encoder read the same frames.

    Args:
        extraction: ``encoder.extraction()``; its ``dtype`` is the number format that is kept.
        frame_seconds: distance between frames in seconds; 0 = an utterance is one frame.
    """

    def __init__(self, extraction: dict[str, Any], frame_seconds: float) -> None:
        self.name, self.frame_seconds = digest(extraction), frame_seconds
        self._dtype = getattr(torch, str(extraction.get("dtype", "float32")))
        self._frames: dict[str, Tensor] = {}
        self._seconds: dict[str, float] = {}

    @torch.no_grad()
    def fill(
        self,
        encoder: Encoder,
        utterances: Sequence[Utterance],
        seconds: Sequence[float],
        wave: Callable[[Utterance], Tensor],
        *,
        device: torch.device,
        progress: bool = False,
    ) -> None:
        """Encode all utterances.

        Args:
            encoder: an encoder with ``storable`` extraction, on any device, in evaluation mode.
            utterances: what to encode.
            seconds: the duration of each.
            wave: returns the samples ``[S]`` of an utterance.
            device: device of the extraction.
            progress: show a bar.

        Raises:
            DataError: if frames are not finite.
        """
        encoder.to(device)
        self._seconds = {u.id: s for u, s in zip(utterances, seconds, strict=True)}
        batches = pack(range(len(utterances)), np.array(seconds), *_batch_of(device))
        with Bar("features", len(utterances), shown=progress) as bar:
            for batch in batches:
                audio, lengths = pad_waves([wave(utterances[i]) for i in batch])
                hidden, mask = encoder.extract(audio.to(device), lengths.to(device))
                for i, values, speech in zip(batch, hidden, mask, strict=True):
                    found = values[:, : int(speech.sum())]
                    if not bool(found.isfinite().all()):
                        raise DataError(unusable(utterances[i].id))
                    self._frames[utterances[i].id] = found.to("cpu", self._dtype, copy=True)
                bar.advance(len(batch))

    def row(self, utterance: Utterance) -> Row:
        """Return the place of an utterance's frames."""
        k, t, d = self._frames[utterance.id].shape
        seconds = t * self.frame_seconds or self._seconds[utterance.id]
        return Row(utterance.id, 0, (k, t, d), seconds)

    def read(self, row: Row) -> Tensor:
        """Return ``[K, T, D]`` of a row, without a copy."""
        return self._frames[row.shard]


def unusable(name: str) -> str:
    """Return what to say of an utterance whose frames are not finite."""
    return (
        f"the encoder's features of {name} are not finite; listen to the file, or choose another "
        "precision or another layer"
    )


def _batch_of(device: torch.device) -> tuple[int, float]:
    return BATCH.get(device.type, BATCH["cuda"])


def wider(base: Path, extraction: dict[str, Any]) -> list[tuple[Path, list[int]]]:
    """Return the stores that hold all layers of an extraction and more, the smallest first.

    Args:
        base: folder of all stores.
        extraction: what is wanted; only one with a list of ``layers`` has wider stores.

    Returns:
        The folder of each store, and the places of the wanted layers in its rows, ascending.
    """
    wanted = extraction.get("layers")
    if not isinstance(wanted, list):
        return []
    rest = {k: v for k, v in extraction.items() if k != "layers"}
    found = []
    for path in sorted(base.glob("*/store.json")):
        try:
            facts = json.loads(path.read_bytes())
            other = dict(facts["extraction"])
            have, same = list(other.pop("layers")), facts["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or being removed
            continue
        if same and other == rest and set(wanted) < set(have) and have == sorted(have):
            found.append((len(have), path.parent, [have.index(k) for k in wanted]))
    return [(folder, places) for _, folder, places in sorted(found, key=lambda f: f[:2])]


def feature_key(utterance: Utterance, sha: str, max_seconds: float) -> str:
    """Return the key of an utterance's features: its content and its cut, not its name.

    Args:
        utterance: the utterance; its sample rate is in the key, because the hash is of samples.
        sha: hash of its samples.
        max_seconds: largest duration; it is in the key only if it cuts the utterance.
    """
    end = min(utterance.end, utterance.start + max_seconds)
    return _key(sha, utterance.sample_rate, utterance.start, end)


def _key(sha: str, rate: int, start: float, end: float) -> str:
    return f"{sha}@{rate}:{start:.4f}-{end:.4f}"


def hash_of_sound(utterance: Utterance, roots: dict[str, Path]) -> str:
    """Return the hash of an utterance's samples, for a manifest that has none."""
    path = roots[utterance.corpus] / utterance.audio
    if not holds(path):
        decode(path)  # raises an error that says what is wrong
    stat = facts_of(path)
    place = (utterance.start, utterance.end, utterance.channel)
    return _hash(path, stat.st_size, stat.st_mtime_ns, *place)


@lru_cache(maxsize=65536)
def _hash(path: Path, size: int, mtime: int, start: float, end: float, channel: int | None) -> str:
    return sample_hash(decode(path, start, end, channel)[0])


def statistics(row: Tensor) -> Tensor:
    """Return ``[K, 2, D]`` float32: two vectors with the mean and the deviation of many frames.

    They are ``mean + deviation`` and ``mean - deviation``, so their own mean and (population)
    standard deviation are those of the frames. A head that uses nothing else of an utterance
    computes the same from them. It need not read all frames in every epoch.

    Args:
        row: ``[K, T, D]`` frames of an utterance.
    """
    mean, variance = moments(row.float())
    deviation = variance.sqrt()
    return torch.stack([mean + deviation, mean - deviation], dim=1)


def pad_hidden(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad a list of ``[K, T_i, D]`` with zeros to ``[B, K, T, D]``; return it and ``mask [B, T]``.

    The values keep their stored type.
    """
    lengths = torch.tensor([r.shape[1] for r in rows])
    longest, dtype = int(lengths.max()), rows[0].dtype
    # NumPy asks the system for large pages, which halves the time; only padding is set to zero
    size = (len(rows), rows[0].shape[0], longest, rows[0].shape[2])
    plain = np.empty(size, np.float32 if dtype == torch.float32 else np.int16)
    hidden = torch.from_numpy(plain).view(dtype)
    for target, row in zip(hidden.unbind(), rows, strict=True):
        target[:, : row.shape[1]].copy_(row)
        target[:, row.shape[1] :].zero_()
    return hidden, torch.arange(longest) < lengths[:, None]
