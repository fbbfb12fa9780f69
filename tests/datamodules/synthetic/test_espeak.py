import locale
import tempfile
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from facts import says
from serzoo.datamodules.synthetic import espeak
from serzoo.datamodules.synthetic.espeak import Espeak
from serzoo.datamodules.synthetic.generate import ensure_synthetic
from serzoo.zoo.core.errors import DataError

pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")

VOICE = {"accent": "en", "pitch_hz": (120, 170), "formants": [100] * 9}


def test_a_sentence_sounds_the_same_whatever_was_said_before():
    how = {"rate": 180, "pitch": 50, "pitch_range": 50}
    other = {"accent": "en-029", "pitch_hz": (70, 90), "formants": [120] * 9}
    with Espeak() as voice:
        first = voice.say("The train leaves.", **VOICE, **how)
        voice.say("Oh, really?", **other, rate=300, pitch=90, pitch_range=99)
        again = voice.say("The train leaves.", **VOICE, **how)
    with Espeak() as voice:
        later = voice.say("The train leaves.", **VOICE, **how)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, later)


def period(x):
    """Of monotone speech at 60 to 400 Hz, in samples at 22050 Hz."""
    r = np.fft.irfft(np.abs(np.fft.rfft(x, 2 * len(x))) ** 2)
    return 55 + np.argmax(r[55:367])


def test_without_espeak_the_message_says_what_to_install(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(espeak, "version", missing)
    with pytest.raises(DataError, match=says("pip install 'serzoo[quickstart]'")):
        ensure_synthetic(tmp_path)


def test_what_espeak_does_not_say_is_an_error():
    with Espeak() as voice, pytest.raises(DataError, match=says("espeak-ng", "''", "accent en")):
        voice.say("", **VOICE, rate=180, pitch=50, pitch_range=50)


def test_a_temporary_folder_longer_than_espeak_takes_is_named(tmp_path_factory, monkeypatch):
    base = tmp_path_factory.mktemp("t")
    # below it lies serzoo-xxxxxxxx/espeak-ng-data: 31 characters with the slashes
    longest = base / ("x" * (espeak._LONGEST_PATH - 31 - 1 - len(str(base))))
    longer = base / (longest.name + "x")
    for folder in (longest, longer):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(longer))
    with pytest.raises(DataError, match=says("espeak-ng-data", 150, "TMPDIR")), Espeak():
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(longest))
    with Espeak() as voice:
        said = voice.say("Yes.", **VOICE, rate=180, pitch=50, pitch_range=50)
    monkeypatch.undo()
    with Espeak() as voice:
        again = voice.say("Yes.", **VOICE, rate=180, pitch=50, pitch_range=50)
    np.testing.assert_array_equal(said, again)
    assert not [*longest.iterdir(), *longer.iterdir()]


def test_the_locale_of_the_process_is_kept():
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C")
        with Espeak():
            pass
        assert locale.setlocale(locale.LC_CTYPE) == "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def test_rate_pitch_and_range_do_what_they_say():
    text = "The meeting starts at nine tomorrow."
    with Espeak() as voice:
        slow = voice.say(text, **VOICE, rate=140, pitch=50, pitch_range=0)
        fast = voice.say(text, **VOICE, rate=210, pitch=50, pitch_range=0)
        high = voice.say(text, **VOICE, rate=140, pitch=75, pitch_range=0)
    assert 1.3 < len(slow) / len(fast) < 1.7
    ratio = period(slow) / period(high)
    assert ratio == pytest.approx(2 ** (25 / 60), rel=0.03)
