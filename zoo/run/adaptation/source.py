"""The model that is adapted, what it scores on its own corpus, and the run that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...core.errors import DataError
from ...core.speakers import REFUSE
from ...core.taxonomy import Taxonomy
from ...statistics.table import PredictionTable
from ..build import open_data
from ..config import RunConfig, resolve
from ..module import SERModule
from ..record import read_record
from ..score import score


class Source:
    """The model that is adapted: what it was trained on, and what it scores there."""

    def __init__(self, path: str | Path, meta: Mapping[str, Any]) -> None:
        self.path, self.meta = path, meta
        self.cfg = RunConfig.from_dict(meta["config"])
        self.taxonomy = Taxonomy.from_dict(meta["taxonomy"])
        self.fingerprint = meta.get("fingerprint")
        self.speakers: Mapping[str, Sequence[str]] = meta.get("speakers") or {}
        self.data: Any = None

    def described(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "taxonomy": self.meta["taxonomy"],
            "head": self.cfg.called,
            "encoder": self.cfg.encoder,
            **{k: self.meta["config"][k] for k in ("corpus", "protocol", "fold", "seed")},
        }

    def made_for(self, wide: Taxonomy) -> dict[str, Any] | None:
        """The taxonomy that the head's constructor gets, where it is another than ``wide``."""
        first = self.meta.get("widened_from") or self.taxonomy.to_dict()
        return None if wide == Taxonomy.from_dict(first) else dict(first)

    def before(self, module: SERModule, device: torch.device) -> PredictionTable:
        """Scores on the source's test part before adaptation: as recorded, or computed."""
        cfg = self.cfg
        cfg.trainer.progress = False
        try:
            self.data = open_data(cfg, self.taxonomy, text="text" in module.head.needs)
        except DataError as error:
            raise DataError(
                f"forgetting is measured on the source's test part, which cannot be opened: "
                f"{error}; or set forgetting=false"
            ) from error
        identity = {
            "manifest": self.data.speech.sha,
            "split": self.data.split.fingerprint(),
            "taxonomy": self.taxonomy.fingerprint,
        }
        folder = Path(self.path)
        told = read_record(folder) if folder.is_dir() else None
        if told is not None and told.kind != "adaptation" and told.data == identity:
            return PredictionTable.read_jsonl(folder / "predictions.jsonl")
        return self.score(module.to(device).eval())

    def score(self, module: SERModule) -> PredictionTable:
        """Scores of a model on the source's test part, over the source's classes."""
        device = next(module.parameters()).device
        if module.encoder.storable and self.cfg.data.features != "live":
            self.data.store_features(module.encoder, device=device)
        else:
            self.data.use_store(None)
        return score(module, self.data.test_dataloader(), self.taxonomy)


def target_of(source: RunConfig, target: Mapping[str, Any]) -> RunConfig:
    """The run's configuration with the target in place of the source.

    Args:
        source: the model's run.
        target: ``data``, ``root``, ``protocol``, ``fold``, ``taxonomy``, ``label``, ``options``,
            ``unknown_speakers``.
    """
    cfg = RunConfig.from_dict(source.to_dict())
    data = target["data"]
    named = [data] if isinstance(data, str) else list(data)
    manifest = named[0] if len(named) == 1 and named[0].endswith(".jsonl") else None
    cfg.corpus = [] if manifest else named
    cfg.data.manifest, cfg.data.root = manifest, target["root"]
    cfg.data.options, cfg.data.label = dict(target["options"]), target["label"]
    cfg.data.unknown_speakers = target.get("unknown_speakers", REFUSE)
    cfg.protocol, cfg.fold = target["protocol"], target["fold"]
    cfg.recipe = "+".join(cfg.corpus) or Path(str(manifest)).stem
    # without one, the model's own, which need have no name
    cfg.taxonomy = target["taxonomy"] or "auto"
    return resolve(cfg)
