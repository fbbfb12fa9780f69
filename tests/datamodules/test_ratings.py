"""Votes of several raters: counted, read from tables, and learned."""

from __future__ import annotations

import warnings
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from facts import messages, says, tells
from serzoo.datamodules.labels import drawn_targets, vote_targets
from serzoo.datamodules.manifest import Utterance, read_manifest, write_manifest
from serzoo.datamodules.opening import open_data
from serzoo.datamodules.prepare import prepare as engine
from serzoo.datamodules.ratings import count_votes, majority, mean_and_spread
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.registry import get
from serzoo.zoo.core.taxonomy import Taxonomy

TWO = Taxonomy.of(["angry", "sad"], name="two")


def test_a_rater_has_one_vote():
    assert count_votes([["a"], ["b"], ["a", "b"]]) == {"a": 1.5, "b": 1.5}
    assert count_votes([["a"], [], ["a"]]) == {"a": 2.0}


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ({"a": 2, "b": 1}, "a"),
        ({"a": 1, "b": 1}, None),
        ({}, None),
        ({"a": 0.1 + 0.2, "b": 0.3}, None),
    ],
)
def test_a_majority_has_more_votes_than_any_other(votes, label):
    assert majority(votes) == label


def test_mean_and_spread_of_each_dimension():
    mean, spread = mean_and_spread([(0.25, 1.0, None), (0.75, None, None), (0.5, None, None)])
    assert mean == (0.5, 1.0, None)
    assert spread == (pytest.approx(np.std([0.25, 0.75, 0.5])), None, None)
    assert mean_and_spread([]) == (None, None)


def test_votes_raters_and_spread_are_written_and_read(tmp_path):
    first = Utterance("c/a", "c", "a.wav", 0.0, 1.0, 16_000, "s")
    rated = replace(
        first, votes={"a": 2.0}, raters={"r1": "a", "r2": "a"}, dims_spread=(0.1, None, None)
    )
    write_manifest(tmp_path / "m.jsonl", [rated, replace(first, id="c/b")])
    assert read_manifest(tmp_path / "m.jsonl") == [rated, replace(first, id="c/b")]
    assert "raters" not in (tmp_path / "m.jsonl").read_text().splitlines()[1]
    text = (tmp_path / "m.jsonl").read_text().replace('"r1": "a"', '"r1": 1')
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(DataError, match=says("line 1", "raters")):
        read_manifest(tmp_path / "m.jsonl")


# A table with one row for each rater.

TABLE = """audio,label,speaker,rater,arousal
a.wav,angry,s1,r1,4
b.wav,sad,s2,r1,1
a.wav,Angry,s1,r2,5
a.wav,sad,s1,r3,2
b.wav,sad,s2,r2,
c.wav,sad,s3,r1,3
c.wav,happy,s3,r2,3
"""


@pytest.fixture
def read(tmp_path):
    def run(text, **options):
        (tmp_path / "data.csv").write_text(text)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = list(get("corpora", "csv")(tmp_path, scale=(1, 5), **options))
        return found, [str(w.message) for w in caught]

    return run


def test_rows_of_one_recording_are_votes(read):
    (a, b, c), told = read(TABLE)
    assert (a.label, a.votes) == ("angry", {"angry": 2.0, "sad": 1.0})
    assert a.raters == {"r1": "angry", "r2": "angry", "r3": "sad"}
    assert a.dims == (None, pytest.approx(2 / 3), None)
    assert a.dims_spread == (None, pytest.approx(np.std([0.75, 1, 0.25])), None)
    assert (b.label, b.dims, b.dims_spread) == ("sad", (None, 0.0, None), None)
    assert (c.label, c.votes) == (None, {"sad": 1.0, "happy": 1.0})
    assert {u.label_source for u in (a, b, c)} == {"perceived"}
    assert tells(told, 1, 3, "csv/c")


def test_without_a_column_of_raters_rows_that_differ_are_votes(read):
    table = "\n".join(",".join(r.split(",")[:3]) for r in TABLE.splitlines()) + "\n"
    (a, *_), told = read(table)
    assert (a.votes, a.raters) == ({"angry": 2.0, "sad": 1.0}, {})
    assert tells(told, 3, "options.rater=COLUMN")
    # another name of the column
    assert read(TABLE.replace("rater", "who"), rater="who")[0][0].raters["r3"] == "sad"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("audio,label\na.wav,sad\na.wav,sad\n", ["data.csv", "lines 2, 3", "options.rater=COLUMN"]),
        (TABLE.replace("a.wav,sad,s1,r3", "a.wav,sad,s9,r3"), ["line 5", "line 2", "s9", "s1"]),
        (TABLE.replace("a.wav,sad,s1,r3", "a.wav,sad,s1,r1"), ["data.csv", "lines 2, 5", "r1", 2]),
        (TABLE.replace("r3,2", "r3,9"), ["line 5", "arousal", 9]),
    ],
)
def test_ratings_that_contradict_each_other_are_refused(read, text, facts):
    with pytest.raises(DataError, match=says(*facts)):
        read(text)


# What training learns.


def voted(name: str, label: str | None, **votes: float) -> Utterance:
    return Utterance(f"csv/{name}", "csv", name, 0.0, 1.0, 16_000, name, label=label, votes=votes)


