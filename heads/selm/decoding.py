"""Free writing: greedy and beam search of ``transformers``, optionally only labels.

The search is that of ``generate``, with ``early_stopping=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Allowed = dict[tuple[int, ...], list[int]]

UNWRITTEN = 10.0
"""How many nats lower all classes score that a search did not write (our choice)."""

IMPOSSIBLE = -1e6
"""``generate`` fills up to K texts with copies of a log-probability below this."""


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
    context: Tensor,
    *,
    end: int,
    tokens: int,
    beams: int = 1,
    allowed: Allowed | None = None,
    per_token: bool = False,
) -> list[list[Written]]:
    """Return the best texts after each context, best first.

    With one beam the search is greedy. It takes the likeliest token at each step, until the first
    end of text.

    Args:
        model: a causal language model of ``transformers``.
        context: ``[B, P, W]`` embeddings, all of one length; rows do not see each other.
        end: id of the end of text.
        tokens: largest number of written tokens, including the end of text.
        beams: K, the number of texts that are followed; at most K are returned.
        allowed: the tokens that may follow each beginning; None = the whole vocabulary.
        per_token: compare texts by their mean log-probability instead of the sum.
    """
    options: dict[str, Any] = {}
    if allowed is not None:  # a text that is none of the labels scores minus infinity
        options["prefix_allowed_tokens_fn"] = lambda _, ids: allowed.get(tuple(ids.tolist()), [end])
    if beams > 1:
        options |= {"early_stopping": False, "length_penalty": float(per_token)}
    out = model.generate(
        inputs_embeds=context,
        attention_mask=torch.ones(context.shape[:2], dtype=torch.long, device=context.device),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
        return_dict_in_generate=True,
        output_scores=beams > 1,
        output_logits=beams == 1,
        **options,
    )
    written = []
    for place, ids in enumerate(out.sequences.tolist()):
        ended = end in ids
        length = ids.index(end) + 1 if ended else len(ids)
        if beams > 1:
            log_p = out.sequences_scores[place].item() * (length if per_token else 1)
        else:  # greedy search returns no scores of texts
            steps = torch.stack([logits[place] for logits in out.logits[:length]]).float()
            log_p = steps.log_softmax(-1)[range(length), ids[:length]].sum().item()
        written.append(Written(tuple(ids[: length - ended]), log_p, length, ended))
    rows = [written[i : i + beams] for i in range(0, len(written), beams)]
    # the best text stays, whatever it scores: a model that diverged gives no finite number
    return [[w for i, w in enumerate(row) if not i or w.log_p > IMPOSSIBLE] for row in rows]


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
