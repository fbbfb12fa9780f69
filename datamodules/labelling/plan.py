"""What the rows of a stage depend on, and the refusal to mix those of two settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...zoo.errors import ConfigError
from ...zoo.text import read_json
from ..manifest import Utterance, write_lines

FORMAT = 1  # raise when the layout changes: older folders are then refused


def plan_of(
    utterances: Iterable[Utterance], chunk: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the rows of a stage depend on, as its ``settings.json`` keeps it.

    Args:
        utterances: of all shards.
        chunk: how many are computed together.
        settings: of the stage.
    """
    digest, count = hashlib.sha256(), 0
    for u in utterances:
        heard = [u.id, u.audio, u.start, u.end, u.sha, u.text, u.text_source]
        heard += [] if u.channel is None else [u.channel]
        digest.update(json.dumps(heard).encode() + b"\n")
        count += 1
    plan = {
        "format": FORMAT,
        "chunk": chunk,
        "utterances": {"count": count, "digest": digest.hexdigest()[:16]},
        "settings": settings,
    }
    return dict(json.loads(json.dumps(plan, allow_nan=False)))


def agree(path: Path, plan: dict[str, Any]) -> None:
    """Write a plan where there is none.

    Raises:
        ConfigError: there is another; with what differs.
    """
    if not path.is_file():
        write_lines(path, [json.dumps(plan, indent=1, ensure_ascii=False)])
        return
    remedy = "remove the folder, and its rows are computed anew"
    old, new = _flat(read_json(path, ConfigError, remedy=remedy)), _flat(plan)
    differ = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if differ:
        shown = "; ".join(
            f"{key}: {_short(old.get(key))} there, {_short(new.get(key))} now" for key in differ[:5]
        )
        raise ConfigError(
            f"{path.parent} holds rows made under other settings ({shown}"
            f"{f'; and {len(differ) - 5} more' if len(differ) > 5 else ''}); rows of both would "
            "mix: choose another out=, set them as they were, or remove the folder (and those of "
            "later stages) to compute it anew"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        pairs = [_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items()]
        return {k: v for pair in pairs for k, v in pair.items()}
    return {re.sub("^settings[.]", "", prefix): value}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
