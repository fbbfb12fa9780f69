"""Mixup of encoder inputs: what is mixed, by how much, and what must be left alone."""

import torch
from serzoo.zoo.core.types import Targets
from serzoo.zoo.run.optim import mix
from torch import nn


def mixable(size=64):
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (size,), generator=g)
    mask = torch.arange(6) < lengths[:, None]
    hidden = torch.randn(size, 1, 6, 3, generator=g) * mask[:, None, :, None]
    labels = torch.randint(3, (size,), generator=g)
    weight = torch.rand(size, generator=g) + 0.5
    return hidden, mask, Targets(nn.functional.one_hot(labels, 3).float(), weight)


def test_a_share_of_one_leaves_everything_alone(monkeypatch):
    monkeypatch.setattr(
        torch.distributions.Beta, "sample", lambda self, shape: torch.ones(shape), raising=True
    )
    hidden, mask, targets = mixable()
    mixed, mixed_targets, _ = mix(hidden, mask, targets, 0.3)
    assert torch.equal(mixed, hidden)
    assert torch.equal(mixed_targets.probs, targets.probs)
    assert torch.equal(mixed_targets.weight, targets.weight)


def test_mixed_targets_are_distributions_with_the_own_class_ahead():
    torch.manual_seed(0)
    hidden, mask, targets = mixable()
    mixed, mixed_targets, _ = mix(hidden, mask, targets, 0.5)
    assert torch.allclose(mixed_targets.probs.sum(1), torch.ones(64))
    own = mixed_targets.probs[targets.probs.bool()]
    assert (own >= 0.5).all()
    changed = (mixed != hidden).flatten(1).any(1)
    assert 10 < changed.sum() < 50  # about half, with partners and shares that show
    assert not mixed[~mask[:, None, :, None].expand_as(mixed)].any()


def test_inputs_and_targets_are_mixed_by_the_same_share():
    torch.manual_seed(1)
    mask = torch.ones(32, 4, dtype=torch.bool)
    # constant utterances, whose level says who they are: 0 or 1, like their class
    labels = torch.arange(32) % 2
    hidden = labels.float()[:, None, None, None].expand(32, 1, 4, 2).clone()
    targets = Targets(nn.functional.one_hot(labels, 2).float(), torch.ones(32))
    mixed, mixed_targets, _ = mix(hidden, mask, targets, 0.5)
    assert torch.allclose(mixed[:, 0, 0, 0], mixed_targets.probs[:, 1], atol=1e-6)
    assert len(set(mixed_targets.probs[:, 1].tolist())) > 4


def test_unlabelled_utterances_are_neither_mixed_nor_mixed_in():
    torch.manual_seed(0)
    hidden, mask, targets = mixable()
    unlabelled = torch.arange(64) % 2 == 0
    probs = targets.probs.masked_fill(unlabelled[:, None], 0.0)
    hidden[unlabelled] = 1e9  # a trace of it would show
    mixed, mixed_targets, _ = mix(hidden, mask, Targets(probs, targets.weight), 0.5)
    assert torch.equal(mixed_targets.probs[unlabelled], probs[unlabelled])
    assert torch.equal(mixed_targets.weight[unlabelled], targets.weight[unlabelled])
    assert torch.allclose(mixed_targets.probs[~unlabelled].sum(1), torch.ones(32))
    labelled = mixed[~unlabelled][mask[~unlabelled][:, None, :, None].expand(-1, 1, -1, 3)]
    assert labelled.abs().max() < 10


def test_the_partner_is_read_over_the_whole_length(monkeypatch):
    monkeypatch.setattr(
        torch.distributions.Beta, "sample", lambda self, shape: torch.full(shape, 0.5)
    )
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.tensor([1, 0]))
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.zeros(2))
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    hidden = torch.tensor([[10.0, 10, 10, 10, 10, 10], [0, 1, 2, 0, 0, 0]])[:, None, :, None]
    targets = Targets(torch.eye(2), torch.ones(2))
    mixed, _, _ = mix(hidden, mask, targets, 0.5)
    assert mixed[0, 0, :, 0].tolist() == [5, 5, 5.5, 5.5, 6, 6]
    assert mixed[1, 0, :, 0].tolist() == [5, 5.5, 6, 0, 0, 0]
