"""The front end by matrix products, and by convolutions, against the plain modules."""

from __future__ import annotations

import copy

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.encoders import convolutions as front_end
from serzoo.zoo.encoders.convolutions import ConvFrontEnd
from tiny_models import CONVOLVED
from transformers import AutoModel

LENGTHS = [3000, 400, 9000, 719, 720, 2407]


@pytest.fixture
def extractor(tiny_hf):
    """``extractor(family, norm)``: the published modules, frozen, in evaluation mode."""

    def build(family: str = "wav2vec2", norm: str = "group", **options):
        model = AutoModel.from_pretrained(tiny_hf(family, norm, **options)).eval()
        return model.feature_extractor.requires_grad_(False)

    return build


def speech(lengths=LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """Coloured noise with an offset, zeros behind it: no window has mean zero or is white."""
    torch.manual_seed(1)
    samples = torch.zeros(len(lengths), max(lengths))
    for row, n in zip(samples, lengths, strict=True):
        row[:n] = 0.1 + torch.randn(n + 3).unfold(0, 4, 1).mean(1)
    return samples, torch.tensor(lengths)


def alone(modules, samples, lengths) -> list[torch.Tensor]:
    """``[T_i, C]`` of the plain modules, each utterance by itself."""
    return [modules(x[None, :n])[0].T for x, n in zip(samples, lengths.tolist(), strict=True)]


def assert_same(frames, expected) -> None:
    """Equal on the real frames; behind them there must be zeros."""
    assert all(frame[len(e) :].abs().sum() == 0 for frame, e in zip(frames, expected, strict=True))
    real = [frame[: len(e)] for frame, e in zip(frames, expected, strict=True)]
    assert_like(torch.cat(real), torch.cat(expected))


def by_convolutions(front, samples, lengths, dtype=torch.float32):
    return front._by_convolutions(samples, lengths, dtype)


@pytest.mark.parametrize("way", [ConvFrontEnd.__call__, by_convolutions])
@pytest.mark.parametrize(("family", "norm"), CONVOLVED)
def test_the_frames_of_the_plain_modules(extractor, monkeypatch, family, norm, way):
    monkeypatch.setattr(front_end, "PIECE", 4)  # 9000 samples are 27 frames
    modules = extractor(family, norm)
    samples, lengths = speech()
    expected = alone(modules, samples, lengths)
    frames = way(ConvFrontEnd(modules), samples, lengths, torch.float32)
    assert frames.shape == (6, 27, 16)
    assert_same(frames, expected)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_bias_in_the_convolutions(extractor, norm):
    modules = extractor(norm=norm, conv_bias=True)
    samples, lengths = speech()
    expected = alone(modules, samples, lengths)
    for way in (ConvFrontEnd.__call__, by_convolutions):
        frames = way(ConvFrontEnd(modules), samples, lengths, torch.float32)
        assert_same(frames, expected)


def test_what_lies_behind_the_longest_utterance_changes_nothing(extractor):
    front = ConvFrontEnd(extractor())
    samples, lengths = speech()
    wider = torch.nn.functional.pad(samples, (0, 2000))
    frames = front(wider, lengths, torch.float32)
    assert torch.equal(frames[:, :27], front(samples, lengths, torch.float32))
    assert frames.shape[1] == 34
    assert frames[:, 27:].abs().sum() == 0


def test_silence_is_finite(extractor):
    modules = extractor()
    samples, lengths = torch.zeros(1, 800), torch.tensor([800])
    frames = ConvFrontEnd(modules)(samples, lengths, torch.float32)
    assert_same(frames, alone(modules, samples, lengths))


@pytest.mark.parametrize(("family", "norm"), [("wav2vec2", "group"), ("wav2vec2", "layer")])
def test_gradients_are_those_of_the_plain_modules(extractor, family, norm):
    modules = extractor(family, norm, conv_bias=norm == "layer").requires_grad_(True)
    samples, lengths = speech()
    torch.manual_seed(2)
    expected = alone(modules, samples, lengths)
    weights = [torch.randn_like(e) for e in expected]

    def gradients(frames) -> list[torch.Tensor]:
        loss = sum((f[: len(w)] * w).sum() for f, w in zip(frames, weights, strict=True))
        return torch.autograd.grad(loss, list(modules.parameters()))

    frames = ConvFrontEnd(modules)(samples, lengths, torch.float32)
    assert_same(frames, expected)
    for ours, plain in zip(gradients(frames), gradients(expected), strict=True):
        assert (ours - plain).norm() < 1e-4 * plain.norm()
        assert plain.norm() > 0


@pytest.mark.parametrize(("family", "norm"), CONVOLVED)
def test_bfloat16_is_close_and_both_ways_agree(extractor, family, norm):
    modules = extractor(family, norm)
    samples, lengths = speech()
    expected = torch.cat(alone(modules, samples, lengths))
    front = ConvFrontEnd(copy.deepcopy(modules).bfloat16())  # as a bfloat16 encoder holds it
    counts = front.frame_counts(lengths).tolist()
    bound = 3e-3 * len(front.layers)  # every layer rounds: 7 of them, and 13 in SEW
    for way in (ConvFrontEnd.__call__, by_convolutions):
        frames = way(front, samples, lengths, torch.bfloat16)
        assert frames.dtype == torch.bfloat16
        real = torch.cat([f[:n] for f, n in zip(frames, counts, strict=True)]).float()
        assert (real - expected).norm() < bound * expected.norm()


def test_autocast_does_not_touch_it(extractor):
    front = ConvFrontEnd(extractor())
    samples, lengths = speech()
    plain = front(samples, lengths, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front(samples, lengths, torch.float32), plain)


def change_in_place(modules):
    with torch.no_grad():
        modules.conv_layers[3].conv.weight.mul_(1.5)


def change_by_loading(modules):
    state = {k: 1.5 * v if "conv.weight" in k else v for k, v in modules.state_dict().items()}
    modules.load_state_dict(state)


def change_by_replacing(modules):
    conv = modules.conv_layers[3].conv
    conv.weight = torch.nn.Parameter(1.5 * conv.weight, requires_grad=False)


def change_the_storage(modules):
    modules.conv_layers[3].conv.weight.data = 1.5 * modules.conv_layers[3].conv.weight.data


def change_the_norm(modules):
    with torch.no_grad():
        modules.conv_layers[0].layer_norm.weight.mul_(1.5)


@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_by_loading,
        change_by_replacing,
        change_the_storage,
        change_the_norm,
    ],
)
def test_changed_weights_are_noticed(extractor, change):
    modules = extractor()
    front = ConvFrontEnd(modules)
    samples, lengths = speech()
    before = front(samples, lengths, torch.float32)
    change(modules)
    after = front(samples, lengths, torch.float32)
    assert_same(after, alone(modules, samples, lengths))
    assert (after - before).norm() > 0.05 * before.norm()


