"""Run configurations: recipes, groups and overrides become a :class:`.schema.RunConfig`.

A recipe (``configs/recipe/<name>.yaml``, or the user's file) picks groups by name and sets some of
their keys. ``encoder=hf`` on the command line replaces a group and drops what the recipe set in it.
``optim.lr=1e-3`` sets one key.

Heads and encoders have a registered name (``type:``), and their constructors decide which keys they
have. The user's own code is named ``FILE.py:NAME`` (:mod:`..core.own`). Only a command or a YAML
file of the user may name it.

A strict YAML loader reads files: ``0010`` stays a text there. A value of the command line is read
as its key expects (:mod:`.words`). :mod:`.schema` holds every key, its default and its range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..core import own, registry, shipped
from ..core.errors import ConfigError, suggest
from ..core.files import read_text
from ..core.shipped import names, read_yaml
from ..core.taxonomy import Taxonomy
from .schema import ALIASES, RunConfig, annotation, check_ranges, merge
from .words import (
    OWN_KINDS,
    Typed,
    adopted,
    corpora_named,
    option_types,
    read_value,
    words,
)

GROUPS = ("encoder", "head", "optim")
OF_CORPUS = {
    "groups": {"encoder": "logmel", "head": "classification"},
    "optim": {"epochs": 32},
    "data": {"batch_size": 16},
}
"""The recipe of a corpus of the user's own; it is that of the small published corpora."""

SUITS = {"lora": "lora", "last_k": "finetune", "full": "finetune"}
"""For each value of ``encoder.tuning``, the optimisation whose learning rates suit it."""


