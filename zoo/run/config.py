"""Run configurations: recipes, groups, overrides, and the fingerprint that names a run.

A recipe (``configs/recipe/<name>.yaml``, or the user's file) picks groups by name and sets some of
their keys. ``encoder=hf`` on the command line replaces a group and drops what the recipe set in it.
``optim.lr=1e-3`` sets one key.

Heads and encoders have a registered name (``type:``), and their constructors decide which keys they
have. The user's own code is named ``FILE.py:NAME`` (:mod:`..core.own`). Only a command or a YAML
file of the user may name it.

A strict YAML loader reads files: ``0010`` stays a text there. A value of the command line is read
as its key expects (:func:`.registry.typed`). The dataclasses below hold every key, its default and
its range; pydantic checks all values against them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
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

from ..core import own, registry, shipped
from ..core.errors import ConfigError, suggest
from ..core.files import read_text
from ..core.shipped import names, read_yaml
from ..core.speakers import REFUSE, UNKNOWN_SPEAKERS
from ..core.taxonomy import Taxonomy

T = TypeVar("T")

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp", "fsdp")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
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


# strict: "1" and true are not numbers, and 1 is not a flag; a whole number is also a float
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Whole: TypeAlias = Annotated[int, Field(strict=True)]
FromZero: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
FromOne: TypeAlias = Annotated[int, Field(strict=True, ge=1)]
NotNegative: TypeAlias = Annotated[float, Field(strict=True, ge=0)]
Positive: TypeAlias = Annotated[float, Field(strict=True, gt=0)]
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
    weak_shuffle: FromZero | None = None  # seed that shuffles the weak labels, as a control
    # if a fold needs unknown speakers: refuse, or accept and report it
    unknown_speakers: Annotated[str, one_of(*UNKNOWN_SPEAKERS)] = REFUSE
    # auto: store what the encoder allows to store; live: compute it for each batch
    features: Annotated[str, one_of("auto", "live")] = "auto"
    # auto: standardise pooled frames by the training part if the encoder is frozen; none: do not
    standardise: Annotated[str, one_of("auto", "none")] = "auto"
    workers: FromZero = 0  # DataLoader processes


@dataclass
class OptimConfig:
    """Settings of the optimiser; the same for every head."""

    lr: Positive = 1e-3  # peak learning rate
    head_lr: Positive | None = None  # peak rate of the head; None = lr
    mix_lr: Positive | None = None  # peak rate of a learned mix of layers; None = lr
    weight_decay: NotNegative = 1e-2
    epochs: FromOne = 30
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
    progress: Flag = True
    board_audio: FromZero = 0  # how many of the most confident errors TensorBoard gets as audio


@dataclass
class RunConfig:
    """One run: a corpus, a fold, an encoder, a head, a seed."""

    recipe: str = ""
    corpus: list[str] = field(default_factory=list)
    protocol: str | None = None
    fold: FromZero = 0
    taxonomy: str | None = None
    seed: Whole = 1
    init: str | None = None  # run whose encoder, with its mix of layers, this one starts from
    init_head: Flag = False  # start from its head, too; head and classes must be the same
    encoder: dict[str, Any] = field(default_factory=dict)
    # encoder of one vector per utterance, which heads get beside the frames: functionals
    utterance: str | None = None
    head_name: str = ""  # what folders and tables call the head: NAME of configs/head/NAME.yaml
    head: dict[str, Any] = field(default_factory=dict)
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

        A record that was made before ``data.standardise`` existed was not standardised.
        """
        values = dict(data)
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
        for key in ("root", "manifest", "workers", "features"):
            del d["data"][key]
        if d["encoder"].get("tuning") != "frozen" and d["encoder"].get("type") not in FIXED:
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
    "unknown_speakers": REFUSE,
    "standardise": "none",
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


FIXED = ("trained", "functionals")
"""Types of encoders that never learn. A published one (``hf``) learns if its ``tuning`` says so."""

GROUPS = ("encoder", "head", "optim")
SUITS = {"lora": "lora", "last_k": "finetune", "full": "finetune"}
"""Value of ``encoder.tuning`` to the optimisation whose learning rates suit it."""

PATHS = ("root", "out", "record", "noise", "rir", "support", "supports", "human")
"""Last words of keys whose value is a path: there, ``null`` is the name of a file."""


class Typed(str):
    """A value as it was typed. It is read when the type of its key is known."""


