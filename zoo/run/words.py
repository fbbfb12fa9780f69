"""Settings as they are typed: ``key=value``, each value read as its key expects.

The verbs of the command line, suites and recipes read them here (:func:`.registry.typed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ..core import own, registry
from ..core.errors import ConfigError, suggest
from ..core.listing import type_text

PATHS = ("root", "out", "record", "noise", "rir", "support", "supports", "human")
"""Last words of keys whose value is a path: there, ``null`` is the name of a file."""


class Typed(str):
    """A value as it was typed. It is read when the type of its key is known."""


OWN_KINDS: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads", "corpus": "corpora"}
"""Keys that name a part, and its kind. The part may be the user's own."""


def adopted(key: str, value: Any, beside: Path | None = None) -> Any:
    """Register the user's own parts in a value, and return it with their registered names.

    Args:
        key: ``head``, ``encoder`` or ``corpus``.
        value: a name, ``FILE.py:NAME``, or a list of these; anything else is returned as it is.
        beside: folder of the YAML file that holds the value.

    Raises:
        ConfigError: see :func:`.own.adopt`.
    """
    if isinstance(value, list):
        return [adopted(key, v, beside) for v in value]
    return own.adopt(OWN_KINDS[key], value, beside=beside) if own.is_own(value) else value


def words(overrides: Sequence[str]) -> list[tuple[str, Typed]]:
    """Split ``["a.b=1"]`` into ``[("a.b", "1")]``, each value as it was typed.

    Raises:
        ConfigError: if a word is not ``key=value``.
    """
    found = []
    for item in overrides:
        key, eq, value = item.partition("=")
        if not eq or not key.strip():
            raise ConfigError(
                f"'{item}' is not an override; write key=value, for example optim.lr=1e-3"
            )
        found.append((key.strip(), Typed(value)))
    return found


def parse(
    overrides: Sequence[str], types: Mapping[str, Any] | None = None
) -> list[tuple[str, Any]]:
    """Read ``["a.b=1"]`` as ``[("a.b", 1)]``, each value as its key's type says.

    Args:
        overrides: words as they were typed.
        types: key to annotation; the value of any other key is read as YAML.

    Raises:
        ConfigError: if a word is not ``key=value``, or its value cannot be read.
    """
    known = types or {}
    return [(key, read_value(key, text, known.get(key, Any))) for key, text in words(overrides)]


def read_value(key: str, text: str, kind: Any) -> Any:
    """Read the value of a key as its type says.

    ``null`` means None if the key allows it. In a path, and in a keyword of a reader, it is a text.

    Raises:
        ConfigError: if the value cannot be read. It names the key.
    """
    of_reader = ".options." in f".{key}"
    reset = not of_reader and key.rpartition(".")[2] not in PATHS
    try:
        return registry.typed(text, kind, reset=reset)
    except ConfigError as e:
        raise ConfigError(f"'{key}={text}': {e}") from e


def option_types(corpora: Sequence[str]) -> dict[str, Any]:
    """Return ``options.KEY`` to annotation, for the keywords of these corpora's readers."""
    return {
        f"options.{name}": knob.annotation
        for corpus in reversed(corpora)
        if corpus in registry.names("corpora")  # another name is refused elsewhere
        for name, knob in registry.schema_of(registry.get("corpora", corpus)).items()
    }


def types_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keywords of a function that its verb takes as settings, each with its type.

    These are the keyword-only parameters, except those that the verb itself passes.
    """
    given = ("options", "progress", "facts", "against", "answering")
    knobs = registry.schema_of(function).values()
    return {knob.name: knob.annotation for knob in knobs if knob.name not in given}


def read_settings(
    typed: Sequence[str], types: Mapping[str, Any], corpora: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a verb's own settings, such as ``["root=here", "options.part=2"]``, as keywords.

    Args:
        typed: words as they were typed.
        types: allowed keys, besides ``options.KEY``, each with its annotation.
        corpora: their readers decide the types of ``options.KEY``.

    Returns:
        Key to value. The values of ``options.KEY`` are a mapping under ``options``.

    Raises:
        ConfigError: if a key is unknown or is given twice, or if its value is missing or has a
            wrong type.
    """
    pairs = parse(typed, {**types, **option_types(corpora)})
    values = dict(pairs)
    for key in values:
        if len(given := [str(v) for k, v in pairs if k == key]) > 1:
            raise ConfigError(f"{key} is given twice ({', '.join(given)}); give it once")
    for key, value in values.items():
        if key not in types and not key.startswith("options."):
            raise ConfigError(f"unknown setting '{key}'{suggest(key, [*types, 'options.KEY'])}")
        if value is None and key in types and type(None) not in get_args(types[key]):
            raise ConfigError(f"'{key}=' is empty; give a value, or leave it out")
        if key in types and not registry.fits(value, types[key]):
            kind = type_text(types[key])
            allowed = f"have {kind.replace('|', ', ')}" if "|" in kind else f"expected: {kind}"
            raise ConfigError(f"{key} is {value!r}; {allowed}")
    options = {k[8:]: values.pop(k) for k in list(values) if k.startswith("options.")}
    return {**values, "options": options}


def corpora_of(typed: Sequence[str], key: str) -> list[str]:
    """Return the corpora that the setting ``key`` names among the words of a verb."""
    return corpora_named(dict(words(typed)).get(key))


def corpora_named(given: Any) -> list[str]:
    """Return the names of corpora, which may be given as a name, a list, or as typed.

    Parts of the user's own are registered.
    """
    if isinstance(given, Typed):
        given = read_value("corpus", given, str | list[str])
    given = adopted("corpus", given)
    return [given] if isinstance(given, str) else [str(c) for c in given or ()]
