"""Codes that learn first and then stay."""

from __future__ import annotations

import torch
from close import assert_like
from serzoo.heads.gen_ser.codes import similarity
from small_gen_ser import CASE, head
from torch import nn


def test_learned_codes_follow_their_prototypes_and_then_stay() -> None:
    h = head(codes="learned", code_steps=2, decision="gram").train()
    frames, targets = CASE.frames(), CASE.targets()
    learned = h.learned
    assert learned is not None
    losses = []
    for step in range(4):
        before = learned.prototypes.detach().clone()
        h.zero_grad()
        torch.manual_seed(step)
        h.loss(frames, targets).loss.backward()
        losses.append(learned.prototypes.grad)
        codes = h.get_buffer("codes")
        torch.testing.assert_close(codes.norm(dim=1), torch.full((5,), 4.0))
        if step < 2:
            torch.testing.assert_close(codes, 4 * nn.functional.normalize(before, dim=-1))
            kept = codes.clone()
        else:
            assert torch.equal(codes, kept)
        assert_like(h.get_buffer("dual") @ codes.T, torch.eye(5), digits=5)
        with torch.no_grad():
            learned.prototypes += torch.randn(5, 32)
    assert [bool(g.any()) for g in losses if g is not None] == [True, True, False, False]


def test_learning_codes_adds_a_cross_entropy_and_goes_on_from_its_state() -> None:
    h, plain = head(codes="learned"), head(codes="orthogonal")
    frames, targets = CASE.frames(), CASE.targets()
    learned = h.learned
    assert learned is not None
    torch.testing.assert_close(h.get_buffer("codes"), plain.get_buffer("codes"))
    torch.manual_seed(1)
    with_codes = h.loss(frames, targets).loss
    torch.manual_seed(1)
    without = plain.loss(frames, targets).loss
    cosine = similarity("cosine", plain.source(frames), plain.get_buffer("codes"))
    assert_like(
        with_codes, without + nn.functional.cross_entropy(cosine, torch.arange(4)), digits=5
    )
    assert learned.seen == 0  # evaluation does not count
    h.train().loss(frames, targets)
    other = head(codes="learned")
    other.load_state_dict(h.state_dict())
    assert other.learned is not None
    assert other.learned.seen == 1
