"""Run configurations: recipes, groups, overrides, and the fingerprint that names a run.

A recipe (``configs/recipe/<name>.yaml`` or a file of the user's) picks groups by name and tweaks
them. ``encoder=hf`` on the command line replaces a group and drops the recipe's tweaks for it;
``optim.lr=1e-3`` sets one key. Heads and encoders are named by registered name (``type:``), never
by dotted path, so a shared YAML cannot import code; their keys are checked against the
constructor. Values of files are read by a strict YAML loader (``0010`` stays a string), those of
the command line as their keys expect (:func:`.registry.typed`), and all are merged by OmegaConf
into the dataclasses of :mod:`.schema`, which hold every key there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import registry, shipped
from ..core.errors import ConfigError, suggest
from ..core.files import read_text
from ..core.shipped import (
    names,  # public, as above
    read_yaml,
)
from ..core.taxonomy import Taxonomy
from .schema import (
    ALIASES,
    RunConfig,  # from here, it is part of the public interface
    annotation,
    check_ranges,
    merge,
)

GROUPS = ("encoder", "head", "optim")
SUITS = {"lora": "lora", "last_k": "finetune", "full": "finetune"}
"""Which optimisation suits an encoder that is not frozen: its learning rates are others."""

PATHS = ("root", "out", "record", "noise", "rir", "support", "supports", "human")
"""Last parts of keys that name a file or folder, which may be called ``null``."""


class Typed(str):
    """A value as it was typed; it is read when it is known what its key expects."""


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
    return read_mapping(read_text(path, ConfigError), name)


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
        base = read_mapping(read_text(path, ConfigError), recipe)
    else:
        base = read_group("recipe", recipe)
    return compose({**base, "recipe": recipe}, words(overrides))


def words(overrides: Sequence[str]) -> list[tuple[str, Typed]]:
    """``["a.b=1"]`` to ``[("a.b", "1")]``, each value as it was typed.

    Raises:
        ConfigError: for what is no ``key=value``.
    """
    found = []
    for item in overrides:
        key, eq, value = item.partition("=")
        if not eq or not key.strip():
            raise ConfigError(
                f"'{item}' is no override; write key=value, for example optim.lr=1e-3"
            )
        found.append((key.strip(), Typed(value)))
    return found


def parse(
    overrides: Sequence[str], types: Mapping[str, Any] | None = None
) -> list[tuple[str, Any]]:
    """``["a.b=1"]`` to ``[("a.b", 1)]``, each value read as its key's type says.

    Args:
        overrides: as they were typed.
        types: key to annotation; any other value is read as YAML.
    """
    return [(key, _read(key, text, (types or {}).get(key, Any))) for key, text in words(overrides)]


def _read(key: str, text: str, kind: Any) -> Any:
    of_reader = ".options." in f".{key}"
    reset = not of_reader and key.rpartition(".")[2] not in PATHS
    try:
        return registry.typed(text, kind, reset=reset)
    except ConfigError as e:
        raise ConfigError(f"'{key}={text}': {e}") from e


def option_types(corpora: Sequence[str]) -> dict[str, Any]:
    """``options.KEY`` to annotation, of all keywords of these corpora's readers."""
    return {
        f"options.{name}": knob.annotation
        for corpus in reversed(corpora)
        if corpus in registry.names("corpora")  # another name is refused elsewhere
        for name, knob in registry.schema_of(registry.get("corpora", corpus)).items()
    }


def settings(
    typed: Sequence[str], types: Mapping[str, Any], corpora: Sequence[str] = ()
) -> dict[str, Any]:
    """A verb's own settings, which are no run's: ``["root=here", "options.part=2"]`` to keywords.

    Args:
        typed: as they were typed.
        types: what may be set, besides ``options.KEY``, to its annotation.
        corpora: whose readers the options are of.

    Returns:
        The values, and under ``options`` those of ``options.KEY``.

    Raises:
        ConfigError: a key that is not known.
    """
    values = dict(parse(typed, {**types, **option_types(corpora)}))
    for key in values:
        if key not in types and not key.startswith("options."):
            raise ConfigError(f"unknown setting '{key}'{suggest(key, [*types, 'options.KEY'])}")
    options = {k[8:]: values.pop(k) for k in list(values) if k.startswith("options.")}
    return {**values, "options": options}


def corpora_of(typed: Sequence[str], key: str) -> list[str]:
    """Names of the corpora that a verb's setting gives, whose readers its options are of."""
    return _corpora(dict(words(typed)).get(key))


def compose(base: dict[str, Any], overrides: Sequence[tuple[str, Any]]) -> RunConfig:
    """Merge a recipe's content and overrides into a checked :class:`RunConfig`.

    Args:
        base: of the recipe.
        overrides: key to value; one that is :class:`Typed` is read as its key expects.
    """
    overrides = [
        (k, _read(k, v, str | dict[str, Any]) if k in GROUPS and isinstance(v, Typed) else v)
        for k, v in overrides
    ]
    groups = base.pop("groups", None) or {}
    if not isinstance(groups, dict):
        raise ConfigError(f"groups is '{groups}'; write groups: {{encoder: NAME, head: NAME}}")
    chosen: dict[str, str] = {str(group): str(name) for group, name in groups.items()}
    for group in GROUPS:
        if not isinstance(base.get(group) or {}, dict):
            raise ConfigError(
                f"{group} is '{base[group]}'; a recipe picks it with groups: {{{group}: NAME}}, "
                f"and {group}: {{KEY: VALUE}} sets its keys"
            )
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
    if isinstance(tuning, Typed):
        tuning = _read("encoder.tuning", tuning, str)
    suits = chosen.get("optim") or SUITS.get(str(tuning), default_optim)
    merged["optim"] = read_group("optim", suits) if suits else {}
    for key, value in base.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    types = _types(merged, overrides)
    for key, value in overrides:
        if not (key in GROUPS and isinstance(value, str)):
            wanted = types.get(key) or annotation(key)
            _set(merged, key, _read(key, value, wanted) if isinstance(value, Typed) else value)
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
        from ...datamodules.info import ATTRIBUTES

        if cfg.data.label not in ATTRIBUTES:
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
    from ...datamodules.protocols import Protocol

    Protocol.load(cfg.protocol)
    types = option_types(cfg.corpus) if cfg.data.options else {}
    cfg.data.options = {
        k: registry.fitted(v, types.get(f"options.{k}", Any)) for k, v in cfg.data.options.items()
    }
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


def _types(merged: Mapping[str, Any], overrides: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Types of the keys that the chosen encoder, head and readers decide."""
    last = dict(overrides)
    found: dict[str, Any] = {"corpus": str | list[str]}
    if any(key.startswith("data.options.") for key in last):
        given = last.get("corpus", merged.get("corpus"))
        found |= {f"data.{k}": v for k, v in option_types(_corpora(given)).items()}
    kinds: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads"}
    for group, kind in kinds.items():
        node = merged.get(group)
        name = last.get(f"{group}.type", node.get("type") if isinstance(node, dict) else None)
        name = _read(f"{group}.type", name, str) if isinstance(name, Typed) else name
        if name in registry.names(kind) and any(key.startswith(f"{group}.") for key in last):
            schema = registry.schema_of(registry.get(kind, str(name)))
            found |= {f"{group}.{k}": knob.annotation for k, knob in schema.items()}
            found[f"{group}.type"] = str
    return found


def _corpora(given: Any) -> list[str]:
    """Names of corpora, however they are given."""
    if isinstance(given, Typed):
        given = _read("corpus", given, str | list[str])
    return [given] if isinstance(given, str) else [str(c) for c in given or ()]


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
