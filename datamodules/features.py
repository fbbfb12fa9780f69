"""Stored features: what an encoder need not compute twice.

``Encoder.extract`` runs once per utterance and its output is kept in memory, shared by all runs
of this process that use the same extraction: heads, folds, seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from ..zoo.encoder import Encoder
from .audio import read_audio
from .manifest import Utterance
from .sampler import pack

BUDGET_BYTES = 6 * 2**30  # more than this is extracted live, batch by batch

_stores: dict[str, dict[str, Tensor]] = {}


def feature_key(utterance: Utterance) -> str:
    """What an utterance's features are stored under: content and cut, not its name."""
    return f"{utterance.sha or utterance.id}:{utterance.start:.4f}-{utterance.end:.4f}"


class FeatureStore:
    """Hidden states of one extraction, by utterance.

    Args:
        key: names the extraction (encoder type and options): equal keys share the features.
        frame_seconds: distance of stored frames.
    """

    def __init__(self, key: str, frame_seconds: float = 0.02) -> None:
        self.frame_seconds = frame_seconds
        self.rows = _stores.setdefault(key, {})

    def __contains__(self, utterance: Utterance) -> bool:
        return feature_key(utterance) in self.rows

    def __getitem__(self, utterance: Utterance) -> Tensor:
        """``[K, T, D]`` float32, without padding."""
        return self.rows[feature_key(utterance)]

    @torch.no_grad()
    def fill(
        self,
        encoder: Encoder,
        utterances: Sequence[Utterance],
        paths: dict[str, Path],
        *,
        max_seconds: float,
        progress: bool = False,
    ) -> bool:
        """Extract what is missing.

        Args:
            encoder: with ``storable`` extraction.
            utterances: whose features are wanted.
            paths: corpus name to its root.
            max_seconds: longer utterances are cut to this.
            progress: show a bar.

        Returns:
            False when the features of all would not fit the memory budget, and nothing was kept.
        """
        missing = list({feature_key(u): u for u in utterances if u not in self}.values())
        if not missing:
            return True
        seconds = [min(u.duration, max_seconds) for u in missing]
        device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
        was_training = encoder.training
        encoder.eval()
        order = sorted(range(len(missing)), key=lambda i: seconds[i])
        batches: Iterable[list[int]] = pack(order, torch.tensor(seconds).numpy(), 16, 120.0)
        if progress:
            batches = track(list(batches), description="features")
        new: dict[str, Tensor] = {}
        total = 0
        try:
            for batch in batches:
                waves = [load_wave(missing[i], paths, max_seconds) for i in batch]
                audio, lengths = pad_waves(waves)
                hidden, mask = encoder.extract(audio.to(device), lengths.to(device))
                frames = mask.sum(1).tolist()
                for i, h, n in zip(batch, hidden.cpu(), frames, strict=True):
                    row = h[:, : int(n)].float().clone()
                    new[feature_key(missing[i])] = row
                    total += row.numel() * 4
                # judged after the first batch, before time is lost: seconds scale to bytes
                done = sum(seconds[i] for b in [batch] for i in b)
                if len(new) == len(batch) and total / max(done, 1e-3) * sum(seconds) > BUDGET_BYTES:
                    return False
        finally:
            encoder.train(was_training)
        self.rows.update(new)
        return True


def load_wave(utterance: Utterance, roots: dict[str, Path], max_seconds: float) -> Tensor:
    """``[S]`` float32 at 16 kHz, at most ``max_seconds`` long."""
    end = min(utterance.end, utterance.start + max_seconds)
    path = roots[utterance.corpus] / utterance.audio
    return torch.from_numpy(read_audio(path, utterance.start, end))


def pad_waves(waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """List of ``[S_i]`` to ``audio [B, S]`` (zeros on the right) and ``lengths [B]``."""
    lengths = torch.tensor([len(w) for w in waves])
    return torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True), lengths


def pad_hidden(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """List of ``[K, T_i, D]`` to ``hidden [B, K, T, D]``, zero-padded, and ``mask [B, T]``."""
    lengths = torch.tensor([r.shape[1] for r in rows])
    longest = int(lengths.max())
    hidden = rows[0].new_zeros(len(rows), rows[0].shape[0], longest, rows[0].shape[2])
    for i, row in enumerate(rows):
        hidden[i, :, : row.shape[1]] = row
    return hidden, torch.arange(longest) < lengths[:, None]
