"""Every key of a run's configuration, its default and its range; what names a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..core import registry
from ..core.errors import ConfigError, suggest
from ..core.speakers import REFUSE, UNKNOWN_SPEAKERS

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp", "fsdp")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
ALIASES = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Lightning's short names, which are written out: a run's fingerprint contains the precision."""


@dataclass
class DataConfig:
    """How utterances become batches."""

    root: str | None = None  # folder of the corpus; default $SERZOO_DATA/<corpus>
    manifest: str | None = None  # a prepared manifest instead of the corpus' own layout
    label: str = "label"  # which column is the label: label, gender, or one of the corpus' others
    # of the corpus reader (csv, folder); of any reader channel: mean, first, or a number from 1
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32  # utterances in a batch at most
    batch_seconds: float = 160.0  # seconds of (padded) speech in a batch at most
    max_seconds: float = 20.0  # longer utterances are cut to this, and counted
    balance: bool = True  # weigh training utterances by inverse class frequency
    train_share: float = (
        1.0  # of each class' training utterances; a smaller one is part of a larger
    )
    weak: str = "hard"  # weak labels: hard; from the scores beside the manifest: soft, independent
    weak_weight: bool = True  # weigh weakly labelled utterances by the confidence of their label
    weak_shuffle: int | None = None  # seed that deals weak labels out anew: a control
    unknown_speakers: str = REFUSE  # where folds need speakers: refuse, or accept and say so
    features: str = "auto"  # auto: what the encoder allows to store is computed once; live: never
    workers: int = 0  # DataLoader processes


@dataclass
class OptimConfig:
    """How the trainable parameters are moved. Every head gets the same."""

    lr: float = 1e-3  # peak learning rate
    head_lr: float | None = None  # of the head, where it is to differ
    mix_lr: float | None = None  # of a learned mix of layers, where it is to differ
    weight_decay: float = 1e-2
    epochs: int = 30
    # in all, at least: where an epoch has few (`data.train_share`), it is several rounds of the
    # training part, so that runs differ in labels and not in steps; 0 = one round
    min_steps: int = 0
    warmup: float = 0.1  # share of the steps, linear
    schedule: str = "cosine"  # of the fall after it: cosine, linear
    accumulate: int = 1  # batches whose gradients make one step
    clip: float = 1.0  # gradient norm
    mixup: float = 0.0  # Beta(a, a) mixing of encoder inputs and targets; 0 = off
    ema: float = 0.0  # decay of the averaged weights used for evaluation; 0 = off


@dataclass
class TrainerConfig:
    """Where it runs. Not part of a run's identity, except the precision."""

    out: str = "runs"
    accelerator: str = "auto"  # auto (a GPU where there is one), cpu, gpu, cuda, mps
    devices: int = 1  # of each machine: GPUs, or processes on a CPU; always a number, never "all"
    num_nodes: int = 1  # machines
    strategy: str = "auto"  # of several devices: auto (ddp), ddp, fsdp
    precision: str = "32-true"  # or bf16-mixed, 16-mixed (float16, on a GPU); weights stay float32
    threads: int | None = None  # CPU threads of each process
    progress: bool = True
    board_audio: int = 0  # most confident errors whose audio is copied into TensorBoard's files


