"""The baseline's losses against torch's own, and what its knobs do."""

from __future__ import annotations

import math

import pytest
import torch
from close import assert_like
from serzoo.heads.classification import ClassificationHead
from serzoo.heads.losses import (
    cross_entropy,
    focal,
    kl_divergence,
    smooth,
)
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.testing import Case, check_head

TAXONOMY = Taxonomy.of(["angry", "happy", "sad"])
CASE = Case(ClassificationHead, 8, TAXONOMY)
PROBS = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
WEIGHT = torch.tensor([1.0, 2.0, 0.0, 0.5])


def head(**knobs: object) -> ClassificationHead:
    torch.manual_seed(0)
    return ClassificationHead(8, TAXONOMY, **knobs).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(smoothing: float) -> None:
    h, frames = head(label_smoothing=smoothing), CASE.frames()
    z = h.logits(frames)
    each = torch.nn.functional.cross_entropy(z, PROBS, label_smoothing=smoothing, reduction="none")
    want = (each * WEIGHT).sum() / WEIGHT.sum()
    assert_like(h.loss(frames, Targets(PROBS, WEIGHT)).loss, want, digits=5)


def test_bce_equals_torch_and_scores_are_log_probabilities() -> None:
    h, frames = head(loss="bce"), CASE.frames()
    z = h.logits(frames)
    each = torch.nn.functional.binary_cross_entropy(z.sigmoid(), PROBS, reduction="none").sum(1)
    want = (each * WEIGHT).sum() / WEIGHT.sum()
    assert_like(h.loss(frames, Targets(PROBS, WEIGHT)).loss, want, digits=5)
    assert_like(h.scores(frames, TAXONOMY), z.sigmoid().log(), digits=5)


def test_mse_is_the_squared_error_to_plus_and_minus_one() -> None:
    h, frames = head(loss="mse"), CASE.frames()
    z = h.logits(frames)
    wanted = torch.where(PROBS == 1, 1.0, -1.0)
    wanted = torch.where((PROBS > 0) & (PROBS < 1), 2 * PROBS - 1, wanted)
    each = torch.nn.functional.mse_loss(z, wanted, reduction="none").sum(1)
    want = (each * WEIGHT).sum() / WEIGHT.sum()
    assert_like(h.loss(frames, Targets(PROBS, WEIGHT)).loss, want, digits=5)
    assert torch.equal(h.scores(frames, TAXONOMY), z)


def test_cross_entropy_to_soft_targets_is_the_divergence_plus_their_entropy() -> None:
    torch.manual_seed(0)
    double = {"dtype": torch.float64}
    z, p = torch.randn(5, 4, **double), torch.rand(5, 4, **double).softmax(-1)
    divergence = torch.nn.functional.kl_div(z.log_softmax(-1), p, reduction="none").sum(-1)
    entropy = torch.distributions.Categorical(probs=p).entropy()
    torch.testing.assert_close(cross_entropy(z, p), divergence + entropy)
    q = torch.distributions.Categorical(logits=z)
    wanted = torch.distributions.kl_divergence(torch.distributions.Categorical(probs=p), q)
    torch.testing.assert_close(kl_divergence(z, p), wanted)


def test_the_divergence_of_a_hard_label_is_finite_and_has_the_gradient_of_cross_entropy() -> None:
    z = torch.randn(4, 3, requires_grad=True)
    (a,) = torch.autograd.grad(kl_divergence(z, PROBS).sum(), z)
    (b,) = torch.autograd.grad(cross_entropy(z, PROBS).sum(), z)
    torch.testing.assert_close(a, b)


def test_smoothing_moves_a_share_of_the_mass_to_all_classes() -> None:
    want = [[0.8, 0.1, 0.1], [0.24, 0.45, 0.31], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]]
    torch.testing.assert_close(smooth(PROBS, 0.3), torch.tensor(want))
    assert torch.equal(smooth(PROBS, 0.0), PROBS)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_hard_labels_is_that_of_the_paper(gamma: float) -> None:
    """``-(1 - q_y)^gamma log q_y``, its gradient by finite differences."""
    torch.manual_seed(0)
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 2, 1, 0])
    q = z.detach().softmax(-1)[torch.arange(6), y]
    p = torch.nn.functional.one_hot(y, 3).double()
    torch.testing.assert_close(focal(z, p, gamma), -((1 - q) ** gamma) * q.log())
    assert torch.autograd.gradcheck(lambda logits: focal(logits, p, gamma), z)


def test_focal_loss_of_gamma_zero_is_cross_entropy() -> None:
    frames, targets = CASE.frames(), Targets(PROBS, WEIGHT)
    a = head(loss="focal", focal_gamma=0.0, label_smoothing=0.1).loss(frames, targets)
    b = head(loss="ce", label_smoothing=0.1).loss(frames, targets)
    assert_like(a.loss, b.loss, digits=5)


