"""What tests share: the folder of real speech, and small wave files."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import browser
import numpy as np
import pytest
import tiny_models
from serzoo.zoo.core import registry


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


@pytest.fixture(scope="session", autouse=True)
def _no_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test does not put elsewhere goes to a cache of the session, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        if "SERZOO_CACHE" not in os.environ:
            patch.setenv("SERZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("SERZOO_LOCK", str(tmp_path_factory.mktemp("lock") / "serzoo.lock"))
        yield


@pytest.fixture(autouse=True)
def _no_locked_models() -> None:
    """Nothing that another test loaded is locked."""
    Path(os.environ["SERZOO_LOCK"]).unlink(missing_ok=True)


@pytest.fixture(scope="module", autouse=True)
def _own_parts_of_a_module() -> Iterator[None]:
    """What the tests and fixtures of a module register is gone after it."""
    before = {kind: dict(parts) for kind, parts in registry._ADDED.items()}
    yield
    registry._ADDED.update(before)


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


@pytest.fixture(scope="session")
def _tiny_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tiny_models")


@pytest.fixture
def tiny_hf(_tiny_cache, tmp_path):
    """Builds a tiny encoder under ``tmp_path``: ``name = tiny_hf("wavlm", "group")``.

    Each kind is made once per session; a test gets a copy, which it may spoil.
    """

    def build(family: str = "wav2vec2", norm: str = "group", **options) -> str:
        kind = "-".join([family, norm, *(f"{k}={v}" for k, v in sorted(options.items()))])
        made = _tiny_cache / kind
        if not made.exists():
            tiny_models.tiny_hf(made, family, norm, **options)
        copy = tmp_path / f"{len(list(tmp_path.iterdir()))}-{kind}"
        return str(shutil.copytree(made, copy))

    return build


@pytest.fixture(scope="session")
def hooks() -> ModuleType:
    """``docs/hooks.py``, which is no part of a package; skips without mkdocs."""
    pytest.importorskip("mkdocs")
    path = Path(__file__).resolve().parents[1] / "docs" / "hooks.py"
    spec = importlib.util.spec_from_file_location("site_hooks", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def chromium() -> Iterator[object]:
    """A window of headless Chromium ; skips where there is none."""
    found = browser.programs()
    if found is None:
        pytest.skip("no chromium and chromedriver; on Debian: apt-get install chromium-driver")
    with browser.Browser(*found) as window:
        yield window
