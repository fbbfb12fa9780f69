"""The frozen encoder of a finished run, on which heads of other runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core import own, registry
from ..core.encoder import Encoder
from ..core.errors import CheckpointError, ConfigError, DataError, some
from ..core.hub import weights_digest
from ..core.speakers import ACCEPT, REFUSE, cannot_tell, shared
from ..core.types import Frames
from ..encoders.hf import HFEncoder
from ..encoders.small import SmallEncoder
from . import published
from .module import SERModule
from .record import finished


def untrained(encoder: Encoder, options: Mapping[str, Any], seed: int = 1) -> Encoder:
    """Build the same encoder with random weights, for comparison with the trained one.

    An encoder that is trained from scratch is built again from the run's seed. A published encoder
    keeps its architecture, kept layers and normalisation. Its weights are drawn as ``transformers``
    draws them for a new model. Adapters have no effect, and layers are mixed equally.

    Args:
        encoder: the trained encoder; it is not changed.
        options: its configuration, with ``type``.
        seed: seed of the random weights.

    Returns:
        The untrained encoder, in evaluation mode.

    Raises:
        ConfigError: if the encoder uses published weights that random ones cannot replace.
    """
    if isinstance(encoder, TrainedEncoder):
        run = SERModule.load_from_checkpoint(encoder.name)
        config = run.metadata["config"]
        return untrained(run.encoder, config["encoder"], config["seed"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = options["type"]
        fresh: Encoder = registry.get("encoders", kind)(
            **{k: v for k, v in options.items() if k != "type"}
        )
        if isinstance(fresh, HFEncoder):
            torch.manual_seed(seed)  # adapters may have used random numbers
            _draw(fresh)
        elif isinstance(fresh, SmallEncoder):
            fresh.draw()
        elif fresh.frozen_keys():
            raise ConfigError(
                f"encoder '{kind}' uses published weights that random ones cannot replace; "
                "name another model with --against, or say --against none"
            )
    return fresh.eval()


@torch.no_grad()
def _draw(encoder: HFEncoder) -> None:
    """Draw new weights for a published encoder, in place."""
    backbone: Any = encoder.backbone
    new = type(backbone)(backbone.config).state_dict()
    own = backbone.state_dict()
    # peft adds .base_layer to the names of wrapped layers; blocks above the kept layers are gone
    plain = {key: key.replace(".base_layer.", ".") for key in own if ".lora_" not in key}
    if lacking := [key for key, name in plain.items() if name not in new]:
        raise ConfigError(
            f"the weights of '{encoder.name}' cannot be drawn anew: a new {type(backbone).__name__}"
            f" has no {lacking[0]}; name another model with --against, or say --against none"
        )
    backbone.load_state_dict({key: new[name] for key, name in plain.items()}, strict=False)
    encoder.source["weights"] = weights_digest(backbone)  # it names the stored features


Speakers = Mapping[str, Sequence[str]]
"""Part of the data to ``corpus/speaker`` names."""


class TrainedEncoder(Encoder):
    """The encoder that another run has trained, with fixed weights.

    The whole network runs in :meth:`extract`, in evaluation mode, without gradients or
    augmentation. So its final frames are computed once and stored, and heads train on them in
    seconds. Checkpoints do not copy the weights: they keep a digest of them, and refuse others.

    A head on this encoder can be tested only on speakers that neither trained nor selected the
    encoder; see :func:`refuse_seen`.

    Args:
        name: folder of a finished run of ``serzoo train``, or one that ``serzoo save`` wrote.
        dtype: number format of the stored frames; ``bfloat16`` halves their size. The network
            runs in float32, or in the format that its own run set for a frozen encoder.
        allow_seen_speakers: validate and test also on speakers that the encoder was trained or
            selected on. Such numbers say nothing about new speakers.

    Raises:
        ConfigError: if there is no such folder, it has no trained encoder, or its run has not
            ended.
    """

    def __init__(
        self,
        *,
        name: str,
        dtype: Literal["float32", "bfloat16"] = "float32",
        allow_seen_speakers: bool = False,
    ) -> None:
        super().__init__()
        module = read_trained(name)
        options = dict(module.metadata["config"]["encoder"])
        self.name, self.allow_seen_speakers = name, allow_seen_speakers
        self.network: Encoder = module.encoder.eval().requires_grad_(False)
        self.dim = self.network.dim
        # an encoder that joins frames says how many in `stride`
        self.frame_seconds = self.network.frame_seconds * int(getattr(self.network, "stride", 1))
        self.dtype = torch.float32 if dtype == "float32" else torch.bfloat16
        self.speakers: dict[str, list[str]] | None = module.metadata.get("speakers")
        self.weights = weights_digest(self.network)
        self._options = {k: v for k, v in options.items() if k not in ("name", "revision")}
        about = self.network.describe()
        self._heard = {k: about[k] for k in ("model_type", "normalise") if k in about}
        if self.network.storable:
            self._heard |= self.network.extraction()
        self._heard |= own.file_of(self.network)
        self._from = {
            "run": module.metadata.get("fingerprint"),
            "corpora": list(module.metadata["config"]["corpus"]),
            "classes": module.head.taxonomy.classes,
            "head": module.metadata["head"].get("type"),
        }
        self.train(self.training)

    def train(self, mode: bool = True) -> TrainedEncoder:
        """Stay in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.network.training:
            self.network.eval()  # other code may have changed the mode of this part alone
        frames = self.network(*self.network.extract(audio, lengths))
        x = frames.x.to(self.dtype).float().masked_fill(~frames.mask[..., None], 0.0)
        return x[:, None], frames.mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(hidden[:, 0], mask)

    def extraction(self) -> dict[str, Any]:
        return {
            "type": "trained",
            "network": self._options,
            "weights": self.weights,
            "preprocessing": self._heard,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def bytes_per_second(self) -> float:
        if not self.frame_seconds:  # one frame, however long the utterance is
            return 0.0
        return self.dtype.itemsize * self.dim / self.frame_seconds

    def frozen_keys(self) -> frozenset[str]:
        return frozenset(self.state_dict())

    def describe(self) -> dict[str, Any]:
        """Return the network, its digest (``weights``), and the speakers that it was trained on."""
        return {
            "type": "trained",
            "name": self.name,
            "network": self._options,
            "weights": self.weights,
            "dim": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in self.parameters()),
            "trainable": 0,
            "trained_on": {**self._from, "speakers": self.speakers},
        }


