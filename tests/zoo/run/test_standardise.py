"""A run with a frozen encoder standardises pooled frames by its training part, and by it alone."""

from __future__ import annotations

import lightning
import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core.errors import DataNote
from serzoo.zoo.core.scaling import FrameStatistics, Standardiser
from serzoo.zoo.core.weights import check_keys, strip_frozen
from serzoo.zoo.run.build import build, build_run, open_data
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.train import train

HEADS = {
    "classification": [],
    "prototype": [],
    "gen_ser": [],
    "selm": ["head.lm_width=32", "head.lm_layers=1"],
}


def settings(head: str, name: str, *more: str) -> list[str]:
    return [
        f"head={head}", "encoder=wav2vec2-base", f"encoder.name={name}", "encoder.revision=null",
        "optim.epochs=1", *HEADS[head], *more,
    ]  # fmt: skip


def scales(module: SERModule) -> list[Standardiser]:
    return [m for m in module.head.modules() if isinstance(m, Standardiser)]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("features", ["auto", "live"])
def test_every_head_gets_the_statistics_of_the_training_part(
    tiny_recipe, tiny_hf, tmp_path, head, features
):
    cfg = compose(tiny_recipe, settings(head, tiny_hf(), f"data.features={features}"))
    train(cfg, tmp_path)
    module = SERModule.load_from_checkpoint(tmp_path)
    (scale,) = scales(module)
    assert bool(scale.fitted)
    data = open_data(cfg)
    fresh = build(cfg, data.taxonomy).eval()  # the mix of layers before training
    with torch.no_grad():
        own = FrameStatistics.of(
            fresh.frames(data.datasets["train"][[i]]) for i in range(len(data.datasets["train"]))
        )
    assert_like(scale.location, own.location[: len(scale.location)])
    assert_like(scale.deviation, own.deviation[: len(scale.location)])


@pytest.mark.parametrize(
    "more", [["data.standardise=none"], ["encoder.tuning=full"], ["encoder.tuning=lora"]]
)
def test_a_run_that_asks_for_none_or_learns_its_encoder_has_none(
    tiny_recipe, tiny_hf, tmp_path, more
):
    train(compose(tiny_recipe, settings("classification", tiny_hf(), *more)), tmp_path)
    assert not any(bool(s.fitted) for s in scales(SERModule.load_from_checkpoint(tmp_path)))


def test_models_that_were_saved_without_a_scale_still_load(tiny_recipe, tiny_hf, tmp_path):
    cfg = compose(tiny_recipe, settings("classification", tiny_hf()))
    train(cfg, tmp_path)
    module = SERModule.load_from_checkpoint(tmp_path)
    own, frozen = module.state_dict(), module.frozen_keys()
    saved = strip_frozen(own, frozen)
    old = {k: v for k, v in saved.items() if ".scale." not in k}
    assert len(old) == len(saved) - 3
    check_keys(old, own, frozen)


def test_records_from_before_were_not_standardised(tiny_recipe, tiny_hf):
    cfg = compose(tiny_recipe, settings("classification", tiny_hf()))
    assert cfg.data.standardise == "auto"
    old = cfg.to_dict()
    del old["data"]["standardise"]
    before = RunConfig.from_dict(old)
    assert before.data.standardise == "none"
    assert before.fingerprint != cfg.fingerprint
    assert RunConfig.from_dict(cfg.to_dict()).fingerprint == cfg.fingerprint


def test_the_name_of_a_run_whose_encoder_learns_stays(tiny_recipe):
    cfg, none = (compose(tiny_recipe, [f"data.standardise={s}"]) for s in ("auto", "none"))
    assert cfg.fingerprint == none.fingerprint


def test_a_trainer_without_the_data_module_says_that_nothing_is_standardised(
    tiny_recipe, tiny_hf, tmp_path
):
    module, data = build_run(tiny_recipe, settings("classification", tiny_hf()))
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_steps=1, default_root_dir=tmp_path, **options)
    with pytest.warns(DataNote, match=says("not standardised", "SpeechDataModule", "False")):
        trainer.fit(module, data.train_dataloader())
    assert not any(bool(s.fitted) for s in scales(module))