def read_suite(name: str) -> dict[str, Any]:
    """Return the content of a shipped suite or of a YAML file.

    Args:
        name: name of a shipped suite, or the path of a YAML file. Its files of the user's own are
            imported and registered.

    Raises:
        ConfigError: if there is no such suite, or the file is damaged.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return read_group("suite", name)
    if not path.is_file():
        raise ConfigError(f"no suite file {name}; shipped suites: {', '.join(names('suite'))}")
    return adopt_names(read_mapping(read_text(path, ConfigError), name), path.parent)


_NAMES = {
    **{key: key for key in OWN_KINDS},
    **dict.fromkeys(("baseline", "match_params", "scratch_head"), "head"),
    "data": "corpus",  # the target of adaptations
}
"""Keys of recipes and suites that name a part, and which of :data:`OWN_KINDS` it is."""


def adopt_names(content: Mapping[str, Any], beside: Path | None = None) -> dict[str, Any]:
    """Register every part of the user's own that a YAML file or its overrides name.

    Keys that name a part are found at any depth, also in lists of ``key=value``.

    Args:
        content: content of a recipe or a suite.
        beside: folder of the YAML file; None = the names were typed.

    Returns:
        The content, in which each ``FILE.py:NAME`` is now a registered name.

    Raises:
        ConfigError: see :func:`.own.adopt`.
    """
    return {str(key): _adopt_value(str(key), value, beside) for key, value in content.items()}


FILES = ("protocol", "taxonomy")
"""Keys that name a shipped configuration or a YAML file of the user."""


def _adopt_value(key: str, value: Any, beside: Path | None) -> Any:
    part = _NAMES.get(key)
    if key in FILES:
        return (
            [_placed(v, beside) for v in value]
            if isinstance(value, list)
            else _placed(value, beside)
        )
    if isinstance(value, dict):
        if key == "heads":  # of a search: the heads are its keys
            value = {adopted("head", head, beside): node for head, node in value.items()}
        inner = {k: part if part and k == "type" else str(k) for k in value}
        return {k: _adopt_value(inner[k], v, beside) for k, v in value.items()}
    if key == "overrides" and isinstance(value, list):
        return [_adopt_word(item, beside) for item in value]
    return adopted(part, value, beside) if part else value


def _adopt_word(item: Any, beside: Path | None) -> Any:
    """``key=value`` of a list of overrides, with a registered name."""
    key, eq, text = item.partition("=") if isinstance(item, str) else ("", "", "")
    if key.strip() in FILES:
        return f"{key}={_placed(text.strip(), beside)}"
    found = _adopt_typed(key.strip(), Typed(text), beside)
    return item if found == text else f"{key}{eq}{found}"


def _placed(name: Any, beside: Path | None) -> Any:
    """Return the path of a YAML file, which is looked for beside the file that names it first."""
    if not (isinstance(name, str) and shipped.is_file(name)) or beside is None:
        return name
    near = beside / Path(name).expanduser()
    return str(near) if near.is_file() else name


def _adopt_base(base: Mapping[str, Any], beside: Path | None) -> dict[str, Any]:
    """Return a recipe's content with registered names for the user's own parts.

    A part that ``head: {type: FILE.py:NAME}`` names is also picked as the group.
    """
    found = adopt_names(base, beside)
    for key in ("head", "encoder"):
        node, groups = base.get(key), found.get("groups") or {}
        if isinstance(node, dict) and own.is_own(node.get("type")) and isinstance(groups, dict):
            found["groups"] = {**groups, key: found[key]["type"]}
    return found


def read_group(group: str, name: str) -> dict[str, Any]:
    """Return a shipped configuration as plain containers.

    A third party's head or encoder needs no file, since its constructor has the defaults. A corpus
    of the user's own (:mod:`serzoo.datamodules.corpora.own`) is also a recipe.

    Args:
        group: a folder of ``configs``, such as ``head``.
        name: name of a file in it, or of a registered head or encoder.

    Raises:
        ConfigError: if there is no such name. It lists the known ones.
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
    if group == "recipe":
        own_corpora = registry.own_corpora()
        if name in own_corpora:
            return {**OF_CORPUS, "corpus": name}
        known |= set(own_corpora)
    _, setting, value = name.partition("=")
    if setting:  # `serzoo train recipe=emodb`
        example = value if value in known else min(known)
        raise ConfigError(
            f"'{name}' stands where the name of a {group} belongs; give the name alone, such as "
            f"{example}, and key=value after it"
        )
    raise ConfigError(f"no {group} config called '{name}'{suggest(name, known)}")


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """Read YAML that holds keys and values.

    Args:
        text: the YAML; it may be empty.
        where: name of the file, for errors.

    Raises:
        ConfigError: if it is not YAML, or holds something else.
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
    """Compose a run's configuration.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, in any order. Names of groups are applied
            first.

    Returns:
        The resolved configuration. All keys of head and encoder were checked against their
        constructors.

    Raises:
        ConfigError: if a key, name or value is wrong. It says what would be right.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(
                f"no recipe file {recipe}; shipped recipes: {', '.join(names('recipe'))}"
            )
        base = _adopt_base(read_mapping(read_text(path, ConfigError), recipe), path.parent)
    else:
        base = read_group("recipe", recipe)
    return compose({**base, "recipe": recipe}, words(overrides))


