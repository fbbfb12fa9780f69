"""The pretrained encoders against plain transformers, on tiny models with random weights."""

from __future__ import annotations

import json

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core import hub
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.encoders.families import FAMILIES
from serzoo.zoo.encoders.hf import HFEncoder
from tiny_models import CASES
from torch import nn
from transformers import (
    AutoModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

LENGTHS = [1, 399, 400, 3000, 5000, 9000, 16000]
COUNTS = {
    "sew": [1, 1, 1, 4, 7, 13, 24],  # two frames of 20 ms squeezed into one
    "wav2vec2-bert": [1, 1, 1, 8, 14, 27, 49],  # ((n - 400) // 160 + 1) // 2, from 560 samples on
    "whisper": [1, 2, 2, 10, 16, 29, 50],  # every 320 samples begun
}
CONVOLUTIONS = [1, 1, 1, 9, 15, 27, 49]  # (n - 400) // 320 + 1: all others

each_model = pytest.mark.parametrize(("family", "norm"), CASES)
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


def speech(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise of a level and an offset that normalisation would notice."""
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.03


def plain(name: str) -> nn.Module:
    return AutoModel.from_pretrained(name).eval()


def hidden_states(model: nn.Module, x: torch.Tensor, mask: torch.Tensor | None = None):
    with torch.no_grad():
        return model(x, attention_mask=mask, output_hidden_states=True).hidden_states


def filter_bank(samples: torch.Tensor) -> torch.Tensor:
    """``[1, T, 160]`` of the published extractor, whose energies are normalised here in float64.

    It does so in float32, which alone costs 1e-5.
    """
    extractor = SeamlessM4TFeatureExtractor()
    options = {"sampling_rate": 16000, "return_tensors": "pt"}
    raw = extractor(samples.numpy(), do_normalize_per_mel_bins=False, **options).input_features
    count = (len(samples) - 400) // 160 + 1
    energy = raw.double().view(-1, 80)[:count]  # without the padding to an even number
    exact = (energy - energy.mean(0)) / torch.sqrt(energy.var(0) + 1e-7)
    exact = exact[: count // 2 * 2].float().view(1, -1, 160)
    theirs = extractor(samples.numpy(), **options).input_features[:, : count // 2]
    assert_like(exact, theirs)
    return exact


def published(name: str, family: str, x: torch.Tensor) -> list[torch.Tensor]:
    """Every hidden state ``[1, T, D]`` of one utterance, by transformers alone, as it would be fed.

    Samples are fed as they are, so the model's folder must not ask for normalisation.
    """
    model = plain(name)
    if family == "whisper":
        extractor = WhisperFeatureExtractor(chunk_length=1)
        features = extractor(x[0].numpy(), sampling_rate=16000, return_tensors="pt")
        states = hidden_states(model.encoder, features.input_features)
        return [h[:, : -(-x.shape[1] // 320)] for h in states]
    if family == "wav2vec2-bert":
        bank = filter_bank(x[0])
        return list(hidden_states(model, bank, torch.ones(bank.shape[:2], dtype=torch.long)))
    return list(hidden_states(model, x))


def test_every_family_and_norm_is_tested():
    assert {family for family, _ in CASES} == set(FAMILIES) == set(hub.FAMILIES)
    assert (len(CASES), len(FAMILIES)) == (13, 8)


@each_model
@pytest.mark.parametrize("samples", [9000, 15999])
def test_every_layer_equals_transformers(tiny_hf, family, norm, samples):
    name = tiny_hf(family, norm, do_normalize=False)
    x = speech(1, samples)
    expected = published(name, family, x)
    hidden, mask = HFEncoder(name=name).extract(x, torch.tensor([samples]))
    assert hidden.shape == (1, 4, *expected[0].shape[1:])
    assert mask.all()
    assert len(expected) == 4
    for k in range(4):
        assert_like(hidden[:, k], expected[k])


@each_model
def test_kept_layers_are_those_of_the_whole_model_and_nothing_above_exists(tiny_hf, family, norm):
    name = tiny_hf(family, norm, do_normalize=False)
    x = speech(1, 3000)
    expected = published(name, family, x)
    for layers in ([0], [1], [2], [3], [0, 2]):
        encoder = HFEncoder(name=name, layers=layers)
        hidden, _ = encoder.extract(x, torch.tensor([3000]))
        assert hidden.shape[1] == len(layers)
        for got, k in zip(hidden[0], layers, strict=True):
            assert_like(got, expected[k][0])
        assert len(encoder.backbone.encoder.layers) == max(layers)
        left = {int(key.split(".")[3]) for key in encoder.state_dict() if ".encoder.layers." in key}
        assert left == set(range(max(layers)))
        assert not any("decoder" in key for key in encoder.state_dict())


@pytest.mark.parametrize(("family", "norm"), [c for c in CASES if c[0] not in COUNTS])
def test_large_models_lose_the_norm_behind_the_last_block_and_base_models_keep_theirs(
    tiny_hf, family, norm
):
    encoder = HFEncoder(name=tiny_hf(family, norm)).backbone.encoder
    large = norm == "layer" and family != "data2vec-audio"
    assert isinstance(encoder.layer_norm, nn.Identity if large else nn.LayerNorm)


@each_model
@pytest.mark.parametrize("do_normalize", [True, False])
def test_alone_equals_batched(tiny_hf, family, norm, do_normalize):
    encoder = HFEncoder(name=tiny_hf(family, norm, do_normalize=do_normalize)).eval()
    audio = speech(len(LENGTHS), 17000)  # what lies behind an utterance is not zero: not looked at
    hidden, mask = encoder.extract(audio, torch.tensor(LENGTHS))
    counts = COUNTS.get(family, CONVOLUTIONS)
    assert mask.sum(1).tolist() == counts
    assert hidden.shape == (7, 4, counts[-1], 32)
    assert torch.equal(hidden, hidden.masked_fill(~mask[:, None, :, None], 0.0))
    for row, n, frames in zip(range(7), LENGTHS, counts, strict=True):
        alone, alone_mask = encoder.extract(audio[row : row + 1, :n], torch.tensor([n]))
        assert alone_mask.shape == (1, frames)
        assert_like(alone[0], hidden[row, :, :frames], digits=5)


@pytest.mark.parametrize(
    ("family", "norm", "why"),
    [
        ("wav2vec2", "group", "GroupNorm over padding"),
        ("hubert", "group", "GroupNorm over padding"),
        ("wavlm", "group", "GroupNorm over padding"),
        ("data2vec-audio", "layer", "stacked positional convolutions without a mask"),
    ],
)
def test_plain_transformers_does_depend_on_padding(tiny_hf, family, norm, why):
    """What the remedies are for: the test above would see it."""
    model = plain(tiny_hf(family, norm, do_normalize=False))
    x = speech(1, 3000)
    padded = torch.cat([x, torch.zeros(1, 6000)], 1)
    mask = (torch.arange(9000) < 3000).long()[None]
    alone, batched = hidden_states(model, x)[-1], hidden_states(model, padded, mask)[-1]
    assert (alone[0] - batched[0, :9]).abs().max() > 1e-2, why


def test_batch_norm_before_the_positional_convolution_does_not_leak(tiny_hf):
    name = tiny_hf("hubert", "group", conv_pos_batch_norm=True)
    encoder = HFEncoder(name=name)
    norm = encoder.backbone.encoder.pos_conv_embed.batch_norm
    norm.running_mean.copy_(torch.linspace(-1, 1, 32))
    audio = speech(2, 9000)
    hidden, _ = encoder.extract(audio, torch.tensor([3000, 9000]))
    alone, _ = encoder.extract(audio[:1, :3000], torch.tensor([3000]))
    assert_like(alone[0], hidden[0, :, :9], digits=5)


def test_normalises_real_samples_as_the_published_feature_extractor(tiny_hf):
    name = tiny_hf("wav2vec2", "layer")
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(name)
    audio = speech(1, 5000)
    values = extractor(audio[0, :3000].numpy(), sampling_rate=16000, return_tensors="pt")
    expected = hidden_states(plain(name), values.input_values)
    hidden, _ = HFEncoder(name=name).extract(audio, torch.tensor([3000]))
    assert_like(hidden[0], torch.stack(expected)[:, 0])


def test_a_gain_or_an_offset_matters_only_without_normalisation(tiny_hf):
    audio, lengths = speech(1, 3000), torch.tensor([3000])
    for do_normalize in (True, False):
        encoder = HFEncoder(name=tiny_hf("wav2vec2", "layer", do_normalize=do_normalize))
        a, b = (encoder.extract(x, lengths)[0] for x in (audio, 3 * audio + 0.5))
        assert bool((a - b).abs().max() < 1e-3) is do_normalize


@each_model
@pytest.mark.parametrize("training", [True, False])
def test_any_length_from_one_sample(tiny_hf, family, norm, training):
    encoder = HFEncoder(name=tiny_hf(family, norm)).train(training)
    for n, frames in zip(LENGTHS[:4], COUNTS.get(family, CONVOLUTIONS)[:4], strict=True):
        hidden, mask = encoder.extract(speech(2, n), torch.tensor([n, 1]))
        assert mask.sum(1).tolist() == [frames, 1]
        assert hidden.shape == (2, 4, frames, 32)
        assert hidden.isfinite().all()


def test_silence_is_finite(tiny_hf):
    encoder = HFEncoder(name=tiny_hf("wav2vec2", "group"))
    hidden, _ = encoder.extract(torch.zeros(1, 5000), torch.tensor([5000]))
    assert hidden.isfinite().all()


def test_frame_counts_are_those_of_transformers(tiny_hf):
    encoder = HFEncoder(name=tiny_hf("hubert", "group"))
    lengths = torch.arange(400, 20000, 7)
    expected = encoder.backbone._get_feat_extract_output_lengths(lengths)
    assert torch.equal(encoder.family.frame_counts(lengths), expected)
    assert encoder.family.min_samples == 400


@each_model
def test_frozen_means_frozen(tiny_hf, family, norm):
    config = {"layerdrop": 0.9, "mask_time_prob": 0.9, "hidden_dropout": 0.5}
    if family == "whisper":
        config = {"encoder_layerdrop": 0.9, "apply_spec_augment": True, "dropout": 0.5}
    encoder = HFEncoder(name=tiny_hf(family, norm, **config))
    audio, lengths = speech(2, 6000), torch.tensor([6000, 5000])
    expected, _ = encoder.eval().extract(audio, lengths)

    dropped = "encoder_layerdrop" if family == "whisper" else "layerdrop"
    assert getattr(encoder.backbone.config, dropped) == 0.0
    assert not encoder.backbone.config.apply_spec_augment
    assert not hasattr(encoder.backbone, "masked_spec_embed")  # would never get a gradient

    nn.ModuleDict({"encoder": encoder}).train()  # as Lightning does before an epoch
    assert encoder.training
    assert not any(m.training for m in encoder.backbone.modules())
    assert torch.equal(encoder.extract(audio, lengths)[0], expected)
    encoder.backbone.train()  # as a callback might
    assert torch.equal(encoder.extract(audio, lengths)[0], expected)

    assert {n for n, p in encoder.named_parameters() if p.requires_grad} == {"mix.logits"}
    before = {k: v.clone() for k, v in encoder.backbone.state_dict().items()}
    optimiser = torch.optim.SGD(encoder.param_groups(0.1))
    frames = encoder(*encoder.extract(audio, lengths))
    assert not expected.requires_grad
    frames.x.square().sum().backward()
    assert encoder.mix.logits.grad.abs().sum() > 0
    optimiser.step()
    assert all(torch.equal(before[k], v) for k, v in encoder.backbone.state_dict().items())
    assert set(encoder.state_dict()) - encoder.frozen_keys() == {"mix.logits"}
    assert encoder.storable


def test_frames_are_the_mix_and_zero_behind_the_mask(tiny_hf):
    encoder = HFEncoder(name=tiny_hf(), layers=[1, 3])
    hidden, mask = encoder.extract(speech(2, 5000), torch.tensor([3000, 5000]))
    frames = encoder(hidden, mask)
    assert encoder.dim == 32
    assert_like(frames.x, hidden.mean(1), digits=5)
    assert (frames.x[0, 9:] == 0).all()
    assert list(encoder.layer_weights()) == ["layer_01", "layer_03"]


def test_one_layer_has_no_trainable_parameter(tiny_hf):
    encoder = HFEncoder(name=tiny_hf(), layers=[2])
    assert encoder.param_groups(1e-3) == []
    assert encoder.layer_weights() == {}


@each_model
def test_runs_under_bf16_autocast(tiny_hf, family, norm):
    encoder = HFEncoder(name=tiny_hf(family, norm))
    audio, lengths = speech(2, 9000), torch.tensor([3000, 9000])
    expected, mask = encoder.extract(audio, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        hidden, _ = encoder.extract(audio, lengths)
        x = encoder(hidden, mask).x
    assert hidden.dtype == torch.float32
    assert x.isfinite().all()
    assert (hidden - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_describe_holds_plain_containers_and_tells_weights_apart(tiny_hf):
    one = HFEncoder(name=tiny_hf("wavlm", "layer"), layers=[1])
    other = HFEncoder(name=tiny_hf("wavlm", "layer", seed=1), layers=[1])
    facts = one.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["model_type"] == "wavlm"
    assert facts["layers"] == [1]
    assert facts["layers_total"] == 3
    assert facts["parameters"] == sum(p.numel() for p in one.parameters())
    assert facts["weights"] == HFEncoder(name=one.name, layers=[1]).describe()["weights"]
    assert facts["weights"] != other.describe()["weights"]


def test_layers_that_are_not_there_are_refused(tiny_hf):
    name = tiny_hf()
    for layers in ([], [4], [-1], [2, 2]):
        with pytest.raises(ConfigError, match=says(f"encoder.layers={layers}", 0, 3, "null")):
            HFEncoder(name=name, layers=layers)
