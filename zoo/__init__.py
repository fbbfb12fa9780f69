"""Core of serzoo: contracts, configuration, training, comparison.

The public names are imported on first use, so that the command line answers without torch. Each
verb is a function too: ``serzoo.zoo.run.train.train``, ``serzoo.zoo.compare.compare.compare``,
``serzoo.zoo.report.report.report``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.encoder import Encoder
    from .core.head import Head
    from .core.own import register
    from .core.taxonomy import Taxonomy
    from .core.types import Batch, Frames, HeadLoss, Targets
    from .run.build import build_run
    from .run.model import Model, load
    from .run.module import SERModule
    from .run.save import push_to_hub, save_pretrained
    from .statistics.table import PredictionTable

if __name__ == "zoo":  # a second copy of every class would follow
    raise ImportError("import serzoo.zoo, not zoo: put `serzoo.` before the path")


_WHERE = {
    "Batch": "core.types",
    "Encoder": "core.encoder",
    "Frames": "core.types",
    "Head": "core.head",
    "HeadLoss": "core.types",
    "PredictionTable": "statistics.table",
    "SERModule": "run.module",
    "Targets": "core.types",
    "Taxonomy": "core.taxonomy",
    "build_run": "run.build",
    "Model": "run.model",
    "load": "run.model",
    "push_to_hub": "run.save",
    "register": "core.own",
    "save_pretrained": "run.save",
}

__all__ = [
    "Batch",
    "Encoder",
    "Frames",
    "Head",
    "HeadLoss",
    "Model",
    "PredictionTable",
    "SERModule",
    "Targets",
    "Taxonomy",
    "build_run",
    "load",
    "push_to_hub",
    "register",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'serzoo.zoo' has no attribute '{name}'")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
