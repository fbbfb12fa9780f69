"""Weak labels: what they are to training, where they are refused, and the shuffled control."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from facts import says
from serzoo.datamodules.catalog import Speech, open_corpora
from serzoo.datamodules.info import canonical_label
from serzoo.datamodules.labels import confidences, refuse_weak, shuffled, soft_rows
from serzoo.datamodules.manifest import Utterance, write_manifest
from serzoo.datamodules.opening import open_data
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config
from serzoo.zoo.run.build import audit_folds

TAXONOMY = Taxonomy.of(["angry", "sad"], "two")
SOURCE = "weak:lexicon@1"


def utterance(name, corpus="folder", label="angry", score=0.75, source=SOURCE, speaker=None):
    return Utterance(
        f"{corpus}/{name}", corpus, f"{name}.wav", 0.0, 0.5, 16_000, speaker or f"s{name}",
        label=label, label_source=source if label else None, label_score=score,
    )  # fmt: skip


WEAK = [utterance(i, label="angry" if i % 3 else "sad", score=0.5 + i / 100) for i in range(20)]


def row(u, angry, sad):
    """A row of scores by one template, of these log-odds."""
    sigmoid = {"angry": 1 / (1 + np.exp(-angry)), "sad": 1 / (1 + np.exp(-sad))}
    return {"id": u.id, "text": "x", "text_source": "human", "scores": sigmoid,
            "by_template": [[angry, sad]]}  # fmt: skip


@pytest.fixture
def labelled(tmp_path, write_wave):
    """A folder as `serzoo label` leaves it: four weak labels, one utterance without."""
    for i in range(5):
        write_wave(tmp_path / "audio" / f"{i}.wav", hz=200 + 50 * i)
    us = [utterance(i, label=("angry", "sad", "sad", "angry")[i], score=0.6) for i in range(4)]
    us.append(utterance(4, label=None, score=None))
    write_manifest(tmp_path / "manifest.jsonl", us)
    rows = [row(u, float(i), 1.0) for i, u in enumerate(us)]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def opened(folder, **options):
    options = {"protocol": "train-only", "taxonomy": TAXONOMY, "balance": False, **options}
    return open_data(
        [], root=str(folder / "audio"), manifest=str(folder / "manifest.jsonl"), **options
    )


def test_a_weak_label_is_a_canonical_word_whatever_codes_its_corpus_has():
    weak = replace(utterance(1), corpus="crema_d", label="angry")
    assert canonical_label(weak) == "angry"
    # CREMA-D itself says ANG
    with pytest.raises(DataError, match=says("label 'angry'", "folder/1", "crema_d.yaml")):
        canonical_label(replace(weak, label_source="acted"))


def test_hard_labels_are_weighted_by_their_confidence(labelled):
    batch = opened(labelled).datasets["train"][[0, 1, 2, 3]]
    assert batch.targets.probs.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]
    assert torch.allclose(batch.targets.weight, torch.full((4,), 0.6))
    alike = opened(labelled, weak_weight=False).datasets["train"][[0, 1, 2, 3]]
    assert alike.targets.weight.tolist() == [1, 1, 1, 1]


def test_confidence_multiplies_the_weight_of_the_class(labelled):
    lines = (labelled / "manifest.jsonl").read_text().splitlines()
    (labelled / "manifest.jsonl").write_text("\n".join(lines[:3]) + "\n")  # one angry, two sad
    batch = opened(labelled, balance=True).datasets["train"][[0, 1, 2]]
    expected = 0.6 * torch.tensor([3 / 2, 3 / 4, 3 / 4])
    assert torch.allclose(batch.targets.weight, expected)


def test_soft_labels_are_the_distribution_of_the_scores(labelled):
    module = opened(labelled, weak="soft")
    batch = module.datasets["train"][[0, 3]]
    expected = torch.tensor([[0.0, 1.0], [3.0, 1.0]]).softmax(1)
    assert torch.allclose(batch.targets.probs, expected)
    assert torch.allclose(batch.targets.weight, torch.full((2,), 0.6))
    independent = opened(labelled, weak="independent").datasets["train"][[0, 3]]
    expected = torch.tensor([[0.0, 1.0], [3.0, 1.0]]).sigmoid()
    assert torch.allclose(independent.targets.probs, expected)


def test_unselected_utterances_are_not_trained_on_and_counts_name_the_model(labelled):
    for weak in ("hard", "soft"):
        module = opened(labelled, weak=weak)
        assert [u.id for u in module.datasets["train"].utterances] == [
            f"folder/{i}" for i in range(4)
        ]
        assert module.counts()["weak_labels"] == {SOURCE: 4}


def test_soft_labels_need_their_scores_and_a_taxonomy(labelled):
    with pytest.raises(DataError, match=r"data\.weak=soft.*taxonomy"):
        opened(labelled, weak="soft", taxonomy=None)
    with pytest.raises(DataError, match=says("folder/0", "angry, sad", "happy, sad", "taxonomy")):
        opened(labelled, weak="soft", taxonomy=Taxonomy.of(["happy", "sad"], "other"))
    (labelled / "scores.jsonl").unlink()
    with pytest.raises(DataError, match=says("data.weak=soft", "scores.jsonl", "data.weak=hard")):
        opened(labelled, weak="soft")


def test_scores_are_part_of_what_a_run_was_trained_on(labelled):
    hard, soft = opened(labelled).speech.sha, opened(labelled, weak="soft").speech.sha
    assert hard != soft
    text = (labelled / "manifest.jsonl").read_text()
    (labelled / "manifest.jsonl").write_text(text.replace("0.6", "0.7"))
    assert opened(labelled).speech.sha != hard
    people = [replace(u, label_source="acted", label_score=None) for u in WEAK]
    # as it was before weak labels were known
    assert Speech(people, {}).sha == Speech([replace(u, label_score=0.1) for u in people], {}).sha


def test_shuffling_keeps_labels_with_their_confidences_and_moves_them():
    mixed = [*WEAK, utterance("h", source="acted", score=None), utterance("n", label=None)]
    found, giver = shuffled(mixed, seed=3)
    assert [u.id for u in found] == [u.id for u in mixed]
    assert found[20:] == mixed[20:]

    def carried(us):
        return Counter((u.label, u.label_source, u.label_score) for u in us)

    assert carried(found) == carried(mixed)
    assert sorted(giver) == sorted(giver.values()) == sorted(u.id for u in WEAK)
    by_id = {u.id: u for u in mixed}
    assert all(u.label_score == by_id[giver[u.id]].label_score for u in found[:20])
    assert sum(u.label_score == by_id[u.id].label_score for u in found[:20]) < 5
    assert shuffled(mixed[::-1], seed=3)[1] == giver
    assert shuffled(mixed, seed=4)[1] != giver


def test_shuffled_soft_labels_go_with_the_hard_ones(labelled):
    plain, dealt = (opened(labelled, weak="soft", weak_shuffle=s) for s in (None, 1))
    _, giver = shuffled(plain.speech.utterances, 1)
    assert any(i != g for i, g in giver.items())
    assert dealt.speech.soft == {i: plain.speech.soft[g] for i, g in giver.items()}
    assert dealt.speech.sha != plain.speech.sha


def test_weak_labels_are_refused_where_something_is_selected_or_scored(labelled):
    with pytest.raises(
        DataError,
        match=says("2 of 2", "valid", "folder/0", "protocol=train-only", "protocol=weak-train"),
    ):
        refuse_weak("valid", WEAK[:2])
    refuse_weak("valid", WEAK[:2], label="acted")  # another column is not weak
    with pytest.raises(DataError, match=says("4 of 4", "test", "folder/0", "weak:lexicon@1")):
        opened(labelled, protocol=None).test_dataloader()
    with pytest.raises(DataError, match=says("1 of 1", "valid", "folder/1")):
        opened(labelled, protocol="kfold-3", taxonomy=None)
    assert len(list(opened(labelled).train_dataloader())) == 1


def test_a_fold_is_refused_before_anything_is_trained(labelled):
    manifest = f"data.manifest={labelled / 'manifest.jsonl'}"
    settings = ["corpus=[]", manifest, f"data.root={labelled / 'audio'}", "taxonomy=auto"]
    cfg = config.load("synthetic", [*settings, "protocol=kfold-3"])
    with pytest.raises(DataError, match=says("1 of 1", "valid", "folder/1")):
        audit_folds(cfg)
    assert audit_folds(config.load("synthetic", [*settings, "protocol=train-only"])) == [0]


def test_train_only_trains_on_everyone():
    split = Protocol.load("train-only").split(WEAK, 0)
    assert (split.train, split.valid, split.test) == (WEAK, [], [])
    assert Protocol.load("train-only").n_folds(WEAK) == 1


def test_weak_train_scores_the_people_with_human_labels():
    people = [
        utterance(f"p{i}", corpus="emodb", source="acted", score=None, speaker=f"p{i % 4}")
        for i in range(8)
    ]
    protocol = Protocol.load("weak-train")
    assert protocol.n_folds([*people, *WEAK]) == 2
    one, two = (protocol.split([*people, *WEAK], fold) for fold in (0, 1))
    assert one.train == two.train == WEAK
    assert (one.valid, one.test) == (two.test, two.valid)
    assert {u.speaker for u in one.test} == {"p0", "p2"}
    with pytest.raises(DataError, match=says("weak-train@1", "2 speakers", "2 folds", "human")):
        protocol.split(WEAK, 0)


def test_corpora_that_a_manifest_does_not_hold_are_opened_beside_it(labelled, tmp_path, write_wave):
    beside = tmp_path / "data" / "csv"
    write_wave(beside / "a.wav", hz=300)
    (beside / "t.csv").write_text("audio,label,speaker\na.wav,sad,me\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERZOO_DATA", str(tmp_path / "data"))
        speech = open_corpora(
            ["csv", "folder"], root=str(labelled / "audio"),
            manifest=str(labelled / "manifest.jsonl"),
        )  # fmt: skip
    assert Counter(u.corpus for u in speech.utterances) == {"folder": 5, "csv": 1}
    assert set(speech.roots) == set(speech.notes) == {"folder", "csv"}


def test_confidences_and_soft_rows_of_human_labels_are_as_without():
    human = utterance("h", source="acted", score=0.3)
    assert confidences([human, WEAK[0], replace(WEAK[1], label_score=None)]) == [1.0, 0.5, 1.0]
    soft = {WEAK[0].id: [0.25, 0.75]}
    assert soft_rows([human, WEAK[0]], [1, 1], soft, 2).tolist() == [[0, 1], [0.25, 0.75]]
    with pytest.raises(DataError, match=says("folder/1", "serzoo label", "data.weak=hard")):
        soft_rows([WEAK[1]], [0], soft, 2)


# Votes of raters as targets.


@pytest.fixture
def rated(tmp_path, write_wave):
    """``rated(VOTES, ...)``: a folder of utterances whose raters gave these votes."""

    def made(*votes):
        for i in range(len(votes)):
            write_wave(tmp_path / "audio" / f"{i}.wav")
        return _written(tmp_path, votes)

    return made


def _written(tmp_path, votes):
    us = [
        replace(utterance(i, source="perceived", label="sad" if i == 1 else "angry"), votes=given)
        for i, given in enumerate(votes)
    ]
    write_manifest(tmp_path / "manifest.jsonl", us)
    return tmp_path


def test_votes_become_targets_and_weights_stay_those_of_labels(rated):
    votes = {"angry": 3.0, "sad": 1.0, "happy": 4.0}, {}, {"happy": 2.0}
    module = opened(rated(*votes), targets="distribution", balance=True)
    part = module.datasets["train"]
    wanted = torch.tensor([[0.75, 0.25], [0.0, 1.0], [1.0, 0.0]])
    assert torch.equal(part.soft, wanted)  # a vote that the taxonomy leaves out is dropped
    assert part.weights.tolist() == [0.75, 1.5]


def test_votes_are_not_used_unless_asked_for(rated):
    module = opened(rated({"angry": 3.0, "sad": 1.0}, {}))
    assert module.datasets["train"].soft is None


def test_a_corpus_without_votes_is_refused(rated):
    facts = ("data.targets", "2", "data.targets=majority")
    with pytest.raises(DataError, match=says(*facts)):
        opened(rated({}, {}), targets="distribution")
