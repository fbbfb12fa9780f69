"""What the file names of a corpus say, as its description states it: the key ``naming``.

A pattern finds the facts, as groups called ``speaker``, ``label``, ``gender``, ``sentence`` and
``session``. So a corpus whose names say everything needs no code (:mod:`.corpora.named`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..zoo.core.errors import ConfigError, suggest
from .layout import GENDERS

GROUPS = ("speaker", "label", "gender", "sentence", "session")
"""Groups of a pattern that mean something; others may have any name."""


@dataclass(frozen=True)
class Naming:
    """The names of a corpus.

    Attributes:
        pattern: regular expression for the end of a path below the root, without its suffix. It
            begins at the start of a name. Cases of letters do not matter.
        example: a path as the publisher has it, for messages.
        id: the end of an id, such as ``{speaker}_{stem}``; by default the file's stem.
        gender: maps the group ``gender``, or else the speaker, to ``female`` or ``male``. Without
            it, words such as ``f`` and ``male`` are known.
        language: maps an ISO 639-1 code to a regular expression for its speakers; empty if the
            corpus has one language.
        sentences: maps the group ``sentence`` to the words.
        label_source: how the label came about: ``acted`` or ``perceived``.
    """

    pattern: str
    example: str
    id: str = "{stem}"
    gender: dict[str, str] = field(default_factory=dict)
    language: dict[str, str] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)
    label_source: str = "acted"

    @classmethod
    def parse(cls, data: Any, where: str) -> Naming:
        """Build from the content of ``naming``.

        Raises:
            ConfigError: if a key is unknown or missing, or a pattern is not a regular expression.
        """
        known = [f.name for f in fields(cls)]
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where} is {data!r}; give the keys {', '.join(known)}")
        for key in data:
            if key not in known:
                raise ConfigError(f"unknown key '{key}' in {where}{suggest(str(key), known)}")
        if absent := [k for k in ("pattern", "example") if not isinstance(data.get(k), str)]:
            raise ConfigError(f"{where} lacks {', '.join(absent)}; give both as texts")
        texts = ("gender", "language", "sentences")
        values: dict[str, Any] = dict(data)
        for key in texts:
            given = values.get(key, {})
            if not isinstance(given, Mapping):
                raise ConfigError(f"{where}: {key} is {given!r}; give a mapping, such as {{a: b}}")
            values[key] = {str(a): str(b) for a, b in given.items()}
        found = cls(**values)
        for pattern in (found.pattern, *found.language.values()):
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"{where}: '{pattern}' is not a regular expression ({error}); write one such "
                    r"as '(?P<speaker>\d\d)_(?P<label>[a-z]+)_.*'"
                ) from None
            if pattern == found.pattern and not set(compiled.groupindex) & set(GROUPS):
                raise ConfigError(
                    f"{where}: the pattern has no group; name one of {', '.join(GROUPS)}, such as "
                    "(?P<label>[a-z]+)"
                )
        if odd := [g for g in found.gender.values() if g not in GENDERS.values()]:
            raise ConfigError(f"{where}: gender is '{odd[0]}'; have female, male")
        return found

    @property
    def end(self) -> re.Pattern[str]:
        """The compiled pattern, for :meth:`re.Pattern.search` in a path without its suffix."""
        return re.compile(rf"(?:^|/){self.pattern}\Z", re.IGNORECASE)

    def gender_of(self, groups: Mapping[str, str | None]) -> str | None:
        """Return the gender that a match states, or None."""
        said = groups.get("gender") or groups.get("speaker") or ""
        return (self.gender or GENDERS).get(said, GENDERS.get(said.casefold()))

    def language_of(self, speaker: str | None, usual: str | None) -> str | None:
        """Return the language of a speaker; ``usual`` is that of the whole corpus."""
        for code, speakers in self.language.items():
            if speaker is not None and re.fullmatch(speakers, speaker):
                return code
        return usual
