"""Fair comparisons of heads: an equal search budget, and heads of equal size.

Search: every head tries the same number of settings in each fold, and the fold's validation part
chooses among them. Each fold has its own trials, because another fold validates on speakers that
this one tests. A trial is trained and validated as a cell is; its test part is never scored. The
winner's settings are those of the cell, for every seed.

Size: a head's class names the options that scale it (:attr:`Head.sizes`). They are changed one
after the other, until the head's trainable parameters are within 10 % of a target. Encoders are
shared and do not count.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..core import registry
from ..core.errors import ConfigError, suggest
from ..core.taxonomy import Taxonomy
from ..report.runs import BUDGET
from ..run.config import METRIC_KEYS, RunConfig, read_group
from ..run.record import Record, read_record

GROUPS = ("optim", "head")
TRIES = 1000  # draws of a trial before the space counts as used up: our choice


@dataclass(frozen=True)
class Search:
    """The settings that each head may try.

    Attributes:
        trials: number of settings that each head tries in each fold.
        space: key (``optim.*`` or ``head.*``) to a list of values, or ``{low, high, log}``. A head
            that lacks an option does not try it.
        heads: head to a space of its own, which is added to ``space``.
        draw: ``random``, or ``grid`` (combinations of lists, in an order drawn by the seed).
        seed: seed of the draw. In trial t, all heads draw the same value of a shared key,
            unless that would repeat an earlier trial.
    """

    trials: int
    space: dict[str, Any]
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    draw: Literal["random", "grid"] = "random"
    seed: int = 0

    def budget(self) -> dict[str, Any]:
        """Return plain containers, for records."""
        return asdict(self)

    def space_of(self, head: str) -> dict[str, Any]:
        """Return the space of one head, without keys that it lacks.

        Raises:
            ConfigError: if the head's own space names an option that it lacks.
        """
        kind = str(read_group("head", head)["type"])
        knobs = registry.schema_of(registry.get("heads", kind))
        own = self.heads.get(head, {})
        for key in own:
            group, _, knob = key.partition(".")
            if group == "head" and knob not in knobs:
                raise ConfigError(
                    f"search: head '{head}' has no option '{knob}'{suggest(knob, knobs)}"
                )
        merged = {**self.space, **own}
        return {k: v for k, v in merged.items() if k[:5] != "head." or k[5:] in knobs}

    def settings(self, head: str) -> list[dict[str, Any]]:
        """Return the settings (key to value) of each trial of a head, all different.

        Raises:
            ConfigError: if the head's space has fewer settings than there are trials.
        """
        space = self.space_of(head)
        found = self._grid(space) if self.draw == "grid" else self._random(space)
        if len(found) < self.trials:
            raise ConfigError(
                f"search wants {self.trials} trials, but head '{head}' has {len(found)} different "
                f"settings of {', '.join(space) or 'nothing'}; lower search.trials, widen the "
                f"space, or add a space for it under search.heads.{head}"
            )
        return found[: self.trials]

    def _grid(self, space: Mapping[str, Any]) -> list[dict[str, Any]]:
        wide = [key for key, values in space.items() if isinstance(values, dict)]
        if wide:
            raise ConfigError(f"search: draw is grid, so {wide[0]} must be a list of values")
        combinations = [
            dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
        ]
        order = np.random.default_rng(self.seed).permutation(len(combinations))
        return [combinations[i] for i in order] if space else []

    def _random(self, space: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for trial in range(self.trials):
            for attempt in range(TRIES if space else 0):
                made = {k: self._draw(k, values, trial, attempt) for k, values in space.items()}
                if made not in found:
                    found.append(made)
                    break
        return found

    def _draw(self, key: str, values: Any, trial: int, attempt: int) -> Any:
        # each key has its own generator, so a head's other keys do not change this draw
        entropy = [self.seed, trial, attempt, zlib.crc32(key.encode())]
        rng = np.random.default_rng(entropy)
        if isinstance(values, list):
            return values[int(rng.integers(len(values)))]
        low, high = float(values["low"]), float(values["high"])
        if values.get("log", True):
            drawn = math.exp(rng.uniform(math.log(low), math.log(high)))
        else:
            drawn = rng.uniform(low, high)
        return float(f"{drawn:.3g}")


def read(suite: str, raw: Any) -> Search | None:
    """Read ``search`` of a suite's file.

    Args:
        suite: its name, for errors.
        raw: value of the key; None = no search.

    Raises:
        ConfigError: if a key or a value is wrong.
    """
    if raw is None:
        return None
    where = f"suite '{suite}': search"
    if not isinstance(raw, dict) or not raw.get("space"):
        raise ConfigError(f"{where} is {raw}; give search: {{trials: 8, space: {{KEY: [...]}}}}")
    for key in raw:
        if key not in BUDGET:
            raise ConfigError(f"{where} has unknown key '{key}'{suggest(key, BUDGET)}")
    trials, draw = raw.get("trials"), raw.get("draw", "random")
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 2:
        raise ConfigError(f"{where}.trials is {trials}; give a number of 2 or more")
    if draw not in ("random", "grid"):
        raise ConfigError(f"{where}.draw is '{draw}'; have random, grid")
    if not isinstance(raw.get("heads") or {}, dict):
        raise ConfigError(f"{where}.heads is {raw['heads']}; give {{HEAD: {{KEY: [...]}}}}")
    heads = dict(raw.get("heads") or {})
    for space in (raw["space"], *heads.values()):
        if not isinstance(space, dict):
            raise ConfigError(f"{where}: a space is {{KEY: [...]}}, not {space}")
        for key, values in space.items():
            _check_values(where, str(key), values)
    seed = raw.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"{where}.seed is {seed!r}; give a whole number of 0 or more")
    return Search(trials, dict(raw["space"]), heads, draw, seed)


def _check_values(where: str, key: str, values: Any) -> None:
    if key.partition(".")[0] not in GROUPS or "." not in key:
        raise ConfigError(
            f"{where}: '{key}' cannot be searched; have optim.KEY and head.KEY. Heads share all "
            "other keys, which can be axes"
        )
    if isinstance(values, list) and values:
        return
    ends = [values.get(k) for k in ("low", "high")] if isinstance(values, dict) else []
    numbers = [v for v in ends if isinstance(v, (int, float)) and not isinstance(v, bool)]
    log = not isinstance(values, dict) or values.get("log", True)
    if len(numbers) < 2 or not numbers[0] < numbers[1] or (log and numbers[0] <= 0):
        raise ConfigError(
            f"{where}: {key} is {values}; give a list of values, or {{low: 1e-4, high: 1e-2}} "
            "(low above 0; for a uniform draw from any range, add log: false)"
        )


def rule(metric: str) -> str:
    """Return the rule by which a trial wins, for records."""
    return f"highest val/{METRIC_KEYS[metric]}, first trial of equals"


def outcome(
    trials: Sequence[tuple[Mapping[str, Any], Path]], metric: str = "uar"
) -> tuple[int, list[dict[str, Any]]]:
    """Find the best trial by :func:`rule`.

    Args:
        trials: settings and folder of each trial; all have ended.
        metric: the suite's metric, which is compared on validation.

    Returns:
        Index of the best trial (-1 if all failed). For each trial: its settings, and its validation
        metric, epoch and seconds, or its error.
    """
    key = f"val/{METRIC_KEYS[metric]}"
    found: list[dict[str, Any]] = []
    for settings, folder in trials:
        entry = read_record(folder) or Record(error="it has not ended")
        if entry.ok:
            chosen = entry.selection
            value = chosen.get(key, entry.valid.get(METRIC_KEYS[metric]))
            result = {key: value, "epoch": chosen["epoch"]}
            found.append({**result, "seconds": entry.seconds["total"]})
        else:
            found.append({key: None, "error": entry.error})
        found[-1] = {"settings": dict(settings), **found[-1]}
    scores = [-1.0 if f[key] is None else float(f[key]) for f in found]
    best = int(np.argmax(scores)) if scores and max(scores) >= 0 else -1
    return best, found


Options = Mapping[str, Any]
TOLERANCE = 0.1  # relative distance from the target
LIMIT = 2**14  # largest multiple of an option's step that is tried


@dataclass(frozen=True)
class Match:
    """The options that bring a head to a size.

    Attributes:
        target: wanted number of trainable parameters.
        parameters: number with these options.
        settings: changed options of the head; empty if its size was near enough.
    """

    target: int
    parameters: int
    settings: dict[str, int] = field(default_factory=dict)

    @property
    def overrides(self) -> list[str]:
        """``head.OPTION=VALUE`` of a run's configuration."""
        return [f"head.{option}={value}" for option, value in self.settings.items()]


