"""Run configurations: recipes, groups, overrides, and the fingerprint that names a run.

A recipe (``configs/recipe/<name>.yaml`` or a file of the user's) picks groups by name and tweaks
them. ``encoder=hf`` on the command line replaces a group and drops the recipe's tweaks for it;
``optim.lr=1e-3`` sets one key. Heads and encoders are named by registered name (``type:``), never
by dotted path, so a shared YAML cannot import code; their keys are checked against the
constructor. Values are read by a strict YAML loader (``0010`` stays a string) and merged by
OmegaConf into the dataclasses below, which hold every key there is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import registry
from .errors import ConfigError, suggest
from .taxonomy import Taxonomy, read_yaml


@dataclass
class DataConfig:
    """How utterances become batches."""

    root: str | None = None  # folder of the corpus; default $SERZOO_DATA/<corpus>
    manifest: str | None = None  # a prepared manifest instead of the corpus' own layout
    label: str = "label"  # which column is the label: label, gender, or one of the corpus' others
    options: dict[str, Any] = field(default_factory=dict)  # of the corpus reader (csv, folder)
    batch_size: int = 32  # utterances in a batch at most
    batch_seconds: float = 160.0  # seconds of (padded) speech in a batch at most
    max_seconds: float = 20.0  # longer utterances are cut to this, and counted
    balance: bool = True  # weigh training utterances by inverse class frequency
    features: str = "auto"  # auto: what the encoder allows to store is computed once; live: never
    workers: int = 0  # DataLoader processes


@dataclass
class OptimConfig:
    """How the trainable parameters are moved. Every head gets the same."""

    lr: float = 1e-3  # peak learning rate
    head_lr: float | None = None  # of the head, where it is to differ
    weight_decay: float = 1e-2
    epochs: int = 30
    warmup: float = 0.1  # share of the steps, linear
    clip: float = 1.0  # gradient norm
    mixup: float = 0.0  # Beta(a, a) mixing of encoder inputs and targets; 0 = off
    ema: float = 0.0  # decay of the averaged weights used for evaluation; 0 = off


@dataclass
class TrainerConfig:
    """Where it runs. Not part of a run's identity, except the precision."""

    out: str = "runs"
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    threads: int | None = None  # CPU threads of each process
    progress: bool = True


@dataclass
class RunConfig:
    """One run: a corpus, a fold, an encoder, a head, a seed."""

    recipe: str = ""
    corpus: list[str] = field(default_factory=list)
    protocol: str | None = None
    fold: int = 0
    taxonomy: str | None = None
    seed: int = 1
    encoder: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Inverse of :meth:`to_dict`; unknown keys are errors."""
        return _merge(dict(data))

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the configuration that decides the numbers."""
        d = self.to_dict()
        del d["recipe"]
        for key in ("root", "manifest", "workers", "features"):
            del d["data"][key]
        d["trainer"] = {"precision": d["trainer"]["precision"]}
        return d

    @property
    def fingerprint(self) -> str:
        """10 hexadecimal digits of :attr:`identity`: the run's id."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


GROUPS = ("encoder", "head", "optim")


def names(group: str) -> list[str]:
    """Names of the shipped configurations of a group."""
    found = (p.name for p in files(f"serzoo.configs.{group}").iterdir())
    return sorted(n[:-5] for n in found if n.endswith(".yaml"))


def read_group(group: str, name: str) -> dict[str, Any]:
    """A shipped configuration as plain containers.

    A registered head or encoder of a third party needs no file: its defaults are its own.

    Raises:
        ConfigError: with the known names.
    """
    if name in names(group):
        text = files(f"serzoo.configs.{group}").joinpath(f"{name}.yaml").read_text("utf-8")
        return dict(read_yaml(text) or {})
    kinds = {"head": "heads", "encoder": "encoders"}
    known = set(names(group))
    if group in kinds:
        registered = registry.names(kinds[group])  # type: ignore[arg-type]
        if name in registered:
            return {"type": name}
        known |= set(registered)
    raise ConfigError(f"no {group} config called '{name}'{suggest(name, known)}")


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Compose a run.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, applied in that order.

    Returns:
        The resolved configuration, its heads' and encoders' keys checked against the constructors.

    Raises:
        ConfigError: saying which key or name is wrong and what would be right.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(
                f"no recipe file {recipe}; shipped recipes: {', '.join(names('recipe'))}"
            )
        base = dict(read_yaml(path.read_text("utf-8")) or {})
    else:
        base = read_group("recipe", recipe)
    return compose({**base, "recipe": recipe}, parse(overrides))


def parse(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """``["a.b=1"]`` to ``[("a.b", 1)]``, each value read as YAML."""
    parsed = []
    for item in overrides:
        key, eq, value = item.partition("=")
        if not eq or not key:
            raise ConfigError(
                f"'{item}' is no override; write key=value, for example optim.lr=1e-3"
            )
        parsed.append((key.strip(), read_yaml(value)))
    return parsed


def compose(base: dict[str, Any], overrides: Sequence[tuple[str, Any]]) -> RunConfig:
    """Merge a recipe's content and parsed overrides into a checked :class:`RunConfig`."""
    chosen: dict[str, str] = dict(base.pop("groups", None) or {})
    unknown = [g for g in chosen if g not in GROUPS]
    if unknown:
        raise ConfigError(f"recipe picks unknown group '{unknown[0]}'{suggest(unknown[0], GROUPS)}")
    for key, value in overrides:
        if key in GROUPS and isinstance(value, str):
            chosen[key] = value
            base.pop(key, None)  # the recipe's tweaks were for what it had picked
            if key == "encoder":  # and so was the way to train it
                chosen.pop("optim", None)
                base.pop("optim", None)
    merged: dict[str, Any] = {}
    for group in ("encoder", "head"):
        if group not in chosen:
            raise ConfigError(f"no {group} chosen; add {group}=NAME{suggest('', names(group))}")
        merged[group] = read_group(group, chosen[group])
    # an encoder's file names the optimisation that suits it, unless one was asked for
    default_optim = merged["encoder"].pop("optim", None)
    wanted = chosen.get("optim") or default_optim
    merged["optim"] = read_group("optim", wanted) if wanted else {}
    for key, value in base.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    for key, value in overrides:
        if not (key in GROUPS and isinstance(value, str)):
            _set(merged, key, value)
    return resolve(_merge(merged))


