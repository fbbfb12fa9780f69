"""Valence, arousal and dominance, and ranks: the losses are the published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.dimensions import (
    DimensionsHead,
    OrdinalHead,
    ccc_loss,
    level_log_probabilities,
    mse_loss,
    points_of,
)
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy, canonical
from serzoo.zoo.core.types import Targets
from serzoo.zoo.statistics.soft import ccc
from serzoo.zoo.testing import Case

CASE = Case(DimensionsHead, 12)
FOUR = Taxonomy.load("big4")
NAN = float("nan")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_loss_is_one_minus_lin_s_coefficient() -> None:
    x, y = random(9, 3), random(9, 3, seed=1)
    wanted = 1 - ccc(x.numpy(), y.numpy())
    np.testing.assert_allclose(ccc_loss(x, y, torch.ones_like(x)).numpy(), wanted, rtol=1e-12)
    assert_like(mse_loss(x, y, torch.ones_like(x)), (x - y).square().mean(0))


@pytest.mark.parametrize("loss", [ccc_loss, mse_loss])
def test_a_weight_of_two_is_an_utterance_that_occurs_twice(loss) -> None:
    x, y = random(5, 3), random(5, 3, seed=1)
    y[4] = NAN  # not rated, of weight 0
    weight = torch.tensor([2.0, 1, 1, 1, 0], dtype=torch.float64)[:, None].expand(5, 3)
    twice = torch.tensor([0, 0, 1, 2, 3])
    assert_like(loss(x, y, weight), loss(x[twice], y[twice], torch.ones(5, 3).double()))


def test_one_utterance_or_none_has_a_finite_gradient() -> None:
    x = random(2, 3).requires_grad_()
    for weight, wanted in (([1.0, 0.0], 1.0), ([0.0, 0.0], 0.0)):
        each = ccc_loss(
            x, random(2, 3, seed=1), torch.tensor(weight)[:, None].expand(2, 3).double()
        )
        assert each.tolist() == [wanted] * 3
        (gradient,) = torch.autograd.grad(each.sum(), x)
        assert gradient.isfinite().all()


def test_ratings_come_first_and_then_the_points_of_classes() -> None:
    head = DimensionsHead(12, FOUR)
    points = points_of(FOUR)
    dims = torch.tensor([[0.1, NAN, NAN], [0.2, 0.3, 0.4], [NAN] * 3])
    probs = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5]])
    found = head.targets(Targets(probs, torch.ones(3), dims))
    between = (points[2] + points[3]) / 2
    wanted = torch.stack([torch.tensor([0.1, *points[0, 1:]]), dims[1], between])
    assert_like(found, wanted)


def test_the_nearest_point_is_the_answer() -> None:
    head = DimensionsHead(12, FOUR).eval()
    frames, points = CASE.frames(), points_of(FOUR)
    with torch.no_grad():
        gaps = torch.cdist(head.dimensions(frames), points)
        scores = head.scores(frames, FOUR)
    assert torch.equal(scores.argmax(1), gaps.argmin(1))
    assert_like(scores, -gaps.square() / (2 * 0.15**2), digits=4)


def test_a_class_of_several_labels_stands_between_them() -> None:
    merged = Taxonomy("two", (("up", ("happy", "excited")), ("down", ("sad",))))
    one, other = (torch.tensor(canonical()[name].point) for name in ("happy", "excited"))
    assert_like(points_of(merged)[0], (one + other) / 2)


def test_a_class_with_a_point_can_be_added() -> None:
    head = DimensionsHead(12, FOUR).eval()
    wide = Taxonomy.of([*FOUR.classes, "fearful"])
    with torch.no_grad():
        before = head.scores(CASE.frames(), FOUR)
        head.widen(wide)
        assert_like(head.scores(CASE.frames(), wide)[:, :4], before)


def test_classes_without_a_point_are_refused_unless_one_is_given() -> None:
    gender = Taxonomy.load("gender")
    with pytest.raises(ConfigError, match=says("female, male", "head.points")):
        DimensionsHead(12, gender)
    given = {"female": [0.5, 0.4, 0.5], "male": [0.5, 0.6, 0.5]}
    assert points_of(gender, given).tolist() == torch.tensor(list(given.values())).tolist()
    with pytest.raises(ConfigError, match=says("female", "1.5", "0 to 1")):
        points_of(gender, {**given, "female": [0.5, 1.5, 0.5]})
    with pytest.raises(ConfigError, match=says("female", "male", "head.points")):
        points_of(gender, {name: [0.5] * 3 for name in given})


def test_every_class_of_a_corpus_has_a_point_of_its_own() -> None:
    finer = {"fine40", "goemotions", "gender", "ekman"}  # labels from words, and no emotion
    for name in set(Taxonomy.names()) - finer:
        assert points_of(Taxonomy.load(name)).shape[1] == 3, name
    for emotion in canonical().values():
        assert emotion.point is None or (len(emotion.point), *emotion.point) >= (3, 0, 0, 0)


def test_levels_of_arousal_are_those_of_the_points() -> None:
    levels = dict(Taxonomy.load("arousal3").members)
    for name, emotion in canonical().items():
        if emotion.point is None or name in ("positive", "negative"):
            assert not any(name in labels for labels in levels.values())
            continue
        arousal = emotion.point[1]
        level = "low" if arousal < 0.4 else "medium" if arousal < 0.6 else "high"
        assert name in levels[level]


# Ranks.

LEVELS = Taxonomy.of(["one", "two", "three", "four"])


def test_the_loss_is_coral_s() -> None:
    """``coral_loss`` of the paper's code, with the levels as its rows of ones and zeros."""
    head = OrdinalHead(12, LEVELS, dropout=0.0)
    frames, targets = CASE.frames(), Targets(torch.eye(4), torch.tensor([1.0, 2.0, 0.5, 1.0]))
    levels = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    z = head.logits(frames)
    log = torch.nn.functional.logsigmoid(z)
    each = -(log * levels + (log - z) * (1 - levels)).sum(1)
    wanted = (each * targets.weight).sum() / targets.weight.sum()
    assert_like(head.loss(frames, targets).loss, wanted)


