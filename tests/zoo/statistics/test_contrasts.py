"""Verdicts on contrasts: against all sign flips by hand, scipy, and known answers."""

from itertools import product
from math import inf, isnan, sqrt

import numpy as np
import pytest
from facts import says
from scipy import stats as scipy_stats
from scipy.stats import qmc
from serzoo.zoo.core.errors import ComparisonError, ConfigError
from serzoo.zoo.statistics.contrasts import (
    UNDECLARED,
    Contrast,
    Parts,
    answers,
    clusters_of,
    confusions_of,
    difference,
    half_width,
    interaction,
    parts_of,
    two_way,
)
from serzoo.zoo.statistics.table import PredictionTable

N = 20  # utterances of each cluster


def cells(right) -> np.ndarray:
    """``[S, G, 2, 2]`` confusions of one class, from ``[S, G]`` numbers of right answers."""
    right = np.atleast_2d(np.asarray(right, dtype=np.float64))
    out = np.zeros((*right.shape, 2, 2))
    out[..., 0, 0], out[..., 0, 1] = right, N - right
    return out


def gain(*points) -> Contrast:
    """A head that has these points more than the baseline, of N, in each training and cluster."""
    more = np.atleast_2d(np.asarray(points, dtype=np.float64))
    return difference(cells(10 + more), cells(np.full(more.shape, 10)))


def ask(*points, **options):
    """The answer to one contrast alone."""
    return answers({"head": gain(*points)}, **options)["head"]


def every_t(table) -> np.ndarray:
    """``[2^G, K]`` absolute t of ``[K, G]`` values under each sign flip, the observed first."""
    x = np.asarray(table, dtype=np.float64) / N
    signs = np.array(list(product([1, -1], repeat=x.shape[1])))
    t = scipy_stats.ttest_1samp(x * signs[:, None], 0, axis=2).statistic
    return np.abs(np.asarray(t))


def by_hand(t) -> list[float]:
    """Step-down max-T: each is compared with the maximum of all that are not clearer."""
    found = []
    for k in range(t.shape[1]):
        p = []
        for j in np.flatnonzero(t[0] >= t[0, k]):  # itself and the clearer ones
            rest = np.flatnonzero(t[0] <= t[0, j])
            p.append(np.mean(t[:, rest].max(1) >= t[0, j] - 1e-9))
        found.append(max(p))
    return found


HEADS = [
    [4, 5, 3, 4, 6, 5],
    [2, 1, 3, -1, 2, 1],
    [-1, 1, 0, 2, -2, 1],
    [3, 6, 2, 5, 4, 1],
]


