"""The LightningModule: averaging, optimisation, seeds, what a checkpoint holds."""

import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from facts import says
from serzoo.heads.classification import ClassificationHead
from serzoo.zoo.core.encoder import Encoder
from serzoo.zoo.core.errors import CheckpointError, ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Frames, Targets
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.optim import AveragedWeights, adamw, exempt_vectors
from torch import nn
from torch.utils.data import DataLoader

CLASSES = Taxonomy.of(["angry", "happy", "sad"])


class TinyEncoder(Encoder):
    """Frames of 100 samples; a frozen part, and a trained one with dropout and statistics."""

    def __init__(self):
        super().__init__()
        self.dim = 6
        self.published = nn.Linear(100, 5).requires_grad_(False)
        self.trained = nn.Linear(5, 6)
        self.norm = nn.BatchNorm1d(6)

    def extract(self, audio, lengths):
        with torch.no_grad():
            hidden = self.published(audio.unfold(1, 100, 100))[:, None]
        mask = torch.arange(hidden.shape[2]) < (lengths // 100)[:, None]
        return hidden * mask[:, None, :, None], mask

    def forward(self, hidden, mask):
        x = nn.functional.dropout(self.trained(hidden[:, 0]), 0.2, self.training)
        return Frames(self.norm(x.mT).mT * mask[..., None], mask)

    def frozen_keys(self):
        return frozenset({"published.weight", "published.bias"})


def build(**options):
    torch.manual_seed(0)
    encoder = TinyEncoder()
    return SERModule(encoder, ClassificationHead(encoder.dim, CLASSES, hidden=4), **options)


def batches(number=3, size=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    made = []
    for k in range(number):
        labels = torch.randint(3, (size,), generator=g)
        lengths = torch.randint(200, 900, (size,), generator=g)
        made.append(
            Batch(
                ids=[f"{k}-{i}" for i in range(size)],
                speakers=[f"s{i % 2}" for i in range(size)],
                targets=Targets(nn.functional.one_hot(labels, 3).float(), torch.ones(size)),
                audio=torch.randn(size, 900, generator=g),
                lengths=lengths,
            )
        )
    return DataLoader(made, batch_size=None)


def fit(module, epochs=2, callbacks=(), seed=None, **options):
    if seed is not None:
        torch.manual_seed(seed)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(module, batches(), batches(1, seed=9))
    return trainer


# Averaged weights.


def test_average_equals_the_hand_computed_one():
    weights = {"w": torch.tensor([0.0]), "n": torch.tensor(0)}
    average = AveragedWeights(0.6)
    expected = None
    for step, value in enumerate([1.0, 2.0, 4.0, -3.0, 10.0, 0.5], 1):
        weights["w"].fill_(value)
        weights["n"].fill_(step)
        average.update(weights, step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.weights["w"].item() == pytest.approx(expected, rel=1e-6)
        assert average.weights["n"].item() == step  # counters are taken as they are
    assert weights["w"].item() == 0.5


def test_swapping_exchanges_in_place_and_back():
    current = {"w": torch.tensor([1.0, 2.0])}
    average = AveragedWeights(0.5)
    average.update({"w": torch.tensor([5.0, 6.0])}, 1)
    average.swap(current)
    assert current["w"].tolist() == [5, 6]
    assert average.weights["w"].tolist() == [1, 2]
    average.swap(current)
    assert current["w"].tolist() == [1, 2]
    assert average.weights["w"].tolist() == [5, 6]


def test_before_the_first_step_there_is_nothing_to_exchange():
    current, average = {"w": torch.tensor([1.0])}, AveragedWeights(0.5)
    average.swap(current)
    assert not average.swapped
    average.restart({"w": torch.tensor([3.0])})
    average.swap(current)
    assert average.swapped
    assert current["w"].tolist() == [3]
    average.restart()
    assert (average.swapped, average.weights) == (False, {})


def test_an_average_that_was_read_into_memory_moves_to_the_model():
    average = AveragedWeights(0.5)
    average.restart({"w": torch.tensor([3.0])})
    average.update({"w": torch.empty(1, device="meta")}, 1)
    assert average.weights["w"].device.type == "meta"


class Watch(L.Callback):
    """Keeps copies of the state around and inside validation."""

    def __init__(self):
        self.raw, self.inside, self.averages, self.after = [], [], [], []

    @staticmethod
    def copy(state):
        return {k: v.detach().clone() for k, v in state.items()}

    def on_validation_start(self, trainer, module):  # before the module swaps
        self.raw.append(self.copy(module.state_dict()))
        self.averages.append(self.copy(module.average.weights))

    def on_validation_batch_start(self, trainer, module, *_):
        self.inside.append(self.copy(module.state_dict()))

    def on_validation_end(self, trainer, module):
        self.after.append(self.copy(module.state_dict()))


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in b)


def test_validation_sees_the_average_and_leaves_the_raw_weights():
    watch = Watch()
    fit(build(ema=0.9, lr=0.05), callbacks=[watch])
    assert len(watch.raw) == len(watch.inside) == 2
    for raw, average, inside, after in zip(
        watch.raw, watch.averages, watch.inside, watch.after, strict=True
    ):
        assert same(inside, average)
        assert not same(raw, average)
        assert same(after, raw)
    # running statistics are averaged too, frozen parts are not held a second time
    assert "encoder.norm.running_mean" in watch.averages[0]
    assert not [k for k in watch.averages[0] if "published" in k]


def test_averaging_does_not_change_what_is_trained():
    with_average, without = build(ema=0.9), build()
    fit(with_average), fit(without)
    assert same(with_average.state_dict(), without.state_dict())


# Optimisation.


def configured(monkeypatch, steps=20, **options):
    module = build(**options)
    trainer = SimpleNamespace(estimated_stepping_batches=steps, precision="32-true")
    monkeypatch.setattr(SERModule, "trainer", trainer)
    made = module.configure_optimizers()
    return module, made["optimizer"], made["lr_scheduler"]["scheduler"]


def test_vectors_are_exempt_from_weight_decay(monkeypatch):
    module, optimizer, _ = configured(monkeypatch, weight_decay=0.3)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert set(decay) == {id(p) for p in trained.values()}  # each once, the frozen not at all
    for name, p in trained.items():
        assert decay[id(p)] == (0.3 if p.ndim > 1 else 0.0), name
    assert decay[id(module.encoder.norm.weight)] == 0


@pytest.mark.parametrize("mixed", ["16-mixed", "bf16-mixed"])
def test_one_kernel_takes_the_steps_of_the_plain_optimiser(mixed: str) -> None:
    found = {}
    for precision in ("32-true", mixed):  # mixed precision takes the plain one
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))]
        optimizer = adamw([{"params": weights, "lr": 0.1}], 0.5, precision)
        for _ in range(3):
            for w in weights:
                w.grad = torch.randn_like(w)
            optimizer.step()
        found[optimizer.defaults["fused"]] = weights
    torch.testing.assert_close(found[True], found[False])


