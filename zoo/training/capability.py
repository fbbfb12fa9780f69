"""What a run asks of the machine: a device and a precision, and whether they are there."""

from __future__ import annotations

import os

import torch
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ..config import RunConfig
from ..errors import ConfigError
from ..schema import ALIASES

CLUSTERS = (SLURMEnvironment, TorchElasticEnvironment, LSFEnvironment)


def device_of(cfg: RunConfig) -> torch.device:
    """What a run would compute on; the CPU where what it asks for is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    wanted = cfg.trainer.accelerator
    if cuda and wanted in ("auto", "gpu", "cuda"):
        return torch.device("cuda", 0)
    if mps and wanted in ("auto", "gpu", "mps"):
        return torch.device("mps", 0)
    return torch.device("cpu")


def precision_of(cfg: RunConfig) -> str:
    """The precision asked for, or ``32-true`` where the device cannot compute in it."""
    wanted = ALIASES.get(cfg.trainer.precision, cfg.trainer.precision)
    return wanted if can(device_of(cfg), wanted) else "32-true"


def can(device: torch.device, precision: str) -> bool:
    """Whether a device can compute in one of :data:`serzoo.zoo.schema.PRECISIONS`."""
    if device.type == "cuda" and precision.startswith("bf16"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not (device.type == "cpu" and precision.startswith("16"))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def number_of(device: torch.device) -> int:
    """Processes of a run that one machine has room for: one for each GPU, or each core."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return cores() if device.type == "cpu" else 1


def refused_devices(cfg: RunConfig) -> str | None:
    """Why the devices that a run asks for are not to be had here; None where they are."""
    t, device = cfg.trainer, device_of(cfg)
    if t.accelerator not in ("auto", "cpu") and device.type == "cpu":
        return (
            f"trainer.accelerator={t.accelerator}, but torch {torch.__version__} finds none here; "
            "set trainer.accelerator=auto, or install torch for this device"
        )
    number, kind = number_of(device), device.type
    if kind == "cpu":
        # what a cluster starts is already there, each process on cores of its own
        if t.devices > number and not any(cluster.detect() for cluster in CLUSTERS):
            return (
                f"trainer.devices={t.devices} on the CPU starts {t.devices} processes, but this "
                f"machine has {number} core{'s' if number > 1 else ''} for them; set "
                f"trainer.devices={number}" + (" at most" if number > 1 else "")
            )
    elif t.devices > number:
        return (
            f"trainer.devices={t.devices}, but there {'is' if number == 1 else 'are'} {number} of "
            f"kind {kind}; set trainer.devices={number}"
        )
    if kind == "mps" and t.strategy == "fsdp":
        return "trainer.strategy=fsdp shares weights out over GPUs of kind cuda; set auto on mps"
    return None


def refused_precision(cfg: RunConfig) -> str | None:
    """Why the device of a run does not compute in the precision asked for; None where it does."""
    device, asked = device_of(cfg), cfg.trainer.precision
    if can(device, ALIASES.get(asked, asked)):
        return None
    if device.type == "cpu":
        return (
            f"trainer.precision={asked} is for GPUs, and this run is on the CPU, which has no "
            "float16 training; set trainer.precision=bf16-mixed or 32-true"
        )
    return (
        f"trainer.precision={asked}, but {torch.cuda.get_device_name()} has no bfloat16; set "
        "trainer.precision=16-mixed or 32-true"
    )


def refuse_absent(cfg: RunConfig) -> None:
    """Refuse a run that this machine cannot train as it is asked to.

    ``serzoo config`` does not ask: a run for a cluster may be composed on a laptop.

    Raises:
        ConfigError: with what was asked for, what there is, and what to set.
    """
    if found := [text for text in (refused_devices(cfg), refused_precision(cfg)) if text]:
        raise ConfigError("; ".join(found))