class TestTheseModels:
    def test_the_family_is_corrected_as_by_hand(self):
        found = answers({i: gain(row) for i, row in enumerate(HEADS)})
        t = every_t(HEADS)
        want = by_hand(t)
        assert [found[i].these.p_family for i in range(4)] == pytest.approx(want)
        alone = [(t[:, k] >= t[0, k] - 1e-9).mean() for k in range(4)]
        assert [found[i].these.p for i in range(4)] == pytest.approx(alone)
        assert found[0].these.p == found[0].smallest_p == 2 / 2**6

    def test_p_is_that_of_scipys_permutation_test(self):
        x = np.array(HEADS[1]) / N
        want = scipy_stats.permutation_test((x,), np.mean, permutation_type="samples")
        assert ask(HEADS[1]).these.p == pytest.approx(want.pvalue)

    def test_error_and_df_are_those_of_the_t_test(self):
        found = ask(HEADS[1]).these
        assert found.error == pytest.approx(scipy_stats.sem(np.array(HEADS[1]) / N))
        assert found.df == 5

    def test_random_flips_are_near_the_t_test(self):
        points = np.random.default_rng(0).normal(0.6, 2, 40)
        found, want = ask(points).these, scipy_stats.ttest_1samp(points / N, 0)
        assert found.p == pytest.approx(want.pvalue, abs=0.01)
        bounds = tuple(want.confidence_interval())
        assert (found.low, found.high) == pytest.approx(bounds, abs=0.01)

    @pytest.mark.parametrize("level", [0.9, 0.95])
    def test_the_interval_is_what_the_test_does_not_reject(self, level):
        x, alpha = np.array(HEADS[3]) / N, round(1 - level, 9)
        found = ask(HEADS[3], level=level).these
        for null in np.linspace(0, 0.4, 21) + 0.001:  # no bound lies at these
            t = every_t([(x - null) * N])
            p = (t >= t[0] - 1e-9).mean()
            assert (p > alpha) == (found.low <= null <= found.high), null

    @pytest.mark.parametrize(("clusters", "level"), [(6, 0.95), (8, 0.9), (14, 0.9), (14, 0.95)])
    def test_p_is_small_if_and_only_if_the_interval_excludes_zero(self, clusters, level):
        rng, seen = np.random.default_rng(clusters), set()
        for _ in range(40):
            found = ask(rng.integers(-2, 7, clusters), level=level, draws=199)
            small = found.these.p <= 1 - level + 1e-9
            assert small == (not found.these.low <= 0 <= found.these.high)
            assert found.verdict in (("better", "worse") if small else ("equivalent", "undecided"))
            seen.add(small)
        assert seen == {True, False}

    def test_p_equal_to_alpha_is_significant_at_every_level(self):
        """1 - 0.9 is a little less than 0.1."""
        rng = np.random.default_rng(9)
        while (points := rng.integers(-2, 4, 20)) is not None:
            if ask(points, draws=99).these.p == 0.1 and points.mean() > 0:
                break
        head = ask(points, draws=99, level=0.9)
        assert head.these.p > 1 - 0.9
        assert head.verdict == "better"
        assert head.these.low > 0

    def test_no_interval_of_the_family_excludes_zero_without_its_p(self):
        rng = np.random.default_rng(3)
        for _ in range(30):
            family = {k: gain(rng.integers(-2, 5, 7) + k) for k in range(4)}
            for a in answers(family).values():
                assert a.these.low_family <= a.these.low
                assert a.these.high <= a.these.high_family
                if not a.these.low_family <= 0 <= a.these.high_family:
                    assert a.these.p_family <= 0.05

    def test_correction_never_lowers_p_and_keeps_its_order(self):
        rng = np.random.default_rng(4)
        for clusters in (6, 14):
            found = answers({k: gain(rng.integers(-3, 6, clusters)) for k in range(6)}, draws=499)
            rows = sorted(found.values(), key=lambda a: -abs(a.value / a.these.error))
            corrected = [a.these.p_family for a in rows]
            assert corrected == sorted(corrected)
            assert all(a.these.p <= a.these.p_family <= 1 for a in rows)

    def test_the_familys_intervals_hold_if_all_heads_truly_differ(self):
        """Flips about zero move all heads together then; these intervals held 0.86 of families."""
        rng, held = np.random.default_rng(0), []
        for _ in range(100):
            noise = 0.5 * rng.standard_normal((1, 12)) + rng.standard_normal((8, 12))
            found = answers({k: gain(3 + x) for k, x in enumerate(noise)})
            spans = [a.these for a in found.values()]
            held.append(all(s.low_family <= 3 / N <= s.high_family for s in spans))
        assert np.mean(held) > 0.9  # standard error 0.022

    def test_too_few_clusters_say_so(self):
        found = ask(5, 5, 4, 6)
        assert (found.smallest_p, found.these.p) == (0.125, 0.125)
        assert "4 speakers" in found.note
        assert "0.125" in found.note
        assert isnan(found.these.low)
        assert isnan(found.detectable)
        assert found.verdict == "undecided"
        assert ask(5, 5, 4, 6, 5, 4).note == ""

    def test_one_cluster_has_no_test(self):
        found = ask(5, cluster="session")
        assert found.value == 0.25
        assert found.note == "one session: no interval and no test"
        assert all(map(isnan, (*found.these, *found.new, found.smallest_p)))

    def test_a_reason_for_no_interval_is_kept(self):
        found = ask(HEADS[0], why="no speaker is known")
        assert found.note == "no speaker is known: no interval and no test"
        assert found.value == pytest.approx(4.5 / N)
        assert found.verdict == "undecided"
        assert isnan(found.these.p)

    def test_all_clusters_alike(self):
        found = ask(4, 4, 4, 4, 4, 4)
        assert (found.these.low, found.these.high, found.these.p) == (0.2, 0.2, 2 / 2**6)
        # each has two more in half of the clusters, and both are alike on the whole
        head, base = cells([[12, 10] * 3]), cells([[10, 12] * 3])
        none = answers({0: difference(head, base)})[0]
        assert none.value == pytest.approx(0)
        assert none.verdict == "undecided"

    def test_uar_of_unequal_clusters_is_that_of_their_sum(self):
        rng = np.random.default_rng(5)
        a, b = rng.integers(0, 9, (2, 1, 7, 3, 3)).astype(float)
        b[..., 0, :] *= a[..., 0, :].sum(-1, keepdims=True) > 0
        found = answers({0: difference(a, b)}, "uar")[0]
        rates = [np.diagonal(c.sum((0, 1))) / c.sum((0, 1, 3)) for c in (a, b)]
        assert found.value == pytest.approx(rates[0].mean() - rates[1].mean())
        # the delete-one jackknife by its formula
        left = [
            np.subtract(*[
                (np.diagonal(c) / c.sum(1)).mean()
                for c in (x[0].sum(0) - x[0, g] for x in (a, b))
            ]) for g in range(7)
        ]  # fmt: skip
        assert found.these.error == pytest.approx(sqrt(6 / 7 * np.var(left) * 7))


