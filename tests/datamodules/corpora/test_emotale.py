from __future__ import annotations

import numpy as np
import pytest
from facts import says, tells
from serzoo.datamodules.corpora.emotale import prepare
from serzoo.zoo.core.errors import DataError

HEAD = "file,a1_A,a1_V,a1_D,a1_cat,a2_A,a2_V,a2_D,a2_cat,a3_A,a3_V,a3_D,a3_cat,gt_emotion\n"
ROWS = (
    "DK_001_B_3.wav,2.0,2.0,2.5,B,2.0,1.5,1.0,S,3.5,2.0,3.5,A,B\n"
    "EN_004_A_5.wav,4.0,1.5,4.0,A,4.0,2.0,4.0,A,,,,,A\n"
)


@pytest.fixture(autouse=True)
def emotale(tree):
    tree.plant("audio/DK_001_B_3.wav", "audio/EN_004_A_5.wav")
    tree.write("annotations.csv", HEAD + ROWS)


def test_names_and_annotators(tree):
    found, told = tree.read(prepare)
    danish, english = found["DK_001_B_3"], found["EN_004_A_5"]
    assert (danish.speaker, danish.language, danish.label) == ("001", "da", "B")
    assert danish.text == "De bar det bare ovenpå og nu skal de ned igen."
    assert danish.raters == {"a1": "B", "a2": "S", "a3": "A"}
    assert danish.votes == {"B": 1.0, "S": 1.0, "A": 1.0}
    assert danish.label_source == "acted"
    arousal = [0.25, 0.25, 0.625]
    assert danish.dims[1] == pytest.approx(np.mean(arousal))
    assert danish.dims_spread[1] == pytest.approx(np.std(arousal))
    assert (english.language, english.votes) == ("en", {"A": 2.0})
    assert english.dims == (pytest.approx(0.1875), 0.75, 0.75)
    assert told == []


def test_without_annotations_there_are_no_votes(tree):
    (tree.root / "annotations.csv").unlink()
    found, told = tree.read(prepare)
    assert [u.votes for u in found.values()] == [{}, {}]
    assert tells(told, "annotations.csv")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (HEAD.replace("a2_cat", "x") + ROWS, ["annotations.csv", "a2_cat"]),
        (HEAD + ROWS.replace("1.0,S", "1.0,Q"), ["annotations.csv", "DK_001_B_3.wav", "Q"]),
        (HEAD + ROWS.replace("2.0,2.0,2.5", "2.0,9,2.5"), ["annotations.csv", "DK_001_B_3.wav", 9]),
        (HEAD + "DK_001_B_3.wav,2.0\n", ["annotations.csv", "line 2"]),
    ],
)
def test_a_damaged_table_names_file_and_row(tree, text, facts):
    tree.write("annotations.csv", text)
    with pytest.raises(DataError, match=says(*facts)):
        tree.read(prepare)


def test_a_recording_without_a_row_is_told(tree):
    tree.plant("audio/DK_001_B_4.wav")
    assert tells(tree.read(prepare)[1], "DK_001_B_4", 1)
