"""A bias for each class, and the calibration error without the bias of its bins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from facts import says
from scipy.special import softmax
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.statistics.confidence import calibration_error, fit_bias, fit_folds
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.linear_model import LogisticRegression

SHARES = np.array([0.6, 0.3, 0.1])


def drawn(n: int, seed: int, shares: np.ndarray = SHARES, speakers: int = 10) -> PredictionTable:
    """Scores of a uniform prior at temperature 2, of speech with other class shares."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=shares)
    # the log-likelihood of N(e_k, I) is linear in x: these scores are exact for a uniform prior
    x = rng.normal(size=(n, 3)) + np.eye(3)[labels]
    names = [f"toy/{i}" for i in rng.integers(0, speakers, n)]
    return PredictionTable([str(i) for i in range(n)], names, labels, 2 * x, ["a", "b", "c"])


def test_the_temperature_and_the_shares_are_found_again():
    found = fit_bias(drawn(20_000, 0))
    assert found.temperature == pytest.approx(2, rel=0.05)
    want = np.log(SHARES) - np.log(SHARES).mean()
    assert found.bias == pytest.approx(want, abs=0.06)


def test_two_classes_are_a_logistic_regression():
    t = drawn(400, 1, np.array([0.7, 0.3, 0]))
    t = PredictionTable(t.ids, t.speakers, t.labels, t.scores[:, :2], ["a", "b"])
    apart = (t.scores[:, 1] - t.scores[:, 0])[:, None]
    want = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(apart, t.labels)
    found = fit_bias(t, penalty=1e-9)
    assert 1 / found.temperature == pytest.approx(want.coef_[0, 0], rel=1e-3)
    assert found.bias[1] - found.bias[0] == pytest.approx(want.intercept_[0], abs=1e-3)


def test_the_probabilities_then_have_the_shares_of_the_speech():
    valid, test = drawn(3000, 2), drawn(3000, 3)
    plain = test.probabilities(valid.temperature()).mean(0)
    after = softmax(fit_bias(valid).apply(test.scores), 1).mean(0)
    assert np.abs(plain - SHARES).max() > 0.05
    assert after == pytest.approx(SHARES, abs=0.03)


def test_few_utterances_move_no_class_far():
    t = drawn(6, 4).subset([0, 1, 2])
    t.labels[:] = 0
    assert np.abs(fit_bias(t).bias).max() < 1.5
    with pytest.raises(ConfigError, match=says("penalty", 0)):
        fit_bias(t, penalty=0)


def test_a_few_utterances_that_are_all_right_have_a_temperature_near_its_end():
    t = drawn(6, 4).subset([0, 1, 2])
    t = replace(t, scores=np.eye(3), labels=np.arange(3))
    assert 0.01 <= fit_bias(t).temperature < 0.05


def folds(n: int = 3) -> tuple[dict[int, PredictionTable], dict[int, PredictionTable]]:
    """Fold k tests speaker k and validates the next one; each utterance is in both parts of two."""
    everyone = drawn(900, 8, speakers=n)
    own = [np.flatnonzero([s == f"toy/{k}" for s in everyone.speakers]) for k in range(n)]
    test = {k: everyone.subset(own[k]) for k in range(n)}
    valid = {k: replace(t, scores=1.1 * t.scores) for k, t in test.items()}
    return {k: valid[(k + 1) % n] for k in range(n)}, test


def test_a_fold_is_scaled_by_all_validation_parts_but_those_of_its_test_speakers():
    valid, test = folds()
    found = fit_folds(valid, test)
    # fold 0 tests speaker 0, whom fold 2 validates: folds 0 and 1 are left
    parts = [valid[0], valid[1]]
    rows = np.concatenate([t.scores for t in parts]), np.concatenate([t.labels for t in parts])
    names = [str(i) for i in range(len(rows[0]))]
    want = fit_bias(PredictionTable(names, [""] * len(names), rows[1], rows[0], ["a", "b", "c"]))
    assert found[0].temperature == pytest.approx(want.temperature)
    assert found[0].bias == pytest.approx(want.bias, abs=1e-5)
    assert found[0] != found[1]
    scaled = found[0].scaled(test[0])
    assert scaled.scores == pytest.approx(test[0].scores / want.temperature + want.bias, rel=1e-4)


