"""Average ranks: against scipy and the worked example of Demšar 2006."""

from math import inf, isnan

import numpy as np
import pytest
from facts import says
from scipy import stats as scipy_stats
from serzoo.zoo.core.errors import ComparisonError, DataError
from serzoo.zoo.plots import critical_difference_figure
from serzoo.zoo.statistics.breakdown import Ranks, average_ranks, critical_difference


def scores_of(values: np.ndarray) -> dict[str, dict[int, float]]:
    """``[blocks, heads]`` as a mapping."""
    return {f"h{j}": dict(enumerate(values[:, j])) for j in range(values.shape[1])}


class TestRanks:
    @pytest.mark.parametrize("digits", [6, 1])
    def test_friedman_equals_scipy_with_and_without_ties(self, digits):
        x = np.round(np.random.default_rng(0).normal([0, 0.5, 1, 1.2], 1, (9, 4)), digits)
        found = average_ranks(scores_of(x))
        want = scipy_stats.friedmanchisquare(*x.T)
        assert (found.chi2, found.p) == pytest.approx((want.statistic, want.pvalue))
        placed = scipy_stats.rankdata(-x, axis=1).mean(0)
        assert dict(zip(found.heads, found.ranks, strict=True)) == pytest.approx(
            {f"h{j}": placed[j] for j in range(4)}
        )
        assert found.ranks == sorted(found.ranks)

    def test_iman_davenport_is_the_anova_of_ranks(self):
        x = np.random.default_rng(1).normal([0, 0, 1, 1], 1, (7, 4))
        r = scipy_stats.rankdata(-x, axis=1)
        # two-way analysis of variance of the ranks, blocks and heads
        between = 7 * ((r.mean(0) - r.mean()) ** 2).sum() / 3
        rest = ((r - r.mean(0) - r.mean(1, keepdims=True) + r.mean()) ** 2).sum() / 18
        found = average_ranks(scores_of(x))
        assert found.f == pytest.approx(between / rest)
        assert found.f_p == pytest.approx(scipy_stats.f.sf(between / rest, 3, 18))

    def test_critical_values_are_those_of_the_paper(self):
        # table 5 (a): q at 0.05 and 0.10 for 2 to 10 classifiers
        root = {k: np.sqrt(k * (k + 1) / 6) for k in range(2, 11)}
        q05 = [critical_difference(k, 1) / root[k] for k in root]
        q10 = [critical_difference(k, 1, level=0.9) / root[k] for k in root]
        assert q05 == pytest.approx(
            [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164], abs=0.0015
        )
        assert q10 == pytest.approx(
            [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920], abs=0.0015
        )
        # section 3.2.3: four classifiers on 14 data sets
        assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
        assert critical_difference(4, 14, level=0.9) == pytest.approx(1.12, abs=0.005)

    def test_groups_are_the_largest_runs_within_the_critical_difference(self):
        # always in the same order: ranks 1 to 5; 0.95 at 40 blocks: 0.96 apart
        rows = np.tile([5.0, 4, 3, 2, 1], (40, 1))
        assert average_ranks(scores_of(rows)).groups == []
        few = average_ranks(scores_of(rows[:8]))  # 2.16 apart
        assert few.critical == pytest.approx(2.157, abs=0.001)
        assert few.groups == [["h0", "h1", "h2"], ["h1", "h2", "h3"], ["h2", "h3", "h4"]]
        assert average_ranks(scores_of(rows[:2])).groups == [["h0", "h1", "h2", "h3", "h4"]]

    def test_blocks_that_all_agree(self):
        found = average_ranks(scores_of(np.tile([3.0, 2, 1], (4, 1))))
        assert (found.chi2, found.f, found.f_p) == (8, inf, 0)

    def test_heads_that_are_all_alike(self):
        found = average_ranks(scores_of(np.ones((4, 3))))
        assert found.ranks == [2, 2, 2]
        assert isnan(found.chi2)
        assert isnan(found.f_p)
        assert found.groups == [["h0", "h1", "h2"]]

    def test_refusals(self):
        scores = scores_of(np.eye(3))
        del scores["h1"][2]
        with pytest.raises(ComparisonError, match=says("h1", "1 of 3", "first: 2")):
            average_ranks(scores)
        scores["h1"][2] = float("nan")
        with pytest.raises(DataError, match=says("h1", "block 2", "nan")):
            average_ranks(scores)
        with pytest.raises(ComparisonError, match=says("1 heads", 2)):
            average_ranks({"h0": {0: 1.0}})
        with pytest.raises(DataError, match=says("rank", "h0, h1")):
            average_ranks({"h0": {}, "h1": {}})

    def test_equal_heads_are_rarely_told_apart(self):
        rng = np.random.default_rng(0)
        found = [average_ranks(scores_of(rng.normal(size=(12, 4)))) for _ in range(500)]
        assert np.mean([r.f_p < 0.05 for r in found]) == pytest.approx(0.05, abs=0.03)
        apart = [r.ranks[-1] - r.ranks[0] >= r.critical for r in found]
        assert np.mean(apart) == pytest.approx(0.05, abs=0.03)


class TestFigure:
    def test_names_ranks_and_bars(self):
        x = np.tile([5.0, 4, 3, 2, 1], (8, 1))
        figure = critical_difference_figure(average_ranks(scores_of(x)), "UAR")
        axes = figure.axes[0]
        texts = [t.get_text().strip() for t in axes.texts]
        assert {"h0  1.00", "h2  3.00", "4.00  h3", "critical difference 2.16"} <= set(texts)
        bars = {b.get_gid(): b for b in axes.lines if str(b.get_gid()).startswith("group")}
        assert sorted(bars) == ["group 0", "group 1", "group 2"]
        assert bars["group 1"].get_xdata() == pytest.approx([1.97, 4.03])
        assert axes.get_title() == "UAR\n8 blocks; average rank, 1 is best"
        figure.canvas.draw()

    def test_a_critical_difference_wider_than_the_line(self):
        ranks = Ranks(["a", "b"], [1.0, 2.0], 1, 1.0, 0.3, inf, 0.0, 1.96, 0.95, [["a", "b"]])
        axes = critical_difference_figure(ranks).axes[0]
        assert "critical difference 1.96 (wider than the line)" in [
            t.get_text() for t in axes.texts
        ]
