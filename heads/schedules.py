"""The pure functions of Gen-SER: class codes, and the path between a code and an utterance.

Established by the abstracts of Gen-SER (arXiv 2601.20573) and of its predecessor, target matching
for speech enhancement (arXiv 2509.07521): sinusoidal taxonomy encoding, a logistic mean schedule
and a bridge variance schedule. Their formulas and constants were not available to us; those below
are a reconstruction, our choice, and no number here is the papers'.

Time runs from 1, the utterance ``x_1``, to 0, the code ``x_0`` of its class::

    x_t = (1 - b_t) x_0 + b_t x_1 + sigma_t z,    z ~ N(0, I)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def sinusoidal_codes(
    n_classes: int,
    dim: int,
    spacing: float = 1000.0,
    base: float = 10000.0,
    order: Sequence[int] | None = None,
) -> Tensor:
    """Codes of the classes: sinusoidal position encodings, far enough apart to be told apart.

    ``PE(p)[2i] = sin(p w_i)``, ``PE(p)[2i + 1] = cos(p w_i)``, ``w_i = base^(-2i / dim)`` at the
    position ``p_c = spacing * order[c]``. Every code has the norm ``sqrt(dim / 2)``. "Sinusoidal
    taxonomy encoding" is the abstract's (arXiv 2601.20573); the formula is that of Vaswani et al.
    (2017), and positions and spacing are our choice. Neighbours at spacing 1 have a cosine of
    0.97, and then the classes at the ends of the list are hardly ever decided for
    (:func:`decision_flips`).

    Args:
        n_classes: ``C``, at least 1.
        dim: width of a code, even.
        spacing: distance of neighbouring positions, > 0.
        base: ratio of the longest to the shortest wavelength.
        order: position of each class in units of ``spacing``; 0, 1, 2, ... by default.

    Returns:
        ``[C, dim]`` float32.

    Raises:
        ValueError: for an odd width or an order of the wrong length.
    """
    if dim % 2 or dim < 2:
        raise ValueError(f"a sinusoidal code pairs sine and cosine: dim={dim} must be even")
    places = list(range(n_classes)) if order is None else list(order)
    if len(places) != n_classes:
        raise ValueError(f"order has {len(places)} positions for {n_classes} classes")
    # float64: at position 7000 a float32 angle would already be wrong in the fourth digit
    omega = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = spacing * torch.tensor(places, dtype=torch.float64).unsqueeze(1) * omega
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()


def logistic_mean(t: Tensor, steepness: float) -> Tensor:
    """``b_t``, the share of the utterance in the mean of the path.

    ``b_t = [s(k (t - 1/2)) - s(-k/2)] / [s(k/2) - s(-k/2)]`` with the logistic function ``s`` and
    steepness ``k``. The name is from the abstract of arXiv 2509.07521; pinning it exactly to
    ``b_0 = 0`` and ``b_1 = 1`` is our choice (un-pinned, ``b_0 = s(-k/2)`` is 0.076 at k = 5).

    Args:
        t: any shape, values in 0..1.
        steepness: ``k`` > 0; the smaller, the closer to the straight line ``b_t = t``.
    """
    low = 1 / (1 + math.exp(steepness / 2))
    return (torch.sigmoid(steepness * (t - 0.5)) - low) / (1 - 2 * low)


def bridge_std(t: Tensor, sigma_max: float) -> Tensor:
    """``sigma_t = sigma_max sqrt(t (1 - t))``: noise that vanishes at both ends of the path.

    The name is from the abstract of arXiv 2509.07521; the Brownian-bridge form is our choice. The
    largest value, at t = 1/2, is ``sigma_max / 2``.

    Args:
        t: any shape, values in 0..1.
        sigma_max: scale of the noise, in units of a code's elements (which have RMS 0.71).
    """
    return sigma_max * (t * (1 - t)).clamp_min(0).sqrt()


def ode_step(x: Tensor, x0: Tensor, x1: Tensor, b: Tensor, b_next: Tensor, ratio: Tensor) -> Tensor:
    """One deterministic step along the path under a frozen estimate of its end.

    ``x_s = mu_s + (sigma_s / sigma_t) (x_t - mu_t)`` with ``mu_t = (1 - b_t) x_0 + b_t x_1``: the
    exact solution of the path's flow from t to s while ``x_0`` is held, because
    ``(x_t - mu_t) / sigma_t`` is constant along it (derived, our choice).

    Args:
        x: ``[B, d]`` state at t.
        x0: ``[B, d]`` estimate of the code.
        x1: ``[B, d]`` the utterance.
        b: ``b_t``, scalar.
        b_next: ``b_s``, scalar.
        ratio: ``sigma_s / sigma_t``, scalar; 0 at t = 1, where both the noise and the deviation
            from the mean are 0.

    Returns:
        ``[B, d]`` state at s.
    """
    here = (1 - b) * x0 + b * x1
    there = (1 - b_next) * x0 + b_next * x1
    return there + ratio * (x - here)


def gram(codes: Tensor) -> Tensor:
    """``[C, C]`` cosines between the codes ``[C, d]``."""
    unit = torch.nn.functional.normalize(codes.double(), dim=-1)
    return (unit @ unit.T).float()


def decision_flips(codes: Tensor, draws: int = 20_000, seed: int = 0) -> float:
    """How often the nearest code to the expected code is not that of the likeliest class.

    A network trained by squared error predicts at best the posterior mean ``sum_c p_c e_c``, so
    the decision by similarity is ``argmax_c (G p)_c`` with the Gram matrix ``G``: right for every
    ``p`` only if all codes are equally far apart. Derived; measured here on posteriors drawn from
    a symmetric Dirichlet(1/2), our choice.

    Args:
        codes: ``[C, d]``, of equal norm.
        draws: number of posteriors.
        seed: of the draws; torch's global random numbers are not used.

    Returns:
        Share in 0..1.
    """
    g = torch.Generator().manual_seed(seed)
    # a Gamma(1/2) variable is half a squared normal one, and normalised Gammas are Dirichlet
    p = torch.randn(draws, len(codes), generator=g).square()
    p = p / p.sum(-1, keepdim=True)
    flipped = (p @ gram(codes).cpu()).argmax(-1) != p.argmax(-1)
    return flipped.float().mean().item()
