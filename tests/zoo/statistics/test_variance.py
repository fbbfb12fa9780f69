"""Variance components: by hand, and simulated ones found again."""

from math import isnan

import numpy as np
import pytest
from facts import says, tells
from serzoo.zoo.core.errors import ComparisonError, DataError
from serzoo.zoo.statistics.breakdown import crossed_components, shared_variance, variance_split
from serzoo.zoo.statistics.table import PredictionTable


def tables(right: np.ndarray) -> dict[tuple[int, int], PredictionTable]:
    """``[S, F, G, n]`` hits of G speakers in each fold."""
    s, f, g, n = right.shape
    out = {}
    for i in range(f):
        who = [f"f{i}s{j // n}" for j in range(g * n)]
        ids = [f"f{i}/{j}" for j in range(g * n)]
        labels = np.tile(np.arange(n) % 2, g)
        for k in range(s):
            predicted = np.where(right[k, i].reshape(-1), labels, 1 - labels)
            out[i, k] = PredictionTable(ids, who, labels, np.eye(2)[predicted], ["x", "y"])
    return out


def simulated(rng, *, s=4, f=6, g=4, n=40, seed=0.03, train=0.04, who=0.08, rest=0.02):
    chance = (
        0.6
        + seed * rng.normal(size=(s, 1, 1))
        + train * rng.normal(size=(1, f, 1))
        + who * rng.normal(size=(1, f, g))
        + rest * rng.normal(size=(s, f, 1))
    )
    return rng.random((s, f, g, n)) < chance[..., None]


class TestCrossed:
    def test_by_hand(self):
        # seeds differ by 2, folds by 4, and nothing else: mean squares of the rest are 0
        assert crossed_components(np.array([[1.0, 5.0], [3.0, 7.0]])) == pytest.approx((2, 8, 0))
        # only the rest: ±1 crosswise
        assert crossed_components(np.array([[1.0, -1.0], [-1.0, 1.0]])) == pytest.approx(
            (-2, -2, 4)
        )

    def test_known_components_come_back(self):
        rng = np.random.default_rng(0)
        found = np.mean(
            [
                crossed_components(
                    1.0 * rng.normal(size=(5, 1))
                    + 2.0 * rng.normal(size=(1, 6))
                    + 0.5 * rng.normal(size=(5, 6))
                )
                for _ in range(4000)
            ],
            axis=0,
        )
        assert found == pytest.approx([1.0, 4.0, 0.25], rel=0.06)

    def test_one_seed_or_one_fold(self):
        one_seed = crossed_components(np.array([[1.0, 3.0]]))
        assert isnan(one_seed.seeds)
        assert isnan(one_seed.residual)
        assert one_seed.folds == 2
        assert crossed_components(np.array([[1.0], [3.0]])).seeds == 2

    def test_nan(self):
        with pytest.raises(DataError, match=says("1 of 4", "values")):
            crossed_components(np.array([[1.0, np.nan], [1.0, 2.0]]))


class TestSplit:
    def test_known_components_come_back(self):
        rng = np.random.default_rng(0)
        found = [variance_split(tables(simulated(rng)), "wa") for _ in range(150)]
        mean = {k: np.mean([getattr(v, k) for v in found]) for k in found[0]._fields[:5]}
        # hits are drawn anew for each seed, so their variance 0.24 / (4 * 40) is residual
        hits = (0.6 * 0.4 - 0.03**2 - 0.04**2 - 0.08**2 - 0.02**2) / 160
        assert mean["mean"] == pytest.approx(0.6, abs=0.01)
        assert mean["seeds"] == pytest.approx(0.03**2, rel=0.25)
        assert mean["folds"] == pytest.approx(0.04**2 + 0.08**2 / 4, rel=0.2)
        assert mean["speakers"] == pytest.approx(0.08**2 / 4, rel=0.15)
        assert mean["residual"] == pytest.approx(0.02**2 + hits, rel=0.1)

    def test_one_seed_holds_the_hits_too(self):
        rng = np.random.default_rng(0)
        found = [variance_split(tables(simulated(rng, s=1)), "wa") for _ in range(300)]
        want = 0.08**2 / 4 + (0.24 - 0.03**2 - 0.04**2 - 0.08**2 - 0.02**2) / 160
        assert np.mean([v.speakers for v in found]) == pytest.approx(want, rel=0.1)
        assert tells(found[0].note, "one seed", "residual")
        assert isnan(found[0].shares()["seeds"])
        assert found[0].shares()["folds"] == 1

    def test_speakers_are_the_bootstrap_s_variance_but_for_the_known_factor(self):
        rng = np.random.default_rng(0)
        confusions = np.zeros((1, 5, 2, 2))
        confusions[0, :, 0, 0] = rng.integers(0, 20, 5)
        confusions[0, :, 0, 1] = 20 - confusions[0, :, 0, 0]
        weights = rng.multinomial(5, np.full(5, 0.2), size=40_000)
        drawn = (weights @ confusions[0, :, 0, 0]) / 100
        assert shared_variance(confusions, "wa") == pytest.approx(drawn.var() * 5 / 4, rel=0.03)

    def test_shares(self):
        v = variance_split(tables(simulated(np.random.default_rng(0))))
        shares = v.shares()
        assert shares["seeds"] + shares["folds"] + shares["residual"] == pytest.approx(1)
        assert 0 <= shares["speakers"] <= shares["folds"]
        assert (v.n_seeds, v.n_folds, v.n_speakers, v.note) == (4, 6, 24, "")

    def test_no_variance_has_no_shares(self):
        v = variance_split(tables(np.ones((2, 2, 2, 4), dtype=bool)))
        assert (v.seeds, v.folds, v.residual, v.speakers) == (0, 0, 0, 0)
        assert isnan(v.shares()["folds"])

    def test_a_speaker_per_fold(self):
        v = variance_split(tables(simulated(np.random.default_rng(0), g=1)))
        assert isnan(v.speakers)
        assert tells(v.note, "one speaker", "fold")
        assert isnan(v.shares()["speakers"])

    def test_a_class_of_one_speaker_is_said(self):
        full = tables(simulated(np.random.default_rng(0), s=2, f=2, g=2))
        rows = [i for i in range(80) if full[0, 0].labels[i] == 0 or i < 40]
        some = {k: t.subset(rows) if k[0] == 0 else t for k, t in full.items()}
        assert tells(variance_split(some).note, "1 folds", "class", "one speaker")
        assert variance_split(some, "wa").note == ""

    def test_refusals(self):
        full = tables(simulated(np.random.default_rng(0), s=2, f=2))
        with pytest.raises(DataError, match=says("variance", "tables")):
            variance_split({})
        with pytest.raises(ComparisonError, match=says("fold 1", "seed 0", "1 cells")):
            variance_split({k: t for k, t in full.items() if k != (1, 0)})
        other = full | {(1, 0): full[1, 0].subset(range(10))}
        with pytest.raises(ComparisonError, match=says(150, "f1/10")):
            variance_split(other)
        one_class = {
            k: t.subset(np.flatnonzero(t.labels == 0)) if k[0] else t for k, t in full.items()
        }
        with pytest.raises(DataError, match=says("fold 1", "y", "wa")):
            variance_split(one_class)
        assert variance_split(one_class, "wa").n_folds == 2
