"""Calibration rows and risk-coverage against brute force."""

from itertools import permutations

import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.statistics.confidence import calibrations, classwise_ece, risk_coverage
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.metrics import log_loss
from work import instructions


def random_table(n: int = 300, c: int = 4, seed: int = 0) -> PredictionTable:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, c, n)
    scores = 3 * rng.normal(size=(n, c)) + 2 * np.eye(c)[labels]
    return PredictionTable(
        [str(i) for i in range(n)], ["s"] * n, labels, scores, [f"c{i}" for i in range(c)]
    )


class TestCalibration:
    def test_before_and_after(self):
        t = random_table()
        before, after = calibrations(t, t.temperature())
        assert before == (1, t.ece(), classwise_ece(t.scores, t.labels), t.brier(), t.nll())
        assert before.nll == pytest.approx(log_loss(t.labels, t.probabilities()))
        assert after.temperature == t.temperature() > 1.5
        assert after.nll == t.nll(t.temperature()) < before.nll
        assert after.classwise_ece < before.classwise_ece

    def test_classwise_equals_a_plain_loop(self):
        t = random_table()
        p = t.probabilities()
        want = 0.0
        for k in range(4):
            for b in range(15):
                inside = (p[:, k] > b / 15) & (p[:, k] <= (b + 1) / 15)
                if inside.any():
                    gap = (t.labels[inside] == k).mean() - p[inside, k].mean()
                    want += inside.mean() * abs(gap) / 4
        assert classwise_ece(t.scores, t.labels) == pytest.approx(want)

    def test_unlabelled_take_no_part_and_nothing_is_refused(self):
        t = random_table()
        more = PredictionTable(
            [*t.ids, "new"],
            [*t.speakers, "s"],
            np.append(t.labels, -1),
            np.concatenate([t.scores, t.scores[:1]]),
            t.classes,
        )
        assert calibrations(more, 2.0) == calibrations(t, 2.0)
        assert risk_coverage(more).aurc == risk_coverage(t).aurc
        t.labels[:] = -1
        with pytest.raises(DataError, match=says("none of 300")):
            calibrations(t, 2.0)
        with pytest.raises(DataError, match=says("none of 300")):
            risk_coverage(t)


class TestRiskCoverage:
    def test_equals_brute_force(self):
        t = random_table(200)
        confidence, wrong = t.probabilities(1.5).max(1), t.predicted != t.labels
        risks = []
        for k in range(1, 201):
            surest = sorted(range(200), key=lambda i: -confidence[i])[:k]
            risks.append(np.mean([wrong[i] for i in surest]))
        found = risk_coverage(t, 1.5)
        assert found.risk == pytest.approx(risks)
        assert found.aurc == pytest.approx(np.mean(risks))
        assert found.coverage[[0, -1]].tolist() == [1 / 200, 1]
        assert found.risk[-1] == pytest.approx(1 - t.wa())
        assert found.at((0.5, 0.7)) == pytest.approx({0.5: risks[99], 0.7: risks[139]})

    def test_ties_are_the_mean_over_every_order(self):
        scores = np.log([[0.9, 0.1]] * 2 + [[0.7, 0.3]] * 3)
        t = PredictionTable(list("abcde"), ["s"] * 5, np.array([0, 1, 1, 0, 0]), scores, ["x", "y"])
        every = []
        for first in permutations([0, 1]):
            for then in permutations([1, 0, 0]):
                every.append(np.cumsum([*first, *then]) / np.arange(1, 6))
        found = risk_coverage(t)
        assert found.risk == pytest.approx(np.mean(every, axis=0))
        turned = risk_coverage(t.subset([4, 3, 2, 1, 0]))
        assert turned.risk.tolist() == found.risk.tolist()

    def test_excess_is_zero_where_the_errors_are_least_sure(self):
        t = random_table()
        wrong = t.predicted != t.labels
        sure = np.where(wrong, 0.1, 5.0)[:, None] * np.eye(4)[t.predicted]
        best = PredictionTable(t.ids, t.speakers, t.labels, sure, t.classes)
        # within ties errors are spread, and here no tie mixes right and wrong
        assert risk_coverage(best).excess == pytest.approx(0, abs=1e-12)
        assert risk_coverage(t).excess > 0.01

    def test_chance_confidence_has_the_error_rate_as_area(self):
        t = random_table(4000)
        flat = np.eye(4)[t.predicted]
        same = PredictionTable(t.ids, t.speakers, t.labels, flat, t.classes)
        assert risk_coverage(same).aurc == pytest.approx(1 - t.wa())

    def test_bad_input(self):
        t = random_table()
        with pytest.raises(ConfigError, match=says("coverage 90", "0 < coverage <= 1")):
            risk_coverage(t).at([90])
        t.scores[0] = np.nan
        with pytest.raises(DataError, match=says("1 of 300", "scores")):
            risk_coverage(t)

    @pytest.mark.parametrize("measure", [risk_coverage, lambda t: calibrations(t, 1.5)])
    def test_no_utterance_is_looked_at_by_itself(self, measure):
        few, many = random_table(100, 8), random_table(1440, 8)
        measure(few)
        assert instructions(lambda: measure(many)) < 1.5 * instructions(lambda: measure(few))