class TestNewTrainings:
    def test_the_table_by_hand(self):
        # rows 2, 4 and columns 2, 3, 4; what neither explains is -1, 0, 1 and 1, 0, -1
        u = np.array([[0.0, 2, 4], [4, 4, 4]])
        rows, columns = np.var([2, 4], ddof=1) / 2, np.var([2, 3, 4], ddof=1) / 3
        rest = 4 / 2 / 6  # sum of squares, its freedom (2 - 1) (3 - 1), all values
        for table in (u, u.T):
            parts = two_way(table).parts
            assert parts.scarce == pytest.approx(rows)
            assert parts.other == pytest.approx(max(columns - rest, 0))
            assert parts.least == pytest.approx(max(columns, rest) / 9)

    def test_the_scarce_ones_keep_what_neither_explains(self):
        u = np.random.default_rng(2).normal(size=(3, 8)) + np.arange(8) / 2
        rows, columns = u.mean(1).var(ddof=1) / 3, u.mean(0).var(ddof=1) / 8
        rest = (u - u.mean(1, keepdims=True) - u.mean(0) + u.mean()).var() * 24 / 14 / 24
        for table in (u, u.T):
            found = two_way(table)
            assert found.error == pytest.approx(sqrt(rows + columns - rest))
            # the difference of mean squares has fewer than 7 degrees of freedom
            df = 7 * ((columns - rest) / columns) ** (2 / 14)
            assert found.parts.df == pytest.approx(df)
            assert found.half(0.05) == two_way(u).half(0.05)

    def test_trainings_equal_by_chance_leave_a_third(self):
        """Clusters and the rest have the same mean square here, or the rest has a larger one."""
        points = [8, 9, 8, 7, 9, 8], [8, 8, 9, 9, 7, 8]
        found, g = ask(*points), 6
        rest = 10 / 2 / 5 / 12  # the sum of squares, its freedom, all values
        assert found.new.error == pytest.approx(sqrt(rest) / 3 / N)
        t = scipy_stats.t.isf(0.025, g - 1)
        assert found.new.high - found.value == pytest.approx(t * sqrt(rest) / 3 / N)
        assert found.verdict == "better"

    def test_trainings_alike_by_chance_give_no_verdict_of_their_own(self):
        # of clusters 2, 5, -1, 1, 6 and -1; both trainings have a mean of 2
        points = [[5, 3, -4, 1, 9, -2], [-1, 7, 2, 1, 3, 0]]
        found = ask(*points, margin=0.001)
        assert found.new.p <= 0.05 < found.these.p
        assert found.verdict == "undecided"
        assert "alike by chance" in found.note
        assert found.detectable == pytest.approx(ask(np.mean(points, 0)).detectable)
        # with four speakers nothing is shown of these models
        few = ask([5, 3, 2, 6], [5, 5, 6, 0])
        assert few.new.p <= 0.05
        assert few.verdict == "undecided"
        assert isnan(few.detectable)
        wide = ask([8, 9, 8, 7, 9, 8], [6, 7, 6, 5, 7, 6])
        assert "alike" not in wide.note

    def test_trainings_that_agree_leave_the_t_test_over_clusters(self):
        x = np.array(HEADS[1]) / N
        found, want = two_way(np.stack([x, x])), scipy_stats.ttest_1samp(x, 0)
        assert found.p(x.mean()) == pytest.approx(want.pvalue)
        assert x.mean() + found.half(0.05) == pytest.approx(want.confidence_interval().high)

    def test_trainings_with_identical_predictions_count_as_one(self):
        """Draws of few shots that hold the same utterances, for example."""
        found = ask(HEADS[0], HEADS[0], HEADS[0])
        assert (found.n_seeds, found.basis) == (1, "these models")
        assert all(map(isnan, found.new))
        assert found.these == ask(HEADS[0]).these
        assert "3 trainings" in found.note
        assert "identical" in found.note

    def test_clusters_that_agree_leave_the_t_test_over_trainings(self):
        found = ask([1] * 6, [2] * 6, [4] * 6).new
        want = scipy_stats.ttest_1samp([1 / N, 2 / N, 4 / N], 0)
        assert found.p == pytest.approx(want.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(want.confidence_interval()))
        assert found.df == 2

    def test_one_training_has_none(self):
        found = ask(HEADS[0])
        assert (found.n_seeds, found.basis, found.verdict) == (1, "these models", "better")
        assert all(map(isnan, found.new))

    def test_two_trainings_are_the_basis(self):
        wide = ask([8, 9, 8, 7, 9, 8], [1, 2, 1, 0, 2, 1])
        assert (wide.n_seeds, wide.basis) == (2, "new trainings")
        assert wide.these.p == 2 / 2**6
        # 7 points apart, so the mean of 4.7 has a half width of 12.7 * 3.5
        assert wide.new.p > 0.3
        assert wide.new.high - wide.value == pytest.approx(12.7062 * 3.5 / N, rel=0.01)
        assert wide.verdict == "undecided"
        assert ask([8, 9, 8, 7, 9, 8], [8, 8, 9, 9, 7, 8]).verdict == "better"

    @pytest.mark.parametrize(
        ("trainings", "clusters", "heads", "wide"),
        [
            (2, 4, 1, True),
            (2, 10, 1, True),
            (2, 24, 1, False),
            (2, 24, 4, True),
            (3, 4, 1, True),
            (3, 6, 4, False),
        ],
    )
    def test_intervals_that_are_too_wide_say_so(self, trainings, clusters, heads, wide):
        rng = np.random.default_rng(1)
        table = rng.integers(0, 5, (heads, trainings, clusters))
        found = answers({i: gain(*rows) for i, rows in enumerate(table)})[0]
        assert found.basis == "new trainings"
        assert (f"{trainings} trainings and {clusters} speakers" in found.note) == wide
        assert ("0.98 of true values" in found.note) == wide

    def test_a_family_on_six_clusters_is_too_wide_and_says_so(self):
        found = answers({i: gain(row) for i, row in enumerate(HEADS)}, primary=[0, 1, 2])
        assert ["0.98 of cases" in found[i].note for i in range(4)] == [True] * 3 + [False]
        assert ask(HEADS[0]).note == ""

    def test_coverage_is_never_below_what_is_stated(self):
        """By integration over normal effects: 2 to 10 trainings, and any ratio of variances."""
        uniform = qmc.Sobol(3, seed=2).random(2**10).clip(1e-9, 1 - 1e-9)
        for s, g in product((2, 3, 5, 10), (4, 10, 90)):
            freedom = (g - 1, s - 1, (s - 1) * (g - 1))
            each = [scipy_stats.chi2.ppf(uniform[:, i], n) / n for i, n in enumerate(freedom)]
            for a, rest in product((0, 0.1, 0.3, 0.5, 0.7, 0.9, 1), (0.1, 0.5, 0.9)):
                b, c = (1 - a) * (1 - rest), (1 - a) * rest
                parts = parts_of((b + c) * each[0], (a + c) * each[1], c * each[2], s, g)
                for alpha in (0.05, 0.00625):
                    half = half_width(parts, s, g, alpha)
                    missed = 2 * scipy_stats.norm.sf(half).mean()
                    assert missed <= 1.06 * alpha, (s, g, a, rest, alpha)

    def test_half_widths_are_added_by_a_power(self):
        # of 3 trainings: 3.5, by the t of 9 and 2 degrees of freedom
        a, b = 0.1 * 2.2622, 0.2 * 4.3027
        for s, g in ((3, 10), (10, 3)):
            found = half_width(Parts(0.04, 0.01, 0, 9), s, g, 0.05)
            assert found == pytest.approx((a**3.5 + b**3.5) ** (1 / 3.5), rel=1e-4)
            least = half_width(Parts(0, 0, 0.04, 9), s, g, 0.05)
            assert least == pytest.approx(0.2 * 2.2622, rel=1e-4)
        # of many of both: Howe's sum of squares
        found = half_width(Parts(0.04, 0.01, 0, 1e6), 1_000_001, 1_000_001, 0.05)
        assert found == pytest.approx(1.96 * sqrt(0.05), rel=1e-4)

    def test_p_is_the_alpha_whose_interval_ends_at_zero(self):
        rng = np.random.default_rng(8)
        for s, g in product((2, 3, 10), (4, 30)):
            u = rng.normal(0.5, 1, (s, g)) + rng.normal(size=(s, 1))
            found = two_way(u)
            assert found.half(found.p(u.mean())) == pytest.approx(abs(u.mean()), rel=1e-5)

    def test_unequal_numbers_of_trainings_count_as_one(self):
        contrast = difference(cells([HEADS[0], HEADS[3]]) * 2, cells([[10] * 6] * 3))
        found = answers({0: contrast})[0]
        assert (found.n_seeds, found.basis) == (1, "these models")
        assert "2 and 3 trainings" in found.note

    def test_p_is_small_if_and_only_if_the_interval_excludes_zero(self):
        rng, seen = np.random.default_rng(6), set()
        for _ in range(60):
            found = ask(*(rng.integers(-2, 6, (3, 8)) + rng.integers(0, 2, (3, 1))))
            small = found.new.p <= 0.05
            assert small == (not found.new.low <= 0 <= found.new.high)
            seen.add(small)
        assert seen == {True, False}

    def test_the_family_costs_less_than_holm_and_keeps_order(self):
        rng = np.random.default_rng(7)
        shared = rng.integers(-2, 4, (1, 1, 12))
        tables = {k: rng.integers(0, 2, (4, 12)) + shared[0] for k in range(5)}
        found = answers({k: gain(*t) for k, t in tables.items()})
        spans = sorted((a.new for a in found.values()), key=lambda s: s.p)
        holm, corrected = 0.0, [s.p_family for s in spans]
        assert corrected == sorted(corrected)
        for i, s in enumerate(spans):
            holm = max(holm, s.p * (5 - i))
            assert s.p <= s.p_family <= min(1, holm) + 1e-12
            assert s.low_family <= s.low
            assert s.high <= s.high_family
        assert corrected[0] < spans[0].p * 5

    def test_no_spread_at_all(self):
        base = np.array([[10] * 6, [11] * 6])
        found = answers({0: difference(cells(base + 4), cells(base))})[0]
        assert isnan(found.new.p)
        assert found.verdict == "undecided"
        assert "same amount" in found.note


