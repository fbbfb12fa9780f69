"""Greedy and beam search: alone and in a batch, and among labels against the ranking."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from close import assert_like, decided
from serzoo.heads.selm.decoding import Written, allowed_tokens, best_by_class
from serzoo.heads.selm.language import LanguageModel
from torch import Tensor


def language(name: str = "scratch", louder: float = 3.0) -> LanguageModel:
    torch.manual_seed(0)
    m = LanguageModel(name, revision=None, tuning="auto", width=32, layers=2, dropout=0.0).eval()
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(louder)
    return m


def likely_end(m: LanguageModel, context: Tensor) -> None:
    """Make a token that these contexts often write the end of text, so that texts do end."""
    texts = [w.ids for row in m.search(context, 6, beams=4) for w in row]
    middle = [ids[2] for ids in texts if len(ids) > 3]
    m.tokenizer.end = max(set(middle), key=middle.count)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["scratch", "gpt2", "llama"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("constrained", [False, True])
def test_a_text_does_not_depend_on_the_batch(
    kind: str, beams: int, constrained: bool, tiny_lm: Callable[[str], str]
) -> None:
    m = language() if kind == "scratch" else language(tiny_lm(kind), 1.0)
    context = torch.randn(12, 5, m.width)
    likely_end(m, context)
    end = m.tokenizer.end
    labels = [[i + 1, (i + 2) % 7 + 1, end] for i in range(7)] + [[1, end]]
    allowed = allowed_tokens(labels) if constrained else None
    found = m.search(context, 6, beams=beams, allowed=allowed)
    for row, texts in zip(context, found, strict=True):
        [alone] = m.search(row[None], 6, beams=beams, allowed=allowed)
        assert [(w.ids, w.ended) for w in alone] == [(w.ids, w.ended) for w in texts]
        assert_like(
            torch.tensor([w.log_p for w in alone]), torch.tensor([w.log_p for w in texts]), digits=4
        )
        assert not constrained or all([*w.ids, end] in labels for w in texts)
    assert len({texts[0].ids for texts in found}) > 1


@torch.no_grad()
def test_the_likeliest_text_is_found_among_all_texts_of_two_tokens() -> None:
    m = language().double()
    context = torch.randn(6, 5, 32).double()
    end = m.tokenizer.end
    for row in context:
        first = m.model(inputs_embeds=row[None]).logits[0, -1].log_softmax(-1)
        read = torch.cat([row.expand(256, -1, -1), m.embed(torch.arange(256))[:, None]], 1)
        both = first[:256, None] + m.model(inputs_embeds=read).logits[:, -1].log_softmax(-1)
        best = max(both.max().item(), first[end].item())
        [texts] = m.search(row[None], 2, beams=64)
        assert texts[0].log_p == pytest.approx(best, abs=1e-5)
        assert [w.log_p for w in texts] == sorted((w.log_p for w in texts), reverse=True)


@torch.no_grad()
def test_published_settings_of_writing_do_not_change_a_text(
    tiny_lm: Callable[[str], str], tmp_path: Path
) -> None:
    shutil.copytree(tiny_lm("gpt2"), tmp_path / "lm")
    settings = {"repetition_penalty": 9.0, "min_length": 50, "num_beams": 4}
    (tmp_path / "lm" / "generation_config.json").write_text(json.dumps(settings))
    plain, own = language(tiny_lm("gpt2"), 1.0), language(str(tmp_path / "lm"), 1.0)
    context = torch.randn(6, 5, plain.width)
    assert own.search(context, 6) == plain.search(context, 6)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_a_model_without_finite_numbers_still_writes(beams: int) -> None:
    m = language()
    found = m.search(torch.full((2, 5, 32), torch.nan), 3, beams=beams)
    assert all(len(texts) >= 1 for texts in found)


@torch.no_grad()
def test_the_likelihood_of_a_text_is_that_of_the_ranking() -> None:
    m = language()
    context = torch.randn(3, 5, 32)
    likely_end(m, context)
    for row, texts in zip(context, m.search(context, 6, beams=3), strict=True):
        for w in texts:
            if w.ended:
                [[log_p]] = m.rank(row[None], [(None, [[*w.ids, m.tokenizer.end]])])[0]
                assert w.log_p == pytest.approx(log_p.item(), abs=1e-4)
                assert w.tokens == len(w.ids) + 1


SPELT = [[*label.encode(), 256] for label in ("sad", "said", "happy", "hate", "s", "zeal")]


@torch.no_grad()
@pytest.mark.parametrize("per_token", [False, True])
def test_a_tree_searched_with_enough_beams_is_ranked(per_token: bool) -> None:
    m, context = language(louder=6.0), torch.randn(40, 5, 32)
    [ranked] = m.rank(context, [(None, SPELT)])
    ranked = ranked / torch.tensor([len(s) for s in SPELT]) if per_token else ranked
    rows = m.search(
        context, 6, beams=len(SPELT), allowed=allowed_tokens(SPELT), per_token=per_token
    )
    ids = [tuple(s[:-1]) for s in SPELT]
    found = [{w.ids: w.score(per_token) for w in texts} for texts in rows]
    assert all(set(row) == set(ids) for row in found)
    assert_like(torch.tensor([[row[i] for i in ids] for row in found]), ranked)
    clear, best = decided(ranked), ranked.argmax(1)
    assert clear.float().mean() > 0.8
    for i in clear.nonzero().flatten().tolist():
        assert rows[i][0].ids == ids[int(best[i])]
    assert len(best.unique()) > 1


@torch.no_grad()
def test_greedy_in_a_tree_takes_the_likeliest_allowed_token() -> None:
    m, context = language(louder=6.0).double(), torch.randn(30, 5, 32).double()
    after = allowed_tokens(SPELT)
    assert after[()] == [ord("s"), ord("h"), ord("z")]
    assert after[tuple(b"s")] == [ord("a"), 256]
    texts = m.search(context, 6, allowed=after)
    for row, [w] in zip(context, texts, strict=True):
        ids: list[int] = []
        while True:
            read = torch.cat([row, m.embed(torch.tensor(ids, dtype=torch.long))])[None]
            logits = m.model(inputs_embeds=read).logits[0, -1]
            ids.append(max(after[tuple(ids)], key=lambda token: logits[token].item()))
            if ids[-1] == 256:
                break
        assert w.ids == tuple(ids[:-1])
    assert len({w.ids for [w] in texts}) > 1


def test_classes_that_were_not_written_score_below_those_that_were() -> None:
    texts = [
        Written((1,), -1.0, 2, True),
        Written((3,), -2.0, 2, True),
        Written((2,), -4.0, 3, True),
    ]
    class_of = {(1,): 2, (2,): 0, (3,): 2}
    assert best_by_class(texts, lambda w: class_of[w.ids], 4, False) == [-4, -14, -1, -14]
    assert best_by_class(texts, lambda w: class_of[w.ids], 3, True)[0] == pytest.approx(-4 / 3)


def test_a_best_text_that_names_no_class_leaves_all_alike() -> None:
    texts = [Written((1,), -1.0, 2, True), Written((2,), -2.0, 2, True)]
    assert best_by_class(texts, lambda w: {(2,): 0}.get(w.ids), 3, False) == [-10, -10, -10]
    # a worse text may name none
    assert best_by_class(texts, lambda w: {(1,): 1}.get(w.ids), 3, False) == [-11, -1, -11]
