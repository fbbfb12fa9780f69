"""Pooling: literal values, padding, gradients where the variance is zero, float32 in autocast."""

from __future__ import annotations

import pytest
import torch
from close import assert_like
from serzoo.heads import pooling
from serzoo.heads.pooling import (
    AttentiveStatistics,
    AttentiveStats,
    PooledEmbedding,
    PoolingName,
    build_pooling,
    weighted_stats,
)
from serzoo.zoo.core.types import Frames

NAMES: list[PoolingName] = ["mean", "stats", "attentive"]


def frames(lengths: list[int], dim: int = 5, seed: int = 0) -> Frames:
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    x = torch.randn(len(lengths), max(lengths), dim, generator=g)
    return Frames(x * mask.unsqueeze(-1), mask)


def test_weighted_stats_by_hand() -> None:
    x = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]]])
    out = weighted_stats(x, torch.tensor([[0.25, 0.75, 0.0]]))
    # mean 0.25 + 2.25, variance 0.25 * 1.5^2 + 0.75 * 0.5^2 = 0.75; the second is at the floor
    torch.testing.assert_close(out, torch.tensor([[2.5, 0.0, 0.75**0.5, 1e-5**0.5]]))


def test_weighted_stats_do_not_cancel_on_a_large_mean() -> None:
    x = 4096.0 + torch.tensor([[[-1.0], [1.0]]])
    assert weighted_stats(x, torch.full((1, 2), 0.5))[0, 1].item() == 1.0


def test_stats_pooling_equals_torch_on_each_utterance() -> None:
    f = frames([7, 2, 4])
    out = build_pooling("stats", 5)(f)
    for i, n in enumerate([7, 2, 4]):
        own = f.x[i, :n]
        want = torch.cat([own.mean(0), own.std(0, correction=0)])
        assert_like(out[i], want, digits=5)


def test_mean_pooling_is_the_first_half_of_stats() -> None:
    f = frames([7, 2, 4])
    assert_like(build_pooling("mean", 5)(f), build_pooling("stats", 5)(f)[:, :5], digits=5)


def test_attention_without_preference_is_stats_pooling() -> None:
    f, attentive = frames([7, 2, 4]), AttentiveStatistics(5)
    torch.nn.init.zeros_(attentive.attention[3].weight)  # type: ignore[arg-type]
    assert_like(attentive(f), build_pooling("stats", 5)(f), digits=5)


def test_attention_weights_are_a_distribution_over_speech() -> None:
    torch.manual_seed(0)
    f = frames([7, 1, 4])
    w = AttentiveStatistics(5).weights(f)[:, 0]
    torch.testing.assert_close(w.sum(1), torch.ones(3))
    assert not w[~f.mask].any()
    assert w[1, 0] == 1
    assert w[0].std() > 1e-3  # it does prefer some frames


