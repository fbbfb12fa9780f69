"""Gen-SER's sampler: from the utterance along the path to a generated code."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .schedules import ObjectiveName, Path, ode_step, sde_step

SamplerName = Literal["ode", "sde"]
NOISE_PERIOD = 64  # frames after which a draw's noise over frames repeats


class Sampler(nn.Module):
    """Equal steps from ``start`` to t = 0, each with the network's current estimate held.

    ``ode`` follows the path's flow exactly (:func:`serzoo.heads.schedules.ode_step`); with
    ``noise_draws`` its first step puts noise around the mean, which it then carries along. ``sde``
    draws new noise around the mean in every step. The last step ends without noise, so that a
    single one has none. Noise is one fixed table, the same for every utterance, so that scores are
    repeatable and no matter of the batch; the codes generated over the draws are averaged. Our
    choice throughout.

    Args:
        path: between code and utterance.
        objective: what the network gives.
        kind: ``ode`` or ``sde``.
        start: the first time; below 1 where the network's answer does not exist at 1.
        steps: at least 1.
        noise_draws: K, samples to average; 0 for ``ode`` without noise.
        code_dim: width of the codes.
        by_frames: whether states are frames.
    """

    noise: Tensor | None

    def __init__(
        self,
        path: Path,
        objective: ObjectiveName,
        kind: SamplerName,
        *,
        start: float,
        steps: int,
        noise_draws: int,
        code_dim: int,
        by_frames: bool,
    ) -> None:
        super().__init__()
        self.path: Path = path
        self.objective: ObjectiveName = objective
        self.start, self.steps, self.by_frames = start, steps, by_frames
        noise = None
        if noise_draws and steps > 1 and path.noisy:
            drawn = steps - 1 if kind == "sde" else 1
            length = NOISE_PERIOD if by_frames else 1
            g = torch.Generator().manual_seed(0)
            noise = torch.randn(drawn, noise_draws, length, code_dim, generator=g)
        self.register_buffer("noise", noise, persistent=False)

    def noise_of(self, step: int, x_1: Tensor) -> Tensor | None:
        """What is drawn in this step, ``[K, 1, d]`` or ``[K, 1, T, d]``; None for nothing."""
        if self.noise is None or step >= len(self.noise):
            return None
        if not self.by_frames:
            return self.noise[step]
        places = torch.arange(x_1.shape[1], device=x_1.device) % NOISE_PERIOD
        return self.noise[step][:, places].unsqueeze(1)

    def forward(self, network: nn.Module, x_1: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x_1``, ``[B, d]`` or ``[B, T, d]`` with a mask, to generated codes of its shape."""
        t = torch.linspace(self.start, 0, self.steps + 1, device=x_1.device)
        b, sigma = self.path.share(t), self.path.std(t)
        x = x_1
        for i in range(self.steps):
            now = t[i].expand(x.shape[: -2 if self.by_frames else -1])
            given = network(x, x_1.expand_as(x), now, mask)
            x_0 = self.path.end(self.objective, given, x, x_1, now)
            if (z := self.noise_of(i, x_1)) is not None:
                x = sde_step(x_0, x_1, b[i + 1], sigma[i + 1] * z)
                continue
            # at t = 1 the state is its own mean, and without noise always: nothing to carry on
            # (chosen without looking at the value, so that it can be traced)
            ratio = torch.where(sigma[i] > 0, sigma[i + 1] / sigma[i].clamp_min(1e-30), 0.0)
            x = ode_step(x, x_0, x_1, b[i], b[i + 1], ratio)
        return x if x.dim() == x_1.dim() else x.mean(0)
