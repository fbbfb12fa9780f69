"""Fair comparisons of heads: an equal search budget, and heads of equal size.

Search: every head tries as many settings. A trial is trained and validated as a cell is; its test
part is never scored.

- The samplers ``random`` and ``grid`` draw all settings before anything is run, for all folds
  alike. The validation parts of the folds are pooled. The setting with the best pooled score is
  that of the cell, for every seed. A fold that validates a speaker whom the cell tests is left out,
  so nothing is chosen on tested speakers. These two are our own, and not Optuna's. With ours, heads
  share the draws of a key, whatever other keys each has. No setting is drawn twice.
- Optuna's samplers (:data:`ADAPTIVE`) learn from earlier trials (:mod:`.study`). Each fold has a
  search of its own, on its own validation part. Else a setting would be tried because of speakers
  whom another fold tests.

Size: a head's class names the options that scale it (:attr:`Head.sizes`). They are changed one
after the other, until the head's trainable parameters are within 10 % of a target. Encoders are
shared and do not count.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeAlias

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field, StrictFloat, StrictInt, with_config
from typing_extensions import TypedDict

from ..core import registry
from ..core.errors import ConfigError, suggest
from ..core.taxonomy import Taxonomy
from ..run.config import read_group
from ..run.record import VALID as VALID_FILE
from ..run.record import Record, read_record
from ..run.schema import METRIC_KEYS, Flag, FromOne, RunConfig, Seed, give, one_of
from ..statistics.table import PredictionTable, merge

GROUPS = ("optim", "head")
TRIES = 1000  # draws of a trial before the space counts as used up: our choice
ADAPTIVE = ("tpe", "gp")
"""Samplers that learn from earlier trials."""


@with_config(ConfigDict(extra="forbid"))
class Range(TypedDict):
    """A range that numbers are drawn from; ``log`` (the default) draws their logarithms evenly."""

    low: StrictInt | StrictFloat
    high: StrictInt | StrictFloat
    log: NotRequired[Flag]


def _range(ends: Range) -> Range:
    if not ends["low"] < ends["high"] or (ends.get("log", True) and ends["low"] <= 0):
        raise ValueError("low is not below high, or not above 0")
    return ends


def _searchable(space: dict[str, Any]) -> dict[str, Any]:
    if not space:
        raise ValueError("is empty; give {KEY: [...]}")
    for key in space:
        if key.partition(".")[0] not in GROUPS or "." not in key:
            raise ConfigError(
                f"search: '{key}' cannot be searched; have optim.KEY and head.KEY. Heads share all "
                "other keys, which can be axes"
            )
    return space


Space: TypeAlias = Annotated[
    dict[
        str,
        Annotated[
            Annotated[list[Any], Field(min_length=1)] | Annotated[Range, AfterValidator(_range)],
            give(
                "a list of values, or {low: 1e-4, high: 1e-2} (low above 0; for a uniform draw "
                "from any range, add log: false)"
            ),
        ],
    ],
    AfterValidator(_searchable),
]


@dataclass(frozen=True)
class Search:
    """The settings that each head may try.

    Attributes:
        trials: number of settings that each head tries, each in every fold.
        space: key (``optim.*`` or ``head.*``) to a list of values, or ``{low, high, log}``. A head
            that lacks an option does not try it.
        heads: head to a space of its own, which is added to ``space``.
        sampler: ``random``; ``grid`` (combinations of lists, in an order drawn by the seed);
            ``tpe``, Parzen estimators (Bergstra et al. 2011); or ``gp``, Gaussian processes.
        seed: seed of the draw. In trial t, all heads draw the same value of a shared key,
            unless that would repeat an earlier trial.
        batch: trials of a head and fold that ``tpe`` and ``gp`` draw at a time. Each batch knows
            the results of the batches before it, so the number of workers changes nothing.
        prune: whether ``tpe`` and ``gp`` end a trial early if its validation scores are below the
            median of the earlier trials.
    """

    trials: Annotated[int, Field(strict=True, ge=2)]
    space: Space
    heads: dict[str, Space] = field(default_factory=dict)
    sampler: Annotated[str, one_of("random", "grid", *ADAPTIVE)] = "random"
    seed: Seed = 0
    batch: FromOne = 1
    prune: Flag = False

    def __post_init__(self) -> None:
        if not self.adaptive and (self.prune or self.batch > 1):
            key = "prune" if self.prune else "batch"
            raise ConfigError(
                f"search: {key} needs a sampler that draws one trial after the other; set "
                f"search.sampler to {' or '.join(ADAPTIVE)}, or leave {key} out"
            )

    @property
    def adaptive(self) -> bool:
        """Whether settings depend on the results of earlier trials."""
        return self.sampler in ADAPTIVE

    @property
    def first(self) -> int:
        """Number of trials that are drawn at random before an adaptive sampler begins."""
        return max(2, self.trials // 3)

    def budget(self) -> dict[str, Any]:
        """Return plain containers, for records.

        Records name the sampler ``draw``, as they always did, so that old and new ones compare.
        """
        found = asdict(self)
        more = {key: found.pop(key) for key in ("batch", "prune")}
        order = ("trials", "space", "heads", "sampler", "seed")
        known = {"draw" if key == "sampler" else key: found[key] for key in order}
        return known | (more if self.adaptive else {})

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

        An adaptive sampler takes only the first of them, and others if it repeats itself.

        Raises:
            ConfigError: if the head's space has fewer settings than there are trials.
        """
        space = self.space_of(head)
        found = self._grid(space) if self.sampler == "grid" else self._random(space)
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
            raise ConfigError(f"search: sampler is grid, so {wide[0]} must be a list of values")
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
        return rounded(drawn)


