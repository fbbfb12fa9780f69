"""CREMA-D, with its tables as published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from facts import says, tells
from serzoo.datamodules.corpora.crema_d import prepare
from serzoo.datamodules.info import canonical_label
from serzoo.datamodules.labels import vote_rows
from serzoo.datamodules.prepare import prepare as engine
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.taxonomy import Taxonomy

SENTENCE_FILENAMES = """"Stimulus_Number","Filename"
1,"1001_IEO_NEU_XX"
2,"1001_IEO_HAP_LO"
3,"1002_WSI_ANG_XX"
4,"1040_ITH_SAD_XX"
5,"1040_TSI_FEA_XX"
"""
DEMOGRAPHICS = """"ActorID","Age","Sex","Race","Ethnicity"
1001,51,"Male","Caucasian","Not Hispanic"
1002,21,"Female","Caucasian","Not Hispanic"
1040,42,"Male","Caucasian","Not Hispanic"
"""
SUMMARY = (
    '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote",'
    '"MultiModalLevel"\n'
    '"1","1001_IEO_NEU_XX","N",71.67,"N",57,"N",57.38\n'
    '"2","1001_IEO_HAP_LO","N",60.1,"H",51.0,"H",63.5\n'
    '"3","1002_WSI_ANG_XX","A:D","30.67:51.00","A",70,"A",70\n'
    '"4","1040_ITH_SAD_XX","S",50,"S",50,"S",50\n'
)
VOTES = (
    '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
    '"100001",0,0,0,1,10,0,"1001_IEO_NEU_XX",11,0.909090909090909,"N"\n'
    '"100002",0,0,0,3,6,0,"1001_IEO_HAP_LO",9,0.666666666666667,"N"\n'
    '"104000",0,0,0,0,0,9,"1040_ITH_SAD_XX",9,1,"S"\n'
    '"200002",0,0,0,9,0,0,"1001_IEO_HAP_LO",9,1,"H"\n'
)


@pytest.fixture(autouse=True)
def crema_d(tree):
    stems = ("1001_IEO_NEU_XX", "1001_IEO_HAP_LO", "1002_WSI_ANG_XX", "1040_ITH_SAD_X")
    tree.plant(*(f"AudioWAV/{s}.wav" for s in stems), *(f"AudioMP3/{s}.mp3" for s in stems))
    tree.write("SentenceFilenames.csv", SENTENCE_FILENAMES)
    tree.write("VideoDemographics.csv", DEMOGRAPHICS)
    tree.write("processedResults/summaryTable.csv", SUMMARY)
    tree.write("processedResults/tabulatedVotes.csv", VOTES)


def test_names_and_tables(tree):
    found, _ = tree.read(prepare)
    happy = found["1001_IEO_HAP_LO"]
    assert happy.audio == "AudioWAV/1001_IEO_HAP_LO.wav"
    assert (happy.speaker, happy.gender, happy.label) == ("1001", "male", "HAP")
    assert happy.labels == {"voice_vote": "N"}  # acted happy, heard neutral: both are kept
    assert (happy.text, happy.label_source) == ("It's eleven o'clock.", "acted")
    assert found["1002_WSI_ANG_XX"].gender == "female"


def test_a_tie_is_kept_and_maps_to_no_label(tree):
    tie = tree.read(prepare)[0]["1002_WSI_ANG_XX"]
    assert tie.labels == {"voice_vote": "A:D"}
    assert canonical_label(tie) == "angry"
    assert canonical_label(tie, "voice_vote") is None


def test_listeners_of_the_voice_are_counted_by_the_codes_of_the_label(tree):
    found, _ = tree.read(prepare)
    assert found["1001_IEO_HAP_LO"].votes == {"HAP": 3, "NEU": 6}  # nine saw the face: not here
    assert found["1040_ITH_SAD_X"].votes == {"SAD": 9}
    assert found["1002_WSI_ANG_XX"].votes == {}


def test_votes_become_rows_of_a_taxonomy(tree):
    found, _ = tree.read(prepare)
    three = [found[s] for s in ("1001_IEO_HAP_LO", "1002_WSI_ANG_XX", "1040_ITH_SAD_X")]
    sad = Taxonomy.of(["happy", "sad"], name="two")
    assert vote_rows(three, sad).tolist() == [[3, 0], [0, 0], [0, 9]]  # neutral is no class here
    assert vote_rows(three[1:2], sad) is None
    with pytest.raises(DataError, match=says("'HUN'", "crema_d.yaml")):
        vote_rows([replace(three[0], votes={"HUN": 1})], sad)


def test_a_table_of_votes_that_cannot_be_read_is_told(tree):
    tree.write("processedResults/tabulatedVotes.csv", VOTES.replace('"10', '"90'))
    found, said = tree.read(prepare)
    assert all(u.votes == {} for u in found.values())
    assert tells(said, "tabulatedVotes.csv", "100001")
    tree.write("processedResults/tabulatedVotes.csv", VOTES.replace(",3,6,", ",three,6,"))
    with pytest.raises(DataError, match=says("1001_IEO_HAP_LO", "whole numbers")):
        tree.read(prepare)


def test_the_misspelled_recording_is_found_in_the_tables(tree):
    sad = tree.read(prepare)[0]["1040_ITH_SAD_X"]
    assert sad.audio == "AudioWAV/1040_ITH_SAD_X.wav"
    assert sad.labels == {"voice_vote": "S"}


def test_what_the_table_lists_and_the_disk_lacks_is_yielded(tree):
    found, said = tree.read(prepare)
    assert len(found) == 5
    assert found["1040_TSI_FEA_XX"].audio == "AudioWAV/1040_TSI_FEA_XX.wav"
    assert [name for name, u in found.items() if not tree.has(u)] == ["1040_TSI_FEA_XX"]
    assert len(said) == 1
    assert tells(said, "crema_d", "summaryTable.csv", 1, "1040_TSI_FEA_XX")


def test_strange_names_and_unlisted_files_are_reported(tree):
    tree.plant("AudioWAV/1001_ABC_NEU_XX.wav", "AudioWAV/notes.wav")
    tree.plant("AudioWAV/._1001_IEO_NEU_XX.wav", "AudioWAV/1002_WSI_SAD_XX.wav")
    found, said = tree.read(prepare)
    assert len(found) == 6
    text = "\n".join(said)
    assert "left out 2 not named like 1001_DFA_ANG_XX.wav (first: 1001_ABC_NEU_XX.wav)" in text
    assert "SentenceFilenames.csv does not list: 1 (first: 1002_WSI_SAD_XX)" in text


def test_audio_alone_will_do_with_a_warning_per_table(tree):
    found, said = tree.read(prepare, below="AudioMP3")
    assert len(found) == 4
    assert {u.gender for u in found.values()} == {None}
    assert all(u.labels == {} for u in found.values())
    assert [s.split()[2] for s in said] == [
        "SentenceFilenames.csv",
        "VideoDemographics.csv",
        "summaryTable.csv",
        "tabulatedVotes.csv",
    ]


def test_a_table_without_its_columns_is_refused(tree):
    tree.write("VideoDemographics.csv", "ActorID,Age\n1001,51\n")
    with pytest.raises(DataError, match=says("Sex", "actorid, age")):
        tree.read(prepare)


def test_a_strange_listing_is_refused(tree):
    tree.write("SentenceFilenames.csv", "Stimulus_Number,Filename\n1,1001-IEO\n")
    with pytest.raises(
        DataError, match=says("SentenceFilenames.csv", "'1001-IEO'", "1001_DFA_ANG_XX")
    ):
        tree.read(prepare)


def test_the_engine_counts_the_missing_recording(tree):
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    for path in tree.root.glob("AudioWAV/*.wav"):
        soundfile.write(path, noise, 16000)
    prepared = engine("crema_d", root=tree.root, progress=False)
    assert len(prepared.utterances) == 4
    assert [r.id for r in prepared.refusals] == ["crema_d/1040_TSI_FEA_XX"]
    assert {u.duration for u in prepared.utterances} == {1.0}
    assert tells([w.message for w in prepared.warnings], "summaryTable.csv")


def test_names_that_lost_their_case_are_found(tree):
    wanted, said = tree.read(prepare)
    for path in tree.root.glob("AudioWAV/*.wav"):
        path.rename(path.with_name(path.name.lower()))
    found, now = tree.read(prepare)
    assert found.keys() == wanted.keys()
    assert now == said
    assert [name for name, u in found.items() if not tree.has(u)] == ["1040_TSI_FEA_XX"]
