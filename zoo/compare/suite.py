"""Suites: the axes of a comparison, its cells, and the plan of each kind of suite."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...datamodules.labelling.label import KNOBS
from ..core import registry, shipped
from ..core.errors import ConfigError, suggest
from ..report.answers import MARGIN, NAMES
from ..run import config
from ..run.build import audit_folds
from ..run.config import RunConfig
from ..run.record import finished
from . import axes, search, sources
from .axes import AXES, Point
from .sources import Pretraining, Source

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job
    from .search import Match

# what a suite of any kind asks of its tables
QUESTIONS: dict[str, Any] = {"primary": str | list[str] | None, "margin": float, "metric": str}
OWN: dict[str, Any] = {
    "title": str,
    "baseline": str,
    "match_params": bool | int | str,
    "limit_minutes": float | None,
    **QUESTIONS,
}


@dataclass(frozen=True)
class Suite:
    """A comparison whose axes span the cells; all else is the same in every cell.

    Attributes:
        name: name of the suite, and of its folder.
        title: one line for people.
        axes: ``recipe``, ``head``, ``seed`` and optionally ``encoder``, ``fold`` (a list of
            numbers, or ``all``) and free ones (:mod:`.axes`).
        overrides: ``key=value`` for every cell.
        baseline: name of the head that others are compared to.
        match_params: whether all heads get the same number of trainable parameters, within 10 %.
            True = that of the baseline; a number; or the name of a head that has it.
        search: the settings that each head may try; None = no search.
        limit_minutes: a cell that takes longer is ended, and recorded as failed; None = no limit.
        pretraining: what cells start from; None = the suite has no such axis (:mod:`.sources`).
        primary: heads whose comparisons to the baseline are corrected together; None = all heads
            that the suite runs.
        margin: largest difference that counts as equivalent.
        metric: what epochs are selected by, and heads are compared and searched by: ``uar``,
            ``wa`` or ``macro_f1``.
    """

    name: str
    title: str
    axes: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    baseline: str = "classification"
    match_params: bool | int | str = False
    search: search.Search | None = None
    limit_minutes: float | None = None
    pretraining: Pretraining | None = None
    primary: list[str] | None = None
    margin: float = MARGIN
    metric: str = "uar"


@dataclass(frozen=True)
class Trial:
    """A run that a search validates: its name, the settings it tries, its configuration."""

    name: str
    settings: dict[str, Any]
    cfg: RunConfig


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        cfg: configuration of the run; of a cell with ``trials``, without the best trial's settings.
        match: the options that bring its head to the target size; None = sizes are not matched.
        point: values of the free axes.
        trials: the trials of its head in this fold, the same for all seeds.
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

    @property
    def kind(self) -> tuple[str, ...]:
        """The same for cells that differ only in fold and seed, and so cost about the same."""
        return self.recipe, self.encoder, self.head, axes.shown(self.point)


def load(name: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite of runs.

    An override of an axis (``head=[selm]``, ``seed=[1]``, ``fold=[0,1]``) replaces the axis, and
    ``axes.KEY=[...]`` adds one. ``title=TEXT``, ``baseline=NAME``, ``primary=[...]``,
    ``margin=0.02``, ``metric=wa``, ``match_params=true``, ``limit_minutes=30`` and
    ``search.trials=4`` replace keys of the suite. Any other ``key=value`` holds for every cell.
    Unless ``title`` is set, overrides are added to it (:func:`.axes.retitled`).

    Args:
        name: name of a shipped suite, or a YAML file.
        overrides: ``key=value``.

    Raises:
        ConfigError: if a key, a name or a value is wrong.
    """
    path, raw = Path(name), config.read_suite(name)
    known_keys = ("axes", "overrides", "search", "pretraining", "label", *OWN)
    for key in raw:
        if key not in known_keys:
            raise ConfigError(f"suite '{name}' has unknown key '{key}'{suggest(key, known_keys)}")
    if not isinstance(raw.get("axes"), dict):
        raise ConfigError(f"suite '{name}' has no axes; give axes: {{recipe: [...], head: [...]}}")
    spanned = {
        str(k): v if isinstance(v, list) or v == "all" else [v] for k, v in raw["axes"].items()
    }
    fixed = raw.get("overrides") or []
    if not isinstance(fixed, list) or not all(isinstance(item, str) for item in fixed):
        raise ConfigError(f"suite '{name}': overrides are a list of key=value, not {fixed}")
    fixed = list(fixed)
    named = any(key == "title" for key, _ in config.words(overrides))
    for item in overrides:
        ((key, text),) = config.words([item])
        group, _, inner = key.partition(".")
        if group == "axes" or key in (*AXES, *axes.SHORT, *spanned):
            key = inner if group == "axes" else key
            spanned[key] = axes.values(key, text)
        elif group in ("search", "label") and inner:
            if not isinstance(raw.get(group) or {}, dict):
                raise ConfigError(f"suite '{name}': {group} is {raw[group]}; give keys and values")
            ((_, value),) = config.parse([item], _label_types() if group == "label" else None)
            raw[group] = {**(raw.get(group) or {}), inner: value}
        elif key in (*OWN, "search"):
            ((_, raw[key]),) = config.parse([item], OWN)
        else:
            fixed.append(item)
    raw = config.adopt_names(raw)  # those of the overrides
    axes.refuse_out(fixed)
    axes.check(name, spanned)
    for key in ("recipe", "head", "seed"):
        if not spanned.get(key) or spanned[key] == "all":
            raise ConfigError(f"suite '{name}' has no axis '{key}'; give a list")
    for key, values in spanned.items():
        if not values or (values == "all" and key != "fold"):
            raise ConfigError(f"suite '{name}': {key} is {values}; give a list of values")
        if values != "all" and len({str(v) for v in values}) < len(values):
            raise ConfigError(f"suite '{name}' names a {key} twice: {values}")
    folds = spanned.get("fold", "all")
    if folds != "all" and not all(isinstance(f, int) and not isinstance(f, bool) for f in folds):
        raise ConfigError(f"suite '{name}': fold is {folds}; give a list of numbers, or all")
    baseline = str(raw.get("baseline", "classification"))
    heads = {*shipped.names("head"), *registry.names("heads")}
    if baseline not in heads:
        known = suggest(baseline, heads)
        raise ConfigError(f"suite '{name}' has unknown baseline '{baseline}'{known}")
    match_params = raw.get("match_params", False)
    _check_target(match_params, heads)
    limit = raw.get("limit_minutes")
    if limit is not None and not (_is_number(limit) and limit > 0):
        raise ConfigError(f"limit_minutes is {limit!r}; give minutes above 0, or leave it out")
    found = search.read(name, raw.get("search"))
    begun = sources.read(name, raw, spanned.get(axes.SOURCE))
    if found and begun:
        raise ConfigError(f"suite '{name}' has a search and an axis pretraining; leave one out")
    title = str(raw.get("title") or name)
    title = title if named else axes.retitled(title, overrides)
    return Suite(
        path.stem,
        title,
        spanned,
        fixed,
        baseline,
        match_params,
        found,
        limit,
        begun,
        **questions(name, raw),
    )


