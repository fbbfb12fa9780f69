"""Registered names of heads, encoders, corpora and scorers, and the keywords that each takes.

Built-in parts are listed as texts, so that listing them imports nothing. A third-party wheel
registers a head with an entry point in the group ``serzoo.heads``. Encoders have
``serzoo.encoders``, corpora ``serzoo.corpora``, and scorers of `serzoo label` ``serzoo.scorers``. A
name that is already taken is an error. The user's own parts are registered while Python runs
(``own.py``). A corpus may also be a YAML file of the user (:func:`own_corpora`).

The signature of a part says which keywords a configuration may set (:func:`schema_of`). A keyword's
type decides how a value is read: :func:`typed` reads the command line, :func:`fitted` a file.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic_core import SchemaValidator

from .errors import ConfigError, suggest
from .shipped import read_yaml

Kind = Literal["heads", "encoders", "corpora", "scorers"]
SINGULAR = {"heads": "head", "encoders": "encoder", "corpora": "corpus", "scorers": "scorer"}

BUILT_IN: dict[str, dict[str, str]] = {
    "heads": {
        "classification": "serzoo.heads.classification:ClassificationHead",
        "selm": "serzoo.heads.selm.head:SELMHead",
        "gen_ser": "serzoo.heads.gen_ser.head:GenSERHead",
        "regress_codes": "serzoo.heads.controls:RegressCodesHead",
        "prototype": "serzoo.heads.controls:PrototypeHead",
        "linear_svm": "serzoo.heads.linear_svm:LinearSVMHead",
        "dimensions": "serzoo.heads.dimensions:DimensionsHead",
        "ordinal": "serzoo.heads.dimensions:OrdinalHead",
        "multi": "serzoo.heads.multi:MultiHead",
        "speech_llm": "serzoo.heads.speech_llm:SpeechLLMHead",
        "label_embedding": "serzoo.heads.label_embedding:LabelEmbeddingHead",
    },
    "encoders": {
        "logmel": "serzoo.zoo.encoders.logmel:LogMelEncoder",
        "resnet50": "serzoo.zoo.encoders.resnet:ResNetEncoder",
        "functionals": "serzoo.zoo.encoders.functionals:FunctionalsEncoder",
        "opensmile": "serzoo.zoo.encoders.opensmile:OpenSmileEncoder",
        "hf": "serzoo.zoo.encoders.hf:HFEncoder",
        "serzoo-small": "serzoo.zoo.encoders.small:SmallEncoder",
        "trained": "serzoo.zoo.run.trained:TrainedEncoder",
    },
    "corpora": {
        name: f"serzoo.datamodules.corpora.{name}:prepare"
        for name in (
            *("ravdess", "emodb", "nemo", "crema_d", "iemocap", "savee", "tess", "emovo", "meld"),
            *("emotale", "msp_podcast", "msp_improv", "cmu_mosei"),
            *("librispeech", "common_voice", "voxpopuli", "speech"),
            *("folder", "csv", "synthetic", "synthetic_talk"),
        )
    }
    | {
        name: f"serzoo.datamodules.corpora.named:{name}"
        for name in (
            *("emogator", "cafe", "jl", "subesco", "ased", "urdu", "turev", "shemo", "emov_db"),
            "esd",
        )
    }
    | {
        name: f"serzoo.datamodules.importers.{name}:prepare"
        for name in (
            *("audformat", "emobox", "huggingface", "kaldi", "lhotse", "speechbrain"),
            "webdataset",
        )
    },
    "scorers": {
        "nli": "serzoo.datamodules.labelling.nli:NLI",
        "embedding": "serzoo.datamodules.labelling.embedding:Embedding",
        "causal": "serzoo.datamodules.labelling.causal:Causal",
        "masked": "serzoo.datamodules.labelling.masked:Masked",
        "lexicon": "serzoo.datamodules.labelling.lexicon:Lexicon",
    },
}

OWN_CORPUS = "serzoo.datamodules.corpora.own:reader"
"""Makes the reader of a corpus that a YAML file of the user describes."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""What a part may be called."""


class Part:
    """A part of a model: it keeps the arguments that it was made with, for the checkpoint.

    Attributes:
        made_with: positional arguments and keywords of its constructor.
    """

    made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        made = super().__new__(cls)
        # torch would register modules among the arguments as its submodules; this avoids it
        object.__setattr__(made, "made_with", (arguments, keywords))
        return made


@cache
def _table(kind: Kind) -> dict[str, str]:
    table = dict(BUILT_IN[kind])
    for point in entry_points(group=f"serzoo.{kind}"):
        if point.name in table:
            raise ConfigError(
                f"{point.value} wants to register '{point.name}' under {kind}, which is already "
                f"{table[point.name]}; rename its entry point or uninstall it"
            )
        table[point.name] = point.value
    return table


