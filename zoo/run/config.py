"""Run configurations: recipes, groups, overrides, and the fingerprint that names a run.

A recipe (``configs/recipe/<name>.yaml`` or a file of the user's) picks groups by name and tweaks
them. ``encoder=hf`` on the command line replaces a group and drops the recipe's tweaks for it;
``optim.lr=1e-3`` sets one key.

Heads and encoders have a registered name (``type:``). Code of the user's own is named
``FILE.py:NAME`` (:mod:`..core.own`); only a command or a YAML file of the user's may name it. The
constructors of these parts decide which keys they have.

Values of files are read by a strict YAML loader, in which ``0010`` stays a text. Values of the
command line are read as their keys expect (:func:`.registry.typed`). The dataclasses below hold
every key, its default and its range; pydantic checks all values against them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from ..core import own, registry, shipped
from ..core.errors import ConfigError, suggest
from ..core.files import read_text
from ..core.shipped import names, read_yaml
from ..core.speakers import REFUSE, UNKNOWN_SPEAKERS
from ..core.taxonomy import Taxonomy

# ---- Every key of a run's configuration, its default and its range; what names a run.

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp", "fsdp")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
ALIASES = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Lightning's short names, which are written out: a run's fingerprint contains the precision."""


def _one_of(*known: str) -> AfterValidator:
    """Return a check of a text against the known ones."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"is '{value}'; have {', '.join(known)}")
        return value

    return AfterValidator(check)


def _trainable_precision(name: str) -> str:
    if refusal := refused_precision(name):
        raise ValueError(refusal)
    return name


# strict: "1" and true are no numbers, and 1 is no flag; but a whole number is also a float
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
    """How utterances become batches."""

    root: str | None = None  # folder of the corpus; default $SERZOO_DATA/<corpus>
    manifest: str | None = None  # a prepared manifest instead of the corpus' own layout
    label: str = "label"  # the column of labels: label, gender, or another column of the corpus
    # keywords of the corpus reader; every reader has channel: mean, first, or a number from 1
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: FromOne = 32  # utterances in a batch at most
    batch_seconds: Positive = 160.0  # seconds of (padded) speech in a batch at most
    max_seconds: Positive = 20.0  # longer utterances are cut to this, and counted
    balance: Flag = True  # weigh training utterances by inverse class frequency
    # of each class' training utterances; a smaller share is part of a larger one
    train_share: PositiveShare = 1.0
    # weak labels: hard; from the scores beside the manifest: soft, independent
    weak: Annotated[str, _one_of("hard", "soft", "independent")] = "hard"
    weak_weight: Flag = True  # weigh weakly labelled utterances by the confidence of their label
    weak_shuffle: FromZero | None = None  # seed that shuffles the weak labels, as a control
    # folds need speakers; if some are unknown: refuse, or accept and report it
    unknown_speakers: Annotated[str, _one_of(*UNKNOWN_SPEAKERS)] = REFUSE
    # auto: store what the encoder allows to store; live: compute it for each batch
    features: Annotated[str, _one_of("auto", "live")] = "auto"
    workers: FromZero = 0  # DataLoader processes


@dataclass
class OptimConfig:
    """How the trainable parameters are optimised; the same for every head."""

    lr: Positive = 1e-3  # peak learning rate
    head_lr: Positive | None = None  # of the head; None: as lr
    mix_lr: Positive | None = None  # of a learned mix of layers; None: as lr
    weight_decay: NotNegative = 1e-2
    epochs: FromOne = 30
    # fewest steps of a whole run: if an epoch has few (`data.train_share`), it is several rounds
    # of the training part, so that runs differ in labels and not in steps; 0 = one round
    min_steps: FromZero = 0
    warmup: Share = 0.1  # share of the steps, linear
    # how the rate falls after the warm-up: cosine, linear
    schedule: Annotated[str, _one_of("cosine", "linear")] = "cosine"
    accumulate: FromOne = 1  # batches whose gradients make one step
    clip: NotNegative = 1.0  # gradient norm
    mixup: NotNegative = 0.0  # Beta(a, a) mixing of encoder inputs and targets; 0 = off
    ema: Share = 0.0  # decay of the averaged weights used for evaluation; 0 = off


@dataclass
class TrainerConfig:
    """Where a run is computed. Only the precision is part of a run's identity."""

    out: str = "runs"
    # auto (a GPU if there is one), cpu, gpu, cuda, mps
    accelerator: Annotated[str, _one_of(*ACCELERATORS)] = "auto"
    devices: FromOne = (
        1  # of each machine: GPUs, or processes on a CPU; always a number, never "all"
    )
    num_nodes: FromOne = 1  # machines
    # of several devices: auto (ddp), ddp, fsdp
    strategy: Annotated[str, _one_of(*STRATEGIES)] = "auto"
    # or bf16-mixed, 16-mixed (float16, on a GPU); weights stay float32
    precision: Annotated[str, AfterValidator(_trainable_precision)] = "32-true"
    threads: FromOne | None = None  # CPU threads of each process
    progress: Flag = True
    board_audio: FromZero = (
        0  # most confident errors whose audio is copied into TensorBoard's files
    )


