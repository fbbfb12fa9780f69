"""Which strategy a run gets, and what becomes of one that loses a process."""

from __future__ import annotations

import pytest
from facts import says
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from serzoo.zoo.core.errors import ConfigError, ProcessError
from serzoo.zoo.run import devices
from serzoo.zoo.run.checkpoint import WholeFiles
from serzoo.zoo.run.config import load


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], "auto"),
        (["trainer.devices=2"], "ddp"),
        (["trainer.num_nodes=2"], "ddp"),
        (["trainer.devices=2", "trainer.strategy=ddp"], "ddp"),
    ],
)
def test_one_process_needs_no_strategy_and_several_are_ddp(settings, expected):
    assert devices.strategy(load("synthetic", settings)) == expected


def test_fsdp_shards_over_all_processes_and_writes_whole_files():
    settings = ["trainer.devices=4", "trainer.num_nodes=2", "trainer.strategy=fsdp", "optim.ema=0"]
    made = devices.strategy(load("synthetic", settings))
    assert isinstance(made, ModelParallelStrategy)
    assert (made._data_parallel_size, made._tensor_parallel_size) == (8, 1)
    assert made._save_distributed_checkpoint is False


def test_fsdp_refuses_averaged_weights_and_unknown_strategies_are_named():
    with pytest.raises(
        ConfigError, match=says("optim.ema=0.99", "optim.ema=0", "trainer.strategy=ddp")
    ):
        devices.strategy(load("synthetic", ["trainer.strategy=fsdp", "optim.ema=0.99"]))
    with pytest.raises(ConfigError, match=says("trainer.strategy", "'dp'", "auto, ddp, fsdp")):
        load("synthetic", ["trainer.strategy=dp"])


def test_on_slurm_lightning_does_not_requeue_by_itself(monkeypatch):
    (files,) = devices.plugins()
    assert isinstance(files, WholeFiles)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    _, plugin = devices.plugins()
    assert isinstance(plugin, SLURMEnvironment)
    assert plugin.auto_requeue is False


def test_a_lost_process_is_told_and_other_errors_are_left_alone():
    closed = RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer")
    told = pytest.raises(ProcessError, match=says("3 processes", "epoch"))
    with told, devices.explaining_lost_processes(3):
        raise closed
    with (
        pytest.raises(RuntimeError, match=says("tcp/pair.cc:544")),
        devices.explaining_lost_processes(1),
    ):
        raise closed
    with pytest.raises(RuntimeError, match="shapes"), devices.explaining_lost_processes(3):
        raise RuntimeError("shapes do not match")
