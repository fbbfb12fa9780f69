import json
import shutil
import warnings
from collections.abc import Iterator
from math import nan

import numpy as np
import pytest
from facts import messages, says
from serzoo.datamodules.corpora import note
from serzoo.datamodules.listening import Refusal
from serzoo.datamodules.manifest import Utterance, read_manifest, validate
from serzoo.datamodules.prepare import prepare, tell_notes
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError, DataError, DataNote, DataWarning


def test_every_kind_of_bad_audio_is_refused_counted_and_recorded(tmp_path, write_wave):
    root, out = tmp_path / "root", tmp_path / "m.jsonl"
    tone = 0.1 * np.sin(np.arange(8000) / 5)
    broken = tone.copy()
    broken[7] = np.nan
    infinite = tone.copy()
    infinite[7] = np.inf
    write_wave(root / "angry" / "good.wav")
    write_wave(root / "sad" / "telephone.wav", rate=8000)
    write_wave(root / "sad" / "studio.wav", np.stack([tone, -0.5 * tone], axis=1), rate=48000)
    write_wave(root / "sad" / "silent.wav", np.zeros(8000))
    write_wave(root / "sad" / "faint.wav", tone * 5e-4, subtype="FLOAT")
    write_wave(root / "sad" / "cut.wav", tone)
    cut = (root / "sad" / "cut.wav").read_bytes()
    (root / "sad" / "cut.wav").write_bytes(cut[: len(cut) // 2])
    write_wave(root / "sad" / "absurd.wav", tone * 1e30, subtype="FLOAT")
    write_wave(root / "sad" / "nan.wav", broken, subtype="FLOAT")
    write_wave(root / "sad" / "inf.wav", infinite, subtype="FLOAT")
    write_wave(root / "sad" / "one.wav", tone[1:2])
    write_wave(root / "sad" / "short.wav", tone[:1599])
    write_wave(root / "sad" / "just.wav", tone[:1600])
    write_wave(root / "sad" / "header.wav", np.zeros(0))
    (root / "sad" / "zero.wav").write_bytes(b"")
    (root / "sad" / "words.wav").write_text("not a wave file, whatever its name says")

    prepared = prepare("folder", root=root, out=out)

    assert {u.audio: u.sample_rate for u in prepared.utterances} == {
        "angry/good.wav": 16000,
        "sad/just.wav": 16000,
        "sad/studio.wav": 48000,
        "sad/telephone.wav": 8000,
    }
    reasons = {r.path.removeprefix("sad/"): r.reason for r in prepared.refusals}
    assert reasons == {
        "silent.wav": "silent",
        "faint.wav": "silent",
        "nan.wav": "not finite",
        "inf.wav": "not finite",
        "one.wav": "shorter than 0.1 s",
        "short.wav": "shorter than 0.1 s",
        "header.wav": "empty",
        "zero.wav": "empty",
        "words.wav": "unreadable",
        "cut.wav": "cut short",
        "absurd.wav": "out of range",
    }
    assert prepared.refused == {
        "silent": 2,
        "not finite": 2,
        "shorter than 0.1 s": 2,
        "empty": 2,
        "unreadable": 1,
        "cut short": 1,
        "out of range": 1,
    }
    assert "4 utterances of unknown speakers" in str(prepared)
    assert "refused 11 (" in str(prepared)
    assert prepared.notes()["refused"] == prepared.refused

    assert read_manifest(out) == prepared.utterances
    validate(prepared.utterances, root)
    recorded = [json.loads(line) for line in (tmp_path / "m.refused.jsonl").open()]
    assert [Refusal(**r) for r in recorded] == prepared.refusals
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "root": str(root.resolve()),
        "notes": prepared.notes(),
    }


def test_duration_and_hash_are_of_the_samples(tmp_path, write_wave):
    codes = np.random.default_rng(1).integers(-9999, 9999, 4410).astype(np.int16)
    write_wave(tmp_path / "sad" / "x.wav", codes, rate=44100)
    write_wave(tmp_path / "sad" / "same.flac", codes, rate=44100)
    write_wave(tmp_path / "sad" / "twin.wav", np.stack([codes, codes], axis=1), rate=44100)
    write_wave(tmp_path / "sad" / "other.wav", codes[::-1], rate=44100)
    by_name = {u.id: u for u in prepare("folder", root=tmp_path).utterances}
    x = by_name["folder/sad/x"]
    assert (x.start, x.end, x.sample_rate) == (0.0, 0.1, 44100)
    import hashlib

    assert x.sha == hashlib.sha256(codes.astype("<i2").tobytes()).hexdigest()[:16]
    assert by_name["folder/sad/same"].sha == by_name["folder/sad/twin"].sha == x.sha
    assert by_name["folder/sad/other"].sha != x.sha


def test_order_is_the_readers_and_does_not_depend_on_threads(tmp_path, write_wave):
    for i in range(20):
        write_wave(tmp_path / "sad" / f"{i:02}.wav", seconds=0.9 if i % 2 else 0.1)
    ids = [u.id for u in prepare("folder", root=tmp_path).utterances]
    assert ids == [f"folder/sad/{i:02}" for i in range(20)]


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "a.wav").write_text("no")
    (tmp_path / "sad" / "b.wav").write_bytes(b"")
    with pytest.raises(DataError, match=says(2, "unreadable 1", "empty 1", "sad/a.wav")):
        prepare("folder", root=tmp_path)