def test_groups_keep_their_own_options():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = exempt_vectors([{"params": [matrix, vector], "lr": 0.5}, {"params": [], "lr": 1}])
    assert groups == [
        {"params": [matrix], "lr": 0.5},
        {"params": [vector], "lr": 0.5, "weight_decay": 0.0},
    ]


def test_rate_rises_linearly_then_falls_to_zero(monkeypatch):
    _, optimizer, scheduler = configured(monkeypatch, steps=20, lr=0.4, warmup=0.25)
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:6] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4, 0.4])
    assert rates[12] == pytest.approx(0.2 * (1 + math.cos(math.pi * 7 / 15)))
    assert rates[20] == pytest.approx(0)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)  # it never rises again


def test_the_rate_may_fall_linearly(monkeypatch):
    _, optimizer, scheduler = configured(
        monkeypatch, steps=10, lr=0.5, warmup=0.0, schedule="linear"
    )
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # one step of warming up, as ever, then nine equal falls
    assert rates[:2] == pytest.approx([0.5, 0.5])
    assert rates[1:] == pytest.approx([0.5 * (1 - k / 9) for k in range(10)])


def test_averaged_weights_follow_steps_not_batches():
    module = build(ema=0.5)
    updates = []
    update = module.average.update
    module.average.update = lambda weights, step: (updates.append(step), update(weights, step))
    fit(module, epochs=2, accumulate_grad_batches=3)  # three batches an epoch
    assert updates == [1, 2]


