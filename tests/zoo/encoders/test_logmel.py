"""The log-mel front end and the encoder trained from scratch."""

import math

import numpy as np
import pytest
import torch
from close import assert_like
from scipy.signal import get_window
from serzoo.zoo.encoders.logmel import LogMelEncoder, MaskedBatchNorm
from serzoo.zoo.encoders.mel import LogMel, mel_filters
from waves import padded, speech

LENGTHS = [1, 399, 400, 3000, 16_000, 40_000]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = LogMelEncoder(widths=(4, 8, 8, 8), dim=16, bfloat16=False)
    with torch.no_grad():  # statistics that are not those of a new network
        for m in made.modules():
            if isinstance(m, MaskedBatchNorm):
                m.mean.uniform_(-0.2, 0.2)
                m.variance.uniform_(0.5, 2)
    return made.eval()


# -- front end -----------------------------------------------------------------------------------


def test_mel_filters_are_triangles_between_points_even_on_the_mel_scale():
    def hz_to_mel(hz):
        return 1127 * np.log(1 + hz / 700)  # O'Shaughnessy; the 2595 log10 form is the same

    points = np.linspace(hz_to_mel(50), hz_to_mel(8000), 64 + 2)
    edges = 700 * (np.exp(points / 1127) - 1)
    bins = np.arange(513) * 16_000 / 1024
    expected = np.stack(
        [np.interp(bins, edges[k : k + 3], [0, 1, 0], left=0, right=0) for k in range(64)], 1
    )
    assert np.allclose(mel_filters(64, 1024, 50, 8000).numpy(), expected, atol=2e-3)


def test_neighbouring_filters_add_up_to_one():
    total = mel_filters(64, 1024, 50, 8000).sum(1)
    bins = torch.arange(513) * 16_000 / 1024
    inside = (bins > 120) & (bins < 7600)
    assert torch.allclose(total[inside], torch.ones(int(inside.sum())), atol=1e-5)
    assert (mel_filters(64, 1024, 50, 8000).sum(0) > 0).all()  # no filter falls between two bins


def test_spectrogram_equals_its_definition():
    x = speech(5000).double().numpy()
    filters = mel_filters(64, 1024, 50, 8000).double().numpy()
    window = get_window("hann", 512)
    count = 1 + math.ceil((5000 - 512) / 256)
    x = np.pad(x, (0, (count - 1) * 256 + 512 - 5000))
    rows = []
    for k in range(count):
        frame = x[k * 256 : k * 256 + 512]
        power = np.abs(np.fft.rfft((frame - frame.mean()) * window, 1024)) ** 2
        rows.append(np.log10(power @ filters + 1e-10))
    expected = np.maximum(rows, np.max(rows) - 8)  # nothing here is silent, so nothing is cut off
    hidden, mask = LogMel()(speech(5000)[None], torch.tensor([5000]))
    assert mask.all()
    assert hidden.shape == (1, 1, count, 64)
    assert np.allclose(hidden[0, 0].numpy(), expected, atol=1e-3)


def test_silence_at_both_ends_is_cut_off():
    tone = speech(8192)
    silence = torch.zeros(40 * 256)
    alone, _ = LogMel()(tone[None], torch.tensor([8192]))
    long = torch.cat([silence, tone, silence])
    cut, mask = LogMel()(long[None], torch.tensor([len(long)]))
    frames = alone.shape[2]
    assert mask.all()
    assert frames <= cut.shape[2] <= frames + 2 * (LogMel.margin + 2)  # 80 silent hops are gone
    # silence was a whole number of hops, so the frames of the tone are the very same
    starts = [k for k in range(8) if torch.allclose(cut[:, :, k : k + 20], alone[:, :, :20])]
    assert len(starts) == 1


def kept(x: torch.Tensor) -> int:
    return int(LogMel()(x[None], torch.tensor([len(x)]))[1].sum())


