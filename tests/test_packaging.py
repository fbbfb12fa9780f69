"""What is installed, what imports what, and what is in the repository."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import says
from packaging.requirements import Requirement
from serzoo import zoo

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("zoo", "heads", "datamodules", "configs")
META: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS: dict[str, Any] = META["tool"]["setuptools"]
MALICIOUS = ("2.6.2", "2.6.3")


# The wheel's content.


def test_every_package_is_listed_and_every_listed_one_exists() -> None:
    folders = {p.parent.relative_to(ROOT) for part in PARTS for p in ROOT.glob(f"{part}/**/*.py")}
    packages = {"serzoo." + ".".join(f.parts) for f in folders}
    assert set(SETUPTOOLS["packages"]) == packages
    assert len(SETUPTOOLS["packages"]) == len(packages)
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_each_part_is_mapped_to_its_folder() -> None:
    assert SETUPTOOLS["package-dir"] == {f"serzoo.{part}": part for part in PARTS}


def test_everything_that_is_no_code_is_package_data() -> None:
    matched = {
        p.relative_to(ROOT)
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for p in (ROOT / package.removeprefix("serzoo.").replace(".", "/")).glob(pattern)
    }
    needed = {
        p.relative_to(ROOT)
        for part in PARTS
        for p in (ROOT / part).rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc", ".md")
    }
    assert matched == needed
    assert {p.suffix for p in needed} == {".yaml", ".typed", ".j2", ".safetensors"}
    assert {p.parent.name for p in needed if p.name == "py.typed"} == {*PARTS} - {"configs"}


def test_every_module_can_be_imported() -> None:
    files = [p.relative_to(ROOT) for part in PARTS for p in (ROOT / part).rglob("*.py")]
    assert len(files) >= 60
    for path in files:
        name = ".".join(["serzoo", *path.with_suffix("").parts]).removesuffix(".__init__")
        assert importlib.import_module(name).__name__ == name


# The public interface.


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(zoo, name)
    assert found.__name__ == name
    assert found.__module__.startswith("serzoo.zoo.")


def test_the_lazy_names_are_the_public_ones() -> None:
    assert len(zoo.__all__) == 15
    assert zoo.__all__ == sorted(zoo.__all__)
    with pytest.raises(AttributeError, match=says("'serzoo.zoo'", "'Tiger'")):
        zoo.Tiger  # noqa: B018


@pytest.mark.parametrize("part", ["zoo", "heads", "datamodules"])
def test_a_bare_name_is_refused(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {part}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: import serzoo.{part}, not {part}: put `serzoo.` before the path"
    )


# Who imports whom.


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, wherever in the file."""
    package = ["serzoo", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_the_reader_of_imports_sees_relative_ones(tmp_path: Path) -> None:
    heads = set(imports(ROOT / "heads" / "classification.py"))
    assert {"serzoo.zoo.core.types.Frames", "serzoo.heads.pooling", "torch.nn"} <= heads
    corpora = set(imports(ROOT / "datamodules" / "corpora" / "folder.py"))
    assert {"serzoo.zoo.core.errors", "serzoo.datamodules.manifest"} <= corpora


def test_configurations_hold_no_code() -> None:
    for path in (ROOT / "configs").rglob("*.py"):
        (doc,) = ast.parse(path.read_text("utf-8")).body
        assert isinstance(doc, ast.Expr), path


def test_inside_the_library_imports_are_relative() -> None:
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    assert all(a.name.split(".")[0] != "serzoo" for a in node.names), path
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    assert (node.module or "").split(".")[0] != "serzoo", path


# Dependencies.


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", x) for x in lines if x and x[0] != "#"]
    assert all(found)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def requirements() -> list[Requirement]:
    extras = META["project"]["optional-dependencies"].values()
    texts = [*META["project"]["dependencies"], *(t for extra in extras for t in extra)]
    return [r for r in map(Requirement, texts) if r.name != "serzoo"]


def test_the_pins_are_within_the_ranges() -> None:
    pinned = pins()
    for requirement in requirements():
        assert pinned[requirement.name.lower().replace("_", "-")] in requirement.specifier


def test_torch_is_pinned() -> None:
    assert pins()["torch"] == "2.13.0"


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
def test_the_malicious_releases_are_not_pinned(name: str) -> None:
    assert pins()[name] not in MALICIOUS


def test_the_malicious_releases_are_below_the_floor() -> None:
    (lightning,) = (r for r in requirements() if r.name == "lightning")
    assert not any(version in lightning.specifier for version in MALICIOUS)
    assert "2.6.6" in lightning.specifier


# The repository.


def test_nothing_big_and_no_speech_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    there = [p for p in paths if p.is_file()]
    assert len(there) > 100
    results = [p for p in there if (ROOT / "benchmarks" / "results") in p.parents]
    # the one exception: the weights of the encoder that serzoo ships
    (weights,) = (p for p in there if p.suffix == ".safetensors")
    assert weights == ROOT / "zoo" / "encoders" / "serzoo-small.safetensors"
    assert weights.stat().st_size < 10_000_000
    there.remove(weights)
    assert [p.name for p in there if p.stat().st_size > 500_000 and p not in results] == []
    # the largest suite has 2.8 million scores, which hardly shrink
    assert [p.name for p in results if p.stat().st_size > 8_000_000] == []
    arrays = [p for p in results if p.name in {"predictions.npz", "selection.npz"}]
    heard = {".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".sph", ".aiff", ".au"}
    stored = {".ckpt", ".pt", ".pth", ".safetensors", ".bin", ".pkl", ".npz", ".npy"}
    kinds = heard | stored
    assert [p.name for p in there if p.suffix.lower() in kinds and p not in arrays] == []
    assert len(arrays) == 33


def test_committed_arrays_hold_no_pickle() -> None:
    for path in sorted((ROOT / "benchmarks" / "results").rglob("*.npz")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    np.lib.format.read_magic(file)
                    _, _, dtype = np.lib.format.read_array_header_1_0(file)
                    assert not dtype.hasobject, (path, name)
