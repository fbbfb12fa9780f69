"""Every family of encoders, tuned in every way, under every head: what trains and what does not."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Targets
from serzoo.zoo.core.weights import strip_frozen
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.optim import unreached
from tiny_models import CASES

TUNINGS = {
    "frozen": {"layers": [1, 3]},
    "lora": {"lora_rank": 2, "layers": [1, 3]},
    "last_k": {"last_k": 1, "layers": [3]},
    "full": {"layer_decay": 0.5},
}
HEADS = {
    name: {"lm_width": 32} if name in ("selm", "speech_llm") else {}
    for name in registry.names("heads")
}
TAXONOMY = Taxonomy.of(["angry", "happy", "sad"])

each_family = pytest.mark.parametrize(("family", "norm"), CASES)
each_tuning = pytest.mark.parametrize("tuning", TUNINGS)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(3, 6000, generator=generator)
    targets = Targets(torch.eye(3), torch.ones(3))
    lengths = torch.tensor([6000, 3000, 900])
    return Batch(
        ids=list("abc"), speakers=list("xyz"), audio=audio, lengths=lengths, targets=targets
    )


def build(encoder: HFEncoder, head: str) -> SERModule:
    made = registry.get("heads", head)(encoder.dim, TAXONOMY, **HEADS[head])
    return SERModule(encoder, made).train()


def step(module: SERModule, precision: torch.dtype | None = None) -> torch.Tensor:
    module.zero_grad()
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        loss = module.head.loss(module.frames(batch()), batch().targets).loss
    loss.backward()
    return loss.detach()


def test_the_sweep_is_whole():
    assert len(list(product(CASES, TUNINGS, HEADS))) == 13 * 4 * 11


@each_family
@each_tuning
def test_training_moves_what_it_says_and_nothing_else(tiny_hf, family, norm, tuning):
    encoder = HFEncoder(name=tiny_hf(family, norm), tuning=tuning, **TUNINGS[tuning])
    for head in HEADS:
        module = build(encoder, head)
        assert step(module).isfinite()
        assert unreached(module) == []
        before = {k: v.clone() for k, v in module.state_dict().items()}
        optimiser = torch.optim.SGD(
            encoder.param_groups(1e-2, 1e-2) + module.head.param_groups(1e-2), momentum=0.9
        )
        listed = {id(p) for group in optimiser.param_groups for p in group["params"]}
        assert listed == {id(p) for p in module.parameters() if p.requires_grad}
        optimiser.step()
        after = module.state_dict()
        frozen = module.frozen_keys()
        moved = {k for k in after if not torch.equal(after[k], before[k])}
        assert not moved & frozen
        assert any(k.startswith("encoder.backbone.") for k in moved) is (tuning != "frozen")
        assert set(strip_frozen(after, frozen)) == set(after) - frozen
        parameters = dict(module.named_parameters())
        wanted = {k for k, p in parameters.items() if p.requires_grad}
        assert wanted <= set(after) - frozen  # all that is trained is saved


@each_family
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_padding_and_neighbours_change_nothing_when_tuned(tiny_hf, family, norm, tuning):
    encoder = HFEncoder(name=tiny_hf(family, norm), tuning=tuning)
    if tuning == "lora":
        awaken(encoder)
    encoder.eval()
    audio, lengths = batch().audio, batch().lengths
    hidden, mask = encoder.extract(audio, lengths)
    for row in range(3):
        n = int(lengths[row])
        alone, _ = encoder.extract(audio[row : row + 1, :n], lengths[row : row + 1])
        frames = int(mask[row].sum())
        assert alone.shape[2] == frames
        assert_like(alone[0], hidden[row, :, :frames])


@each_family
@each_tuning
@pytest.mark.parametrize("samples", [1, 399, 400, 3000])
def test_any_length_trains(tiny_hf, family, norm, tuning, samples):
    encoder = HFEncoder(name=tiny_hf(family, norm), tuning=tuning, **TUNINGS[tuning]).train()
    frames = encoder(*encoder.extract(torch.full((1, samples), 0.1), torch.tensor([samples])))
    assert frames.x.isfinite().all()
    if tuning != "frozen":
        frames.x.sum().backward()


@each_family
@each_tuning
def test_bf16_autocast_trains(tiny_hf, family, norm, tuning):
    encoder = HFEncoder(name=tiny_hf(family, norm), tuning=tuning, **TUNINGS[tuning])
    module = build(encoder, "classification")
    assert step(module, torch.bfloat16).isfinite()
    assert unreached(module) == []
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.requires_grad)


# Adapters.


def awaken(encoder: HFEncoder) -> None:
    """Random second matrices: fresh ones are zero, and an adapter changes nothing."""
    torch.manual_seed(1)
    for key, parameter in encoder.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)


@each_family
@pytest.mark.parametrize("options", [{}, {"lora_dora": True}, {"lora_rslora": True}])
def test_adapters_start_without_effect_and_have_one_when_trained(tiny_hf, family, norm, options):
    name = tiny_hf(family, norm)
    audio, lengths = batch().audio, batch().lengths
    plain, _ = HFEncoder(name=name, layers=[2]).extract(audio, lengths)
    encoder = HFEncoder(name=name, layers=[2], tuning="lora", **options).eval()
    assert_like(encoder.extract(audio, lengths)[0], plain, digits=5)
    awaken(encoder)
    assert (encoder.extract(audio, lengths)[0] - plain).abs().max() > 1e-2


def test_rank_alpha_and_targets_shape_the_adapters(tiny_hf):
    name = tiny_hf("hubert", "layer")
    targets = ["q_proj", "intermediate_dense"]
    encoder = HFEncoder(name=name, tuning="lora", lora_rank=3, lora_alpha=6.0, lora_targets=targets)
    shapes = {k.split("layers.0.")[1]: tuple(p.shape) for k, p in encoder.named_parameters()
              if "lora" in k and "layers.0." in k}  # fmt: skip
    assert shapes == {
        "attention.q_proj.lora_A.default.weight": (3, 32),
        "attention.q_proj.lora_B.default.weight": (32, 3),
        "feed_forward.intermediate_dense.lora_A.default.weight": (3, 32),
        "feed_forward.intermediate_dense.lora_B.default.weight": (48, 3),
    }
    layer = encoder.backbone.encoder.layers[0].attention.q_proj
    assert layer.scaling["default"] == 2.0
    # what is trained: 3 blocks, and the mix of 4 layers
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 3 * 3 * 144 + 4


def test_layers_that_cannot_be_adapted_are_named(tiny_hf):
    name = tiny_hf("wav2vec2", "group")
    with pytest.raises(
        ConfigError, match=says("encoder.lora_targets", "'query'", "attention.q_proj")
    ):
        HFEncoder(name=name, tuning="lora", lora_targets=["query"])
    with pytest.raises(
        ConfigError, match=says("encoder.tuning=lora", "encoder.layers", "encoder.tuning=frozen")
    ):
        HFEncoder(name=name, tuning="lora", layers=[0])
    with pytest.raises(ConfigError, match=says("encoder.last_k=3", 2)):
        HFEncoder(name=name, tuning="last_k", layers=[2], last_k=3)
    with pytest.raises(
        ConfigError, match=says("encoder.dtype=bfloat16", "trainer.precision=bf16-mixed")
    ):
        HFEncoder(name=name, tuning="full", dtype="bfloat16")


# Fine-tuning.


def test_the_front_end_of_a_full_model_is_frozen_unless_asked(tiny_hf):
    name = tiny_hf("wav2vec2", "group")
    for frozen in (True, False):
        encoder = HFEncoder(name=name, tuning="full", front_end_frozen=frozen)
        convolutions = encoder.backbone.feature_extractor.parameters()
        assert {p.requires_grad for p in convolutions} == {not frozen}
        module = build(encoder, "classification")
        step(module)
        assert unreached(module) == []


def test_learning_rates_fall_from_block_to_block(tiny_hf):
    encoder = HFEncoder(name=tiny_hf("hubert", "group"), tuning="full", layer_decay=0.5)
    rates = {id(p): g["lr"] for g in encoder.param_groups(1.0, 3.0) for p in g["params"]}
    named = {k: rates[id(p)] for k, p in encoder.named_parameters() if p.requires_grad}
    assert named["mix.logits"] == 3.0
    for block, rate in enumerate([0.25, 0.5, 1.0]):
        assert named[f"backbone.encoder.layers.{block}.attention.q_proj.weight"] == rate
    assert named["backbone.feature_projection.projection.weight"] == 0.125


def test_only_the_upper_blocks_train(tiny_hf):
    encoder = HFEncoder(name=tiny_hf("wavlm", "layer"), tuning="last_k", last_k=2, layers=[3])
    trained = {k.split(".")[3] for k, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {"1", "2"}
    encoder.train()
    blocks = encoder.backbone.encoder.layers
    assert [b.training for b in blocks] == [False, True, True]
    assert not encoder.backbone.feature_projection.training


@pytest.mark.parametrize(
    ("family", "norm"), [("wav2vec2", "group"), ("wavlm", "group"), ("whisper", "none")]
)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_checkpointing_changes_nothing_but_memory(tiny_hf, family, norm, tuning):
    zero = {"hidden_dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0,
            "feat_proj_dropout": 0.0}  # fmt: skip
    name = tiny_hf(family, norm, **(zero if family != "whisper" else {}))
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = HFEncoder(name=name, tuning=tuning, checkpointing=checkpointing)
        torch.manual_seed(0)
        module = build(encoder, "prototype")
        torch.manual_seed(0)
        step(module)
        gradients.append({k: p.grad for k, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    # a bias before a softmax has a gradient of rounding alone
    floor = 1e-6 * max(g.norm() for g in gradients[0].values())
    for key, gradient in gradients[0].items():
        gap = (gradient - gradients[1][key]).norm()
        assert gap <= 1e-4 * gradient.norm() + floor, key


# Number formats.


@each_family
def test_a_bfloat16_encoder_is_near_the_float32_one(tiny_hf, family, norm):
    name = tiny_hf(family, norm)
    audio, lengths = batch().audio, batch().lengths
    exact, _ = HFEncoder(name=name).extract(audio, lengths)
    encoder = HFEncoder(name=name, dtype="bfloat16")
    hidden, _ = encoder.extract(audio, lengths)
    assert {p.dtype for p in encoder.backbone.parameters()} == {torch.bfloat16}
    assert hidden.dtype == torch.float32
    # of random weights this large; what a base model loses is measured in benchmarks/
    assert (hidden - exact).norm() < 0.08 * exact.norm()
    assert encoder.extraction() != HFEncoder(name=name).extraction()
    assert encoder.source["weights"] == HFEncoder(name=name).source["weights"]
