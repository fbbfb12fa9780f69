"""A search budget: every head tries the same number of settings, chosen by on validation only.

Each fold of each head has its own trials, on that fold's validation speakers: settings that were
chosen on another fold would have been chosen on speakers of this one's test part. A trial is fitted
and validated as a cell is; its test part is never scored. The winner's settings are those of the
cell, for every seed.
"""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import registry
from ..config import read_group
from ..errors import ConfigError, suggest
from ..record import read_record

RULE = "highest val/uar, first trial of equals"
KEYS = ("trials", "space", "heads", "draw", "seed")
GROUPS = ("optim", "head")
TRIES = 1000  # draws of a trial before the space counts as used up: our choice


@dataclass(frozen=True)
class Search:
    """What each head may try.

    Attributes:
        trials: settings tried by each head in each fold.
        space: key (``optim.*`` or ``head.*``) to a list of values, or ``{low, high, log}``. A knob
            that a head does not have is left out for it.
        heads: head to a space of its own, added to ``space``.
        draw: ``random``, or ``grid`` (combinations of lists, in an order drawn by the seed).
        seed: of the draw. Trial t of every head draws the same value of a key that they share,
            unless it would repeat an earlier trial.
    """

    trials: int
    space: dict[str, Any]
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    draw: Literal["random", "grid"] = "random"
    seed: int = 0

    def budget(self) -> dict[str, Any]:
        """Plain containers, for records."""
        return asdict(self)

    def space_of(self, head: str) -> dict[str, Any]:
        """What one head may try: keys that it has.

        Raises:
            ConfigError: when its own part of the space names a knob that it has not.
        """
        kind = str(read_group("head", head)["type"])
        knobs = registry.schema_of(registry.get("heads", kind))
        own = self.heads.get(head, {})
        for key in own:
            group, _, knob = key.partition(".")
            if group == "head" and knob not in knobs:
                raise ConfigError(
                    f"search: head '{head}' has no knob '{knob}'{suggest(knob, knobs)}"
                )
        merged = {**self.space, **own}
        return {k: v for k, v in merged.items() if k[:5] != "head." or k[5:] in knobs}

    def settings(self, head: str) -> list[dict[str, Any]]:
        """Key to value of each trial of a head, all of them different.

        Raises:
            ConfigError: when the head's space has fewer settings than there are trials.
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
        # of its own generator: what other keys a head has does not change the draw of this one
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
    """``search:`` of a suite's file.

    Raises:
        ConfigError: saying what is wrong with it.
    """
    if raw is None:
        return None
    where = f"suite '{suite}': search"
    if not isinstance(raw, dict) or not raw.get("space"):
        raise ConfigError(f"{where} is {raw}; give search: {{trials: 8, space: {{KEY: [...]}}}}")
    for key in raw:
        if key not in KEYS:
            raise ConfigError(f"{where} has unknown key '{key}'{suggest(key, KEYS)}")
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
            f"{where}: '{key}' cannot be searched; have optim.KEY and head.KEY, for all else is "
            "shared by the heads of a comparison (make it an axis)"
        )
    if isinstance(values, list) and values:
        return
    ends = [values.get(k) for k in ("low", "high")] if isinstance(values, dict) else []
    numbers = [v for v in ends if isinstance(v, (int, float)) and not isinstance(v, bool)]
    log = not isinstance(values, dict) or values.get("log", True)
    if len(numbers) < 2 or not numbers[0] < numbers[1] or (log and numbers[0] <= 0):
        raise ConfigError(
            f"{where}: {key} is {values}; give a list of values, or {{low: 1e-4, high: 1e-2}} "
            "(log: false draws evenly; else low is above 0)"
        )


def outcome(trials: Sequence[tuple[Mapping[str, Any], Path]]) -> tuple[int, list[dict[str, Any]]]:
    """The winner among trials that have ended, and what is recorded of each.

    Args:
        trials: settings and folder of each.

    Returns:
        Index of the winner, -1 where none ended well; for each trial its settings, validation UAR
        and epoch, or its error.
    """
    found: list[dict[str, Any]] = []
    for settings, folder in trials:
        entry = read_record(folder) or {}
        if entry.get("status") == "ok":
            chosen = entry["selection"]
            result = {"val/uar": chosen["val/uar"], "epoch": chosen["epoch"]}
            found.append({**result, "seconds": entry["seconds"]["total"]})
        else:
            found.append({"val/uar": None, "error": entry.get("error", "it has not ended")})
        found[-1] = {"settings": dict(settings), **found[-1]}
    scores = [-1.0 if f["val/uar"] is None else float(f["val/uar"]) for f in found]
    best = int(np.argmax(scores)) if scores and max(scores) >= 0 else -1
    return best, found


def searched(record: Mapping[str, Any]) -> set[str]:
    """The settings that a record's search chose, for any head: ``optim.lr``."""
    search = record.get("search") or {}
    spaces = [search.get("space", {}), *(search.get("heads") or {}).values()]
    return {key for space in spaces for key in space}


def budget_of(record: Mapping[str, Any]) -> str:
    """What a record's head was allowed to try, as text that can be compared; empty for nothing."""
    search = record.get("search")
    return json.dumps({k: search[k] for k in KEYS}, sort_keys=True) if search else ""