def test_soft_labels_give_the_share_above_each_level() -> None:
    head = OrdinalHead(12, LEVELS, dropout=0.0)
    frames, p = CASE.frames(), torch.tensor([[0.1, 0.2, 0.3, 0.4]]).expand(4, 4)
    z, above = head.logits(frames), torch.tensor([0.9, 0.7, 0.4]).expand(4, 3)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(z, above) * 3
    assert_like(head.loss(frames, Targets(p, torch.ones(4))).loss, wanted)


def test_probabilities_of_levels_are_differences_and_add_up() -> None:
    z = torch.tensor([[3.0, 1.0, -2.0], [80.0, 79.0, 78.0], [-90.0, -91.0, -92.0]]).double()
    above = torch.cat([torch.ones(3, 1), z.sigmoid(), torch.zeros(3, 1)], 1)
    found = level_log_probabilities(z)
    assert_like(found[0].exp(), (above[0, :-1] - above[0, 1:]))
    assert found.isfinite().all()
    assert_like(found.exp().sum(1), torch.ones(3).double())


def test_thresholds_fall_whatever_is_learned() -> None:
    head = OrdinalHead(12, LEVELS)
    torch.nn.init.normal_(head.gaps, std=5.0)
    z = head.logits(CASE.frames())
    assert (z[:, 1:] < z[:, :-1]).all()


def test_two_levels_are_logistic_regression() -> None:
    head = OrdinalHead(12, Taxonomy.of(["low", "high"]), dropout=0.0)
    targets = Targets(torch.eye(2)[[0, 1, 0, 1]], torch.ones(4))
    z = head.logits(CASE.frames())
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], targets.probs[:, 1])
    assert_like(head.loss(CASE.frames(), targets).loss, wanted)
    assert all(p.numel() for p in head.parameters())


def test_a_new_level_has_no_known_rank() -> None:
    head = OrdinalHead(12, LEVELS)
    with pytest.raises(ConfigError, match=says("one < two < three < four", "five")):
        head.widen(Taxonomy.of([*LEVELS.classes, "five"]))
    assert OrdinalHead.explain(LEVELS, {}) == ["levels, lowest first: one, two, three, four"]