def read_suite(name: str) -> dict[str, Any]:
    """Return the content of a shipped suite or of a YAML file.

    Args:
        name: name of a shipped suite, or the path of a YAML file. Its files of the user's own are
            imported and registered.

    Raises:
        ConfigError: if there is no such suite, or the file is damaged.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return read_group("suite", name)
    if not path.is_file():
        raise ConfigError(f"no suite file {name}; shipped suites: {', '.join(names('suite'))}")
    return adopt_names(read_mapping(read_text(path, ConfigError), name), path.parent)


OWN_KINDS: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads", "corpus": "corpora"}
"""Keys that name a part, and its kind. The part may be the user's own."""

_NAMES = {
    **{key: key for key in OWN_KINDS},
    **dict.fromkeys(("baseline", "match_params", "scratch_head"), "head"),
    "data": "corpus",  # the target of adaptations
}
"""Keys of recipes and suites that name a part, and which of :data:`OWN_KINDS` it is."""


def adopted(key: str, value: Any, beside: Path | None = None) -> Any:
    """Register the user's own parts in a value, and return it with their registered names.

    Args:
        key: ``head``, ``encoder`` or ``corpus``.
        value: a name, ``FILE.py:NAME``, or a list of these; anything else is returned as it is.
        beside: folder of the YAML file that holds the value.

    Raises:
        ConfigError: see :func:`.own.adopt`.
    """
    if isinstance(value, list):
        return [adopted(key, v, beside) for v in value]
    return own.adopt(OWN_KINDS[key], value, beside=beside) if own.is_own(value) else value


def adopt_names(content: Mapping[str, Any], beside: Path | None = None) -> dict[str, Any]:
    """Register every part of the user's own that a YAML file or its overrides name.

    Keys that name a part are found at any depth, also in lists of ``key=value``.

    Args:
        content: content of a recipe or a suite.
        beside: folder of the YAML file; None = the names were typed.

    Returns:
        The content, in which each ``FILE.py:NAME`` is now a registered name.

    Raises:
        ConfigError: see :func:`.own.adopt`.
    """
    return {str(key): _adopt_value(str(key), value, beside) for key, value in content.items()}


def _adopt_value(key: str, value: Any, beside: Path | None) -> Any:
    part = _NAMES.get(key)
    if isinstance(value, dict):
        if key == "heads":  # of a search: the heads are its keys
            value = {adopted("head", head, beside): node for head, node in value.items()}
        inner = {k: part if part and k == "type" else str(k) for k in value}
        return {k: _adopt_value(inner[k], v, beside) for k, v in value.items()}
    if key == "overrides" and isinstance(value, list):
        return [_adopt_word(item, beside) for item in value]
    return adopted(part, value, beside) if part else value


def _adopt_word(item: Any, beside: Path | None) -> Any:
    """``key=value`` of a list of overrides, with a registered name."""
    key, eq, text = item.partition("=") if isinstance(item, str) else ("", "", "")
    found = _adopt_typed(key.strip(), Typed(text), beside)
    return item if found == text else f"{key}{eq}{found}"


def _adopt_base(base: Mapping[str, Any], beside: Path | None) -> dict[str, Any]:
    """Return a recipe's content with registered names for the user's own parts.

    A part that ``head: {type: FILE.py:NAME}`` names is also picked as the group.
    """
    found = adopt_names(base, beside)
    for key in ("head", "encoder"):
        node, groups = base.get(key), found.get("groups") or {}
        if isinstance(node, dict) and own.is_own(node.get("type")) and isinstance(groups, dict):
            found["groups"] = {**groups, key: found[key]["type"]}
    return found


def read_group(group: str, name: str) -> dict[str, Any]:
    """Return a shipped configuration as plain containers.

    A third party's head or encoder needs no file, since its constructor has the defaults.

    Args:
        group: a folder of ``configs``, such as ``head``.
        name: name of a file in it, or of a registered head or encoder.

    Raises:
        ConfigError: if there is no such name. It lists the known ones.
    """
    if name in names(group):
        return read_mapping(shipped.text(group, name), f"configs/{group}/{name}.yaml")
    kinds: dict[str, registry.Kind] = {"head": "heads", "encoder": "encoders"}
    known = set(names(group))
    if group in kinds:
        registered = registry.names(kinds[group])
        if name in registered:
            return {"type": name}
        known |= set(registered)
    raise ConfigError(f"no {group} config called '{name}'{suggest(name, known)}")


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """Read YAML that holds keys and values.

    Args:
        text: the YAML; it may be empty.
        where: name of the file, for errors.

    Raises:
        ConfigError: if it is not YAML, or holds something else.
    """
    try:
        content = read_yaml(text)
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from e
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where} holds a {type(content).__name__}; expected lines of key: value")
    return content


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Compose a run's configuration.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, in any order. Names of groups are applied
            first.

    Returns:
        The resolved configuration. All keys of head and encoder were checked against their
        constructors.

    Raises:
        ConfigError: if a key, name or value is wrong. It says what would be right.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(
                f"no recipe file {recipe}; shipped recipes: {', '.join(names('recipe'))}"
            )
        base = _adopt_base(read_mapping(read_text(path, ConfigError), recipe), path.parent)
    else:
        base = read_group("recipe", recipe)
    return compose({**base, "recipe": recipe}, words(overrides))


