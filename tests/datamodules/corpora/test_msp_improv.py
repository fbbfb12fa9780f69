from __future__ import annotations

import pytest
from facts import says, tells
from serzoo.datamodules.corpora.msp_improv import prepare
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import DataError

TURNS = [f"S01A-{g}0{s}-S-{g}M01" for s in range(1, 7) for g in "FM"]
TABLE = "".join(
    f"UTD-IMPROV-{turn}.avi; {label}; A:3.000000; V:2.000000; D:9.000000; N:4.0;\n"
    f"WORKER0001; Neutral; Neutral; A:3; V:2; D:3; N:4;\n\n"
    for turn, label in zip(TURNS, "AHNSOXAHNSAH", strict=True)
)


@pytest.fixture(autouse=True)
def improv(tree):
    for turn in TURNS:
        tree.plant(f"Audio/session{turn[7]}/S01A/S/MSP-IMPROV-{turn}.wav")
    tree.write("Evalution.txt", TABLE)


def test_names_and_ratings(tree):
    found, told = tree.read(prepare)
    assert len(found) == 12
    first, second = found["MSP-IMPROV-S01A-F01-S-FM01"], found["MSP-IMPROV-S01A-M01-S-MM01"]
    assert (first.speaker, first.session, first.gender, first.label) == ("F01", "01", "female", "A")
    assert first.dims == (0.25, 0.5, None)
    assert (second.speaker, second.session, second.label) == ("M01", "01", "H")
    assert told == []


def test_a_session_is_left_out_at_a_time(tree):
    found, _ = tree.read(prepare)
    protocol = Protocol.load("msp_improv-loso")
    everyone = list(found.values())
    assert protocol.n_folds(everyone) == 6
    split = protocol.split(everyone, 5)
    assert [sorted({u.session for u in part}) for _, part in split.parts()] == [
        ["02", "03", "04", "05"],
        ["01"],
        ["06"],
    ]


def test_lines_and_recordings_without_a_partner_are_told(tree):
    tree.write("Evalution.txt", TABLE.replace("; A; A:", "; Z; A:") + TABLE.splitlines()[3] + "\n")
    tree.plant("Audio/session1/MSP-IMPROV-S02H-F01-P-FM02.wav", "Audio/x.wav")
    found, told = tree.read(prepare)
    assert found["MSP-IMPROV-S02H-F01-P-FM02"].label is None
    assert tells(told, 4, "line 1", "line 19")
    assert tells(told, 4, "MSP-IMPROV-S01A-F01-S-FM01")
    assert tells(told, "x.wav")


def test_audio_and_table_must_be_there(tree):
    (tree.root / "Evalution.txt").unlink()
    with pytest.raises(DataError, match=says("Evalution.txt")):
        tree.read(prepare)
    for path in tree.root.rglob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match=says("msp_improv", "root=")):
        tree.read(prepare)
