"""The figure of all formulations is drawn from packed suites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import formulations
import pytest
import report_suite
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.report.overview import Adapted


def adapted(shots: int, value: float) -> Adapted:
    return Adapted(
        "classification", "hf", "head" if shots else "none", shots,
        draws=2, metric="uar", value=value, deviation=0.1, lowest=0, highest=1, forgetting=None,
        seconds=1.0, bytes=1, supports=[], short=[],
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> list:
    return formulations.rows(report_suite.write_suite(tmp_path / "s"))


def texts(line) -> list[str]:
    return [getattr(c, "text", c) for c in line]


def test_a_line_of_the_table_is_the_mean_over_corpora(home: list) -> None:
    assert [r.head for r in home] == ["classification"] * 2  # the other head is not shown
    few = [adapted(0, 0.25), adapted(4, 0.5)]
    made = formulations.table(home, home[:1], few)
    assert list(made.columns[1:5]) == [
        "in domain, 2 corpora", "other corpora, 1 pairs", "0 shots", "4 shots"
    ]  # fmt: skip
    (line,) = made.rows
    mean = sum(r.uar.mean for r in home) / 2
    assert texts(line)[1:6] == [
        f"{mean:.3f}", f"{home[0].uar.mean:.3f}", "0.250", "0.500", "1,234"
    ]  # fmt: skip


def test_a_head_that_lacks_a_corpus_has_no_mean(home: list) -> None:
    other = replace(home[0], head="selm")
    made = formulations.table([*home, other], [], [])
    assert [texts(line)[1] == "–" for line in made.rows] == [False, True]
    assert {texts(line)[2] for line in made.rows} == {"–"}


def test_the_figure_is_an_svg_with_three_panels(home: list, tmp_path: Path) -> None:
    drawn = formulations.figure(home, home, [adapted(0, 0.2), adapted(4, 0.6)])
    assert [a.get_title() for a in drawn.axes] == [
        "tested on speakers never heard",
        "trained on one corpus, tested on another",
        "its head adapted to another corpus",
    ]
    # a dot for each corpus, and an interval where there is one
    dots = [line for line in drawn.axes[0].lines if line.get_marker() == "o"]
    assert [float(d.get_ydata()[0]) for d in dots] == [r.uar.mean for r in home]
    drawn.savefig(tmp_path / "f.svg", format="svg")
    assert ElementTree.parse(tmp_path / "f.svg").getroot().tag.endswith("svg")


def test_a_pair_of_corpora_is_named_without_its_recipe() -> None:
    assert formulations.short("big4_transfer, emodb to nemo") == "emodb to nemo"
    assert formulations.short("ravdess") == "ravdess"


def test_a_folder_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no comparison.*publish\.py pack"):
        formulations.rows(tmp_path)