def words(overrides: Sequence[str]) -> list[tuple[str, Typed]]:
    """Split ``["a.b=1"]`` into ``[("a.b", "1")]``, each value as it was typed.

    Raises:
        ConfigError: if a word is not ``key=value``.
    """
    found = []
    for item in overrides:
        key, eq, value = item.partition("=")
        if not eq or not key.strip():
            raise ConfigError(
                f"'{item}' is not an override; write key=value, for example optim.lr=1e-3"
            )
        found.append((key.strip(), Typed(value)))
    return found


def parse(
    overrides: Sequence[str], types: Mapping[str, Any] | None = None
) -> list[tuple[str, Any]]:
    """Read ``["a.b=1"]`` as ``[("a.b", 1)]``, each value as its key's type says.

    Args:
        overrides: words as they were typed.
        types: key to annotation; the value of any other key is read as YAML.

    Raises:
        ConfigError: if a word is not ``key=value``, or its value cannot be read.
    """
    return [(key, _read(key, text, (types or {}).get(key, Any))) for key, text in words(overrides)]


def _read(key: str, text: str, kind: Any) -> Any:
    of_reader = ".options." in f".{key}"
    reset = not of_reader and key.rpartition(".")[2] not in PATHS
    try:
        return registry.typed(text, kind, reset=reset)
    except ConfigError as e:
        raise ConfigError(f"'{key}={text}': {e}") from e


def option_types(corpora: Sequence[str]) -> dict[str, Any]:
    """Return ``options.KEY`` to annotation, for the keywords of these corpora's readers."""
    return {
        f"options.{name}": knob.annotation
        for corpus in reversed(corpora)
        if corpus in registry.names("corpora")  # another name is refused elsewhere
        for name, knob in registry.schema_of(registry.get("corpora", corpus)).items()
    }


def types_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keywords of a function that its verb takes as settings, each with its type.

    These are the keyword-only parameters, except those that the verb itself passes.
    """
    given = ("options", "progress", "facts", "against")
    knobs = registry.schema_of(function).values()
    return {knob.name: knob.annotation for knob in knobs if knob.name not in given}


def settings(
    typed: Sequence[str], types: Mapping[str, Any], corpora: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a verb's own settings, such as ``["root=here", "options.part=2"]``, as keywords.

    Args:
        typed: words as they were typed.
        types: allowed keys, besides ``options.KEY``, each with its annotation.
        corpora: their readers decide the types of ``options.KEY``.

    Returns:
        Key to value. The values of ``options.KEY`` are a mapping under ``options``.

    Raises:
        ConfigError: if a key is unknown, or lacks a value that it needs.
    """
    values = dict(parse(typed, {**types, **option_types(corpora)}))
    for key, value in values.items():
        if key not in types and not key.startswith("options."):
            raise ConfigError(f"unknown setting '{key}'{suggest(key, [*types, 'options.KEY'])}")
        if value is None and key in types and type(None) not in get_args(types[key]):
            raise ConfigError(f"'{key}=' is empty; give a value, or leave it out")
    options = {k[8:]: values.pop(k) for k in list(values) if k.startswith("options.")}
    return {**values, "options": options}


def corpora_of(typed: Sequence[str], key: str) -> list[str]:
    """Return the corpora that the setting ``key`` names among the words of a verb."""
    return _corpora(dict(words(typed)).get(key))


