"""Speech without labels: LibriSpeech, Common Voice, VoxPopuli, and a folder of one's own."""

from __future__ import annotations

import pytest
from facts import says, tells
from serzoo.datamodules.corpora import common_voice, librispeech, speech, voxpopuli
from serzoo.zoo.core.errors import ConfigError, DataError


def read(tree, module, **options):
    return tree.read(_called(module, options))


def _called(module, options):
    def prepare(root):
        return module.prepare(root, **options)

    prepare.__module__ = module.__name__
    return prepare


# LibriSpeech.

BOOK = "LibriSpeech/dev-clean/84/121123/84-121123"


@pytest.fixture
def books(tree):
    tree.plant(f"{BOOK}-0000.flac", f"{BOOK}-0001.flac", "LibriSpeech/test-other/9/8/9-8-0000.flac")
    tree.write(f"{BOOK}.trans.txt", "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT NO\n")
    speakers = "; comment | F | x\n84   | F | dev-clean  |  8.02 | A\n9  | M | test-other | 1 | B\n"
    tree.write("LibriSpeech/SPEAKERS.TXT", speakers)
    return tree


def test_librispeech(books):
    found, told = read(books, librispeech)
    first, other = found["84-121123-0000"], found["9-8-0000"]
    assert (first.speaker, first.session, first.gender) == ("84", "84-121123", "female")
    assert (first.text, first.label, first.labels) == (
        *("GO DO YOU HEAR", None),
        {"subset": "dev-clean"},
    )
    assert (other.gender, other.text) == ("male", None)
    assert tells(told, "9-8-0000", 1)


def test_a_damaged_transcript_names_file_and_line(books):
    books.write(f"{BOOK}.trans.txt", "84-121123-0000 GO\n84-121123-0001\n")
    with pytest.raises(DataError, match=says("84-121123.trans.txt", "line 2")):
        read(books, librispeech)


# Common Voice.

CLIPS = (
    "client_id\tpath\tsentence\tup_votes\tgender\tlocale\n"
    'ab\tcv_1.mp3\t"No," he said.\t2\tmale_masculine\tsv-SE\n'
    "cd\tcv_2.mp3\tJa.\t2\t\tsv-SE\n"
)


def test_common_voice(tree):
    tree.write("validated.tsv", CLIPS)
    tree.plant("clips/cv_1.mp3", "clips/cv_2.mp3")
    found, told = read(tree, common_voice)
    first = found["cv_1"]
    assert (first.audio, first.speaker, first.gender) == ("clips/cv_1.mp3", "ab", "male")
    assert (first.text, first.language, first.label) == ('"No," he said.', "sv", None)
    assert found["cv_2"].gender is None
    assert told == []
    tree.write("train.tsv", CLIPS.replace("cv_1", "cv_9"))
    assert "cv_9" in read(tree, common_voice, table="train.tsv")[0]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (None, ["validated.tsv", "options.table"]),
        (CLIPS.replace("sentence", "words"), ["validated.tsv", "line 1", "sentence"]),
        (CLIPS + "ef\tcv_3.mp3\n", ["validated.tsv", "line 4", 2, 6]),
    ],
)
def test_a_damaged_table_names_file_and_line(tree, text, facts):
    if text is not None:
        tree.write("validated.tsv", text)
    with pytest.raises(DataError, match=says(*facts)):
        read(tree, common_voice)


# VoxPopuli.

SPEECHES = (
    "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\n"
    "2009-en_1\tMr President, yes.\tmr president yes\t7\t{}\tfemale\n"
    "2010-en_{}\t\tno\tNone\t{}\tmale\n"
)


def test_voxpopuli(tree):
    tree.plant("en/2009/2009-en_1.ogg", "en/2010/2010-en_2.ogg", "en/2010/2010-en_9.ogg")
    tree.write("en/asr_train.tsv", SPEECHES.format("train", 2, "train"))
    found, told = tree.read(_called(voxpopuli, {}), "en")
    first, second = found["2009-en_1"], found["2010-en_2"]
    assert (first.speaker, first.gender, first.language) == ("7", "female", "en")
    assert (first.text, first.labels) == ("Mr President, yes.", {"split": "train"})
    assert (second.speaker, second.text) == (None, "no")
    assert tells(told, "asr_dev.tsv", "valid") or tells(told, "asr_dev.tsv", "dev")
    assert tells(told, "2010-en_9")


def test_voxpopuli_without_tables_or_audio(tree):
    with pytest.raises(DataError, match=says("asr_train.tsv", "transcribed_data")):
        read(tree, voxpopuli)
    tree.write("asr_test.tsv", SPEECHES.format("test", 2, "test"))
    with pytest.raises(DataError, match=says("voxpopuli", "audio")):
        read(tree, voxpopuli)
    tree.plant("x.ogg")
    tree.write("asr_test.tsv", SPEECHES.format("test", 2, "test") + "x\ty\n")
    with pytest.raises(DataError, match=says("asr_test.tsv", "line 4", 2, 6)):
        read(tree, voxpopuli)


# A folder of one's own.


def test_a_folder_of_speech(tree):
    tree.plant("day 1/spk7-a.wav", "b.flac")
    tree.write("day 1/spk7-a.txt", "Guten Tag.\n")
    found, told = read(tree, speech, speaker=r"spk(\d)", language="de")
    first = found["day 1/spk7-a"]
    assert (first.speaker, first.text, first.language) == ("7", "Guten Tag.", "de")
    assert (found["b"].speaker, found["b"].text) == (None, None)
    assert tells(told, 1, 2, r"spk(\d)")
    found, told = read(tree, speech, texts=False)
    assert {u.text for u in found.values()} == {None}
    assert tells(told, 2, "options.speaker")


def test_a_folder_without_audio_or_a_wrong_pattern(tree):
    with pytest.raises(DataError, match=says("speech", "folder")):
        read(tree, speech)
    tree.plant("a.wav")
    with pytest.raises(ConfigError, match=says("spk", 0)):
        read(tree, speech, speaker="spk")
    (tree.root / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=says("a.txt")):
        read(tree, speech)
