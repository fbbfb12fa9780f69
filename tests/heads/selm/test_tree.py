"""Ranking by one pass over a tree of labels, against a full pass per label."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.selm import tree as trees
from serzoo.heads.selm.language import LanguageModel
from serzoo.heads.selm.tree import attention, plant
from serzoo.zoo.core.errors import ConfigError
from torch import Tensor

SPELT = [[7, 8, 9, 0], [7, 8, 3, 0], [7, 0], [5, 5, 5, 5, 5, 0], [8, 7, 0]]
OTHER = [[9, 0], [7, 8, 0]]


def language(name: str = "scratch") -> LanguageModel:
    torch.manual_seed(0)
    m = LanguageModel(name, revision=None, tuning="auto", width=32, layers=2, dropout=0.0).eval()
    factor = 0.5 / m.model.get_input_embeddings().weight.std().item() if name == "scratch" else 1
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(min(factor, 8))
    return m


def full_pass(m: LanguageModel, context: Tensor, ids: list[int]) -> Tensor:
    """``log p(ids | context)``: one utterance, one label, no cache, no mask."""
    read = torch.cat([context, m.embed(torch.tensor(ids))])[None]
    log_p = m.model(inputs_embeds=read).logits[0].log_softmax(-1)
    return sum(log_p[len(context) - 1 + j, token] for j, token in enumerate(ids))  # type: ignore[return-value]


def test_labels_that_begin_alike_share_their_beginning() -> None:
    tree = plant((0,), (tuple(map(tuple, SPELT)),))
    assert tree.tokens[0].tolist() == [7, 8, 9, 3, 5, 5, 5, 5, 5, 8, 7]
    assert tree.depth.tolist() == [0, 1, 2, 2, 0, 1, 2, 3, 4, 0, 1]
    assert tree.sees[2].nonzero().flatten().tolist() == [0, 1, 2]
    assert tree.sees[3].nonzero().flatten().tolist() == [0, 1, 3]  # not the 9 of its sister
    assert tree.sizes == (5,)
    assert tree.wanted.tolist() == [t for label in SPELT for t in label]
    mask, positions = attention(tree, 2, torch.device("cpu"))
    assert positions[0].tolist() == [0, 1, *(2 + tree.depth).tolist()]
    assert (mask[0, 0, :2] == 0).tolist() == [[True] + [False] * 12, [True] * 2 + [False] * 11]
    assert (mask[0, 0, 5] == 0).nonzero().flatten().tolist() == [0, 1, 2, 3, 5]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["scratch", "gpt2", "llama"])
def test_a_tree_ranks_as_full_passes_do(kind: str, tiny_lm: Callable[[str], str]) -> None:
    m = language(kind if kind == "scratch" else tiny_lm(kind))
    context = torch.randn(3, 5, m.width)
    [got] = m.rank(context, [(None, SPELT)])
    want = torch.stack([torch.stack([full_pass(m, c, ids) for ids in SPELT]) for c in context])
    assert_like(got, want)
    assert want.std(0).min() > 0.1  # the context matters


@torch.no_grad()
@pytest.mark.parametrize("kind", ["scratch", "gpt2", "llama"])
def test_branches_share_the_context_and_do_not_see_each_other(
    kind: str, tiny_lm: Callable[[str], str]
) -> None:
    m = language(kind if kind == "scratch" else tiny_lm(kind))
    context, first, second = (torch.randn(n, m.width) for n in (4, 3, 6))
    got = m.rank(context[None], [(first, SPELT), (None, OTHER), (second, OTHER)])
    for trunk, spelt, found in zip((first, None, second), (SPELT, OTHER, OTHER), got, strict=True):
        before = context if trunk is None else torch.cat([context, trunk])
        want = torch.stack([full_pass(m, before, ids) for ids in spelt])
        assert_like(found[0], want)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["scratch", "gpt2", "llama"])
def test_a_lead_is_read_once_and_counts_as_if_it_stood_in_every_context(
    kind: str, tiny_lm: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    m = language(kind if kind == "scratch" else tiny_lm(kind))
    context, lead, trunk = (torch.randn(*n, m.width) for n in ((3, 5), (4,), (2,)))
    whole = torch.cat([lead.expand(3, -1, -1), context], 1)
    shapes: list[tuple[int, ...]] = []
    m.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    monkeypatch.setattr(trees, "POSITIONS_ON_CPU", 2 * (5 + 11 + 2 + 3))
    got = m.rank(context, [(None, SPELT), (trunk, OTHER)], lead[None])
    assert shapes == [(1, 4), (2, 21), (1, 21)]
    alone = m.rank(context[:1], [(None, SPELT), (trunk, OTHER)], lead[None])
    assert shapes[3:] == [(1, 4 + 21)]  # nothing to share, so one pass
    for one, found in zip(alone, got, strict=True):
        assert_like(one, found[:1])
    for before, spelt, found in zip((None, trunk), (SPELT, OTHER), got, strict=True):
        rows = [c if before is None else torch.cat([c, before]) for c in whole]
        want = torch.stack([torch.stack([full_pass(m, c, ids) for ids in spelt]) for c in rows])
        assert_like(found, want)


@torch.no_grad()
def test_a_model_that_takes_no_positions_ranks_pair_by_pair() -> None:
    m = language()
    context, trunk, lead = torch.randn(3, 4, 32), torch.randn(2, 32), torch.randn(1, 3, 32)
    want = m.rank(context, [(trunk, SPELT), (None, OTHER)], lead)
    m._reads_trees = False
    for a, b in zip(m.rank(context, [(trunk, SPELT), (None, OTHER)], lead), want, strict=True):
        assert_like(a, b)


@torch.no_grad()
def test_many_utterances_are_ranked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    m, context = language(), torch.randn(7, 4, 32)
    [want] = m.rank(context, [(None, SPELT)])
    sizes: list[int] = []
    m.model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    monkeypatch.setattr(trees, "POSITIONS_ON_CPU", 3 * (4 + 11))
    assert_like(m.rank(context, [(None, SPELT)])[0], want)
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("led", [0, 2])
def test_gradients_pass_through_a_ranking(led: int) -> None:
    m = language()
    one, two = (torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1)) for _ in "ab")
    rows = one.requires_grad_().expand(2, -1, -1)
    lead = one[:, :led] if led else None
    m.rank(rows[:, led:], [(None, SPELT)], lead)[0].sum().backward()
    two.requires_grad_()
    sum(2 * full_pass(m, two[0], ids) for ids in SPELT).backward()  # type: ignore[union-attr]
    assert (one.grad - two.grad).norm() < 1e-3 * two.grad.norm()  # type: ignore[operator,union-attr]


def test_a_tree_deeper_than_the_model_reads_is_refused(tiny_lm: Callable[[str], str]) -> None:
    m = language(tiny_lm("gpt2"))  # 64 positions
    with torch.no_grad():
        m.rank(torch.randn(1, 58, m.width), [(None, SPELT)])
        with pytest.raises(ConfigError, match=says("65 positions", 64)):
            m.rank(torch.randn(1, 59, m.width), [(None, SPELT)])
        trunk = torch.randn(4, m.width)
        with pytest.raises(ConfigError, match=says("66 positions", 64)):
            m.rank(torch.randn(1, 56, m.width), [(trunk, SPELT)])
        with pytest.raises(ConfigError, match=says("67 positions", 64)):
            m.rank(torch.randn(1, 56, m.width), [(None, SPELT)], torch.randn(1, 5, m.width))
