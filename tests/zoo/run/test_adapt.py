"""Few-shot adaptation: of a model trained in a second, to other speakers of the same kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from close import assert_like
from facts import says
from serzoo.datamodules.catalog import prepare_corpus
from serzoo.datamodules.fewshot import Support
from serzoo.datamodules.manifest import write_manifest
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.run import adapt as adaptation
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import run_folder, train
from serzoo.zoo.run.tuning import batches
from serzoo.zoo.statistics.table import PredictionTable

HEADS = {
    "classification": [],
    "selm": ["head.lm_width=32", "head.prefix=1"],
    "gen_ser": ["head.width=16", "head.code_dim=16"],
}


@pytest.fixture(scope="module")
def target(tiny_speech, tmp_path_factory, write_wave) -> Path:
    """The same speech said by ten other people, who are also neutral and afraid."""
    root = tmp_path_factory.mktemp("target")
    head, *rows = (tiny_speech / "table.csv").read_text().splitlines()
    made = [head]
    for row in rows:
        name, label, speaker, *rest = row.split(",")
        wave, _ = soundfile.read(tiny_speech / name)
        for loud, felt in ((0.9, label), (0.5, {"happy": "neutral", "sad": "fearful"}.get(label))):
            if felt:
                write_wave(root / f"{felt}-{name}", loud * wave)
                made.append(",".join([f"{felt}-{name}", felt, f"t{speaker}", *rest]))
    (root / "table.csv").write_text("\n".join(made) + "\n")
    return root


@pytest.fixture(scope="module")
def sources(tiny_recipe) -> dict[str, Path]:
    """A trained model of each head."""
    found = {}
    for head, knobs in HEADS.items():
        cfg = compose(tiny_recipe, [f"head={head}", "taxonomy=auto", "optim.epochs=1", *knobs])
        train(cfg)
        found[head] = run_folder(cfg)
    return found


@pytest.fixture
def run(sources, target, tmp_path):
    """``run(head, shots=2, ...)``: an adaptation in a folder of its own."""

    def go(head="classification", name="out", **how):
        how = {"steps": 3, "protocol": "kfold-5", "tuning": "head", **how}
        return adapt(sources[head], data="csv", root=str(target), out=tmp_path / name, **how)

    return go


def test_a_record_holds_what_a_learning_curve_needs(run, tmp_path, sources) -> None:
    entry = run(shots=2, draw=3)
    assert (entry.shots, entry.draw, entry.tuning, entry.steps) == (2, 3, "head", 3)
    assert entry.source["path"] == str(sources["classification"])
    assert entry.source["corpus"] == ["csv"]
    support = Support.read(entry.support["file"])
    assert entry.support["sha"] == support.sha
    assert entry.support["counts"] == {"angry": 2, "happy": 2, "sad": 2}
    assert entry.seconds["fit"] > 0
    assert entry.processor_seconds.keys() == entry.seconds.keys()
    assert 0 < entry.processor_seconds["fit"] <= entry.processor_seconds["total"]
    assert entry.flops.keys() == {"training", "scoring"}
    assert entry.config["seed"] == 3
    told = json.loads((tmp_path / "out" / "record.json").read_text())
    assert told["metrics"]["uar"] == entry.metrics["uar"]
    table = PredictionTable.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert table.uar() == entry.metrics["uar"]
    assert set(table.speakers) == set(entry.speakers["test"])
    assert not set(entry.support["speakers"]) & set(entry.speakers["test"])
    assert entry.audit["ok"]
    told = (tmp_path / "out" / "utterances.jsonl").read_text().splitlines()
    assert {json.loads(row)["id"] for row in told} == set(table.ids)


def test_votes_of_raters_come_with_the_scores_of_the_query(sources, target, tmp_path) -> None:
    prepared, path = prepare_corpus("csv", root=str(target), out=str(tmp_path / "m.jsonl"))
    votes = {u.id: {u.label: 3, "angry": 1} for u in prepared.utterances}
    write_manifest(path, [replace(u, votes=votes[u.id]) for u in prepared.utterances])
    how = {"protocol": "kfold-5", "taxonomy": None, "shots": 0, "forgetting": False}
    entry = adapt(
        sources["classification"], data=str(path), root=str(target), out=tmp_path / "out", **how
    )
    table = PredictionTable.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert table.votes is not None
    assert entry.metrics["votes"]["n"] == len(table)
    said = dict(zip(table.ids, table.votes[:, table.classes.index("angry")], strict=True))
    assert said == {i: votes[i]["angry"] for i in table.ids}


def test_every_head_hears_the_same_support(run) -> None:
    found = [run(head, name=head, shots=2, save=False) for head in HEADS]
    assert len({e.support["sha"] for e in found}) == 1
    assert len({e.support["file"] for e in found}) == 1
    assert len({str(e.data) for e in found}) == 1
    assert len({e.fingerprint for e in found}) == 3


def test_a_support_of_a_file_is_the_one_that_was_drawn(run) -> None:
    drawn = run(shots=2, draw=5, save=False)
    file = drawn.support["file"]
    again = run(shots=2, draw=5, save=False, support=file, name="again")
    assert again.fingerprint == drawn.fingerprint
    assert again.metrics == drawn.metrics
    other = run(shots=2, draw=6, save=False, support=file, name="other")
    assert other.support["sha"] == drawn.support["sha"]
    with pytest.raises(DataError, match=r"shots 2\b.* shots 3\b"):
        run(shots=3, support=file)


@pytest.mark.parametrize("head", HEADS)
def test_zero_shot_is_the_model_as_it_is(head, run, sources, target, tmp_path) -> None:
    entry = run(head, shots=0, tuning=None)
    assert (entry.tuning, entry.steps, entry.loss) == ("none", 0, None)
    assert entry.bytes["changed"] == 0
    assert entry.forgetting["change"] == {"uar": 0, "wa": 0, "f1": 0}
    everything, _ = evaluate(sources[head], root=str(target), part="all")
    query = PredictionTable.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    rows = [everything.ids.index(i) for i in query.ids]
    assert_like(everything.scores[rows], query.scores)
    assert (everything.labels[rows] == query.labels).all()


@pytest.mark.parametrize("tuning", ["head", "full", "scratch"])
def test_what_is_tuned_changes_and_nothing_else(tuning, run, sources, tmp_path) -> None:
    entry = run(tuning=tuning, shots=2)
    ours, theirs = (
        SERModule.load_from_checkpoint(tmp_path / "out"),
        SERModule.load_from_checkpoint(sources["classification"]),
    )
    moved = {
        key.split(".")[0]
        for key, value in ours.state_dict().items()
        if key not in theirs.state_dict() or not torch.equal(value, theirs.state_dict()[key])
    }
    assert moved == ({"encoder", "head"} if tuning == "full" else {"head"})
    # running statistics are those of the source
    kept = [k for k in ours.state_dict() if k.endswith((".mean", ".variance"))]
    assert kept
    assert all(torch.equal(ours.state_dict()[k], theirs.state_dict()[k]) for k in kept)
    assert 0 < entry.bytes["changed"] <= entry.bytes["saved"]
    # `before` is what the source's own record says
    record = json.loads((sources["classification"] / "record.json").read_text())
    before, after = entry.forgetting["before"], entry.forgetting["after"]
    assert before == {k: record["metrics"][k] for k in ("uar", "wa", "f1")}
    again, _ = evaluate(sources["classification"])
    assert again.uar() == pytest.approx(before["uar"])
    if tuning == "scratch":
        assert after == before
        assert entry.config["head_name"] == "classification"


def test_an_adapted_model_scores_as_recorded_and_remembers_whom_it_heard(
    run, target, tmp_path
) -> None:
    entry = run("gen_ser", shots=2)
    table, record = evaluate(tmp_path / "out", root=str(target))
    assert table.ids == PredictionTable.read_jsonl(tmp_path / "out" / "predictions.jsonl").ids
    assert record.metrics["uar"] == entry.metrics["uar"]
    assert record.speakers_heard == []
    assert (
        SERModule.load_from_checkpoint(tmp_path / "out").temperature is None
    )  # nothing was left to fit one on
    assert set(entry.support["speakers"]) < set(
        SERModule.load_from_checkpoint(tmp_path / "out").metadata["speakers"]["train"]
    )
    again = {"data": "csv", "root": str(target), "protocol": "kfold-5", "shots": 1}
    with pytest.raises(DataError, match=says(2, "csv/ts6, csv/ts7", "fold")):
        adapt(tmp_path / "out", **again, fold=3, out=tmp_path / "again")
    chained = adapt(tmp_path / "out", **again, steps=2, out=tmp_path / "again", forgetting=False)
    assert chained.source["fingerprint"] == entry.fingerprint


@pytest.mark.parametrize("head", HEADS)
def test_labels_that_the_source_never_had(head, run, sources, tmp_path, target) -> None:
    entry = run(head, shots=2, taxonomy="shared5", steps=2)
    assert entry.classes == ["angry", "happy", "sad", "neutral", "fearful"]
    assert entry.new_classes == ["neutral", "fearful"]
    assert entry.support["counts"]["fearful"] == 2
    assert entry.open_labels["unseen_classes"] == ["neutral", "fearful"]
    module = SERModule.load_from_checkpoint(tmp_path / "out")
    assert module.head.taxonomy.classes == ["angry", "happy", "sad", "neutral", "fearful"]
    table, _ = evaluate(tmp_path / "out", root=str(target), taxonomy="shared5")
    query = PredictionTable.read_jsonl(tmp_path / "out" / "predictions.jsonl")
    assert_like(table.scores, query.scores)
    old, new = (
        m.head.state_dict() for m in (SERModule.load_from_checkpoint(sources[head]), module)
    )
    if head == "gen_ser":  # the codes of the old classes have not moved
        assert torch.equal(new["codes"][:3], old["codes"])
    if head == "classification":
        assert new["output.0.weight"].shape[0] == 5
    # the source is asked about its own classes
    assert entry.forgetting["utterances"] == 6


def test_a_closed_head_cannot_be_asked_for_new_labels_without_a_shot(run) -> None:
    with pytest.raises(
        ConfigError, match=says("angry, happy, sad", "neutral, fearful", "'shared5'")
    ):
        run("gen_ser", shots=0, taxonomy="shared5")
    assert run("selm", shots=0, taxonomy="shared5").open_labels["unseen"] is not None


def test_batches_are_of_equal_size_and_each_round_hears_everybody() -> None:
    found = batches(9, 4, 5, seed=1)
    assert [len(rows) for rows in found] == [3, 3, 3, 3, 3]
    assert sorted(row for rows in found[:3] for row in rows) == list(range(9))
    assert found == batches(9, 4, 6, seed=1)[:5]
    assert found != batches(9, 4, 5, seed=2)


@pytest.mark.parametrize("tuning", ["head", "scratch"])
def test_nobody_is_told_about_a_trainer_that_is_not_theirs(tuning, run, recwarn) -> None:
    run(tuning=tuning, forgetting=False)
    assert [w for w in recwarn if "Trainer" in str(w.message)] == []


def test_the_number_of_steps_is_fixed(run, monkeypatch) -> None:
    counts = []
    real = adaptation.fit

    def counted(*args, **kwargs):
        losses = real(*args, **kwargs)
        counts.append(len(losses))
        return losses

    monkeypatch.setattr(adaptation, "fit", counted)
    for shots in (1, 6):
        run(shots=shots, name=str(shots), steps=7, batch_size=4, save=False)
    assert counts == [7, 7]


def test_a_model_that_does_not_say_whom_it_heard_is_not_adapted_to_its_own_corpus(
    run, sources, monkeypatch
) -> None:
    real = SERModule.load_from_checkpoint

    def silent(path):
        found = real(path)
        del found.metadata["speakers"]
        return found

    monkeypatch.setattr(SERModule, "load_from_checkpoint", silent)
    with pytest.raises(DataError, match=says("csv", "train", "corpus")):
        run(shots=1)


def test_it_is_the_same_twice_and_not_repeated(run, tmp_path) -> None:
    one, two = (run("gen_ser", name=name, shots=1, save=False) for name in "ab")
    assert one.metrics == two.metrics
    assert one.loss == two.loss
    before = (tmp_path / "a" / "record.json").stat().st_mtime_ns
    run("gen_ser", name="a", shots=1, save=False)
    assert (tmp_path / "a" / "record.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=says(tmp_path / "a", "out")):
        run("gen_ser", name="a", shots=2, save=False)


def test_what_cannot_be_done_is_told_with_what_can(run) -> None:
    with pytest.raises(ConfigError, match=says("tuning=lora", "'logmel'", "head, full, scratch")):
        run(tuning="lora")
    with pytest.raises(ConfigError, match=says("'lara'", "lora, head, full, scratch")):
        run(tuning="lara")
    with pytest.raises(ConfigError, match=says("shots=65", 0, 64)):
        run(shots=65)
    with pytest.raises(ConfigError, match=says("lr", "'fast'", "number")):
        run(lr="fast")
    with pytest.raises(ConfigError, match=says("save", "'maybe'", "true", "false")):
        run(save="maybe")
    with pytest.raises(ConfigError, match=says("'stesp'", "'steps'")):
        run(stesp=1)
    with pytest.raises(ConfigError, match=says("steps=0", 1, "head_lr=-1")):
        run(steps=0, head_lr=-1)
