"""Where the path begins: statistics of the data, and states of utterances and of frames."""

from __future__ import annotations

import math

import pytest
import torch
from close import assert_like
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.heads.gen_ser.state import FrameState, Standardise, UtteranceState, masked_mean
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.testing import Case

CASE = Case(GenSERHead, 12)


def test_statistics_equal_those_of_all_data_at_once_far_from_zero() -> None:
    g = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 10.0, 0.1])
    x = 1000 + scale * torch.randn(997, 3, generator=g)
    s = Standardise(3)
    for part in x.split([1, 2, 300, 5, 689]):
        s.add(part, torch.ones(len(part), dtype=torch.bool))
    wide = x.double()
    assert_like(s.mean.double(), wide.mean(0), digits=6)
    variance = (s.squares / s.count).double()
    torch.testing.assert_close(variance, wide.var(0, correction=0), rtol=1e-3, atol=0)
    got = s(x)
    torch.testing.assert_close(got.mean(0), torch.zeros(3), atol=5e-3, rtol=0)
    torch.testing.assert_close(got.std(0)[:2], torch.ones(2), atol=2e-3, rtol=0)


def test_vectors_without_a_label_do_not_count_whatever_they_hold() -> None:
    s, t = Standardise(2), Standardise(2)
    x = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf], [3.0, -2.0]])
    s.add(x, torch.tensor([True, False, True]))
    t.add(x[[0, 2]], torch.tensor([True, True]))
    assert s.count == 2
    assert torch.equal(s.mean, torch.tensor([2.0, 0.0]))
    assert torch.equal(s.squares, torch.tensor([2.0, 8.0]))
    assert torch.equal(s.squares, t.squares)
    s.add(x, torch.zeros(3, dtype=torch.bool))
    assert s.count == 2
    assert torch.equal(s.mean, t.mean)


def test_nothing_seen_changes_nothing() -> None:
    x = torch.randn(4, 2)
    torch.testing.assert_close(Standardise(2)(x), x, atol=1e-4, rtol=1e-4)


def test_training_and_evaluation_use_one_formula() -> None:
    state = UtteranceState(12, "mean", 0.0, standardise=True)
    frames, labelled = CASE.frames(), torch.tensor([True, True, True, False])
    trained = state.train()(frames, labelled)
    pooled = frames.mean()
    mean, variance = pooled[:3].mean(0), pooled[:3].var(0, correction=0)
    assert_like(trained, (pooled - mean) / (variance + 1e-5).sqrt(), digits=5)
    evaluated = state.eval()(frames, labelled)
    assert torch.equal(evaluated, trained)
    assert state.statistics is not None
    assert state.statistics.count == 3  # evaluation adds nothing


def test_frames_are_counted_where_there_is_speech() -> None:
    state = FrameState(12, 0.0, standardise=True).train()
    frames, labelled = CASE.frames(), torch.tensor([True, True, False, True])
    rubbish = torch.where(frames.mask.unsqueeze(-1), frames.x, torch.nan)
    got = state(Frames(rubbish, frames.mask), labelled)
    assert got.isfinite().all()
    kept = frames.x[frames.mask & labelled.unsqueeze(1)]
    assert state.statistics is not None
    assert state.statistics.count == len(kept) == 16
    assert_like(state.statistics.mean, kept.mean(0), digits=5)
    assert_like(state.statistics.squares / 16, kept.var(0, correction=0), digits=5)


def test_processes_share_their_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(10, 3)
    whole, ranks = Standardise(3), [Standardise(3), Standardise(3)]
    whole.add(x, torch.ones(10, dtype=torch.bool))
    parts, kept = x.split([7, 3]), [torch.ones(n, dtype=torch.bool) for n in (7, 3)]
    sums = [torch.cat([torch.tensor([float(len(p))]), p.sum(0)]) for p in parts]
    centre = x.mean(0)
    squares = [(p - centre).square().sum(0) for p in parts]
    for rank in range(2):
        others = iter([sums[1 - rank], squares[1 - rank]])
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(
            torch.distributed, "all_reduce", lambda t, others=others: t.add_(next(others))
        )
        ranks[rank].add(parts[rank], kept[rank])
        for name in ("count", "mean", "squares"):
            assert_like(getattr(ranks[rank], name), getattr(whole, name), digits=5)


def test_without_a_projection_the_source_is_the_standardised_pooled_vector() -> None:
    torch.manual_seed(0)
    h = GenSERHead(
        12, CASE.taxonomy, pooling="mean", projection=False, code_dim=12, standardise=True,
        dropout=0.0,
    )  # fmt: skip
    frames = CASE.frames()
    h.train().loss(frames, Targets(torch.eye(5)[:4], torch.ones(4)))
    x_1, pooled = h.source(frames), frames.mean()
    want = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()
    assert_like(x_1, want * math.sqrt(0.5), digits=5)
    # the root mean square of the codes, over the data
    assert x_1.square().mean().item() == pytest.approx(0.5, abs=1e-3)
    assert "project.weight" not in h.state_dict()


def test_masked_mean() -> None:
    x = torch.tensor([[[1.0], [3.0], [torch.nan]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert masked_mean(x, mask).tolist() == [[2.0], [7.0]]
    assert torch.equal(masked_mean(x.expand(4, -1, -1, -1), mask)[3], torch.tensor([[2.0], [7.0]]))
    assert masked_mean(x, None) is x
