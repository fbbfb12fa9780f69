"""Likelihoods of answers from those of their verbal forms."""

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
        spelt: ids of every form, answer by answer.
        owner: which answer each is a form of, ascending from 0.
    """

    spelt: list[list[int]]
    owner: list[int]

    def __len__(self) -> int:
        return self.owner[-1] + 1

    def counts(self, device: torch.device) -> Tensor:
        """``[forms]`` tokens of each form, the end of text included."""
        return torch.tensor([len(ids) for ids in self.spelt], device=device)

    def together(self, log_p: Tensor) -> Tensor:
        """``[B, forms]`` to ``[B, answers]``: the log of the summed likelihoods of the forms."""
        if len(self) == len(self.owner):
            return log_p
        owner = torch.tensor(self.owner, device=log_p.device)
        return torch.stack([log_p[:, owner == a].logsumexp(1) for a in range(len(self))], 1)


def expected_nll(
    language: LanguageModel, context: Tensor, answers: Answers, probs: Tensor, reach_all: bool
) -> tuple[Tensor, Tensor]:
    """``-sum_a p_a log p(a | context)``, scoring only answers that have probability.

    Args:
        language: the model.
        context: ``[B, P, W]``.
        answers: A of them.
        probs: ``[B, A]``; a row of zeros has no answer.
        reach_all: score an answer with probability 0 for these rows too, so that a backward pass
            reaches every parameter in every batch.

    Returns:
        ``[B]`` float32, and ``[B]`` the same per token of each answer's first form, detached.
    """
    zeros = torch.zeros(len(probs), device=probs.device)
    pairs = probs > 0
    if reach_all:
        pairs[:, 0] |= ~pairs.any(-1)
    rows, columns = pairs.nonzero(as_tuple=True)
    if not len(rows):
        return zeros, zeros
    if len(answers) == len(answers.owner):
        log_p = language.log_likelihood(context, answers.spelt, rows, columns)
    else:  # of every answer all forms
        wanted = pairs[:, torch.tensor(answers.owner, device=probs.device)].nonzero(as_tuple=True)
        each = language.log_likelihood(context, answers.spelt, *wanted)
        dense = each.new_zeros(len(probs), len(answers.owner)).index_put(wanted, each)
        log_p = answers.together(dense)[rows, columns]
    nll = -log_p * probs[rows, columns].to(log_p.dtype)
    first = [answers.owner.index(answer) for answer in range(len(answers))]
    tokens = answers.counts(nll.device)[first][columns]
    return zeros.index_add(0, rows, nll), zeros.index_add(0, rows, nll.detach() / tokens)


# ---- Deciding by what is written: from a search to the class that its text names.

WRITTEN = 8
"""Tokens that are written freely at most; more where a label is longer (our choice)."""


@dataclass(frozen=True)
class Writer:
    """How texts are searched.

    Attributes:
        beams: of the search; 1 = greedy.
        constrained: to the spellings of the answers.
        per_token: texts are compared by their mean log-probability instead of the sum.
    """

    beams: int = 1
    constrained: bool = False
    per_token: bool = False

    def texts(
        self, language: LanguageModel, context: Tensor, answers: Answers
    ) -> list[list[Written]]:
        """The best texts after each context ``[B, P, W]``, best first.

        At most 8 tokens, or as many as the longest answer takes.
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
        """``[B, answers]`` float32 by :func:`.decoding.best_by_class`.

        Args:
            language: the model.
            context: ``[B, P, W]``.
            answers: what each class is called.
            class_said: the class that a text names which is none of these spellings.
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
