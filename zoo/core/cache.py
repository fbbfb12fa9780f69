"""Where serzoo keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$SERZOO_CACHE``, or ``serzoo`` under the user's cache folder."""
    base = os.environ.get("SERZOO_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "serzoo"


def features_dir() -> Path:
    """Where feature stores lie, each in a folder of its own."""
    return cache_dir() / "features"
