"""A head out of a wheel that is not ours: built, installed, listed, checked, configured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from facts import tells

SOURCE = Path(__file__).resolve().parents[1] / "outside_wheel"


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with what is installed in ``site``."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site,
    )


def serzoo(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from serzoo.zoo.cli import main; sys.exit(main(sys.argv[1:]))"
    return python(site, "-c", code, *arguments)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has built and installed the wheel."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("outside")
    source = shutil.copytree(SOURCE, folder / "source")  # a build leaves things in its source
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--no-index", "--no-compile"),
            *("--target", str(folder / "site"), str(source)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_it_is_listed_after_those_that_ship(site: Path) -> None:
    def listed(folder: Path) -> list[str]:
        done = serzoo(folder, "list", "--json")
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)["heads"]
        return found

    without = listed(site.parent)
    assert "classification" in without
    assert "outside_mean" not in without
    assert listed(site) == [*without, "outside_mean"]


def test_it_passes_the_contract_kit_and_its_knobs_are_checked(site: Path) -> None:
    code = (
        "from serzoo.zoo.core import registry\n"
        "from serzoo.zoo.run import config\n"
        "from serzoo.zoo.testing import check_head\n"
        "check_head(registry.get('heads', 'outside_mean'))\n"
        "cfg = config.load('synthetic', ['head=outside_mean', 'head.scale=2'])\n"
        "assert cfg.head == {'type': 'outside_mean', 'scale': 2}, cfg.head\n"
        "try:\n"
        "    config.load('synthetic', ['head=outside_mean', 'head.scael=2'])\n"
        "except config.ConfigError as e:\n"
        "    print(e)\n"
    )
    done = python(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "head 'outside_mean': unknown key 'scael'; have scale; did you mean 'scale'?"
    )


def test_a_name_of_ours_is_refused(site: Path, tmp_path: Path) -> None:
    other = shutil.copytree(site, tmp_path / "site")
    (points,) = other.glob("*.dist-info/entry_points.txt")
    points.write_text(points.read_text().replace("outside_mean =", "selm ="))
    done = serzoo(other, "list", "heads")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    known = "serzoo.heads.selm.head:SELMHead"
    assert tells(done.stderr, "serzoo list", "outside_head:OutsideHead", "'selm'", "heads", known)