def refuse_seen(encoder: Encoder, speakers: Speakers, unknown: str = REFUSE) -> None:
    """Refuse to select or score on speakers that the encoder itself was trained or selected on.

    Args:
        encoder: any encoder; only a :class:`TrainedEncoder` was trained on speakers.
        speakers: ``corpus/speaker`` names of the parts of the run that uses it.
        unknown: ``data.unknown_speakers`` of that run.

    Raises:
        DataError: if there are such speakers and ``allow_seen_speakers`` is not set.
    """
    if not isinstance(encoder, TrainedEncoder) or encoder.allow_seen_speakers:
        return
    anyway = ", or set encoder.allow_seen_speakers=true, if the numbers are not about new speakers"
    refuse_heard(f"the encoder in {encoder.name}", encoder.speakers, speakers, unknown, anyway)


def refuse_heard(
    what: str,
    heard: Speakers | None,
    speakers: Speakers,
    unknown: str = REFUSE,
    anyway: str = "",
) -> None:
    """Refuse to select or score on speakers that a model was trained or selected on.

    Args:
        what: the model, for errors.
        heard: speakers of the parts of its run; None if it does not say.
        speakers: speakers of the parts of the run that uses it.
        unknown: ``refuse`` or ``accept`` parts in which some speakers are unknown.
        anyway: another remedy, for errors.

    Raises:
        DataError: if there are such speakers, or it is unknown whether there are.
    """
    if heard is None:
        raise DataError(
            f"{what} does not say which speakers it was trained on (its run is too old); train it "
            f"again{anyway}"
        )
    own = {s for part in ("train", "valid") for s in heard.get(part, ())}
    for part in ("valid", "test"):
        if seen := shared(own, speakers.get(part, ())):
            raise DataError(
                f"{what} was trained or selected on {len(seen)} speakers of the {part} part "
                f"({some(seen)}); use one of other speakers or corpora, another fold{anyway}"
            )
        unsure = cannot_tell(own, speakers.get(part, ()))
        if unsure and unknown != ACCEPT:
            raise DataError(
                f"it is unknown whether {what} was trained or selected on speakers of the {part} "
                f"part: not every speaker of {', '.join(unsure)} is known; name them, or set "
                f"data.unknown_speakers=accept{anyway}"
            )


def read_trained(name: str, key: str = "encoder.name") -> Any:
    """Load the module of a finished run or of a saved folder.

    Args:
        name: the folder.
        key: key of the configuration that named it, for errors.

    Raises:
        ConfigError: if there is no such model, its run has not ended, or it trained a head only.
    """
    folder = Path(name).expanduser()
    wanted = "give the folder of a finished `serzoo train`, or one that `serzoo save` wrote"
    if not folder.is_dir():
        raise ConfigError(f"{key}={name}: there is no folder {folder.absolute()}; {wanted}")
    if not published.is_saved_or_hub_id(folder):
        if not (folder / "checkpoints").is_dir():
            raise ConfigError(f"{key}={name} holds no trained model; {wanted}")
        if not finished(folder):
            raise ConfigError(
                f"{key}={name}: its run has not ended well (no record.json with status "
                "ok), so no weights were selected yet; run `serzoo train` again, which goes on "
                "from the last epoch"
            )
    try:
        module = SERModule.load_from_checkpoint(folder)
    except CheckpointError as error:
        raise ConfigError(f"{key}={name} has no encoder to use: {error}") from error
    if isinstance(module.encoder, TrainedEncoder):
        raise ConfigError(
            f"{key}={name} trained a head only: its encoder is the one in "
            f"{module.encoder.name}; set {key} to that folder"
        )
    return module
