"""Speakers whom nobody knows: never made up, refused where folds need them, told beside numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from facts import says
from people import alternating, utterances
from serzoo.datamodules.audit import audit
from serzoo.datamodules.catalog import Speech
from serzoo.datamodules.counts import count_notice
from serzoo.datamodules.fewshot import open_few_shot
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.labelling.wording import control
from serzoo.datamodules.manifest import Utterance, write_manifest
from serzoo.datamodules.opening import audit_corpus, open_data
from serzoo.datamodules.prosody import open_probing
from serzoo.datamodules.protocols import PARTS, Protocol, Split, listed_speakers, speakers_of
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.taxonomy import Taxonomy

VOICES = alternating([f"v{i:02d}" for i in range(12)])
PEOPLE = utterances("synthetic", VOICES)
THREE = Taxonomy.of(["angry", "happy", "sad"])
NAMED = "(s\\d)-"  # how the files of `corpus` name their speaker


def unknown(us: list[Utterance], n: int | None = None) -> list[Utterance]:
    """The first ``n`` utterances without their speaker, or all."""
    return [replace(u, speaker=None) if n is None or i < n else u for i, u in enumerate(us)]


def test_known_speakers_keep_every_hash() -> None:
    """The values are of the code before a speaker could be unknown."""
    assert Speech(PEOPLE, {}).sha == "99f4d98815a6"
    split = Protocol.load("synthetic-4fold").split(PEOPLE, 1)
    assert split.fingerprint() == {
        "train": "c2e96c03b21f", "valid": "1cef6f373170", "test": "05bea312ac0d",
    }  # fmt: skip
    report = audit(split)
    assert report.ok
    assert report.unsure == []
    assert "unsure" not in report.to_dict()


@pytest.mark.parametrize(
    "protocol",
    ["kfold", "kfold-3", "mixed-8fold", "synthetic-4fold", "savee-loso", "tess-2spk",
     "iemocap-loso", "weak-train"],
)  # fmt: skip
def test_what_deals_by_speaker_refuses_unknown_ones(protocol: str) -> None:
    rule = Protocol.load(protocol)
    corpus = rule.corpora[0] if rule.corpora else "mine"
    us = unknown([replace(u, corpus=corpus, session="x") for u in PEOPLE], 5)
    with pytest.raises(DataError, match=says("5 of 36", "speaker")) as refused:
        rule.split(us, 0)
    assert "options.speaker" in str(refused.value)
    # names that a protocol goes by cannot be done without
    by_name = rule.by == "speaker" and not rule.number
    assert ("data.unknown_speakers=accept" in str(refused.value)) != by_name
    if by_name:
        with pytest.raises(DataError, match=says("5 of 36", "speaker")):
            rule.split(us, 0, unknown_speakers="accept")


@pytest.mark.parametrize("n", [36, 7])
def test_accepted_ones_are_dealt_one_by_one_and_the_audit_says_so(n: int) -> None:
    us, rule = unknown(PEOPLE, n), Protocol.load("kfold-3")
    assert rule.n_folds(us) == 3
    tested = []
    for fold in range(3):
        split = rule.split(us, fold, unknown_speakers="accept")
        ids = [u.id for _, part in split.parts() for u in part]
        assert sorted(ids) == sorted(u.id for u in us)
        assert all(part for _, part in split.parts())
        tested += [u.id for u in split.test]
        report = audit(split)
        assert report.ok
        (told,) = report.unsure
        assert f"{n} of 36 utterances" in told
        assert "unknown_speakers=accept" in told
        assert report.to_dict()["unsure"] == [told]
        assert "unknown: whether" in str(report)
        assert "passed" not in str(report)
        assert sum(report.counts[f"{p}_without_speaker"] for p in PARTS) == n
        # those with a name are kept apart as ever
        for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
            assert not speakers_of(getattr(split, a)) & speakers_of(getattr(split, b))
    assert sorted(tested) == sorted(u.id for u in us)
    assert (
        rule.split(us[::-1], 1, unknown_speakers="accept").fingerprint()
        == rule.split(us, 1, unknown_speakers="accept").fingerprint()
    )


@pytest.mark.parametrize("protocol", ["loco", "one-to-rest"])
def test_corpora_need_no_speaker_to_be_told_apart(protocol: str) -> None:
    us = unknown(utterances("a", VOICES)) + utterances("b", VOICES)
    for fold in (0, 1):
        split = Protocol.load(protocol).split(us, fold)
        assert {u.corpus for u in split.train}.isdisjoint({u.corpus for u in split.test})
        # whom the corpus without names validates on may be whom it trains on
        unsure = audit(split).unsure
        assert len(unsure) == ("a" in {u.corpus for u in split.train})
        assert all("train and valid" in text and "test" not in text for text in unsure)


def test_a_corpus_that_only_a_model_labelled_needs_no_speaker() -> None:
    weak = utterances("talk", VOICES, label_source="weak:m")
    rule = Protocol.load("weak-train")
    split = rule.split(unknown(weak) + utterances("mine", VOICES), 0)
    assert {u.corpus for u in split.train} == {"talk"}
    assert audit(split).unsure == []
    same = [replace(u, corpus="mine") for u in weak]
    with pytest.raises(DataError, match=says("36 of 72", "speaker")):
        rule.split(unknown(same) + utterances("mine", VOICES), 0)


def test_a_given_split_is_taken_and_the_audit_cannot_tell() -> None:
    us = [replace(u, labels={"split": PARTS[i % 3]}) for i, u in enumerate(unknown(PEOPLE))]
    report = audit(Protocol.load("official").split(us, 0))
    assert report.ok
    assert "train, valid and test share speakers" in report.unsure[0]
    assert audit(Protocol.load("train-only").split(us, 0)).unsure == []


def test_one_unknown_speaker_may_be_any_of_the_others() -> None:
    known = utterances("mine", {"a": "male", "b": "male", "c": "male"}, n=1)
    lost = replace(known[2], speaker=None)
    assert audit(Split([known[0]], [], [lost])).unsure
    assert audit(Split([lost], [], [known[0]])).unsure
    assert not audit(Split([known[0]], [], [replace(lost, corpus="other")])).unsure
    assert listed_speakers([known[0], lost]) == ["mine/", "mine/a"]


def test_a_speaker_of_its_own_for_every_utterance_is_noticed() -> None:
    """As manifests have it that were written when readers made speakers up."""
    us = utterances("mine", alternating([f"file{i}" for i in range(30)]), n=1)
    notes = audit(Protocol.load("kfold").split(us, 0)).notes
    assert any("each of 30 utterances has a speaker of its own" in note for note in notes)
    assert not any("of its own" in n for n in audit(Protocol.load("kfold").split(PEOPLE, 0)).notes)


def test_published_counts_name_those_without_a_speaker() -> None:
    info = CorpusInfo.load("savee")
    us = unknown(utterances("savee", dict.fromkeys(["DC", "JE", "JK", "KL"], "male")), 2)
    notice = count_notice(info, us)
    assert notice is not None
    assert "2 utterances without a speaker" in notice.message
    assert "None" not in notice.message


def test_what_words_tell_cannot_be_asked_without_speakers() -> None:
    us = unknown(PEOPLE, 3)
    with pytest.raises(DataError, match=says("3 of 36", "speaker")):
        control(us, [i % 2 for i in range(len(us))], ["sad", "angry"], "kfold")


# -- from files to batches -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_wave) -> Path:
    """18 clips of 6 speakers as ``<label>/<speaker>-<take>.wav``, all of them different."""
    root = tmp_path_factory.mktemp("speech")
    for i, label in enumerate(THREE.classes):
        for speaker in range(6):
            number = 6 * i + speaker
            write_wave(root / label / f"s{speaker}-0.wav", seconds=0.2 + 0.01 * number)
    return root


def opened(root: Path, **options):
    return open_data(["folder"], protocol="kfold-3", taxonomy=THREE, root=str(root), **options)


def test_a_fold_is_refused_until_it_is_accepted(corpus: Path) -> None:
    with pytest.raises(DataError, match=says("18 of 18", "speaker")):
        opened(corpus)
    data = opened(corpus, unknown_speakers="accept")
    assert data.speakers() == {part: ["folder/"] for part in PARTS}
    assert data.counts()["without_speaker"] == {p: len(data.datasets[p]) for p in PARTS}
    assert data.audit.ok
    assert data.audit.unsure
    batch = data.datasets["test"][[0, 1]]
    assert batch.speakers == ["", ""]
    named = opened(corpus, options={"speaker": NAMED}, unknown_speakers="accept")
    assert "without_speaker" not in named.counts()
    assert named.datasets["test"][[0]].speakers[0].startswith("folder/s")
    # by the same folds as without the setting
    assert (
        named.split.fingerprint() == opened(corpus, options={"speaker": NAMED}).split.fingerprint()
    )


def test_a_corpus_that_is_only_tested_needs_no_speakers(corpus: Path) -> None:
    data = open_data(["folder"], protocol=None, taxonomy=THREE, root=str(corpus))
    assert data.audit.unsure == []
    assert data.speakers()["test"] == ["folder/"]


def test_a_support_is_refused_until_it_is_accepted(corpus: Path) -> None:
    how = {"protocol": "kfold-3", "fold": 0, "taxonomy": THREE, "root": str(corpus)}
    how |= {"shots": 1, "draw": 1}
    with pytest.raises(DataError, match=says("18 of 18", "speaker")):
        open_few_shot(["folder"], **how)
    shot = open_few_shot(["folder"], **how, unknown_speakers="accept")
    assert len(shot.support) == 3
    assert "train and test share speakers" in shot.data.audit.unsure[0]


def test_a_probe_cannot_do_without_speakers(corpus: Path) -> None:
    with pytest.raises(DataError, match=says("18 of 18", "speaker")):
        open_probing(["folder"], root=str(corpus), protocol="loco")


def test_the_verb_audit_cannot_tell_and_ends_with_an_error(corpus: Path, tmp_path, capsys) -> None:
    settings = [f"root={corpus}", "protocol=kfold-3", "taxonomy=big4"]
    assert main(["audit", "folder", *settings]) == 1
    out = capsys.readouterr().out
    assert "3 folds, 0 with leakage, 3 that cannot be checked" in out
    assert "18 of 18 utterances is not known" in out
    assert main(["audit", "folder", *settings, "unknown_speakers=accept"]) == 0
    assert "unknown_speakers=accept" in capsys.readouterr().out
    assert main(["audit", "folder", *settings, f"options.speaker='{NAMED}'"]) == 0
    assert capsys.readouterr().out.endswith("3 folds, 0 with leakage\n")
    assert main(["audit", "folder", *settings, "unknown_speakers=yes"]) == 2
    assert "refuse, accept" in capsys.readouterr().err
    # a manifest says the same as the reader that wrote it
    manifest = tmp_path / "m.jsonl"
    rows = [replace(u, corpus="folder", sha=u.id) for u in unknown(PEOPLE)]
    write_manifest(manifest, rows)
    assert [bool(r.unsure) for r in audit_corpus(str(manifest), protocol="kfold-3")] == [True] * 3
    assert json.loads(manifest.read_text().splitlines()[0])["speaker"] is None