def test_votes_become_a_distribution_over_the_classes():
    us = [
        voted("a", "angry", angry=2, sad=1, happy=1),
        voted("b", "sad"),
        voted("c", "sad", happy=3),
        replace(voted("d", "sad", angry=1), label_source="weak:x"),
    ]
    rows, facts = vote_targets(us, [0, 1, 1, 1], TWO)
    assert rows == pytest.approx(np.array([[2 / 3, 1 / 3], [0, 1], [0, 1], [0, 1]]))
    assert (facts["voted"], facts["of"], facts["left_out"]) == (1, 4, {"happy": 4.0})
    assert facts["minority"] == pytest.approx(1 / 3, abs=1e-4)
    with pytest.raises(DataError, match=says("data.targets=majority", 1)):
        vote_targets(us[1:2], [1], TWO)


def test_classes_are_drawn_by_their_shares_and_by_seed_epoch_and_id_alone():
    probs = np.array([[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    ids = ["a", "b", "c"]
    draws = np.stack([drawn_targets(probs, ids, 1, epoch) for epoch in range(400)])
    assert draws.mean(0)[0] == pytest.approx([0.75, 0.25], abs=0.07)  # 3 standard errors
    assert (draws[:, 1] == [0, 1]).all()
    assert (draws[:, 2] == 0).all()
    assert (draws[:, :2].sum(-1) == 1).all()
    turned = drawn_targets(probs[::-1], ids[::-1], 1, 7)[::-1]
    assert (turned == draws[7]).all()
    other = np.stack([drawn_targets(probs, ids, 2, epoch) for epoch in range(400)])
    assert (other[:, 0] != draws[:, 0]).any()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_wave):
    """Six speakers; of each, three raters say angry twice and sad once, or the other way round."""
    root = tmp_path_factory.mktemp("voted")
    rows = ["audio,label,speaker,rater"]
    for s in range(6):
        for label, other in (("angry", "sad"), ("sad", "angry")):
            name = f"{s}-{label}.wav"
            write_wave(root / name, hz=100.0 + 20 * s + 7 * (label == "sad"))
            rows += [f"{name},{said},s{s},r{i}" for i, said in enumerate((label, label, other))]
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine("csv", root=root, out=root / "m.jsonl", progress=False)
    return root


def opened(corpus, targets):
    return open_data(
        ["csv"], protocol="kfold-3", taxonomy=TWO, manifest=str(corpus / "m.jsonl"), targets=targets
    )


def test_only_training_learns_votes_and_the_record_counts_them(corpus):
    plain, soft = opened(corpus, "majority"), opened(corpus, "distribution")
    assert plain.datasets["train"].soft is None
    assert "votes" not in plain.counts()
    rows = soft.datasets["train"].soft
    assert sorted(rows[:, 0].tolist()) == pytest.approx([1 / 3] * 2 + [2 / 3] * 2)
    assert rows.sum(-1).tolist() == pytest.approx([1.0] * 4)
    assert soft.datasets["test"].soft is None
    counted = soft.counts()["votes"]
    assert (counted["targets"], counted["voted"]) == ("distribution", 4)
    assert counted["minority"] == pytest.approx(1 / 3, abs=1e-4)
    batch = next(iter(soft.train_dataloader()))
    assert batch.targets.probs.sum(-1).tolist() == pytest.approx([1.0] * len(batch.ids))


class Listens(L.LightningModule):
    """Keeps the targets that it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, _):
        rows = zip(batch.ids, batch.targets.probs.tolist(), strict=True)
        self.seen += [(self.current_epoch, name, tuple(row)) for name, row in rows]
        return self.weight.sum()

    def validation_step(self, batch, _):
        assert batch.targets.probs.max(-1).values.tolist() == [1.0] * len(batch.ids)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_sampled_targets_are_drawn_anew_in_each_epoch(corpus, tmp_path):
    module = Listens()
    trainer = L.Trainer(
        max_epochs=24,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, opened(corpus, "sampled"))
    assert len(module.seen) == 24 * 4
    assert {row for _, _, row in module.seen} == {(1.0, 0.0), (0.0, 1.0)}
    by_id = {}
    for _, name, row in module.seen:
        by_id.setdefault(name, []).append(row)
    assert max(len(set(rows)) for rows in by_id.values()) == 2
    own = [(row[0] == 1.0) == name.endswith("angry") for _, name, row in module.seen]
    assert 0.5 < np.mean(own) < 0.85  # two of three raters, 96 draws


def test_votes_are_about_the_label(corpus):
    with pytest.raises(DataError, match=says("data.targets=sampled", "data.label", "speaker")):
        open_data(
            ["csv"],
            protocol="kfold-3",
            taxonomy=None,
            manifest=str(corpus / "m.jsonl"),
            targets="sampled",
            label="speaker",
        )


def test_unknown_speakers_are_counted_by_utterance_and_not_by_rating(tmp_path, write_wave):
    write_wave(tmp_path / "a.wav")
    rows = "a.wav,angry,r1\na.wav,sad,r2\na.wav,angry,r3\n"
    (tmp_path / "t.csv").write_text("audio,label,rater\n" + rows)
    (message,) = messages(engine("csv", root=tmp_path), "reader")
    assert tells(message, "all 1 utterances", "options.speaker", "rater")
