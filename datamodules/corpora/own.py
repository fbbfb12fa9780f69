"""A corpus of your own with a name: a YAML file describes it, and every verb takes the name.

``corpora/my_calls.yaml`` in the working directory (or in the folder ``SERZOO_CORPORA``) makes the
corpus ``my_calls``. `serzoo corpus add` writes such a file::

    root: ~/calls                # folder of the recordings; else SERZOO_DATA/my_calls
    reader: folder               # reads labels and tables; without one, the names say everything
    options: {language: de}      # of this reader
    naming:                      # facts in paths, such as 017f_angry_3.wav
      pattern: '(?P<speaker>[0-9]+)(?P<gender>[fm])_(?P<label>[a-z]+)_.*'
    side: {text: .txt}           # facts in a file beside each recording: 017f_angry_3.txt
    labels: {angry: angry}       # label map; '*' keeps each label

All keys of a shipped description are allowed, too (:class:`..info.CorpusInfo`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...zoo.core import registry, shipped
from ...zoo.core.errors import ConfigError, DataError, some, suggest
from ...zoo.core.files import read_text
from ...zoo.core.shipped import read_yaml
from ..info import CorpusInfo
from ..layout import GENDERS, is_missing, known_speaker, listing
from ..manifest import Utterance
from ..naming import GROUPS, Naming
from . import find_files, named, note
from .folder import NO_SPEAKERS

VERSION = 1
SIDE = ("label", "text", "speaker", "gender")
"""Fields that a file beside the recording may hold."""

KEYS = ("root", "reader", "options", "side")
"""Keys of such a file, besides those of a shipped description."""

UNNAMED = NO_SPEAKERS.partition(":")[0]
"""What a reader says without speakers; names or side files may tell them all the same."""

INHERITED = ("language", "labels", "alternative_labels", "taxonomy", "cluster", "sentences")
"""What a corpus takes over from the description of its reader."""


@dataclass(frozen=True)
class Description:
    """A corpus of the user's own.

    Attributes:
        name: its name.
        file: the YAML file; messages name it.
        root: folder of the recordings, relative to the file; None = as for published corpora.
        reader: registered reader; None = the names of the files say everything.
        options: options of the reader.
        naming: what paths say; None = nothing.
        side: field to the suffix of the file beside a recording that holds it.
        info: keys of :class:`..info.CorpusInfo`.
    """

    name: str
    file: Path
    root: str | None = None
    reader: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    naming: Naming | None = None
    side: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, file: Path, data: Any) -> Description:
        """Build from the content of a file.

        Raises:
            ConfigError: if a key is unknown, a value cannot be used, or nothing says how to read
                the corpus.
        """
        described = [f.name for f in fields(CorpusInfo) if f.name != "name"]
        known = [*KEYS, *described]
        if not isinstance(data, Mapping):
            raise ConfigError(f"{file}: expected lines of key: value, with {', '.join(known)}")
        for key in data:
            if key not in known:
                raise ConfigError(f"{file}: unknown key '{key}'{suggest(str(key), known)}")
        root, reader = data.get("root"), data.get("reader")
        for key, value in (("root", root), ("reader", reader)):
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{file}: {key} is {value!r}; give a text")
        naming = dict(data["naming"]) if isinstance(data.get("naming"), Mapping) else None
        if naming is not None:
            naming.setdefault("example", f"those that fit '{naming.get('pattern')}'")
        elif reader is None:
            raise ConfigError(
                f"{file}: nothing says how to read the corpus; give reader: NAME, such as folder "
                f"or csv, or naming: {{pattern: REGEX}} with the groups {', '.join(GROUPS)}"
            )
        if reader == name or (reader is not None and reader in registry.own_corpora()):
            raise ConfigError(f"{file}: reader '{reader}' is a corpus of your own; name a reader")
        options = data.get("options") or {}
        if not isinstance(options, Mapping):
            raise ConfigError(f"{file}: options is {options!r}; give a mapping")
        if reader is None and options:
            raise ConfigError(f"{file}: options belong to a reader; give reader: NAME")
        side = data.get("side") or {}
        if (
            not isinstance(side, Mapping)
            or not set(side) <= set(SIDE)
            or not all(
                isinstance(s, str) and s.startswith(".") and len(s) > 1 for s in side.values()
            )
        ):
            raise ConfigError(
                f"{file}: side is {side!r}; give suffixes of the files beside a recording, such "
                f"as {{text: .txt}}, for {', '.join(SIDE)}"
            )
        info = {key: data[key] for key in described if key in data and key != "naming"}
        if reader is not None:
            where = f"{file}: reader '{reader}'"
            schema = registry.schema_of(registry.get("corpora", reader))
            missing = {k: v for k, v in schema.items() if v.required and k not in options}
            options = registry.check_knobs(
                where, {k: v for k, v in schema.items() if k not in missing}, options
            )
            if reader in CorpusInfo.names():
                given = shipped.read("corpus", reader)
                info = {k: given[k] for k in INHERITED if k in given} | info
        info.setdefault("title", f"{name}, a corpus of your own")
        info.setdefault("licence", "the user's")
        info.setdefault("labels", "*")
        made = cls(
            name,
            file,
            root,
            reader,
            dict(options),
            None if naming is None else Naming.parse(naming, f"{file}: naming"),
            dict(side),
            info,
        )
        CorpusInfo.from_dict(name, info)  # refuses what it does not know
        return made

    @property
    def folder(self) -> Path | None:
        """The folder of the recordings, or None if the file does not name it."""
        if self.root is None:
            return None
        path = Path(self.root).expanduser()
        return path if path.is_absolute() else self.file.parent / path

    def read(self, root: Path, options: Mapping[str, Any]) -> Iterator[Utterance]:
        """Yield the utterances.

        Args:
            root: folder of the recordings.
            options: options of the reader, in place of those of the file.

        Raises:
            DataError: if nothing fits, or the reader cannot use the folder.
        """
        caught: list[warnings.WarningMessage] = []
        if self.reader is None:
            assert self.naming is not None
            info = CorpusInfo.from_dict(self.name, self.info)
            try:
                found = list(named.read(self.name, self.naming, info, root))
            except DataError:
                if self._fitting(
                    files := [p.relative_to(root).as_posix() for p in find_files(root)]
                ):
                    raise
                raise self._nothing(files, root) from None
        else:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = self._inner(root, options)
            found = self._named(found, root)
        found = list(self._beside(found, root))
        known = all(u.speaker is not None for u in found)
        for warning in caught:
            if not (known and UNNAMED in str(warning.message)):
                warnings.warn(warning.message, stacklevel=2)
        yield from found

    def _inner(self, root: Path, options: Mapping[str, Any]) -> list[Utterance]:
        inner = registry.get("corpora", str(self.reader))
        return [
            replace(u, corpus=self.name, id=f"{self.name}/{u.id.partition('/')[2]}")
            for u in inner(root, **{**self.options, **options})
        ]

    def _fitting(self, paths: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what the pattern finds in each path that it fits."""
        assert self.naming is not None
        end, found = self.naming.end, {}
        for path in paths:
            if match := end.search(PurePosixPath(path).with_suffix("").as_posix()):
                found[path] = {k: v for k, v in match.groupdict().items() if v is not None}
        return found

    def _nothing(self, paths: Sequence[str], root: Path) -> DataError:
        assert self.naming is not None
        seen = (
            f"none of {len(paths)} recordings under {root} ({some(paths, 3)})"
            if paths
            else (f"nothing: there is no audio under {root}")
        )
        return DataError(
            f"{self.name}: the pattern '{self.naming.pattern}' fits {seen}; it must fit a path "
            "from the beginning of a name to its end, without the suffix: correct the pattern "
            f"(naming.pattern of {self.file}), or root"
        )

    def _named(self, found: list[Utterance], root: Path) -> list[Utterance]:
        """Fill in what the reader does not know from the paths."""
        if self.naming is None or not found:
            return found
        said = self._fitting(paths := list(dict.fromkeys(u.audio for u in found)))
        if not said:
            raise self._nothing(paths, root)
        if other := [p for p in paths if p not in said]:
            note(
                f"{self.name}: the pattern of names does not fit {len(other)} of {len(paths)} "
                f"recordings (first: {other[0]}); what it would say of them is unknown"
            )
        return [self._filled(u, said[u.audio]) if u.audio in said else u for u in found]

    def _filled(self, u: Utterance, said: Mapping[str, str]) -> Utterance:
        assert self.naming is not None
        speaker = u.speaker or known_speaker(said.get("speaker"))
        text = u.text or self.naming.sentences.get(said.get("sentence", ""))
        return replace(
            u,
            speaker=speaker,
            gender=u.gender or self.naming.gender_of(said),
            session=u.session or said.get("session"),
            label=u.label or said.get("label"),
            language=u.language or self.naming.language_of(speaker, None),
            text=text,
            text_source=u.text_source or ("human" if text else None),
        )

    def _beside(self, found: list[Utterance], root: Path) -> Iterator[Utterance]:
        """Fill in what the files beside the recordings say; they count more than names."""
        facts: dict[str, dict[str, str]] = {}
        for key, suffix in self.side.items():
            facts[key], absent = {}, []
            for audio in dict.fromkeys(u.audio for u in found):
                path = (root / audio).with_suffix(suffix)
                if not path.is_file():
                    absent.append(path.relative_to(root).as_posix())
                elif text := " ".join(read_text(path, old=True).split()):
                    facts[key][audio] = text
            if found and not facts[key]:
                raise DataError(
                    f"{self.name}: no {key} is beside a recording: {len(absent)} files are missing "
                    f"(first: {absent[0] if absent else 'all are empty'}); correct side.{key} in "
                    f"{self.file}, or leave it out"
                )
            if absent:
                note(f"{self.name}: files with the {key} are missing: {listing(absent)}")
        codes = {code.casefold(): code for code in self.info["labels"] if code != "*"}
        for u in found:
            said: dict[str, Any] = {k: v[u.audio] for k, v in facts.items() if u.audio in v}
            if "text" in said:
                said["text_source"] = "human"
            if "label" in said:
                word = None if is_missing(said["label"]) else said["label"]
                said["label"] = word and codes.get(word.casefold(), word)
            if "speaker" in said:
                said["speaker"] = known_speaker(said["speaker"])
            if "gender" in said:
                said["gender"] = GENDERS.get(said["gender"].casefold())
            yield replace(u, **said) if said else u


