"""Predict recordings of any length, rate and format with a trained model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...datamodules.audio import SILENCE
from ...datamodules.sampler import pack
from ..core.errors import ConfigError, DataError, system_error
from ..core.files import new_file
from ..core.head import Head
from ..core.notices import shown
from ..core.progress import Bar
from ..core.types import SAMPLE_RATE, Batch, Targets
from ..statistics.rates import log_softmax
from .config import DataConfig
from .devices import first_device
from .module import SERModule
from .predictions import Columns, Predictions, Row, suffix_of
from .recordings import Recording, Samples, recordings
from .timeline import Plots
from .voice import detector

# Windows: a recording is cut while it is read, and memory holds one window.


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


READ_AHEAD = 600.0
"""Seconds of windows that are read before they are sorted by length and scored (our choice)."""

BATCH_SECONDS, BATCH_SIZE = 160.0, 32
"""Padded seconds and windows in a batch at most: as in training."""

Clip = tuple[float, float, Samples]
Piece = Clip | Row  # a window to score; or an error in its place


@dataclass(frozen=True)
class _Job:
    """One module, and how it is to be used."""

    module: SERModule
    windows: Windows
    voice: str
    batch_seconds: float

    @property
    def columns(self) -> Columns:
        head = self.module.head
        return Columns(head.taxonomy.classes, type(head).write is not Head.write)


def predict(
    model: SERModule | str | Path,
    inputs: Any,
    *,
    rate: int = SAMPLE_RATE,
    window: float | None = None,
    hop: float | None = None,
    voice: str = "none",
    channel: str | int | None = None,
    batch_seconds: float = BATCH_SECONDS,
    progress: bool = False,
) -> Predictions:
    """Label and probabilities of recordings, one row per window.

    A recording that fits one window is one row. A longer one is a timeline of overlapping windows;
    the last one ends with the recording. What cannot be read, is silent, or has channels that
    cancel gets a row with an error, and the rest goes on; so does a silent stretch of a recording
    that is not silent, since a label of silence would be made up. A row does not depend on what
    else is predicted.

    Args:
        model: a module, or what :func:`serzoo.zoo.load` takes. A module stays on its device and
            keeps its mode; a loaded one goes to the GPU if there is one.
        inputs: one or several of: path, folder, pattern, array or tensor of shape ``[S]`` or
            ``[channels, S]``.
        rate: of arrays, in Hz.
        window: seconds; by default, and at most, the length that training utterances were cut to.
        hop: seconds between windows; half a window by default.
        voice: ``energy`` or ``silero``: windows cover speech only, each stretch of it on its own;
            ``none``: everything.
        channel: of recordings with several: ``mean`` of all (default), ``first``, or a number
            counted from 1.
        batch_seconds: padded seconds of audio in a batch at most.
        progress: show a bar, on standard error.

    Returns:
        The rows, in the order of the inputs.

    Raises:
        ConfigError: when the arguments do not go together, or the head needs a transcript.
    """
    found = recordings(inputs, rate, channel)
    job = _job(_module(model), window, hop, voice, batch_seconds)
    return Predictions(_rows(job, found, progress), job.columns)


def predict_files(
    model: str | Path,
    inputs: list[str],
    *,
    out: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    voice: str = "none",
    channel: str | int | None = None,
    batch_seconds: float = BATCH_SECONDS,
    plot: str | None = None,
) -> int:
    """``serzoo predict``: rows to a file or standard output as they get ready, errors to stderr.

    A file appears, or is replaced, when all rows are in it. When something stops it before, the
    rows that were ready stay beside it, in a file that ends in ``.part``.

    Returns:
        0; 1 when something could not be predicted, 2 when nothing could.
    """
    suffix = suffix_of(out)
    found = recordings(inputs, channel=channel)
    plots = Plots(plot, found) if plot else None
    job = _job(_module(model), window, hop, voice, batch_seconds)
    target = Path(out) if out else None
    # on a terminal the rows themselves are the progress
    bar = sys.stderr.isatty() and (target is not None or not sys.stdout.isatty())
    kept: list[Row] = []
    good = bad = 0
    with _written(target) as file:
        for row in job.columns.write(_rows(job, found, bar), file, suffix):
            if plots:
                kept.append(row)
            good, bad = good + (row.error is None), bad + (row.error is not None)
            if row.error is not None:
                print(f"serzoo predict: {shown(row.error)}", file=sys.stderr)
    wrote = [str(target)] if target else []
    if plots and good:
        wrote += [str(path) for path in plots.write(kept, job.columns.classes)]
    calibrated = "calibrated" if job.module.temperature is not None else "not calibrated"
    note = f"{len(found)} recordings, {good} windows, {bad} errors; probabilities {calibrated}"
    print("; ".join([note, *(f"wrote {path}" for path in wrote)]), file=sys.stderr)
    return 0 if not bad else 1 if good else 2


@contextmanager
def _written(target: Path | None) -> Iterator[Any]:
    """Standard output; or a file that appears when all rows are in it."""
    if target is None:
        yield sys.stdout
        return
    with new_file(target, keep=True) as draft, draft.open("w", encoding="utf-8", newline="") as f:
        yield f


def _module(model: SERModule | str | Path) -> SERModule:
    if isinstance(model, SERModule):
        return model
    module = SERModule.load_from_checkpoint(model)
    return module.to(first_device())


def _job(
    module: SERModule, window: float | None, hop: float | None, voice: str, batch_seconds: float
) -> _Job:
    if needs := module.head.needs:
        raise ConfigError(
            f"the head {type(module.head).__name__} reads {', '.join(sorted(needs))} besides the "
            "audio, which recordings do not carry; use a head that hears only, or score a manifest "
            "with transcripts with `serzoo eval`"
        )
    if not batch_seconds > 0:
        raise ConfigError(f"batch_seconds is {batch_seconds:g}; give more than 0")
    data = module.metadata.get("config", {}).get("data", {})
    longest = float(data.get("max_seconds", DataConfig.max_seconds))
    return _Job(module, Windows.of(window, hop, longest), voice, batch_seconds)


def _rows(job: _Job, found: list[Recording], progress: bool) -> Iterator[Row]:
    """Rows in the order of the recordings; a bounded stretch of audio is in memory."""
    detect = detector(job.voice)
    ready: list[tuple[Recording, Piece]] = []
    seconds = 0.0
    scored = 0.0
    with Bar("recordings", len(found), shown=progress) as bar:
        for recording in found:
            for piece in _pieces(job, recording, detect):
                ready.append((recording, piece))
                seconds += 0.0 if isinstance(piece, Row) else piece[1] - piece[0]
                if seconds >= READ_AHEAD:
                    yield from _score(job, ready)
                    scored += seconds
                    bar.note(f"{scored:.0f} s of audio")
                    ready, seconds = [], 0.0
            bar.advance()
        yield from _score(job, ready)


def _pieces(job: _Job, recording: Recording, detect: Any) -> Iterator[Piece]:
    """Windows of a recording, and an error in place of what cannot be read or is silent."""
    silence: float = SILENCE
    reached: float | None = None
    silent: Row | None = None
    try:
        segments = detect(recording.pieces()) if detect else None
        if segments == []:
            raise DataError(f"{recording.name}: no speech found (voice={job.voice})")
        for first, samples in job.windows.cut(recording.pieces(), segments):
            start = first / SAMPLE_RATE
            end = start + len(samples) / SAMPLE_RATE
            if np.abs(samples).max(initial=0.0) < silence:
                silent = _silent(recording.name, start if silent is None else silent.start, end)
                continue
            if silent is not None:
                yield silent
                silent = None
            reached = end
            yield start, end, samples.copy()  # not a view that keeps more alive
        if silent is not None:
            yield silent
    except DataError as error:
        yield Row(recording.name, start=reached, error=str(error))
    except OSError as error:  # of this recording; the others go on
        said = str(system_error(error))
        said = said if recording.name in said else f"{recording.name}: {said}"
        yield Row(recording.name, start=reached, error=said)


def _silent(name: str, start: float | None, end: float) -> Row:
    error = f"{name} has nothing to hear from {start:.3f} s to {end:.3f} s: it is silent there"
    return Row(name, start=start, end=end, error=error)


def _score(job: _Job, ready: list[tuple[Recording, Piece]]) -> Iterator[Row]:
    """Rows of these windows, batched by similar length, in the order given."""
    rows = {i: piece for i, (_, piece) in enumerate(ready) if isinstance(piece, Row)}
    clips = {i: piece for i, (_, piece) in enumerate(ready) if not isinstance(piece, Row)}
    seconds = np.zeros(len(ready))
    for i, (start, end, _) in clips.items():
        seconds[i] = end - start
    order = sorted(clips, key=lambda i: seconds[i])
    classes = job.columns.classes
    for batch in pack(order, seconds, BATCH_SIZE, job.batch_seconds):
        probs, texts = _forward(job.module, [clips[i][2] for i in batch])
        for k, i in enumerate(batch):
            name = ready[i][0].name
            if not np.isfinite(probs[k]).all():
                error = f"{name}: the model's scores are not finite; listen to the recording"
                rows[i] = Row(name, start=clips[i][0], end=clips[i][1], error=error)
                continue
            rows[i] = Row(
                name,
                start=clips[i][0],
                end=clips[i][1],
                label=classes[int(probs[k].argmax())],
                probs=dict(zip(classes, probs[k].tolist(), strict=True)),
                calibrated=job.module.temperature is not None,
                text=texts[k] if texts is not None else None,
            )
    for i in range(len(ready)):
        yield rows[i]


def _forward(module: SERModule, waves: list[Samples]) -> tuple[Any, list[str] | None]:
    """``[B, C]`` probabilities, and what the head writes."""
    B, C = len(waves), len(module.head.taxonomy)
    audio = nn.utils.rnn.pad_sequence([torch.from_numpy(w) for w in waves], batch_first=True)
    batch = Batch(
        ids=[""] * B,
        speakers=[""] * B,
        targets=Targets(torch.zeros(B, C), torch.zeros(B)),
        audio=audio,
        lengths=torch.tensor([len(w) for w in waves]),
    )
    # not a table: that refuses what is not finite, and here such a window is one row with an error
    found = module.scored(batch.to(module.device))
    temperature = 1.0 if module.temperature is None else module.temperature
    return np.exp(log_softmax(found.values, temperature)), found.texts
