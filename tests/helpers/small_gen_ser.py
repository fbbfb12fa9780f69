"""A small Gen-SER head, and batches that fit it."""

from __future__ import annotations

import torch
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.zoo.testing import Case

CASE = Case(GenSERHead, 12)


def head(**knobs: object) -> GenSERHead:
    """In evaluation mode, with the same weights each time."""
    torch.manual_seed(0)
    return GenSERHead(12, CASE.taxonomy, code_dim=32, width=48, **knobs).eval()  # type: ignore[arg-type]
