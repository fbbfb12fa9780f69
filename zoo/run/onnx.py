"""Export a trained model as one ONNX file, from audio to scores, to run without torch or serzoo.

The file holds the model for one utterance without padding. That is the published encoder with its
adapters, the mix of its layers and the head. The log-mel encoder cuts silence off before its
network, and a graph cannot hold that. So its file starts at the spectrogram of ``encoder.extract``.

Exported: the heads ``classification``, ``gen_ser`` and the controls, on wav2vec 2.0, HuBERT, WavLM,
data2vec audio, UniSpeech-SAT, SEW and ``logmel``. Not exported are ``selm`` (it writes with a
tokeniser) and heads that read transcripts. Nor are encoders of third parties or in bfloat16,
``resnet50``, w2v-BERT 2.0 and Whisper. The spectra of the last two are computed outside the
network.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ExportError, cut, first_line
from ..core.files import check_place, new_file
from ..core.notices import tell
from ..core.types import SAMPLE_RATE, Batch, Frames, Targets
from ..encoders.families import EPSILON, ConvolutionFamily, SEWFamily
from ..encoders.hf import HFEncoder
from ..encoders.logmel import LogMelEncoder
from .module import SERModule

OPSET = 20
LIMIT = 1e-4
"""The largest difference of a score from the model's that :func:`parity` allows."""

LENGTHS = (400, 3_000, 16_000, 48_001)
"""Lengths of the utterances that :func:`parity` compares, in samples."""


