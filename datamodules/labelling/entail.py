"""The second stage of labelling: how well each class of a taxonomy follows from a transcript."""

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
"""Sentences that become hypotheses with the verbal form of a class (our choice)."""

Prior = Literal["subtract", "none"]

DIGITS = 5
"""Decimal digits of a log-odds in a row; neighbours in a batch do not change these."""

PRIOR_DIGITS = 3
"""Decimal digits of the prior's log-odds, which are part of the settings: equal on all machines."""


class Entail(Stage):
    """Scores every class for every transcript, by several templates.

    ``l[t, c]`` is the scorer's log-odds of template t with class c. ``l0[t, c]`` is the same for
    the empty premise. A row holds ``by_template``, which is ``d[t, c] = l[t, c] - l0[t, c]``, and
    ``scores``: ``mean_t sigmoid(d[t, c])``. A score of 1/2 means that the transcript speaks
    neither for nor against the class (our choice). A row without words has null in both places.

    Args:
        scorer: the scorer.
        taxonomy: the classes, which are named by their verbal forms.
        templates: sentences with one ``{}`` each.
        prior: ``subtract`` as above. ``none`` uses ``l0 = 0``; with the scorer ``nli`` the scores
            are then means of the model's own probabilities of entailment.
        chunk: number of transcripts that are computed together.

    Raises:
        ConfigError: if a template does not have exactly one blank, or two classes have the same
            verbal form.
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
            raise ConfigError(f"prior={prior}; give one of {', '.join(get_args(Prior))}")
        if chunk < 1:
            raise ConfigError(f"chunk={chunk}; give at least 1")
        if len(set(taxonomy.forms)) != len(taxonomy):
            raise ConfigError(
                f"taxonomy '{taxonomy.name}' gives two classes the same verbal form "
                f"({', '.join(taxonomy.forms)}); give each class a form of its own"
            )
        self.scorer = scorer
        self.taxonomy = taxonomy
        self.chunk = chunk
        self.templates, self.prior = list(templates), prior
        labels = [members for _, members in taxonomy.members]
        self.hypotheses = hypotheses(self.templates, taxonomy.forms, labels)

    @cached_property
    def null(self) -> Scores:
        """The ``[T, C]`` scores to subtract: those of the empty premise, or zeros."""
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
                f"('{bad.text}'); check the model, or use a wider number format"
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
    """Return ``[..., C]``, the mean over templates of the sigmoids of ``[..., T, C]`` log-odds."""
    with np.errstate(over="ignore"):
        mean: Scores = (1.0 / (1.0 + np.exp(-lift))).mean(-2)
    return mean


def lift_of(row: Mapping[str, Any], classes: Sequence[str]) -> Scores | None:
    """Return ``[T, C]`` of a row, with classes in the given order; None if it has no words.

    Raises:
        DataError: if the row has other classes.
    """
    if row["scores"] is None:
        return None
    have = list(row["scores"])
    if sorted(have) != sorted(classes):
        raise DataError(
            f"the scores of {row['id']} are for the classes {', '.join(have)}, not for "
            f"{', '.join(classes)}; give the taxonomy of the scores, and fold them into another"
        )
    lift: Scores = np.asarray(row["by_template"], dtype=np.float64)
    return lift[:, [have.index(c) for c in classes]]
