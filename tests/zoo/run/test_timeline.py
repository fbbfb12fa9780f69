"""Figures of timelines: lines, gaps, panels, names of files."""

import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.predictions import Row
from serzoo.zoo.run.recordings import Recording
from serzoo.zoo.run.timeline import Plots, timeline_figure

CLASSES = ["calm", "angry"]


def row(file, start, end, p):
    return Row(file, start, end, "calm", {"calm": p, "angry": 1 - p})


def recording(name):
    return Recording(name, lambda: iter(()))


def lines(axes, name):
    """x and y of the drawn lines of a class, without markers and legend."""
    colour = next(line.get_color() for line in axes.lines if line.get_label() == name)
    return [
        (np.round(line.get_xdata(), 6).tolist(), np.round(line.get_ydata(), 6).tolist())
        for line in axes.lines
        if line.get_color() == colour and line.get_linestyle() != "None" and len(line.get_xdata())
    ]


def test_a_line_goes_through_the_middle_of_windows_and_out_to_the_borders():
    rows = [row("a", 0, 2, 0.1), row("a", 1, 3, 0.4), row("a", 2.5, 4.5, 0.9)]
    (axes,) = timeline_figure([rows], CLASSES).axes
    assert lines(axes, "calm") == [([0, 1, 2, 3.5, 4.5], [0.1, 0.1, 0.4, 0.9, 0.9])]
    assert lines(axes, "angry") == [([0, 1, 2, 3.5, 4.5], [0.9, 0.9, 0.6, 0.1, 0.1])]
    assert axes.get_xlim() == (0, 4.5)
    assert axes.get_title(loc="left") == "a"


def test_lines_break_where_nobody_speaks():
    rows = [row("a", 1, 2, 0.1), row("a", 1.5, 2.5, 0.3), row("a", 4, 5, 0.7)]
    (axes,) = timeline_figure([rows], CLASSES).axes
    assert lines(axes, "calm") == [
        ([1, 1.5, 2, 2.5], [0.1, 0.1, 0.3, 0.3]),
        ([4, 4.5, 5], [0.7] * 3),
    ]
    (gap,) = axes.patches
    assert (gap.get_x(), gap.get_x() + gap.get_width()) == (2.5, 4)


def test_one_panel_per_recording_also_for_one_that_failed(tmp_path):
    names = ["x/a.wav", "b.wav", "x/a.wav", "y/a.wav"]
    found = [recording(n) for n in names]
    rows = [
        row("x/a.wav", 0, 2, 0.1),
        row("x/a.wav", 1, 3, 0.2),
        Row("b.wav", error="b.wav: no such file"),
        row("x/a.wav", 0, 2, 0.1),  # the same file again
        row("y/a.wav", 0, 2, 0.5),
        Row("y/a.wav", start=2.0, error="damaged"),
    ]
    image = tmp_path / "new" / "all.png"
    assert Plots(image, found).write(rows, CLASSES) == [image]
    assert image.read_bytes().startswith(b"\x89PNG")
    folder = tmp_path / "each"
    assert Plots(folder, found).write(rows, CLASSES) == [folder]
    assert sorted(p.name for p in folder.iterdir()) == ["a-2.png", "a-3.png", "a.png"]


def test_where_plots_may_go(tmp_path):
    with pytest.raises(ConfigError, match=says("'a.txt'", ".png, .pdf, .svg")):
        Plots("a.txt", [recording("a")])
    with pytest.raises(ConfigError, match=says(21, 20, "plot")):
        Plots("a.png", [recording("a")] * 21)
    (tmp_path / "dotted.d").mkdir()
    assert Plots(tmp_path / "dotted.d", [recording("a")] * 21).folder


@pytest.mark.parametrize("name", ["\udcfcber.wav", "a$\\frac$.wav"])
def test_any_name_can_be_drawn(tmp_path, name):
    rows = [row(name, 0, 2, 0.1), Row(name, start=2.0, error=f"{name}: damaged")]
    image = tmp_path / "all.png"
    assert Plots(image, [recording(name)]).write(rows, CLASSES) == [image]
    (made,) = Plots(tmp_path / "each", [recording(name)]).write(rows, CLASSES)
    assert len(list(made.glob("*.png"))) == 1