def test_a_progress_bar_only_on_a_terminal(tmp_path, write_wave, capfd):
    write_wave(tmp_path / "sad" / "a.wav")
    prepare("folder", root=tmp_path)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo", "folder", "csv"])
def test_a_missing_folder_says_what_to_do(tmp_path, corpus):
    with pytest.raises(DataError, match=r"root=\S+nowhere\b"):
        prepare(corpus, root=tmp_path / "nowhere")


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo"])
def test_a_folder_without_the_corpus_says_what_it_holds(tmp_path, write_wave, corpus):
    with pytest.raises(DataError, match=says(corpus, ".wav", "root=")):
        prepare(corpus, root=tmp_path)
    write_wave(tmp_path / "hello.wav")
    with pytest.raises(DataError, match=says(corpus, 1, "hello.wav", "root=")):
        prepare(corpus, root=tmp_path)


def test_unknown_corpus_and_unknown_option(tmp_path):
    with pytest.raises(ConfigError, match=says("'ravdes'", "crema_d", "'ravdess'")):
        prepare("ravdes", root=tmp_path)
    with pytest.raises(ConfigError, match=says("'folder'", "'speakers'", "'speaker'")):
        prepare("folder", root=tmp_path, options={"speakers": "x"})


def foreign(root) -> Iterator[Utterance]:
    if names := vars(foreign).get("names"):
        yield from (Utterance(n, "foreign", n, 0.0, nan, 0, "s") for n in names)
        return
    note(f"foreign: left out 3 laughs under {root}")
    warnings.warn("not ours", UserWarning, stacklevel=1)
    for id, audio, label in (("x/1", "1.wav", "JOY"), ("x/1", "2.wav", "JOY"))[: foreign.n]:
        yield Utterance(id, "foreign", audio, 0.0, nan, 0, "s", label=label)


@pytest.fixture
def third_party(monkeypatch):
    """Registers ``foreign`` as an entry point would, with what a wheel would bring along."""
    from serzoo.datamodules import info

    table = {**registry._table("corpora"), "foreign": f"{__name__}:foreign"}
    monkeypatch.setattr(registry, "_table", lambda kind: table)
    monkeypatch.setattr(registry, "get", lambda kind, name: foreign)
    info._info.cache_clear()
    foreign.n = 1
    yield foreign
    info._info.cache_clear()
    vars(foreign).clear()


def test_what_a_reader_notes_is_collected_without_the_users_paths(
    third_party, tmp_path, write_wave
):
    write_wave(tmp_path / "1.wav")
    with pytest.warns(UserWarning, match="not ours"):
        prepared = prepare("foreign", root=tmp_path)
    assert messages(prepared, "reader") == ["foreign: left out 3 laughs under root"]


@pytest.mark.filterwarnings("ignore:not about")
def test_an_id_that_occurs_twice_is_an_error(third_party, tmp_path):
    foreign.n = 2
    with pytest.raises(DataError, match=says(1, "x/1", "1.wav", "2.wav", "root=")):
        prepare("foreign", root=tmp_path)


