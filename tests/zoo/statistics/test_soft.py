"""Scores against the votes of raters and against dimensions, each against another library."""

from __future__ import annotations

from dataclasses import replace

import audmetric
import numpy as np
import pytest
import torch
from facts import says
from scipy.spatial import distance
from scipy.special import softmax
from scipy.stats import entropy
from serzoo.zoo.core.errors import ComparisonError, DataError
from serzoo.zoo.statistics.soft import (
    any_rater_accuracy,
    ccc,
    cosine,
    cross_entropy,
    jensen_shannon,
    shares_of,
    soft_numbers,
)
from serzoo.zoo.statistics.speakers import measure
from serzoo.zoo.statistics.table import PredictionTable, merge
from torchmetrics import ConcordanceCorrCoef

SCORES = np.random.default_rng(0).normal(size=(40, 4))
VOTES = np.random.default_rng(1).integers(0, 4, (40, 4)) + np.eye(4)[np.arange(40) % 4]


def test_shares_are_counts_over_their_sum():
    assert shares_of(np.array([[3, 1, 0], [0, 0, 2]])).tolist() == [[0.75, 0.25, 0], [0, 0, 1]]


def test_cross_entropy_is_that_of_torch():
    want = torch.nn.functional.cross_entropy(
        torch.from_numpy(SCORES), torch.from_numpy(shares_of(VOTES))
    )
    assert cross_entropy(SCORES, VOTES) == pytest.approx(want.item())


def test_jensen_shannon_is_the_square_of_scipys_distance():
    rows = zip(softmax(SCORES, 1), shares_of(VOTES), strict=True)
    want = np.mean([distance.jensenshannon(p, q, base=2) ** 2 for p, q in rows])
    assert jensen_shannon(SCORES, VOTES) == pytest.approx(want)


def test_cosine_is_one_less_scipys_distance():
    rows = zip(softmax(SCORES, 1), shares_of(VOTES), strict=True)
    want = np.mean([1 - distance.cosine(p, q) for p, q in rows])
    assert cosine(SCORES, VOTES) == pytest.approx(want)


def test_certain_answers_have_the_ends_of_each_scale():
    sure = np.array([[1e4, 0.0], [0.0, 1e4]])
    right, wrong = np.array([[5, 0], [0, 5]]), np.array([[0, 5], [5, 0]])
    assert jensen_shannon(sure, right) == cross_entropy(sure, right) == 0
    assert jensen_shannon(sure, wrong) == 1
    assert cosine(sure, right) == 1
    assert cosine(sure, wrong) == 0


def test_an_answer_of_one_rater_is_right():
    scores = np.array([[2.0, 1, 0], [2.0, 1, 0], [0, 1, 2.0]])
    votes = np.array([[1, 9, 0], [0, 9, 1], [0, 0, 1]])
    assert any_rater_accuracy(scores, votes) == pytest.approx(2 / 3)


