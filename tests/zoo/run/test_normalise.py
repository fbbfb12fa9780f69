"""A run that normalises speakers: in training, in every verb, and in what it writes."""

from __future__ import annotations

import re
import warnings

import lightning
import numpy as np
import pytest
import torch
from close import assert_like
from facts import says, tells
from serzoo.datamodules.manifest import write_manifest
from serzoo.zoo.core.errors import ConfigError, DataNote, DataWarning
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.build import build, build_run, open_data
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.predict import predict
from serzoo.zoo.run.record import normalised_lines
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.run.trained import TrainedEncoder
from serzoo.zoo.statistics.rates import log_softmax
from serzoo.zoo.statistics.table import PredictionTable

FUNCTIONALS = ["encoder=functionals", "head=linear_svm"]


def hf(name: str) -> list[str]:
    frozen = ["encoder=wav2vec2-base", f"encoder.name={name}", "encoder.revision=null"]
    return [*frozen, "optim.epochs=1"]


def of_speakers(module: SERModule, part: str, data) -> dict[str, torch.Tensor]:
    """The mean of the frames of each speaker of a part, as heads see them."""
    found: dict[str, list[torch.Tensor]] = {}
    module.enrol(data.whole(part))
    for batch in data.whole(part):
        for speaker, mean in zip(batch.speakers, module.frames(batch).mean(), strict=True):
            found.setdefault(speaker, []).append(mean)
    return {speaker: torch.stack(means).mean(0) for speaker, means in found.items()}


@pytest.mark.parametrize("head", ["classification", "gen_ser", "linear_svm"])
def test_every_head_sees_frames_without_the_shrunk_mean_of_the_speaker(
    tiny_recipe, tiny_hf, tmp_path, head
):
    ways = {
        way: compose(tiny_recipe, [*hf(tiny_hf()), f"head={head}", f"data.normalise={way}"])
        for way in ("none", "speaker")
    }
    train(ways["speaker"], tmp_path)
    module, data = SERModule.load_from_checkpoint(tmp_path), open_data(ways["speaker"])
    plain = build(ways["none"], data.taxonomy).eval()
    plain.encoder.load_state_dict(module.encoder.state_dict())
    with torch.no_grad():
        before, after = (of_speakers(m, "test", data) for m in (plain, module))
        layers, width = module.normaliser.shape
        mu = module.encoder.mix(module.normaliser.location.view(1, layers, 1, width))[0, 0]
    for speaker, mean in before.items():  # three utterances, and four for the training mean
        torch.testing.assert_close(after[speaker], mean - 3 / 7 * (mean - mu), atol=1e-4, rtol=1e-3)


def test_none_is_what_it_was(tiny_recipe, tmp_path):
    with_key = train(compose(tiny_recipe, [*FUNCTIONALS, "data.normalise=none"]), tmp_path / "a")
    without = train(compose(tiny_recipe, FUNCTIONALS), tmp_path / "b")
    assert with_key.fingerprint == without.fingerprint
    assert with_key.metrics == without.metrics
    assert not any(
        "normaliser" in k for k in SERModule.load_from_checkpoint(tmp_path / "a").state_dict()
    )


def test_vectors_beside_the_frames_are_normalised_too(tiny_recipe, tmp_path):
    cfg = compose(
        tiny_recipe, ["utterance=functionals", "data.normalise=speaker", "optim.epochs=1"]
    )
    train(cfg, tmp_path)
    module, data = SERModule.load_from_checkpoint(tmp_path), open_data(cfg)
    batch = next(data.whole("test"))
    raw = module.vectors(batch)
    module.enrol(data.whole("test"))
    moved = module.frames(batch).utterance
    assert moved.shape == raw.shape
    assert not torch.equal(moved, raw)


