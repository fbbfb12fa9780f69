"""Pages of the site that are not files of ``docs/``: those at the root, and those the code tells.

mkdocs calls the functions that begin with ``on_``. The pages of ``docs/`` link to each other and to
files of the repository, so that they can be read there. A link that leaves ``docs/`` leads to the
page of that file on the site, if it has one. Otherwise only its text is left.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import shutil
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from serzoo import zoo
from serzoo.zoo.cli import app
from serzoo.zoo.core import listing
from serzoo.zoo.run import config as run_config

ROOT = Path(__file__).resolve().parents[1]

COPIED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "docs/README.md": "contents.md",
}
"""Files of the repository, each with its page of the site."""

LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_startup(command: str, dirty: bool) -> None:
    """Copy the packages to ``build/api/serzoo``, where mkdocstrings finds them by their names."""
    packages = ROOT / "build" / "api" / "serzoo"
    shutil.rmtree(packages, ignore_errors=True)
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    for name in ("zoo", "heads", "datamodules"):  # no links: mkdocstrings follows none
        ignored = shutil.ignore_patterns("__pycache__", "*.md", "*.j2")
        shutil.copytree(ROOT / name, packages / name, ignore=ignored)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in ``docs/``, and the pictures."""
    if (own := files.get_file_from_path("README.md")) is not None:
        files.remove(own)  # the site's first page is the README of the repository
    for source, page in COPIED.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=_led(text, source, page)))
    for picture in sorted((ROOT / "benchmarks" / "screenshots").glob("*.png")):
        name = f"screenshots/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    made = {
        "verbs": verbs_page(),
        "keys": keys_page(),
        "parts": parts_page(),
        "python": python_page(),
    }
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for path in NOTEBOOKS:
        text = _led(
            notebook_page(path), f"docs/notebooks/{path.stem}.md", f"notebooks/{path.stem}.md"
        )
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        name = f"notebooks/{path.stem}.ipynb"
        files.append(File.generated(config, name, content=json.dumps(notebook(path), indent=1)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page of ``docs/`` to pages of the site."""
    here = page.file.src_uri
    if here in COPIED.values() or not (ROOT / "docs" / here).is_file():
        return markdown
    return _led(markdown, f"docs/{here}", here)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave only the name of a reference in a docstring, such as ``:func:`.table.cell```."""
    return re.sub(r":\w+:<code>~?([^<]+)</code>", _name, html)


def _name(found: re.Match[str]) -> str:
    return f"<code>{found[1].rpartition('.')[2]}</code>"


def _led(text: str, source: str, page: str) -> str:
    """Return a text whose relative links lead to pages of the site.

    Args:
        text: Markdown.
        source: the file of the repository that it is from.
        page: its page of the site.
    """

    def lead(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, hash_, anchor = target.partition("#")
        file = os.path.normpath(Path(source).parent / path)
        if file.startswith("benchmarks/screenshots/"):
            to = file.removeprefix("benchmarks/")
        elif file in COPIED:
            to = COPIED[file]
        elif file.startswith("docs/notebooks/") and file.endswith(".py"):
            to = f"{file.removeprefix('docs/').removesuffix('.py')}.md"
        elif file.startswith("docs/") and (ROOT / file).is_file():
            to = file.removeprefix("docs/")
        else:
            return words
        to = os.path.relpath(to, Path(page).parent)
        return f"{picture}[{words}]({to}{hash_}{anchor})"

    return LINK.sub(lead, text)


# Notebooks: files of Python in Jupytext's percent format, and what their cells printed.

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
MOST_LINES = 30
"""Most lines of a cell's output that a page shows (our choice)."""


def cells(path: Path) -> list[tuple[str, str]]:
    """Return the cells of a notebook: ``markdown`` or ``code``, and the text.

    A line of code that begins with ``# !`` is a command of the shell, as Jupytext writes it.
    """
    found: list[tuple[str, str]] = []
    parts = re.split(r"^# %%(.*)\n", path.read_text("utf-8"), flags=re.MULTILINE)
    for kind, text in zip(parts[1::2], parts[2::2], strict=True):
        text = text.strip("\n")
        if kind.strip() == "[markdown]":
            found.append(("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE)))
        else:
            found.append(("code", re.sub(r"^# !", "!", text, flags=re.MULTILINE)))
    return found


def digest(path: Path) -> str:
    """Return a digest of the code of a notebook, which says whether outputs are of this code."""
    code = "\n".join(text for kind, text in cells(path) if kind == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def outputs(path: Path) -> list[str]:
    """Return what each cell of code printed when the notebook was last run (`make notebooks`)."""
    found: list[str] = json.loads(path.with_suffix(".json").read_text("utf-8"))["outputs"]
    return found


def notebook_page(path: Path) -> str:
    """Return a notebook as a page, with the outputs of its cells."""
    printed = iter(outputs(path))
    parts = []
    for kind, text in cells(path):
        if kind == "markdown":
            parts.append(text)
            continue
        language = "sh" if text.startswith("!") else "python"
        parts.append(f"```{language}\n{text}\n```")
        lines = next(printed).rstrip("\n").splitlines()
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], f"... {len(lines) - MOST_LINES} more lines"]
        if lines:
            shown = "\n".join(lines)
            parts.append(f"```text\n{shown}\n```")
    link = f"[Download the notebook]({path.stem}.ipynb). `!` begins a command of the shell."
    return "\n\n".join([parts[0], link, *parts[1:]]) + "\n"


def notebook(path: Path) -> dict[str, Any]:
    """Return a notebook in Jupyter's format, without outputs."""
    made: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells(path)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = text
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


# Pages that the code tells.


def verbs_page() -> str:
    """Return the page of the verbs, from their signatures and docstrings."""
    text = app.generate_docs(output_format="markdown")
    # the page has a table of contents beside it
    text = re.sub(
        r"## Table of Contents\n.*?(?=^## serzoo )", "", text, flags=re.DOTALL | re.MULTILINE
    )
    return text.replace("# serzoo", "# Verbs and options", 1)


def keys_page() -> str:
    """Return the page of all keys of a run, from the dataclasses and their comments."""
    lines = [
        "# Every key",
        "",
        "Made from `zoo/run/config.py`. [Configuration keys](configuration.md) explains them.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{key}` | {_cell(kind)} | {f'`{default}`' if default else ''} | {_cell(meaning)} |"
        for key, kind, default, meaning in _keys(run_config.RunConfig)
    ]
    return "\n".join(lines) + "\n"


def _keys(kind: Any, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return key, type, default and comment of each field, with those of nested dataclasses."""
    comments, hints = comments_of(kind), get_type_hints(kind)
    found: list[tuple[str, str, str, str]] = []
    for f in fields(kind):
        if is_dataclass(hints[f.name]):
            found += _keys(hints[f.name], f"{prefix}{f.name}.")
            continue
        made = f.default_factory
        value = f.default if made is MISSING else made()
        default = "" if value in ("", {}, []) else listing.shown(value)
        told = comments.get(f.name, "")
        found.append((prefix + f.name, listing.type_text(hints[f.name]), default, told))
    return found


def comments_of(kind: type) -> dict[str, str]:
    """Return the comment of each field of a dataclass: behind it, or in the lines above it."""
    lines = inspect.getsource(kind).splitlines()
    (body,) = ast.parse("\n".join(lines)).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        last = lines[(node.end_lineno or node.lineno) - 1]
        behind = last[node.end_col_offset :].partition("#")[2].strip()
        above: list[str] = []
        at = node.lineno - 2
        while lines[at].strip().startswith("#"):
            above.insert(0, lines[at].strip().lstrip("# "))
            at -= 1
        found[node.target.id] = behind or " ".join(above)
    return found


def parts_page() -> str:
    """Return the page of everything that `serzoo list` lists, with the options of each part."""
    lines = ["# Heads, encoders, corpora and more", "", "The same as `serzoo list` shows.", ""]
    for kind in listing.KINDS:
        lines += [f"## {kind.capitalize()}", "", f"{listing.ABOUT[kind].capitalize()}.", ""]
        for table in listing.tables(kind):
            lines += [table.markdown()]
    lines += ["## Options", ""]
    for kind in ("heads", "encoders", "corpora"):
        for name in listing.names(kind):
            facts = listing.entry(kind, name).facts or {}
            if facts.get("type", name) != name or not (found := listing.options(kind, name)):
                continue  # a variant has the options of its class
            lines += [f"### {listing.GROUPS[kind]} `{name}`", ""]
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
            for o in found:
                value = "must be set" if o.required else f"`{listing.shown(o.default)}`"
                row = (f"`{o.name}`", o.type, value, o.meaning)
                lines.append(f"| {' | '.join(map(_cell, row))} |")
            lines.append("")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Escape a text for a cell of Markdown: pipes would end it, and ``<corpus>`` would be a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def python_page() -> str:
    """Return the page of the public names of Python."""
    lines = ["# Python", "", "All of these are imported from `serzoo.zoo`.", ""]
    for name in zoo.__all__:
        where = getattr(zoo, name).__module__
        lines += [f"::: {where}.{name}", ""]
    return "\n".join(lines)
