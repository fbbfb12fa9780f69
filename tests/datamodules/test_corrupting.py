"""Random corruption of training audio."""

from __future__ import annotations

import math

import pytest
import torch
from serzoo.datamodules.corrupting import Corrupter
from serzoo.datamodules.distortions import RANGES
from torch import Tensor
from waves import padded

NOTHING = {"clean": 0.0, "noise": 0.0, "room": 0.0, "channel": 0.0, "clip": 0.0}
LENGTHS = [16_000, 9_000, 12_345, 16_000]


def only(kind: str) -> Corrupter:
    return Corrupter(**{**NOTHING, kind: 1.0})


def power(x: Tensor) -> Tensor:
    return x.square().sum(1)


@pytest.mark.parametrize("kind", ["noise", "room", "channel", "clip"])
def test_every_row_changes_and_the_end_stays_silent(kind: str) -> None:
    audio, lengths = padded(LENGTHS)
    before = audio.clone()
    heard = only(kind)(audio, lengths)
    assert torch.equal(audio, before)
    assert heard.isfinite().all()
    for row, n in enumerate(LENGTHS):
        assert not torch.equal(heard[row, :n], audio[row, :n])
        assert not heard[row, n:].any()


def test_clean_rows_stay() -> None:
    audio, lengths = padded(LENGTHS)
    assert torch.equal(Corrupter(clean=1.0)(audio, lengths), audio)


def test_noise_has_the_wanted_level() -> None:
    audio, lengths = padded([32_000] * 16)
    corrupt = only("noise")
    added = corrupt(audio, lengths) - audio
    snr = 10 * (power(audio) / power(added)).log10()
    assert snr.min() > RANGES["snr"][0] - 0.1
    assert snr.max() < RANGES["snr"][1] + 0.1
    assert snr.std() > 3


@pytest.mark.parametrize("kind", ["room", "channel"])
def test_filters_keep_the_power(kind: str) -> None:
    audio, lengths = padded([16_000] * 8)
    ratio = power(only(kind)(audio, lengths)) / power(audio)
    assert ratio.sub(1).abs().max() < 1e-3


def test_an_echo_falls_after_the_sound() -> None:
    audio = torch.zeros(6, 16_000)
    audio[:, 1000] = 1
    heard = only("room")(audio, torch.full((6,), 16_000)).abs()
    assert heard[:, :1000].max() < 1e-3
    assert heard[:, 1000].min() > heard[:, 1001:].max(1).values.min()
    early, late = heard[:, 1001:3000].square().mean(1), heard[:, 7000:9000].square().mean(1)
    slowest = 10 ** (-6 * (6000 / 16_000) / RANGES["decay"][1])
    assert (late / early).max() < 5 * slowest


def test_equal_seeds_give_equal_sound_and_a_restart_too() -> None:
    audio, lengths = padded(LENGTHS)
    corrupt = Corrupter(seed=4)
    first = corrupt(audio, lengths)
    assert torch.equal(Corrupter(seed=4)(audio, lengths), first)
    assert not torch.equal(corrupt(audio, lengths), first)
    corrupt.restart(4)
    assert torch.equal(corrupt(audio, lengths), first)
    corrupt.restart(4, 1)
    assert not torch.equal(corrupt(audio, lengths), first)


def test_silence_and_single_samples_do_no_harm() -> None:
    audio, lengths = padded([1, 400])
    audio[1] = 0
    for kind in ("noise", "room", "channel", "clip"):
        assert only(kind)(audio, lengths).isfinite().all()


def test_a_telephone_line_has_no_low_tone() -> None:
    t = torch.arange(16_000) / 16_000
    audio = (torch.sin(2 * math.pi * 100 * t) + torch.sin(2 * math.pi * 1000 * t)).expand(32, -1)
    heard = only("channel")(audio.clone(), torch.full((32,), 16_000))
    spectrum = torch.fft.rfft(heard).abs()
    low = spectrum[:, 100] / spectrum[:, 1000]
    assert 4 <= int((low < 0.01).sum()) <= 28  # about half of the channels are telephones
