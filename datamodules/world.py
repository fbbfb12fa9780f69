"""The WORLD vocoder (Morise, Yokomori & Ozawa 2016), by its Python wrapper ``pyworld``.

All take and give ``[S]`` float64 at 16 kHz. F0 is Harvest's (Morise 2017). DIO with StoneMask is
about forty times faster, and was an octave off in parts of two of eight emotional utterances of
RAVDESS that we looked at: variability of F0 would measure these errors. Where D4C's Love Train
(Morise 2016) hears no voice, a measured F0 is dropped, too: of twelve utterances of RAVDESS and
EMO-DB with F0 flattened, 81 to 90 % of Harvest's frames of speech are within half a semitone of
the flat F0, and 91 to 99 % of what is left then.
"""

from __future__ import annotations

from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ..zoo.errors import ConfigError
from .audio import SAMPLE_RATE

Signal = npt.NDArray[np.float64]

F0_RANGE = (65.0, 700.0)
"""Hertz; our choice: from low men to shouting women."""

LOVE_TRAIN = 0.85
"""Threshold of the voicing decision, as published."""

FRAME_SECONDS = 0.005
"""Distance of WORLD's frames."""


@cache
def pyworld() -> Any:
    """The wrapper's compiled module.

    Raises:
        ConfigError: when it is not installed.
    """
    package = find_spec("pyworld")  # finds it, and does not import it:
    # its __init__ (0.3.5) needs pkg_resources, which setuptools has not had since version 82
    found = package and PathFinder.find_spec("pyworld.pyworld", package.submodule_search_locations)
    if not found or not found.loader:
        raise ConfigError(
            "F0 and the conditions monotone and resynthesised need pyworld; install it with pip "
            "install 'serzoo[prosody]' (where there is no wheel, it is compiled: a C++ compiler "
            "is needed), or leave them out"
        )
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def f0(samples: Signal) -> Signal:
    """``[frames]`` F0 in Hz every 5 ms from time 0 on; 0 where unvoiced."""
    x = np.ascontiguousarray(samples)
    pitch, times = _harvest(x)
    if not np.any(pitch):
        return pitch
    aperiodicity = pyworld().d4c(x, pitch, times, SAMPLE_RATE, threshold=LOVE_TRAIN)
    return np.where(aperiodicity[:, 0] < 0.5, pitch, 0.0)  # 1 where it hears no voice


def resynthesised(samples: Signal, *, monotone: bool = False) -> Signal:
    """``[S]`` after WORLD's analysis (F0, CheapTrick's envelope, D4C's aperiodicity) and synthesis.

    Args:
        samples: ``[S]``; silence stays silence.
        monotone: voiced frames get the utterance's median F0; timing, loudness and the spectral
            envelope stay. It differs from the plain resynthesis in F0 only.
    """
    n = len(samples)
    if not np.any(samples):
        return samples
    world, x = pyworld(), np.ascontiguousarray(samples)
    pitch, times = _harvest(x)
    envelope = world.cheaptrick(x, pitch, times, SAMPLE_RATE)
    aperiodicity = world.d4c(x, pitch, times, SAMPLE_RATE)
    if monotone and np.any(pitch):
        pitch = np.where(pitch > 0, np.median(pitch[pitch > 0]), 0.0)
    y = world.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE, FRAME_SECONDS * 1000)
    return np.asarray(y[:n], dtype=np.float64)


def _harvest(x: Signal) -> tuple[Signal, Signal]:
    """F0 and the times of its frames."""
    low, high = F0_RANGE
    found: tuple[Signal, Signal] = pyworld().harvest(
        x, SAMPLE_RATE, f0_floor=low, f0_ceil=high, frame_period=FRAME_SECONDS * 1000
    )
    return found