def test_matrices_are_made_once(extractor):
    front = ConvFrontEnd(extractor())
    samples, lengths = speech()
    front(samples, lengths, torch.float32)
    kept = front._matrices(torch.float32)
    front(samples, lengths, torch.float32)
    assert front._matrices(torch.float32) is kept


def test_a_copy_follows_its_own_weights(extractor):
    modules = extractor()
    modules.front = ConvFrontEnd(modules)  # as an encoder holds one
    samples, lengths = speech()
    before = modules.front(samples, lengths, torch.float32)
    keys = list(modules.state_dict())
    twin = copy.deepcopy(modules)
    change_in_place(twin)
    assert_same(twin.front(samples, lengths, torch.float32), alone(twin, samples, lengths))
    assert torch.equal(modules.front(samples, lengths, torch.float32), before)
    assert list(modules.state_dict()) == keys
    assert not any("front" in key for key in keys)


def test_copies_do_not_carry_the_matrices(extractor):
    front = ConvFrontEnd(extractor())
    front(*speech(), torch.float32)
    assert front._kept is not None
    assert copy.deepcopy(front)._kept is None


def test_a_layer_of_another_kind_is_refused(extractor):
    modules = extractor()
    modules.conv_layers[0].layer_norm = torch.nn.GroupNorm(4, 16)
    with pytest.raises(ConfigError, match=says("layer 0", "GroupNorm(4, 16", "LayerNorm")):
        ConvFrontEnd(modules)
