"""The axes of a suite: the usual five, and free ones.

The usual five are ``recipe``, ``encoder``, ``head``, ``fold`` and ``seed``. A free axis is a key of
a run's configuration, or a short name for one. Each of its values gets its own tables. A record
holds these values under ``axes``, and :func:`shown` writes them as text.
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
from ..run.schema import annotation
from ..run.words import OWN_KINDS, adopted, words

AXES = ("recipe", "encoder", "head", "fold", "seed")
SHORT = {"tuning": "encoder.tuning", "share": "data.train_share"}
PLAIN = ("corpus", "protocol", "taxonomy", "utterance", "pretraining")
SOURCE = "pretraining"  # the name of a pre-training; the only free axis that is not a key of a run
GROUPS = ("encoder", "head", "data", "optim")
Point = dict[str, Any]
TYPES: dict[str, Any] = {
    **dict.fromkeys(("recipe", "encoder", "head", SOURCE), str),
    "corpus": str | list[str],
    "fold": int | Literal["all"],
    "seed": int,
}
IN_TITLE = (*PLAIN, "recipe", "encoder", *SHORT, "data.manifest", "data.label")
"""Settings that a suite's title mentions; an override of one makes the title wrong."""


def check(names: Iterable[str]) -> None:
    """Check that a suite may have axes of these names.

    Raises:
        ConfigError: if a name is not an axis; the message lists the axes.
    """
    for name in names:
        group, dot, _ = name.partition(".")
        if name in (*AXES, *SHORT, *PLAIN) or (dot and group in GROUPS):
            continue
        known = suggest(name, (*AXES, *SHORT, *PLAIN, *(f"{g}.KEY" for g in GROUPS)))
        raise ConfigError(f"unknown axis '{name}'{known}")


def points(axes: Mapping[str, Any]) -> list[Point]:
    """Return every combination of the free axes' values; ``[{}]`` without free axes."""
    free = [name for name in axes if name not in AXES]
    return [dict(zip(free, values, strict=True)) for values in product(*(axes[n] for n in free))]


def overrides(point: Mapping[str, Any]) -> list[str]:
    """Return ``key=value`` overrides of a run, for a combination of the free axes' values."""
    keys = {name: value for name, value in point.items() if name != SOURCE}
    return [setting(SHORT.get(name, name), value) for name, value in keys.items()]


def setting(key: str, value: Any) -> str:
    """Return ``key=value`` as text, which is read back as this value."""
    return f"{key}={'' if value is None else json.dumps(value, ensure_ascii=False)}"


def values(key: str, text: str) -> Any:
    """Read the values of an axis from the command line: ``[a, b]``, ``a`` or ``all``.

    Args:
        key: name of the axis.
        text: what was typed.

    Returns:
        A list of values, or ``all``. A part in a file of the user's own has its registered name.

    Raises:
        ConfigError: if the text cannot be read as values of this axis.
    """
    kind: Any = TYPES.get(key) or annotation(SHORT.get(key, key))
    try:
        # what an encoder's or a head's key expects depends on which it is: read as YAML
        found = registry.typed(text, kind if kind is Any else GenericAlias(list, kind) | kind)
    except ConfigError as e:
        raise ConfigError(f"'{key}={text}': {e}") from e
    found = found if isinstance(found, list) or found == "all" else [found]
    return adopted(key, found) if key in OWN_KINDS else found


def refuse_out(typed: Sequence[str]) -> None:
    """Check that no override sets the output folder: a comparison sets it for its cells.

    Raises:
        ConfigError: if one does; says how to set the folder of a comparison.
    """
    for key, text in words(typed):
        if key == "trainer.out":
            raise ConfigError(
                f"trainer.out={text} sets the folder of a single run; for a comparison say "
                f"--out {text}"
            )


def retitled(title: str, typed: Sequence[str], in_title: Sequence[str] = IN_TITLE) -> str:
    """Return a suite's title, followed by the overrides that it does not mention.

    Args:
        title: title of the suite's file.
        typed: ``key=value`` overrides, such as ``corpus=[emodb]``.
        in_title: keys that the title may mention.
    """
    keys = [key for key, _ in words(typed)]
    changed = [item for item, key in zip(typed, keys, strict=True) if key in in_title]
    return f"{title}; here with {', '.join(changed)}" if changed else title


def shown(point: Mapping[str, Any] | None) -> str:
    """Return ``tuning=lora, data.train_share=0.1``; empty without free axes."""
    return ", ".join(f"{name}={_text(value)}" for name, value in (point or {}).items())


def in_name(point: Mapping[str, Any]) -> str:
    """Return the same for folder names: ``-tuning_lora-train_share_0.1``."""
    parts = (f"{name.rpartition('.')[2]}_{_text(value)}" for name, value in point.items())
    return "".join("-" + re.sub(r"[^a-zA-Z0-9.]+", "_", text).strip("_") for text in parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
