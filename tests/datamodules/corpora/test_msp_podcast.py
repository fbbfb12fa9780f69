from __future__ import annotations

import warnings

import numpy as np
import pytest
from facts import says, tells
from serzoo.datamodules.corpora.msp_podcast import prepare
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import DataError, DataWarning

CONSENSUS = """FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.8,127,Male,Train
MSP-PODCAST_0001_0019.wav,X,5.0,3.0,4.2,Unknown,Female,Train
MSP-PODCAST_0002_0033.wav,H,5.0,6.0,4.0,8,Female,Development
MSP-PODCAST_0003_0051.wav,A,6.0,2.0,6.0,9,Male,Test1
MSP-PODCAST_0004_0067.wav,U,5.0,4.0,4.0,Unknown,Unknown,Test2
"""
DETAILED = """FileName,Worker,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom
MSP-PODCAST_0001_0008.wav,w1,Neutral,Neutral,2,4,3
MSP-PODCAST_0001_0008.wav,w2,Sad,"Sad,Other",4,4,3
MSP-PODCAST_0001_0008.wav,w3,Other-Confused,Other,3,4,3
MSP-PODCAST_0001_0019.wav,w1,Zeal,Zeal,5,3,4
"""


@pytest.fixture(autouse=True)
def podcast(tree):
    for row in CONSENSUS.splitlines()[1:]:
        tree.plant(f"Audios/{row.split(',')[0]}")
    tree.write("Labels/labels_consensus.csv", CONSENSUS)
    tree.write("Labels/labels_detailed.csv", DETAILED)
    tree.write("Transcripts/MSP-PODCAST_0001_0008.txt", "Well, I think so.\n")


def read(root, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {u.id.partition("/")[2][-9:]: u for u in prepare(root, **options)}
    return found, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


def test_consensus_votes_ratings_and_words(tree):
    found, told = read(tree.root)
    assert list(found) == ["0001_0008", "0001_0019", "0002_0033", "0003_0051"]
    first, second = found["0001_0008"], found["0001_0019"]
    assert first.audio == "Audios/MSP-PODCAST_0001_0008.wav"
    assert (first.label, first.speaker, first.gender) == ("N", "127", "male")
    assert first.dims == (pytest.approx(0.5), pytest.approx(0.2), pytest.approx(0.3))
    assert first.dims_spread == (0.0, pytest.approx(np.std([1 / 6, 0.5, 1 / 3])), 0.0)
    assert first.votes == {"N": 1.0, "S": 1.0, "O": 1.0}
    assert (first.text, first.text_source) == ("Well, I think so.", "human")
    assert (second.label, second.speaker, second.votes) == ("X", None, {})
    assert tells(told, "Zeal", 1)
    assert tells(told, "Test2", 1, "test=Test1")


def test_the_official_partitions_with_one_of_the_tests(tree):
    found, _ = read(tree.root)
    split = Protocol.load("official").split(list(found.values()), 0)
    assert [[u.id[-9:] for u in part] for _, part in split.parts()] == [
        ["0001_0008", "0001_0019"],
        ["0002_0033"],
        ["0003_0051"],
    ]
    other, _ = read(tree.root, test="Test2")
    assert [k for k, u in other.items() if u.labels["split"] == "test"] == ["0004_0067"]
    everything, _ = read(tree.root, test=None)
    assert everything["0004_0067"].labels == {"partition": "Test2"}
    with pytest.raises(DataError, match=says("labels_consensus.csv", "Test7", "Test1")):
        read(tree.root, test="Test7")


@pytest.mark.parametrize(
    ("damage", "facts"),
    [
        (lambda t: (t.root / "Labels/labels_consensus.csv").unlink(), ["labels_consensus.csv"]),
        (lambda t: [p.unlink() for p in t.root.rglob("*.wav")], ["Audios"]),
        (
            lambda t: t.write("Labels/labels_consensus.csv", CONSENSUS.replace("EmoVal", "V")),
            ["labels_consensus.csv", "EmoVal"],
        ),
        (
            lambda t: t.write(
                "Labels/labels_detailed.csv", DETAILED.replace("EmoClass_Major", "E")
            ),
            ["labels_detailed.csv", "EmoClass_Major"],
        ),
        (
            lambda t: t.write("Labels/labels_consensus.csv", CONSENSUS + "MSP-PODCAST_9.wav,N\n"),
            ["labels_consensus.csv", "line 7"],
        ),
    ],
)
def test_a_damaged_release_names_the_file(tree, damage, facts):
    damage(tree)
    with pytest.raises(DataError, match=says(*facts)):
        read(tree.root)


def test_missing_files_and_tables_are_told(tree):
    (tree.root / "Audios/MSP-PODCAST_0003_0051.wav").unlink()
    (tree.root / "Labels/labels_detailed.csv").unlink()
    tree.plant("Audios/MSP-PODCAST_7777_0001.wav")
    text = CONSENSUS.replace("2.2,4.0,2.8", "9,nan,")
    tree.write("Labels/labels_consensus.csv", text)
    found, told = read(tree.root)
    assert found["0003_0051"].audio == "Audios/MSP-PODCAST_0003_0051.wav"  # counts as missing
    assert found["0001_0008"].dims is None
    assert tells(told, "labels_detailed.csv")
    assert tells(told, "MSP-PODCAST_7777_0001")
    assert tells(told, "MSP-PODCAST_0001_0008", 1)
