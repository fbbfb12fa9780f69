"""Figures show the numbers that they were given."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from serzoo.zoo.core.table import Table
from serzoo.zoo.plots import (
    cost_figure,
    curve_figure,
    difference_figure,
    heat_figure,
    reliability_figure,
    risk_coverage_figure,
    verdict_figure,
)
from serzoo.zoo.report.page import draw
from serzoo.zoo.statistics.confidence import risk_coverage
from serzoo.zoo.statistics.table import PredictionTable


def table() -> PredictionTable:
    """Four answers: two at 0.9 (one right), two at 0.6 (both right)."""
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    scores = np.log(np.stack([sure, 1 - sure], 1))
    return PredictionTable(list("abcd"), ["s"] * 4, np.array([0, 1, 0, 0]), scores, ["x", "y"])


def test_reliability_is_share_right_at_mean_confidence() -> None:
    figure = reliability_figure({"h": (table(), table())})
    _, before, after = figure.axes[0].lines
    for line in (before, after):
        np.testing.assert_allclose(line.get_xdata(), [0.6, 0.9], atol=1e-5)
        np.testing.assert_allclose(line.get_ydata(), [1.0, 0.5])


def test_risk_coverage_is_drawn_as_computed() -> None:
    curve = risk_coverage(table())
    (line,) = risk_coverage_figure({"h": curve}).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), curve.risk)
    # of the surest half, one of two is wrong: in either order
    np.testing.assert_allclose(curve.risk, [0.5, 0.5, 1 / 3, 1 / 4])


def test_differences_have_their_intervals_or_none() -> None:
    points = {"a": (0.0, 0.1, -0.1, 0.3), "b": (0.0, -0.2, None, None)}
    zero, bar, *dots = difference_figure(points, "t", "base").axes[0].lines
    assert list(zero.get_xdata()) == [0, 0]
    assert list(bar.get_xdata()) == [-0.1, 0.3]
    assert [(d.get_xdata()[0], d.get_ydata()[0]) for d in dots] == [(0.1, 0), (-0.2, 1)]


def test_curves_are_in_the_order_of_their_amounts() -> None:
    points = [(4.0, 0.5, 0.4, 0.6), (0.0, 0.2, None, None), (1.0, 0.3, 0.2, 0.4)]
    (line,) = curve_figure({"h": points}, "shots").axes[0].lines
    assert list(line.get_xdata()) == [0, 1, 4]
    assert list(line.get_ydata()) == [0.2, 0.3, 0.5]


@pytest.mark.parametrize(("most", "scale"), [(7.0, "linear"), (8.0, "symlog")])
def test_amounts_that_are_doubled_stand_in_even_steps(most: float, scale: str) -> None:
    points = [(x, 0.5, None, None) for x in (0.0, 1.0, most)]
    axes = curve_figure({"h": points}, "shots").axes[0]
    assert axes.get_xscale() == scale
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", f"{most:g}"]
    if scale == "symlog":
        none, one, all_of_them = axes.transData.transform([(x, 0) for x in (0, 1, most)])[:, 0]
        assert one - none == pytest.approx((all_of_them - one) / 3)


@pytest.mark.parametrize(("dear", "scale"), [(9.0, "linear"), (10.0, "log")])
def test_the_axis_of_a_cost_is_logarithmic_from_ten_times_on(dear: float, scale: str) -> None:
    heads = {"a": (1.0, 0.5, 0.4, 0.6), "b": (dear, 0.6, None, None)}
    assert cost_figure({"seconds": heads}).axes[0].get_xscale() == scale


def test_a_map_leaves_empty_what_is_not_known() -> None:
    figure = heat_figure(np.array([[0.25, np.nan]]), ["a"], ["b", "c"], "t", ("from", "to"))
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.25"]


def test_a_drawing_takes_its_ink_from_the_page() -> None:
    plot = difference_figure({"a": (0, 0.1, 0, 0.2)}, "t", "b")
    figure = draw(plot, 'says "5 < 6"', Table("", ("head",), [["a"]]), name="x y")
    assert base64.b64decode(figure.csv.partition(",")[2]) == b"head\na\n"
    assert figure.svg.startswith("<svg ")
    assert 'aria-label="says &quot;5 &lt; 6&quot;"' in figure.svg
    assert "#000000" not in figure.svg
    assert "currentColor" in figure.svg
    assert 'id="x-y.' in figure.svg
    assert "<metadata" not in figure.svg
    assert "DOCTYPE" not in figure.svg


def test_verdicts_are_told_by_colour_and_mark_and_the_margin_is_a_band() -> None:
    tables = {
        "one": {"a": ("better", (0, 0.1, 0.05, 0.15)), "b": ("undecided", (0, -0.01, None, None))},
        "two": {"a": ("better", (0, 0.2, 0.1, 0.3))},
    }
    figure = verdict_figure(tables, "base", margin=0.03)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "a"]
    assert [t.get_text() for t in axes.texts] == ["one", "two"]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["better", "undecided"]
    marks = {line.get_marker() for line in axes.lines} - {"None", None, "none", ""}
    assert marks == {"^", "o"}
    assert axes.patches[0].get_x() == -0.03
    assert "base" in axes.get_xlabel()