@pytest.mark.filterwarnings("ignore:not about")
def test_its_description_comes_with_it(third_party, tmp_path, write_wave):
    write_wave(tmp_path / "1.wav")
    foreign.info = {"labels": {"joy": "happy"}}
    with pytest.raises(DataError, match=says("unknown label 'JOY' 1", "known: joy")):
        prepare("foreign", root=tmp_path)


# Recordings that are suspiciously equal.


@pytest.fixture
def spoken(tmp_path, write_wave):
    """``angry`` and ``sad`` of speakers 0 to 3, no two of one length; a function that prepares."""
    for i, name in enumerate(f"{label}/s{k}.wav" for label in ("angry", "sad") for k in range(4)):
        write_wave(tmp_path / name, seconds=0.3 + 0.01 * i, hz=100 + 10 * i)

    def run():
        prepared = prepare("folder", root=tmp_path, options={"speaker": r"/s(\d)"})
        return prepared, [w for w in prepared.warnings if w.kind == "content"]

    run.root = tmp_path
    return run


def test_ordinary_recordings_are_not_talked_about(spoken):
    assert spoken()[0].warnings == []


def test_a_copy_of_the_same_label_and_speaker_is_for_the_audit(spoken):
    shutil.copy(spoken.root / "sad" / "s0.wav", spoken.root / "sad" / "s0-again.wav")
    assert spoken()[1] == []


def test_one_recording_under_two_labels(spoken):
    shutil.copy(spoken.root / "sad" / "s0.wav", spoken.root / "angry" / "s0-again.wav")
    (found,) = spoken()[1]
    assert found.fault
    assert "under two labels, 1 times" in found.message
    assert "angry/s0-again.wav (angry) and sad/s0.wav (sad)" in found.message


def test_one_recording_of_two_speakers(spoken):
    for k in (1, 2):
        shutil.copy(spoken.root / "sad" / "s0.wav", spoken.root / "sad" / f"s{k}.wav")
    (found,) = spoken()[1]
    assert found.fault
    assert "of two speakers, 1 times (first: sad/s0.wav (0) and sad/s1.wav (1))" in found.message


def test_one_label_in_all(spoken):
    shutil.rmtree(spoken.root / "angry")
    (found,) = spoken()[1]
    assert found.fault
    assert "all 4 labelled utterances have one label, 'sad'" in found.message


def test_labels_are_compared_as_they_are_meant(spoken):
    (spoken.root / "Sad").mkdir()
    shutil.copy(spoken.root / "sad" / "s0.wav", spoken.root / "Sad" / "s0.wav")
    assert spoken()[1] == []
    shutil.rmtree(spoken.root / "angry")
    (found,) = spoken()[1]
    assert "all 5 labelled utterances have one label, 'sad'" in found.message


@pytest.mark.parametrize(("odd", "told"), [(0, 0), (1, 1), (4, 0)])
def test_a_rate_that_only_one_file_has(spoken, write_wave, odd, told):
    for k in range(odd):
        write_wave(spoken.root / "sad" / f"s{k}.wav", rate=8000, seconds=0.4 + 0.01 * k)
    found = spoken()[1]
    assert len(found) == told
    for notice in found:
        assert not notice.fault
        assert "1 of 8 files have 8000 Hz, most have 16000 Hz (first: sad/s0.wav)" in notice.message


def test_all_of_one_length(spoken, write_wave):
    for i, name in enumerate(f"{label}/s{k}.wav" for label in ("angry", "sad") for k in range(4)):
        write_wave(spoken.root / name, seconds=0.3, hz=100 + 10 * i)
    (found,) = spoken()[1]
    assert not found.fault
    assert "all 8 utterances last exactly 0.300 s" in found.message


def test_a_label_whose_every_file_is_refused_is_named(spoken):
    for path in (spoken.root / "sad").iterdir():
        path.write_bytes(b"")
    prepared, _ = spoken()
    assert any("'sad' (4)" in m for m in messages(prepared, "label"))


