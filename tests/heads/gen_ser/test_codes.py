"""Codes of the classes against values computed elsewhere, and what they do to a decision."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from facts import says
from serzoo.heads.gen_ser.codes import (
    build_codes,
    condition,
    decision_flips,
    dual,
    explain_codes,
    gram,
    most_alike,
    positions,
    sinusoidal_codes,
    warn_of_alike,
)
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy

FOUR = Taxonomy.load("big4")
FIVE = Taxonomy.of(["angry", "happy", "neutral", "sad", "fearful"])


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
    with pytest.raises(ValueError, match=says("dim=5")):
        sinusoidal_codes(3, 5)
    with pytest.raises(ValueError, match=says("order", 2, 3)):
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


@pytest.mark.parametrize("kind", ["sinusoidal", "one_hot", "orthogonal", "learned"])
def test_every_kind_has_the_same_norm(kind: str) -> None:
    codes = build_codes(FIVE, codes=kind, code_dim=32)  # type: ignore[arg-type]
    assert codes.shape == (5, 32)
    torch.testing.assert_close(codes.norm(dim=1), torch.full((5,), 4.0))


@pytest.mark.parametrize("kind", ["one_hot", "orthogonal", "learned"])
def test_the_other_kinds_stand_at_right_angles(kind: str) -> None:
    codes = build_codes(FIVE, codes=kind, code_dim=32)  # type: ignore[arg-type]
    torch.testing.assert_close(gram(codes), torch.eye(5), atol=1e-6, rtol=0)
    assert condition(codes) == pytest.approx(1, abs=1e-5)


def test_one_hot_uses_an_element_per_class_and_orthogonal_all() -> None:
    assert (build_codes(FIVE, codes="one_hot", code_dim=8) != 0).sum() == 5
    state = torch.get_rng_state()
    assert (build_codes(FIVE, codes="orthogonal", code_dim=8) != 0).all()
    assert torch.equal(state, torch.get_rng_state())


def test_the_base_is_the_ratio_of_wavelengths() -> None:
    codes = build_codes(FIVE, code_dim=64, spacing=1.0, base=50.0)
    # the last pair's angular frequency is base^(-62/64)
    last = torch.atan2(codes[1, -2], codes[1, -1]).item()
    assert last == pytest.approx(50.0 ** (-62 / 64))


@pytest.mark.parametrize(
    ("order", "want"),
    [
        (None, [0, 1, 2, 3]),
        (["sad", "angry", "neutral", "happy"], [1, 3, 2, 0]),
        ([0.0, 2.5, 1.0, -1.0], [0, 2.5, 1, -1]),
    ],
)
def test_positions(order: list[str] | list[float] | None, want: list[float]) -> None:
    assert FOUR.classes == ["angry", "happy", "neutral", "sad"]
    assert positions(FOUR, order) == want


def test_a_seed_is_a_permutation_of_any_taxonomy() -> None:
    state = torch.get_rng_state()
    assert sorted(positions(FIVE, 1)) == [0, 1, 2, 3, 4]
    assert positions(FIVE, 1) == positions(FIVE, 1)
    assert positions(FIVE, 1) != positions(FIVE, 2)
    assert torch.equal(state, torch.get_rng_state())
    want = sinusoidal_codes(5, 16)[[int(p) for p in positions(FIVE, 1)]]
    torch.testing.assert_close(build_codes(FIVE, code_dim=16, order=1), want)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"order": ["sad", "angry", "neutral", "hapy"]}, "'hapy'.*happy"),
        ({"order": ["sad", "angry"]}, r"order .*2 .*\(sad, angry\)"),
        ({"order": [0.0, 1.0, 1.0, 2.0]}, "4 positions.* 3 .* 4 classes"),
        ({"order": [0.0, 1.0]}, "2 positions.* 2 .* 4 classes"),
        ({"order": 1, "codes": "one_hot"}, "order=1 .*codes=one_hot.*codes=sinusoidal"),
        ({"code_dim": 2, "codes": "orthogonal"}, r"code_dim=2 .*codes=orthogonal.* 4$"),
        ({"base": 1.0}, "base=1.0"),
    ],
)
def test_codes_that_cannot_be(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_codes(FOUR, **knobs)  # type: ignore[arg-type]


def test_condition_of_a_known_gram_matrix() -> None:
    # two unit vectors with a cosine of 0.6 have eigenvalues 1.6 and 0.4
    assert condition(torch.tensor([[1.0, 0.0], [0.6, 0.8]])) == pytest.approx(4)
    assert condition(torch.tensor([[1.0, 0.0], [5.0, 0.0]])) > 1e12
    assert condition(torch.ones(3, 2)) == math.inf


def test_condition_is_that_of_the_cosines() -> None:
    codes = sinusoidal_codes(8, 128, 100.0)
    values = torch.linalg.eigvalsh(gram(codes).double())
    assert condition(codes) == pytest.approx((values[-1] / values[0]).item(), rel=1e-4)


def test_the_dual_reads_the_shares_out_of_a_mixture() -> None:
    codes = sinusoidal_codes(5, 128, 10.0)
    torch.testing.assert_close(dual(codes) @ codes.T, torch.eye(5), atol=1e-5, rtol=0)
    p = torch.tensor([0.1, 0.5, 0.2, 0.15, 0.05])
    torch.testing.assert_close(dual(codes) @ (p @ codes), p, atol=1e-5, rtol=0)


def test_any_two_codes_that_are_alike_are_named_with_numbers() -> None:
    # at base 1.001 all waves are nearly one, and at spacing 2 pi / 2 every other code returns
    far = build_codes(FOUR, code_dim=16, spacing=math.pi, base=1.001)
    assert most_alike(far)[1] - most_alike(far)[0] == 2
    with pytest.warns(
        UserWarning, match=says("'angry'", "'neutral'", "1.00", "spacing=3.14159", "decision=gram")
    ):
        warn_of_alike(far, FOUR, math.pi, stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_alike(build_codes(FOUR), FOUR, 1000.0, stacklevel=1)


def test_an_explanation_holds_the_gram_matrix_and_its_condition() -> None:
    codes = sinusoidal_codes(4, 128, 10.0)
    lines = explain_codes(codes, FOUR)
    g = gram(codes)
    assert lines[1].split() == ["angry", *(f"{x:.2f}" for x in g[0].tolist())]
    assert lines[4].split() == ["sad", *(f"{x:.2f}" for x in g[3].tolist())]
    assert lines[5] == f"condition of this Gram matrix: {condition(codes):.3g}"
    assert lines[6].startswith("most alike: angry and happy, 0.67; of random posteriors")
    assert len(lines) == 7


def test_the_configuration_shows_the_codes_it_will_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "emodb", "head=gen_ser", "head.spacing=10", "head.order=1"]) == 0
    shown = [line[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]
    taxonomy = Taxonomy.load("emodb7")
    codes = build_codes(taxonomy, spacing=10.0, order=1)
    assert shown[1:-1] == explain_codes(codes, taxonomy)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=says("'angry'", "'disgust'", "0.67", "spacing=10")):
        made = GenSERHead(12, taxonomy, spacing=10.0, order=1)
    assert torch.equal(made.get_buffer("codes"), codes)  # what it shows is what is built


@pytest.mark.parametrize("head", ["gen_ser_ce", "classification"])
def test_a_head_without_codes_shows_none(capsys: pytest.CaptureFixture[str], head: str) -> None:
    assert main(["config", "emodb", f"head={head}"]) == 0
    lines = [s for s in capsys.readouterr().out.splitlines() if s.startswith("# ")]
    assert [line.split()[1] for line in lines] == ["classes:", "run"]
