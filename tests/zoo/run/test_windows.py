"""Windows of a recording that is read once: positions, content, and how much is held."""

import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run.predict import Tape, Windows


def pieces(wave, size):
    return (wave[i : i + size] for i in range(0, len(wave), size))


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize(
    ("total", "starts"),
    [
        (1, [0]),
        (10, [0]),
        (11, [0, 1]),
        (14, [0, 4]),
        (15, [0, 4, 5]),
        (22, [0, 4, 8, 12]),
        (24, [0, 4, 8, 12, 14]),
    ],
)
def test_windows_cover_everything_once_read(total, starts, size):
    wave = np.arange(total, dtype=np.float32)
    found = list(Windows(10, 4).cut(pieces(wave, size)))
    assert [at for at, _ in found] == starts
    for at, samples in found:
        assert np.array_equal(samples, wave[at : at + 10])
    assert all(len(samples) == min(total, 10) for _, samples in found)
    assert set(np.concatenate([samples for _, samples in found])) == set(wave)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_segments_are_cut_each_on_its_own(size):
    wave = np.arange(60, dtype=np.float32)
    found = list(Windows(10, 5).cut(pieces(wave, size), [(3, 9), (12, 25), (40, 50), (55, 60)]))
    spans = [(at, at + len(samples)) for at, samples in found]
    assert spans == [(3, 9), (12, 22), (15, 25), (40, 50), (55, 60)]
    for at, samples in found:
        assert np.array_equal(samples, wave[at : at + len(samples)])


def test_nothing_is_nothing():
    assert list(Windows(10, 5).cut([])) == []


def test_a_tape_holds_no_more_than_it_must():
    wave = np.arange(10_000, dtype=np.float32)
    tape = Tape(pieces(wave, 50), back=20)
    for start in range(0, 9_000, 13):
        assert np.array_equal(tape.take(start, start + 30), wave[start : start + 30])
        assert len(tape.held) <= 20 + 30 + 50
    assert tape.take(9_990, 10_100).tolist() == wave[9_990:].tolist()


def test_seconds_become_samples():
    assert Windows.of(None, None, 20.0) == Windows(320_000, 160_000)
    assert Windows.of(3.0, 1.0, 20.0) == Windows(48_000, 16_000)
    assert Windows.of(3.0, 3.0, 3.0).hop == 48_000
    with pytest.raises(ConfigError, match=says("hop", "2 s", 0, "window", "1 s")):
        Windows.of(1.0, 2.0, 20.0)
    with pytest.raises(ConfigError, match=says("window", "21 s", 0, "20 s", "data.max_seconds")):
        Windows.of(21.0, None, 20.0)
