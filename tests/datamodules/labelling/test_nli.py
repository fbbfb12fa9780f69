"""Entailment against the zero-shot pipeline of transformers, and against single passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_text
import torch
from facts import says
from serzoo.datamodules.labelling.nli import NLI, buckets, places
from serzoo.datamodules.labelling.scorers import hypotheses
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

TEMPLATES = ("The speaker feels {}.", "This person is {}, very much so.")
BIG4 = Taxonomy.load("big4")
HYPOTHESES = hypotheses(TEMPLATES, BIG4.forms, [m for _, m in BIG4.members])
PREMISES = [
    "What a wonderful day",
    "how dare you!",
    "so",
    "I am so tired of all of it, " * 4,  # longer than the model reads: 40 tokens
    "tired?",
]
TURNED = {0: "entailment", 1: "neutral", 2: "contradiction"}
TWO = {0: "entailment", 1: "not_entailment"}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("labels", [None, TURNED, TWO], ids=["3", "3 turned", "2"])
@pytest.mark.parametrize("family", ["bert", "roberta", "bart"])
def test_probabilities_are_those_of_the_zero_shot_pipeline(
    family: str, labels: dict[int, str] | None, tmp_path: Path
) -> None:
    folder = tiny_text.save_nli(tmp_path / family, family, labels)
    scorer = NLI(model=folder, batch_tokens=90, device="cpu")  # a few pairs to a batch
    mine = sigmoid(scorer.score(PREMISES, HYPOTHESES))
    assert mine.shape == (5, 8)
    pipe = pipeline("zero-shot-classification", model=folder, device="cpu")
    for row, premise in enumerate(PREMISES):
        for t, template in enumerate(TEMPLATES):
            theirs = pipe(premise, BIG4.forms, hypothesis_template=template, multi_label=True)
            found = dict(zip(theirs["labels"], theirs["scores"], strict=True))
            expected = [found[form] for form in BIG4.forms]
            assert mine[row, 4 * t : 4 * t + 4] == pytest.approx(expected, abs=1e-5)
    assert mine.std(0).min() > 1e-3  # the premise matters
    assert mine.std(1).min() > 1e-3  # and so does the hypothesis
    together = sigmoid(NLI(model=folder, device="cpu").score(PREMISES, HYPOTHESES))
    assert together == pytest.approx(mine, abs=1e-5)


def test_classes_stand_where_the_configuration_says(tmp_path: Path) -> None:
    # the pipeline takes the first or the last class for the contradiction; here it is in between
    odd = {0: "neutral", 1: "Contradiction", 2: "Entailment"}
    folder = tiny_text.save_nli(tmp_path / "odd", "bert", odd)
    scorer = NLI(model=folder, device="cpu")
    assert (scorer.entailment, scorer.contradiction) == (2, 1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pair = tokenizer("", HYPOTHESES[0].text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**pair).logits[0].double()
    alone = scorer.score([""], HYPOTHESES[:1])  # the empty premise
    assert alone.tolist() == [[pytest.approx(float(logits[2] - logits[1]), abs=1e-5)]]


def test_a_model_whose_classes_are_not_nlis_is_refused(tmp_path: Path) -> None:
    folder = tiny_text.save_nli(tmp_path / "m", "bert", {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    with pytest.raises(ConfigError, match=says("0 LABEL_0", "1 LABEL_1", "2 LABEL_2", "id2label")):
        NLI(model=folder)
    bad = {0: "entailment", 1: "neutral", 2: "unrelated"}
    with pytest.raises(ConfigError, match=says("model=bad", 3, "2 unrelated", "contradiction")):
        places(bad, {v: k for k, v in bad.items()}, "bad")
    with pytest.raises(
        ConfigError, match=says("'entailment'", "'contradiction'", "id2label", "label2id")
    ):
        places(TURNED, {"contradiction": 0, "neutral": 1, "entailment": 2}, "bad")
    two = {0: "not_entailment", 1: "entailment"}
    assert places(two, {v: k for k, v in two.items()}, "two") == (1, 0)


def test_a_classifier_that_was_not_saved_is_not_made_up(tmp_path: Path) -> None:
    folder = Path(tiny_text.save_nli(tmp_path / "m"))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.bert.save_pretrained(tmp_path / "bare")
    config = json.loads((folder / "config.json").read_text())
    for file in folder.glob("token*"):
        (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=says(2, "classifier.bias", "classifier.weight")):
        NLI(model=str(tmp_path / "bare"))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = Path(tiny_text.save_nli(tmp_path / "m"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=says("model=", "model.safetensors", "save_pretrained")):
        NLI(model=str(folder))
    with pytest.raises(ConfigError, match=says("model=", "'main'", "hub")):
        NLI(model=str(folder), revision="main")


def test_settings_tell_weights_and_classes(tmp_path: Path) -> None:
    one, two = (
        NLI(model=tiny_text.save_nli(tmp_path / str(seed) / "nli", seed=seed)) for seed in (0, 1)
    )
    settings = one.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["model"] == "nli"
    assert settings["source"] == f"nli@{settings['weights']}"
    assert settings["labels"] == [2, 0]
    assert settings["weights"] != two.settings()["weights"]


def test_without_a_length_in_the_tokenizer_the_model_limits_it(tmp_path: Path) -> None:
    scorer = NLI(model=tiny_text.save_nli(tmp_path / "r", "roberta", limit=None), device="cpu")
    assert scorer.limit == 62  # of 64 positions; RoBERTa counts from 2
    assert np.isfinite(scorer.score(["what a day " * 60], HYPOTHESES)).all()


def test_batches_hold_pairs_of_alike_length() -> None:
    lengths = [5, 1, 9, 5, 2, 20]
    found = list(buckets(lengths, 12))
    assert found == [[5], [2], [0, 3], [4, 1]]  # the longest may be alone above the limit
    assert sorted(i for batch in found for i in batch) == list(range(6))


def test_no_premise_is_no_row(tmp_path: Path) -> None:
    assert NLI(model=tiny_text.save_nli(tmp_path / "m")).score([], HYPOTHESES).shape == (0, 8)
