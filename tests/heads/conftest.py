"""Tiny published language models for the tests of SELM."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def tiny_lm(tmp_path: Path) -> Callable[[str], str]:
    """``tiny_lm("gpt2")`` or ``tiny_lm("llama")``: the folders of test_language.py."""
    path = Path(__file__).with_name("test_language.py")  # tests/ is not a package
    spec = importlib.util.spec_from_file_location("serzoo_test_language", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def save(kind: str) -> str:
        return str(getattr(module, f"save_{kind}")(tmp_path / kind))

    return save