@dataclass
class RunConfig:
    """One run: a corpus, a fold, an encoder, a head, a seed."""

    recipe: str = ""
    corpus: list[str] = field(default_factory=list)
    protocol: str | None = None
    fold: int = 0
    taxonomy: str | None = None
    seed: int = 1
    init: str | None = (
        None  # folder of a run whose encoder (and mix of layers) this one starts from
    )
    init_head: bool = False  # start from its head, too: the same head, of the same classes
    encoder: dict[str, Any] = field(default_factory=dict)
    head_name: str = ""  # of configs/head/NAME.yaml; what the head is called in folders and tables
    head: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Inverse of :meth:`to_dict`; unknown keys are errors."""
        return merge(dict(data))

    @property
    def called(self) -> str:
        """What the head is called in folders, tables and curves: its configuration's name."""
        return self.head_name or str(self.head["type"])

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the configuration that decides the numbers."""
        d = self.to_dict()
        del d["recipe"], d["head_name"]  # labels: what they stand for is written out
        for key in ("root", "manifest", "workers", "features"):
            del d["data"][key]
        for key, usual in _LATER.items():  # as before there was a choice
            if d["data"][key] == usual:
                del d["data"][key]
        for key in ("init", "init_head"):
            if not d[key]:
                del d[key]
        if not d["optim"]["min_steps"]:
            del d["optim"]["min_steps"]
        d["trainer"] = {"precision": d["trainer"]["precision"]}
        return d

    @property
    def fingerprint(self) -> str:
        """10 hexadecimal digits of :attr:`identity`: the run's id."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


_LATER = {
    "train_share": 1,
    "weak": "hard",
    "weak_weight": True,
    "weak_shuffle": None,
    "unknown_speakers": REFUSE,
}
"""Keys of the data that are younger than the first records, and what these had instead."""


def merge(values: dict[str, Any]) -> RunConfig:
    """Values laid over the defaults; unknown keys and values of a wrong type are errors."""
    if isinstance(values.get("corpus"), str):
        values = {**values, "corpus": [values["corpus"]]}
    values = _checked(values, RunConfig, "")
    hidden: list[str] = []
    try:
        # flags and containers are plain: nothing of OmegaConf enters a class or a checkpoint
        laid = OmegaConf.create(_hide(values, hidden))
        cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), laid))
    except OmegaConfBaseException as e:
        key, reason = getattr(e, "full_key", None), str(e).splitlines()[0]
        raise ConfigError(f"{key}: {reason}" if key else reason) from e
    assert isinstance(cfg, RunConfig)
    for part in (cfg, cfg.data, cfg.optim, cfg.trainer) if hidden else ():
        for f in fields(part):
            setattr(part, f.name, _restore(getattr(part, f.name), hidden))
    return cfg


def annotation(key: str) -> Any:
    """The type of ``a.b`` among the keys of a run; ``Any`` for what others decide, and no key."""
    schema: Any = RunConfig
    for name in key.split("."):
        group = is_dataclass(schema)
        schema = _hints(schema).get(name, Any) if group else Any
    return schema


@cache
def _hints(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema)


_MARK = "\0"


def _hide(value: Any, hidden: list[str]) -> Any:
    """Texts that mean something to OmegaConf (``${...}``, ``???``) are folders like others."""
    if isinstance(value, str) and ("${" in value or value == "???" or _MARK in value):
        hidden.append(value)
        return f"{_MARK}{len(hidden) - 1}"
    if isinstance(value, Mapping):
        return {k: _hide(v, hidden) for k, v in value.items()}
    return [_hide(v, hidden) for v in value] if isinstance(value, (list, tuple)) else value


def _restore(value: Any, hidden: list[str]) -> Any:
    if isinstance(value, str) and value.startswith(_MARK):
        return hidden[int(value[1:])]
    if isinstance(value, dict):
        return {k: _restore(v, hidden) for k, v in value.items()}
    return [_restore(v, hidden) for v in value] if isinstance(value, list) else value


def _checked(values: Mapping[str, Any], schema: Any, prefix: str) -> dict[str, Any]:
    """Values whose texts are texts; unknown keys, and what is no text, are errors."""
    known, hints = {f.name: f for f in fields(schema)}, _hints(schema)
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown key '{prefix}{key}'{suggest(str(key), known)}")
        sub: Any = known[key].default_factory
        if is_dataclass(sub):
            if not isinstance(value, Mapping):
                keys = ", ".join(f"{key}.{f.name}" for f in fields(sub))
                raise ConfigError(f"'{prefix}{key}' is a group of keys, not a value; have {keys}")
            found[key] = _checked(value, sub, f"{prefix}{key}.")
            continue
        found[key] = registry.fitted(value, hints[key])
        if remedy := registry.quotes(found[key], hints[key]):
            raise ConfigError(f"{prefix}{key} is {value!r}; a text is meant{remedy}")
    return found


