"""Published weights, end to end. Needs SERZOO_MODELS, and SERZOO_DATA for real speech."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from published_names import CHECKPOINTS
from safetensors import safe_open
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.features import pad_waves
from serzoo.datamodules.labelling.asr import recogniser
from serzoo.datamodules.labelling.label import label
from serzoo.datamodules.labelling.scorers import Hypothesis
from serzoo.datamodules.labelling.scorers import scorer as build_scorer
from serzoo.datamodules.manifest import Utterance, write_manifest
from serzoo.zoo import load
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.doctor import doctor
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.build import open_data
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.locking import lock_models
from serzoo.zoo.run.onnx import ExportError, export
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

pytestmark = pytest.mark.models
MODELS = ("whisper-base", "whisper-tiny.en", "smollm2-135m-instruct", "minilm-l6")


@pytest.fixture(scope="session", autouse=True)
def models() -> Path:
    """Return the folder of models; skip if it is not there, and say which ones are missing."""
    base = os.environ.get("SERZOO_MODELS")
    if not base:
        pytest.skip("SERZOO_MODELS is not set: no published weights on this machine")
    lacking = [m for m in MODELS if not (Path(base) / m / "config.json").is_file()]
    if lacking:
        pytest.skip(f"SERZOO_MODELS={base} lacks {', '.join(lacking)}")
    return Path(base)


@pytest.fixture(scope="session")
def speech(real_data, monkeypatch_session) -> Path:
    """Return the folder of RAVDESS, which readers then find by its name."""
    folder = real_data("ravdess")
    monkeypatch_session.setenv("SERZOO_DATA", str(folder.parent))
    return folder


@pytest.fixture(scope="session")
def monkeypatch_session():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


TINY = ("encoder=whisper-tiny-en", "encoder.layers=[3]", "encoder.window=auto")


@pytest.fixture(scope="session")
def run(speech, tmp_path_factory) -> Path:
    """Return a run of two epochs on frozen frames of Whisper-tiny.en."""
    folder = tmp_path_factory.mktemp("runs") / "frozen"
    settings = [*TINY, "encoder.dtype=auto", "optim.epochs=2", "trainer.progress=false"]
    train(compose("ravdess", settings), folder)
    return folder


def test_a_recogniser_writes_what_is_said(real_data):
    folder = real_data("librispeech_mini")
    clips = sorted((folder / "audio").rglob("*.flac"))[:2]
    heard = recogniser("whisper-base", language="en").hear([read_audio(c)[:160000] for c in clips])
    assert len(heard) == 2
    for found in heard:
        words = found.text.split()
        assert len(words) > 10
        assert len(set(words)) > len(words) / 2
        assert found.confidence > -0.7


@pytest.mark.parametrize("window", [None, 6, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frames_alone_are_those_of_a_batch(real_data, window, dtype):
    folder = real_data("librispeech_mini")
    clip = torch.from_numpy(read_audio(sorted((folder / "audio").rglob("*.flac"))[0]))
    waves = [clip[:n] for n in (4000, 31999, 32000, 120000)]
    encoder = HFEncoder(name="whisper-base", layers=[0, 4, 6], window=window, dtype=dtype).eval()
    together, mask = encoder.extract(*pad_waves(waves))
    for i, wave in enumerate(waves):
        alone, _ = encoder.extract(*pad_waves([wave]))
        ours = together[i][:, mask[i]]
        cosine = torch.nn.functional.cosine_similarity(ours, alone[0], dim=-1)
        assert cosine.min() > (0.9999 if dtype == "float32" else 0.98)


def test_frames_in_bfloat16_are_those_in_float32(real_data):
    folder = real_data("librispeech_mini")
    clip = torch.from_numpy(read_audio(sorted((folder / "audio").rglob("*.flac"))[0]))[:100000]
    exact, short = (
        HFEncoder(name="whisper-base", window=10, dtype=d).eval().extract(*pad_waves([clip]))[0]
        for d in ("float32", "bfloat16")
    )
    for k in range(exact.shape[1]):
        mean = torch.nn.functional.cosine_similarity(exact[0, k], short[0, k], dim=-1).mean()
        assert mean > 0.999, k


def test_a_linear_svm_on_layer_4_tells_emotions_of_new_speakers(speech):
    data = open_data(compose("ravdess", ["data.max_seconds=6"]))
    encoder = HFEncoder(name="whisper-base", layers=[4], window="auto", dtype="auto").eval()
    data.store_features(encoder)

    def vectors(*parts: str) -> tuple[np.ndarray, np.ndarray]:
        rows, classes = [], []
        for part in parts:
            dataset = data.datasets[part]
            for i in range(len(dataset)):
                x = dataset.store.read(dataset.rows[i])[0].float()
                rows.append(torch.cat([x.mean(0), x.std(0)]).numpy())
            classes.append(dataset.classes.numpy())
        return np.stack(rows), np.concatenate(classes)

    X, y = vectors("train", "valid")
    svm = make_pipeline(StandardScaler(), LinearSVC(C=0.003, class_weight="balanced"))
    svm.fit(X, y)
    test, truth = vectors("test")
    assert balanced_accuracy_score(truth, svm.predict(test)) > 0.65


def test_the_record_says_which_weights_were_read(run):
    about = load(run).module.encoder.describe()
    assert about["read_from"] == "SERZOO_MODELS"
    assert about["model_type"] == "whisper"
    assert about["layers_total"] == 4
    assert len(about["weights"]) == 12


def test_a_saved_model_answers_alike_without_the_run(run, speech, tmp_path):
    model = load(run)
    clips = sorted((speech / "audio").rglob("*.flac"))[:3] or sorted(speech.rglob("*.wav"))[:3]
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    for ours, theirs in zip(model.predict(clips), again.predict(clips), strict=True):
        assert ours.label == theirs.label
        assert_like(list(theirs.probs.values()), list(ours.probs.values()))


def test_eval_gives_what_training_wrote(run):
    table, _ = evaluate(run)
    assert (run / "predictions.jsonl").read_text().count("\n") >= len(table)


def test_export_says_at_once_that_whisper_is_not_exported(run, tmp_path):
    with pytest.raises(ExportError, match=says("whisper", "not exported", "wav2vec2")):
        export(load(run).module, tmp_path / "model.onnx")


def test_lora_of_two_steps_changes_the_adapters_and_nothing_published(speech, tmp_path):
    settings = [*TINY, "encoder.tuning=lora", "optim.epochs=1", "data.train_share=0.02"]
    settings += ["data.balance=false", "data.batch_size=16", "trainer.progress=false"]
    record = train(compose("ravdess", settings), tmp_path)
    assert record.ok
    encoder = load(tmp_path).module.encoder
    moved = {n: p for n, p in encoder.backbone.named_parameters() if "lora_B" in n}
    assert len(moved) > 0
    assert all(p.abs().max() > 0 for p in moved.values())
    published = HFEncoder(name="whisper-tiny.en", layers=[3]).source["weights"]
    assert encoder.source["weights"] == published


@pytest.mark.parametrize("tuning", ["head", "lora"])
def test_few_shots_adapt_a_model_to_another_corpus(run, real_data, tuning, tmp_path):
    folder = real_data("emodb")
    record = adapt(
        run, data="emodb", root=str(folder), shots=2, tuning=tuning, out=tmp_path, forgetting=False
    )
    assert record.ok
    assert 0 < record.metrics["uar"] <= 1


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_selm_ranks_with_a_published_language_model(speech, tuning, tmp_path):
    settings = [*TINY, "head=selm", "head.lm=smollm2-135m-instruct", f"head.lm_tuning={tuning}"]
    settings += ["optim.epochs=1", "data.train_share=0.02", "data.max_seconds=3"]
    record = train(compose("ravdess", [*settings, "trainer.progress=false"]), tmp_path)
    assert record.ok
    assert record.metrics["uar"] > 0


def test_labels_come_from_a_recogniser_and_sentence_embeddings(real_data, tmp_path):
    folder = real_data("librispeech_mini")
    clips = sorted((folder / "audio").rglob("*.flac"))[:3]
    utterances = [
        Utterance(f"l/{i}", "l", str(c.relative_to(folder)), 0.0, 6.0, 16000, speaker=f"s{i}")
        for i, c in enumerate(clips)
    ]
    write_manifest(tmp_path / "all.jsonl", utterances)
    found = label(
        str(tmp_path / "all.jsonl"), taxonomy="big4", out=str(tmp_path / "labels"),
        root=str(folder), asr="whisper-tiny.en", scorer="embedding",
        scorer_options={"model": "minilm-l6"},
    )  # fmt: skip
    assert found.record["source"].startswith("minilm-l6@")
    rows = (tmp_path / "labels" / "transcripts.jsonl").read_text().splitlines()
    assert len(rows) == 3
    assert all('"asr:whisper-tiny.en@' in row for row in rows)


def test_sentence_embeddings_tell_what_a_sentence_means():
    scores = build_scorer("embedding", model="minilm-l6")
    said = ["I am so glad that you came!", "Leave me alone, you make me furious."]
    meant = [Hypothesis("I am {}.", c, (c,)) for c in ("happy", "angry")]
    found = scores.score(said, meant)
    assert found.argmax(1).tolist() == [0, 1]


def test_four_processes_encode_a_corpus_once(speech, tmp_path):
    code = (
        "from serzoo.zoo.run.build import build, open_data\n"
        "from serzoo.zoo.run.config import load\n"
        f"cfg = load('ravdess', {[*TINY, 'encoder.layers=[1]', 'data.max_seconds=1']!r})\n"
        "data = open_data(cfg)\n"
        "print(data.store_features(build(cfg, data.taxonomy).encoder).encoded)\n"
    )
    environment = {**os.environ, "SERZOO_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    encoded = [int(w.communicate()[0].split()[-1]) for w in workers]
    assert [w.returncode for w in workers] == [0] * 4
    assert sum(encoded) == 1439  # of 1440 recordings, two are the same
    assert min(encoded) > 0


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["encoder=whisper-base", "encoder.name=smollm2-135m-instruct"], ["llama", "whisper"]),
        (["encoder=whisper-base", "encoder.name=minilm-l6"], ["bert", "whisper"]),
        (
            ["head=selm", "head.lm=whisper-base"],
            ["head.lm=whisper-base", "model_type 'whisper'", "gpt2"],
        ),
    ],
)
def test_a_model_of_the_wrong_kind_is_refused_by_its_kind(speech, words, facts, tmp_path):
    with pytest.raises(ConfigError, match=says(*facts)):
        train(compose("ravdess", words), tmp_path)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("whisper-base", {}),
        (
            "whisper-tiny.en",
            {"d_model": 384, "vocab_size": 51864}
            | {f"{side}_layers": 4 for side in ("encoder", "decoder")}
            | {f"{side}_ffn_dim": 1536 for side in ("encoder", "decoder")},
        ),
    ],
)
def test_the_names_of_whisper_are_those_of_its_file(models, name, sizes):
    with safe_open(models / name / "model.safetensors", framework="pt") as file:
        held = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    assert held == CHECKPOINTS["openai/whisper-base"].all(**sizes)


def test_published_models_are_locked_and_another_copy_is_refused(models, tmp_path, monkeypatch):
    ((result,), file) = lock_models(["whisper-tiny-en"])
    assert result.entry.files["model.safetensors"].startswith("27e6cbbc0313")
    assert HFEncoder(name="openai/whisper-tiny.en").describe()["read_from"] == "SERZOO_MODELS"
    shutil.copytree(models / "whisper-tiny.en", tmp_path / "whisper-tiny.en")
    config = tmp_path / "whisper-tiny.en" / "config.json"
    config.write_text(config.read_text() + " ")
    monkeypatch.setenv("SERZOO_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match=says("config.json", file, tmp_path, "`serzoo lock")):
        HFEncoder(name="openai/whisper-tiny.en")


def test_the_doctor_measures_what_own_windows_save(speech):
    cfg = compose("ravdess", ["encoder=whisper-tiny-en", "encoder.window=null"])
    (found,) = doctor(cfg, ["windows"])
    assert (found.level, found.facts["window"]) == ("note", 30.0)
    assert found.facts["seconds"] > 3 * found.facts["seconds_of_own_windows"]
