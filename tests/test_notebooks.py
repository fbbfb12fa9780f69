"""The notebooks of the site: short, in plain words, and every cell of them runs.

``SERZOO_NOTEBOOKS=1`` keeps what the cells print, for the site (``make notebooks``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from serzoo.zoo.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
NAMES = [path.stem for path in FILES]


def test_every_task_of_a_new_user_has_a_notebook() -> None:
    assert NAMES == [
        "add_a_head", "compare_heads", "four_recordings", "hour_of_calls", "plain_lightning",
        "share_model", "weak_labels", "your_data",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_notebook_is_one_short_page(path: Path, hooks: ModuleType) -> None:
    found = hooks.cells(path)
    kinds = [kind for kind, _ in found]
    assert kinds[0] == "markdown"
    assert found[0][1].startswith("# ")
    assert 2 <= kinds.count("code") <= 6
    assert len(path.read_text("utf-8").splitlines()) <= 80
    for kind, text in found:
        assert text.strip()
        shell = [line.startswith("!") for line in text.splitlines()] if kind == "code" else [False]
        assert all(shell) or not any(shell)  # a cell is of the shell, or of Python
        for verb in re.findall(r"^!serzoo (\w+)", text, re.MULTILINE):
            assert verb in VERBS


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_its_links_lead_somewhere(path: Path, hooks: ModuleType) -> None:
    text = "\n".join(text for kind, text in hooks.cells(path) if kind == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_outputs_are_those_of_the_code(path: Path, hooks: ModuleType) -> None:
    kept = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert kept["code"] == hooks.digest(path), "run `make notebooks`"
    assert len(kept["outputs"]) == sum(kind == "code" for kind, _ in hooks.cells(path))
    assert str(ROOT) not in str(kept)
    assert "/tmp" not in str(kept)
    page = hooks.notebook_page(path)
    assert page.count("```python") + page.count("```sh") == len(kept["outputs"])


def test_a_notebook_for_jupyter_has_the_same_cells(hooks: ModuleType) -> None:
    path = FILES[0]
    made = hooks.notebook(path)
    cells = [(cell["cell_type"], cell["source"]) for cell in made["cells"]]
    assert cells == hooks.cells(path)
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in made["cells"]}) == len(cells)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all notebooks, so that voices are generated and encoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_cell_runs(path: Path, hooks: ModuleType, cache: Path, tmp_path: Path) -> None:
    code = [text for kind, text in hooks.cells(path) if kind == "code"]
    source, target = tmp_path / "cells.json", tmp_path / "outputs.json"
    source.write_text(json.dumps(code), "utf-8")
    folder = tmp_path / "here"
    folder.mkdir()
    environment: dict[str, Any] = {**os.environ, "SERZOO_CACHE": str(cache), "COLUMNS": "110"}
    environment["PATH"] = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    environment.pop("SERZOO_DATA", None)  # the embedded corpus, as for a new user
    runner = Path(__file__).parent / "helpers" / "notebooks.py"
    done = subprocess.run(
        [sys.executable, str(runner), str(source), str(target)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(target.read_text("utf-8"))
    assert len(printed) == len(code)
    assert any(printed)
    if os.environ.get("SERZOO_NOTEBOOKS"):
        kept = {"code": hooks.digest(path), "outputs": printed}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        path.with_suffix(".json").write_text(text, "utf-8")
