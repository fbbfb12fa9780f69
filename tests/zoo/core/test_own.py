"""Parts in files of the user's own: found, named, refused, and never imported for a model."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from facts import says, tells
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.labelling.scorers import scorer
from serzoo.zoo import register
from serzoo.zoo.compare import axes, suite
from serzoo.zoo.core import own, registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.run import config

HEAD = """
from serzoo.zoo import Frames, Head, HeadLoss, Targets, Taxonomy
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class MyHead(Head):
    def __init__(self, dim: int, taxonomy: Taxonomy, *, width: int = 16) -> None:
        super().__init__(dim, taxonomy)
        self.net = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, len(taxonomy)))

    def loss(self, frames, targets, text=None):
        per_item = cross_entropy(self.net(frames.mean()), targets.probs, reduction="none")
        return HeadLoss(targets.average(per_item), {})

    def scores(self, frames, taxonomy, text=None):
        return self.net(frames.mean()).float().log_softmax(-1)[:, self.columns(taxonomy)]
"""
ENCODER = """
from serzoo.zoo.encoders.logmel import LogMelEncoder


class MyEncoder(LogMelEncoder):
    def __init__(self, *, dim: int = 16) -> None:
        super().__init__(dim=dim, widths=(4, 8, 8, 8), bfloat16=False)
"""
CORPUS = """
from serzoo.datamodules.corpora import find_files, utterance

INFO = {"licence": "cc0", "labels": {"a": "angry", "h": "happy"}}


def prepare(root, *, speaker: str = "s1"):
    for path in find_files(root):
        yield utterance("my_corpus", path, root, speaker=speaker, label=path.stem[0])
"""
SCORER = """
import numpy as np
from serzoo.datamodules.labelling.scorers import Scorer


class Lengths(Scorer):
    scale = "minus the number of letters"

    def __init__(self, *, factor: float = 1.0) -> None:
        self.source, self.factor = "lengths", factor

    def score(self, premises, hypotheses):
        return np.array([[-self.factor * len(h.text) for h in hypotheses] for _ in premises])
