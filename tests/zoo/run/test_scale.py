"""Runs of several processes that are shared out, launched from outside, or lose one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from close import assert_like
from facts import tells
from serzoo.zoo.run.record import read_record
from serzoo.zoo.statistics.table import PredictionTable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def settings(tiny_hf, tmp_path):
    """Full tuning of a tiny wav2vec2 on two processes of this machine."""
    name = tiny_hf("wav2vec2", "group", hidden_dropout=0.0, attention_dropout=0.0)

    def make(out: str, *more: str) -> list[str]:
        return [
            "encoder=hf", f"encoder.name={name}", "encoder.tuning=full", "optim.ema=0",
            "optim.mixup=0", "optim.epochs=4", "data.batch_size=2", "trainer.accelerator=cpu",
            "trainer.devices=2", "trainer.progress=false", "trainer.threads=1",
            f"trainer.out={tmp_path / out}", *more,
        ]  # fmt: skip

    return make


def folder(tmp_path: Path, out: str) -> Path:
    (path,) = (tmp_path / out).glob("*/*")
    return path


def table(tmp_path: Path, out: str) -> PredictionTable:
    return PredictionTable.read_jsonl(folder(tmp_path, out) / "predictions.jsonl")


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def test_shared_out_weights_train_as_copies_do_and_resume(
    settings, tiny_recipe, tmp_path, serzoo, wait_until
):
    log = tmp_path / "log.txt"
    for out in ("ddp", "fsdp"):
        process = serzoo("train", tiny_recipe, *settings(out, f"trainer.strategy={out}"), log=log)
        assert process.wait(400) == 0, log.read_text()
    copied, shared = table(tmp_path, "ddp"), table(tmp_path, "fsdp")
    assert copied.ids == shared.ids
    assert_like(copied.scores, shared.scores, digits=3)
    one, two = (read_record(folder(tmp_path, out)) for out in ("ddp", "fsdp"))
    assert one.flops.keys() == {"training", "scoring"}
    assert two.flops == {}  # not counted where weights are shared out
    assert min(one.processor_seconds["fit"], two.processor_seconds["fit"]) > 0
    a, b = (
        torch.load(folder(tmp_path, out) / "checkpoints" / "last.ckpt", weights_only=True)
        for out in ("ddp", "fsdp")
    )
    assert a["state_dict"].keys() == b["state_dict"].keys()  # whole tensors, the same names
    for key, value in a["state_dict"].items():
        if "k_proj.bias" not in key:  # no effect on attention: its gradient is rounding alone
            assert torch.allclose(value, b["state_dict"][key], atol=1e-3), key

    last = "*/*/checkpoints/last.ckpt"
    arguments = settings("killed", "trainer.strategy=fsdp")
    process = serzoo("train", tiny_recipe, *arguments, log=log)
    wait_until(lambda: list((tmp_path / "killed").glob(last)), process)
    kill_group(process)
    assert serzoo("train", tiny_recipe, *arguments, log=log).wait(400) == 0, log.read_text()
    assert json.loads((folder(tmp_path, "killed") / "record.json").read_text())["resumed"]
    assert_like(table(tmp_path, "killed").scores, shared.scores)


def test_torchrun_launches_the_same_run(settings, tiny_recipe, tmp_path, serzoo, wait_until):
    """Processes that somebody else starts: torchrun, SLURM, Kubernetes."""
    scripts = Path(sysconfig.get_path("scripts"))
    log = tmp_path / "log.txt"
    assert serzoo("train", tiny_recipe, *settings("own"), log=log).wait(400) == 0, log.read_text()
    command = [
        "--standalone", "--nproc-per-node=2", "--no-python", str(scripts / "serzoo"), "train",
        tiny_recipe, *settings("torchrun"),
    ]  # fmt: skip
    process = serzoo(*command, log=log, script="torchrun")
    assert process.wait(400) == 0, log.read_text()
    own, other = table(tmp_path, "own"), table(tmp_path, "torchrun")
    assert own.ids == other.ids
    assert np.array_equal(own.scores, other.scores)
    assert json.loads((folder(tmp_path, "torchrun") / "record.json").read_text())["processes"] == 2


def second_rank(process) -> int | None:
    """Process id of rank 1 of a run, once it is there."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mine = os.getpgid(int(path.name)) == process.pid
            if mine and b"\0LOCAL_RANK=1\0" in b"\0" + (path / "environ").read_bytes():
                return int(path.name)
        except OSError:
            continue
    return None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find a rank")
def test_a_rank_that_dies_ends_the_run_with_a_message_and_a_restart_resumes(
    settings, tiny_recipe, tmp_path, serzoo, wait_until
):
    log = tmp_path / "log.txt"
    arguments = settings("lost", "optim.epochs=30")
    process = serzoo("train", tiny_recipe, *arguments, log=log)
    wait_until(lambda: list((tmp_path / "lost").glob("*/*/checkpoints/last.ckpt")), process)
    os.kill(second_rank(process), signal.SIGKILL)
    assert process.wait(120) != 0
    assert tells(log.read_text(), "goes on", "epoch")
    wait_until(lambda: second_rank(process) is None)
    assert not list((tmp_path / "lost").glob("*/*/record.json"))

    assert serzoo("train", tiny_recipe, *arguments, log=log).wait(400) == 0, log.read_text()
    assert json.loads((folder(tmp_path, "lost") / "record.json").read_text())["resumed"]
    shutil.rmtree(tmp_path / "lost")
