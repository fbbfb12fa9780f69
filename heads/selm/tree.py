"""Labels packed into one sequence: a tree of tokens that a causal model reads in one pass.

The model reads a context once and then the tokens of all labels; labels with the same beginning
share it. An attention mask shows each token only the context and its own ancestors, and its
position is its depth. So the model computes for every label the same as for that label alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

Spelt = tuple[tuple[int, ...], ...]

Branch = tuple[Tensor | None, list[list[int]]]
"""A trunk of embeddings ``[Lt, W]``, or None, and the spelt labels that follow it."""

Memory = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer of a model, ``[B, attention heads, positions, width]``."""

LOGITS_AT_ONCE = 2**26
"""How many logits a pass may compute (a quarter of a gigabyte); this limits its rows."""

POSITIONS_AT_ONCE = 8192
"""How many positions a pass may compute; this limits its rows too."""

POSITIONS_ON_CPU = 1024
"""The same on a CPU, where a small model is faster if its activations stay in the cache."""


@dataclass(frozen=True)
class Tree:
    """Branches that follow a context; each is a trunk of given embeddings and then labels.

    It has ``N`` nodes, branch after branch; each branch has its trunk and then its tokens. Slot 0
    is the last position of the context, slot i + 1 is node i.

    Attributes:
        tokens: per branch, the ids of its label nodes.
        depth: ``[N]`` position after the context.
        sees: ``[N, N]`` bool; a node sees its ancestors and itself.
        slots: ``[K]`` sorted slots whose predictions are needed.
        asked: ``[M]`` for each label token, the index of the slot that predicts it, below K.
        wanted: ``[M]`` id of the label token.
        label: ``[M]`` index of its label, counted over all branches.
        sizes: number of labels of each branch.
    """

    tokens: tuple[Tensor, ...]
    depth: Tensor
    sees: Tensor
    slots: Tensor
    asked: Tensor
    wanted: Tensor
    label: Tensor
    sizes: tuple[int, ...]


@lru_cache(maxsize=64)
def plant(trunks: tuple[int, ...], labels: tuple[Spelt, ...]) -> Tree:
    """Build the tree of some branches.

    The last token of a label, the end of text, is predicted but never read.

    Args:
        trunks: length of each branch's trunk, 0 for none.
        labels: the spelt labels of each branch.
    """
    parents: list[int] = []  # slots
    tokens: list[Tensor] = []
    label_of: list[int] = []
    slot_of: list[int] = []
    wanted: list[int] = []
    for trunk, spelt in zip(trunks, labels, strict=True):
        root = 0
        for _ in range(trunk):
            parents.append(root)
            root = len(parents)
        children: dict[tuple[int, int], int] = {}
        ids: list[int] = []
        for label in spelt:
            at = root
            number = 1 + label_of[-1] if label_of else 0
            for place, token in enumerate(label):
                slot_of.append(at)
                wanted.append(token)
                label_of.append(number)
                if place == len(label) - 1:
                    break
                if (at, token) not in children:
                    parents.append(at)
                    ids.append(token)
                    children[at, token] = len(parents)
                at = children[at, token]
        tokens.append(torch.tensor(ids, dtype=torch.long))
    sees = torch.eye(len(parents), dtype=torch.bool)
    depth = torch.zeros(len(parents), dtype=torch.long)
    for node, parent in enumerate(parents):
        if parent:  # parents come first
            sees[node] |= sees[parent - 1]
            depth[node] = depth[parent - 1] + 1
    slots, asked = torch.unique(torch.tensor(slot_of), return_inverse=True)
    return Tree(
        tuple(tokens), depth, sees, slots, asked, torch.tensor(wanted), torch.tensor(label_of),
        tuple(map(len, labels)),
    )  # fmt: skip


