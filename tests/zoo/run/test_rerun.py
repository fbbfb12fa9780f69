"""A run is done once, on the data that it began with, and goes on where it was stopped."""

import shutil

import lightning as L
import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.run.config import load
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import run_folder, train
from serzoo.zoo.statistics.table import PredictionTable
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def configured(recipe, *overrides):
    return load(recipe, overrides)


@pytest.fixture(scope="module")
def done(tiny_recipe, tmp_path_factory):
    """Folder and record of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, train(configured(tiny_recipe), folder)


def test_the_same_run_gives_the_same_predictions(done, tiny_recipe, tmp_path):
    folder, _ = done
    train(configured(tiny_recipe), tmp_path)
    a, b = (p / "predictions.jsonl" for p in (folder, tmp_path))
    assert a.read_bytes() == b.read_bytes()
    assert weights(folder).keys() == weights(tmp_path).keys()
    assert all(torch.equal(v, weights(tmp_path)[k]) for k, v in weights(folder).items())


def weights(folder, name="last"):
    content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {**content["state_dict"], **{f"ema.{k}": v for k, v in content["ema"].items()}}


def test_a_run_without_stored_features_says_so(tiny_recipe, tmp_path):
    live = train(configured(tiny_recipe, "data.features=live"), tmp_path)
    assert live.features == "live"
    table, _ = evaluate(tmp_path)
    written = PredictionTable.read_jsonl(tmp_path / "predictions.jsonl")
    assert_like(table.scores, written.scores)


def test_a_finished_run_is_not_repeated(done, tiny_recipe, monkeypatch):
    folder, entry = done
    before = (folder / "record.json").stat().st_mtime_ns
    monkeypatch.setattr(
        "serzoo.zoo.run.train.assemble", lambda *_: pytest.fail("it was built again")
    )
    again = train(configured(tiny_recipe), folder)
    assert again.metrics["uar"] == entry.metrics["uar"]
    assert (folder / "record.json").stat().st_mtime_ns == before


@pytest.fixture
def other_speech(tiny_speech, tmp_path):
    """The same corpus, in which one angry speaker is called happy."""
    root = shutil.copytree(tiny_speech, tmp_path / "other")
    table = (root / "table.csv").read_text()
    (root / "table.csv").write_text(table.replace("angry-4.wav,angry", "angry-4.wav,happy"))
    return root


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_run_on_other_data_is_refused(done, tiny_recipe, other_speech, tmp_path, state):
    folder = shutil.copytree(done[0], tmp_path / "run")
    if state == "unfinished":
        (folder / "record.json").unlink()
    cfg = configured(tiny_recipe, f"data.root={other_speech}")
    with pytest.raises(DataError, match=says("run", "trainer.out")):
        train(cfg, folder)


def test_the_same_data_elsewhere_are_the_same(done, tiny_recipe, tiny_speech, tmp_path):
    folder = shutil.copytree(done[0], tmp_path / "run")
    moved = shutil.copytree(tiny_speech, tmp_path / "moved")
    cfg = configured(tiny_recipe, f"data.root={moved}")
    assert train(cfg, folder).fingerprint == done[1].fingerprint


def test_a_run_is_kept_under_recipe_head_and_fingerprint(tiny_recipe):
    cfg = configured(tiny_recipe, "head=prototype")
    assert run_folder(cfg).parts[-2:] == ("tiny", f"prototype-{cfg.fingerprint}")


def test_a_run_that_stopped_goes_on_to_the_same_end(tiny_recipe, tmp_path):
    """What a kill between two epochs leaves: the first checkpoint, and no record."""
    whole = train(configured(tiny_recipe, "optim.epochs=3"), tmp_path / "whole")

    class StoppedError(Exception):
        pass

    class Stop(L.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise StoppedError

    real = L.Trainer

    def stopping(*args, callbacks, **options):
        return real(*args, callbacks=[*callbacks, Stop()], **options)

    cfg = configured(tiny_recipe, "optim.epochs=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L, "Trainer", stopping)
        with pytest.raises(StoppedError):
            train(cfg, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "record.json").exists()
    entry = train(cfg, tmp_path / "stopped")
    assert entry.resumed is True
    assert whole.resumed is False
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    for name in ("predictions", "valid"):
        files = (tmp_path / run / f"{name}.jsonl" for run in ("whole", "stopped"))
        assert len({f.read_bytes() for f in files}) == 1
    found = EventAccumulator(str(tmp_path / "stopped"))
    found.Reload()
    assert len(found.Scalars("train/loss")) == 3


def test_a_run_killed_before_its_record_only_scores_again(done, tiny_recipe, tmp_path):
    first = train(configured(tiny_recipe), tmp_path)
    for name in ("record.json", "predictions.jsonl", "valid.jsonl"):
        (tmp_path / name).unlink()
    entry = train(configured(tiny_recipe), tmp_path)
    assert entry.resumed is True
    assert entry.selection == first.selection
    a, b = (p / "predictions.jsonl" for p in (done[0], tmp_path))
    assert a.read_bytes() == b.read_bytes()
