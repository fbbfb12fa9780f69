"""SELM: the loss and the scores against independent passes, open labels, frozen models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.selm.head import SELMHead
from serzoo.heads.selm.mappers import AudioMapper
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.shipped import read
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.testing import Case, check_head
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Model

SMALL = {"lm_width": 32, "lm_layers": 1, "prefix": 3}
CASE = Case(SELMHead, 12, knobs=SMALL)


def head(**knobs: Any) -> SELMHead:
    """In evaluation mode, with a language model whose answers depend clearly on the prefix."""
    torch.manual_seed(0)
    h = SELMHead(12, CASE.taxonomy, **(SMALL | knobs)).eval()
    if not h.language.frozen:
        with torch.no_grad():
            for p in h.language.parameters():
                p.mul_(8.0)
    return h


def reference(h: SELMHead, frames: Frames, label: str) -> Tensor:
    """``[B]`` log p(label, end of text): plain GPT-2 on whole sequences, written out by hand."""
    gpt: GPT2LMHeadModel = h.language.model
    body: GPT2Model = gpt.transformer
    ids = [*label.encode(), 256]
    prompt = body.wte(torch.tensor(list(b"this emotion is ")))
    out = []
    for x, mask in zip(frames.x, frames.mask, strict=True):
        audio = h.audio_mapper(Frames(x[mask][None], mask[mask][None]))[0]
        text = h.text_mapper(prompt[None])[0]
        sequence = torch.cat([text, audio, body.wte(torch.tensor(ids))])
        hidden = body(inputs_embeds=sequence[None]).last_hidden_state[0]
        log_p = (hidden @ body.wte.weight.T).log_softmax(-1)
        start = len(audio) + len(text) - 1
        out.append(sum(log_p[start + j, token] for j, token in enumerate(ids)))
    return torch.stack(out)  # type: ignore[arg-type]


def test_scores_are_the_log_likelihoods_of_plain_gpt2() -> None:
    h, frames = head(), CASE.frames()
    with torch.no_grad():
        got = h.scores(frames, CASE.taxonomy)
        want = torch.stack([reference(h, frames, label) for label in CASE.taxonomy.forms], 1)
    assert_like(got, want)
    assert want.std(0).min() > 0.01  # the audio matters


def test_the_loss_is_the_negative_log_likelihood_of_the_label() -> None:
    h, frames, targets = head(), CASE.frames(), CASE.targets()
    with torch.no_grad():
        out = h.loss(frames, targets)
        chosen = h.scores(frames, CASE.taxonomy)[torch.arange(4), targets.probs.argmax(1)]
    assert_like(out.loss, -chosen.mean())
    counts = torch.tensor([len(CASE.taxonomy.forms[c]) + 1 for c in targets.probs.argmax(1)])
    assert_like(out.extras["nll_per_token"], -(chosen / counts).mean())


def test_a_soft_target_is_an_expectation_over_classes() -> None:
    h, frames = head(), CASE.frames()
    probs = torch.tensor(
        [[0.5, 0.0, 0.5, 0, 0], [0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4, 0], [0, 0, 0, 0, 0]]
    )
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    with torch.no_grad():
        got = h.loss(frames, Targets(probs, weight)).loss
        nll = -(probs * h.scores(frames, CASE.taxonomy)).sum(1)
    want = (nll * weight)[:3].sum() / weight[:3].sum()  # the last one has no label
    assert_like(got, want)


def test_only_pairs_with_probability_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    h, sizes = head(), []
    plain = h.language.log_likelihood
    monkeypatch.setattr(
        h.language, "log_likelihood", lambda *a: sizes.append(len(a[2])) or plain(*a)
    )
    h.loss(CASE.frames(), CASE.targets())
    h.loss(CASE.frames(), Targets(torch.eye(5)[[0, 1, 2, 3]] * 0.5 + 0.1, torch.ones(4)))
    h.loss(CASE.frames(), Targets(torch.zeros(4, 5), torch.ones(4)))
    assert sizes == [4, 20, 4]


def test_length_normalised_scores_are_per_token() -> None:
    frames, taxonomy = CASE.frames(), Taxonomy.of(["sad", "surprised"])
    with torch.no_grad():
        a = head().scores(frames, taxonomy)
        b = head(length_normalised=True).scores(frames, taxonomy)
    assert_like(b, a / torch.tensor([4, 10]))


def test_classes_never_trained_on_are_ranked() -> None:
    h, frames = head(), CASE.frames()
    with torch.no_grad():
        s = h.scores(frames, Taxonomy.of(["jubilant", "sad", "in_love"]))
        assert_like(s[:, 2], reference(h, frames, "in love"))
        both = h.scores(frames, CASE.taxonomy)
    assert_like(s[:, 1], both[:, CASE.taxonomy.classes.index("sad")])


def test_classes_are_said_by_their_verbal_form() -> None:
    h, frames = head(), CASE.frames()
    with torch.no_grad():
        s = h.scores(frames, Taxonomy.of(["disgust", "angry"]))
    assert_like(s[:, 0], reference(h, frames, "disgusted"))


def test_the_prompt_conditions_the_scores() -> None:
    frames = CASE.frames()
    with torch.no_grad():
        a = head().scores(frames, CASE.taxonomy)
        b = head(prompt="the speaker sounds").scores(frames, CASE.taxonomy)
    assert (a - b).abs().max() > 0.1


def test_more_frames_than_queries_or_fewer_make_a_prefix_of_one_length() -> None:
    mapper = AudioMapper(12, 32, prefix=5, layers=1, dropout=0.0, size=0.1)
    for n in (1, 4, 50):
        frames = Frames(torch.randn(2, n, 12), torch.ones(2, n, dtype=torch.bool))
        out = mapper(frames)
        assert out.shape == (2, 5, 32)
        assert out.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-3)


def test_padding_may_hold_anything() -> None:
    h, frames = head(), CASE.frames()
    spoilt = Frames(frames.x.masked_fill(~frames.mask[..., None], float("nan")), frames.mask)
    with torch.no_grad():
        a, b = h.scores(frames, CASE.taxonomy), h.scores(spoilt, CASE.taxonomy)
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"prefix": 0}, "prefix=0.*at least 1"),
        ({"lm": "./nowhere"}, r"\./nowhere\b.*lm=scratch"),
        ({"lm_width": 40}, r"lm_width=40\b.* 32\b"),
    ],
)
def test_knobs_that_make_no_sense_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        head(**knobs)


def test_classes_with_one_verbal_form_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=says("'disgusted' and 'disgusted'")):
        SELMHead(12, Taxonomy.of(["sad", "disgust", "disgusted"]), **SMALL)  # type: ignore[arg-type]


def test_a_frozen_model_keeps_its_weights_and_is_not_saved(gpt2: str) -> None:
    h = head(lm=gpt2).train()
    assert list(h.frozen_roots()) == ["language.model"]
    before = {k: v.clone() for k, v in h.state_dict().items()}
    optimiser = torch.optim.SGD(h.param_groups(10.0))
    h.loss(CASE.frames(), CASE.targets()).loss.backward()
    optimiser.step()
    changed = {k for k, v in h.state_dict().items() if not torch.equal(v, before[k])}
    learned = {k for k, p in h.named_parameters() if p.requires_grad}
    assert learned | {"null.mean", "null.batches"} == changed  # the average prefix of training
    assert not any(k.startswith("language.model.") for k in learned)


def test_a_published_model_that_is_tuned_learns_slowly(gpt2: str) -> None:
    h = head(lm=gpt2, lm_tuning="full")
    assert h.frozen_roots() == {}
    mappers, model = h.param_groups(1.0)
    assert model["lr"] < mappers["lr"]
    assert {id(p) for p in model["params"]} == {id(p) for p in h.language.parameters()}
    assert len(head().param_groups(1.0)) == 1


def test_a_folder_of_a_large_model_gets_a_prefix_of_its_width(tmp_path: Path, gpt2: str) -> None:
    assert GPT2Config.from_pretrained(gpt2).n_embd == 16
    h = head(lm=gpt2)
    words = len(h.language.tokenizer.prompt("this emotion is"))
    assert h.context(CASE.frames()).shape == (4, 3 + words, 16)


@pytest.mark.parametrize("tuning", ["frozen", "full"])
def test_the_contract_is_kept_with_a_published_model(tuning: str, gpt2: str) -> None:
    check_head(SELMHead, lm=gpt2, lm_tuning=tuning, prefix=3)


def test_the_contract_is_kept_in_small() -> None:
    check_head(SELMHead, dim=12, **SMALL)


def test_the_shipped_config_holds_the_defaults() -> None:
    options = read("head", "selm")
    assert options.pop("type") == "selm"
    registry.check_options("heads", "selm", options)
    assert options == {k: knob.default for k, knob in registry.schema_of(SELMHead).items()}


def test_it_learns_classes_in_noisy_frames() -> None:
    g = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 24, generator=g)

    def batch(n: int) -> tuple[Frames, Tensor]:
        y = torch.randint(5, (n,), generator=g)
        mask = torch.arange(12) < torch.randint(4, 13, (n, 1), generator=g)
        x = 0.6 * centres[y][:, None] + torch.randn(n, 12, 24, generator=g)
        return Frames(x * mask[..., None], mask), y

    torch.manual_seed(0)
    h = SELMHead(24, CASE.taxonomy, lm_width=64, prefix=4)
    optimiser = torch.optim.AdamW(h.param_groups(1e-2))
    for _ in range(120):
        frames, y = batch(32)
        optimiser.zero_grad()
        h.loss(frames, Targets(torch.eye(5)[y], torch.ones(32))).loss.backward()
        torch.nn.utils.clip_grad_norm_(h.parameters(), 1.0)
        optimiser.step()
    frames, y = batch(300)
    with torch.no_grad():
        accuracy = (h.eval().scores(frames, CASE.taxonomy).argmax(1) == y).float().mean().item()
    assert accuracy > 0.9


# -- free decoding -------------------------------------------------------------------------------


def test_an_overfitted_head_writes_the_verbal_forms_whatever_the_batch() -> None:
    torch.manual_seed(0)
    taxonomy = Taxonomy.of(["angry", "happy", "surprised"])
    h = SELMHead(12, taxonomy, **SMALL)
    frames = Frames(torch.randn(6, 7, 12), torch.ones(6, 7, dtype=torch.bool))
    labels = torch.arange(6) % 3
    targets = Targets(torch.eye(3)[labels], torch.ones(6))
    optimizer = torch.optim.AdamW(h.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        h.loss(frames, targets).loss.backward()
        optimizer.step()
    h.eval()
    forms = [taxonomy.forms[i] for i in labels]  # "surprised" is 9 bytes
    longer = torch.cat([frames.x, torch.full((6, 3, 12), 9.0)], 1)
    padded = Frames(longer, (torch.arange(10) < 7).expand(6, -1))
    with torch.no_grad():
        assert h.write(frames) == forms
        assert h.write(padded) == forms
        assert [h.write(Frames(x[None], frames.mask[:1]))[0] for x in frames.x] == forms


def test_only_a_head_that_writes_has_text() -> None:
    frames = CASE.frames()
    for name in ("classification", "gen_ser", "regress_codes", "prototype"):
        assert registry.get("heads", name)(12, CASE.taxonomy).write(frames) is None
