"""Protocols: which speakers train, validate and test, by name and version.

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

Fold k tests its own group, validates on what the rule says, and trains on the rest; with ``tests:
others`` it trains and validates on its own group and tests the rest; by ``none`` all are trained
on. No speaker is in two parts, unless ``shares`` says in words that, and why, they may be. A change
that moves one utterance is a new version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from ..zoo.errors import ConfigError, DataError, suggest
from ..zoo.taxonomy import read_yaml
from . import folds as rules
from .manifest import Utterance
from .split import PAIRS, PARTS, Sharing, Split, some, speaker_of, speakers_of
from .weak import is_weak

__all__ = ["Protocol", "Sharing", "Split"]

_KEYS = {"version", "about", "corpora", "by", "folds", "expected", "tests", "validation", "shares"}
_BY = ("speaker", "session", "corpus", "official", "source", "none")
ONE_FOLD = ("official", "none")
_SHARES = {"speakers", "sentences"}
_OFFICIAL = dict.fromkeys(("valid", "validation", "dev", "development"), "valid")
_OFFICIAL |= {"train": "train", "training": "train", "test": "test"}


@dataclass(frozen=True)
class Protocol:
    """Folds of a corpus; see the module for the fields, :meth:`load` for the shipped ones."""

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
        found = (p.name for p in files("serzoo.configs.protocol").iterdir())
        return sorted(n[:-5] for n in found if n.endswith(".yaml"))

    @classmethod
    def load(cls, name: str) -> Protocol:
        """A shipped protocol by name, with or without its version; ``kfold-8`` for eight folds.

        Raises:
            ConfigError: when there is none of this name, or not in this version.
        """
        stem, _, version = name.partition("@")
        sized = re.fullmatch(r"kfold-([1-9][0-9]*)", stem)
        file = "kfold" if sized else stem
        if file not in cls.names():
            raise ConfigError(f"no protocol called '{stem}'{suggest(stem, cls.names())}")
        path = files("serzoo.configs.protocol").joinpath(f"{file}.yaml")
        protocol = cls.from_dict(file, read_yaml(path.read_text("utf-8")))
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
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Protocol:
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

    def n_folds(self, utterances: Sequence[Utterance]) -> int:
        """How many folds there are of these utterances."""
        return 1 if self.by in ONE_FOLD else len(self._groups(utterances))

    def split(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Train, valid and test of one fold, speaker-disjoint unless the protocol says otherwise.

        Args:
            utterances: of the corpora of the protocol; what is not to be used is left out before.
            fold: from 0.

        Raises:
            ConfigError: when there is no such fold.
            DataError: utterances of other corpora, unknown speakers, too few speakers, an empty
                part, or a speaker in two parts.
        """
        self._check(utterances)
        n = self.n_folds(utterances)
        if not 0 <= fold < n:
            raise ConfigError(
                f"{self.name} has no fold {fold}; have 0 to {n - 1} for this manifest"
            )
        if self.by == "none":
            return Split(list(utterances), [], [], protocol=self.name, fold=fold)
        where = (
            self._official(utterances) if self.by == "official" else self._dealt(utterances, fold)
        )
        parts: dict[str, list[Utterance]] = {p: [] for p in PARTS}
        for u, part in zip(utterances, where, strict=True):
            parts[part].append(u)
        empty = [p for p in PARTS if not parts[p]]
        if empty:
            raise DataError(
                f"{self.name}, fold {fold}: {' and '.join(empty)} of {len(utterances)} utterances "
                f"is empty ({self.about}); prepare the whole corpus, or use protocol=kfold"
            )
        notes = self._notes(utterances)
        for a, b in PAIRS:
            shared = speakers_of(parts[a]) & speakers_of(parts[b])
            if shared and not (self.sharing and self.sharing.allows(a, b)):
                raise DataError(
                    f"{self.name}, fold {fold}: {a} and {b} share {len(shared)} speakers "
                    f"({some(shared)}); use a protocol by speaker, or let the protocol say why "
                    "under 'shares'"
                )
            if shared and self.sharing:
                notes.append(f"{a} and {b} share {len(shared)} speakers: {self.sharing.why}")
        return Split(**parts, protocol=self.name, fold=fold, sharing=self.sharing, notes=notes)

    # -- who belongs where ---------------------------------------------------------------------

    @property
    def _need(self) -> str:
        if self.by == "source":
            return "people with human labels validate and test; name a corpus of them as well"
        return "speaker-disjoint train, validation and test need 3"

    @property
    def _units(self) -> str:
        return "corpora" if self.by == "corpus" else f"{self.by}s"

    def _unit(self, u: Utterance) -> str:
        if self.by in ("speaker", "source"):
            return speaker_of(u)
        return u.corpus if self.by == "corpus" else f"{u.corpus}/{u.session}"

    def _groups(self, utterances: Sequence[Utterance]) -> list[list[str]]:
        if self.listed:
            return [list(fold) for fold in self.listed]
        if self.dealt:
            if self.by == "source":
                utterances = [u for u in utterances if not is_weak(u)]
            speakers = speakers_of(utterances)
            if (n := len(speakers)) < self.dealt:
                raise DataError(
                    f"{self.name} needs {self.dealt} speakers for {self.dealt} folds; there are "
                    f"{n} ({some(speakers)}): {self._need}"
                    + (f", so protocol=kfold-{n} would do" if n >= 3 else "")
                )
            return rules.balanced(utterances, self.dealt, by_utterances=self.by_utterances)
        units = sorted({self._unit(u) for u in utterances})
        least = 3 if self.validation == "next" else 2
        if len(units) < least:
            raise DataError(
                f"{self.name} leaves out one {self.by} at a time and needs {least} at the least; "
                f"there are {len(units)} ({some(units)}); prepare the others, or use protocol=kfold"
            )
        return [[u] for u in units]

    def _dealt(self, utterances: Sequence[Utterance], fold: int) -> list[str]:
        groups = self._groups(utterances)
        if self.by == "source":
            own = set(groups[fold])
            parts = {True: "test", False: "valid"}
            return ["train" if is_weak(u) else parts[speaker_of(u) in own] for u in utterances]
        fold_of = {unit: k for k, group in enumerate(groups) for unit in group}
        unknown = {self._unit(u) for u in utterances} - set(fold_of)
        if unknown:
            raise DataError(
                f"{self.name} does not know {len(unknown)} {self._units} of the manifest "
                f"({some(unknown)}); it lists {some(fold_of, 99)}: use protocol=kfold, or check "
                "the names that the reader gives"
            )
        # the fold's own group is tested, or all others are
        tested = [(fold_of[self._unit(u)] == fold) != self.tests_others for u in utterances]
        rest = [u for u, test in zip(utterances, tested, strict=True) if not test]
        if self.validation == "next":
            after = groups[(fold + 1) % len(groups)]
            held = set(after[: self.first] if self.first else after)
            chosen = {u.id for u in rest if self._unit(u) in held}
        elif self.validation == "speakers":
            speakers = rules.held_out_speakers(rest, self.share)
            chosen = {u.id for u in rest if speaker_of(u) in speakers}
        else:
            chosen = rules.held_out_sentences(rest, self.share) if rest else set()
        return [
            "test" if test else "valid" if u.id in chosen else "train"
            for u, test in zip(utterances, tested, strict=True)
        ]

    def _official(self, utterances: Sequence[Utterance]) -> list[str]:
        found = [u.labels.get("split", "").lower() for u in utterances]
        bad = [(u.id, s) for u, s in zip(utterances, found, strict=True) if s not in _OFFICIAL]
        if bad:
            raise DataError(
                f"{self.name}: {len(bad)} of {len(utterances)} utterances have no known split "
                f"(first: {bad[0][0]}, '{bad[0][1]}'); the column 'split' must say one of "
                f"{', '.join(_OFFICIAL)}"
            )
        return [_OFFICIAL[s] for s in found]

    def _check(self, utterances: Sequence[Utterance]) -> None:
        other = {u.corpus for u in utterances} - set(self.corpora)
        if self.corpora and other:
            raise DataError(
                f"{self.name} is for {', '.join(self.corpora)}; the manifest also holds "
                f"{some(other)}: use protocol=loco for several corpora, protocol=kfold for others"
            )
        for what in ("speaker", "session") if self.by == "session" else ("speaker",):
            without = [u.id for u in utterances if not getattr(u, what)]
            if without:
                raise DataError(
                    f"{self.name}: {len(without)} of {len(utterances)} utterances have no {what} "
                    f"({some(without)}); without it no split can be shown to be disjoint: add it "
                    "to the manifest"
                )

    def _notes(self, utterances: Sequence[Utterance]) -> list[str]:
        notes, found = [], {self._unit(u) for u in utterances}
        absent = {u for fold in self.listed for u in fold} - found
        if absent:
            notes.append(
                f"{len(absent)} {self._units} of {self.name} are not in the manifest: "
                + some(absent)
            )
        if self.expected and len(found) != self.expected:
            notes.append(
                f"{len(found)} of {self.expected} {self._units} are in the manifest: the folds are "
                f"not those of {self.name} on the whole corpus"
            )
        silent = [s for s, sex in rules.sexes(utterances).items() if not sex]
        if silent and (self.dealt or self.validation == "speakers"):
            notes.append(
                f"sex of {len(silent)} speakers unknown, not balanced by it: {some(silent)}"
            )
        return notes