PRUNED = "pruned"
"""Key of a trial's record that says when and why it was ended early."""


def rounded(drawn: float) -> float:
    """Return a drawn number with three digits, as records show it."""
    return float(f"{drawn:.3g}")


def rule(metric: str, adaptive: bool = False) -> str:
    """Return the rule by which a trial wins, for records."""
    where = "the fold" if adaptive else "the pooled folds"
    return f"highest val/{METRIC_KEYS[metric]} of {where}, first trial of equals"


@dataclass(frozen=True)
class Tried:
    """One setting of a search: its trials by fold, which have all ended."""

    settings: Mapping[str, Any]
    folders: Mapping[int, Path]


def outcome(
    tried: Sequence[Tried], fold: int, metric: str = "uar"
) -> tuple[int, list[int], list[dict[str, Any]]]:
    """Find the best setting for the cells of a fold, by :func:`rule`.

    The validation predictions of the folds are pooled. A fold counts if it validates no speaker
    whom ``fold`` tests; ``fold`` itself always counts. A trial that was pruned cannot win.

    Args:
        tried: the settings, each with the trials of every fold.
        fold: the fold whose cells get the setting.
        metric: the suite's metric, which is compared on validation.

    Returns:
        Index of the best setting (-1 if each failed in some fold). The folds that counted. For
        each setting: its values, and its pooled metric, epochs by fold and seconds, or its error.
    """
    key = f"val/{METRIC_KEYS[metric]}"
    records = [
        {
            f: read_record(folder) or Record(error="it has not ended")
            for f, folder in t.folders.items()
        }
        for t in tried
    ]
    own = [found[fold] for found in records if found[fold].ok]
    tested = set(own[0].speakers["test"]) if own else set()
    valid = {
        f: {name for r in records if r[f].ok for name in r[f].speakers["valid"]}
        for f in sorted(tried[0].folders)
    }
    counted = [f for f, names in valid.items() if f == fold or (names and not names & tested)]
    found: list[dict[str, Any]] = []
    for one, by_fold in zip(tried, records, strict=True):
        failed = [f for f in counted if not by_fold[f].ok]
        pruned = [by_fold[f].more[PRUNED] for f in counted if PRUNED in by_fold[f].more]
        if pruned and not failed:
            text = f"pruned after epoch {pruned[0]['epoch']}"
            result: dict[str, Any] = {key: None, "error": text}
        elif failed:
            result = {
                key: None,
                "error": f"fold {failed[0]}: {by_fold[failed[0]].error}",
            }
        else:
            value = _pooled({f: one.folders[f] for f in counted})[METRIC_KEYS[metric]]
            epochs = {str(f): by_fold[f].selection["epoch"] for f in counted}
            seconds = sum(by_fold[f].seconds["total"] for f in counted)
            result = {key: value, "epochs": epochs, "seconds": round(seconds, 2)}
        found.append({"settings": dict(one.settings), **result})
    scores = [-1.0 if f[key] is None else float(f[key]) for f in found]
    best = int(np.argmax(scores)) if max(scores) >= 0 else -1
    return best, counted, found


def _pooled(folders: Mapping[int, Path]) -> dict[str, float]:
    """Return the metrics of the validation predictions of several folds together."""
    tables = []
    for fold, folder in folders.items():
        table = PredictionTable.read_jsonl(folder / VALID_FILE)
        tables.append(replace(table, ids=[f"{i}#{fold}" for i in table.ids]))
    return merge(tables).metrics()


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
