"""From a corpus to the batches of a fold: labels, coverage, split, audit, weights."""

import shutil
import warnings
from dataclasses import replace

import pytest
import soundfile
import torch
from facts import says, tells
from serzoo.datamodules.catalog import corpus_root, open_corpora, prepare_corpus
from serzoo.datamodules.labels import auto_taxonomy
from serzoo.datamodules.manifest import read_manifest, write_manifest
from serzoo.datamodules.opening import audit_corpus, open_data
from serzoo.zoo.core.errors import DataError, DataWarning
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run.build import audit_folds
from serzoo.zoo.run.config import load

LABELS = ("angry", "happy", "sad", "bored")
COUNTS = {"angry": 2, "happy": 1, "sad": 1, "bored": 1}  # of each speaker
THREE = Taxonomy.of(["sad", "angry", "happy"])
SPEAKERS = 6


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SERZOO_DATA", raising=False)


@pytest.fixture
def corpus(tmp_path, write_wave):
    """30 clips of 6 speakers as ``<label>/<speaker>-<take>.wav``, all of them different."""
    root = tmp_path / "speech"
    number = 0
    for label, count in COUNTS.items():
        for speaker in range(SPEAKERS):
            for take in range(count):
                path = root / label / f"s{speaker}-{take}.wav"
                write_wave(path, seconds=0.2 + 0.01 * number, hz=100 + 5 * number)
                number += 1
    return root


def opened(root, taxonomy=THREE, protocol="kfold-3", **options):
    options = {"options": {"speaker": r"/(s\d)-"}, **options}
    return open_data(["folder"], protocol=protocol, taxonomy=taxonomy, root=str(root), **options)


def test_parts_are_disjoint_by_speaker_and_complete(corpus):
    data = opened(corpus)
    speakers = {p: {u.speaker for u in d.utterances} for p, d in data.datasets.items()}
    assert sorted(s for part in speakers.values() for s in part) == [f"s{k}" for k in range(6)]
    assert {p: len(d) for p, d in data.datasets.items()} == {"train": 8, "valid": 8, "test": 8}
    assert data.audit.ok
    tested = {u.id for fold in range(3) for u in opened(corpus, fold=fold).split.test}
    assert len(tested) == 24


def test_what_the_taxonomy_leaves_out_is_counted(corpus):
    counts = opened(corpus).counts()
    assert counts["left_out_by_taxonomy"] == {"bored": 6}
    assert counts["kept"]["train"] == {"sad": 2, "angry": 4, "happy": 2}
    assert counts["kept"]["test"] == {"sad": 2, "angry": 4, "happy": 2}
    assert counts["cut_to_max_seconds"] == 0
    assert opened(corpus, max_seconds=0.3).counts()["cut_to_max_seconds"] > 0


def test_class_indices_follow_the_order_of_the_taxonomy(corpus):
    dataset = opened(corpus).datasets["test"]
    for i, u in enumerate(dataset.utterances):
        assert THREE.classes[int(dataset.classes[i])] == u.label


def test_training_is_weighted_by_inverse_frequency_and_nothing_else_is(corpus):
    data = opened(corpus)
    # 8 utterances over 3 classes: 8 / (3 * count)
    assert data.datasets["train"].weights.tolist() == pytest.approx([8 / 6, 8 / 12, 8 / 6])
    assert data.datasets["valid"].weights.tolist() == [1, 1, 1]
    batch = data.datasets["train"][list(range(8))]
    assert batch.targets.item_weight.sum().item() == pytest.approx(8)
    per_class = (batch.targets.probs * batch.targets.weight[:, None]).sum(0)
    assert per_class.tolist() == pytest.approx([8 / 3] * 3)
    assert opened(corpus, balance=False).datasets["train"].weights.tolist() == [1, 1, 1]


def test_shares_of_the_training_utterances_are_drawn_per_class_and_lie_within_each_other(corpus):
    def trained(share, **options):
        return opened(corpus, train_share=share, **options)

    assert "train_share" not in opened(corpus).counts()
    parts = {share: opened(corpus, train_share=share) for share in (0.1, 0.5, 0.75, 1.0)}
    ids = {
        share: [u.id for u in data.datasets["train"].utterances] for share, data in parts.items()
    }
    # of 2, 4 and 2 utterances of sad, angry and happy, rounded to even, at least one
    assert {s: d.counts()["kept"]["train"] for s, d in parts.items()} == {
        0.1: {"sad": 1, "angry": 1, "happy": 1},
        0.5: {"sad": 1, "angry": 2, "happy": 1},
        0.75: {"sad": 2, "angry": 3, "happy": 2},
        1.0: {"sad": 2, "angry": 4, "happy": 2},
    }
    assert set(ids[0.1]) < set(ids[0.5]) < set(ids[0.75]) < set(ids[1.0])
    assert ids[0.75] == [i for i in ids[1.0] if i in ids[0.75]]  # in the order of the manifest
    assert [u.id for u in trained(0.5).datasets["train"].utterances] == ids[0.5]
    drawn = {
        tuple(u.id for u in trained(0.5, seed=k).datasets["train"].utterances) for k in range(9)
    }
    assert len(drawn) > 1
    told = parts[0.5].counts()["train_share"]
    assert (told["share"], told["available"], len(told["utterances"])) == (0.5, 8, 16)
    # validation, test and the split itself are those of the whole
    for data in parts.values():
        assert data.split.fingerprint() == parts[1.0].split.fingerprint()
        assert [len(data.datasets[p]) for p in ("valid", "test")] == [8, 8]
    assert parts[0.5].datasets["train"].weights.tolist() == pytest.approx([4 / 3, 4 / 6, 4 / 3])


