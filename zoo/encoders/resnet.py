"""ResNet-50 on log-mel spectrograms: the speech-only encoder of LanSER, trained from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from ..core.errors import ConfigError
from ..core.registry import Amount, Count, Size
from ..core.types import Frames
from .mel import OnMel, strides_first

Four = tuple[int, int, int, int]


class ResNetEncoder(OnMel):
    """Log-mel spectrogram to frames of 512 ms, by the ResNet-50 of ``transformers``.

    LanSER (Gong et al. 2023, arXiv 2309.03978) trains a ResNet-50 (He et al. 2016) on log-mel
    spectrograms. Its front end and training are not published, so ours replace them. ``extract``
    and the augmentation are those of the log-mel encoder. The one input channel is the spectrogram
    minus its mean level, which keeps timbre and removes loudness. There are no pretrained weights.
    Frames are the last stage averaged over its bands, so heads pool over time as usual.

    Evaluation is float32, and the frames of an utterance do not depend on its neighbours. Layers
    that look beyond the end of an utterance see zeros there, as if it were alone.

    Args:
        bands: number of mel bands, more than 32.
        depths: bottleneck blocks of the four stages.
        widths: channels of the four stages, multiples of 4; the last is ``D``.
        stretch: largest change of tempo in training, as a natural logarithm.
        shift: largest shift along the mel axis in training, in bands.
        masks: number of hidden stretches per axis in training.
        bfloat16: convolve in bfloat16 in training, as the log-mel encoder does; weights and
            statistics stay float32.

    Raises:
        ConfigError: if bands, depths or widths do not give such a network.
    """

    stride = 32  # frames of 16 ms

    def __init__(
        self,
        *,
        bands: Size = 64,
        depths: Four = (3, 4, 6, 3),
        widths: Four = (256, 512, 1024, 2048),
        stretch: Amount = 0.2,
        shift: Amount = 3.0,
        masks: Count = 2,
        bfloat16: bool = True,
    ) -> None:
        _check(bands, list(depths), list(widths))
        super().__init__(
            widths[-1], bands, stretch=stretch, shift=shift, masks=masks, bfloat16=bfloat16
        )
        self.network = ResNetModel(
            ResNetConfig(
                num_channels=1,
                embedding_size=widths[0] // 4,
                hidden_sizes=list(widths),
                depths=list(depths),
                layer_type="bottleneck",
            )
        )
        # these layers see more than one frame, so they also look beyond the last one
        self.wide = [m for m in self.network.modules() if _sees_neighbours(m)]
        strides_first(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        x, mask, frames = self.prepared(hidden, mask)
        x = self.with_holes(_less_level(x, mask))
        with self.autocast(x), _zeros_behind(self.wide, mask):
            x = self.network.embedder(x.contiguous(memory_format=torch.channels_last))
            x = self.network.encoder(x).last_hidden_state  # [B, D, T / 32, bands / 32]
        x = x.float().mean(3).transpose(1, 2)[:, :frames]
        mask = mask[:, :: self.stride][:, :frames]
        return Frames(x * mask[..., None], mask)


def _check(bands: int, depths: list[int], widths: list[int]) -> None:
    wrong = []
    if bands <= 32:
        # two bands must remain: batch normalisation of one short utterance needs two values
        wrong.append(f"encoder.bands={bands} must be above 32: the network turns 32 bands into one")
    if len(depths) != 4 or min(depths) < 1:
        wrong.append(f"encoder.depths={depths} must be four numbers of blocks, each 1 or more")
    if len(widths) != 4 or min(widths) < 4 or any(w % 4 for w in widths):
        wrong.append(f"encoder.widths={widths} must be four multiples of 4")
    if wrong:
        raise ConfigError(
            "; ".join(wrong)
            + "; ResNet-50 has 64 bands, depths [3, 4, 6, 3] and widths 256 to 2048"
        )


def _sees_neighbours(module: nn.Module) -> bool:
    if isinstance(module, nn.MaxPool2d):
        return True
    return isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1


def _less_level(x: Tensor, mask: Tensor) -> Tensor:
    """Return ``[B, 1, T, F]`` minus the mean of each utterance's real cells; zero after them."""
    cells = mask[:, None, :, None].to(x.dtype)
    level = (x * cells).sum((2, 3), keepdim=True) / (cells.sum((2, 3), keepdim=True) * x.shape[3])
    return (x - level) * cells


@contextmanager
def _zeros_behind(modules: list[nn.Module], mask: Tensor) -> Iterator[None]:
    """Context in which inputs ``[B, C, T', F']`` of ``modules`` are zero after the real frames.

    Every layer that shortens time halves it, rounded up, so the length identifies the mask. The
    pooling pads with minus infinity, but its input comes from a ReLU, so zeros have the same
    effect.

    Args:
        modules: convolutions and poolings, called with one positional argument.
        mask: ``[B, T]`` bool of the spectrogram.
    """
    if bool(mask.all()):
        yield
        return
    masks = {mask.shape[1]: mask}
    while mask.shape[1] > 1:
        mask = mask[:, ::2]
        masks[mask.shape[1]] = mask

    def hide_padding(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        return (x * masks[x.shape[2]][:, None, :, None].to(x.dtype), *args[1:])

    handles = [module.register_forward_pre_hook(hide_padding) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
