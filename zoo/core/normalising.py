"""Speaker normalisation: features lose what is common to the utterances of their speaker.

The mean over a speaker's unlabelled utterances holds voice, channel and level more than emotion. So
its difference to the training mean is subtracted from each utterance. Few utterances give a poor
mean; it is shrunk to the training mean. This is transductive: an answer depends on the speaker's
other utterances. So tables, records, cards and predictions name it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import counted
from .notices import tell
from .speakers import enrolled, is_known

SHRINKAGE = 4.0
"""Utterances that the training mean counts for.

It was chosen among 0, 2, 4, 8 and 16 by UAR on validation, pooled over folds. The corpora were
RAVDESS and EMO-DB, the encoder functionals, the head linear_svm. Division by the speaker's
deviation gained 0.015 on one corpus and lost 0.009 on the other. So it was left out.
"""

KEPT = 128
"""Utterances of a training speaker from which random sets are drawn; it bounds the memory."""

Measured = tuple[Sequence[str], Sequence[str], Tensor]
"""Ids, speakers and means ``[B, W]`` of the utterances of a batch."""


@dataclass(frozen=True)
class _Voice:
    """What was measured of a speaker.

    Attributes:
        number: utterances of the mean.
        mean: ``[W]`` mean over these.
        rows: ``[n, W]`` means of single utterances, to draw from in training; else None.
    """

    number: int
    mean: Tensor
    rows: Tensor | None


class SpeakerNormaliser(nn.Module):
    """Subtracts a speaker's shrunk mean from stored features, and from vectors of utterances.

    An utterance x of a speaker becomes ``x - n / (n + tau) (m - mu)``. Here m is the mean of n
    utterances of the speaker. mu is the mean of the training part, and tau is :data:`SHRINKAGE`.
    Each utterance counts by the mean of its frames, whatever its length. An utterance of an unknown
    speaker stays as it is.

    The means of speakers come from :meth:`enrol`, and are not saved. mu and tau are.

    Args:
        way: ``speaker`` or ``enrol:K``, the utterances of a speaker that are used after training.
        shape: K and D of stored features.
        beside: ``F``, width of the vectors of utterances; 0 if there are none.

    Attributes:
        about: what :meth:`enrol` saw last, for the record.
    """

    location: Tensor
    tau: Tensor
    fitted: Tensor

    def __init__(self, way: str, shape: tuple[int, int], beside: int = 0) -> None:
        super().__init__()
        self.way, self.shape, self.width = way, shape, shape[0] * shape[1] + beside
        self.register_buffer("location", torch.zeros(self.width))
        self.register_buffer("tau", torch.tensor(SHRINKAGE))
        self.register_buffer("fitted", torch.zeros(()))
        self.about: dict[str, Any] = {}
        self._voices: dict[str, _Voice | None] = {}  # by id of an utterance; None = unknown speaker
        self._strangers_told = False

    def measured(self, hidden: Tensor, mask: Tensor, vectors: Tensor | None) -> Tensor:
        """Return the means ``[B, W]`` of the utterances of a batch, on the CPU.

        Args:
            hidden: ``[B, K, T, D]`` features.
            mask: ``[B, T]``.
            vectors: ``[B, F]`` vectors of the utterances, or None.
        """
        total = hidden.float().masked_fill(~mask[:, None, :, None], 0.0).sum(2)
        mean = (total / mask.sum(1)[:, None, None]).flatten(1)
        return (mean if vectors is None else torch.cat([mean, vectors.float()], 1)).cpu()

    def enrol(self, batches: Iterable[Measured], *, learn: bool = False) -> None:
        """Measure the speakers of a part; utterances with the same ids are measured anew.

        Args:
            batches: every utterance of the part once.
            learn: of the training part: use all utterances, keep them to draw from, and set mu if
                there is none.

        Raises:
            ValueError: if ``learn`` is set, and no utterance has a known speaker.
        """
        found: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
        total, number = torch.zeros(self.width, dtype=torch.float64), 0
        unknown: list[str] = []
        for ids, speakers, rows in batches:
            total, number = total + rows.double().sum(0), number + len(rows)
            for name, speaker, row in zip(ids, speakers, rows, strict=True):
                if is_known(speaker):
                    found[speaker].append((name, row.clone()))
                else:
                    unknown.append(name)
        if learn and not found:
            raise ValueError("no utterance has a known speaker")
        if learn and not bool(self.fitted):
            self.location.copy_(total / number)
            self.fitted.fill_(1.0)
        self._voices |= dict.fromkeys(unknown)
        used = 0
        for speaker, utterances in found.items():
            voice = self._voice(speaker, utterances, learn)
            used += voice.number
            self._voices |= dict.fromkeys((name for name, _ in utterances), voice)
        self.about = {
            "way": self.way,
            "speakers": len(found),
            "utterances_used": used,
            "without_speaker": len(unknown),
        }
        if unknown:
            tell(
                f"data.normalise={self.way}: {counted(len(unknown), 'utterance')} of {number} name "
                "no speaker, and use the training mean",
                fault=False,
            )

    def _voice(self, speaker: str, utterances: list[tuple[str, Tensor]], learn: bool) -> _Voice:
        rows = [row for _, row in sorted(utterances, key=lambda pair: pair[0])]
        size = int(hashlib.sha256(speaker.encode()).hexdigest()[:8], 16)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(size)).tolist()
        some = 0 if learn else enrolled(self.way) or 0
        chosen = torch.stack([rows[i] for i in order[: some or None]])
        kept = chosen[:KEPT].clone() if learn else None
        return _Voice(len(chosen), chosen.double().mean(0).float(), kept)

    def offsets(self, ids: Sequence[str], draw: torch.Generator | None = None) -> Tensor:
        """Return ``[B, W]``: what is subtracted from the utterances, on the device of mu.

        Args:
            ids: B ids of utterances; "" for those that are none of a corpus.
            draw: use a random number of random utterances of each speaker, in training.
        """
        if not bool(self.fitted):  # a check before training
            return torch.zeros(len(ids), self.width, device=self.location.device)
        mu, tau = self.location.cpu(), float(self.tau)  # once, since a GPU would wait each time
        found = []
        for name in ids:
            voice = self._voice_of(name)
            if voice is None:
                found.append(torch.zeros(self.width))
                continue
            number, mean = voice.number, voice.mean
            if draw is not None and voice.rows is not None:
                number = int(torch.randint(1, len(voice.rows) + 1, (), generator=draw))
                chosen = torch.randperm(len(voice.rows), generator=draw)[:number]
                mean = voice.rows[chosen].mean(0)
            found.append(number / (number + tau) * (mean - mu))
        return torch.stack(found).to(self.location.device)

    def _voice_of(self, name: str) -> _Voice | None:
        """Return what was measured of the speaker of an utterance; None if it is unknown."""
        if name and name not in self._voices and not self._strangers_told:
            self._strangers_told = True
            tell(
                f"data.normalise={self.way}: the speaker of {name} was not enrolled, so it uses "
                "the training mean; call enrol() of the module with all utterances first"
            )
        return self._voices.get(name)

    def forward(
        self, hidden: Tensor, mask: Tensor, vectors: Tensor | None, offsets: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return features ``[B, K, T, D]`` and vectors ``[B, F]`` minus their offsets, float32.

        Args:
            hidden: ``[B, K, T, D]``; zero where the mask is False, and so is the result.
            mask: ``[B, T]``.
            vectors: ``[B, F]``, or None.
            offsets: ``[B, W]`` of :meth:`offsets`.
        """
        layers, width = self.shape
        common = offsets[:, : layers * width].view(-1, layers, 1, width)
        moved = (hidden.float() - common).masked_fill(~mask[:, None, :, None], 0.0)
        return moved, None if vectors is None else vectors.float() - offsets[:, layers * width :]
