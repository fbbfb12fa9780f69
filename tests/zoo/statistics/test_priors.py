"""Scores whose mean probability is matched to a declared prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from facts import says
from scipy.special import softmax
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.statistics.priors import label_shift, matched, matching_bias, prior_of, read_prior
from serzoo.zoo.statistics.table import PredictionTable
from tables import random_table

UNIFORM = np.full(3, 1 / 3)


def shifted(n: int = 3000) -> PredictionTable:
    """Two corpora, each of which moves the scores of all classes by its own numbers."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    scores = rng.normal(size=(n, 3)) + 2 * np.eye(3)[labels]
    far = np.arange(n) % 2 == 0
    scores[far] += [3, 0, -1]
    scores[~far] += [0, -2, 1]
    where = ["a" if x else "b" for x in far]
    names = [f"{c}/{i % 12}" for i, c in enumerate(where)]
    return PredictionTable([f"{i:04d}" for i in range(n)], names, labels, scores, ["x", "y", "z"])


@pytest.mark.parametrize("prior", [[1 / 3, 1 / 3, 1 / 3], [0.7, 0.2, 0.1]])
def test_the_mean_probability_is_the_prior(prior):
    scores = shifted().scores
    bias = matching_bias(scores, np.array(prior), shrink=0)
    assert softmax(scores + bias, 1).mean(0) == pytest.approx(prior, abs=1e-5)
    assert bias.sum() == pytest.approx(0, abs=1e-9)


def test_the_bias_is_that_of_iterative_scaling():
    scores, prior = shifted(60).scores, np.array([0.5, 0.3, 0.2])
    b = np.zeros(3)
    for _ in range(2000):
        b += np.log(prior) - np.log(softmax(scores + b, 1).mean(0))
    assert matching_bias(scores, prior, shrink=0) == pytest.approx(b - b.mean(), abs=1e-4)


def test_a_shift_of_the_scores_is_undone():
    t = shifted()
    plain, whole, corpus = t.uar(), matched(t).uar(), matched(t, "corpus").uar()
    assert plain < whole < corpus
    still = t.scores - np.where(np.arange(len(t))[:, None] % 2 == 0, [3, 0, -1], [0, -2, 1])
    assert corpus == pytest.approx(replace(t, scores=still).uar(), abs=0.01)


def test_one_utterance_keeps_the_order_of_its_classes():
    for row in np.random.default_rng(1).normal(scale=5, size=(50, 3)):
        moved = row + matching_bias(row[None], UNIFORM)
        assert moved.argsort().tolist() == row.argsort().tolist()
    # without the penalty nothing of it is left
    row = np.array([[2.0, 0, -1]])
    assert softmax(row + matching_bias(row, UNIFORM, shrink=0)) == pytest.approx(1 / 3, abs=1e-4)


def test_many_utterances_outweigh_the_penalty():
    scores = shifted().scores
    assert matching_bias(scores, UNIFORM) == pytest.approx(
        matching_bias(scores, UNIFORM, shrink=0), abs=0.02
    )


def test_each_speaker_gets_the_prior_and_an_unknown_one_that_of_its_corpus():
    t = shifted(240)
    t.speakers[:2] = ["", ""]
    t.ids[:2] = ["a/0", "b/1"]
    done = matched(t, "speaker", shrink=0)
    for name in sorted({s for s in t.speakers if s}):
        rows = [i for i, s in enumerate(t.speakers) if s == name]
        assert done.probabilities()[rows].mean(0) == pytest.approx(UNIFORM, abs=1e-4)
    assert done.scores[:2] == pytest.approx(matched(t, "corpus", shrink=0).scores[:2])


def test_labels_play_no_part():
    t = shifted(60)
    blind = replace(t, labels=np.full(60, -1))
    assert np.array_equal(matched(t, "speaker").scores, matched(blind, "speaker").scores)


def test_a_given_prior_is_scaled_and_in_class_order():
    given = prior_of(["a", "b"], {"b": 3, "a": 1})
    assert given.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"a": 1}, ("lacks b",)),
        ({"a": 1, "bb": 1}, ("'bb'", "a, b")),
        ({"a": 1, "b": 0}, ("above 0",)),
        ({"a": 1, "b": float("nan")}, ("above 0",)),
    ],
)
def test_a_prior_that_cannot_be_used_is_refused(given, facts):
    with pytest.raises(ConfigError, match=says(*facts)):
        prior_of(["a", "b"], given)


def test_a_prior_is_read_from_a_setting():
    assert read_prior("b:3, a:1", ["a", "b"]) == {"b": 3, "a": 1}
    assert read_prior(None, ["a", "b"]) is None is read_prior("uniform", ["a", "b"])


@pytest.mark.parametrize("text", ["a", "a:x", "a:1,a:2", ":1", "", "a:nan"])
def test_a_prior_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match=says("prior", "uniform", "neutral:3,angry:1")):
        read_prior(text, ["a", "b"])


def test_scores_too_far_apart_say_so():
    t = shifted(6)
    far = replace(t, scores=t.scores * 1e30)
    with pytest.raises(DataError, match=says("6 utterances", "temperature")):
        matched(far)
    found = label_shift(far)
    assert found["plain"]
    assert found["matched"] is None
    assert "temperature" in found["why"]


def test_what_cannot_be_matched_is_refused():
    t = shifted(6)
    with pytest.raises(ConfigError, match=says("'speakers'", "speaker")):
        matched(t, "speakers")
    with pytest.raises(ConfigError, match=says("-1", "0 or more")):
        matched(t, shrink=-1)
    with pytest.raises(DataError, match=says("[0, 3]", "empty")):
        matching_bias(t.scores[:0], UNIFORM)


def test_a_record_holds_plain_and_matched_numbers():
    t = random_table()
    found = label_shift(t)
    assert found["plain"] == t.metrics()
    assert found["matched"]["uar"] == matched(t, "corpus").uar()
    assert found["per_speaker"]["uar"] == matched(t, "speaker").uar()
    assert sum(found["prior"].values()) == pytest.approx(1)
    assert "transductive" in found["note"]
    unknown = label_shift(replace(t, speakers=[""] * len(t)))
    assert unknown["per_speaker"] is None
    assert unknown["why"] == "no speaker is known"
