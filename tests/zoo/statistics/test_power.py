"""The minimum detectable difference is found as often as it says: by simulation."""

from math import isnan

import numpy as np
import pytest
from facts import says, tells
from scipy import stats as scipy_stats
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.statistics.speakers import minimum_detectable, paired_jackknife
from serzoo.zoo.statistics.table import PredictionTable

EACH = 50


def pair(rng, g: int, better: float, spread: float = 0.06):
    """Two heads; the first answers ``better`` more of each speaker's utterances, give or take."""
    gain = better + spread * rng.normal(size=g)
    hits = [np.round(EACH * (0.5 + gain)), np.full(g, EACH // 2)]
    labels = np.zeros(g * EACH, dtype=int)
    who = [f"s{i // EACH:02d}" for i in range(g * EACH)]
    ids = [str(i) for i in range(g * EACH)]
    out = []
    for h in hits:
        wrong = (np.arange(EACH)[None] >= h[:, None]).reshape(-1).astype(int)
        out.append(PredictionTable(ids, who, labels, np.eye(2)[wrong], ["a", "b"]))
    return out


def test_by_hand():
    a, b = pair(np.random.default_rng(0), 10, 0.05)
    gains = [(t.predicted == 0).reshape(10, -1).mean(1) for t in (a, b)]
    error = scipy_stats.sem(gains[0] - gains[1])
    found = minimum_detectable(a, b, level=0.9, power=0.7)
    assert found.error == pytest.approx(error)
    t = scipy_stats.t(9)
    assert found.value == pytest.approx((t.ppf(0.95) + t.ppf(0.7)) * error)
    assert (found.level, found.power, found.n_speakers, found.note) == (0.9, 0.7, 10, "")


def test_its_error_is_the_paired_bootstrap_s_but_for_the_known_factor():
    a, b = pair(np.random.default_rng(0), 10, 0.05)
    gains = [(t.predicted == 0).reshape(10, -1).mean(1) for t in (a, b)]
    rng = np.random.default_rng(0)
    plain = scipy_stats.bootstrap((gains[0] - gains[1],), np.mean, n_resamples=40_000, rng=rng)
    want = np.sqrt(10 / 9) * plain.standard_error
    assert minimum_detectable(a, b).error == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("g", [4, 10, 24])
def test_a_difference_of_that_size_is_found_as_often_as_it_says(g):
    rng = np.random.default_rng(g)
    t = scipy_stats.t(g - 1)
    # answers are rounded to whole utterances, which adds a variance of 1/12 of one
    error = np.sqrt((0.06**2 + 1 / 12 / EACH**2) / g)
    size = (t.ppf(0.975) + t.ppf(0.8)) * error
    tables = [pair(rng, g, size) for _ in range(300)]
    power = np.mean([paired_jackknife(a, b, "wa").p < 0.05 for a, b in tables])
    assert power == pytest.approx(0.8, abs=0.08)  # 3.5 standard errors of 300
    told = [minimum_detectable(a, b, "wa") for a, b in tables]
    # what each test set says of itself is right on average, in its variance
    assert np.mean([d.error**2 for d in told]) == pytest.approx(error**2, rel=0.15)
    assert np.median([d.value for d in told]) == pytest.approx(size, rel=0.15)


def test_where_it_cannot_be_told():
    a, b = pair(np.random.default_rng(0), 1, 0.1)
    found = minimum_detectable(a, b)
    assert isnan(found.value)
    assert tells(found.note, "one speaker", "spread")
    a, b = pair(np.random.default_rng(0), 5, 0.1, spread=0.0)
    found = minimum_detectable(a, b)
    assert isnan(found.value)
    assert tells(found.note, "same", "every speaker")
    with pytest.raises(ConfigError, match=says("level 80", "0 < level < 1")):
        minimum_detectable(a, b, power=80)