class TestIdenticalPredictions:
    def test_a_row_that_equals_the_baseline_is_called_that(self):
        head = cells([HEADS[0], HEADS[3]])
        for other, verdict in ((head.copy(), "identical"), (head[::-1].copy(), "undecided")):
            found = answers({0: difference(head, other)})[0]
            assert found.value == pytest.approx(0)
            assert found.verdict == verdict
            assert ("both rows have identical predictions" in found.note) == (verdict[0] == "i")

    def test_four_clusters_do_not_matter_then(self):
        found = ask([0] * 4)
        assert (found.verdict, found.note) == ("identical", "both rows have identical predictions")

    def test_of_an_interaction(self):
        clean, lost, less = cells([[15] * 6]), cells([[10] * 6]), cells([[9, 9, 9, 10, 9, 9]])
        assert answers({0: interaction(lost, clean, lost, clean)})[0].verdict == "identical"
        assert answers({0: interaction(lost, clean, less, clean)})[0].verdict != "identical"
        # no change at all, of heads that differ
        found = answers({0: interaction(lost, lost, clean, clean)})[0]
        assert (found.value, found.verdict) == (0, "equivalent")


class TestVerdicts:
    @pytest.mark.parametrize(
        ("points", "margin", "verdict"),
        [
            ([4, 5, 3, 4, 6, 5], 0.03, "better"),
            ([-4, -5, -3, -4, -6, -5], 0.03, "worse"),
            ([0, 1, 0, -1, 0, 0], 0.1, "equivalent"),
            ([0, 1, 0, -1, 0, 0], 0.01, "undecided"),
            ([5, -5, 4, 6, -2, 3], 0.03, "undecided"),
            # a difference that is there, and too small to matter
            ([1, 1, 1, 1, 1, 2], 0.1, "better"),
        ],
    )
    def test_of_one_training(self, points, margin, verdict):
        assert ask(points, margin=margin).verdict == verdict

    def test_equivalence_is_two_one_sided_tests(self):
        points = [0, 1, 0, -1, 0, 1, 0, 0]
        low, high = (getattr(ask(points, level=0.9).these, side) for side in ("low", "high"))
        reach = max(-low, high)
        assert ask(points, margin=reach + 1e-6).verdict == "equivalent"
        assert ask(points, margin=reach - 1e-6).verdict == "undecided"

    def test_a_family_can_take_a_verdict_back(self):
        clear = [3, 2, 4, -1, 3, 4, 2]
        assert ask(clear).verdict == "better"
        rng = np.random.default_rng(8)
        family = {k: gain(rng.integers(-5, 6, 7)) for k in range(8)} | {"head": gain(clear)}
        found = answers(family)["head"]
        assert found.these.p <= 0.05 < found.these.p_family
        assert found.verdict == "undecided"

    def test_what_is_detectable_grows_with_the_family(self):
        points = [4, 5, 3, -4, 6, 5, 2, 1]
        alone = ask(points)
        assert alone.detectable > alone.these.high - alone.value > 0
        family = {k: gain(np.roll(HEADS[3] + [1, 0], k)) for k in range(6)}
        assert answers(family | {"head": gain(points)})["head"].detectable > alone.detectable
        assert ask(points, power=0.9).detectable > alone.detectable


