"""ONNX: the same scores without torch, at any length, and the refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import says
from serzoo.zoo.cli import main
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ExportError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import onnx as exporting
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.onnx import LENGTHS, export, parity
from serzoo.zoo.run.train import run_folder, train
from tiny_models import CONVOLVED

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
TAXONOMY = Taxonomy.of(["angry", "happy", "sad"])
HEADS: dict[str, dict[str, Any]] = {
    "classification": {"pooling": "attentive", "hidden": 8},
    "gen_ser": {"pooling": "mean", "code_dim": 16, "width": 16},
    "regress_codes": {"pooling": "stats", "code_dim": 16, "width": 16},
    "prototype": {},
    "dimensions": {"hidden": 8},
    "ordinal": {"pooling": "stats"},
    "multi": {"auxiliary": {"gender": 1.0}, "shared": 8},
    "selm": {"lm_width": 32},
}


def build(head: str, encoder: str = "logmel", **options: Any) -> SERModule:
    torch.manual_seed(0)
    if encoder == "logmel":
        options = {"widths": (4, 8, 8, 8), "dim": 16} | options
    made = registry.get("encoders", encoder)(**options)
    torch.manual_seed(1)
    module = SERModule(made, registry.get("heads", head)(made.dim, TAXONOMY, **HEADS[head])).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def run(path: Path, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores, probs = session.run(["scores", "probs"], {session.get_inputs()[0].name: given})
    return scores, probs


def test_raw_audio_to_calibrated_probabilities(tiny_hf, tmp_path):
    name = tiny_hf("wav2vec2", "group")
    module = build("classification", "hf", name=name, tuning="lora", lora_rank=2, layers=[1, 2])
    module.temperature = 2.5
    path = export(module, tmp_path / "out" / "model.onnx")
    assert LENGTHS == (400, 3000, 16000, 48001)
    assert parity(module, path) < 1e-4
    audio = torch.linspace(-0.5, 0.5, 2000).sin()[None]
    with torch.no_grad():
        frames = module.encoder(*module.encoder.extract(audio, torch.tensor([2000])))
        wanted = module.head.scores(frames, TAXONOMY)
    scores, probs = run(path, audio.numpy())
    assert np.abs(scores - wanted.numpy()).max() < 1e-4
    assert np.abs(probs - (wanted / 2.5).softmax(-1).numpy()).max() < 1e-5
    facts = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(facts["classes"]) == ["angry", "happy", "sad"]
    assert (facts["sample_rate"], facts["temperature"], facts["least"]) == ("16000", "2.5", "400")
    onnx.checker.check_model(str(path))
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]  # one file


def test_a_file_that_differs_is_refused(tmp_path):
    path = export(build("classification"), tmp_path / "model.onnx")
    other = build("classification")
    with torch.no_grad():
        other.head.output[-1].bias.add_(torch.tensor([0.0, 0.0, 1e-3]))
    with pytest.raises(ExportError, match=r"model\.onnx .* 0\.001\b.* 0\.0001\b"):
        parity(other, path)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "norm"), CONVOLVED)
@pytest.mark.parametrize("head", ["classification", "gen_ser"])
def test_every_family_of_convolutions(tiny_hf, tmp_path, family, norm, head):
    tuning = "lora" if head == "gen_ser" else "frozen"
    module = build(head, "hf", name=tiny_hf(family, norm), tuning=tuning)
    path = export(module, tmp_path / "model.onnx")
    assert parity(module, path) < 1e-4


@pytest.mark.slow
def test_layers_side_by_side(tiny_hf, tmp_path):
    name = tiny_hf(do_normalize=True)
    module = build("classification", "hf", name=name, layers=[0, 2], join="concat")
    assert module.encoder.dim == 64
    assert parity(module, export(module, tmp_path / "model.onnx")) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("head", [h for h in HEADS if h != "selm"])
def test_spectrograms_to_scores(tmp_path, head):
    module = build(head)
    path = export(module, tmp_path / "model.onnx")
    assert onnx.load(path).graph.input[0].name == "spectrogram"
    assert parity(module, path, [1, *LENGTHS]) < 1e-4


def test_what_cannot_be_exported_says_why(tiny_hf, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=says("SELMHead", "classification, gen_ser")):
        export(build("selm"), path)
    for family in ("wav2vec2-bert", "whisper"):
        with pytest.raises(ExportError, match=says(f"'{family}'", "logmel", "wav2vec2", "sew")):
            export(build("classification", "hf", name=tiny_hf(family, "none")), path)
    half = build("classification", "hf", name=tiny_hf("wav2vec2", "layer"), dtype="bfloat16")
    with pytest.raises(ExportError, match=says("encoder.dtype=bfloat16", "encoder.dtype=float32")):
        export(half, path)
    sizes = {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}
    with pytest.raises(ExportError, match=says("ResNetEncoder", "logmel")):
        export(build("classification", "resnet50", **sizes), path)
    with pytest.raises(ExportError, match=says(".eval()")):
        export(build("classification").train(), path)
    module = build("classification")
    module.head.scores = lambda frames, taxonomy: frames.x[bool(frames.x.sum() > 0)]
    with pytest.raises(
        ExportError, match=says("ClassificationHead", "GuardOnDataDependentSymNode")
    ):
        export(module, path)
    assert not path.exists()


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=says("onnxscript", "pip install 'serzoo[onnx]'")):
        export(build("classification"), tmp_path / "model.onnx")


def test_the_verb_exports_and_compares(tiny_recipe, tmp_path, capsys):
    cfg = compose(tiny_recipe, [f"trainer.out={tmp_path / 'runs'}", "optim.epochs=1"])
    train(cfg)
    capsys.readouterr()
    assert main(["export", str(run_folder(cfg)), str(tmp_path / "model.onnx")]) == 0
    text = capsys.readouterr().out
    assert str(tmp_path / "model.onnx") in text
    assert "largest difference of scores from the original: " in text
    assert (tmp_path / "model.onnx").is_file()
