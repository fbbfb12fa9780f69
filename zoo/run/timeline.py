"""Timelines of recordings: figures of the probabilities over time, and TextGrids for Praat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ConfigError, cut
from ..core.files import check_place, new_file
from ..core.notices import shown
from .recordings import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .predictions import Row

IMAGES = (".png", ".pdf", ".svg")
MOST_PANELS = 20
Lengths = dict[tuple[str, int | None], float]
"""Seconds of each recording, by its name and channel."""
Channels = list[list["Row"]]
"""Rows of a recording, for each of its channels."""


class _Files:
    """Where timelines go: one file, or a folder with a file for each recording.

    Args:
        path: a name with one of the endings; without an ending, a folder.
        option: name of the option, for messages.
        endings: endings of the name. The first one is that of the files in a folder.

    Raises:
        ConfigError: if the path has another ending.
    """

    def __init__(self, path: str | Path, option: str, endings: Sequence[str]) -> None:
        self.path, self.ending = Path(path), endings[0]
        self.folder = self.path.is_dir() or not self.path.suffix
        if not self.folder and self.path.suffix.lower() not in map(str.lower, endings):
            raise ConfigError(
                f"{option} is '{path}'; give a name that ends in {', '.join(endings)}, or a folder"
            )
        check_place(self.path / f"1{self.ending}" if self.folder else self.path)

    def places(self, recordings: Sequence[Channels]) -> Iterator[tuple[Path, Channels]]:
        """Yield a file of the folder for each recording that has a prediction."""
        self.path.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for channels in recordings:
            if all(row.error is not None for rows in channels for row in rows):
                continue  # there is nothing to show; the table holds the error
            stem = re.sub(r"[^\w.-]+", "_", Path(channels[0][0].file).stem) or "recording"
            name, n = stem, 1
            while name.lower() in taken:  # files of different folders may have one name
                n += 1
                name = f"{stem}-{n}"
            taken.add(name.lower())
            yield self.path / f"{name}{self.ending}", channels


class Plots(_Files):
    """Draw timelines: one figure with a panel per recording, or a folder of figures.

    Args:
        path: a name that ends in .png, .pdf or .svg; without an ending, a folder.
        found: the recordings that will be predicted.

    Raises:
        ConfigError: if the path has another ending, or a figure would have too many panels.
    """

    def __init__(self, path: str | Path, found: Sequence[Recording]) -> None:
        super().__init__(path, "plot", IMAGES)
        if not self.folder and len(found) > MOST_PANELS:
            raise ConfigError(
                f"{len(found)} recordings do not fit one figure of {MOST_PANELS} panels; give "
                "plot a folder, which gets a figure for each"
            )

    def write(
        self, rows: Sequence[Row], classes: Sequence[str], lengths: Lengths | None = None
    ) -> list[Path]:
        """Draw the rows of all recordings, and return the written file or folder."""
        recordings = _grouped(rows)
        if not self.folder:
            panels = [panel for channels in recordings for panel in channels]
            _save(timeline_figure(panels, classes), self.path)
            return [self.path]
        for place, channels in self.places(recordings):
            _save(timeline_figure(channels, classes), place)
        return [self.path]


class TextGrids(_Files):
    """Write timelines for Praat: one file for one recording, or a folder of files.

    Args:
        path: a name that ends in .TextGrid; without an ending, a folder.
        found: the recordings that will be predicted.

    Raises:
        ConfigError: if the path has another ending, or is one file for several recordings.
    """

    def __init__(self, path: str | Path, found: Sequence[Recording]) -> None:
        super().__init__(path, "textgrid", (".TextGrid",))
        number = sum(not r.apart or r.channel == 1 for r in found)
        if not self.folder and number > 1:
            raise ConfigError(
                f"{number} recordings do not fit one TextGrid; give textgrid a folder, which gets "
                "a file for each"
            )

    def write(self, rows: Sequence[Row], classes: Sequence[str], lengths: Lengths) -> list[Path]:
        """Write the rows of all recordings, and return the written file or folder."""
        recordings = _grouped(rows)
        if not self.folder:
            _write(self.path, textgrid(recordings[0], lengths))
            return [self.path]
        for place, channels in self.places(recordings):
            _write(place, textgrid(channels, lengths))
        return [self.path]


def _save(figure: Figure, path: Path) -> None:
    with new_file(path) as draft:
        figure.savefig(draft, dpi=120, format=path.suffix[1:].lower())


def _write(path: Path, text: str) -> None:
    with new_file(path) as draft:
        draft.write_text(text, "utf-8")


def _grouped(rows: Sequence[Row]) -> list[Channels]:
    """Group rows by recording and channel. The rows of a channel are in the order of time."""
    groups: list[list[Row]] = []
    last: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        group = last.get((row.file, row.channel))
        if group and not _ends(group[-1]) and _start(row) > _start(group[-1]):
            group.append(row)
        else:  # a file may be there twice
            last[row.file, row.channel] = [row]
            groups.append(last[row.file, row.channel])
    found: list[Channels] = []
    for group in groups:
        before = found[-1][-1][0] if found else None
        if before and before.file == group[0].file and _number(before) < _number(group[0]):
            found[-1].append(group)
        else:
            found.append([group])
    return found


def _number(row: Row) -> int:
    return row.channel or 0


# TextGrids.


@dataclass(frozen=True)
class Span:
    """A stretch of a recording with one label.

    Attributes:
        start: seconds into the recording.
        end: seconds into it.
        label: the likeliest class.
        prob: its mean probability.
    """

    start: float
    end: float
    label: str
    prob: float


def spans(rows: Sequence[Row]) -> list[Span]:
    """Return a timeline without overlap: at each moment the class of the windows that cover it.

    At a moment the probabilities are the mean over all windows that cover it. Stretches that touch
    and have one label are joined.

    Args:
        rows: windows of one recording, in the order of time; rows with an error are left out.
    """
    windows = [row for row in rows if row.error is None]
    edges = sorted({round(t, 6) for row in windows for t in (_start(row), _end(row))})
    found: list[Span] = []
    first = 0
    for start, end in pairwise(edges):
        while first < len(windows) and _end(windows[first]) <= start + 1e-6:
            first += 1
        covering = []
        for row in windows[first:]:
            if _start(row) > start + 1e-6:
                break
            if _end(row) > start + 1e-6:
                covering.append(row)
        if not covering:
            continue
        classes = list(covering[0].probs)
        mean = np.mean([list(row.probs.values()) for row in covering], axis=0)
        label, prob = classes[int(mean.argmax())], float(mean.max())
        if found and found[-1].label == label and found[-1].end == start:
            before = found.pop()
            long, short = before.end - before.start, end - start
            prob = (before.prob * long + prob * short) / (long + short)
            start = before.start
        found.append(Span(start, end, label, prob))
    return found


def textgrid(channels: Channels, lengths: Lengths) -> str:
    """Return a recording as a TextGrid, Praat's long text format.

    Each channel has a tier of labels and a tier of their probabilities (:func:`spans`). An interval
    without text was not scored: nobody speaks there, it is silent, or it could not be read.

    Args:
        channels: rows of each channel.
        lengths: seconds of each recording.
    """
    last = [_end(row) for rows in channels for row in rows]
    last += [lengths.get((rows[0].file, rows[0].channel), 0.0) for rows in channels]
    length = max(last) or 1e-3  # Praat refuses a length of 0
    tiers: list[tuple[str, list[tuple[float, float, str]]]] = []
    for rows in channels:
        found = spans(rows)
        name = "" if rows[0].channel is None else f"channel {rows[0].channel} "
        labels = [(s.start, s.end, s.label) for s in found]
        probs = [(s.start, s.end, f"{s.prob:.2f}") for s in found]
        tiers += [(f"{name}emotion", labels), (f"{name}probability", probs)]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0"]
    lines += [f"xmax = {length:.6f}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for i, (name, intervals) in enumerate(tiers, 1):
        filled = _without_gaps(intervals, length)
        lines += [f"    item [{i}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {length:.6f}"]
        lines += [f"        intervals: size = {len(filled)}"]
        for k, (start, end, text) in enumerate(filled, 1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{k}]:", f"            xmin = {start:.6f}"]
            lines += [f"            xmax = {end:.6f}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


def _without_gaps(
    intervals: Sequence[tuple[float, float, str]], length: float
) -> list[tuple[float, float, str]]:
    """Return intervals with empty ones between them, from 0 to the length, as Praat needs them."""
    found: list[tuple[float, float, str]] = []
    at = 0.0
    for start, end, text in intervals:
        if start - at > 1e-6:
            found.append((at, start, ""))
        found.append((start, end, text))
        at = end
    if length - at > 1e-6 or not found:
        found.append((at, length, ""))
    return found


# Figures.


def timeline_figure(recordings: Sequence[Sequence[Row]], classes: Sequence[str]) -> Figure:
    """Return a figure with a panel per recording: a line per class, and a point per window.

    A point is in the middle of its window. Lines go to the borders of the outer windows, and are
    broken between windows that do not touch.
    """
    from matplotlib.figure import Figure  # pyplot would need global state and a display

    n = len(recordings)
    figure = Figure(figsize=(10, 0.9 + 2.1 * n), layout="constrained")
    panels = figure.subplots(n, 1, squeeze=False)[:, 0]
    for axes, rows in zip(panels, recordings, strict=True):
        _timeline_panel(axes, rows, classes)
    panels[-1].set_xlabel("seconds")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _timeline_panel(axes: Any, rows: Sequence[Row], classes: Sequence[str]) -> None:
    from matplotlib import colormaps

    colours = colormaps["tab10" if len(classes) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    windows = [row for row in rows if row.error is None]
    runs: list[list[Row]] = []
    for row in windows:
        if runs and _start(row) <= _end(runs[-1][-1]):
            runs[-1].append(row)
        else:
            runs.append([row])
    for k, name in enumerate(classes):
        colour = colours[k % len(colours)]
        axes.plot([], [], color=colour, label=name)
        for run in runs:
            middle = [(_start(row) + _end(row)) / 2 for row in run]
            p = [row.probs[name] for row in run]
            times = [_start(run[0]), *middle, _end(run[-1])]
            axes.plot(times, [p[0], *p, p[-1]], color=colour, linewidth=1.4)
            axes.plot(middle, p, ".", color=colour, markersize=5)
    for run in runs[1:]:  # grey between stretches of speech
        before = max(_end(row) for row in windows if _start(row) < _start(run[0]))
        axes.axvspan(before, _start(run[0]), color="0.93", zorder=0, linewidth=0)
    # a silent stretch needs no text if other stretches show that it is a gap
    broken = [row for row in rows if row.error is not None and (_ends(row) or not windows)]
    errors = [shown(str(row.error)) for row in broken]
    file = shown(rows[0].file)
    file += "" if rows[0].channel is None else f", channel {rows[0].channel}"
    axes.set_title(cut(file, 90, keep_end=True), fontsize=9, loc="left", parse_math=False)
    if errors:
        axes.text(
            0.5,
            0.5,
            cut(errors[0], 120),
            transform=axes.transAxes,
            ha="center",
            fontsize=8,
            color="0.3",
            parse_math=False,
        )
    axes.set_ylim(-0.02, 1.02)
    if windows:
        axes.set_xlim(0, max(_end(row) for row in windows))
    else:
        axes.set_xticks([])
    axes.set_ylabel("probability")
    axes.grid(alpha=0.3)


def _ends(row: Row) -> bool:
    """Return whether this row is an error that ends the recording; silence does not end it."""
    return row.error is not None and row.end is None


def _start(row: Row) -> float:
    return row.start or 0.0


def _end(row: Row) -> float:
    return row.end or 0.0
