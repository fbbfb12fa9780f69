"""Timelines: lines, gaps, panels and names of figures; spans and TextGrids."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.predictions import Row
from serzoo.zoo.run.recordings import Recording
from serzoo.zoo.run.timeline import (
    Plots,
    Span,
    TextGrids,
    _grouped,
    spans,
    textgrid,
    timeline_figure,
)

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


def test_channels_of_a_recording_share_a_figure(tmp_path):
    rows = [replace(row("a.wav", t, t + 2, 0.1), channel=c) for c in (1, 2) for t in (0, 1)]
    found = [Recording("a.wav", lambda: iter(()), channel=c, apart=True) for c in (1, 2)]
    (folder,) = Plots(tmp_path / "each", found).write(rows, CLASSES)
    assert [p.name for p in folder.iterdir()] == ["a.png"]
    titles = [a.get_title(loc="left") for a in timeline_figure(_grouped(rows)[0], CLASSES).axes]
    assert titles == ["a.wav, channel 1", "a.wav, channel 2"]


def test_channels_that_take_turns_are_told_apart():
    rows = [replace(row("-", t, t + 2, 0.1), channel=c) for t in (0, 1, 2) for c in (1, 2)]
    (channels,) = _grouped(rows)
    assert [[r.start for r in c] for c in channels] == [[0, 1, 2]] * 2


# Spans and TextGrids.


def test_each_moment_has_the_class_of_the_windows_that_cover_it():
    rows = [row("a", 0, 2, 0.9), row("a", 1, 3, 0.2), row("a", 4, 5, 0.4)]
    rows.insert(2, Row("a", start=3.0, end=4.0, error="silent"))
    found = spans(rows)
    want = [(0, 2, "calm", (0.9 + 0.55) / 2), (2, 3, "angry", 0.8), (4, 5, "angry", 0.6)]
    assert [(s.start, s.end, s.label) for s in found] == [w[:3] for w in want]
    assert [s.prob for s in found] == pytest.approx([w[3] for w in want])
    assert spans([]) == []


def test_spans_are_the_means_of_all_moments():
    rng = np.random.default_rng(0)
    rows = [row("a", t / 4, t / 4 + 1, p) for t, p in enumerate(rng.uniform(size=40))]
    found = spans(rows)
    for moment in np.arange(0.01, 10.7, 0.05):
        calm = np.mean([r.probs["calm"] for r in rows if r.start <= moment < r.end])
        (span,) = (s for s in found if s.start <= moment < s.end)
        assert span.label == ("calm" if calm > 0.5 else "angry")
    assert all(a.label != b.label for a, b in pairwise(found))


def test_a_textgrid_is_what_other_tools_read(tmp_path):
    praatio = pytest.importorskip("praatio.textgrid")
    left = [
        replace(row("c.wav", 1, 3, 0.9), channel=1),
        replace(row("c.wav", 3, 5, 0.2), channel=1),
    ]
    right = [Row("c.wav", error="channel 2 of c.wav is silent", channel=2)]
    found = [Recording("c.wav", lambda: iter(()), channel=c, apart=True) for c in (1, 2)]
    lengths = {("c.wav", 1): 6.5, ("c.wav", 2): 6.5}
    path = tmp_path / "c.TextGrid"
    assert TextGrids(path, found).write([*left, *right], CLASSES, lengths) == [path]
    grid = praatio.openTextgrid(str(path), includeEmptyIntervals=True)
    names = [f"channel {c} {what}" for c in (1, 2) for what in ("emotion", "probability")]
    assert list(grid.tierNames) == names
    tiers = [[tuple(e) for e in grid.getTier(name).entries] for name in names]
    assert tiers[0] == [(0, 1, ""), (1, 3, "calm"), (3, 5, "angry"), (5, 6.5, "")]
    assert [e[2] for e in tiers[1]] == ["", "0.90", "0.80", ""]
    assert tiers[2] == tiers[3] == [(0, 6.5, "")]
    assert grid.maxTimestamp == 6.5


def test_quotes_in_a_textgrid_are_doubled():
    rows = [Row("a", 0.0, 1.0, 'a "b"', {'a "b"': 1.0})]
    assert 'text = "a ""b"""' in textgrid([rows], {})
    assert spans(rows) == [Span(0.0, 1.0, 'a "b"', 1.0)]


def test_where_textgrids_may_go(tmp_path):
    with pytest.raises(ConfigError, match=says("'a.grid'", ".TextGrid")):
        TextGrids("a.grid", [recording("a")])
    with pytest.raises(ConfigError, match=says(2, "textgrid", "folder")):
        TextGrids("a.TextGrid", [recording("a"), recording("b")])
    rows = [row("a.wav", 0, 2, 0.1), row("b.wav", 0, 2, 0.1), Row("c.wav", error="damaged")]
    (folder,) = TextGrids(tmp_path / "all", [recording("a"), recording("b")]).write(
        rows, CLASSES, {}
    )
    assert sorted(p.name for p in folder.iterdir()) == ["a.TextGrid", "b.TextGrid"]