def test_an_encoder_that_is_tuned_is_refused(tiny_recipe, tiny_hf):
    cfg = compose(tiny_recipe, [*hf(tiny_hf()), "encoder.tuning=lora", "data.normalise=speaker"])
    with pytest.raises(ConfigError, match=says("data.normalise=speaker", "encoder.tuning=frozen")):
        build(cfg, open_data(cfg).taxonomy)


def test_a_trainer_without_the_data_module_is_refused(tiny_recipe, tmp_path):
    module, data = build_run(tiny_recipe, ["data.normalise=speaker"])
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_steps=1, default_root_dir=tmp_path, **options)
    with pytest.raises(ConfigError, match=says("data.normalise=speaker", "SpeechDataModule")):
        trainer.fit(module, data.train_dataloader())


def test_a_run_repeats_itself_and_another_seed_draws_others(tiny_recipe, tmp_path):
    def scores(name: str, *more: str):
        keys = ["data.normalise=enrol:2", "utterance=functionals", *more]
        train(compose(tiny_recipe, keys), tmp_path / name)
        return (tmp_path / name / "predictions.jsonl").read_text()

    assert scores("a") == scores("b")
    assert scores("a") != scores("c", "seed=2")


def test_eval_and_a_saved_model_answer_as_the_run_did(tiny_recipe, tiny_speech, tiny_hf, tmp_path):
    cfg = compose(tiny_recipe, [*hf(tiny_hf()), "data.normalise=enrol:2"])
    entry = train(cfg, tmp_path / "run")
    table = PredictionTable.read_jsonl(tmp_path / "run" / "predictions.jsonl")
    save_pretrained(tmp_path / "run", tmp_path / "saved")
    for path in (tmp_path / "run", tmp_path / "saved"):
        found, record = evaluate(path, root=str(tiny_speech))
        order = [found.ids.index(name) for name in table.ids]
        np.testing.assert_allclose(found.scores[order], table.scores, atol=1e-4)
        assert record.normalise == entry.normalise
    assert entry.normalise == {
        "way": "enrol:2", "speakers": 2, "utterances_used": 4, "without_speaker": 0,
    }  # fmt: skip


def test_corrupted_audio_gives_its_own_statistics(tiny_recipe, tmp_path):
    train(compose(tiny_recipe, [*FUNCTIONALS, "data.normalise=speaker"]), tmp_path)
    _, clean = evaluate(tmp_path, condition="clean")
    _, noisy = evaluate(tmp_path, condition="white:10dB")
    assert noisy.condition["utterances"] == clean.condition["utterances"] == 6
    assert noisy.normalise == clean.normalise
    assert noisy.metrics["nll"] != clean.metrics["nll"]


@pytest.mark.parametrize("tuning", ["head", "scratch"])
def test_adapting_normalises_support_and_query(tiny_recipe, tiny_speech, tmp_path, tuning):
    cfg = compose(
        tiny_recipe,
        ["encoder=functionals", "head=classification", "data.normalise=speaker", "optim.epochs=1"],
    )
    train(cfg, tmp_path / "run")
    (tmp_path / "other").mkdir()
    for path in tiny_speech.iterdir():  # the same speech, of other people
        text = path.read_bytes()
        if path.suffix == ".csv":
            text = re.sub(rb",s(\d+),", rb",t\1,", text)
        (tmp_path / "other" / path.name).write_bytes(text)
    entry = adapt(
        tmp_path / "run", data="csv", root=str(tmp_path / "other"), protocol="kfold-5", steps=2,
        shots=2, tuning=tuning, out=tmp_path / "adapted", scratch_head="mlp",
    )  # fmt: skip
    assert entry.normalise["way"] == "speaker"
    assert entry.normalise["utterances_used"] == 6  # of the query
    module = SERModule.load_from_checkpoint(tmp_path / "adapted")
    source = SERModule.load_from_checkpoint(tmp_path / "run")
    assert torch.equal(module.normaliser.location, source.normaliser.location)


