"""Decisions: where they rank alike, and what the inverse Gram matrix mends."""

from __future__ import annotations

import warnings

import pytest
import torch
from close import assert_ranked_alike
from serzoo.heads.gen_ser.codes import similarity, sinusoidal_codes
from small_gen_ser import CASE, head
from torch import nn


def test_cosine_dot_product_and_distance_decide_alike() -> None:
    h = head()
    frames = CASE.frames([5] * 64)
    generated, codes = h.estimate(h.source(frames)), h.get_buffer("codes")
    scores = h.scores(frames, CASE.taxonomy)
    assert_ranked_alike(generated @ codes.T, scores)
    assert_ranked_alike(-torch.cdist(generated, codes), scores)
    assert len(scores.argmax(1).unique()) > 1


def test_all_decisions_rank_alike_where_theory_says_so() -> None:
    frames = CASE.frames([5] * 64)
    cosine, nearest, gram = (
        head(decision=d).scores(frames, CASE.taxonomy) for d in ("cosine", "nearest", "gram")
    )
    assert_ranked_alike(nearest, cosine)
    with pytest.raises(AssertionError, match="in another order"):  # cosines of 0.16 do matter
        assert_ranked_alike(gram, cosine)
    cosine, nearest, gram = (
        head(decision=d, codes="orthogonal").scores(frames, CASE.taxonomy)
        for d in ("cosine", "nearest", "gram")
    )
    assert_ranked_alike(nearest, cosine)
    assert_ranked_alike(gram, cosine)


def test_nearest_differs_from_cosine_by_a_constant_for_estimates_of_the_codes_norm() -> None:
    codes = sinusoidal_codes(5, 32)
    x = 4 * nn.functional.normalize(torch.randn(7, 32), dim=-1)  # sqrt(32 / 2)
    gap = similarity("cosine", x, codes) - similarity("nearest", x, codes)
    torch.testing.assert_close(gap, torch.full((7, 5), 5.0), atol=1e-4, rtol=0)


def test_the_gram_decision_recovers_the_likeliest_class_of_a_posterior_mean() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to warn of
        h = head(decision="gram", spacing=1.0)
    g = torch.Generator().manual_seed(0)
    p = torch.randn(500, 5, generator=g).square()
    p = p / p.sum(1, keepdim=True)
    codes = h.get_buffer("codes")
    mean = p @ codes
    assert (similarity("cosine", mean, codes).argmax(1) != p.argmax(1)).float().mean() > 0.4
    right = (similarity("gram", mean, h.get_buffer("dual")).argmax(1) == p.argmax(1)).float()
    assert right.mean() > 0.99