def test_focal_loss_has_a_gradient_where_an_answer_is_certain() -> None:
    z = torch.tensor([[80.0, -80.0]], requires_grad=True)
    focal(z, torch.tensor([[1.0, 0.0]]), 0.5).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_class_weights_are_those_of_torch() -> None:
    """The weights of ``data.balance``, n / (C n_c), come in with the utterances."""
    h, frames = head(), CASE.frames()
    y = torch.tensor([0, 1, 1, 1])
    weights = 4 / (3 * torch.bincount(y, minlength=3).clamp_min(1))
    want = torch.nn.functional.cross_entropy(h.logits(frames), y, weight=weights)
    found = h.loss(frames, Targets(torch.eye(3)[y], weights[y])).loss
    assert_like(found, want, digits=5)


def test_the_network_is_what_it_says() -> None:
    """Attentive statistics, layer norm, hidden layer: written out from the parameters."""
    h, frames = head(hidden=5), CASE.frames()
    p = {k.removeprefix("embed."): v for k, v in h.state_dict().items()}
    a = "pooling.attention."
    rows = []
    for x, m in zip(frames.x, frames.mask, strict=True):
        x = x[m]
        normed = torch.nn.functional.layer_norm(x, (8,), p[a + "0.weight"], p[a + "0.bias"])
        e = (normed @ p[a + "1.weight"].T + p[a + "1.bias"]).tanh() @ p[a + "3.weight"].T
        w = e.softmax(0)
        mean = (w * x).sum(0)
        sd = (w * (x - mean) ** 2).sum(0).clamp_min(1e-5).sqrt()
        pooled = torch.cat([mean, sd])
        v = torch.nn.functional.layer_norm(pooled, (16,), p["norm.weight"], p["norm.bias"])
        v = torch.nn.functional.gelu(v @ p["output.0.weight"].T + p["output.0.bias"])
        rows.append(v @ p["output.3.weight"].T + p["output.3.bias"])
    assert_like(h.logits(frames), torch.stack(rows), digits=5)


def test_dropout_drops_its_share_before_the_hidden_and_the_output_layer() -> None:
    h = head(hidden=4000, dropout=0.3)
    seen: dict[str, torch.Tensor] = {}
    for name in ("embed", "output.2"):
        h.get_submodule(name).register_forward_hook(lambda m, i, o, n=name: seen.update({n: o}))
    wide = Frames(torch.randn(64, 5, 8), torch.ones(64, 5, dtype=torch.bool))
    h.train().logits(wide)
    for share in ((seen[n] == 0).float().mean().item() for n in seen):
        assert abs(share - 0.3) < 0.05
    h.eval().logits(wide)
    assert all((seen[n] != 0).all() for n in seen)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"label_smoothing": 1.1}, r"label_smoothing=1\.1\b.* 0 .* 1$"),
        ({"focal_gamma": -1.0}, r"focal_gamma=-1\.0\b.* 0 "),
        ({"focal_gamma": math.nan}, "focal_gamma=nan.* 0 "),
    ],
)
def test_numbers_out_of_range_are_told(knobs: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        head(**knobs)


def test_a_fresh_head_costs_about_the_entropy_of_the_classes() -> None:
    loss = head().loss(CASE.frames(), CASE.targets()).loss.item()
    assert abs(loss - math.log(3)) < 0.5


def test_accuracy_counts_weighted_labelled_utterances() -> None:
    h, frames = head(), CASE.frames()
    best = h.logits(frames).argmax(1)
    probs = torch.eye(3)[best]
    probs[3] = torch.eye(3)[(best[3] + 1) % 3]  # the last one is wrong
    probs[1] = 0  # unlabelled
    extras = h.loss(frames, Targets(probs, torch.tensor([3.0, 5.0, 0.0, 1.0]))).extras
    assert extras["accuracy"].item() == pytest.approx(0.75)


def test_hidden_zero_is_a_linear_classifier() -> None:
    assert [type(m).__name__ for m in head(hidden=0).output] == ["Linear"]


@pytest.mark.parametrize("pooling", ["mean", "stats", "attentive"])
@pytest.mark.parametrize("loss", ["ce", "bce", "mse", "focal"])
def test_every_variant_keeps_the_contract(pooling: str, loss: str) -> None:
    check_head(ClassificationHead, dim=8, pooling=pooling, loss=loss, hidden=0, dropout=0.1)


def test_float_frames_of_half_precision_are_accepted_outside_autocast() -> None:
    frames = CASE.frames()
    half = Frames(frames.x.half(), frames.mask)
    torch.testing.assert_close(
        head().scores(half, TAXONOMY), head().scores(frames, TAXONOMY), atol=1e-2, rtol=0
    )
