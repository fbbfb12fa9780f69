"""Predict recordings of any length, rate and format with a trained model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...datamodules.audio import SILENCE, Raw
from ...datamodules.features import FeatureStore, pad_hidden, pad_waves
from ...datamodules.sampler import pack
from ...datamodules.store import Row as Stored
from ..core import own
from ..core.encoder import Encoder
from ..core.errors import ConfigError, DataError, counted, some, system_error
from ..core.files import check_place, new_file
from ..core.notices import shown, tell
from ..core.progress import Bar
from ..core.speakers import is_known
from ..core.types import SAMPLE_RATE, Batch, Targets, first_device
from ..statistics.rates import log_softmax
from . import annotate
from .module import SERModule
from .predictions import Columns, Predictions, Row, suffix_of
from .recordings import PIPE, SEPARATE, Recording, Samples, is_pipe, live, recordings
from .schema import DataConfig
from .timeline import Lengths, Plots, TextGrids
from .voice import check_voice, detector


@dataclass(frozen=True)
class Windows:
    """Cut recordings into windows while they are read, so that memory holds one window.

    A recording that fits into one window stays whole. A longer one gets a window every ``hop``. The
    last window ends where the recording ends, and is as long as the others.

    Attributes:
        length: length of a window, in samples.
        hop: distance from one window to the next, in samples.
    """

    length: int
    hop: int

    @classmethod
    def of(cls, window: float | None, hop: float | None, longest: float) -> Windows:
        """Make windows from seconds.

        Args:
            window: length in seconds; None = ``longest``.
            hop: seconds from one window to the next; None = half a window.
            longest: seconds of the longest utterance in training.

        Raises:
            ConfigError: if one is out of range.
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
                "a larger hop would leave gaps"
            )
        return cls(max(1, round(length * SAMPLE_RATE)), max(1, round(step * SAMPLE_RATE)))

    def cut(
        self, pieces: Iterable[Samples], segments: list[tuple[int, int]] | None = None
    ) -> Iterator[tuple[int, Samples]]:
        """Cut a recording, or segments of it.

        Args:
            pieces: the recording's samples, in order.
            segments: first sample and end of each, in order and without overlap; None = the whole
                recording.

        Yields:
            For each window its first sample in the recording, and its samples ``[S]``.
        """
        tape = Tape(pieces, self.length)
        if segments is None:
            yield from self._cut(tape, 0, None)
            return
        for start, end in segments:
            yield from self._cut(tape, start, end)

    def _cut(self, tape: Tape, start: int, end: int | None) -> Iterator[tuple[int, Samples]]:
        """Cut from ``start`` to ``end``; None = the end of the recording."""
        at = start
        while True:
            # one more sample tells whether another window follows
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
            last = at + len(found)  # the rest is shorter than a window
            yield last - self.length, tape.take(last - self.length, last)
            return


class Tape:
    """Samples of a recording by their position; the recording is read once, forwards.

    Args:
        pieces: the recording's samples, in order.
        back: number of samples that are kept before the last position that was asked for.
    """

    def __init__(self, pieces: Iterable[Samples], back: int) -> None:
        self.pieces, self.back = iter(pieces), back
        self.start = 0
        self.held: Samples = np.zeros(0, np.float32)

    def take(self, start: int, end: int) -> Samples:
        """Return the samples ``start`` to ``end``; fewer if the recording ends before."""
        parts, length = [self.held], self.start + len(self.held)
        while length < end and (piece := next(self.pieces, None)) is not None:
            parts.append(piece)
            length += len(piece)
        held = np.concatenate(parts) if len(parts) > 1 else self.held
        drop = min(max(0, start - self.back - self.start), len(held))
        self.held, self.start = held[drop:], self.start + drop
        return self.held[max(0, start - self.start) : max(0, end - self.start)]


READ_AHEAD = 600.0
"""Seconds of audio that are read before its windows are sorted by length (our choice)."""

BATCH_SECONDS, BATCH_SIZE = 160.0, 32
"""Most padded seconds, and most windows, in a batch: as in training."""


@dataclass(frozen=True)
class Clip:
    """A window to score.

    Attributes:
        start: its start in the recording, in seconds.
        end: its end.
        samples: ``[S]`` at 16 kHz.
        stored: the place of its features, if they are stored.
    """

    start: float
    end: float
    samples: Samples
    stored: Stored | None = None


Piece = Clip | Row
"""A window to score, or a row with an error in its place."""


