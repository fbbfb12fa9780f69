"""What a student learns from: pieces of speech, and the frames that its teacher makes of them.

The teacher hears every piece once, clean. The samples and the frames stay on the disk in shards.
So an epoch of training costs no pass of the teacher. A stopped computation goes on from the
last whole shard.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from ...datamodules.audio import SUFFIXES, AudioError, Samples, read_audio, resample
from ...datamodules.walk import walk
from ..core.encoder import Encoder
from ..core.errors import ConfigError, DataError, counted
from ..core.files import new_file, read_json, write_json
from ..core.notices import tell
from ..core.progress import Bar
from ..core.types import SAMPLE_RATE
from ..encoders.small import PEAK

SHORTEST, LONGEST = 1.0, 7.0  # seconds of a piece
FASTEST = 0.2  # largest change of speed, and so of pitch, of a further copy: natural logarithm
SILENCE = 0.8  # seconds, the longest silence that is added before and behind a piece
FLOOR = (1e-5, 1e-3)  # deviation of that silence, relative to the piece's largest sample
PIECES = 256  # in a shard


@dataclass(frozen=True)
class Plan:
    """One file of speech in one copy: the unit of work.

    Attributes:
        file: path relative to its folder, for records.
        path: where the file is.
        copy: 0 = as recorded; from 1 on, with changed speed.
        held_out: whether the file is for validation.
    """

    file: str
    path: Path
    copy: int
    held_out: bool


def recordings(folders: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """Return the name and path of every recording below the folders, sorted.

    Raises:
        DataError: if a folder is missing, or there is no recording in it.
    """
    found: list[tuple[str, Path]] = []
    for folder in folders:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise DataError(f"no folder {root}; give folders that hold speech (data=FOLDER,...)")
        seen = walk(root)
        for text, fault in seen.notes():
            tell(f"{root.name}: {text}", fault=fault)
        files = seen.take()
        if not files:
            raise DataError(
                f"no speech in {root}: it holds {seen.holds()}; give a folder with "
                f"{', '.join(SUFFIXES)} files"
            )
        found += [(f"{root.name}/{path.relative_to(root).as_posix()}", path) for path in files]
    return found


def pieces(plan: Plan, seed: int) -> Iterator[Samples]:
    """Cut a file into pieces of speech, ``[S]`` float32 each; too short files give none.

    A piece is 1 to 7 s long before its speed is changed. Half of the pieces get silence at their
    ends, as acted corpora have it. All choices depend on the seed, the file's name and the copy.
    """
    rng = np.random.default_rng([seed, plan.copy, *plan.file.encode()])
    whole = read_audio(plan.path)
    shortest, start = round(SHORTEST * SAMPLE_RATE), 0
    while len(whole) - start >= shortest or (start == 0 and len(whole) >= shortest // 2):
        size = round(float(rng.uniform(2 * SHORTEST, LONGEST)) * SAMPLE_RATE)
        if len(whole) - start - size < shortest:  # no useless rest
            size = min(len(whole) - start, round(LONGEST * SAMPLE_RATE))
        piece = whole[start : start + size]
        start += size
        if plan.copy:
            speed = math.exp(float(rng.uniform(-FASTEST, FASTEST)))
            piece = resample(piece, round(SAMPLE_RATE * speed))
        largest = float(np.abs(piece).max(initial=0.0))
        if largest < 1e-4:  # no speech to learn from
            continue
        if rng.random() < 0.5:
            floor = largest * math.exp(float(rng.uniform(*np.log(FLOOR))))
            ends = [round(float(rng.uniform(0, SILENCE)) * SAMPLE_RATE) for _ in range(2)]
            hiss = [rng.normal(0, floor, n).astype(np.float32) for n in ends]
            piece = np.concatenate([hiss[0], piece, hiss[1]])
        yield (piece * (PEAK / largest)).astype(np.float32)


def check_teacher(teacher: Encoder, name: str) -> None:
    """Refuse an encoder that nothing can be learned from.

    Raises:
        ConfigError: if its frames change in training, or an utterance has only one.
    """
    if not teacher.steady or not any(True for _ in teacher.parameters()):
        raise ConfigError(
            f"teacher={name}: it is no trained, frozen encoder, so there is nothing to learn from "
            "it; choose a published one (such as whisper-base), or trained"
        )
    if teacher.frame_seconds <= 0:
        raise ConfigError(
            f"teacher={name}: it makes one vector per utterance; a teacher needs frames"
        )


def pooled(hidden: Tensor, mask: Tensor, step: float, seconds: float, count: int) -> Tensor:
    """Average the frames of one utterance on a coarser grid.

    Args:
        hidden: ``[K, T, D]`` frames, ``step`` seconds apart.
        mask: ``[T]`` of frames.
        step: seconds.
        seconds: length of a cell of the grid.
        count: number of cells, n.

    Returns:
        ``[n, K, D]``; a cell without a frame repeats the one before.
    """
    real = hidden[:, mask]
    place = ((torch.arange(real.shape[1]) + 0.5) * step / seconds).long().clamp_max(count - 1)
    sums = torch.zeros(real.shape[0], count, real.shape[2]).index_add_(1, place, real)
    number = torch.bincount(place, minlength=count)
    used = torch.where(number > 0, torch.arange(count), 0).cummax(0).values
    return (sums / number.clamp_min(1)[:, None])[:, used].transpose(0, 1)


@dataclass(frozen=True)
class Shard:
    """A file of pieces with the teacher's frames of them.

    Attributes:
        path: the file.
        samples: number of samples of each piece.
        held_out: for each piece, whether it is for validation.
    """

    path: Path
    samples: list[int]
    held_out: list[bool]


@torch.no_grad()
def make_targets(
    folder: Path,
    files: Sequence[tuple[str, Path]],
    teacher: Encoder,
    *,
    copies: int,
    seed: int,
    stride: int,
    held_out: float,
    progress: bool,
    facts: dict[str, Any],
) -> list[Shard]:
    """Compute the teacher's frames of all pieces, or as many of them as the folder lacks.

    Args:
        folder: folder of the shards.
        files: the speech; see :func:`recordings`.
        teacher: a frozen encoder.
        copies: how many copies of the speech there are; the second and later ones change the speed.
        seed: decides about cuts, speeds and validation.
        stride: samples between two frames of the student.
        held_out: share of the files that is kept for validation.
        progress: show a bar.
        facts: everything else that decides the targets; a folder of others is refused.

    Returns:
        The shards, in order.

    Raises:
        ConfigError: if the folder holds targets of another teacher or speech.
        DataError: if no file has enough speech.
    """
    rng = np.random.default_rng(seed)
    out = set(rng.choice(len(files), round(held_out * len(files)), replace=False).tolist())
    plans = [
        Plan(file, path, copy, i in out)
        for copy in range(copies)
        for i, (file, path) in enumerate(files)
        if copy == 0 or i not in out
    ]
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "targets.json"
    named = {**facts, "seed": seed, "stride": stride, "held_out": held_out, "copies": copies}
    named["files"] = [file for file, _ in files]
    if index.exists():
        have = read_json(index, remedy="remove the folder, and start again")
        wrong = [k for k, v in named.items() if have.get(k) != v and k != "copies"]
        if wrong:
            raise ConfigError(
                f"{folder} holds targets of another {', '.join(wrong)}; choose another out=FOLDER, "
                "or remove it"
            )
    write_json(index, named)
    shards: list[Shard] = []
    with Bar("teaching", len(plans), shown=progress) as bar:
        for first in range(0, len(plans), PIECES):
            part = plans[first : first + PIECES]
            path = folder / f"{part[0].copy}-{first:06d}.safetensors"
            if not path.exists():
                _write_shard(path, part, teacher, seed, stride)
            if shard := _opened(path):
                shards.append(shard)
            bar.advance(len(part))
    if not any(not h for s in shards for h in s.held_out):
        raise DataError(
            f"no speech to learn from: none of {counted(len(files), 'file')} has "
            f"{SHORTEST / 2:g} s of sound; give longer recordings"
        )
    return shards


def _write_shard(
    path: Path, plans: Sequence[Plan], teacher: Encoder, seed: int, stride: int
) -> None:
    found: list[Samples] = []
    held: list[bool] = []
    for plan in plans:
        try:
            cut = list(pieces(plan, seed))
        except AudioError as error:
            tell(f"left out {plan.file}: {error}")
            continue
        found += cut
        held += [plan.held_out] * len(cut)
    order = sorted(range(len(found)), key=lambda i: len(found[i]))  # little padding
    frames: dict[int, Tensor] = {}
    for start in range(0, len(order), 16):
        batch = order[start : start + 16]
        lengths = torch.tensor([len(found[i]) for i in batch])
        audio = torch.zeros(len(batch), int(lengths.max()))
        for row, i in zip(audio, batch, strict=True):
            row[: len(found[i])] = torch.from_numpy(found[i])
        hidden, mask = teacher.extract(audio, lengths)
        for row, i in enumerate(batch):
            count = -(-len(found[i]) // stride)
            frames[i] = pooled(
                hidden[row].float(), mask[row], teacher.frame_seconds, stride / SAMPLE_RATE, count
            )
    empty = torch.zeros(0)
    content = {
        "audio": torch.cat([torch.from_numpy(p * 32767).round().short() for p in found] or [empty]),
        "frames": torch.cat([frames[i] for i in range(len(found))] or [empty]).half(),
    }
    facts = {"samples": json.dumps([len(p) for p in found]), "held_out": json.dumps(held)}
    with new_file(path) as draft:
        save_file(content, draft, facts)


def _opened(path: Path) -> Shard | None:
    """Return a shard of the disk; None if it has no piece."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
        shard = Shard(path, json.loads(facts["samples"]), json.loads(facts["held_out"]))
    except Exception as error:
        raise DataError(f"{path} is damaged ({error}); remove it, and start again") from error
    return shard if shard.samples else None


