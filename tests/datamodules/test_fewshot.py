"""Supports: how many, nested, the same for everyone, of other speakers than the query."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from facts import says, tells
from serzoo.datamodules.fewshot import Support, draw_ids, draw_per_speaker, open_few_shot
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy

THREE = Taxonomy.of(["angry", "happy", "sad"])
TAKES = {"angry": 3, "happy": 3, "sad": 1}


def utterance(i: int, sha: str | None = None) -> Utterance:
    return Utterance(f"c/{i}", "c", f"{i}.wav", 0.0, 1.0, 16_000, f"s{i % 4}", sha=sha)


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_wave) -> Path:
    """Six speakers: three takes of two emotions, one of a third."""
    folder = tmp_path_factory.mktemp("target")
    rng = np.random.default_rng(0)
    rows = ["audio,label,speaker,gender"]
    for speaker in range(6):
        for label, takes in TAKES.items():
            for take in range(takes):
                name = f"{label}-{speaker}-{take}.wav"
                write_wave(folder / name, 0.1 * rng.normal(size=4000))
                rows.append(f"{name},{label},s{speaker},{'fm'[speaker % 2]}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def opened(root):
    def go(shots=2, draw=1, **how):
        how = {"protocol": "kfold-3", "fold": 0, "taxonomy": THREE, **how}
        return open_few_shot(["csv"], root=str(root), shots=shots, draw=draw, **how)

    return go


def test_the_order_is_of_seed_and_id_alone() -> None:
    pool = [utterance(i) for i in range(60)]
    classes = [i % 3 for i in range(60)]
    drawn = draw_ids(pool, classes, 3, 20, 1)
    assert [len(ids) for ids in drawn] == [20, 20, 20]
    both = list(zip(pool, classes, strict=True))
    random.Random(0).shuffle(both)
    assert draw_ids(*map(list, zip(*both, strict=True)), 3, 20, 1) == drawn
    # another class has no part in it
    of_one = [u for u, c in zip(pool, classes, strict=True) if c == 1]
    assert draw_ids(of_one, [1] * 20, 3, 20, 1)[1] == drawn[1]
    assert draw_ids(pool, classes, 3, 20, 2) != drawn


def test_supports_of_a_seed_are_nested() -> None:
    pool, classes = [utterance(i) for i in range(60)], [i % 2 for i in range(60)]
    largest = draw_ids(pool, classes, 2, 16, 5)
    for k in (0, 1, 2, 4, 8):
        assert draw_ids(pool, classes, 2, k, 5) == [ids[:k] for ids in largest]


def test_a_draw_is_uniform_over_utterances() -> None:
    pool, classes = [utterance(i) for i in range(10)], [0] * 10
    first = [draw_ids(pool, classes, 1, 1, seed)[0][0] for seed in range(2000)]
    counts = [first.count(u.id) for u in pool]
    assert min(counts) > 150  # 200 expected, standard deviation 13
    assert max(counts) < 250


def test_of_equal_recordings_one_is_taken() -> None:
    pool = [utterance(i, sha=str(i // 2)) for i in range(10)]
    (ids,) = draw_ids(pool, [0] * 10, 1, 10, 1)
    assert len(ids) == 5
    assert len({int(i[2:]) // 2 for i in ids}) == 5


def test_counts_speakers_and_the_file(opened, tmp_path) -> None:
    shot = opened(shots=2, draw=4)
    support = shot.support
    assert {c: len(ids) for c, ids in support.ids.items()} == {"angry": 2, "happy": 2, "sad": 2}
    assert len(support) == len(shot.data.datasets["train"]) == 6
    speakers = shot.data.speakers()
    assert len(speakers["test"]) == 2
    assert not set(speakers["train"]) & set(speakers["test"])
    assert len(shot.data.datasets["valid"]) == 0
    assert len(shot.data.datasets["test"]) == 2 * 7
    assert shot.data.audit.ok
    path = support.write(tmp_path)
    assert Support.read(path) == support
    assert Support.read(path).sha == support.sha
    assert support.write(tmp_path) == path
    path.write_text(path.read_text().replace('"draw": 4', '"draw": 5'))
    with pytest.raises(DataError, match=says(path, "supports=FOLDER")):
        support.write(tmp_path)


def test_it_depends_on_data_protocol_fold_taxonomy_shots_and_seed_only(opened) -> None:
    one = opened()
    # batching, transcripts and the text a head reads are no part of it
    assert opened(batch_size=3, text=True, balance=False).support == one.support
    others = [
        opened(shots=1),
        opened(draw=2),
        opened(fold=1),
        opened(protocol="kfold-6"),
        opened(taxonomy=Taxonomy.of(["angry", "sad"])),
    ]
    prints = {one.support.sha, *(other.support.sha for other in others)}
    assert len(prints) == 6
    assert one.split == opened(draw=2).split  # what all draws have in common


def test_validation_speakers_are_in_neither(opened) -> None:
    heard = set()
    for draw in range(30):
        heard |= set(opened(shots=2, draw=draw).data.speakers()["train"])
    query = set(opened().data.speakers()["test"])
    assert len(heard) == 2  # of six: two validate, two are the query
    assert not heard & query


def test_without_a_shot_there_is_a_query_alone(opened) -> None:
    shot = opened(shots=0)
    assert len(shot.support) == 0
    assert shot.support.short == {}
    assert len(shot.data.datasets["test"]) == 14


def test_fewer_than_asked_for_are_all_taken_and_told(opened) -> None:
    shot = opened(shots=4)
    assert shot.support.short == {"sad": 2}
    assert tells(shot.notes, "4 shots", "2 of sad")
    assert len(shot.support) == 4 + 4 + 2
    # and weigh as much as the others
    weights = shot.data.datasets["train"].weights
    assert [4 * weights[0], 4 * weights[1], 2 * weights[2]] == pytest.approx([10 / 3] * 3)


def test_a_class_that_nobody_says_is_an_error_or_left_out(opened) -> None:
    four = Taxonomy.of(["angry", "bored", "happy", "sad"], name="four")
    with pytest.raises(DataError, match=says("kfold-3@1", "fold 0", "bored")):
        opened(taxonomy=four)
    shot = opened(taxonomy=four, restrict=True)
    assert shot.taxonomy.classes == THREE.classes
    assert tells(shot.notes, "target", "bored")


@pytest.mark.parametrize("shots", [-1, 65])
def test_shots_are_0_to_64(opened, shots) -> None:
    with pytest.raises(ConfigError, match=says(f"shots={shots}", 0, 64)):
        opened(shots=shots)


def test_a_given_support_is_taken_when_it_is_of_these_data(opened) -> None:
    drawn = opened(shots=2).support
    assert opened(shots=2, given=drawn).support == drawn
    with pytest.raises(DataError, match=r"fold 0\b.* fold 1\b"):
        opened(fold=1, given=drawn)
    with pytest.raises(DataError, match=r"shots 2\b.* shots 1\b"):
        opened(shots=1, given=drawn)
    query = opened().data.datasets["test"].utterances[0].id
    stolen = replace(drawn, ids={**drawn.ids, "angry": [query]})
    with pytest.raises(DataError, match=says(1, "csv/angry-0-0", "csv/s4, csv/s5")):
        opened(given=stolen)
    swapped = replace(drawn, ids={**drawn.ids, "angry": drawn.ids["sad"]})
    with pytest.raises(DataError, match=says(2, "csv/sad-4-0, csv/sad-5-0")):
        opened(given=swapped)


def test_what_is_no_support_says_so(tmp_path) -> None:
    for text in ("", "[]", "{}", '{"serzoo": "support", "format": 2}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=says("x.json", "serzoo adapt")):
            Support.read(tmp_path / "x.json")
    with pytest.raises(DataError, match=says("none.json", "serzoo adapt")):
        Support.read(tmp_path / "none.json")


def test_a_recording_in_support_and_query_is_refused(opened, root, monkeypatch) -> None:
    from serzoo.datamodules import fewshot

    real = fewshot.open_corpora

    def same(*args, **kwargs):
        speech = real(*args, **kwargs)
        return replace(speech, utterances=[replace(u, sha=u.label) for u in speech.utterances])

    monkeypatch.setattr(fewshot, "open_corpora", same)
    with pytest.raises(DataError, match=says(2, "train", "test", "csv/angry-4-1 = csv/angry-0-0")):
        opened(shots=1, taxonomy=Taxonomy.of(["angry", "happy"]), given=None)


def test_a_support_is_plain(opened) -> None:
    told = asdict(opened().support)
    assert set(told) == {
        "manifest", "protocol", "fold", "taxonomy", "label", "shots", "draw", "ids", "short",
        "per",
    }  # fmt: skip


# Shots of each speaker.


def test_shots_of_each_speaker_are_of_the_tested_ones(opened) -> None:
    usual = opened(shots=1)
    personal = opened(shots=1, per="speaker")
    tested = {u.speaker for u in usual.data.split.test}
    support, query = personal.data.split.train, personal.data.split.test
    assert Counter((u.speaker, u.label) for u in support) == {
        (s, c): 1 for s in tested for c in TAKES
    }
    assert {u.id for u in support} | {u.id for u in query} == {u.id for u in usual.data.split.test}
    assert not {u.id for u in support} & {u.id for u in query}
    # that they share speakers is said, and is no fault
    assert tells(personal.notes, len(tested), "per=speaker")
    assert personal.data.audit.ok
    assert usual.support.file_name != personal.support.file_name
    assert usual.support.sha != personal.support.sha
    # a speaker with too few is told, with what there is
    two = opened(shots=2, per="speaker")
    assert two.support.short == {"sad": len(tested)}
    assert [ids[: len(tested)] for ids in two.support.ids.values()] == list(
        personal.support.ids.values()
    )


def test_shots_of_each_speaker_leave_a_query_and_need_names(opened) -> None:
    with pytest.raises(DataError, match=says(64, "query")):
        opened(shots=64, per="speaker")
    with pytest.raises(ConfigError, match=says("'voice'", "speaker")):
        opened(per="voice")
    pool = [replace(utterance(i), speaker=None if i == 3 else "s") for i in range(8)]
    with pytest.raises(DataError, match=says(1, 8, "c/3")):
        draw_per_speaker(pool, [0] * 8, 1, 1, 1)


def test_a_support_of_older_files_is_of_classes(opened, tmp_path: Path) -> None:
    found = opened(shots=1).support
    path = found.write(tmp_path)
    assert "per" not in json.loads(path.read_text())
    assert Support.read(path) == found
    personal = opened(shots=1, per="speaker").support
    assert Support.read(personal.write(tmp_path)) == personal