@dataclass
class RunConfig:
    """One run: a corpus, a fold, an encoder, a head, a seed."""

    recipe: str = ""
    corpus: list[str] = field(default_factory=list)
    protocol: str | None = None
    fold: FromZero = 0
    taxonomy: str | None = None
    seed: Whole = 1
    # folder of a run whose encoder (and mix of layers) this one starts from
    init: str | None = None
    init_head: Flag = False  # start from its head, too: the same head, of the same classes
    encoder: dict[str, Any] = field(default_factory=dict)
    head_name: str = ""  # of configs/head/NAME.yaml; what the head is called in folders and tables
    head: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    # parts in files of the user's own, as FILE.py:NAME@DIGEST; filled in, not set
    own: dict[str, str] = field(default_factory=dict)

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
        del d["recipe"], d["head_name"]  # only names; the content is written out
        for key in ("root", "manifest", "workers", "features"):
            del d["data"][key]
        for key, usual in _LATER.items():  # so that fingerprints of the first records stay
            if d["data"][key] == usual:
                del d["data"][key]
        for key in ("init", "init_head"):
            if not d[key]:
                del d[key]
        # an edited file is another run, wherever it lies
        d["own"] = {part: text.rpartition("@")[2] for part, text in self.own.items()}
        if not d["own"]:
            del d["own"]
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
"""Keys of the data that the first records lack, and the value that such a record had instead."""


def merge(values: dict[str, Any]) -> RunConfig:
    """Lay values over the defaults.

    Raises:
        ConfigError: for an unknown key; or naming each value of a wrong type or out of its range.
    """
    if isinstance(values.get("corpus"), str):
        values = {**values, "corpus": [values["corpus"]]}
    return _validated(_checked(values, RunConfig, ""))


@cache
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


def _validated(values: dict[str, Any]) -> RunConfig:
    try:
        # a copy, because defaults are filled into lists and mappings later
        return _adapter().validate_python(deepcopy(values))
    except ValidationError as e:
        raise ConfigError("; ".join(map(_told, e.errors(include_url=False)))) from e


_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a group of keys",
}


def _told(error: Mapping[str, Any]) -> str:
    """Return what is wrong with one value: ``fold=-1 should be greater than ...``."""
    key, value = ".".join(map(str, error["loc"])), error["input"]
    if error["type"] == "value_error":
        return f"{key} {error['ctx']['error']}"
    if kind := _KINDS.get(error["type"]):
        return f"{key}: {value!r} ({type(value).__name__}) is not {kind}"
    return f"{key}={value!r} {error['msg'].removeprefix('Input ')}"


def annotation(key: str) -> Any:
    """Return the type of a run's key ``a.b``; ``Any`` if it is unknown, or a part decides it."""
    schema: Any = RunConfig
    for name in key.split("."):
        group = is_dataclass(schema)
        schema = _hints(schema).get(name, Any) if group else Any
    return schema


@cache
def _hints(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema)


def _checked(values: Mapping[str, Any], schema: Any, prefix: str) -> dict[str, Any]:
    """Return values, with numbers as texts if a text is meant; refuse unknown keys."""
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
    """Refuse values that no run can be made with, all at once.

    Raises:
        ConfigError: naming each of them.
    """
    _validated(cfg.to_dict())
    if cfg.trainer.strategy == "fsdp" and cfg.optim.ema > 0:
        raise ConfigError(
            f"optim.ema={cfg.optim.ema} keeps a whole copy of the weights, which "
            "trainer.strategy=fsdp shares out; set optim.ema=0, or trainer.strategy=ddp"
        )


def refused_precision(name: str) -> str | None:
    """Return why no model is trained in a precision; None if one can be."""
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


