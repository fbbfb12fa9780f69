"""`serzoo cache`: what is kept under the cache folder for reuse, and how to be rid of it."""

from __future__ import annotations

import time
from typing import Any

from ...datamodules.store import remove, stores
from ..core.cache import features_dir
from ..core.errors import ConfigError, suggest


def cache_list() -> list[dict[str, Any]]:
    """`serzoo cache list`: the feature stores, the one that was used last first.

    Returns:
        Of each: ``store`` (its name), ``encoder``, ``layers``, ``dtype``, ``rows``, ``hours`` of
        speech, ``bytes`` on the disk, ``used`` (seconds since 1970).
    """
    return stores(features_dir())


def cache_clear(store: str) -> tuple[int, int]:
    """`serzoo cache clear`: remove feature stores; never corpora, manifests or runs.

    Args:
        store: name of one, or its beginning where that is unique; ``all`` for all of them.

    Returns:
        Number of stores that were removed, and bytes that were freed.

    Raises:
        ConfigError: when there is no such store, or a process is writing it.
    """
    known = [s["store"] for s in cache_list()]
    chosen = known if store == "all" else [s for s in known if s == store]
    if not chosen and store:  # everything begins with nothing
        chosen = [s for s in known if s.startswith(store)]
    if store != "all" and len(chosen) != 1:
        what = "names no feature store" if not chosen else "is how several begin"
        raise ConfigError(
            f"'{store}' {what} under {features_dir()}{suggest(store, [*known, 'all'])}"
        )
    freed = 0
    for name in chosen:
        freed += remove(features_dir() / name)
    return len(chosen), freed


def table(found: list[dict[str, Any]]) -> str:
    """What :func:`cache_list` found, for reading."""
    if not found:
        return f"no feature stores under {features_dir()}"
    head = ("store", "encoder", "layers", "dtype", "rows", "hours", "size", "last used")
    lines = [head]
    for s in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(s["used"]))
        lines.append(
            (
                s["store"],
                s["encoder"],
                _layers(s["layers"]),
                s["dtype"],
                str(s["rows"]),
                f"{s['hours']:.2f}",
                size(s["bytes"]),
                used,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numbers = {4, 5, 6}
    text = [
        "  ".join(
            cell.rjust(w) if i in numbers else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    total = size(sum(s["bytes"] for s in found))
    return "\n".join([*text, f"{len(found)} stores, {total}, under {features_dir()}"])


def size(number: float) -> str:
    """Bytes for reading: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _layers(layers: list[int] | None) -> str:
    """``0-12`` for a run of layers, else ``4`` or ``4,6,8``; ``-`` where there are none."""
    if not layers:
        return "-"
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ",".join(map(str, layers))
