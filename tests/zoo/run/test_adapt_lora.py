"""Adapters of few-shot adaptations: what changes, what is saved, what may be tuned next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from close import assert_like
from facts import says
from peft import PeftModel
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.train import run_folder, train
from transformers import AutoModel

HOW = {"data": "csv", "protocol": "kfold-5", "steps": 4, "forgetting": False, "lr": 1e-2}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return tiny_models.tiny_hf(tmp_path_factory.mktemp("base") / "w2v")


@pytest.fixture(scope="module")
def source(tiny_recipe, encoder, other_speech) -> Path:
    knobs = ["encoder=hf", f"encoder.name={encoder}", "encoder.layers=[1,3]", "optim.epochs=1"]
    cfg = compose(tiny_recipe, [*knobs, "data.features=live", "data.options={table: table.csv}"])
    train(cfg)
    return run_folder(cfg)


@pytest.fixture(scope="module")
def other_speech(tiny_speech) -> Path:
    """The same folder under other speakers' names: one table more."""
    head, rows = (tiny_speech / "table.csv").read_text().split("\n", 1)
    (tiny_speech / "others.csv").write_text(f"{head}\n{rows.replace(',s', ',t')}")
    return tiny_speech


@pytest.fixture(scope="module")
def adapted(source, other_speech, tmp_path_factory) -> dict[str, Path]:
    """Two LoRA adaptations to different supports, and one of the head alone."""
    folder = tmp_path_factory.mktemp("adapted")
    there = {"root": str(other_speech), "options": {"table": "others.csv"}}
    for name, how in {
        "one": {"draw": 1, "shots": 2},
        "two": {"draw": 2, "shots": 2, "lora_rank": 4},
        "head": {"draw": 1, "shots": 2, "tuning": "head"},
    }.items():
        entry = adapt(source, out=folder / name, **HOW, **there, **how)
        assert entry.tuning == ("head" if name == "head" else "lora")
        assert entry.loss["last"] != entry.loss["first"]
    return {name: folder / name for name in ("one", "two", "head")}


def test_the_adapters_are_peft_s_own_and_small(encoder, adapted) -> None:
    record = json.loads((adapted["one"] / "record.json").read_text())
    sizes = record["bytes"]["files"]
    model = AutoModel.from_pretrained(encoder)
    # rank 8 x (32 in + 32 out) x 3 projections and the output one x 3 blocks, float32
    told = json.loads((adapted["one"] / "adapter" / "adapter_config.json").read_text())
    assert sizes["adapter/adapter_model.safetensors"] > 4 * 8 * 64 * len(told["target_modules"])
    assert record["bytes"]["saved"] == sum(sizes.values())
    assert record["bytes"]["changed"] < sum(4 * p.numel() for p in model.parameters())
    plain = PeftModel.from_pretrained(model, str(adapted["one"] / "adapter")).eval()
    module = SERModule.load_from_checkpoint(adapted["one"])
    audio = 0.1 * torch.randn(1, 6000, generator=torch.Generator().manual_seed(1))
    hidden, _ = module.encoder.extract(audio, torch.tensor([6000]))
    normal = (audio - audio.mean()) / (audio.var(unbiased=False) + 1e-7).sqrt()
    found = plain(normal, output_hidden_states=True).hidden_states
    assert_like(hidden[:, 1], found[3], digits=5)


def test_only_adapters_head_and_mix_change(source, adapted) -> None:
    ours, theirs = (
        SERModule.load_from_checkpoint(adapted["one"]).state_dict(),
        SERModule.load_from_checkpoint(source).state_dict(),
    )
    for key, value in theirs.items():
        new = key if key in ours else key.replace(".weight", ".base_layer.weight")
        new = new if new in ours else key.replace(".bias", ".base_layer.bias")
        if key.startswith("encoder.backbone"):
            assert torch.equal(ours[new], value), key
    assert {k.split(".")[1] for k in ours if ".lora_" in k} == {"backbone"}
    assert not torch.equal(ours["encoder.mix.logits"], theirs["encoder.mix.logits"])


def test_an_adaptation_goes_on_from_the_source_s_own_adapters(
    source, adapted, other_speech, tmp_path
):
    there = {"root": str(other_speech), "options": {"table": "others.csv"}, "shots": 1}
    entry = adapt(adapted["one"], out=tmp_path / "next", **HOW, **there, lora_rank=2)
    assert entry.tuning == "lora"
    assert entry.config["encoder"]["lora_rank"] == 8
    module = SERModule.load_from_checkpoint(tmp_path / "next")
    before = SERModule.load_from_checkpoint(adapted["one"]).state_dict()
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert any(".lora_" in k for k in moved)
    assert all(".lora_" in k or k.startswith(("head.", "encoder.mix.")) for k in moved)
    with pytest.raises(
        ConfigError, match=says("tuning=full", "tuning=lora", "lora, head, scratch")
    ):
        adapt(adapted["one"], out=tmp_path / "full", **HOW, **there, tuning="full")


def test_full_tuning_makes_new_weights(source, other_speech, tmp_path) -> None:
    there = {"root": str(other_speech), "options": {"table": "others.csv"}, "shots": 1}
    entry = adapt(source, out=tmp_path / "full", **HOW, **there, tuning="full")
    assert entry.config["encoder"]["tuning"] == "full"
    assert entry.bytes["changed"] > 100_000