class Taught(Dataset[dict[str, Tensor]]):
    """Batches of pieces and of the teacher's frames, read from shards.

    An index is a list of pieces, as :class:`serzoo.datamodules.sampler.BucketSampler` yields it.

    Args:
        shards: the shards.
        stride: samples between two frames.
        held_out: whether the pieces are those for validation, instead of those for training.

    Attributes:
        seconds: duration of each piece.
    """

    def __init__(self, shards: Sequence[Shard], stride: int, *, held_out: bool) -> None:
        self.shards, self.stride = list(shards), stride
        self.places: list[tuple[int, int, int, int]] = []  # shard, sample, samples, frame
        for number, shard in enumerate(self.shards):
            sample = frame = 0
            for size, held in zip(shard.samples, shard.held_out, strict=True):
                if held == held_out:
                    self.places.append((number, sample, size, frame))
                sample += size
                frame += -(-size // stride)
        self.seconds = [size / SAMPLE_RATE for _, _, size, _ in self.places]
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, batch: list[int]) -> dict[str, Tensor]:
        audio, frames, lengths = [], [], []
        for i in batch:
            number, sample, size, frame = self.places[i]
            file = self._file(number)
            audio.append(file.get_slice("audio")[sample : sample + size].float() / 32767)
            frames.append(file.get_slice("frames")[frame : frame + -(-size // self.stride)])
            lengths.append(size)
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "audio": pad(audio, batch_first=True),
            "lengths": torch.tensor(lengths),
            "frames": pad(frames, batch_first=True),
        }

    def _file(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = safe_open(self.shards[number].path, "pt")
        return self._open[number]


def hours(shards: Sequence[Shard]) -> dict[str, Any]:
    """Return the number of pieces and the hours of speech, for records."""
    sizes = [n for shard in shards for n in shard.samples]
    return {"pieces": len(sizes), "hours": round(sum(sizes) / SAMPLE_RATE / 3600, 3)}