# It calls the published modules directly: a trace may look at no value, and only the length varies.
class Unpadded(nn.Module, ABC):
    """One utterance without padding to ``scores [1, C]`` and calibrated ``probs [1, C]``.

    Args:
        module: the model.

    Attributes:
        input: name of the input.
        axis: the axis of the input that varies in length.
        least: the smallest length of that axis.
    """

    input: str
    axis: int
    least: int

    def __init__(self, module: SERModule) -> None:
        super().__init__()
        self.encoder: Any = module.encoder
        self.head = module.head
        self.temperature = 1.0 if module.temperature is None else module.temperature

    @abstractmethod
    def example(self) -> Tensor:
        """Return an input to trace with."""

    @abstractmethod
    def frames(self, x: Tensor) -> Tensor:
        """Turn the input into frames ``[1, T, D]``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.frames(x)
        mask = torch.ones_like(frames[..., 0], dtype=torch.bool)
        scores = self.head.scores(Frames(frames, mask), self.head.taxonomy).float()
        return scores, (scores / self.temperature).softmax(-1)


class UnpaddedAudio(Unpadded):
    """A published encoder of a convolutional family; its input is ``audio [1, samples]``."""

    input, axis = "audio", 1

    def __init__(self, module: SERModule) -> None:
        super().__init__(module)
        self.family: Any = self.encoder.family
        self.least = int(self.family.min_samples)

    def example(self) -> Tensor:
        return 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))

    def frames(self, x: Tensor) -> Tensor:
        family = self.family
        hidden = self.before_blocks(x)
        handed, states = None, {}
        for k, block in enumerate(family.blocks):
            states[k] = hidden
            hidden, handed = family.step(block, hidden, handed, {"attention_mask": None})
        states[len(family.blocks)] = family.finish(hidden)
        kept = torch.stack([states[k] for k in self.encoder.layers], 1)
        mixed: Tensor = self.encoder.mix(kept)
        return mixed

    def before_blocks(self, x: Tensor) -> Tensor:
        """Turn samples into the input of the first block."""
        family = self.family
        if family.normalise:
            x = x - x.mean(1, keepdim=True)
            x = x / torch.sqrt(x.square().mean(1, keepdim=True) + EPSILON)
        features = x[:, None]
        for layer in family.model.feature_extractor.conv_layers:
            features = layer(features)
        hidden: Tensor = family.project(features.transpose(1, 2))
        encoder = family.model.encoder
        if isinstance(family, SEWFamily):
            wide = hidden.transpose(1, 2)
            position, pooled = encoder.pos_conv_embed(wide), encoder.pool(wide)
            # both are cut to the shorter one
            size = hidden.shape[1] // family.squeeze
            hidden = (pooled[..., :size] + position[..., :size]).transpose(1, 2)
            normed: Tensor = encoder.layer_norm(hidden)
            return normed
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not family.stable:
            hidden = encoder.layer_norm(hidden)
        return hidden


class UnpaddedSpectrogram(Unpadded):
    """The log-mel encoder after its front end; its input is ``spectrogram [1, 1, T, bands]``."""

    input, axis, least = "spectrogram", 2, 1

    def example(self) -> Tensor:
        bands = self.encoder.frontend.filters.shape[1]
        return torch.randn(1, 1, 100, bands, generator=torch.Generator().manual_seed(0))

    def frames(self, x: Tensor) -> Tensor:
        encoder = self.encoder
        mean = x.mean(2, keepdim=True)
        x = torch.cat([x - mean, x - mean.mean(3, keepdim=True)], 1)  # the two views
        x = encoder.norm(encoder.stem(x), None).relu()
        for block in encoder.blocks:
            x, _ = block(x, None)
        x = encoder.out_norm(encoder.out(x.permute(0, 2, 1, 3).flatten(2)))
        return x.relu()


def unpadded(module: SERModule) -> Unpadded:
    """Return the traceable form of a model.

    Raises:
        ExportError: if there is none; the message says why.
    """
    head, encoder = module.head, module.encoder
    name = type(head).__name__
    if encoder.utterance is not None:
        raise ExportError(
            f"{name} reads a vector of the utterance ({type(encoder.utterance).__name__}), which "
            "is computed outside the network; export a model without the key 'utterance'"
        )
    if head.needs or head.open_labels:
        needed = f"needs {', '.join(sorted(head.needs))} besides the audio"
        why = needed if head.needs else "scores classes by their names"
        raise ExportError(
            f"{name} {why}, and one graph from audio to scores cannot hold that; export a head "
            "with fixed classes: classification, gen_ser"
        )
    if isinstance(encoder, LogMelEncoder):
        return UnpaddedSpectrogram(module)
    if isinstance(encoder, HFEncoder) and isinstance(encoder.family, ConvolutionFamily):
        if encoder.dtype != torch.float32:
            raise ExportError(
                "encoder.dtype=bfloat16 is not exported, since its rounding cannot be reproduced; "
                "train the head with encoder.dtype=float32"
            )
        return UnpaddedAudio(module)
    kind = encoder.describe().get("model_type")
    called = f"an encoder of model_type '{kind}'" if kind else type(encoder).__name__
    raise ExportError(
        f"{called} is not exported; have logmel, and hf with wav2vec2, hubert, wavlm, "
        "data2vec-audio, unispeech-sat, sew (spectra of other families are computed outside their "
        "network)"
    )


def export(module: SERModule, path: str | Path) -> Path:
    """Write a trained model as ONNX.

    The input is ``audio [1, samples]``, float32 at 16 kHz. Its smallest length is ``least`` in the
    metadata, 400 samples in most models; pad shorter audio with zeros. With the log-mel encoder the
    input is ``spectrogram [1, 1, T, bands]``. The outputs are ``scores [1, C]``, log-scores, and
    ``probs [1, C]``, their softmax. It is calibrated if the model has a temperature. The metadata
    hold ``classes`` (JSON), ``sample_rate``, ``temperature`` (empty if there is none) and
    ``least``. The file does not know speakers. If the model normalises them, ``normalise`` is
    ``training mean``; otherwise it is empty.

    Args:
        module: a loaded model, in evaluation mode.
        path: ``FILE.onnx``.

    Returns:
        The path.

    Raises:
        ExportError: if the model cannot be exported, or the extra ``onnx`` is not installed.
    """
    path = Path(path)
    check_place(path)
    _installed("onnx", "onnxscript")
    if module.training:
        raise ExportError("the model is in training mode; call .eval() first")
    whole = unpadded(module)
    if module.normaliser is not None:
        tell(
            f"the model normalises speakers (data.normalise={module.normaliser.way}); the file "
            "does not know speakers, and uses the training mean for everybody",
            fault=False,
        )
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                whole,
                (whole.example(),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[whole.input],
                output_names=["scores", "probs"],
                dynamic_shapes=({whole.axis: torch.export.Dim("length", min=whole.least)},),
                verbose=False,
            )
    except Exception as error:  # torch raises many kinds if it cannot trace
        reason = error.__cause__ or error
        raise ExportError(
            f"{type(module.head).__name__} on {type(module.encoder).__name__} cannot be exported "
            f"({type(reason).__name__}: {cut(first_line(reason), 200)}); a model can be traced "
            "only if no branch of its code depends on a value of a tensor"
        ) from error
    assert program is not None
    program.model.metadata_props.update(facts(module, whole))
    with new_file(path) as draft, TemporaryDirectory(dir=path.parent, prefix=".") as made:
        file = Path(made) / path.name
        with _quiet():
            program.save(str(file))
        for data in Path(made).iterdir():
            if data != file:  # weights of a very large model, which the file refers to by name
                data.replace(path.with_name(data.name))
        shutil.copyfile(file, draft)
    return path


def facts(module: SERModule, whole: Unpadded) -> dict[str, str]:
    """Return the metadata of the file."""
    return {
        "classes": json.dumps(module.head.taxonomy.classes),
        "sample_rate": str(SAMPLE_RATE),
        "temperature": "" if module.temperature is None else repr(module.temperature),
        "least": str(whole.least),
        "normalise": "training mean" if module.normaliser is not None else "",
        "library": "serzoo",
    }


@torch.no_grad()
def parity(module: SERModule, path: str | Path, lengths: Sequence[int] = LENGTHS) -> float:
    """Compare an exported file with its model, on noise of several lengths.

    Args:
        module: the model that was exported.
        path: the file.
        lengths: lengths of the noise in samples; shorter ones than ``least`` are raised to it.

    Returns:
        The largest difference of a score or probability.

    Raises:
        ExportError: if it is above :data:`LIMIT`, or the extra ``onnx`` is not installed.
    """
    _installed("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    least = int(session.get_modelmeta().custom_metadata_map["least"]) if name == "audio" else 1
    targets = Targets(torch.zeros(1, len(module.head.taxonomy.classes)), torch.zeros(1))
    largest = 0.0
    for samples in (max(n, least) for n in lengths):
        generator = torch.Generator().manual_seed(samples)
        audio = 0.1 * torch.randn(1, samples, generator=generator)
        hidden, mask = module.encoder.extract(audio, torch.tensor([samples]))
        batch = Batch([""], [""], targets, hidden=hidden, mask=mask)
        wanted = torch.from_numpy(module.scored(batch).values).float()
        given: Tensor = audio if name == "audio" else hidden
        scores, probs = session.run(["scores", "probs"], {name: given.numpy()})
        certain = (wanted / (module.temperature or 1.0)).softmax(-1)
        largest = max(
            largest,
            (torch.from_numpy(scores) - wanted).abs().max().item(),
            (torch.from_numpy(probs) - certain).abs().max().item(),
        )
    if not largest <= LIMIT:
        raise ExportError(
            f"{path} gives scores that differ from the model's by {largest:.2g}, more than "
            f"{LIMIT:g}; do not use it, and report the model and the versions of torch and onnx"
        )
    return largest


def _installed(*packages: str) -> None:
    if missing := [p for p in packages if find_spec(p) is None]:
        raise ExportError(f"this export needs {', '.join(missing)}; run pip install 'serzoo[onnx]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the exporter's messages about its own internals."""
    loggers = [
        logging.getLogger(n) for n in ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