def check_ranges(cfg: RunConfig) -> None:
    """Refuse numbers that no run can be made with, all at once.

    Raises:
        ConfigError: naming each of them.
    """
    at_least: dict[str, tuple[float | None, float]] = {
        "fold": (cfg.fold, 0),
        "data.batch_size": (cfg.data.batch_size, 1),
        "data.workers": (cfg.data.workers, 0),
        "data.weak_shuffle": (cfg.data.weak_shuffle, 0),
        "optim.epochs": (cfg.optim.epochs, 1),
        "optim.min_steps": (cfg.optim.min_steps, 0),
        "optim.accumulate": (cfg.optim.accumulate, 1),
        "optim.weight_decay": (cfg.optim.weight_decay, 0),
        "optim.clip": (cfg.optim.clip, 0),
        "optim.mixup": (cfg.optim.mixup, 0),
        "trainer.devices": (cfg.trainer.devices, 1),
        "trainer.num_nodes": (cfg.trainer.num_nodes, 1),
        "trainer.threads": (cfg.trainer.threads, 1),
        "trainer.board_audio": (cfg.trainer.board_audio, 0),
    }
    above_zero = {
        "data.batch_seconds": cfg.data.batch_seconds,
        "data.max_seconds": cfg.data.max_seconds,
        "data.train_share": cfg.data.train_share,
        "optim.lr": cfg.optim.lr,
        "optim.head_lr": cfg.optim.head_lr,
        "optim.mix_lr": cfg.optim.mix_lr,
    }
    shares = {
        "optim.warmup": cfg.optim.warmup,
        "optim.ema": cfg.optim.ema,
        "data.train_share": cfg.data.train_share,
    }
    # written so that NaN, which compares false, is refused
    wrong = [
        f"{key}={value} is not {low:g} or more"
        for key, (value, low) in at_least.items()
        if value is not None and not value >= low
    ]
    wrong += [
        f"{key}={value} is not above 0"
        for key, value in above_zero.items()
        if value is not None and not value > 0
    ]
    wrong += [f"{k}={v} is not between 0 and 1" for k, v in shares.items() if not 0 <= v <= 1]
    choices = {
        "data.weak": (cfg.data.weak, ("hard", "soft", "independent")),
        "data.unknown_speakers": (cfg.data.unknown_speakers, UNKNOWN_SPEAKERS),
        "optim.schedule": (cfg.optim.schedule, ("cosine", "linear")),
        "trainer.accelerator": (cfg.trainer.accelerator, ACCELERATORS),
        "trainer.strategy": (cfg.trainer.strategy, STRATEGIES),
    }
    wrong += [f"{k} is '{v}'; have {', '.join(h)}" for k, (v, h) in choices.items() if v not in h]
    if refusal := refused_precision(cfg.trainer.precision):
        wrong.append(f"trainer.precision {refusal}")
    if cfg.trainer.strategy == "fsdp" and cfg.optim.ema > 0:
        wrong.append(
            f"optim.ema={cfg.optim.ema} keeps a whole copy of the weights, which "
            "trainer.strategy=fsdp shares out; set optim.ema=0, or trainer.strategy=ddp"
        )
    if wrong:
        raise ConfigError("; ".join(wrong))


def refused_precision(name: str) -> str | None:
    """Why no model is trained in a precision; None where one is."""
    if ALIASES.get(name, name) in PRECISIONS:
        return None
    refusal = f"is '{name}'; have {', '.join(PRECISIONS)}"
    if name.endswith("-true") or name == "64":
        refusal += "; the weights stay float32, which heads compute in"
    if name in ("bf16-true", "16-true"):
        refusal += (
            ". To save memory or time, set bf16-mixed; a frozen published encoder takes half the "
            "memory with encoder.dtype=bfloat16"
        )
    return refusal
