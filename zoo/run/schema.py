"""What a run's configuration holds: every key, its default and its range.

Pydantic checks all values against the dataclasses below. :func:`read_as` reads other dataclasses in
the same way, such as those of suites.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ..core import earlier, registry
from ..core.errors import ConfigError, suggest
from ..core.speakers import NONE, REFUSE, UNKNOWN_SPEAKERS, enrolled

T = TypeVar("T")

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp", "fsdp")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
LOGGERS = ("tensorboard", "wandb", "mlflow")
ALIASES = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Lightning's short names. They are written out, since a run's fingerprint has the precision."""

METRIC_KEYS = {"uar": "uar", "wa": "wa", "macro_f1": "f1"}
"""Metrics that epochs are selected by and heads are compared by, each with its key in records."""


def one_of(*known: str) -> AfterValidator:
    """Return a check of a text against the known ones."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"is '{value}'; have {', '.join(known)}")
        return value

    return AfterValidator(check)


def give(remedy: str) -> WrapValidator:
    """Return a check with an error of its own, ``KEY is VALUE; give REMEDY``."""

    def check(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError as e:
            found = "is missing" if value is None else f"is {value!r}"
            raise ValueError(f"{found}; give {remedy}") from e

    return WrapValidator(check)


LISTED = BeforeValidator(lambda v: v if v is None or isinstance(v, (list, dict)) else [v])
"""A single value is read as a list of one."""


def _trainable_precision(name: str) -> str:
    if refusal := refused_precision(name):
        raise ValueError(refusal)
    return name


def _normalisation(way: str) -> str:
    enrolled(way)
    return way


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"is {value}; give a finite number")
    return value


FINITE = AfterValidator(_finite)

# strict: "1" and true are not numbers, and 1 is not a flag; a whole number is also a float
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
FromZero: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
FromOne: TypeAlias = Annotated[int, Field(strict=True, ge=1)]
# numpy takes no negative seed, and some libraries take no more than 32 bits
Seed: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
NotNegative: TypeAlias = Annotated[float, Field(strict=True, ge=0), FINITE]
Positive: TypeAlias = Annotated[float, Field(strict=True, gt=0), FINITE]
Share: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1)]
PositiveShare: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=1)]


@dataclass
class DataConfig:
    """Which utterances are read, and how they become batches."""

    root: str | None = None  # folder of the corpus; default $SERZOO_DATA/<corpus>
    manifest: str | None = None  # a prepared manifest instead of the corpus' own layout
    label: str = "label"  # the column of labels: label, gender, or another column of the corpus
    # keywords of the corpus' reader; every reader takes channel: mean, first, or a number from 1
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: FromOne = 32  # most utterances in a batch
    batch_seconds: Positive = 160.0  # most seconds of padded speech in a batch
    max_seconds: Positive = 20.0  # longer utterances are cut to this length, and counted
    balance: Flag = True  # weigh training utterances by inverse class frequency
    # share of each class that is trained on; a smaller share is part of a larger one
    train_share: PositiveShare = 1.0
    # targets of weak labels: hard; or from the scores beside the manifest: soft, independent
    weak: Annotated[str, one_of("hard", "soft", "independent")] = "hard"
    weak_weight: Flag = True  # weigh a weak label by its confidence
    # what training learns of several raters: their majority, the distribution of their votes, or a
    # class drawn from it
    targets: Annotated[str, one_of("majority", "distribution", "sampled")] = "majority"
    weak_shuffle: Seed | None = None  # seed that shuffles the weak labels, as a control
    # if a fold needs unknown speakers: refuse, or accept and report it
    unknown_speakers: Annotated[str, one_of(*UNKNOWN_SPEAKERS)] = REFUSE
    # auto: store what the encoder allows to store; live: compute it for each batch
    features: Annotated[str, one_of("auto", "live")] = "auto"
    # auto: standardise pooled frames by the training part if the encoder is frozen; none: do not
    standardise: Annotated[str, one_of("auto", "none")] = "auto"
    # remove the mean of each speaker's unlabelled utterances: none, speaker, enrol:K
    normalise: Annotated[str, AfterValidator(_normalisation)] = NONE
    # corrupted copies of each training utterance; half of what an epoch draws are such copies
    corrupted_copies: FromZero = 0
    workers: FromZero = 0  # DataLoader processes


@dataclass
class OptimConfig:
    """Settings of the optimiser; the same for every head."""

    lr: Positive = 1e-3  # peak learning rate
    head_lr: Positive | None = None  # peak rate of the head; None = lr
    mix_lr: Positive | None = None  # peak rate of a learned mix of layers; None = lr
    weight_decay: NotNegative = 1e-2  # of AdamW; biases and norms do not decay
    epochs: FromOne = 30  # each is validated once
    # Fewest steps of a run; 0 = no limit. A small training part (`data.train_share`) is repeated
    # within an epoch, so that runs differ in labels and not in steps.
    min_steps: FromZero = 0
    warmup: Share = 0.1  # share of the steps in which the rate rises linearly
    # how the rate falls afterwards
    schedule: Annotated[str, one_of("cosine", "linear")] = "cosine"
    accumulate: FromOne = 1  # batches whose gradients make one step
    clip: NotNegative = 1.0  # largest norm of the gradient; 0 = no limit
    mixup: NotNegative = 0.0  # a of Beta(a, a), which mixes encoder inputs and targets; 0 = off
    ema: Share = 0.0  # decay of the averaged weights that are evaluated; 0 = off
    # the epoch whose weights are kept: best on the validation part, or the last one
    select: Annotated[str, one_of("best", "last")] = "best"
    # what the best epoch is best by; a suite sets its own metric
    metric: Annotated[str, one_of(*METRIC_KEYS)] = "uar"
    # train anew on the training and validation speakers, up to the selected epoch, and test that
    refit: Flag = False


@dataclass
class TrainerConfig:
    """Where a run is computed. Only the precision is part of a run's identity."""

    out: str = "runs"  # folder of all runs
    accelerator: Annotated[str, one_of(*ACCELERATORS)] = "auto"  # auto = a GPU if there is one
    devices: FromOne = 1  # of each machine: GPUs, or processes on a CPU
    num_nodes: FromOne = 1  # machines
    strategy: Annotated[str, one_of(*STRATEGIES)] = "auto"  # of several devices; auto = ddp
    # precision of the arithmetic (16-mixed needs a GPU); weights stay float32
    precision: Annotated[str, AfterValidator(_trainable_precision)] = "32-true"
    threads: FromOne | None = None  # CPU threads of each process
    progress: Flag = True  # a bar on a terminal; in a file, a line now and then
    # where curves go besides TensorBoard; wandb and mlflow are packages that you install
    logger: Annotated[str, one_of(*LOGGERS)] = "tensorboard"
    board_audio: FromZero = 0  # how many of the most confident errors TensorBoard gets as audio