class ForgottenPart(ClassificationHead):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.never_called = nn.Linear(3, 3)


def test_a_parameter_that_no_loss_reaches_is_named():
    encoder = TinyEncoder()
    module = SERModule(encoder, ForgottenPart(encoder.dim, CLASSES))
    with pytest.raises(
        ConfigError,
        match=r"\b2 of \d+ .*head\.never_called\.weight, head\.never_called\.bias.*requires_grad_",
    ):
        fit(module, epochs=1)


def test_the_head_may_have_its_own_rate(monkeypatch):
    module, optimizer, _ = configured(monkeypatch, lr=0.1, head_lr=0.5, warmup=0.0)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {rate[id(p)] for p in module.head.parameters()} == {0.5}
    assert {rate[id(p)] for p in module.encoder.parameters() if p.requires_grad} == {0.1}


def test_logged_rate_is_the_rate(monkeypatch):
    trainer = fit(build(lr=0.1), epochs=2)
    assert float(trainer.logged_metrics["lr"]) == pytest.approx(0, abs=1e-6)
    assert set(trainer.logged_metrics) >= {
        "train/loss", "val/uar", "val/wa", "val/f1", "val/nll", "lr", "time/utt_per_s",
    }  # fmt: skip


# Seeds.


def test_the_seed_decides_the_weights_whatever_was_drawn_before():
    first, second, other = build(mixup=0.5), build(mixup=0.5), build(mixup=0.5, seed=2)
    fit(first, seed=11), fit(second, seed=22), fit(other, seed=11)
    assert same(first.state_dict(), second.state_dict())
    assert not same(first.state_dict(), other.state_dict())


class Draw(L.Callback):
    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.drawn.append(torch.rand(()).item())


def test_each_epoch_has_its_own_seed():
    draw = Draw()
    fit(build(), epochs=3, callbacks=[draw])
    assert len(set(draw.drawn)) == 3


# Evaluation and checkpoints.


def test_evaluation_is_one_table_of_all_utterances():
    module = build()
    trainer = fit(module)
    table = module.tables["valid"]
    assert table.ids == ["0-0", "0-1", "0-2", "0-3"]
    assert trainer.logged_metrics["val/uar"].item() == pytest.approx(table.uar())
    assert trainer.logged_metrics["val/nll"].item() == pytest.approx(table.nll(), rel=1e-5)
    trainer.test(module, batches(2, seed=5), verbose=False)
    assert len(module.tables["test"]) == 8


def test_stored_features_give_the_same_scores():
    module = build().eval()
    batch = batches(1).dataset[0]
    hidden, mask = module.encoder.extract(batch.audio, batch.lengths)
    stored = Batch(batch.ids, batch.speakers, batch.targets, hidden=hidden, mask=mask)
    with torch.no_grad():
        assert torch.equal(module(stored), module(batch))


def saved(module, path):
    fit(module, epochs=1).save_checkpoint(path)
    return torch.load(path, weights_only=True)


def test_a_checkpoint_holds_everything_but_the_frozen_roots(tmp_path):
    module = build(ema=0.5, metadata={"head": {"type": "classification"}, "note": [1, 2]})
    content = saved(module, tmp_path / "a.ckpt")
    whole = module.state_dict()
    frozen = {"encoder.published.weight", "encoder.published.bias"}
    assert frozen < set(whole)
    assert set(content["state_dict"]) == set(content["ema"]) == set(whole) - frozen
    # running statistics do not require a gradient, and are there
    assert "encoder.norm.running_var" in content["state_dict"]
    given = {"format": 1, "head": {"type": "classification"}, "note": [1, 2]}
    assert {k: content["serzoo"][k] for k in given} == given


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    content = saved(build(), tmp_path / "a.ckpt")
    del content["state_dict"]["encoder.trained.weight"]
    with pytest.raises(CheckpointError, match=says(1, "encoder.trained.weight")):
        build().on_load_checkpoint(content)
