"""The convolutions over samples of the wav2vec 2.0 family, without their detours.

Written as PyTorch modules they take half of an encoder's time on a processor. Three remedies, none
of which changes what is computed:

* a GroupNorm with a group per channel is linear in each utterance, once its statistics are known,
  and those of ``w . x`` follow from the mean and the covariance of the windows ``x`` that the first
  convolution sees: ten samples each. So the norm becomes part of that convolution's weights, an
  utterance at a time, and no pass over its 512 channels is left (our choice);
* frames lie in rows ``[T, C]``, where a convolution is a matrix product of overlapping windows,
  for which processors have units that convolutions in bfloat16 do not reach;
* utterances pass one by one, in pieces of some seconds, all layers at once: what is passed from one
  layer to the next stays in the caches, and padding is never computed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, layer_norm

from ..core.errors import ConfigError

PIECE = 150
"""Frames of a piece: 3 s in published models (our choice; measured best from 2 to 4 s)."""


class ConvFrontEnd:
    """The ``feature_extractor`` of a published model, as a function of padded samples.

    On a processor and without gradients it works by matrix products, row by row; otherwise (on an
    accelerator, or when a weight is trained) by convolutions of the whole batch. Either way a real
    frame depends on its own utterance's real samples only.

    A plain object, so that the model's modules, state dict and checkpoints know nothing of it. It
    refers to the weights, which stay where they are, and keeps them in the shape that products
    want; when they have changed since, it looks again. Like autograd it cannot see changes through
    ``parameter.data`` that keep the storage.

    Args:
        feature_extractor: of a model of ``transformers``, with ``conv_layers``.

    Raises:
        ConfigError: when a layer is of a kind that published models do not have.
    """

    def __init__(self, feature_extractor: nn.Module) -> None:
        layers: Any = feature_extractor.conv_layers
        self.layers = layers
        self.kernels = [layer.conv.kernel_size[0] for layer in layers]
        self.strides = [layer.conv.stride[0] for layer in layers]
        for k, layer in enumerate(layers):
            _check(k, layer)
        self._kept: tuple[Any, list[tuple[Tensor, Tensor | None]], list[Tensor]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # copies make their own

    def __call__(self, samples: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
        """Frames of samples.

        Args:
            samples: ``[B, S]`` float32, zeros behind the real ones.
            lengths: ``[B]`` real samples, enough for a frame each.
            dtype: of the frames and of all layers but the first, whose statistics and products
                are float32.

        Returns:
            ``[B, T, C]``, zeros behind the real frames.
        """
        with torch.autocast(samples.device.type, enabled=False):  # dtype has it
            weights = (p for layer in self.layers for p in layer.parameters())
            trained = samples.requires_grad or any(p.requires_grad for p in weights)
            if samples.device.type == "cpu" and not (trained and torch.is_grad_enabled()):
                return self._by_products(samples, lengths.tolist(), dtype)
            return self._by_convolutions(samples, lengths, dtype)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """``[B]`` real samples to ``[B]`` real frames."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _by_products(self, samples: Tensor, lengths: list[int], dtype: torch.dtype) -> Tensor:
        counts = self.frame_counts(torch.tensor([samples.shape[1], *lengths])).tolist()
        channels = self.layers[-1].conv.out_channels
        frames = samples.new_zeros(len(lengths), counts[0], channels, dtype=dtype)
        matrices = self._matrices(dtype)
        hop, seen = math.prod(self.strides), _receptive(self.kernels, self.strides)
        for i, (length, count) in enumerate(zip(lengths, counts[1:], strict=True)):
            weight, bias = self._first(samples[i : i + 1, :length], None)
            for begin in range(0, count, PIECE):
                end = min(begin + PIECE, count)
                x = samples[i, begin * hop : (end - 1) * hop + seen]
                x = x.unfold(0, self.kernels[0], self.strides[0]) @ weight[0]
                x = self._behind_first(x if bias is None else x.add_(bias[0]), dtype)
                for k, (matrix, shift) in enumerate(matrices, 1):
                    x = _convolved(x, matrix, shift, self.strides[k])
                    x = self.layers[k].activation(_normed(self.layers[k], x))
                frames[i, begin:end] = x
        return frames

    def _by_convolutions(self, samples: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
        kernel, stride = self.kernels[0], self.strides[0]
        counts = (lengths - kernel) // stride + 1
        weight, bias = self._first(samples, counts)
        x = samples.unfold(1, kernel, stride) @ weight  # [B, T0, C]
        x = self._behind_first(x if bias is None else x + bias[:, None], dtype)
        for layer, stride in zip(self.layers[1:], self.strides[1:], strict=True):
            shift = None if layer.conv.bias is None else layer.conv.bias.to(dtype)
            x = conv1d(x.transpose(1, 2), layer.conv.weight.to(dtype), shift, stride)
            x = layer.activation(_normed(layer, x.transpose(1, 2)))
        real = torch.arange(x.shape[1], device=x.device) < self.frame_counts(lengths)[:, None]
        return x.masked_fill(~real[..., None], 0.0)

    def _first(self, samples: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight ``[B or 1, kernel, C]`` and bias ``[B or 1, C]`` of the first layer, float32.

        Args:
            samples: ``[B, S]``.
            counts: ``[B]`` frames of the first layer that are real; None = all of them.
        """
        conv, norm = self.layers[0].conv, getattr(self.layers[0], "layer_norm", None)
        weight = conv.weight[:, 0].t()
        if not isinstance(norm, nn.GroupNorm):
            bias = None if conv.bias is None else conv.bias.float()[None]
            return weight.float()[None], bias
        # the convolution's own bias shifts the mean, which the norm takes away
        mean, covariance = _moments(samples.unfold(1, self.kernels[0], self.strides[0]), counts)
        weight = weight.double()
        variance = (weight * (covariance @ weight)).sum(1).clamp_min(0.0)  # [B, C]
        scale = norm.weight.double() * (variance + norm.eps).rsqrt()
        shift = norm.bias.double() - (mean @ weight) * scale
        return (weight * scale[:, None]).float(), shift.float()

    def _behind_first(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Float32 ``[..., C]`` of the first convolution, its GroupNorm in it, to ``dtype``."""
        return self.layers[0].activation(_normed(self.layers[0], x).to(dtype))  # type: ignore[no-any-return]

    @torch.no_grad()
    def _matrices(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor | None]]:
        """``[kernel * C_in, C_out]`` and bias of every layer but the first."""
        convs = [layer.conv for layer in self.layers[1:]]
        weights = [w for conv in convs for w in (conv.weight, conv.bias) if w is not None]
        state = (dtype, *((w.data_ptr(), w.dtype, _changes(w)) for w in weights))
        if self._kept is None or self._kept[0] != state:
            matrices = [
                (
                    conv.weight.to(dtype).permute(2, 1, 0).flatten(0, 1),
                    None if conv.bias is None else conv.bias.to(dtype),
                )
                for conv in convs
            ]
            # the weights themselves are held, so that no others can come to lie at their address
            self._kept = (state, matrices, [w.detach() for w in weights])
        return self._kept[1]


def _changes(weight: Tensor) -> int | None:
    """How often autograd saw the weight change; inference tensors do not count, nor change."""
    return None if weight.is_inference() else weight._version


def _check(index: int, layer: Any) -> None:
    """Refuse what the formulas of this file do not cover."""
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    plain = conv.padding == (0,) and conv.dilation == (1,) and conv.groups == 1
    single = isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels and index == 0
    if not plain or not (norm is None or isinstance(norm, nn.LayerNorm) or single):
        raise ConfigError(
            f"layer {index} of the front end is {conv} with norm {norm}; have convolutions without "
            "padding, dilation or groups, with a LayerNorm, no norm, or in the first layer a "
            "GroupNorm of one group per channel"
        )


def _receptive(kernels: list[int], strides: list[int]) -> int:
    """Samples that one frame sees."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def _moments(windows: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean ``[B, k]`` and (population) covariance ``[B, k, k]`` of windows, float64.

    Args:
        windows: ``[B, T, k]``.
        counts: ``[B]`` leading windows that count; None = all.
    """
    x = windows.double()
    if counts is None:
        n = torch.full((1, 1), x.shape[1], device=x.device)
    else:
        real = torch.arange(x.shape[1], device=x.device) < counts[:, None]
        x, n = x.masked_fill(~real[..., None], 0.0), counts[:, None]
    mean = x.sum(1) / n
    # the mean is small beside the deviation, if not zero: float64 leaves enough of the difference
    return mean, x.mT @ x / n[..., None] - mean[:, :, None] * mean[:, None]


def _normed(layer: Any, x: Tensor) -> Tensor:
    """The LayerNorm of a layer that has one, ``[..., C]``; a GroupNorm is in the weights."""
    norm = getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.LayerNorm):
        return x
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    return layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def _convolved(x: Tensor, matrix: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A convolution of rows ``[T, C]`` with ``[kernel * C, C_out]``: ``[T', C_out]``.

    The windows' first ``stride`` rows do not overlap and are a view without a copy; nor do those
    that remain, when they are no more.
    """
    channels = x.shape[1]
    kernel = len(matrix) // channels
    rows = (len(x) - kernel) // stride + 1
    whole = min(stride, kernel) * channels

    def windows(rest: Tensor, width: int) -> Tensor:
        return rest.unfold(0, width, stride)[:rows].transpose(1, 2).flatten(1)

    out = windows(x, min(stride, kernel)) @ matrix[:whole]
    if kernel > stride:
        out.addmm_(windows(x[stride:], kernel - stride), matrix[whole:])
    return out if bias is None else out.add_(bias)