def resolve(cfg: RunConfig) -> RunConfig:
    """Fill a corpus' default protocol and taxonomy in and check every name and knob."""
    for corpus in cfg.corpus:
        if corpus not in registry.names("corpora"):
            raise ConfigError(
                f"no corpus called '{corpus}'{suggest(corpus, registry.names('corpora'))}"
            )
    if not cfg.corpus and not cfg.data.manifest:
        raise ConfigError("no corpus chosen; add corpus=NAME, or data.manifest=FILE")
    if len(cfg.corpus) == 1:
        info = read_group("corpus", cfg.corpus[0])
        cfg.protocol = cfg.protocol or info.get("protocol")
        cfg.taxonomy = cfg.taxonomy or info.get("taxonomy")
    elif len(cfg.corpus) > 1:
        cfg.protocol = cfg.protocol or "loco"
        if cfg.taxonomy is None:
            raise ConfigError(
                f"several corpora ({', '.join(cfg.corpus)}) need one taxonomy; add taxonomy=NAME"
                f"{suggest('', Taxonomy.names())}"
            )
    cfg.protocol = cfg.protocol or "kfold"
    cfg.taxonomy = cfg.taxonomy or "auto"
    if cfg.taxonomy != "auto":
        Taxonomy.load(cfg.taxonomy)
    if cfg.data.features not in ("auto", "live"):
        raise ConfigError(f"data.features is '{cfg.data.features}'; have auto, live")
    for kind, node in (("encoders", cfg.encoder), ("heads", cfg.head)):
        if "type" not in node:
            raise ConfigError(
                f"the {kind[:-1]} has no type; have {', '.join(registry.names(kind))}"
            )  # type: ignore[arg-type]
        options = {k: v for k, v in node.items() if k != "type"}
        registry.check_options(kind, node["type"], options)  # type: ignore[arg-type]
    return cfg


def build_taxonomy(cfg: RunConfig) -> Taxonomy | None:
    """The run's taxonomy; None for ``auto``, which only the data can tell."""
    return None if cfg.taxonomy in (None, "auto") else Taxonomy.load(str(cfg.taxonomy))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{key}' asks for a key under '{part}', which is a plain value")
    node[last] = value


def _merge(values: dict[str, Any]) -> RunConfig:
    if isinstance(values.get("corpus"), str):
        values = {**values, "corpus": [values["corpus"]]}
    _refuse_unknown(values, RunConfig, "")
    try:
        # flags and containers are plain: nothing of OmegaConf enters a class or a checkpoint
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.create(values))
        cfg = OmegaConf.to_object(merged)
    except OmegaConfBaseException as e:
        raise ConfigError(str(e).splitlines()[0]) from e
    assert isinstance(cfg, RunConfig)
    return cfg


def _refuse_unknown(values: Mapping[str, Any], schema: Any, prefix: str) -> None:
    known = {f.name: f for f in fields(schema)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown key '{prefix}{key}'{suggest(str(key), known)}")
        sub = known[key].default_factory
        if is_dataclass(sub):
            if not isinstance(value, Mapping):
                keys = ", ".join(f"{key}.{f.name}" for f in fields(sub))
                raise ConfigError(f"'{prefix}{key}' is a group of keys, not a value; have {keys}")
            _refuse_unknown(value, sub, f"{prefix}{key}.")
