"""openSMILE's feature sets as encoders: one vector of functionals for an utterance.

The sets are eGeMAPS (88 numbers; Eyben et al. 2016), ComParE 2016 (6,373; Schuller et al. 2016) and
GeMAPS (62). The package ``opensmile`` computes them; it is an extra (``serzoo[classical]``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.errors import ConfigError
from ..core.types import SAMPLE_RATE
from .functionals import VectorEncoder

FeatureSet = Literal["eGeMAPSv02", "ComParE_2016", "GeMAPSv01b"]

SIZES: dict[FeatureSet, int] = {"eGeMAPSv02": 88, "ComParE_2016": 6373, "GeMAPSv01b": 62}

SHORTEST = 1600
"""Samples, 100 ms. openSMILE measures nothing in less, so shorter audio is followed by silence."""

Measure = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@cache
def measure(features: FeatureSet) -> tuple[Measure, str]:
    """Return a function from ``[S]`` samples at 16 kHz to ``[F]``, and openSMILE's version.

    A number that is not defined is NaN. The import of openSMILE takes seconds, so it is done here.

    Raises:
        ConfigError: if the package is not installed.
    """
    try:
        import opensmile
    except ImportError as error:
        raise ConfigError(
            f"{features} needs the package opensmile ({error}): pip install 'serzoo[classical]', "
            "or take encoder=functionals, which needs no package"
        ) from error
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet[features],
        feature_level=opensmile.FeatureLevel.Functionals,
    )

    def call(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with warnings.catch_warnings():  # too short: NaN, which the caller sees
            warnings.simplefilter("ignore", UserWarning)
            frame = smile.process_signal(samples, SAMPLE_RATE)
        return np.asarray(frame.to_numpy()[0], dtype=np.float32)

    return call, str(opensmile.__version__)


class OpenSmileEncoder(VectorEncoder):
    """One vector of openSMILE's functionals for an utterance, as its only frame.

    Nothing is learned. What openSMILE does not define is 0. Audio below 100 ms is followed by
    silence.

    Args:
        features: ``eGeMAPSv02``, ``ComParE_2016`` or ``GeMAPSv01b``.

    Raises:
        ConfigError: if the package ``opensmile`` is not installed, or has no such feature set.
    """

    def __init__(self, *, features: FeatureSet = "eGeMAPSv02") -> None:
        super().__init__()
        if features not in SIZES:
            raise ConfigError(f"features={features!r}; openSMILE has {', '.join(SIZES)} here")
        self.features, self.dim = features, SIZES[features]
        self._measure, self.version = measure(features)

    def measure(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not np.isfinite(samples).all():
            return np.full(self.dim, np.nan, np.float32)
        found = self._measure(np.pad(samples, (0, max(0, SHORTEST - len(samples)))))
        return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)

    def extraction(self) -> dict[str, Any]:
        return {"type": "opensmile", "features": self.features, "version": self.version}