@dataclass(frozen=True)
class _Job:
    """A module, and how it is used."""

    module: SERModule
    windows: Windows
    voice: str
    batch_seconds: float
    store: FeatureStore | None = None
    apart: bool = False
    lengths: Lengths = field(default_factory=dict)

    @property
    def columns(self) -> Columns:
        head = self.module.head
        return Columns(head.taxonomy.classes, head.writes, self.apart)


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
    """Predict labels and probabilities of recordings, one row per window.

    A recording that fits into one window is one row. A longer one is a timeline of overlapping
    windows, whose last one ends with the recording. If a recording cannot be read, is silent or has
    channels that cancel, its row has an error. The others are predicted. A silent stretch of a
    recording is such a row, too, since its label would be made up. No row depends on the other
    recordings, unless the model normalises speakers (``data.normalise``) and a manifest names them.

    Args:
        model: a module, or what :func:`serzoo.zoo.load` takes. A module stays on its device and
            keeps its mode. A loaded one goes to the GPU if there is one.
        inputs: one or several of: path, folder, pattern, manifest of `serzoo prepare`
            (``.jsonl``), array or tensor of shape ``[S]`` or ``[channels, S]``.
        rate: sample rate of arrays, in Hz.
        window: seconds. The default, and the most, is the length that training utterances were cut
            to.
        hop: seconds from one window to the next; half a window by default.
        voice: ``energy`` or ``silero`` find speech, and windows cover each stretch of it;
            ``none`` covers everything.
        channel: the channel that is heard: ``mean`` of all (default), ``first``, or a number
            counted from 1. ``separate`` makes a recording of each, such as each speaker of a call.
        batch_seconds: most padded seconds of audio in a batch.
        progress: show a bar on standard error.

    Returns:
        The rows, in the order of the inputs.

    Raises:
        ConfigError: if an argument is out of range, or the head needs a transcript.
    """
    found = recordings(inputs, rate, channel)
    job = _job(_module(model), window, hop, voice, batch_seconds, channel == SEPARATE)
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
    textgrid: str | None = None,
    rate: int | None = None,
    encoding: str | None = None,
    channels: int | None = None,
    json: bool = False,
    form: str | None = None,
) -> int:
    """Do what ``serzoo predict`` does: write each row when it is ready, and errors to stderr.

    A file appears, or is replaced, when it has all rows. If something stops the work before, the
    rows so far stay beside it, in a file that ends in ``.part``.

    A pipe is read once, as it comes. Each window is a row as soon as it is complete, also if it is
    silent. Memory holds one window of each channel.

    Args:
        model: see :func:`predict`.
        inputs: recordings, folders, patterns and manifests. Or only ``-`` for standard input, or
            a named pipe, with ``rate``.
        out: ``FILE.csv`` or ``FILE.jsonl``; None = CSV on standard output.
        window: as in :func:`predict`.
        hop: as in :func:`predict`.
        voice: as in :func:`predict`.
        channel: as in :func:`predict`.
        batch_seconds: as in :func:`predict`.
        plot: ``FILE.png``, or a folder, for pictures of the probabilities over time.
        textgrid: ``FILE.TextGrid`` for one recording, or a folder.
        rate: samples per second of the raw samples in a pipe; None = the inputs are files.
        encoding: format of the raw samples, a name of :data:`.audio.RAW`; None = ``s16le``.
        channels: number of channels of the raw samples; None = 1.
        json: write JSON lines on standard output, not CSV.
        form: one of :data:`.annotate.FORMATS`, which write ``out`` at the end; None = as ``out``
            ends.

    Returns:
        0; 1 if something could not be predicted; 2 if nothing could.

    Raises:
        ConfigError: as :func:`predict`, and if ``out``, ``plot`` or ``textgrid`` has another
            ending. Also if both ``out`` and ``json`` are given, or a pipe cannot be read so.
    """
    if json and out:
        raise ConfigError(
            f"--json writes rows on standard output, and --out into {out}; give one of them "
            "(--out FILE.jsonl writes the same rows into a file)"
        )
    if json and form not in (None, "jsonl"):
        raise ConfigError(f"--json and --format {form} ask for two forms of the rows; give one")
    other = form if form not in (None, "csv", "jsonl") else None
    if other is not None:
        annotate.check(other, out)
    suffix = ".jsonl" if json or form == "jsonl" else ".csv" if form else suffix_of(out)
    raw = _raw(inputs, rate, encoding, channels, voice)
    found = live(inputs[0], raw, channel) if raw else recordings(inputs, channel=channel)
    drawn: list[Plots | TextGrids] = [Plots(plot, found)] if plot else []
    drawn += [TextGrids(textgrid, found)] if textgrid else []
    job = _job(_module(model), window, hop, voice, batch_seconds, channel == SEPARATE)
    target = Path(out) if out and other is None else None
    if target is not None:
        check_place(target)
    # rows that go to a terminal show the progress themselves
    bar = target is not None or other is not None or not sys.stdout.isatty()
    kept: list[Row] = []
    good = bad = 0
    with _opened(target) if other is None else nullcontext(sys.stdout) as file:
        rows = _rows(job, found, bar)
        for row in rows if other else job.columns.write(rows, file, suffix):
            if drawn or other:
                kept.append(row)
            good, bad = good + (row.error is None), bad + (row.error is not None)
            if row.error is not None:
                print(f"serzoo predict: {shown(row.error)}", file=sys.stderr)
    wrote = [str(target)] if target else []
    if other and good:
        wrote += map(str, annotate.write(other, kept, str(out), job.columns.classes))
    if good:
        wrote += [str(p) for d in drawn for p in d.write(kept, job.columns.classes, job.lengths)]
    calibrated = "calibrated" if job.module.temperature is not None else "not calibrated"
    files = sum(not r.apart or r.channel == 1 for r in found)
    counts = (files, "recording"), (good, "window"), (bad, "error")
    note = f"{', '.join(counted(*c) for c in counts)}; probabilities {calibrated}"
    if job.module.normaliser is not None:
        note += f"; speakers normalised (data.normalise={job.module.normaliser.way})"
    print("; ".join([note, *(f"wrote {path}" for path in wrote)]), file=sys.stderr)
    return 0 if not bad else 1 if good else 2


