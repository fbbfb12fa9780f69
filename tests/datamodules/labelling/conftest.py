"""Tiny models of the labelling tests; tests/ is no package, so what is shared comes by fixture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny_text() -> ModuleType:
    """The module tiny_text.py."""
    path = Path(__file__).with_name("tiny_text.py")
    spec = importlib.util.spec_from_file_location("serzoo_tiny_text", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_asr() -> ModuleType:
    """The module tiny_asr.py."""
    path = Path(__file__).with_name("tiny_asr.py")
    spec = importlib.util.spec_from_file_location("serzoo_tiny_asr", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
