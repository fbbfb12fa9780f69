"""README.md is short, its commands exist, its Python runs, and the files about the project fit."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from serzoo.zoo.cli import VERBS, app, main
from serzoo.zoo.core import own, registry
from serzoo.zoo.testing import check_head

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
LONGEST = 150
NEEDS_MORE = ("make ", ". .venv", "serzoo compare")
"""How lines begin that this file does not run: they install, or train for minutes. `make compare`
and `serzoo compare` run in ``tests/wheel.sh`` and ``test_journeys.py``."""


def blocks(language: str) -> list[str]:
    """Fenced blocks of README.md."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Words of each shell line, without settings of the environment before the command."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[w for i, w in enumerate(line) if i or "=" not in w] for line in words]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= LONGEST


def test_every_command_exists() -> None:
    found = commands()
    assert len(found) == 9
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for program, *rest in found:
        if program == "make":
            assert rest[0] in targets
        elif program == "serzoo" and rest != ["--version"]:
            assert rest[0] in VERBS
            app.parse_args(rest, exit_on_error=False)
        else:
            assert [program, *rest] in (["serzoo", "--version"], [".", ".venv/bin/activate"])


@pytest.mark.parametrize("verb", ["--version", "list"])
def test_short_commands_run(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [rest for program, *rest in commands() if program == "serzoo" and rest[0] == verb]
    assert lines
    for line in lines:
        assert main(line) == 0
    assert capsys.readouterr().out


def test_the_head_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks("python")[2]
    assert len([line for line in code.splitlines() if line]) <= 20
    for kind in registry._ADDED:
        monkeypatch.setitem(registry._ADDED, kind, {})
    monkeypatch.chdir(tmp_path)
    Path("my_head.py").write_text(code)
    check_head(registry.get("heads", own.adopt("heads", "./my_head.py:MyHead")))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_python_and_its_other_commands_run(
    tmp_path: Path, write_wave: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_wave(tmp_path / "calls" / "one.wav", seconds=1.0)
    alone, lightning, _ = blocks("python")
    made: dict[str, Any] = {}
    exec(compile(alone, "README.md", "exec"), made)
    assert made["record"].ok
    assert len(made["rows"]) == 1
    made = {}
    exec(compile(lightning, "README.md", "exec"), made)
    assert sum(len(batch) for batch in made["scores"]) == len(made["data"].datasets["test"])
    scripts = sysconfig.get_path("scripts")
    for line in (x for block in blocks("sh") for x in block.splitlines()):
        if not line.startswith((*NEEDS_MORE, "SERZOO_DATA=")):
            environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
            subprocess.run(["bash", "-c", line], check=True, env=environment, timeout=600)


# Files about the project.


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{found["version"]}"' in text
    assert found["license"] == "Apache-2.0"


def test_the_forms_for_issues_have_what_the_hub_asks_for() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [f.stem for f in forms] == ["bug", "config", "part", "result"]
    for path in (f for f in forms if f.stem != "config"):
        form = yaml.safe_load(path.read_text("utf-8"))
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) >= 2
        for part in form["body"]:
            assert part["type"] in ("input", "textarea", "dropdown")
            assert part["attributes"]["label"]


def test_the_same_articles_are_named_in_the_card_and_in_the_documentation() -> None:
    card = (ROOT / "zoo" / "run" / "card.md.j2").read_text("utf-8")
    page = (ROOT / "docs" / "concepts" / "intended-use.md").read_text("utf-8")
    for fact in (
        "(EU) 2024/1689",
        "5(1)(f)",
        "50(3)",
        "2 February 2025",
        "recital 44",
        "applies since",
    ):
        assert fact in card
        assert fact in page
