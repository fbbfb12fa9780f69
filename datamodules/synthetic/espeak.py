"""The espeak-ng library, used so that a sentence always sounds the same.

The wheel ``espeakng-loader`` (extra ``quickstart``) contains the library and its data; no system
package is needed. In version 1.52, flutter and roughness of a voice are on by default. They use
counters that live as long as the process, so the same sentence differs between calls. Every voice
here is therefore a voice file of our own, with both switched off. Variation is added afterwards
from a seeded generator (``generate.py``).
"""

from __future__ import annotations

import ctypes
import locale
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...zoo.core.errors import DataError

ACCENTS = ("en-US", "en", "en-GB-scotland", "en-GB-x-gbclan", "en-029", "en-GB-x-rp")

_DATA = ("phontab", "phonindex", "phondata", "intonations", "en_dict")
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1  # speak_lib.h
_LONGEST_PATH = 150
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
# the library keeps its state in global variables: one user at a time
_LOCK = threading.Lock()


def espeak_version() -> str:
    """Return the version of the wheel.

    Raises:
        DataError: if it is not installed.
    """
    try:
        return version("espeakng-loader")
    except PackageNotFoundError:
        raise DataError(
            "the corpus 'synthetic' is spoken by espeak-ng, which is not installed; "
            "pip install 'serzoo[quickstart]', or name a corpus of your own"
        ) from None


class Espeak:
    """Context that gives the library; other threads wait until it ends.

    At its end the library is shut down. Another user of it in the same process must then initialise
    it again.

    Attributes:
        sample_rate: sample rate of the result of :meth:`say`, in Hz.
    """

    sample_rate: int

    def __init__(self) -> None:
        espeak_version()
        import espeakng_loader

        self._data = Path(espeakng_loader.get_data_path())
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self._pieces: list[NDArray[np.int16]] = []
        self._receive = _CALLBACK(self._collect)  # referenced for as long as C may call it

    def __enter__(self) -> Espeak:
        _LOCK.acquire()
        try:
            self._home = tempfile.TemporaryDirectory(prefix="serzoo-")
            self._locale = locale.setlocale(locale.LC_CTYPE)
            try:
                self._start()
            except BaseException:
                self._stop()
                raise
        except BaseException:
            _LOCK.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._stop()
        finally:
            _LOCK.release()

    def _start(self) -> None:
        # A small copy of the data with a folder for our voices. By name the library finds voices
        # only there, and by path only if it is shorter than 60 characters.
        folder = Path(self._home.name) / "espeak-ng-data"
        # It copies the path into a buffer of 160 characters. At a longer one it fails, and may
        # still answer with the sample rate of an earlier success.
        if len(os.fsencode(folder)) > _LONGEST_PATH:
            raise DataError(
                f"espeak-ng cannot read data from {folder}, a path longer than {_LONGEST_PATH} "
                "characters; set TMPDIR to a shorter path"
            )
        self._voice = folder / "voices" / "serzoo"
        self._voice.parent.mkdir(parents=True)
        for name in _DATA:
            shutil.copyfile(self._data / name, folder / name)
        self.sample_rate = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, os.fsencode(folder), _DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise DataError(
                f"espeak-ng cannot start with a copy of {self._data}; "
                "pip install --force-reinstall espeakng-loader"
            )
        self._library.espeak_SetSynthCallback(self._receive)

    def _stop(self) -> None:
        self._library.espeak_Terminate()
        locale.setlocale(locale.LC_CTYPE, self._locale)  # the library sets its own
        self._home.cleanup()

    def _collect(self, samples: Any, count: int, events: int | None) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(
        self,
        text: str,
        *,
        accent: str,
        pitch_hz: tuple[int, int],
        formants: Sequence[int],
        rate: int,
        pitch: int,
        pitch_range: int,
    ) -> NDArray[np.float64]:
        """Speak a sentence, independently of what was spoken before.

        Args:
            text: one sentence; its last sign chooses the tune.
            accent: one of :data:`ACCENTS`.
            pitch_hz: lowest pitch of the speaker's voice, and its highest, in Hz.
            formants: nine formant frequencies, F0 to F8, in per cent of the accent's.
            rate: words per minute, 80 to 450.
            pitch: 0 to 99, 50 is the speaker's own, 60 steps are about an octave.
            pitch_range: 0 to 99, 50 is the speaker's own, 0 is monotone.

        Returns:
            ``[S]`` samples in -1..1 at :attr:`sample_rate`.

        Raises:
            DataError: if the library refuses, or gives no samples.
        """
        lines = [(self._data / "lang" / "gmw" / accent).read_text("utf-8")]
        lines += ["flutter 0", "roughness 0", "pitch {} {}".format(*pitch_hz)]
        lines += [f"formant {i} {percent} 100 100" for i, percent in enumerate(formants)]
        self._voice.write_text("\n".join(lines) + "\n", "utf-8")
        self._pieces.clear()
        status = self._library.espeak_SetVoiceByName(self._voice.name.encode())
        settings = {_RATE: rate, _VOLUME: 100, _PITCH: pitch, _RANGE: pitch_range}
        for parameter, value in settings.items():
            status = status or self._library.espeak_SetParameter(parameter, value, 0)
        raw = text.encode()
        status = status or self._library.espeak_Synth(
            raw, ctypes.c_size_t(len(raw) + 1), 0, 0, 0, _UTF8, None, None
        )
        x = np.concatenate([np.zeros(0, np.int16), *self._pieces]).astype(np.float64) / 32768
        if status or not x.any():
            raise DataError(
                f"espeak-ng cannot speak '{text}' (accent {accent}, status {status}); "
                "give another text, or pip install --force-reinstall espeakng-loader"
            )
        return x
