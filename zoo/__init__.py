"""Core of serzoo: contracts, configuration, training, comparison.

The public names are imported on first use, so that the command line answers without torch. Each
verb is a function too: ``serzoo.zoo.run.train.train``, ``serzoo.zoo.compare.compare.compare``,
``serzoo.zoo.report.report.report``.
"""

from __future__ import annotations

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
    where: Any
    if name in ("Batch", "Frames", "HeadLoss", "Targets"):
        from .core import types as where
    elif name == "Encoder":
        from .core import encoder as where
    elif name == "Head":
        from .core import head as where
    elif name == "Taxonomy":
        from .core import taxonomy as where
    elif name == "register":
        from .core import own as where
    elif name == "PredictionTable":
        from .statistics import table as where
    elif name == "SERModule":
        from .run import module as where
    elif name == "build_run":
        from .run import build as where
    elif name in ("Model", "load"):
        from .run import model as where
    elif name in ("push_to_hub", "save_pretrained"):
        from .run import save as where
    else:
        raise AttributeError(f"module 'serzoo.zoo' has no attribute '{name}'")
    return getattr(where, name)
