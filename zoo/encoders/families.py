"""The families of published speech encoders, each after the contract in ``family.py``."""

from __future__ import annotations

import math
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, scaled_dot_product_attention

from ..types import SAMPLE_RATE
from .convolutions import ConvFrontEnd
from .family import Embedded, Family
from .masked_norm import real_samples, zeros_behind
from .mel_spectrogram import frame_mask
from .spectra import HOP, kaldi_filter_bank, whisper_log_mel, windows


class ConvolutionFamily(Family):
    """wav2vec 2.0, HuBERT, data2vec audio, UniSpeech-SAT: convolutions over samples, a projection.

    An utterance alone is zero-padded by the positional convolution; in a batch, its end would meet
    what the layers before made of the padding. ``zeros_behind`` keeps it as if alone.
    """

    def __init__(self, model: Any, normalise: bool) -> None:
        super().__init__(model, normalise)
        config = model.config
        self.strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.convolutions = ConvFrontEnd(model.feature_extractor)
        self.min_samples = self.samples_for(1)
        self.frame_seconds = math.prod(config.conv_stride) / SAMPLE_RATE

    def samples_for(self, frames: int) -> int:
        """Samples that so many frames of the convolutions need."""
        for kernel, stride in reversed(self.strides):
            frames = (frames - 1) * stride + kernel
        return frames

    def front_end(self) -> list[nn.Module]:
        return [self.model.feature_extractor]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        lengths = lengths.clamp_min(self.min_samples)
        for kernel, stride in self.strides:
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        x = self.project(self.convolve(audio, lengths, dtype))
        mask = frame_mask(self.frame_counts(lengths), x.shape[1])
        hidden = x.masked_fill(~mask[..., None], 0.0)
        encoder = self.model.encoder
        convolutions = [m for m in encoder.pos_conv_embed.modules() if isinstance(m, nn.Conv1d)]
        with zeros_behind(convolutions, mask):
            hidden = hidden + encoder.pos_conv_embed(hidden)
        if not self.stable:  # the large models normalise inside the blocks, and behind them
            hidden = encoder.layer_norm(hidden)
        hidden = encoder.dropout(hidden)
        return Embedded(hidden, mask, self.keywords(hidden, mask))

    def convolve(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
        """``[B, S]`` to ``[B, T, C]``; a frame that counts as real sees real samples only."""
        samples = real_samples(audio, lengths, normalise=self.normalise)
        return self.convolutions(samples, lengths.clamp_min(self.min_samples), dtype)

    def keywords(self, hidden: Tensor, mask: Tensor) -> dict[str, Any]:
        """What the blocks are called with: a mask of attention where there is padding."""
        return {"attention_mask": self.attention_mask(hidden, mask)}

    @property
    def stable(self) -> bool:
        """Whether it is of the large kind ("stable layer norm")."""
        return type(self.model.encoder).__name__.endswith("StableLayerNorm")

    def drop_end(self, whole: bool) -> None:
        if self.stable:
            self.model.encoder.layer_norm = nn.Identity()


class WavLMFamily(ConvolutionFamily):
    """WavLM: blocks share a bias of relative positions, gated by each block.

    Its attention reads the weights of its projections instead of calling them, so that an adapter
    on them would be silently dead; it is replaced by one that calls them.
    """

    def __init__(self, model: Any, normalise: bool) -> None:
        super().__init__(model, normalise)
        for block in self.blocks:
            attention: Any = block.attention
            attention.torch_multi_head_self_attention = MethodType(gated_attention, attention)

    def keywords(self, hidden: Tensor, mask: Tensor) -> dict[str, Any]:
        return {"attention_mask": None if bool(mask.all()) else mask}

    def step(
        self, block: nn.Module, hidden: Tensor, state: Tensor | None, keywords: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        out, bias = block(hidden, position_bias=state, **keywords)
        return out, bias


def gated_attention(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
) -> tuple[Tensor, None]:
    """WavLM's attention through its projections (Chen et al. 2022, arXiv 2110.13900, eq. 2 to 8).

    Args:
        self: the model's attention module.
        hidden_states: ``[B, T, D]``.
        attention_mask: ``[B, T]`` bool, True = speech, or None.
        gated_position_bias: ``[B * heads, T, T]``.

    Returns:
        ``[B, T, D]``, and no weights.
    """
    B, T, D = hidden_states.shape
    query, key, value = (
        projection(hidden_states).view(B, T, self.num_heads, -1).transpose(1, 2)
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    bias = gated_position_bias.view(B, self.num_heads, T, T).to(query.dtype)
    if attention_mask is not None:
        bias = bias.masked_fill(~attention_mask[:, None, None], float("-inf"))
    share = self.dropout if self.training else 0.0
    heads = scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=share)
    out: Tensor = self.out_proj(heads.transpose(1, 2).reshape(B, T, D))
    return out, None


class SEWFamily(ConvolutionFamily):
    """SEW: its blocks see frames squeezed in time; these are the frames that come out.

    The upsampling behind the last block is left out, since it adds nothing to what a head learns
    from and doubles the frames (our choice; hidden states of ``transformers`` are squeezed too).
    """

    def __init__(self, model: Any, normalise: bool) -> None:
        super().__init__(model, normalise)
        self.squeeze = int(model.config.squeeze_factor)
        self.min_samples = self.samples_for(self.squeeze)
        self.frame_seconds *= self.squeeze

    def frame_counts(self, lengths: Tensor) -> Tensor:
        return super().frame_counts(lengths) // self.squeeze

    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        x = self.project(self.convolve(audio, lengths, dtype))
        mask = frame_mask(super().frame_counts(lengths), x.shape[1])
        wide = x.masked_fill(~mask[..., None], 0.0).transpose(1, 2)
        encoder = self.model.encoder
        position, pooled = encoder.pos_conv_embed(wide), encoder.pool(wide)
        size = min(position.shape[-1], pooled.shape[-1])
        hidden = (pooled[..., :size] + position[..., :size]).transpose(1, 2)
        mask = frame_mask(self.frame_counts(lengths), size)
        hidden = encoder.dropout(encoder.layer_norm(hidden))
        return Embedded(hidden, mask, self.keywords(hidden, mask))

    def project(self, features: Tensor) -> Tensor:
        model = self.model
        hidden = model.layer_norm(features)
        if model.project_features:
            hidden = model.feature_projection(hidden)
        projected: Tensor = model.feature_dropout(hidden)
        return projected

    def drop_end(self, whole: bool) -> None:
        self.model.encoder.upsample = nn.Identity()


class Wav2Vec2BertFamily(Family):
    """w2v-BERT 2.0: conformer blocks over a filter bank, two frames of 10 ms stacked."""

    lora_targets = ("linear_q", "linear_k", "linear_v", "linear_out")
    min_samples = 560  # two frames of the filter bank
    frame_seconds = 2 * HOP / SAMPLE_RATE

    def front_end(self) -> list[nn.Module]:
        return []

    def frame_counts(self, lengths: Tensor) -> Tensor:
        return ((lengths.clamp_min(self.min_samples) - 400) // HOP + 1) // 2

    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        samples = real_samples(audio, lengths, normalise=self.normalise)
        bank, counts = kaldi_filter_bank(samples, lengths.clamp_min(self.min_samples))
        mask = frame_mask(counts, bank.shape[1])
        hidden = self.project(bank.to(dtype)).masked_fill(~mask[..., None], 0.0)
        encoder = self.model.encoder
        hidden = encoder.dropout(hidden)
        positions = encoder.embed_positions
        keywords = {
            "attention_mask": self.attention_mask(hidden, mask),
            "conv_attention_mask": mask,
            "relative_position_embeddings": None if positions is None else positions(hidden),
        }
        return Embedded(hidden, mask, keywords)


class WhisperFamily(Family):
    """Whisper's encoder: always a whole window (30 s as published), silence behind the speech.

    Longer audio is read window by window. Frames of the silence are left out of the result. The
    last state is the one behind the final norm, as ``transformers`` has it.
    """

    frame_seconds = 2 * HOP / SAMPLE_RATE
    min_samples = 1

    def __init__(self, model: Any, normalise: bool) -> None:
        super().__init__(model, normalise)
        model.decoder = nn.Identity()
        self.window = model.encoder.max_source_positions * 2 * HOP  # samples

    def front_end(self) -> list[nn.Module]:
        return [self.model.encoder.conv1, self.model.encoder.conv2]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        step = 2 * HOP
        return (lengths.clamp_min(1) + step - 1) // step

    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        encoder = self.model.encoder
        samples = windows(real_samples(audio, lengths, normalise=self.normalise), self.window)
        B, number, _ = samples.shape
        starts = torch.arange(number, device=audio.device) * self.window
        used = (starts < lengths.clamp_min(1)[:, None]).flatten()  # [B * number]
        mel = whisper_log_mel(samples.flatten(0, 1)[used], self.model.config.num_mel_bins)
        x = gelu(encoder.conv2(gelu(encoder.conv1(mel.to(dtype))))).transpose(1, 2)
        hidden = dropout(x + encoder.embed_positions.weight, encoder.dropout, encoder.training)
        counts = self.frame_counts(lengths)
        longest = int(counts.max())

        def gather(state: Tensor) -> Tensor:
            every = state.new_zeros(B * number, *state.shape[1:])
            every[used] = state
            return every.view(B, -1, state.shape[-1])[:, :longest]

        mask = frame_mask(counts, longest)
        return Embedded(hidden, mask, {"attention_mask": None}, gather)

    def drop_end(self, whole: bool) -> None:
        self.model.config.encoder_layers = len(self.blocks)
        if not whole:
            self.model.encoder.layer_norm = nn.Identity()

    def finish(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.model.encoder.layer_norm(hidden)
        return normed


FAMILIES: dict[str, type[Family]] = {
    "wav2vec2": ConvolutionFamily,
    "hubert": ConvolutionFamily,
    "wavlm": WavLMFamily,
    "data2vec-audio": ConvolutionFamily,
    "unispeech-sat": ConvolutionFamily,
    "sew": SEWFamily,
    "wav2vec2-bert": Wav2Vec2BertFamily,
    "whisper": WhisperFamily,
}
"""``model_type`` of a checkpoint's ``config.json`` to how it is run."""
