"""Random corruption of training audio: generated noise, rooms, tilt, telephone band, clipping.

All noises and rooms are made from random numbers. Recorded ones stay for the test
(:mod:`.corruption`). The ranges are those of :mod:`.distortions`. A batch is corrupted at once.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..zoo.core.types import SAMPLE_RATE
from .distortions import RANGES, TELEPHONE

ROOM = SAMPLE_RATE // 2  # samples of an echo


class Corrupter:
    """Corrupts batches of audio at random.

    Args:
        clean: share of the utterances that stay as they are.
        noise: share of the others with added noise.
        room: share of the others in a room.
        channel: share of the others with a tilted spectrum; half as many have a telephone's band.
        clip: share of the others whose loudest samples are clipped.
        seed: seed of the random numbers.
    """

    def __init__(
        self,
        *,
        clean: float = 0.4,
        noise: float = 0.8,
        room: float = 0.4,
        channel: float = 0.3,
        clip: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.shares = {"noise": noise, "room": room, "channel": channel, "clip": clip}
        self.clean = clean
        self.random = torch.Generator()
        self.restart(seed)

    def restart(self, *seed: int) -> None:
        """Draw other random numbers from here on, which depend on these numbers only."""
        words = np.random.SeedSequence(seed).generate_state(2).tolist()
        self.random.manual_seed(words[0] << 31 | words[1])

    def __call__(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, S]`` corrupted audio on the CPU; its mean power stays nearly the same.

        Args:
            audio: ``[B, S]`` float32, 16 kHz mono, zero behind the end.
            lengths: ``[B]`` number of real samples of each row.
        """
        rows = self._uniform(len(audio)) >= self.clean
        chosen = {k: rows & (self._uniform(len(audio)) < p) for k, p in self.shares.items()}
        x = audio.clone()
        filtered = chosen["room"] | chosen["channel"]
        if filtered.any():
            x[filtered] = self._filtered(
                x[filtered], chosen["room"][filtered], chosen["channel"][filtered]
            )
        real = torch.arange(x.shape[1]) < lengths[:, None]
        x *= real
        if chosen["noise"].any():
            here = chosen["noise"]
            x[here] += self._noise(x, here, lengths)
        for row in chosen["clip"].nonzero()[:, 0].tolist():
            share = math.exp(float(self._between(1, *map(math.log, RANGES["clipped"]))))
            loud = x[row, : lengths[row]].abs()
            level = loud.kthvalue(max(1, int(len(loud) * (1 - share)))).values
            x[row] = x[row].clamp(-level, level)
        return x * real

    def _uniform(self, *size: int) -> Tensor:
        return torch.rand(*size, generator=self.random)

    def _between(self, n: int, low: float, high: float) -> Tensor:
        return low + (high - low) * self._uniform(n)

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.random)

    def _filtered(self, x: Tensor, room: Tensor, channel: Tensor) -> Tensor:
        """Return ``[B, S]`` in rooms and through channels, with the old power."""
        size = _fast(x.shape[1] + ROOM)
        spectrum = torch.fft.rfft(x, size)
        hz = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1])
        if room.any():
            time = torch.arange(ROOM) / SAMPLE_RATE
            fall = 10 ** (-3 * time / self._between(int(room.sum()), *RANGES["decay"])[:, None])
            echo = self._normal(len(fall), ROOM) * fall
            echo[:, 0] = 0
            over = 10 ** (-self._between(len(fall), *RANGES["direct"]) / 20)
            echo *= (over / echo.square().sum(1).sqrt())[:, None]
            echo[:, 0] = 1
            spectrum[room] *= torch.fft.rfft(echo, size)
        if channel.any():
            octaves = hz.clamp(125, 8000).div(1000).log2() / 3  # as distortions.tilt
            gain = 10 ** (
                self._between(int(channel.sum()), *RANGES["tilt"])[:, None] * octaves / 20
            )
            narrow, (_, low, high) = self._uniform(len(gain)) < 0.5, TELEPHONE
            gain[narrow] *= torch.where((hz >= low) & (hz <= high), 1.0, 1e-3)
            spectrum[channel] *= gain
        y: Tensor = torch.fft.irfft(spectrum, size)[:, : x.shape[1]]
        power = y.square().mean(1).clamp_min(1e-12)
        same: Tensor = y * (x.square().mean(1) / power).sqrt()[:, None]
        return same

    def _noise(self, x: Tensor, here: Tensor, lengths: Tensor) -> Tensor:
        """Return noise for the chosen rows: coloured, tonal, or the voices of other rows."""
        n, samples = int(here.sum()), x.shape[1]
        kind = self._uniform(n)
        size = _fast(samples)
        spectrum = torch.fft.rfft(self._normal(n, size))
        hz = torch.arange(spectrum.shape[1]).clamp_min(4) * SAMPLE_RATE / size
        spectrum *= (hz / 1000) ** (-self._between(n, *RANGES["colour"])[:, None] / 2)
        noise: Tensor = torch.fft.irfft(spectrum, size)[:, :samples]
        noise /= noise.square().mean(1, keepdim=True).sqrt()
        time = torch.arange(samples) / SAMPLE_RATE
        tonal = kind > 0.85
        if tonal.any():
            noise[tonal] = 0.2 * noise[tonal] + self._tones(int(tonal.sum()), time)
        changing = self._uniform(n) < 0.5
        if changing.any():
            rate = self._between(int(changing.sum()), 0.3, 6)[:, None]
            phase = 2 * math.pi * (self._uniform(len(rate), 1) + rate * time)
            noise[changing] *= (self._between(len(rate), 0, 4)[:, None] * phase.sin()).exp()
        voices = (kind < 0.12).nonzero()[:, 0]
        for k in voices.tolist():
            others = torch.randint(len(x), (int(self._between(1, 1, 6)),), generator=self.random)
            noise[k] = sum(x[o].roll(int(self._uniform(1) * samples)) for o in others.tolist())
        real = torch.arange(samples) < lengths[here][:, None]
        noise *= real
        power = noise.square().sum(1).clamp_min(1e-9)
        wanted = x[here].square().sum(1) * 10 ** (-self._between(n, *RANGES["snr"]) / 10)
        scaled: Tensor = noise * (wanted / power).sqrt()[:, None]
        return scaled

    def _tones(self, n: int, time: Tensor) -> Tensor:
        """Return ``[n, S]`` harmonic tones whose pitch moves, with power 1."""
        base = 10 ** self._between(n, 2, 3.2)[:, None]
        swing, rate = self._between(n, 0, 0.3)[:, None], self._between(n, 0.2, 3)[:, None]
        phase = 2 * math.pi * base * (time + swing * (2 * math.pi * rate * time).sin() / rate / 6.3)
        sound = sum((k * phase).sin() / k for k in range(1, 5))
        assert isinstance(sound, Tensor)
        return sound / sound.square().mean(1, keepdim=True).sqrt()


def _fast(samples: int) -> int:
    """Return a length, at least ``samples``, whose Fourier transform is fast."""
    step = 4096
    return -(-samples // step) * step
