"""Heads that use only mean and deviation of frozen frames are trained on these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from close import assert_like
from serzoo.datamodules import features
from serzoo.datamodules.features import statistics
from serzoo.datamodules.speech import SpeechDataModule
from serzoo.zoo.core import registry, shipped
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.run import config
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable

PUBLISHED = ("selm", "speech_llm", "label_embedding_", "gen_ser_text")
HEADS = [n for n in shipped.names("head") if not n.startswith(PUBLISHED)]
THREE = Taxonomy.of(["angry", "happy", "sad"], "three")
POOLED = [
    "classification", "dimensions", "gen_ser", "label_embedding", "linear_svm", "ordinal",
    "prototype", "regress_codes",
]  # fmt: skip
SIDE_BY_SIDE = ["encoder.layers=[0,2]", "encoder.join=concat"]


def built(name, taxonomy, *more):
    options = config.read_group("head", name)
    kind = options.pop("type")
    knobs = {**options, **dict(more)}
    return registry.get("heads", kind)(8, taxonomy, **registry.complete("heads", kind, knobs))


def test_two_vectors_have_the_mean_and_the_deviation_of_all():
    row = torch.randn(2, 31, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    two = statistics(row)
    assert two.shape == (2, 2, 5)
    deviation, mean = torch.std_mean(row.double(), dim=1, correction=0)
    assert_like(two.mean(1).double(), mean)
    assert_like(two.double().std(1, correction=0), deviation)


@pytest.mark.parametrize("pooling", ["mean", "stats"])
@pytest.mark.parametrize("name", POOLED)
def test_scores_of_the_two_vectors_are_those_of_the_frames(name, pooling):
    torch.manual_seed(0)
    taxonomy = THREE
    head = built(name, taxonomy, ("pooling", pooling)).eval()
    assert not head.reads_frames
    lengths = torch.tensor([4, 9, 17])
    mask = torch.arange(17) < lengths[:, None]
    x = torch.randn(3, 17, 8).masked_fill(~mask[..., None], 0.0)
    two = torch.cat([statistics(x[i : i + 1, :n]) for i, n in enumerate(lengths)])
    small = Frames(two, torch.ones(3, 2, dtype=torch.bool))
    assert_like(head.scores(small, taxonomy), head.scores(Frames(x, mask), taxonomy))
    targets = Targets(torch.eye(3), torch.ones(3))
    torch.manual_seed(1)
    a = head.loss(Frames(x, mask), targets).loss
    torch.manual_seed(1)
    assert_like(head.loss(small, targets).loss, a)


@pytest.mark.parametrize("reduction", ["mean", "stats"])
def test_selm_reads_them_if_one_plain_vector_stands_for_an_utterance(reduction):
    torch.manual_seed(0)
    head = built("selm", THREE, ("reduction", reduction), ("lm_width", 32)).eval()
    assert not head.reads_frames
    x = torch.randn(2, 9, 8)
    two = torch.cat([statistics(row[None]) for row in x])
    small = Frames(two, torch.ones(2, 2, dtype=torch.bool))
    whole = Frames(x, torch.ones(2, 9, dtype=torch.bool))
    assert_like(head.scores(small, THREE), head.scores(whole, THREE))


def test_heads_that_need_every_frame_say_so():
    taxonomy = THREE
    needs = {n: built(n, taxonomy).reads_frames for n in HEADS}
    # all but these pool with learned weights, or read frame by frame
    assert {n for n, frames in needs.items() if not frames} == {"linear", "linear_svm", "mlp"}
    assert len(needs) == 37


@pytest.mark.parametrize("layers", [["encoder.layers=[1]"], SIDE_BY_SIDE])
@pytest.mark.parametrize("name", ["classification", "gen_ser", "linear_svm"])
def test_a_run_gives_the_same_predictions(
    tiny_recipe, tiny_hf, tmp_path, monkeypatch, name, layers
):
    settings = [
        f"head={name}", "head.pooling=stats", "encoder=wav2vec2-base", *layers,
        f"encoder.name={tiny_hf()}", "encoder.revision=null",
    ]  # fmt: skip
    cfg = config.load(tiny_recipe, settings)
    fast = train(cfg, tmp_path / "fast")
    assert fast.feature_store["statistics"] is True
    assert fast.encoder["dim"] == 32 * len(fast.encoder["layers"])
    monkeypatch.setattr(SpeechDataModule, "use_statistics", lambda self: False)
    slow = train(cfg, tmp_path / "slow")
    assert slow.feature_store["statistics"] is False
    a, b = (
        PredictionTable.read_jsonl(tmp_path / n / "predictions.jsonl") for n in ("fast", "slow")
    )
    assert a.ids == b.ids
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-3 * np.abs(b.scores).max())
    assert fast.steps == slow.steps


def test_a_process_computes_them_once(tiny_recipe, tiny_hf, tmp_path, monkeypatch):
    settings = [
        "head=linear", "encoder=wav2vec2-base", "encoder.layers=[1]", f"encoder.name={tiny_hf()}",
        "encoder.revision=null", "optim.epochs=1",
    ]  # fmt: skip
    rows = []
    monkeypatch.setattr(features, "_measured", {})
    monkeypatch.setattr(features, "statistics", lambda row: rows.append(1) or statistics(row))
    for seed in (1, 2):
        train(config.load(tiny_recipe, [*settings, f"seed={seed}"]), tmp_path / str(seed))
        assert len(rows) == 30  # all utterances, in the first run
    monkeypatch.setattr(features, "_measured", {})
    monkeypatch.setattr(features, "MEASURED_BYTES", 0)  # room for none but the last
    train(config.load(tiny_recipe, [*settings, "seed=3"]), tmp_path / "3")
    assert len(features._measured) == 1


@pytest.mark.parametrize(
    "more", [["head.pooling=attentive"], ["encoder.layers=[0,1]"], ["optim.mixup=0.3"]]
)
def test_a_run_that_needs_frames_reads_them(tiny_recipe, tiny_hf, tmp_path, more):
    settings = [
        "head=linear", "encoder=wav2vec2-base", "encoder.layers=[1]", f"encoder.name={tiny_hf()}",
        "encoder.revision=null", "optim.epochs=1", *more,
    ]  # fmt: skip
    entry = train(config.load(tiny_recipe, settings), tmp_path)
    assert "statistics" not in entry.feature_store


def test_operations_are_counted_for_a_second_of_speech(tiny_recipe, tiny_hf, tmp_path):
    settings = [
        "head=linear", "encoder=wav2vec2-base", "encoder.layers=[1]", f"encoder.name={tiny_hf()}",
        "encoder.revision=null", "optim.epochs=1",
    ]  # fmt: skip
    entry = train(config.load(tiny_recipe, settings), tmp_path)
    # one product of a mean with 3 outputs for each utterance, which has 0.3 to 0.5 s
    width = SERModule.load_from_checkpoint(tmp_path).encoder.dim
    product = 2 * width * 3
    assert product / 0.52 < entry.flops["scoring"] < product / 0.26
