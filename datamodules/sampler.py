"""Batches from durations alone: training buckets by length, evaluation in a fixed order.

Both yield lists of indices (the dataset takes a list and returns a batch) and shard themselves:
every rank builds the same seeded list of batches and takes each N-th.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DistributedSampler


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


class ShardingSampler(DistributedSampler[list[int]]):
    """Lists of indices, of which each rank yields its own.

    Of torch's class of such samplers, since Lightning would else shard it once more, unless told
    not to (``use_distributed_sampler=False``), and every rank would leave out all but its share of
    its share, in silence.
    """

    def __init__(self, rank: int, world: int) -> None:
        # torch's own wants a dataset, and yields single items
        self.rank, self.num_replicas = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch


class BucketSampler(ShardingSampler):
    """Training batches of similar length, reshuffled each epoch.

    Items are shuffled into pools of eight batches; each pool is sorted by jittered duration,
    packed, and the batches shuffled: neighbours in a batch change from epoch to epoch, and lengths
    in a batch are alike. Ranks take each N-th batch. Every epoch has the same number of batches, a
    multiple of the ranks (Lightning counts them once, and would cut a longer epoch
    off): where there are fewer, the largest are cut in two, so that each item comes exactly once.

    Args:
        seconds: duration of each item.
        size: items in a batch at most.
        budget: padded seconds in a batch at most.
        seed: with the epoch, decides the order.
        rank: of this process.
        world: number of processes.
        jitter: log-normal spread of the durations; larger mixes more and pads more.
        pool: batches that share a pool.
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
        jitter: float = 0.1,
        pool: int = 8,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=float)
        self.size, self.budget, self.seed, self.jitter = size, budget, seed, jitter
        super().__init__(rank, world)
        self.world, self.pool = world, pool
        # what a few draws need, and the sorted order, to which any other can fall back
        rng = np.random.default_rng(seed)
        zero = np.zeros(len(self.seconds))
        needed = [len(self._packed(*self._draw(rng))) for _ in range(4)]
        needed.append(len(self._packed(zero, zero)))
        self.steps = -(-max(needed) // world)

    def batches(self) -> list[list[int]]:
        """The batches of all ranks in this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        noise, pools = self._draw(rng)
        number = self.steps * self.world
        packed = self._packed(noise, pools)
        while len(packed) > number:  # a poor draw: closer to the sorted order packs better
            noise, pools = np.where(np.abs(noise) > 1e-3, noise / 2, 0.0), 0 * pools
            packed = self._packed(noise, pools)
        packed = _filled(packed, number)
        return [packed[i] for i in rng.permutation(number)]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        noise = rng.normal(0.0, self.jitter, len(self.seconds))
        pools = rng.permutation(len(self.seconds)) // (self.pool * self.size)
        return noise, pools.astype(float)

    def _packed(self, noise: np.ndarray, pools: np.ndarray) -> list[list[int]]:
        order = np.lexsort((np.log(self.seconds + 1e-3) + noise, pools))
        # even batches: no small rest, whose statistics would be poor
        size = -(-len(order) // -(-len(order) // self.size))
        return pack(order.tolist(), self.seconds, size, self.budget)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches()[self.rank :: self.world])

    def __len__(self) -> int:
        return self.steps


def _filled(batches: list[list[int]], number: int) -> list[list[int]]:
    """As many batches as asked for, by halving the largest; the first is repeated if all are 1."""
    batches = list(batches)
    while len(batches) < number:
        k = max(range(len(batches)), key=lambda i: len(batches[i]))
        half = -(-len(batches[k]) // 2)
        first, rest = batches[k][:half], batches[k][half:]
        batches[k] = first
        batches.append(rest or batches[0])
    return batches


class EvalSampler(ShardingSampler):
    """Every item once, in batches that do not depend on the number of processes.

    Sorted by length and packed once; rank r takes batches r, r + world, ... A batch is thus the
    same tensor whoever computes it, and scores agree to the last bit at any world size. Where the
    batches do not come out even, the last ranks repeat the first ones: Lightning skips an empty
    loop, and with it the gathering at its end, and weights that are shared out are gathered for
    every batch by all. Equal rows of one id collapse when they are gathered.
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
        super().__init__(rank, world)
        durations = np.asarray(seconds, dtype=float)
        order = np.argsort(durations, kind="stable").tolist()
        packed = pack(order, durations, size, budget)
        short = -len(packed) % world
        even = packed + [packed[k % len(packed)] for k in range(short if packed else 0)]
        self.batches = even[rank::world]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
