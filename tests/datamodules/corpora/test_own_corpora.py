"""Corpora of the user's own: a YAML file gives a name, which every verb takes."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from facts import says, tells
from serzoo.datamodules import adding
from serzoo.datamodules.catalog import open_corpora, prepare_corpus
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.opening import open_data
from serzoo.zoo.cli import main
from serzoo.zoo.core import listing, registry
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config

PATTERN = "(?P<speaker>[0-9]+)(?P<gender>[fm])_(?P<label>[A-Z])_[0-9]"
NAMES = [f"{s}_{label}_{n}.wav" for s in ("01f", "02m", "03f") for label in "AH" for n in "12"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SERZOO_DATA", raising=False)
    monkeypatch.delenv("SERZOO_CORPORA", raising=False)
    return tmp_path


@pytest.fixture
def calls(here: Path, write_wave: Callable[..., Path]) -> Path:
    for i, name in enumerate(NAMES):
        write_wave(here / "calls" / name, seconds=0.2, hz=100 + 10 * i)
    return here / "calls"


def plant(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def describe(text: str, name: str = "my_calls") -> None:
    Path("corpora").mkdir(exist_ok=True)
    Path("corpora", f"{name}.yaml").write_text(text, "utf-8")


def test_add_writes_a_file_that_every_verb_reads(
    calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["root=calls", f"pattern={PATTERN}", "labels={A: angry, H: happy}"]
    assert main(["corpus", "add", "my_calls", *settings, "protocol=kfold-3"]) == 0
    out = capsys.readouterr().out
    assert tells(out, "12 utterances", "A 6 (angry)", "H 6 (happy)", "speakers: 3", "4 to 4")
    assert tells(out, "female 8", "male 4", os.path.join("corpora", "my_calls.yaml"))
    assert main(["prepare", "my_calls", "out=m.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("m.jsonl").read_text("utf-8").splitlines()]
    assert {r["id"] for r in rows} == {f"my_calls/{n[:-4]}" for n in NAMES}
    assert {(r["speaker"], r["gender"]) for r in rows} == {
        ("01", "female"),
        ("02", "male"),
        ("03", "female"),
    }
    cfg = config.load("my_calls", ["head=prototype"])
    assert (cfg.corpus, cfg.protocol, cfg.recipe) == (["my_calls"], "kfold-3", "my_calls")
    assert cfg.own["corpus my_calls"].startswith("my_calls.yaml:my_calls@")
    data = open_data(cfg.corpus, protocol=cfg.protocol, taxonomy=None)
    assert data.taxonomy.classes == ["angry", "happy"]
    assert "my_calls" in listing.names("corpora")
    assert listing.entry("corpora", "my_calls").source == str(Path("corpora/my_calls.yaml"))


def test_several_own_corpora_are_left_out_one_at_a_time(
    calls: Path, write_wave: Callable[..., Path]
) -> None:
    for i, name in enumerate(NAMES):
        write_wave(Path("other", name), seconds=0.2, hz=400 + 10 * i)
    for name, folder in (("first", "calls"), ("second", "other")):
        describe(
            f"root: ../{folder}\nnaming: {{pattern: '{PATTERN}'}}\nlabels: {{A: angry, H: happy}}",
            name,
        )
    cfg = config.load("first", ["corpus=[first,second]", "taxonomy=big4"])
    assert cfg.protocol == "loco"
    both = Taxonomy.of(["angry", "happy"])
    data = open_data(cfg.corpus, protocol=cfg.protocol, fold=1, taxonomy=both)
    assert {u.corpus for u in data.split.test} == {"second"}
    assert {u.corpus for u in data.split.train} == {"first"}
    # data.root is the folder of all corpora; one that names its own folder need not be in it
    shutil.copytree("calls", "all/first")
    found = open_corpora(["first", "second"], root="all")
    assert [p.name for p in found.roots.values()] == ["first", "other"]


def test_a_reader_is_completed_by_names_and_by_side_files(here: Path) -> None:
    for label, stem in (("angry", "x/017f_1"), ("sad", "y/018m_2"), ("sad", "y/019m_3")):
        plant(here / "c", f"{label}/{stem}.wav")
    (here / "c/angry/x/017f_1.txt").write_text("Guten  Tag\n", "utf-8")
    describe(
        "root: ../c\nreader: folder\noptions: {language: de}\nside: {text: .txt}\n"
        "naming: {pattern: '(?P<speaker>[0-9]+)(?P<gender>[fm])_[12]'}\n"
    )
    with pytest.warns(match=says("my_calls", "1", "3", "y/019m_3")) as caught:
        found = {u.id: u for u in registry.get("corpora", "my_calls")(here / "c")}
    first, second, third = (
        found[f"my_calls/{n}"] for n in ("angry/x/017f_1", "sad/y/018m_2", "sad/y/019m_3")
    )
    assert (first.speaker, first.gender, first.label) == ("017", "female", "angry")
    assert (first.text, first.text_source, first.language) == ("Guten Tag", "human", "de")
    assert (second.speaker, second.gender, second.text) == ("018", "male", None)
    assert (third.speaker, third.label) == (None, "sad")
    told = [str(w.message) for w in caught]
    assert tells(told, "text", 2, "sad/y/018m_2.txt")
    # one speaker is still unknown, so the reader's own warning stays
    assert tells(told, "folder", "unknown")
    # the options of the reader are those of the corpus, with the values of the file
    knobs = registry.schema_of(registry.get("corpora", "my_calls"))
    assert knobs["language"].default == "de"
    assert set(knobs) == {"speaker", "language", "rename"}


def test_a_reader_is_not_heard_on_speakers_that_names_tell(here: Path) -> None:
    plant(here / "c", "angry/017f_1.wav", "sad/018m_2.wav")
    describe("root: ../c\nreader: folder\nnaming: {pattern: '(?P<speaker>[0-9]+)[fm]_[12]'}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(registry.get("corpora", "my_calls")(here / "c"))
    assert [u.speaker for u in found] == ["017", "018"]


def test_a_label_may_stand_in_a_file_beside_the_recording(here: Path) -> None:
    plant(here / "c", "a1.wav", "a2.wav", "a3.wav")
    for name, word in (("a1", "Wut\n"), ("a2", "n/a"), ("a3", "WUT")):
        (here / "c" / f"{name}.lab").write_text(word, "utf-8")
    describe(
        "root: ../c\nside: {label: .lab}\nnaming: {pattern: '(?P<speaker>[a-z])[0-9]'}\n"
        "labels: {Wut: angry}"
    )
    found = list(registry.get("corpora", "my_calls")(here / "c"))
    assert [u.label for u in found] == ["Wut", None, "Wut"]
    assert CorpusInfo.load("my_calls").canonical_label(found[0]) == "angry"


def test_a_published_reader_lends_its_label_map(here: Path) -> None:
    plant(here / "c", "03a01Wa.wav", "08b02Fd.wav")
    describe("root: ../c\nreader: emodb\n")
    info = CorpusInfo.load("my_calls")
    assert (info.taxonomy, info.sentences, info.expected.utterances) == ("emodb7", 10, None)
    found = list(registry.get("corpora", "my_calls")(here / "c"))
    assert [info.canonical_label(u) for u in found] == ["angry", "happy"]
    assert [u.id for u in found] == ["my_calls/03a01Wa", "my_calls/08b02Fd"]


def test_an_edited_file_counts_at_once_and_another_root_does_not(calls: Path) -> None:
    text = f"root: ../calls\nnaming: {{pattern: '{PATTERN}'}}\nlabels: {{A: angry, H: happy}}"
    describe(text)
    before = config.load("my_calls").fingerprint
    describe(text.replace("../calls", "../calls/../calls"))
    assert config.load("my_calls").fingerprint == before
    describe(text.replace("H: happy", "H: sad"))
    assert config.load("my_calls").fingerprint != before
    assert CorpusInfo.load("my_calls").labels["H"] == "sad"


def test_a_prepared_corpus_is_prepared_again_only_if_its_description_changes(calls: Path) -> None:
    text = f"root: ../calls\nnaming: {{pattern: '{PATTERN}'}}\nlabels: {{A: angry, H: happy}}"
    stored = Path("cache/manifests")
    for expected, content in ((1, text), (1, text), (2, text + "\nlanguage: de\n")):
        describe(content)
        assert len(open_corpora(["my_calls"]).utterances) == 12
        assert len(list(stored.glob("my_calls-*.refused.jsonl"))) == expected


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("readr: folder", ("readr", "reader")),
        ("[1]", ("my_calls.yaml", "key: value")),
        ("root: ../c", ("reader", "naming", "speaker")),
        ("root: ../c\nreader: foldr", ("foldr", "folder")),
        ("root: ../c\nreader: folder\noptions: {speeker: x}", ("speeker", "speaker")),
        ("root: ../c\nnaming: {pattern: '('}", ("naming", "(")),
        ("root: ../c\nnaming: {pattern: 'x'}", ("group", "speaker")),
        ("root: ../c\nreader: folder\nside: {text: txt}", ("side", ".txt")),
        ("root: ../c\nreader: folder\nside: {mood: .txt}", ("side", "speaker")),
        ("root: ../c\nreader: folder\nlabels: {a: angri}", ("angri", "angry")),
        ("root: 7\nreader: folder", ("root", 7)),
        ("root: ../c\nreader: my_calls", ("my_calls", "reader")),
        ("root: ../c\noptions: {a: 1}\nnaming: {pattern: '(?P<label>x)'}", ("options", "reader")),
        ("a: 1\na: 2", ("my_calls.yaml", "line 2")),
    ],
)
def test_a_wrong_file_is_told_with_its_name(here: Path, text: str, facts: tuple[object]) -> None:
    describe(text)
    with pytest.raises(ConfigError, match=says(*facts)) as error:
        registry.get("corpora", "my_calls")
    assert tells(str(error.value), "my_calls.yaml") or facts[0] in ("angri", "(", "foldr", "group")
    # the list is still shown
    assert "my_calls" in listing.names("corpora")
    listing.tables("corpora")


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"pattern": "(?P<speaker>x+)"}, ("x+", 12, "01f_A_1.wav")),
        ({"pattern": PATTERN, "labels": {"X": "angry"}}, ("A 6", "H 6", "X")),
        ({"pattern": PATTERN, "text": ".txt"}, (12, "01f_A_1.txt")),
        ({"pattern": PATTERN, "protocol": "kfld"}, ("kfld", "kfold")),
        ({"pattern": PATTERN, "taxonomy": "big5"}, ("big5", "big4")),
        ({"gender": {"f": "female"}}, ("pattern",)),
        ({}, ("reader", "naming")),
        ({"reader": "folder"}, (12, "calls")),
    ],
)
def test_add_refuses_with_facts_and_writes_nothing(
    calls: Path, settings: dict[str, object], facts: tuple[object]
) -> None:
    with pytest.raises((ConfigError, DataError), match=says(*facts)):
        adding.add("my_calls", root="calls", **settings)
    assert not Path("corpora").exists()


@pytest.mark.parametrize("settings", [{}, {"gender": {"f": "female"}}, {"taxonomy": "big5"}])
def test_add_looks_for_the_folder_before_it_asks_how_to_read_it(
    here: Path, settings: dict[str, object]
) -> None:
    with pytest.raises(DataError, match=says("nowhere", "no folder", "my_calls")):
        adding.add("my_calls", root="nowhere", **settings)


def test_add_takes_no_name_that_is_taken_and_replaces_a_file_only_if_asked(calls: Path) -> None:
    with pytest.raises(ConfigError, match=says("emodb")):
        adding.add("emodb", root="calls", pattern=PATTERN)
    with pytest.raises(ConfigError, match=says("my calls")):
        adding.add("my calls", root="calls", pattern=PATTERN)
    adding.add("my_calls", root="calls", pattern=PATTERN)
    with pytest.raises(ConfigError, match=says("my_calls.yaml", "overwrite=true")):
        adding.add("my_calls", root="calls", pattern=PATTERN)
    found = adding.add("my_calls", root="calls", pattern=PATTERN, overwrite=True)
    assert found.labels == {"A": 6, "H": 6}
    # codes that no taxonomy knows are told
    assert tells(found.notes, "a", "h", "auto")


def test_a_file_named_like_a_shipped_corpus_is_refused(calls: Path) -> None:
    describe("reader: folder", "emodb")
    with pytest.raises(ConfigError, match=says("emodb.yaml", "emodb")):
        prepare_corpus("emodb", root="calls")


def test_the_folder_of_own_corpora_can_be_set(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERZOO_CORPORA", "mine")
    adding.add("my_calls", root="calls", pattern=PATTERN)
    assert Path("mine/my_calls.yaml").is_file()
    assert list(registry.own_corpora()) == ["my_calls"]
    assert listing.details("corpora", "my_calls")["needs"] == "yours"


# Out again.


def test_a_corpus_goes_out_by_a_verb(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adding.add("my_calls", root="calls", pattern=PATTERN, labels={"A": "angry", "H": "happy"})
    assert main(["corpus", "export", "my_calls", "lists", "--format", "lhotse"]) == 0
    out = capsys.readouterr().out
    assert tells(out, 12, "lhotse", "lists/recordings.jsonl.gz", "lists/supervisions.jsonl.gz")
    assert main(["prepare", "my_calls", "out=m.jsonl"]) == 0
    pytest.importorskip("audformat", reason="no audformat: pip install 'serzoo[audformat]'")
    capsys.readouterr()
    assert main(["corpus", "export", "m.jsonl", "calls", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["utterances"], done["written"]) == (12, [os.path.join("calls", "db.yaml")])
    # the database beside the audio is a corpus again
    assert main(["corpus", "add", "again", "root=calls", "reader=audformat"]) == 0
    assert tells(capsys.readouterr().out, "A 6", "H 6", "speakers: 3")


def test_own_corpora_are_listed(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus"]) == 0
    assert tells(capsys.readouterr().out, "corpora", "serzoo corpus add")
    adding.add("my_calls", root="calls", pattern=PATTERN)
    describe("[1]", "broken")
    assert main(["corpus"]) == 0
    assert tells(capsys.readouterr().out, "my_calls", "broken", "damaged")
    assert main(["list", "corpora"]) == 0
    assert tells(capsys.readouterr().out, "my_calls", "broken")


def test_a_manifest_of_several_corpora_goes_out_one_at_a_time(calls: Path) -> None:
    adding.add("my_calls", root="calls", pattern=PATTERN)
    prepare_corpus("my_calls", out="m.jsonl")
    text = Path("m.jsonl").read_text("utf-8")
    Path("m.jsonl").write_text(text.replace('"my_calls"', '"folder"', 1), "utf-8")
    with pytest.raises(DataError, match=says(2, "folder", "my_calls")):
        adding.export("m.jsonl", "out", format="lhotse")
