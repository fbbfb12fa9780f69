"""Every registered encoder keeps the contract, and the kit catches those that do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import tells
from serzoo.zoo.core import registry
from serzoo.zoo.core.encoder import Encoder
from serzoo.zoo.core.types import Frames
from serzoo.zoo.encoders.functionals import FunctionalsEncoder
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.encoders.opensmile import OpenSmileEncoder
from serzoo.zoo.encoders.resnet import ResNetEncoder
from serzoo.zoo.encoders.small import Shape, SmallEncoder, Student, write_student
from serzoo.zoo.run import config
from serzoo.zoo.run.train import train
from serzoo.zoo.run.trained import TrainedEncoder
from serzoo.zoo.testing import ENCODER_CHECKS, ContractError, EncoderCase, check_encoder
from tiny_models import CASES
from torch import Tensor, nn

TINY: dict[str, Callable[[], Encoder]] = {
    "logmel": lambda: LogMelEncoder(widths=(4, 8, 8, 8), dim=12, bfloat16=False),
    "functionals": FunctionalsEncoder,
    "opensmile": OpenSmileEncoder,
    "resnet50": lambda: ResNetEncoder(depths=(1, 1, 1, 1), widths=(8, 16, 16, 24), bfloat16=False),
}
TUNINGS: dict[str, dict[str, Any]] = {
    "frozen": {"layers": [1, 3]},
    "lora": {"lora_rank": 2, "layers": [3]},
    "last_k": {"last_k": 1, "layers": [3]},
}
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


def test_every_registered_encoder_is_here() -> None:
    assert {*TINY, "hf", "serzoo-small", "trained"} == set(registry.BUILT_IN["encoders"])


@pytest.mark.parametrize("check", ENCODER_CHECKS)
@pytest.mark.parametrize("name", TINY)
def test_an_encoder_keeps_the_contract(name: str, check: str) -> None:
    if name == "opensmile":
        pytest.importorskip("opensmile", reason="needs serzoo[classical]")
    ENCODER_CHECKS[check](EncoderCase(TINY[name]))


@pytest.mark.parametrize(("family", "norm"), CASES)
def test_a_published_encoder_keeps_the_contract(
    tiny_hf: Callable[..., str], family: str, norm: str
) -> None:
    name = tiny_hf(family, norm)
    check_encoder(lambda: HFEncoder(name=name, layers=[1, 3]))


@pytest.mark.parametrize("tuning", ["lora", "last_k"])
@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_a_tuned_encoder_keeps_the_contract(
    tiny_hf: Callable[..., str], family: str, tuning: Any
) -> None:
    name = tiny_hf(family, "layer" if family == "wav2vec2" else "none")
    check_encoder(lambda: HFEncoder(name=name, tuning=tuning, **TUNINGS[tuning]))


@pytest.mark.parametrize("tuning", ["frozen", "full"])
def test_a_distilled_encoder_keeps_the_contract(tmp_path: Path, tuning: Any) -> None:
    shape = Shape(80, 64, (1, 1), (32, 16))
    torch.manual_seed(0)
    student = Student(shape)
    for parameter in student.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    weights = tmp_path / "student.safetensors"
    write_student(weights, student.state_dict(), {"shape": asdict(shape)})
    check_encoder(lambda: SmallEncoder(weights=str(weights), layers=[1, 2], tuning=tuning))


def test_the_encoder_of_a_run_keeps_the_contract(tiny_recipe: str, tmp_path: Path) -> None:
    train(config.load(tiny_recipe, ["optim.epochs=1"]), tmp_path / "run")
    check_encoder(lambda: TrainedEncoder(name=str(tmp_path / "run")))


# The kit itself: one sound encoder, and encoders that break one promise each.


class Sound(Encoder):
    """Levels of windows of 320 samples, and a linear layer: the smallest that keeps the contract.

    Args:
        dim: width of the frames.
    """

    def __init__(self, *, dim: int = 6) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(4, dim)

    def windows(self, audio: Tensor, lengths: Tensor) -> Tensor:
        pad = -audio.shape[1] % 320
        return nn.functional.pad(audio, (0, pad)).unfold(1, 320, 320)

    def real(self, lengths: Tensor, size: int) -> Tensor:
        return torch.arange(size) < (-(-lengths // 320))[:, None]

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        windows = self.windows(audio, lengths)
        level = windows.square().mean(-1, keepdim=True)
        hidden = torch.cat([level, level.sqrt(), windows.mean(-1, keepdim=True), level**2], -1)
        mask = self.real(lengths, windows.shape[1])
        return (hidden * mask[..., None])[:, None], mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(self.linear(hidden[:, 0]) * mask[..., None], mask)

    def extraction(self) -> dict[str, Any]:
        return {"type": "sound", "window": 320}

    @property
    def bytes_per_second(self) -> float:
        return 4 * 4 * 16_000 / 320


class PaddingLeaks(Sound):
    """Normalises by the whole row, padding and all."""

    def windows(self, audio: Tensor, lengths: Tensor) -> Tensor:
        return super().windows(audio / (audio.std(1, keepdim=True, correction=0) + 0.1), lengths)


class NeighboursLeak(Sound):
    def windows(self, audio: Tensor, lengths: Tensor) -> Tensor:
        return super().windows(audio / (audio.abs().amax() + 1e-3), lengths)


class AllTrue(Sound):
    def real(self, lengths: Tensor, size: int) -> Tensor:
        return torch.ones(len(lengths), size, dtype=torch.bool)


class NotZeroBehind(Sound):
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden, mask = super().extract(audio, lengths)
        return hidden + 1.0, mask


class OtherWidth(Sound):
    def __init__(self, *, dim: int = 6) -> None:
        super().__init__(dim=dim)
        self.dim = dim + 1


class WrongDistance(Sound):
    frame_seconds = 0.2


class DeadParameter(Sound):
    def __init__(self, *, dim: int = 6) -> None:
        super().__init__(dim=dim)
        self.unused = nn.Linear(3, 3)


class MovesWhatIsFrozen(Sound):
    def frozen_keys(self) -> frozenset[str]:
        return frozenset({"linear.bias"})


class ForgottenGroup(Sound):
    def param_groups(self, lr: float, mix_lr: float | None = None) -> list[dict[str, Any]]:
        return [{"params": [self.linear.weight], "lr": lr}]


class RandomExtract(Sound):
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden, mask = super().extract(audio, lengths)
        return hidden * (1 + 1e-6 * torch.randn(())), mask


class AugmentsInExtract(Sound):
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden, mask = super().extract(audio, lengths)
        return hidden * (2.0 if self.training else 1.0), mask


class UnsavedTensor(Sound):
    def __init__(self, *, dim: int = 6) -> None:
        super().__init__(dim=dim)
        self.gain = torch.rand(dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(super().forward(hidden, mask).x * self.gain, mask)


class NoJson(Sound):
    def extraction(self) -> dict[str, Any]:
        return {"windows": (320, 320)}


class NotDescribed(Sound):
    extraction = Encoder.extraction


class LearnsInExtract(Sound):
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden, mask = super().extract(audio, lengths)
        return self.linear(hidden)[..., :4] * mask[:, None, :, None], mask


class WrongSize(Sound):
    bytes_per_second = 10.0


class PositionalOption(Sound):
    def __init__(self, dim: int = 6) -> None:
        super().__init__(dim=dim)


class Explodes(Sound):
    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        raise RuntimeError("no frames today")


def test_a_sound_encoder_passes() -> None:
    check_encoder(Sound)


@pytest.mark.parametrize(
    ("cls", "failed"),
    [
        (PaddingLeaks, {"alone", "padding"}),
        (NeighboursLeak, {"alone"}),
        (AllTrue, {"mask", "lengths"}),
        (NotZeroBehind, {"mask"}),
        (OtherWidth, {"shape", "gradients"}),
        (WrongDistance, {"lengths"}),
        (DeadParameter, {"gradients"}),
        (MovesWhatIsFrozen, {"gradients", "state"}),
        (ForgottenGroup, {"gradients"}),
        (RandomExtract, {"repeat"}),
        (AugmentsInExtract, {"repeat"}),
        (UnsavedTensor, {"state"}),
        (NoJson, {"extraction"}),
        (NotDescribed, {"extraction"}),
        (LearnsInExtract, {"extraction"}),
        (WrongSize, {"bytes"}),
        (PositionalOption, {"constructor"}),
    ],
)
def test_a_broken_encoder_is_caught_by_the_right_check(
    cls: type[Encoder], failed: set[str]
) -> None:
    with pytest.raises(ContractError) as caught:
        check_encoder(cls)
    assert set(caught.value.failures) == failed, str(caught.value)
    assert str(caught.value).startswith(f"{cls.__name__} breaks its contract:")


def test_a_crash_is_reported_beside_the_other_failures() -> None:
    with pytest.raises(ContractError) as caught:
        check_encoder(lambda: Explodes())
    assert caught.value.failures["padding"] == "RuntimeError: no frames today"
    assert str(caught.value).startswith("the encoder breaks its contract:")


def test_messages_say_what_to_do() -> None:
    with pytest.raises(ContractError) as caught:
        check_encoder(DeadParameter)
    message = caught.value.failures["gradients"]
    assert tells(message, 2, "unused.weight, unused.bias", "requires_grad_(False)")
