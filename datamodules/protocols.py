"""Protocols: which speakers train, validate and test, by what their files say.

Fold k tests its own group, validates on what the rule says, and trains on the rest; with ``tests:
others`` it trains and validates on its own group and tests the rest; by ``none`` all are trained
on. No speaker is in two parts, unless ``shares`` says in words that, and why, they may be. If it is
not known who speaks, this cannot be shown, and the fold is refused (see :meth:`Protocol.split`).
The files and their keys are in :mod:`.protocol_file`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..zoo.errors import ConfigError, DataError
from ..zoo.speakers import ACCEPT, REFUSE
from . import folds as rules
from .manifest import Utterance
from .protocol_file import ONE_FOLD, ProtocolFile
from .split import PAIRS, PARTS, Split, some, speakers_of, unit_of, without_speaker
from .weak import is_weak

BY_SPEAKER = ("speaker", "session", "source")
"""Ways to deal that keep speakers apart; a corpus, or a split that is given, needs no speaker."""

_OFFICIAL = dict.fromkeys(("valid", "validation", "dev", "development"), "valid")
_OFFICIAL |= {"train": "train", "training": "train", "test": "test"}


class Protocol(ProtocolFile):
    """Folds of a corpus, by what its file says."""

    def n_folds(self, utterances: Sequence[Utterance]) -> int:
        """How many folds there are of these utterances."""
        return 1 if self.by in ONE_FOLD else len(self._groups(utterances))

    def split(
        self, utterances: Sequence[Utterance], fold: int, *, unknown_speakers: str = REFUSE
    ) -> Split:
        """Train, valid and test of one fold, speaker-disjoint unless the protocol says otherwise.

        Args:
            utterances: of the corpora of the protocol; what is not to be used is left out before.
            fold: from 0.
            unknown_speakers: ``refuse`` utterances without a speaker, if the protocol deals by
                speaker, session or source; or ``accept`` them: each is dealt by itself, and nobody
                can tell which speakers the parts share (the audit says so).

        Raises:
            ConfigError: when there is no such fold.
            DataError: utterances of other corpora, unknown speakers, too few speakers, an empty
                part, or a speaker in two parts.
        """
        self._check(utterances, unknown_speakers)
        n = self.n_folds(utterances)
        if not 0 <= fold < n:
            raise ConfigError(
                f"{self.name} has no fold {fold}; have 0 to {n - 1} for this manifest"
            )
        if self.by == "none":
            split = Split(list(utterances), [], [], protocol=self.name, fold=fold)
            return replace(split, unknown_speakers=unknown_speakers)
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
        return Split(
            **parts,
            protocol=self.name,
            fold=fold,
            sharing=self.sharing,
            notes=notes,
            unknown_speakers=unknown_speakers,
        )

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
            return unit_of(u)
        return u.corpus if self.by == "corpus" else f"{u.corpus}/{u.session}"

    def _groups(self, utterances: Sequence[Utterance]) -> list[list[str]]:
        if self.listed:
            return [list(fold) for fold in self.listed]
        if self.dealt:
            if self.by == "source":
                utterances = [u for u in utterances if not is_weak(u)]
            speakers = {unit_of(u) for u in utterances}
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
            return ["train" if is_weak(u) else parts[unit_of(u) in own] for u in utterances]
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
            chosen = {u.id for u in rest if unit_of(u) in speakers}
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

    def _check(self, utterances: Sequence[Utterance], unknown_speakers: str) -> None:
        other = {u.corpus for u in utterances} - set(self.corpora)
        if self.corpora and other:
            raise DataError(
                f"{self.name} is for {', '.join(self.corpora)}; the manifest also holds "
                f"{some(other)}: use protocol=loco for several corpora, protocol=kfold for others"
            )
        if self.by == "session" and (silent := [u.id for u in utterances if not u.session]):
            raise DataError(
                f"{self.name}: {len(silent)} of {len(utterances)} utterances have no session "
                f"({some(silent)}); without it no split can be shown to be disjoint: add it to the "
                "manifest"
            )
        lost = without_speaker(utterances) if self.by in BY_SPEAKER else []
        if self.by == "source":  # who speaks in a corpus that people did not label is nobody there
            human = {u.corpus for u in utterances if not is_weak(u)}
            lost = [u for u in lost if u.corpus in human]
        if not lost:
            return
        told = (
            f"{self.name}: {len(lost)} of {len(utterances)} utterances have no speaker "
            f"({some(u.id for u in lost)}); without it no split can be shown to be disjoint: name "
            "the speakers (options.speaker=... of the readers 'folder' and 'csv', or the manifest)"
        )
        if self.by == "speaker" and not self.dealt:
            raise DataError(f"{told}: this protocol goes by their names")
        if unknown_speakers != ACCEPT:
            raise DataError(
                f"{told}, or set data.unknown_speakers=accept (unknown_speakers=accept of audit, "
                "eval and adapt), which deals such utterances one by one and says so beside every "
                "number"
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
        named = [u for u in utterances if u.speaker]
        silent = [s for s, sex in rules.sexes(named).items() if not sex]
        if silent and (self.dealt or self.validation == "speakers"):
            notes.append(
                f"sex of {len(silent)} speakers unknown, not balanced by it: {some(silent)}"
            )
        return notes
