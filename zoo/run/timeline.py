"""Figures of timelines: the probability of each class over the time of a recording."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, cut
from ..core.files import check_place, new_file
from ..core.notices import shown
from .predictions import Row
from .recordings import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = (".png", ".pdf", ".svg")
MOST_PANELS = 20


class Plots:
    """Draw timelines: one figure with a panel per recording, or a folder of figures.

    Args:
        path: a name that ends in .png, .pdf or .svg; without an ending, a folder.
        found: the recordings that will be predicted.

    Raises:
        ConfigError: if the path has another ending, or a figure would have too many panels.
    """

    def __init__(self, path: str | Path, found: Sequence[Recording]) -> None:
        self.path = Path(path)
        self.folder = self.path.is_dir() or not self.path.suffix
        if not self.folder and self.path.suffix.lower() not in IMAGES:
            raise ConfigError(
                f"plot is '{path}'; give a name that ends in {', '.join(IMAGES)}, or a folder"
            )
        if not self.folder and len(found) > MOST_PANELS:
            raise ConfigError(
                f"{len(found)} recordings do not fit one figure of {MOST_PANELS} panels; give "
                "plot a folder, which gets a figure for each"
            )
        check_place(self.path / "1.png" if self.folder else self.path)

    def write(self, rows: Sequence[Row], classes: Sequence[str]) -> list[Path]:
        """Draw the rows of all recordings, and return the written file or folder."""
        recordings = _grouped(rows)
        if not self.folder:
            _save(timeline_figure(recordings, classes), self.path)
            return [self.path]
        self.path.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for group in recordings:
            if all(row.error is not None for row in group):
                continue  # nothing to draw; the table holds the error
            stem = re.sub(r"[^\w.-]+", "_", Path(group[0].file).stem) or "recording"
            name, n = stem, 1
            while name.lower() in taken:  # files of different folders may have one name
                n += 1
                name = f"{stem}-{n}"
            taken.add(name.lower())
            _save(timeline_figure([group], classes), self.path / f"{name}.png")
        return [self.path]


def _save(figure: Figure, path: Path) -> None:
    with new_file(path) as draft:
        figure.savefig(draft, dpi=120, format=path.suffix[1:].lower())


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows by recording. The rows of a recording come together, in the order of time."""
    groups: list[list[Row]] = []
    for row in rows:
        before = groups[-1][-1] if groups else None
        same = before is not None and before.file == row.file and not _ends(before)
        if same and before is not None and (row.start or 0.0) > (before.start or 0.0):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


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