@dataclass
class RunConfig:
    """One run: a corpus, a fold, an encoder, a head, a seed."""

    recipe: str = ""  # name or file of the recipe that the run began with
    corpus: list[str] = field(default_factory=list)  # names of corpora; several count as one
    protocol: str | None = None  # how speakers become folds; None = that of the corpus
    fold: FromZero = 0  # which fold is tested
    taxonomy: str | None = None  # the classes; None = those of the corpus, auto = all its labels
    seed: Seed = 1  # seed of initial weights and of all randomness in training
    init: str | None = None  # run whose encoder, with its mix of layers, this one starts from
    init_head: Flag = False  # start from its head, too; head and classes must be the same
    encoder: dict[str, Any] = field(default_factory=dict)  # type, and the keywords of its class
    # encoder of one vector per utterance, which heads get beside the frames: functionals, opensmile
    utterance: str | None = None
    head_name: str = ""  # what folders and tables call the head: NAME of configs/head/NAME.yaml
    head: dict[str, Any] = field(default_factory=dict)  # type, and the keywords of its class
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    # the user's own parts, each as FILE.py:NAME@DIGEST; filled in, not set
    own: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain containers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Read what :meth:`to_dict` returned; an unknown key is a ConfigError.

        A record that was made before ``data.standardise`` existed was not standardised. Options of
        the head that have another name today are read by :func:`.earlier.upgraded`.
        """
        values = dict(data)
        if isinstance(values.get("head"), Mapping):
            values["head"] = earlier.upgraded(values["head"])
        if isinstance(values.get("data"), Mapping):
            values["data"] = {"standardise": _LATER["standardise"], **values["data"]}
        return merge(values)

    @property
    def called(self) -> str:
        """Name of the head in folders, tables and curves."""
        return self.head_name or str(self.head["type"])

    @property
    def identity(self) -> dict[str, Any]:
        """The keys that decide the numbers, as plain containers."""
        d = self.to_dict()
        del d["recipe"], d["head_name"]  # the other keys hold what these name
        for part in ("head", "encoder"):
            d[part] = earlier.as_first_written(d[part])
        for key in ("root", "manifest", "workers", "features"):
            del d["data"][key]
        tuned = d["encoder"].get("tuning", "frozen") != "frozen"
        if tuned or d["encoder"].get("type") in LEARNING:
            d["data"]["standardise"] = "none"  # it has no effect on an encoder that learns
        for key, usual in _LATER.items():  # so that the first records keep their fingerprints
            if d["data"][key] == usual:
                del d["data"][key]
        for key in ("init", "init_head", "utterance"):
            if not d[key]:
                del d[key]
        # an edited file makes another run; a moved file does not
        d["own"] = {part: text.rpartition("@")[2] for part, text in self.own.items()}
        if not d["own"]:
            del d["own"]
        later = (("min_steps", 0), ("select", "best"), ("metric", "uar"), ("refit", False))
        for key, usual in later:
            if d["optim"][key] == usual:
                del d["optim"][key]
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
    "targets": "majority",
    "unknown_speakers": REFUSE,
    "standardise": "none",
    "normalise": NONE,
    "corrupted_copies": 0,
}
"""Keys of ``data`` that the first records lack, each with the value that holds for them."""


def merge(values: dict[str, Any]) -> RunConfig:
    """Return a configuration with these values, and the defaults for all other keys.

    Raises:
        ConfigError: if a key is unknown, or values have a wrong type or lie out of range. It names
            each.
    """
    if isinstance(values.get("corpus"), str):
        values = {**values, "corpus": [values["corpus"]]}
    return read_as(RunConfig, values)


def read_as(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a dataclass with these values, and the defaults for all other keys.

    Args:
        kind: the dataclass. Its annotations say what each key may be.
        values: the content of a file, or of a group of keys.

    Raises:
        ConfigError: if a key is unknown, or values have a wrong type or lie out of range. It names
            each.
    """
    return _validated(kind, _known(values, kind))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(kind: type[T], values: dict[str, Any]) -> T:
    copied = deepcopy(values)  # :func:`resolve` fills defaults into lists and mappings
    try:
        found: T = _adapter(kind).validate_python(copied)  # type: ignore[arg-type]  # a hashable type
    except ValidationError as e:
        raise ConfigError("; ".join(map(_message, e.errors(include_url=False)))) from e
    return found


