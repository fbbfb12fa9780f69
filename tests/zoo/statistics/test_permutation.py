"""Exchanging two heads by speaker: against scipy, and how often it errs."""

from math import isnan

import numpy as np
import pytest
from facts import says, tells
from scipy import stats as scipy_stats
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataError
from serzoo.zoo.statistics.speakers import paired_permutation
from serzoo.zoo.statistics.table import PredictionTable
from work import instructions


def table_of(labels, predicted, each: int, c: int = 3) -> PredictionTable:
    n = len(labels)
    who = [f"s{i // each:02d}" for i in range(n)]
    scores = np.eye(c)[predicted]
    return PredictionTable(
        [str(i) for i in range(n)], who, labels, scores, [f"c{i}" for i in range(c)]
    )


def pair(g: int, *, each: int = 12, better: float = 0.0, seed: int = 0):
    """Two heads with the same labels, the first right by ``better`` more often."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(each) % 3, g)
    tables = []
    for add in (better, 0.0):
        chance = np.clip(0.5 + add + 0.15 * rng.normal(size=g), 0, 1).repeat(each)
        right = rng.random(g * each) < chance
        tables.append(table_of(labels, np.where(right, labels, (labels + 1) % 3), each))
    return tables


def accuracies(t: PredictionTable, g: int) -> np.ndarray:
    return (t.predicted == t.labels).reshape(g, -1).mean(1)


def scipy_p(a, b, g: int, draws: float = np.inf) -> float:
    return scipy_stats.permutation_test(
        (accuracies(a, g), accuracies(b, g)),
        lambda x, y, axis=-1: (x - y).mean(axis),
        permutation_type="samples",
        n_resamples=draws,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).pvalue


class TestPermutation:
    @pytest.mark.parametrize("g", [3, 6, 9, 12])
    def test_every_exchange_equals_scipy(self, g):
        a, b = pair(g, better=0.1, seed=g)
        found = paired_permutation(a, b, "wa")
        assert found.p == pytest.approx(scipy_p(a, b, g))
        assert found.value == pytest.approx(a.wa() - b.wa())
        assert (found.exact, found.n_speakers, found.n_swaps) == (True, g, 2**g)
        # all speakers have equally many of each class: UAR is WA
        assert paired_permutation(a, b).p == found.p

    def test_random_exchanges_equal_scipy_s(self):
        a, b = pair(20, better=0.05)
        found = paired_permutation(a, b, "wa", draws=20_000)
        assert (found.exact, found.n_swaps) == (False, 20_000)
        assert 0.02 < found.p < 0.9
        assert found.p == pytest.approx(scipy_p(a, b, 20, 20_000), abs=0.015)

    def test_equals_a_plain_loop_where_the_metric_does_not_add_up(self):
        a, b = pair(4, better=0.2, seed=3)
        observed, count = abs(a.macro_f1() - b.macro_f1()), 0
        for mask in range(16):
            swap = np.array([mask >> (i // 12) & 1 for i in range(48)], dtype=bool)[:, None]
            first, second = (
                PredictionTable(a.ids, a.speakers, a.labels, np.where(swap, y, x), a.classes)
                for x, y in ((a.scores, b.scores), (b.scores, a.scores))
            )
            count += abs(first.macro_f1() - second.macro_f1()) >= observed - 1e-12
        assert paired_permutation(a, b, "f1").p == count / 16

    def test_heads_that_answer_alike(self):
        a, _ = pair(5)
        found = paired_permutation(a, a)
        assert (found.value, found.p, found.smallest) == (0, 1, 1)
        assert tells(found.note, "same", "every speaker")

    def test_few_speakers_cannot_show_anything(self):
        a, b = pair(4, better=0.4)
        found = paired_permutation(a, b)
        assert found.p == found.smallest == 0.125
        assert tells(found.note, "4 speakers", "0.125")
        one = paired_permutation(*pair(1))
        assert isnan(one.p)
        assert one.note == "one speaker: no test"

    def test_seeded_and_never_zero(self):
        a, b = pair(24, better=0.4)
        found = paired_permutation(a, b, draws=500)
        assert found == paired_permutation(a, b, draws=500)
        assert found.p == found.smallest == 1 / 501
        assert found.note == ""

    def test_refusals(self):
        a, b = pair(4)
        with pytest.raises(ComparisonError, match=says(4, "first: 44")):
            paired_permutation(a, b.subset(range(44)))
        with pytest.raises(ConfigError, match=r"^draws .*\b0\b.*\b1\b"):
            paired_permutation(a, b, draws=0)
        b.scores[5, 0] = np.inf
        with pytest.raises(DataError, match=says("1 of 48", "first: 5")):
            paired_permutation(a, b)

    def test_ten_thousand_exchanges_are_made_at_once(self):
        a, b = pair(24, each=60)
        few, many = (
            instructions(lambda n=n: paired_permutation(a, b, draws=n)) for n in (10, 10_000)
        )
        assert many < 1.5 * few

    def test_equally_good_heads_are_rarely_told_apart(self):
        # exact with 8 speakers: at most 0.05; its standard error of 400 is 0.011
        p = np.array([paired_permutation(*pair(8, seed=s), "wa").p for s in range(400)])
        assert (p < 0.05).mean() < 0.085
        assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.1)
