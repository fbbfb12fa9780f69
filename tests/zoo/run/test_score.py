"""One way from a batch to scores: whoever asks a model about a recording hears the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from scipy.special import softmax
from serzoo.datamodules.catalog import prepare_corpus
from serzoo.datamodules.manifest import write_manifest
from serzoo.zoo import load
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.types import Batch, Targets
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.record import evaluated_lines
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.confidence import calibration_error
from serzoo.zoo.statistics.table import PredictionTable

HEADS = {"classification": [], "selm": ["head.lm_width=32", "head.lm_layers=1"]}


@pytest.fixture(scope="module", params=HEADS)
def run(request, tiny_recipe, tmp_path_factory):
    """Folder of a run that reads audio, as predict does; of a head that writes, and one of none."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    settings = [f"head={request.param}", "data.features=live", "optim.epochs=1"]
    train(compose(tiny_recipe, [*settings, *HEADS[request.param]]), folder)
    return folder


@pytest.fixture(scope="module")
def written(run):
    return PredictionTable.read_jsonl(run / "predictions.jsonl")


def test_eval_gives_the_table_that_training_wrote(run, written):
    table, _ = evaluate(run)
    assert table == written
    assert (table.texts is None) == ("classification" in str(run))


@pytest.mark.parametrize("condition", [None, "clean"])
def test_eval_reads_the_store_and_gives_the_same_table(
    tiny_recipe, tmp_path, monkeypatch, condition
):
    train(compose(tiny_recipe, ["head=classification", "optim.epochs=1"]), tmp_path)
    monkeypatch.setattr("serzoo.datamodules.features.Filling.run", None)  # nothing is encoded
    table, numbers = evaluate(tmp_path, condition=condition)
    assert table == PredictionTable.read_jsonl(tmp_path / "predictions.jsonl")
    about = numbers.condition or {}
    assert about.get("name") == condition
    assert about.get("utterances", len(table)) == len(table)


def test_eval_shows_matched_numbers_beside_plain_ones(run, written):
    classes = written.classes
    prior = ",".join(f"{c}:{i + 1}" for i, c in enumerate(classes))
    _, record = evaluate(run, prior=prior)
    shift = record.label_shift
    assert shift["plain"]["uar"] == record.metrics["uar"] == written.uar()
    assert shift["prior"][classes[1]] == pytest.approx(2 * shift["prior"][classes[0]])
    assert shift["matched"]["n"] == shift["per_speaker"]["n"] == shift["plain"]["n"]
    found = record.calibration
    scaled = replace(written, scores=written.scores / found["temperature"])
    assert found["error"] == calibration_error([scaled]).value
    assert found["prior"] == "uniform"
    assert evaluate(run / "checkpoints" / "last.ckpt")[1].calibration["temperature"] is None
    with pytest.raises(ConfigError, match=says("prior", "lacks")):
        evaluate(run, prior=f"{classes[0]}:1")


def test_votes_of_the_manifest_come_with_the_scores(tiny_speech, tiny_recipe, tmp_path):
    prepared, path = prepare_corpus("csv", root=str(tiny_speech), out=str(tmp_path / "m.jsonl"))
    voted = [
        replace(u, votes={u.label: 3, "angry": 1} if i % 2 else {})
        for i, u in enumerate(prepared.utterances)
    ]
    write_manifest(path, voted)
    settings = [f"data.manifest={path}", f"data.root={tiny_speech}", "optim.epochs=1"]
    trained = train(compose(tiny_recipe, settings), tmp_path / "run")
    table, record = evaluate(tmp_path / "run")
    asked = {u.id: u.votes for u in voted}
    assert table.votes.sum(1).tolist() == [sum(asked[i].values()) for i in table.ids]
    assert table.votes[table.labelled].max() >= 3
    assert PredictionTable.read_jsonl(tmp_path / "run" / "predictions.jsonl") == table
    found = record.metrics["votes"]
    assert found["n"] == sum(bool(asked[i]) for i in table.ids)
    assert trained.metrics["votes"]["any_rater_accuracy"] == found["any_rater_accuracy"]
    assert any("by any rater" in line for line in evaluated_lines(table, record))


def test_adaptation_without_shots_gives_the_table_that_training_wrote(
    run, written, tiny_speech, tmp_path
):
    where = {"data": "csv", "root": str(tiny_speech), "protocol": "kfold-5"}
    adapt(run, **where, shots=0, forgetting=False, out=tmp_path, save=False)
    assert PredictionTable.read_jsonl(tmp_path / "predictions.jsonl") == written


def test_predict_gives_the_table_that_training_wrote(run, written, tiny_speech):
    model = load(run)
    names = [name.rpartition("/")[2] for name in written.ids]
    files = [str(tiny_speech / (n if n.endswith(".wav") else f"{n}.wav")) for n in names]
    rows = list(model.predict(files))
    found = np.array([[row.probs[c] for c in written.classes] for row in rows])
    # its batches are other ones, whose padding is heard in the last digits
    assert_like(found, softmax(written.scores / model.module.temperature, axis=1), digits=5)
    assert [row.text for row in rows] == (written.texts or [None] * len(rows))


def batch_of(module, labels):
    """Noise of a third of a second each; -1 = without a label."""
    C = len(module.head.taxonomy)
    hot = torch.eye(C + 1)[labels][:, :C]
    lengths = torch.full((len(labels),), 5000)
    audio = 0.1 * torch.randn(len(labels), 5000, generator=torch.Generator().manual_seed(0))
    targets = Targets(hot, torch.ones(len(labels)))
    ids = [f"u{i}" for i in range(len(labels))]
    return Batch(ids, ["s"] * len(labels), targets, audio=audio, lengths=lengths)


def test_a_model_in_training_mode_answers_in_evaluation_mode_and_keeps_its_own(run):
    module = load(run).module
    batch = batch_of(module, [0, -1, 2])
    want = module.score(batch)
    assert want.labels.tolist() == [0, -1, 2]
    module.train()
    module.encoder.eval()  # a part of it in a mode of its own
    modes = [part.training for part in module.modules()]
    assert module.score(batch) == want
    assert [part.training for part in module.modules()] == modes


def test_modes_come_back_after_an_error(run, monkeypatch):
    module = load(run).module.train()
    batch = batch_of(module, [0])

    def scores(*_):
        assert not any(part.training for part in module.modules())
        raise DataError("nothing to hear")

    monkeypatch.setattr(module.head, "scores", scores)
    with pytest.raises(DataError, match="nothing to hear"):
        module.score(batch)
    assert all(part.training for part in (module, module.encoder, module.head))


def test_scores_are_those_of_the_head_in_double_precision_and_carry_no_gradient(run):
    module = load(run).module
    batch = batch_of(module, [0, 1])
    found = module.scored(batch)
    assert found.values.dtype == np.float64
    with torch.no_grad():
        assert np.array_equal(found.values, module(batch).double().numpy())
