"""RAVDESS, EMO-DB and nEMO on small trees of the published shape."""

import pytest
from facts import messages, says, tells
from serzoo.datamodules.prepare import prepare
from serzoo.zoo.core.errors import DataError


def test_ravdess_takes_speech_only_and_says_what_it_left(tmp_path, write_wave):
    deep = tmp_path / "archive" / "Actor_02"
    write_wave(deep / "03-01-05-02-01-01-02.wav")
    write_wave(deep / "03-01-09-02-01-01-02.WAV")  # no emotion has the code 09
    write_wave(deep / "03-02-05-02-01-01-02.wav")
    write_wave(deep / "01-01-05-02-01-01-02.wav")
    write_wave(deep / "room.wav")
    write_wave(tmp_path / "__MACOSX" / "03-01-05-02-01-01-04.wav")
    (deep / "._03-01-05-02-01-01-02.wav").write_bytes(b"mac")
    (deep / "02-01-05-02-01-01-02.mp4").write_bytes(b"video")
    prepared = prepare("ravdess", root=tmp_path)
    (utterance,) = prepared.utterances
    assert utterance.id == "ravdess/03-01-05-02-01-01-02"
    assert utterance.audio == "archive/Actor_02/03-01-05-02-01-01-02.wav"
    assert (utterance.speaker, utterance.gender, utterance.label) == ("02", "female", "05")
    assert utterance.text == "Kids are talking by the door"
    assert prepared.refused == {"unknown label '09'": 1}
    assert "known: 01, 02" in prepared.refusals[0].detail
    (left,) = messages(prepared, "reader")
    assert "1 song files (first: 03-02-05-02-01-01-02.wav)" in left
    assert "2 video files" in left
    assert tells(left, "1 files", "room.wav")


def test_a_second_copy_inside_the_first_is_an_error(tmp_path, write_wave):
    for folder in ("Actor_01", "audio_speech/Actor_01"):
        write_wave(tmp_path / folder / "03-01-05-02-01-01-01.wav")
    with pytest.raises(
        DataError, match=says("1 of 1", "audio_speech/Actor_01/03-01-05-02-01-01-01.wav", "root=")
    ):
        prepare("ravdess", root=tmp_path)


def test_a_wrong_count_says_what_is_missing(tmp_path, write_wave):
    source = write_wave(tmp_path / "tone.wav", seconds=0.1)
    root = tmp_path / "root"
    for actor in range(1, 25):
        folder = root / f"Actor_{actor:02}"
        folder.mkdir(parents=True)
        for emotion in range(1, 9):
            for strong in (1, 2)[: 1 if emotion == 1 else 2]:
                for sentence in (1, 2):
                    for take in (1, 2):
                        name = (
                            f"03-01-{emotion:02}-{strong:02}-{sentence:02}-{take:02}-{actor:02}.wav"
                        )
                        (folder / name).hardlink_to(source)
    # nothing is missing; but for all files being one
    assert {w.kind for w in prepare("ravdess", root=root).warnings} == {"content"}
    for path in (root / "Actor_07").iterdir():
        path.unlink()
    (root / "Actor_09" / "03-01-05-01-01-01-09.wav").unlink()
    (root / "Actor_09" / "03-01-05-01-01-02-09.wav").unlink()
    (root / "Actor_09" / "03-01-05-01-01-02-09.wav").write_bytes(b"")
    (message,) = messages(prepare("ravdess", root=root), "count")
    assert message.startswith("ravdess: 1378 of 1440 utterances (1 refused); 23 of 24 speakers; ")
    assert "speaker 07 is missing (60); speaker 09 lacks 2 of 60; " in message
    assert "label 01 (neutral) lacks 4 of 96; " in message
    assert "label 05 (angry) lacks 10 of 192; " in message
    assert "zenodo.org" in message
    with pytest.raises(DataError) as error:
        prepare("ravdess", root=root, strict=True)
    assert str(error.value) == message


def test_too_many_are_a_wrong_count_too(tmp_path, write_wave):
    write_wave(tmp_path / "99a01Wa.wav")
    (message,) = messages(prepare("emodb", root=tmp_path), "count")
    assert "speaker 99 (1) is not published" in message
    assert "label W (angry) lacks 126 of 127" in message


TSV = (  # as published: padded speaker ids, quotation marks that belong to the sentence
    "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
    'WR0_fear_38.wav\tfear\t„Ród smoka” to "serial.\tród smoka\t        WR0\tmale\t23\n'
    "EB0_anger_1.wav\tanger\tLubię czytać przed snem.\tlubię\t        EB0\tfemale\t27\n"
    "EB0_anger_2.wav\tanger\tTak.\ttak\t        EB0\tfemale\t27\n"
)


def test_nemo_reads_the_table_of_its_publisher(tmp_path, write_wave):
    for name in ("WR0_fear_38", "EB0_anger_1", "EB0_anger_3"):
        write_wave(tmp_path / "nEMO" / "samples" / f"{name}.wav")
    (tmp_path / "nEMO" / "data.tsv").write_text(TSV, "utf-8")
    prepared = prepare("nemo", root=tmp_path)
    facts = {
        u.id: (u.speaker, u.gender, u.label, u.text, u.text_source) for u in prepared.utterances
    }
    assert facts == {
        "nemo/EB0_anger_1": ("EB0", "female", "anger", "Lubię czytać przed snem.", "human"),
        "nemo/EB0_anger_3": ("EB0", "female", "anger", None, None),
        "nemo/WR0_fear_38": ("WR0", "male", "fear", '„Ród smoka” to "serial.', "human"),
    }
    silent, unlisted = messages(prepared, "reader")
    assert tells(silent, "nemo", "data.tsv", 1, "EB0_anger_2")
    assert tells(unlisted, "nemo", "data.tsv", 1, "EB0_anger_3")


def test_nemo_refuses_a_table_that_is_not_its_own(tmp_path, write_wave):
    write_wave(tmp_path / "samples" / "EB0_anger_1.wav")
    (tmp_path / "data.tsv").write_text(TSV.replace("EB0\tfemale", "KD0\tfemale"), "utf-8")
    with pytest.raises(DataError, match=says("data.tsv", "KD0", "anger", "EB0_anger_1.wav")):
        prepare("nemo", root=tmp_path)
    (tmp_path / "data.tsv").write_text("file\tlabel\n", "utf-8")
    with pytest.raises(DataError, match=says("data.tsv", "file_id", "file, label")):
        prepare("nemo", root=tmp_path)
