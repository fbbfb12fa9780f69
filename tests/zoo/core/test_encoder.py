from __future__ import annotations

import pytest
import torch
from serzoo.zoo.core.encoder import LayerMix


def test_one_layer_is_passed_on_and_has_nothing_to_learn():
    mix = LayerMix([4])
    hidden = torch.randn(2, 1, 5, 3)
    assert torch.equal(mix(hidden), hidden[:, 0])
    assert list(mix.parameters()) == []
    assert mix.weights() == {}


def test_starts_as_the_mean_of_the_layers():
    hidden = torch.randn(2, 4, 5, 3)
    assert torch.allclose(LayerMix([0, 1, 2, 3])(hidden), hidden.mean(1), atol=1e-6)


def test_weights_are_a_softmax_named_by_layer():
    mix = LayerMix([2, 7])
    with torch.no_grad():
        mix.logits.copy_(torch.tensor([3.0, 1.0]).log())
    hidden = torch.randn(2, 2, 5, 3)
    assert torch.allclose(mix(hidden), 0.75 * hidden[:, 0] + 0.25 * hidden[:, 1], atol=1e-6)
    assert mix.weights() == {"layer_02": pytest.approx(0.75), "layer_07": pytest.approx(0.25)}


def test_concatenated_layers_stand_side_by_side_and_nothing_learns():
    mix = LayerMix([2, 4, 7], "concat")
    hidden = torch.arange(60.0, dtype=torch.bfloat16).view(2, 3, 5, 2)
    joined = mix(hidden)
    assert joined.dtype == torch.bfloat16
    assert joined.shape == (2, 5, 6)
    assert torch.equal(joined, torch.cat([hidden[:, 0], hidden[:, 1], hidden[:, 2]], -1))
    assert list(mix.parameters()) == []
    assert mix.weights() == {}
    assert torch.equal(LayerMix([4], "concat")(hidden[:, :1]), hidden[:, 0])


def test_learns_which_layer_matters():
    mix = LayerMix([0, 1, 2])
    hidden = torch.randn(4, 3, 6, 2, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.SGD(mix.parameters(), lr=5.0)
    for _ in range(50):
        optimiser.zero_grad()
        (mix(hidden) - hidden[:, 1]).square().mean().backward()
        optimiser.step()
    assert mix.weights()["layer_01"] > 0.9


def test_state_goes_through_a_state_dict():
    mix, other = LayerMix([0, 1]), LayerMix([0, 1])
    with torch.no_grad():
        mix.logits.copy_(torch.tensor([0.3, -1.2]))
    other.load_state_dict(mix.state_dict())
    assert other.weights() == mix.weights()