def test_a_class_without_training_is_refused(corpus):
    for path in (corpus / "happy").glob("s[0-4]-*"):
        path.unlink()
    refused = []
    for fold in range(3):
        try:
            opened(corpus, fold=fold)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) == 2  # the one who is happy trains in a single fold
    assert tells(refused[0], "training", "happy")


def test_a_taxonomy_that_keeps_nothing_is_refused(corpus):
    with pytest.raises(DataError, match=says("0 of 30", "neutral 0", "angry 12", "taxonomy")):
        opened(corpus, taxonomy=Taxonomy.of(["neutral", "surprised"]))


def test_one_recording_in_two_parts_is_refused(corpus):
    first, second = sorted((corpus / "sad").glob("s*-0.wav"))[:2]
    shutil.copy(first, second)
    clash = []
    for fold in range(3):
        try:
            opened(corpus, fold=fold)
        except DataError as error:
            clash.append(str(error))
    assert clash
    assert all("sample for sample" in text and "the audit of kfold-3" in text for text in clash)


def test_folds_are_audited_before_a_comparison(corpus, tmp_path):
    keys = [
        "corpus=folder", "protocol=kfold-3", f"data.root={corpus}", "taxonomy=auto",
        r"data.options.speaker='/(s\d)-'",
    ]  # fmt: skip
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("groups: {encoder: logmel, head: classification}\n")
    cfg = load(str(recipe), keys)
    assert audit_folds(cfg) == [0, 1, 2]
    assert audit_folds(cfg, [2, 0]) == [2, 0]
    first, second = sorted((corpus / "sad").glob("s*-0.wav"))[:2]
    shutil.copy(first, second)
    with pytest.raises(
        DataError, match=says("fold 0", 1, "valid", "test", "folder/sad/s1-0 = folder/sad/s0-0")
    ):
        audit_folds(cfg)


def test_auto_takes_every_label_in_alphabetical_order(corpus):
    data = opened(corpus, taxonomy=None)
    assert data.taxonomy.classes == sorted(LABELS)
    assert data.counts()["left_out_by_taxonomy"] == {}
    with pytest.raises(DataError, match=says("'label'", "1 labels", "sad", 2)):
        auto_taxonomy([u for u in data.split.train if u.label == "sad"], "label")


def test_without_a_protocol_everything_is_the_test_part(corpus):
    data = opened(corpus, protocol=None)
    assert {p: len(d) for p, d in data.datasets.items()} == {"train": 0, "valid": 0, "test": 24}
    ids = [i for batch in data.test_dataloader() for i in batch.ids]
    assert sorted(ids) == sorted(u.id for u in data.split.test)


def test_loaders_keep_their_bounds_and_serve_everybody(corpus):
    data = opened(corpus, batch_size=3, batch_seconds=1.0)
    for loader, part in (
        (data.train_dataloader(), "train"),
        (data.val_dataloader(), "valid"),
        (data.test_dataloader(), "test"),
    ):
        batches = list(loader)
        assert len(batches) == len(loader)
        assert sorted(i for b in batches for i in b.ids) == sorted(
            u.id for u in getattr(data.split, part)
        )
        assert all(len(b) <= 3 and b.audio.numel() <= 16_000 for b in batches)


def test_loaders_with_worker_processes_serve_the_same(corpus):
    alone = list(opened(corpus, batch_size=4).test_dataloader())
    workers = list(opened(corpus, batch_size=4, workers=1).test_dataloader())
    assert [b.ids for b in alone] == [b.ids for b in workers]
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(alone, workers, strict=True))


# -- finding, preparing, remembering -------------------------------------------------------------


def test_a_prepared_corpus_is_remembered_until_it_changes(corpus, tmp_path):
    options = {"speaker": r"/(s\d)-"}
    first = open_corpora(["folder"], root=str(corpus), options=options)
    manifests = tmp_path / "cache" / "manifests"
    assert len(list(manifests.glob("*.json"))) == 1
    again = open_corpora(["folder"], root=str(corpus), options=options)
    assert again.utterances == first.utterances
    assert len(list(manifests.glob("*.json"))) == 1
    path = next((corpus / "sad").glob("*.wav"))
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[:1600], rate)
    changed = open_corpora(["folder"], root=str(corpus), options=options)
    assert changed.sha != first.sha
    assert changed.utterances != first.utterances


