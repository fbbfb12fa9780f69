"""Gen-SER: ends, states and loss against the formulas, and that it learns."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.gen_ser.codes import similarity
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.heads.gen_ser.networks import TransportNetwork
from serzoo.heads.gen_ser.path import bridge_std, logistic_mean
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.testing import check_head
from small_gen_ser import CASE, head
from torch import Tensor, nn


class Fixed(nn.Module):
    """A network that answers the same code for every state and time, and counts its calls."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.times: list[float] = []

    def forward(self, x_t: Tensor, x_1: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        self.times.append(t.flatten()[0].item())
        return self.answer.expand_as(x_t)


def test_source_has_the_root_mean_square_of_the_codes() -> None:
    h = head()
    x_1 = h.source(CASE.frames())
    torch.testing.assert_close(x_1.square().mean(1), torch.full((4,), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(h.get_buffer("codes").square().mean(1), torch.full((5,), 0.5))


def test_end_is_the_code_or_the_expected_code() -> None:
    h = head()
    codes = h.get_buffer("codes")
    probs = torch.tensor([[0, 1.0, 0, 0, 0], [0.5, 0, 0.5, 0, 0], [1.0, 0, 1.0, 0, 0], [0.0] * 5])
    mean = (codes[0] + codes[2]) / 2
    assert_like(
        h.end(Targets(probs, torch.ones(4))),
        torch.stack([codes[1], mean, mean, torch.zeros(32)]),
        digits=5,
    )


def test_predicting_zero_costs_one_and_the_code_costs_nothing() -> None:
    h, frames, targets = head(), CASE.frames(), CASE.targets()
    h.network = Fixed(torch.zeros(32))  # type: ignore[assignment]
    assert h.loss(frames, targets).loss.item() == pytest.approx(1.0, abs=1e-5)
    same = Targets(torch.eye(5)[[2, 2, 2, 2]], torch.ones(4))
    h.network = Fixed(h.get_buffer("codes")[2])  # type: ignore[assignment]
    out = h.loss(frames, same)
    assert out.loss.item() == 0
    assert out.extras["cosine"].item() == pytest.approx(1.0)


def test_path_by_hand() -> None:
    h = head(sigma_max=0.8, steepness=10.0)
    x_0, x_1, z = torch.tensor([[2.0]]), torch.tensor([[-1.0]]), torch.ones(3, 1, 1)
    got = h.path.at(x_0, x_1, torch.tensor([[0.0], [0.2], [1.0]]), z).flatten()
    # b(0.2) = 0.0413 at k = 10, sigma(0.2) = 0.8 * 0.4
    torch.testing.assert_close(
        got, torch.tensor([2.0, 2 - 3 * 0.0413 + 0.32, -1.0]), atol=5e-4, rtol=0
    )


def test_loss_is_the_formula_with_the_draws_of_the_seed() -> None:
    h, frames = head(source_share=0.3, draws=2), CASE.frames()
    targets = Targets(CASE.targets().probs, torch.tensor([1.0, 0.0, 2.0, 0.5]))
    torch.manual_seed(5)
    got = h.loss(frames, targets).loss
    torch.manual_seed(5)
    t, z = torch.empty(2, 4).uniform_(0.01, 0.99), torch.randn(2, 4, 32)
    x_1, x_0, want = h.source(frames), h.end(targets), torch.zeros(())
    for i, w in enumerate(targets.weight / targets.weight.sum()):
        error = lambda x, s, i=i: 2 / 32 * (h.network(x, x_1[i], s) - x_0[i]).square().sum()  # noqa: E731
        along = torch.zeros(())
        for m in range(2):
            b, sigma = logistic_mean(t[m, i], 5.0), bridge_std(t[m, i], 0.5)
            x_t = (1 - b) * x_0[i] + b * x_1[i] + sigma * z[m, i]
            along = along + error(x_t, t[m, i]) / 2
        want = want + w * (0.3 * error(x_1[i], torch.ones(())) + 0.7 * along)
    assert_like(got, want, digits=5)


def test_alike_codes_warn_with_numbers() -> None:
    with pytest.warns(
        UserWarning,
        match=says("'angry'", "'happy'", "0.97", "spacing=1", "5 classes") + r"(?=.* 5\d% )",
    ):
        GenSERHead(12, CASE.taxonomy, spacing=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GenSERHead(12, CASE.taxonomy, spacing=100.0)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"code_dim": 7}, "code_dim=7"),
        ({"spacing": 0.0}, "spacing=0.0"),
        ({"steps": 0}, "steps=0"),
        ({"draws": 0}, "draws=0"),
        ({"source_share": 1.5}, "source_share=1.5"),
        ({"steepness": 0.0}, "steepness=0.0"),
        ({"sigma_max": -1.0}, "sigma_max=-1.0"),
        ({"code_steps": 0}, "code_steps=0"),
        ({"noise_draws": -1}, "noise_draws=-1"),
        ({"sampler": "sde"}, "noise_draws=0,.*sampler=sde"),
        ({"objective": "score", "variance": "zero"}, "variance=zero .* bridge .*constant"),
        ({"objective": "score", "sigma_max": 0.0}, r"sigma_max=0\b.*objective=flow"),
        ({"network": "transformer"}, "state=utterance .*state=frames"),
        (
            {"network": "transformer", "state": "frames", "width": 30},
            r"width=30 .* 4 .*network=transformer",
        ),
        ({"projection": False, "code_dim": 20}, "code_dim=20: .* 24 .*code_dim=24"),
        ({"projection": False, "state": "frames"}, "code_dim=128: .* 12 .*code_dim=12"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenSERHead(12, CASE.taxonomy, **knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "knobs",
    [
        {"steps": 4},
        {"source_share": 0.0, "draws": 1},
        {"state": "frames"},
        {"objective": "ce", "state": "frames", "network": "transformer"},
        {"projection": False, "code_dim": 24, "standardise": True, "times": "logit_normal"},
        {"codes": "learned", "code_steps": 1, "objective": "flow", "mean": "cosine"},
        {"objective": "score", "decision": "nearest", "variance": "constant", "steps": 3},
    ],
    ids=str,
)
def test_variants_keep_the_contract(knobs: dict[str, object]) -> None:
    check_head(GenSERHead, **{"dim": 12, "code_dim": 32, "width": 32, **knobs})  # type: ignore[arg-type]


def test_the_network_uses_state_source_and_time() -> None:
    torch.manual_seed(0)
    f = TransportNetwork(8, 16, 2, 0.0)
    x, y, t = torch.randn(3, 8), torch.randn(3, 8), torch.tensor([0.1, 0.5, 0.9])
    base = f(x, y, t)
    assert base.shape == (3, 8)
    for other in (f(x + 1, y, t), f(x, y + 1, t), f(x, y, t + 0.05)):
        assert (other - base).abs().max() > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_gradient_reaches_the_frames_from_the_first_step(share: float) -> None:
    h = head(source_share=share).train()
    frames = CASE.frames()
    x = frames.x.clone().requires_grad_()
    torch.manual_seed(1)
    h.loss(Frames(x, frames.mask), CASE.targets()).loss.backward()
    assert x.grad is not None
    # per utterance, against 1.0 for the loss itself: small would mean a gate that starts shut
    assert (x.grad.flatten(1).norm(dim=1) > 1e-3).all()


def test_it_is_small() -> None:
    h = GenSERHead(192, Taxonomy.load("big4"))
    assert sum(p.numel() for p in h.parameters()) < 1_000_000


def test_it_learns_together_with_an_encoder() -> None:
    torch.manual_seed(0)
    C, n = 4, 128
    tax = Taxonomy.of(["angry", "happy", "neutral", "sad"])
    centres = torch.randn(C, 10)
    mask = torch.arange(12) < torch.randint(3, 13, (2 * n, 1))
    y = torch.arange(2 * n) % C
    x = centres[y].unsqueeze(1) + 1.5 * torch.randn(2 * n, 12, 10)
    encoder = nn.Sequential(nn.Linear(10, 24), nn.GELU(), nn.Linear(24, 24))
    h = GenSERHead(24, tax, code_dim=32, width=64, dropout=0.0)
    optimiser = torch.optim.Adam([*encoder.parameters(), *h.parameters()], lr=3e-3)
    for _ in range(15):
        for rows in torch.randperm(n).split(32):
            optimiser.zero_grad()
            frames = Frames(encoder(x[rows]), mask[rows])
            h.loss(frames, Targets(torch.eye(C)[y[rows]], torch.ones(len(rows)))).loss.backward()
            optimiser.step()
    h.eval()
    with torch.no_grad():
        s = h.scores(Frames(encoder(x[n:]), mask[n:]), tax)
    assert (s.argmax(1) == y[n:]).float().mean() > 0.9
    assert torch.nn.functional.cross_entropy(s, y[n:]) < 0.5 * math.log(C)


def test_times_of_training() -> None:
    h = head(times="logit_normal", draws=4000)
    x_1 = torch.zeros(2, 32)
    torch.manual_seed(0)
    _, t = h._states(x_1, x_1)
    assert (t[-1] == 1).all()
    logits = t[:-1].logit()
    assert logits.mean().abs() < 0.05
    assert logits.std().item() == pytest.approx(1, abs=0.05)
    _, t = head(draws=4000)._states(x_1, x_1)
    assert t[:-1].std().item() == pytest.approx(0.98 / 12**0.5, abs=0.01)


def test_the_control_is_a_linear_readout_of_the_same_network() -> None:
    h, frames, targets = head(objective="ce"), CASE.frames(), CASE.targets()
    x_1 = h.source(frames)
    z = h.readout(h.network(x_1, x_1, torch.ones(4)))
    want = nn.functional.cross_entropy(z, torch.arange(4))
    assert_like(h.loss(frames, targets).loss, want, digits=5)
    assert_like(h.scores(frames, CASE.taxonomy), z, digits=5)
    ours, theirs = dict(h.named_parameters()), dict(head().named_parameters())
    assert set(ours) - set(theirs) == {"readout.weight", "readout.bias"}
    assert all(torch.equal(ours[k], v) for k, v in theirs.items())  # and starts from its weights


def test_frames_are_transported_each_and_averaged() -> None:
    h = head(state="frames", steps=2)
    frames = CASE.frames()
    x_1 = h.source(frames)
    assert x_1.shape == (4, 14, 32)
    generated = h.estimate(x_1, frames.mask)
    alone = torch.stack([generated[i, : frames.mask[i].sum()].mean(0) for i in range(4)])
    want = similarity("cosine", alone, h.get_buffer("codes"))
    assert_like(h.scores(frames, CASE.taxonomy), want, digits=5)
    # the network sees each frame by itself: frame 3 of utterance 0 as an utterance of one frame
    one = h.estimate(x_1[:1, 3:4], frames.mask[:1, 3:4])
    assert_like(one[0, 0], generated[0, 3], digits=5)


def test_the_loss_over_frames_is_the_mean_over_speech() -> None:
    h, frames, targets = head(state="frames", source_share=1.0), CASE.frames(), CASE.targets()
    x_1, codes = h.source(frames), h.get_buffer("codes")
    want = torch.zeros(())
    for i in range(4):
        n = int(frames.mask[i].sum())
        given = h.network(x_1[i : i + 1, :n], x_1[i : i + 1, :n], torch.ones(1))[0]
        want = want + (given - codes[i]).square().sum(1).mean() / 16 / 4
    assert_like(h.loss(frames, targets).loss, want, digits=5)


def test_scores_are_cosines_over_the_temperature() -> None:
    h = head()
    h.network = Fixed(3 * h.get_buffer("codes")[1])  # type: ignore[assignment]
    s = h.scores(CASE.frames(), CASE.taxonomy)
    assert s[0, 1].item() == pytest.approx(5.0)  # 1 / 0.2
    assert s[0].softmax(0)[1] > 0.9


@pytest.mark.parametrize("objective", ["flow", "score"])
def test_other_objectives_match_what_they_predict_and_at_the_source_the_code(
    objective: str,
) -> None:
    h, frames, targets = (
        head(objective=objective, source_share=0.3, draws=2),
        CASE.frames(),
        CASE.targets(),
    )
    torch.manual_seed(5)
    got = h.loss(frames, targets).loss
    torch.manual_seed(5)
    t, z = torch.empty(2, 4).uniform_(0.01, 0.99), torch.randn(2, 4, 32)
    x_1, x_0, ones = h.source(frames), h.end(targets), torch.ones(4)
    b, sigma, k = logistic_mean(t, 5.0), bridge_std(t, 0.5), math.tanh(5.0 / 4)
    x_t = (1 - b)[..., None] * x_0 + b[..., None] * x_1 + sigma[..., None] * z
    given = h.network(x_t, x_1.expand_as(x_t), t)
    wanted = z
    if objective == "flow":  # sigma' z + b' (x_1 - x_0)
        s = torch.sigmoid(5 * (t - 0.5))
        slope, spread = 5 * s * (1 - s) / k, 0.25 * (1 - 2 * t) / (t * (1 - t)).sqrt()
        wanted = spread[..., None] * z + slope[..., None] * (x_1 - x_0)
    along = (given - wanted).square().mean() * 2
    at = h.path.end(h.objective, h.network(x_1, x_1, 0.99 * ones), x_1, x_1, 0.99 * ones)
    want = 0.3 * (at - x_0).square().mean() * 2 + 0.7 * along
    assert_like(got, want)
