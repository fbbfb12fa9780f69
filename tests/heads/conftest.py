"""Tiny published language models for the tests of SELM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_lm as made


@pytest.fixture
def tiny_lm(tmp_path: Path) -> Callable[[str], str]:
    """``tiny_lm("gpt2")`` or ``tiny_lm("llama")``: a folder."""
    return lambda kind: str(getattr(made, f"save_{kind}")(tmp_path / kind))


@pytest.fixture
def gpt2(tiny_lm: Callable[[str], str]) -> str:
    """A folder with a tiny GPT-2."""
    return tiny_lm("gpt2")
