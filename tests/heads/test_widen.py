"""Classes that a trained head did not have: what is added to each head, and what stays."""

from __future__ import annotations

import math

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.classification import ClassificationHead
from serzoo.heads.controls import PrototypeHead, RegressCodesHead
from serzoo.heads.gen_ser.codes import build_codes, gram
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.heads.selm.head import SELMHead
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.head import Head
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.testing.checks import Case

OLD = Taxonomy.of(["angry", "happy", "sad"])
WIDE = Taxonomy.of(["angry", "happy", "sad", "bored", "calm"])
ADDED = Taxonomy.of(["calm", "bored"])
SELM = {"lm_width": 32}


def made(cls: type[Head], **knobs) -> tuple[Case, Head]:
    case = Case(cls, taxonomy=OLD, knobs=knobs)
    return case, case.head()


@pytest.mark.parametrize(
    ("cls", "knobs"),
    [
        (ClassificationHead, {}),
        (ClassificationHead, {"loss": "bce", "hidden": 8}),
        (PrototypeHead, {}),
        (RegressCodesHead, {}),
        (GenSERHead, {"objective": "ce"}),
        (GenSERHead, {"codes": "one_hot"}),
        (GenSERHead, {"codes": "orthogonal"}),
        (GenSERHead, {"codes": "learned"}),
        (GenSERHead, {"order": 3}),
        (SELMHead, SELM),
        (SELMHead, {**SELM, "names": "shuffled"}),
    ],
)
def test_the_old_classes_score_as_before(cls, knobs) -> None:
    case, head = made(cls, **knobs)
    frames = case.frames()
    before = case.scores(head, frames)
    head.widen(WIDE)
    assert_like(case.scores(head, frames), before, digits=5)
    assert_like(case.scores(head, frames, WIDE)[:, :3], before, digits=5)
    assert case.scores(head, frames, ADDED).shape == (4, 2)


def test_a_row_of_a_linear_layer_starts_as_the_mean_of_the_old_ones() -> None:
    case, head = made(ClassificationHead)
    frames = case.frames()
    before = case.scores(head, frames)
    head.widen(WIDE)
    after = case.scores(head, frames, WIDE)
    for new in (3, 4):
        assert_like(after[:, new], before.mean(1), digits=5)


def test_a_prototype_starts_as_the_mean_of_the_old_ones() -> None:
    _, head = made(PrototypeHead)
    old = head.prototypes.detach().clone()
    head.widen(WIDE)
    assert torch.equal(head.prototypes[:3], old)
    assert_like(head.prototypes[3:], old.mean(0).expand(2, -1), digits=5)


def test_sinusoidal_codes_are_those_of_the_wider_taxonomy() -> None:
    _, head = made(GenSERHead)
    old = head.codes.clone()
    head.widen(WIDE)
    assert torch.equal(head.codes[:3], old)
    assert torch.equal(head.codes, build_codes(WIDE))
    # of a permuted order: behind the last position
    _, head = made(GenSERHead, order=["sad", "angry", "happy"])
    head.widen(WIDE)
    assert torch.equal(head.codes, build_codes(WIDE, order=[1.0, 2.0, 0.0, 3.0, 4.0]))


@pytest.mark.parametrize("codes", ["one_hot", "orthogonal", "learned"])
def test_other_codes_stay_to_the_bit_and_new_ones_are_at_right_angles(codes) -> None:
    _, head = made(GenSERHead, codes=codes, code_dim=16)
    old = head.codes.clone()
    head.widen(WIDE)
    assert torch.equal(head.codes[:3], old)
    assert_like(gram(head.codes), torch.eye(5), digits=5)
    assert_like(head.codes.norm(dim=1), torch.full((5,), math.sqrt(8)), digits=5)


def test_learned_codes_that_moved_still_get_new_ones_at_right_angles_and_then_stay() -> None:
    case, head = made(GenSERHead, codes="learned", code_dim=16, decision="gram")
    head.learned.prototypes.data += torch.randn(3, 16, generator=torch.manual_seed(0))
    case.loss(head, case.frames(), case.targets())
    old = head.codes.clone()
    assert gram(old).sub(torch.eye(3)).abs().max() > 0.01
    head.widen(WIDE)
    assert gram(head.codes)[3:, :3].abs().max() < 1e-5  # cosines
    assert_like(head.dual @ head.codes.T, torch.eye(5), digits=5)
    wide = Case(GenSERHead, taxonomy=WIDE)
    for _ in range(3):
        wide.loss(head, wide.frames(), wide.targets())
    assert torch.equal(head.codes[:3], old)


def test_codes_that_have_no_room_say_so() -> None:
    _, head = made(GenSERHead, codes="one_hot", code_dim=4)
    with pytest.raises(ConfigError, match=says("5 classes", "codes=one_hot", "head.code_dim=6")):
        head.widen(WIDE)
    assert head.taxonomy == OLD


def test_selm_says_a_new_class_by_its_name_and_the_old_ones_as_before() -> None:
    _, head = made(SELMHead, **SELM, names="shuffled")
    assert head.views.speaks == {"angry": "happy", "happy": "sad", "sad": "angry"}
    count = sum(p.numel() for p in head.parameters())
    head.widen(WIDE)
    assert head.views.speaks == {
        "angry": "happy", "happy": "sad", "sad": "angry", "bored": "bored", "calm": "calm",
    }  # fmt: skip
    assert sum(p.numel() for p in head.parameters()) == count


def test_selm_refuses_a_name_that_it_cannot_tell_from_another() -> None:
    _, head = made(SELMHead, **SELM, forms={"categorical": {"bored": "sad"}})
    with pytest.raises(ConfigError):
        head.widen(WIDE)
    assert head.taxonomy == OLD


def test_new_classes_stand_behind_the_old_ones() -> None:
    _, head = made(ClassificationHead)
    with pytest.raises(ConfigError, match=r"angry, happy, sad\b.* bored, angry, happy, sad\b"):
        head.widen(Taxonomy.of(["bored", "angry", "happy", "sad"]))
    head.widen(OLD)
    assert head.output[-1].out_features == 3


def test_in_one_step_or_two() -> None:
    _, once = made(ClassificationHead)
    _, twice = made(ClassificationHead)
    once.widen(WIDE)
    twice.widen(Taxonomy.of(WIDE.classes[:4]))
    twice.widen(WIDE)
    shapes = [{k: v.shape for k, v in head.state_dict().items()} for head in (once, twice)]
    assert shapes[0] == shapes[1]
