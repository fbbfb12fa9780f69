"""A small pretrained encoder of our own, which `serzoo distil` trains, and the network in it.

The shipped weights were distilled from Whisper base (``docs/reference/serzoo-small.md``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

from ..core.encoder import Encoder, Join, LayerMix
from ..core.errors import ConfigError, DamagedError
from ..core.files import new_file
from ..core.hub import weights_digest
from ..core.types import SAMPLE_RATE, Frames
from .families import HOP, whisper_log_mel
from .mel import frame_mask

PEAK = 0.9  # largest sample of each utterance
EDGE = 2  # spectrogram frames whose windows reach from the end of the audio into the padding
CELL = 8  # spectrogram frames of 10 ms in a frame of the student
WINDOW_CELLS = 125  # frames of 80 ms that see each other: 10 s


@dataclass(frozen=True)
class Shape:
    """The sizes of a student.

    Attributes:
        bands: number of mel bands, 80 or 128.
        dim: ``D``, width of the frames.
        heads: attention heads of each block, of 64 numbers each.
        hidden: width of the hidden layer of each block.
        kernels: frames that the depthwise convolution of each block sees; an odd number.
    """

    bands: int = 80
    dim: int = 512
    heads: tuple[int, int] = (8, 2)
    hidden: tuple[int, int] = (2048, 320)
    kernels: tuple[int, int] = (5, 9)


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017) with heads of 64 numbers; keys have no bias."""

    size = 64

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        inner = heads * self.size
        self.q_proj, self.v_proj = nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner, bias=False)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return ``[B, T, D]``; only frames whose mask ``[B, T]`` is True are seen."""
        q, k, v = (
            layer(x).unflatten(2, (-1, self.size)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = None if mask is None else mask[:, None, None]
        y = scaled_dot_product_attention(q, k, v, attn_mask=seen)
        projected: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """A depthwise convolution, self-attention and a feed-forward net, each beside a skip."""

    def __init__(self, dim: int, heads: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        # a block starts as the identity, or as the teacher's block, if it is copied
        for weight in (self.conv.weight, self.self_attn.out_proj.weight, self.fc2.weight):
            nn.init.zeros_(weight)
        for layer in (self.conv, self.self_attn.out_proj, self.fc2):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        real = x if mask is None else x * mask[..., None]
        x = x + self.conv(real.transpose(1, 2)).transpose(1, 2)
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        y: Tensor = x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))
        return y


class Student(nn.Module):
    """Log-mel spectrogram to frames of 80 ms: two convolutions, two blocks, a linear layer.

    The first block works at 40 ms, the second one at 80 ms. The convolutions and the first block
    have the form of Whisper's (Radford et al. 2022). So they can start from its weights.

    Args:
        shape: the sizes.
    """

    positions: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        dim = shape.dim
        self.conv1 = nn.Conv1d(shape.bands, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            Block(dim, *sizes)
            for sizes in zip(shape.heads, shape.hidden, shape.kernels, strict=True)
        )
        self.out = nn.Linear(dim, dim)
        table = sinusoids(WINDOW_CELLS * 4, dim)
        self.register_buffer("positions", _halved(table[None])[0], persistent=False)

    def forward(self, mel: Tensor, counts: Tensor, last: int = 2) -> list[Tensor]:
        """Return the frames after the convolutions, after the first block, and at the end.

        Args:
            mel: ``[B, bands, 8 * T]`` spectrogram; zero behind an utterance's end.
            counts: ``[B]`` lengths of the utterances, in frames of 80 ms.
            last: the last of them, 0 to 2, that is computed.

        Returns:
            ``last + 1`` tensors ``[B, T, D]``. Only real frames have a meaning.
        """
        # the last output that counts sees no further than the zeros behind the end
        x = _halved(gelu(self.conv2(gelu(self.conv1(mel)))).transpose(1, 2))
        x, counts, join = _windows(x, counts)
        x = x + self.positions[: x.shape[1]]
        whole = bool((counts == counts[0]).all())
        mask = None if whole else frame_mask(counts, x.shape[1] // 2)
        states = [_halved(x)]
        if last > 0:
            x = _halved(self.blocks[0](x, None if mask is None else mask.repeat_interleave(2, 1)))
            states.append(x)
        if last > 1:
            states.append(self.out(self.blocks[1](x, mask)))
        return [join(state) for state in states]


def sinusoids(length: int, dim: int) -> Tensor:
    """Return ``[length, dim]`` sines, then cosines, of positions, as Whisper adds them."""
    step = math.log(10_000) / (dim // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(dim // 2))
    return torch.cat([angles.sin(), angles.cos()], 1)


def _halved(x: Tensor) -> Tensor:
    """Average pairs of frames: ``[B, 2 * T, D]`` to ``[B, T, D]``."""
    batch, frames, dim = x.shape
    return x.reshape(batch, frames // 2, 2, dim).mean(2)


def _windows(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Cut utterances of more than 10 s into windows of equal length.

    Args:
        x: ``[B, 2 * T, D]``.
        counts: ``[B]`` number of pairs of frames of each utterance.

    Returns:
        The windows ``[P, 2 * T', D]``, their ``[P]`` numbers of pairs, and a function that puts
        ``[P, T', D]`` together to ``[B, T, D]``.
    """
    if int(counts.max()) <= WINDOW_CELLS:
        return x, counts, lambda state: state
    parts = [(n, -(-n // WINDOW_CELLS)) for n in counts.tolist()]
    cuts = [
        (row, start, min(-(-n // number), n - start))
        for row, (n, number) in enumerate(parts)
        for start in range(0, n, -(-n // number))
    ]
    longest = max(size for _, _, size in cuts)
    pieces = torch.stack(
        [pad(x[r, 2 * s : 2 * (s + n)], (0, 0, 0, 2 * (longest - n))) for r, s, n in cuts]
    )

    def join(state: Tensor) -> Tensor:
        rows: list[list[Tensor]] = [[] for _ in parts]
        for (row, _, size), piece in zip(cuts, state, strict=True):
            rows[row].append(piece[:size])
        return nn.utils.rnn.pad_sequence([torch.cat(row) for row in rows], batch_first=True)

    return pieces, counts.new_tensor([n for _, _, n in cuts]), join


def spectrogram(audio: Tensor, lengths: Tensor, bands: int) -> tuple[Tensor, Tensor]:
    """Return Whisper's log-mel spectrogram of each utterance, as if it were alone.

    Samples are divided by the utterance's largest one, so that the gain changes nothing.

    Args:
        audio: ``[B, S]`` float32, 16 kHz mono.
        lengths: ``[B]`` number of real samples of each row.
        bands: number of mel bands.

    Returns:
        ``[B, bands, 8 * T]``, zero behind the end, and the ``[B]`` numbers of frames of 80 ms.
    """
    counts = (lengths.clamp_min(1) + CELL * HOP - 1) // (CELL * HOP)
    frames = int(counts.max()) * CELL
    # the last frame sees silence behind the end, in a batch as well as alone
    samples = (frames + EDGE) * HOP
    real = pad(audio.float(), (0, max(0, samples - audio.shape[1])))[:, :samples]
    real = real * frame_mask(lengths, samples)
    largest = real.abs().amax(1, keepdim=True)
    real = real * torch.where(largest > 0, PEAK / largest, 0.0)
    mel = whisper_log_mel(real, bands, frame_mask(counts * CELL, frames + EDGE))
    return mel[..., :frames], counts


# Weights on the disk: safetensors in float16, whose metadata holds the shape and the origin.

FORMAT = "serzoo-student-1"


def write_student(
    path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any], notice: str = ""
) -> None:
    """Write weights of a student as float16.

    Args:
        path: the file.
        weights: its state dict.
        facts: the ``shape``, and where the weights come from, as plain containers.
        notice: a copyright notice that has to stay with the weights.
    """
    halves = {k: v.detach().cpu().half().contiguous() for k, v in weights.items()}
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    with new_file(path) as draft:
        save_file(halves, draft, {"format": FORMAT, "serzoo": text, "notice": notice})


def read_student(path: Path) -> tuple[Student, dict[str, Any]]:
    """Return a student with the weights of a file, in float32, and the facts beside them.

    Raises:
        ConfigError: if the file is missing or holds something else.
        DamagedError: if it is damaged.
    """
    if not path.is_file():
        raise ConfigError(
            f"no weights of a student in {path}; give a file that `serzoo distil` wrote"
        )
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            weights = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has no common class for its errors
        raise DamagedError(f"{path} is damaged ({error}); get it again") from error
    if meta.get("format") != FORMAT:
        raise ConfigError(
            f"{path} holds no student (its format is {meta.get('format')}); give a file that "
            "`serzoo distil` wrote"
        )
    facts = json.loads(meta["serzoo"])
    student = Student(Shape(**{k: _plain(v) for k, v in facts["shape"].items()}))
    wanted = {k: v.shape for k, v in student.state_dict().items()}
    have = {k: v.shape for k, v in weights.items()}
    if have != wanted:
        wrong = sorted(k for k in {**have, **wanted} if have.get(k) != wanted.get(k))
        raise DamagedError(f"{path} is damaged: it lacks {wrong[0]}, or has it in another size")
    if bad := [k for k, v in weights.items() if not bool(v.isfinite().all())]:
        raise DamagedError(f"{path} is damaged: {bad[0]} is not finite; get it again")
    student.load_state_dict(weights)
    return student, facts


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# The encoder.

SHIPPED = "serzoo-small.safetensors"
SHA256 = "a53e381405dd74a2c4fe4f7c852095d531b0c9d4b5f6984b8288cf6d133e89df"
"""The hash of the shipped file."""


class SmallEncoder(Encoder):
    """Frames of a small distilled encoder, by default of the weights that serzoo ships.

    Layer 0 is the output of the convolutions, and 1 that of the first block. Layer 2 is the end,
    the student's estimate of the teacher's frames. Frames are 80 ms apart. They do not depend on
    batch neighbours or on padding. Audio of any length is read. Utterances of more than 10 s are
    read in equal windows, whose frames do not see each other.

    Args:
        weights: file that `serzoo distil` wrote; None = the shipped weights.
        layers: kept layers; None = all three, put together by ``join``.
        join: ``mix`` learns a softmax-weighted sum of several layers; ``concat`` puts them side by
            side.
        tuning: ``frozen`` keeps the weights, ``full`` trains all of them.

    Raises:
        ConfigError: if the file is missing or holds something else, or there is no such layer.
        DamagedError: if the weights are damaged.
    """

    frame_seconds = CELL * HOP / SAMPLE_RATE

    def __init__(
        self,
        *,
        weights: str | None = None,
        layers: list[int] | None = None,
        join: Join = "mix",
        tuning: Literal["frozen", "full"] = "frozen",
    ) -> None:
        super().__init__()
        self.backbone, self.facts = shipped() if weights is None else read_student(_path(weights))
        self.layers = _checked(layers)
        self.name = Path(weights).name if weights else SHIPPED
        self.tuning = tuning
        self.storable = tuning == "frozen"
        self.digest = weights_digest(self.backbone)
        self.backbone.requires_grad_(not self.storable)
        if max(self.layers) < 2:  # nothing reaches these
            for part in (*self.backbone.blocks[max(self.layers) :], self.backbone.out):
                part.requires_grad_(False)
        self.mix, self.join = LayerMix(self.layers, join), join
        self.dim = self.backbone.shape.dim * self.mix.times

    def draw(self) -> None:
        """Replace the weights by new ones, as they are before a distillation."""
        new = Student(self.backbone.shape).state_dict()
        self.backbone.load_state_dict(new)
        self.digest = weights_digest(self.backbone)

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad() if self.storable else nullcontext():
            mel, counts = spectrogram(audio, lengths, self.backbone.shape.bands)
            states = self.backbone(mel, counts, max(self.layers))
            mask = frame_mask(counts, states[0].shape[1])
            kept = torch.stack([states[k].float() for k in self.layers], 1)
            return kept.masked_fill(~mask[:, None, :, None], 0.0), mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(self.mix(hidden), mask)  # zeros after the end stay zeros

    @property
    def plain(self) -> bool:
        return self.storable and self.mix.logits is None

    def param_groups(self, lr: float, mix_lr: float | None = None) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = []
        if not self.storable:
            trained = [p for p in self.backbone.parameters() if p.requires_grad]
            groups.append({"params": trained, "lr": lr})
        if self.mix.logits is not None:
            groups.append({"params": [self.mix.logits], "lr": lr if mix_lr is None else mix_lr})
        return groups

    def frozen_keys(self) -> frozenset[str]:
        trained = {k for k, p in self.backbone.named_parameters() if p.requires_grad}
        return frozenset(f"backbone.{k}" for k in self.backbone.state_dict() if k not in trained)

    def extraction(self) -> dict[str, Any]:
        return {"type": "serzoo-small", "weights": self.digest, "layers": list(self.layers)}

    @property
    def bytes_per_second(self) -> float:
        return 4 * len(self.layers) * self.backbone.shape.dim / self.frame_seconds

    def layer_weights(self) -> dict[str, float]:
        return self.mix.weights()

    def describe(self) -> dict[str, Any]:
        """Return facts for records: name and digest of the weights, and where they come from."""
        return {
            "type": "serzoo-small",
            "name": self.name,
            "weights": self.digest,
            "layers": list(self.layers),
            **({} if self.join == "mix" else {"join": self.join}),
            "tuning": self.tuning,
            "dim": self.dim,
            "parameters": sum(p.numel() for p in self.parameters()),
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "distilled": {k: self.facts.get(k) for k in ("teacher", "speech", "steps")},
        }


def shipped() -> tuple[Student, dict[str, Any]]:
    """Return the student that serzoo ships, and the facts beside its weights.

    Raises:
        DamagedError: if the file of the weights is missing or not the one that was shipped.
    """
    with as_file(files(__package__) / SHIPPED) as path:
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != SHA256:
            raise DamagedError(
                f"the weights of serzoo-small are damaged: {path} is {found[:12]}, and "
                f"{SHA256[:12]} was shipped; install serzoo again"
            )
        return read_student(path)


def _path(weights: str) -> Path:
    return Path(weights).expanduser()


def _checked(layers: list[int] | None) -> list[int]:
    if layers is None:
        return [0, 1, 2]
    if not layers or not set(layers) <= {0, 1, 2} or len(set(layers)) < len(layers):
        raise ConfigError(
            f"encoder.layers={list(layers)}: a distilled encoder has the layers 0 (after the "
            "convolutions), 1 (after the first block) and 2 (its end); give null for all of them, "
            "or a list of different ones"
        )
    return sorted(layers)