def test_labels_of_the_tested_never_enter_their_scaling():
    valid, test = folds()
    want = fit_folds(valid, test)[0]
    valid[2] = replace(valid[2], labels=np.zeros_like(valid[2].labels))  # speaker 0
    assert fit_folds(valid, test)[0].bias.tolist() == want.bias.tolist()
    # nor if nobody knows who speaks: then the utterance is known
    unknown = [
        {k: replace(t, speakers=[""] * len(t)) for k, t in part.items()} for part in (valid, test)
    ]
    assert fit_folds(*unknown)[0].bias.tolist() == want.bias.tolist()


def test_an_utterance_that_two_folds_validate_counts_for_both():
    valid, test = folds()
    valid[1] = replace(valid[0], scores=2 * valid[0].scores)
    assert np.isfinite(fit_folds(valid, test)[0].bias).all()


def test_a_fold_without_validation_is_refused():
    valid, test = folds()
    with pytest.raises(DataError, match=says("fold 1", "validation")):
        fit_folds({0: valid[0]}, {0: test[0], 1: test[1]})
    with pytest.raises(DataError, match=says("labelled")):
        fit_folds({0: test[0]}, {0: test[0]})


def test_an_error_of_perfect_probabilities_is_zero_on_average():
    plain, squares = [], []
    for seed in range(200):
        t = drawn(240, seed, np.full(3, 1 / 3))
        t = replace(t, scores=t.scores / 2)
        plain.append(t.ece())
        squares.append(calibration_error([t]).square)
    mean, error = np.mean(squares), np.std(squares) / np.sqrt(200)
    assert abs(mean) < 3 * error < 0.0012
    assert np.mean(plain) > 0.04


def test_an_error_is_that_of_a_plain_loop():
    t = drawn(300, 5)
    p = t.probabilities()
    confidence, right = p.max(1), t.predicted == t.labels
    total = 0.0
    for part in np.array_split(np.argsort(confidence), 15):
        gap = right[part] - confidence[part]
        total += len(part) / 300 * (gap.mean() ** 2 - gap.var(ddof=1) / len(part))
    assert calibration_error([t]).square == pytest.approx(total)


def test_the_interval_leaves_out_each_speaker():
    t = drawn(2000, 6)
    found = calibration_error([t])
    assert 0 <= found.low < found.value < found.high
    # the same answers of three trainings tell no more than those of one
    assert calibration_error([t, t, t])[:4] == pytest.approx(found[:4])
    alone = calibration_error([drawn(100, 0, speakers=1)])
    assert np.isnan(alone.low)
    assert "one speaker" in alone.note


def test_unknown_speakers_count_in_the_value_and_not_in_the_interval():
    t, plain = drawn(300, 6), calibration_error([drawn(300, 6)])
    t.speakers[0] = ""
    found = calibration_error([t])
    assert found.square == pytest.approx(plain.square)
    # one utterance of 300 moves the bounds a little
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.02)
    assert "1 of 300" in found.note
    t.speakers[:150] = [""] * 150
    most = calibration_error([t])
    assert most.square == pytest.approx(plain.square)
    assert np.isnan(most.low)
    assert "no interval" in most.note


def test_most_intervals_hold_the_true_error():
    """Of a model that is sure by a known amount too much; all speakers are alike."""
    big = drawn(200_000, 7, np.full(3, 1 / 3))
    true = calibration_error([big]).square
    hits = 0
    for seed in range(200):
        found = calibration_error([drawn(600, 1000 + seed, np.full(3, 1 / 3))])
        hits += found.low**2 <= true <= found.high**2
    assert 0.88 < hits / 200 <= 1


def test_what_cannot_be_measured_is_refused():
    t = drawn(100, 0)
    with pytest.raises(DataError, match=says("no table")):
        calibration_error([])
    with pytest.raises(DataError, match=says("different speakers")):
        calibration_error([t, drawn(100, 0, speakers=1)])
    with pytest.raises(DataError, match=says("two or more")):
        calibration_error([t.subset([0])])
