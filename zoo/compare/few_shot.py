"""A suite of adaptations: heads trained on one corpus, adapted to another by a few utterances.

The sources are trained first, as ordinary runs. Then every head is adapted for each number of
shots, each fold of the target, each draw and each tuning. All heads get the same supports. Records
hold ``shots``, ``draw``, ``tuning``, ``source`` and the support's hash, from which
``learning_curves.md`` is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator

from ..core.errors import ConfigError
from ..core.speakers import REFUSE, UNKNOWN_SPEAKERS
from ..run import board, config
from ..run.record import finished, read_record
from ..run.schema import LISTED, FromZero, RunConfig, Seed, give, one_of
from ..run.tuning import Settings, Shots, new_head, obstacles, refuse
from . import axes, suite_file
from .suite import Plan, selecting
from .suite_file import SuiteFile, Words

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job

IN_TITLE = (*axes.IN_TITLE, "source.recipe", "source.encoder", "target.data", "target.taxonomy")


def _different(values: list[Any]) -> list[Any]:
    if not values or len({str(v) for v in values}) < len(values):
        raise ValueError(f"is {values}; give a list of different values")
    return values


DIFFERENT = AfterValidator(_different)
ALL = "all"
"""Every fold of the target's protocol."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The runs that are adapted; None = as the recipe says.

    Attributes:
        recipe: recipe of the runs.
        encoder: name of an encoder's configuration.
        fold: fold of the recipe's protocol.
        seed: seed of the runs.
        overrides: ``key=value`` for all of them.
    """

    recipe: Annotated[str, give("source.recipe=NAME")]
    encoder: str | None = None
    fold: FromZero | None = None
    seed: Seed | None = None
    overrides: Words = field(default_factory=list)


def _folds(given: Any) -> Any:
    listed = given if isinstance(given, list) else [given]
    right = all(type(v) is int and v >= 0 for v in listed) and len(set(listed)) == len(listed) > 0
    if given != ALL and not right:
        raise ConfigError(
            f"target.fold={given}; give the number of a fold, such as 0, a list of different ones, "
            "or all"
        )
    return given


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the heads are adapted to: keywords of :func:`.adapt.adapt`.

    ``fold`` is a number, a list, or ``all``. Each fold draws its supports from its own training
    speakers, and tests its own query. Tables pool the folds.
    """

    data: Annotated[str | list[str], give("target.data=CORPUS")]
    root: str | None = None
    protocol: str | None = None
    fold: Annotated[Any, BeforeValidator(_folds)] = 0
    taxonomy: str | None = None
    label: str = "label"
    unknown_speakers: Annotated[str, one_of(*UNKNOWN_SPEAKERS)] = REFUSE


@dataclass(frozen=True, kw_only=True)
class FewShotSuite(SuiteFile):
    """Heads, their source and target, and how they are adapted.

    Attributes:
        source: the runs that are adapted.
        target: what they are adapted to.
        head: names of head configurations.
        shots: numbers of utterances of each class; 0 = the model is tested as it is.
        draw: seeds of the supports.
        tuning: parts that are tuned.
        options: all other settings of the adaptations.
    """

    IN_TITLE: ClassVar[Sequence[str]] = IN_TITLE

    source: Source
    target: Target
    head: Annotated[list[str], LISTED, DIFFERENT]
    shots: Annotated[list[Shots], LISTED, DIFFERENT]
    draw: Annotated[list[Seed], LISTED, DIFFERENT]
    tuning: Annotated[list[str], LISTED, DIFFERENT]
    options: Settings = field(default_factory=Settings)

    def adding(self, words: Sequence[str]) -> FewShotSuite:
        """Return the suite with more ``key=value`` for the runs of the source."""
        given = [*self.source.overrides, *words]
        return replace(self, source=replace(self.source, overrides=given))