def describe(name: str, file: Path) -> Description:
    """Read the YAML file of a corpus.

    Raises:
        ConfigError: if the file cannot be used; the message names it.
    """
    text = read_text(file, ConfigError)
    try:
        data = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return Description.parse(name, file, data)


def reader(name: str, file: Path) -> Any:
    """Return the reader of a corpus that a YAML file describes.

    The reader has the options of the reader that the file names. Its attributes are ``info``
    (the description), ``root`` (the folder, or None), ``made_by`` and ``sha``.

    Raises:
        ConfigError: if the file cannot be used; the message names it.
    """
    return reader_of(describe(name, file))


def reader_of(it: Description) -> Any:
    """Return the reader of a description; see :func:`reader`."""

    def prepare(root: Path, **options: Any) -> Iterator[Utterance]:
        return it.read(root, options)

    kind = inspect.Parameter.KEYWORD_ONLY
    schema = registry.schema_of(registry.get("corpora", it.reader)) if it.reader else {}
    knobs = [
        inspect.Parameter(
            k, kind, default=it.options.get(k, knob.default), annotation=knob.annotation
        )
        for k, knob in schema.items()
    ]
    first = inspect.Parameter("root", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Path)
    made: Any = prepare
    made.__signature__ = inspect.Signature([first, *knobs])
    made.__annotations__ = {k: knob.annotation for k, knob in schema.items()}
    made.__name__ = made.__qualname__ = it.name
    made.__doc__ = inspect.getdoc(registry.get("corpora", it.reader)) if it.reader else None
    made.info, made.root, made.made_by = it.info, it.folder, it.reader
    facts = [it.reader, it.options, it.side, it.info, it.naming and vars(it.naming)]
    # without the root: the same recordings may lie elsewhere
    text = json.dumps([VERSION, *facts], sort_keys=True, default=str)
    made.sha = hashlib.sha256(text.encode()).hexdigest()[:12]
    return made
