"""SERModule under a ``lightning.Trainer`` of one's own, with whatever it can be told to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.tuner import Tuner
from serzoo.heads.classification import ClassificationHead
from serzoo.zoo import Batch, Encoder, Frames, SERModule, Targets, Taxonomy, build_run
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import CheckpointError, ConfigError, DataError
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.run import checkpoint
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.model import Model
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.score import evaluate
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

pytestmark = pytest.mark.usefixtures("no_group_left")
CLASSES = Taxonomy.of(["angry", "happy", "sad"])
QUIET: dict[str, Any] = {
    "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


class OwnEncoder(Encoder):
    """A user's own: the sizes of frames of 100 samples, and statistics that run along."""

    def __init__(self, *, width: int = 6) -> None:
        super().__init__()
        self.dim = width
        self.project = nn.Linear(100, width)
        self.norm = nn.BatchNorm1d(width)

    def extract(self, audio: torch.Tensor, lengths: torch.Tensor) -> Any:
        hidden = audio.unfold(1, 100, 100)[:, None]
        mask = torch.arange(hidden.shape[2]) < (lengths // 100)[:, None]
        return hidden * mask[:, None, :, None], mask

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> Frames:
        x = nn.functional.dropout(self.project(hidden[:, 0]), 0.2, self.training)
        return Frames(self.norm(x.mT).mT * mask[..., None], mask)


class OwnHead(ClassificationHead):
    """Of a class that nothing is registered under."""


def own(**options: Any) -> SERModule:
    torch.manual_seed(0)
    encoder = OwnEncoder(width=4)
    return SERModule(encoder, OwnHead(encoder.dim, CLASSES, hidden=4), **options)


def by_hand(taxonomy: Taxonomy = CLASSES, **options: Any) -> SERModule:
    torch.manual_seed(0)
    encoder = LogMelEncoder(widths=(4, 4, 4, 4), dim=8, bfloat16=False)
    return SERModule(encoder, ClassificationHead(encoder.dim, taxonomy, hidden=4), **options)


def batches(number: int = 4, seed: int = 0, *, shuffle: bool = False) -> DataLoader[Batch]:
    """The user's own loader, of whole batches."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for k in range(number):
        labels = torch.randint(3, (4,), generator=draw)
        made.append(
            Batch(
                ids=[f"{seed}-{k}-{i}" for i in range(4)],
                speakers=[f"s{i % 2}" for i in range(4)],
                targets=Targets(nn.functional.one_hot(labels, 3).float(), torch.ones(4)),
                audio=torch.randn(4, 1700, generator=draw),
                lengths=torch.randint(800, 1700, (4,), generator=draw),
            )
        )
    # its iterator's number is drawn elsewhere: dropout is then the same in a run that goes on
    return DataLoader(
        made,  # type: ignore[arg-type]  # a list is a dataset
        batch_size=None,
        shuffle=shuffle,
        generator=torch.Generator(),
    )


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    chosen = {"max_epochs": 2, "logger": False, "default_root_dir": str(tmp_path), **options}
    return L.Trainer(**QUIET, **chosen)


def weights(module: SERModule) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


# Fitting.

OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "as it is": lambda _: {"logger": True},
    "one sanity batch": lambda _: {"num_sanity_val_steps": 1},
    "all sanity batches": lambda _: {"num_sanity_val_steps": -1},
    "no sanity check": lambda _: {"num_sanity_val_steps": 0},
    "one batch, overfitted": lambda _: {"overfit_batches": 1},
    "half of the batches, overfitted": lambda _: {"overfit_batches": 0.5},
    "fast run": lambda _: {"fast_dev_run": True},
    "fast run of two": lambda _: {"fast_dev_run": 2, "logger": True},
    "accumulation": lambda _: {"accumulate_grad_batches": 3},
    "bfloat16": lambda _: {"precision": "bf16-mixed"},
    "bfloat16, clipped": lambda _: {"precision": "bf16-mixed", "gradient_clip_val": 1.0},
    "bfloat16 by its short name": lambda _: {"precision": "bf16", "gradient_clip_val": 1.0},
    "32 bits by their number": lambda _: {"precision": 32},
    "clipped norm": lambda _: {"gradient_clip_val": 0.5},
    "clipped values": lambda _: {
        "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value", "precision": "bf16-mixed",
    },
    "some training batches": lambda _: {"limit_train_batches": 2},
    "a share of them": lambda _: {"limit_train_batches": 0.5, "limit_val_batches": 0.5},
    "no validation": lambda _: {"limit_val_batches": 0},
    "validation in the epoch": lambda _: {"val_check_interval": 2},
    "validation of quarters": lambda _: {"val_check_interval": 0.25},
    "validation of steps": lambda _: {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "validation of every other epoch": lambda _: {"check_val_every_n_epoch": 2},
    "steps": lambda _: {"max_steps": 3, "max_epochs": -1},
    "more steps than epochs": lambda _: {"max_steps": 100},
    "no checkpoints": lambda _: {"enable_checkpointing": False},
    "no logger": lambda _: {"logger": False},
    "CSV logger": lambda p: {"logger": CSVLogger(str(p))},
    "TensorBoard": lambda p: {"logger": TensorBoardLogger(str(p)), "log_every_n_steps": 1},
    "two loggers": lambda p: {"logger": [CSVLogger(str(p)), TensorBoardLogger(str(p))]},
    "profiler": lambda _: {"profiler": "simple"},
    "anomaly detection": lambda _: {"detect_anomaly": True},
    "deterministic": lambda _: {"deterministic": "warn"},
    "no inference mode": lambda _: {"inference_mode": False},
    "barebones": lambda _: {"barebones": True},
    "early stopping": lambda _: {"callbacks": [EarlyStopping("val/uar", mode="max", patience=1)]},
    "early stopping by the loss": lambda _: {"callbacks": [EarlyStopping("train/loss")]},
    "best and last": lambda p: {
        "callbacks": [ModelCheckpoint(p, monitor="val/nll", save_last=True, save_top_k=2)]
    },
    "checkpoints of steps": lambda p: {"callbacks": [ModelCheckpoint(p, every_n_train_steps=2)]},
    "checkpoints of weights": lambda p: {"callbacks": [ModelCheckpoint(p, save_weights_only=True)]},
    "weight averaging": lambda _: {
        "callbacks": [StochasticWeightAveraging(1e-2, swa_epoch_start=1)], "max_epochs": 3,
    },
    "averaging by Lightning": lambda _: {"callbacks": [EMAWeightAveraging(decay=0.9)]},
    "growing accumulation": lambda _: {"callbacks": [GradientAccumulationScheduler({1: 2})]},
    "rate finder": lambda _: {"callbacks": [LearningRateFinder(num_training_steps=8)]},
    "rate monitor": lambda _: {"callbacks": [LearningRateMonitor()], "logger": True},
    "timer": lambda _: {"callbacks": [Timer(duration={"minutes": 5})]},
    "reloaded loaders": lambda _: {"reload_dataloaders_every_n_epochs": 1},
    "ddp of one": lambda _: {"strategy": "ddp"},
}  # fmt: skip


WITHOUT_AVERAGE = (
    *("as it is", "one batch, overfitted", "fast run", "bfloat16, clipped", "weight averaging"),
    *("validation of quarters", "averaging by Lightning", "rate finder"),
)


def test_how_much_is_swept() -> None:
    assert (len(OPTIONS), len(WITHOUT_AVERAGE)) == (47, 8)


@pytest.mark.parametrize(
    ("name", "ema"),
    [*((name, 0.9) for name in OPTIONS), *((name, 0.0) for name in WITHOUT_AVERAGE)],
)
def test_it_is_fitted_validated_tested_and_asked(name: str, ema: float, tmp_path: Path) -> None:
    module = own(ema=ema, lr=0.05)
    before = weights(module)
    made = trainer(tmp_path, **OPTIONS[name](tmp_path))
    made.fit(module, batches(shuffle=name == "one batch, overfitted"), batches(2, seed=9))
    assert made.state.finished
    after = weights(module)
    assert not same(before, after)
    assert all(v.isfinite().all() for v in after.values())
    assert module.training
    if name not in ("barebones", "no validation"):
        made.validate(module, batches(2, seed=9), verbose=False)
        assert 0 <= float(made.logged_metrics["val/uar"]) <= 1
        made.test(module, batches(2, seed=7), verbose=False)
        assert 0 <= float(made.logged_metrics["test/uar"]) <= 1
    # the average is what is scored, and put back
    assert same(weights(module), after)
    scores = made.predict(module, batches(2, seed=7))
    assert scores is not None
    assert {tuple(s.shape) for s in scores} == {(4, 3)}
    best = getattr(made.checkpoint_callback, "best_model_path", "")
    assert bool(best) == (
        made.checkpoint_callback is not None and "fast" not in name and name != "barebones"
    )
    if best:
        encoder = OwnEncoder(width=4)
        head = OwnHead(4, CLASSES, hidden=4)
        loaded = SERModule.load_from_checkpoint(best, encoder=encoder, head=head)
        assert not loaded.training
        content = torch.load(best, weights_only=True)
        assert same(weights(loaded), content.get("ema") or content["state_dict"])


@pytest.mark.parametrize("make", [own, by_hand])
def test_the_learning_rate_is_found_and_reaches_every_part(
    make: Callable[..., SERModule], tmp_path: Path
) -> None:
    module = make(ema=0.9)
    before = weights(module)
    made = trainer(tmp_path)
    found = Tuner(made).lr_find(module, batches(), batches(2, seed=9), num_training=12)
    assert found is not None
    assert same(weights(module), before)
    assert module.average is not None
    assert not module.average.weights  # what was tried is no part of the average
    module.lr = 0.125
    made.fit(module, batches(), batches(2, seed=9))
    assert {g["initial_lr"] for g in made.optimizers[0].param_groups} == {0.125}


def test_the_batch_size_of_the_data_module_is_found(tiny_recipe: str, tmp_path: Path) -> None:
    module, data = build_run(tiny_recipe)
    made = trainer(tmp_path, max_epochs=1)
    size = Tuner(made).scale_batch_size(module, datamodule=data, max_trials=2, steps_per_trial=1)
    assert size == data.batch_size


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_goes_on_where_a_checkpoint_was_written(ema: float, tmp_path: Path) -> None:
    whole, first = own(ema=ema), own(ema=ema)
    steps = {"max_epochs": 4, "num_sanity_val_steps": 2}
    trainer(tmp_path, **steps).fit(whole, batches(), batches(2, seed=9))

    class Stop(Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(tmp_path, **steps, callbacks=[keep, Stop()]).fit(first, batches(), batches(2, seed=9))
    went_on = own(ema=ema)
    trainer(tmp_path, **steps).fit(
        went_on, batches(), batches(2, seed=9), ckpt_path=str(tmp_path / "epoch=1.ckpt")
    )
    assert same(weights(went_on), weights(whole))


def test_an_average_may_begin_when_training_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "last.ckpt")
    made = trainer(tmp_path, max_epochs=1)
    made.fit(own(), batches())
    made.save_checkpoint(path)
    module = own(ema=0.9)
    trainer(tmp_path, max_epochs=2).fit(module, batches(), ckpt_path=path)
    assert module.average is not None
    assert set(module.average.weights) == set(module.state_dict())


def test_the_average_that_was_selected_is_what_a_checkpoint_is_scored_by(tmp_path: Path) -> None:
    """Not the weights that training goes on from."""
    module = own(ema=0.9, lr=0.05)
    made = trainer(tmp_path)
    made.fit(module, batches(), batches(2, seed=9))
    validated = module.tables["valid"]
    for score in (
        lambda: made.validate(module, batches(2, seed=9), verbose=False),
        lambda: made.validate(module, batches(2, seed=9), ckpt_path="best", verbose=False),
    ):
        module.tables.clear()
        score()
        assert module.tables["valid"] == validated
    kept = made.checkpoint_callback
    assert isinstance(kept, ModelCheckpoint)
    content = torch.load(kept.best_model_path, weights_only=True)
    assert same(weights(module), content["ema"])
    assert not same(content["ema"], content["state_dict"])


class SaveInside(Callback):
    """A checkpoint in the middle of a validation, and then an error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("the disk is full")


def test_a_validation_that_is_interrupted_mixes_no_weights_up(tmp_path: Path) -> None:
    module, path = own(ema=0.5, lr=0.05), tmp_path / "inside.ckpt"
    with pytest.raises(RuntimeError, match="disk"):
        trainer(tmp_path, max_epochs=1, callbacks=[SaveInside(path)]).fit(
            module, batches(), batches(2, seed=9)
        )
    other = own(ema=0.5, lr=0.05)
    trainer(tmp_path, max_epochs=1).fit(other, batches(), batches(2, seed=9))
    content = torch.load(path, weights_only=True)
    assert same(content["state_dict"], weights(other))
    trainer(tmp_path, max_epochs=0).fit(module, batches())
    assert same(weights(module), weights(other))


def test_a_loaded_model_is_trained_further_in_training_mode(tmp_path: Path) -> None:
    module = own().eval()
    trainer(tmp_path, max_epochs=1).fit(module, batches())
    assert module.training
    assert module.encoder.norm.num_batches_tracked == 4  # type: ignore[union-attr]


class Endless(IterableDataset[Batch]):
    """Batches of which nobody knows how many there are."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(batches().dataset)  # type: ignore[call-overload,no-any-return]


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    """Its learning rate would be zero from the second step on."""
    endless = DataLoader(Endless(), batch_size=None)
    for loader, options in (
        (batches(), {"max_epochs": -1, "max_time": {"minutes": 1}}),
        (endless, {"max_epochs": 2}),
    ):
        with pytest.raises(ConfigError, match=r"max_epochs=-1.*set max_steps"):
            trainer(tmp_path, **options).fit(own(), loader)
    made = trainer(tmp_path, max_epochs=-1, max_steps=6)
    made.fit(own(warmup=0.0), endless)
    assert made.global_step == 6


def test_several_loaders_are_one_part(tmp_path: Path) -> None:
    module, parts = own(), [batches(2, seed=9), batches(1, seed=8)]
    made = trainer(tmp_path, max_epochs=1)
    made.fit(module, batches(), parts)
    made.test(module, parts, verbose=False)
    assert len(module.tables["valid"]) == len(module.tables["test"]) == 12


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_what_is_no_batch_is_told(verb: str, tmp_path: Path) -> None:
    loader = DataLoader([(torch.zeros(4, 1700), torch.zeros(4))], batch_size=None)  # type: ignore[arg-type,var-annotated]
    with pytest.raises(DataError, match=r"gave a list.*Batch.*batch_size=None"):
        getattr(trainer(tmp_path), verb)(own(), loader)


@pytest.mark.parametrize("averaging", [EMAWeightAveraging, StochasticWeightAveraging])
def test_lightning_s_averages_leave_a_published_encoder_out(
    averaging: Any, tiny_hf: Any, tmp_path: Path
) -> None:
    encoder = HFEncoder(name=tiny_hf("wavlm", "group"), layers=[1, 2])
    module = SERModule(encoder, ClassificationHead(encoder.dim, CLASSES))
    options = {"swa_lrs": 1e-2, "swa_epoch_start": 1} if averaging != EMAWeightAveraging else {}
    made = trainer(tmp_path, callbacks=[averaging(**options)])
    made.fit(module, batches(), batches(2, seed=9))
    kept = made.checkpoint_callback
    assert isinstance(kept, ModelCheckpoint)
    SERModule.load_from_checkpoint(kept.best_model_path)


# Precisions and strategies that are refused.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        *(({"precision": p}, rf"'{p}'.*bf16-mixed") for p in ("bf16-true", "16-true", "64-true")),
        ({"precision": "64"}, "'64-true'.*bf16-mixed"),
        ({"precision": 64}, "'64-true'.*bf16-mixed"),
        ({"plugins": [HalfPrecision("bf16-true")]}, "'bf16-true'.*bf16-mixed"),
        ({"strategy": FSDPStrategy(), "accelerator": "cpu"}, "ModelParallelStrategy"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_what_it_cannot_be_trained_in_is_refused(
    verb: str, options: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "strategy" in options:  # Lightning's own wants a GPU: what it would be given is looked at
        made = trainer(tmp_path)
        monkeypatch.setattr(type(made), "strategy", options["strategy"])
        module = own()
        module.trainer = made
        with pytest.raises(ConfigError, match=told):
            module.setup(verb)
        return
    with pytest.raises(ConfigError, match=told):
        getattr(trainer(tmp_path, **options), verb)(own(), batches())


# Checkpoints.


def fitted(module: SERModule, tmp_path: Path, **options: Any) -> str:
    made = trainer(tmp_path, max_epochs=1, **options)
    made.fit(module, batches(), batches(2, seed=9))
    made.save_checkpoint(tmp_path / "a.ckpt")
    return str(tmp_path / "a.ckpt")


LOADERS: dict[str, Callable[[str], SERModule]] = {
    "load": SERModule.load_from_checkpoint,
    "load_from_checkpoint": SERModule.load_from_checkpoint,
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_was_put_together_by_hand_is_built_again(
    load: Callable[[str], SERModule], ema: float, tmp_path: Path
) -> None:
    module = by_hand(lr=0.25, head_lr=0.5, weight_decay=0.125, schedule="linear", ema=ema, seed=7)
    loaded = load(fitted(module, tmp_path))
    assert isinstance(loaded.encoder, LogMelEncoder)
    assert isinstance(loaded.head, ClassificationHead)
    assert loaded.head.taxonomy == CLASSES
    for key in ("lr", "head_lr", "mix_lr", "weight_decay", "warmup", "schedule", "mixup", "seed"):
        assert getattr(loaded, key) == getattr(module, key), key
    assert (loaded.average.decay if loaded.average else 0.0) == ema
    batch = next(iter(batches()))
    with torch.no_grad():
        if not ema:
            assert torch.equal(loaded(batch), module.eval()(batch))
    # and trained further, and saved again
    again = load(fitted(loaded, tmp_path))
    assert again.metadata["config"] == loaded.metadata["config"]


SMALL = {
    "selm": {"lm_width": 32, "lm_layers": 1},
    "speech_llm": {"lm_width": 32, "lm_layers": 1},
    "resnet50": {"width": 4},
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("heads", n) for n in registry.names("heads")), ("encoders", "resnet50")],
)
def test_every_registered_part_is_told_by_its_name_and_options(kind: Any, name: str) -> None:
    assert len(registry.names("heads")) == 11
    knobs = registry.schema_of(registry.get(kind, name))
    small = {k: v for k, v in SMALL.get(name, {}).items() if k in knobs}
    made = registry.get(kind, name)
    if kind == "heads":
        module = SERModule(OwnEncoder(width=8), made(8, CLASSES, **small))
        given: dict[str, Any] = {"encoder": module.encoder}
    else:
        encoder = made(**small)
        module = SERModule(encoder, OwnHead(encoder.dim, CLASSES))
        given = {"head": module.head}
    again = checkpoint.rebuild(module.described(), "here", kind=SERModule, **given)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in module.state_dict().items()
    }
    part = kind[:-1]
    assert type(getattr(again, part)) is made
    assert again.described()["config"][part] == module.described()["config"][part]


def test_options_of_the_constructor_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    path = fitted(by_hand(lr=0.25), tmp_path)

    class Mine(SERModule):
        pass

    loaded = Mine.load_from_checkpoint(path, map_location="cpu", lr=0.5, mixup=0.25)
    assert type(loaded) is Mine
    assert (loaded.lr, loaded.mixup, loaded.warmup) == (0.5, 0.25, 0.1)
    assert SERModule.load_from_checkpoint(fitted(loaded, tmp_path)).lr == 0.5
    with pytest.raises(TypeError, match="rate"):
        Mine.load_from_checkpoint(path, rate=0.5)
    with pytest.raises(ConfigError, match="weights_only=False"):
        Mine.load_from_checkpoint(path, weights_only=False)


def test_parts_of_one_s_own_are_asked_for(tmp_path: Path) -> None:
    module = own()
    path = fitted(module, tmp_path)
    encoder = OwnEncoder(width=4)
    for given, lacking in (
        ({}, r"encoder is .*OwnEncoder; its head is .*OwnHead, .*encoder=\.\.\., head=\.\.\."),
        ({"encoder": encoder}, r"its head is .*OwnHead, .*head=\.\.\."),
        ({"head": module.head}, r"its encoder is .*OwnEncoder, .*encoder=\.\.\."),
    ):
        with pytest.raises(CheckpointError, match=lacking):
            SERModule.load_from_checkpoint(path, **given)  # type: ignore[arg-type]
    loaded = SERModule.load_from_checkpoint(
        path, encoder=encoder, head=OwnHead(4, CLASSES, hidden=4)
    )
    assert loaded.encoder is encoder
    assert same(weights(loaded), weights(module))
    with pytest.raises(CheckpointError, match=r"head\.output\.0\.bias: \[4\] in .*, \[5\] here"):
        SERModule.load_from_checkpoint(path, encoder=encoder, head=OwnHead(4, CLASSES, hidden=5))
    turned = Taxonomy.of(["sad", "happy", "angry"])
    with pytest.raises(ConfigError, match="sad, happy, angry"):
        SERModule.load_from_checkpoint(path, encoder=encoder, head=OwnHead(4, turned, hidden=4))
    with pytest.raises(CheckpointError, match=r"OwnEncoder.*serzoo\.encoders"):
        save_pretrained(module, tmp_path / "shared")


def test_options_that_no_text_holds_are_asked_for_too(tmp_path: Path) -> None:
    """Training must not end in an error of saving."""
    torch.manual_seed(0)
    encoder = LogMelEncoder(widths=(4, 4, 4, 4), dim=8, bfloat16=bool)  # type: ignore[arg-type]
    path = fitted(SERModule(encoder, ClassificationHead(8, CLASSES)), tmp_path)
    with pytest.raises(CheckpointError, match=r"encoder.*bfloat16"):
        SERModule.load_from_checkpoint(path)


@pytest.mark.parametrize("arguments", [(8, CLASSES), (8,), ()])
def test_a_head_that_was_widened_is_built_as_it_was_and_widened_again(
    arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    module = by_hand()
    left = {k: v for k, v in (("dim", 8), ("taxonomy", CLASSES)) if v not in arguments}
    module.head = ClassificationHead(*arguments, **left, hidden=4)  # type: ignore[arg-type]
    module.head.widen(Taxonomy.of(["angry", "happy", "sad", "neutral"]))
    wide = DataLoader(
        [
            Batch(b.ids, b.speakers, Targets(nn.functional.pad(b.targets.probs, (0, 1)),
                  b.targets.weight), audio=b.audio, lengths=b.lengths)
            for b in batches().dataset
        ],
        batch_size=None,
    )  # fmt: skip
    made = trainer(tmp_path, max_epochs=1)
    made.fit(module, wide)
    made.save_checkpoint(tmp_path / "wide.ckpt")
    loaded = SERModule.load_from_checkpoint(tmp_path / "wide.ckpt")
    assert loaded.head.taxonomy.classes == ["angry", "happy", "sad", "neutral"]
    assert loaded.metadata["widened_from"] == CLASSES.to_dict()
    assert same(weights(loaded), weights(module))


def test_a_published_encoder_is_left_out_and_checked(tiny_hf: Any, tmp_path: Path) -> None:
    name = tiny_hf("wav2vec2", "group")
    encoder = HFEncoder(name=name, layers=[1, 2])
    module = SERModule(encoder, ClassificationHead(encoder.dim, CLASSES))
    path = fitted(module, tmp_path)
    content = torch.load(path, weights_only=True)
    assert not [k for k in content["state_dict"] if k.startswith("encoder.hf")]
    loaded = SERModule.load_from_checkpoint(path)
    assert same(weights(loaded), weights(module))
    other = tiny_hf("wav2vec2", "group", seed=5)
    with pytest.raises(CheckpointError, match="published weights"):
        SERModule.load_from_checkpoint(path, base=other)


# A recipe's module and data.


def test_a_recipe_gives_a_module_and_its_data(tiny_recipe: str, tmp_path: Path) -> None:
    module, data = build_run(tiny_recipe, ["optim.ema=0"])
    made = trainer(tmp_path)
    made.fit(module, data)
    kept = made.checkpoint_callback
    assert isinstance(kept, ModelCheckpoint)
    loaded = SERModule.load_from_checkpoint(kept.best_model_path)
    scores = made.predict(loaded, data)
    made.test(loaded, data, verbose=False)
    assert scores is not None
    assert sum(len(s) for s in scores) == len(loaded.tables["test"]) == 6  # type: ignore[misc]
    assert loaded.metadata["speakers"] == data.speakers()
    table, record = evaluate(kept.best_model_path)  # as `serzoo eval` reads it
    assert table.ids == loaded.tables["test"].ids
    assert record.metrics["uar"] == pytest.approx(loaded.tables["test"].uar())
    (row,) = Model(loaded).predict(torch.randn(4000).numpy()).to_dicts()
    assert row["label"] in CLASSES.classes
    folder = save_pretrained(loaded, tmp_path / "shared")
    assert same(weights(SERModule.load_from_checkpoint(folder)), weights(loaded))


def test_overfitting_takes_a_whole_batch_of_the_data_module(
    tiny_recipe: str, tmp_path: Path
) -> None:
    module, data = build_run(tiny_recipe, ["data.batch_size=4"])
    seen: list[list[str]] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Batch, _: int) -> None:
            seen.append(batch.ids)

    trainer(tmp_path, overfit_batches=1, max_epochs=3, callbacks=[Watch()]).fit(module, data)
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) > 1
    assert len(module.tables["valid"]) > 1


def test_a_text_reading_head_gets_text(tiny_recipe: str) -> None:
    """What a head needs is looked up where nobody says so."""
    from serzoo.zoo.run.build import open_data

    cfg = compose(tiny_recipe)
    assert open_data(cfg, text=True).datasets["train"][[0]].text == ["it is so"]
    assert open_data(cfg).datasets["train"][[0]].text is None


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (block,) = [text for text in blocks if "lightning.Trainer" in text]
    assert len(block.splitlines()) <= 13
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERZOO_DATA", raising=False)
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    # fewer voices, of which each fold still has enough
    settings = '"data.options.utterances=1", "trainer.progress=false"'
    said = block.replace('["head=gen_ser"', f'["head=gen_ser", {settings}')
    assert said != block
    found: dict[str, Any] = {}
    exec(compile(said, "README.md", "exec"), found)
    assert found["trainer"].global_step > 0
    assert sum(len(s) for s in found["scores"]) == len(found["data"].datasets["test"]) > 0
    assert found["model"].metadata["config"]["head"]["type"] == "gen_ser"


# Two processes.

SCRIPT = """
import json
import sys

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from serzoo.zoo import Batch, SERModule, Targets, build_run
from torch.utils.data import DataLoader

recipe, loaders, devices, out = sys.argv[1:]
torch.set_num_threads(1)
module, data = build_run(recipe, ["data.batch_size=3"])
seen = []


class Watch(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 0:
            seen.extend(batch.ids)


trainer = L.Trainer(
    accelerator="cpu", devices=int(devices), strategy="ddp", max_epochs=2, logger=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=out,
    precision="bf16-mixed", gradient_clip_val=1.0,
    callbacks=[Watch(), EarlyStopping("val/uar", mode="max"), ModelCheckpoint(out, filename="a")],
)
if loaders == "own":
    # single utterances, seven of them to be scored: one process is given one of them again
    def own(part, n):
        d = data.datasets[part]
        return DataLoader(range(n), batch_size=2, collate_fn=lambda rows: d[[int(i) for i in rows]])

    given = {"train_dataloaders": own("train", 18), "val_dataloaders": own("test", 5)}
    trainer.fit(module, **given)
else:
    trainer.fit(module, data)
everyone = [seen]
if trainer.world_size > 1:
    everyone = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, seen)
trainer.test(module, data, verbose=False)
loaded = SERModule.load_from_checkpoint(out + "/a.ckpt")
scores = trainer.predict(loaded, data)
assert sum(map(len, scores)) > 0
if trainer.is_global_zero:
    found = {
        "seen": sorted(i for part in everyone for i in part),
        "valid": module.tables["valid"].ids,
        "test": module.tables["test"].ids,
        "world": trainer.world_size,
    }
    with open(out + "/found.json", "w") as file:
        json.dump(found, file)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("loaders", ["data module", "own"])
def test_two_processes_share_every_utterance_whoever_shards(
    loaders: str, tiny_recipe: str, tmp_path: Path
) -> None:
    """Lightning's ``use_distributed_sampler`` is left as it is."""
    found = {}
    for devices in (1, 2):
        out = tmp_path / str(devices)
        out.mkdir()
        path = out / "script.py"
        path.write_text(SCRIPT)
        words = [sys.executable, str(path), tiny_recipe, loaders, str(devices), str(out)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found[devices] = json.loads((out / "found.json").read_text())
    one, two = found[1], found[2]
    assert (one.pop("world"), two.pop("world")) == (1, 2)
    assert one == two
    assert len(one["seen"]) == len(set(one["seen"])) == 18
    assert len(one["valid"]) == (6 if loaders == "data module" else 5)
    assert len(one["test"]) == 6
