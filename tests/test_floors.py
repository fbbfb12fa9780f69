"""The floor plan: every module stands on a floor, and no import hides in a string."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
LAYERS = next(c["layers"] for c in CONTRACTS["contracts"] if c["type"] == "layers")
FLOORS = [floor.split(" | ") for floor in LAYERS]
FILES = sorted(p for part in ("zoo", "heads", "datamodules") for p in (ROOT / part).rglob("*.py"))
HIDDEN = re.compile(r"\bserzoo\.[a-z_.]+:")


def module(path: Path) -> str:
    words = ["serzoo", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def below(name: str, floor: str) -> bool:
    return name == floor or name.startswith(f"{floor}.")


def test_the_contract_covers_every_module() -> None:
    floors = [part for floor in FLOORS for part in floor]
    for name in map(module, FILES):
        found = [part for part in floors if below(name, part)]
        assert len(found) == 1 or name == "serzoo.zoo", f"{name} stands on {found or 'no floor'}"


def test_every_floor_has_modules() -> None:
    names = [module(path) for path in FILES]
    for part in (part for floor in FLOORS for part in floor):
        assert any(below(name, part) for name in names), part


def test_no_circle_is_left_out() -> None:
    (circles,) = (c for c in CONTRACTS["contracts"] if c["type"] == "acyclic_siblings")
    assert set(circles["ancestors"]) == set(CONTRACTS["root_packages"])
    assert "ignore_imports" not in str(CONTRACTS)  # nothing is excused


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_hides_in_a_string(path: Path) -> None:
    if path == ROOT / "zoo" / "core" / "registry.py":
        return  # the one table of names
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [t for t in texts if HIDDEN.search(t)] == []
    assert not any(t.startswith("serzoo.") and "import_module" in path.read_text() for t in texts)
