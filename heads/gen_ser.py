"""Gen-SER: an utterance is transported to the code of its emotion.

After "When the generative model meets speech emotion recognition" (arXiv 2601.20573), of which the
abstract was available to us: emotion recognition as transport of an initial to a terminal
distribution, labels placed in a continuous space by sinusoidal taxonomy encoding, a generative
model trained by target matching, decision by similarity to the codes of the classes. Network,
constants, conditioning and sampler are not stated there and chosen here.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..zoo.errors import ConfigError
from ..zoo.head import Head
from ..zoo.taxonomy import Taxonomy
from ..zoo.types import Frames, HeadLoss, Targets
from .pooling import PooledEmbedding, PoolingName
from .schedules import (
    bridge_std,
    decision_flips,
    gram,
    logistic_mean,
    ode_step,
    sinusoidal_codes,
)

TEMPERATURE = 0.2  # of the similarities; where calibration matters, a run fits its own on top
TIME_EPSILON = 0.01  # t is drawn from (0.01, 0.99); the ends are not noisy
ALIKE = 0.5  # cosine of neighbouring codes from which on the decision suffers


class TransportNetwork(nn.Module):
    """``f(x_t, x_1, t)``, the estimate of the code ``x_0``: a residual MLP that knows the time.

    ``[x_t; x_1]`` enters a linear layer; each of ``depth`` blocks adds
    ``W_2 GELU(W_1 (LN(h) (1 + a(t)) + c(t)))``, adaptive layer normalisation by a sinusoidal
    embedding of t. ``x_1`` conditions every step, as in the predecessor (arXiv 2509.07521);
    the architecture is our choice. No gate starts at zero: the encoder below may learn from
    scratch through this network, and needs its gradient from the first step on.

    Args:
        code_dim: width of ``x_0``, ``x_t`` and ``x_1``.
        width: of the hidden layers.
        depth: number of residual blocks.
        dropout: inside the blocks, in training.
    """

    def __init__(self, code_dim: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * code_dim, width)
        self.time = nn.Sequential(nn.Linear(64, 64), nn.SiLU())
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth)
        )
        self.modulations = nn.ModuleList(nn.Linear(64, 2 * width) for _ in range(depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, code_dim))
        omega = torch.exp(-math.log(1000.0) * torch.arange(32) / 32)
        self.register_buffer("omega", omega, persistent=False)

    def forward(self, x_t: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        """``[..., d]``, ``[..., d]`` and times ``[...]`` to ``[..., d]``; float32."""
        angle = 100.0 * t.unsqueeze(-1) * self.get_buffer("omega")
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))
        h = self.enter(torch.cat([x_t, x_1], dim=-1))
        for norm, modulation, block in zip(self.norms, self.modulations, self.blocks, strict=True):
            scale, shift = modulation(time).chunk(2, dim=-1)
            h = h + block(norm(h) * (1 + scale) + shift)
        estimate: Tensor = self.leave(h)
        return estimate.float()


class CodeHead(Head):
    """What Gen-SER and its control share: codes, the way to ``x_1``, the network, the decision.

    ``x_1`` is the pooled utterance, projected to the width of the codes, layer-normalised without
    learned scale (so that the two ends of the path cannot collapse into each other by shrinking)
    and brought to the root mean square of the codes, ``1 / sqrt(2)``. The decision is
    ``cos(x_0_hat, e_c) / 0.2``; all codes have one norm, so that cosine, dot product and distance
    rank alike. Our choice throughout.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes; their order is the order of the codes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        code_dim: width of the codes, even.
        spacing: distance of neighbouring classes in the position encoding; below about 100 the
            codes are so alike that classes at the ends of the list suffer, and a warning says so.
        width: of the network's hidden layers.
        depth: number of its residual blocks.
        dropout: share dropped after pooling and inside the blocks, in training.
    """

    sizes: ClassVar[Mapping[str, int]] = {"width": 8}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName,
        code_dim: int,
        spacing: float,
        width: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__(dim, taxonomy)
        if code_dim < 2 or code_dim % 2 or spacing <= 0:
            raise ConfigError(
                f"code_dim={code_dim}, spacing={spacing}: a code pairs sine and cosine, so "
                "code_dim must be even and at least 2, and spacing must be above 0"
            )
        codes = sinusoidal_codes(len(taxonomy), code_dim, spacing)
        self.register_buffer("codes", codes)
        self.embed = PooledEmbedding(dim, pooling, dropout)
        self.project = nn.Linear(self.embed.width, code_dim)
        self.network = TransportNetwork(code_dim, width, depth, dropout)
        neighbours = gram(codes).diagonal(1).max().item()
        if neighbours > ALIKE:
            warnings.warn(
                f"codes of neighbouring classes have a cosine of {neighbours:.2f} at "
                f"spacing={spacing:g}; of random posteriors over these {len(taxonomy)} classes "
                f"{decision_flips(codes):.0%} are decided for a class that is not the likeliest; "
                "raise spacing (1000 gives about 0.16)",
                stacklevel=3,
            )

    def source(self, frames: Frames) -> Tensor:
        """``x_1``, ``[B, d]`` float32 of root mean square ``1 / sqrt(2)``."""
        projected: Tensor = self.project(self.embed(frames))
        return nn.functional.layer_norm(projected.float(), projected.shape[-1:]) * math.sqrt(0.5)

    def end(self, targets: Targets) -> Tensor:
        """``x_0``, ``[B, d]``: the code of the class, the expected code under a soft label.

        Under squared error the expected code and a drawn one have the same best prediction; the
        expected one has less noise. Zero for an unlabelled utterance, which has no weight.
        """
        p = targets.probs
        mean: Tensor = (p / p.sum(-1, keepdim=True).clamp_min(1e-6)) @ self.get_buffer("codes")
        return mean

    @staticmethod
    def error(estimate: Tensor, x_0: Tensor) -> Tensor:
        """``2 / d ||estimate - x_0||^2`` over the last axis: predicting zero for a code costs 1."""
        return 2 * (estimate - x_0).square().mean(-1)

    @abstractmethod
    def estimate(self, x_1: Tensor) -> Tensor:
        """``[B, d]`` utterances to ``[B, d]`` generated codes."""

    def at_source(self, x_1: Tensor) -> Tensor:
        """``f(x_1, x_1, 1)``: what a single step generates."""
        estimate: Tensor = self.network(x_1, x_1, x_1.new_ones(len(x_1)))
        return estimate

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        codes = self.get_buffer("codes")[self.columns(taxonomy)]
        generated = self.estimate(self.source(frames))
        cosine = (
            nn.functional.normalize(generated, dim=-1) @ nn.functional.normalize(codes, dim=-1).T
        )
        return cosine.float() / TEMPERATURE


class GenSERHead(CodeHead):
    """Target matching along a noisy path from the utterance to the code of its class.

    The path is ``x_t = (1 - b_t) x_0 + b_t x_1 + sigma_t z`` with a logistic mean and a bridge
    variance (:mod:`serzoo.heads.schedules`). Target matching predicts its end directly::

        L = w E ||f(x_1, x_1, 1) - x_0||^2 + (1 - w) E_{t, z} ||f(x_t, x_1, t) - x_0||^2

    with t uniform in (0.01, 0.99). That the target is the signal itself, without the stochastic
    part of score or flow matching, is from the abstracts (arXiv 2509.07521, 2601.20573). The
    first term is our choice: every sampler starts at t = 1, and a single-step one ends there, yet
    uniform times almost never visit it. With ``source_share=1`` the head is the control
    ``regress_codes``, with 0 it is target matching alone.

    The sampler takes ``steps`` equal steps from t = 1 to 0; each holds the current estimate and
    follows the path's flow exactly (:func:`serzoo.heads.schedules.ode_step`). It starts without
    noise and is deterministic (our choice).

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes; their order is the order of the codes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        code_dim: width of the codes, even.
        spacing: distance of neighbouring classes in the position encoding.
        steepness: k of the logistic mean, > 0.
        sigma_max: scale of the bridge's noise, in units of the codes' elements (RMS 0.71).
        steps: of the sampler; 1 is a single evaluation of the network.
        draws: times and noises drawn per utterance and training step.
        source_share: w above, 0 to 1.
        width: of the network's hidden layers.
        depth: number of its residual blocks.
        dropout: share dropped after pooling and inside the blocks, in training.
    """

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        code_dim: int = 128,
        spacing: float = 1000.0,
        steepness: float = 5.0,
        sigma_max: float = 0.5,
        steps: int = 1,
        draws: int = 3,
        source_share: float = 0.5,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            dim,
            taxonomy,
            pooling=pooling,
            code_dim=code_dim,
            spacing=spacing,
            width=width,
            depth=depth,
            dropout=dropout,
        )
        if steps < 1 or draws < 1 or not 0 <= source_share <= 1 or steepness <= 0 or sigma_max < 0:
            raise ConfigError(
                f"steps={steps}, draws={draws}, source_share={source_share}, "
                f"steepness={steepness}, sigma_max={sigma_max}: steps and draws must be at least "
                "1, source_share within 0..1, steepness above 0 and sigma_max not below 0"
            )
        self.steepness, self.sigma_max = steepness, sigma_max
        self.steps, self.draws, self.source_share = steps, draws, source_share

    def path(self, x_0: Tensor, x_1: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """``x_t`` at times ``[M, B]`` with noise ``[M, B, d]``: ``[M, B, d]``."""
        b = logistic_mean(t, self.steepness).unsqueeze(-1)
        return (1 - b) * x_0 + b * x_1 + bridge_std(t, self.sigma_max).unsqueeze(-1) * z

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        x_1, x_0 = self.source(frames), self.end(targets)
        t = x_1.new_empty(self.draws, len(x_1)).uniform_(TIME_EPSILON, 1 - TIME_EPSILON)
        x_t = self.path(x_0, x_1, t, torch.randn_like(x_1.expand(self.draws, -1, -1)))
        # one call of the network: the draws and, last, the source itself at t = 1
        x_t = torch.cat([x_t, x_1.unsqueeze(0)])
        t = torch.cat([t, torch.ones_like(t[:1])])
        estimate = self.network(x_t, x_1.expand_as(x_t), t)
        error = self.error(estimate, x_0)
        w = self.source_share
        matching, source = targets.average(error[:-1].mean(0)), targets.average(error[-1])
        cosine = targets.average(nn.functional.cosine_similarity(estimate[-1], x_0, dim=-1))
        extras = {"matching": matching, "source": source, "cosine": cosine}
        return HeadLoss(w * source + (1 - w) * matching, {k: v.detach() for k, v in extras.items()})

    def estimate(self, x_1: Tensor) -> Tensor:
        t = torch.linspace(1, 0, self.steps + 1, device=x_1.device)
        b, sigma = logistic_mean(t, self.steepness), bridge_std(t, self.sigma_max)
        x = x_1
        for i in range(self.steps):
            x_0 = self.network(x, x_1, t[i].expand(len(x_1)))
            # at t = 1 the state is its own mean, and at sigma_max = 0 always: nothing to carry on
            # (chosen without looking at the value, so that it can be traced)
            ratio = torch.where(sigma[i] > 0, sigma[i + 1] / sigma[i].clamp_min(1e-30), 0.0)
            x = ode_step(x, x_0, x_1, b[i], b[i + 1], ratio)
        return x