def load(name: str, overrides: Sequence[str] = ()) -> FewShotSuite:
    """Read a suite of adaptations; see :func:`.suite_file.load`.

    ``head=[selm]``, ``shots=[1,4]``, ``draw=[1,2]`` and ``tuning=[head]`` replace the suite's
    lists. ``target.KEY=...``, ``source.KEY=...`` and ``options.KEY=...`` replace its settings. Any
    other ``key=value`` is an override of the sources' runs.

    Raises:
        ConfigError: if a key, a name or a value is wrong.
    """
    return suite_file.load(FewShotSuite, name, overrides)


def jobs(suite: FewShotSuite, *, out: str) -> tuple[list[Job], list[Job]]:
    """List the runs of the sources and the cells; cells with the same support follow each other.

    Args:
        suite: the suite.
        out: folder of all runs.

    Raises:
        ConfigError: if a run cannot be composed, or a tuning is impossible with its encoder.
        DataError: if several folds of a target are wanted, and one of them cannot be used.
    """
    from ..run.adapt import adapt_cell
    from .pool import Job

    folder = Path(out) / suite.name
    s = suite.source
    settings = ["trainer.progress=false", *selecting(suite.metric), *s.overrides]
    settings.append(axes.setting("trainer.out", out))
    given = {"encoder": s.encoder, "fold": s.fold, "seed": s.seed}
    settings += [axes.setting(key, v) for key, v in given.items() if v is not None]
    sources = []
    for head in suite.head:
        cfg = config.load(s.recipe, [*settings, f"head={head}"])
        for tuning in suite.tuning:  # before anything is trained
            refuse(tuning, obstacles(cfg.encoder))
        name = f"{Path(s.recipe).stem}-{head}-{cfg.fingerprint[:6]}"
        sources.append(Job(name, cfg.to_dict(), folder / "sources" / name))
    cells = []
    folds = _folds_of(suite.target, RunConfig.from_dict(sources[0].config))
    for shots, fold in product(suite.shots, folds):
        for draw, tuning in product(suite.draw, suite.tuning):
            if not shots and (draw, tuning) != (suite.draw[0], suite.tuning[0]):
                continue  # 0 shots: without a support, nothing is drawn or tuned
            for source in sources:
                how = f"-d{draw}-{tuning}" if shots else ""
                where = "" if type(suite.target.fold) is int else f"-f{fold}"
                name = f"{source.name}-k{shots}{where}{how}"
                options = {
                    "path": str(source.folder),
                    "supports": str(folder / "supports"),
                    "shots": shots,
                    "draw": draw,
                    "tuning": tuning if shots else None,
                    **asdict(suite.target),
                    "fold": fold,
                    **asdict(suite.options),
                }
                cells.append(Job(name, source.config, folder / "cells" / name, options, adapt_cell))
    return sources, cells


def _folds_of(target: Target, source: RunConfig) -> list[int]:
    """Return the folds of a target; for several, its data is opened and each is audited."""
    from ..run.adapt import aimed, composed
    from ..run.build import audit_folds

    if type(target.fold) is int:
        return [target.fold]
    given = {**asdict(target), "fold": 0, "taxonomy": target.taxonomy or source.taxonomy}
    cfg = composed(source, aimed(**given))
    return audit_folds(cfg, None if target.fold == ALL else target.fold)


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
    suite: FewShotSuite

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
        return {**super().facts(), "axes": axes}

    def estimate(self, console: Console, workers: int) -> float:
        """List the cells, with the mean time of finished cells of the same tuning."""
        spent, todo = seconds_by_tuning(self.cells), self.todo()
        for job in [*self.first(), *self.cells]:
            known = spent.get(str(job.options.get("tuning")))
            about = f", about {known:.1f} s" if known and job in todo else ""
            console.print(f"{job.name}{about}", markup=False, highlight=False)
        if left := sum(spent.get(str(job.options["tuning"]), 0.0) for job in todo):
            console.print(f"about {left / 60 / workers:.0f} min on {workers} workers")
        return left

    def open(self) -> None:
        """Declare TensorBoard's columns for all heads and tunings."""
        rows = {}
        for job in self.cells:
            how = {k: job.options[k] for k in ("shots", "draw", "tuning")}
            cfg = RunConfig.from_dict(job.config)
            if how["tuning"] == "scratch":
                name = self.suite.options.scratch_head
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
