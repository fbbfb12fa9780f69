"""A suite of adaptations: heads trained on one corpus, adapted to another by a few utterances.

The sources are trained first, as ordinary runs. Then every head is adapted for each number of
shots, each draw and each tuning. All heads get the same supports. Records hold ``shots``, ``draw``,
``tuning``, ``source`` and the support's hash, from which ``learning_curves.md`` is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, suggest
from ..report.answers import MARGIN
from ..run import board, config
from ..run.config import RunConfig
from ..run.record import finished, read_record
from . import axes
from .suite import QUESTIONS, Plan, questions, selecting

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job

KEYS = (
    *("title", "baseline", "source", "target", "head", "shots", "draw", "tuning", "options"),
    *QUESTIONS,
)
PARTS = ("source", "target", "options")
SOURCE = ("recipe", "encoder", "fold", "seed", "overrides")
TARGET = ("data", "root", "protocol", "fold", "taxonomy", "label", "unknown_speakers")
TYPES: dict[str, Any] = {
    **QUESTIONS,
    **dict.fromkeys(("title", "baseline", "source.recipe", "source.encoder"), str),
    **dict.fromkeys((f"target.{key}" for key in TARGET), str | None),
    **{"target.data": str | list[str], "target.fold": int, "source.overrides": list[str]},
    **dict.fromkeys(("source.fold", "source.seed"), int),
    **dict.fromkeys(("head", "tuning"), str | list[str]),
    **dict.fromkeys(("shots", "draw"), int | list[int]),
}
IN_TITLE = (*axes.IN_TITLE, "source.recipe", "source.encoder", "target.data", "target.taxonomy")


@dataclass(frozen=True)
class FewShotSuite:
    """Heads, their source and target, and how they are adapted.

    Attributes:
        name: name of the suite, and of its folder.
        title: one line for people.
        source: ``recipe``, and optionally ``encoder``, ``fold``, ``seed`` and ``overrides``.
        target: ``data``, and optionally ``root``, ``protocol``, ``fold``, ``taxonomy``, ``label``
            and ``unknown_speakers``, as for :func:`.adapt.adapt`.
        head: names of head configurations.
        shots: numbers of utterances of each class; 0 = the model is tested as it is.
        draw: seeds of the supports.
        tuning: parts that are tuned.
        options: further fields of :class:`.tuning.Options`.
        baseline: the head that others are compared to.
        primary, margin, metric: as of :class:`.suite.Suite`.
    """

    name: str
    title: str
    source: dict[str, Any]
    target: dict[str, Any]
    head: list[str]
    shots: list[int]
    draw: list[int]
    tuning: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    baseline: str = "classification"
    primary: list[str] | None = None
    margin: float = MARGIN
    metric: str = "uar"


def load(name: str, overrides: Sequence[str] = ()) -> FewShotSuite:
    """Read a suite of adaptations.

    ``head=[selm]``, ``shots=[1,4]``, ``draw=[1,2]`` and ``tuning=[head]`` replace the suite's
    lists. ``target.KEY=...``, ``source.KEY=...`` and ``options.KEY=...`` replace its settings. Any
    other ``key=value`` is an override of the sources' runs.

    Args:
        name: name of a shipped suite, or a YAML file.
        overrides: ``key=value``.

    Raises:
        ConfigError: if a key, a name or a value is wrong.
    """
    from ..run.tuning import Options, option_types

    raw = config.read_suite(name)
    raw |= {part: _mapping(name, raw, part) for part in PARTS}
    types = {**TYPES, **{f"options.{key}": kind for key, kind in option_types().items()}}
    typed: list[str] = []  # overrides of the sources' runs
    named = any(key == "title" for key, _ in config.words(overrides))
    for item, (key, value) in zip(overrides, config.parse(overrides, types), strict=True):
        part, dot, inner = key.partition(".")
        if dot and part in PARTS:
            raw[part][inner] = value
        elif key in KEYS:
            raw[key] = _mapping(name, {key: value}, key) if key in PARTS else value
        else:
            typed.append(item)
    raw = config.adopt_names(raw)  # those of the overrides
    source, target, options = (raw[part] for part in PARTS)
    given = source.get("overrides", [])
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise ConfigError(f"suite '{name}': source.overrides is {given}; give a list of key=value")
    source["overrides"] = [*given, *typed]
    axes.refuse_out(source["overrides"])
    lists: dict[str, Any] = {
        key: _list(name, raw, key) for key in ("head", "shots", "draw", "tuning")
    }
    own = ("shots", "draw", "tuning")
    wanted: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
        "": (raw, KEYS),
        "source.": (source, SOURCE),
        "target.": (target, TARGET),
        "options.": (options, [k for k in option_types() if k not in own]),
    }
    for prefix, (found, known) in wanted.items():
        for key in found:
            if key not in known:
                raise ConfigError(
                    f"suite '{name}' has unknown key '{prefix}{key}'{suggest(str(key), known)}"
                )
    for part, key in (("source", "recipe"), ("target", "data")):
        if key not in raw[part]:
            raise ConfigError(f"suite '{name}' has no {part}.{key}; give {part}.{key}=VALUE")
    for shots, draw in product(lists["shots"], lists["draw"]):  # refuses wrong values before work
        Options(shots=shots, draw=draw, **options)
    title, baseline = str(raw.get("title") or name), str(raw.get("baseline", "classification"))
    title = title if named else axes.retitled(title, overrides, IN_TITLE)
    return FewShotSuite(
        Path(name).stem,
        title,
        source,
        target,
        **lists,
        options=options,
        baseline=baseline,
        **questions(name, raw),
    )


def _mapping(name: str, raw: dict[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"suite '{name}': {key} is {found}; give keys and values")
    return dict(found)


def _list(name: str, raw: dict[str, Any], key: str) -> list[Any]:
    found = raw.get(key)
    found = found if isinstance(found, list) or found is None else [found]
    if not found or len({str(v) for v in found}) < len(found):
        raise ConfigError(f"suite '{name}': {key} is {found}; give a list of different values")
    return found


def jobs(suite: FewShotSuite, *, out: str) -> tuple[list[Job], list[Job]]:
    """List the runs of the sources and the cells; cells with the same support follow each other.

    Args:
        suite: the suite.
        out: folder of all runs.

    Raises:
        ConfigError: if a run cannot be composed, or a tuning is impossible with its encoder.
    """
    from ..run.adapt import adapt_cell
    from ..run.tuning import obstacles, refuse
    from .pool import Job

    folder = Path(out) / suite.name
    s = suite.source
    settings = ["trainer.progress=false", *selecting(suite.metric), *s["overrides"]]
    settings.append(axes.setting("trainer.out", out))
    settings += [axes.setting(key, s[key]) for key in ("encoder", "fold", "seed") if key in s]
    sources = []
    for head in suite.head:
        cfg = config.load(s["recipe"], [*settings, f"head={head}"])
        for tuning in suite.tuning:  # before anything is trained
            refuse(tuning, obstacles(cfg.encoder))
        name = f"{Path(s['recipe']).stem}-{head}-{cfg.fingerprint[:6]}"
        sources.append(Job(name, cfg.to_dict(), folder / "sources" / name))
    cells = []
    for shots in suite.shots:
        for draw, tuning in product(suite.draw, suite.tuning):
            if not shots and (draw, tuning) != (suite.draw[0], suite.tuning[0]):
                continue  # 0 shots: without a support, nothing is drawn or tuned
            for source in sources:
                how = f"-d{draw}-{tuning}" if shots else ""
                name = f"{source.name}-k{shots}{how}"
                options = {
                    "path": str(source.folder),
                    "supports": str(folder / "supports"),
                    "shots": shots,
                    "draw": draw,
                    "tuning": tuning if shots else None,
                    **suite.target,
                    **suite.options,
                }
                cells.append(Job(name, source.config, folder / "cells" / name, options, adapt_cell))
    return sources, cells


def seconds_by_tuning(cells: Sequence[Job]) -> dict[str, float]:
    """Return the mean seconds of finished cells, by tuning."""
    found: dict[str, list[float]] = {}
    for job in cells:
        entry = read_record(job.folder)
        if entry is not None and entry.ok:
            found.setdefault(str(job.options["tuning"]), []).append(entry.seconds["total"])
    return {tuning: sum(values) / len(values) for tuning, values in found.items()}


class FewShot(Plan):
    """The plan that trains the sources, then adapts every head to every draw."""

    called = "sources"

    def __init__(self, chosen: FewShotSuite, *, out: str) -> None:
        self.suite, self.name, self.title = chosen, chosen.name, chosen.title
        self.folder = Path(out) / chosen.name
        self.ahead, self.cells = jobs(chosen, out=out)

    def headline(self) -> str:
        """The number of models that are adapted."""
        return f" of {len(self.ahead)} sources"

    def facts(self) -> dict[str, Any]:
        """The suite's settings, with its lists as axes."""
        axes = {k: getattr(self.suite, k) for k in ("head", "shots", "draw", "tuning")}
        others = {"overrides": [], "matched": [], "match_params": False, "search": None}
        return {**asdict(self.suite), "axes": axes, **others}

    def estimate(self, console: Console, workers: int) -> None:
        """List the cells, with the mean time of finished cells of the same tuning."""
        spent, todo = seconds_by_tuning(self.cells), self.todo()
        for job in [*self.first(), *self.cells]:
            known = spent.get(str(job.options.get("tuning")))
            about = f", about {known:.1f} s" if known and job in todo else ""
            console.print(f"{job.name}{about}", markup=False, highlight=False)
        if left := sum(spent.get(str(job.options["tuning"]), 0.0) for job in todo):
            console.print(f"about {left / 60 / workers:.0f} min on {workers} workers")

    def open(self) -> None:
        """Declare TensorBoard's columns for all heads and tunings."""
        from ..run.tuning import Options, new_head

        rows = {}
        for job in self.cells:
            how = {k: job.options[k] for k in ("shots", "draw", "tuning")}
            cfg = RunConfig.from_dict(job.config)
            if how["tuning"] == "scratch":
                name = self.suite.options.get("scratch_head", Options.scratch_head)
                cfg = replace(cfg, head=new_head(name), head_name=name)
            rows[job.name] = cfg, how | {"tuning": how["tuning"] or "none"}
        board.declare(self.folder / "cells", rows)

    def ready(self, job: Job) -> Job | None:
        """Return the cell; if its source failed, record that and return None."""
        from . import pool

        if finished(Path(job.options["path"])):
            return job
        error = f"its source failed; see {job.options['path']}"
        pool.record_failure(job, error, "", "source")
        return None


def plan(name: str, overrides: Sequence[str] = (), *, out: str = "runs") -> FewShot:
    """Return the plan of a suite of adaptations; see :func:`load`."""
    return FewShot(load(name, overrides), out=out)
