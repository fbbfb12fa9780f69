"""Training that is killed without warning ends in the same weights as training that is not."""

import json
import os
import signal
import time

import pytest
import torch
from serzoo.zoo.cli import main
from serzoo.zoo.run.config import load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.train import run_folder, train
from states import assert_same
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EPOCHS = 8


def settings(head, out, *more):
    small = ["head.lm_width=32", "head.lm_layers=1"] if head == "selm" else []
    # small batches: epochs long enough to be killed in
    return [
        f"head={head}", *small, f"optim.epochs={EPOCHS}", "data.batch_size=2",
        f"trainer.out={out}", "trainer.accelerator=cpu", "trainer.progress=false",
        "trainer.threads=1", *more,
    ]  # fmt: skip


def only(out, name):
    (found,) = out.glob(f"**/{name}")
    return found


@pytest.mark.parametrize("case", ["classification", "gen_ser", "selm on hf"])
def test_a_killed_run_ends_in_the_same_weights(
    case, tiny_recipe, tiny_hf, tmp_path, serzoo, wait_until
):
    head, *hf = case.split(" on ")
    more = ["encoder=hf", f"encoder.name={tiny_hf('wav2vec2', 'group')}"] if hf else []
    log = tmp_path / "log.txt"
    out = {name: tmp_path / name for name in ("whole", "killed")}
    whole = serzoo("train", tiny_recipe, *settings(head, out["whole"], *more), log=log)
    assert whole.wait(400) == 0, log.read_text()

    last = "checkpoints/last.ckpt"
    for _ in range(2):  # and killed once more after it was resumed
        known = [p.stat().st_mtime_ns for p in out["killed"].glob(f"**/{last}")]
        process = serzoo("train", tiny_recipe, *settings(head, out["killed"], *more), log=log)
        wait_until(
            lambda known=known: (
                [p.stat().st_mtime_ns for p in out["killed"].glob(f"**/{last}")] != known
            ),
            process,
        )
        time.sleep(0.02)  # into the next epoch
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert not list(out["killed"].glob("**/record.json"))
    epoch = torch.load(only(out["killed"], last), weights_only=True)["epoch"]
    assert 0 < epoch < EPOCHS - 1

    resumed = serzoo("train", tiny_recipe, *settings(head, out["killed"], *more), log=log)
    assert resumed.wait(400) == 0, log.read_text()
    a, b = (torch.load(only(o, last), weights_only=True) for o in out.values())
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers"):
        assert_same(a.get(part, {}), b.get(part, {}), part)
    for name in ("predictions.jsonl", "valid.jsonl"):
        assert only(out["whole"], name).read_bytes() == only(out["killed"], name).read_bytes()


@pytest.mark.parametrize("head", ["classification", "selm", "gen_ser"])
def test_every_main_head_trains_on_a_pretrained_encoder(
    head, tiny_recipe, tiny_hf, tmp_path, capsys
):
    name = tiny_hf("wavlm", "layer")
    arguments = settings(head, tmp_path / "runs", "encoder=hf", f"encoder.name={name}")
    assert main(["train", tiny_recipe, *arguments, "optim.epochs=2"]) == 0
    assert "test UAR" in capsys.readouterr().out
    content = torch.load(only(tmp_path / "runs", "best.ckpt"), weights_only=True)
    # the layer mix is trained and kept, the published weights are not copied
    assert "encoder.mix.logits" in content["state_dict"]
    assert not [k for k in content["state_dict"] if k.startswith("encoder.backbone")]
    # the weights of the mix are in the record and in TensorBoard
    weights = json.loads(only(tmp_path / "runs", "record.json").read_text())["layer_weights"]
    assert list(weights) == ["layer_00", "layer_01", "layer_02", "layer_03"]
    assert sum(weights.values()) == pytest.approx(1)
    events = EventAccumulator(str(only(tmp_path / "runs", "record.json").parent)).Reload()
    for name, value in weights.items():
        assert len(events.Scalars(f"encoder/{name}")) == 2
        assert value != 0.25  # it learned


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_tuned_encoder_resumes_to_the_same_weights(
    tuning, tiny_recipe, tiny_hf, tmp_path, monkeypatch
):
    more = [
        "encoder=hf", f"encoder.name={tiny_hf('wav2vec2', 'group')}", f"encoder.tuning={tuning}",
        "optim.ema=0.9", "optim.mixup=0", "optim.epochs=2",
    ]  # fmt: skip
    if tuning == "lora":
        more += ["encoder.lora_rank=2", "encoder.lora_dropout=0.1"]
    runs = {n: load(tiny_recipe, [*more, f"trainer.out={tmp_path / n}"]) for n in ("whole", "cut")}
    train(runs["whole"])

    start = SERModule.on_train_epoch_start

    def power_cut(module):
        if module.current_epoch == 1:
            raise RuntimeError("power cut")
        start(module)

    with monkeypatch.context() as patch:
        patch.setattr(SERModule, "on_train_epoch_start", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            train(runs["cut"])
    first = torch.load(run_folder(runs["cut"]) / "checkpoints" / "last.ckpt", weights_only=True)
    assert first["epoch"] == 0
    assert train(runs["cut"]).resumed is True
    a, b = (
        torch.load(run_folder(cfg) / "checkpoints" / "last.ckpt", weights_only=True)
        for cfg in runs.values()
    )
    trained = [k for k in a["state_dict"] if k.startswith("encoder.backbone.")]
    assert trained
    assert all(("lora" in k) is (tuning == "lora") for k in trained)
    moved = [k for k in trained if not torch.equal(first["state_dict"][k], a["state_dict"][k])]
    assert moved  # the second epoch did something
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers"):
        assert_same(a[part], b[part], part)
