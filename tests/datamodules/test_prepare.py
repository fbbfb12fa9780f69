import json
import warnings
from collections.abc import Iterator
from math import nan

import numpy as np
import pytest
from serzoo.datamodules.corpora import note
from serzoo.datamodules.manifest import Utterance, read_manifest, validate
from serzoo.datamodules.prepare import Refusal, prepare
from serzoo.zoo import registry
from serzoo.zoo.errors import ConfigError, DataError


def messages(prepared, kind):
    return [w.message for w in prepared.warnings if w.kind == kind]


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
    }
    assert prepared.refused == {
        "silent": 2,
        "not finite": 2,
        "shorter than 0.1 s": 2,
        "empty": 2,
        "unreadable": 1,
    }
    assert "4 utterances of unknown speakers" in str(prepared)
    assert "refused 9 (" in str(prepared)
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
    with pytest.raises(
        DataError, match=r"none of 2 utterances .* can be used: unreadable 1, empty 1"
    ):
        prepare("folder", root=tmp_path)


def test_a_progress_bar_only_on_a_terminal(tmp_path, write_wave, capfd):
    write_wave(tmp_path / "sad" / "a.wav")
    prepare("folder", root=tmp_path)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo", "folder", "csv"])
def test_a_missing_folder_says_what_to_do(tmp_path, corpus):
    with pytest.raises(DataError, match=r"root=\S+nowhere does not exist; give the folder that"):
        prepare(corpus, root=tmp_path / "nowhere")


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo"])
def test_a_folder_without_the_corpus_says_what_it_holds(tmp_path, write_wave, corpus):
    with pytest.raises(DataError, match=f"{corpus}: no file of it .* but no audio; expected names"):
        prepare(corpus, root=tmp_path)
    write_wave(tmp_path / "hello.wav")
    with pytest.raises(DataError, match=r"but 1 other audio files \(first: hello.wav\)"):
        prepare(corpus, root=tmp_path)


def test_unknown_corpus_and_unknown_option(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'ravdess'"):
        prepare("ravdes", root=tmp_path)
    with pytest.raises(ConfigError, match=r"unknown key 'speakers'.*did you mean 'speaker'"):
        prepare("folder", root=tmp_path, options={"speakers": "x"})


def foreign(root) -> Iterator[Utterance]:
    note(f"foreign: left out 3 laughs under {root}")
    warnings.warn("not about the corpus", UserWarning, stacklevel=1)
    for id, audio, label in (("x/1", "1.wav", "JOY"), ("x/1", "2.wav", "JOY"))[: foreign.n]:
        yield Utterance(id, "foreign", audio, 0.0, nan, 0, "s", label=label)


@pytest.fixture
def third_party(monkeypatch):
    """Registers ``foreign`` as an entry point would, with what a wheel would bring along."""
    from serzoo.datamodules import info

    table = {**registry._table("corpora"), "foreign": f"{__name__}:foreign"}
    monkeypatch.setattr(registry, "_table", lambda kind: table)
    monkeypatch.setattr(registry, "get", lambda kind, name: foreign)
    info._load.cache_clear()
    foreign.n = 1
    yield foreign
    info._load.cache_clear()
    vars(foreign).clear()


def test_what_a_reader_notes_is_collected_without_the_users_paths(
    third_party, tmp_path, write_wave
):
    write_wave(tmp_path / "1.wav")
    with pytest.warns(UserWarning, match="not about the corpus"):
        prepared = prepare("foreign", root=tmp_path)
    assert messages(prepared, "reader") == ["foreign: left out 3 laughs under root"]


@pytest.mark.filterwarnings("ignore:not about")
def test_an_id_that_occurs_twice_is_an_error(third_party, tmp_path):
    foreign.n = 2
    with pytest.raises(DataError, match=r"1 ids occur more .*first: x/1, 1.wav and 2.wav.*remove"):
        prepare("foreign", root=tmp_path)


@pytest.mark.filterwarnings("ignore:not about")
def test_its_description_comes_with_it(third_party, tmp_path, write_wave):
    write_wave(tmp_path / "1.wav")
    foreign.info = {"labels": {"joy": "happy"}}
    with pytest.raises(DataError, match=r"none of 1 utterances .*: unknown label 'JOY' 1"):
        prepare("foreign", root=tmp_path)