def compose(base: dict[str, Any], overrides: Sequence[tuple[str, Any]]) -> RunConfig:
    """Merge a recipe's content and overrides into a checked :class:`RunConfig`.

    Args:
        base: content of the recipe.
        overrides: pairs of key and value; a :class:`Typed` value is read as its key expects.

    Raises:
        ConfigError: if a key, name or value is wrong.
    """
    overrides = [
        (k, read_value(k, v, str | dict[str, Any]) if k in GROUPS and isinstance(v, Typed) else v)
        for k, v in overrides
    ]
    overrides = [(k, _adopt_typed(k, v)) for k, v in overrides]
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
            base.pop(key, None)  # the recipe's keys were for the part that it had picked
    asked = {key for key, value in overrides if key in GROUPS and isinstance(value, str)}
    if "encoder" in asked:  # the recipe's optimisation was for the encoder that it had picked
        had = base.pop("optim", None) or {}
        if "metric" in had:  # it is about the data, not about the encoder
            base["optim"] = {"metric": had["metric"]}
        if "optim" not in asked:
            chosen.pop("optim", None)
    merged: dict[str, Any] = {}
    keys = [f.name for f in fields(RunConfig)]
    for group in ("encoder", "head"):
        if group not in chosen:
            # a misspelt groups: would pick nothing
            if wrong := [key for key in base if key not in keys]:
                raise ConfigError(f"unknown key '{wrong[0]}'{suggest(wrong[0], [*keys, 'groups'])}")
            raise ConfigError(f"no {group} chosen; add {group}=NAME{suggest('', names(group))}")
        merged[group] = read_group(group, chosen[group])
    kind = merged["head"].get("type")
    # an encoder's file names the optimisation that suits it; one that was asked for goes first
    default_optim = merged["encoder"].pop("optim", None)
    tuning = dict(overrides).get("encoder.tuning") or (base.get("encoder") or {}).get("tuning")
    if isinstance(tuning, Typed):
        tuning = read_value("encoder.tuning", tuning, str)
    encoder = str(merged["encoder"].get("type"))
    tunable = encoder in ("hf", "serzoo-small")
    if _one_vector(encoder) or (tunable and str(tuning or "frozen") == "frozen"):
        merged["head"] = _suited(merged["head"])
    suits = chosen.get("optim") or SUITS.get(str(tuning), default_optim)
    merged["optim"] = read_group("optim", suits) if suits else {}
    for key, value in base.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    types = _types(merged, overrides)
    for key, value in overrides:
        if not (key in GROUPS and isinstance(value, str)):
            wanted = types.get(key) or annotation(key)
            put(merged, key, read_value(key, value, wanted) if isinstance(value, Typed) else value)
    head = merged["head"]
    if isinstance(head, dict) and head.get("type") == kind:  # an override may have changed it
        merged.setdefault("head_name", chosen["head"])
    return resolve(merge(merged))


def _adopt_typed(key: str, value: Any, beside: Path | None = None) -> Any:
    """Return an override's value with registered names for the user's own parts."""
    part = key.removesuffix(".type")
    if part not in OWN_KINDS:
        return value
    if isinstance(value, Typed) and value.lstrip().startswith("["):
        listed = read_value(key, value, str | list[str])
        return adopted(part, listed, beside) if any(map(own.is_own, listed)) else value
    found = adopted(part, str(value) if isinstance(value, Typed) else value, beside)
    return Typed(found) if isinstance(value, Typed) else found


def resolve(cfg: RunConfig) -> RunConfig:
    """Fill in the corpus' protocol and taxonomy and all defaults, and check every name and key.

    Returns:
        The same object, changed.

    Raises:
        ConfigError: if a key, name or value is wrong.
    """
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
        from ...datamodules.info import ATTRIBUTES, CorpusInfo

        info = CorpusInfo.load(cfg.corpus[0])
        cfg.protocol = cfg.protocol or info.protocol
        # a corpus' taxonomy has emotions; the classes of an attribute are found in the data
        if cfg.data.label not in ATTRIBUTES:
            cfg.taxonomy = cfg.taxonomy or info.taxonomy
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

    rule = Protocol.load(cfg.protocol)
    types = option_types(cfg.corpus) if cfg.data.options else {}
    cfg.data.options = {
        k: registry.fitted(v, types.get(f"options.{k}", Any)) for k, v in cfg.data.options.items()
    }
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
        # all keys are written out: a new default changes the fingerprint, and 0 for 0.0 does not
        node.update(registry.complete(kind, node["type"], options))
    if cfg.utterance is not None:
        _check_utterance(cfg.utterance)
    named: list[tuple[str, registry.Kind, str]] = [
        ("encoder", "encoders", cfg.encoder["type"]),
        ("head", "heads", cfg.head["type"]),
        *((f"corpus {name}", "corpora", name) for name in cfg.corpus),
    ]
    files = {part: own.origin(kind, name) for part, kind, name in named}
    files |= {key: _yaml_origin(getattr(cfg, key)) for key in FILES}
    cfg.own = {part: text for part, text in files.items() if text}
    if rule.closed:
        _check_closed(cfg, rule.closed)
    return cfg


