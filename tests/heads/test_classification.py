"""The baseline's losses against torch's own, and what its knobs do."""

from __future__ import annotations

import math

import pytest
import torch
from serzoo.heads.classification import ClassificationHead
from serzoo.zoo.taxonomy import Taxonomy
from serzoo.zoo.testing import Case, check_head
from serzoo.zoo.types import Frames, Targets

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
    torch.testing.assert_close(h.loss(frames, Targets(PROBS, WEIGHT)).loss, want)


def test_bce_equals_torch_and_scores_are_log_probabilities() -> None:
    h, frames = head(loss="bce"), CASE.frames()
    z = h.logits(frames)
    each = torch.nn.functional.binary_cross_entropy(z.sigmoid(), PROBS, reduction="none").sum(1)
    want = (each * WEIGHT).sum() / WEIGHT.sum()
    torch.testing.assert_close(h.loss(frames, Targets(PROBS, WEIGHT)).loss, want)
    torch.testing.assert_close(h.scores(frames, TAXONOMY), z.sigmoid().log())


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
@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_every_variant_keeps_the_contract(pooling: str, loss: str) -> None:
    check_head(ClassificationHead, dim=8, pooling=pooling, loss=loss, hidden=0, dropout=0.1)


def test_float_frames_of_half_precision_are_accepted_outside_autocast() -> None:
    frames = CASE.frames()
    half = Frames(frames.x.half(), frames.mask)
    torch.testing.assert_close(
        head().scores(half, TAXONOMY), head().scores(frames, TAXONOMY), atol=1e-2, rtol=0
    )
