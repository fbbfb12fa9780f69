"""The language model of SELM: spelling, likelihoods against full passes, published models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.selm.language import PAIRS_AT_ONCE, LanguageModel, load_pretrained
from serzoo.heads.selm.spelling import ByteTokenizer
from serzoo.zoo.core.errors import ConfigError
from tiny_lm import save_gpt2, save_llama
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2LMHeadModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

PROMPT = "this emotion is"
LABELS = ["sad", "angry", "surprised", "très heureux"]


def language(name: str = "scratch", **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    knobs = {"revision": None, "tuning": "auto", "width": 32, "layers": 2, "dropout": 0.0}
    return LanguageModel(name, **(knobs | options)).eval()


def loud(model: LanguageModel) -> LanguageModel:
    """Weights of one size, whatever the model started with: likelihoods depend on the context."""
    factor = 0.16 / model.model.get_input_embeddings().weight.std().item()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(factor)
    return model


def full_pass(model: Any, context: Tensor, ids: list[int]) -> Tensor:
    """``log p(ids | context)`` of one utterance and one label: no cache, no padding."""
    after = model.get_input_embeddings()(torch.tensor(ids))
    logits = model(inputs_embeds=torch.cat([context, after])[None]).logits[0]
    log_p = logits.log_softmax(-1)
    return sum(log_p[len(context) - 1 + j, token] for j, token in enumerate(ids))  # type: ignore[return-value]


# Spelling.


def test_bytes_spell_anything_and_share_the_space_with_the_prompt() -> None:
    t = ByteTokenizer()
    assert bytes(t.prompt(PROMPT)) == b"this emotion is "
    assert bytes(t.label(PROMPT, "très")) == "très".encode()
    assert t.end == 256
    assert t.size == 257


def test_every_label_ends_with_the_end_of_text() -> None:
    assert language().spell(PROMPT, ["sad", "ok"]) == [[115, 97, 100, 256], [111, 107, 256]]


def test_a_published_tokenizer_spells_the_label_with_its_leading_space(gpt2: str) -> None:
    m = language(gpt2)
    raw = m.tokenizer.tokenizer  # type: ignore[attr-defined]
    assert m.spell(PROMPT, ["happy"]) == [[*raw.encode(" happy"), raw.eos_token_id]]
    assert len(raw.encode(" happy")) == 1  # merged in training: a real tokenizer, not bytes
    assert raw.decode(m.tokenizer.label(PROMPT, "très")) == " très"


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match=says("'sad' and 'sad'")):
        language().spell(PROMPT, ["sad", "angry", "sad"])
    with pytest.raises(ConfigError, match=says("label ' '")):
        language().spell(PROMPT, ["sad", " "])


def test_an_unknown_token_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    save_gpt2(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "this": 2, "sad": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    FastTokenizer(tokenizer_object=words, unk_token="<unk>", eos_token="<end>").save_pretrained(
        folder
    )
    m = language(str(folder))
    assert m.spell("this", ["sad"]) == [[3, 1]]
    with pytest.raises(ConfigError, match=says("'angry'", "'<unk>'", "gpt2", "scratch")):
        m.spell("this", ["angry"])


# Likelihoods.

# utterance and label of each pair: some of them, or one label each, as in training
SOME = ([0, 0, 1, 2, 2, 0], [0, 1, 2, 3, 0, 3])
ONE_EACH = ([0, 1, 2], [3, 2, 0])


@pytest.mark.parametrize("pairs", [SOME, ONE_EACH])
@pytest.mark.parametrize("make", [save_gpt2, save_llama, None])
def test_likelihoods_equal_full_passes(
    make: Any, pairs: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    m = language(make(tmp_path / "lm")) if make else loud(language())
    context = torch.randn(3, 5, m.width)
    spelt = m.spell(PROMPT, LABELS)
    rows, columns = map(torch.tensor, pairs)
    with torch.no_grad():
        got = m.log_likelihood(context, spelt, rows, columns)
        want = torch.stack(
            [full_pass(m.model, context[r], spelt[c]) for r, c in zip(rows, columns, strict=True)]
        )
    assert_like(got, want)
    assert want.std() > 1  # a test of equal numbers would prove little


@pytest.mark.parametrize("pairs", [([0, 1, 1], [0, 1, 2]), ([0, 1], [0, 2])])
def test_gradients_through_the_shared_cache_equal_full_passes(
    pairs: tuple[list[int], list[int]],
) -> None:
    m = loud(language())
    spelt = m.spell(PROMPT, LABELS)
    rows, columns = map(torch.tensor, pairs)
    one, two = (torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1)) for _ in "ab")
    m.log_likelihood(one.requires_grad_(), spelt, rows, columns).sum().backward()
    weights = [p.grad for p in m.parameters()]
    m.zero_grad()
    two.requires_grad_()
    sum(full_pass(m.model, two[r], spelt[c]) for r, c in zip(rows, columns, strict=True)).backward()
    pairs = [(one.grad, two.grad), *zip(weights, (p.grad for p in m.parameters()), strict=True)]
    for shared, full in pairs:
        assert shared is not None
        assert full is not None
        assert (shared - full).norm() < 1e-3 * full.norm()


@pytest.mark.parametrize("pairs", [SOME, ONE_EACH])
@pytest.mark.parametrize("make", [save_gpt2, save_llama, None])
def test_a_lead_is_read_once_and_counts_as_if_it_stood_in_every_context(
    make: Any, pairs: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    m = language(make(tmp_path / "lm")) if make else loud(language())
    m.requires_grad_(True)
    spelt = m.spell(PROMPT, LABELS)
    rows, columns = map(torch.tensor, pairs)
    context = torch.randn(3, 5, m.width)
    grads = []
    for shared in (True, False):
        lead = torch.randn(1, 4, m.width, generator=torch.Generator().manual_seed(2))
        own = context.clone().requires_grad_()
        lead.requires_grad_()
        m.zero_grad()
        given = (own, lead) if shared else (torch.cat([lead.expand(3, -1, -1), own], 1), None)
        found = m.log_likelihood(given[0], spelt, rows, columns, given[1])
        found.sum().backward()
        weights = [p.grad for p in m.parameters() if p.grad is not None]
        grads.append([found.detach(), own.grad, lead.grad, *weights])
    assert len(grads[0]) > 10
    for a, b in zip(*grads, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()


def test_all_continuations_of_a_context_have_probability_one() -> None:
    m = loud(language())
    end = m.tokenizer.end
    strings = [[a, end] for a in range(256)] + [[end]]  # one byte, or none; the rest: two or more
    context = torch.randn(1, 3, 32)
    with torch.no_grad():
        log_p = m.log_likelihood(context, strings, torch.zeros(257).long(), torch.arange(257))
        first = m.model(inputs_embeds=context).logits[0, -1].softmax(-1)
        second = (
            m.model(
                inputs_embeds=torch.cat(
                    [context.expand(256, -1, -1), m.embed(torch.arange(256)[:, None])], 1
                )
            )
            .logits[:, -1]
            .softmax(-1)
        )
    longer = (first[:256] * (1 - second[:, end])).sum()
    assert (log_p.exp().sum() + longer).item() == pytest.approx(1, abs=1e-5)


def test_many_pairs_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    m = loud(language())
    spelt, context = m.spell(PROMPT, LABELS), torch.randn(40, 4, 32)
    rows = torch.arange(40).repeat_interleave(4)
    columns = torch.arange(4).repeat(40)
    assert len(rows) > PAIRS_AT_ONCE
    with torch.no_grad():
        got = m.log_likelihood(context, spelt, rows, columns)
        monkeypatch.setattr("serzoo.heads.selm.language.PAIRS_AT_ONCE", 1000)
        assert_like(got, m.log_likelihood(context, spelt, rows, columns))


@pytest.mark.parametrize("pairs", [SOME, ONE_EACH])
def test_the_output_layer_reads_one_block(pairs: tuple[list[int], list[int]]) -> None:
    m = loud(language())
    blocks: list[bool] = []
    m.model.lm_head.register_forward_hook(
        lambda _, given, __: blocks.append(given[0].is_contiguous())
    )
    spelt, context = m.spell(PROMPT, LABELS), torch.randn(3, 5, 32)
    m.log_likelihood(context, spelt, *map(torch.tensor, pairs))
    m.rank(context, [(None, spelt)])
    m.write(context, 2)
    assert len(blocks) > 2
    assert all(blocks)


def test_a_context_longer_than_the_model_reads_is_refused(gpt2: str) -> None:
    m = language(gpt2)
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ConfigError, match=says("67 positions", 64, "prefix")):
        m.log_likelihood(torch.zeros(1, 65, 16), [[3, 0]], one, one)


# What is frozen and what is saved.


def test_a_published_model_is_frozen_but_lets_gradients_through(gpt2: str) -> None:
    m = language(gpt2).train()
    assert m.frozen
    assert not any(p.requires_grad for p in m.parameters())
    assert not m.model.training  # its dropout is off
    context = torch.randn(2, 5, 16, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.long)
    m.model.train()  # switched behind our back
    a, b = (m.log_likelihood(context, [[3, 0]], zero, zero) for _ in range(2))
    assert torch.equal(a, b)
    a.sum().backward()
    assert context.grad is not None
    assert context.grad[0].any()


def test_full_tuning_trains_a_published_model(gpt2: str) -> None:
    m = language(gpt2, tuning="full").train()
    assert not m.frozen
    assert m.model.training
    assert all(p.requires_grad for p in m.parameters())


@pytest.mark.parametrize("width", [0, 48])
def test_a_width_that_heads_do_not_divide_is_refused(width: int) -> None:
    with pytest.raises(ConfigError, match=says(f"lm_width={width}", 32)):
        language(width=width)


def test_tied_weights_are_saved_once_and_come_back_tied(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    m = loud(language())
    save_file(m.state_dict(), tmp_path / "lm.safetensors")  # refuses tensors that share memory
    other = language()
    other.load_state_dict(load_file(tmp_path / "lm.safetensors"))
    head, tokens = other.model.lm_head.weight, other.model.transformer.wte.weight
    assert head is tokens
    assert torch.equal(tokens, m.model.transformer.wte.weight)


# What cannot be loaded.


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says("nothing", "model.safetensors", "lm=scratch")):
        language(str(tmp_path / "nothing"))


def test_a_folder_without_safetensors_is_refused(gpt2: str) -> None:
    weights = Path(gpt2) / "model.safetensors"
    torch.save({}, weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ConfigError, match=says("model.safetensors", "pickled", "lm=scratch")):
        language(gpt2)


def test_a_model_that_does_not_continue_text_is_refused(gpt2: str) -> None:
    file = Path(gpt2) / "config.json"
    file.write_text(json.dumps({"model_type": "wav2vec2"}))
    with pytest.raises(ConfigError, match=says("Wav2Vec2Config", "lm=scratch")):
        language(gpt2)


def test_missing_weights_are_not_made_up(gpt2: str) -> None:
    from safetensors.torch import load_file, save_file

    file = Path(gpt2) / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if "h.1.mlp.c_fc.weight" not in k}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=says(1, "gpt2", "transformer.h.1.mlp.c_fc.weight")):
        language(gpt2)


@pytest.mark.parametrize("save", [save_gpt2, save_llama])
@pytest.mark.parametrize("gone", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_model_without_a_tokenizer_is_refused(
    tmp_path: Path, save: Callable[[Path], str], gone: list[str]
) -> None:
    name = save(tmp_path)
    for file in gone:
        (tmp_path / file).unlink()
    with pytest.raises(ConfigError, match=says(f"head.lm={name}", "tokenizer.json", "vocab.txt")):
        load_pretrained(name, None)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says("eos_token", "tokenizer_config.json")):
        language(save_gpt2(tmp_path / "endless", unk_token="<|endoftext|>"))


def test_half_precision_weights_are_computed_in_float32(gpt2: str) -> None:
    GPT2LMHeadModel.from_pretrained(gpt2).half().save_pretrained(gpt2)
    assert {p.dtype for p in language(gpt2).parameters()} == {torch.float32}


# -- free decoding -------------------------------------------------------------------------------


def uncached(lm: LanguageModel, context: Tensor, tokens: int) -> list[list[int]]:
    """Each row alone, the whole sequence read again for every token."""
    out: list[list[int]] = []
    for row in context:
        ids: list[int] = []
        while len(ids) < tokens:
            read = torch.cat([row, lm.embed(torch.tensor(ids, dtype=torch.long))])
            logits = lm.model(inputs_embeds=read[None]).logits[0, -1]
            if int(logits.argmax()) == lm.tokenizer.end:
                break
            ids.append(int(logits.argmax()))
        out.append(ids)
    return out


@torch.no_grad()
@pytest.mark.parametrize("kind", ["scratch", "gpt2", "llama"])
def test_free_writing_equals_an_uncached_argmax_loop(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = {"scratch": "scratch", "gpt2": "", "llama": ""}[kind]
    name = name or (save_gpt2 if kind == "gpt2" else save_llama)(tmp_path / kind)
    lm = LanguageModel(name, revision=None, tuning="auto", width=32, layers=2, dropout=0.0).eval()
    for p in lm.model.parameters():
        p.mul_(3.0)  # random answers that depend on what was read
    context = torch.randn(24, 5, lm.width)
    longest = next(ids for ids in lm.write(context, 8) if len(ids) == 8)
    lm.tokenizer.end = longest[3]  # so that the end comes up
    got = lm.write(context, 8)
    assert got == uncached(lm, context, 8)
    assert got == [lm.write(row[None], 8)[0] for row in context]  # neighbours do not matter
    assert len({tuple(ids) for ids in got}) > 12  # the context does
    assert {8} < {len(ids) for ids in got}


@torch.no_grad()
def test_writing_stops_where_the_model_reads_no_further(tmp_path: Path) -> None:
    lm = LanguageModel(
        save_gpt2(tmp_path / "lm"), revision=None, tuning="auto", width=0, layers=0, dropout=0.0
    )
    assert max(map(len, lm.write(torch.randn(4, 60, 16), 8))) <= 4
    with pytest.raises(ConfigError, match=says("65 positions", 64)):
        lm.write(torch.randn(1, 64, 16), 8)


def test_bytes_that_are_no_text_are_replaced_not_refused() -> None:
    assert ByteTokenizer().text([*"très ".encode(), 0xC3, 0x28, 256]) == "très \ufffd("


def test_a_decoder_that_needs_an_encoder_is_no_language_model(tiny_hf):
    name = tiny_hf("whisper", "none")
    with pytest.raises(ConfigError, match=says(f"head.lm={name}", "model_type 'whisper'", "gpt2")):
        load_pretrained(name, None)
