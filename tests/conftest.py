"""What tests share: the folder of real speech, and small wave files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data("ravdess")``: the folder that holds manifest.csv and audio/; skips without it."""

    def find(name: str) -> Path:
        beside = Path(__file__).resolve().parents[2] / "shared" / "data"
        base = Path(os.environ.get("SERZOO_DATA") or beside).expanduser()
        for folder in (base / name, base / f"{name}_mini"):
            if (folder / "manifest.csv").is_file():
                return folder
        pytest.skip(f"no {name} under {base}; set SERZOO_DATA to the folder of the real corpora")

    return find


@pytest.fixture(scope="session")
def write_wave() -> Callable[..., Path]:
    """``write_wave(path, samples=None, rate=16000, seconds=0.5, hz=200.0, subtype=None)``.

    Without samples, a sine at a tenth of full scale. The suffix gives the format; parent folders
    are made.
    """

    def write(
        path: Path,
        samples: np.ndarray | None = None,
        *,
        rate: int = 16_000,
        seconds: float = 0.5,
        hz: float = 200.0,
        subtype: str | None = None,
    ) -> Path:
        import soundfile

        if samples is None:
            samples = 0.1 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype)
        return path

    return write
