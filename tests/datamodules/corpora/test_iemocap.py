"""IEMOCAP, with evaluations and transcripts as released."""

from __future__ import annotations

import pytest
from facts import says, tells
from serzoo.datamodules.corpora.iemocap import prepare
from serzoo.datamodules.info import canonical_label
from serzoo.zoo.core.errors import DataError

EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M001\txxx\t[1.0000, 5.0000, 3.0000]
[14.0000 - 16.0000]\tSes01F_impro01_F001\texc\t[5.5000, 4.0000, 3.0000]
"""
TRANSCRIPT = """Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
Ses01F_impro01_M001 [010.0100-011.3925]: Yeah, don\x92t.
Ses01F_impro01_MXX0 [012.0000-013.0000]: Right.
M: Hm.
"""
FIRST = "IEMOCAP_full_release/Session1"


@pytest.fixture(autouse=True)
def iemocap(tree):
    for number, dialogue in ((1, "Ses01F_impro01"), (2, "Ses02M_script01_1b")):
        session = f"IEMOCAP_full_release/Session{number}"
        wav = f"{session}/sentences/wav/{dialogue}"
        tree.plant(f"{wav}/{dialogue}_F000.wav", f"{wav}/{dialogue}_M001.wav")
        tree.plant(f"{wav}/._{dialogue}_F000.wav")
        rated = f"{session}/dialog/EmoEvaluation"
        tree.write(f"{rated}/{dialogue}.txt", EVALUATION.replace("Ses01F_impro01", dialogue))
        tree.write(f"{rated}/._{dialogue}.txt", "[0 - 1]\tx\tneu\t[1, 1, 1]\n")
        # what single raters said lies in subfolders and is not read
        tree.write(f"{rated}/Categorical/{dialogue}_e2_cat.txt", "[x]\n")
        said = TRANSCRIPT.replace("Ses01F_impro01", dialogue)
        tree.write(f"{session}/dialog/transcriptions/{dialogue}.txt", said, encoding="latin-1")


def test_label_ratings_and_words(tree):
    found, _ = tree.read(prepare)
    assert len(found) == 6
    first = found["Ses01F_impro01_F000"]
    assert first.audio == f"{FIRST}/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert (first.label, first.text, first.label_source) == ("neu", "Excuse me.", "perceived")
    assert first.dims == (0.375, 0.375, 0.375)
    assert found["Ses01F_impro01_M001"].text == "Yeah, don’t."  # Windows-1252 in old texts


SINGLE = """[6.2901 - 8.2357]\tSes01F_impro01_F000\tang\t[2.5000, 2.5000, 2.5000]
C-E2:\tAnger; Frustration;\t()
C-E3:\tAnger;\t(ugly)
C-E4:\tNeutral;\t()
C-E5:\tBoredom;\t()
C-F1:\tSadness;\t()
A-E3:\tval 1; act 2; dom  ;\t()
A-E4:\tval 3; act 2; dom  2;\t()
A-F1:\tval 5; act 5; dom  5;\t()
"""


def test_single_evaluators_are_votes_and_actors_are_not(tree):
    tree.write(f"{FIRST}/dialog/EmoEvaluation/Ses01F_impro01.txt", SINGLE)
    found, told = tree.read(prepare)
    first = found["Ses01F_impro01_F000"]
    assert first.votes == {"ang": 1.5, "fru": 0.5, "neu": 1.0}
    assert first.raters == {"E2": "ang fru", "E3": "ang", "E4": "neu"}
    assert first.dims_spread == (0.25, 0.0, None)
    assert tells(told, "boredom", 1)
    assert found["Ses02M_script01_1b_F000"].votes == {"neu": 1.0}


def test_the_speaker_is_who_speaks_not_who_wears_the_markers(tree):
    found, _ = tree.read(prepare)
    man = found["Ses01F_impro01_M001"]
    assert (man.speaker, man.gender, man.session) == ("Ses01M", "male", "Ses01")
    woman = found["Ses02M_script01_1b_F000"]
    assert (woman.speaker, woman.gender, woman.session) == ("Ses02F", "female", "Ses02")


def test_labels_stay_raw_and_no_majority_is_no_label(tree):
    found, _ = tree.read(prepare)
    assert canonical_label(found["Ses01F_impro01_F001"]) == "excited"  # happy only by a taxonomy
    assert found["Ses01F_impro01_M001"].label == "xxx"
    assert canonical_label(found["Ses01F_impro01_M001"]) is None


def test_ratings_run_from_one_to_five(tree):
    found, said = tree.read(prepare)
    assert found["Ses01F_impro01_M001"].dims == (0.0, 1.0, 0.5)
    assert found["Ses01F_impro01_F001"].dims == (None, 0.75, 0.5)
    assert tells(said, "1..5", 2)


def test_everything_it_cannot_use_is_said(tree):
    tree.plant(f"{FIRST}/sentences/wav/Ses01F_impro02/Ses01F_impro02_F000.wav")
    again = "[1.0 - 2.0]\tSes01F_impro01_F000\tang\t[1.0, 1.0, 1.0]"
    tree.write(
        f"{FIRST}/dialog/EmoEvaluation/Ses01F_impro09.txt", f"{again}\n[1.0 - 2.0]\tbroken\n"
    )
    found, said = tree.read(prepare)
    assert found["Ses01F_impro01_F000"].label == "neu"  # the first line counts
    facts = [
        ("Session3, Session4, Session5", tree.root),
        ("rated lines", 2, again, "[1.0 - 2.0]\tbroken"),
        ("1..5", 2, "Ses01F_impro01_F001, Ses02M_script01_1b_F001"),
        ("audio files", 1, "Ses01F_impro02_F000"),
        ("transcript", 2, "Ses01F_impro01_F001, Ses02M_script01_1b_F001"),
        ("transcripts", 4, "M: Hm., M: Hm., Ses01F_impro01_MXX0"),
    ]
    assert len(said) == len(facts)
    for message, of in zip(said, facts, strict=True):
        assert tells(message, "iemocap", *of)


def test_a_rated_turn_without_a_file_is_yielded(tree):
    found, _ = tree.read(prepare)
    absent = found["Ses01F_impro01_F001"]
    assert absent.audio == f"{FIRST}/sentences/wav/Ses01F_impro01/Ses01F_impro01_F001.wav"
    assert not tree.has(absent)


def test_half_a_corpus_is_refused(tree):
    with pytest.raises(DataError, match=says("Session1", "Session5", "IEMOCAP_full_release")):
        tree.read(prepare, below=f"{FIRST}/dialog")
    for path in tree.root.rglob("transcriptions/*.txt"):
        path.unlink()
    with pytest.raises(DataError, match=says("Session1/dialog/transcriptions")):
        tree.read(prepare)
    for path in tree.root.rglob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match=says("sentences/wav", 2, "Session*/sentences/wav")):
        tree.read(prepare)


def test_two_copies_are_refused(tree):
    tree.plant("copy/Session1/x.txt")
    with pytest.raises(DataError, match=says(2, "IEMOCAP_full_release, copy", "root=")):
        tree.read(prepare)


def test_names_that_lost_their_case_are_found(tree):
    wanted, said = tree.read(prepare)
    there = [tree.has(u) for u in wanted.values()]
    for path in tree.root.rglob("*.wav"):
        path.rename(path.with_name(path.name.lower()))
    found, now = tree.read(prepare)
    assert found.keys() == wanted.keys()
    assert [tree.has(u) for u in found.values()] == there
    assert now == [t.replace("Ses", "ses") if "audio files" in t else t for t in said]