@dataclass(frozen=True)
class Added:
    """A part that was registered while Python runs, by :func:`.own.adopt` or `serzoo.zoo.register`.

    Attributes:
        part: the class; of a corpus, the reader function.
        where: ``/folder/FILE.py:NAME``, or ``package.module:NAME``.
        sha: 12 hexadecimal digits of its file's SHA-256; empty if there is no file.
        loaded: whether serzoo imported ``where`` itself, so that another process can do so, too.
    """

    part: Any
    where: str
    sha: str
    loaded: bool = False

    @property
    def origin(self) -> str:
        """``FILE.py:NAME@SHA``, for records: it does not name the user's folders."""
        file, _, name = self.where.rpartition(":")
        return f"{Path(file).name}:{name}@{self.sha}"


_ADDED: dict[Kind, dict[str, Added]] = {"heads": {}, "encoders": {}, "corpora": {}, "scorers": {}}


def add(kind: Kind, name: str, part: Added) -> None:
    """Register a part for this process. It replaces an earlier one from the same place.

    Raises:
        ConfigError: if another part has the name.
    """
    old = _ADDED[kind].get(name)
    taken = _table(kind).get(name) or (old.where if old and old.where != part.where else None)
    if taken:
        raise ConfigError(
            f"{part.where} would be the {SINGULAR[kind]} '{name}', which is already {taken}; give "
            "it another name"
        )
    _ADDED[kind][name] = part


def added(kind: Kind, name: str) -> Added | None:
    """Return the part that was registered under a name while Python runs; else None.

    A corpus that a YAML file of the user describes counts as registered.

    Raises:
        ConfigError: if this file is damaged.
    """
    if kind != "corpora" or name in _ADDED[kind] or name in _table(kind):
        return _ADDED[kind].get(name)
    file = os.path.join(corpora_folder(), f"{name}.yaml")
    try:
        stat = os.stat(file)
    except (OSError, ValueError):
        return None
    return _described(name, os.path.abspath(file), stat.st_mtime_ns, stat.st_size)


def corpora_folder() -> str:
    """Return the folder of the user's own corpora: ``SERZOO_CORPORA``, or ``corpora`` here."""
    return os.path.expanduser(os.environ.get("SERZOO_CORPORA") or "corpora")


def own_corpora() -> dict[str, Path]:
    """Return the user's own corpora: name to YAML file; a file with another name is no corpus."""
    files = sorted(Path(corpora_folder()).glob("*.yaml"))
    return {file.stem: file for file in files if NAME.fullmatch(file.stem)}


@cache
def _described(name: str, file: str, changed: int, size: int) -> Added:
    """Return the corpus of a YAML file; an edited file is read again."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{file}: '{name}' is not a name; use a letter, then letters, digits, - _"
        )
    reader = attribute(OWN_CORPUS)(name, Path(file))
    return Added(reader, f"{file}:{name}", reader.sha)


def all_added() -> list[tuple[Kind, str, Added]]:
    """Return kind, name and part of everything that was registered while Python runs."""
    return [(kind, name, part) for kind, parts in _ADDED.items() for name, part in parts.items()]


def names(kind: Kind) -> list[str]:
    """Return the registered names, built-in ones first, without importing the parts."""
    own = own_corpora() if kind == "corpora" else ()
    return list(dict.fromkeys([*_table(kind), *_ADDED[kind], *own]))


def get(kind: Kind, name: str) -> Any:
    """Return the class or function behind a registered name.

    Raises:
        ConfigError: if the name is unknown, or a third party's part cannot be imported.
    """
    table = _table(kind)
    if kind == "corpora" and name in (*table, *_ADDED[kind]) and name in (own := own_corpora()):
        taken = table.get(name) or _ADDED[kind][name].where
        raise ConfigError(
            f"{own[name]} describes a corpus '{name}', which is already {taken}; give the file "
            "another name"
        )
    if (part := added(kind, name)) is not None:
        return part.part
    if name not in table:
        raise ConfigError(f"no {SINGULAR[kind]} called '{name}'{suggest(name, names(kind))}")
    if name in BUILT_IN[kind]:
        return attribute(table[name])
    try:
        return attribute(table[name])
    except (ImportError, AttributeError) as e:
        raise ConfigError(
            f"{SINGULAR[kind]} '{name}' is registered as {table[name]}, which cannot be imported "
            f"({e}); reinstall or remove the package that registers it"
        ) from e


def name_of(kind: Kind, part: Any) -> str | None:
    """Return the registered name of a head's or encoder's class; None if it has none."""
    return name_of_class(kind, type(part))


def name_of_class(kind: Kind, own: Any) -> str | None:
    """Return the registered name of a class or of a corpus' reader; None if it has none."""
    for name, added_part in _ADDED[kind].items():
        if added_part.part is own:
            return name
    for name, dotted in _table(kind).items():
        if dotted == f"{own.__module__}:{own.__qualname__}":
            return name
    others = [name for name in _table(kind) if name not in BUILT_IN[kind]]
    for name in others:  # an entry point may name another module than the one that defines it
        try:
            if get(kind, name) is own:
                return name
        except ConfigError:  # another package, which is broken
            continue
    return None


