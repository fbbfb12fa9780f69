"""A head in a file of the user's own is trained, compared and loaded; no model imports it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from facts import says
from serzoo.zoo import build_run, load
from serzoo.zoo.cli import main
from serzoo.zoo.compare import conditions, few_shot
from serzoo.zoo.compare import suite as spanned
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core import own, registry
from serzoo.zoo.core.errors import CheckpointError, ConfigError, DataWarning
from serzoo.zoo.run import config
from serzoo.zoo.run.model import Model
from serzoo.zoo.run.train import train

HEAD = """
from serzoo.heads.classification import ClassificationHead


class MyHead(ClassificationHead):
    def __init__(self, dim: int, taxonomy, *, hidden: int = 4) -> None:
        super().__init__(dim, taxonomy, hidden=hidden)
"""


pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "my_head.py"
    path.write_text(HEAD)
    return path


@pytest.fixture(scope="module")
def run(tiny_recipe: str, file: Path) -> Path:
    """The folder of a run whose head lies in ``file``."""
    cfg = config.load(tiny_recipe, [f"head={file}:MyHead", "head.hidden=5", "optim.epochs=1"])
    entry = train(cfg)
    assert entry.config["own"]["head"].startswith("my_head.py:MyHead@")
    assert str(file.parent) not in json.dumps(entry.config["own"])
    folder = Path(cfg.trainer.out) / "tiny" / f"my_head-{cfg.fingerprint}"
    assert folder.is_dir()
    return folder


def test_a_model_imports_nothing_until_its_class_is_given(run: Path, file: Path) -> None:
    registry._ADDED["heads"].clear()
    before = set(sys.modules)
    with pytest.raises(CheckpointError, match=says("my_head.py:MyHead", "head=MyHead", "--part")):
        load(run)
    assert not [name for name in set(sys.modules) - before if "serzoo_own" in name]
    cls = own._run(file, "given").MyHead
    assert load(run, head=cls).module.head.made_with[1]["hidden"] == 5
    own.adopt("heads", f"{file}:MyHead")
    assert isinstance(load(run), Model)


def test_a_class_with_other_options_is_told(run: Path) -> None:
    registry._ADDED["heads"].clear()
    with pytest.raises(ConfigError, match=says("PrototypeHead", "'hidden'")):
        load(run, head=registry.get("heads", "prototype"))


def test_another_version_of_the_file_is_told(run: Path, file: Path, tmp_path: Path) -> None:
    registry._ADDED["heads"].clear()
    other = tmp_path / "my_head.py"
    other.write_text(HEAD + "# edited\n")
    own.adopt("heads", f"{other}:MyHead")
    with pytest.warns(DataWarning, match=says("my_head.py", "another version")):
        load(run)


def test_a_saved_folder_needs_the_class_too(run: Path, file: Path, tmp_path: Path) -> None:
    own.adopt("heads", f"{file}:MyHead")
    saved = load(run).save(tmp_path / "saved", licence="mit")
    assert 'load("FOLDER_OR_HUB_ID", head=MyHead)' in (saved / "README.md").read_text()
    registry._ADDED["heads"].clear()
    with pytest.raises(CheckpointError, match=says("my_head.py:MyHead", "head=MyHead")):
        load(saved)
    cls = own._run(file, "given").MyHead
    assert load(saved, head=cls).taxonomy == load(run, head=cls).taxonomy


def test_a_part_is_given_on_the_command_line(
    run: Path, file: Path, tiny_speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry._ADDED["heads"].clear()
    wave = str(next(tiny_speech.glob("*.wav")))
    assert main(["predict", str(run), wave]) == 2
    assert "--part" in capsys.readouterr().err
    assert main(["predict", str(run), wave, "--part", f"{file}:MyHead"]) == 0


def test_build_run_takes_classes(tiny_recipe: str, file: Path) -> None:
    cls = own._run(file, "given").MyHead
    module, _ = build_run(tiny_recipe, ["head.hidden=7"], head=cls)
    assert type(module.head) is cls
    assert module.head.made_with[1]["hidden"] == 7
    assert module.metadata["config"]["own"]["head"].startswith("my_head.py:MyHead@")


def test_workers_of_a_comparison_find_the_file(
    tiny_recipe: str, file: Path, tmp_path: Path
) -> None:
    suite = file.parent / "two.yaml"
    suite.write_text(
        f"axes: {{recipe: [{tiny_recipe}], head: [./my_head.py:MyHead], fold: [0], seed: [1]}}\n"
        "baseline: ./my_head.py:MyHead\noverrides: [optim.epochs=1]"
    )
    done = compare(str(suite), out=str(tmp_path), workers=1)
    assert done["failed"] == 0
    (record,) = (tmp_path / "two" / "cells").glob("*/record.json")
    assert record.parent.name.startswith("tiny-logmel-my_head-f0-s1-")
    assert json.loads(record.read_text())["config"]["head"]["type"] == "my_head"


PLACES = {
    "axes": "axes: {head: [./my_head.py:MyHead]}",
    "baseline": "baseline: ./my_head.py:MyHead",
    "match_params": "match_params: ./my_head.py:MyHead",
    "overrides": "overrides: [head=./my_head.py:MyHead]",
    "list_of_override": "overrides: ['head=[./my_head.py:MyHead]']",
    "few_shot": "head: [./my_head.py:MyHead]",
    "scratch": "options: {scratch_head: ./my_head.py:MyHead}",
    "source": "source: {overrides: [head.type=./my_head.py:MyHead]}",
    "arm": "pretraining: {weak: {recipe: x, overrides: [head=./my_head.py:MyHead]}}",
    "search": "search: {heads: {./my_head.py:MyHead: {head.hidden: [4, 8]}}}",
    "only": "only: {head: ./my_head.py:MyHead}",
}


@pytest.mark.parametrize("text", PLACES.values(), ids=PLACES)
def test_a_suite_names_the_file_wherever_it_names_a_head(text: str, file: Path) -> None:
    suite = file.parent / "place.yaml"
    suite.write_text(text)
    found = json.dumps(config.read_suite(str(suite)))
    assert "my_head.py" not in found
    assert "my_head" in found


def test_a_suite_names_encoders_and_readers_in_files(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from serzoo.zoo.encoders.logmel import LogMelEncoder\n\n\n"
        "class Ear(LogMelEncoder):\n    pass\n\n\n"
        "INFO = {'licence': 'mit', 'labels': '*'}\n\n\ndef prepare(root):\n    return []\n"
    )
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "source: {encoder: ./mine.py:Ear}\ntarget: {data: [csv, ./mine.py:prepare]}\n"
        "label: {corpus: ./mine.py:prepare, taxonomy: ./mine.py:Ear}\n"
    )
    assert config.read_suite(str(suite)) == {
        "source": {"encoder": "ear"},
        "target": {"data": ["csv", "mine"]},
        "label": {"corpus": "mine", "taxonomy": "./mine.py:Ear"},
    }


def test_a_command_names_the_file_wherever_a_suite_names_a_head(file: Path) -> None:
    own_head = f"{file}:MyHead"
    adapted = few_shot.load(
        "few_shot",
        [f"head=[{own_head}]", f"baseline={own_head}", f"options.scratch_head={own_head}"],
    )
    assert (adapted.head, adapted.baseline) == (["my_head"], "my_head")
    assert adapted.options.scratch_head == "my_head"
    tested = conditions.load("robustness", [f"head=[{own_head}]", f"baseline={own_head}"])
    assert (tested.only["head"], tested.baseline) == (["my_head"], "my_head")
    space = "{trials: 2, space: {optim.lr: [1, 2]}, heads: {HEAD: {head.hidden: [4, 8]}}}"
    searched = spanned.load("smoke", [f"search={space.replace('HEAD', own_head)}"])
    assert searched.search is not None
    assert searched.search.heads == {"my_head": {"head.hidden": [4, 8]}}


def test_a_head_in_a_file_is_adapted_by_a_suite(
    tiny_recipe: str, tiny_speech: Path, file: Path, tmp_path: Path
) -> None:
    suite = file.parent / "shots.yaml"
    suite.write_text(
        f"source: {{recipe: {tiny_recipe}, overrides: [optim.epochs=1]}}\n"
        f"target: {{data: csv, root: {tiny_speech}, protocol: kfold-5}}\n"
        "head: [./my_head.py:MyHead]\nbaseline: ./my_head.py:MyHead\nshots: [1]\ndraw: [1]\n"
        "tuning: [scratch]\n"
        "options: {steps: 1, save: false, scratch_head: ./my_head.py:MyHead}\n"
    )
    done = compare(str(suite), out=str(tmp_path), workers=1)
    assert (done["done"], done["failed"]) == (1, 0)
    (record,) = (tmp_path / "shots" / "cells").glob("*/record.json")
    assert json.loads(record.read_text())["config"]["head"]["type"] == "my_head"
