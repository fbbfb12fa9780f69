"""Views: the questions that SELM answers about an utterance, and the answers to them.

SELM has three representations of emotion: categories, sentiment, and continuous valence, arousal
and dominance. How they are asked and answered is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...zoo.core.errors import ConfigError, suggest
from ...zoo.core.taxonomy import Taxonomy
from ...zoo.core.types import Targets

DimensionAnswers = Literal["words", "numbers"]
Names = Literal["given", "shuffled"]

CATEGORICAL = "categorical"
SENTIMENTS = ["negative", "neutral", "positive"]
LEVELS = ["low", "medium", "high"]
NUMBERS = [f"{n / 10:.1f}" for n in range(11)]
DIMENSIONS = {"valence": 0, "arousal": 1, "dominance": 2}
PROMPTS = {
    "sentiment": "this sentiment is",
    "valence": "the valence is",
    "arousal": "the arousal is",
    "dominance": "the dominance is",
}
SHIPPED = [CATEGORICAL, *PROMPTS]


@dataclass(frozen=True)
class View:
    """A question about an utterance.

    Attributes:
        name: one of :data:`SHIPPED`.
        weight: weight of its examples in the loss.
        prompts: ways to ask it.
    """

    name: str
    weight: float
    prompts: tuple[str, ...]


class Views:
    """The questions of a head and their answers.

    Args:
        trained: the taxonomy of training.
        weights: maps a view to the weight of its examples; None = only the categorical view.
        prompt: prompt of the categorical view, if ``prompts`` has none.
        prompts: maps a view to its prompt, or prompts.
        forms: maps a view and an answer to its verbal form, or forms. By default a class uses its
            own form, and any other answer uses its name.
        names: with ``shuffled`` every class uses the forms of another one. It stands half the
            number of classes further on in training order. A class that was never trained keeps
            its own.
        dimensions: ``words`` (low, medium, high) or ``numbers`` (0.0, 0.1, ... 1.0).
        low: ratings below it are low.
        high: ratings from it on are high.

    Raises:
        ConfigError: if a view or an answer is unknown, or a weight, an edge or a prompt is not
            allowed.
    """

    def __init__(
        self,
        trained: Taxonomy,
        *,
        weights: Mapping[str, float] | None = None,
        prompt: str = "this emotion is",
        prompts: Mapping[str, Any] | None = None,
        forms: Mapping[str, Any] | None = None,
        names: Names = "given",
        dimensions: DimensionAnswers = "words",
        low: float = 0.4,
        high: float = 0.6,
    ) -> None:
        weights = {CATEGORICAL: 1.0} if weights is None else dict(weights)
        prompts, self.forms = dict(prompts or {}), dict(forms or {})
        for knob, given in (("views", weights), ("prompts", prompts), ("forms", self.forms)):
            for name in given:
                if name not in SHIPPED:
                    raise ConfigError(f"{knob}: no view is called '{name}'{suggest(name, SHIPPED)}")
        if CATEGORICAL not in weights:
            raise ConfigError(
                f"views has {', '.join(weights) or 'nothing'}, but not categorical, which ranks "
                "the classes; add categorical with its weight"
            )
        if wrong := [f"{k}={w}" for k, w in weights.items() if not 0 < w < float("inf")]:
            raise ConfigError(
                f"views has {', '.join(wrong)}; give weights above 0, or leave the view out"
            )
        if not 0 < low < high < 1:
            raise ConfigError(
                f"low_below={low} and high_from={high}; give 0 < low_below < high_from < 1"
            )
        self.trained = trained
        self.dimensions = dimensions
        self.low = low
        self.high = high
        asked = {CATEGORICAL: prompt, **PROMPTS, **prompts}
        self.all = [
            View(name, float(weights[name]), tuple(_listed(asked[name])))
            for name in SHIPPED
            if name in weights
        ]
        for view in self.all:
            if not view.prompts or not all(p.strip() for p in view.prompts):
                raise ConfigError(
                    f"a prompt of the view '{view.name}' is empty; give a few words, such as "
                    "'this emotion is'"
                )
        C = len(trained)
        move = C // 2 if names == "shuffled" else 0
        self.speaks = {c: trained.classes[(i + move) % C] for i, c in enumerate(trained.classes)}
        for view in self.all:
            own = self.forms.get(view.name, {})
            answers = trained.classes if view.name == CATEGORICAL else self._names(view)
            if unknown := [a for a in own if a not in answers and view.name != CATEGORICAL]:
                raise ConfigError(
                    f"forms of {view.name}: no answer '{unknown[0]}'{suggest(unknown[0], answers)}"
                )

    def widen(self, taxonomy: Taxonomy) -> None:
        """Train on a taxonomy that begins with the current one; new classes use their own forms."""
        self.speaks |= {c: c for c in taxonomy.classes if c not in self.speaks}
        self.trained = taxonomy

    @property
    def categorical(self) -> View:
        return self.all[0]

    def answers(self, view: View, taxonomy: Taxonomy) -> list[list[str]]:
        """Return the verbal forms of every answer; those of the categorical view are classes."""
        own = self.forms.get(view.name, {})
        if view.name != CATEGORICAL:
            return [_listed(own.get(name, name)) for name in self._names(view)]
        given = dict(zip(self.trained.classes, self.trained.forms, strict=True))
        given |= dict(zip(taxonomy.classes, taxonomy.forms, strict=True))
        spoken = [self.speaks.get(c, c) for c in taxonomy.classes]
        return [_listed(own.get(c, given[c])) for c in spoken]

    def targets(self, view: View, targets: Targets) -> Tensor:
        """Return the ``[B, answers]`` probability of each answer; zeros if there is no answer."""
        if view.name == CATEGORICAL:
            return targets.probs
        if view.name == "sentiment":
            of_class = self.trained.sentiments
            table = torch.tensor([[float(s == name) for name in SENTIMENTS] for s in of_class])
            return targets.probs @ table.to(targets.probs)
        names = self._names(view)
        if targets.dims is None:
            return targets.probs.new_zeros(len(targets.probs), len(names))
        value = targets.dims[:, DIMENSIONS[view.name]]
        rated = ~value.isnan()
        value = torch.where(rated, value, 0.0).clamp(0, 1)
        if self.dimensions == "numbers":
            answer = (value * 10).round().long()
        else:
            answer = (value >= self.low).long() + (value >= self.high).long()
        one_hot = torch.nn.functional.one_hot(answer, len(names)).to(targets.probs)
        return one_hot * rated.unsqueeze(1)

    def class_written(self, text: str, taxonomy: Taxonomy) -> int | None:
        """Return the class that a text names, by its form or a synonym of its form."""
        said = text.strip().lower()
        for place, forms in enumerate(self.answers(self.categorical, taxonomy)):
            if said in (form.lower() for form in forms):
                return place
        # the word may be a synonym of a form; the class that uses this form is meant
        for known in (taxonomy, self.trained):
            if (index := known.class_said(text)) is not None:
                break
        else:
            return None
        word = known.classes[index]
        spoken = [self.speaks.get(c, c) for c in taxonomy.classes]
        return spoken.index(word) if word in spoken else None

    def _names(self, view: View) -> list[str]:
        if view.name == "sentiment":
            return SENTIMENTS
        return NUMBERS if self.dimensions == "numbers" else LEVELS


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value]
