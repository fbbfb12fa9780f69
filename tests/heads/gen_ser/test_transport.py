"""The transformer over frames: time, attention and padding."""

from __future__ import annotations

import torch
from close import assert_like
from serzoo.heads.gen_ser.networks import (
    ATTENTION_HEADS,
    TransportNetwork,
    TransportTransformer,
)


def network() -> TransportTransformer:
    torch.manual_seed(0)
    return TransportTransformer(8, 16, 2, 0.0).eval()


def test_frames_see_each_other_but_not_padding() -> None:
    f, x, t = network(), torch.randn(2, 6, 8), torch.tensor([0.3, 0.8])
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    base = f(x, x, t, mask)
    assert base.shape == (2, 6, 8)
    padded = x.clone()
    padded[0, 4:] = 100.0
    assert_like(f(padded, padded, t, mask)[0, :4], base[0, :4], digits=5)
    assert_like(f(x[:1, :4], x[:1, :4], t[:1], mask[:1, :4])[0], base[0, :4], digits=5)
    other = x.clone()
    other[0, 3] += 1.0
    assert (f(other, x, t, mask)[0, 0] - base[0, 0]).abs().max() > 1e-4
    assert torch.equal(f(other, x, t, mask)[1], base[1])


def test_draws_and_utterances_are_independent() -> None:
    f, x, t = network(), torch.randn(3, 2, 5, 8), torch.rand(3, 2)
    x_1, mask = torch.randn(2, 5, 8), torch.arange(5) < torch.tensor([[5], [2]])
    whole = f(x, x_1.expand_as(x), t, mask)
    assert whole.shape == x.shape
    for m in range(3):
        assert_like(f(x[m], x_1, t[m], mask), whole[m], digits=5)


def test_the_order_of_frames_does_not_matter() -> None:
    f, x, t = network(), torch.randn(1, 5, 8), torch.tensor([0.5])
    order = [3, 0, 4, 1, 2]
    assert_like(f(x[:, order], x[:, order], t), f(x, x, t)[:, order], digits=5)


def test_it_uses_state_source_and_time() -> None:
    f, x, y, t = network(), torch.randn(1, 5, 8), torch.randn(1, 5, 8), torch.tensor([0.5])
    base = f(x, y, t)
    for other in (f(x + 1, y, t), f(x, y + 1, t), f(x, y, t + 0.05)):
        assert (other - base).abs().max() > 1e-3


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    f = TransportTransformer(8, 16, 1, 0.0).eval()
    x, t = torch.randn(1, 3, 8), torch.tensor([0.4])
    angle = 100 * t[:, None] * f.get_buffer("omega")
    a, b, c, d = f.modulations[0](f.time(torch.cat([angle.sin(), angle.cos()], -1))).chunk(4, -1)
    norm = lambda h: torch.nn.functional.layer_norm(h, (16,))  # noqa: E731
    h = f.enter(torch.cat([x, x], -1))[0]
    q, k, v = (f.mixers[0](norm(h) * (1 + a) + b)).chunk(3, -1)
    size = 16 // ATTENTION_HEADS
    found = [
        (q[:, i : i + size] @ k[:, i : i + size].T / size**0.5).softmax(-1) @ v[:, i : i + size]
        for i in range(0, 16, size)
    ]
    h = h + f.mixed[0](torch.cat(found, -1))
    h = h + f.blocks[0](norm(h) * (1 + c) + d)
    assert_like(f(x, x, t)[0], f.leave(h), digits=5)


def test_the_mlp_gives_every_frame_the_time_of_its_utterance() -> None:
    torch.manual_seed(0)
    f = TransportNetwork(8, 16, 2, 0.0)
    x, t = torch.randn(3, 2, 5, 8), torch.rand(3, 2)
    got = f(x, x, t)
    assert_like(got[1, 0, 3], f(x[1, 0, 3], x[1, 0, 3], t[1, 0]), digits=5)
