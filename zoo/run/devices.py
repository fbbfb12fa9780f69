"""Devices, precision, processes and memory: what a run needs, and what the machine has."""

from __future__ import annotations

import atexit
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy

from ..core.errors import ConfigError, ProcessError, counted, first_line
from .checkpoint import WholeFiles
from .schema import ALIASES, RunConfig

if TYPE_CHECKING:
    from .module import SERModule

CLUSTERS = (SLURMEnvironment, TorchElasticEnvironment, LSFEnvironment)


def device_of(cfg: RunConfig) -> torch.device:
    """Return the device of a run; the CPU if the device that it asks for is missing."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    wanted = cfg.trainer.accelerator
    if cuda and wanted in ("auto", "gpu", "cuda"):
        return torch.device("cuda", 0)
    if mps and wanted in ("auto", "gpu", "mps"):
        return torch.device("mps", 0)
    return torch.device("cpu")


def precision_of(cfg: RunConfig) -> str:
    """Return a run's precision; ``32-true`` if its device cannot compute in it."""
    wanted = ALIASES.get(cfg.trainer.precision, cfg.trainer.precision)
    return wanted if can(device_of(cfg), wanted) else "32-true"


def can(device: torch.device, precision: str) -> bool:
    """Return whether a device can compute in one of the known precisions.

    Args:
        device: any device.
        precision: one of :data:`serzoo.zoo.run.config.PRECISIONS`.
    """
    if device.type == "cuda" and precision.startswith("bf16"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not (device.type == "cpu" and precision.startswith("16"))


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def number_of(device: torch.device) -> int:
    """Return how many processes of a run fit a machine: one for each GPU, or each core."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return cores() if device.type == "cpu" else 1


def refused_devices(cfg: RunConfig) -> str | None:
    """Return why this machine lacks the devices that a run asks for; None if it has them."""
    t, device = cfg.trainer, device_of(cfg)
    if t.accelerator not in ("auto", "cpu") and device.type == "cpu":
        return (
            f"trainer.accelerator={t.accelerator}, but torch {torch.__version__} finds none here; "
            "set trainer.accelerator=auto, or install torch for this device"
        )
    number, kind = number_of(device), device.type
    if kind == "cpu":
        # a cluster has started the processes already, each on its own cores
        if t.devices > number and not any(cluster.detect() for cluster in CLUSTERS):
            return (
                f"trainer.devices={t.devices} on the CPU starts {t.devices} processes, but this "
                f"machine has {counted(number, 'core')} for them; set "
                f"trainer.devices={number}" + (" at most" if number > 1 else "")
            )
    elif t.devices > number:
        return (
            f"trainer.devices={t.devices}, but there {'is' if number == 1 else 'are'} {number} of "
            f"kind {kind}; set trainer.devices={number}"
        )
    if kind == "mps" and t.strategy == "fsdp":
        return "trainer.strategy=fsdp needs GPUs of kind cuda; set trainer.strategy=auto on mps"
    return None


def refused_precision(cfg: RunConfig) -> str | None:
    """Return why a run's device cannot compute in its precision; None if it can."""
    device, asked = device_of(cfg), cfg.trainer.precision
    if can(device, ALIASES.get(asked, asked)):
        return None
    if device.type == "cpu":
        return (
            f"trainer.precision={asked} is for GPUs, and this run is on the CPU, which cannot "
            "train in float16; set trainer.precision=bf16-mixed or 32-true"
        )
    return (
        f"trainer.precision={asked}, but {torch.cuda.get_device_name()} has no bfloat16; set "
        "trainer.precision=16-mixed or 32-true"
    )


def refuse_absent(cfg: RunConfig) -> None:
    """Refuse a run if this machine lacks its devices or its precision.

    ``serzoo config`` does not check this, so that a laptop can compose a run for a cluster.

    Raises:
        ConfigError: if something is missing. It says what there is, and what to set.
    """
    if found := [text for text in (refused_devices(cfg), refused_precision(cfg)) if text]:
        raise ConfigError("; ".join(found))


# Training by several processes.

STEPS = ("training_step", "validation_step", "test_step")


def strategy(cfg: RunConfig) -> Any:
    """Return the strategy of Lightning's trainer.

    ``ddp`` copies the model to every device. ``fsdp`` (FSDP2) shares weights, gradients and states
    of the optimiser out. It is for full tuning of encoders that do not fit one device.
    """
    t = cfg.trainer
    world = t.devices * t.num_nodes
    if world > 1:
        atexit.register(leave_processes)
    if t.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return "ddp" if world > 1 else "auto"


def leave_processes() -> None:
    """Close the connection to the other processes of a run, if there is one.

    Without it, PyTorch's gloo aborts one process in ten at its exit ("terminate called without an
    active exception"). Then `torchrun` reports a finished run as failed. A model wrapped for
    several processes keeps the connection open, so such models are collected first. Lightning
    closes the connection of NCCL alone.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def plugins() -> list[Any]:
    """Return Lightning's plugins: checkpoints are written whole, and on SLURM only after epochs.

    If SLURM ends a job, Lightning would save within an epoch, and go on with the epoch's first
    batches again. Our runs go on from the last whole epoch. So a requeued job only has to start the
    same command (docs/how-to/run-on-a-cluster.md has the script).
    """
    cluster = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return [WholeFiles(), *cluster]


def share_out(module: SERModule) -> None:
    """Shard a module's weights over the processes of its device mesh, block by block.

    Lightning calls the module's steps, and not ``forward``. They are registered, so that the
    weights of the outermost part are gathered for them.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = module.device_mesh
    assert mesh is not None
    data = mesh["data_parallel"]
    for parameter in module.parameters():  # FSDP refuses weights in channels-last order
        parameter.data = parameter.data.contiguous()
    family = getattr(module.encoder, "family", None)
    for block in family.blocks if family is not None else []:
        fully_shard(block, mesh=data)
    fully_shard(module, mesh=data)
    for step in STEPS:
        register_fsdp_forward_method(module, step)


@contextmanager
def explaining_lost_processes(world: int) -> Iterator[None]:
    """Turn the error that a lost process causes in the others into one that explains it.

    Args:
        world: number of processes.

    Raises:
        ProcessError: instead of the communication library's error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "Timed out waiting")
        if world == 1 or not any(sign in text for sign in lost):
            raise
        raise ProcessError(
            f"another of the {world} processes of this run is gone ({first_line(error)}); its "
            "last lines say why (most often: out of memory). Start the same command again: the "
            "run goes on from its last whole epoch"
        ) from error


# Memory that code needs, and that the machine has.

CGROUP = Path("/sys/fs/cgroup")


class PeakMemory:
    """Measure, as a context, by how much the memory in use grew at its peak.

    On CUDA this is the memory of the allocator. Elsewhere it is the resident size of the process,
    which is read every five milliseconds.

    Args:
        device: the memory of this device is measured.

    Attributes:
        growth: bytes, after the context has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.device, self.growth = device, 0

    @property
    def source(self) -> str:
        """The kind of measurement, in words."""
        return "CUDA's allocator" if self.cuda else "growth of the process' resident size"

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        self._before = self._peak = _resident()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.growth = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        self._ended.set()
        self._watcher.join()
        self.growth = max(self._peak, _resident()) - self._before


def _resident() -> int:
    """Return the resident size of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def available(device: torch.device) -> int:
    """Return the free bytes of a device, within the limit of a container."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # memory that the allocator keeps for later is free
        return int(torch.cuda.mem_get_info(device)[0])
    found = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # without a limit the file holds "max"
        limit = int((CGROUP / "memory.max").read_text())
        found = min(found, limit - int((CGROUP / "memory.current").read_text()))
    return max(0, found)
