import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.statistics.table import PredictionTable
from sklearn import metrics as sk
from tables import CLASSES, random_table, table


class TestProbabilities:
    def test_softmax_at_a_temperature(self):
        t = random_table()
        p = t.probabilities(2.0)
        want = np.exp(t.scores / 2) / np.exp(t.scores / 2).sum(1, keepdims=True)
        assert p == pytest.approx(want)
        # a constant added to an utterance's scores is no evidence
        shifted = PredictionTable(t.ids, t.speakers, t.labels, t.scores + 64, t.classes)
        assert shifted.probabilities() == pytest.approx(t.probabilities(), abs=2e-4)

    def test_large_scores_do_not_overflow(self):
        scores = np.array([[1e30, -1e30], [-1e4, -2e4]])
        t = PredictionTable(["a", "b"], ["s", "s"], np.array([0, 0]), scores, ["x", "y"])
        assert t.probabilities().tolist() == [[1, 0], [1, 0]]
        assert t.nll() == 0

    def test_nll_and_brier_equal_sklearn(self):
        t = random_table()
        p = t.probabilities(1.7)
        assert t.nll(1.7) == pytest.approx(sk.log_loss(t.labels, p))
        assert t.brier(1.7) == pytest.approx(sk.brier_score_loss(t.labels, p, scale_by_half=False))

    def test_ece_equals_a_plain_loop(self):
        t = random_table(500)
        p = t.probabilities()
        want = 0.0
        for b in range(15):
            inside = [i for i in range(len(t)) if b / 15 < p[i].max() <= (b + 1) / 15]
            if inside:
                accuracy = np.mean([t.predicted[i] == t.labels[i] for i in inside])
                want += len(inside) / len(t) * abs(accuracy - np.mean([p[i].max() for i in inside]))
        assert t.ece() == pytest.approx(want)

    def test_temperature_is_where_the_likelihood_has_no_slope(self):
        t = random_table(500)
        best = t.temperature()
        assert t.nll(best) < min(t.nll(best * 1.01), t.nll(best / 1.01))
        # scores sharpened threefold want a temperature three times as high, and end up the same
        sharp = PredictionTable(t.ids, t.speakers, t.labels, 3 * t.scores, t.classes)
        assert sharp.temperature() == pytest.approx(3 * best, rel=1e-3)
        assert sharp.nll(sharp.temperature()) == pytest.approx(t.nll(best), abs=1e-5)

    def test_temperature_calibrates(self):
        # labels drawn from the softmax of the scores: the right temperature of 5x scores is 5
        rng = np.random.default_rng(1)
        scores = rng.normal(size=(4000, 4))
        t = PredictionTable(
            [str(i) for i in range(4000)], ["s"] * 4000, np.zeros(4000), scores, CLASSES
        )
        labels = (t.probabilities().cumsum(1) > rng.random((4000, 1))).argmax(1)
        hot = PredictionTable(t.ids, t.speakers, labels, 5 * scores, CLASSES)
        assert hot.temperature() == pytest.approx(5, rel=0.1)
        assert hot.ece(hot.temperature()) < 0.03 < hot.ece()

    def test_temperature_stays_in_its_range_when_all_is_right(self):
        t = table([0, 1, 2], [0, 1, 2])
        assert 0.01 <= t.temperature() < 0.1
        assert t.nll(t.temperature()) < 1e-4

    def test_bad_temperature(self):
        with pytest.raises(ConfigError, match=says("temperature", 0)):
            random_table().probabilities(0)
