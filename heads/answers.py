"""Likelihoods of answers from those of their verbal forms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
