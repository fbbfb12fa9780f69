"""Scores against the votes of raters and against dimensions, each against another library."""

from __future__ import annotations

import audmetric
import numpy as np
import pytest
import torch
from facts import says
from scipy.spatial import distance
from scipy.special import softmax
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.statistics.soft import (
    any_rater_accuracy,
    ccc,
    cosine,
    cross_entropy,
    jensen_shannon,
    shares_of,
)
from torchmetrics import ConcordanceCorrCoef

SCORES = np.random.default_rng(0).normal(size=(40, 4))
VOTES = np.random.default_rng(1).integers(0, 4, (40, 4)) + np.eye(4)[np.arange(40) % 4]


def test_shares_are_counts_over_their_sum():
    assert shares_of(np.array([[3, 1, 0], [0, 0, 2]])).tolist() == [[0.75, 0.25, 0], [0, 0, 1]]


def test_cross_entropy_is_that_of_torch():
    want = torch.nn.functional.cross_entropy(
        torch.from_numpy(SCORES), torch.from_numpy(shares_of(VOTES))
    )
    assert cross_entropy(SCORES, VOTES) == pytest.approx(want.item())


def test_jensen_shannon_is_the_square_of_scipys_distance():
    rows = zip(softmax(SCORES, 1), shares_of(VOTES), strict=True)
    want = np.mean([distance.jensenshannon(p, q, base=2) ** 2 for p, q in rows])
    assert jensen_shannon(SCORES, VOTES) == pytest.approx(want)


def test_cosine_is_one_less_scipys_distance():
    rows = zip(softmax(SCORES, 1), shares_of(VOTES), strict=True)
    want = np.mean([1 - distance.cosine(p, q) for p, q in rows])
    assert cosine(SCORES, VOTES) == pytest.approx(want)


def test_certain_answers_have_the_ends_of_each_scale():
    sure = np.array([[1e4, 0.0], [0.0, 1e4]])
    right, wrong = np.array([[5, 0], [0, 5]]), np.array([[0, 5], [5, 0]])
    assert jensen_shannon(sure, right) == cross_entropy(sure, right) == 0
    assert jensen_shannon(sure, wrong) == 1
    assert cosine(sure, right) == 1
    assert cosine(sure, wrong) == 0


def test_an_answer_of_one_rater_is_right():
    scores = np.array([[2.0, 1, 0], [2.0, 1, 0], [0, 1, 2.0]])
    votes = np.array([[1, 9, 0], [0, 9, 1], [0, 0, 1]])
    assert any_rater_accuracy(scores, votes) == pytest.approx(2 / 3)


def test_ccc_is_that_of_audmetric_and_torchmetrics():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(50, 2))
    x = 0.5 * y + 0.3 + rng.normal(scale=0.4, size=(50, 2))
    found = ccc(x, y)
    want = [audmetric.concordance_cc(y[:, i], x[:, i]) for i in (0, 1)]
    assert found == pytest.approx(want)
    # it divides variances by N - 1
    other = ConcordanceCorrCoef(num_outputs=2)(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(other.numpy(), abs=0.002)
    assert ccc(y, y) == pytest.approx([1, 1])
    # by hand: means 2 and 3, variances 2/3, covariance 2/3: 2 * 2/3 / (4/3 + 1)
    assert ccc(np.array([[1.0], [2], [3]]), np.array([[2.0], [3], [4]])) == pytest.approx(4 / 7)
    assert np.isnan(ccc(np.ones((3, 1)), np.ones((3, 1)))).all()


@pytest.mark.parametrize(
    ("votes", "facts"),
    [
        (np.zeros((40, 4)), ("40 of 40", "row 0")),
        (np.where(np.arange(40)[:, None] == 7, -1, 1) * np.ones((40, 4)), ("1 of 40", "row 7")),
        (np.ones((40, 3)), ("(40, 4)", "(40, 3)")),
        (np.ones(40), ("(40,)",)),
    ],
)
def test_votes_that_cannot_be_used_are_refused(votes, facts):
    with pytest.raises(DataError, match=says(*facts)):
        cross_entropy(SCORES, votes)


def test_dimensions_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match=says("(3, 1)", "(2, 1)")):
        ccc(np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(DataError, match=says("not finite")):
        ccc(np.full((3, 1), np.nan), np.ones((3, 1)))
