"""The sampler against the path's closed form, with and without noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from close import assert_like
from serzoo.heads.gen_ser.codes import gram
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.heads.gen_ser.path import bridge_std, logistic_mean
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.onnx import export, parity
from small_gen_ser import CASE, head
from torch import Tensor, nn


class Exact(nn.Module):
    """A network that knows the code, and gives what the objective asks for."""

    def __init__(self, h: GenSERHead, code: Tensor) -> None:
        super().__init__()
        self.path, self.objective, self.code = h.path, h.objective, code

    def forward(self, x_t: Tensor, x_1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.path.wanted(self.objective, x_t, self.code, x_1, t)  # type: ignore[arg-type]


class Recorder(Exact):
    """Keeps the states and times that it was asked at."""

    def __init__(self, h: GenSERHead, code: Tensor) -> None:
        super().__init__(h, code)
        self.states: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, x_1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        self.states.append((x_t, t))
        return super().forward(x_t, x_1, t)


def test_a_single_step_is_one_evaluation_at_the_source() -> None:
    h = head(steps=1)
    x_1 = h.source(CASE.frames())
    assert_like(h.estimate(x_1), h.at_source(x_1), digits=5)


def test_sampler_of_two_steps_by_hand() -> None:
    h = head(steps=2)
    x_1 = h.source(CASE.frames())
    first = h.at_source(x_1)
    middle = 0.5 * first + 0.5 * x_1  # b = 1/2 at t = 1/2, without noise
    last = h.network(middle, x_1, torch.full((4,), 0.5))
    assert_like(h.estimate(x_1), last, digits=5)
    assert (last - first).abs().max() > 1e-4


def test_sampler_of_three_steps_carries_the_deviation_on() -> None:
    h = head(steps=3)
    x_1 = h.source(CASE.frames())
    t = torch.tensor([1.0, 2 / 3, 1 / 3, 0.0])
    b, sigma = logistic_mean(t, 5.0), bridge_std(t, 0.5)
    x = x_1
    for i in range(3):
        x_0 = h.network(x, x_1, t[i].expand(4))
        noise = (x - (1 - b[i]) * x_0 - b[i] * x_1) / sigma[i] if i else torch.zeros_like(x)
        x = (1 - b[i + 1]) * x_0 + b[i + 1] * x_1 + sigma[i + 1] * noise
    assert_like(h.estimate(x_1), x, digits=5)


def test_no_noise_at_all_is_allowed() -> None:
    h = head(sigma_max=0.0, steps=4)
    assert h.scores(CASE.frames(), CASE.taxonomy).isfinite().all()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("kind", ["ode", "noisy ode", "sde"])
@pytest.mark.parametrize("variance", ["bridge", "constant", "zero"])
@pytest.mark.parametrize("mean", ["logistic", "linear", "cosine"])
@pytest.mark.parametrize("objective", ["target", "flow", "score"])
def test_the_sampler_ends_where_an_exact_network_knows_the_end(
    objective: str, mean: str, variance: str, kind: str, steps: int
) -> None:
    if (objective, variance) == ("score", "zero"):
        return  # refused
    h = head(
        objective=objective, mean=mean, variance=variance, steps=steps,
        sampler=kind[-3:], noise_draws=0 if kind == "ode" else 3,
    )  # fmt: skip
    code, x_1 = torch.randn(32), h.source(CASE.frames())
    h.network = Exact(h, code)  # type: ignore[assignment]
    # in float32: at t = 0.99 of the cosine mean, a noise's rounding error is 200 times the end's
    torch.testing.assert_close(h.estimate(x_1), code.expand(4, -1), atol=5e-4, rtol=0)


@pytest.mark.parametrize("kind", ["ode", "noisy ode", "sde"])
def test_states_of_the_sampler_are_those_of_the_path(kind: str) -> None:
    h = head(steps=4, sampler=kind[-3:], noise_draws=0 if kind == "ode" else 2)
    code, x_1 = torch.randn(32), h.source(CASE.frames())
    h.network = seen = Recorder(h, code)  # type: ignore[assignment]
    h.estimate(x_1)
    table = h.sampler.noise
    assert (table is None) == (kind == "ode")
    for i, (x_t, t) in enumerate(seen.states[1:]):
        z = torch.zeros(1, 1, 32)
        if table is not None:
            assert table.shape == (3 if kind == "sde" else 1, 2, 1, 32)
            z = table[i if kind == "sde" else 0]  # the flow keeps its noise
        want = h.path.at(code, x_1, t, z.expand_as(x_t) if table is not None else x_t * 0)
        assert_like(x_t, want, digits=5)
        assert t.flatten()[0].item() == pytest.approx(0.75 - 0.25 * i)


def test_scores_with_noise_are_the_same_in_any_batch_and_order() -> None:
    h = head(sampler="sde", steps=3, noise_draws=4)
    frames = CASE.frames()
    s = h.scores(frames, CASE.taxonomy)
    order = [2, 0, 3, 1]
    mixed = h.scores(Frames(frames.x[order], frames.mask[order]), CASE.taxonomy)
    assert_like(mixed, s[order], digits=5)
    assert_like(
        head(sampler="sde", steps=3, noise_draws=4).scores(frames, CASE.taxonomy), s, digits=5
    )


def test_draws_are_averaged() -> None:
    h = head(sampler="sde", steps=2, noise_draws=3)
    x_1 = h.source(CASE.frames())
    table = h.sampler.noise
    assert table is not None
    each = []
    for k in range(3):
        h.sampler.noise = table[:, k : k + 1]
        each.append(h.estimate(x_1))
    h.sampler.noise = table
    assert (each[0] - each[1]).abs().max() > 1e-4
    assert_like(h.estimate(x_1), torch.stack(each).mean(0), digits=5)


def test_a_single_step_needs_no_draws() -> None:
    h = head(sampler="sde", noise_draws=8)
    x_1 = h.source(CASE.frames())
    assert h.sampler.noise is None
    assert_like(h.estimate(x_1), h.at_source(x_1), digits=5)


def test_times_of_the_sampler_and_a_velocity_starts_just_before_1() -> None:
    h = head(steps=4)
    h.network = seen = Recorder(h, torch.zeros(32))  # type: ignore[assignment]
    h.estimate(h.source(CASE.frames()))
    assert [t[0].item() for _, t in seen.states] == pytest.approx([1, 0.75, 0.5, 0.25])
    _, t = head(objective="flow")._states(torch.zeros(2, 32), torch.zeros(2, 32))
    assert t[-1].tolist() == pytest.approx([0.99, 0.99])
    h = head(objective="flow", steps=3)
    h.network = seen = Recorder(h, torch.zeros(32))  # type: ignore[assignment]
    h.estimate(h.source(CASE.frames()))
    assert [t[0].item() for _, t in seen.states] == pytest.approx([0.99, 0.66, 0.33])


def test_noise_over_frames_does_not_depend_on_their_number() -> None:
    h = head(state="frames", sampler="sde", steps=2, noise_draws=2)
    long, short = (h.sampler.noise_of(0, torch.zeros(1, n, 32)) for n in (70, 9))
    assert long is not None
    assert short is not None
    assert torch.equal(long[:, :, :9], short)
    assert torch.equal(long[:, :, 64:], long[:, :, :6])
    assert not torch.equal(long[:, :, 0], long[:, :, 1])


@pytest.mark.parametrize("objective", ["target", "flow", "score"])
def test_an_exact_network_has_no_loss_and_any_other_has(objective: str) -> None:
    h, frames = head(objective=objective), CASE.frames()
    same = Targets(torch.eye(5)[[2, 2, 2, 2]], torch.ones(4))
    h.network = Exact(h, h.get_buffer("codes")[2])  # type: ignore[assignment]
    out = h.loss(frames, same)
    assert out.loss.item() < 1e-8
    assert out.extras["cosine"].item() == pytest.approx(1, abs=1e-4)
    h.network = Exact(h, h.get_buffer("codes")[3])  # type: ignore[assignment]
    out = h.loss(frames, same)
    assert out.loss.item() > 1e-4
    cosine = gram(h.get_buffer("codes"))[2, 3].item()
    assert out.extras["cosine"].item() == pytest.approx(cosine, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "knobs",
    [
        {"sampler": "sde", "steps": 3, "noise_draws": 2, "decision": "gram", "standardise": True},
        {
            "state": "frames",
            "network": "transformer",
            "sampler": "sde",
            "steps": 2,
            "noise_draws": 2,
        },
        {"objective": "ce"},
    ],
    ids=str,
)
def test_every_way_can_be_exported(knobs: dict[str, object], tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    encoder = LogMelEncoder(widths=(4, 8, 8, 8), dim=12)
    module = SERModule(encoder, head(**knobs)).eval()
    assert parity(module, export(module, tmp_path / "model.onnx")) < 1e-4
