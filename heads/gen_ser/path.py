"""The path of Gen-SER between a code and an utterance, and the sampler that follows it.

Time runs from 1, the utterance ``x_1``, to 0, the code ``x_0`` of its class::

    x_t = mu_t + sigma_t z,  mu_t = (1 - b_t) x_0 + b_t x_1,  z ~ N(0, I)

:class:`Path` gives the mean ``mu_t`` and the noise ``sigma_t``, which is 0 at both ends.
:class:`Sampler` goes from the utterance along the path to a generated code.

Two abstracts name a logistic mean schedule and a bridge variance schedule. They are Gen-SER's
(arXiv 2601.20573) and that of its predecessor, target matching for speech enhancement (arXiv
2509.07521). Their formulas and constants were not available to us. The formulas here are a
reconstruction and our choice, as are the other schedules. No number here is from the papers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

MeanName = Literal["logistic", "linear", "cosine"]
VarianceName = Literal["bridge", "constant", "zero"]
ObjectiveName = Literal["target", "flow", "score"]

TAPER = 0.05  # distance from an end within which constant noise falls to zero


def logistic_mean(t: Tensor, steepness: float) -> Tensor:
    """Return ``b_t``, the share of the utterance in the mean of the path.

    ``b_t = [s(k (t - 1/2)) - s(-k/2)] / [s(k/2) - s(-k/2)]`` with the logistic function ``s`` and
    steepness ``k``. The name is from the abstract of arXiv 2509.07521. The exact values
    ``b_0 = 0`` and ``b_1 = 1`` are our choice; without them ``b_0 = s(-k/2)`` is 0.076 at k = 5.

    Args:
        t: any shape, values in 0..1.
        steepness: ``k`` > 0; the smaller, the closer to the straight line ``b_t = t``.
    """
    low = 1 / (1 + math.exp(steepness / 2))
    return (torch.sigmoid(steepness * (t - 0.5)) - low) / (1 - 2 * low)


def bridge_std(t: Tensor, sigma_max: float) -> Tensor:
    """Return ``sigma_t = sigma_max sqrt(t (1 - t))``, noise that is 0 at both ends of the path.

    The name is from the abstract of arXiv 2509.07521; the Brownian-bridge form is our choice. The
    largest value, at t = 1/2, is ``sigma_max / 2``.

    Args:
        t: any shape, values in 0..1.
        sigma_max: scale of the noise, in units of a code's elements (which have RMS 0.71).
    """
    return sigma_max * (t * (1 - t)).clamp_min(0).sqrt()


def constant_std(t: Tensor, sigma_max: float) -> Tensor:
    """Return ``sigma_max / 2``, the bridge's largest value, but 0 at both ends.

    Within :data:`TAPER` of an end it falls like a bridge, ``sigma_max / 2 sqrt(t (1 - t) / (h (1 -
    h)))`` with the taper ``h``. With constant noise at the ends, the path would begin and end
    away from the utterance and the code. Our choice.

    Args:
        t: any shape, values in 0..1.
        sigma_max: twice the noise inside, so that all variances have the same scale.
    """
    inside = TAPER * (1 - TAPER)
    return sigma_max / 2 * ((t * (1 - t)).clamp(0, inside) / inside).sqrt()


@dataclass(frozen=True)
class Path:
    """The path from an utterance to a code, and the quantities that a network can predict on it.

    A network predicts the target ``x_0``, the velocity or the noise. The velocity is that of the
    flow that carries the path's marginals, ``u = (sigma'/sigma) (x_t - mu_t) + b' (x_1 - x_0)``.
    The noise is ``z = (x_t - mu_t) / sigma_t``; the score is ``-z / sigma_t``. Velocity and noise
    exist only between the ends. At a given state each quantity determines the others:
    :meth:`wanted` computes one from the target, and :meth:`end` is the inverse.

    Attributes:
        mean: ``logistic``, ``linear`` (``b_t = t``) or ``cosine`` (``b_t = sin^2(pi t / 2)``).
        variance: ``bridge``, ``constant`` or ``zero``.
        steepness: k of the logistic mean.
        sigma_max: scale of the noise; for both kinds the largest noise is half of it.
    """

    mean: MeanName = "logistic"
    variance: VarianceName = "bridge"
    steepness: float = 5.0
    sigma_max: float = 0.5

    @property
    def noisy(self) -> bool:
        """Whether the path has noise anywhere."""
        return self.variance != "zero" and self.sigma_max > 0

    def share(self, t: Tensor) -> Tensor:
        """Return ``b_t``, the share of the utterance: 0 at t = 0, 1 at t = 1."""
        if self.mean == "logistic":
            return logistic_mean(t, self.steepness)
        return t if self.mean == "linear" else (math.pi / 2 * t).sin().square()

    def slope(self, t: Tensor) -> Tensor:
        """Return ``b'_t``, the derivative of :meth:`share`."""
        if self.mean == "logistic":
            k = self.steepness
            s = torch.sigmoid(k * (t - 0.5))
            return k * s * (1 - s) / math.tanh(k / 4)
        return torch.ones_like(t) if self.mean == "linear" else math.pi / 2 * (math.pi * t).sin()

    def std(self, t: Tensor) -> Tensor:
        """Return ``sigma_t``, which is 0 at both ends."""
        if self.variance == "zero":
            return torch.zeros_like(t)
        return (bridge_std if self.variance == "bridge" else constant_std)(t, self.sigma_max)

    def rate(self, t: Tensor) -> Tensor:
        """Return ``sigma'_t / sigma_t`` between the ends; 0 if the path has no noise."""
        if not self.noisy:
            return torch.zeros_like(t)
        bridge = (1 - 2 * t) / (2 * t * (1 - t))
        if self.variance == "bridge":
            return bridge
        return torch.where(t * (1 - t) < TAPER * (1 - TAPER), bridge, 0.0)

    def at(self, x_0: Tensor, x_1: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Return ``x_t``, in the shape of the noise ``z``.

        ``t`` has the leading axes of ``z``; ``x_0`` and ``x_1`` broadcast to ``z``.
        """
        b = over(self.share(t), z)
        return (1 - b) * x_0 + b * x_1 + over(self.std(t), z) * z

    def wanted(
        self, objective: ObjectiveName, x_t: Tensor, x_0: Tensor, x_1: Tensor, t: Tensor
    ) -> Tensor:
        """Return what to predict at ``x_t``: target ``x_0``, velocity ``u`` or noise ``z``."""
        if objective == "target":
            return x_0.expand_as(x_t)
        b = over(self.share(t), x_t)
        deviation = x_t - (1 - b) * x_0 - b * x_1
        if objective == "score":
            return deviation / over(self.std(t), x_t)
        return over(self.rate(t), x_t) * deviation + over(self.slope(t), x_t) * (x_1 - x_0)

    def end(
        self, objective: ObjectiveName, given: Tensor, x_t: Tensor, x_1: Tensor, t: Tensor
    ) -> Tensor:
        """Return the target ``x_0`` that a prediction implies; inverse of :meth:`wanted`.

        ``x_0 = (r (x_t - b x_1) + b' x_1 - u) / (r (1 - b) + b')`` with the rate r for a velocity.
        The denominator is positive for every mean and variance here. For a noise,
        ``x_0 = (x_t - b x_1 - sigma z) / (1 - b)``. Both are derived.
        """
        if objective == "target":
            return given
        b = over(self.share(t), x_t)
        if objective == "score":
            return (x_t - b * x_1 - over(self.std(t), x_t) * given) / (1 - b)
        r, slope = over(self.rate(t), x_t), over(self.slope(t), x_t)
        return (r * (x_t - b * x_1) + slope * x_1 - given) / (r * (1 - b) + slope)


def over(value: Tensor, x: Tensor, last: int = 0) -> Tensor:
    """Return ``value``, which has the leading axes of ``x``, in a shape that multiplies ``x``.

    Args:
        value: the leading axes of ``x``, then ``last`` axes of its own.
        x: gives the number of axes.
        last: how many axes of ``value`` stay at its end.
    """
    for _ in range(x.dim() - value.dim()):
        value = value.unsqueeze(-1 - last)
    return value


def ode_step(x: Tensor, x0: Tensor, x1: Tensor, b: Tensor, b_next: Tensor, ratio: Tensor) -> Tensor:
    """Return the next state: a deterministic step along the path with a fixed estimate of its end.

    ``x_s = mu_s + (sigma_s / sigma_t) (x_t - mu_t)`` with ``mu_t = (1 - b_t) x_0 + b_t x_1``. This
    is the exact solution of the path's flow from t to s for a fixed ``x_0``. The reason is that
    ``(x_t - mu_t) / sigma_t`` is constant along it (derived, our choice).

    Args:
        x: ``[..., d]`` state at t.
        x0: ``[..., d]`` estimate of the code.
        x1: ``[..., d]`` the utterance.
        b: ``b_t``, scalar.
        b_next: ``b_s``, scalar.
        ratio: ``sigma_s / sigma_t``, scalar; 0 at t = 1, where both the noise and the deviation
            from the mean are 0.

    Returns:
        ``[..., d]`` state at s.
    """
    here = (1 - b) * x0 + b * x1
    there = (1 - b_next) * x0 + b_next * x1
    return there + ratio * (x - here)


def sde_step(x0: Tensor, x1: Tensor, b_next: Tensor, noise: Tensor) -> Tensor:
    """Return ``x_s = mu_s + sigma_s z'``: the mean under the estimate ``x0`` plus new noise.

    Args:
        x0: ``[..., d]`` estimate of the code.
        x1: ``[..., d]`` the utterance.
        b_next: ``b_s``, scalar.
        noise: ``sigma_s z'``, in a shape that broadcasts.
    """
    return (1 - b_next) * x0 + b_next * x1 + noise


SamplerName = Literal["ode", "sde"]
NOISE_PERIOD = 64  # number of frames after which the noise over frames repeats


class Sampler(nn.Module):
    """Goes from ``start`` to t = 0 in equal steps, each with a fixed estimate of the network.

    ``ode`` follows the path's flow exactly (:func:`serzoo.heads.gen_ser.path.ode_step`). With
    ``noise_draws`` its first step adds noise around the mean, and later steps keep it. ``sde``
    draws new noise around the mean in every step. The last step adds no noise, so a single step
    has none. The noise is one fixed table for all utterances, so scores are repeatable and do not
    depend on the batch. The generated codes are averaged over the draws. All of this is our
    choice.

    Args:
        path: the path between code and utterance.
        objective: what the network predicts.
        kind: ``ode`` or ``sde``.
        start: the first time; below 1 if the predicted quantity does not exist at 1.
        steps: number of steps, at least 1.
        noise_draws: K, number of samples to average; 0 for ``ode`` without noise.
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
        self.start = start
        self.steps = steps
        self.by_frames = by_frames
        noise = None
        if noise_draws and steps > 1 and path.noisy:
            drawn = steps - 1 if kind == "sde" else 1
            length = NOISE_PERIOD if by_frames else 1
            g = torch.Generator().manual_seed(0)
            noise = torch.randn(drawn, noise_draws, length, code_dim, generator=g)
        self.register_buffer("noise", noise, persistent=False)

    def noise_of(self, step: int, x_1: Tensor) -> Tensor | None:
        """Return the noise of this step, ``[K, 1, d]`` or ``[K, 1, T, d]``, or None."""
        if self.noise is None or step >= len(self.noise):
            return None
        if not self.by_frames:
            return self.noise[step]
        places = torch.arange(x_1.shape[1], device=x_1.device) % NOISE_PERIOD
        return self.noise[step][:, places].unsqueeze(1)

    def forward(self, network: nn.Module, x_1: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the generated codes of ``x_1``, in its shape: ``[B, d]``, or ``[B, T, d]``.

        Args:
            network: predicts the objective from state, utterance, time and mask.
            x_1: the utterances, or their frames.
            mask: ``[B, T]`` bool for frames, True = speech.
        """
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
            # At t = 1, or without noise, the state is the mean: there is no deviation to keep. This
            # does not look at values, so that it can be traced.
            ratio = torch.where(sigma[i] > 0, sigma[i + 1] / sigma[i].clamp_min(1e-30), 0.0)
            x = ode_step(x, x_0, x_1, b[i], b[i + 1], ratio)
        return x if x.dim() == x_1.dim() else x.mean(0)
