"""A recording cut into windows while it is read: nothing beyond a window stays in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..types import SAMPLE_RATE

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """How long windows are and how far apart, in samples.

    What fits into one window is one window, as long as it is. What does not is cut every ``hop``;
    the last window ends where the recording ends, and is as long as the others.
    """

    length: int
    hop: int

    @classmethod
    def of(cls, window: float | None, hop: float | None, longest: float) -> Windows:
        """From seconds.

        Args:
            window: None = ``longest``.
            hop: None = half a window.
            longest: what the model was trained on at most.

        Raises:
            ConfigError: when they do not go together.
        """
        length = longest if window is None else window
        step = length / 2 if hop is None else hop
        if not 0 < length <= longest:
            raise ConfigError(
                f"window is {length:g} s; give more than 0 and at most {longest:g} s, to which the "
                "model's training utterances were cut (data.max_seconds)"
            )
        if not 0 < step <= length:
            raise ConfigError(
                f"hop is {step:g} s; give more than 0 and at most the window, {length:g} s: "
                "a larger one would leave gaps"
            )
        return cls(max(1, round(length * SAMPLE_RATE)), max(1, round(step * SAMPLE_RATE)))

    def cut(
        self, pieces: Iterable[Samples], segments: list[tuple[int, int]] | None = None
    ) -> Iterator[tuple[int, Samples]]:
        """Windows of a recording, or of segments of it (in order, not overlapping).

        Yields:
            Its first sample in the recording, and the samples.
        """
        tape = Tape(pieces, self.length)
        if segments is None:
            yield from self._cut(tape, 0, None)
            return
        for start, end in segments:
            yield from self._cut(tape, start, end)

    def _cut(self, tape: Tape, start: int, end: int | None) -> Iterator[tuple[int, Samples]]:
        """Windows from ``start`` to ``end``, or to where the recording ends."""
        at = start
        while True:
            # one sample more tells whether this is the last
            stop = at + self.length + 1
            found = tape.take(at, stop if end is None else min(stop, end))
            if len(found) > self.length:
                yield at, found[: self.length]
                at += self.hop
                continue
            if at == start:
                if len(found):
                    yield at, found
                return
            last = at + len(found)  # after a window that had more behind it
            yield last - self.length, tape.take(last - self.length, last)
            return


class Tape:
    """Samples by position, read once and forwards.

    Args:
        pieces: of the recording, in order.
        back: how many samples before the last position asked for can still be had.
    """

    def __init__(self, pieces: Iterable[Samples], back: int) -> None:
        self.pieces, self.back = iter(pieces), back
        self.start = 0
        self.held: Samples = np.zeros(0, np.float32)

    def take(self, start: int, end: int) -> Samples:
        """Samples ``start`` to ``end``; fewer where the recording ends before."""
        parts, length = [self.held], self.start + len(self.held)
        while length < end and (piece := next(self.pieces, None)) is not None:
            parts.append(piece)
            length += len(piece)
        held = np.concatenate(parts) if len(parts) > 1 else self.held
        drop = min(max(0, start - self.back - self.start), len(held))
        self.held, self.start = held[drop:], self.start + drop
        return self.held[max(0, start - self.start) : max(0, end - self.start)]
