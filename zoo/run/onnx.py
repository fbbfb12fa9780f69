"""A trained model as one ONNX file, from audio to scores, to be used without torch or serzoo.

What is exported is the model on one utterance without padding: the published encoder with its
adapters, the mix of its layers and the head. The log-mel encoder cuts silence off before its
network, which depends on the data; its file starts at the spectrogram that ``encoder.extract``
gives.

Exported: the heads ``classification``, ``gen_ser`` and the controls, on wav2vec 2.0, HuBERT, WavLM,
data2vec audio, UniSpeech-SAT, SEW and ``logmel``. Not exported: ``selm`` (it writes, with a
tokeniser), heads that read transcripts, w2v-BERT 2.0 and Whisper (their spectra are computed
outside the network), ``resnet50``, encoders of third parties, and encoders in bfloat16.
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

from ..core.encoder import Encoder
from ..core.errors import ExportError, first_line
from ..core.files import check_place, new_file
from ..core.types import SAMPLE_RATE, Frames
from ..encoders.families import EPSILON, ConvolutionFamily, SEWFamily
from ..encoders.hf import HFEncoder
from ..encoders.logmel import LogMelEncoder
from .module import SERModule

# The model that is exported: one utterance, no padding.
#
# The published modules are called directly; nothing looks at a value, and the length is the only
# thing that may vary. What it gives is that of the model itself, up to rounding (tests compare).


class Unpadded(nn.Module, ABC):
    """Input of one utterance to ``scores [1, C]`` and their softmax.

    Args:
        module: the model.

    Attributes:
        input: name of the input.
        axis: that varies in length.
        least: its smallest length.
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
        """An input to trace with."""

    @abstractmethod
    def frames(self, x: Tensor) -> Tensor:
        """The input to ``[1, T, D]``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.frames(x)
        mask = torch.ones_like(frames[..., 0], dtype=torch.bool)
        scores = self.head.scores(Frames(frames, mask), self.head.taxonomy).float()
        return scores, (scores / self.temperature).softmax(-1)


class UnpaddedAudio(Unpadded):
    """Published encoders of the convolutional families: ``audio [1, samples]``."""

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
        """Samples to the input of the first block."""
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
            # as long as the shorter of the two
            size = hidden.shape[1] // family.squeeze
            hidden = (pooled[..., :size] + position[..., :size]).transpose(1, 2)
            normed: Tensor = encoder.layer_norm(hidden)
            return normed
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not family.stable:
            hidden = encoder.layer_norm(hidden)
        return hidden


class UnpaddedSpectrogram(Unpadded):
    """The log-mel encoder behind its front end: ``spectrogram [1, 1, T, bands]``."""

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
    """The traceable form of a model.

    Raises:
        ExportError: when there is none, with the reason.
    """
    head, encoder = module.head, module.encoder
    name = type(head).__name__
    if head.needs or head.open_labels:
        why = "needs " + ", ".join(sorted(head.needs)) if head.needs else "writes with a tokeniser"
        raise ExportError(
            f"{name} {why} besides the audio, which one graph from audio to scores cannot hold; "
            "export a head with fixed classes: classification, gen_ser"
        )
    if isinstance(encoder, LogMelEncoder):
        return UnpaddedSpectrogram(module)
    if isinstance(encoder, HFEncoder) and isinstance(encoder.family, ConvolutionFamily):
        if encoder.dtype != torch.float32:
            raise ExportError(
                "encoder.dtype=bfloat16 is not exported, since its rounding cannot be repeated; "
                "train the head with encoder.dtype=float32"
            )
        return UnpaddedAudio(module)
    raise ExportError(f"{_what(encoder)} is not exported; {_ALLOWED}")


_ALLOWED = (
    "have logmel, and hf with wav2vec2, hubert, wavlm, data2vec-audio, unispeech-sat, sew "
    "(spectra of other families are computed outside their network)"
)


def _what(encoder: Encoder) -> str:
    kind = encoder.describe().get("model_type")
    return f"an encoder of model_type '{kind}'" if kind else type(encoder).__name__


OPSET = 20
LIMIT = 1e-4
"""Largest difference of a score from the original's that :func:`parity` lets pass."""

LENGTHS = (400, 3_000, 16_000, 48_001)
"""Samples of the utterances that are compared."""


def export(module: SERModule, path: str | Path) -> Path:
    """Write a trained model as ONNX.

    The file takes ``audio [1, samples]``, float32 at 16 kHz, of any length from one frame
    (``least`` in its metadata, 400 in most models; pad shorter audio with zeros). With the log-mel
    encoder it takes ``spectrogram [1, 1, T, bands]``. It gives ``scores [1, C]``, log-scores, and
    ``probs [1, C]``, their softmax, calibrated where the model's temperature is known. Its
    metadata hold ``classes`` (JSON), ``sample_rate``, ``temperature`` (empty = not known) and
    ``least``.

    Args:
        module: a loaded model, in evaluation mode.
        path: ``FILE.onnx``.

    Returns:
        The path.

    Raises:
        ExportError: when the model cannot be exported, or the extra ``onnx`` is not installed.
    """
    path = Path(path)
    check_place(path)
    _installed("onnx", "onnxscript")
    if module.training:
        raise ExportError("the model is in training mode; call .eval() first")
    whole = unpadded(module)
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
    except Exception as error:  # torch has many for what it cannot trace
        reason = error.__cause__ or error
        raise ExportError(
            f"{type(module.head).__name__} on {type(module.encoder).__name__} cannot be exported "
            f"({type(reason).__name__}: {first_line(reason)[:200]}); only what is computed without "
            "looking at values can be traced"
        ) from error
    assert program is not None
    program.model.metadata_props.update(facts(module, whole))
    with new_file(path) as draft, TemporaryDirectory(dir=path.parent, prefix=".") as made:
        file = Path(made) / path.name
        with _quiet():
            program.save(str(file))
        for data in Path(made).iterdir():  # of very large models, beside the file that names it
            if data != file:
                data.replace(path.with_name(data.name))
        shutil.copyfile(file, draft)
    return path


def facts(module: SERModule, whole: Unpadded) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "classes": json.dumps(module.head.taxonomy.classes),
        "sample_rate": str(SAMPLE_RATE),
        "temperature": "" if module.temperature is None else repr(module.temperature),
        "least": str(whole.least),
        "library": "serzoo",
    }


@torch.no_grad()
def parity(module: SERModule, path: str | Path, lengths: Sequence[int] = LENGTHS) -> float:
    """Compare an exported file with the model itself, on noise of several lengths.

    Args:
        module: what was exported.
        path: the file.
        lengths: in samples; at least what the file takes.

    Returns:
        The largest difference of a score.

    Raises:
        ExportError: when it is above :data:`LIMIT`, or the extra ``onnx`` is not installed.
    """
    _installed("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    least = int(session.get_modelmeta().custom_metadata_map["least"]) if name == "audio" else 1
    largest = 0.0
    for samples in (max(n, least) for n in lengths):
        generator = torch.Generator().manual_seed(samples)
        audio = 0.1 * torch.randn(1, samples, generator=generator)
        hidden, mask = module.encoder.extract(audio, torch.tensor([samples]))
        frames = module.encoder(hidden, mask)
        wanted = module.head.scores(frames, module.head.taxonomy).float()
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
        raise ExportError(
            f"exporting needs {', '.join(missing)}; install it with pip install 'serzoo[onnx]'"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notices on its own internals."""
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
