"""Suites: the axes of a comparison, its cells, and the plan of each kind of suite."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ...datamodules.labelling.label import KNOBS
from ..core import registry
from ..core.errors import ConfigError, suggest
from ..run import config
from ..run.build import audit_folds
from ..run.record import finished
from ..run.schema import Flag, FromOne, Positive, RunConfig, give
from . import axes, sources, suite_file
from .axes import AXES, Point
from .search import Match, Search, match
from .sources import Arm, Pretraining, Source
from .suite_file import Head, SuiteFile, Words, known_heads, lists

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job


def _axes(spanned: dict[str, Any]) -> dict[str, Any]:
    """Return the axes of a file, each as a list of values, or ``all``."""
    spanned = lists(spanned)
    axes.check(spanned)
    for key in ("recipe", "head", "seed"):
        if spanned.get(key) in (None, [], "all"):
            raise ConfigError(f"it has no axis '{key}'; give a list")
    for key, values in spanned.items():
        if not values or (values == "all" and key != "fold"):
            raise ConfigError(f"{key} is {values}; give a list of values")
        if values != "all" and len({str(v) for v in values}) < len(values):
            raise ConfigError(f"a {key} is there twice: {values}; name each once")
    if not registry.fits(folds := spanned.get("fold", "all"), list[int] | Literal["all"]):
        raise ConfigError(f"fold is {folds}; give a list of numbers, or all")
    return spanned


def _size(wanted: Any, check: ValidatorFunctionWrapHandler) -> bool | int | str:
    """Check ``match_params``: a flag, a number above 0, or the name of a head."""
    with contextlib.suppress(ValidationError):
        found: bool | int | str = check(wanted)
        if not isinstance(found, str) or found in known_heads():
            return found
    raise ValueError(
        f"is {wanted!r}; give true (the baseline's trainable parameters), a number above 0, or the "
        f"name of a head{suggest(str(wanted), known_heads())}"
    )


@dataclass(frozen=True, kw_only=True)
class Suite(SuiteFile):
    """A comparison whose axes span the cells; all else is the same in every cell.

    Attributes:
        axes: ``recipe``, ``head``, ``seed`` and optionally ``encoder``, ``fold`` (a list of
            numbers, or ``all``) and free ones (:mod:`.axes`).
        overrides: ``key=value`` for every cell.
        match_params: whether all heads get the same number of trainable parameters, within 10 %.
            True = that of the baseline; a number; or the name of a head that has it.
        search: the settings that each head may try; None = no search.
        limit_minutes: a cell that takes longer is ended, and recorded as failed; None = no limit.
        pretraining: what cells may start from, by name (:mod:`.sources`).
        label: corpus and settings of weak labels that the suite makes; None = it makes none.
    """

    SPAN: ClassVar[str] = "axes"
    SPANNED: ClassVar[Sequence[str]] = (*AXES, *axes.SHORT)

    axes: Annotated[
        dict[str, Any],
        Field(min_length=1),
        give("axes: {recipe: [...], head: [...]}"),
        AfterValidator(_axes),
    ]
    overrides: Words = field(default_factory=list)
    baseline: Head = "classification"
    match_params: Annotated[Flag | FromOne | str, WrapValidator(_size)] = False
    search: Search | None = None
    limit_minutes: Annotated[Positive, give("minutes above 0, or leave it out")] | None = None
    pretraining: dict[str, Arm] = field(default_factory=dict)
    label: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        sources.check(self.pretraining, self.label, self.axes.get(axes.SOURCE, ()))
        if self.search and axes.SOURCE in self.axes:
            raise ConfigError("it has a search and an axis pretraining; leave one out")

    @classmethod
    def types(cls) -> dict[str, Any]:
        """Return the types of the settings of ``label``."""
        knobs = {f"label.{key}": knob.annotation for key, knob in KNOBS.items()}
        return {**knobs, "label.corpus": str}

    def adding(self, words: Sequence[str]) -> Suite:
        """Return the suite with more ``key=value`` for every cell."""
        return replace(self, overrides=[*self.overrides, *words])

    @property
    def starts(self) -> Pretraining | None:
        """What cells start from; None if the suite has no such axis."""
        return Pretraining(self.pretraining, self.label) if axes.SOURCE in self.axes else None


@dataclass(frozen=True)
class Trial:
    """A run that a search validates: its name, the settings it tries, its configuration."""

    name: str
    settings: dict[str, Any]
    cfg: RunConfig


def ended_trials(folder: Path) -> set[str]:
    """Return the names of trials that ended well, without what their settings add to them."""
    done = (path for path in folder.glob("*-t*") if finished(path))
    return {path.name.rpartition("-")[0] for path in done}


@dataclass(frozen=True)
class Settled:
    """A run without its searched settings: how its trials are composed.

    Attributes:
        name: name of the run; a trial's name begins with it.
        recipe: name or file of the recipe.
        words: ``key=value`` of the run, without its seed.
        head: name of its head.
        seed: seed of all its trials.
    """

    name: str
    recipe: str
    words: tuple[str, ...]
    head: str
    seed: int

    def trial_names(self, number: int) -> list[str]:
        """Return the names of so many trials, without what their settings add to them."""
        return [f"{self.name}-t{n}" for n in range(number)]

    def trial(self, number: int, settings: dict[str, Any]) -> Trial:
        """Return the trial of these settings."""
        more = (axes.setting(k, v) for k, v in settings.items())
        cfg = config.load(self.recipe, [*self.words, f"seed={self.seed}", *more])
        return Trial(f"{self.name}-t{number}-{cfg.fingerprint[:6]}", settings, cfg)


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        cfg: configuration of the run; of a cell with ``trials``, without the best trial's settings.
        match: the options that bring its head to the target size; None = sizes are not matched.
        point: values of the free axes.
        trials: the trials of its head in this fold, the same for all seeds. The setting that a cell
            gets depends on those of the other folds, too. Empty if the sampler is adaptive.
        searched: what its trials have in common; None without a search.
        tries: number of its trials.
        source: the pre-training that it starts from; None = new weights.
    """

    name: str
    cfg: RunConfig
    recipe: str
    encoder: str
    head: str
    fold: int
    seed: int
    match: Match | None = None
    point: dict[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    source: Source | None = None
    searched: Settled | None = None
    tries: int = 0

    @property
    def trial_names(self) -> list[str]:
        """Names of the trials in this fold; those of an adaptive sampler without their settings."""
        if self.trials or self.searched is None:
            return [trial.name for trial in self.trials]
        return self.searched.trial_names(self.tries)

    @property
    def trainings(self) -> int:
        """Number of trainings of the cell itself: with ``optim.refit`` two, or one after a trial.

        The chosen trial takes the place of the first one if it has the cell's seed.
        """
        if not self.cfg.optim.refit:
            return 1
        return 1 if self.searched is not None and self.searched.seed == self.seed else 2

    @property
    def kind(self) -> tuple[str, ...]:
        """The same for cells that differ only in fold and seed, and so cost about the same."""
        return self.recipe, self.encoder, self.head, axes.shown(self.point)


def load(name: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite of runs; see :func:`.suite_file.load`.

    An override of an axis (``head=[selm]``, ``seed=[1]``, ``fold=[0,1]``) replaces the axis, and
    ``axes.KEY=[...]`` adds one. ``baseline=NAME``, ``primary=[...]``, ``match_params=true``,
    ``limit_minutes=30`` and ``search.trials=4`` replace keys of the suite.

    Raises:
        ConfigError: if a key, a name or a value is wrong.
    """
    return suite_file.load(Suite, name, overrides)


def selecting(metric: str) -> list[str]:
    """Return the override that selects epochs by a suite's metric; none for the default."""
    return [] if metric == "uar" else [f"optim.metric={metric}"]


def expand(suite: Suite, *, out: str) -> list[Cell]:
    """List the cells by recipe, seed, fold and head, so that the first ones compare heads.

    This opens each corpus once (and prepares it on first use) and audits every fold.

    Args:
        suite: the suite.
        out: folder of all runs.

    Raises:
        ConfigError: if a run cannot be composed.
        DataError: if a fold's audit fails.
    """
    cells = []
    folds_of = _Folds()
    for recipe in suite.axes["recipe"]:
        # without the axis, the recipe's own encoder
        for encoder, point in product(suite.axes.get("encoder", [None]), axes.points(suite.axes)):
            base = ["trainer.progress=false", *selecting(suite.metric), *suite.overrides]
            base.append(axes.setting("trainer.out", out))
            if encoder is not None:
                base.append(f"encoder={encoder}")
            last = axes.overrides(point)
            probe = config.load(recipe, [*base, f"head={suite.axes['head'][0]}", *last])
            folds = folds_of(probe, suite.axes.get("fold", "all"))
            matches = _matches(suite, recipe, [*base, *last], probe)
            first, shared = suite.axes["seed"][0], [*base, *last]
            begun = {s: _source(suite, point, shared, s, probe, out) for s in suite.axes["seed"]}
            for seed, fold, head in product(suite.axes["seed"], folds, suite.axes["head"]):
                found = matches.get(head)
                size = found.overrides if found else []
                chosen = [*base, f"head={head}", *last, *size, f"fold={fold}"]
                source = begun[seed]
                if suite.starts:
                    further = source and source.cfg.encoder == probe.encoder
                    start = str(source.folder) if source and further else None
                    chosen.append(axes.setting("init", start))
                cfg = config.load(recipe, [*chosen, f"seed={seed}"])
                if source and cfg.init is None:
                    cfg = _on(source, cfg)
                shown = str(encoder or probe.encoder["type"])
                stem = Path(recipe).stem
                name = f"{stem}-{shown}-{head}{axes.in_name(point)}-f{fold}"
                searched = None
                if suite.search is not None:
                    searched = Settled(name, recipe, tuple(chosen), head, first)
                trials = _trials(suite.search, searched, found)
                unique = _digest(cfg, suite.search, head) if searched else cfg.fingerprint[:6]
                cells.append(
                    Cell(
                        f"{name}-s{seed}-{unique}", cfg, stem, shown, head, fold, seed, found,
                        point, trials, source, searched, suite.search.trials if suite.search else 0,
                    )
                )  # fmt: skip
    return cells


def _source(
    suite: Suite, point: Point, settings: Sequence[str], seed: int, probe: RunConfig, out: str
) -> Source | None:
    """Return the pre-training of a cell; both must have the same encoder, tuned or frozen."""
    if suite.starts is None:
        return None
    arm, folder = str(point[axes.SOURCE]), Path(out) / suite.name
    source = suite.starts.source(arm, settings, seed, out=out, folder=folder)
    if source and not (source.cfg.encoder == probe.encoder or _freezes(source, probe)):
        raise ConfigError(
            f"suite '{suite.name}': the encoder of the cells is {probe.encoder}, but that of "
            f"pretraining '{arm}' is {source.cfg.encoder}; give both recipes the same encoder, or "
            "set encoder=NAME (only encoder.tuning may differ: frozen in the cells)"
        )
    return source


def _freezes(source: Source, probe: RunConfig) -> bool:
    """Whether a pre-training tunes the encoder that its cells keep frozen."""
    return {**source.cfg.encoder, "tuning": "frozen"} == probe.encoder


def _on(source: Source, cfg: RunConfig) -> RunConfig:
    """Return a cell on the encoder of its pre-training, frozen; all else stays as it is.

    Defaults that depend on the encoder, such as a head's pooling, are those of the cell's encoder.
    """
    start = ["encoder=trained", axes.setting("encoder.name", str(source.folder)), "init=null"]
    return replace(cfg, encoder=config.load(cfg.recipe, start).encoder)


class _Folds:
    """Audits the folds of a run's data, once for all runs on the same data."""

    def __init__(self) -> None:
        self.inspect = audit_folds
        self.known: dict[str, list[int]] = {}

    def __call__(self, cfg: RunConfig, wanted: Any) -> list[int]:
        parts = asdict(cfg.data), cfg.corpus, cfg.protocol, cfg.taxonomy
        key = json.dumps(parts, sort_keys=True)
        if key not in self.known:
            folds = None if wanted == "all" else [int(f) for f in wanted]
            self.known[key] = self.inspect(cfg, folds)
        return self.known[key]


def _trials(
    search: Search | None, searched: Settled | None, match: Match | None
) -> tuple[Trial, ...]:
    """Return the trials of a run; none if their settings depend on earlier results."""
    if search is None or searched is None:
        return ()
    both = [f"head.{knob}" for knob in (match.settings if match else {})]
    if clash := [key for key in search.space_of(searched.head) if key in both]:
        raise ConfigError(
            f"search and match_params both set {clash[0]} of head '{searched.head}'; search other "
            "options, or leave match_params out"
        )
    drawn = search.settings(searched.head)  # also of an adaptive one: refuses a space too small
    return () if search.adaptive else tuple(searched.trial(n, s) for n, s in enumerate(drawn))


def _digest(cfg: RunConfig, search: Search | None, head: str) -> str:
    """Return six hexadecimal digits that identify a cell and its search.

    Spaces of other heads do not count, so a suite may gain a head that has one.
    """
    assert search is not None
    budget = search.budget()
    budget["heads"] = {name: space for name, space in budget["heads"].items() if name == head}
    text = cfg.fingerprint + json.dumps(budget, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _matches(suite: Suite, recipe: str, base: Sequence[str], probe: RunConfig) -> dict[str, Match]:
    """Match the heads' sizes with one encoder; empty without ``match_params``."""
    wanted = suite.match_params
    if wanted is False:
        return {}
    from ..run.build import open_data

    if probe.utterance is not None:
        raise ConfigError(
            f"suite '{suite.name}': match_params counts heads that read frames only, but utterance="
            f"{probe.utterance} makes them larger; leave one of the two out"
        )
    options = {k: v for k, v in probe.encoder.items() if k != "type"}
    dim = registry.get("encoders", probe.encoder["type"])(**options).dim
    taxonomy = config.build_taxonomy(probe) or open_data(probe).taxonomy  # auto: of the data

    def of(head: str) -> RunConfig:
        return config.load(recipe, [*base, f"head={head}"])

    target = suite.baseline if wanted is True else wanted
    heads = [str(head) for head in suite.axes["head"]]
    goal = of(target) if isinstance(target, str) else target
    return dict(zip(heads, match([of(h) for h in heads], dim, taxonomy, goal), strict=True))


def matched(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return target, trainable parameters and changed options of each head, per table."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell in cells:
        if cell.match is not None:
            shown = axes.shown(cell.point)
            recipe = f"{cell.recipe}, {shown}" if shown else cell.recipe
            names = {"recipe": recipe, "encoder": cell.encoder, "head": cell.head}
            rows[cell.kind] = {**names, **asdict(cell.match)}
    return list(rows.values())


class Plan(ABC):
    """The runs of a suite, in order. Each kind of suite has a subclass.

    :func:`.compare.compare` runs any plan in the same way. It locks the folder, resumes, limits and
    records each cell, and writes the tables.

    Attributes:
        suite: what the suite's file says.
        name: name of the suite, and of its folder below ``out``.
        title: one line for people.
        folder: folder of the comparison.
        cells: the jobs that are tabulated, in order.
        ahead: jobs that cells need, which are run before them.
        called: name of these jobs, in the plural.
        limit_minutes: time that a cell may take; None = no limit.
    """

    called: ClassVar[str] = "runs"
    suite: SuiteFile
    name: str
    title: str
    folder: Path
    cells: Sequence[Job]
    ahead: Sequence[Job] = ()
    limit_minutes: float | None = None

    def todo(self) -> list[Job]:
        """Cells without a finished record."""
        return [job for job in self.cells if not finished(job.folder)]

    def first(self) -> list[Job]:
        """Unfinished jobs that the unfinished cells need."""
        return [job for job in self.ahead if not finished(job.folder)] if self.todo() else []

    def rounds(self) -> Iterator[list[Job]]:
        """Yield the jobs of :meth:`first` in lists; one list ends before the next one is made."""
        if first := self.first():
            yield first

    def headline(self) -> str:
        """A clause that follows the number of cells in the first line of output, or ""."""
        return ""

    def notes(self) -> Iterable[str]:
        """Lines that are printed before anything is run."""
        return ()

    def facts(self) -> dict[str, Any]:
        """The suite's settings: fields of :class:`.record.SuiteRecord`."""
        return asdict(self.suite)

    @abstractmethod
    def estimate(self, console: Console, workers: int) -> float:
        """Print the cells with their estimated time and memory.

        Returns:
            Seconds that the unfinished cells take on one worker, as far as they are known.
        """

    def check(self) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Raise, before anything is written, if something that cells need is missing."""

    def open(self) -> None:  # noqa: B027 - most kinds have nothing to prepare
        """Prepare the suite's folder before anything is run."""

    def ready(self, job: Job) -> Job | None:
        """Return a cell after ``ahead`` has ended; if it cannot run, record that, return None."""
        return job
