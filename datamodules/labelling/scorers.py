"""The contract of a scorer: how well a class follows from a transcript; and scorers by name."""

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
from ...zoo.core.types import first_device

Scores = NDArray[np.float64]

BLANK = "{}"
"""The place in a template for the verbal form of a class."""


@dataclass(frozen=True)
class Hypothesis:
    """A sentence which says that the speaker feels the emotion of a class.

    Attributes:
        template: the sentence with :data:`BLANK` for the class.
        form: verbal form of the class, such as ``angry``.
        labels: the canonical labels of the class.
    """

    template: str
    form: str
    labels: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The sentence before the class, without the space."""
        return self.template.partition(BLANK)[0].rstrip()

    @property
    def text(self) -> str:
        """The whole sentence."""
        before, _, after = self.template.partition(BLANK)
        return before + self.form + after


class Scorer(ABC):
    """Scores hypotheses given premises.

    Attributes:
        source: ``MODEL@REVISION``, as in a manifest.
        scale: the meaning of a score in one line, for the settings.
    """

    source: str
    scale: ClassVar[str]

    @abstractmethod
    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        """Return ``[P, H]`` float64; a higher score means a better hypothesis for the premise.

        The scale is log-odds or log-likelihoods, so that the score of the empty premise can be
        subtracted. A score depends on its premise and hypothesis, and it may depend on the other
        hypotheses. Except for rounding, it does not depend on the other premises.

        Args:
            premises: P texts; ``""`` is the empty premise.
            hypotheses: H, usually of several templates times all classes.
        """

    def settings(self) -> dict[str, Any]:
        """Return everything that determines a score, as plain JSON."""
        return {"scorer": type(self).__name__.lower(), "source": self.source, "scale": self.scale}


def scorer(name: str, **options: Any) -> Scorer:
    """Return a scorer by its registered name, ``FILE.py:Class`` or ``package.module:Class``.

    Args:
        name: ``nli``, ``embedding``, ``causal``, ``masked``, ``lexicon``, or your own class.
        options: its options.

    Raises:
        ConfigError: if no scorer has this name, an option is unknown or missing, or the model
            cannot be loaded.
    """
    kind = registry.get("scorers", own.adopt("scorers", name, base=Scorer))
    if not (inspect.isclass(kind) and issubclass(kind, Scorer)):
        raise ConfigError(
            f"'{name}' is not a subclass of {Scorer.__module__}:Scorer; name a subclass of it"
        )
    knobs = inspect.signature(kind).parameters
    for option in options:
        if option not in knobs:
            raise ConfigError(
                f"the scorer '{name}' has no option '{option}'{suggest(option, knobs)}"
            )
    missing = [k for k, p in knobs.items() if p.default is p.empty and k not in options]
    if missing:
        raise ConfigError(
            f"the scorer '{name}' needs {', '.join(missing)}; set "
            + " ".join(f"scorer.{key}=VALUE" for key in missing)
        )
    made: Scorer = kind(**options)
    return made


def device_of(device: str) -> torch.device:
    """Return the device of a name; ``auto`` = the first GPU if there is one, otherwise the CPU.

    Raises:
        ConfigError: if the device does not exist.
    """
    try:
        if device == "auto":
            return first_device()
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={device} cannot be used ({first_line(error)}); set device=auto or device=cpu"
        ) from error


def hypotheses(
    templates: Sequence[str], forms: Sequence[str], labels: Sequence[tuple[str, ...]]
) -> list[Hypothesis]:
    """Return all pairs of template and class, beginning with the classes of the first template.

    Raises:
        ConfigError: if there is no template, a template does not have exactly one blank, or two
            templates are equal.
    """
    if not templates or len(set(templates)) != len(templates):
        raise ConfigError(
            f"templates is {list(templates)}; give at least one template, and each only once"
        )
    for template in templates:
        if template.count(BLANK) != 1:
            raise ConfigError(
                f"the template '{template}' has {template.count(BLANK)} blanks; give one {BLANK} "
                "at the place of the class, as in 'The speaker feels {}.'"
            )
    return [
        Hypothesis(template, form, gathered)
        for template in templates
        for form, gathered in zip(forms, labels, strict=True)
    ]