def test_silence_in_noise_is_cut_off_too():
    pause = torch.zeros(16_000)
    clean = torch.cat([pause, speech(16_000), pause])
    noise = torch.randn(48_000, generator=torch.Generator().manual_seed(0))
    power = speech(16_000).square().mean().sqrt()
    for db in (40, 20, 10):
        noisy = clean + noise * power * 10 ** (-db / 20)
        assert abs(kept(noisy) - kept(clean)) <= 6  # of 125 more frames that are silent


def test_a_clean_recording_with_pauses_is_cut_as_before(monkeypatch):
    fade = torch.logspace(-4, 0, 8000)  # 8 bel, so the level of every frame matters
    quiet = 1e-4 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    x = torch.cat([quiet, fade * speech(8000), speech(8000), fade.flip(0) * speech(8000), quiet])
    batch, sizes = torch.stack([x, x]), torch.tensor([40_000, 36_000])
    hidden, mask = LogMel()(batch, sizes)
    assert int(mask[0].sum()) < 150
    monkeypatch.setattr(LogMel, "_threshold", lambda self, e, real: e.amax(1, keepdim=True) - 4.0)
    before = LogMel()(batch, sizes)
    assert torch.equal(mask, before[1])
    assert torch.equal(hidden, before[0])


def test_a_steady_sound_is_not_cut():
    time = torch.arange(8192) / 16_000
    assert kept(torch.sin(2 * math.pi * 200 * time)) == 31
    assert kept(torch.ones(1)) == 1


def test_a_pause_inside_is_kept():
    x = torch.cat([speech(8000), torch.zeros(16_000), speech(8000)])
    _, mask = LogMel()(x[None], torch.tensor([len(x)]))
    assert int(mask.sum()) > 31_000 // 256


def test_silent_audio_is_finite():
    hidden, mask = LogMel()(torch.zeros(2, 4000), torch.tensor([4000, 1]))
    assert hidden.isfinite().all()
    assert mask.any(1).all()


def test_what_lies_behind_the_real_samples_is_ignored():
    audio, lengths = padded([16_000, 3000])
    dirty = audio.clone()
    dirty[1, 3000:] = 7.0
    a, b = LogMel()(audio, lengths), LogMel()(dirty, lengths)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


# -- encoder -------------------------------------------------------------------------------------


def test_an_utterance_does_not_depend_on_its_neighbours(encoder):
    audio, lengths = padded(LENGTHS)
    with torch.no_grad():
        hidden, mask = encoder.extract(audio, lengths)
        together = encoder(hidden, mask)
        for i, n in enumerate(LENGTHS):
            h, m = encoder.extract(audio[i : i + 1, :n], lengths[i : i + 1])
            assert_like(hidden[i : i + 1, :, : h.shape[2]], h, digits=5)
            alone = encoder(h, m)
            frames = int(alone.mask.sum())
            assert frames == alone.x.shape[1] == int(together.mask[i].sum())
            assert_like(together.x[i, :frames], alone.x[0], digits=5)
            assert not together.x[i, frames:].any()
            assert not hidden[i, :, h.shape[2] :].any()


def test_frames_say_something(encoder):
    audio, lengths = padded([16_000, 16_000])
    with torch.no_grad():
        x = encoder(*encoder.extract(audio, lengths)).x
    assert (x[0] - x[1]).abs().max() > 0.01  # a hundred times the tolerance above


@pytest.mark.parametrize("samples", LENGTHS)
def test_any_length_runs_in_training_and_evaluation(encoder, samples):
    audio, lengths = padded([samples, samples])
    for mode in (True, False):
        encoder.train(mode)
        frames = encoder(*encoder.extract(audio, lengths))
        assert frames.x.isfinite().all()
        assert frames.x.shape[2] == encoder.dim
        assert frames.mask.any(1).all()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_gradients_reach_every_parameter(bfloat16):
    torch.manual_seed(0)
    encoder = LogMelEncoder(widths=(4, 8, 8, 8), dim=16, bfloat16=bfloat16).train()
    frames = encoder(*encoder.extract(*padded([16_000, 9000, 400])))
    (frames.x * torch.randn_like(frames.x)).sum().backward()
    dead = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_training_is_augmented_and_moves_the_statistics(encoder):
    hidden, mask = encoder.extract(*padded([16_000, 12_000]))
    before = encoder.norm.mean.clone()
    encoder.train()
    first, second = encoder(hidden, mask).x, encoder(hidden, mask).x
    assert first.shape != second.shape or not torch.allclose(first, second)
    assert not torch.equal(encoder.norm.mean, before)