def _yaml_origin(name: str | None) -> str | None:
    """Return ``FILE.yaml@SHA`` of a YAML file of the user; None for a shipped configuration."""
    if name is None or not shipped.is_file(name):
        return None
    path = Path(name).expanduser()
    return f"{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _check_closed(cfg: RunConfig, rules: str) -> None:
    """Refuse other emotion data under the rules of a challenge.

    Raises:
        ConfigError: if the run has further corpora, or starts from weights that saw emotion data.
    """
    found = None
    if len(cfg.corpus) > 1:
        found = f"corpus=[{','.join(cfg.corpus)}]"
    elif cfg.init:
        found = f"init={cfg.init}, another run"
    elif cfg.encoder["type"] == "trained":
        found = f"encoder=trained ({cfg.encoder.get('name')}), another run"
    else:
        seen = shipped.read("published", "models")
        for name in (cfg.encoder.get("name"), cfg.encoder["type"]):
            if name is not None and seen.get(str(name), {}).get("emotion"):
                found = f"the encoder {name}, which was trained on emotional speech"
    if found:
        raise ConfigError(
            f"protocol {cfg.protocol} follows {rules}: no other emotion data may be used, but the "
            f"run has {found}; leave it out, or use protocol=official"
        )


def _check_utterance(name: str) -> None:
    """Refuse an encoder that gives more than one frame for an utterance.

    Raises:
        ConfigError: if there is no such encoder, or it gives several frames.
    """
    registry.get("encoders", name)
    if not _one_vector(name):
        allowed = ", ".join(filter(_one_vector, registry.names("encoders")))
        raise ConfigError(
            f"utterance={name} gives several frames for an utterance; set utterance to an encoder "
            f"of one vector ({allowed}), or leave it out"
        )


def _one_vector(encoder: str) -> bool:
    """Return whether a registered encoder gives one frame for an utterance, however long it is."""
    if encoder not in registry.names("encoders"):
        return False  # whoever reads the options says so
    return bool(registry.get("encoders", encoder).frame_seconds == 0)


def _suited(head: dict[str, Any]) -> dict[str, Any]:
    """Return a head's options with the pooling that suits an encoder that does not learn.

    The mean takes the place of attentive pooling if that is only the head's default. It is best on
    published encoders (docs/results/frozen-encoder.md), and enough for the one frame of
    functionals. A pooling that a file, a recipe or an override names stays.
    """
    if head.get("type") not in registry.names("heads"):
        return head
    knob = registry.schema_of(registry.get("heads", head["type"])).get("pooling")
    if (
        knob is None
        or knob.default != "attentive"
        or head.get("pooling") not in (None, "attentive")
    ):
        return head
    return {**head, "pooling": "mean"}


def _types(merged: Mapping[str, Any], overrides: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the types of the keys that the chosen encoder, head and readers decide."""
    last = dict(overrides)
    found: dict[str, Any] = {"corpus": str | list[str]}
    if any(key.startswith("data.options.") for key in last):
        given = last.get("corpus", merged.get("corpus"))
        found |= {f"data.{k}": v for k, v in option_types(corpora_named(given)).items()}
    kinds: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads"}
    for group, kind in kinds.items():
        node = merged.get(group)
        name = last.get(f"{group}.type", node.get("type") if isinstance(node, dict) else None)
        name = read_value(f"{group}.type", name, str) if isinstance(name, Typed) else name
        if name in registry.names(kind) and any(key.startswith(f"{group}.") for key in last):
            schema = registry.schema_of(registry.get(kind, str(name)))
            found |= {f"{group}.{k}": knob.annotation for k, knob in schema.items()}
            found[f"{group}.type"] = str
    return found


def build_taxonomy(cfg: RunConfig) -> Taxonomy | None:
    """Return the run's taxonomy; None for ``auto``, whose classes are found in the data."""
    return None if cfg.taxonomy in (None, "auto") else Taxonomy.load(str(cfg.taxonomy))


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a key ``a.b`` in nested mappings, which are made if they are missing.

    Raises:
        ConfigError: if something else than a mapping is on the way.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"'{key}' sets a key under '{part}', which is a plain value; set {part}=VALUE"
            )
    node[last] = value
