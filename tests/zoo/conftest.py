from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load_tiny_models() -> ModuleType:
    """The module tests/tiny_models.py: with ``importmode=importlib`` tests/ is not a package."""
    name = "serzoo_tiny_models"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "tiny_models.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def tiny_models() -> ModuleType:
    """Builders of tiny models: ``tiny_models.tiny_hf(folder, family, norm)``."""
    return load_tiny_models()


@pytest.fixture(scope="session")
def _tiny_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tiny_models")


@pytest.fixture
def tiny_hf(tiny_models, _tiny_cache, tmp_path):
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