@pytest.mark.parametrize("name", NAMES)
def test_width_and_dtype(name: PoolingName) -> None:
    pool, f = build_pooling(name, 5), frames([3, 6])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = pool(Frames(f.x.bfloat16(), f.mask))
    assert out.shape == (2, pool.width)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: PoolingName) -> None:
    torch.manual_seed(0)
    pool, f = build_pooling(name, 5), frames([3, 6])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pool(f)
    torch.testing.assert_close(inside, pool(f), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rubbish", [1e6, float("inf"), float("nan")])
def test_padding_may_hold_anything(name: PoolingName, rubbish: float) -> None:
    torch.manual_seed(0)
    pool, f = build_pooling(name, 5), frames([3, 6])
    x = f.x.masked_fill(~f.mask.unsqueeze(-1), rubbish).requires_grad_()
    out = pool(Frames(x, f.mask))
    assert_like(out, pool(f), digits=5)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[~f.mask].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", [False, True])
def test_gradient_is_finite_without_variance(name: PoolingName, constant: bool) -> None:
    torch.manual_seed(0)
    x = torch.full((1, 4, 5), 2.0) if constant else torch.randn(1, 1, 5)
    x.requires_grad_()
    build_pooling(name, 5)(Frames(x, torch.ones(x.shape[:2], dtype=torch.bool))).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_embedding_drops_in_training_only() -> None:
    torch.manual_seed(0)
    embed, f = PooledEmbedding(5, "stats", 0.5), frames([3, 6])
    assert (embed.train()(f) == 0).any()
    out = embed.eval()(f)
    assert out.shape == (2, embed.width) == (2, 10)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_constant_frames_give_the_numbers_and_gradients_of_those_that_learn(
    queries: int, offset: float
) -> None:
    torch.manual_seed(0)
    pool = AttentiveStatistics(16, hidden=8, queries=queries)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    f = frames([9, 1, 300], dim=16)
    shift = torch.linspace(-offset, offset, 16)  # some dimensions have a level of their own
    x = (f.x + shift) * f.mask.unsqueeze(-1)
    found = []
    for learns in (False, True):
        pool.zero_grad()
        out = pool.statistics(Frames(x.clone().requires_grad_(learns), f.mask))
        (out * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
        found.append([*out.detach().chunk(2, -1), *(p.grad.clone() for p in pool.parameters())])
    for constant, plain in zip(found[0][:2], found[1][:2], strict=True):  # means, deviations
        assert_like(constant, plain)
    # beside 100, the gradients of what differs by 1 keep two digits in float32, either way
    for constant, plain in zip(found[0][2:], found[1][2:], strict=True):
        assert (constant - plain).norm() < (0.1 if offset else 1e-4) * plain.norm()


def test_the_gradients_of_constant_statistics_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    double = {"dtype": torch.float64}
    x, mask = torch.randn(3, 5, 4, **double), torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    W, b, v = (
        torch.randn(*shape, requires_grad=True, **double) for shape in [(6, 4), (6,), (2, 6)]
    )

    def stats(*parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return AttentiveStats.apply(x, mask, *parameters, 1e-5)

    assert torch.autograd.gradcheck(stats, (W, b, v))


@pytest.mark.parametrize("name", NAMES)
def test_frames_stored_in_bfloat16_are_pooled_in_float32(name: PoolingName) -> None:
    torch.manual_seed(0)
    f = frames([9, 300], dim=64)
    stored = f.x.bfloat16()
    pool = build_pooling(name, 64)
    out = pool(Frames(stored, f.mask))
    assert out.dtype == torch.float32
    # the weights of the frames come from a product in bfloat16, the sums do not
    digits = 3 if name == "attentive" else 6
    assert_like(out, pool(Frames(stored.float(), f.mask)), digits)


def test_a_long_recording_leaves_no_memory_behind() -> None:
    pool = AttentiveStatistics(64)
    x = torch.randn(1, 64, 64)
    pool(Frames(x, torch.ones(1, 64, dtype=torch.bool)))
    kept = pooling.scratch(x.shape, torch.float32)
    long = torch.Size([1, pooling.KEPT_BYTES // 4 // 64 + 1, 64])
    assert pooling.scratch(long, torch.float32).data_ptr() != kept.data_ptr()
    assert pooling.scratch(x.shape, torch.float32).data_ptr() == kept.data_ptr()


def test_training_after_inference_mode_shares_its_memory() -> None:
    pool = AttentiveStatistics(7)
    f = frames([40, 90], dim=7)
    vars(pooling._kept).clear()
    with torch.inference_mode():
        pool(f)
    pool(f).sum().backward()
    with torch.inference_mode():
        pool(f)


@pytest.mark.parametrize("name", NAMES)
def test_speech_may_stand_anywhere(name: PoolingName) -> None:
    torch.manual_seed(0)
    pool, f = build_pooling(name, 5), frames([6, 6])
    mask = torch.tensor([[False, True, True, False, True, False], [True] * 6])
    out = pool(Frames(f.x, mask))
    alone = pool(Frames(f.x[:1, [1, 2, 4]], torch.ones(1, 3, dtype=torch.bool)))
    assert_like(out[:1], alone, digits=5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rubbish", [1e6, float("inf"), float("nan")])
def test_padding_of_constant_frames_may_hold_anything(name: PoolingName, rubbish: float) -> None:
    torch.manual_seed(0)
    pool, f = build_pooling(name, 5), frames([3, 6])
    x = f.x.masked_fill(~f.mask.unsqueeze(-1), rubbish)
    out = pool(Frames(x, f.mask))
    assert_like(out, pool(f), digits=5)
    if name == "attentive":
        out.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())
