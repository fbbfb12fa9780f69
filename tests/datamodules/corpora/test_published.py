"""Corpora whose file names say everything, as complete sets of names; what all readers refuse."""

from __future__ import annotations

from collections import Counter

import pytest
from facts import says
from serzoo.datamodules.corpora import crema_d, emovo, iemocap, meld, savee, tess
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.layout import read_table, read_text
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import DataError

READERS = {m.__name__.rpartition(".")[2]: m.prepare for m in (crema_d, emovo, savee, tess)}
ALL_READERS = {**READERS, "iemocap": iemocap.prepare, "meld": meld.prepare}


def savee_names(pattern):
    sizes = {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}
    return [
        pattern.format(speaker=speaker, emotion=emotion, number=number)
        for speaker in ("DC", "JE", "JK", "KL")
        for emotion, size in sizes.items()
        for number in range(1, size + 1)
    ]


def tess_names():
    # the folders as released: capitals and wording differ between the two actresses
    folders = {
        "angry": ("OAF_angry", "YAF_angry"),
        "disgust": ("OAF_disgust", "YAF_disgust"),
        "fear": ("OAF_Fear", "YAF_fear"),
        "happy": ("OAF_happy", "YAF_happy"),
        "neutral": ("OAF_neutral", "YAF_neutral"),
        "ps": ("OAF_Pleasant_surprise", "YAF_pleasant_surprised"),
        "sad": ("OAF_Sad", "YAF_sad"),
    }
    words = [a + b for a in "abcdefghijklmnopqrst" for b in "abcdefghij"]
    return [
        f"{folder}/{folder[:3]}_{word}_{emotion}.wav"
        for emotion, pair in folders.items()
        for folder in pair
        for word in words
    ]


def emovo_names():
    return [
        f"{speaker}/{emotion}-{speaker}-{sentence}.wav"
        for speaker in ("f1", "f2", "f3", "m1", "m2", "m3")
        for emotion in ("dis", "gio", "pau", "rab", "sor", "tri", "neu")
        for sentence in emovo.SENTENCES
    ]


COMPLETE = {
    "savee": savee_names("AudioData/{speaker}/{emotion}{number:02d}.wav"),
    "savee, flat": savee_names("{speaker}_{emotion}{number:02d}.wav"),
    "tess": tess_names(),
    "emovo": emovo_names(),
}


@pytest.mark.parametrize("layout", COMPLETE)
def test_complete_layouts_give_the_published_counts(layout, tree):
    corpus = layout.partition(",")[0]
    tree.plant(*COMPLETE[layout])
    found, said = tree.read(READERS[corpus])
    expected = CorpusInfo.load(corpus).expected
    assert said == []
    assert {u.audio for u in found.values()} == set(COMPLETE[layout])
    assert len(found) == expected.utterances
    assert Counter(u.label for u in found.values()) == expected.labels
    assert Counter(u.speaker for u in found.values()) == expected.per_speaker
    assert len(expected.per_speaker) == expected.speakers


def test_savee_reads_the_speaker_from_name_or_folder(tree):
    tree.plant("AudioData/DC/sa01.wav", "ALL/KL_su15.wav", "AudioData/XX/a01.wav", "a02.wav")
    found, said = tree.read(savee.prepare)
    assert {name: (u.speaker, u.label) for name, u in found.items()} == {
        "DC_sa01": ("DC", "sa"),
        "KL_su15": ("KL", "su"),
    }
    assert {(u.gender, u.text) for u in found.values()} == {("male", None)}
    assert said == ["savee: left out 2 not named like DC/a01.wav or DC_a01.wav (first: a01.wav)"]


def test_tess_knows_the_file_that_lost_a_letter(tree):
    tree.plant("OAF_neutral/OA_bite_neutral.wav", "YAF_fear/YAF_Bite_FEAR.WAV", "readme.wav")
    found, said = tree.read(tess.prepare)
    older, younger = found["OAF_bite_neutral"], found["YAF_bite_fear"]
    assert (older.speaker, older.audio) == ("OAF", "OAF_neutral/OA_bite_neutral.wav")
    assert older.text == "Say the word bite."
    assert (younger.speaker, younger.label) == ("YAF", "fear")
    assert said == ["tess: left out 1 not named like OAF_back_fear.wav (first: readme.wav)"]


def test_emovo_reads_sentence_and_gender(tree):
    tree.plant("EMOVO/f1/dis-f1-b1.wav", "EMOVO/m3/NEU-m3-d2.wav", "EMOVO/m3/neu-m3-b4.wav")
    found, said = tree.read(emovo.prepare)
    woman, man = found["dis-f1-b1"], found["neu-m3-d2"]
    assert (woman.gender, woman.language) == ("female", "it")
    assert woman.text == "Gli operai si alzano presto."
    assert (man.gender, man.label) == ("male", "neu")
    assert said == ["emovo: left out 1 not named like dis-f1-b1.wav (first: neu-m3-b4.wav)"]


EXAMPLES = {
    "crema_d": "a/1001_DFA_ANG_XX.wav",
    "emovo": "a/dis-f1-b1.wav",
    "savee": "a/DC_a01.wav",
    "tess": "a/OAF_back_fear.wav",
}


@pytest.mark.parametrize("corpus", EXAMPLES)
def test_a_copy_within_a_copy_is_refused(corpus, tree):
    tree.plant(EXAMPLES[corpus], f"again/{EXAMPLES[corpus]}")
    with pytest.raises(DataError, match=says("1 of 1", "again/a/", "root=")):
        tree.read(READERS[corpus])


@pytest.mark.parametrize("corpus", ALL_READERS)
def test_an_empty_a_foreign_and_no_folder_are_refused(corpus, tree):
    prepare = ALL_READERS[corpus]
    with pytest.raises(DataError, match=f"^{corpus}: no "):
        tree.read(prepare)
    tree.plant("03-01-05-02-01-01-05.wav")
    with pytest.raises(DataError, match=f"^{corpus}: no "):
        tree.read(prepare)
    with pytest.raises(DataError, match=r"\S+nowhere\b"):
        tree.read(prepare, below="nowhere")


def test_tables_match_columns_in_any_case_and_name_the_short_line(tree):
    table = tree.root / "t.csv"
    tree.write("t.csv", "\ufefffileName, Vote ,x\r\na,b,c\r\n\r\nd,e,f\r\n")
    assert read_table(table, ("FileName", "vote")) == [
        {"FileName": "a", "vote": "b"},
        {"FileName": "d", "vote": "e"},
    ]
    tree.write("t.csv", "a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=says("t.csv", "line 3", 1, 2)):
        read_table(table, ("a", "b"))
    tree.write("t.csv", "")
    with pytest.raises(DataError, match=says("t.csv", "column a")):
        read_table(table, ("a",))


def test_old_texts_are_decoded(tree):
    tree.write("new", "è ’", encoding="utf-8-sig")
    tree.write("old", "è ’", encoding="cp1252")
    assert read_text(tree.root / "new") == read_text(tree.root / "old", old=True) == "è ’"


@pytest.mark.parametrize("corpus", ALL_READERS)
def test_the_default_protocol_is_there_and_meant_for_the_corpus(corpus):
    name = CorpusInfo.load(corpus).protocol
    assert name is not None
    assert name.endswith("@1")
    assert corpus in Protocol.load(name).corpora
