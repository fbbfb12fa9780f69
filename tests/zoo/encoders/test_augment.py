"""Augmentation of spectrograms: what it moves, what it leaves, what it must not look at."""

import math

import torch
from close import assert_like
from serzoo.zoo.encoders.mel import hide, resample, tempo_and_pitch


def spectrogram(frames=32, bands=8, batch=2):
    torch.manual_seed(0)
    return torch.rand(batch, 1, frames, bands)


def ramp(frames, bands=4):
    """``[1, 1, T, F]`` whose value is the frame's number."""
    return torch.arange(float(frames))[None, None, :, None].expand(1, 1, frames, bands).clone()


# -- resampling ----------------------------------------------------------------------------------


def test_no_stretch_and_no_shift_is_the_identity():
    x = spectrogram()
    y = resample(x, torch.tensor([32, 32]), 32, torch.zeros(2))
    assert_like(x, y, digits=5)


def test_time_is_read_at_an_even_pace():
    y = resample(ramp(10), torch.tensor([10]), 20, torch.zeros(1))
    # twice as slow: frame k of the result lies at (k + 0.5) / 2 - 0.5, held at both ends
    expected = ((torch.arange(20) + 0.5) / 2 - 0.5).clamp(0, 9)
    assert_like(y[0, 0, :, 0], expected, digits=5)


def test_only_real_frames_are_read():
    x = ramp(10)
    x[:, :, 6:] = 1e3
    y = resample(x, torch.tensor([6]), 9, torch.zeros(1))
    assert y.max() < 5.01
    assert y.min() >= 0


def test_whole_bands_are_moved_down_for_a_positive_shift():
    x = spectrogram()
    y = resample(x, torch.tensor([32, 32]), 32, torch.tensor([2.0, -1.0]))
    assert_like(y[0, :, :, :6], x[0, :, :, 2:], digits=5)
    assert_like(y[1, :, :, 1:], x[1, :, :, :7], digits=5)
    # what leaves nothing behind repeats the border
    assert_like(y[0, :, :, 6:], x[0, :, :, 7:].expand(-1, -1, 2), digits=5)
    assert_like(y[1, :, :, 0], x[1, :, :, 0], digits=5)


# -- tempo, crop, shift --------------------------------------------------------------------------


def test_nothing_random_is_left_when_nothing_is_asked():
    x = spectrogram()
    y = tempo_and_pitch(x, torch.ones(2, 32, dtype=torch.bool), 0.0, 0.0)
    assert_like(x, y, digits=5)


def test_one_length_for_all_in_multiples_of_16():
    torch.manual_seed(1)
    x = torch.rand(3, 1, 90, 4)
    mask = torch.arange(90) < torch.tensor([90, 70, 60])[:, None]
    sizes = {tempo_and_pitch(x, mask, 0.3, 2.0).shape[2] for _ in range(20)}
    assert len(sizes) > 1
    assert all(size % 16 == 0 for size in sizes)


def test_padding_is_never_read():
    torch.manual_seed(2)
    mask = torch.arange(90) < torch.tensor([90, 40, 3])[:, None]
    x = torch.rand(3, 1, 90, 4).masked_fill(~mask[:, None, :, None], 1e3)
    for _ in range(20):
        assert tempo_and_pitch(x, mask, 0.3, 2.0).max() < 1.1


def test_tempo_stays_within_its_bounds_and_long_ones_are_cropped():
    torch.manual_seed(3)
    long, short = ramp(400), ramp(400)
    short[:, :, 40:] = 0
    mask = torch.arange(400) < torch.tensor([400, 40])[:, None]
    starts = set()
    for _ in range(10):
        y = tempo_and_pitch(torch.cat([long, short]), mask, 0.2, 0.0)[0, 0, :, 0]
        pace = y[2:-1] - y[1:-2]
        assert pace.max() < math.exp(0.2) + 0.01  # faster than that, it is cropped instead
        assert y[-1] - y[0] < 399
        starts.add(round(float(y[0])))
    assert len(starts) > 3  # at a random place


def test_the_seed_decides():
    x, mask = spectrogram(48), torch.ones(2, 48, dtype=torch.bool)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(tempo_and_pitch(x, mask, 0.2, 2.0))
    assert torch.equal(results[0], results[1])
    assert results[0].shape != results[2].shape or not torch.equal(results[0], results[2])


def test_a_single_frame_is_enough():
    y = tempo_and_pitch(torch.ones(1, 1, 1, 4), torch.ones(1, 1, dtype=torch.bool), 0.2, 1.0)
    assert_like(y, torch.ones(1, 1, 16, 4), digits=5)


# -- hidden stretches ----------------------------------------------------------------------------


def runs(hidden):
    """Widths of the stretches of True."""
    edges = torch.diff(hidden.int(), prepend=torch.zeros(1).int(), append=torch.zeros(1).int())
    return (torch.where(edges == -1)[0] - torch.where(edges == 1)[0]).tolist()


def test_stretches_are_hidden_along_one_axis():
    torch.manual_seed(0)
    x = torch.ones(64, 2, 50, 8)
    for axis, rest in ((2, 3), (3, 2)):
        y = hide(x, axis, 1, 5.0)
        gone = y == 0
        # a hidden frame is hidden in all bands and both views, and the other way round
        assert torch.equal(gone.all(dim=(1, rest)), gone.any(dim=(1, rest)))
        widths = [runs(row) for row in gone.all(dim=(1, rest))]
        assert all(len(w) <= 1 for w in widths)
        assert max(w[0] for w in widths if w) in (4, 5)
        assert len({str(w) for w in widths}) > 1  # each utterance its own
        assert torch.equal(y[~gone], x[~gone])


def test_the_number_of_stretches_bounds_what_is_hidden():
    torch.manual_seed(0)
    y = hide(torch.ones(200, 1, 60, 2), 2, 3, 6.0)
    widths = [runs(row) for row in (y == 0).all(dim=(1, 3))]
    assert max(len(w) for w in widths) == 3
    assert max(sum(w) for w in widths) <= 3 * 6
    assert torch.equal(hide(y, 2, 0, 6.0), y)


def test_every_place_behind_the_first_is_hidden_at_some_time():
    torch.manual_seed(0)
    y = hide(torch.ones(500, 1, 20, 1), 2, 1, 5.0)
    assert (y[:, :, 1:] == 0).any(0).all()