def _raw(
    inputs: list[str], rate: int | None, encoding: str | None, channels: int | None, voice: str
) -> Raw | None:
    """Return what a pipe holds; None if the inputs are files."""
    if rate is None:
        if encoding is not None or channels is not None:
            raise ConfigError(
                "--encoding and --channels say what raw samples are, and files have a header; "
                "leave them out, or give --rate too and read `-`"
            )
        if "-" in inputs and is_pipe("-"):
            raise ConfigError(
                "raw samples on standard input have no header: give --rate HZ, and --encoding and "
                f"--channels if they are not s16le and 1; {PIPE}"
            )
        return None
    if len(inputs) != 1 or not is_pipe(inputs[0]):
        raise ConfigError(
            f"--rate is for raw samples from a pipe, but the input is {some(inputs, 3)}; give "
            "only `-` (standard input) or a named pipe; for files leave --rate out, since their "
            "header holds the rate"
        )
    if voice != "none":
        raise ConfigError(
            f"voice={voice} needs a whole recording before its first window, but a pipe is read "
            "only once; leave --voice out, or write the sound to a file first"
        )
    return Raw(rate, encoding or "s16le", 1 if channels is None else channels)


@contextmanager
def _opened(target: Path | None) -> Iterator[Any]:
    """Open standard output, or a file that appears when the block ends without an error."""
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
    module: SERModule,
    window: float | None,
    hop: float | None,
    voice: str,
    batch_seconds: float,
    apart: bool,
) -> _Job:
    if needs := module.head.needs:
        raise ConfigError(
            f"the head {type(module.head).__name__} needs {', '.join(sorted(needs))} besides the "
            "audio, and recordings have none; use a head that reads only audio, or score a "
            "manifest that has transcripts with `serzoo eval`"
        )
    check_voice(voice)
    if not batch_seconds > 0:
        raise ConfigError(f"batch_seconds is {batch_seconds:g}; give more than 0")
    longest = longest_window(module)
    windows = Windows.of(window, hop, longest)
    return _Job(module, windows, voice, batch_seconds, _store(module.encoder, longest), apart)


def longest_window(module: SERModule) -> float:
    """Return the seconds to which a model's training utterances were cut."""
    data = module.metadata.get("config", {}).get("data", {})
    return float(data.get("max_seconds", DataConfig.max_seconds))


def _store(encoder: Encoder, longest: float) -> FeatureStore | None:
    """Return the store of an encoder's features; None if there is none, or nothing is in it.

    Vectors beside the frames need the audio, so then nothing is read from the store.
    """
    if not encoder.storable or encoder.utterance is not None:
        return None
    store = FeatureStore(own.extraction_of(encoder), {}, max_seconds=longest)
    store.refresh()
    return store if len(store) else None


