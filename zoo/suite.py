"""A suite: the axes of a comparison, and the cells they span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import config, registry
from .config import RunConfig
from .errors import ConfigError, suggest

if TYPE_CHECKING:
    from .matching import Match

AXES = ("recipe", "encoder", "head", "fold", "seed")


@dataclass(frozen=True)
class Suite:
    """Axes that span a comparison; everything else is the same in every cell.

    Attributes:
        name: of the suite, and of its folder.
        title: one line for people.
        baseline: the head that differences are taken to, by its configuration's name.
        match_params: whether the heads are made equal in trainable parameters within 10 %: true,
            to those of the baseline; a number of them; or the name of a head that has them.
        axes: ``recipe``, ``head``, ``seed`` and optionally ``encoder`` and ``fold`` (a list of
            numbers, or ``all``).
        overrides: ``key=value`` for every cell.
    """

    name: str
    title: str
    axes: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    baseline: str = "classification"
    match_params: bool | int | str = False


@dataclass(frozen=True)
class Cell:
    """One run of a comparison; ``match`` says how its head was brought to the size of others."""

    name: str
    cfg: RunConfig
    recipe: str
    encoder: str
    head: str
    fold: int
    seed: int
    match: Match | None = None


def load(name: str, overrides: Sequence[str] = ()) -> Suite:
    """A shipped suite by name, or a YAML file; overrides hold for every cell.

    An override of an axis (``head=[selm]``, ``seed=[1]``, ``fold=[0,1]``) replaces the axis, and
    ``baseline=NAME`` and ``match_params=true`` the suite's own.

    Raises:
        ConfigError: with the known names, or the unknown key.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            known = ", ".join(config.names("suite"))
            raise ConfigError(f"no suite file {name}; shipped suites: {known}")
        raw = config.read_mapping(path.read_text("utf-8"), name)
    else:
        raw = config.read_group("suite", name)
    known_keys = ("title", "axes", "overrides", "baseline", "match_params")
    for key in raw:
        if key not in known_keys:
            raise ConfigError(f"suite '{name}' has unknown key '{key}'{suggest(key, known_keys)}")
    if not isinstance(raw.get("axes"), dict):
        raise ConfigError(f"suite '{name}' has no axes; give axes: {{recipe: [...], head: [...]}}")
    axes = {k: v if isinstance(v, list) or v == "all" else [v] for k, v in raw["axes"].items()}
    fixed = raw.get("overrides") or []
    if not isinstance(fixed, list) or not all(isinstance(item, str) for item in fixed):
        raise ConfigError(f"suite '{name}': overrides are a list of key=value, not {fixed}")
    fixed = list(fixed)
    for item in overrides:
        (key, value), *_ = config.parse([item])
        if key in AXES:
            axes[key] = value if isinstance(value, list) or value == "all" else [value]
        elif key in ("baseline", "match_params"):
            raw[key] = value
        else:
            fixed.append(item)
    for key in axes:
        if key not in AXES:
            raise ConfigError(f"suite '{name}' has unknown axis '{key}'{suggest(key, AXES)}")
    for key in ("recipe", "head", "seed"):
        if not axes.get(key) or axes[key] == "all":
            raise ConfigError(f"suite '{name}' has no axis '{key}'; give a list")
    for key, values in axes.items():
        if values != "all" and len({str(v) for v in values}) < len(values):
            raise ConfigError(f"suite '{name}' names a {key} twice: {values}")
    folds = axes.get("fold", "all")
    if folds != "all" and not all(isinstance(f, int) and not isinstance(f, bool) for f in folds):
        raise ConfigError(f"suite '{name}': fold is {folds}; give a list of numbers, or all")
    baseline = str(raw.get("baseline", "classification"))
    heads = {*config.names("head"), *registry.names("heads")}
    if baseline not in heads:
        known = suggest(baseline, heads)
        raise ConfigError(f"suite '{name}' has unknown baseline '{baseline}'{known}")
    match_params = raw.get("match_params", False)
    _check_target(match_params, heads)
    return Suite(path.stem, str(raw.get("title", name)), axes, fixed, baseline, match_params)


def _check_target(wanted: Any, heads: set[str]) -> None:
    known = wanted in heads if isinstance(wanted, str) else isinstance(wanted, int) and wanted > 0
    if wanted is False or known:
        return
    raise ConfigError(
        f"match_params is {wanted!r}; give true (the baseline's trainable parameters), a number "
        f"above 0, or the name of a head{suggest(str(wanted), heads)}"
    )


def expand(suite: Suite, *, out: str) -> list[Cell]:
    """All cells, ordered so that early ones already compare heads: recipe, seed, fold, head.

    Opens each corpus once (preparing it on first use) and audits every fold that is used.

    Raises:
        DataError: when a fold's audit fails.
    """
    cells = []
    inspect = registry.attribute("serzoo.datamodules.speech:audit_folds")
    for recipe in suite.axes["recipe"]:
        # without the axis, the recipe's own encoder
        for encoder in suite.axes.get("encoder", [None]):
            base = [*suite.overrides, f"trainer.out={out}", "trainer.progress=false"]
            if encoder is not None:
                base.append(f"encoder={encoder}")
            probe = config.load(recipe, [*base, f"head={suite.axes['head'][0]}"])
            wanted = suite.axes.get("fold", "all")
            folds = inspect(probe, None if wanted == "all" else [int(f) for f in wanted])
            matches = _matches(suite, recipe, base, probe)
            for seed, fold, head in product(suite.axes["seed"], folds, suite.axes["head"]):
                found = matches.get(head)
                size = found.overrides if found else []
                chosen = [*base, f"head={head}", *size, f"fold={fold}", f"seed={seed}"]
                cfg = config.load(recipe, chosen)
                shown = str(encoder or probe.encoder["type"])
                stem = Path(recipe).stem
                name = f"{stem}-{shown}-{head}-f{fold}-s{seed}-{cfg.fingerprint[:6]}"
                cells.append(Cell(name, cfg, stem, shown, head, fold, seed, found))
    return cells


def _matches(suite: Suite, recipe: str, base: Sequence[str], probe: RunConfig) -> dict[str, Match]:
    """The size of each head beside one encoder; empty where sizes are left as they are."""
    wanted = suite.match_params
    if wanted is False:
        return {}
    from .matching import match
    from .train import open_data

    options = {k: v for k, v in probe.encoder.items() if k != "type"}
    dim = registry.get("encoders", probe.encoder["type"])(**options).dim
    taxonomy = config.build_taxonomy(probe) or open_data(probe).taxonomy  # auto: the data tell

    def of(head: str) -> RunConfig:
        return config.load(recipe, [*base, f"head={head}"])

    target = suite.baseline if wanted is True else wanted
    heads = [str(head) for head in suite.axes["head"]]
    goal = of(target) if isinstance(target, str) else target
    return dict(zip(heads, match([of(h) for h in heads], dim, taxonomy, goal), strict=True))


def matched(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Target, trainable parameters and changed knobs of each head, per recipe and encoder."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in cells:
        if cell.match is not None:
            key = (cell.recipe, cell.encoder, cell.head)
            names = dict(zip(("recipe", "encoder", "head"), key, strict=True))
            rows[key] = {**names, **asdict(cell.match)}
    return list(rows.values())
