"""The path against values computed elsewhere, and the identities that make it a path."""

from __future__ import annotations

import pytest
import torch
from serzoo.heads.gen_ser.path import (
    TAPER,
    Path,
    bridge_std,
    constant_std,
    logistic_mean,
    ode_step,
    sde_step,
)
from torch import Tensor

TENTHS = torch.arange(1, 10) / 10


@pytest.mark.parametrize(
    ("steepness", "values"),
    [
        (5.0, [0.051, 0.126, 0.228, 0.356, 0.5, 0.644, 0.772, 0.874, 0.949]),
        (10.0, [0.011, 0.041, 0.114, 0.266, 0.5, 0.734, 0.886, 0.959, 0.989]),
    ],
)
def test_logistic_mean_values(steepness: float, values: list[float]) -> None:
    torch.testing.assert_close(
        logistic_mean(TENTHS, steepness), torch.tensor(values), atol=6e-4, rtol=0
    )


@pytest.mark.parametrize("steepness", [0.1, 1.0, 5.0, 10.0, 30.0])
def test_logistic_mean_is_pinned_symmetric_and_increasing(steepness: float) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    b = logistic_mean(t, steepness)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(b[[0, -1]], ends, atol=1e-12, rtol=0)
    torch.testing.assert_close(b + b.flip(0), torch.ones_like(b))
    assert (b.diff() > 0).all()


def test_logistic_mean_tends_to_the_straight_line() -> None:
    torch.testing.assert_close(logistic_mean(TENTHS, 0.05), TENTHS, atol=1e-4, rtol=0)


def test_bridge_is_a_half_circle() -> None:
    got = bridge_std(torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0]), 0.5)
    torch.testing.assert_close(got, 0.5 * torch.tensor([0.0, 0.3, 0.5, 0.4, 0.0]))


def test_ode_step_follows_the_path_of_the_true_end() -> None:
    # with the true x_0, one step from t to s lands where the path is at s with the same noise
    g = torch.Generator().manual_seed(0)
    x_0, x_1, z = torch.randn(3, 4, 6, generator=g, dtype=torch.float64)
    t = torch.tensor([0.7, 0.2], dtype=torch.float64)
    b, sigma = logistic_mean(t, 5.0), bridge_std(t, 0.5)
    at = [(1 - b[i]) * x_0 + b[i] * x_1 + sigma[i] * z for i in range(2)]
    torch.testing.assert_close(ode_step(at[0], x_0, x_1, b[0], b[1], sigma[1] / sigma[0]), at[1])


def test_ode_step_solves_the_flow_equation() -> None:
    # dx/dt = (sigma'/sigma)(x - mu) + mu', integrated by many small Euler steps
    g = torch.Generator().manual_seed(1)
    x_0, x_1, x = torch.randn(3, 4, 6, generator=g, dtype=torch.float64)
    grid = torch.linspace(0.8, 0.3, 20001, dtype=torch.float64)
    b, sigma = logistic_mean(grid, 5.0), bridge_std(grid, 0.5)
    y = x.clone()
    for i in range(len(grid) - 1):
        mu, step = (1 - b[i]) * x_0 + b[i] * x_1, grid[i + 1] - grid[i]
        slope = (1 - 2 * grid[i]) / (2 * grid[i] * (1 - grid[i]))
        y += slope * (y - mu) * step + (b[i + 1] - b[i]) * (x_1 - x_0)
    want = ode_step(x, x_0, x_1, b[0], b[-1], sigma[-1] / sigma[0])
    torch.testing.assert_close(y, want, atol=1e-3, rtol=0)


MEANS, VARIANCES = ("logistic", "linear", "cosine"), ("bridge", "constant", "zero")
INSIDE = torch.tensor([0.01, 0.04, 0.3, 0.5, 0.77, 0.97, 0.99], dtype=torch.float64)


def paths() -> list[Path]:
    return [Path(mean, variance) for mean in MEANS for variance in VARIANCES]  # type: ignore[arg-type]