FAMILY = {0: gain(HEADS[0]), 1: gain(HEADS[1])}


class TestDeclaredQuestions:
    def test_other_rows_never_change_an_answer(self):
        want = answers(FAMILY)
        more = {"imported": gain(HEADS[2]), **FAMILY, "control": gain([9] * 5 + [8])}
        found = answers(more, primary=[0, 1])
        assert {k: found[k] for k in (0, 1)} == want
        assert found["control"].these.p == found["control"].these.p_family
        assert [UNDECLARED in found[k].note for k in more] == [True, False, False, True]
        assert found["imported"].these == ask(HEADS[2]).these

    def test_the_same_with_trainings(self):
        family = {k: gain(HEADS[k], HEADS[k + 1]) for k in (0, 1)}
        found = answers(family | {"imported": gain(HEADS[3], HEADS[0])}, primary=[0, 1])
        want = answers(family)
        for k in (0, 1):  # NaN is not equal to itself
            assert found[k].new == want[k].new
            assert found[k].these == want[k].these

    def test_a_row_that_is_no_number_changes_no_other(self):
        broken = gain(HEADS[2])
        broken.cells[0][0, 2] = np.nan
        found = answers(FAMILY | {"broken": broken})
        assert {k: found[k] for k in (0, 1)} == answers(FAMILY)
        assert isnan(found["broken"].value)
        assert isnan(found["broken"].these.p)
        assert "finite" in found["broken"].note
        assert found["broken"].verdict == "undecided"

    def test_bad_arguments(self):
        with pytest.raises(ConfigError, match=says("'heed'", "'head'")):
            answers({"head": gain(HEADS[0])}, primary=["heed"])
        for name, value in (("margin", 0), ("level", 0.4), ("level", 95), ("power", 1)):
            with pytest.raises(ConfigError, match=says(name, value)):
                ask(HEADS[0], **{name: value})
        with pytest.raises(ConfigError, match=says("draws", 0)):
            ask(HEADS[0], draws=0)
        with pytest.raises(ConfigError, match=says("'sesion'", "'session'")):
            ask(HEADS[0], cluster="sesion")
        with pytest.raises(ComparisonError, match=says("'b'", "(1, 5, 2, 2)", "(6, 2, 2)")):
            answers({"a": gain(HEADS[0]), "b": gain([1] * 5)})
        assert answers({}) == {}


