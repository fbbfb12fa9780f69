"""Files of protocols: what may be written in them, by name and version.

A protocol is a YAML file in ``configs/protocol``::

    version: 1
    about: one sentence
    corpora: [ravdess]          # left out: any
    by: speaker                 # speaker | session | corpus | official (labels["split"]) |
                                # source (weak labels train, people validate and test) | none
    folds:                      # one list per fold, or `each`, or {balanced: N, utterances: true}
      - ["01", "02", "03", "04"]
    expected: 91                # how many speakers or sessions the full corpus has
    tests: own                  # own | others (by corpus): train on the own, test the rest
    validation: next            # next fold | {next: N}, its first N speakers |
                                # {speakers: share} | {sentences: share} | official |
                                # others (by source: all folds but the tested one)
    shares: {parts: [train, valid], why: words}

A change that moves one utterance is a new version. What a protocol does is in :mod:`.protocols`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from ..zoo import shipped
from ..zoo.errors import ConfigError, suggest
from .split import Sharing

_KEYS = {"version", "about", "corpora", "by", "folds", "expected", "tests", "validation", "shares"}
_BY = ("speaker", "session", "corpus", "official", "source", "none")
ONE_FOLD = ("official", "none")
_SHARES = {"speakers", "sentences"}


@dataclass(frozen=True)
class ProtocolFile:
    """What is written; see the module for the fields, :meth:`load` for the shipped ones."""

    stem: str
    version: int
    about: str
    by: str
    validation: str
    share: float = 0.0
    first: int = 0
    corpora: tuple[str, ...] = ()
    listed: tuple[tuple[str, ...], ...] = ()
    dealt: int = 0
    by_utterances: bool = False
    expected: int = 0
    sharing: Sharing | None = None
    tests_others: bool = False

    @property
    def name(self) -> str:
        """``ravdess8-6fold@1``."""
        return f"{self.stem}@{self.version}"

    @staticmethod
    def names() -> list[str]:
        """Names of the shipped protocols, without versions."""
        return shipped.names("protocol")

    @classmethod
    def load(cls, name: str) -> Self:
        """A shipped protocol by name, with or without its version; ``kfold-8`` for eight folds.

        Raises:
            ConfigError: when there is none of this name, or not in this version.
        """
        stem, _, version = name.partition("@")
        sized = re.fullmatch(r"kfold-([1-9][0-9]*)", stem)
        file = "kfold" if sized else stem
        if file not in cls.names():
            raise ConfigError(f"no protocol called '{stem}'{suggest(stem, cls.names())}")
        protocol = cls.from_dict(file, shipped.read("protocol", file))
        if version and version != str(protocol.version):
            raise ConfigError(
                f"protocol '{stem}' has version {protocol.version}, not '{version}'; write "
                f"'{stem}@{protocol.version}', or install the release that had the other"
            )
        if sized and int(sized[1]) != protocol.dealt:
            if int(sized[1]) < 3:
                raise ConfigError(f"'{stem}' has too few folds: test, validation and train need 3")
            protocol = replace(protocol, stem=stem, dealt=int(sized[1]))
        return protocol

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Self:
        """From the contents of a protocol file.

        Raises:
            ConfigError: unknown or missing keys, or values that are no rule.
        """

        def wrong(what: str) -> ConfigError:
            return ConfigError(f"protocol '{name}': {what}")

        for key in data:
            if key not in _KEYS:
                raise wrong(f"unknown key '{key}'{suggest(key, _KEYS)}")
        by, folds, valid = data.get("by"), data.get("folds"), data.get("validation")
        if by not in _BY:
            raise wrong(f"by is '{by}'; have {', '.join(_BY)}")
        listed: tuple[tuple[str, ...], ...] = ()
        dealt, by_utterances = 0, False
        corpora = tuple(map(str, data.get("corpora") or ()))
        if isinstance(folds, list):
            prefix = f"{corpora[0]}/" if len(corpora) == 1 and by != "corpus" else ""
            listed = tuple(tuple(prefix + str(unit) for unit in fold) for fold in folds)
            units = [u for fold in listed for u in fold]
            if len(set(units)) != len(units):
                raise wrong("folds name a speaker twice; the test parts must not overlap")
        elif (
            isinstance(folds, dict)
            and by in ("speaker", "source")
            and isinstance(folds.get("balanced"), int)
        ):
            dealt, by_utterances = folds["balanced"], bool(folds.get("utterances", False))
        elif (folds != "each" or by in ONE_FOLD) and not (folds is None and by in ONE_FOLD):
            raise wrong(f"folds is {folds!r}; want lists, 'each', or {{balanced: N}} by speaker")
        share, first = 0.0, 0
        if isinstance(valid, dict) and set(valid) == {"next"} and listed:
            first, valid = int(valid["next"]), "next"
            if not 0 < first <= min(len(fold) for fold in listed):
                raise wrong(f"validation on the next fold's first {first}; its folds are smaller")
        elif isinstance(valid, dict) and len(valid) == 1 and set(valid) <= _SHARES:
            valid, share = next(iter(valid.items()))
            if not 0 < float(share) < 1:
                raise wrong(f"validation share is {share}; want a number between 0 and 1")
        elif valid != {"official": "official", "source": "others", "none": None}.get(by, "next"):
            raise wrong(
                f"validation is {valid!r}; want next, {{next: 2}} with listed folds, "
                "{speakers: 0.2}, {sentences: 0.2}"
            )
        tests = data.get("tests", "own")
        if tests not in ("own", "others") or (tests == "others" and by != "corpus"):
            raise wrong(f"tests is {tests!r}; have own, and others by corpus")
        if tests == "others" and valid == "next":
            raise wrong("a fold that tests all others has no next one; want {speakers: 0.2}")
        if valid == "next" and 0 < (len(listed) or dealt) < 3:
            raise wrong("validation on the next fold needs 3 folds, or nothing is left to train on")
        return cls(
            stem=name,
            version=int(data.get("version", 1)),
            about=str(data.get("about", "")),
            by=by,
            validation=str(valid or "none"),
            share=float(share),
            first=first,
            corpora=corpora,
            listed=listed,
            dealt=dealt,
            by_utterances=by_utterances,
            expected=int(data.get("expected", 0)),
            sharing=Sharing.from_data(name, data.get("shares")),
            tests_others=tests == "others",
        )
