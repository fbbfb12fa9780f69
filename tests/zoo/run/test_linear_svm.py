"""The linear SVM is scikit-learn's, and keeps the contract of every head."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from facts import says, tells
from serzoo.heads import linear_svm
from serzoo.heads.linear_svm import LinearSVMHead
from serzoo.zoo.core.errors import ConfigError, DataError, DataWarning
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.run.build import open_data
from serzoo.zoo.run.config import load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

THREE = Taxonomy("three", tuple((c, (c,)) for c in "abc"))


def frozen(name: str, *more: str) -> list[str]:
    return [
        "head=linear_svm", "encoder=wav2vec2-base", "encoder.layers=[1]", f"encoder.name={name}",
        "encoder.revision=null", "data.balance=false", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("C", [1e-2, 1.0])
def test_a_run_on_frozen_frames_is_scikit_learns(tiny_recipe, tiny_hf, tmp_path, C):
    cfg = load(
        tiny_recipe,
        frozen(tiny_hf(), "head.pooling=stats", f"head.C={C}", "optim.epochs=9", "optim.ema=0.9"),
    )
    entry = train(cfg, tmp_path)
    assert entry.rounds == 1
    module = SERModule.load_from_checkpoint(tmp_path)
    data = open_data(cfg)

    def vectors(part: str) -> np.ndarray:
        found = []
        for i in range(len(data.datasets[part])):
            frames = module.frames(data.datasets[part][[i]])
            deviation, mean = torch.std_mean(frames.x[0].double(), dim=0, correction=0)
            # the pooling's floor of the variance
            found.append(torch.cat([mean, deviation.square().clamp_min(1e-5).sqrt()]))
        return torch.stack(found).numpy()

    with torch.no_grad():
        train_x, test_x = vectors("train"), vectors("test")
    svm = LinearSVC(C=C, dual=len(train_x) < train_x.shape[1], random_state=0, max_iter=100_000)
    pipe = make_pipeline(StandardScaler(), svm)
    pipe.fit(train_x, data.datasets["train"].classes.numpy())
    expected = pipe.decision_function(test_x)
    table = PredictionTable.read_jsonl(tmp_path / "predictions.jsonl")
    order = [table.ids.index(u.id) for u in data.datasets["test"].utterances]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(table.scores[order], expected, atol=2e-3 * scale)


def test_utterances_without_a_label_or_weight_do_not_count():
    head = LinearSVMHead(2, THREE, pooling="mean", C=1.0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(9, 1, 2, generator=g)
    labels = torch.arange(9) % 3
    frames = Frames(x, torch.ones(9, 1, dtype=torch.bool))
    probs = torch.eye(3)[labels]
    head.solve([(frames, Targets(probs, torch.ones(9)))])
    expected = head.output.weight.clone()
    junk = Frames(100 * torch.ones(2, 1, 2), torch.ones(2, 1, dtype=torch.bool))
    unlabelled = Targets(torch.tensor([[0.0, 0, 0], [1, 0, 0]]), torch.tensor([1.0, 0.0]))
    head.solve([(frames, Targets(probs, torch.ones(9))), (junk, unlabelled)])
    assert torch.equal(head.output.weight, expected)


@pytest.mark.parametrize(("labels", "absent"), [([0, 0, 1], "of c"), ([], "of a, b, c")])
def test_a_class_without_training_is_named(labels, absent):
    head = LinearSVMHead(2, THREE, pooling="mean")
    frames = Frames(torch.randn(len(labels), 1, 2), torch.ones(len(labels), 1, dtype=torch.bool))
    targets = Targets(torch.eye(3)[torch.tensor(labels, dtype=torch.long)], torch.ones(len(labels)))
    with pytest.raises(DataError, match=says(absent, "taxonomy")):
        head.solve([(frames, targets)])


def test_boundaries_that_are_not_at_their_optimum_are_told_once(monkeypatch):
    monkeypatch.setattr(linear_svm, "ROUNDS", 1)
    head = LinearSVMHead(2, THREE, pooling="mean", C=1e4)
    g = torch.Generator().manual_seed(0)
    frames = Frames(torch.randn(60, 1, 2, generator=g), torch.ones(60, 1, dtype=torch.bool))
    targets = Targets(torch.eye(3)[torch.arange(60) % 3], torch.ones(60))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head.solve([(frames, targets)])
    assert [w.category for w in caught] == [DataWarning]  # and not one for each class
    assert tells(str(caught[0].message), "a, b, c", "head.C", 10000, 1)
    monkeypatch.undo()
    head.C = 0.01
    with warnings.catch_warnings(action="error"):
        head.solve([(frames, targets)])


def test_it_cannot_be_solved_with_a_pooling_that_learns():
    head = LinearSVMHead(2, THREE, pooling="attentive")
    with pytest.raises(ConfigError, match=says("head.pooling", "stats", "mean")):
        head.solve([])


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_no_weight_is_refused(C):
    with pytest.raises(ConfigError, match=says("C=", "above 0")):
        LinearSVMHead(2, THREE, C=C)


def test_on_an_encoder_that_learns_it_is_trained_by_steps(tiny_recipe, tmp_path):
    entry = train(load(tiny_recipe, ["head=linear_svm", "optim.epochs=2"]), tmp_path)
    assert entry.rounds == 2
