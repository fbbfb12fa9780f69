"""What people are told of a training and of an evaluation, word for word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facts import tells
from serzoo.zoo.run.config import load
from serzoo.zoo.run.record import (
    EvalRecord,
    Record,
    calibration_line,
    evaluated_lines,
    left_out_lines,
    matched_lines,
    trained_lines,
)
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.statistics.speakers import interval_text
from serzoo.zoo.statistics.table import PredictionTable

HERE = Path("runs/here")


@pytest.fixture
def cfg() -> RunConfig:
    return load("ravdess", ["head=selm", "fold=2"])


def test_a_training_is_told_with_its_interval_where_there_is_one(cfg: RunConfig) -> None:
    metrics = {"uar": 0.6125, "wa": 0.6, "f1": 0.5994}
    found = {"uar_interval": [0.55, 0.7], "uar_interval_by": "jackknife over 4 speakers"}
    kept = "record, predictions, checkpoints, TensorBoard: runs/here"
    assert trained_lines(cfg, Record(metrics=metrics | found), HERE) == [
        "selm on ravdess, fold 2: test UAR 0.613 (95 % interval 0.550 to 0.700, jackknife over "
        "4 speakers), WA 0.600, macro-F1 0.599",
        kept,
    ]
    alone = {"uar_interval": None, "uar_interval_by": "one speaker: no interval"}
    assert trained_lines(cfg, Record(metrics=metrics | alone), HERE)[0].startswith(
        "selm on ravdess, fold 2: test UAR 0.613 (one speaker: no interval), WA 0.600"
    )


def test_an_interval_of_no_width_is_not_told_as_certainty() -> None:
    alike = {"uar_interval": [0.25, 0.25], "uar_interval_by": "jackknife over 2 speakers"}
    assert tells(interval_text(alike), "no width", "jackknife over 2 speakers")
    assert "0.25" not in interval_text(alike)


def test_the_bootstrap_of_an_older_record_is_not_told(cfg: RunConfig) -> None:
    metrics = {"uar": 0.6125, "wa": 0.6, "f1": 0.5994, "uar_interval": [0.55, 0.7]}
    told = trained_lines(cfg, Record(metrics=metrics), HERE)[0]
    assert "test UAR 0.613 (no interval: the record is older than the jackknife), WA" in told


def test_what_was_left_out_is_told_with_the_reason(cfg: RunConfig) -> None:
    counts = {"left_out_by_taxonomy": {"disgust": 46, "fearful": 2}, "cut_to_max_seconds": 3}
    notes = {"emodb": {"refused": {"silent": 1, "missing": 2}}, "nemo": {"refused": {}}}
    lines = [
        "  left out, in no class of the taxonomy: 46 disgust, 2 fearful",
        "  refused when emodb was prepared: 1 silent, 2 missing",
        "  cut to data.max_seconds: 3 utterances",
    ]
    assert left_out_lines(counts, notes) == lines
    assert left_out_lines({"left_out_by_taxonomy": {}, "cut_to_max_seconds": 0}, {}) == []
    metrics = {"uar": 0.5, "wa": 0.5, "f1": 0.5, "absent": []}
    entry = Record(metrics=metrics, counts=counts, notes=notes)
    assert trained_lines(cfg, entry, HERE)[1:-1] == lines
    table = PredictionTable(["a"], ["s"], np.array([0]), np.eye(2)[:1], ["sad", "calm"])
    found = EvalRecord(metrics=metrics, data={"counts": counts, "notes": notes})
    assert evaluated_lines(table, found)[-3:] == lines


def test_a_training_without_validation_has_no_numbers(cfg: RunConfig) -> None:
    assert trained_lines(cfg, Record(status="ok"), HERE) == [
        "selm on ravdess: trained; nothing was validated or tested",
        "record, checkpoints, TensorBoard: runs/here",
    ]


def test_an_evaluation_is_told_with_all_that_limits_it() -> None:
    scores = np.log(np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))
    table = PredictionTable(
        ["a", "b", "c"], ["s1", "s1", "s2"], np.array([0, 1, 1]), scores, ["sad", "angry", "calm"]
    )
    metrics = {"uar": 0.75, "wa": 2 / 3, "f1": 0.6, "absent": ["calm"]}
    metrics |= {"uar_interval": [0.5, 1.0], "uar_interval_by": "jackknife over 2 speakers"}
    plain = EvalRecord(metrics={**metrics, "absent": []})
    lines = [
        "3 utterances: UAR 0.750 (95 % interval 0.500 to 1.000, jackknife over 2 speakers), "
        "WA 0.667, macro-F1 0.600",
        "  recall of sad: 1.000",
        "  recall of angry: 0.500",
    ]
    assert evaluated_lines(table, plain) == lines
    record = EvalRecord(
        metrics=metrics,
        condition={"name": "noise:10dB", "scaled": 1, "utterances": 3},
        open_labels={
            "seen_classes": ["sad"],
            "unseen_classes": ["angry", "calm"],
            "chance": 1 / 3,
            "seen": {"value": 1.0, "uar_interval": [0.9, 1.0], "uar_interval_by": "jackknife"},
            "unseen": None,
            "among_unseen": {
                "value": 0.5,
                "uar_interval": None,
                "uar_interval_by": "one speaker: no interval",
                "chance": 0.5,
            },
        },
        speakers_heard=["s1", "s2"],
    )
    assert evaluated_lines(table, record) == [
        "condition noise:10dB: 1 of 3 utterances were scaled down to stay in range",
        *lines,
        "  absent from the reference: calm",
        "  seen (sad): mean recall 1.000 (95 % interval 0.900 to 1.000, jackknife), chance 0.333",
        "  among unseen (angry, calm): mean recall 0.500 (one speaker: no interval), chance 0.500",
        "  heard in training: 2 speakers; this is not a test on new speakers",
    ]


def test_calibration_is_told_with_its_prior() -> None:
    found = {
        "error": 0.0512, "interval": [0.0, 0.1], "note": "", "temperature": 1.5, "prior": "uniform",
    }  # fmt: skip
    assert calibration_line(found) == (
        "  calibration error 0.051 (95 % interval 0.000 to 0.100; at temperature 1.50); "
        "probabilities are for a uniform class prior"
    )
    other = {"interval": None, "note": "one speaker: no interval", "temperature": None}
    assert calibration_line(found | other | {"prior": "training"}) == (
        "  calibration error 0.051 (one speaker: no interval; no temperature was fitted); "
        "probabilities are for the shares of training"
    )


def test_matched_numbers_are_told_with_their_prior_and_as_transductive() -> None:
    shift = {
        "prior": {"sad": 0.5, "calm": 0.5},
        "note": "transductive: uses the test speech's own predictions",
        "plain": {"uar": 0.5, "wa": 0.5, "f1": 0.4},
        "matched": {"uar": 0.6, "wa": 0.7, "f1": 0.65},
        "per_speaker": None,
        "why": "no speaker is known",
    }
    assert matched_lines(shift) == [
        "  matched to a uniform prior (transductive: uses the test speech's own predictions):",
        "    each corpus: UAR 0.600 (plain 0.500), WA 0.700, macro-F1 0.650",
        "    each speaker: not made, no speaker is known",
    ]
    declared = matched_lines(shift | {"prior": {"sad": 0.75, "calm": 0.25}})
    assert declared[0].startswith("  matched to the prior sad 0.75, calm 0.25 (transductive")
