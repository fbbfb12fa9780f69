"""The leakage audit: does training contain speakers or recordings of the test part?

A speaker or a recording in two parts makes a score meaningless, so it is an error. A speaker is no
error if the protocol says in words that it is shared. If speakers are unknown, the audit cannot
check them, and the report says so. Common sentences are usual in acted corpora; the report counts
them, because a model may learn the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..zoo.core.errors import counted, some
from ..zoo.core.speakers import ACCEPT, cannot_tell
from .manifest import Utterance, by_sha
from .protocols import (
    PAIRS,
    PARTS,
    Split,
    listed_speakers,
    sentence,
    speaker_of,
    speakers_of,
    without_speaker,
)

# so many utterances with one speaker each do not look like an emotion corpus (our choice)
MADE_UP = 20


@dataclass
class AuditReport:
    """The findings of an audit.

    Attributes:
        protocol: name and version of the protocol.
        fold: number of the fold, from 0.
        errors: why the split must not be used; empty if it may be used.
        unsure: what could not be checked, so that the split may be bad; empty if all was checked.
        notes: facts that a reader of the numbers should know.
        counts: number of everything that was checked, by name.
        split: fingerprint of each part.
    """

    protocol: str
    fold: int
    errors: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    split: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the split may be used."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for a record."""
        return {
            "protocol": self.protocol,
            "fold": self.fold,
            "ok": self.ok,
            "errors": list(self.errors),
            **({"unsure": list(self.unsure)} if self.unsure else {}),
            "notes": list(self.notes),
            "counts": dict(self.counts),
            "split": dict(self.split),
        }

    def __str__(self) -> str:
        c = self.counts
        sizes = ", ".join(
            f"{p} {counted(c[f'{p}_utterances'], 'utterance')} of "
            + _people(c[f"{p}_speakers"], c[f"{p}_without_speaker"])
            for p in PARTS
        )
        state = "FAILED" if self.errors else "unknown" if self.unsure else "passed"
        lines = [f"{self.protocol} fold {self.fold}: {state} ({sizes})"]
        lines += [f"  error: {e}" for e in self.errors]
        lines += [f"  unknown: {u}" for u in self.unsure]
        lines += [f"  note: {n}" for n in self.notes]
        return "\n".join(lines)


def lines(reports: Sequence[AuditReport]) -> list[str]:
    """Return the reports of a protocol's folds as lines of text; the last one counts leakage."""
    bad = sum(not r.ok for r in reports)
    unsure = sum(r.ok and bool(r.unsure) for r in reports)
    more = f", {unsure} that cannot be checked: not every speaker is known" if unsure else ""
    return [
        *(f"fold {fold}: {report}" for fold, report in enumerate(reports)),
        f"{len(reports)} folds, {bad} with leakage{more}",
    ]


def passed(reports: Sequence[AuditReport], unknown_speakers: str | None = None) -> bool:
    """Return whether every fold may be used.

    Args:
        reports: the reports of a protocol's folds.
        unknown_speakers: with ``accept``, a fold also passes if unknown speakers prevent a check.
    """
    return all(r.ok and (not r.unsure or unknown_speakers == ACCEPT) for r in reports)


def _people(known: int, lost: int) -> str:
    if not lost:
        return counted(known, "speaker")
    if not known:
        return "unknown speakers"
    return f"{counted(known, 'speaker')}, and {counted(lost, 'utterance')} without a speaker"


def audit(split: Split) -> AuditReport:
    """Report speakers, utterances, recordings and sentences that parts of a split share.

    A hash of the decoded samples finds identical audio. Sentences are compared without case,
    punctuation and spacing.
    """
    report = AuditReport(split.protocol, split.fold, split=split.fingerprint())
    report.notes += split.notes
    parts = dict(split.parts())
    for part, utterances in parts.items():
        report.counts[f"{part}_utterances"] = len(utterances)
        report.counts[f"{part}_speakers"] = len(speakers_of(utterances))
        report.counts[f"{part}_without_speaker"] = len(without_speaker(utterances))
        _within(report, part, utterances)
    for a, b in PAIRS:
        _speakers(report, split, a, b)
        _recordings(report, a, b, parts[a], parts[b])
        _sentences(report, a, b, parts[a], parts[b])
    _unknown(report, split)
    everyone = [u for us in parts.values() for u in us]
    who = [speaker_of(u) for u in everyone if u.speaker]
    if len(who) >= MADE_UP and len(set(who)) == len(who):
        report.notes.append(
            f"each of {len(who)} utterances has a speaker of its own; if these names are made up, "
            "parts may still share people: write null in the manifest for an unknown speaker"
        )
    unhashed = sum(u.sha is None for u in everyone)
    report.counts["without_sha"] = unhashed
    if unhashed:
        report.notes.append(
            f"{unhashed} of {len(everyone)} utterances have no hash of their samples, so they were "
            "not searched for identical audio; prepare the corpus again to add the hashes"
        )
    silent = sum(not sentence(u.text) for u in everyone)
    report.counts["without_text"] = silent
    if silent:
        report.notes.append(
            f"{silent} of {len(everyone)} utterances have no transcript, so their sentences were "
            "not compared"
        )
    return report