CLEAN = [[14, 15, 16, 14, 15, 16]]


LOST = [[10, 12, 12, 11, 11, 13]]


class TestInteraction:
    def test_is_what_a_head_loses_beyond_the_baseline(self):
        base_clean, base = [[13, 14, 15, 16, 12, 14]], [[6, 8, 9, 8, 7, 7]]
        found = answers({0: interaction(*map(cells, (LOST, CLEAN, base, base_clean)))})[0]
        lost = np.subtract(LOST, CLEAN) - np.subtract(base, base_clean)
        assert found.value == pytest.approx(lost.mean() / N)
        assert found.these.error == pytest.approx(scipy_stats.sem(lost[0] / N))
        assert found.verdict == "better"

    def test_a_share_of_what_is_above_chance(self):
        clean, lost = cells([[15] * 6]), cells([[10] * 6])  # 0.75 and 0.5: half of 0.5 is kept
        base_clean, base = cells([[10] * 6]), cells([[9, 8, 8, 8, 8, 7]])  # 0.5 and 0.4: 0.15/0.25
        found = answers({0: interaction(lost, clean, base, base_clean, chance=0.25)})[0]
        assert found.value == pytest.approx(0.5 - 0.15 / 0.25)
        assert found.these.error == pytest.approx(scipy_stats.sem([9, 8, 8, 8, 8, 7]) / N / 0.25)

    def test_no_share_of_nothing(self):
        clean, lost = cells([[15] * 6]), cells([[10] * 6])
        found = answers({0: interaction(lost, clean, lost, lost, chance=0.5)})[0]
        assert isnan(found.value)
        assert "finite" in found.note
        assert found.verdict == "undecided"


