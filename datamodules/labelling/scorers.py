"""What scores how well a class follows from a transcript: one contract, and its table of names."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ...zoo.core import own, registry
from ...zoo.core.errors import ConfigError, first_line, suggest

Scores = NDArray[np.float64]

BLANK = "{}"
"""Where a template takes the verbal form of a class."""


@dataclass(frozen=True)
class Hypothesis:
    """A sentence that says that the speaker feels as a class says.

    Attributes:
        template: the sentence with :data:`BLANK` for the class.
        form: how the class is said, such as ``angry``.
        labels: the canonical labels that the class gathers.
    """

    template: str
    form: str
    labels: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The sentence up to the class, without the space before it."""
        return self.template.partition(BLANK)[0].rstrip()

    @property
    def text(self) -> str:
        """The sentence."""
        before, _, after = self.template.partition(BLANK)
        return before + self.form + after


class Scorer(ABC):
    """Scores hypotheses given premises.

    Attributes:
        source: ``MODEL@REVISION``, as a manifest names it.
        scale: what a score is, in one line, for the settings.
    """

    source: str
    scale: ClassVar[str]

    @abstractmethod
    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        """``[P, H]`` float64: the higher, the better the hypothesis follows from the premise.

        On a scale of log-odds or log-likelihoods, so that what it is for the empty premise can be
        subtracted. A score depends on its premise and hypothesis, and at most on the other
        hypotheses; but for rounding it does not depend on the other premises.

        Args:
            premises: P texts; ``""`` is the empty premise.
            hypotheses: H, usually of several templates times all classes.
        """

    def settings(self) -> dict[str, Any]:
        """Everything that determines a score, as plain JSON."""
        return {"scorer": type(self).__name__.lower(), "source": self.source, "scale": self.scale}


def scorer(name: str, **options: Any) -> Scorer:
    """A scorer by its registered name, or by ``FILE.py:Class`` or ``package.module:Class``.

    Args:
        name: ``nli``, ``embedding``, ``causal``, ``lexicon``, or a class of one's own.
        options: its knobs.

    Raises:
        ConfigError: when there is none of this name, a knob is unknown or missing, or the model
            cannot be loaded.
    """
    kind = registry.get("scorers", own.adopt("scorers", name, base=Scorer))
    if not (inspect.isclass(kind) and issubclass(kind, Scorer)):
        raise ConfigError(
            f"'{name}' is no subclass of {Scorer.__module__}:Scorer; name a class that extends it"
        )
    knobs = inspect.signature(kind).parameters
    for option in options:
        if option not in knobs:
            raise ConfigError(f"the scorer '{name}' has no knob '{option}'{suggest(option, knobs)}")
    missing = [k for k, p in knobs.items() if p.default is p.empty and k not in options]
    if missing:
        raise ConfigError(
            f"the scorer '{name}' needs {', '.join(missing)}; set "
            + " ".join(f"scorer.{key}=VALUE" for key in missing)
        )
    made: Scorer = kind(**options)
    return made


def device_of(device: str) -> torch.device:
    """``auto`` = the first GPU where there is one, else the processor.

    Raises:
        ConfigError: when there is no such device.
    """
    try:
        if device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={device} cannot be used ({first_line(error)}); give auto or cpu"
        ) from error


def hypotheses(
    templates: Sequence[str], forms: Sequence[str], labels: Sequence[tuple[str, ...]]
) -> list[Hypothesis]:
    """Templates times classes, the classes of the first template first.

    Raises:
        ConfigError: when there is no template, or one has not exactly one blank, or two are alike.
    """
    if not templates or len(set(templates)) != len(templates):
        raise ConfigError(f"templates {list(templates)}; give at least one, and none twice")
    for template in templates:
        if template.count(BLANK) != 1:
            raise ConfigError(
                f"the template '{template}' has {template.count(BLANK)} blanks; give one {BLANK} "
                "where the class is said, as in 'The speaker feels {}.'"
            )
    return [
        Hypothesis(template, form, gathered)
        for template in templates
        for form, gathered in zip(forms, labels, strict=True)
    ]