def questions(name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``primary``, ``margin`` and ``metric`` of a suite of any kind.

    Raises:
        ConfigError: if one has a wrong value.
    """
    primary = raw.get("primary")
    if primary is not None:
        primary = [primary] if isinstance(primary, str) else primary
        own = raw.get("head") or (raw.get("axes") or {}).get("head") or ()
        own = own if isinstance(own, list) else [own]
        heads = {*shipped.names("head"), *registry.names("heads"), *map(str, own)}
        if not isinstance(primary, list) or not primary:
            raise ConfigError(f"suite '{name}': primary is {primary!r}; give a list of heads")
        for row in primary:
            if str(row).partition(" after ")[0] not in heads:
                raise ConfigError(
                    f"suite '{name}': primary names an unknown head '{row}'"
                    f"{suggest(str(row), heads)}"
                )
    margin, metric = raw.get("margin", MARGIN), raw.get("metric", "uar")
    if not (_is_number(margin) and 0 < margin < 1):
        raise ConfigError(
            f"suite '{name}': margin is {margin!r}; give a difference between 0 and 1, such as "
            f"{MARGIN}"
        )
    if metric not in NAMES:
        raise ConfigError(f"suite '{name}' has unknown metric '{metric}'{suggest(metric, NAMES)}")
    return {"primary": primary, "margin": float(margin), "metric": metric}


def selecting(metric: str) -> list[str]:
    """Return the override that selects epochs by a suite's metric; none for the default."""
    return [] if metric == "uar" else [f"optim.metric={metric}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _label_types() -> dict[str, Any]:
    knobs = KNOBS
    return {"label.corpus": str, **{f"label.{k}": knob.annotation for k, knob in knobs.items()}}


def _check_target(wanted: Any, heads: set[str]) -> None:
    known = wanted in heads if isinstance(wanted, str) else isinstance(wanted, int) and wanted > 0
    if wanted is False or known:
        return
    raise ConfigError(
        f"match_params is {wanted!r}; give true (the baseline's trainable parameters), a number "
        f"above 0, or the name of a head{suggest(str(wanted), heads)}"
    )


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
                if suite.pretraining:
                    start = str(source.folder) if source else None
                    chosen.append(axes.setting("init", start))
                cfg = config.load(recipe, [*chosen, f"seed={seed}"])
                shown = str(encoder or probe.encoder["type"])
                stem = Path(recipe).stem
                name = f"{stem}-{shown}-{head}{axes.in_name(point)}-f{fold}"
                trials = _trials(suite, recipe, [*chosen, f"seed={first}"], head, name, found)
                unique = _digest(cfg, suite) if trials else cfg.fingerprint[:6]
                cells.append(
                    Cell(
                        f"{name}-s{seed}-{unique}", cfg, stem, shown, head, fold, seed,
                        found, point, trials, source,
                    )
                )  # fmt: skip
    return cells


def _source(
    suite: Suite, point: Point, settings: Sequence[str], seed: int, probe: RunConfig, out: str
) -> Source | None:
    """Return the pre-training of a cell; both must have the same encoder."""
    if suite.pretraining is None:
        return None
    arm, folder = str(point[axes.SOURCE]), Path(out) / suite.name
    source = suite.pretraining.source(arm, settings, seed, out=out, folder=folder)
    if source and source.cfg.encoder != probe.encoder:
        raise ConfigError(
            f"suite '{suite.name}': the encoder of the cells is {probe.encoder}, but that of "
            f"pretraining '{arm}' is {source.cfg.encoder}; give both recipes the same encoder, or "
            "set encoder=NAME"
        )
    return source


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
    suite: Suite, recipe: str, chosen: list[str], head: str, name: str, match: Match | None
) -> tuple[Trial, ...]:
    if suite.search is None:
        return ()
    both = [f"head.{knob}" for knob in (match.settings if match else {})]
    if clash := [key for key in suite.search.space_of(head) if key in both]:
        raise ConfigError(
            f"search and match_params both set {clash[0]} of head '{head}'; search other options, "
            "or leave match_params out"
        )
    found = []
    for number, settings in enumerate(suite.search.settings(head)):
        cfg = config.load(recipe, [*chosen, *(axes.setting(k, v) for k, v in settings.items())])
        found.append(Trial(f"{name}-t{number}-{cfg.fingerprint[:6]}", settings, cfg))
    return tuple(found)


def _digest(cfg: RunConfig, suite: Suite) -> str:
    """Return six hexadecimal digits that identify a cell and its search."""
    assert suite.search is not None
    text = cfg.fingerprint + json.dumps(suite.search.budget(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _matches(suite: Suite, recipe: str, base: Sequence[str], probe: RunConfig) -> dict[str, Match]:
    """Match the heads' sizes with one encoder; empty without ``match_params``."""
    wanted = suite.match_params
    if wanted is False:
        return {}
    from ..run.build import open_data
    from .search import match

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

    :func:`.compare.compare` runs any plan in the same way: it locks the folder, resumes, limits and
    records each cell, and writes the tables.

    Attributes:
        name: name of the suite, and of its folder below ``out``.
        title: one line for people.
        folder: folder of the comparison.
        cells: the jobs that are tabulated, in order.
        ahead: jobs that cells need, which are run before them.
        called: name of these jobs, in the plural.
        limit_minutes: time that a cell may take; None = no limit.
    """

    called: ClassVar[str] = "runs"
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

    def headline(self) -> str:
        """A clause that follows the number of cells in the first line of output, or ""."""
        return ""

    def notes(self) -> Iterable[str]:
        """Lines that are printed before anything is run."""
        return ()

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The suite's settings, for ``suite.json``."""

    @abstractmethod
    def estimate(self, console: Console, workers: int) -> None:
        """Print the cells with their estimated time and memory."""

    def check(self) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Raise, before anything is written, if something that cells need is missing."""

    def open(self) -> None:  # noqa: B027 - most kinds have nothing to prepare
        """Prepare the suite's folder before anything is run."""

    def ready(self, job: Job) -> Job | None:
        """Return a cell after ``ahead`` has ended; if it cannot run, record that, return None."""
        return job
