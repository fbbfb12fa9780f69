"""SERModule under a ``lightning.Trainer`` of one's own, with whatever it can be told to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
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
from serzoo.zoo import Batch, Encoder, Frames, SERModule, Targets, Taxonomy, build_run, checkpoint
from serzoo.zoo.config import load as compose
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.errors import CheckpointError, ConfigError
from serzoo.zoo.evaluate import evaluate
from serzoo.zoo.publishing.published import save_pretrained
from torch import nn
from torch.utils.data import DataLoader

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
    return DataLoader(made, batch_size=None, shuffle=shuffle)  # type: ignore[arg-type]


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    chosen = {"max_epochs": 2, "logger": False, "default_root_dir": str(tmp_path), **options}
    return L.Trainer(**QUIET, **chosen)


def weights(module: SERModule) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


# ---- fitting

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
    "rate monitor": lambda _: {"callbacks": [LearningRateMonitor()], "logger": True},
    "timer": lambda _: {"callbacks": [Timer(duration={"minutes": 5})]},
    "reloaded loaders": lambda _: {"reload_dataloaders_every_n_epochs": 1},
    "ddp of one": lambda _: {"strategy": "ddp"},
}  # fmt: skip
NEVER_TRAINED_TWICE = {"fast run", "fast run of two"}


def test_how_much_is_swept() -> None:
    assert len(OPTIONS) == 44


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", OPTIONS)
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
    if name != "barebones":
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
