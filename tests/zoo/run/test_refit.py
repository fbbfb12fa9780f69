"""`optim.refit`: an epoch is selected, then a new model is trained on both parts, and tested."""

from __future__ import annotations

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.run.build import open_data
from serzoo.zoo.run.config import load
from serzoo.zoo.run.optim import rate_over_steps
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PLAIN = ["optim.ema=0", "optim.mixup=0", "optim.epochs=3"]


def scalars(folder, name):
    found = EventAccumulator(str(folder))
    found.Reload()
    return [e.value for e in found.Scalars(name)]


@pytest.fixture(scope="module")
def both(tiny_recipe, tmp_path_factory):
    """Folder and record of a run without, and of one with a second fit."""
    found = {}
    for refit in (False, True):
        folder = tmp_path_factory.mktemp(f"refit-{refit}")
        cfg = load(tiny_recipe, [*PLAIN, f"optim.refit={str(refit).lower()}"])
        found[refit] = folder, train(cfg, folder)
    return found


def test_the_model_heard_the_validation_speakers_and_no_tested_one(both):
    (_, once), (_, twice) = both[False], both[True]
    assert twice.speakers["train"] == sorted(once.speakers["train"] + once.speakers["valid"])
    assert twice.speakers["valid"] == []
    assert twice.speakers["test"] == once.speakers["test"]
    assert twice.data == once.data  # the split is the same, so the two may stand in one table
    kept = {p: sum(c.values()) for p, c in twice.counts["kept"].items()}
    assert kept == {"train": 24, "valid": 0, "test": 6}


def test_the_first_fit_is_the_run_without_it(both):
    (plain, once), (folder, twice) = both[False], both[True]
    assert (folder / "valid.jsonl").read_bytes() == (plain / "valid.jsonl").read_bytes()
    assert not (folder / "selection" / "predictions.jsonl").exists()
    assert twice.valid == once.valid
    assert twice.selection["val/uar"] == once.selection["val/uar"]
    assert twice.metrics["temperature"] == once.metrics["temperature"]
    assert "validation speakers" in twice.selection["rule"]
    assert twice.fingerprint != once.fingerprint


def test_the_second_fit_follows_the_same_schedule_up_to_the_selected_epoch(both):
    (_, once), (folder, twice) = both[False], both[True]
    epochs = once.selection["epoch"] + 1
    assert twice.rounds == epochs
    assert twice.selection["epoch"] == epochs - 1
    batches = twice.steps // epochs
    rate = rate_over_steps(3 * batches, 0.1, "cosine")
    expected = [1e-3 * rate(batches * (k + 1) - 1) for k in range(epochs)]
    assert_like(torch.tensor(scalars(folder, "lr")), torch.tensor(expected), 0.35)


def test_the_tested_model_is_the_one_that_is_kept(both):
    folder, entry = both[True]
    table, _ = evaluate(folder)
    assert table == PredictionTable.read_jsonl(folder / "predictions.jsonl")
    assert entry.metrics["uar"] == pytest.approx(table.uar())


def test_the_second_fit_is_a_training_on_both_parts(tiny_recipe, tmp_path, both):
    """The same as a run whose training part has these speakers from the beginning."""
    data = open_data(load(tiny_recipe, PLAIN), refit=True)
    joined = [u.id for u in data.datasets["train"].utterances]
    plain = open_data(load(tiny_recipe, PLAIN))
    order = [u.id for u in plain.speech.utterances]
    parts = [*plain.split.train, *plain.split.valid]
    assert joined == sorted((u.id for u in parts), key=order.index)
    assert len(data.datasets["valid"]) == 0


def test_a_killed_run_goes_on_where_it_was(tiny_recipe, tmp_path, both):
    folder, _ = both[True]
    cfg = load(tiny_recipe, [*PLAIN, "optim.refit=true"])
    train(cfg, tmp_path)
    for name in ("record.json", "predictions.jsonl"):
        (tmp_path / name).unlink()
    train(cfg, tmp_path)  # from the last checkpoint of the second fit
    again = PredictionTable.read_jsonl(tmp_path / "predictions.jsonl")
    assert again == PredictionTable.read_jsonl(folder / "predictions.jsonl")


def test_a_trial_takes_the_place_of_the_first_fit(tiny_recipe, tmp_path, both):
    folder, twice = both[True]
    cfg = load(tiny_recipe, [*PLAIN, "optim.refit=true"])
    train(cfg, tmp_path / "trial", test=False)
    found = train(cfg, tmp_path / "cell", trial=str(tmp_path / "trial"))
    assert not (tmp_path / "cell" / "selection").exists()
    assert (found.selection, found.valid) == (twice.selection, twice.valid)
    assert found.flops["training"] == twice.flops["training"]
    for spent in (found.seconds, found.processor_seconds):
        assert spent["total"] > 0.99 * sum(spent[p] for p in ("encode", "fit", "evaluate"))
    for name in ("predictions.jsonl", "valid.jsonl"):
        assert (tmp_path / "cell" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("other", ["seed=2", "optim.lr=2e-3", None])
def test_another_training_does_not_take_its_place(tiny_recipe, tmp_path, other):
    cfg = load(tiny_recipe, [*PLAIN, "optim.refit=true", "optim.epochs=1"])
    if other:
        trial = load(tiny_recipe, [*PLAIN, "optim.refit=true", "optim.epochs=1", other])
        train(trial, tmp_path / "trial", test=False)
    train(cfg, tmp_path / "cell", trial=str(tmp_path / "trial"))
    assert (tmp_path / "cell" / "selection" / "record.json").is_file()


def test_the_selection_counts_as_training(both):
    (_, once), (_, twice) = both[False], both[True]
    share = (twice.selection["epoch"] + 1) / 3 * 24 / 18  # epochs, and utterances in each
    assert twice.flops["training"] == pytest.approx((1 + share) * once.flops["training"], rel=0.1)


def test_validation_labels_are_not_added_to_weak_ones(tiny_recipe, monkeypatch):
    monkeypatch.setattr("serzoo.datamodules.speech.weak_counts", lambda us: {"utterances": len(us)})
    with pytest.raises(DataError, match=says("optim.refit", "weak", "false")):
        open_data(load(tiny_recipe, PLAIN), refit=True)