def compose(base: dict[str, Any], overrides: Sequence[tuple[str, Any]]) -> RunConfig:
    """Merge a recipe's content and overrides into a checked :class:`RunConfig`.

    Args:
        base: content of the recipe.
        overrides: pairs of key and value; a :class:`Typed` value is read as its key expects.

    Raises:
        ConfigError: if a key, name or value is wrong.
    """
    overrides = [
        (k, _read(k, v, str | dict[str, Any]) if k in GROUPS and isinstance(v, Typed) else v)
        for k, v in overrides
    ]
    overrides = [(k, _adopt_typed(k, v)) for k, v in overrides]
    groups = base.pop("groups", None) or {}
    if not isinstance(groups, dict):
        raise ConfigError(f"groups is '{groups}'; write groups: {{encoder: NAME, head: NAME}}")
    chosen: dict[str, str] = {str(group): str(name) for group, name in groups.items()}
    for group in GROUPS:
        if not isinstance(base.get(group) or {}, dict):
            raise ConfigError(
                f"{group} is '{base[group]}'; a recipe picks it with groups: {{{group}: NAME}}, "
                f"and {group}: {{KEY: VALUE}} sets its keys"
            )
    unknown = [g for g in chosen if g not in GROUPS]
    if unknown:
        raise ConfigError(f"recipe picks unknown group '{unknown[0]}'{suggest(unknown[0], GROUPS)}")
    for key, value in overrides:
        if key in GROUPS and isinstance(value, str):
            chosen[key] = value
            base.pop(key, None)  # the recipe's keys were for the part that it had picked
    asked = {key for key, value in overrides if key in GROUPS and isinstance(value, str)}
    if "encoder" in asked:  # the recipe's optimisation was for the encoder that it had picked
        base.pop("optim", None)
        if "optim" not in asked:
            chosen.pop("optim", None)
    merged: dict[str, Any] = {}
    for group in ("encoder", "head"):
        if group not in chosen:
            raise ConfigError(f"no {group} chosen; add {group}=NAME{suggest('', names(group))}")
        merged[group] = read_group(group, chosen[group])
    kind = merged["head"].get("type")
    # an encoder's file names the optimisation that suits it; one that was asked for goes first
    default_optim = merged["encoder"].pop("optim", None)
    tuning = dict(overrides).get("encoder.tuning") or (base.get("encoder") or {}).get("tuning")
    if isinstance(tuning, Typed):
        tuning = _read("encoder.tuning", tuning, str)
    encoder = merged["encoder"].get("type")
    tunable = encoder in ("hf", "serzoo-small")
    if encoder == "functionals" or (tunable and str(tuning or "frozen") == "frozen"):
        merged["head"] = _suited(merged["head"])
    suits = chosen.get("optim") or SUITS.get(str(tuning), default_optim)
    merged["optim"] = read_group("optim", suits) if suits else {}
    for key, value in base.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    types = _types(merged, overrides)
    for key, value in overrides:
        if not (key in GROUPS and isinstance(value, str)):
            wanted = types.get(key) or annotation(key)
            put(merged, key, _read(key, value, wanted) if isinstance(value, Typed) else value)
    head = merged["head"]
    if isinstance(head, dict) and head.get("type") == kind:  # an override may have changed it
        merged.setdefault("head_name", chosen["head"])
    return resolve(merge(merged))


def _adopt_typed(key: str, value: Any, beside: Path | None = None) -> Any:
    """Return an override's value with registered names for the user's own parts."""
    part = key.removesuffix(".type")
    if part not in OWN_KINDS:
        return value
    if isinstance(value, Typed) and value.lstrip().startswith("["):
        listed = _read(key, value, str | list[str])
        return adopted(part, listed, beside) if any(map(own.is_own, listed)) else value
    found = adopted(part, str(value) if isinstance(value, Typed) else value, beside)
    return Typed(found) if isinstance(value, Typed) else found


