"""The controls: equal to what they control in all but one thing."""

from __future__ import annotations

import pytest
import torch
from close import assert_like
from serzoo.heads.controls import PrototypeHead, RegressCodesHead
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.zoo.core import registry
from serzoo.zoo.core.shipped import read
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.testing import Case, check_head
from torch import nn

CASE = Case(RegressCodesHead, 12)


def test_the_control_shares_every_weight_with_gen_ser() -> None:
    control, gen = RegressCodesHead(12, CASE.taxonomy), GenSERHead(12, CASE.taxonomy)
    assert {k: v.shape for k, v in control.state_dict().items()} == {
        k: v.shape for k, v in gen.state_dict().items()
    }


def test_shared_knobs_have_the_same_defaults() -> None:
    mine = registry.schema_of(RegressCodesHead)
    theirs = registry.schema_of(GenSERHead)
    assert {k: knob.default for k, knob in mine.items()} == {k: theirs[k].default for k in mine}


def shipped(name: str) -> dict[str, object]:
    options: dict[str, object] = read("head", name)
    assert options.pop("type") == name
    return options


@pytest.mark.parametrize(
    "name", ["classification", "gen_ser", "label_embedding", "regress_codes", "prototype"]
)
def test_shipped_configs_spell_out_the_defaults(name: str) -> None:
    knobs = registry.schema_of(registry.get("heads", name))
    assert shipped(name) == {k: knob.default for k, knob in knobs.items()}


def test_the_control_is_gen_ser_at_t_one() -> None:
    control = RegressCodesHead(12, CASE.taxonomy).eval()
    gen = GenSERHead(12, CASE.taxonomy, source_share=1.0).eval()
    gen.load_state_dict(control.state_dict())
    frames, targets = CASE.frames(), CASE.targets()
    assert_like(gen.loss(frames, targets).loss, control.loss(frames, targets).loss, digits=5)
    scores = [h.scores(frames, CASE.taxonomy) for h in (gen, control)]
    assert_like(*scores, digits=5)


def test_the_control_draws_no_noise() -> None:
    control = RegressCodesHead(12, CASE.taxonomy).eval()
    before = torch.get_rng_state()
    control.loss(CASE.frames(), CASE.targets())
    assert torch.equal(before, torch.get_rng_state())


def test_regression_is_the_mean_squared_error_to_the_codes() -> None:
    torch.manual_seed(0)
    h = RegressCodesHead(12, CASE.taxonomy, code_dim=16).eval()
    frames, weight = CASE.frames(), torch.tensor([1.0, 0.0, 2.0, 1.0])
    x_1 = h.source(frames)
    got = h.network(x_1, x_1, torch.ones(4))
    each = (got - h.get_buffer("codes")[:4]).square().sum(1) / 8  # ||code||^2 = 16 / 2
    want = (each * weight).sum() / 4
    loss = h.loss(frames, Targets(torch.eye(5)[:4], weight)).loss
    assert_like(loss, want, digits=5)


def test_prototype_scores_are_scaled_squared_distances() -> None:
    torch.manual_seed(0)
    h = PrototypeHead(12, CASE.taxonomy, embedding=16).eval()
    frames = CASE.frames()
    z = h.project(h.embed(frames))
    assert_like(
        h.scores(frames, CASE.taxonomy), -torch.cdist(z, h.prototypes).square() / 4, digits=5
    )
    want = nn.functional.cross_entropy(-torch.cdist(z, h.prototypes).square() / 4, torch.arange(4))
    assert_like(h.loss(frames, CASE.targets()).loss, want, digits=5)


def test_a_prototype_is_nearest_to_itself() -> None:
    torch.manual_seed(0)
    h = PrototypeHead(12, CASE.taxonomy, embedding=16).eval()
    h.project.weight.data.normal_()
    z = h.project(h.embed(CASE.frames()))
    h.prototypes.data[2] = z[0].detach()
    s = h.scores(CASE.frames(), CASE.taxonomy)
    assert s[0, 2].item() == pytest.approx(0, abs=1e-5)
    assert s[0].argmax() == 2


@pytest.mark.parametrize(
    "name", ["classification", "gen_ser", "label_embedding", "regress_codes", "prototype"]
)
def test_every_light_head_learns_noisy_clusters(name: str) -> None:
    torch.manual_seed(0)
    C, n = 5, 160
    tax = Taxonomy.of(["angry", "happy", "neutral", "sad", "fearful"])
    centres = 0.8 * torch.randn(C, 16)
    y = torch.arange(2 * n) % C
    mask = torch.arange(10) < torch.randint(2, 11, (2 * n, 1))
    x = centres[y].unsqueeze(1) + 0.3 * torch.randn(2 * n, 1, 16) + torch.randn(2 * n, 10, 16)
    h = registry.get("heads", name)(16, tax)
    optimiser = torch.optim.Adam(h.parameters(), lr=3e-3)
    for _ in range(30):
        for rows in torch.randperm(n).split(32):
            optimiser.zero_grad()
            labels = Targets(torch.eye(C)[y[rows]], torch.ones(len(rows)))
            h.train().loss(Frames(x[rows], mask[rows]), labels).loss.backward()
            optimiser.step()
    with torch.no_grad():
        s = h.eval().scores(Frames(x[n:], mask[n:]), tax)
    assert (s.argmax(1) == y[n:]).float().mean() > 0.9


@pytest.mark.parametrize("pooling", ["mean", "stats"])
@pytest.mark.parametrize("cls", [RegressCodesHead, PrototypeHead])
def test_variants_keep_the_contract(cls: type, pooling: str) -> None:
    check_head(cls, dim=12, pooling=pooling)
