"""Whole runs of every head on a corpus of seconds: records, predictions, curves."""

import json
import shutil

import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.build import build
from serzoo.zoo.run.config import build_taxonomy, load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.optim import rounds
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import run_folder, train
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HEADS = registry.names("heads")
SMALL = {name: ["head.lm_width=32", "head.lm_layers=1"] for name in ("selm", "speech_llm")}


def configured(recipe, head="classification", *more):
    return load(recipe, [f"head={head}", *SMALL.get(head, []), *more])


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory):
    """``run(head)``: the folder and the record of a run; each head is trained once."""
    done = {}

    def once(head):
        if head not in done:
            folder = tmp_path_factory.mktemp("runs") / head
            done[head] = folder, train(configured(tiny_recipe, head), folder)
        return done[head]

    return once


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_all_heads_are_tested_here():
    assert len(HEADS) == 11


def test_few_utterances_may_get_as_many_steps_as_many(tiny_recipe, tmp_path):
    """An epoch is then several rounds, validated once: selection has as many looks."""
    settings = ["data.train_share=0.2", "data.batch_size=4", "optim.warmup=0.5"]
    few = train(configured(tiny_recipe, "classification", *settings), tmp_path / "few")
    more = configured(tiny_recipe, "classification", *settings, "optim.min_steps=9")
    many = train(more, tmp_path / "many")
    batches, left = divmod(few.steps, 2)
    assert (few.rounds, left) == (2, 0)
    repeated = -(-9 // (2 * batches))
    assert repeated > 1
    assert (many.rounds, many.steps) == (2 * repeated, 2 * repeated * batches)
    events = EventAccumulator(str(tmp_path / "many")).Reload()
    assert len(events.Scalars("val/uar")) == 2
    assert len(events.Scalars("train/loss")) == 2 * repeated
    rates = [e.value for e in events.Scalars("lr")]
    assert rates[repeated - 2 : repeated] == [max(rates)] * 2  # it rises over half of all steps
    assert rates[-1] < min(rates[:-1])


@pytest.mark.parametrize(
    ("epochs", "batches", "accumulate", "least", "expected"),
    [
        (30, 4, 1, 0, 1),
        (30, 4, 1, 120, 1),
        (30, 4, 1, 121, 2),
        (30, 1, 1, 120, 4),
        (9, 3, 2, 36, 2),
    ],
)
def test_rounds_of_an_epoch(epochs, batches, accumulate, least, expected):
    assert rounds(epochs, batches, accumulate, least) == expected


# The record.

RECORD = {
    "status", "version", "fingerprint", "config", "classes", "data", "counts", "notes",
    "split_notes", "audit", "selection", "parameters", "encoder", "features", "feature_store",
    "seconds", "processor_seconds", "flops", "resumed", "peak_memory_mb", "device", "processes",
    "threads", "metrics", "by_speaker", "valid", "inference_seconds_per_utterance", "versions",
    "git", "machine",
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_the_record_is_complete(run, head, tiny_recipe):
    folder, entry = run(head)
    assert set(entry.to_json()) >= RECORD
    written = json.loads((folder / "record.json").read_text())
    assert written["metrics"]["uar"] == entry.metrics["uar"]
    assert entry.status == "ok"
    assert entry.config["head"]["type"] == head
    assert entry.fingerprint == configured(tiny_recipe, head).fingerprint
    assert entry.classes == ["angry", "happy", "sad"]
    assert set(entry.data) == {"manifest", "split", "taxonomy"}
    kept = {"angry": 2, "happy": 2, "sad": 2}
    assert entry.counts["kept"] == {
        "train": dict.fromkeys(kept, 6), "valid": kept, "test": kept
    }  # fmt: skip
    assert entry.counts["left_out_by_taxonomy"] == {}
    assert entry.audit["ok"] is True
    assert entry.metrics["absent"] == []
    assert set(entry.metrics["recall"]) == set(kept)
    assert len(entry.by_speaker) == 2
    parameters = entry.parameters
    assert 0 < parameters["head"] < parameters["total"]
    assert parameters["trainable"] <= parameters["stored"] <= parameters["total"]
    assert entry.resumed is False
    assert entry.features == entry.feature_store["kind"] == "stored"
    assert entry.feature_store["encoded"] + entry.feature_store["reused"] == 30
    assert entry.feature_store["bytes"] > 0
    assert entry.processes == entry.threads == 1
    assert entry.peak_memory_mb > 10
    assert 0 < entry.inference_seconds_per_utterance < 10
    seconds = entry.seconds
    assert set(seconds) == {"encode", "fit", "evaluate", "total"}
    assert seconds["total"] >= seconds["encode"] + seconds["fit"] + seconds["evaluate"] - 0.02
    assert min(seconds["fit"], seconds["evaluate"]) > 0
    assert entry.versions["torch"] == torch.__version__


@pytest.mark.parametrize("head", HEADS)
def test_numbers_are_those_of_the_predictions(run, head):
    """Recomputed from predictions.jsonl by another library."""
    folder, entry = run(head)
    rows = lines(folder / "predictions.jsonl")
    assert [r["id"] for r in rows] == sorted({r["id"] for r in rows})
    assert len(rows) == 6
    classes = entry.classes
    scores = np.array([[r["scores"][c] for c in classes] for r in rows])
    truth = np.array([classes.index(r["label"]) for r in rows])
    said = scores.argmax(1)
    m = entry.metrics
    assert m["uar"] == pytest.approx(recall_score(truth, said, average="macro"))
    assert m["wa"] == pytest.approx(accuracy_score(truth, said))
    assert m["f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    recalls = confusion_matrix(truth, said, normalize="true").diagonal()
    assert list(m["recall"].values()) == pytest.approx(recalls)
    rows_of = np.arange(len(truth))
    assert m["nll"] == pytest.approx(-log_softmax(scores, 1)[rows_of, truth].mean(), rel=1e-5)
    calm = log_softmax(scores / m["temperature"], 1)
    assert m["nll_calibrated"] == pytest.approx(-calm[rows_of, truth].mean(), rel=1e-5)
    low, high = m["uar_interval"]
    assert 0 <= low <= high <= 1
    # whose utterance it is stands in its name
    assert all(r["id"].split("/")[-1].startswith(r["label"]) for r in rows)
    assert all(r["speaker"].startswith("csv/s") for r in rows)


@pytest.mark.parametrize("head", HEADS)
def test_the_temperature_is_fitted_on_validation(run, head):
    folder, entry = run(head)
    table = PredictionTable.read_jsonl(folder / "valid.jsonl")
    assert set(table.ids).isdisjoint(r["id"] for r in lines(folder / "predictions.jsonl"))
    t = entry.metrics["temperature"]
    best = minimize_scalar(lambda u: table.nll(np.exp(u)), bounds=(-4, 4), method="bounded")
    assert t > 0
    assert table.nll(t) <= best.fun + 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_the_best_epoch_was_selected_on_validation(run, head):
    folder, entry = run(head)
    curve = [e.value for e in events(folder).Scalars("val/uar")]
    assert len(curve) == 2
    assert entry.selection["val/uar"] == pytest.approx(max(curve))
    assert entry.selection["epoch"] == int(np.argmax(curve))
    assert entry.valid["uar"] == pytest.approx(max(curve))
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["epoch"] == entry.selection["epoch"]
    assert content["serzoo"]["fingerprint"] == entry.fingerprint


@pytest.mark.parametrize(("metric", "key"), [("wa", "val/wa"), ("macro_f1", "val/f1")])
def test_the_best_epoch_is_best_by_the_metric_of_the_run(tiny_recipe, tmp_path, metric, key):
    settings = [f"optim.metric={metric}", "optim.epochs=4", "optim.lr=0.03"]
    entry = train(load(tiny_recipe, settings), tmp_path)
    curve = [e.value for e in events(tmp_path).Scalars(key)]
    assert len(curve) == 4
    assert entry.selection["rule"] == f"highest {key}, earliest epoch of equals"
    assert entry.selection["epoch"] == int(np.argmax(curve))
    assert entry.selection[key] == pytest.approx(max(curve))
    assert entry.selection["val/uar"] == pytest.approx(entry.valid["uar"])


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_last_epoch_is_kept_if_it_is_asked_for(tiny_recipe, tmp_path, ema):
    settings = ["optim.select=last", "optim.epochs=3", f"optim.ema={ema}"]
    entry = train(load(tiny_recipe, settings), tmp_path)
    curve = [e.value for e in events(tmp_path).Scalars("val/uar")]
    assert (entry.selection["rule"], entry.selection["epoch"]) == ("last epoch", 2)
    assert entry.selection["val/uar"] == pytest.approx(curve[-1]) == entry.valid["uar"]
    kept, last = (
        torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("best", "last")
    )
    assert kept["epoch"] == last["epoch"] == 2
    table, _ = evaluate(tmp_path)
    assert table == PredictionTable.read_jsonl(tmp_path / "predictions.jsonl")


# Evaluation.


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_reproduces_the_predictions(run, head):
    folder, entry = run(head)
    for part, name in (("test", "predictions"), ("valid", "valid")):
        table, record = evaluate(folder, part=part)
        written = PredictionTable.read_jsonl(folder / f"{name}.jsonl")
        assert table.ids == written.ids
        assert table.labels.tolist() == written.labels.tolist()
        assert_like(table.scores, written.scores)
        if part == "test":
            assert record.metrics["uar"] == pytest.approx(entry.metrics["uar"])


def test_another_corpus_is_scored_as_a_whole(run, tiny_speech, tmp_path):
    folder, _ = run("classification")
    for label in ("sad", "angry"):
        (tmp_path / label).mkdir()
        shutil.copy(tiny_speech / f"{label}-3.wav", tmp_path / label / "x.wav")
    table, record = evaluate(folder, corpus=["folder"], root=str(tmp_path))
    assert sorted(table.ids) == ["folder/angry/x", "folder/sad/x"]
    assert record.metrics["absent"] == ["happy"]
    with pytest.raises(ConfigError, match=says("csv", "'test'", "part=all")):
        evaluate(folder, corpus=["folder"], root=str(tmp_path), part="test")


def test_a_part_that_does_not_exist_is_refused(run):
    with pytest.raises(ConfigError, match=says("'dev'", "test, valid, all")):
        evaluate(run("classification")[0], part="dev")


# Curves.

TAGS = {
    "train/loss", "val/uar", "val/wa", "val/f1", "val/nll", "lr", "time/utt_per_s", "epoch",
    "test/uar", "test/wa", "test/f1",
    "selected/uar", "selected/wa", "selected/f1", "selected/nll",
    "hp/uar", "hp/wa", "hp/f1", "hp/nll", "hp/ece", "hp/val_uar",
}  # fmt: skip


def events(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


@pytest.mark.parametrize("head", HEADS)
def test_all_heads_write_the_same_tags(run, head):
    folder, entry = run(head)
    found = events(folder)
    scalars = set(found.Tags()["scalars"])
    assert {t for t in scalars if not t.startswith("head/")} == TAGS
    assert {t.split("/")[1] for t in scalars if t.startswith("head/")} <= {head}
    assert found.Tags()["images"] == ["test/confusion", "test/reliability"]
    assert len(found.Scalars("train/loss")) == 2
    assert found.Scalars("hp/uar")[-1].value == pytest.approx(entry.metrics["uar"])
    assert found.Scalars("lr")[-1].value == pytest.approx(0, abs=1e-9)
    assert found.Scalars("time/utt_per_s")[0].value > 0


def test_hparams_can_be_compared(run):
    folder, _ = run("gen_ser")
    metadata = events(folder).SummaryMetadata("_hparams_/session_start_info")
    text = metadata.plugin_data.content
    for name in (b"head.type", b"optim.lr", b"fold", b"seed", b"trainable"):
        assert name in text


def test_a_run_is_called_after_its_head_s_configuration(run, tiny_recipe):
    folder, entry = run("linear")
    cfg = configured(tiny_recipe, "linear")
    assert entry.config["head_name"] == "linear"
    assert entry.config["head"]["type"] == "classification"
    assert run_folder(cfg).name == f"linear-{cfg.fingerprint}"
    found = events(folder)
    named = {t for t in found.Tags()["scalars"] if t.startswith("head/")}
    assert {t.split("/")[1] for t in named} == {"linear"}
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"linear" in content
    assert (
        torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["serzoo"]["head_name"]
        == "linear"
    )


# All but the head is the same.


def test_every_head_starts_from_the_same_encoder(tiny_recipe):
    taxonomy = build_taxonomy(configured(tiny_recipe, "selm", "taxonomy=big4"))
    states = [build(configured(tiny_recipe, head), taxonomy).encoder.state_dict() for head in HEADS]
    for state in states[1:]:
        assert all(torch.equal(state[k], v) for k, v in states[0].items())


def test_every_head_is_scored_on_the_same_utterances(run):
    identities = [run(head)[1].data for head in HEADS]
    assert all(i == identities[0] for i in identities)


# Texts that a head writes.


def test_what_selm_writes_is_in_the_predictions_in_tensorboard_and_in_the_record(run):
    folder, entry = run("selm")
    module = SERModule.load_from_checkpoint(folder)
    for part, file in (("valid", "valid.jsonl"), ("test", "predictions.jsonl")):
        texts = [row["text"] for row in lines(folder / file)]
        lost = sum(module.head.taxonomy.class_said(text) is None for text in texts)
        of = entry.valid if part == "valid" else entry.metrics
        assert of["unparsable"] == pytest.approx(lost / len(texts))
    table, record = evaluate(folder)
    assert table.texts == [row["text"] for row in lines(folder / "predictions.jsonl")]
    assert record.metrics["unparsable"] == entry.metrics["unparsable"]
    read = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    assert {"val/written/text_summary", "test/written/text_summary"} <= set(read.Tags()["tensors"])
    shown = read.Tensors("test/written/text_summary")[-1].tensor_proto.string_val[0].decode()
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines()[2:]]
    assert [r[0] for r in rows] == [row["id"] for row in lines(folder / "predictions.jsonl")]
    assert [r[3:] for r in rows] == [
        [" ".join(row["text"].split()).replace("|", "\\|")] if row["text"].split() else []
        for row in lines(folder / "predictions.jsonl")
    ]
    assert len(read.Tensors("val/written/text_summary")) == 3  # two epochs, and the selected one
    assert [e.value for e in events(folder).Scalars("head/selm/unparsable")][-1] == pytest.approx(
        entry.valid["unparsable"]
    )


def test_a_head_that_does_not_write_leaves_no_text(run):
    folder, entry = run("classification")
    assert "unparsable" not in entry.metrics
    assert all("text" not in row for row in lines(folder / "predictions.jsonl"))