@pytest.fixture(scope="module")
def model(tiny_recipe, tmp_path_factory):
    """A run that normalises speakers, and its data."""
    folder = tmp_path_factory.mktemp("normalised")
    cfg = compose(tiny_recipe, [*FUNCTIONALS, "data.normalise=speaker"])
    train(cfg, folder)
    return folder, open_data(cfg)


def test_predicting_a_manifest_uses_its_speakers(model, tiny_speech, tmp_path):
    folder, data = model
    write_json(tmp_path / "test.json", {"root": str(tiny_speech)})  # as `serzoo prepare` does
    tested = data.datasets["test"].utterances
    write_manifest(tmp_path / "test.jsonl", tested)
    with warnings.catch_warnings(action="error", category=DataNote):
        rows = predict(folder, str(tmp_path / "test.jsonl"))
    assert [row.file for row in rows] == [u.id for u in tested]
    table = PredictionTable.read_jsonl(folder / "predictions.jsonl")
    probs = dict(zip(table.ids, np.exp(log_softmax(table.scores, 1.0)), strict=True))
    temperature = SERModule.load_from_checkpoint(folder).temperature
    for row in rows:
        power = probs[row.file] ** (1 / (temperature or 1.0))
        np.testing.assert_allclose(list(row.probs.values()), power / power.sum(), atol=1e-4)


def test_predicting_a_file_uses_the_training_mean_and_says_so(model, tiny_speech):
    folder, _ = model
    with pytest.warns(DataNote, match=says("2 recordings of 2", "no speaker", "training mean")):
        both = predict(folder, [str(tiny_speech / f"{c}-0.wav") for c in ("sad", "angry")])
    with pytest.warns(DataNote, match=says("1 recording of 1")):
        alone = predict(folder, str(tiny_speech / "sad-0.wav"))
    assert both[0].probs.keys() == alone[0].probs.keys()
    assert_like(list(both[0].probs.values()), list(alone[0].probs.values()), digits=5)


def test_the_encoder_of_such_a_run_says_that_it_is_used_without(tiny_recipe, tmp_path):
    cfg = compose(tiny_recipe, ["data.normalise=speaker", "optim.epochs=1"])
    train(cfg, tmp_path)
    with pytest.warns(DataWarning, match=says("data.normalise=speaker", "training mean")):
        TrainedEncoder(name=str(tmp_path))


def test_the_card_says_that_speakers_are_normalised(model, tmp_path):
    folder, _ = model
    card = (save_pretrained(folder, tmp_path / "saved") / "README.md").read_text()
    assert tells(card, "data.normalise=speaker", "all unlabelled utterances", "transductive")


def test_the_terminal_says_how_speakers_were_normalised():
    about = {"way": "enrol:4", "speakers": 2, "utterances_used": 8, "without_speaker": 3}
    (line,) = normalised_lines(about)
    assert tells(line, "enrol:4", "8 unlabelled utterances of 2 speakers", "3 utterances without")
    assert normalised_lines(None) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_answer_as_one_does(tiny_recipe, serzoo, tmp_path):
    keys = [
        "data.normalise=enrol:2", "data.corrupted_copies=2", "trainer.accelerator=cpu",
        "trainer.progress=false", "trainer.threads=1", *FUNCTIONALS,
    ]  # fmt: skip
    tables = {}
    for devices in (1, 2):
        more = [f"trainer.devices={devices}", f"trainer.out={tmp_path / str(devices)}"]
        process = serzoo("train", tiny_recipe, *keys, *more, log=tmp_path / "log")
        assert process.wait(400) == 0, (tmp_path / "log").read_text()
        (found,) = (tmp_path / str(devices)).glob("*/*/predictions.jsonl")
        tables[devices] = PredictionTable.read_jsonl(found)
    order = [tables[2].ids.index(name) for name in tables[1].ids]
    np.testing.assert_allclose(tables[2].scores[order], tables[1].scores, atol=1e-4)