def attention(
    tree: Tree, context: int, device: torch.device, lead: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the attention mask and the position ids of a context and its tree.

    Args:
        tree: N nodes.
        context: P, number of positions of the context; these are causal.
        device: device of the results.
        lead: P0, number of positions before the context, which the model has read already.

    Returns:
        ``[1, 1, P + N, P0 + P + N]`` float32 mask to be added to attention logits, and
        ``[1, P + N]`` position ids.
    """
    N, before = len(tree.depth), lead + context
    sees = torch.ones(before + N, before + N, dtype=torch.bool).tril()
    sees[before:, before:] = tree.sees
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    positions = torch.cat([torch.arange(before), before + tree.depth])
    return mask[None, None, lead:].to(device), positions[None, lead:].to(device)


def read_lead(model: Any, lead: Tensor | None) -> Memory:
    """Return what the model keeps of a lead ``[1, P0, W]``; nothing if there is no lead."""
    if lead is None:
        return []
    return memory(model(inputs_embeds=lead, use_cache=True, logits_to_keep=1).past_key_values)


def memory(cache: Any) -> Memory:
    """Return the keys and values that a cache of ``transformers`` holds."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def cache_of(kept: Memory, rows: int | Tensor) -> DynamicCache | None:
    """Return a new cache of what a model read; None if it read nothing.

    Args:
        kept: keys and values of each layer.
        rows: how many rows share a memory of one row, or the ``[n]`` memory of each row.
    """
    if not kept:
        return None
    cache = DynamicCache()
    for depth, layer in enumerate(kept):
        keys, values = (
            x.expand(rows, -1, -1, -1) if isinstance(rows, int) else x[rows] for x in layer
        )
        cache.update(keys, values, depth)
    return cache


def rank(
    model: Any,
    embed: Callable[[Tensor], Tensor],
    context: Tensor,
    branches: Sequence[Branch],
    lead: Tensor | None = None,
) -> list[Tensor]:
    """Return ``log p(label | lead, context, trunk)`` of every label of every branch.

    Args:
        model: a causal language model of ``transformers`` that takes position ids.
        embed: maps token ids to embeddings.
        context: ``[B, P, W]`` embeddings; P >= 1 if a branch has no trunk.
        branches: at least one, each with at least one label.
        lead: ``[1, P0, W]`` embeddings before every context, read once for all; or None.

    Returns:
        For each branch ``[B, labels]`` float32, not normalised by length.
    """
    if lead is not None and len(context) == 1:  # nothing to share: one pass is faster than two
        context, lead = torch.cat([lead, context], 1), None
    device, P = context.device, context.shape[1]
    tree = plant(
        tuple(0 if trunk is None else len(trunk) for trunk, _ in branches),
        tuple(tuple(map(tuple, spelt)) for _, spelt in branches),
    )
    kept = read_lead(model, lead)
    mask, positions = attention(tree, P, device, 0 if lead is None else lead.shape[1])
    parts = [
        part
        for (trunk, _), ids in zip(branches, tree.tokens, strict=True)
        for part in (trunk, embed(ids.to(device)))
        if part is not None
    ]
    nodes = torch.cat([part.to(context.dtype) for part in parts])
    keep = (tree.slots + P - 1).to(device)
    asked, wanted, label = (t.to(device) for t in (tree.asked, tree.wanted, tree.label))
    at_once = POSITIONS_ON_CPU if device.type == "cpu" else POSITIONS_AT_ONCE
    rows = min(
        LOGITS_AT_ONCE // (len(keep) * model.config.vocab_size), at_once // positions.shape[1]
    )
    found = []
    for part in torch.split(context, max(1, rows)):
        n = len(part)
        logits = model(
            inputs_embeds=torch.cat([part, nodes.expand(n, -1, -1)], 1),
            attention_mask=mask.expand(n, -1, -1, -1),
            position_ids=positions.expand(n, -1),
            past_key_values=cache_of(kept, n),
            logits_to_keep=keep,
            use_cache=False,
        ).logits.float()
        log_p = logits[:, asked, wanted] - logits.logsumexp(-1)[:, asked]
        found.append(log_p.new_zeros(n, sum(tree.sizes)).index_add(1, label, log_p))
    return list(torch.split(torch.cat(found), list(tree.sizes), 1))
