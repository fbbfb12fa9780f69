"""Published speech encoders as frames for heads: frozen, adapted by LoRA, or fine-tuned.

:class:`HFEncoder` is the encoder. The first part selects what is trained: nothing, adapters
(:func:`adapt`), the upper blocks, or all blocks (:func:`thaw`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.encoder import Encoder, Join, LayerMix
from ..core.errors import ConfigError
from ..core.hub import load_speech_model, weights_digest
from ..core.registry import Dropout, Positive
from ..core.types import Frames
from .families import FAMILIES, Embedded, Family, WhisperFamily, padded

# What is trained.

Tuning = Literal["frozen", "lora", "last_k", "full"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        rank: rank of the update of each adapted matrix.
        alpha: the update is scaled by ``alpha / rank`` (``alpha / sqrt(rank)`` with rslora).
        dropout: dropout rate of the adapter's input, in training.
        targets: names of linear layers inside a block; None = the family's attention projections.
        dora: learn magnitudes apart from directions (Liu et al. 2024, arXiv 2402.09353).
        rslora: scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] | None = None
    dora: bool = False
    rslora: bool = False


def adapt(family: Family, options: Lora, name: str) -> LoraConfig:
    """Add adapters to a family's blocks, and freeze everything else; return their configuration.

    The configuration lists every adapted layer by its full name. So the adapter also fits the
    whole published model, with the upper blocks that are cut off here.

    Raises:
        ConfigError: if no block is left, or no linear layer has a wanted name.
    """
    wanted = list(options.targets or family.lora_targets)
    prefix = next(n for n, m in family.model.named_modules() if m is family.blocks)
    linear = [f"{prefix}.{n}" for n, m in family.blocks.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(
            f"encoder.tuning=lora adapts blocks, but no block of '{name}' is left below the kept "
            "layers; keep a higher layer (encoder.layers), or set encoder.tuning=frozen"
        )
    found = {w: [n for n in linear if n.endswith(f".{w}")] for w in wanted}
    if unknown := [w for w, names in found.items() if not names]:
        have = sorted({n.split(".", len(prefix.split(".")) + 1)[-1] for n in linear})
        raise ConfigError(
            f"encoder.lora_targets: no linear layer is called '{unknown[0]}' in the blocks of "
            f"'{name}'; have {', '.join(have)}"
        )
    config = LoraConfig(
        task_type=None,  # any other value would wrap the model in a forward for text
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # a float is fine, the hint is narrow
        lora_dropout=options.dropout,
        target_modules=sorted({n for names in found.values() for n in names}),
        use_dora=options.dora,
        use_rslora=options.rslora,
        bias="none",
    )
    inject_adapter_in_model(config, family.model)
    return config


def thaw(family: Family, blocks: int | None, front_end_frozen: bool, name: str) -> None:
    """Make the upper blocks trainable; None means all, with or without the front end.

    Raises:
        ConfigError: if there are fewer blocks than should be trained.
    """
    model: nn.Module = family.model
    if blocks is None:
        # parameters that were published as fixed (Whisper's positions) stay fixed
        fixed = [p for p in model.parameters() if not p.requires_grad]
        model.requires_grad_(True)
        for parameter in fixed:
            parameter.requires_grad_(False)
        for module in family.front_end() if front_end_frozen else []:
            module.requires_grad_(False)
        return
    if not 1 <= blocks <= len(family.blocks):
        raise ConfigError(
            f"encoder.last_k={blocks}: '{name}' has {len(family.blocks)} blocks below the deepest "
            "kept layer; give a number from 1 to that"
        )
    model.requires_grad_(False)
    family.blocks[-blocks:].requires_grad_(True)


def trained_keys(model: nn.Module) -> set[str]:
    """Return the state dict entries that training changes: parameters, and buffers beside them."""
    keys: set[str] = set()
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if any(p.requires_grad for p in own.values()):
            stem = f"{path}." if path else ""
            keys |= {stem + n for n, p in own.items() if p.requires_grad}
            keys |= {stem + n for n, _ in module.named_buffers(recurse=False)}
    return keys & set(model.state_dict())


def layered_groups(family: Family, lr: float, decay: float) -> list[dict[str, Any]]:
    """Return optimiser groups whose learning rate falls from the last block down.

    This is layer-wise decay. The last block has the rate ``lr``. Each block below has ``decay``
    times the rate of the block above. Everything before the first block has ``decay`` times the
    rate of the first block.
    """
    blocks = family.blocks
    inside = {id(p) for p in blocks.parameters()}
    below = [p for p in family.model.parameters() if id(p) not in inside]
    parts: Sequence[Sequence[nn.Parameter]] = [below, *(list(b.parameters()) for b in blocks)]
    groups = []
    for height, parameters in enumerate(parts):
        trained = [p for p in parameters if p.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": lr * decay ** (len(parts) - 1 - height)})
    return groups


# The encoder.


class HFEncoder(Encoder):
    """Hidden states of a published speech encoder, and a learned mix of its layers.

    Layer ``k`` is entry ``k`` of the ``hidden_states`` of ``transformers`` 5. Layer 0 is the input
    of the first block, ``k`` the output of block ``k``. In the large wav2vec-like ("stable layer
    norm") models the last layer is the one before the final LayerNorm. In Whisper it is the one
    after it. Layers above the deepest kept one are cut off. The frames of an utterance do not
    depend on its batch neighbours or on padding. For a single utterance without padding they equal
    those of ``transformers``.

    Audio shorter than one frame (400 samples in most models) is padded with zeros to one frame.
    That counts as speech.

    Args:
        name: hub id (``facebook/wav2vec2-base``) or local folder with ``config.json`` and
            ``model.safetensors``.
        revision: commit, tag or branch of a hub id; None = its main branch.
        layers: kept layers. None = all layers, put together by ``join``; ``[4]`` = only
            this layer; several = these, put together by ``join``.
        join: how several layers become one: ``mix`` learns a softmax-weighted sum; ``concat`` puts
            them side by side, so frames are as many times as wide.
        tuning: ``frozen`` keeps the weights as published, runs without gradients and stays in
            evaluation mode; ``lora`` trains low-rank adapters in the blocks; ``last_k`` trains the
            upper blocks; ``full`` trains everything.
        dtype: number format of a frozen encoder. ``bfloat16`` is several times faster on processors
            with matrix units for it. Its relative error is about 1 % (the speed records in
            ``benchmarks/`` give both). ``auto`` is ``bfloat16`` if the encoder is frozen and the
            machine has such units, otherwise ``float32``.
        window: seconds of a window of Whisper, which pads it by silence. ``auto`` = each
            utterance's own length, rounded up; None = as published (30 s). A shorter window costs
            less.
        lora_rank: rank of the adapters with ``lora``; this and the following options are the
            fields of :class:`serzoo.zoo.encoders.hf.Lora`.
        lora_alpha: numerator of the adapters' scale.
        lora_dropout: dropout rate of the adapters' input.
        lora_targets: names of linear layers in a block; None = the family's attention.
        lora_dora: learn magnitudes apart from directions.
        lora_rslora: scale by the root of the rank.
        last_k: number of blocks below the deepest kept layer that ``last_k`` trains.
        front_end_frozen: with ``full``, keep the convolutions over samples as published, as is
            usual.
        layer_decay: factor of the learning rate from each block to the one below, with ``full``
            and ``last_k``. With 1, it is the same everywhere.
        checkpointing: do not keep activations inside the blocks, but compute them again in the
            backward pass: less memory, about a third more time.

    Raises:
        ConfigError: if the model cannot be loaded (see ``load_speech_model``), lacks a layer, or
            cannot be tuned in this way.
    """

    def __init__(
        self,
        *,
        name: str,
        revision: str | None = None,
        layers: list[int] | None = None,
        join: Join = "mix",
        tuning: Tuning = "frozen",
        dtype: Literal["float32", "bfloat16", "auto"] = "float32",
        window: float | Literal["auto"] | None = None,
        lora_rank: int = 8,
        lora_alpha: Positive = 16.0,
        lora_dropout: Dropout = 0.0,
        lora_targets: list[str] | None = None,
        lora_dora: bool = False,
        lora_rslora: bool = False,
        last_k: int = 2,
        front_end_frozen: bool = True,
        layer_decay: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dtype == "auto":
            dtype = "bfloat16" if tuning == "frozen" and fast_bfloat16() else "float32"
        if dtype != "float32" and tuning != "frozen":
            raise ConfigError(
                f"encoder.dtype={dtype} is for a frozen encoder, but encoder.tuning is {tuning}, "
                "whose weights stay float32; set trainer.precision=bf16-mixed instead"
            )
        if lora_rank < 1 or not 0 < layer_decay <= 1:
            raise ConfigError(
                f"encoder.lora_rank={lora_rank}, encoder.layer_decay={layer_decay}; the rank is 1 "
                "or more, the decay above 0 and at most 1"
            )
        loaded = load_speech_model(name, revision)
        self.name = name
        self.revision = loaded.revision
        self.tuning = tuning
        self.layer_decay, self.checkpointing = layer_decay, checkpointing
        self.backbone = loaded.model
        self.family = FAMILIES[loaded.model.config.model_type](loaded.model, loaded.normalise)
        self.window = window
        if isinstance(self.family, WhisperFamily):
            if window is not None:
                self.family.read_in(window)
        elif window is not None:
            raise ConfigError(
                f"encoder.window={window} is for Whisper, and '{name}' is "
                f"{loaded.model.config.model_type}, which reads audio of any length; leave it out"
            )
        depth = len(self.family.blocks)
        self.layers = _checked(layers, depth, name)
        whole = weights_digest(self.backbone)  # of all blocks: encoders of other layers share it
        self.family.cut(max(self.layers))
        self.width = int(loaded.model.config.hidden_size)
        self.frame_seconds = self.family.frame_seconds
        self.mix, self.join = LayerMix(self.layers, join), join
        self.dim = self.width * self.mix.times
        self.source = {
            "model_type": loaded.model.config.model_type,
            "commit": loaded.commit,
            "read_from": loaded.read_from,
            "normalise": loaded.normalise,
            "normalise_from": loaded.normalise_from,
            "layers_total": depth,
            # as published, before tuning
            "weights": weights_digest(self.backbone) if max(self.layers) < depth else whole,
        }
        self.whole = whole
        self.dtype = torch.float32 if dtype == "float32" else torch.bfloat16
        self.storable = tuning == "frozen"
        self.adapters = self._tune(
            Lora(lora_rank, lora_alpha, lora_dropout, lora_targets, lora_dora, lora_rslora),
            last_k,
            front_end_frozen,
        )
        # blocks below the first trained one need neither gradients nor stored activations
        trained = [any(p.requires_grad for p in b.parameters()) for b in self.family.blocks]
        self.still = trained.index(True) if tuning == "last_k" else 0
        self.train(self.training)

    def _tune(self, lora: Lora, last_k: int, front_end_frozen: bool) -> Any:
        """Freeze, thaw or adapt the backbone; return the configuration of the adapters, or None."""
        if self.tuning == "lora":
            return adapt(self.family, lora, self.name)
        if self.tuning == "frozen":
            self.backbone.requires_grad_(False)
            self.backbone.to(self.dtype)
        else:
            blocks = last_k if self.tuning == "last_k" else None
            thaw(self.family, blocks, front_end_frozen, self.name)
        return None

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as published."""
        return self.tuning == "frozen"

    def train(self, mode: bool = True) -> HFEncoder:
        """Set training mode for trained parts; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.tuning in ("frozen", "last_k"):
            self.backbone.eval()
        if self.tuning == "last_k":
            self.family.blocks[self.still :].train(mode)
        return self

    def extract(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.frozen and self.backbone.training:
            self.backbone.eval()  # other code may have changed its mode
        with torch.no_grad() if self.frozen else nullcontext():
            longest = max(int(lengths.max()), self.family.min_samples)
            audio = padded(audio, longest)[:, :longest]
            with torch.no_grad() if self.still else nullcontext():
                embedded = self.family.embed(audio, lengths, self._format(audio.device.type))
            states = torch.stack([s.float() for s in self._states(embedded)], 1)
            return states.masked_fill(~embedded.mask[:, None, :, None], 0.0), embedded.mask

    def _format(self, device: str) -> torch.dtype:
        """Return the number format of the front end.

        A tuned encoder uses that of an enclosing autocast, if there is one.
        """
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype

    def _states(self, embedded: Embedded) -> list[Tensor]:
        """Return the kept layers, each ``[B, T, D]``."""
        family, gather = self.family, embedded.gather or (lambda state: state)
        hidden, handed, states = embedded.hidden, None, {}
        for k, block in enumerate(family.blocks):
            if k in self.layers:
                states[k] = gather(hidden)
            call = (block, hidden, handed, embedded.keywords)
            if self.checkpointing and self.training and torch.is_grad_enabled():
                # reentrant checkpoints would pass WavLM's shared bias many times
                hidden, handed = checkpoint(family.step, *call, use_reentrant=False)
            else:
                with torch.no_grad() if k < self.still else nullcontext():
                    hidden, handed = family.step(*call)
        if len(family.blocks) in self.layers:
            states[len(family.blocks)] = gather(family.finish(hidden))
        return [states[k] for k in self.layers]

    def stored_shape(self) -> tuple[int, int]:
        """Return ``K`` and ``D0``, without running the model."""
        return len(self.layers), self.width

    @property
    def plain(self) -> bool:
        return self.storable and self.mix.logits is None

    def forward(self, hidden: Tensor, mask: Tensor) -> Frames:
        return Frames(self.mix(hidden), mask)  # zeros after the end stay zeros

    def param_groups(self, lr: float, mix_lr: float | None = None) -> list[dict[str, Any]]:
        groups = layered_groups(self.family, lr, self.layer_decay)
        if self.mix.logits is not None:
            groups.append({"params": [self.mix.logits], "lr": lr if mix_lr is None else mix_lr})
        return groups

    def frozen_keys(self) -> frozenset[str]:
        trained = trained_keys(self.backbone)
        return frozenset(f"backbone.{k}" for k in self.backbone.state_dict() if k not in trained)

    def extraction(self) -> dict[str, Any]:
        return {
            **{k: self.source[k] for k in ("model_type", "normalise")},
            "weights": self.whole,
            "layers": list(self.layers),
            "dtype": str(self.dtype).removeprefix("torch."),
            **({} if self.window is None else {"window": self.window}),
        }

    @property
    def bytes_per_second(self) -> float:
        return self.dtype.itemsize * len(self.layers) * self.width / self.frame_seconds

    def layer_weights(self) -> dict[str, float]:
        return self.mix.weights()

    def describe(self) -> dict[str, Any]:
        """Return facts about the encoder for records, in plain containers.

        ``weights`` is a digest of the backbone's kept weights. It distinguishes two folders of one
        name, or two states of a branch. ``parameters`` counts the parameters in memory.
        """
        return {
            "type": "hf",
            "name": self.name,
            "revision": self.revision,
            "layers": list(self.layers),
            **({} if self.join == "mix" else {"join": self.join}),
            "tuning": self.tuning,
            "dim": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            **({} if self.window is None else {"window": self.window}),
            "parameters": sum(p.numel() for p in self.parameters()),
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
            **self.source,
        }


def fast_bfloat16() -> bool:
    """Return whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    units = torch.cpu.get_capabilities()
    return any(bool(units.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _checked(layers: list[int] | None, depth: int, name: str) -> list[int]:
    if layers is None:
        return list(range(depth + 1))
    wrong = [k for k in layers if not 0 <= k <= depth]
    if not layers or wrong or len(set(layers)) < len(layers):
        raise ConfigError(
            f"encoder.layers={layers}: '{name}' has layers 0 (input of the first block) to {depth} "
            "(output of the last); give null for all of them, or a list of different ones"
        )
    return sorted(layers)