class TestUnknownClusters:
    def test_they_count_in_the_value_and_not_in_the_spread(self):
        a, b = gain(HEADS[1]).cells
        more = tuple(cells([[n]])[:, 0] * 3 for n in (15, 5))  # 60 utterances, 0.5 apart
        found = answers({0: difference(a, b, unknown=more)}, "wa")[0]
        known = ask(HEADS[1], metric="wa")
        assert found.value == pytest.approx((known.value * 120 + 0.5 * 60) / 180)
        assert found.these.error == pytest.approx(known.these.error)
        assert found.n_clusters == 6

    def test_their_shapes_are_checked(self):
        a, b = gain(HEADS[1]).cells
        with pytest.raises(ComparisonError, match=says("'head'", "(1, 3, 3)", "(1, 2, 2)")):
            answers({"head": difference(a, b, unknown=(np.zeros((1, 3, 3)),) * 2)})


def table_of(speakers, right) -> PredictionTable:
    """Two utterances of each speaker: one right, one as ``right`` says; "" is unknown."""
    who = [s for s in speakers for _ in range(2)]
    scores = [[1.0, 0.0] if r else [0.0, 1.0] for x in right for r in (True, x)]
    ids = [f"u{i}" for i in range(len(who))]
    return PredictionTable(ids, who, np.zeros(len(who), int), np.array(scores), ["a", "b"])


