"""What a run asks of the machine: a device and a precision, and whether they are there."""

from __future__ import annotations

import torch

from ..config import RunConfig

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
ALIASES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}


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
    """The precision asked for, or ``32-true`` where it is unknown or the device cannot compute."""
    wanted = ALIASES.get(cfg.trainer.precision, cfg.trainer.precision)
    return wanted if can(device_of(cfg), wanted) else "32-true"


def can(device: torch.device, precision: str) -> bool:
    """Whether a device can compute in a precision of Lightning's."""
    if precision not in PRECISIONS:
        return False
    if device.type == "cuda" and precision.startswith("bf16"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not (device.type == "cpu" and precision.startswith("16"))
