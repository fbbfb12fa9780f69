"""Core of serzoo: contracts, configuration, training, comparison.

The public names are imported on first use, so that the command line answers without torch. The
verbs are functions of the modules that carry their names: ``from serzoo.zoo.train import train``,
``serzoo.zoo.evaluate``, ``serzoo.zoo.comparison.compare``, ``serzoo.zoo.reporting.report``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ == "zoo":  # a second copy of every class would follow
    raise ImportError("import serzoo.zoo, not zoo: put `serzoo.` before the path")

if TYPE_CHECKING:
    from .checkpoint import load
    from .encoder import Encoder
    from .head import Head
    from .module import SERModule
    from .publishing.published import push_to_hub, save_pretrained
    from .statistics.metrics import PredictionTable
    from .taxonomy import Taxonomy
    from .training.building import build_run
    from .types import Batch, Frames, HeadLoss, Targets

_WHERE = {
    "Batch": "types",
    "Encoder": "encoder",
    "Frames": "types",
    "Head": "head",
    "HeadLoss": "types",
    "PredictionTable": "statistics.metrics",
    "SERModule": "module",
    "Targets": "types",
    "Taxonomy": "taxonomy",
    "build_run": "training.building",
    "load": "checkpoint",
    "push_to_hub": "publishing.published",
    "save_pretrained": "publishing.published",
}

__all__ = [
    "Batch",
    "Encoder",
    "Frames",
    "Head",
    "HeadLoss",
    "PredictionTable",
    "SERModule",
    "Targets",
    "Taxonomy",
    "build_run",
    "load",
    "push_to_hub",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'serzoo.zoo' has no attribute '{name}'")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
