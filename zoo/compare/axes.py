"""The axes of a suite: the usual five, short names for some others, and any key of a run.

The usual five are ``recipe``, ``encoder``, ``head``, ``fold`` and ``seed``. Whatever else is an
axis divides a comparison into parts that are kept and tabulated apart: a record holds its own
values under ``axes``, and :func:`shown` puts them in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from types import GenericAlias
from typing import Any, Literal

from ..core import registry
from ..core.errors import ConfigError, suggest
from ..run import config
from ..run.config import annotation

AXES = ("recipe", "encoder", "head", "fold", "seed")
SHORT = {"tuning": "encoder.tuning", "share": "data.train_share"}
PLAIN = ("corpus", "protocol", "taxonomy", "pretraining")
SOURCE = "pretraining"  # no key of a run: the name of what it starts from
GROUPS = ("encoder", "head", "data", "optim")
Point = dict[str, Any]
TYPES: dict[str, Any] = {
    **dict.fromkeys(("recipe", "encoder", "head", SOURCE), str),
    "corpus": str | list[str],
    "fold": int | Literal["all"],
    "seed": int,
}
TOLD = (*PLAIN, "recipe", "encoder", *SHORT, "data.manifest", "data.label")
"""Settings that make a title wrong which speaks of what the suite's file has."""


def check(suite: str, names: Iterable[str]) -> None:
    """Refuse what is no axis.

    Raises:
        ConfigError: with what is.
    """
    for name in names:
        group, dot, _ = name.partition(".")
        if name in (*AXES, *SHORT, *PLAIN) or (dot and group in GROUPS):
            continue
        known = suggest(name, (*AXES, *SHORT, *PLAIN, *(f"{g}.KEY" for g in GROUPS)))
        raise ConfigError(f"suite '{suite}' has unknown axis '{name}'{known}")


def points(axes: Mapping[str, Any]) -> list[Point]:
    """Every combination of the values of the free axes; ``[{}]`` if there is none."""
    free = [name for name in axes if name not in AXES]
    return [dict(zip(free, values, strict=True)) for values in product(*(axes[n] for n in free))]


def overrides(point: Mapping[str, Any]) -> list[str]:
    """``key=value`` of a run's configuration, for a combination of values."""
    own = {name: value for name, value in point.items() if name != SOURCE}
    return [setting(SHORT.get(name, name), value) for name, value in own.items()]


def setting(key: str, value: Any) -> str:
    """``key=value``, which reads back as this value."""
    return f"{key}={'' if value is None else json.dumps(value, ensure_ascii=False)}"


def values(key: str, text: str) -> Any:
    """The values of an axis from what was typed: ``[a, b]``, ``a`` or ``all``.

    Raises:
        ConfigError: for what is no list.
    """
    kind: Any = TYPES.get(key) or annotation(SHORT.get(key, key))
    try:
        # what an encoder's or a head's key expects depends on which it is: read as YAML
        found = registry.typed(text, kind if kind is Any else GenericAlias(list, kind) | kind)
    except ConfigError as e:
        raise ConfigError(f"'{key}={text}': {e}") from e
    found = found if isinstance(found, list) or found == "all" else [found]
    return config.adopted(key, found) if key in config.OWN_KINDS else found


def refuse_out(typed: Sequence[str]) -> None:
    """Refuse a folder for runs where that of the comparison is theirs.

    Raises:
        ConfigError: saying how that one is set.
    """
    for key, text in config.words(typed):
        if key == "trainer.out":
            raise ConfigError(
                f"trainer.out={text} is of a single run; for a comparison say --out {text}"
            )


def retitled(title: str, typed: Sequence[str], told: Sequence[str] = TOLD) -> str:
    """A suite's title, with what was typed that it does not speak of: ``corpus=[emodb]``."""
    keys = [key for key, _ in config.words(typed)]
    changed = [item for item, key in zip(typed, keys, strict=True) if key in told]
    return f"{title}; here with {', '.join(changed)}" if changed else title


def shown(point: Mapping[str, Any] | None) -> str:
    """``tuning=lora, data.train_share=0.1``; empty if there is no free axis."""
    return ", ".join(f"{name}={_text(value)}" for name, value in (point or {}).items())


def in_name(point: Mapping[str, Any]) -> str:
    """The same for names of folders: ``-tuning_lora-train_share_0.1``."""
    said = (f"{name.rpartition('.')[2]}_{_text(value)}" for name, value in point.items())
    return "".join("-" + re.sub(r"[^a-zA-Z0-9.]+", "_", text).strip("_") for text in said)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
