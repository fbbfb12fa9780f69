"""Published speech encoders (wav2vec 2.0, HuBERT, WavLM, data2vec audio) as frames for heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .encoder import Encoder, LayerMix
from .errors import ConfigError
from .masked_norm import masked_group_norm, real_samples, zeros_behind
from .pretrained import load_speech_model, weights_digest
from .types import Frames

Tuning = Literal["frozen"]


class HFEncoder(Encoder):
    """Hidden states of a published speech encoder, and a learned mix of its layers.

    Layer ``k`` is entry ``k`` of the ``hidden_states`` of ``transformers`` 5: 0 is the input of
    the first block, ``k`` the output of block ``k``, the last one without the LayerNorm that the
    large ("stable layer norm") models put behind it. Layers above the deepest kept one are cut
    off. An utterance's frames do not depend on its neighbours or on padding, in models with a
    group-norm front end either; alone and unpadded they are those of ``transformers``.

    Audio shorter than one frame (400 samples in all published models) is padded with zeros to
    one frame, which then counts as speech.

    Args:
        name: hub id (``facebook/wav2vec2-base``) or local folder with ``config.json`` and
            ``model.safetensors``.
        revision: commit, tag or branch of a hub id; None = its main branch.
        layers: kept layers; None = all, mixed by learned softmax weights; ``[4]`` = that one,
            nothing to learn; several = these, mixed.
        tuning: ``frozen`` keeps the weights as published, runs without gradients and stays in
            evaluation mode.

    Raises:
        ConfigError: when the model cannot be loaded (see ``load_speech_model``) or lacks a layer.
    """

    def __init__(
        self,
        *,
        name: str,
        revision: str | None = None,
        layers: list[int] | None = None,
        tuning: Tuning = "frozen",
    ) -> None:
        super().__init__()
        if tuning != "frozen":
            raise ConfigError(f"encoder.tuning is '{tuning}'; have frozen")
        loaded = load_speech_model(name, revision)
        config = loaded.model.config
        self.name, self.revision, self.tuning = name, revision, tuning
        self.normalise = loaded.normalise
        self.layers = _checked(layers, config.num_hidden_layers, name)
        self._source = {
            "commit": loaded.commit,
            "normalise_from": loaded.normalise_from,
            "layers_total": config.num_hidden_layers,
        }
        self.backbone = loaded.model
        _cut(self.backbone, max(self.layers))
        self.mix = LayerMix(self.layers)
        self.dim = int(config.hidden_size)
        self.strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.storable = tuning == "frozen"
        if self.frozen:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as published."""
        return self.tuning == "frozen"

    @property
    def min_samples(self) -> int:
        """Samples that one frame needs."""
        samples = 1
        for kernel, stride in reversed(self.strides):
            samples = (samples - 1) * stride + kernel
        return samples

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """``[B]`` real samples to ``[B]`` real frames, at least one."""
        lengths = lengths.clamp_min(self.min_samples)
        for kernel, stride in self.strides:
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def train(self, mode: bool = True) -> HFEncoder:
        """Switch the mix to training; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.frozen and self.backbone.training:
            self.backbone.eval()  # somebody switched it behind our back
        with torch.no_grad() if self.frozen else nullcontext():
            longest = max(int(lengths.max()), self.min_samples)
            audio = pad(audio, (0, max(longest - audio.shape[1], 0)))[:, :longest]
            samples = real_samples(audio, lengths, normalise=self.normalise)
            frames = self._front_end(samples, lengths.clamp_min(self.min_samples))  # [B, T, C]
            counts = self.frame_counts(lengths)
            mask = torch.arange(frames.shape[1], device=frames.device) < counts[:, None]
            hidden = self.backbone.feature_projection(frames)
            # all but HuBERT's return the unprojected features as well
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            states = torch.stack(self._hidden_states(hidden, mask), 1).float()
            return states.masked_fill(~mask[:, None, :, None], 0.0), mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(self.mix(hidden).masked_fill(~mask[..., None], 0.0), mask)

    def frozen_keys(self) -> frozenset[str]:
        return frozenset(f"backbone.{key}" for key in self.backbone.state_dict())

    def extraction(self) -> dict[str, Any]:
        facts = self.describe()
        return {k: facts[k] for k in ("model_type", "weights", "layers", "normalise")}

    @property
    def bytes_per_second(self) -> float:
        return 4 * len(self.layers) * self.dim / self.frame_seconds

    def layer_weights(self) -> dict[str, float]:
        return self.mix.weights()

    def describe(self) -> dict[str, Any]:
        """What ran, for records: plain containers.

        ``weights`` is a digest of the backbone's kept weights, which tells two folders of one
        name apart, or what a branch held on two days; ``parameters`` counts what is in memory.
        """
        return {
            "type": "hf",
            "model_type": self.backbone.config.model_type,
            "name": self.name,
            "revision": self.revision,
            "weights": weights_digest(self.backbone),
            "layers": list(self.layers),
            "tuning": self.tuning,
            "dim": self.dim,
            "normalise": self.normalise,
            "parameters": sum(p.numel() for p in self.parameters()),
            **self._source,
        }

    def _front_end(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """``[B, S]`` to ``[B, T, C]``: the convolutions, and a GroupNorm of real frames only.

        A frame that counts as real sees real samples only, since nothing here pads.
        """
        x = samples[:, None]
        layers = self.backbone.feature_extractor.conv_layers
        for layer, (kernel, stride) in zip(layers, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                x = layer.activation(masked_group_norm(norm, layer.conv(x), lengths.tolist()))
            else:
                x = layer(x)
        return x.transpose(1, 2)

    def _hidden_states(self, hidden: Tensor, mask: Tensor) -> list[Tensor]:
        """Projected features ``[B, T, D]`` to the kept layers, each ``[B, T, D]``."""
        encoder = self.backbone.encoder
        convolutions = [m for m in encoder.pos_conv_embed.modules() if isinstance(m, nn.Conv1d)]
        with zeros_behind(convolutions, mask), _inputs_of(encoder.layers) as states:
            last = encoder(hidden, attention_mask=mask).last_hidden_state
        states[len(encoder.layers)] = last
        return [states[k] for k in self.layers]


def _checked(layers: list[int] | None, depth: int, name: str) -> list[int]:
    if layers is None:
        return list(range(depth + 1))
    wrong = [k for k in layers if not 0 <= k <= depth]
    if not layers or wrong or len(set(layers)) < len(layers):
        raise ConfigError(
            f"encoder.layers={layers}: '{name}' has layers 0 (input of the first block) to {depth} "
            "(output of the last); give null for all of them, or a list of different ones"
        )
    return sorted(layers)


def _cut(backbone: Any, deepest: int) -> None:
    """Remove what no kept layer needs, so that it is neither computed nor left without gradient."""
    encoder = backbone.encoder
    del encoder.layers[deepest:]
    backbone.config.num_hidden_layers = deepest
    if type(encoder).__name__.endswith("StableLayerNorm"):
        encoder.layer_norm = nn.Identity()  # it stands behind the last block, not before the first


@contextmanager
def _inputs_of(blocks: nn.ModuleList) -> Iterator[dict[int, Tensor]]:
    """While open, collect the input of block ``k`` (``[B, T, D]``) under ``k``.

    Hooks of our own: ``output_hidden_states`` returns nothing when no block is left.
    """
    states: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states[index] = args[0] if args else kwargs["hidden_states"]

        return hook

    handles = [
        block.register_forward_pre_hook(keep(k), with_kwargs=True) for k, block in enumerate(blocks)
    ]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