def attribute(dotted: str) -> Any:
    """Import the object behind ``package.module:name``."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Range:
    """Which numbers a keyword takes: ``dropout: Annotated[float, Range(0, below=1)]``.

    Attributes:
        least: the smallest number; None = no limit.
        above: the number must be larger than this; None = no limit.
        below: the number must be smaller than this; None = no limit.
    """

    least: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = [
            f"{self.least} or more" if self.least is not None else "",
            f"more than {self.above}" if self.above is not None else "",
            f"less than {self.below}" if self.below is not None else "",
        ]
        return ", and ".join(filter(None, limits))


Count: TypeAlias = Annotated[int, Range(least=0)]
"""A number of things, 0 or more."""
Size: TypeAlias = Annotated[int, Range(least=1)]
"""A number of things, 1 or more."""
Amount: TypeAlias = Annotated[float, Range(least=0)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
Dropout: TypeAlias = Annotated[float, Range(least=0, below=1)]
"""A rate; at 1 nothing would be left."""


@dataclass(frozen=True)
class Knob:
    """A keyword that a configuration may set; ``default`` is ``Parameter.empty`` without one.

    ``within`` is the range of its numbers, if the annotation has one.
    """

    name: str
    annotation: Any
    default: Any
    within: Range | None = None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def schema_of(target: Any) -> dict[str, Knob]:
    """Return the keyword-only parameters of a class or function, which configurations may set."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function)
    full = get_type_hints(function, include_extras=True)
    return {
        p.name: Knob(p.name, hints.get(p.name, Any), p.default, _range_of(full.get(p.name)))
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _range_of(annotation: Any) -> Range | None:
    """Return the range that an annotation, or a member of a union, has."""
    own = [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Range)]
    inner = [] if own else [_range_of(part) for part in get_args(annotation)]
    return next(filter(None, [*own, *inner]), None)