"""


pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of each kind."""
    for name, text in (("head", HEAD), ("encoder", ENCODER), ("corpus", CORPUS)):
        (tmp_path / f"my_{name}.py").write_text(text)
    (tmp_path / "lengths.py").write_text(SCORER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Names.


def test_a_head_and_an_encoder_of_files_make_a_run(folder: Path) -> None:
    typed = ["head=./my_head.py:MyHead", "head.width=8", "encoder=my_encoder.py:MyEncoder"]
    cfg = config.load("synthetic", typed)
    assert cfg.head == {"type": "my_head", "width": 8}
    assert (cfg.called, cfg.encoder) == ("my_head", {"type": "my_encoder", "dim": 16})
    assert sorted(cfg.own) == ["encoder", "head"]
    assert cfg.own["head"].startswith("my_head.py:MyHead@")
    assert str(folder) not in str(cfg.to_dict())


def test_an_edited_file_is_another_run_and_another_folder_is_not(folder: Path) -> None:
    first = config.load("synthetic", ["head=my_head.py:MyHead"]).fingerprint
    assert config.load("synthetic", ["head=my_head.py:MyHead"]).fingerprint == first
    (folder / "my_head.py").write_text(HEAD.replace("nn.ReLU()", "nn.GELU()"))
    edited = config.load("synthetic", ["head=my_head.py:MyHead"])
    assert edited.fingerprint != first
    made = registry.get("heads", "my_head")(4, Taxonomy.of(["angry", "sad"]))
    assert [type(part).__name__ for part in made.net] == ["Linear", "GELU", "Linear"]
    registry._ADDED["heads"].clear()
    (folder / "sub").mkdir()
    (folder / "sub" / "my_head.py").write_text(HEAD)
    assert config.load("synthetic", ["head=sub/my_head.py:MyHead"]).fingerprint == first


def test_a_recipe_names_files_beside_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = folder / "mine.yaml"
    recipe.write_text(
        "corpus: synthetic\ngroups: {encoder: logmel}\nhead: {type: ./my_head.py:MyHead, width: 4}"
    )
    monkeypatch.chdir(folder.parent)
    assert config.load(str(recipe)).head == {"type": "my_head", "width": 4}
    picked = folder / "picked.yaml"
    picked.write_text(
        "corpus: synthetic\ngroups: {encoder: my_encoder.py:MyEncoder, head: my_head.py:MyHead}"
    )
    assert config.load(str(picked)).encoder["type"] == "my_encoder"


def test_a_suite_takes_files_in_its_axes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "mine.yaml"
    path.write_text(
        "axes: {recipe: [synthetic], head: [classification, ./my_head.py:MyHead], seed: [1]}\n"
        "baseline: my_head.py:MyHead"
    )
    monkeypatch.chdir(folder.parent)
    found = suite.load(str(path))
    assert found.axes["head"] == ["classification", "my_head"]
    assert found.baseline == "my_head"
    typed = f"[classification, {folder}/my_head.py:MyHead]"
    assert axes.values("head", typed) == ["classification", "my_head"]


def test_a_module_on_the_path_and_a_registered_class(folder: Path) -> None:
    dotted = "serzoo.heads.classification:ClassificationHead"
    assert own.adopt("heads", dotted) == "classification"
    assert own.adopt("encoders", "my_encoder:MyEncoder") == "my_encoder"


def test_a_class_of_python_code_has_a_name_too(folder: Path) -> None:
    made = own._run(folder / "my_head.py", "sha").MyHead
    assert register("heads", "mine", made) == "mine"
    assert config.load("synthetic", ["head=mine", "head.width=3"]).head["width"] == 3
    assert own.name_for("heads", made) == "mine"
    registry._ADDED["heads"].clear()
    assert own.name_for("heads", made) == "my_head"


def test_a_scorer_of_a_file(folder: Path) -> None:
    assert scorer("lengths.py:Lengths", factor=2.0).source == "lengths"
    with pytest.raises(ConfigError, match=says("factr", "factor")):
        scorer("lengths.py:Lengths", factr=2.0)


def test_features_of_an_edited_encoder_are_stored_apart(folder: Path) -> None:
    made = registry.get("encoders", own.adopt("encoders", "my_encoder.py:MyEncoder"))
    first = own.extraction_of(made())
    assert first["type"] == "logmel"
    (folder / "my_encoder.py").write_text(ENCODER + "# another front end\n")
    own.adopt("encoders", "my_encoder.py:MyEncoder")
    made = registry.get("encoders", "my_encoder")
    assert {k for k in first if first[k] != own.extraction_of(made())[k]} == {"file"}
    plain = LogMelEncoder()
    assert own.extraction_of(plain) == plain.extraction()


# Corpora.


def test_a_corpus_of_a_file_is_described_by_it(folder: Path) -> None:
    typed = ["corpus=./my_corpus.py:prepare", "data.root=.", "data.options.speaker=7"]
    cfg = config.load("synthetic", typed)
    assert (cfg.corpus, cfg.protocol) == (["my_corpus"], "kfold")
    assert cfg.data.options == {"speaker": "7"}
    assert list(cfg.own) == ["corpus my_corpus"]
    info = CorpusInfo.load("my_corpus")
    assert (info.licence, dict(info.labels)) == ("cc0", {"a": "angry", "h": "happy"})
    (folder / "my_corpus.py").write_text(CORPUS.replace("cc0", "cc-by-4.0"))
    own.adopt("corpora", "my_corpus.py:prepare")
    assert CorpusInfo.load("my_corpus").licence == "cc-by-4.0"


def test_a_yaml_file_beside_describes_a_corpus(folder: Path) -> None:
    bare = CORPUS.replace("INFO =", "_UNUSED =")
    (folder / "my_corpus.py").write_text(bare)
    with pytest.raises(ConfigError, match=says("INFO", "my_corpus.yaml", "labels")):
        own.adopt("corpora", "my_corpus.py:prepare")
    (folder / "my_corpus.yaml").write_text("title: Mine\nlabels: '*'")
    own.adopt("corpora", "my_corpus.py:prepare")
    assert CorpusInfo.load("my_corpus").title == "Mine"


# Refused.


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        ("nowhere.py:MyHead", ["nowhere.py", "my_head.py", "FILE.py:NAME"]),
        ("my_head.py:YourHead", ["'YourHead'", "my_head.py:MyHead"]),
        ("my_head.py", ["my_head.py:MyHead"]),
        ("my_head.py:Frames", ["my_head.py:Frames", "serzoo.zoo.core.head:Head", "MyHead"]),
        ("my_encoder.py:MyEncoder", ["serzoo.zoo.core.head:Head"]),
        ("broken.py:MyHead", ["broken.py", "line 2"]),
        ("raises.py:MyHead", ["ZeroDivisionError", "line 3"]),
        ("lacks.py:Half", ["loss", "scores"]),
        ("no.such.module:X", ["'no.such.module:X'", "No module named 'no'"]),
        ("taken.py:Selm", ["'selm'", "serzoo.heads.selm.head:SELMHead"]),
    ],
)
def test_what_cannot_be_taken_is_told(folder: Path, typed: str, facts: list[str]) -> None:
    (folder / "broken.py").write_text("import torch\ndef MyHead(:\n")
    (folder / "raises.py").write_text("import torch\n\n1 / 0\n")
    (folder / "lacks.py").write_text("from serzoo.zoo import Head\nclass Half(Head): ...\n")
    (folder / "taken.py").write_text(HEAD.replace("MyHead", "Selm"))
    with pytest.raises(ConfigError, match=says(*facts)):
        config.load("synthetic", [f"head={typed}"])


def test_two_classes_of_one_name_and_an_unknown_option(folder: Path) -> None:
    (folder / "other.py").write_text(HEAD)
    own.adopt("heads", "my_head.py:MyHead")
    with pytest.raises(
        ConfigError, match=says("'my_head'", "other.py:MyHead", "my_head.py:MyHead")
    ):
        own.adopt("heads", "other.py:MyHead")
    with pytest.raises(ConfigError, match=says("'my_head'", "'wdth'", "width")):
        config.load("synthetic", ["head=my_head.py:MyHead", "head.wdth=3"])


def test_names_that_are_no_files_stay_names() -> None:
    for text in ("selm", "microsoft/wavlm-base", "/a: b.jsonl", "a:b:c", "data/x.jsonl", "a-b"):
        assert not own.is_own(text)
    assert own.is_own("../x y/my.py:Z")


# Other processes.


def test_another_process_registers_the_same_parts(folder: Path) -> None:
    own.adopt("heads", "my_head.py:MyHead")
    shipped = pickle.loads(pickle.dumps(own.ship()))
    registry._ADDED["heads"].clear()
    own.receive(shipped)
    assert "my_head" in registry.names("heads")
    (folder / "my_head.py").write_text(HEAD + "\n")
    with pytest.raises(ConfigError, match=says("my_head.py:MyHead", "changed")):
        own.receive(shipped)


def test_a_class_that_only_this_process_has_is_not_sent(folder: Path) -> None:
    class Local(own._run(folder / "my_head.py", "sha").MyHead):  # type: ignore[misc]
        pass

    register("heads", "local", Local)
    assert own.ship() == []
    assert tells(str(registry.all_added()), "local")
