"""Likelihoods of answers, and decisions by a written text.

:class:`Answers` holds the spellings of all verbal forms and sums the likelihoods of the forms of an
answer. :func:`expected_nll` is the training loss. :class:`Writer` searches for a text and scores
the class that the text names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .decoding import Written, allowed_tokens, best_by_class
from .language import LanguageModel


@dataclass(frozen=True)
class Answers:
    """The spelt forms of the answers to a prompt.

    Attributes:
        spelt: token ids of every form, answer by answer.
        owner: for each form, the index of its answer; ascending from 0.
    """

    spelt: list[list[int]]
    owner: list[int]

    def __len__(self) -> int:
        return self.owner[-1] + 1

    def counts(self, device: torch.device) -> Tensor:
        """Return ``[forms]``, the number of tokens of each form, including the end of text."""
        return torch.tensor([len(ids) for ids in self.spelt], device=device)

    def together(self, log_p: Tensor) -> Tensor:
        """Sum the likelihoods of each answer's forms: ``[B, forms]`` to ``[B, answers]``.

        Both are logarithms.
        """
        if len(self) == len(self.owner):
            return log_p
        owner = torch.tensor(self.owner, device=log_p.device)
        return torch.stack([log_p[:, owner == a].logsumexp(1) for a in range(len(self))], 1)


def expected_nll(
    language: LanguageModel,
    context: Tensor,
    answers: Answers,
    probs: Tensor,
    reach_all: bool,
    lead: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``-sum_a p_a log p(a | context)``; answers of probability 0 are not scored.

    Args:
        language: the language model.
        context: ``[B, P, W]`` embeddings.
        answers: the A answers.
        probs: ``[B, A]`` probabilities; a row of zeros has no answer.
        reach_all: also score an answer for the rows without one, with weight 0. A backward pass
            then reaches every parameter in every batch.
        lead: ``[1, P0, W]`` embeddings before every context, or None.

    Returns:
        ``[B]`` float32 losses, and ``[B]`` losses per token of each answer's first form, detached.
    """
    zeros = torch.zeros(len(probs), device=probs.device)
    pairs = probs > 0
    if reach_all:
        pairs[:, 0] |= ~pairs.any(-1)
    rows, columns = pairs.nonzero(as_tuple=True)
    if not len(rows):
        return zeros, zeros
    if len(answers) == len(answers.owner):
        log_p = language.log_likelihood(context, answers.spelt, rows, columns, lead)
    else:  # all forms of every answer
        owned = pairs[:, torch.tensor(answers.owner, device=probs.device)]
        whose, form = owned.nonzero(as_tuple=True)
        each = language.log_likelihood(context, answers.spelt, whose, form, lead)
        dense = each.new_zeros(len(probs), len(answers.owner)).index_put((whose, form), each)
        log_p = answers.together(dense)[rows, columns]
    nll = -log_p * probs[rows, columns].to(log_p.dtype)
    first = [answers.owner.index(answer) for answer in range(len(answers))]
    tokens = answers.counts(nll.device)[first][columns]
    return zeros.index_add(0, rows, nll), zeros.index_add(0, rows, nll.detach() / tokens)


# Decision by a written text.

WRITTEN = 8
"""Largest number of freely written tokens; it is raised if a label is longer (our choice)."""


@dataclass(frozen=True)
class Writer:
    """Settings of the search for texts.

    Attributes:
        beams: number of beams; 1 = greedy.
        constrained: write only spellings of the answers.
        per_token: compare texts by their mean log-probability per token, not by the sum.
    """

    beams: int = 1
    constrained: bool = False
    per_token: bool = False

    def texts(
        self, language: LanguageModel, context: Tensor, answers: Answers
    ) -> list[list[Written]]:
        """Return the best texts after each context ``[B, P, W]``, best first.

        A text has at most 8 tokens, or as many as the longest answer.
        """
        return language.search(
            context,
            max(WRITTEN, *map(len, answers.spelt)),
            beams=self.beams,
            allowed=allowed_tokens(answers.spelt) if self.constrained else None,
            per_token=self.per_token,
        )

    def scores(
        self,
        language: LanguageModel,
        context: Tensor,
        answers: Answers,
        class_said: Callable[[str], int | None],
    ) -> Tensor:
        """Return ``[B, answers]`` float32 scores by :func:`.decoding.best_by_class`.

        Args:
            language: the language model.
            context: ``[B, P, W]`` embeddings.
            answers: the spellings of each class.
            class_said: finds the class that any other text names.
        """
        known = {
            tuple(ids[:-1]): index for ids, index in zip(answers.spelt, answers.owner, strict=True)
        }

        def class_of(written: Written) -> int | None:
            if written.ids in known:
                return known[written.ids]
            return class_said(language.tokenizer.text(list(written.ids)))

        rows = [
            best_by_class(texts, class_of, len(answers), self.per_token)
            for texts in self.texts(language, context, answers)
        ]
        return torch.tensor(rows, dtype=torch.float32, device=context.device)