def _within(report: AuditReport, part: str, utterances: Sequence[Utterance]) -> None:
    repeated = len(utterances) - len({u.id for u in utterances})
    if repeated:
        report.errors.append(
            f"{part} holds {repeated} utterances twice (same id); give each id to one utterance"
        )
    groups = [g for g in by_sha(utterances).values() if len(g) > 1]
    report.counts[f"{part}_duplicates"] = sum(len(g) - 1 for g in groups)
    if groups:
        names = [" = ".join(sorted(u.id for u in g)) for g in groups]
        differ = sum(len({u.label for u in g}) > 1 for g in groups)
        report.notes.append(
            f"{part} holds the same audio under {len(groups)} sets of ids: {some(names)}"
            + (f"; the labels differ in {differ}" if differ else "")
        )


def _speakers(report: AuditReport, split: Split, a: str, b: str) -> None:
    parts = dict(split.parts())
    shared = speakers_of(parts[a]) & speakers_of(parts[b])
    report.counts[f"{a}_{b}_speakers"] = len(shared)
    if shared and not (split.sharing and split.sharing.allows(a, b)):
        report.errors.append(
            f"{a} and {b} share {len(shared)} speakers ({some(shared)}); scores are not "
            "speaker-independent: split by speaker"
        )


def _unknown(report: AuditReport, split: Split) -> None:
    """Note which parts may share speakers, because speakers are unknown."""
    parts = dict(split.parts())
    lists = {part: listed_speakers(us) for part, us in parts.items()}
    pairs = [
        {a, b}
        for a, b in PAIRS
        if cannot_tell(lists[a], lists[b]) and not (split.sharing and split.sharing.allows(a, b))
    ]
    touched = [part for part in PARTS if any(part in pair for pair in pairs)]
    if not touched:
        return
    among = [u for part in touched for u in parts[part]]
    report.unsure.append(
        f"whether {', '.join(touched[:-1])} and {touched[-1]} share speakers: the speaker of "
        f"{len(without_speaker(among))} of {len(among)} utterances is not known"
        + (" (unknown_speakers=accept)" if split.unknown_speakers == ACCEPT else "")
    )


def _recordings(
    report: AuditReport, a: str, b: str, first: Sequence[Utterance], second: Sequence[Utterance]
) -> None:
    ids = {u.id for u in first} & {u.id for u in second}
    report.counts[f"{a}_{b}_utterances"] = len(ids)
    if ids:
        report.errors.append(
            f"{len(ids)} utterances are in both {a} and {b} ({some(ids)}); keep each in one part"
        )
    mine, other = by_sha(first), by_sha(second)
    same = sorted(mine.keys() & other.keys())
    pairs = [f"{mine[s][0].id} = {other[s][0].id}" for s in same]
    report.counts[f"{a}_{b}_recordings"] = len(same)
    if same:
        report.errors.append(
            f"{len(same)} recordings are in both {a} and {b}, sample for sample ({some(pairs)}); "
            "leave one of each pair out of the manifest"
        )


def _sentences(
    report: AuditReport, a: str, b: str, first: Sequence[Utterance], second: Sequence[Utterance]
) -> None:
    heard = {s for u in first if (s := sentence(u.text))}
    again = [s for u in second if (s := sentence(u.text)) in heard]
    report.counts[f"{a}_{b}_sentences"] = len(set(again))
    report.counts[f"{a}_{b}_utterances_with_shared_sentence"] = len(again)
    # no model learns from sentences that only validation and test share
    if again and a == "train":
        report.notes.append(
            f"{len(again)} of {len(second)} {b} utterances have one of {len(set(again))} "
            "sentences heard in training"
        )
