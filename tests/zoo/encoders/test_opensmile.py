"""openSMILE's feature sets as encoders."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.encoders.opensmile import SIZES, OpenSmileEncoder, measure
from serzoo.zoo.run.config import load

opensmile = pytest.importorskip("opensmile", reason="needs serzoo[classical]")


def noise(n: int) -> torch.Tensor:
    return 0.1 * torch.randn(1, n, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("features", SIZES)
def test_it_gives_what_opensmile_gives(features) -> None:
    encoder = OpenSmileEncoder(features=features)
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet[features],
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    assert encoder.dim == len(smile.feature_names)
    wave = noise(8000)
    frames = encoder(*encoder.extract(wave, torch.tensor([8000])))
    assert frames.x.shape == (1, 1, encoder.dim)
    want = smile.process_signal(wave[0].numpy(), 16_000).to_numpy()[0].astype(np.float32)
    np.testing.assert_array_equal(frames.x[0, 0].numpy(), want)
    assert len(SIZES) == 3


@pytest.mark.parametrize("n", [1, 399, 1599, 1600])
def test_short_audio_is_followed_by_silence(n: int) -> None:
    encoder = OpenSmileEncoder()
    wave = noise(n)
    hidden, _ = encoder.extract(wave, torch.tensor([n]))
    longer = torch.nn.functional.pad(wave, (0, 1600 - n))
    assert torch.equal(hidden, encoder.extract(longer, torch.tensor([1600]))[0])
    assert hidden.isfinite().all()
    assert hidden.any()


def test_samples_that_are_not_finite_give_no_numbers() -> None:
    wave = noise(4000)
    wave[0, 7] = torch.nan
    hidden, _ = OpenSmileEncoder().extract(wave, torch.tensor([4000]))
    assert hidden.isnan().all()


def test_another_set_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"IS09.*eGeMAPSv02, ComParE_2016, GeMAPSv01b"):
        OpenSmileEncoder(features="IS09")  # type: ignore[arg-type]


def test_the_configuration_refuses_another_set_by_the_sets_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"IS09.*eGeMAPSv02, ComParE_2016, GeMAPSv01b") as told:
        load("ravdess", ["encoder=egemaps", "encoder.features=IS09"])
    assert "Literal" not in str(told.value)


def test_without_the_package_the_error_names_the_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    measure.cache_clear()
    with pytest.raises(ConfigError, match=r"serzoo\[classical\].*encoder=functionals"):
        OpenSmileEncoder()
    measure.cache_clear()


@pytest.mark.parametrize(("name", "dim"), [("egemaps", 88), ("compare2016", 6373)])
def test_a_configuration_chooses_the_set_and_a_head_that_suits_one_frame(name, dim) -> None:
    cfg = load("ravdess", [f"encoder={name}"])
    assert SIZES[cfg.encoder["features"]] == dim
    assert cfg.head["pooling"] == "mean"
