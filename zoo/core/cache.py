"""The folder for everything that serzoo can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return ``$SERZOO_CACHE``, or ``serzoo`` in the user's cache folder."""
    base = os.environ.get("SERZOO_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "serzoo"


def features_dir() -> Path:
    """Return the folder of the feature stores; each store has its own folder in it."""
    return cache_dir() / "features"
