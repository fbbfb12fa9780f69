"""Suite files: the keys of all kinds of suites, and how overrides change a file.

Each kind of suite is a dataclass. Its fields are the keys of the file. Their annotations say what
is allowed, and :func:`.schema.read_as` checks that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar, get_args, get_origin

from pydantic import AfterValidator, Field

from ..core import registry, shipped
from ..core.errors import ConfigError, suggest
from ..report.answers import MARGIN, NAMES
from ..run import config
from ..run.schema import LISTED, annotation, give, one_of, read_as
from ..run.words import parse, words
from . import axes


def known_heads() -> set[str]:
    """Return the names of all heads: configurations and registered classes."""
    return {*shipped.names("head"), *registry.names("heads")}


def _head(name: str) -> str:
    if name not in (known := known_heads()):
        raise ValueError(f"'{name}' is unknown{suggest(name, known)}")
    return name


def _rows(names: list[str]) -> list[str]:
    for name in names:
        _head(name.partition(" after ")[0])
    return names


def _without_folder(words: list[str]) -> list[str]:
    axes.refuse_out(words)
    return words


Head: TypeAlias = Annotated[str, AfterValidator(_head)]
Words: TypeAlias = Annotated[
    list[str], LISTED, give("a list of key=value"), AfterValidator(_without_folder)
]


@dataclass(frozen=True, kw_only=True)
class SuiteFile(ABC):
    """The keys that all kinds of suites have.

    Attributes:
        name: name of the suite, and of its folder; a file does not set it.
        title: one line for people.
        baseline: the head that others are compared to.
        primary: heads whose comparisons to the baseline are corrected together; None = all heads
            that the suite runs.
        margin: largest difference that counts as equivalent.
        metric: what heads are compared by: ``uar``, ``wa`` or ``macro_f1``.
    """

    SPAN: ClassVar[str] = ""  # the group whose keys are typed without its name: ``seed=[1]``
    SPANNED: ClassVar[Sequence[str]] = ()  # keys of this group, besides those of the file
    IN_TITLE: ClassVar[Sequence[str]] = axes.IN_TITLE  # settings that a title mentions

    name: str = ""
    title: str
    baseline: str = "classification"
    primary: (
        Annotated[
            list[str],
            Field(min_length=1),
            LISTED,
            give("a list of heads"),
            AfterValidator(_rows),
        ]
        | None
    ) = None
    margin: Annotated[
        float,
        Field(strict=True, gt=0, lt=1),
        give(f"a difference between 0 and 1, such as {MARGIN}"),
    ] = MARGIN
    metric: Annotated[str, one_of(*NAMES)] = "uar"

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys that a file may have."""
        return [field.name for field in fields(cls) if field.name != "name"]

    @classmethod
    def types(cls) -> dict[str, Any]:
        """Return the types of keys ``a.b`` that depend on another part."""
        return {}

    @abstractmethod
    def adding(self, words: Sequence[str]) -> Self:
        """Return the suite with more ``key=value`` for its runs.

        Raises:
            ConfigError: if it has no runs.
        """


S = TypeVar("S", bound=SuiteFile)


def load(kind: type[S], name: str, overrides: Sequence[str] = ()) -> S:
    """Read a suite file, and apply overrides.

    An override replaces a key of the file (``title=TEXT``, ``search.trials=4``), or an axis
    (``seed=[1]``). Any other override is for the runs of the suite. A key without a value
    (``null``) has its default. Unless ``title`` is set, overrides are added to it
    (:func:`.axes.retitled`).

    Args:
        kind: the kind of suite.
        name: name of a shipped suite, or a YAML file.
        overrides: ``key=value``.

    Raises:
        ConfigError: if a key, a name or a value is wrong.
    """
    axes.refuse_out(overrides)
    raw = config.read_suite(name)
    of_runs: list[str] = []
    keys, types = kind.keys(), kind.types()
    spanned = raw.get(kind.SPAN) or {}
    if isinstance(spanned, dict) and kind.SPAN:
        raw[kind.SPAN] = spanned
    for item in overrides:
        ((key, text),) = words([item])
        group, dot, inner = key.partition(".")
        axis = inner if dot and group == kind.SPAN else key
        if isinstance(spanned, dict) and (axis != key or key in (*kind.SPANNED, *spanned)):
            spanned[axis] = axes.values(axis, text)
        elif key in keys or (dot and group in keys and _is_group(annotation(group, kind))):
            wanted = types.get(key) or _or_one(annotation(key, kind))
            ((_, value),) = parse([item], {key: wanted})
            config.put(raw, key, value)
        else:
            of_runs.append(item)
    raw = config.adopt_names({k: v for k, v in raw.items() if v is not None})
    title = raw.get("title") or name
    named = any(key == "title" for key, _ in words(overrides))
    raw["title"] = title if named else axes.retitled(title, overrides, kind.IN_TITLE)
    try:
        for key in raw:
            if key not in keys:
                raise ConfigError(f"unknown key '{key}'{suggest(key, keys)}")
        found = replace(read_as(kind, raw), name=Path(name).stem)
        return found.adding(of_runs) if of_runs else found
    except ConfigError as e:
        raise ConfigError(f"suite '{name}': {e}") from e


def _is_group(hint: Any) -> bool:
    """Whether a key has keys of its own."""
    kinds = (hint, *get_args(hint))
    return any(get_origin(k) is dict or hasattr(k, "__dataclass_fields__") for k in kinds)


def _or_one(hint: Any) -> Any:
    """Return a type that also takes a single value, if a list is meant."""
    single = [get_args(kind)[0] for kind in (hint, *get_args(hint)) if get_origin(kind) is list]
    return hint | single[0] if single else hint


def lists(values: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping to lists, or ``all``; a single value becomes a list of one."""
    return {k: v if isinstance(v, list) or v == "all" else [v] for k, v in values.items()}
