"""Linear probes: against scikit-learn, on what is in the frames and on what is not."""

from __future__ import annotations

import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.statistics.probe import (
    STRENGTHS,
    Fold,
    Probed,
    choose,
    fit_predict,
    probe,
    r2,
    r2_difference,
)
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

N, D, SPEAKERS = 240, 16, 12


def drawn(seed: int = 0, n: int = N, d: int = D) -> tuple[np.ndarray, np.ndarray]:
    """Features whose columns differ in scale and place, and speakers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 10 ** rng.uniform(-2, 2, d) + rng.normal(size=d)
    return x, np.array([f"s{i % SPEAKERS:02d}" for i in range(n)])


def folds_of(names: np.ndarray, k: int = 4) -> list[Fold]:
    who = np.searchsorted(np.unique(names), names) % k
    return [Fold(np.flatnonzero(who != i), np.flatnonzero(who == i)) for i in range(k)]


# The regression.


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
@pytest.mark.parametrize("strength", [1e-4, 0.1, 10.0])
def test_it_is_ridge_regression_on_standardised_features(n: int, d: int, strength: float) -> None:
    rng = np.random.default_rng(1)
    x, _ = drawn(2, n, d)
    new, y = x[:7] + rng.normal(size=(7, d)), rng.normal(size=(n, 2)) + 5
    found = fit_predict(x, y, new, np.array([[strength, strength]]))[0]
    scaler = StandardScaler().fit(x)
    other = Ridge(alpha=strength * n, solver="svd").fit(scaler.transform(x), y)
    np.testing.assert_allclose(found, other.predict(scaler.transform(new)), rtol=1e-6, atol=1e-8)


def test_by_augmented_rows() -> None:
    x, _ = drawn()
    y = np.random.default_rng(3).normal(size=N)
    z = (x - x.mean(0)) / x.std(0)
    rows = np.concatenate([z, np.sqrt(0.5 * N) * np.eye(D)])
    w = np.linalg.lstsq(rows, np.concatenate([y - y.mean(), np.zeros(D)]), rcond=None)[0]
    found = fit_predict(x, y[:, None], x[:5], np.array([[0.5]]))[0, :, 0]
    np.testing.assert_allclose(found, y.mean() + z[:5] @ w, rtol=1e-9)


def test_quantities_and_strengths_do_not_touch_each_other() -> None:
    x, _ = drawn()
    y = np.random.default_rng(4).normal(size=(N, 2))
    strengths = np.array([[0.1, 1.0], [10.0, 1e-3]])
    both = fit_predict(x, y, x[:9], strengths)
    for s in range(2):
        for q in range(2):
            alone = fit_predict(x, y[:, q : q + 1], x[:9], strengths[s : s + 1, q : q + 1])
            np.testing.assert_allclose(both[s, :, q], alone[0, :, 0], rtol=1e-9)


def test_a_constant_feature_changes_nothing() -> None:
    x, _ = drawn()
    y = np.random.default_rng(5).normal(size=(N, 1))
    wider = np.concatenate([x, np.full((N, 1), 3.0)], 1)
    one = np.array([[0.1]])
    np.testing.assert_allclose(
        fit_predict(wider, y, wider[:5], one), fit_predict(x, y, x[:5], one), rtol=1e-9
    )


def test_the_penalty_is_heavy_where_there_is_nothing_and_light_where_all_is_said() -> None:
    x, names = drawn()
    rng = np.random.default_rng(6)
    y = np.stack([((x - x.mean(0)) / x.std(0)) @ rng.normal(size=D), rng.normal(size=N)], 1)
    clear, nothing = choose(x, y, names)
    assert clear == STRENGTHS[0]
    assert nothing >= 1
    with pytest.raises(DataError, match=says("training speakers", 1)):
        choose(x, y, np.array(["s"] * N))


# The probe.


def test_it_finds_what_is_in_the_frames_and_nothing_else() -> None:
    x, names = drawn()
    rng = np.random.default_rng(7)
    z = (x - x.mean(0)) / x.std(0)
    targets = {
        "said": z @ rng.normal(size=D) + 40,
        "half": z[:, 0] + rng.normal(size=N),
        "not": rng.normal(size=N),
        "squared": z[:, 0] ** 2,  # in the frames, and not linearly
    }
    for within in (False, True):
        found = probe(x, targets, names, folds_of(names), within=within)
        assert list(found) == list(targets)
        value = {name: r2(p).value for name, p in found.items()}
        assert value["said"] > 0.999
        assert value["half"] == pytest.approx(0.5, abs=0.12)
        assert -0.1 < value["not"] < 0.05
        assert -0.1 < value["squared"] < 0.1
        assert all(p.utterances == N and len(p.strengths) == 4 for p in found.values())
        assert r2(found["half"]).low > 0.2 > -0.2 > r2(found["not"]).low - 0.2


def test_its_score_is_that_of_the_held_out_rows() -> None:
    x, names = drawn()
    y = x[:, 0] / x[:, 0].std() + np.random.default_rng(8).normal(size=N)
    (fold, *_) = folds_of(names)
    found = probe(x, {"y": y}, names, [fold])["y"]
    assert found.utterances == len(fold.test)
    assert found.speakers == sorted(set(names[fold.test]))
    strength = choose(x[fold.train], y[fold.train, None], names[fold.train])
    said = fit_predict(x[fold.train], y[fold.train, None], x[fold.test], strength[None])[0, :, 0]
    assert found.error.sum() == pytest.approx(((y[fold.test] - said) ** 2).sum())
    assert found.total.sum() == pytest.approx(((y[fold.test] - y[fold.train].mean()) ** 2).sum())
    # to the mean of the test part it would be a little less
    assert r2(found).value == pytest.approx(r2_score(y[fold.test], said), abs=0.05)


def test_who_it_is_counts_across_speakers_and_not_within() -> None:
    rng = np.random.default_rng(9)
    n, speakers = 400, 20
    names = np.array([f"s{i % speakers:02d}" for i in range(n)])
    voice = rng.normal(size=speakers)[np.arange(n) % speakers]
    x = voice[:, None] + 0.01 * rng.normal(size=(n, 3))  # the frames tell the voice only
    y = 5 * voice + rng.normal(size=n)
    folds = folds_of(names)
    assert r2(probe(x, {"y": y}, names, folds)["y"]).value > 0.8
    assert r2(probe(x, {"y": y}, names, folds, within=True)["y"]).value < 0.02


def test_utterances_without_a_value_take_no_part() -> None:
    x, names = drawn()
    rng = np.random.default_rng(10)
    y = x[:, 0] + rng.normal(size=N)
    holes = y.copy()
    holes[::5] = np.nan
    kept = np.flatnonzero(np.isfinite(holes))
    moved = {i: k for k, i in enumerate(kept)}
    folds = [
        Fold(*(np.array([moved[i] for i in part if i in moved]) for part in (f.train, f.test)))
        for f in folds_of(names)
    ]
    for within in (False, True):
        both = probe(x, {"all": y, "holes": holes}, names, folds_of(names), within=within)
        less = probe(x[kept], {"y": y[kept]}, names[kept], folds, within=within)["y"]
        np.testing.assert_allclose(both["holes"].error, less.error)
        assert (both["all"].utterances, both["holes"].utterances) == (N, len(kept))


# Intervals.


def test_intervals_are_those_of_the_jackknife_by_hand() -> None:
    a = Probed(["s1", "s2", "s3"], np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), 9, [1.0])
    b = Probed(["s1", "s2", "s3"], np.array([3.0, 3, 4]), np.array([4.0, 5, 6]), 9, [1.0])
    assert r2(a).value == pytest.approx(1 - 6 / 15)
    without = np.array([1 - 5 / 11, 1 - 4 / 10, 1 - 3 / 9])
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert r2(a).high - r2(a).value == pytest.approx(4.302653 * error, rel=1e-6)
    assert r2(a).n_speakers == 3
    found = r2_difference(a, b)
    assert found.value == pytest.approx(4 / 15)
    apart = without - np.array([1 - 7 / 11, 1 - 7 / 10, 1 - 6 / 9])
    error = np.sqrt(2 / 3 * ((apart - apart.mean()) ** 2).sum())
    assert found.value - found.low == pytest.approx(4.302653 * error, rel=1e-6)
    assert (found.p < 0.05) == (found.low > 0)
    same = r2_difference(a, a)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_one_speaker_or_nothing_that_varies_has_no_interval() -> None:
    one = Probed(["s"], np.array([1.0]), np.array([2.0]), 3, [1.0])
    assert r2(one).value == 0.5
    assert np.isnan([r2(one).low, r2_difference(one, one).p]).all()
    flat = Probed(["s", "t"], np.zeros(2), np.zeros(2), 3, [1.0])
    assert np.isnan(r2(flat).value)
    assert np.isnan(r2_difference(flat, flat).value)


# Refusals.


def test_folds_that_are_not_of_other_speakers_are_refused() -> None:
    x, names = drawn()
    y = {"y": x[:, 0]}
    rows = np.arange(N)
    with pytest.raises(DataError, match=says("fold 0", 12, "s00, s01, s02")):
        probe(x, y, names, [Fold(rows[:120], rows[120:])])
    fold = folds_of(names)[0]
    with pytest.raises(DataError, match=says(60, "folds")):
        probe(x, y, names, [fold, fold])
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match=says("1 of 240", "frames")):
        probe(broken, y, names, [fold])


def test_other_probes_are_not_compared() -> None:
    x, names = drawn()
    found = probe(x, {"a": x[:, 0], "b": x[:, 1]}, names, folds_of(names))
    with pytest.raises(DataError, match=says("12 and 12", "quantity")):
        r2_difference(found["a"], found["b"])
