"""How a model is adapted: every option, its default and its range."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from ....datamodules.fewshot import check_shots
from ...core.errors import ConfigError
from .fit import Steps

RATES = {"lora": 2e-4, "full": 2e-5}
"""Peak rates of a published encoder, as in configs/optim; nothing was searched for."""

RATE_OF_OTHERS = 3e-4
"""Of an encoder that was trained from scratch: about a third of its own.

Our choice, from EMO-DB to fold 3 of RAVDESS, one draw each of 4, 16 and 64 shots: at 1e-4 the
larger supports gained less, at 1e-3 the smallest less, and the source was forgotten sooner.
"""


@dataclass(frozen=True)
class Options:
    """How a model is adapted.

    Attributes:
        shots: utterances of each class, 0 (as it is) to 64.
        draw: seed of the support, and of all randomness of the adaptation.
        tuning: ``lora`` (adapters in the encoder, and the head), ``head`` (alone), ``full``
            (encoder and head), ``scratch`` (a new head on the encoder as it is); None = ``lora``
            where it is possible, else ``head``.
        steps: of the optimiser, whatever the number of shots.
        batch_size: utterances in a step at most.
        lr: peak rate of the encoder; None = by its kind (:data:`RATES`, :data:`RATE_OF_OTHERS`).
        head_lr: of the head, and of a learned mix of layers.
        weight_decay: of matrices.
        warmup: share of the steps that rises.
        clip: gradient norm; 0 = none.
        scratch_head: configuration of the head that ``scratch`` trains.
        lora_rank: of new adapters; a model that has adapters keeps its own.
        lora_alpha: of new adapters.
        forgetting: score the source's test part before and after.
        save: keep the adapted model.
    """

    shots: int = 4
    draw: int = 1
    tuning: str | None = None
    steps: int = 60
    batch_size: int = 16
    lr: float | None = None
    head_lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1
    clip: float = 1.0
    scratch_head: str = "classification"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    forgetting: bool = True
    save: bool = True

    def __post_init__(self) -> None:
        for name in ("shots", "draw", "steps", "batch_size", "lora_rank"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{name} is '{value}'; give a whole number")
        for name in ("lr", "head_lr", "weight_decay", "warmup", "clip", "lora_alpha"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) and not (name == "lr" and value is None):
                raise ConfigError(f"{name} is '{value}'; give a number")
        for name in ("forgetting", "save"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name} is '{value}'; have true, false")
        check_shots(self.shots)
        low = {"draw": 0, "steps": 1, "batch_size": 1, "weight_decay": 0, "clip": 0}
        wrong = [f"{k}={v} is not {n} or more" for k, n in low.items() if not (v := self[k]) >= n]
        rates = [k for k in ("lr", "head_lr") if self[k] is not None and not self[k] > 0]
        wrong += [f"{k}={self[k]} is not above 0" for k in rates]
        if not 0 <= self.warmup <= 1:
            wrong.append(f"warmup={self.warmup} is not between 0 and 1")
        if wrong:
            raise ConfigError("; ".join(wrong))

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def rates(self, tuning: str, encoder: str) -> Steps:
        """The steps, with the peak rate that suits a kind of encoder under a tuning."""
        rate = RATES.get(tuning) if encoder == "hf" else None
        return Steps(
            self.steps,
            self.batch_size,
            self.lr or rate or RATE_OF_OTHERS,
            self.head_lr,
            self.weight_decay,
            self.warmup,
            self.clip,
        )


def known_options() -> list[str]:
    """Names of all fields of :class:`Options`."""
    return [f.name for f in fields(Options)]


def option_types() -> dict[str, Any]:
    """Name to annotation of all fields of :class:`Options`."""
    hints = get_type_hints(Options)
    return {name: hints[name] for name in known_options()}
