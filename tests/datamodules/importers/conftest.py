from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import DataWarning


@pytest.fixture
def read() -> Callable[..., tuple[list[Utterance], list[str]]]:
    """``read(prepare, root, **options)``: the utterances, and what is told."""

    def call(
        prepare: Callable[..., Iterator[Utterance]], root: Path, **options: Any
    ) -> tuple[list[Utterance], list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = list(prepare(root, **options))
        assert len({u.id for u in found}) == len(found)
        assert all(u.corpus == prepare.__module__.rpartition(".")[2] for u in found)
        return found, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]

    return call


@pytest.fixture
def sound() -> Callable[..., bytes]:
    """``sound(hz, format)``: the bytes of half a second of audio."""

    def make(hz: float = 200.0, format: str = "WAV") -> bytes:
        import soundfile

        file = io.BytesIO()
        wave = 0.1 * np.sin(2 * np.pi * hz * np.arange(8000) / 16_000)
        soundfile.write(file, wave, 16_000, format=format)
        return file.getvalue()

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """``write("data/text", "...")``: a file below ``tmp_path``."""

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return put
