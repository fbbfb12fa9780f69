"""Free writing: greedy and beam search over a causal language model, optionally within a tree.

The rules are those of the beam search of ``transformers`` (with ``early_stopping=False``); the
tests compare with it. This module has its own search for two reasons: each row has its own
embeddings as context, and the search may be limited to the spellings of a taxonomy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

Allowed = dict[tuple[int, ...], list[int]]

UNWRITTEN = 10.0
"""How many nats lower all classes score that a search did not write (our choice)."""


@dataclass(frozen=True)
class Written:
    """A text that was written.

    Attributes:
        ids: its tokens, without the end of text.
        log_p: the sum of the log-probabilities of its tokens, and of the end if it was written.
        tokens: the number of these log-probabilities.
        ended: True if the end of text was written, False if the limit of tokens was reached.
    """

    ids: tuple[int, ...]
    log_p: float
    tokens: int
    ended: bool

    def score(self, per_token: bool) -> float:
        """Return the score by which texts are compared."""
        return self.log_p / self.tokens if per_token else self.log_p


@dataclass
class _Row:
    """The beams of one utterance."""

    running: list[tuple[tuple[int, ...], float]] = field(default_factory=lambda: [((), 0.0)])
    finished: list[Written] = field(default_factory=list)
    done: bool = False


def allowed_tokens(spelt: Iterable[Iterable[int]]) -> Allowed:
    """Return the tokens that may follow each beginning of the labels, including the end of text."""
    after: dict[tuple[int, ...], dict[int, None]] = {}
    for label in spelt:
        ids = tuple(label)
        for n in range(len(ids)):
            after.setdefault(ids[:n], {})[ids[n]] = None
    return {beginning: list(tokens) for beginning, tokens in after.items()}


@torch.no_grad()
def search(
    model: Any,
    embed: Callable[[Tensor], Tensor],
    context: Tensor,
    *,
    end: int,
    tokens: int,
    beams: int = 1,
    allowed: Allowed | None = None,
    per_token: bool = False,
) -> list[list[Written]]:
    """Return the best texts after each context, best first.

    Keys and values of the read tokens are cached and follow their beams. With one beam the search
    is greedy: it takes the likeliest token at each step, until the first end of text.

    Args:
        model: a causal language model of ``transformers``.
        embed: maps token ids to embeddings.
        context: ``[B, P, W]`` embeddings, all of one length; rows do not see each other.
        end: id of the end of text.
        tokens: largest number of written tokens, including the end of text.
        beams: K, the number of texts that are followed; at most K are returned.
        allowed: the tokens that may follow each beginning; None = the whole vocabulary.
        per_token: compare texts by their mean log-probability instead of the sum.
    """
    rows = [_Row() for _ in context]
    past, step = DynamicCache(), context
    slots = [[i] for i in range(len(rows))]  # indices of the beams of a row in the last batch
    for length in range(1, tokens + 1):
        out = model(inputs_embeds=step, past_key_values=past, use_cache=True, logits_to_keep=1)
        log_p = out.logits[:, -1].float().log_softmax(-1)
        values, ids = log_p.topk(min(2 * beams, log_p.shape[-1]))
        best = [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(),
                                                              strict=True)]  # fmt: skip
        sources: list[int] = []
        chosen: list[int] = []
        for index, row in enumerate(rows):
            if row.done:
                slots[index] = []
                continue
            found = []
            for (text, total), slot in zip(row.running, slots[index], strict=True):
                options = best[slot]
                if allowed is not None:
                    next_ones = allowed.get(text, [])
                    options = list(zip(next_ones, log_p[slot, next_ones].tolist(), strict=True))
                found += [(total + value, slot, (*text, token)) for token, value in options]
            found.sort(key=lambda candidate: -candidate[0])
            kept = _advance(row, found[: 2 * beams], length, tokens, end, beams, per_token)
            slots[index] = list(range(len(sources), len(sources) + len(kept)))
            sources += [slot for slot, _ in kept]
            chosen += [token for _, token in kept]
        if not sources:
            break
        past.reorder_cache(torch.tensor(sources, device=context.device))  # type: ignore[arg-type]
        step = embed(torch.tensor(chosen, device=context.device)[:, None])
    return [sorted(row.finished, key=lambda w: -w.score(per_token)) for row in rows]


def _advance(
    row: _Row,
    found: list[tuple[float, int, tuple[int, ...]]],
    length: int,
    tokens: int,
    end: int,
    beams: int,
    per_token: bool,
) -> list[tuple[int, int]]:
    """Finish and continue beams; return the (slot, token) pairs of those that continue."""
    row.running, going = [], []
    for rank, (total, slot, text) in enumerate(found):
        ended = text[-1] == end
        if ended or length == tokens:
            if rank < beams:  # only the best K may end here
                row.finished.append(Written(text[:-1] if ended else text, total, length, ended))
        elif len(row.running) < beams:
            row.running.append((text, total))
            going.append((slot, text[-1]))
    row.finished = sorted(row.finished, key=lambda w: -w.score(per_token))[:beams]
    if len(row.finished) == beams and row.running:
        reach = row.running[0][1] / (length if per_token else 1)
        row.done = beams == 1 or reach <= row.finished[-1].score(per_token)
    row.done = row.done or not row.running
    return [] if row.done else going


def best_by_class(
    texts: list[Written], class_of: Callable[[Written], int | None], classes: int, per_token: bool
) -> list[float]:
    """Return scores of the classes that a search wrote; others are :data:`UNWRITTEN` lower.

    All classes score the same if the best text names no class.
    """
    found: dict[int, float] = {}
    for rank, written in enumerate(texts):  # best first
        index = class_of(written)
        if index is None and rank == 0:
            break
        if index is not None:
            found.setdefault(index, written.score(per_token))
    floor = min(found.values(), default=0.0) - UNWRITTEN
    return [found.get(c, floor) for c in range(classes)]
