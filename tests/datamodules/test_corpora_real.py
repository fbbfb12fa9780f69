"""Readers against the real corpora and an independent listing of them (``manifest.csv``)."""

import csv
import warnings
from collections import Counter
from dataclasses import replace
from itertools import islice
from math import isnan

import pytest
from serzoo.datamodules.info import CorpusInfo, canonical_label
from serzoo.datamodules.manifest import validate
from serzoo.datamodules.prepare import prepare
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import DataWarning
from serzoo.zoo.core.taxonomy import canonical

CORPORA = ["ravdess", "emodb", "nemo"]


def listing(root):
    with (root / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def read(corpus, root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return list(registry.get("corpora", corpus)(root))


def facts(utterance, *, text):
    """As the listing puts it."""
    return {
        "speaker": f"{utterance.corpus}_{utterance.speaker}",
        "gender": utterance.gender,
        "language": utterance.language,
        "emotion": canonical()[canonical_label(utterance)].form,
        **({"transcript": utterance.text} if text else {}),
    }


@pytest.mark.parametrize("corpus", CORPORA)
def test_facts_of_every_file_agree_with_the_listing(real_data, corpus):
    root = real_data(corpus)
    rows, utterances = listing(root), read(corpus, root)
    text = corpus != "nemo"  # the copy comes without the publisher's table of transcripts
    found = {u.audio: facts(u, text=text) for u in utterances}
    assert len(found) == len(utterances)
    keys = ["speaker", "gender", "language", "emotion", *(["transcript"] if text else [])]
    assert found == {file: {key: row[key] for key in keys} for file, row in rows.items()}
    assert {(u.text_source, u.label_source) for u in utterances} == {
        ("human" if text else None, "acted")
    }
    assert all(isnan(u.end) and u.sample_rate == 0 and u.sha is None for u in utterances)


def test_vocal_bursts_agree_with_the_listing(real_data):
    root = real_data("emogator")
    rows = listing(root)
    found = {u.audio: u for u in read("emogator", root)}
    assert set(found) == set(rows)
    assert {u.audio: u.speaker for u in found.values()} == {
        f: r["speaker"] for f, r in rows.items()
    }
    words = {f: canonical_label(u) for f, u in found.items()}
    said = {f: None if w is None else canonical()[w].form for f, w in words.items()}
    # the vocabulary has no word for pain
    assert said == {f: r["emotion"] if r["emotion"] != "pain" else None for f, r in rows.items()}


def test_read_books_agree_with_the_listing(real_data):
    root = real_data("librispeech")
    rows = listing(root)
    found = {u.audio: u for u in read("librispeech", root)}
    assert {f: f"libri_{u.speaker}" for f, u in found.items()} == {
        f: r["speaker"] for f, r in rows.items()
    }
    assert {(u.label, u.text, u.language) for u in found.values()} == {(None, None, "en")}
    assert {u.labels["subset"] for u in found.values()} == {"test-other", "train-clean-100"}


@pytest.mark.parametrize("corpus", ["ravdess", "emodb"])
def test_published_counts_are_those_of_the_real_corpus(real_data, corpus):
    utterances, expected = read(corpus, real_data(corpus)), CorpusInfo.load(corpus).expected
    assert len(utterances) == expected.utterances
    assert len({u.speaker for u in utterances}) == expected.speakers
    assert Counter(u.label for u in utterances) == expected.labels
    assert Counter(u.speaker for u in utterances) == expected.per_speaker


def test_nemo_with_the_publishers_table(real_data, tmp_path):
    """The table is rebuilt from the listing in the published form, padding included."""
    source = real_data("nemo")
    (tmp_path / "samples").symlink_to(source / "audio")
    rows = [
        f"{path.stem}.wav\t{path.stem.split('_')[1]}\t{row['transcript']}\t-\t"
        f"        {path.stem[:3]}\t{row['gender']}\t30\n"
        for file, row in listing(source).items()
        for path in [source / file]
    ]
    header = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
    (tmp_path / "data.tsv").write_text(header + "".join(rows), "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        utterances = list(registry.get("corpora", "nemo")(tmp_path))
    texts = {u.audio.replace("samples/", "audio/"): u.text for u in utterances}
    assert texts == {file: row["transcript"] for file, row in listing(source).items()}


def check_engine(corpus, root, expected):
    prepared = prepare(corpus, root=root)
    assert prepared.refusals == []
    rows = listing(root)
    assert len(prepared.utterances) == expected
    for utterance in prepared.utterances:
        assert abs(utterance.duration - float(rows[utterance.audio]["duration_s"])) < 0.01
    assert {u.sample_rate for u in prepared.utterances} == {16000}
    validate(prepared.utterances, root)
    return prepared


@pytest.mark.parametrize("corpus", CORPORA)
def test_durations_of_a_slice(real_data, monkeypatch, corpus):
    reader = registry.get("corpora", corpus)

    def every(root):
        return islice(reader(root), 0, None, 25)

    monkeypatch.setattr(registry, "get", lambda kind, name: every)
    root = real_data(corpus)
    prepared = check_engine(corpus, root, len(range(0, len(listing(root)), 25)))
    assert "count" in {w.kind for w in prepared.warnings}


def test_the_identical_pair_of_ravdess_has_one_hash(real_data, monkeypatch):
    reader = registry.get("corpora", "ravdess")
    names = [
        f"ravdess/03-01-03-01-02-{take}-{actor}"
        for take, actor in (("01", "07"), ("02", "07"), ("01", "08"), ("02", "08"))
    ]
    monkeypatch.setattr(
        registry, "get", lambda kind, name: lambda root: (u for u in reader(root) if u.id in names)
    )
    sha = {u.id: u.sha for u in prepare("ravdess", root=real_data("ravdess")).utterances}
    assert sha[names[0]] == sha[names[1]]
    assert len(set(sha.values())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_durations_of_every_file(real_data, corpus):
    root = real_data(corpus)
    prepared = check_engine(corpus, root, len(listing(root)))
    kinds = {w.kind for w in prepared.warnings}
    assert kinds == ({"reader", "count"} if corpus == "nemo" else set())


def test_ravdess_as_a_table_of_ones_own(real_data, monkeypatch):
    """The listing itself is a csv; read as one it tells the same as the reader of the names."""
    root = real_data("ravdess")
    options = {"audio": "file", "label": "emotion", "text": "transcript"}
    reader = registry.get("corpora", "csv")
    own = {u.audio: u for u in reader(root, **options)}
    named = read("ravdess", root)
    assert len(own) == len(named) == 1440
    for utterance in named:
        other = own[utterance.audio]
        same = replace(
            utterance,
            id=f"csv/{utterance.audio.removesuffix('.flac')}",
            corpus="csv",
            speaker=f"ravdess_{utterance.speaker}",
            label=canonical()[canonical_label(utterance)].form,
            label_source=None,
        )
        assert replace(other, end=0.0) == replace(same, end=0.0)
