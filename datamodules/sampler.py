"""Batches from durations alone: training buckets by length, evaluation in a fixed order.

Both yield lists of indices (the dataset takes a list and returns a batch) and shard themselves:
every rank builds the same seeded list of batches and takes each N-th.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


def pack(order: Sequence[int], seconds: np.ndarray, size: int, budget: float) -> list[list[int]]:
    """Cut an order into batches of at most ``size`` items and ``budget`` padded seconds.

    A single item longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0.0
    for i in order:
        longest = max(longest, float(seconds[i]))
        full = batches and (len(batches[-1]) >= size or longest * (len(batches[-1]) + 1) > budget)
        if not batches or full:
            batches.append([])
            longest = float(seconds[i])
        batches[-1].append(int(i))
    return batches


class BucketSampler(Sampler[list[int]]):
    """Training batches of similar length, reshuffled each epoch.

    Durations are jittered before sorting, so that buckets differ from epoch to epoch, then packed
    and the batches shuffled. Ranks take each N-th batch; the list is filled up by repeating its
    first batches, so that all ranks make the same number of steps and no utterance is left out.

    Args:
        seconds: duration of each item.
        size: items in a batch at most.
        budget: padded seconds in a batch at most.
        seed: with the epoch, decides the order.
        rank: of this process.
        world: number of processes.
        jitter: log-normal spread of the durations; larger mixes more and pads more.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        *,
        size: int,
        budget: float,
        seed: int,
        rank: int = 0,
        world: int = 1,
        jitter: float = 0.25,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=float)
        self.size, self.budget, self.seed, self.jitter = size, budget, seed, jitter
        self.rank, self.world = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def batches(self) -> list[list[int]]:
        """The batches of all ranks in this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        noise = rng.normal(0.0, self.jitter, len(self.seconds))
        order = np.argsort(np.log(self.seconds + 1e-3) + noise, kind="stable")
        # even batches: no small rest, whose statistics would be poor
        size = -(-len(order) // -(-len(order) // self.size))
        packed = pack(order.tolist(), self.seconds, size, self.budget)
        packed = [packed[i] for i in rng.permutation(len(packed))]
        short = -len(packed) % self.world
        return packed + [packed[i % len(packed)] for i in range(short)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches()[self.rank :: self.world])

    def __len__(self) -> int:
        return len(self.batches()) // self.world


class EvalSampler(Sampler[list[int]]):
    """Every item once, in batches that do not depend on the number of processes.

    Sorted by length and packed once; rank r takes batches r, r + world, ... A batch is thus the
    same tensor whoever computes it, and scores agree to the last bit at any world size. A rank
    that would have none repeats the first batch (Lightning skips an empty loop, and with it the
    gathering at its end); equal rows of one id collapse when they are gathered.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        *,
        size: int,
        budget: float,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        durations = np.asarray(seconds, dtype=float)
        order = np.argsort(durations, kind="stable").tolist()
        packed = pack(order, durations, size, budget)
        self.batches = packed[rank::world] or packed[:1]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
