"""Protocols: which speakers train, validate and test, as their YAML files say.

Fold k tests its own group, validates on the part that a rule names, and trains on the rest. With
``tests: others`` it trains and validates on its own group, and tests the rest. With ``by: none``
all utterances are for training. No speaker is in two parts, unless ``shares`` allows it and says
why in words. If the speaker of an utterance is unknown, this cannot be checked, and the fold is
refused (see :meth:`Protocol.split`).

The file has three parts: rules that divide speakers, :class:`Split` with its facts, and the
protocols. :class:`ProtocolFile` and :class:`Protocol` read and apply one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ..zoo.core import shipped
from ..zoo.core.errors import ConfigError, DataError, some, suggest
from ..zoo.core.speakers import ACCEPT, REFUSE
from .info import canonical_label
from .manifest import Utterance

# Rules that divide speakers into folds, without random numbers. The rules depend only on the
# speakers in the manifest, and (if asked) on their numbers of utterances. They never depend on the
# order of its lines. An utterance with an unknown speaker is treated as a speaker of its own.
# Protocols refuse such utterances unless ``unknown_speakers`` is ``accept``.


def sexes(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return the sex of every speaker; "" if the manifest has none, or states two."""
    stated: dict[str, set[str]] = defaultdict(set)
    for u in utterances:
        stated[unit_of(u)] |= {u.gender} if u.gender else set()
    return {s: next(iter(g)) if len(g) == 1 else "" for s, g in sorted(stated.items())}


def balanced(utterances: Sequence[Utterance], n: int, *, by_utterances: bool) -> list[list[str]]:
    """Divide the speakers into ``n`` folds; for each sex, folds differ by at most one speaker.

    Speakers of one sex come in the order of their names. With ``by_utterances`` those with the most
    utterances come first. Each goes to the fold with the fewest speakers of that sex. Ties are
    broken by the fewest speakers, then (``by_utterances``) the fewest utterances, then the first
    fold. Our choice.
    """
    counts = Counter(map(unit_of, utterances))
    groups: dict[str, list[str]] = defaultdict(list)
    for speaker, sex in sexes(utterances).items():
        groups[sex].append(speaker)
    folds: list[list[str]] = [[] for _ in range(n)]
    load = [0] * n
    for _, speakers in sorted(groups.items()):
        mine = [0] * n
        for s in sorted(speakers, key=lambda s: (-counts[s] if by_utterances else 0, s)):
            k = min(range(n), key=lambda i: (mine[i], len(folds[i]), load[i], i))
            folds[k].append(s)
            mine[k] += 1
            load[k] += counts[s] if by_utterances else 0
    return [sorted(f) for f in folds]