def test_extraction_is_deterministic_and_without_parameters(encoder):
    assert encoder.storable
    assert list(encoder.frontend.parameters()) == []
    audio, lengths = padded([3000, 16_000])
    encoder.train()
    first, _ = encoder.extract(audio, lengths)
    encoder.eval()
    assert torch.equal(first, encoder.extract(audio, lengths)[0])
    assert not first.requires_grad
    assert first.dtype == torch.float32
    # constants are rebuilt, not stored: no checkpoint carries them
    assert [k for k in encoder.state_dict() if "frontend" in k] == []


def test_evaluation_under_autocast_is_close_to_float32(encoder):
    hidden, mask = encoder.extract(*padded([16_000, 400]))
    with torch.no_grad():
        exact = encoder(hidden, mask).x
        with torch.autocast("cpu", torch.bfloat16):
            low = encoder(hidden, mask).x
    assert low.dtype == torch.float32
    assert (low - exact).abs().max() < 0.1
    assert not torch.equal(low, exact)  # it did run in bfloat16


def test_evaluation_is_float32_whatever_training_is():
    audio, lengths = padded([9000])
    outputs = []
    for bfloat16 in (False, True):
        torch.manual_seed(1)
        encoder = LogMelEncoder(widths=(4, 8, 8, 8), dim=16, bfloat16=bfloat16).eval()
        with torch.no_grad():
            outputs.append(encoder(*encoder.extract(audio, lengths)).x)
    assert torch.equal(*outputs)


# -- masked batch norm ---------------------------------------------------------------------------


def real_frames(x, mask):
    """``[B, C, T, F]`` to ``[1, C, real frames, F]``."""
    return torch.cat([row[:, m] for row, m in zip(x, mask, strict=True)], 1)[None]


@pytest.fixture
def ragged():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 7, 4) * 2 + 1
    mask = torch.arange(7) < torch.tensor([7, 3, 1])[:, None]
    return x * mask[:, None, :, None], mask


def test_masked_norm_is_batch_norm_of_the_real_frames(ragged):
    x, mask = ragged
    ours, plain = MaskedBatchNorm(5), torch.nn.BatchNorm2d(5)
    with torch.no_grad():
        for norm in (ours, plain):
            norm.weight.copy_(torch.linspace(0.5, 1.5, 5))
            norm.bias.copy_(torch.linspace(-1, 1, 5))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(a, mask), plain(real_frames(b, mask))
    assert_like(real_frames(y, mask), expected, digits=5)
    assert not y[~mask[:, None, :, None].expand_as(y)].any()
    assert_like(ours.mean, plain.running_mean, digits=5)
    assert_like(ours.variance, plain.running_var, digits=5)

    g = torch.randn_like(y)
    (y * g).sum().backward()
    (expected * real_frames(g, mask)).sum().backward()
    assert_like(a.grad, b.grad, digits=5)
    assert_like(ours.weight.grad, plain.weight.grad, digits=5)
    assert_like(ours.bias.grad, plain.bias.grad, digits=5)

    ours.eval(), plain.eval()
    assert_like(real_frames(ours(x, mask), mask), plain(real_frames(x, mask)), digits=5)


def test_no_mask_means_that_all_frames_are_real(ragged):
    x, _ = ragged
    a, b = MaskedBatchNorm(5), MaskedBatchNorm(5)
    everything = torch.ones(3, 7, dtype=torch.bool)
    assert_like(a(x, None), b(x, everything), digits=5)
    assert_like(a.mean, b.mean, digits=5)
    assert_like(a.variance, b.variance, digits=5)
    a.eval(), b.eval()
    assert_like(a(x, None), b(x, everything), digits=5)
