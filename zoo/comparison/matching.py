"""Heads of equal size: a comparison whose trainable parameters agree, so that a gain is not size.

A head's class names the knobs that scale it (:attr:`Head.sizes`); they are searched, one after the
other, until the head's trainable parameters are within 10 % of the target. Encoders are shared and
do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import registry
from ..config import RunConfig
from ..errors import ConfigError
from ..taxonomy import Taxonomy

Options = Mapping[str, Any]
TOLERANCE = 0.1
LIMIT = 2**14  # steps of a knob: beyond it no head of a sensible target lies


@dataclass(frozen=True)
class Match:
    """What makes a head as large as it shall be.

    Attributes:
        target: trainable parameters wanted.
        parameters: those reached.
        settings: knobs of the head and their values; empty where it was near enough.
    """

    target: int
    parameters: int
    settings: dict[str, int] = field(default_factory=dict)

    @property
    def overrides(self) -> list[str]:
        """``head.knob=value`` for a configuration."""
        return [f"head.{knob}={value}" for knob, value in self.settings.items()]


def count(kind: str, dim: int, taxonomy: Taxonomy, options: Options) -> int:
    """Trainable parameters of a head, built for frames of width ``dim``."""
    with torch.random.fork_rng(devices=[]):
        head = registry.get("heads", kind)(dim, taxonomy, **options)
    return sum(p.numel() for p in head.parameters() if p.requires_grad)


def match(
    heads: Sequence[RunConfig], dim: int, taxonomy: Taxonomy, target: int | RunConfig
) -> list[Match]:
    """A match for each head.

    Args:
        heads: configurations that differ in their heads.
        dim: width of the encoder's frames.
        taxonomy: the classes.
        target: trainable parameters, or the configuration of a head that has them.

    Raises:
        ConfigError: naming each head that cannot be brought within 10 %, and what it reaches.
    """
    wanted = target if isinstance(target, int) else count(*_parts(target, dim, taxonomy))
    found, wrong = [], []
    for cfg in heads:
        reached, why = _scale(cfg, dim, taxonomy, wanted)
        found.append(reached)
        if why:
            wrong.append(why)
    if wrong:
        raise ConfigError(
            f"match_params wants {wanted:,} trainable parameters within {TOLERANCE:.0%}: "
            + "; ".join(wrong)
            + "; give another target (match_params=NUMBER, or the name of a head), or leave these "
            "heads out"
        )
    return found


def _parts(cfg: RunConfig, dim: int, taxonomy: Taxonomy) -> tuple[str, int, Taxonomy, Options]:
    options = {k: v for k, v in cfg.head.items() if k != "type"}
    return str(cfg.head["type"]), dim, taxonomy, options


def _scale(cfg: RunConfig, dim: int, taxonomy: Taxonomy, target: int) -> tuple[Match, str]:
    """The nearest match, and what is wrong with it."""
    kind, *_, options = _parts(cfg, dim, taxonomy)
    settings: dict[str, int] = {}

    def size(**changed: int) -> int:
        return count(kind, dim, taxonomy, {**options, **settings, **changed})

    now = size()
    knobs = registry.get("heads", kind).sizes
    # what is switched off stays off: a linear classifier with a hidden layer is another head
    usable = [knob for knob in knobs if options[knob]]
    for knob in usable:
        if _near(now, target):
            break
        value = _search(lambda v: size(**{knob: v}), knobs[knob], options[knob], target)  # noqa: B023
        if value is not None:
            settings[knob] = value
            now = size()
    reached = Match(target, now, settings)
    if _near(now, target):
        return reached, ""
    if not usable:
        off = "".join(f" ({knob} is 0, and stays so)" for knob in knobs)
        return reached, f"head '{cfg.called}' has {now:,} and nothing to scale{off}"
    set_to = ", ".join(f"{k}={settings.get(k, options[k])}" for k in usable)
    return reached, f"head '{cfg.called}' comes no nearer than {now:,} (with {set_to})"


def _near(number: int, target: int) -> bool:
    return abs(number - target) <= TOLERANCE * target


def _search(size: Callable[[int], int], step: int, now: int, target: int) -> int | None:
    """The multiple of ``step`` that comes nearest to the target; None where none changes anything.

    Where the nearest is not near enough it is the largest below the target, so that the next knob
    may fill up the rest.
    """
    if size(now) == size(now + step):  # of a part that is not built, or is not trained
        return None
    low, high = 1, 2
    if size(step) >= target:
        return step
    while size(high * step) < target:
        low, high = high, 2 * high
        if high > LIMIT:
            return low * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle * step) < target else (low, middle)
    below, above = size(low * step), size(high * step)
    if target - below > above - target and _near(above, target):
        return high * step
    return low * step
