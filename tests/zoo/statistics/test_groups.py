"""Sub-group tables against audmetric on each group's rows."""

from math import isnan

import audmetric
import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.statistics.breakdown import sub_groups
from serzoo.zoo.statistics.speakers import jackknife
from serzoo.zoo.statistics.table import PredictionTable


@pytest.fixture
def table() -> PredictionTable:
    """Six speakers with 12 utterances of 3 classes each; women are recognised better."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(12) % 3, 6)
    who = [f"toy/{i // 12}" for i in range(72)]
    skill = np.where(np.arange(72) < 36, 3.0, 0.5)
    scores = rng.normal(size=(72, 3)) + skill[:, None] * np.eye(3)[labels]
    return PredictionTable([f"u{i:02d}" for i in range(72)], who, labels, scores, list("abc"))


@pytest.fixture
def attributes() -> dict[str, dict[str, object]]:
    return {
        f"u{i:02d}": {
            "gender": "female" if i < 36 else "male",
            "language": "pl" if i < 12 else "de",
            "duration": 1 + i / 10,
        }
        for i in range(72)
    }


def test_each_row_is_that_of_its_utterances(table, attributes):
    found = sub_groups(table, attributes, "gender")
    assert [g.name for g in found.groups] == ["female", "male"]
    for group, rows in zip(found.groups, (range(36), range(36, 72)), strict=True):
        part = table.subset(rows)
        truth, said = ([table.classes[i] for i in x] for x in (part.labels, part.predicted))
        want = audmetric.unweighted_average_recall(truth, said)
        assert group.score.value == pytest.approx(want)
        assert group.score == jackknife(part)
        assert group.recalls == pytest.approx(audmetric.recall_per_class(truth, said))
        assert (group.n, group.score.n_speakers, group.absent, group.note) == (36, 3, [], "")
    female, male = (g.score.value for g in found.groups)
    assert (found.worst, found.gap) == ("male", female - male)
    assert (found.attribute, found.unstated, found.note) == ("gender", 0, "")


@pytest.mark.parametrize(
    ("metric", "want"),
    [("wa", audmetric.accuracy), ("macro_f1", audmetric.unweighted_average_fscore)],
)
def test_the_metric_of_the_suite_is_that_of_the_groups(table, attributes, metric, want):
    kept = [i for i in range(72) if i % 12 < 7 or i % 3 == 0]  # classes of unequal size
    part = table.subset(kept)
    found = sub_groups(part, attributes, "gender", metric)
    for group, rows in zip(found.groups, (range(36), range(36, 72)), strict=True):
        own = table.subset([i for i in rows if i in kept])
        truth, said = ([own.classes[i] for i in x] for x in (own.labels, own.predicted))
        assert group.score.value == pytest.approx(want(truth, said))
        assert group.score == jackknife(own, metric)
    assert found.gap != pytest.approx(sub_groups(part, attributes, "gender").gap, abs=1e-3)


def test_accuracies_are_compared_although_a_group_lacks_a_class(table, attributes):
    kept = [i for i in range(72) if i >= 12 or table.labels[i] != 2]
    found = sub_groups(table.subset(kept), attributes, "language", "wa")
    german, polish = found.groups
    assert found.gap == pytest.approx(abs(german.score.value - polish.score.value))
    assert found.gap > 0
    assert (found.left_out, found.note) == ([], "")


def test_terciles(table, attributes):
    found = sub_groups(table, attributes, "duration")
    assert [g.n for g in found.groups] == [24, 24, 24]
    assert [g.name for g in found.groups] == ["up to 3.37", "3.37 to 5.73", "above 5.73"]
    # two speakers each, in the order of the rows
    assert [g.score.n_speakers for g in found.groups] == [2, 2, 2]
    same = {i: {"duration": 2.0} for i in attributes}
    assert [g.n for g in sub_groups(table, same, "duration").groups] == [72]
    assert sub_groups(table, same, "duration").worst is None


def test_speakers_have_no_interval(table):
    found = sub_groups(table, {}, "speaker")
    assert [g.name for g in found.groups] == [f"toy/{i}" for i in range(6)]
    assert all(isnan(g.score.low) for g in found.groups)
    assert {g.note for g in found.groups} == {"one speaker: no interval"}
    lowest = min(found.groups, key=lambda g: g.score.value)
    assert found.worst == lowest.name
    assert sub_groups(table, {}, "speaker").gap == found.gap > 0


def test_a_class_that_a_group_lacks_is_said_and_not_compared(table, attributes):
    kept = [i for i in range(72) if i >= 12 or table.labels[i] != 2]
    found = sub_groups(table.subset(kept), attributes, "language")
    german, polish = found.groups
    assert (polish.name, polish.absent) == ("pl", ["c"])
    assert polish.note == "no c: a mean over 2 classes; one speaker: no interval"
    assert found.left_out == ["pl"]
    assert german.note == ""
    assert found.worst is None
    assert isnan(found.gap)
    assert found.note == f"not in the gap: pl: {polish.note}"
    # a class that nobody has is no difference between groups
    nobody = sub_groups(table.subset(np.flatnonzero(table.labels != 2)), attributes, "gender")
    assert nobody.worst == "male"
    assert [g.absent for g in nobody.groups] == [["c"], ["c"]]
    assert nobody.note == ""


def test_what_is_not_stated_is_counted(table, attributes):
    attributes["u00"]["gender"] = None
    attributes["u01"]["gender"] = ""
    del attributes["u02"]["gender"]
    attributes["u03"]["duration"] = float("nan")
    found = sub_groups(table, attributes, "gender")
    assert (found.unstated, [g.n for g in found.groups]) == (3, [33, 36])
    assert sub_groups(table, attributes, "duration").unstated == 1


def test_refusals(table, attributes):
    with pytest.raises(DataError, match=says("age", "duration, gender, language")):
        sub_groups(table, attributes, "age")
    mixed = attributes | {"u00": {"gender": 1.0}}
    with pytest.raises(DataError, match=says("1 of 72", "number")):
        sub_groups(table, mixed, "gender")
    del attributes["u05"]
    with pytest.raises(DataError, match=says("1 of 72", "u05", "attributes")):
        sub_groups(table, attributes, "gender")
    table.labels[:] = -1
    with pytest.raises(DataError, match=says(72, "groups")):
        sub_groups(table, attributes, "gender")