def test_ccc_is_that_of_audmetric_and_torchmetrics():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(50, 2))
    x = 0.5 * y + 0.3 + rng.normal(scale=0.4, size=(50, 2))
    found = ccc(x, y)
    want = [audmetric.concordance_cc(y[:, i], x[:, i]) for i in (0, 1)]
    assert found == pytest.approx(want)
    # it divides variances by N - 1
    other = ConcordanceCorrCoef(num_outputs=2)(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(other.numpy(), abs=0.002)
    assert ccc(y, y) == pytest.approx([1, 1])
    # by hand: means 2 and 3, variances 2/3, covariance 2/3: 2 * 2/3 / (4/3 + 1)
    assert ccc(np.array([[1.0], [2], [3]]), np.array([[2.0], [3], [4]])) == pytest.approx(4 / 7)
    assert np.isnan(ccc(np.ones((3, 1)), np.ones((3, 1)))).all()


@pytest.mark.parametrize(
    ("votes", "facts"),
    [
        (np.zeros((40, 4)), ("40 of 40", "row 0")),
        (np.where(np.arange(40)[:, None] == 7, -1, 1) * np.ones((40, 4)), ("1 of 40", "row 7")),
        (np.ones((40, 3)), ("(40, 4)", "(40, 3)")),
        (np.ones(40), ("(40,)",)),
    ],
)
def test_votes_that_cannot_be_used_are_refused(votes, facts):
    with pytest.raises(DataError, match=says(*facts)):
        cross_entropy(SCORES, votes)


def test_dimensions_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match=says("(3, 1)", "(2, 1)")):
        ccc(np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(DataError, match=says("not finite")):
        ccc(np.full((3, 1), np.nan), np.ones((3, 1)))


# -- votes in a table of predictions


def voted(votes: np.ndarray | None) -> PredictionTable:
    names = [f"x/{i}" for i in range(40)]
    who = [f"x/s{i % 5}" for i in range(40)]
    return PredictionTable(names, who, np.arange(40) % 4, SCORES, list("abcd"), votes=votes)


def test_a_table_is_scored_against_those_who_were_asked():
    votes = VOTES.copy()
    votes[10:] = 0
    found = soft_numbers(voted(votes), 2.0)
    table = voted(None)
    assert found["n"] == 10
    assert found["cross_entropy"] == pytest.approx(cross_entropy(table.scores[:10] / 2, votes[:10]))
    assert found["any_rater_accuracy"] == any_rater_accuracy(table.scores[:10], votes[:10])
    want = entropy(shares_of(votes[:10]), axis=1).mean()
    assert found["entropy"] == pytest.approx(want)
    # the votes themselves as a model: no cross-entropy is below their entropy
    oracle = replace(voted(VOTES), scores=np.log(shares_of(VOTES) + 1e-12))
    assert (o := soft_numbers(oracle))["cross_entropy"] == pytest.approx(o["entropy"], abs=1e-4)
    assert measure(voted(votes), 2.0)["metrics"]["votes"] == found


def test_a_table_without_votes_has_no_such_numbers():
    assert soft_numbers(voted(None)) is None
    assert soft_numbers(voted(np.zeros((40, 4)))) is None
    assert "votes" not in measure(voted(None))["metrics"]


def test_votes_are_written_and_read_and_old_files_have_none(tmp_path):
    votes = VOTES.copy()
    votes[3] = 0
    table = voted(votes)
    path = table.write_jsonl(tmp_path / "p.jsonl")
    assert PredictionTable.read_jsonl(path) == table
    assert '"votes": {}' in path.read_text().splitlines()[3]
    old = voted(None)
    assert old != table
    assert "votes" not in old.write_jsonl(path).read_text()
    assert PredictionTable.read_jsonl(path).votes is None


def test_votes_follow_their_utterances():
    table = voted(VOTES)
    assert np.array_equal(table.subset([7, 2]).votes, VOTES[[7, 2]])
    parts = [table.subset(range(20, 40)), table.subset(range(25))]
    assert np.array_equal(merge(parts).votes, VOTES[np.argsort(table.ids)])
    half = merge([table.subset([0]), voted(None).subset([1])])
    assert half.votes.tolist() == [VOTES[0].tolist(), [0] * 4]
    with pytest.raises(ComparisonError, match=says("x/0", "two different votes")):
        merge([table, voted(VOTES + 1)])


@pytest.mark.parametrize(
    ("votes", "facts"),
    [
        (VOTES[:3], ("(3, 4)", "[40, 4]")),
        (VOTES - 10, ("negative",)),
        (np.where(VOTES > 2, np.nan, VOTES), ("not finite", "x/")),
    ],
)
def test_a_table_refuses_votes_that_are_none(votes, facts):
    with pytest.raises(DataError, match=says(*facts)):
        voted(votes)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ('{"e": 1}', ("line 2", "'e'")),
        ('{"a": "x"}', ("line 2", "ValueError")),
        (None, ("1 of 2 lines",)),
    ],
)
def test_a_file_with_votes_that_cannot_be_used_is_refused(tmp_path, line, facts):
    row = '{"id": "%s", "speaker": "s", "label": "a", "scores": {"a": 1, "b": 0}%s}\n'
    second = "" if line is None else f', "votes": {line}'
    (tmp_path / "p.jsonl").write_text(row % ("1", ', "votes": {"a": 1}') + row % ("2", second))
    with pytest.raises(DataError, match=says(*facts)):
        PredictionTable.read_jsonl(tmp_path / "p.jsonl")
