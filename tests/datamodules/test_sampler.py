"""Batches from durations: who gets what, and how much of it."""

from collections import Counter

import lightning as L
import numpy as np
import pytest
import torch
from serzoo.datamodules.sampler import BucketSampler, EvalSampler, pack
from torch.utils.data import DataLoader, Dataset

SECONDS = np.random.default_rng(0).uniform(0.5, 20, 103).tolist()


def bucket(rank=0, world=1, size=8, budget=60.0, seconds=SECONDS, seed=1):
    return BucketSampler(seconds, size=size, budget=budget, seed=seed, rank=rank, world=world)


def flat(batches):
    return [i for batch in batches for i in batch]


# -- packing -------------------------------------------------------------------------------------


def test_packing_closes_a_batch_at_either_limit():
    seconds = np.array([1.0, 1, 1, 4, 9, 2])
    assert pack([0, 1, 2, 3, 4, 5], seconds, 3, 8.0) == [[0, 1, 2], [3], [4], [5]]
    assert pack([0, 1, 2, 3, 5], seconds, 2, 8.0) == [[0, 1], [2, 3], [5]]
    assert pack([0, 1, 3], seconds, 9, 8.0) == [[0, 1], [3]]  # padded to 4 s each, 12 s were
    assert pack([], seconds, 3, 8.0) == []


# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", range(5))
def test_every_utterance_once_per_epoch(epoch):
    sampler = bucket()
    sampler.set_epoch(epoch)
    assert sorted(flat(sampler)) == list(range(103))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_ranks_make_the_same_number_of_steps_and_leave_nobody_out(world, epoch):
    samplers = [bucket(rank, world) for rank in range(world)]
    for s in samplers:
        s.set_epoch(epoch)
    parts = [list(s) for s in samplers]
    assert len({len(p) for p in parts}) == 1
    assert [len(s) for s in samplers] == [len(parts[0])] * world
    # filled up by cutting a batch in two, not by hearing somebody twice
    assert Counter(flat(flat(parts))) == Counter(range(103))


@pytest.mark.parametrize("world", [1, 2])
def test_batches_keep_the_budget_and_the_size(world):
    for rank in range(world):
        sampler = bucket(rank, world)
        for epoch in range(5):
            sampler.set_epoch(epoch)
            for batch in sampler:
                assert 1 <= len(batch) <= 8
                assert len(batch) == 1 or max(SECONDS[i] for i in batch) * len(batch) <= 60


def test_an_utterance_beyond_the_budget_is_a_batch_of_its_own():
    sampler = bucket(seconds=[1.0, 100.0, 1.0], budget=10.0)
    assert sorted(map(sorted, sampler)) == [[0, 2], [1]]


def test_epochs_differ_and_return():
    sampler = bucket()
    seen = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        seen.append(list(sampler))
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]
    assert {frozenset(b) for b in seen[0]} != {frozenset(b) for b in seen[1]}  # not only the order
    assert list(bucket(seed=2)) != seen[0]


def test_batches_are_of_similar_length():
    spread = [np.ptp([SECONDS[i] for i in b]) for b in bucket(budget=1e9)]
    assert np.mean(spread) < np.ptp(SECONDS) / 2


def test_batches_are_of_even_size():
    sizes = [len(b) for b in bucket(size=20, budget=1e9)]
    assert sorted(sizes) == [17, 17, 17, 17, 17, 18] or max(sizes) - min(sizes) <= 5
    assert len(sizes) == 6


def test_the_number_of_batches_is_the_same_in_every_epoch():
    """Lightning counts once: a longer epoch would be cut off, a shorter one not validated."""
    for world in (1, 2, 3):
        sampler = bucket(world=world)
        counts = set()
        for epoch in range(60):
            sampler.set_epoch(epoch)
            counts.add((len(sampler), len(list(sampler))))
        assert len(counts) == 1
        assert len({n for pair in counts for n in pair}) == 1


def test_fewer_utterances_than_ranks():
    parts = [list(bucket(rank, 3, seconds=[1.0, 2.0])) for rank in range(3)]
    assert [len(p) for p in parts] == [1, 1, 1]
    assert set(flat(flat(parts))) == {0, 1}


class Numbers(Dataset):
    def __getitem__(self, indices):
        return torch.tensor(indices)

    def __len__(self):
        return len(SECONDS)


class Listener(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.heard, self.validated = [], 0

    def on_train_epoch_start(self):
        self.heard.append([])

    def training_step(self, batch, batch_idx):
        self.heard[-1] += batch.tolist()
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_under_lightning_every_epoch_is_whole_reshuffled_and_validated():
    module = Listener()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=6, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    train = DataLoader(Numbers(), sampler=bucket(), batch_size=None)
    trainer.fit(module, train, DataLoader([torch.zeros(1)], batch_size=None))
    assert [sorted(epoch) for epoch in module.heard] == [list(range(103))] * 6
    assert len({tuple(epoch) for epoch in module.heard}) == 6
    assert module.validated == 6


# -- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_batches_do_not_depend_on_the_number_of_processes(world):
    alone = list(EvalSampler(SECONDS, size=8, budget=60.0))
    assert sorted(flat(alone)) == list(range(103))
    parts = [
        list(EvalSampler(SECONDS, size=8, budget=60.0, rank=r, world=world)) for r in range(world)
    ]
    longest = -(-len(alone) // world)
    for rank, part in enumerate(parts):
        own = alone[rank::world]
        assert part[: len(own)] == own
        # as many for each, as shared-out weights need it: the first ones come again
        assert len(part) == longest
        assert all(batch in alone[:world] for batch in part[len(own) :])


def test_a_rank_without_a_batch_repeats_the_first():
    parts = [list(EvalSampler([1.0, 2.0], size=8, budget=60.0, rank=r, world=3)) for r in range(3)]
    assert parts == [[[0, 1]]] * 3


def test_evaluation_keeps_the_budget():
    sampler = EvalSampler(SECONDS, size=8, budget=60.0)
    assert len(sampler) == len(list(sampler))
    for batch in sampler:
        assert len(batch) == 1 or max(SECONDS[i] for i in batch) * len(batch) <= 60
