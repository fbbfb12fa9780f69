"""The comparison that numeric tests use fails when it should."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from close import assert_like, assert_ranked_alike, decided

LARGE = torch.tensor([[-50.0, 0.001], [3.0, 20.0]])
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_bound_follows_the_largest_number_of_the_whole_tensor(scale: float) -> None:
    a, near, far = LARGE.double(), LARGE.double(), LARGE.double()
    near[0, 1] += 0.0049  # four digits of 50; several times the number itself
    far[0, 1] += 0.0051
    assert_like(near * scale, a * scale)
    assert_like(a * scale, near * scale)
    for one, two in ((far, a), (a, far)):
        with pytest.raises(AssertionError, match=r"1 of 4 .* 4 digits .* \(0, 1\)"):
            assert_like(one * scale, two * scale)
    with pytest.raises(AssertionError, match="5 digits"):
        assert_like(near * scale, a * scale, digits=5)


@pytest.mark.parametrize(
    ("actual", "expected", "said"),
    [
        (LARGE, LARGE[0], "(2, 2), expected (2,)"),  # which broadcast
        (LARGE, LARGE[:1], "(2, 2), expected (1, 2)"),
        (LARGE, LARGE.double(), "torch.float32, expected torch.float64"),
        (np.float32([1, 2]), np.float64([1, 2]), "torch.float32, expected torch.float64"),
        (LARGE[:0], LARGE[:0], "nothing to compare"),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), "NaN in (1,)"),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, NAN]), "NaN in (1,)"),
        (torch.tensor([1.0, INF]), torch.tensor([1.0, -INF]), "differ in (1,)"),
        (torch.tensor([1.0, INF]), torch.tensor([1.0, 1e9]), "differ in (1,)"),
        (torch.zeros(3), torch.full((3,), 1e-9), "3 of 3"),
    ],
)
def test_what_is_not_alike_is_told(actual: object, expected: object, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        assert_like(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (torch.zeros(3), torch.zeros(3)),
        (torch.tensor([1.0, -INF]), torch.tensor([1.00005, -INF])),
        (torch.full((2,), INF), torch.full((2,), INF)),
        (torch.tensor([1.0, 2.0], requires_grad=True), [1, 2]),
        (np.float32([[1, 2]]), [[1, 2]]),
        (3.0001, 3.0),
        ([torch.tensor(1.0), torch.tensor(2.0)], [1.0, 2.0]),
    ],
)
def test_what_is_alike_passes(actual: object, expected: object) -> None:
    assert_like(actual, expected)


def test_only_clear_decisions_are_compared() -> None:
    scores = torch.tensor([[-50.0, -50.001, -80.0], [1.0, 2.0, 0.0]])
    assert decided(scores).tolist() == [False, True]
    assert decided(scores, digits=5).tolist() == [True, True]
    scores = torch.arange(40.0).view(10, 4)
    scores[0, 1] = 1e-5
    turned = scores.clone()
    turned[0, :2] = scores[0, [1, 0]]
    assert_ranked_alike(turned, scores)
    with pytest.raises(AssertionError, match="1 of 10 rows"):
        assert_ranked_alike(turned, scores, digits=9)
    with pytest.raises(AssertionError, match="1 of 10 rows"):
        assert_ranked_alike(scores.index_fill(0, torch.tensor([3]), 0.0), scores)
    with pytest.raises(AssertionError, match="30 of 30 are near ties"):
        assert_ranked_alike(scores, torch.ones(10, 4))