def check_options(kind: Kind, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options against the constructor behind ``name``; see :func:`check_knobs`."""
    return check_knobs(f"{SINGULAR[kind]} '{name}'", schema_of(get(kind, name)), options)


def check_knobs(
    what: str, schema: Mapping[str, Knob], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Check options against a schema.

    Args:
        what: has these options, for errors: ``head 'selm'``.
        schema: name to knob; see :func:`schema_of`.
        options: name to value.

    Returns:
        The options. A whole number is a text if a text is meant (``speaker: 7``).

    Raises:
        ConfigError: if keys are unknown or missing, or values have a wrong type, lie out of range
            or are not finite. It names all.
    """
    errors = [f"unknown key '{k}'{suggest(str(k), schema)}" for k in options if k not in schema]
    errors += [
        f"missing key '{k}'" for k, knob in schema.items() if knob.required and k not in options
    ]
    fit = {k: fitted(v, schema[k].annotation) for k, v in options.items() if k in schema}
    errors += [
        f"{k}={v!r} {_misfit(schema[k].annotation)}{_quotes(v, schema[k].annotation)}"
        for k, v in fit.items()
        if not fits(v, schema[k].annotation)
    ]
    beyond = {k: _beyond(v, schema[k]) for k, v in fit.items()}
    errors += [f"{k}={fit[k]}; give {wanted}" for k, wanted in beyond.items() if wanted]
    if errors:
        raise ConfigError(f"{what}: " + "; ".join(errors))
    return fit


def _beyond(value: Any, knob: Knob) -> str | None:
    """Return what to give instead of a number that is out of range; None if nothing is wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value):
        return "a finite number"
    return None if knob.within is None or value in knob.within else str(knob.within)


def typed(text: str, annotation: Any, *, reset: bool = True) -> Any:
    """Read a value of the command line as the type of its key.

    If a text is meant, it stays as it was typed: ``a: b``, ``[x]``, ``x #1``, ``007`` and ``no``
    are names. Quotes around all of it are taken away: ``"0"`` is ``0``. Everything else (a list, a
    number, ``true``) is read as YAML. Texts in a list or mapping of texts stay as they were typed.

    Args:
        text: the value as it was typed.
        annotation: the type of its key; ``Any`` = unknown, which is read as YAML.
        reset: whether ``null`` and ``~`` mean None, if the key allows None. An empty value always
            does.

    Raises:
        ConfigError: if YAML is read, and the value is none.
    """
    text, members = str(text), _members(annotation)
    if type(None) in members and (not text or (reset and text.strip() in ("null", "~"))):
        return None
    texts = str in members or any(isinstance(m, str) for m in members)
    others = [m for m in members if m is not type(None) and m is not str and not isinstance(m, str)]
    if not texts:
        value = read_yaml(text, words=bool(others) and all(_of_texts(m) for m in others))
        return fitted(value, annotation)
    if not text:
        return None  # an empty text is not a value; the caller checks whether the key allows that
    quoted = text[0] in "'\"" and text[-1] == text[0] and len(text) > 1
    if quoted or others:
        try:
            value = read_yaml(text, words=bool(others) and all(_of_texts(m) for m in others))
        except ConfigError:
            return text
        if quoted and isinstance(value, str):
            return value
        for member in others:
            value = fitted(value, member)
        if not isinstance(value, str) and any(fits(value, m) for m in others):
            return value
    return text


def fitted(value: Any, annotation: Any) -> Any:
    """Return a value of a file; a whole number becomes a text if a text is meant.

    YAML reads ``2024`` as a number, but it may be the name of a folder or column. YAML does not
    tell how other values (``1e3``, ``true``, ``null``) were written: they stay, and do not fit.
    """
    members = _members(annotation)
    if fits(value, annotation):
        return value
    if str in members and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    for member in members:
        origin, args = get_origin(member), get_args(member)
        if origin in (list, Sequence) and isinstance(value, (list, tuple)):
            return [fitted(v, args[0]) for v in value]
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            return {_key(k, args[0]): fitted(v, args[1]) for k, v in value.items()}
    return value


def _key(key: Any, annotation: Any) -> Any:
    # a float is a text here, too: labels of a table are compared as numbers (0.0 is 0)
    number = isinstance(key, float) and str in _members(annotation)
    return repr(key) if number else fitted(key, annotation)


def _members(annotation: Any) -> list[Any]:
    """Return the types of a union, or the values of a ``Literal``; else the type itself."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [m for a in get_args(annotation) for m in _members(a)]
    if origin is Literal:
        return [type(None) if v is None else v for v in get_args(annotation)]
    return [annotation]


def _of_texts(annotation: Any) -> bool:
    """Whether a type is a list or a mapping of nothing but texts."""
    args = [m for a in get_args(annotation) if a is not ... for m in _members(a)]
    return bool(args) and all(m is str or _of_texts(m) for m in args)


QUOTES = "; a text that YAML reads as a number, true or null is written in quotes, as in '1e3'"
"""What to write if YAML reads a text as something else."""


def _quotes(value: Any, annotation: Any) -> str:
    """Return :data:`QUOTES` if a value that does not fit may be meant as a text."""
    members = _members(annotation)
    inner = [n for m in members for a in get_args(m) for n in _members(a)]
    plain = isinstance(value, (bool, float)) and str in members
    hidden = isinstance(value, (list, tuple, dict)) and str in inner
    return QUOTES if plain or hidden else ""


def complete(kind: Kind, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the constructor's defaults, in its order; tuples become lists."""
    values = {}
    for key, knob in schema_of(get(kind, name)).items():
        value = fitted(options.get(key, knob.default), knob.annotation)
        if isinstance(value, int) and not isinstance(value, bool) and knob.annotation is float:
            value = float(value)
        values[key] = list(value) if isinstance(value, tuple) else value
    return values


def _misfit(annotation: Any) -> str:
    """Return why a value is refused: which words are allowed, or else which type."""
    words = [m for m in _members(annotation) if m is not type(None)]
    if words and all(isinstance(word, str) for word in words):  # of a Literal
        return f"is not allowed; give one of {', '.join(words)}"
    if annotation is bool:
        return "does not fit bool; give true or false"
    return f"does not fit {_show(annotation)}"


def _show(annotation: Any) -> str:
    return (
        annotation.__name__
        if inspect.isclass(annotation)
        else str(annotation).replace("typing.", "")
    )


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of YAML has the type of a parameter, with everything that it contains.

    A whole number is also a float. A list is also a tuple, and a tuple a list. Everything fits a
    type that pydantic does not know.
    """
    if isinstance(annotation, (str, int)):  # a value of a Literal
        annotation = Literal[annotation]
    validator = _validator(annotation)
    return validator is None or validator.isinstance_python(value)


@cache
def _validator(annotation: Any) -> SchemaValidator | None:
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        schema = TypeAdapter(annotation, config=config).core_schema
    except PydanticUserError:
        return None
    return SchemaValidator(_either(schema), {"strict": True})


def _either(schema: Any) -> Any:
    """Return a schema of pydantic that takes lists for tuples, since YAML has no tuples."""
    if isinstance(schema, list):
        return [_either(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {"strict": False} if schema.get("type") in ("list", "tuple") else {}
    return {key: _either(part) for key, part in schema.items()} | loose
