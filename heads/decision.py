"""From a generated code to a score per class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

DecisionName = Literal["cosine", "gram", "nearest"]

TEMPERATURE = 0.2  # of the similarities; where calibration matters, a run fits its own on top


def similarity(decision: DecisionName, generated: Tensor, codes: Tensor) -> Tensor:
    """Scores of the classes, ``[B, C]`` float32.

    - ``cosine``: ``cos(x, e_c) / 0.2``. "Similarity" is the abstract's word (arXiv 2601.20573).
    - ``nearest``: ``-||x - e_c||^2 / (2 r^2) / 0.2`` with the norm r of the codes. All codes have
      it, so this ranks as cosine and dot product do, and where x has it too, it differs from the
      cosine by a constant: only the probabilities of short and long x differ.
    - ``gram``: ``p_c / 0.2`` with the shares ``p = G^-1 E x`` of the codes in x. A network trained
      by squared error gives ``sum_c p(c | x) e_c`` at best; this is its inverse, and decides for
      the likeliest class however alike the codes are. Errors of x grow with the condition of G.

    All scales are our choice; a run's fitted temperature is on top.

    Args:
        decision: one of the above.
        generated: ``x [B, d]``.
        codes: ``E [C, d]``; for ``gram`` what :func:`serzoo.heads.codes.dual` makes of it.
    """
    x, e = generated.float(), codes.float()
    if decision == "gram":
        # differences of large numbers where codes are alike: not in half precision
        with torch.autocast(x.device.type, enabled=False):
            return (x @ e.T) / TEMPERATURE
    if decision == "nearest":
        gaps = (x.unsqueeze(1) - e).square().sum(-1)
        return -gaps / (2 * e.square().sum(-1)) / TEMPERATURE
    cosine = nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(e, dim=-1).T
    return cosine.float() / TEMPERATURE
