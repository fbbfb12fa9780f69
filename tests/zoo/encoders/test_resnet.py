"""ResNet-50 on log-mel spectrograms, against the plain model of transformers."""

import math

import pytest
import torch
from close import assert_like
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.encoders.mel import LogMel
from serzoo.zoo.encoders.resnet import ResNetEncoder
from serzoo.zoo.run.config import load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.train import train
from torch import nn
from transformers import ResNetConfig, ResNetModel
from waves import padded, speech

LENGTHS = [1, 399, 400, 3000, 16_000, 50_000]
TINY = {"depths": (1, 2, 1, 1), "widths": (8, 16, 16, 24)}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = ResNetEncoder(**TINY)
    with torch.no_grad():  # statistics and shifts that are not those of a new network
        for m in made.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.uniform_(-0.2, 0.2)
                m.running_var.uniform_(0.5, 2)
                m.bias.uniform_(0, 0.5)
    return made.eval()


def test_an_utterance_does_not_depend_on_its_neighbours(encoder):
    audio, lengths = padded(LENGTHS)
    with torch.no_grad():
        hidden, mask = encoder.extract(audio, lengths)
        together = encoder(hidden, mask)
        for i, n in enumerate(LENGTHS):
            h, m = encoder.extract(audio[i : i + 1, :n], lengths[i : i + 1])
            alone = encoder(h, m)
            frames = math.ceil(int(m.sum()) / 32)
            assert alone.x.shape == (1, frames, 24)
            assert alone.mask.all()
            assert int(together.mask[i].sum()) == frames
            assert_like(together.x[i, :frames], alone.x[0], digits=5)
            assert not together.x[i, frames:].any()
    assert (together.x[4, 0] - together.x[5, 0]).abs().max() > 0.01  # frames say something


@pytest.mark.parametrize("samples", [3000, 16_000, 16_384, 50_000])
def test_it_is_the_plain_model_on_an_unpadded_spectrogram(encoder, samples):
    plain = ResNetModel(
        ResNetConfig(num_channels=1, embedding_size=2, hidden_sizes=[8, 16, 16, 24],
                     depths=[1, 2, 1, 1], layer_type="bottleneck")
    ).eval()  # fmt: skip
    plain.load_state_dict(encoder.network.state_dict())
    hidden, mask = LogMel(64)(*padded([samples]))
    with torch.no_grad():
        stage = plain(hidden - hidden.mean()).last_hidden_state  # [1, D, T / 32, bands / 32]
        ours = encoder(hidden, mask)
    assert_like(ours.x, stage.mean(3).transpose(1, 2), digits=5)


def test_padding_does_matter_where_it_is_not_hidden(encoder):
    """The test above can fail: without zeros behind the frames, the plain model sees padding."""
    hidden, mask = LogMel(64)(*padded([50_000, 16_000]))
    encoder.wide = []
    with torch.no_grad():
        together = encoder(hidden, mask)
        alone = encoder(*LogMel(64)(speech(16_000, 1)[None], torch.tensor([16_000])))
    frames = alone.x.shape[1]
    assert (together.x[1, :frames] - alone.x[0]).abs().max() > 1e-3


def test_loudness_does_not_matter(encoder):
    audio, lengths = padded([16_000])
    with torch.no_grad():
        soft, loud = (encoder(*encoder.extract(g * audio, lengths)).x for g in (1.0, 8.0))
    assert torch.allclose(soft, loud, atol=1e-3)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("lengths", [[1], [400, 3000, 16_000], [50_000, 9000]])
def test_gradients_reach_every_parameter(bfloat16, lengths):
    torch.manual_seed(0)
    encoder = ResNetEncoder(**TINY, bfloat16=bfloat16).train()
    frames = encoder(*encoder.extract(*padded(lengths)))
    assert frames.mask.all()
    (frames.x * torch.randn_like(frames.x)).sum().backward()
    dead = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert dead == []
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert encoder.network.embedder.embedder.convolution.weight.grad.any()


def test_extraction_is_shared_with_the_log_mel_encoder(encoder):
    audio, lengths = padded([3000, 16_000])
    other = LogMelEncoder()
    assert encoder.storable
    assert encoder.extraction() == other.extraction()
    assert encoder.bytes_per_second == other.bytes_per_second > 0
    assert encoder.frame_seconds == other.frame_seconds
    for ours, theirs in zip(
        encoder.extract(audio, lengths), other.extract(audio, lengths), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert [k for k in encoder.state_dict() if not k.startswith("network.")] == []


def test_evaluation_is_float32_whatever_training_is():
    hidden, mask = LogMel(64)(*padded([9000]))
    outputs = []
    for bfloat16 in (False, True):
        torch.manual_seed(1)
        made = ResNetEncoder(**TINY, bfloat16=bfloat16).eval()
        with torch.no_grad():
            outputs.append(made(hidden, mask).x)
    assert torch.equal(*outputs)


def test_evaluation_under_autocast_is_close_to_float32(encoder):
    hidden, mask = encoder.extract(*padded([16_000, 400]))
    with torch.no_grad():
        exact = encoder(hidden, mask).x
        with torch.autocast("cpu", torch.bfloat16):
            low = encoder(hidden, mask).x
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)  # it did run in bfloat16
    assert (low - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_default_is_resnet_50():
    with torch.device("meta"):
        network = ResNetEncoder().network
    # He et al. 2016 without the classifier, 23 508 032, less 64 filters of 7 x 7 for two channels
    assert sum(p.numel() for p in network.parameters()) == 23_508_032 - 64 * 7 * 7 * 2
    assert ResNetEncoder.stride * ResNetEncoder.frame_seconds == 0.512


def test_what_makes_no_such_network_is_refused():
    with pytest.raises(ConfigError) as error:
        ResNetEncoder(bands=32, depths=(3, 4, 0, 3), widths=(256, 512, 1024, 2046))
    message = str(error.value)
    for part in ("encoder.bands=32", "encoder.depths=[3, 4, 0, 3]", "four multiples of 4"):
        assert part in message


def test_it_trains_and_its_checkpoint_holds_the_running_statistics(tiny_recipe, tmp_path):
    small = ["encoder.depths=[1,1,1,1]", "encoder.widths=[4,8,8,8]", "encoder.bfloat16=false"]
    cfg = load(tiny_recipe, ["encoder=resnet50", *small, "optim.epochs=2", "optim.ema=0"])
    record = train(cfg, tmp_path)
    assert record.status == "ok"
    assert record.features == "stored"
    module = SERModule.load_from_checkpoint(tmp_path)
    norms = [m for m in module.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 4 * 4  # the stem, and three and a shortcut in each block
    state = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for key, buffer in module.encoder.named_buffers():
        if "running" in key:
            assert torch.equal(buffer, state[f"encoder.{key}"])
    assert all(m.running_mean.any() and (m.running_var != 1).any() for m in norms)