def count(kind: str, dim: int, taxonomy: Taxonomy, options: Options) -> int:
    """Count the trainable parameters of a head that is built for frames of width ``dim``."""
    with torch.random.fork_rng(devices=[]):
        head = registry.get("heads", kind)(dim, taxonomy, **options)
    return sum(p.numel() for p in head.parameters() if p.requires_grad)


def match(
    heads: Sequence[RunConfig], dim: int, taxonomy: Taxonomy, target: int | RunConfig
) -> list[Match]:
    """Bring heads to the same number of trainable parameters.

    Args:
        heads: configurations that differ in their heads.
        dim: width of the encoder's frames.
        taxonomy: the classes.
        target: the number, or the configuration of a head that has it.

    Returns:
        A match for each head.

    Raises:
        ConfigError: if some heads come no nearer than 10 %; names each, and its nearest size.
    """
    wanted = target if isinstance(target, int) else count(*_parts(target, dim, taxonomy))
    found, wrong = [], []
    for cfg in heads:
        nearest, fault = _nearest_match(cfg, dim, taxonomy, wanted)
        found.append(nearest)
        if fault:
            wrong.append(fault)
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


def _nearest_match(cfg: RunConfig, dim: int, taxonomy: Taxonomy, target: int) -> tuple[Match, str]:
    """Return the match nearest to a target, and why it is not near enough; "" if it is."""
    kind, *_, options = _parts(cfg, dim, taxonomy)
    settings: dict[str, int] = {}

    def size(**changed: int) -> int:
        return count(kind, dim, taxonomy, {**options, **settings, **changed})

    now = size()
    knobs = registry.get("heads", kind).sizes
    # an option that is 0 stays 0: a linear classifier with a hidden layer is another head
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
        return reached, f"head '{cfg.called}' has {now:,} and no option that scales it{off}"
    set_to = ", ".join(f"{k}={settings.get(k, options[k])}" for k in usable)
    return reached, f"head '{cfg.called}' comes no nearer than {now:,} (with {set_to})"


def _near(number: int, target: int) -> bool:
    return abs(number - target) <= TOLERANCE * target


def _search(size: Callable[[int], int], step: int, now: int, target: int) -> int | None:
    """Return the multiple of ``step`` that comes nearest to the target.

    If the nearest is not near enough, return the largest below the target. The next option can then
    add the rest. Return None if the option does not change the size.
    """
    if size(now) == size(now + step):  # the part that it scales is not built, or not trained
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