class TestClustersOfATable:
    def test_speakers_by_default(self):
        table = table_of("bca", [1, 0, 1])
        found = clusters_of(table)
        assert (found.kind, found.names, found.why, found.note) == (
            "speaker",
            ["a", "b", "c"],
            "",
            "",
        )
        known, unknown = confusions_of([table, table.subset(range(5, -1, -1))], found)
        assert known[:, :, 0].tolist() == [[[2, 0], [2, 0], [1, 1]]] * 2
        assert unknown.sum() == 0

    def test_sessions_are_read_from_attributes(self):
        table = table_of("abcd", [1, 0, 1, 1])
        rooms = {f"u{i}": {"session": f"x/{i // 4}"} for i in range(8)}
        found = clusters_of(table, "session", rooms)
        assert (found.kind, found.names, found.why) == ("session", ["x/0", "x/1"], "")
        assert confusions_of([table], found)[0][0, :, 0].tolist() == [[3, 1], [4, 0]]
        assert clusters_of(table, "session").why == "no session is known"
        assert clusters_of(table, "dialogue", rooms).why == "no dialogue is known"

    def test_a_minority_of_unknown_ones_counts_in_the_value_only(self):
        head, base = (
            table_of(["a", "b", "", "c"], [1, 1, 0, 0]),
            table_of(["a", "b", "", "c"], [0] * 4),
        )
        found = clusters_of(base)
        assert found.names == ["a", "b", "c"]
        assert found.why == ""
        assert "2 of 8 utterances" in found.note
        parts = [confusions_of([t], found) for t in (head, base)]
        contrast = difference(*(p[0] for p in parts), unknown=tuple(p[1] for p in parts))
        (answer,) = answers({0: contrast}, "wa", why=found.why).values()
        assert answer.value == pytest.approx(head.wa() - base.wa())
        assert answer.these.error == pytest.approx(scipy_stats.sem([0.5, 0.5, 0]))

    @pytest.mark.parametrize(
        ("speakers", "why"),
        [(["a", "b", "", ""], "4 of 8 utterances are of no known speaker"),
         ([""] * 4, "no speaker is known"), (["a"] * 4, "one speaker")],
    )  # fmt: skip
    def test_without_an_interval_the_value_stays(self, speakers, why):
        head, base = table_of(speakers, [1, 0, 1, 1]), table_of(speakers, [0] * 4)
        found = clusters_of(base)
        assert found.why == why
        parts = [confusions_of([t], found) for t in (head, base)]
        contrast = difference(*(p[0] for p in parts), unknown=tuple(p[1] for p in parts))
        (answer,) = answers({0: contrast}, why=found.why).values()
        assert answer.value == pytest.approx(head.uar() - base.uar())
        assert answer.note == f"{why}: no interval and no test"
        assert isnan(answer.these.low)

    def test_unlabelled_utterances_take_no_part(self):
        table = table_of(["a", "b", "", ""], [1, 0, 1, 1])
        table.labels[4:] = -1
        found = clusters_of(table)
        assert (found.why, found.note, len(found.of)) == ("", "", 4)
        assert confusions_of([table], found)[0].sum() == 4

    def test_other_utterances_are_refused(self):
        table = table_of("abc", [1, 0, 1])
        with pytest.raises(ComparisonError, match=says("first: u5")):
            confusions_of([table.subset(range(5))], clusters_of(table))
        with pytest.raises(ConfigError, match=says("'sesion'", "'session'")):
            clusters_of(table, "sesion")


def test_nothing_is_infinite_in_an_answer():
    for found in (ask(5, 5, 4, 6), ask([5, 4, 3], [1, 2, 3]), ask(HEADS[0])):
        assert inf not in map(abs, (*found.these, *found.new, found.detectable))