def resolve(cfg: RunConfig) -> RunConfig:
    """Fill in the corpus' protocol and taxonomy and all defaults, and check every name and key.

    Returns:
        The same object, changed.

    Raises:
        ConfigError: if a key, name or value is wrong.
    """
    check_ranges(cfg)
    cfg.trainer.precision = ALIASES.get(cfg.trainer.precision, cfg.trainer.precision)
    if len(set(cfg.corpus)) < len(cfg.corpus):
        raise ConfigError(f"a corpus is named twice: {', '.join(cfg.corpus)}; name each once")
    for corpus in cfg.corpus:
        if corpus not in registry.names("corpora"):
            raise ConfigError(
                f"no corpus called '{corpus}'{suggest(corpus, registry.names('corpora'))}"
            )
    if not cfg.corpus and not cfg.data.manifest:
        raise ConfigError("no corpus chosen; add corpus=NAME, or data.manifest=FILE")
    if len(cfg.corpus) == 1:
        from ...datamodules.info import ATTRIBUTES, CorpusInfo

        info = CorpusInfo.load(cfg.corpus[0])
        cfg.protocol = cfg.protocol or info.protocol
        # a corpus' taxonomy has emotions; the classes of an attribute are found in the data
        if cfg.data.label not in ATTRIBUTES:
            cfg.taxonomy = cfg.taxonomy or info.taxonomy
    elif len(cfg.corpus) > 1:
        cfg.protocol = cfg.protocol or "loco"
        if cfg.taxonomy is None:
            raise ConfigError(
                f"several corpora ({', '.join(cfg.corpus)}) need one taxonomy; add taxonomy=NAME"
                f"{suggest('', Taxonomy.names())}"
            )
    cfg.protocol = cfg.protocol or "kfold"
    cfg.taxonomy = cfg.taxonomy or "auto"
    if cfg.taxonomy != "auto":
        Taxonomy.load(cfg.taxonomy)
    from ...datamodules.protocols import Protocol

    Protocol.load(cfg.protocol)
    types = option_types(cfg.corpus) if cfg.data.options else {}
    cfg.data.options = {
        k: registry.fitted(v, types.get(f"options.{k}", Any)) for k, v in cfg.data.options.items()
    }
    parts: tuple[tuple[registry.Kind, dict[str, Any]], ...] = (
        ("encoders", cfg.encoder),
        ("heads", cfg.head),
    )
    for kind, node in parts:
        if not isinstance(node.get("type"), str):
            known = ", ".join(registry.names(kind))
            raise ConfigError(f"the {registry.SINGULAR[kind]} has no type; have {known}")
        options = {k: v for k, v in node.items() if k != "type"}
        registry.check_options(kind, node["type"], options)
        # all keys are written out: a new default changes the fingerprint, and 0 for 0.0 does not
        node.update(registry.complete(kind, node["type"], options))
    if cfg.utterance is not None:
        _check_utterance(cfg.utterance)
    named: list[tuple[str, registry.Kind, str]] = [
        ("encoder", "encoders", cfg.encoder["type"]),
        ("head", "heads", cfg.head["type"]),
        *((f"corpus {name}", "corpora", name) for name in cfg.corpus),
    ]
    files = {part: own.origin(kind, name) for part, kind, name in named}
    cfg.own = {part: text for part, text in files.items() if text}
    return cfg


def _check_utterance(name: str) -> None:
    """Refuse an encoder that gives more than one frame for an utterance.

    Raises:
        ConfigError: if there is no such encoder, or it gives several frames.
    """
    if registry.get("encoders", name).frame_seconds:
        raise ConfigError(
            f"utterance={name} gives several frames for an utterance; set utterance to an encoder "
            "of one vector (functionals), or leave it out"
        )


def _suited(head: dict[str, Any]) -> dict[str, Any]:
    """Return a head's options with the pooling that suits an encoder that does not learn.

    The mean takes the place of attentive pooling if that is only the head's default. It is best on
    published encoders (docs/results/frozen-encoder.md), and enough for the one frame of
    functionals. A pooling that a file, a recipe or an override names stays.
    """
    if head.get("type") not in registry.names("heads"):
        return head
    knob = registry.schema_of(registry.get("heads", head["type"])).get("pooling")
    if (
        knob is None
        or knob.default != "attentive"
        or head.get("pooling") not in (None, "attentive")
    ):
        return head
    return {**head, "pooling": "mean"}


def _types(merged: Mapping[str, Any], overrides: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the types of the keys that the chosen encoder, head and readers decide."""
    last = dict(overrides)
    found: dict[str, Any] = {"corpus": str | list[str]}
    if any(key.startswith("data.options.") for key in last):
        given = last.get("corpus", merged.get("corpus"))
        found |= {f"data.{k}": v for k, v in option_types(_corpora(given)).items()}
    kinds: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads"}
    for group, kind in kinds.items():
        node = merged.get(group)
        name = last.get(f"{group}.type", node.get("type") if isinstance(node, dict) else None)
        name = _read(f"{group}.type", name, str) if isinstance(name, Typed) else name
        if name in registry.names(kind) and any(key.startswith(f"{group}.") for key in last):
            schema = registry.schema_of(registry.get(kind, str(name)))
            found |= {f"{group}.{k}": knob.annotation for k, knob in schema.items()}
            found[f"{group}.type"] = str
    return found


def _corpora(given: Any) -> list[str]:
    """Return the names of corpora, which may be given as a name, a list, or as typed."""
    if isinstance(given, Typed):
        given = _read("corpus", given, str | list[str])
    given = adopted("corpus", given)
    return [given] if isinstance(given, str) else [str(c) for c in given or ()]


def build_taxonomy(cfg: RunConfig) -> Taxonomy | None:
    """Return the run's taxonomy; None for ``auto``, whose classes are found in the data."""
    return None if cfg.taxonomy in (None, "auto") else Taxonomy.load(str(cfg.taxonomy))


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a key ``a.b`` in nested mappings, which are made if they are missing.

    Raises:
        ConfigError: if something else than a mapping is on the way.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"'{key}' sets a key under '{part}', which is a plain value; set {part}=VALUE"
            )
    node[last] = value
