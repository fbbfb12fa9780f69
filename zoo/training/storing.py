"""A run's features are brought into the store before it is fitted."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class StoreFeatures(Callback):
    """Fills the feature store, where the encoder allows it.

    In Lightning's ``setup`` hook, since all ranks exist there, however they were started: they
    share the encoding, each on its own device. They also agree on its end: when one of them has no
    room on its disk, all take audio, or their batches would differ.

    Args:
        data: with ``store_features`` and ``use_store``.
        wanted: False = audio in any case.
        progress: show a bar.

    Attributes:
        filled: what was done, for the record.
        seconds: that it took.
    """

    def __init__(self, data: Any, *, wanted: bool, progress: bool) -> None:
        self.data, self.wanted, self.progress = data, wanted, progress
        self.filled: dict[str, Any] = {"kind": "live"}
        self.seconds = 0.0

    @property
    def stored(self) -> bool:
        """Whether batches hold stored features."""
        return bool(self.filled["kind"] == "stored")

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        encoder: Any = module.encoder
        if not self.wanted or not encoder.storable:
            return
        self.wanted = False  # once
        began = time.perf_counter()
        device = trainer.strategy.root_device
        filled = self.data.store_features(encoder, device=device, progress=self.progress)
        self.filled = filled.to_dict()
        if not trainer.strategy.reduce_boolean_decision(self.stored, all=True):
            self.filled["kind"] = "live"
            self.data.use_store(None)
        self.seconds = time.perf_counter() - began
