"""`serzoo cache`: list and remove the feature stores of the cache folder."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from ...datamodules.store import remove, stores
from ..core.errors import ConfigError, counted, suggest
from ..core.files import features_dir
from ..core.table import Cell, Line, Table, cell, wide_console


def cache_list() -> list[dict[str, Any]]:
    """List the feature stores; the one that was used last comes first.

    Returns:
        For each store: ``store`` (its name), ``encoder``, ``layers``, ``dtype``, ``rows``,
        ``hours`` of speech, ``bytes`` on the disk, ``used`` (seconds since 1970).
    """
    return stores(features_dir())


def cache_clear(store: str) -> tuple[int, int]:
    """Remove feature stores; corpora, manifests and runs stay.

    Args:
        store: a name, or a beginning that only one name has; ``all`` for all stores.

    Returns:
        Number of removed stores, and freed bytes.

    Raises:
        ConfigError: if there is no such store, or a process is writing it.
    """
    known = [s["store"] for s in cache_list()]
    chosen = known if store == "all" else [s for s in known if s == store]
    if not chosen and store:  # every name begins with an empty text
        chosen = [s for s in known if s.startswith(store)]
    if store != "all" and len(chosen) != 1:
        what = "names no feature store" if not chosen else "begins several names"
        raise ConfigError(
            f"'{store}' {what} under {features_dir()}{suggest(store, [*known, 'all'])}"
        )
    freed = 0
    for name in chosen:
        freed += remove(features_dir() / name)
    return len(chosen), freed


def show(found: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print the result of :func:`cache_list`."""
    console = console or wide_console()
    if not found:
        console.out(f"no feature stores under {features_dir()}", highlight=False)
        return
    columns = ("store", "encoder", "layers", "dtype", "rows", "hours", "size", "last used")
    rows: list[Line] = []
    for s in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(s["used"]))
        numbers = cell(s["rows"], "d"), cell(s["hours"], ".2f"), Cell(size(s["bytes"]), s["bytes"])
        rows.append([s["store"], s["encoder"], _layers(s["layers"]), s["dtype"], *numbers, used])
    console.print(Table("", columns, rows).rich(lines=False))
    total = size(sum(s["bytes"] for s in found))
    console.out(f"{counted(len(found), 'store')}, {total}, under {features_dir()}", highlight=False)


def size(number: float) -> str:
    """Return a number of bytes as a text: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _layers(layers: list[int] | None) -> str | None:
    """Return ``0-12`` for consecutive layers, else ``4`` or ``4,6,8``; None without layers."""
    if not layers:
        return None
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ",".join(map(str, layers))