def _rows(job: _Job, found: list[Recording], progress: bool) -> Iterator[Row]:
    """Predict in the order of the recordings, with at most READ_AHEAD seconds in memory.

    Streams are predicted in the order of time, each window at once.
    """
    if any(recording.ending for recording in found):
        yield from _live_rows(job, found, progress)
        return
    detect = detector(job.voice)
    _enrol(job, found, detect)
    ready: list[tuple[Recording, Piece]] = []
    seconds = 0.0
    scored = 0.0
    with Bar("recordings", len(found), shown=progress) as bar:
        for recording in found:
            for piece in _pieces(job, recording, detect):
                ready.append((recording, piece))
                seconds += 0.0 if isinstance(piece, Row) else piece.end - piece.start
                if seconds >= READ_AHEAD:
                    yield from _score(job, ready)
                    scored += seconds
                    bar.note(f"{scored:.0f} s of audio")
                    ready, seconds = [], 0.0
            bar.advance()
        yield from _score(job, ready)


def _live_rows(job: _Job, found: list[Recording], progress: bool) -> Iterator[Row]:
    """Predict the channels of a stream in turn, so that none waits for the end of another."""
    _enrol(job, found, None)
    scored = 0.0
    with Bar("streams", len(found), shown=progress) as bar:
        turns = zip_longest(*(_pieces(job, recording, None) for recording in found))
        for pieces in turns:  # a window of each channel, of the same stretch of time
            ready = [(r, p) for r, p in zip(found, pieces, strict=True) if p is not None]
            yield from _score(job, ready)
            scored = max([scored, *(p.end for _, p in ready if p.end is not None)])
            bar.note(f"{scored:.0f} s of audio")
        bar.advance(len(found))


def _enrol(job: _Job, found: list[Recording], detect: Any) -> None:
    """Measure the known speakers, by all windows of their recordings, if the model needs it."""
    normaliser = job.module.normaliser
    if normaliser is None:
        return
    known = [r for r in found if is_known(r.speaker)]
    if left := len(found) - len(known):
        tell(
            f"the model normalises speakers (data.normalise={normaliser.way}), and "
            f"{counted(left, 'recording')} of {len(found)} name no speaker: they use the training "
            "mean. For a speaker's own mean, predict a manifest of `serzoo prepare` that names "
            "the speakers",
            fault=False,
        )
    job.module.enrol(_windows_of(job, known, detect))


def _windows_of(job: _Job, found: list[Recording], detect: Any) -> Iterator[Batch]:
    """Yield the windows of recordings, to measure their speakers; errors come when they score."""
    for recording in found:
        clips = [piece for piece in _pieces(job, recording, detect) if not isinstance(piece, Row)]
        for first in range(0, len(clips), BATCH_SIZE):
            some = clips[first : first + BATCH_SIZE]
            yield _batch(job, [recording] * len(some), some)


def _batch(job: _Job, spoken: list[Recording], clips: list[Clip]) -> Batch:
    """Return windows of recordings as a batch; the id of one with a known speaker is its own."""
    B, C = len(clips), len(job.module.head.taxonomy)
    pairs = list(zip(spoken, clips, strict=True))
    return Batch(
        ids=[f"{r.name}@{c.start:.4f}" if is_known(r.speaker) else "" for r, c in pairs],
        speakers=[r.speaker for r in spoken],
        targets=Targets(torch.zeros(B, C), torch.zeros(B)),
        **_inputs(job, clips),
    )


def _pieces(job: _Job, recording: Recording, detect: Any) -> Iterator[Piece]:
    """Yield the windows of a recording, and a row with an error for what cannot be scored."""
    silence: float = SILENCE
    reached: float | None = None
    silent: Row | None = None
    try:
        segments = detect(_heard(job, recording)) if detect else None
        if segments == []:
            raise DataError(
                f"{recording.name}: no speech found (voice={job.voice}); try voice=none"
            )
        for first, samples in job.windows.cut(_heard(job, recording), segments):
            start = first / SAMPLE_RATE
            end = start + len(samples) / SAMPLE_RATE
            if np.abs(samples).max(initial=0.0) < silence:
                silent = _silent(recording, start if silent is None else silent.start, end)
                if recording.ending:  # who listens to a stream does not wait for sound
                    yield silent
                    silent = None
                continue
            if silent is not None:
                yield silent
                silent = None
            reached = end
            # only the last window is shorter: one that is also the first is the whole recording
            whole = not first and segments is None and len(samples) < job.windows.length
            stored = _stored(job, recording) if whole else None
            yield Clip(start, end, samples.copy(), stored)  # a view would keep the tape in memory
        if silent is not None:
            yield silent
        if recording.ending:
            recording.ending()
    except DataError as error:
        yield _broken(recording, str(error), reached)
    except OSError as error:  # only this recording fails; the others go on
        said = str(system_error(error))
        said = said if recording.name in said else f"{recording.name}: {said}"
        yield _broken(recording, said, reached)


