"""Names to classes: the built-in table, entry points for third parties, constructor schemas.

Built-ins are dotted strings, so that listing them imports nothing. A third-party wheel registers a
head with an entry point in the group ``serzoo.heads`` (encoders: ``serzoo.encoders``; corpora:
``serzoo.corpora``); a name that is already taken is an error, not a warning.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, suggest

Kind = Literal["heads", "encoders", "corpora"]
SINGULAR = {"heads": "head", "encoders": "encoder", "corpora": "corpus"}

BUILT_IN: dict[str, dict[str, str]] = {
    "heads": {
        "classification": "serzoo.heads.classification:ClassificationHead",
        "selm": "serzoo.heads.selm:SELMHead",
        "gen_ser": "serzoo.heads.gen_ser:GenSERHead",
        "regress_codes": "serzoo.heads.controls:RegressCodesHead",
        "prototype": "serzoo.heads.controls:PrototypeHead",
    },
    "encoders": {
        "logmel": "serzoo.zoo.encoders.logmel:LogMelEncoder",
        "resnet50": "serzoo.zoo.encoders.resnet:ResNetEncoder",
        "hf": "serzoo.zoo.encoders.backbone:HFEncoder",
        "trained": "serzoo.zoo.encoders.trained:TrainedEncoder",
    },
    "corpora": {
        name: f"serzoo.datamodules.corpora.{name}:prepare"
        for name in (
            *("ravdess", "emodb", "nemo", "crema_d", "iemocap", "savee", "tess", "emovo", "meld"),
            *("folder", "csv", "synthetic", "synthetic_talk"),
        )
    },
}


class Recorded:
    """A part of a model that remembers how it was made, so that a checkpoint can tell.

    Attributes:
        made_with: positional arguments and keywords of its constructor.
    """

    made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        made = super().__new__(cls)
        # not as a part of it: torch would register modules that stand among the arguments
        object.__setattr__(made, "made_with", (arguments, keywords))
        return made


@cache
def _table(kind: Kind) -> dict[str, str]:
    table = dict(BUILT_IN[kind])
    for point in entry_points(group=f"serzoo.{kind}"):
        if point.name in table:
            raise ConfigError(
                f"{point.value} wants to register '{point.name}' under {kind}, which is already "
                f"{table[point.name]}; rename its entry point or uninstall it"
            )
        table[point.name] = point.value
    return table


def names(kind: Kind) -> list[str]:
    """Registered names, built-in first; imports none of them."""
    return list(_table(kind))


def get(kind: Kind, name: str) -> Any:
    """The class or function behind a registered name.

    Raises:
        ConfigError: with the known names, when there is none of this name; or when what a third
            party registered cannot be imported.
    """
    table = _table(kind)
    if name not in table:
        raise ConfigError(f"no {SINGULAR[kind]} called '{name}'{suggest(name, table)}")
    if name in BUILT_IN[kind]:
        return attribute(table[name])
    try:
        return attribute(table[name])
    except (ImportError, AttributeError) as e:
        raise ConfigError(
            f"{SINGULAR[kind]} '{name}' is registered as {table[name]}, which cannot be imported "
            f"({e}); reinstall or remove the package that registers it"
        ) from e


def name_of(kind: Kind, part: Any) -> str | None:
    """The registered name of a head's or encoder's class; None where it has none."""
    own = type(part)
    for name, dotted in _table(kind).items():
        if dotted == f"{own.__module__}:{own.__qualname__}":
            return name
    others = [name for name in _table(kind) if name not in BUILT_IN[kind]]
    for name in others:  # registered under another module than the one that defines it
        try:
            if get(kind, name) is own:
                return name
        except ConfigError:  # of a package that is broken, and not this one
            continue
    return None


def attribute(dotted: str) -> Any:
    """What ``package.module:name`` stands for; how ``zoo`` reaches ``datamodules`` at run time."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Knob:
    """One keyword that a configuration may set."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def schema_of(target: Any) -> dict[str, Knob]:
    """The keyword-only parameters of a constructor or function: all that YAML may set."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function)
    return {
        p.name: Knob(p.name, hints.get(p.name, Any), p.default)
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_options(kind: Kind, name: str, options: dict[str, Any]) -> None:
    """Bind options to the constructor behind ``name`` without building it.

    Raises:
        ConfigError: listing every unknown key, missing key and value of a wrong type at once.
    """
    check_knobs(f"{SINGULAR[kind]} '{name}'", schema_of(get(kind, name)), options)


def check_knobs(what: str, schema: Mapping[str, Knob], options: Mapping[str, Any]) -> None:
    """Compare options with what may be set.

    Args:
        what: they are of, for messages.
        schema: name to knob, as :func:`schema_of` gives.
        options: name to value.

    Raises:
        ConfigError: listing every unknown key, missing key and value of a wrong type at once.
    """
    errors = [f"unknown key '{k}'{suggest(k, schema)}" for k in options if k not in schema]
    errors += [
        f"missing key '{k}'" for k, knob in schema.items() if knob.required and k not in options
    ]
    errors += [
        f"{k}={v!r} does not fit {_show(schema[k].annotation)}"
        for k, v in options.items()
        if k in schema and not _fits(v, schema[k].annotation)
    ]
    if errors:
        raise ConfigError(f"{what}: " + "; ".join(errors))


def complete(kind: Kind, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the constructor's defaults filled in, as plain containers in its own order."""
    values = {}
    for key, knob in schema_of(get(kind, name)).items():
        value = options.get(key, knob.default)
        if isinstance(value, int) and not isinstance(value, bool) and knob.annotation is float:
            value = float(value)
        values[key] = list(value) if isinstance(value, tuple) else value
    return values


def _show(annotation: Any) -> str:
    return (
        annotation.__name__
        if inspect.isclass(annotation)
        else str(annotation).replace("typing.", "")
    )


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a YAML value can stand for an annotated parameter (shallow, but into containers)."""
    if annotation is Any:
        return True
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return value in args
    if origin is tuple and args[-1:] != (...,):
        if not isinstance(value, (list, tuple)) or len(value) != len(args):
            return False
        return all(_fits(v, a) for v, a in zip(value, args, strict=True))
    if origin in (list, tuple, Sequence):
        if not isinstance(value, (list, tuple)):
            return False
        return all(_fits(v, args[0]) for v in value)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            return False
        return all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if origin in (Union, UnionType):
        return any(_fits(value, a) for a in args)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is type(None):
        return value is None
    return isinstance(value, annotation) if inspect.isclass(annotation) else True
