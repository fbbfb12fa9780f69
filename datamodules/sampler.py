"""Samplers: batches from durations alone, by length for training, in a fixed order for evaluation.

Both yield lists of indices; the dataset turns a list into a batch. Both divide the batches among
ranks: every rank builds the same seeded list and takes each N-th batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DistributedSampler


def pack(order: Sequence[int], seconds: np.ndarray, size: int, budget: float) -> list[list[int]]:
    """Cut an order into batches of at most ``size`` items and ``budget`` padded seconds.

    An item longer than the budget is a batch of its own.
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
    """Base of samplers that yield the batches of one rank, as lists of indices.

    It is a ``DistributedSampler``, because Lightning would otherwise divide it again (unless
    ``use_distributed_sampler=False``). Every rank would then silently use only a share of its
    share.
    """

    def __init__(self, rank: int, world: int) -> None:
        # the constructor of torch needs a dataset, and its sampler yields single items
        self.rank, self.num_replicas = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch


class BucketSampler(ShardingSampler):
    """Training batches of similar length, reshuffled each epoch.

    Items are shuffled into pools of eight batches. Each pool is sorted by jittered duration and
    packed, and then the batches are shuffled. So neighbours in a batch change from epoch to
    epoch, and the lengths in a batch are similar. Ranks take each N-th batch. Every epoch has the
    same number of batches, a multiple of the ranks. Lightning counts them once and would cut a
    longer epoch. If a draw gives fewer batches, the largest are halved, so that each item comes
    exactly once.

    Args:
        seconds: duration of each item.
        size: largest number of items in a batch.
        budget: largest number of padded seconds in a batch.
        seed: decides the order, together with the epoch.
        rank: rank of this process.
        world: number of processes.
        jitter: log-normal spread of the durations; more jitter mixes more and pads more.
        pool: number of batches that share a pool.
        copies: number of corrupted copies of each item. If one is drawn, it takes the place of the
            item. Index ``c * N + i`` is copy c of item i of N.
        clean: share of draws that keep the item itself.
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
        copies: int = 0,
        clean: float = 0.5,
    ) -> None:
        self.seconds = np.asarray(seconds, dtype=float)
        self.size = size
        self.budget = budget
        self.seed = seed
        self.jitter = jitter
        super().__init__(rank, world)
        self.world, self.pool = world, pool
        self.copies, self.clean = copies, clean
        # enough batches for a few draws, and for the sorted order, the fallback of any draw
        rng = np.random.default_rng(seed)
        zero = np.zeros(len(self.seconds))
        needed = [len(self._packed(*self._draw(rng))) for _ in range(4)]
        needed.append(len(self._packed(zero, zero)))
        self.steps = -(-max(needed) // world)

    def batches(self) -> list[list[int]]:
        """Return the batches of all ranks in this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        noise, pools = self._draw(rng)
        number = self.steps * self.world
        packed = self._packed(noise, pools)
        while len(packed) > number:  # a poor draw: an order closer to the sorted one packs better
            noise, pools = np.where(np.abs(noise) > 1e-3, noise / 2, 0.0), 0 * pools
            packed = self._packed(noise, pools)
        packed = _filled(packed, number)
        chosen = [packed[i] for i in rng.permutation(number)]
        return self._copied(chosen) if self.copies else chosen

    def _copied(self, batches: list[list[int]]) -> list[list[int]]:
        """Return the batches with some items replaced by a copy; their order is the same."""
        n = len(self.seconds)
        rng = np.random.default_rng([self.seed, self.epoch, 1])
        drawn = rng.integers(1, self.copies + 1, n) * (rng.random(n) >= self.clean)
        return [[int(drawn[i]) * n + i for i in batch] for batch in batches]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        noise = rng.normal(0.0, self.jitter, len(self.seconds))
        pools = rng.permutation(len(self.seconds)) // (self.pool * self.size)
        return noise, pools.astype(float)

    def _packed(self, noise: np.ndarray, pools: np.ndarray) -> list[list[int]]:
        order = np.lexsort((np.log(self.seconds + 1e-3) + noise, pools))
        # even batches: a small rest would have poor statistics
        size = -(-len(order) // -(-len(order) // self.size))
        return pack(order.tolist(), self.seconds, size, self.budget)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches()[self.rank :: self.world])

    def __len__(self) -> int:
        return self.steps


def _filled(batches: list[list[int]], number: int) -> list[list[int]]:
    """Return ``number`` batches, by halving the largest.

    The first is repeated if all have one item.
    """
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

    Items are sorted by length and packed once; rank r takes batches r, r + world, ... So a batch
    is the same tensor on any rank. Scores are equal to the bit for any world size. If the
    number of batches is not a multiple of the ranks, the last ranks repeat the first batches. There
    are two reasons. Lightning skips an empty loop and the gathering at its end. And all ranks must
    gather sharded weights for every batch. Gathering merges equal rows of one id.
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
