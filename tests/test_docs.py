"""What the documentation says about keys, verbs, files and names is so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from serzoo.datamodules.checking import check_reader
from serzoo.datamodules.corruption import KINDS
from serzoo.zoo.cli import VERBS, app, main
from serzoo.zoo.core import own, registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.tuning import option_types
from serzoo.zoo.testing import check_encoder, check_head

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MADE = {"runs", "build", "dist"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(p.startswith(".") or p in MADE for p in path.relative_to(ROOT).parts)
)
READMES = [
    *("zoo", "zoo/core", "zoo/statistics", "zoo/encoders", "zoo/run", "zoo/report"),
    *("zoo/doctor", "zoo/compare", "zoo/testing", "heads", "datamodules"),
    *("heads/selm", "heads/gen_ser", "datamodules/corpora", "datamodules/synthetic"),
    "datamodules/importers",
    *("datamodules/labelling", "configs", "tests"),
]
moved = pytest.mark.skipif(
    not (ROOT / "zoo" / "run" / "__init__.py").is_file(),
    reason="the pages name files of the floor plan, where zoo/run is not yet a package",
)


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


# Links.


def anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub and mkdocs have it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken(path: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of one."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):  # another site, or inline data
            continue
        file, _, part = target.partition("#")
        to = path if not file else (path.parent / file)
        if not to.exists():
            found.append(target)
        elif part:
            headings = re.findall(r"^#+ (.*)$", to.read_text("utf-8"), re.MULTILINE)
            found += [] if part in map(anchor, headings) else [target]
    return found


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# B\n\n## The `b.json`\n")
    a = tmp_path / "a.md"
    a.write_text("[x](b.md#the-bjson) [y](c.md) [z](b.md#no) ![w](d.png) [v](https://e.org)")
    assert broken(a) == ["c.md", "b.md#no", "d.png"]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_every_page_can_be_reached() -> None:
    seen, todo = set(), [DOCS / "README.md"]
    while todo:
        at = todo.pop()
        if at in seen or at.suffix != ".md":
            continue
        seen.add(at)
        links = re.findall(r"\]\(([^)\s#]+)", at.read_text("utf-8"))
        todo += [(at.parent / link).resolve() for link in links if ":" not in link]
    assert set(DOCS.rglob("*.md")) - seen == set()


# Configuration keys.


def rows() -> dict[str, tuple[str, str]]:
    """Key to default and range, from the tables of the reference."""
    found = re.findall(
        r"^\| `([\w.]+)` \| `([^|]*)` \| ([^|]*) \| [^|]+ \|$",
        page("reference/configuration.md"),
        re.MULTILINE,
    )
    assert len({key for key, _, _ in found}) == len(found)
    return {key: (default, limits) for key, default, limits in found}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys of a run to their values; what a head's or encoder's class decides is one value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def test_every_key_stands_in_the_reference_with_its_default() -> None:
    said = {key: json.loads(default) for key, (default, _) in rows().items()}
    assert said == flat(RunConfig().to_dict())


def tried(limits: str) -> tuple[list[str], list[str]]:
    """Values inside and outside of a range that is said in words."""
    if least := re.fullmatch(r"(\d+) or more", limits):
        return [least[1]], [str(int(least[1]) - 1)]
    if limits == "0 to 1":
        return ["0", "1"], ["-0.1", "1.1"]
    if limits == "above 0":
        return ["0.5"], ["0"]
    if limits == "above 0, at most 1":
        return ["0.5", "1"], ["0", "1.1"]
    if re.fullmatch(r"[\w:-]+(, [\w:-]+)+", limits):
        return limits.replace(":K", ":4").split(", "), ["anything"]
    return [], []


LIMITED = [key for key, (_, limits) in rows().items() if tried(limits)[0]]


def test_most_keys_have_a_range() -> None:
    free = set(rows()) - set(LIMITED)
    assert free == {
        *("recipe", "corpus", "protocol", "taxonomy", "seed", "init", "encoder", "utterance"),
        *(
            "head_name",
            "head",
            "own",
            "data.root",
            "data.manifest",
            "data.label",
            "data.options",
            "trainer.out",
        ),
    }


@pytest.mark.parametrize("key", LIMITED)
def test_the_range_of_a_key_is_as_the_reference_says(key: str) -> None:
    inside, outside = tried(rows()[key][1])
    for value in inside:  # a run that shares its weights out keeps no average of them
        config.load("synthetic", ["optim.ema=0", f"{key}={value}"])
    for value in outside:
        with pytest.raises(ConfigError, match=re.escape(key.rpartition(".")[2])):
            config.load("synthetic", ["optim.ema=0", f"{key}={value}"])


def test_every_taxonomy_is_told() -> None:
    text = page("concepts/taxonomies.md")
    assert [name for name in Taxonomy.names() if f"`{name}`" not in text] == []


# Verbs.


def test_every_verb_stands_in_the_reference_with_a_command() -> None:
    shown = re.findall(r"^\$ serzoo (\w+)", page("reference/cli.md"), re.MULTILINE)
    assert set(shown) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_stands_in_the_reference(verb: str) -> None:
    command, *_ = re.findall(rf"^`serzoo {verb} .*", page("reference/cli.md"), re.MULTILINE)
    options = [a.name for a in app[verb].assemble_argument_collection() if a.name[:2] == "--"]
    assert [name for name in options if name not in command] == []


def test_every_option_of_an_adaptation_stands_in_the_reference() -> None:
    text = page("reference/cli.md").split("## Adapt a model")[1].split("\n## ")[0]
    assert [name for name in option_types() if f"`{name}`" not in text] == []


def test_every_condition_stands_in_the_reference() -> None:
    told = re.findall(r"`(\w+)(?::\w+%?)?`", page("reference/suites.md"))
    assert set(KINDS) - set(told) == set()


# Folders, names, code.


@pytest.mark.parametrize("folder", READMES)
def test_a_folder_says_in_ten_lines_what_it_holds(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 10
    assert text.startswith(f"# {folder}\n")
    second = "How to run them" if folder == "tests" else "What it may import"
    said = re.findall(r"^\*\*([^*]+)\.\*\*", text, re.MULTILINE)
    assert said == ["What is here", second, "Where to start reading"]


@moved
@pytest.mark.parametrize("folder", READMES)
def test_the_files_that_a_folder_names_exist(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.(?:py|yaml))`", text)
    places = (ROOT / folder, ROOT)
    assert [n for n in named if not any((at / n).is_file() for at in places)] == []


@moved
def test_the_files_and_names_of_the_pages_exist() -> None:
    text = "\n".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    files = set(re.findall(r"`((?:zoo|heads|datamodules|tests)/[\w/]+\.(?:py|sh))`", text))
    assert files
    assert sorted(f for f in files if not (ROOT / f).is_file()) == []
    for name in set(re.findall(r"\b(serzoo\.(?:zoo|heads|datamodules)\.[\w.]*\w)\(?", text)):
        module, _, last = name.rpartition(".")
        try:
            import_module(name)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), last), name


def block(name: str, language: str, number: int = 0) -> str:
    """Code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)[number]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the how-to pages, in the working directory."""
    for kind in registry._ADDED:
        monkeypatch.setitem(registry._ADDED, kind, {})
    for part, name in (("head", "a-head"), ("encoder", "an-encoder"), ("corpus", "a-corpus")):
        (tmp_path / f"my_{part}.py").write_text(block(f"how-to/add-{name}.md", "python"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_head_of_the_how_to_page_keeps_the_contract(files: Path) -> None:
    name = own.adopt("heads", "./my_head.py:MyHead")
    check_head(registry.get("heads", name))
    check_head(registry.get("heads", name), width=8)
    (files / "mine.yaml").write_text(block("how-to/add-a-head.md", "yaml"))
    assert config.load("mine.yaml").head == {"type": "my_head", "width": 8, "dropout": 0.1}


def test_the_python_of_the_how_to_page_builds_a_run(files: Path) -> None:
    made = {"MyHead": registry.get("heads", own.adopt("heads", "my_head.py:MyHead"))}
    exec(compile(block("how-to/add-a-head.md", "python", 1), "add-a-head.md", "exec"), made)
    assert isinstance(made["module"].head, made["MyHead"])


def test_the_encoder_of_the_how_to_page_keeps_the_contract(files: Path) -> None:
    made = registry.get("encoders", own.adopt("encoders", "./my_encoder.py:MyEncoder"))
    check_encoder(lambda: made(dim=8))
    typed = ["encoder=./my_encoder.py:MyEncoder", "encoder.dim=32"]
    assert config.load("ravdess", typed).encoder == {"type": "my_encoder", "dim": 32}


def test_the_corpus_of_the_how_to_page_keeps_the_contract(
    files: Path, write_wave: Callable[..., Path]
) -> None:
    for number, name in enumerate(("anna_A_01", "ben_H_01", "ben_X_02")):
        write_wave(files / "audio" / f"{name}.wav", hz=200 + 50 * number)
    found = check_reader("./my_corpus.py:prepare", files / "audio")
    assert [(u.speaker, u.label) for u in found] == [("anna", "A"), ("ben", "H"), ("ben", "X")]
    assert main(["prepare", "./my_corpus.py:prepare", "root=audio", "out=mine.jsonl"]) == 0
    assert len((files / "mine.jsonl").read_text().splitlines()) == 3
    typed = ["corpus=./my_corpus.py:prepare", "protocol=kfold", "taxonomy=auto"]
    assert config.load("ravdess", typed).corpus == ["my_corpus"]
