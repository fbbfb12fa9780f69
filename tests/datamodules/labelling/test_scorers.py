"""The table of scorers, and those that are no entailment: likelihood and similarity."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_text
import torch
from facts import says
from fake_hub import COMMIT, FakeHub
from serzoo.datamodules.labelling.causal import Causal
from serzoo.datamodules.labelling.embedding import Embedding
from serzoo.datamodules.labelling.lexicon import Lexicon
from serzoo.datamodules.labelling.scorers import Hypothesis, hypotheses, scorer
from serzoo.zoo.core import hub, lock
from serzoo.zoo.core.errors import ConfigError, DataNote
from serzoo.zoo.core.registry import BUILT_IN, attribute
from serzoo.zoo.core.taxonomy import Taxonomy
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

BIG4 = Taxonomy.load("big4")
HYPOTHESES = hypotheses(
    ("The speaker feels {}.", "How {} this person is!"), BIG4.forms, [m for _, m in BIG4.members]
)
PREMISES = ["what a wonderful day", "how dare you", ""]


# The table.


def test_every_scorer_of_the_table_is_one() -> None:
    assert {name: attribute(place).__name__ for name, place in BUILT_IN["scorers"].items()} == {
        "nli": "NLI",
        "embedding": "Embedding",
        "causal": "Causal",
        "masked": "Masked",
        "lexicon": "Lexicon",
    }
    assert all("score" in vars(attribute(place)) for place in BUILT_IN["scorers"].values())
    assert isinstance(scorer("lexicon"), Lexicon)
    assert isinstance(scorer("serzoo.datamodules.labelling.lexicon:Lexicon"), Lexicon)


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(ConfigError, match=says("'nlp'", "embedding", "'nli'")):
        scorer("nlp")
    with pytest.raises(ConfigError, match=says("'lexicon'", "'tongue'", "language")):
        scorer("lexicon", tongue="english")
    with pytest.raises(ConfigError, match=says("'nli'", "model")):
        scorer("nli")
    with pytest.raises(ConfigError, match=says("'no.such.module:Thing'", "No module named 'no'")):
        scorer("no.such.module:Thing")
    with pytest.raises(
        ConfigError,
        match=says("'pathlib:PurePosixPath'", "serzoo.datamodules.labelling.scorers:Scorer"),
    ):
        scorer("pathlib:PurePosixPath")
    with pytest.raises(ConfigError, match=says("device=gpu:7", "auto", "cpu")):
        scorer("nli", model="x", device="gpu:7")


def test_a_hypothesis_is_a_template_and_a_form() -> None:
    first = Hypothesis("The speaker feels {}.", "angry", ("angry",))
    assert (first.stem, first.text) == ("The speaker feels", "The speaker feels angry.")
    assert [h.text for h in HYPOTHESES][3:5] == [
        "The speaker feels sad.",
        "How angry this person is!",
    ]
    for bad in ([], ["I feel."], ["{} and {}"], ["I feel {}."] * 2):
        with pytest.raises(ConfigError):
            hypotheses(bad, ["angry"], [("angry",)])


# Likelihood.


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_likelihoods_are_those_of_a_pass_over_the_whole_text(family: str, tmp_path: Path) -> None:
    folder = tiny_text.save_causal(tmp_path / family, family)
    found = Causal(model=folder, device="cpu").score(PREMISES, HYPOTHESES)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, premise in enumerate(PREMISES):
        for column, hypothesis in enumerate(HYPOTHESES):
            before = tokenizer.encode(f'Someone says: "{premise}" {hypothesis.stem}')
            whole = tokenizer.encode(f'Someone says: "{premise}" {hypothesis.text}')
            assert whole[: len(before)] == before
            with torch.no_grad():
                log_p = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            each = [float(log_p[j - 1, whole[j]]) for j in range(len(before), len(whole))]
            assert len(each) > 1
            assert found[row, column] == pytest.approx(np.mean(each), rel=1e-4)
    assert found.std(0).min() > 1e-3
    assert found.std(1).min() > 1e-3


def test_a_transcript_that_is_too_long_loses_its_beginning(tmp_path: Path) -> None:
    causal = Causal(model=tiny_text.save_causal(tmp_path / "m"), device="cpu")
    assert causal.limit == 62
    said = [h.text for h in HYPOTHESES[:4]]
    prefix, rest = causal.spelt("so tired of it " * 40, "The speaker feels", said)
    short, same = causal.spelt("", "The speaker feels", said)
    assert rest == same
    assert len(prefix) + max(map(len, rest)) == 62
    assert prefix[-8:] == short[-8:]
    assert np.isfinite(causal.score(["so tired of it " * 40], HYPOTHESES)).all()


def test_an_empty_frame_has_something_to_begin_with(tmp_path: Path) -> None:
    causal = Causal(model=tiny_text.save_causal(tmp_path / "m"), frame="{}", device="cpu")
    names = hypotheses(("{}",), BIG4.forms, [m for _, m in BIG4.members])
    assert np.isfinite(causal.score(["", "so"], names)).all()
    assert causal.settings()["frame"] == "{}"
    with pytest.raises(ConfigError, match=says("frame=says", "{}")):
        Causal(model="x", frame="says")


# Similarity.


@pytest.fixture
def sentences(tmp_path: Path) -> str:
    return tiny_text.save_sentences(tmp_path)


def test_similarity_is_the_cosine_of_mean_embeddings(sentences: str, tmp_path: Path) -> None:
    scores = Embedding(model=sentences, factor=5.0, batch_size=2, device="cpu").score(
        PREMISES, HYPOTHESES
    )
    model = AutoModel.from_pretrained(tmp_path / "bert").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    for row, premise in enumerate(PREMISES):
        for column, hypothesis in enumerate(HYPOTHESES):
            cosine = torch.cosine_similarity(embed(premise), embed(hypothesis.text), dim=0)
            assert scores[row, column] == pytest.approx(5 * float(cosine), abs=1e-4)
    assert scores.std(0).min() > 1e-4


def test_similarity_tells_its_weights(sentences: str) -> None:
    settings = Embedding(model=sentences).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["source"] == f"sentences@{settings['weights']}"
    assert settings["factor"] == 20.0


def test_similarity_from_a_folder_of_models_tells_its_weights(
    sentences: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERZOO_MODELS", str(Path(sentences).parent))
    with pytest.warns(DataNote, match="SERZOO_MODELS"):
        found = Embedding(model="somebody/sentences")
    assert found.source == f"sentences@{found.weights}"


def test_similarity_from_the_hub_is_named_by_its_commit(
    sentences: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(sentences).rename(Path(sentences).with_name(COMMIT))

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (name, revision) == ("somebody/sentences", COMMIT)
        assert "*.safetensors" in allow_patterns
        assert not any("bin" in p for p in allow_patterns)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    monkeypatch.setattr(lock, "HfApi", FakeHub({"somebody/sentences": {None: (COMMIT, {})}}))
    assert Embedding(model="somebody/sentences").source == "somebody/sentences@012345678901"
    with pytest.raises(ConfigError, match=says("'old'", "Revision Not Found", "SERZOO_MODELS")):
        Embedding(model="somebody/sentences", revision="old")


def test_similarity_without_a_vocabulary_is_refused(sentences: str) -> None:
    for file in (*Path(sentences).rglob("tokenizer.json"), *Path(sentences).rglob("vocab.txt")):
        file.unlink()
    # of this class the library makes a tokenizer of five words without asking
    Path(sentences, "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(ConfigError, match=says(f"model={sentences}", "tokenizer.json")):
        Embedding(model=sentences)


def test_similarity_takes_no_pickles(sentences: str) -> None:
    Path(sentences, "model.safetensors").rename(Path(sentences, "pytorch_model.bin"))
    with pytest.raises(
        ConfigError,
        match=says("pytorch_model.bin", "model.safetensors", "SentenceTransformer.save"),
    ):
        Embedding(model=sentences)
    with pytest.raises(ConfigError, match=says("model=./nowhere")):
        Embedding(model="./nowhere")


def test_without_the_package_similarity_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=says("pip install 'serzoo[embedding]'", "scorer=nli")):
        Embedding(model="x")