GROUPS = ("encoder", "head", "optim")
SUITS = {"lora": "lora", "last_k": "finetune", "full": "finetune"}
"""The optimisation of encoders that are not frozen, which need other learning rates."""

PATHS = ("root", "out", "record", "noise", "rir", "support", "supports", "human")
"""Last parts of keys whose value is a file or folder; it may be called ``null``."""


class Typed(str):
    """A value as it was typed; it is read once the type of its key is known."""


def read_suite(name: str) -> dict[str, Any]:
    """A shipped suite by name, or a YAML file, as it is written.

    Raises:
        ConfigError: with the known names.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return read_group("suite", name)
    if not path.is_file():
        raise ConfigError(f"no suite file {name}; shipped suites: {', '.join(names('suite'))}")
    return adopt_names(read_mapping(read_text(path, ConfigError), name), path.parent)


OWN_KINDS: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads", "corpus": "corpora"}
"""Keys that name a part, which may be one of the user's own."""

_NAMES = {
    **{key: key for key in OWN_KINDS},
    **dict.fromkeys(("baseline", "match_params", "scratch_head"), "head"),
    "data": "corpus",  # the target of adaptations
}
"""Keys of recipes and suites that name a part, and which of :data:`OWN_KINDS` it is."""


def adopted(key: str, value: Any, beside: Path | None = None) -> Any:
    """A value of ``head``, ``encoder`` or ``corpus``, with names for files of the user's own.

    Args:
        key: of them.
        value: a name, ``FILE.py:NAME``, or a list of such; anything else stays.
        beside: folder of the YAML file that says so.

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
        content: of a recipe or a suite.
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
    """A recipe's content with registered names; a head or encoder of the user's own is picked."""
    found = adopt_names(base, beside)
    for key in ("head", "encoder"):
        node, groups = base.get(key), found.get("groups") or {}
        if isinstance(node, dict) and own.is_own(node.get("type")) and isinstance(groups, dict):
            found["groups"] = {**groups, key: found[key]["type"]}
    return found


def read_group(group: str, name: str) -> dict[str, Any]:
    """A shipped configuration as plain containers.

    A registered head or encoder of a third party needs no file: its defaults are its own.

    Raises:
        ConfigError: with the known names.
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
    """YAML that holds keys and values.

    Raises:
        ConfigError: naming ``where`` it stands, when it is no YAML or holds something else.
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
    """Compose a run.

    Args:
        recipe: a shipped recipe's name or a YAML file.
        overrides: ``group=name`` and ``a.b=value``, applied in that order.

    Returns:
        The resolved configuration, its heads' and encoders' keys checked against the constructors.

    Raises:
        ConfigError: saying which key or name is wrong and what would be right.
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
    """``["a.b=1"]`` to ``[("a.b", "1")]``, each value as it was typed.

    Raises:
        ConfigError: for what is no ``key=value``.
    """
    found = []
    for item in overrides:
        key, eq, value = item.partition("=")
        if not eq or not key.strip():
            raise ConfigError(
                f"'{item}' is no override; write key=value, for example optim.lr=1e-3"
            )
        found.append((key.strip(), Typed(value)))
    return found


def parse(
    overrides: Sequence[str], types: Mapping[str, Any] | None = None
) -> list[tuple[str, Any]]:
    """``["a.b=1"]`` to ``[("a.b", 1)]``, each value read as its key's type says.

    Args:
        overrides: as they were typed.
        types: key to annotation; any other value is read as YAML.
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
    """``options.KEY`` to annotation, of all keywords of these corpora's readers."""
    return {
        f"options.{name}": knob.annotation
        for corpus in reversed(corpora)
        if corpus in registry.names("corpora")  # another name is refused elsewhere
        for name, knob in registry.schema_of(registry.get("corpora", corpus)).items()
    }


def types_of(function: Callable[..., Any]) -> dict[str, Any]:
    """What a verb may set of the function that it calls: keyword to annotation.

    All keyword-only parameters, but those that the verb itself gives.
    """
    given = ("options", "progress", "facts", "against")
    knobs = registry.schema_of(function).values()
    return {knob.name: knob.annotation for knob in knobs if knob.name not in given}


