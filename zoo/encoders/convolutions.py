"""A fast form of the convolutions over samples in the wav2vec 2.0 family.

As PyTorch modules these convolutions take half of an encoder's time on a processor. Three changes
make them faster without changing the result:

* A GroupNorm with one group per channel is linear in each utterance, once its statistics are known.
  The statistics of ``w . x`` follow from the mean and covariance of the first convolution's windows
  ``x`` of ten samples. So the norm becomes part of that convolution's weights, one utterance at a
  time. No pass over its 512 channels remains (our choice).
* Frames are rows ``[T, C]``. A convolution is then a matrix product of overlapping windows.
  Processors have fast units for this, which convolutions in bfloat16 do not use.
* Utterances are processed one by one, in pieces of some seconds, through all layers at once. The
  data between layers stays in the caches, and padding is never computed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, layer_norm

from ..core.errors import ConfigError

PIECE = 150
"""Frames of a piece: 3 s in published models (our choice; 2 to 4 s measured best)."""


class ConvFrontEnd:
    """The ``feature_extractor`` of a published model, as a function of padded samples.

    On a processor and without gradients it uses matrix products, row by row. Otherwise (on an
    accelerator, or if a weight is trained) it uses convolutions of the whole batch. In both cases
    a real frame depends only on the real samples of its own utterance.

    It is a plain object, not a module, so it is not part of the state dict or the checkpoints. It
    refers to the weights and caches them in the shape that the products need. If the weights
    change, it updates the cache. Like autograd it cannot see changes through ``parameter.data``
    that keep the storage.

    Args:
        feature_extractor: the front end of a model of ``transformers``, with ``conv_layers``.

    Raises:
        ConfigError: if a layer is of a kind that published models do not have.
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
        return {**self.__dict__, "_kept": None}  # a copy builds its own cache

    def __call__(self, samples: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the frames of samples.

        Args:
            samples: ``[B, S]`` float32, zero after the real samples.
            lengths: ``[B]`` number of real samples, enough for one frame each.
            dtype: type of the frames and of all layers except the first one, whose statistics
                and products are float32.

        Returns:
            ``[B, T, C]`` frames, zero after the real frames.
        """
        with torch.autocast(samples.device.type, enabled=False):  # dtype replaces autocast
            weights = (p for layer in self.layers for p in layer.parameters())
            trained = samples.requires_grad or any(p.requires_grad for p in weights)
            if samples.device.type == "cpu" and not (trained and torch.is_grad_enabled()):
                return self._by_products(samples, lengths.tolist(), dtype)
            return self._by_convolutions(samples, lengths, dtype)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return the ``[B]`` numbers of real frames for ``[B]`` numbers of real samples."""
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
        """Return weight ``[B or 1, kernel, C]`` and bias ``[B or 1, C]`` of the first layer.

        Both are float32, and the GroupNorm is part of them.

        Args:
            samples: ``[B, S]`` samples.
            counts: ``[B]`` number of real frames of the first layer; None = all are real.
        """
        conv, norm = self.layers[0].conv, getattr(self.layers[0], "layer_norm", None)
        weight = conv.weight[:, 0].t()
        if not isinstance(norm, nn.GroupNorm):
            bias = None if conv.bias is None else conv.bias.float()[None]
            return weight.float()[None], bias
        # the convolution's own bias shifts the mean, which the norm removes
        mean, covariance = _moments(samples.unfold(1, self.kernels[0], self.strides[0]), counts)
        weight = weight.double()
        variance = (weight * (covariance @ weight)).sum(1).clamp_min(0.0)  # [B, C]
        scale = norm.weight.double() * (variance + norm.eps).rsqrt()
        shift = norm.bias.double() - (mean @ weight) * scale
        return (weight * scale[:, None]).float(), shift.float()

    def _behind_first(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Finish the first layer: add bias and activation to float32 ``[..., C]``, as ``dtype``."""
        return self.layers[0].activation(_normed(self.layers[0], x).to(dtype))  # type: ignore[no-any-return]

    @torch.no_grad()
    def _matrices(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor | None]]:
        """Return ``[kernel * C_in, C_out]`` and the bias of every layer except the first."""
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
            # hold the weights themselves, so that no other tensor can get their address
            self._kept = (state, matrices, [w.detach() for w in weights])
        return self._kept[1]


def _changes(weight: Tensor) -> int | None:
    """Return how often autograd saw the weight change.

    Inference tensors have no such count, and do not change.
    """
    return None if weight.is_inference() else weight._version


def _check(index: int, layer: Any) -> None:
    """Check that the formulas of this file cover a layer."""
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    plain = conv.padding == (0,) and conv.dilation == (1,) and conv.groups == 1
    single = isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels and index == 0
    if not plain or not (norm is None or isinstance(norm, nn.LayerNorm) or single):
        raise ConfigError(
            f"layer {index} of the front end is {conv} with norm {norm}; a convolution must be "
            "without padding, dilation and groups; its norm may be a LayerNorm or none; the first "
            "layer may have a GroupNorm of one group per channel; choose another encoder"
        )


def _receptive(kernels: list[int], strides: list[int]) -> int:
    """Return the number of samples that one frame sees."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def _moments(windows: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean ``[B, k]`` and (population) covariance ``[B, k, k]`` of windows, float64.

    Args:
        windows: ``[B, T, k]`` windows.
        counts: ``[B]`` number of leading windows that count; None = all.
    """
    x = windows.double()
    if counts is None:
        n = torch.full((1, 1), x.shape[1], device=x.device)
    else:
        real = torch.arange(x.shape[1], device=x.device) < counts[:, None]
        x, n = x.masked_fill(~real[..., None], 0.0), counts[:, None]
    mean = x.sum(1) / n
    # the mean is small compared with the deviation: float64 is precise enough for the difference
    return mean, x.mT @ x / n[..., None] - mean[:, :, None] * mean[:, None]


def _normed(layer: Any, x: Tensor) -> Tensor:
    """Apply the LayerNorm of a layer to ``[..., C]``, if it has one.

    A GroupNorm is in the weights.
    """
    norm = getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.LayerNorm):
        return x
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    return layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def _convolved(x: Tensor, matrix: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Return the convolution of rows ``[T, C]`` with ``[kernel * C, C_out]``: ``[T', C_out]``.

    The first ``stride`` rows of the windows do not overlap, so they are a view without a copy.
    The same holds for the remaining rows, if there are at most ``stride`` of them.
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
