"""A trained model to predict with, to save and to share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..core.errors import ConfigError
from ..core.taxonomy import Taxonomy
from ..core.types import SAMPLE_RATE
from .module import SERModule
from .predict import predict
from .predictions import Predictions
from .save import push_to_hub, save_pretrained


# No ModelHubMixin. Its save_pretrained deletes config.json before it saves. Its push_to_hub makes a
# public repository before the model is checked. Its from_pretrained passes values of a fetched
# config.json on as arguments.
class Model:
    """A trained model, as :func:`load` returns it.

    Args:
        module: a trained module; pass one to wrap it yourself.

    Attributes:
        module: the LightningModule, with encoder, head and their weights.
    """

    def __init__(self, module: SERModule) -> None:
        if not isinstance(module, SERModule):
            raise ConfigError(
                f"a Model takes a SERModule, not a {type(module).__name__}; load a path with "
                "serzoo.zoo.load(PATH), or build the module first"
            )
        self.module = module

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of its head, in the order of the probabilities."""
        taxonomy: Taxonomy = self.module.head.taxonomy
        return taxonomy

    @property
    def temperature(self) -> float | None:
        """The divisor of its scores before the softmax; None if it is not calibrated."""
        return self.module.temperature

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the model's configuration and training data as plain containers."""
        return self.module.described()

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self.module.device

    def to(self, device: str | torch.device) -> Model:
        """Move it to a device, and return it."""
        self.module.to(device)
        return self

    def predict(
        self,
        inputs: Any,
        *,
        rate: int = SAMPLE_RATE,
        window: float | None = None,
        hop: float | None = None,
        voice: str = "none",
        channel: str | int | None = None,
        batch_seconds: float = 160.0,
        progress: bool = False,
    ) -> Predictions:
        """Return labels and probabilities of files, folders, patterns or arrays of any length.

        The arguments are those of :func:`serzoo.zoo.run.predict.predict`.
        """
        return predict(
            self.module,
            inputs,
            rate=rate,
            window=window,
            hop=hop,
            voice=voice,
            channel=channel,
            batch_seconds=batch_seconds,
            progress=progress,
        )

    def save(self, folder: str | Path, **options: Any) -> Path:
        """Write a folder to share; options as for :func:`serzoo.zoo.save_pretrained`."""
        return save_pretrained(self.module, folder, **options)

    def push(self, repo_id: str, **options: Any) -> str:
        """Upload it to the hub; options as for :func:`serzoo.zoo.push_to_hub`."""
        return push_to_hub(self.module, repo_id, **options)

    def __repr__(self) -> str:
        encoder, head = type(self.module.encoder).__name__, type(self.module.head).__name__
        return f"Model({encoder}, {head}, {len(self.taxonomy)} classes: {self.taxonomy.name})"


def load(
    path: str | Path, *, revision: str | None = None, base: str | None = None, **made: Any
) -> Model:
    """Load a trained model.

    Args:
        path: a ``.ckpt`` file, or a run's folder (its best checkpoint). Also a folder that
            ``serzoo save`` wrote, or the hub id of one.
        revision: commit, tag or branch of a hub id.
        base: folder or hub id of the published encoder, if the name of the training does not find
            it. Its weights must be the same.
        made: ``encoder`` and ``head``, if their classes are not registered. Give the class, which
            is built with the options of the training, or an instance.

    Raises:
        CheckpointError: if it cannot be read, or does not fit the model that it describes.
    """
    return Model(SERModule.load_from_checkpoint(path, revision=revision, base=base, **made))