def settings(
    typed: Sequence[str], types: Mapping[str, Any], corpora: Sequence[str] = ()
) -> dict[str, Any]:
    """A verb's own settings, which are no run's: ``["root=here", "options.part=2"]`` to keywords.

    Args:
        typed: as they were typed.
        types: what may be set, besides ``options.KEY``, to its annotation.
        corpora: whose readers the options are of.

    Returns:
        The values, and under ``options`` those of ``options.KEY``.

    Raises:
        ConfigError: a key that is not known, or has no value and needs one.
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
    """Names of the corpora that a verb's setting gives, whose readers its options are of."""
    return _corpora(dict(words(typed)).get(key))


def compose(base: dict[str, Any], overrides: Sequence[tuple[str, Any]]) -> RunConfig:
    """Merge a recipe's content and overrides into a checked :class:`RunConfig`.

    Args:
        base: of the recipe.
        overrides: key to value; one that is :class:`Typed` is read as its key expects.
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
            base.pop(key, None)  # the recipe's tweaks were for what it had picked
    asked = {key for key, value in overrides if key in GROUPS and isinstance(value, str)}
    if "encoder" in asked:  # the recipe's way to train was for its own encoder
        base.pop("optim", None)
        if "optim" not in asked:
            chosen.pop("optim", None)
    merged: dict[str, Any] = {}
    for group in ("encoder", "head"):
        if group not in chosen:
            raise ConfigError(f"no {group} chosen; add {group}=NAME{suggest('', names(group))}")
        merged[group] = read_group(group, chosen[group])
    kind = merged["head"].get("type")
    # an encoder's file names the optimisation that suits it, unless one was asked for
    default_optim = merged["encoder"].pop("optim", None)
    tuning = dict(overrides).get("encoder.tuning") or (base.get("encoder") or {}).get("tuning")
    if isinstance(tuning, Typed):
        tuning = _read("encoder.tuning", tuning, str)
    suits = chosen.get("optim") or SUITS.get(str(tuning), default_optim)
    merged["optim"] = read_group("optim", suits) if suits else {}
    for key, value in base.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    types = _types(merged, overrides)
    for key, value in overrides:
        if not (key in GROUPS and isinstance(value, str)):
            wanted = types.get(key) or annotation(key)
            _set(merged, key, _read(key, value, wanted) if isinstance(value, Typed) else value)
    head = merged["head"]
    if isinstance(head, dict) and head.get("type") == kind:  # else it is another head by now
        merged.setdefault("head_name", chosen["head"])
    return resolve(merge(merged))


def _adopt_typed(key: str, value: Any, beside: Path | None = None) -> Any:
    """The value of an override, with names for files of the user's own."""
    part = key.removesuffix(".type")
    if part not in OWN_KINDS:
        return value
    if isinstance(value, Typed) and value.lstrip().startswith("["):
        listed = _read(key, value, str | list[str])
        return adopted(part, listed, beside) if any(map(own.is_own, listed)) else value
    found = adopted(part, str(value) if isinstance(value, Typed) else value, beside)
    return Typed(found) if isinstance(value, Typed) else found


def resolve(cfg: RunConfig) -> RunConfig:
    """Fill a corpus' default protocol and taxonomy in and check every name and knob."""
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
        # the corpus' classes are those of its emotions; an attribute's are what it holds
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
        # every knob is written out: a changed default must not pass for an old run, nor 0 for 0.0
        node.update(registry.complete(kind, node["type"], options))
    named: list[tuple[str, registry.Kind, str]] = [
        ("encoder", "encoders", cfg.encoder["type"]),
        ("head", "heads", cfg.head["type"]),
        *((f"corpus {name}", "corpora", name) for name in cfg.corpus),
    ]
    told = {part: own.told(kind, name) for part, kind, name in named}
    cfg.own = {part: text for part, text in told.items() if text}
    return cfg


def _types(merged: Mapping[str, Any], overrides: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Types of the keys that the chosen encoder, head and readers decide."""
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
    """Names of corpora, however they are given."""
    if isinstance(given, Typed):
        given = _read("corpus", given, str | list[str])
    given = adopted("corpus", given)
    return [given] if isinstance(given, str) else [str(c) for c in given or ()]


def build_taxonomy(cfg: RunConfig) -> Taxonomy | None:
    """The run's taxonomy; None for ``auto``, which only the data can tell."""
    return None if cfg.taxonomy in (None, "auto") else Taxonomy.load(str(cfg.taxonomy))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"'{key}' asks for a key under '{part}', which is a plain value; set {part}=VALUE"
            )
    node[last] = value
