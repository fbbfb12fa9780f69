"""LanSER's two recipes, on the encoders that they name: from words to a fine-tuned model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from serzoo.datamodules.labelling.label import label
from serzoo.zoo.run import config
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.record import read_record
from serzoo.zoo.run.train import train

RUN = ["optim.epochs=1", "data.batch_size=8", "trainer.accelerator=cpu", "trainer.progress=false"]
FEW = {"utterances": 2, "speakers": 4}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the words of a few people say, without listening to them."""
    pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")
    out = tmp_path_factory.mktemp("weak") / "labels"
    label("synthetic_talk", taxonomy="basic7", scorer="lexicon", options={**FEW, "text": True},
          out=str(out))  # fmt: skip
    return out / "manifest.jsonl"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "weak"),
    [("logmel", "hard"), ("resnet50", "soft"), ("wav2vec2", "soft"), ("wavlm", "hard")],
)
def test_words_then_people(kind, weak, labels, tiny_hf, tmp_path):
    encoder = ["encoder=" + kind]
    if kind == "logmel":
        encoder.append("encoder.dim=48")
    elif kind != "resnet50":  # a published one: adapters are what pre-training learns
        encoder = ["encoder=hf", f"encoder.name={tiny_hf(kind)}", "encoder.tuning=lora"]
    first = config.load(
        "lanser_pretrain", [*encoder, *RUN, f"data.manifest={labels}", f"data.weak={weak}"]
    )
    record = train(first, tmp_path / "words")
    assert record.status == "ok"
    weights = SERModule.load_from_checkpoint(tmp_path / "words").encoder.state_dict()

    few = ["data.options={utterances: 2, speakers: 4}", f"init={tmp_path / 'words'}"]
    # a rate of next to nothing: what it starts from is seen in what it ends with
    still = ["optim.lr=1e-12", "optim.ema=0", "optim.min_steps=0"]
    record = train(config.load("lanser_finetune", [*encoder, *RUN, *few, *still]), tmp_path / "run")
    assert record.origin["run"] == read_record(tmp_path / "words").fingerprint
    assert record.origin["trained_head"] == "classification_bce"
    assert record.origin["weak_labels"]  # whose labels they were
    assert 0 <= record.metrics["uar"] <= 1
    tuned = SERModule.load_from_checkpoint(tmp_path / "run").encoder
    learnt = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    adapters = [name for name in learnt if ".lora_" in name]
    assert (len(adapters) > 5) == (kind in ("wav2vec2", "wavlm"))
    for name in adapters or learnt:
        assert torch.allclose(learnt[name], weights[name], atol=1e-6), name
    assert any(learnt[name].abs().sum() > 0 for name in learnt if ".lora_B" in name) or not adapters
