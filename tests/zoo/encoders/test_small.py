"""The small distilled encoder: its frames, its file of weights, and the shipped weights."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from close import assert_like
from facts import says
from safetensors.torch import load_file, save_file
from serzoo.zoo.core.errors import ConfigError, DamagedError
from serzoo.zoo.encoders import small
from serzoo.zoo.encoders.families import whisper_log_mel
from serzoo.zoo.encoders.small import Shape, SmallEncoder, Student, read_student, write_student
from serzoo.zoo.run import config
from waves import padded, speech

TINY = Shape(80, 64, (1, 1), (32, 16), (3, 5))
SECOND = 16_000


def random_student(shape: Shape = TINY) -> Student:
    """Return a student without zeros, whose blocks would do nothing."""
    torch.manual_seed(0)
    student = Student(shape).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return student


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A file of weights of a tiny student."""
    facts = {"shape": asdict(TINY), "teacher": "none"}
    write_student(tmp_path / "tiny.safetensors", random_student().state_dict(), facts)
    return str(tmp_path / "tiny.safetensors")


# Frames.


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (399, 1), (1280, 1), (1281, 2), (3000, 3), (11 * SECOND, 138)]
)
def test_a_frame_is_80_ms(tiny: str, samples: int, frames: int) -> None:
    encoder = SmallEncoder(weights=tiny)
    hidden, mask = encoder.extract(speech(samples)[None], torch.tensor([samples]))
    assert hidden.shape == (1, 3, frames, 64)
    assert mask.shape == (1, frames)
    assert encoder.frame_seconds == 0.08


def test_neighbours_change_no_frame_and_long_audio_is_read_in_windows(tiny: str) -> None:
    encoder = SmallEncoder(weights=tiny)
    lengths = [1, 400, 3000, 10 * SECOND, 23 * SECOND]
    audio, sizes = padded(lengths)
    hidden, mask = encoder.extract(audio, sizes)
    for row, n in enumerate(lengths):
        alone, _ = encoder.extract(audio[row : row + 1, :n], sizes[row : row + 1])
        assert_like(hidden[row][:, mask[row]], alone[0])
        assert not hidden[row][:, ~mask[row]].any()


def test_windows_are_equal_and_do_not_see_each_other() -> None:
    student = random_student()
    audio = speech(20 * SECOND)[None]
    mel, counts = small.spectrogram(audio, torch.tensor([20 * SECOND]), 80)
    changed = mel.clone()
    changed[..., 1200:] = 0
    first, second = student(mel, counts), student(changed, counts)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[:, :120], b[:, :120])
        assert not torch.equal(a[:, 150:], b[:, 150:])


def test_the_spectrogram_is_whisper_s() -> None:
    audio = speech(12_800)[None]
    mel, counts = small.spectrogram(audio, torch.tensor([12_800]), 80)
    loud = audio * (small.PEAK / audio.abs().max())
    silent = torch.nn.functional.pad(loud, (0, 3200))
    assert counts.tolist() == [10]
    assert_like(mel, whisper_log_mel(silent, 80)[..., :80])


def test_the_level_changes_nothing(tiny: str) -> None:
    encoder = SmallEncoder(weights=tiny)
    audio, n = speech(8000)[None], torch.tensor([8000])
    assert_like(encoder.extract(audio * 0.1, n)[0], encoder.extract(audio, n)[0], digits=3)
    assert encoder.extract(audio * 0, n)[0].isfinite().all()


# Layers and tuning.


def test_layers_are_kept_as_asked(tiny: str) -> None:
    audio, n = speech(8000)[None], torch.tensor([8000])
    everything, _ = SmallEncoder(weights=tiny).extract(audio, n)
    last = SmallEncoder(weights=tiny, layers=[2])
    assert torch.equal(last.extract(audio, n)[0][:, 0], everything[:, 2])
    assert last.plain
    assert last.steady
    assert sorted(SmallEncoder(weights=tiny, layers=[2, 0]).layer_weights()) == [
        "layer_00",
        "layer_02",
    ]


def test_layers_side_by_side_are_the_layers_of_the_mix(tiny: str) -> None:
    audio, n = speech(8000)[None], torch.tensor([8000])
    mixed = SmallEncoder(weights=tiny, layers=[0, 2])
    joined = SmallEncoder(weights=tiny, layers=[0, 2], join="concat")
    hidden, mask = joined.extract(audio, n)
    assert torch.equal(hidden, mixed.extract(audio, n)[0])
    x = joined(hidden, mask).x
    assert x.shape[2] == joined.dim == 2 * mixed.dim
    assert torch.equal(x, torch.cat([hidden[:, 0], hidden[:, 1]], -1))
    assert joined.extraction() == mixed.extraction()  # one store serves both
    assert joined.stored_shape() == mixed.stored_shape() == (2, mixed.dim)
    assert joined.bytes_per_second == mixed.bytes_per_second
    assert joined.plain
    assert not mixed.plain
    assert joined.describe()["join"] == "concat"
    assert "join" not in mixed.describe()


