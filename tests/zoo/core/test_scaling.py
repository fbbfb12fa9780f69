"""Frames of a steady encoder are standardised by the training part, the same for every head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from close import assert_like
from serzoo.datamodules.features import statistics
from serzoo.zoo.core.scaling import FrameStatistics, Standardiser, moments_of
from serzoo.zoo.core.types import Frames

LENGTHS = [3, 1, 5, 2, 4]


def frames(rows: list[np.ndarray]) -> Frames:
    """Return a padded batch; the padding holds numbers that must not count."""
    longest = max(map(len, rows))
    x = torch.full((len(rows), longest, rows[0].shape[1]), 77.0)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        x[i, : len(row)], mask[i, : len(row)] = torch.from_numpy(row), True
    return Frames(x, mask)


@pytest.fixture
def rows() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(100 + 3 * rng.normal(size=(n, 4))).astype("float32") for n in LENGTHS]


def test_statistics_are_those_of_each_utterance_alone(rows):
    found = FrameStatistics.of([frames(rows[:2]), frames(rows[2:])])
    vectors = np.stack([np.concatenate([r.mean(0), r.std(0)]) for r in rows]).astype("float64")
    assert found.utterances == 5
    assert_like(found.location, vectors.mean(0).astype("float32"))
    assert_like(found.deviation, vectors.std(0).astype("float32"))


def test_order_and_batches_change_nothing(rows):
    one = FrameStatistics.of([frames(rows)])
    other = FrameStatistics.of([frames([row]) for row in reversed(rows)])
    assert_like(one.location, other.location, 6)
    assert_like(one.deviation, other.deviation, 5)


def test_no_utterance_cannot_be_measured():
    with pytest.raises(ValueError, match="no utterance"):
        FrameStatistics.of([])


def test_a_standardiser_changes_nothing_until_it_is_fitted(rows):
    scale = Standardiser(4)
    x = torch.from_numpy(rows[0])
    assert torch.equal(scale(x), x)
    scale.fit(FrameStatistics.of([frames(rows)]))
    means = torch.stack([torch.from_numpy(r.mean(0)) for r in rows])
    assert_like(scale(means).mean(0) + 1, torch.ones(4))
    assert_like(scale(means).std(0, correction=0), torch.ones(4))


@pytest.mark.parametrize("rows", [[np.ones((3, 1), "float32")] * 4, [np.eye(1, dtype="float32")]])
def test_a_dimension_that_never_varied_is_not_blown_up(rows):
    scale = Standardiser(2)
    scale.fit(FrameStatistics.of([frames(rows)]))
    assert_like(scale(torch.tensor([[1.25, 0.5]])), torch.tensor([[0.25, 0.5]]))


def test_a_saved_standardiser_is_fitted(rows):
    scale, again = Standardiser(8), Standardiser(8)
    scale.fit(FrameStatistics.of([frames(rows)]))
    again.load_state_dict(scale.state_dict())
    assert bool(again.fitted)
    assert torch.equal(again(torch.ones(1, 8)), scale(torch.ones(1, 8)))


@pytest.mark.parametrize("length", [2, 7])
@pytest.mark.parametrize("rubbish", [77.0, float("nan")])
def test_moments_are_of_the_frames_of_speech_alone(length: int, rubbish: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(3, length, 4, generator=g)
    for heard in ([True] * length, [True, False] + [True] * (length - 2)):
        mask = torch.tensor([[True] * length, heard, [True] + [False] * (length - 1)])
        given = Frames(x.masked_fill(~mask.unsqueeze(-1), rubbish), mask)
        for dtype, digits in ((torch.float32, 3), (torch.float64, 9)):
            mean, variance = moments_of(given, dtype)
            assert mean.dtype == variance.dtype == dtype
            for i in range(3):
                rows = x[i][mask[i]].double().numpy()
                assert_like(mean[i].double(), rows.mean(0), digits)
                assert_like(variance[i].double() + 1, rows.var(0) + 1, digits)


def test_two_vectors_have_the_moments_of_all_frames(rows) -> None:
    mean, variance = moments_of(frames(rows))
    two = torch.cat([statistics(torch.from_numpy(row)[None]) for row in rows])
    again = moments_of(Frames(two, torch.ones(5, 2, dtype=torch.bool)))
    assert_like(again[0], mean, 6)
    assert_like(again[1].sqrt() + 1, variance.sqrt() + 1, 4)