# Names that differ.


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        ("x/\u00e4rger.wav", "x/a\u0308rger.wav"),
        ("x/a\u0308rger.wav", "x/\u00e4rger.wav"),
        ("\u00c4x/one.wav", "A\u0308x/one.wav"),
        ("x/One.WAV", "x/one.wav"),
        ("X/one.wav", "x/One.Wav"),
        ("x/STRASSE.wav", "x/straße.wav"),
    ],
)
def test_a_name_in_another_case_or_unicode_form_is_found_and_told(
    tmp_path, write_wave, listed, on_disk
):
    write_wave(tmp_path / on_disk)
    write_wave(tmp_path / "x" / "other.wav", hz=300)
    (tmp_path / "t.csv").write_text(f"audio,speaker\n{listed},s\nx/other.wav,s\n", "utf-8")
    prepared = prepare("csv", root=tmp_path, out=tmp_path / "m.jsonl")
    assert prepared.refusals == []
    assert [u.audio for u in prepared.utterances] == [on_disk, "x/other.wav"]
    (told,) = messages(prepared, "passed")
    assert "1 names differ" in told


def test_a_name_that_two_files_could_mean_is_refused_with_both(tmp_path, write_wave):
    for i, name in enumerate(("One.wav", "one.wav", "two.wav")):
        write_wave(tmp_path / name, hz=100 + 50 * i)
    (tmp_path / "t.csv").write_text("audio,speaker\nONE.wav,s\ntwo.wav,s\ntvo.wav,s\n", "utf-8")
    prepared = prepare("csv", root=tmp_path)
    details = {r.path: r.detail for r in prepared.refusals}
    assert prepared.refused == {"missing": 2}
    assert "One.wav or one.wav" in details["ONE.wav"]
    assert "two.wav" in details["tvo.wav"]


def test_a_file_is_not_taken_for_two_rows(tmp_path, write_wave):
    write_wave(tmp_path / "one.wav")
    (tmp_path / "t.csv").write_text("audio,speaker\none.wav,s\nONE.wav,s\n", "utf-8")
    prepared = prepare("csv", root=tmp_path)
    assert [u.audio for u in prepared.utterances] == ["one.wav"]
    assert prepared.refused == {"missing": 1}


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".wav", "a\0b.wav", "dir/" * 2000 + "a.wav"], ids=["name", "nul", "path"]
)
def test_a_name_that_no_system_has_is_refused_and_the_rest_goes_on(
    third_party, tmp_path, write_wave, name
):
    write_wave(tmp_path / "1.wav")
    foreign.names = ["1.wav", name]
    prepared = prepare("foreign", root=tmp_path)
    assert len(prepared.utterances) == len(prepared.refusals) == 1


# Notices when data is opened.


def test_notes_are_told_with_the_first_refusal_of_each_reason(tmp_path):
    (tmp_path / "m.refused.jsonl").write_text(
        '{"id": "c/1", "path": "1.wav", "reason": "empty", "detail": "x/1.wav has 0 bytes"}\n'
        '{"id": "c/2", "path": "2.wav", "reason": "silent", "detail": "peak 0"}\n'
        '{"id": "c/3", "path": "3.wav", "reason": "silent", "detail": "peak 1"}\n'
    )
    notes = {"refused": {"silent": 2, "empty": 1}, "warnings": ["W"], "remarks": ["R"]}
    with pytest.warns(DataWarning) as caught:
        tell_notes("c", notes, tmp_path / "m.refused.jsonl")
    told = [(w.category is DataNote, str(w.message)) for w in caught]
    assert told == [
        (False, "W"),
        (True, "R"),
        (False, "c: refused 2, silent (first: 2.wav: peak 0)"),
        (False, "c: refused 1, empty (first: x/1.wav has 0 bytes)"),
        (True, f"c: all that was refused is listed in {tmp_path / 'm.refused.jsonl'}"),
    ]


@pytest.mark.parametrize("content", [None, "no json\n", '{"id": 1}\n'])
def test_a_lost_or_damaged_list_leaves_the_counts(tmp_path, content):
    if content is not None:
        (tmp_path / "m.refused.jsonl").write_text(content)
    with pytest.warns(DataWarning) as caught:
        tell_notes("c", {"refused": {"silent": 2}}, tmp_path / "m.refused.jsonl")
    assert [str(w.message) for w in caught] == ["c: refused 2, silent"]
