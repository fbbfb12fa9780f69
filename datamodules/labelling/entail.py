"""The second stage: for each class of a taxonomy, how well it follows from a transcript."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from ...zoo.core.errors import ConfigError, DataError
from ...zoo.core.taxonomy import Taxonomy
from ..manifest import Utterance
from .scorers import Scorer, Scores, hypotheses
from .stage import Stage

TEMPLATES = (
    "The speaker feels {}.",
    "The person who says this is {}.",
    "Whoever says this must be feeling {}.",
)
"""Sentences that a verbal form of a class makes a hypothesis of (our choice)."""

Prior = Literal["subtract", "none"]

DIGITS = 5
"""Of a log-odds in a row: fewer than what the neighbours in a batch move."""

PRIOR_DIGITS = 3
"""Of the log-odds of the prior, which is part of the settings: another machine finds the same."""


class Entail(Stage):
    """Scores every class for every transcript, by several templates.

    With ``l[t, c]`` what the scorer gives template t of class c, a log-odds, and ``l0[t, c]`` the
    same for the empty premise, a row holds ``d[t, c] = l[t, c] - l0[t, c]`` as ``by_template`` and
    ``mean_t sigmoid(d[t, c])`` as ``scores``: 1/2 is a class that the transcript speaks neither
    for nor against (our choice). An utterance without words has a row with null in both places.

    Args:
        scorer: what scores.
        taxonomy: its classes, by their verbal forms, are what is looked for.
        templates: sentences with one ``{}`` each.
        prior: ``subtract`` as above; ``none`` takes ``l0 = 0``, and with the scorer ``nli`` the
            scores are means of the model's own probabilities of entailment.
        chunk: transcripts that are computed together.

    Raises:
        ConfigError: when a template has not one blank, or two classes are said alike.
    """

    name = "scores"

    def __init__(
        self,
        scorer: Scorer,
        taxonomy: Taxonomy,
        *,
        templates: Sequence[str] = TEMPLATES,
        prior: Prior = "subtract",
        chunk: int = 64,
    ) -> None:
        if prior not in get_args(Prior):
            raise ConfigError(f"prior={prior}; have {', '.join(get_args(Prior))}")
        if chunk < 1:
            raise ConfigError(f"chunk={chunk}; give at least 1")
        if len(set(taxonomy.forms)) != len(taxonomy):
            raise ConfigError(
                f"taxonomy '{taxonomy.name}' says two of its classes alike "
                f"({', '.join(taxonomy.forms)}), so that no sentence tells them apart"
            )
        self.scorer = scorer
        self.taxonomy = taxonomy
        self.chunk = chunk
        self.templates, self.prior = list(templates), prior
        labels = [members for _, members in taxonomy.members]
        self.hypotheses = hypotheses(self.templates, taxonomy.forms, labels)

    @cached_property
    def null(self) -> Scores:
        """``[T, C]`` what is subtracted: the scores of the empty premise, rounded, or zeros."""
        if self.prior == "none":
            return np.zeros((len(self.templates), len(self.taxonomy)))
        found = self.scorer.score([""], self.hypotheses)
        return np.round(found.reshape(len(self.templates), len(self.taxonomy)), PRIOR_DIGITS) + 0.0

    def settings(self) -> dict[str, Any]:
        return {
            **self.scorer.settings(),
            "taxonomy": self.taxonomy.to_dict(),
            "fingerprint": self.taxonomy.fingerprint,
            "forms": self.taxonomy.forms,
            "templates": self.templates,
            "prior_correction": self.prior,
            "prior": self.null.tolist(),
        }

    def size(self, item: Utterance) -> float:
        return len(item.text or "")

    def rows(self, items: Sequence[Utterance]) -> Iterator[dict[str, Any]]:
        heard = [u for u in items if u.text and u.text.strip()]
        shape = (len(heard), len(self.templates), len(self.taxonomy))
        found = np.zeros(shape)
        if heard:
            texts = [(u.text or "").strip() for u in heard]
            found = self.scorer.score(texts, self.hypotheses).reshape(shape) - self.null
        if not np.isfinite(found).all():
            bad = heard[int(np.argwhere(~np.isfinite(found))[0, 0])]
            raise DataError(
                f"{self.scorer.source} gave a score that is not finite for {bad.id} "
                f"('{bad.text}'); is the model damaged, or its number format too narrow?"
            )
        lifts = dict(zip((u.id for u in heard), np.round(found, DIGITS) + 0.0, strict=True))
        for u in items:
            row: dict[str, Any] = {"id": u.id, "text": u.text, "text_source": u.text_source}
            if (lift := lifts.get(u.id)) is None:
                yield row | {"scores": None, "by_template": None}
            else:
                scores = mean_score(lift).round(DIGITS).tolist()
                yield row | {
                    "scores": dict(zip(self.taxonomy.classes, scores, strict=True)),
                    "by_template": lift.tolist(),
                }


def mean_score(lift: Scores) -> Scores:
    """``[..., T, C]`` log-odds to ``[..., C]`` the mean over templates of their sigmoids."""
    with np.errstate(over="ignore"):
        mean: Scores = (1.0 / (1.0 + np.exp(-lift))).mean(-2)
    return mean


def lift_of(row: Mapping[str, Any], classes: Sequence[str]) -> Scores | None:
    """``[T, C]`` of a row, its classes in the order asked for; None of one without words.

    Raises:
        DataError: when the row is of other classes.
    """
    if row["scores"] is None:
        return None
    have = list(row["scores"])
    if sorted(have) != sorted(classes):
        raise DataError(
            f"the scores of {row['id']} are of {', '.join(have)}, and {', '.join(classes)} are "
            "asked for; choose the taxonomy that they were made with, and fold it"
        )
    lift: Scores = np.asarray(row["by_template"], dtype=np.float64)
    return lift[:, [have.index(c) for c in classes]]
