"""Selection, soft targets and folding: every number by hand."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
from facts import says
from serzoo.datamodules.labelling.select import (
    THRESHOLDS,
    Criteria,
    centre_of,
    centred,
    fold,
    fold_rows,
    select,
    soft_targets,
)
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy

THREE = Taxonomy.of(["angry", "happy", "neutral"], "three")
ALL = Criteria(threshold=0.0, agreement=0.0)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def row(key: str, *templates: tuple[float, ...], taxonomy: Taxonomy = THREE) -> dict[str, Any]:
    """As the stage writes it, from the probabilities of each template."""
    lift = [[round(logit(p), 5) for p in each] for each in templates]
    mean = [round(sum(column) / len(templates), 5) for column in zip(*templates, strict=True)]
    scores = dict(zip(taxonomy.classes, mean, strict=True))
    return {"id": key, "text": f"T {key}", "text_source": "asr:x", "scores": scores} | {
        "by_template": lift
    }


def silent(key: str) -> dict[str, Any]:
    return {"id": key, "text": "", "text_source": "asr:x", "scores": None, "by_template": None}


def manifest(*ids: str) -> list[Utterance]:
    return [
        Utterance(
            i, "c", "a.wav", 0.0, 1.0, 16000, "s", label="A", label_source="acted", label_score=1.0
        )
        for i in ids
    ]


def labels(*args: Any, **kwargs: Any) -> dict[str, str | None]:
    return {u.id: u.label for u in select(*args, **kwargs).utterances}


# Criteria.

ROWS = [
    row("sure", (0.9, 0.2, 0.1), (0.8, 0.2, 0.1)),  # angry 0.85, next 0.2, both templates
    row("split", (0.9, 0.3, 0.1), (0.4, 0.6, 0.1)),  # angry 0.65, next 0.45, one template
    row("near", (0.1, 0.75, 0.7), (0.1, 0.75, 0.7)),  # happy 0.75, next 0.7
    row("tied", (0.6, 0.6, 0.1), (0.6, 0.6, 0.1)),
    row("weak", (0.1, 0.1, 0.4), (0.1, 0.1, 0.4)),  # neutral 0.4
    silent("mute"),
]
IDS = [*(r["id"] for r in ROWS), "unheard"]


@pytest.mark.parametrize(
    ("criteria", "chosen"),
    [
        (ALL, "sure split near weak"),
        (Criteria(), "sure split near"),
        (Criteria(threshold=0.7, agreement=0.0), "sure near"),
        (Criteria(threshold=0.75, agreement=0.0), "sure near"),
        (Criteria(threshold=0.0, margin=0.2, agreement=0.0), "sure split weak"),
        (Criteria(agreement=1.0), "sure near"),
        (Criteria(threshold=0.0, cap=1), "sure near weak"),
        (Criteria(threshold=0.0, neutral=0.25), "sure split near weak"),
        (Criteria(threshold=0.0, neutral=0.2), "sure split near"),
        (Criteria(threshold=0.0, neutral=0.0), "sure split near"),
    ],
)
def test_each_criterion_keeps_what_it_should(criteria: Criteria, chosen: str) -> None:
    found = labels(manifest(*IDS), ROWS, THREE, "m@1", criteria)
    best = {"sure": "angry", "split": "angry", "near": "happy", "weak": "neutral"}
    assert found == dict.fromkeys(IDS) | {i: best[i] for i in chosen.split()}


def test_a_label_tells_where_it_is_from_and_nothing_of_the_old_one_stays() -> None:
    found = {u.id: u for u in select(manifest(*IDS), ROWS, THREE, "m@1").utterances}
    sure = found["sure"]
    assert (sure.label, sure.label_source, sure.label_score) == ("angry", "weak:m@1", 0.85)
    assert (sure.text, sure.text_source) == ("T sure", "asr:x")
    for key in ("tied", "mute", "unheard"):
        u = found[key]
        assert (u.label, u.label_source, u.label_score) == (None, None, None)
    assert (found["tied"].text, found["unheard"].text) == ("T tied", None)
    assert list(found) == IDS


def test_every_criterion_says_what_it_cost() -> None:
    criteria = Criteria(threshold=0.5, margin=0.06, agreement=0.6, cap=1, neutral=0.5)
    result = select(manifest(*IDS), ROWS, THREE, "m@1", criteria)
    steps = [(c["criterion"], c["value"], c["before"], c["after"]) for c in result.counts]
    assert steps == [
        ("transcript", None, 7, 6),
        ("words", None, 6, 5),
        ("tie", None, 5, 4),
        ("threshold", 0.5, 4, 3),
        ("margin", 0.06, 3, 2),
        ("agreement", 0.6, 2, 1),
        ("cap", 1, 1, 1),
        ("balance", None, 1, 1),
        ("neutral", 0.5, 1, 1),
    ]
    assert result.counts[3]["classes"] == {"angry": 2, "happy": 1, "neutral": 0}
    for before, after in zip(result.counts[1:], result.counts[2:], strict=False):
        assert before["after"] == after["before"]
    told = result.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["criteria"]["cap"] == 1


def test_coverage_falls_with_the_threshold_and_agrees_with_selection() -> None:
    result = select(manifest(*IDS), ROWS, THREE, "m@1", Criteria(agreement=1.0))
    table = {c["threshold"]: c for c in result.coverage}
    assert tuple(table) == THRESHOLDS
    assert [table[t]["kept"] for t in (0.0, 0.4, 0.45, 0.75, 0.8, 0.85, 0.9)] == [
        3,
        3,
        2,
        2,
        1,
        1,
        0,
    ]
    assert table[0.75]["share"] == pytest.approx(2 / 7, abs=1e-6)
    assert table[0.8]["classes"] == {"angry": 1, "happy": 0, "neutral": 0}
    for threshold, line in table.items():
        again = Criteria(threshold=threshold, agreement=1.0)
        chosen = labels(manifest(*IDS), ROWS, THREE, "m@1", again)
        assert sum(label is not None for label in chosen.values()) == line["kept"]


def test_caps_keep_the_most_confident_and_then_the_smaller_hash() -> None:
    ids = [f"u{i}" for i in range(8)]
    high = {"u1": 0.9, "u6": 0.8}
    rows = [row(i, (high.get(i, 0.7), 0.1, 0.2)) for i in ids]
    found = labels(manifest(*ids), rows, THREE, "m@1", Criteria(cap=4))
    rest = sorted(set(ids) - set(high), key=lambda i: hashlib.sha256(i.encode()).hexdigest())
    assert {i for i, label in found.items() if label} == {"u1", "u6", *rest[:2]}
    # and not by the order in which they came
    back = labels(manifest(*reversed(ids)), rows[::-1], THREE, "m@1", Criteria(cap=4))
    assert back == found


def test_neutral_is_capped_as_a_share_of_what_is_left() -> None:
    rows = [row(f"n{i}", (0.1, 0.2, 0.6 + 0.01 * i)) for i in range(20)]
    rows += [row(f"h{i}", (0.1, 0.8, 0.2)) for i in range(7)]
    ids = [r["id"] for r in rows]
    for share, expected in ((0.3, 3), (0.5, 7), (0.0, 0), (1.0, 20)):
        result = select(manifest(*ids), rows, THREE, "m@1", Criteria(neutral=share))
        left = [u.id for u in result.utterances if u.label == "neutral"]
        assert left == [f"n{i}" for i in range(20 - expected, 20)]
        assert result.counts[-1]["classes"] == {"angry": 0, "happy": 7, "neutral": expected}
    # neutral may go by another name
    calm = Taxonomy("t", (("flat", ("neutral", "calm")), ("happy", ("happy",))))
    rows = [row("a", (0.9, 0.1), taxonomy=calm), row("b", (0.1, 0.9), taxonomy=calm)]
    none = labels(manifest("a", "b"), rows, calm, "m@1", Criteria(neutral=0.4))
    assert none == {"a": None, "b": "happy"}


def test_rows_that_do_not_belong_are_refused() -> None:
    with pytest.raises(DataError, match=says("manifest", "sure")):
        select(manifest("a"), ROWS[:1], THREE, "m@1")
    with pytest.raises(DataError, match=says("manifest", "sure", "twice")):
        select(manifest("sure"), ROWS[:1] * 2, THREE, "m@1")
    with pytest.raises(DataError, match=says("sure", "angry, happy, neutral, sad")):
        select(manifest("sure"), ROWS[:1], Taxonomy.load("big4"), "m@1")
    for bad in ({"threshold": 1.5}, {"neutral": -0.1}, {"cap": 0}):
        with pytest.raises(ConfigError, match=says(*(f"{k}={v}" for k, v in bad.items()))):
            Criteria(**bad)


# Soft targets.


def test_soft_targets_are_in_the_order_of_the_taxonomy_and_add_up() -> None:
    turned = Taxonomy.of(["neutral", "angry", "happy"], "turned")
    lift = {"by_template": [[1.0, 0.0, -1.0], [3.0, 0.0, 1.0]]}
    rows = [ROWS[0] | {"id": "a"} | lift, silent("mute")]
    found = soft_targets(rows, turned)
    assert list(found) == ["a"]
    odds = np.exp([0.0, 2.0, 0.0])  # the means over templates: neutral, angry, happy
    assert found["a"] == pytest.approx(odds / odds.sum())
    sharp = soft_targets(rows, turned, temperature=0.5)["a"]
    assert sharp == pytest.approx(odds**2 / (odds**2).sum())
    alone = soft_targets(ROWS[:1], turned, "independent")["sure"]
    assert alone == pytest.approx([0.1, 0.85, 0.2], abs=1e-5)
    huge = [ROWS[0] | {"by_template": [[900.0, -900.0, 0.0]]}]
    assert soft_targets(huge, THREE)["sure"].tolist() == [1.0, 0.0, 0.0]
    assert soft_targets(huge, THREE, "independent")["sure"].tolist() == [1.0, 0.0, 0.5]
    with pytest.raises(
        ConfigError, match=says("kind=hard", "temperature=1.0", "distribution", "independent")
    ):
        soft_targets(rows, turned, "hard")  # type: ignore[arg-type]


# Folding.


def test_fine_taxonomies_fold_into_coarse_ones_with_nothing_lost_unsaid() -> None:
    fine, big4 = Taxonomy.load("fine40"), Taxonomy.load("big4")
    ekman = fold(fine, Taxonomy.load("ekman"))
    gone = {c for c, to in ekman.items() if to is None}
    assert gone == {"bored", "calm", "determined", "doubtful", "jealous", "nostalgic", "tired"}
    assert (ekman["grateful"], ekman["lonely"], ekman["curious"]) == ("happy", "sad", "surprised")
    assert list(ekman) == fine.classes
    four = fold(fine, big4)  # through ekman
    assert four["grateful"] == "happy"
    assert {c for c, to in four.items() if to is None} == gone | {
        c for c, to in ekman.items() if to in ("surprised", "fearful", "disgust")
    }
    sentiment = fold(fine, Taxonomy.load("sentiment3"))
    # what the coarse one has itself comes first: calm is none of ekman's
    assert (sentiment["calm"], sentiment["bored"]) == ("positive", "negative")
    assert (sentiment["proud"], sentiment["surprised"]) == ("positive", None)
    assert not {None} & set(fold(Taxonomy.load("goemotions"), Taxonomy.load("ekman")).values())
    alone = fold(fine, big4, through=None)
    assert {c: to for c, to in alone.items() if to} == {c: c for c in big4.classes}


def test_a_coarse_class_that_gets_nothing_and_a_fine_one_that_is_of_two() -> None:
    with pytest.raises(ConfigError, match=says("'goemotions'", "calm", "'ravdess8'")):
        fold(Taxonomy.load("goemotions"), Taxonomy.load("ravdess8"))
    mixed = Taxonomy("m", (("up", ("happy", "excited")), ("odd", ("sad", "angry", "tired"))))
    pair = Taxonomy("p", (("high", ("happy",)), ("low", ("sad",))))
    assert fold(mixed, pair) == {"up": "high", "odd": "low"}  # angry goes nowhere
    apart = Taxonomy("p", (("high", ("happy", "sad")), ("low", ("angry",))))
    with pytest.raises(ConfigError, match=says("'m'", "low", "'p'")):
        fold(mixed, apart)  # odd goes nowhere


def test_a_folded_class_has_the_greatest_score_of_its_own_per_template() -> None:
    fine = Taxonomy.of(["annoyed", "angry", "happy", "tired"], "fine")
    coarse = Taxonomy.of(["happy", "angry"], "coarse")
    rows = [row("a", (0.6, 0.2, 0.3, 0.9), (0.1, 0.8, 0.5, 0.9), taxonomy=fine), silent("m")]
    folded = list(fold_rows(rows, fine, coarse))
    assert folded[0]["scores"] == pytest.approx({"happy": 0.4, "angry": 0.7}, abs=1e-4)
    assert folded[0]["by_template"][0] == pytest.approx([logit(0.3), logit(0.6)], abs=1e-4)
    assert folded[0]["text"] == "T a"
    assert folded[1] == silent("m")
    assert labels(manifest("a", "m"), folded, coarse, "m@1") == {"a": "angry", "m": None}
    # a taxonomy folded into itself is as it was
    assert list(fold_rows(ROWS, THREE, THREE)) == ROWS


# Scores without the mean of all transcripts.


def leaning(by: float) -> list[dict[str, Any]]:
    """Three rows of a scorer, whose log-odds of happy are all larger by a number."""
    odds = {"a": [1.0, -1.0, 0.0], "b": [-2.0, 1.0, -1.0], "c": [0.0, -1.5, 2.0]}
    return [
        {
            "id": key,
            "text": "T",
            "text_source": "human",
            "scores": dict.fromkeys(THREE.classes, 0.5),
            "by_template": [[x, y + by, z], [x, y + 2 * by, z]],
        }
        for key, (x, y, z) in odds.items()
    ]


def test_centred_scores_have_no_preference() -> None:
    plain, leans = leaning(0.0), [*leaning(5.0), silent("mute")]
    centre = centre_of(leans, THREE.classes)
    np.testing.assert_allclose(centre, [[-1 / 3, 4.5, 1 / 3], [-1 / 3, 9.5, 1 / 3]], atol=1e-5)
    assert labels(manifest("a", "b", "c"), leans[:3], THREE, "m@1", ALL) == dict.fromkeys(
        "abc", "happy"
    )
    found = list(centred(leans, THREE.classes, centre))
    expected = list(centred(plain, THREE.classes, centre_of(plain, THREE.classes)))
    assert found[:3] == expected
    assert found[3] == silent("mute")
    assert labels(manifest("a", "b", "c"), found[:3], THREE, "m@1", ALL) == {
        "a": "angry", "b": "happy", "c": "neutral",
    }  # fmt: skip
    assert found[0]["scores"]["angry"] == pytest.approx(1 / (1 + math.exp(-4 / 3)), abs=1e-5)


def test_without_words_nothing_is_centred() -> None:
    assert centre_of([silent("mute")], THREE.classes).tolist() == [[0.0, 0.0, 0.0]]
