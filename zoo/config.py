"""Run configurations: recipes, groups, overrides, and the fingerprint that names a run.

A recipe (``configs/recipe/<name>.yaml`` or a file of the user's) picks groups by name and tweaks
them. ``encoder=hf`` on the command line replaces a group and drops the recipe's tweaks for it;
``optim.lr=1e-3`` sets one key. Heads and encoders are named by registered name (``type:``), never
by dotted path, so a shared YAML cannot import code; their keys are checked against the
constructor. Values are read by a strict YAML loader (``0010`` stays a string) and merged by
OmegaConf into the dataclasses of :mod:`.schema`, which hold every key there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import registry, shipped
from .errors import ConfigError, suggest
from .schema import ALIASES, check_ranges, merge
from .schema import RunConfig as RunConfig  # from here, it is part of the public interface
from .shipped import names as names  # public, as above
from .shipped import read_yaml
from .taxonomy import Taxonomy

GROUPS = ("encoder", "head", "optim")
SUITS = {"lora": "lora", "last_k": "finetune", "full": "finetune"}
"""Which optimisation suits an encoder that is not frozen: its learning rates are others."""

PROTOCOL = "serzoo.datamodules.protocols:Protocol"
ATTRIBUTES = "serzoo.datamodules.info:ATTRIBUTES"


def read_suite(name: str) -> dict[str, Any]:
    """A shipped suite by name, or a YAML file, as it is written.

    Raises:
        ConfigError: with the known names.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return read_group("suite", name)
    if not path.is_file():
        raise ConfigError(f"no suite file {name}; shipped suites: {', '.join(names('suite'))}")
    return read_mapping(path.read_text("utf-8"), name)


def read_group(group: str, name: str) -> dict[str, Any]:
    """A shipped configuration as plain containers.

    A registered head or encoder of a third party needs no file: its defaults are its own.

    Raises:
        ConfigError: with the known names.
    """
    if name in names(group):
        return read_mapping(shipped.text(group, name), f"configs/{group}/{name}.yaml")
    kinds: dict[str, registry.Kind] = {"head": "heads", "encoder": "encoders"}
    known = set(names(group))
    if group in kinds:
        registered = registry.names(kinds[group])
        if name in registered:
            return {"type": name}
        known |= set(registered)
    raise ConfigError(f"no {group} config called '{name}'{suggest(name, known)}")


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """YAML that holds keys and values.

    Raises:
        ConfigError: naming ``where`` it stands, when it is no YAML or holds something else.
    """
    try:
        content = read_yaml(text)
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from e
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where} holds a {type(content).__name__}; expected lines of key: value")
    return content


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
        base = read_mapping(path.read_text("utf-8"), recipe)
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
        try:
            parsed.append((key.strip(), read_yaml(value)))
        except ConfigError as e:
            raise ConfigError(f"'{item}': {e}") from e
    return parsed


def settings(
    words: Sequence[str], known: Sequence[str], numbers: Sequence[str] = ()
) -> dict[str, Any]:
    """A verb's own settings, which are no run's: ``["root=here", "options.part=2"]`` to keywords.

    Args:
        words: as they were typed.
        known: what may be set, besides ``options.KEY``.
        numbers: which of them may be numbers; the others, names and folders that may look like
            one, stay as they were typed.

    Returns:
        The values, and under ``options`` those of ``options.KEY``.

    Raises:
        ConfigError: a key that is not known.
    """
    values = dict(parse(words))
    for key in values:
        if key not in known and not key.startswith("options."):
            raise ConfigError(f"unknown setting '{key}'{suggest(key, [*known, 'options.KEY'])}")
    options = {k[8:]: values.pop(k) for k in list(values) if k.startswith("options.")}
    written = {key.strip(): text for key, _, text in (s.partition("=") for s in words)}
    for key, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and key not in numbers:
            values[key] = written[key]
    return {**values, "options": options}


def compose(base: dict[str, Any], overrides: Sequence[tuple[str, Any]]) -> RunConfig:
    """Merge a recipe's content and parsed overrides into a checked :class:`RunConfig`."""
    groups = base.pop("groups", None) or {}
    if not isinstance(groups, dict):
        raise ConfigError(f"groups is '{groups}'; write groups: {{encoder: NAME, head: NAME}}")
    chosen: dict[str, str] = {str(group): str(name) for group, name in groups.items()}
    unknown = [g for g in chosen if g not in GROUPS]
    if unknown:
        raise ConfigError(f"recipe picks unknown group '{unknown[0]}'{suggest(unknown[0], GROUPS)}")
    for key, value in overrides:
        if key in GROUPS and isinstance(value, str):
            chosen[key] = value
            base.pop(key, None)  # the recipe's tweaks were for what it had picked
    asked = {key for key, value in overrides if key in GROUPS and isinstance(value, str)}
    if "encoder" in asked:  # the recipe's way to train was for its own encoder
        base.pop("optim", None)
        if "optim" not in asked:
            chosen.pop("optim", None)
    merged: dict[str, Any] = {}
    for group in ("encoder", "head"):
        if group not in chosen:
            raise ConfigError(f"no {group} chosen; add {group}=NAME{suggest('', names(group))}")
        merged[group] = read_group(group, chosen[group])
    kind = merged["head"].get("type")
    # an encoder's file names the optimisation that suits it, unless one was asked for
    default_optim = merged["encoder"].pop("optim", None)
    tuning = dict(overrides).get("encoder.tuning") or (base.get("encoder") or {}).get("tuning")
    wanted = chosen.get("optim") or SUITS.get(str(tuning), default_optim)
    merged["optim"] = read_group("optim", wanted) if wanted else {}
    for key, value in base.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    for key, value in overrides:
        if not (key in GROUPS and isinstance(value, str)):
            _set(merged, key, value)
    head = merged["head"]
    if isinstance(head, dict) and head.get("type") == kind:  # else it is another head by now
        merged.setdefault("head_name", chosen["head"])
    return resolve(merge(merged))


def resolve(cfg: RunConfig) -> RunConfig:
    """Fill a corpus' default protocol and taxonomy in and check every name and knob."""
    check_ranges(cfg)
    cfg.trainer.precision = ALIASES.get(cfg.trainer.precision, cfg.trainer.precision)
    if len(set(cfg.corpus)) < len(cfg.corpus):
        raise ConfigError(f"a corpus is named twice: {', '.join(cfg.corpus)}; name each once")
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
        # the corpus' classes are those of its emotions; an attribute's are what it holds
        if cfg.data.label not in registry.attribute(ATTRIBUTES):
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
    registry.attribute(PROTOCOL).load(cfg.protocol)
    if cfg.data.features not in ("auto", "live"):
        raise ConfigError(f"data.features is '{cfg.data.features}'; have auto, live")
    parts: tuple[tuple[registry.Kind, dict[str, Any]], ...] = (
        ("encoders", cfg.encoder),
        ("heads", cfg.head),
    )
    for kind, node in parts:
        if not isinstance(node.get("type"), str):
            known = ", ".join(registry.names(kind))
            raise ConfigError(f"the {registry.SINGULAR[kind]} has no type; have {known}")
        options = {k: v for k, v in node.items() if k != "type"}
        registry.check_options(kind, node["type"], options)
        # every knob is written out: a changed default must not pass for an old run, nor 0 for 0.0
        node.update(registry.complete(kind, node["type"], options))
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
            raise ConfigError(
                f"'{key}' asks for a key under '{part}', which is a plain value; set {part}=VALUE"
            )
    node[last] = value