def held_out_speakers(utterances: Sequence[Utterance], share: float) -> set[str]:
    """Return a share of the speakers of each corpus and sex; at least one is held out, one stays.

    A hash of the names chooses them, so neither the first nor the last speakers of a corpus are
    preferred. Our choice.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    corpus = {unit_of(u): u.corpus for u in utterances}
    for speaker, sex in sexes(utterances).items():
        groups[corpus[speaker], sex].append(speaker)
    chosen: set[str] = set()
    for speakers in groups.values():
        k = min(len(speakers) - 1, max(1, round(share * len(speakers))))
        chosen |= set(sorted(speakers, key=_rank)[:k])
    return chosen


def held_out_sentences(utterances: Sequence[Utterance], share: float) -> set[str]:
    """Return the ids of all utterances of a share of the sentences, at least one sentence.

    A hash of the sentences chooses them.
    """
    spoken: dict[str, list[str]] = defaultdict(list)
    for u in utterances:
        spoken[sentence(u.text) or u.id].append(u.id)
    k = min(len(spoken) - 1, max(1, round(share * len(spoken))))
    return {i for s in sorted(spoken, key=_rank)[:k] for i in spoken[s]}


def sentence(text: str | None) -> str:
    """Return a transcript without case, punctuation and extra spaces; "" if there is none."""
    plain = unicodedata.normalize("NFKC", text or "").casefold()
    kept = "".join(c for c in plain if unicodedata.category(c)[0] not in "PS")
    return " ".join(kept.split())


def _rank(name: str) -> tuple[str, str]:
    return hashlib.sha256(f"serzoo:{name}".encode()).hexdigest(), name


# Splits: train, valid and test, and what they may share.

PARTS = ("train", "valid", "test")
PAIRS = (("train", "valid"), ("train", "test"), ("valid", "test"))


@dataclass(frozen=True)
class Sharing:
    """Which parts may have speakers in common, and why, in words."""

    parts: tuple[str, ...]
    why: str

    @classmethod
    def from_data(cls, name: str, data: Any) -> Sharing | None:
        """Build from ``shares`` of a protocol file: words (for all parts), or parts and words.

        Raises:
            ConfigError: if there are no words, or the parts are unknown.
        """
        if data is None:
            return None
        given = {"why": data} if isinstance(data, str) else dict(data)
        parts, why = tuple(given.get("parts", PARTS)), str(given.get("why") or "").strip()
        if not why or len(parts) < 2 or not set(parts) <= set(PARTS):
            raise ConfigError(
                f"protocol '{name}': shares is {data}; give the reason in words, and two or three "
                f"parts of {', '.join(PARTS)}"
            )
        return cls(parts, why)

    def allows(self, a: str, b: str) -> bool:
        """Return whether parts ``a`` and ``b`` may share a speaker."""
        return a in self.parts and b in self.parts


@dataclass(frozen=True)
class Split:
    """One fold of a protocol.

    Attributes:
        train: utterances for training; all parts are in the order of the manifest.
        valid: utterances for model selection.
        test: utterances to score once.
        protocol: name and version of the protocol.
        fold: number of the fold, from 0.
        sharing: which parts may share speakers, and why; None = no parts.
        notes: facts about this split that its reader should know.
        unknown_speakers: ``accept`` if utterances without a speaker may be in any part, otherwise
            ``refuse``.
    """

    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]
    protocol: str = "custom@1"
    fold: int = 0
    sharing: Sharing | None = None
    notes: list[str] = field(default_factory=list)
    unknown_speakers: str = REFUSE

    def parts(self) -> Iterator[tuple[str, list[Utterance]]]:
        """Yield the name and the utterances of each part."""
        yield from zip(PARTS, (self.train, self.valid, self.test), strict=True)

    def fingerprint(self) -> dict[str, str]:
        """Return 12 hexadecimal digits for each part: a hash of its ids, in any order."""
        return {
            part: hashlib.sha256("\n".join(sorted(u.id for u in us)).encode()).hexdigest()[:12]
            for part, us in self.parts()
        }


def speaker_of(utterance: Utterance) -> str:
    """Return ``corpus/speaker``, because names are unique only within a corpus.

    The result is "" if the speaker is unknown.
    """
    return f"{utterance.corpus}/{utterance.speaker}" if utterance.speaker else ""


def speakers_of(utterances: Iterable[Utterance]) -> set[str]:
    """Return the ``corpus/speaker`` names of the known speakers of these utterances."""
    return {speaker_of(u) for u in utterances} - {""}


def without_speaker(utterances: Iterable[Utterance]) -> list[Utterance]:
    """Return the utterances whose speaker is unknown."""
    return [u for u in utterances if not speaker_of(u)]


def unit_of(utterance: Utterance) -> str:
    """Return the unit that is never divided: a speaker, or an utterance of an unknown one."""
    return speaker_of(utterance) or utterance.id


def listed_speakers(utterances: Iterable[Utterance]) -> list[str]:
    """Return the speakers as a record keeps them: ``corpus/speaker``, ``corpus/`` for unknown."""
    return sorted({speaker_of(u) or f"{u.corpus}/" for u in utterances})


# Files of protocols. A protocol is a YAML file in ``configs/protocol``, or one of the user::
#
#     version: 1
#     about: one sentence
#     corpora: [ravdess]          # omitted: any
#     by: speaker                 # speaker | session | corpus | official (labels["split"]) |
#                                 # source (weak labels train, people validate and test) | none
#     folds:                      # one list per fold, or `each`, or {balanced: N, utterances: true}
#       - ["01", "02", "03", "04"]
#     expected: 91                # how many speakers or sessions the full corpus has
#     tests: own                  # own | others (by corpus): train on the own, test the rest
#     validation: next            # next fold | {next: N}, its first N speakers |
#                                 # {speakers: share} | {sentences: share} | official |
#                                 # others (by source: all folds but the tested one)
#     shares: {parts: [train, valid], why: words}
#     also_train: [a, b]          # by speaker or session: further corpora, which only train
#     train: [a, b]               # by corpus, without folds: these train and validate,
#     test: [c, d]                # and these are tested
#     texts: 2                    # by speaker: sentences are divided, too (see `Protocol`)
#     only: {style: improvised}   # utterances with this value in a label column; no others
#     balanced_test: true         # as many test utterances of each label; the rest is left out
#     closed: words               # no other emotion data may be used (says the challenge `words`)
#
# A change that moves one utterance needs a new version.

_KEYS = {"version", "about", "corpora", "by", "folds", "expected", "tests", "validation", "shares"}
_KEYS |= {"also_train", "train", "test", "texts", "only", "balanced_test", "closed"}
_BY = ("speaker", "session", "corpus", "official", "source", "none")
ONE_FOLD = ("official", "none")
_SHARES = {"speakers", "sentences"}


@dataclass(frozen=True)
class ProtocolFile:
    """The content of a protocol file; the comment above describes the keys.

    Attributes:
        stem: name without the version.
        version: number of the version.
        about: one sentence about the folds.
        by: the units that are divided.
        validation: the rule that chooses the validation part.
        share: share of the speakers or sentences that validate; 0 for other rules.
        first: number of speakers of the next fold that validate; 0 = all.
        corpora: corpora that it is for; empty = any.
        listed: the units of each fold, if the file lists them.
        number: number of balanced folds, if the file gives no lists; otherwise 0.
        by_utterances: whether these folds are also balanced by utterances.
        expected: number of units of the full corpus; 0 = unknown.
        sharing: the parts that may share speakers; None = no parts.
        tests_others: whether a fold tests all groups except its own.
        also_train: corpora that only train, in every fold.
        trained: corpora of training and validation, if the file lists them.
        tested: corpora of the test part, if the file lists them.
        texts: number of groups of sentences; 0 = sentences are not divided.
        only: maps a label column to the value that an utterance must have.
        balanced_test: whether the test part has as many utterances of each label.
        closed: whose rules forbid other emotion data; "" = nobody's.
    """

    stem: str
    version: int
    about: str
    by: str
    validation: str
    share: float = 0.0
    first: int = 0
    corpora: tuple[str, ...] = ()
    listed: tuple[tuple[str, ...], ...] = ()
    number: int = 0
    by_utterances: bool = False
    expected: int = 0
    sharing: Sharing | None = None
    tests_others: bool = False
    also_train: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    texts: int = 0
    only: tuple[tuple[str, str], ...] = ()
    balanced_test: bool = False
    closed: str = ""

    @property
    def one_fold(self) -> bool:
        """Whether there is one fold only."""
        return self.by in ONE_FOLD or bool(self.trained)

    @property
    def name(self) -> str:
        """The name with the version, such as ``ravdess8-6fold@1``."""
        return f"{self.stem}@{self.version}"

    @staticmethod
    def names() -> list[str]:
        """Return the names of the shipped protocols, without versions."""
        return shipped.names("protocol")

    @classmethod
    def load(cls, name: str) -> Self:
        """Return a shipped protocol by name, with or without version, or that of a YAML file.

        ``kfold-8`` is kfold with 8 folds.

        Args:
            name: the name, or the path of a file that ends in ``.yaml``.

        Raises:
            ConfigError: if no protocol has this name, or this version. Also if the file is damaged.
        """
        if shipped.is_file(name):
            return cls.from_dict(Path(name).stem, shipped.read_file("protocol", name))
        stem, _, version = name.partition("@")
        sized = re.fullmatch(r"kfold-([1-9][0-9]*)", stem)
        file = "kfold" if sized else stem
        if file not in cls.names():
            raise ConfigError(f"no protocol is called '{stem}'{suggest(stem, cls.names())}")
        protocol = cls.from_dict(file, shipped.read("protocol", file))
        if version and version != str(protocol.version):
            raise ConfigError(
                f"protocol '{stem}' has version {protocol.version}, not '{version}'; write "
                f"'{stem}@{protocol.version}', or install the release that had the other"
            )
        if sized and int(sized[1]) != protocol.number:
            if int(sized[1]) < 3:
                raise ConfigError(
                    f"'{stem}' has too few folds; train, validation and test need at least 3, as "
                    "in kfold-3"
                )
            protocol = replace(protocol, stem=stem, number=int(sized[1]))
        return protocol

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Self:
        """Build a protocol from the content of a file.

        Raises:
            ConfigError: if keys are unknown or missing, or a value is not a rule.
        """

        def wrong(what: str) -> ConfigError:
            return ConfigError(f"protocol '{name}': {what}")

        for key in data:
            if key not in _KEYS:
                raise wrong(f"unknown key '{key}'{suggest(key, _KEYS)}")
        by, folds, valid = data.get("by"), data.get("folds"), data.get("validation")
        trained, tested = _corpora_of(data, wrong)
        if by not in _BY:
            raise wrong(f"by is '{by}'; have {', '.join(_BY)}")
        listed: tuple[tuple[str, ...], ...] = ()
        number, by_utterances = 0, False
        corpora = tuple(map(str, data.get("corpora") or ()))
        if isinstance(folds, list):
            prefix = f"{corpora[0]}/" if len(corpora) == 1 and by != "corpus" else ""
            listed = tuple(tuple(prefix + str(unit) for unit in fold) for fold in folds)
            units = [u for fold in listed for u in fold]
            if len(set(units)) != len(units):
                raise wrong("folds list a speaker twice; list each once, in one fold")
        elif (
            isinstance(folds, dict)
            and by in ("speaker", "source")
            and isinstance(folds.get("balanced"), int)
        ):
            number, by_utterances = folds["balanced"], bool(folds.get("utterances", False))
        elif trained and folds is not None:
            raise wrong(f"folds is {folds!r}; with train and test there is one fold: leave it out")
        elif (folds != "each" or by in ONE_FOLD) and not (
            folds is None and (by in ONE_FOLD or trained)
        ):
            raise wrong(f"folds is {folds!r}; give lists, 'each', or {{balanced: N}} by speaker")
        also = data.get("also_train") or []
        if not isinstance(also, list) or (
            also and (by not in ("speaker", "session") or not corpora)
        ):
            raise wrong(
                f"also_train is {also!r}; give a list of corpora, by speaker or session, and list "
                "the corpora that are divided under corpora"
            )
        also = tuple(map(str, also))
        if both := set(also) & set(corpora):
            raise wrong(f"corpora and also_train both list {some(both)}; list a corpus once")
        share, first = 0.0, 0
        if isinstance(valid, dict) and set(valid) == {"next"} and listed:
            first, valid = int(valid["next"]), "next"
            if not 0 < first <= min(len(fold) for fold in listed):
                raise wrong(
                    f"validation is the first {first} of the next fold, but a fold is smaller; "
                    "give a smaller number, from 1 on"
                )
        elif isinstance(valid, dict) and len(valid) == 1 and set(valid) <= _SHARES:
            valid, share = next(iter(valid.items()))
            if not 0 < float(share) < 1:
                raise wrong(f"validation share is {share}; give a number between 0 and 1")
        elif valid != {"official": "official", "source": "others", "none": None}.get(by, "next"):
            raise wrong(
                f"validation is {valid!r}; give next, {{next: 2}} with listed folds, "
                "{speakers: 0.2}, {sentences: 0.2}"
            )
        tests = data.get("tests", "own")
        if tests not in ("own", "others") or (tests == "others" and by != "corpus"):
            raise wrong(f"tests is {tests!r}; give own, or others (by corpus)")
        if tests == "others" and valid == "next":
            raise wrong(
                "validation is next, but with tests: others a fold has no next one; give "
                "{speakers: 0.2}"
            )
        if (tests == "others" or valid == "next") and trained:
            raise wrong("with train and test, give no tests, and validation: {speakers: 0.2}")
        texts = data.get("texts", 0)
        if isinstance(texts, bool) or not isinstance(texts, int) or texts < 0 or texts == 1:
            raise wrong(f"texts is {texts!r}; give the number of groups of sentences, 2 or more")
        if texts and by != "speaker":
            raise wrong(
                f"texts divides sentences beside speakers, but by is {by}; give by: speaker"
            )
        only = data.get("only") or {}
        if not isinstance(only, Mapping):
            raise wrong(f"only is {only!r}; give a label column and its value, {{style: scripted}}")
        if not isinstance(balanced_test := data.get("balanced_test", False), bool):
            raise wrong(f"balanced_test is {balanced_test!r}; give true or false")
        if not isinstance(closed := data.get("closed") or "", str):
            raise wrong(f"closed is {closed!r}; say in words whose rules forbid other data")
        if valid == "next" and 0 < (len(listed) or number) < 3:
            raise wrong(
                f"validation is next, but of {len(listed) or number} folds none is left for "
                "training; give at least 3 folds"
            )
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
            number=number,
            by_utterances=by_utterances,
            expected=int(data.get("expected", 0)),
            sharing=Sharing.from_data(name, data.get("shares")),
            tests_others=tests == "others",
            also_train=also,
            trained=trained,
            tested=tested,
            texts=texts,
            only=tuple((str(k), str(v)) for k, v in only.items()),
            balanced_test=balanced_test,
            closed=closed,
        )


def _corpora_of(
    data: Mapping[str, Any], wrong: Callable[[str], ConfigError]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the corpora that ``train`` and ``test`` of a file list; empty without them."""
    if data.get("train") is None and data.get("test") is None:
        return (), ()
    found = []
    for key in ("train", "test"):
        value = data.get(key)
        if data.get("by") != "corpus" or not isinstance(value, list) or not value:
            raise wrong(
                f"{key} is {value!r}; give by: corpus, and a list of corpora for train and for test"
            )
        found.append(tuple(map(str, value)))
    if both := set(found[0]) & set(found[1]):
        raise wrong(f"train and test both list {some(both)}; list a corpus once")
    return found[0], found[1]


