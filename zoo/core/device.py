"""The device of all that is not training."""

from __future__ import annotations

import torch


def first_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
