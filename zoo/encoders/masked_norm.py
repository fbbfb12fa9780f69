"""What keeps an utterance's frames the same, whoever shares its batch.

Published speech encoders look past the end of an utterance in three places: the normalisation of
the samples, a GroupNorm over time in the front end, and convolutions over frames. The first and the
last have their remedies here, the second in ``convolutions.py``. None changes what a single,
unpadded utterance gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-7
"""Added to the variance of the samples, as the published feature extractors do."""


def real_samples(audio: Tensor, lengths: Tensor, *, normalise: bool) -> Tensor:
    """The samples of each utterance, zeros behind them.

    Args:
        audio: ``[B, S]``; what lies behind the real samples is ignored, whatever it is.
        lengths: ``[B]`` real samples.
        normalise: to zero mean and unit (population) variance over the real samples of each
            utterance, as the feature extractors of wav2vec 2.0 do before they pad.

    Returns:
        ``[B, S]`` float32.
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
    """While open, ``modules`` with inputs ``[B, C, T]`` see zeros where the mask is False.

    A convolution over frames pads the end of a lone utterance with zeros; in a batch it would see
    whatever the layer before it made of the padding (its bias, at least).

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