# Protocols applied to utterances.

BY_SPEAKER = ("speaker", "session", "source")
"""Values of ``by`` that keep speakers apart, so speakers must be known."""

_OFFICIAL = dict.fromkeys(("valid", "validation", "dev", "development"), "valid")
_OFFICIAL |= {"train": "train", "training": "train", "test": "test"}


class Protocol(ProtocolFile):
    """The folds of a corpus, as its protocol file says.

    With ``texts``, test and training share neither speakers nor sentences. Sentences are in
    ``texts`` groups, and each fold of speakers is as many folds. Fold ``k * texts + t`` tests what
    the speakers of fold k say of group t. It trains and validates on other speakers' sentences of
    the other groups. All other utterances are left out of this fold. So an utterance is tested
    once.
    """

    def n_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of folds of these utterances."""
        if self.one_fold:
            return 1
        return len(self._groups(self._chosen(utterances))) * (self.texts or 1)

    def split(
        self, utterances: Sequence[Utterance], fold: int, *, unknown_speakers: str = REFUSE
    ) -> Split:
        """Return train, valid and test of one fold, without common speakers by default.

        Only ``shares`` in the protocol allows common speakers.

        Args:
            utterances: utterances of the corpora of the protocol, without unwanted ones.
            fold: number of the fold, from 0.
            unknown_speakers: ``refuse`` utterances without a speaker, if the protocol divides by
                speaker, session or source. ``accept`` treats each of them as a speaker of its own.
                The parts may then share speakers, and the audit says so.

        Raises:
            ConfigError: if the fold does not exist.
            DataError: if utterances are from other corpora, or speakers are unknown or too few.
                Also if a part is empty, or a speaker is in two parts.
        """
        given = utterances
        self._check(given, unknown_speakers)
        utterances = self._chosen(given)  # those that are divided
        n = self.n_folds(utterances)
        if not 0 <= fold < n:
            raise ConfigError(
                f"{self.name} has no fold {fold}; have 0 to {n - 1} for this manifest"
            )
        if self.by == "none":
            split = Split(list(utterances), [], [], protocol=self.name, fold=fold)
            return replace(split, unknown_speakers=unknown_speakers)
        where = (
            self._official(utterances) if self.by == "official" else self._divided(utterances, fold)
        )
        parts: dict[str, list[Utterance]] = {p: [] for p in PARTS}
        for u, part in zip(utterances, where, strict=True):
            if part:
                parts[part].append(u)
        parts["train"] += [u for u in given if u.corpus in self.also_train]
        if self.balanced_test:
            parts["test"] = self._balanced(parts["test"])
        empty = [p for p in PARTS if not parts[p]]
        if empty:
            raise DataError(
                f"{self.name}, fold {fold}: {' and '.join(empty)} of {len(utterances)} utterances "
                f"is empty ({self.about}); prepare the whole corpus, or use protocol=kfold"
            )
        notes = self._notes(utterances) + self._left_out(given, utterances, where, parts["test"])
        for a, b in PAIRS:
            shared = speakers_of(parts[a]) & speakers_of(parts[b])
            if shared and not (self.sharing and self.sharing.allows(a, b)):
                raise DataError(
                    f"{self.name}, fold {fold}: {a} and {b} share {len(shared)} speakers "
                    f"({some(shared)}); use a protocol by speaker, or allow it, with the reason, "
                    "under 'shares' in the protocol"
                )
            if shared and self.sharing:
                notes.append(f"{a} and {b} share {len(shared)} speakers: {self.sharing.why}")
        return Split(
            **parts,
            protocol=self.name,
            fold=fold,
            sharing=self.sharing,
            notes=notes,
            unknown_speakers=unknown_speakers,
        )

    @property
    def _need(self) -> str:
        if self.by == "source":
            return "validation and test need human labels: add a corpus that has them"
        return "speaker-disjoint train, validation and test need 3"

    @property
    def _units(self) -> str:
        return "corpora" if self.by == "corpus" else f"{self.by}s"

    def _unit(self, u: Utterance) -> str:
        if self.by in ("speaker", "source"):
            return unit_of(u)
        return u.corpus if self.by == "corpus" else f"{u.corpus}/{u.session}"

    def _groups(self, utterances: Sequence[Utterance]) -> list[list[str]]:
        if self.listed:
            return [list(fold) for fold in self.listed]
        if self.number:
            if self.by == "source":
                utterances = [u for u in utterances if not u.weak]
            speakers = {unit_of(u) for u in utterances}
            if (n := len(speakers)) < self.number:
                raise DataError(
                    f"{self.name} needs {self.number} speakers for {self.number} folds; there are "
                    f"{n} ({some(speakers)}): {self._need}"
                    + (f"; use protocol=kfold-{n}" if n >= 3 else "")
                )
            return balanced(utterances, self.number, by_utterances=self.by_utterances)
        units = sorted({self._unit(u) for u in utterances})
        least = 3 if self.validation == "next" else 2
        if len(units) < least:
            raise DataError(
                f"{self.name} leaves out one {self.by} at a time and needs at least {least}, but "
                f"there are {len(units)} ({some(units)}); prepare the others, or use protocol=kfold"
            )
        return [[u] for u in units]

    def _divided(self, utterances: Sequence[Utterance], fold: int) -> list[str]:
        if self.trained:
            tested = [u.corpus in self.tested for u in utterances]
            return self._parts(utterances, tested, [], fold)
        groups = self._groups(utterances)
        fold, heard = divmod(fold, self.texts or 1)
        if self.by == "source":
            own = set(groups[fold])
            parts = {True: "test", False: "valid"}
            return ["train" if u.weak else parts[unit_of(u) in own] for u in utterances]
        fold_of = {unit: k for k, group in enumerate(groups) for unit in group}
        unknown = {self._unit(u) for u in utterances} - set(fold_of)
        if unknown:
            raise DataError(
                f"{self.name} does not list {len(unknown)} {self._units} of the manifest "
                f"({some(unknown)}); it lists {some(fold_of, 99)}: use protocol=kfold, or check "
                "the names in the manifest"
            )
        # test the fold's own group, or all other groups
        tested = [(fold_of[self._unit(u)] == fold) != self.tests_others for u in utterances]
        parts_of = self._parts(utterances, tested, groups, fold)
        if not self.texts:
            return parts_of
        own = self._sentences(utterances)[heard]
        return [
            part if (sentence(u.text) in own) == (part == "test") else ""
            for u, part in zip(utterances, parts_of, strict=True)
        ]

    def _parts(
        self,
        utterances: Sequence[Utterance],
        tested: Sequence[bool],
        groups: Sequence[Sequence[str]],
        fold: int,
    ) -> list[str]:
        """Return the part of each utterance; ``validation`` divides those that are not tested."""
        rest = [u for u, test in zip(utterances, tested, strict=True) if not test]
        if self.validation == "next":
            after = groups[(fold + 1) % len(groups)]
            held = set(after[: self.first] if self.first else after)
            chosen = {u.id for u in rest if self._unit(u) in held}
        elif self.validation == "speakers":
            speakers = held_out_speakers(rest, self.share)
            chosen = {u.id for u in rest if unit_of(u) in speakers}
        else:
            chosen = held_out_sentences(rest, self.share) if rest else set()
        return [
            "test" if test else "valid" if u.id in chosen else "train"
            for u, test in zip(utterances, tested, strict=True)
        ]

    def _chosen(self, utterances: Sequence[Utterance]) -> Sequence[Utterance]:
        """Return the utterances to divide: their label columns have the values of ``only``."""
        if self.also_train:
            utterances = [u for u in utterances if u.corpus not in self.also_train]
        if not self.only:
            return utterances
        for column, value in self.only:
            kept = [u for u in utterances if u.labels.get(column) == value]
            if not kept:
                have = {u.labels[column] for u in utterances if column in u.labels}
                raise DataError(
                    f"{self.name}: no utterance has {column} '{value}' (there are: "
                    f"{some(have) or 'none'}); prepare the corpus again, or use another protocol"
                )
            utterances = kept
        return utterances

    def _sentences(self, utterances: Sequence[Utterance]) -> list[set[str]]:
        """Divide the sentences into groups with about as many utterances each. Our choice."""
        if silent := [u.id for u in utterances if not sentence(u.text)]:
            raise DataError(
                f"{self.name}: {len(silent)} of {len(utterances)} utterances have no transcript "
                f"({some(silent)}), so sentences cannot be kept apart; add it to the manifest, or "
                "use a protocol by speaker"
            )
        counts = Counter(sentence(u.text) for u in utterances)
        if len(counts) < self.texts:
            raise DataError(
                f"{self.name} needs {self.texts} sentences; there are {len(counts)}: use a "
                "protocol by speaker"
            )
        groups: list[set[str]] = [set() for _ in range(self.texts)]
        load = [0] * self.texts
        for text, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            k = min(range(self.texts), key=lambda i: (load[i], i))
            groups[k].add(text)
            load[k] += n
        return groups

    def _balanced(self, tested: list[Utterance]) -> list[Utterance]:
        """Return as many utterances of each label; a hash of the ids chooses them."""
        by_label: dict[str | None, list[Utterance]] = defaultdict(list)
        for u in tested:
            by_label[canonical_label(u)].append(u)
        fewest = min(map(len, by_label.values()), default=0)
        kept = {
            u.id for us in by_label.values() for u in sorted(us, key=lambda u: _rank(u.id))[:fewest]
        }
        return [u for u in tested if u.id in kept]

    def _left_out(
        self,
        given: Sequence[Utterance],
        chosen: Sequence[Utterance],
        where: Sequence[str],
        tested: Sequence[Utterance],
    ) -> list[str]:
        """Return notes on the utterances that this fold leaves out."""
        notes = []
        divided = [u for u in given if u.corpus not in self.also_train]
        if n := len(divided) - len(chosen):
            said = ", ".join(f"{column} {value}" for column, value in self.only)
            notes.append(f"{n} of {len(divided)} utterances are left out: only {said} is used")
        if n := sum(not part for part in where):
            notes.append(
                f"{n} of {len(chosen)} utterances are left out of this fold: they share a speaker "
                "or a sentence with both sides"
            )
        if n := sum(part == "test" for part in where) - len(tested):
            notes.append(
                f"{n} of {len(tested) + n} test utterances are left out, so that each label has as "
                "many"
            )
        return notes

    def _official(self, utterances: Sequence[Utterance]) -> list[str]:
        found = [u.labels.get("split", "").lower() for u in utterances]
        bad = [(u.id, s) for u, s in zip(utterances, found, strict=True) if s not in _OFFICIAL]
        if bad:
            raise DataError(
                f"{self.name}: {len(bad)} of {len(utterances)} utterances have no known split "
                f"(first: {bad[0][0]}, '{bad[0][1]}'); the column 'split' must hold one of "
                f"{', '.join(_OFFICIAL)}"
            )
        return [_OFFICIAL[s] for s in found]

    def _check(self, utterances: Sequence[Utterance], unknown_speakers: str) -> None:
        found = {u.corpus for u in utterances}
        if self.trained and found != {*self.trained, *self.tested}:
            absent, more = (
                {*self.trained, *self.tested} - found,
                found - {*self.trained, *self.tested},
            )
            raise DataError(
                f"{self.name} trains on {', '.join(self.trained)} and tests "
                f"{', '.join(self.tested)}, but the data lacks {some(absent) or 'none of them'} "
                f"and also holds {some(more) or 'no other'}; set corpus=["
                f"{','.join([*self.trained, *self.tested])}]"
            )
        if absent := set(self.also_train) - found:
            raise DataError(
                f"{self.name} also trains on {some(absent)}, which the data lacks; set corpus=["
                f"{','.join([*self.corpora, *self.also_train])}], or use another protocol"
            )
        other = found - {*self.corpora, *self.also_train}
        if self.corpora and other:
            raise DataError(
                f"{self.name} is for {', '.join((*self.corpora, *self.also_train))}; the manifest "
                f"also holds {some(other)}: use protocol=loco for several corpora, protocol=kfold "
                "for others"
            )
        if self.by == "session" and (silent := [u.id for u in utterances if not u.session]):
            raise DataError(
                f"{self.name}: {len(silent)} of {len(utterances)} utterances have no session "
                f"({some(silent)}), so no split can be shown to be disjoint; add the session to "
                "the manifest"
            )
        lost = without_speaker(utterances) if self.by in BY_SPEAKER else []
        if self.by == "source":  # speakers of weakly labelled speech do not count here
            human = {u.corpus for u in utterances if not u.weak}
            lost = [u for u in lost if u.corpus in human]
        if not lost:
            return
        message = (
            f"{self.name}: {len(lost)} of {len(utterances)} utterances have no speaker "
            f"({some(u.id for u in lost)}), so no split can be shown to be disjoint; name the "
            "speakers (options.speaker=... of the readers 'folder' and 'csv', or in the manifest)"
        )
        if self.by == "speaker" and not self.number:
            raise DataError(f"{message}: this protocol needs their names")
        if unknown_speakers != ACCEPT:
            raise DataError(
                f"{message}, or set data.unknown_speakers=accept (unknown_speakers=accept of "
                "audit, eval and adapt), which treats each such utterance as a speaker of its own; "
                "every number then has a note"
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
                f"{len(found)} of {self.expected} {self._units} are in the manifest: these folds "
                f"are not the folds of {self.name} on the whole corpus"
            )
        named = [u for u in utterances if u.speaker]
        silent = [s for s, sex in sexes(named).items() if not sex]
        if silent and (self.number or self.validation == "speakers"):
            notes.append(
                f"the sex of {len(silent)} speakers is unknown, so they are not balanced by it: "
                + some(silent)
            )
        return notes
