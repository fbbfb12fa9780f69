"""The pure functions of Gen-SER against values computed elsewhere, and their identities."""

from __future__ import annotations

import math

import pytest
import torch
from serzoo.heads.schedules import (
    bridge_std,
    decision_flips,
    gram,
    logistic_mean,
    ode_step,
    sinusoidal_codes,
)

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


@pytest.mark.parametrize("dim", [64, 128, 768])
def test_codes_have_one_norm(dim: int) -> None:
    norms = sinusoidal_codes(8, dim).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((8,), math.sqrt(dim / 2)))


def test_codes_equal_the_formula_element_by_element() -> None:
    codes = sinusoidal_codes(3, 6, spacing=10.0, base=100.0)
    for c in range(3):
        for i in range(3):
            angle = 10.0 * c * 100.0 ** (-2 * i / 6)
            assert codes[c, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert codes[c, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize(
    ("spacing", "cosine"), [(1.0, 0.973), (10.0, 0.680), (100.0, 0.437), (1000.0, 0.162)]
)
def test_cosine_of_neighbours(spacing: float, cosine: float) -> None:
    g = gram(sinusoidal_codes(8, 768, spacing))
    torch.testing.assert_close(g.diagonal(1), torch.full((7,), cosine), atol=6e-4, rtol=0)
    torch.testing.assert_close(g.diagonal(), torch.ones(8))


def test_gram_is_toeplitz() -> None:
    g = gram(sinusoidal_codes(6, 128, 100.0))
    torch.testing.assert_close(g[1:, 1:], g[:-1, :-1])


def test_order_permutes_the_codes() -> None:
    plain = sinusoidal_codes(4, 32)
    torch.testing.assert_close(sinusoidal_codes(4, 32, order=[2, 0, 3, 1]), plain[[2, 0, 3, 1]])


def test_bad_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="dim=5 must be even"):
        sinusoidal_codes(3, 5)
    with pytest.raises(ValueError, match="order has 2 positions for 3 classes"):
        sinusoidal_codes(3, 4, order=[0, 1])


@pytest.mark.parametrize(
    ("n", "spacing", "share"),
    [(4, 1.0, 0.42), (8, 1.0, 0.61), (4, 10.0, 0.03), (8, 10.0, 0.09), (8, 1000.0, 0.03)],
)
def test_share_of_wrong_decisions(n: int, spacing: float, share: float) -> None:
    state = torch.get_rng_state()
    assert decision_flips(sinusoidal_codes(n, 768, spacing)) == pytest.approx(share, abs=0.012)
    assert torch.equal(state, torch.get_rng_state())


def test_orthogonal_codes_never_flip_a_decision() -> None:
    assert decision_flips(torch.eye(5)) == 0


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
