"""The families of published speech encoders, and the contract of a family.

A :class:`Family` turns samples into the input of the first block, and calls the blocks. ``hf.py``
has the parts that all families share: the loop over blocks, the kept layers and the tuning.
:data:`FAMILIES` maps the ``model_type`` of a checkpoint to its family. The file also holds what
families share: masking of padding (:func:`real_samples`, :func:`zeros_behind`) and spectral inputs
(:func:`whisper_log_mel`, :func:`kaldi_filter_bank`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, pad, scaled_dot_product_attention
from transformers.audio_utils import mel_filter_bank, window_function
from transformers.masking_utils import create_bidirectional_mask

from ..core.errors import ConfigError
from ..core.types import SAMPLE_RATE
from .convolutions import ConvFrontEnd
from .mel import frame_mask

# The contract of a family.

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class Embedded:
    """A batch before the first block.

    Attributes:
        hidden: ``[N, T, D]``; N is B, or the number of windows of a family with a fixed input.
        mask: ``[B, T']`` mask of the output frames.
        keywords: keyword arguments of every block.
        gather: turns ``[N, T, D]`` into ``[B, T', D]``, if they differ.
    """

    hidden: Tensor
    mask: Tensor
    keywords: dict[str, Any] = field(default_factory=dict)
    gather: Callable[[Tensor], Tensor] | None = None


class Family(ABC):
    """A kind of published encoder.

    Args:
        model: the bare model of ``transformers``; its blocks are ``model.encoder.layers``.
        normalise: whether it needs utterances of zero mean and unit variance.

    Attributes:
        lora_targets: names of the linear layers that LoRA adapts by default, inside a block.
        min_samples: number of samples that one frame needs; shorter audio is padded with zeros.
        frame_seconds: distance between frames in seconds.
    """

    lora_targets: ClassVar[tuple[str, ...]] = ATTENTION
    min_samples: int
    frame_seconds: float

    def __init__(self, model: Any, normalise: bool) -> None:
        self.model, self.normalise = model, normalise
        if hasattr(model, "masked_spec_embed"):  # UniSpeech-SAT has it, but masks nothing
            del model.masked_spec_embed

    @property
    def blocks(self) -> nn.ModuleList:
        """Return the transformer (or conformer) blocks."""
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    @abstractmethod
    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over samples or spectra.

        Full tuning leaves them frozen by default.
        """

    @abstractmethod
    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return the ``[B]`` numbers of real frames, at least 1, for ``[B]`` numbers of samples."""

    @abstractmethod
    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        """Return the input of the first block.

        Args:
            audio: ``[B, S]`` samples, S at least ``min_samples``.
            lengths: ``[B]`` number of real samples.
            dtype: type of the result.
        """

    def step(
        self, block: nn.Module, hidden: Tensor, state: Tensor | None, keywords: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Call one block; return its output, and the state that it passes to the next block."""
        return block(hidden, **keywords), state

    def project(self, features: Tensor) -> Tensor:
        """Project ``[B, T, C]`` to ``[B, T, D]``."""
        hidden = self.model.feature_projection(features)
        # all models except HuBERT also return the unprojected features
        projected: Tensor = hidden[0] if isinstance(hidden, tuple) else hidden
        return projected

    def attention_mask(self, hidden: Tensor, mask: Tensor) -> Tensor | None:
        """Return the mask in the form of the model's attention, or None if nothing is padded."""
        if bool(mask.all()):
            return None
        made: Any = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=mask
        )
        wanted: Tensor | None = made
        return wanted

    def cut(self, blocks: int) -> None:
        """Remove all blocks above the given number: they are neither computed nor stored."""
        whole = blocks == len(self.blocks)
        del self.blocks[blocks:]
        self.model.config.num_hidden_layers = blocks
        self.drop_end(whole)

    def drop_end(self, whole: bool) -> None:  # noqa: B027 - most families have no such layers
        """Remove the layers after the last kept block that are not part of a hidden state."""

    def finish(self, hidden: Tensor) -> Tensor:
        """Apply what ``transformers`` applies to the last block's output to get a hidden state."""
        return hidden


def padded(audio: Tensor, samples: int) -> Tensor:
    """Return ``[B, S]`` with at least ``samples`` columns; added samples are zero."""
    return pad(audio, (0, max(samples - audio.shape[1], 0)))


# Padding must not change an utterance.
#
# Published speech encoders read beyond the end of an utterance in three places. These are the
# normalisation of the samples, a GroupNorm over time in the front end, and convolutions over
# frames. The first and the last are corrected here, the second in ``convolutions.py``. The output
# of a single utterance without padding stays the same.

EPSILON = 1e-7
"""Added to the variance of the samples, as in the published feature extractors."""


def real_samples(audio: Tensor, lengths: Tensor, *, normalise: bool) -> Tensor:
    """Return the samples of each utterance, with zeros after them.

    Args:
        audio: ``[B, S]`` samples; those after the real ones are ignored.
        lengths: ``[B]`` number of real samples.
        normalise: scale the real samples of each utterance to zero mean and unit (population)
            variance. The feature extractors of wav2vec 2.0 do so before they pad.

    Returns:
        ``[B, S]`` float32 samples.
    """
    real = torch.arange(audio.shape[1], device=audio.device) < lengths[:, None]
    x = audio.float().masked_fill(~real, 0.0)
    if not normalise:
        return x
    n = lengths[:, None].clamp_min(1)
    x = (x - x.sum(1, keepdim=True) / n).masked_fill(~real, 0.0)
    return x / torch.sqrt(x.square().sum(1, keepdim=True) / n + EPSILON)


@contextmanager
def zeros_behind(modules: Iterable[nn.Module], mask: Tensor) -> Iterator[None]:
    """Context in which ``modules`` see inputs ``[B, C, T]`` as zero where the mask is False.

    A convolution over frames pads the end of a single utterance with zeros. In a batch it would
    see the previous layer's output for the padding, which is at least its bias.

    Args:
        modules: convolutions, called with one positional argument.
        mask: ``[B, T]`` bool.
    """

    def hide(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].masked_fill(~mask[:, None], 0.0), *args[1:])

    handles = [module.register_forward_pre_hook(hide) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# Spectral inputs.
#
# Each equals the feature extractor of ``transformers`` for the same model, with its constants;
# tests compare them. They are batched and run on any device. The values of an utterance do not
# depend on its batch neighbours.

HOP, WINDOW = 160, 400  # samples: 10 ms and 25 ms, in both


def whisper_log_mel(audio: Tensor, bins: int, mask: Tensor | None = None) -> Tensor:
    """Return Whisper's log-mel spectrogram (Radford et al. 2022, arXiv 2212.04356, section 2.2).

    Args:
        audio: ``[B, S]`` float32, zero-padded to the model's window.
        bins: number of mel bins, 80 or 128.
        mask: ``[B, S / 160]`` frames that count; the others become 0. None = all of them.

    Returns:
        ``[B, bins, S / 160]``, scaled to about -1..1.5 by the utterance's own maximum.
    """
    filters = mel_filter_bank(
        1 + WINDOW // 2, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    mel = torch.from_numpy(filters).to(audio.device, torch.float32)
    window = torch.hann_window(WINDOW, device=audio.device)
    spectrum = torch.stft(audio.float(), WINDOW, HOP, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    bel = (mel.T @ power).clamp_min(1e-10).log10()
    outside = torch.zeros_like(bel[:, :1], dtype=torch.bool) if mask is None else ~mask[:, None]
    peak = bel.masked_fill(outside, -math.inf).amax((1, 2), keepdim=True)
    return ((torch.maximum(bel, peak - 8) + 4) / 4).masked_fill(outside, 0.0)


def kaldi_filter_bank(audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return 80 Kaldi log-mel energies, normalised per bin, two frames stacked (w2v-BERT 2.0).

    Args:
        audio: ``[B, S]`` float32, zero after the real samples.
        lengths: ``[B]`` number of real samples, at least 560 (two frames).

    Returns:
        ``[B, T, 160]``, zero after the real frames, and the ``[B]`` numbers of real frames.
    """
    filters = mel_filter_bank(
        257, 80, 20, SAMPLE_RATE // 2, SAMPLE_RATE,
        norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    mel = torch.from_numpy(filters).to(audio.device, torch.float64)
    window = torch.from_numpy(window_function(WINDOW, "povey", periodic=False)).to(audio.device)
    # the bins are normalised over time, which would amplify rounding errors
    frames = (audio.double() * 2**15).unfold(1, WINDOW, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    first = frames[..., :1] * (1 - 0.97)
    frames = torch.cat([first, frames[..., 1:] - 0.97 * frames[..., :-1]], -1) * window
    # round at the same place as the published extractor
    power = torch.fft.rfft(frames, n=512).to(torch.complex64).to(torch.complex128).abs().square()
    energy = (power @ mel).clamp_min(1.192092955078125e-07).log().float().double()

    counts = (lengths - WINDOW) // HOP + 1
    real = frame_mask(counts, energy.shape[1])[..., None]
    n = counts[:, None, None]
    mean = (energy * real).sum(1, keepdim=True) / n
    centred = (energy - mean) * real
    variance = centred.square().sum(1, keepdim=True) / (n - 1)
    normed = centred / torch.sqrt(variance + 1e-7)
    pairs = normed.shape[1] // 2
    stacked = normed[:, : 2 * pairs].reshape(len(audio), pairs, 160).float()
    counts = counts // 2
    return stacked * frame_mask(counts, pairs)[..., None], counts


# The families.


class ConvolutionFamily(Family):
    """wav2vec 2.0, HuBERT, data2vec audio, UniSpeech-SAT: convolutions over samples, a projection.

    The positional convolution pads a single utterance with zeros. In a batch, the end of an
    utterance would meet the output of earlier layers for the padding. ``zeros_behind`` prevents
    this.
    """

    def __init__(self, model: Any, normalise: bool) -> None:
        super().__init__(model, normalise)
        config = model.config
        self.strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.convolutions = ConvFrontEnd(model.feature_extractor)
        self.min_samples = self.samples_for(1)
        self.frame_seconds = math.prod(config.conv_stride) / SAMPLE_RATE

    def samples_for(self, frames: int) -> int:
        """Return the number of samples that so many frames of the convolutions need."""
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
        if not self.stable:  # the large models normalise inside the blocks and after them
            hidden = encoder.layer_norm(hidden)
        hidden = encoder.dropout(hidden)
        return Embedded(hidden, mask, self.keywords(hidden, mask))

    def convolve(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn ``[B, S]`` into ``[B, T, C]``; a real frame depends only on real samples."""
        samples = real_samples(audio, lengths, normalise=self.normalise)
        return self.convolutions(samples, lengths.clamp_min(self.min_samples), dtype)

    def keywords(self, hidden: Tensor, mask: Tensor) -> dict[str, Any]:
        """Return the keyword arguments of the blocks: an attention mask if there is padding."""
        return {"attention_mask": self.attention_mask(hidden, mask)}

    @property
    def stable(self) -> bool:
        """Whether the model is of the large kind ("stable layer norm")."""
        return type(self.model.encoder).__name__.endswith("StableLayerNorm")

    def drop_end(self, whole: bool) -> None:
        if self.stable:
            self.model.encoder.layer_norm = nn.Identity()


class WavLMFamily(ConvolutionFamily):
    """WavLM: blocks share a bias of relative positions, and each block gates it.

    WavLM's attention in ``transformers`` reads the weights of its projections and does not call
    them. So adapters on them would silently have no effect. This family calls them.
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
    """Compute WavLM's attention through its projections.

    After Chen et al. 2022 (arXiv 2110.13900, equations 2 to 8).

    Args:
        self: the model's attention module.
        hidden_states: ``[B, T, D]``.
        attention_mask: ``[B, T]`` bool, True = speech, or None.
        gated_position_bias: ``[B * heads, T, T]``.

    Returns:
        ``[B, T, D]``, and None instead of attention weights.
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
    """SEW: its blocks see frames that are squeezed in time; the output has these frames too.

    The upsampling after the last block is left out. It doubles the frames without new information
    (our choice; hidden states of ``transformers`` are squeezed too).
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
    """Whisper's encoder: it reads a window of fixed length, padded by silence.

    The published window is 30 s. A shorter one uses the first positions, and costs less. Longer
    audio is read in windows that overlap by a fifth. A frame is taken from the window in whose
    middle it lies. Frames of the padding are left out of the result. The last state is the one
    after the final norm, as in ``transformers``.

    Attributes:
        window: length of the window in samples, a multiple of 320.
        own_windows: each utterance has a window of its own. It holds the utterance and silence up
            to the next second, and is at most ``window``.
    """

    frame_seconds = 2 * HOP / SAMPLE_RATE
    min_samples = 1

    def __init__(self, model: Any, normalise: bool) -> None:
        super().__init__(model, normalise)
        model.decoder = nn.Identity()
        self.longest = int(model.encoder.max_source_positions) * 2 * HOP
        self.window = self.longest
        self.own_windows = False

    def read_in(self, window: float | str) -> None:
        """Choose the window.

        Args:
            window: length in seconds, or ``auto`` for ``own_windows``.

        Raises:
            ConfigError: if it is longer than the published window, or shorter than 0.1 s.
        """
        seconds = self.longest / SAMPLE_RATE
        if isinstance(window, str):
            self.own_windows = True
            return
        if not 0.1 <= window <= seconds:
            raise ConfigError(
                f"encoder.window={window:g}: this model reads at most {seconds:g} s at once; give "
                f"a number of seconds from 0.1 to {seconds:g}, or auto"
            )
        self.window = round(window * SAMPLE_RATE / (2 * HOP)) * 2 * HOP

    def front_end(self) -> list[nn.Module]:
        return [self.model.encoder.conv1, self.model.encoder.conv2]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        step = 2 * HOP
        return (lengths.clamp_min(1) + step - 1) // step

    def embed(self, audio: Tensor, lengths: Tensor, dtype: torch.dtype) -> Embedded:
        encoder = self.model.encoder
        samples = real_samples(audio, lengths, normalise=self.normalise)
        sizes = [self._window_of(n) for n in lengths.tolist()]
        starts = [self._starts(n) for n in lengths.tolist()]
        pieces = [(i, start) for i, row in enumerate(starts) for start in row]
        longest = max(sizes)
        cut = torch.stack([_piece(samples[i], start, sizes[i], longest) for i, start in pieces])
        mel = whisper_log_mel(cut, self.model.config.num_mel_bins).to(dtype)
        inside = torch.tensor([sizes[i] for i, _ in pieces], device=audio.device) // HOP
        # outside of its window, an utterance must see what a convolution sees at the edge: zeros
        real = frame_mask(inside, mel.shape[-1])
        x = gelu(encoder.conv1(mel.masked_fill(~real[:, None], 0.0)))
        x = gelu(encoder.conv2(x.masked_fill(~real[:, None], 0.0))).transpose(1, 2)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        hidden = dropout(x, encoder.dropout, encoder.training)
        seen = self.attention_mask(hidden, frame_mask(inside // 2, x.shape[1]))
        counts = self.frame_counts(lengths)
        window, place = self._places(counts.tolist(), starts)

        def gather(state: Tensor) -> Tensor:
            return state[window.to(state.device), place.to(state.device)]

        mask = frame_mask(counts, int(counts.max()))
        return Embedded(hidden, mask, {"attention_mask": seen}, gather)

    def _window_of(self, length: int) -> int:
        """Return the samples of an utterance's window."""
        if not self.own_windows:
            return self.window
        # the last frame must hear silence, and not the mirrored audio at the end of the tensor
        seconds = math.ceil((length + WINDOW) / SAMPLE_RATE)
        return min(seconds * SAMPLE_RATE, self.window)

    def _starts(self, length: int) -> list[int]:
        """Return the first sample of each window of an utterance."""
        if length <= self.window:
            return [0]
        hop = self._hop
        return [k * hop for k in range(1 + math.ceil((length - self.window) / hop))]

    @property
    def _hop(self) -> int:
        return self.window * 4 // 5 // (2 * HOP) * 2 * HOP

    def _places(self, counts: list[int], starts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return the window of each frame, and its place there: ``[B, T]`` each."""
        longest, step = max(counts), 2 * HOP
        window = torch.zeros(len(counts), longest, dtype=torch.long)
        place = torch.zeros_like(window)
        hop, overlap = self._hop // step, (self.window - self._hop) // step
        first = 0
        for i, (count, row) in enumerate(zip(counts, starts, strict=True)):
            frame = torch.arange(count)
            number = ((frame - overlap // 2) // hop).clamp(0, len(row) - 1)
            window[i, :count] = first + number
            place[i, :count] = frame - number * hop
            first += len(row)
        return window, place

    def drop_end(self, whole: bool) -> None:
        self.model.config.encoder_layers = len(self.blocks)
        if not whole:
            self.model.encoder.layer_norm = nn.Identity()

    def finish(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.model.encoder.layer_norm(hidden)
        return normed


def _piece(samples: Tensor, start: int, size: int, longest: int) -> Tensor:
    """Return ``size`` samples from ``start``, with zeros up to ``longest``."""
    piece = samples[start : start + size]
    return pad(piece, (0, longest - piece.shape[0]))


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
"""Maps the ``model_type`` in a checkpoint's ``config.json`` to its family."""