def test_a_prepared_manifest_is_as_good_as_the_corpus(corpus, tmp_path):
    options = {"speaker": r"/(s\d)-"}
    done, path = prepare_corpus(
        "folder", root=str(corpus), out=str(tmp_path / "mine.jsonl"), options=options
    )
    assert path == tmp_path / "mine.jsonl"
    assert len(done.utterances) == 30
    direct = opened(corpus)
    data = open_data([], protocol="kfold-3", taxonomy=THREE, manifest=str(path), root=str(corpus))
    assert data.split.fingerprint() == direct.split.fingerprint()
    assert data.speech.sha == direct.speech.sha


def test_a_manifest_without_its_audio_is_refused(corpus, tmp_path):
    _, path = prepare_corpus("folder", root=str(corpus), out=str(tmp_path / "mine.jsonl"))
    next((corpus / "sad").glob("*.wav")).unlink()
    with pytest.raises(DataError, match=says(30, 1, "sad/s5-0.wav", "root=")):
        open_corpora([], manifest=str(path), root=str(corpus))


def test_identity_of_data_is_what_is_said_and_heard(corpus, tmp_path):
    speech = open_corpora(["folder"], root=str(corpus))
    moved = shutil.copytree(corpus, tmp_path / "elsewhere")
    assert open_corpora(["folder"], root=str(moved)).sha == speech.sha
    (moved / "sad" / "s0-0.wav").rename(moved / "happy" / "s0-9.wav")
    assert open_corpora(["folder"], root=str(moved)).sha != speech.sha


def test_a_corpus_that_cannot_be_found_says_how_to_name_it(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=says("'ravdess'", "root=FOLDER", "SERZOO_DATA")):
        corpus_root("ravdess", None)
    with pytest.raises(DataError, match=says("nowhere", "'ravdess'", "root")):
        corpus_root("ravdess", str(tmp_path / "nowhere"))
    (tmp_path / "data" / "emodb").mkdir(parents=True)
    (tmp_path / "data" / "nemo_mini").mkdir()
    monkeypatch.setenv("SERZOO_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=says("ravdess", "emodb, nemo_mini", "root=FOLDER")):
        corpus_root("ravdess", None)
    assert corpus_root("emodb", None) == tmp_path / "data" / "emodb"
    assert corpus_root("nemo", None) == tmp_path / "data" / "nemo_mini"


def test_audit_of_a_manifest_reports_every_fold(corpus, tmp_path):
    _, path = prepare_corpus(
        "folder", root=str(corpus), out=str(tmp_path / "m.jsonl"), options={"speaker": r"/(s\d)-"}
    )
    reports = audit_corpus(str(path), protocol="kfold-3")
    assert [r.ok for r in reports] == [True] * 3
    utterances = read_manifest(path)
    one = next(u for u in utterances if u.speaker == "s0")
    other = next(i for i, u in enumerate(utterances) if u.speaker == "s1")
    utterances[other] = replace(utterances[other], sha=one.sha)
    write_manifest(path, utterances)
    assert not all(r.ok for r in audit_corpus(str(path), protocol="kfold-3"))


# -- what was found is told by whoever opens ------------------------------------------------------


@pytest.fixture
def flawed(corpus):
    """The corpus with a file that is empty and one that cannot be read."""
    (corpus / "sad" / "s0-0.wav").write_bytes(b"")
    (corpus / "sad" / "s0-0.m4a").write_bytes(b"ftypM4A")
    return corpus


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    texts = [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
    assert len(set(texts)) == len(texts)
    return texts


def test_findings_are_told_when_data_is_opened_also_from_the_cache(flawed):
    first, again = told(lambda: opened(flawed)), told(lambda: opened(flawed))
    assert first == again
    assert any("refused 1, empty (first: " in t and "sad/s0-0.wav" in t for t in first)
    assert any(".refused.jsonl" in t for t in first)


def test_findings_of_a_manifest_are_told(flawed, tmp_path):
    out = str(tmp_path / "m.jsonl")
    options = {"speaker": r"/(s\d)-"}
    (flawed / "angry" / "x.wma").write_bytes(b"x")
    made = told(lambda: prepare_corpus("folder", root=str(flawed), out=out, options=options))
    assert any("1 wma" in t for t in made)
    for call in (
        lambda: open_corpora([], manifest=out, root=str(flawed)),
        lambda: audit_corpus(out, protocol="kfold-3"),
        lambda: audit_corpus("folder", protocol="kfold-3", root=str(flawed), options=options),
    ):
        texts = told(call)
        assert any("1 wma" in t for t in texts)
        assert any("refused 1, empty (first: " in t for t in texts)
        assert any(".refused.jsonl" in t for t in texts)


def test_a_manifest_of_another_system_finds_its_files(corpus, tmp_path):
    _, path = prepare_corpus("folder", root=str(corpus), out=str(tmp_path / "m.jsonl"))
    utterances = read_manifest(path)
    utterances[0] = replace(utterances[0], audio=utterances[0].audio.upper())
    write_manifest(path, utterances)
    texts = told(lambda: open_corpora([], manifest=str(path), root=str(corpus)))
    assert any(t.startswith("m.jsonl: 1 names differ") for t in texts)