@pytest.mark.parametrize("layers", [[], [3], [-1], [1, 1]])
def test_a_missing_layer_is_refused(tiny: str, layers: list[int]) -> None:
    with pytest.raises(ConfigError, match=says("encoder.layers", 0, 1, 2)):
        SmallEncoder(weights=tiny, layers=layers)


def test_full_tuning_reaches_every_weight(tiny: str) -> None:
    encoder = SmallEncoder(weights=tiny, layers=[2], tuning="full")
    hidden, mask = encoder.extract(*padded([3000, 9000]))
    encoder(hidden, mask).x.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    assert not encoder.storable
    assert not encoder.frozen_keys()


@pytest.mark.parametrize(("layer", "trained"), [(0, 4), (1, 21), (2, 40)])
def test_full_tuning_leaves_what_is_above_the_kept_layers(
    tiny: str, layer: int, trained: int
) -> None:
    encoder = SmallEncoder(weights=tiny, layers=[layer], tuning="full")
    hidden, mask = encoder.extract(*padded([3000, 9000]))
    encoder(hidden, mask).x.sum().backward()
    (group,) = encoder.param_groups(1e-3)
    assert len(group["params"]) == trained == 40 - len(encoder.frozen_keys())
    assert all(p.grad is not None for p in group["params"])


def test_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match=says("tuning", "lora", "frozen", "full")):
        config.load("synthetic", ["encoder=serzoo-small", "encoder.tuning=lora"])


def test_tuning_chooses_its_optimisation() -> None:
    frozen = config.load("synthetic", ["encoder=serzoo-small"])
    full = config.load("synthetic", ["encoder=serzoo-small", "encoder.tuning=full"])
    assert frozen.optim == config.load("synthetic", ["encoder=whisper-tiny"]).optim
    assert full.optim.lr == 2e-5 or full.optim.lr < frozen.optim.lr
    assert frozen.head["pooling"] == "mean"


# The file of weights.


def test_weights_are_kept_in_half_precision_with_their_origin(tiny: str) -> None:
    student, facts = read_student(Path(tiny))
    assert facts == {"shape": {**asdict(TINY), "heads": [1, 1], "hidden": [32, 16],
                               "kernels": [3, 5]}, "teacher": "none"}  # fmt: skip
    assert student.shape == TINY
    wanted = random_student().state_dict()
    for key, value in student.state_dict().items():
        assert torch.equal(value, wanted[key].half().float())
    assert {v.dtype for v in load_file(tiny).values()} == {torch.float16}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says(tmp_path / "none", "serzoo distil")):
        SmallEncoder(weights=str(tmp_path / "none"))


def test_another_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=says("other.safetensors", "serzoo distil")):
        SmallEncoder(weights=str(tmp_path / "other.safetensors"))


def damaged(path: Path, change: str) -> str:
    """Damage a file of weights in one way, and return a fact that the error must tell."""
    weights: dict[str, Any] = dict(load_file(path))
    facts = {"shape": asdict(TINY)}
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
        return path.name
    if change == "missing":
        del weights["conv1.bias"]
    elif change == "shape":
        weights["conv1.bias"] = weights["conv1.bias"][:-1]
    else:
        weights["conv1.bias"][3] = torch.nan
    write_student(path, weights, facts)
    return "conv1.bias"


@pytest.mark.parametrize("change", ["cut", "missing", "shape", "nan"])
def test_damaged_weights_are_refused(tiny: str, change: str) -> None:
    fact = damaged(Path(tiny), change)
    with pytest.raises(DamagedError, match=says("tiny.safetensors", fact)):
        SmallEncoder(weights=tiny)


# The shipped weights.


def test_the_shipped_weights_are_small_and_whole() -> None:
    encoder = SmallEncoder(layers=[2])
    path = files("serzoo.zoo.encoders") / small.SHIPPED
    data = path.read_bytes()
    assert len(data) < 10_000_000
    assert hashlib.sha256(data).hexdigest() == small.SHA256
    assert sum(p.numel() for p in encoder.parameters()) < 5_000_000
    about = encoder.describe()
    assert about["distilled"]["teacher"]["encoder"] == "whisper-base"
    assert about["dim"] == 512
    assert "/" not in str(about["distilled"]["speech"]["folders"])


def test_damaged_shipped_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "SHA256", "0" * 64)
    with pytest.raises(DamagedError, match=says("serzoo-small", "install")):
        SmallEncoder()


def test_the_shipped_frames_are_those_of_the_card() -> None:
    audio = speech(SECOND)
    hidden, _ = SmallEncoder(layers=[2]).extract(audio[None], torch.tensor([SECOND]))
    assert hidden.shape == (1, 1, 13, 512)
    found = [round(float(x), 2) for x in hidden[0, 0, 6, :6]]
    assert found == pytest.approx([0.12, 0.12, 0.19, -0.91, 0.29, 0.82], abs=0.02)
    assert float(hidden.std()) == pytest.approx(0.813, abs=0.01)