_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a group of keys",
}


def _message(error: Mapping[str, Any]) -> str:
    """Return one error of pydantic as a text: ``fold=-1 should be greater than ...``."""
    key, value = ".".join(map(str, error["loc"])), error["input"]
    if error["type"] == "value_error":
        cause = error["ctx"]["error"]
        return str(cause) if isinstance(cause, ConfigError) else f"{key} {cause}"
    if kind := _KINDS.get(error["type"]):
        quotes = registry.QUOTES if kind == "a text" and isinstance(value, (bool, float)) else ""
        return f"{key}: {value!r} ({type(value).__name__}) is not {kind}{quotes}"
    return f"{key}={value!r} {error['msg'].removeprefix('Input ')}"


def annotation(key: str, kind: Any = None) -> Any:
    """Return the type of a key ``a.b``; ``Any`` if it is unknown, or a part decides it.

    Args:
        key: the key.
        kind: the dataclass that has it; None = a run's configuration.
    """
    schema = kind or RunConfig
    for name in key.split("."):
        group = _group(schema)
        schema = _hints(group).get(name, Any) if group else Any
    return schema


@cache
def _hints(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema)


def _group(hint: Any) -> Any:
    """Return the dataclass that a type is or holds: ``A``, ``A | None``, ``dict[str, A]``."""
    return next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)


def _known(values: Any, schema: Any, name: str = "") -> dict[str, Any]:
    """Return values, with numbers as texts if a text is meant; refuse unknown keys.

    Keys without a default are there: their value is None if it was not given.
    """
    known, hints = {f.name: f for f in fields(schema)}, _hints(schema)
    dot = f"{name}." if name else ""
    if not isinstance(values, Mapping):
        keys = ", ".join(f"{dot}{key}" for key in known)
        raise ConfigError(f"'{name}' is {values!r}; give keys and values: {keys}")
    needed = [k for k, f in known.items() if f.default is f.default_factory is MISSING]
    found: dict[str, Any] = {}
    for key, value in {**dict.fromkeys(needed), **values}.items():
        if key not in known:
            raise ConfigError(f"unknown key '{dot}{key}'{suggest(str(key), known)}")
        hint, group = hints[key], _group(hints[key])
        if not group or (value is None and type(None) in get_args(hint)):
            found[key] = registry.fitted(value, hint)
        elif get_origin(hint) is not dict:
            found[key] = _known(value, group, f"{dot}{key}")
        elif isinstance(value, Mapping):
            found[key] = {str(k): _known(v, group, f"{dot}{key}.{k}") for k, v in value.items()}
        else:
            raise ConfigError(f"'{dot}{key}' is {value!r}; give keys and values for each name")
    return found


def check_ranges(cfg: RunConfig) -> None:
    """Refuse values that no run can be made with.

    Raises:
        ConfigError: if there are such values. It names all of them.
    """
    _validated(RunConfig, cfg.to_dict())
    if cfg.trainer.strategy == "fsdp" and cfg.optim.ema > 0:
        raise ConfigError(
            f"optim.ema={cfg.optim.ema} keeps a whole copy of the weights, which "
            "trainer.strategy=fsdp shares out; set optim.ema=0, or trainer.strategy=ddp"
        )


def refused_precision(name: str) -> str | None:
    """Return why no model can be trained in a precision; None if it can."""
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


LEARNING = ("logmel", "resnet50")
"""Types of encoders that always learn. Others learn if their ``tuning`` says so."""