def triple(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """``x_0``, ``x_1`` of shape ``[2, 3]`` and ``z`` of ``[7, 2, 3]``, in float64."""
    g = torch.Generator().manual_seed(seed)
    x_0, x_1 = torch.randn(2, 2, 3, generator=g, dtype=torch.float64)
    return x_0, x_1, torch.randn(7, 2, 3, generator=g, dtype=torch.float64)


def test_constant_noise_and_its_taper() -> None:
    t = torch.tensor([0.0, TAPER / 2, TAPER, 0.5, 1 - TAPER, 1.0])
    taper = (TAPER / 2 * (1 - TAPER / 2) / (TAPER * (1 - TAPER))) ** 0.5
    want = 0.4 * torch.tensor([0.0, taper, 1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(constant_std(t, 0.8), want)


def test_variances_share_their_largest_value() -> None:
    t = torch.linspace(0, 1, 101)
    assert bridge_std(t, 0.6).max().item() == pytest.approx(0.3)
    assert constant_std(t, 0.6).max().item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("mean", "values"),
    [("linear", [0.0, 0.25, 0.5, 1.0]), ("cosine", [0.0, 0.1464466, 0.5, 1.0])],
)
def test_means_by_hand(mean: str, values: list[float]) -> None:
    got = Path(mean).share(torch.tensor([0.0, 0.25, 0.5, 1.0]))  # type: ignore[arg-type]
    torch.testing.assert_close(got, torch.tensor(values), atol=1e-6, rtol=0)


@pytest.mark.parametrize("path", paths(), ids=str)
def test_every_path_begins_at_the_utterance_and_ends_at_the_code(path: Path) -> None:
    x_0, x_1, z = triple()
    t = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    got = path.at(x_0, x_1, t, z[:2])
    torch.testing.assert_close(got, torch.stack([x_0, x_1]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("path", paths(), ids=str)
def test_velocity_is_the_derivative_of_the_path_at_fixed_noise(path: Path) -> None:
    x_0, x_1, z = triple()
    for t in INSIDE:
        now = t.clone().requires_grad_()
        slopes = [
            torch.autograd.grad(path.at(x_0, x_1, now, z)[i, j, k], now)[0]
            for i in range(2)
            for j in range(2)
            for k in range(3)
        ]
        x_t = path.at(x_0, x_1, t.expand(7, 2), z)
        got = path.wanted("flow", x_t, x_0, x_1, t.expand(7, 2))[:2]
        torch.testing.assert_close(got.flatten(), torch.stack(slopes))


@pytest.mark.parametrize("path", [p for p in paths() if p.noisy], ids=str)
def test_noise_is_the_score_of_the_state_times_its_deviation(path: Path) -> None:
    x_0, x_1, z = triple()
    t = INSIDE.unsqueeze(1).expand(7, 2)
    x_t = path.at(x_0, x_1, t, z).requires_grad_()
    b, sigma = path.share(t).unsqueeze(-1), path.std(t).unsqueeze(-1)
    density = torch.distributions.Normal((1 - b) * x_0 + b * x_1, sigma).log_prob(x_t)
    (score,) = torch.autograd.grad(density.sum(), x_t)
    got = path.wanted("score", x_t, x_0, x_1, t)
    torch.testing.assert_close(got, z)
    torch.testing.assert_close(got, -sigma * score)


@pytest.mark.parametrize("objective", ["target", "flow", "score"])
@pytest.mark.parametrize("path", paths(), ids=str)
def test_from_the_target_and_back(path: Path, objective: str) -> None:
    if objective == "score" and not path.noisy:
        return  # refused by the head: there is nothing to predict
    x_0, x_1, z = triple()
    t = INSIDE.unsqueeze(1).expand(7, 2)
    for x_t in (path.at(x_0, x_1, t, z), x_1.expand(7, 2, 3)):  # and the sampler's first state
        given = path.wanted(objective, x_t, x_0, x_1, t)  # type: ignore[arg-type]
        back = path.end(objective, given, x_t, x_1, t)  # type: ignore[arg-type]
        torch.testing.assert_close(back, x_0.expand_as(x_t))


@pytest.mark.parametrize("steepness", [0.5, 5.0, 30.0])
@pytest.mark.parametrize("path", paths(), ids=str)
def test_a_velocity_determines_the_target_everywhere(path: Path, steepness: float) -> None:
    path = Path(path.mean, path.variance, steepness)
    t = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert (path.rate(t) * (1 - path.share(t)) + path.slope(t)).min() > 0


def test_sde_step_is_the_mean_and_the_noise_given() -> None:
    x_0, x_1, z = triple()
    got = sde_step(x_0, x_1, torch.tensor(0.25), 0.1 * z)
    torch.testing.assert_close(got, 0.75 * x_0 + 0.25 * x_1 + 0.1 * z)
