"""Greedy and beam search against transformers' own, and within a tree against the ranking."""

from __future__ import annotations

from collections.abc import Callable

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


def theirs(m: LanguageModel, context: Tensor, beams: int, tokens: int, per_token: bool):
    """Texts and scores of ``generate``, each up to its end, per row."""
    out = m.model.generate(
        inputs_embeds=context,
        attention_mask=torch.ones(context.shape[:2], dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=tokens,
        do_sample=False,
        early_stopping=False,
        length_penalty=float(per_token),
        eos_token_id=m.tokenizer.end,
        pad_token_id=m.tokenizer.end,
        return_dict_in_generate=True,
        output_scores=True,
    )
    texts = []
    for ids in out.sequences.tolist():
        end = m.tokenizer.end
        texts.append(tuple(ids[: ids.index(end)] if end in ids else ids))
    n = len(context)
    scores = None if beams == 1 else out.sequences_scores.view(n, beams)
    return [texts[i * beams : (i + 1) * beams] for i in range(n)], scores


def likely_end(m: LanguageModel, context: Tensor) -> None:
    """Make a token that these contexts often write the end of text, so that texts do end."""
    texts = [w.ids for row in m.search(context, 6, beams=4) for w in row]
    middle = [ids[2] for ids in texts if len(ids) > 3]
    m.tokenizer.end = max(set(middle), key=middle.count)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("per_token", [False, True])
def test_search_equals_that_of_transformers(
    kind: str, beams: int, per_token: bool, tiny_lm: Callable[[str], str]
) -> None:
    m = language(tiny_lm(kind), 1.0).double()  # so that near ties of texts are none
    context = torch.randn(12, 5, m.width).double()
    likely_end(m, context)
    texts, scores = theirs(m, context, beams, 6, per_token)
    found = m.search(context, 6, beams=beams, per_token=per_token)
    assert [[w.ids for w in row] for row in found] == texts
    if scores is not None:
        got = torch.tensor([[w.score(per_token) for w in row] for row in found])
        assert_like(got, scores)
    ended = [w.ended for row in found for w in row]
    assert any(ended)
    assert not all(ended)


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