def _heard(job: _Job, recording: Recording) -> Iterator[Samples]:
    """Yield the samples of a recording, and keep its length as far as it was read."""
    key, length = (recording.name, recording.channel), 0
    for piece in recording.pieces():
        length += len(piece)
        job.lengths[key] = max(job.lengths.get(key, 0.0), length / SAMPLE_RATE)
        yield piece


def _broken(recording: Recording, said: str, start: float | None, end: float | None = None) -> Row:
    """Return the row of an error; it says the channel if that is a recording of its own."""
    channel = recording.channel if recording.apart else None
    said = f"channel {channel} of {said}" if channel is not None else said
    return Row(recording.name, start=start, end=end, error=said, channel=channel)


def _stored(job: _Job, recording: Recording) -> Stored | None:
    """Return the place of the stored features of a whole recording; None if they are not stored."""
    if job.store is None or recording.file is None:
        return None
    found = job.store.of_file(recording.file, recording.channel)
    if found is not None:
        try:
            job.store.read(found)  # mapped features stay readable even if the store is removed
        except DataError:  # it was removed just now, so the recording is encoded
            return None
    return found


def _silent(recording: Recording, start: float | None, end: float) -> Row:
    said = f"{recording.name} is silent from {start:.3f} s to {end:.3f} s: no label is given there"
    return _broken(recording, said, start, end)


def _score(job: _Job, ready: list[tuple[Recording, Piece]]) -> Iterator[Row]:
    """Score windows in batches of similar length, and yield the rows in the order given."""
    rows = {i: piece for i, (_, piece) in enumerate(ready) if isinstance(piece, Row)}
    clips = {i: piece for i, (_, piece) in enumerate(ready) if not isinstance(piece, Row)}
    seconds = np.zeros(len(ready))
    for i, clip in clips.items():
        seconds[i] = clip.end - clip.start
    order = sorted(clips, key=lambda i: (clips[i].stored is not None, seconds[i]))
    kept = [i for i in order if clips[i].stored is not None]
    heard = order[: len(order) - len(kept)]
    classes = job.columns.classes
    batches = [
        batch
        for part in (heard, kept)
        for batch in pack(part, seconds, BATCH_SIZE, job.batch_seconds)
    ]
    for batch in batches:
        probs, texts = _forward(job, [ready[i][0] for i in batch], [clips[i] for i in batch])
        for k, i in enumerate(batch):
            recording, clip = ready[i][0], clips[i]
            if not np.isfinite(probs[k]).all():
                name = recording.name
                said = f"{name}: the model's scores are not finite; listen to the recording"
                rows[i] = _broken(recording, said, clip.start, clip.end)
                continue
            rows[i] = Row(
                recording.name,
                start=clip.start,
                end=clip.end,
                label=classes[int(probs[k].argmax())],
                probs=dict(zip(classes, probs[k].tolist(), strict=True)),
                calibrated=job.module.temperature is not None,
                text=texts[k] if texts is not None else None,
                channel=recording.channel if recording.apart else None,
            )
    for i in range(len(ready)):
        yield rows[i]


def _forward(job: _Job, spoken: list[Recording], clips: list[Clip]) -> tuple[Any, list[str] | None]:
    """Return probabilities ``[B, C]``, and the texts of a head that writes.

    Args:
        job: the model.
        spoken: the recording of each window.
        clips: windows whose features are all stored, or all not.
    """
    module, batch = job.module, _batch(job, spoken, clips)
    # a table would refuse scores that are not finite; here such a window is a row with an error
    found = module.scored(batch.to(module.device))
    temperature = 1.0 if module.temperature is None else module.temperature
    return np.exp(log_softmax(found.values, temperature)), found.texts


def _inputs(job: _Job, clips: list[Clip]) -> dict[str, Any]:
    """Return the fields of a batch: stored features, or padded audio."""
    rows = [clip.stored for clip in clips if clip.stored is not None]
    if job.store is not None and rows:
        hidden, mask = pad_hidden([job.store.read(row) for row in rows])
        return {"hidden": hidden, "mask": mask}
    audio, lengths = pad_waves([torch.from_numpy(clip.samples) for clip in clips])
    return {"audio": audio, "lengths": lengths}
