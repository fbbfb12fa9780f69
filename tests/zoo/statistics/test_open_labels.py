"""Labels that a model never saw: which these are, and numbers on them, computed another way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from facts import says
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run.config import load
from serzoo.zoo.run.record import VERSION, EvalRecord
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.confidence import open_numbers, seen_classes
from serzoo.zoo.statistics.speakers import jackknife
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.metrics import recall_score

BIG4, EMODB7 = Taxonomy.load("big4"), Taxonomy.load("emodb7")
UNSEEN = ["bored", "disgust", "fearful"]


@pytest.fixture
def table() -> PredictionTable:
    """Six speakers, ten utterances each, of all seven classes but `disgust`."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 4, 5, 6], 60)
    labels[:3] = -1, 1, 3
    scores = rng.normal(size=(60, 7)) + np.eye(7)[labels]
    speakers = [f"emodb/{i % 6}" for i in range(60)]
    return PredictionTable([f"u{i}" for i in range(60)], speakers, labels, scores, EMODB7.classes)


def test_a_class_is_seen_when_one_of_its_labels_was_trained() -> None:
    assert seen_classes(BIG4, EMODB7) == ["angry", "happy", "sad", "neutral"]
    assert seen_classes(EMODB7, BIG4) == BIG4.classes
    # by what a class gathers, not by what it is called
    gathers = Taxonomy("mine", (("negative", ("angry", "sad")), ("other", ("bored",))))
    assert seen_classes(BIG4, gathers) == ["negative"]


def test_numbers_are_those_of_another_library(table: PredictionTable) -> None:
    found = open_numbers(table, BIG4, EMODB7)
    keep = table.labels >= 0
    truth = np.array(EMODB7.classes)[table.labels[keep]]
    said = np.array(EMODB7.classes)[table.scores.argmax(1)[keep]]
    assert found["unseen_classes"] == UNSEEN
    assert found["chance"] == pytest.approx(1 / 7)
    for part, classes in (("seen", BIG4.classes), ("unseen", ["bored", "fearful"])):
        recall = recall_score(truth, said, labels=classes, average="macro")
        assert found[part]["value"] == pytest.approx(recall)
        low, high = found[part]["uar_interval"]
        assert low < recall < high
    assert found["all"]["value"] == pytest.approx(table.uar())
    assert found["all"]["uar_interval"] == list(jackknife(table)[1:3])
    assert found["predicted_unseen"] == pytest.approx(np.isin(said, UNSEEN).mean())
    assert found["reference_unseen"] == pytest.approx(np.isin(truth, UNSEEN).mean())
    # only unseen classes on offer, for utterances of these
    rows = np.isin(truth, UNSEEN)
    columns = [EMODB7.classes.index(c) for c in UNSEEN]
    best = np.array(UNSEEN)[table.scores[keep][rows][:, columns].argmax(1)]
    wanted = recall_score(truth[rows], best, labels=["bored", "fearful"], average="macro")
    assert found["among_unseen"]["value"] == pytest.approx(wanted)
    assert found["among_unseen"]["chance"] == pytest.approx(1 / 3)
    json.dumps(found)


def test_who_never_says_an_unseen_class_has_none_of_them(table: PredictionTable) -> None:
    """Why `among_unseen` is asked as well."""
    columns = [EMODB7.classes.index(c) for c in UNSEEN]
    table.scores[:, columns] -= 100
    found = open_numbers(table, BIG4, EMODB7)
    assert found["unseen"]["value"] == found["predicted_unseen"] == 0
    assert found["among_unseen"]["value"] > found["among_unseen"]["chance"]


def test_nothing_unseen_in_the_reference_is_no_number(table: PredictionTable) -> None:
    part = table.subset(np.flatnonzero(np.isin(table.labels, [0, 4])))
    found = open_numbers(part, BIG4, EMODB7)
    assert found["unseen"] is None
    assert found["among_unseen"] is None
    assert found["seen"]["value"] == pytest.approx(part.uar())


# -- a trained model


@pytest.fixture(scope="module")
def trained(tiny_recipe, tmp_path_factory) -> dict[str, Path]:
    """Runs of an open and of a closed head on angry, happy and sad."""
    small = {"selm": ["head.lm_width=32", "head.lm_layers=1"], "classification": []}
    folders = {}
    for head, knobs in small.items():
        folders[head] = tmp_path_factory.mktemp("open") / head
        train(load(tiny_recipe, [f"head={head}", *knobs, "optim.epochs=1"]), folders[head])
    return folders


@pytest.fixture(scope="module")
def elsewhere(tiny_speech, tmp_path_factory) -> Path:
    """Another corpus of four speakers, in emotions of nEMO: three were trained, three were not."""
    root = tmp_path_factory.mktemp("elsewhere")
    names = {"angry": "fearful", "happy": "surprised", "sad": "neutral"}
    for i, path in enumerate(sorted(tiny_speech.glob("*.wav"))):
        label, speaker = path.stem.split("-")
        if int(speaker) < 4:
            target = root / (label if i % 2 else names[label]) / path.name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
    return root


def test_an_open_head_is_scored_on_what_it_never_saw(trained, elsewhere, tmp_path) -> None:
    options = {"speaker": r"-(\d+)"}
    table, record = evaluate(
        trained["selm"],
        corpus=["folder"],
        root=str(elsewhere),
        options=options,
        taxonomy="nemo6",
    )
    assert table.classes == Taxonomy.load("nemo6").classes
    assert len(table) == 12
    found = record.open_labels
    assert found["seen_classes"] == ["angry", "happy", "sad"]
    assert found["unseen_classes"] == ["fearful", "surprised", "neutral"]
    assert found == open_numbers(
        table, Taxonomy.of(["angry", "happy", "sad"]), Taxonomy.load("nemo6")
    )
    assert record.speakers_heard == []
    assert record.model["corpus"] == ["csv"]
    assert record.data["corpora"] == ["folder"]
    assert record.data["counts"]["kept"]["test"]["fearful"] == 2


def test_the_command_prints_and_records_it(trained, elsewhere, tmp_path, capsys) -> None:
    record = tmp_path / "record.json"
    settings = ["corpus=folder", f"root={elsewhere}", "taxonomy=nemo6", f"record={record}"]
    assert main(["eval", str(trained["selm"]), *settings, r"options.speaker='-(\d+)'"]) == 0
    shown = capsys.readouterr().out
    assert "unseen (fearful, surprised, neutral): mean recall" in shown
    assert "chance 0.167" in shown
    assert "chance 0.333" in shown  # among the unseen
    written = EvalRecord.from_json(json.loads(record.read_text()), record)
    assert (written.status, written.kind, written.version) == ("ok", "evaluation", VERSION)
    assert written.open_labels["among_unseen"]["chance"] == pytest.approx(1 / 3)
    assert written.metrics["uar_interval"]
    assert written.versions["torch"]
    assert written.more == {}


def test_a_closed_head_refuses_and_its_own_classes_are_no_open_labels(trained, elsewhere) -> None:
    with pytest.raises(ConfigError, match=says("'auto'", "fearful, surprised, neutral", "'nemo6'")):
        evaluate(trained["classification"], taxonomy="nemo6")
    assert evaluate(trained["classification"])[1].open_labels is None
    assert evaluate(trained["selm"])[1].open_labels is None


def test_speakers_of_the_training_are_told(trained, tiny_speech) -> None:
    assert evaluate(trained["classification"])[1].speakers_heard == []
    _, record = evaluate(trained["classification"], part="all")
    assert len(record.speakers_heard) == 8  # of 10: two are the test part
