"""Deciding by what is written: from a search to the class that its text names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .answers import Answers
from .decoding import Written, allowed_tokens, best_by_class
from .language import LanguageModel

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
