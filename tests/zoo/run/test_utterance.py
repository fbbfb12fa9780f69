"""Vectors of utterances beside the frames, from the store to the scores of every head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from serzoo.datamodules.corruption import remembered
from serzoo.heads.classification import ClassificationHead
from serzoo.zoo.core.encoder import Encoder
from serzoo.zoo.core.errors import CheckpointError, ConfigError, DataError, ExportError
from serzoo.zoo.core.head import Head
from serzoo.zoo.core.scaling import VectorStandardiser
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Frames, HeadLoss, Targets
from serzoo.zoo.encoders.functionals import FunctionalsEncoder, functionals
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.report.runs import Run
from serzoo.zoo.run import predict
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.build import build_run
from serzoo.zoo.run.config import load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.onnx import export
from serzoo.zoo.run.optim import mix
from serzoo.zoo.run.record import read_record
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable
from waves import speech

WITH = ["utterance=functionals", "optim.epochs=2"]


def trained(recipe: str, folder: Path, *words: str) -> str:
    """Train with vectors, and return the predictions as text."""
    assert train(load(recipe, [*WITH, *words]), folder).status == "ok"
    return (folder / "predictions.jsonl").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["head=classification"],
        ["head=classification_hidden"],
        ["head=prototype"],
        ["head=gen_ser"],
        ["head=gen_ser_frames"],
        ["head=selm", "head.lm_width=32"],
        ["head=linear_svm"],
    ],
    ids=lambda words: words[0],
)
def test_stored_and_live_vectors_give_the_same_scores(
    tiny_recipe: str, tmp_path: Path, words: list[str]
) -> None:
    words = ["encoder=functionals", *words]  # whose batches are the same with live features
    stored = trained(tiny_recipe, tmp_path / "stored", *words)
    live = trained(tiny_recipe, tmp_path / "live", *words, "data.features=live")
    assert stored == live
    without = train(load(tiny_recipe, ["optim.epochs=2", *words]), tmp_path / "without")
    assert without.status == "ok"
    assert (tmp_path / "without" / "predictions.jsonl").read_text() != stored


def test_a_loaded_model_scores_as_the_trained_one(tiny_recipe: str, tmp_path: Path) -> None:
    trained(tiny_recipe, tmp_path / "run")
    save_pretrained(SERModule.load_from_checkpoint(tmp_path / "run"), tmp_path / "saved")
    audio, lengths = speech(9000)[None], torch.tensor([9000])
    batch = Batch([""], [""], Targets(torch.zeros(1, 3), torch.ones(1)), audio=audio,
                  lengths=lengths)  # fmt: skip
    one, two = (SERModule.load_from_checkpoint(tmp_path / f) for f in ("run", "saved"))
    assert isinstance(one.encoder.utterance, FunctionalsEncoder)
    assert one.head.utterance == FunctionalsEncoder.dim
    assert np.array_equal(one.scored(batch).values, two.scored(batch).values)
    again, _ = evaluate(tmp_path / "saved", part="test", root=load(tiny_recipe).data.root)
    assert again.ids  # it was scored with vectors of the store


def test_vectors_are_standardised_by_the_training_part_whatever_learns(tiny_recipe: str) -> None:
    module, data = build_run(tiny_recipe, [*WITH, "optim.epochs=1"])
    assert not module.encoder.steady
    fit(module, data)
    rows = [functionals(data.datasets["train"].wave(u).numpy())
            for u in data.datasets["train"].utterances]  # fmt: skip
    (scale,) = (m for m in module.head.modules() if isinstance(m, VectorStandardiser))
    x = np.stack(rows).astype(np.float64)
    deviation = np.where(x.std(0) > 1e-5, x.std(0), 1.0)
    assert bool(scale.fitted)
    assert_like(scale.location, torch.from_numpy(x.mean(0)).float())
    assert np.allclose(scale.deviation.numpy(), deviation, rtol=1e-3, atol=1e-6)


def fit(module: SERModule, data: object, **how: object) -> None:
    L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **how,
    ).fit(module, data)  # type: ignore[arg-type]  # fmt: skip


def test_a_trainer_without_the_data_module_is_refused(tiny_recipe: str) -> None:
    module, data = build_run(tiny_recipe, WITH)
    batches = [data.datasets["train"][[0, 1, 2]]]
    with pytest.raises(ConfigError, match=says("vectors", "SpeechDataModule")):
        fit(module, torch.utils.data.DataLoader(batches, batch_size=None))


def test_vectors_stay_beside_the_statistics_of_frames(tiny_recipe: str, tmp_path: Path) -> None:
    """A head that reads mean and deviation gets these, and the vectors, once for the run."""
    words = ["encoder=functionals", "head=linear_svm"]
    trained(tiny_recipe, tmp_path / "run", *words)
    data = build_run(tiny_recipe, [*WITH, *words])[1]
    module = SERModule.load_from_checkpoint(tmp_path / "run")
    data.store_features(module.encoder)
    part = data.datasets["train"]
    frames = part[[0, 1]]
    assert data.use_statistics()
    few = part[[0, 1]]
    assert frames.utterance is not None
    assert few.utterance is not None
    assert torch.equal(few.utterance, frames.utterance)
    assert few.hidden is not None
    assert few.hidden.shape[2] == 2
    assert np.allclose(module.scored(few).values, module.scored(frames).values, atol=1e-5)


def test_a_tuned_encoder_stores_its_vectors_only(
    tiny_recipe: str, tmp_path: Path, tiny_hf: Callable[..., str]
) -> None:
    words = ["encoder=hf", f"encoder.name={tiny_hf('wav2vec2', 'group')}", "encoder.tuning=last_k",
             "encoder.last_k=1", "encoder.layers=[3]", "head=linear"]  # fmt: skip
    module, data = build_run(tiny_recipe, [*WITH, *words])
    assert data.store_features(module.encoder).kind == "live"
    batch = data.datasets["train"][[0, 1]]
    assert batch.audio is not None
    assert batch.hidden is None
    assert batch.utterance is not None
    live = module.encoder.vectors(batch.audio, batch.lengths)
    assert torch.equal(live, batch.utterance)
    assert train(load(tiny_recipe, [*WITH, "optim.epochs=1", *words]), tmp_path).status == "ok"


def test_corrupted_audio_has_vectors_of_its_own(tiny_recipe: str, tmp_path: Path) -> None:
    trained(tiny_recipe, tmp_path / "run")
    held, _ = evaluate(tmp_path / "run", condition="telephone")
    module = SERModule.load_from_checkpoint(tmp_path / "run")
    data = build_run(tiny_recipe, WITH)[1]
    part = data.datasets["test"]
    part.corrupt(remembered("telephone"))
    live = module.score(part[list(range(len(part)))])
    order = [live.ids.index(name) for name in held.ids]
    assert np.allclose(held.scores, live.scores[order], atol=1e-4)
    clean, _ = evaluate(tmp_path / "run")
    assert not np.allclose(held.scores, clean.scores, atol=1e-2)


def test_recordings_are_predicted_with_vectors(
    tiny_recipe: str, tiny_speech: Path, tmp_path: Path
) -> None:
    trained(tiny_recipe, tmp_path / "run")
    (row,) = predict.predict(SERModule.load_from_checkpoint(tmp_path / "run"),
                             [tiny_speech / "sad-1.wav"])  # fmt: skip
    module = SERModule.load_from_checkpoint(tmp_path / "run")
    data = build_run(tiny_recipe, [*WITH, "data.features=live"])[1]
    for part in data.datasets.values():
        for i, u in enumerate(part.utterances):
            if u.audio == "sad-1.wav":
                wanted = module.score(part[[i]]).scores[0]
    logs = np.log([row.probs[c] for c in module.head.taxonomy.classes])
    t = module.temperature or 1.0
    assert np.allclose(logs - logs[0], (wanted - wanted[0]) / t, atol=1e-3)


@pytest.mark.parametrize("tuning", ["head", "scratch"])
def test_a_model_with_vectors_adapts(tiny_recipe: str, tmp_path: Path, tuning: str) -> None:
    trained(tiny_recipe, tmp_path / "run", "encoder=functionals")
    source = tmp_path / "run"
    cfg = load(tiny_recipe)
    found = adapt(source, data="csv", root=cfg.data.root, protocol="kfold-5", fold=0, shots=2,
                  steps=2, tuning=tuning, forgetting=False, out=tmp_path / "adapted",
                  supports=tmp_path / "supports")  # fmt: skip
    assert found.status == "ok"
    again = SERModule.load_from_checkpoint(tmp_path / "adapted")
    scales = [m for m in again.head.modules() if isinstance(m, VectorStandardiser)]
    assert [bool(m.fitted) for m in scales] == [True]


def test_mixup_mixes_vectors_as_inputs() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(16, 1, 1, 5)
    targets = Targets(torch.eye(4).repeat(4, 1), torch.ones(16))
    mixed, _, vectors = mix(hidden, torch.ones(16, 1, dtype=torch.bool), targets, 0.5,
                            hidden[:, 0, 0])  # fmt: skip
    assert vectors is not None
    assert_like(vectors, mixed[:, 0, 0])
    assert not torch.equal(vectors, hidden[:, 0, 0])


def test_the_frames_are_read_by_the_same_weights_as_without_vectors() -> None:
    taxonomy = Taxonomy.of(["angry", "happy", "sad"])
    torch.manual_seed(3)
    plain = ClassificationHead(6, taxonomy, pooling="mean", dropout=0.0)
    torch.manual_seed(3)
    wide = ClassificationHead(6, taxonomy, pooling="mean", dropout=0.0)
    wide.read_utterance(4)
    frames = Frames(torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool))
    nothing = Frames(frames.x, frames.mask, torch.ones(2, 4))  # normalised to zero
    assert_like(wide.scores(nothing, taxonomy), plain.scores(frames, taxonomy))


def test_tables_name_the_vector(tiny_recipe: str, tmp_path: Path) -> None:
    trained(tiny_recipe, tmp_path / "run")
    entry = read_record(tmp_path / "run")
    assert entry is not None
    table = PredictionTable.read_jsonl(tmp_path / "run" / "predictions.jsonl")
    assert Run("run", entry, table).group[1] == "logmel + functionals"
    folder = save_pretrained(tmp_path / "run", tmp_path / "saved")
    assert "`functionals`" in (folder / "README.md").read_text("utf-8")


# What is refused.


class FramesOnly(Head):
    """A head that ignores vectors."""

    def __init__(self, dim: int, taxonomy: Taxonomy) -> None:
        super().__init__(dim, taxonomy)
        self.linear = torch.nn.Linear(dim, len(taxonomy))

    def scores(
        self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None
    ) -> torch.Tensor:
        scores: torch.Tensor = self.linear(frames.mean())
        return scores

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        return HeadLoss(self.scores(frames, self.taxonomy).sum(), {})


def test_a_head_that_would_ignore_the_vectors_is_refused(tiny_recipe: str) -> None:
    with pytest.raises(ConfigError, match=says("FramesOnly", FunctionalsEncoder.dim, "utterance")):
        build_run(tiny_recipe, WITH, head=FramesOnly)


def test_gen_ser_without_a_projection_is_refused(tiny_recipe: str) -> None:
    words = ["head=gen_ser", "head.projection=false", "head.code_dim=32"]
    with pytest.raises(ConfigError, match=says("projection", FunctionalsEncoder.dim)):
        build_run(tiny_recipe, [*WITH, *words])


@pytest.mark.parametrize(
    ("name", "facts"), [("logmel", ("logmel", "functionals")), ("egmaps", ("egmaps",))]
)
def test_only_an_encoder_of_one_vector_may_stand_beside(
    tiny_recipe: str, name: str, facts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=says(*facts)):
        load(tiny_recipe, [f"utterance={name}"])


def test_a_head_and_an_encoder_must_agree() -> None:
    encoder: Encoder = LogMelEncoder(widths=(4, 8, 8, 8), dim=6)
    head = ClassificationHead(6, Taxonomy.of(["angry", "sad"]))
    SERModule(encoder, head)
    encoder.utterance = FunctionalsEncoder()
    with pytest.raises(ConfigError, match=says(FunctionalsEncoder.dim, 0, "read_utterance")):
        SERModule(encoder, head)
    head.read_utterance(FunctionalsEncoder.dim)
    assert SERModule(encoder, head).encoder.utterance is encoder.utterance


def test_stored_frames_without_vectors_are_refused(tiny_recipe: str) -> None:
    module, data = build_run(tiny_recipe, WITH)
    data.store_features(module.encoder)
    batch = data.datasets["train"][[0]]
    bare = Batch(batch.ids, batch.speakers, batch.targets, hidden=batch.hidden, mask=batch.mask)
    with pytest.raises(DataError, match=says("Batch.utterance")):
        module.frames(bare)


def test_no_graph_of_vectors_is_exported(tiny_recipe: str, tmp_path: Path) -> None:
    module, _ = build_run(tiny_recipe, WITH)
    with pytest.raises(ExportError, match=says("FunctionalsEncoder")):
        export(module.eval(), tmp_path / "model.onnx")


def test_other_formulas_than_those_of_the_training_are_refused(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tiny_recipe, tmp_path / "run")
    save_pretrained(SERModule.load_from_checkpoint(tmp_path / "run"), tmp_path / "saved")
    monkeypatch.setattr("serzoo.zoo.encoders.functionals.VERSION", 2)
    with pytest.raises(CheckpointError, match=says("utterance", 1, 2)):
        SERModule.load_from_checkpoint(tmp_path / "saved")


def test_runs_with_and_without_vectors_have_other_names(tiny_recipe: str) -> None:
    plain, with_vectors = load(tiny_recipe), load(tiny_recipe, ["utterance=functionals"])
    assert plain.fingerprint != with_vectors.fingerprint
    assert "utterance" not in plain.identity  # records of before keep their fingerprints
