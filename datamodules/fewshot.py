"""Few-shot supports: k utterances of each class, drawn from the target's training speakers.

A support depends only on the manifest, the protocol, the fold, the taxonomy, the number of shots
and the seed. So every head adapts to the same utterances; all heads share the file of the support.
The supports of one seed are nested: k = 4 contains those of k = 2 and two more of each class. The
query is the protocol's test part. Validation speakers are in neither.

With ``per="speaker"`` a model is made to know its speakers (personalisation). The support is k
utterances of each class of each speaker of the test part. The query is the rest of that part.
So support and query share speakers on purpose, and every number says so. Queries of other numbers
of shots hold other utterances.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..zoo.core.errors import ConfigError, DataError, some
from ..zoo.core.files import read_json, write_json
from ..zoo.core.speakers import REFUSE
from ..zoo.core.taxonomy import Taxonomy
from .audit import audit
from .catalog import open_corpora
from .labels import class_indices, coverage_of, labels_of
from .manifest import Utterance
from .protocols import (
    Protocol,
    Sharing,
    Split,
    listed_speakers,
    speaker_of,
    speakers_of,
    without_speaker,
)
from .speech import SpeechDataModule

MOST_SHOTS = 64
"""Largest number of shots per class; with more, train on the target."""

FORMAT = 1

PER = ("class", "speaker")
"""What k shots are counted for: each class, or each class of each tested speaker."""

PERSONAL = Sharing(("train", "test"), "the support is of the tested speakers (per=speaker)")


@dataclass(frozen=True)
class Support:
    """The utterances to which a model is adapted.

    Attributes:
        manifest: hash of the target's utterances.
        protocol: name and version of the protocol.
        fold: number of the fold, from 0.
        taxonomy: fingerprint of the classes.
        label: the label column.
        shots: requested number of utterances per class.
        draw: the seed.
        ids: ids of each class, in the order of the draw; the first k are the support of k shots.
        short: classes with fewer utterances, and their numbers.
        per: what the shots are counted for, one of :data:`PER`.
    """

    manifest: str
    protocol: str
    fold: int
    taxonomy: str
    label: str
    shots: int
    draw: int
    ids: dict[str, list[str]]
    short: dict[str, int] = field(default_factory=dict)
    per: str = "class"

    def __len__(self) -> int:
        return sum(map(len, self.ids.values()))

    @property
    def sha(self) -> str:
        """12 hexadecimal digits of a hash of all fields."""
        text = json.dumps(self._facts(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def file_name(self) -> str:
        """The name of the file in a folder of supports."""
        drawn = f"k{self.shots}{'s' if self.per == 'speaker' else ''}-d{self.draw}"
        return f"{self.protocol}-f{self.fold}-{drawn}-{self.manifest[:6]}-{self.taxonomy[:6]}.json"

    def _facts(self) -> dict[str, Any]:
        """Return all fields; ``per`` is left out if it is ``class``, as in older files."""
        facts = asdict(self)
        if self.per == "class":
            del facts["per"]
        return facts

    def write(self, folder: Path) -> Path:
        """Write it into a folder of supports, unless it is there already.

        Raises:
            DataError: if the file of this name holds another support.
        """
        path = folder / self.file_name
        if path.is_file():
            if Support.read(path) != self:
                raise DataError(
                    f"{path} holds a support of other data; remove it, or choose another folder "
                    "with supports=FOLDER"
                )
            return path
        write_json(path, {"serzoo": "support", "format": FORMAT, **self._facts()})
        return path

    @classmethod
    def read(cls, path: str | Path) -> Support:
        """Read a support from a file.

        Raises:
            DataError: if the file is missing or damaged, or is not a support.
        """
        path = Path(path)
        try:
            content = read_json(path, remedy="give a file that `serzoo adapt` wrote")
            if content.pop("serzoo") != "support" or content.pop("format") != FORMAT:
                raise ValueError("another kind or format")
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not the file of a support ({error}); give a file that `serzoo adapt` "
                "wrote"
            ) from error


def draw_ids(
    pool: Sequence[Utterance], classes: Sequence[int], n_classes: int, shots: int, draw: int
) -> list[list[str]]:
    """Return the ids of the first ``shots`` utterances of each class, in an order by the seed.

    A hash of seed and id gives the order. So it depends neither on the manifest's order nor on
    other classes. If recordings are equal sample for sample, only one is taken.
    """
    found: list[list[str]] = [[] for _ in range(n_classes)]
    heard: set[str] = set()

    def place(u: Utterance) -> str:
        return hashlib.sha256(f"{draw}\n{u.id}".encode()).hexdigest()

    for u, c in sorted(zip(pool, classes, strict=True), key=lambda pair: place(pair[0])):
        if u.sha is not None and u.sha in heard:
            continue
        if u.sha is not None:
            heard.add(u.sha)
        if len(found[c]) < shots:
            found[c].append(u.id)
    return found


def draw_per_speaker(
    pool: Sequence[Utterance], classes: Sequence[int], n_classes: int, shots: int, draw: int
) -> list[list[str]]:
    """Return the ids of the first ``shots`` utterances of each class of each speaker.

    See :func:`draw_ids`. The first utterances of all speakers come first, then the second ones. So
    supports of one seed are nested.

    Raises:
        DataError: if the speaker of an utterance is unknown.
    """
    if silent := [u.id for u in without_speaker(pool)]:
        raise DataError(
            f"per=speaker: {len(silent)} of {len(pool)} utterances have no speaker "
            f"({some(silent)}); name the speakers, or use per=class"
        )
    rows: dict[str, list[int]] = defaultdict(list)
    for i, u in enumerate(pool):
        rows[speaker_of(u)].append(i)
    each = [
        draw_ids([pool[i] for i in mine], [classes[i] for i in mine], n_classes, shots, draw)
        for _, mine in sorted(rows.items())
    ]
    return [
        [ids[c][k] for k in range(shots) for ids in each if k < len(ids[c])]
        for c in range(n_classes)
    ]


@dataclass(frozen=True)
class FewShot:
    """A support and its query, as batches.

    Attributes:
        data: its training part is the support, its test part the query; it has no validation.
        support: the drawn support.
        split: fingerprint of the protocol's parts, the same for all supports.
        taxonomy: the target's classes.
        notes: facts that its reader should know.
    """

    data: SpeechDataModule
    support: Support
    split: dict[str, str]
    taxonomy: Taxonomy
    notes: list[str]


def open_few_shot(
    corpora: Sequence[str],
    *,
    protocol: str,
    fold: int,
    taxonomy: Taxonomy,
    shots: int,
    draw: int,
    given: Support | None = None,
    restrict: bool = False,
    root: str | None = None,
    manifest: str | None = None,
    options: dict[str, Any] | None = None,
    label: str = "label",
    progress: bool = False,
    unknown_speakers: str = REFUSE,
    per: str = "class",
    **batching: Any,
) -> FewShot:
    """Draw a support and open it with its query.

    If training speakers have fewer than ``shots`` utterances of a class, all of them are taken.
    ``support.short`` and the notes say so.

    Args:
        corpora: names of the corpora; with a manifest, the corpora to keep of it.
        protocol: protocol of the target.
        fold: fold of the protocol.
        taxonomy: the target's classes.
        shots: number of utterances of each class, 0 to 64; 0 = only a query.
        draw: seed of the support.
        given: a support to use instead; its ids must be in the protocol's training part.
        restrict: leave out classes that training speakers do not have; otherwise an error.
        root: folder of the corpus.
        manifest: a prepared manifest.
        options: options of the corpus' reader.
        label: the column that holds the label.
        progress: show a bar while files are decoded.
        unknown_speakers: see :meth:`.Protocol.split`.
        per: ``class``, or ``speaker``: the shots are of each speaker of the test part.
        batching: as for :class:`SpeechDataModule`.

    Raises:
        ConfigError: if the number of shots is out of range.
        DataError: if a class has no utterance, or a given support is of other data. Also if
            support and query share a speaker or a recording.
    """
    check_shots(shots)
    if per not in PER:
        raise ConfigError(f"per is '{per}'; have {', '.join(PER)}")
    speech = open_corpora(corpora, root=root, manifest=manifest, options=options, progress=progress)
    classes = class_indices(speech.utterances, taxonomy, label)
    kept = [u for u, c in zip(speech.utterances, classes, strict=True) if c >= 0]
    if not kept:
        raise DataError(
            f"no utterance of the target is of the classes {', '.join(taxonomy.classes)}; choose a "
            "taxonomy of its labels"
        )
    rule = Protocol.load(protocol)
    split = rule.split(kept, fold, unknown_speakers=unknown_speakers)
    notes: list[str] = list(split.notes)
    if restrict:
        here = set(class_indices(split.train, taxonomy, label))
        gone = [c for i, c in enumerate(taxonomy.classes) if i not in here]
        if gone:
            members = [m for m in taxonomy.members if m[0] not in gone]
            taxonomy = Taxonomy(f"{taxonomy.name} without {', '.join(gone)}", tuple(members))
            keep = class_indices(kept, taxonomy, label)
            kept = [u for u, c in zip(kept, keep, strict=True) if c >= 0]
            split = rule.split(kept, fold, unknown_speakers=unknown_speakers)
            notes.append(f"left out, since the target does not have them: {', '.join(gone)}")
    personal = per == "speaker"
    pool = split.test if personal else split.train
    fixed = {
        "manifest": speech.sha,
        "protocol": split.protocol,
        "fold": fold,
        "taxonomy": taxonomy.fingerprint,
        "label": label,
    }
    indices = class_indices(pool, taxonomy, label)
    if given is None:
        given = _draw(pool, indices, taxonomy, shots, draw, {**fixed, "per": per})
    else:
        _check(given, {**fixed, "shots": shots, "per": per}, pool, indices, taxonomy)
    if given.short:
        few = ", ".join(f"{n} of {c}" for c, n in given.short.items())
        notes.append(
            f"{given.shots} shots are requested, but {'tested' if personal else 'training'} "
            f"speakers have only {few}; these are all used"
        )
    chosen = {i for ids in given.ids.values() for i in ids}
    parts = Split(
        train=[u for u in pool if u.id in chosen],
        valid=[],
        test=_rest(split.test, chosen) if personal else split.test,
        protocol=split.protocol,
        fold=fold,
        sharing=PERSONAL if personal else None,
        notes=notes,
        unknown_speakers=unknown_speakers,
    )
    if not parts.test:
        raise DataError(
            f"{given.shots} shots of each class of each speaker are all of the {len(pool)} test "
            "utterances, and none is left for the query; give fewer shots"
        )
    if personal and given.shots:
        n = len(speakers_of(parts.train) & speakers_of(parts.test))
        notes.append(f"support and query share {n} speakers: {PERSONAL.why}")
    report = audit(parts)  # even if the protocol allows common speakers
    if not report.ok:
        raise DataError(
            f"support and query of {split.protocol}, fold {fold}: {'; '.join(report.errors)}"
        )
    coverage = coverage_of(labels_of(speech.utterances, label), taxonomy)
    about: dict[str, Any] = {"label": label, "coverage": coverage, "audit": report}
    data = SpeechDataModule(speech, parts, taxonomy, **about, **batching)
    return FewShot(data, given, split.fingerprint(), taxonomy, notes)


def _rest(tested: Sequence[Utterance], chosen: set[str]) -> list[Utterance]:
    """Return the utterances that are not in the support, nor equal to one sample for sample."""
    heard = {u.sha for u in tested if u.id in chosen and u.sha is not None}
    return [u for u in tested if u.id not in chosen and (u.sha is None or u.sha not in heard)]


def _draw(
    pool: Sequence[Utterance],
    indices: Sequence[int],
    taxonomy: Taxonomy,
    shots: int,
    draw: int,
    fixed: dict[str, Any],
) -> Support:
    personal = fixed["per"] == "speaker"
    rule = draw_per_speaker if personal else draw_ids
    ids = rule(pool, indices, len(taxonomy), shots, draw)
    whole = shots * (len(speakers_of(pool)) if personal else 1)
    if shots and (absent := [c for c, i in zip(taxonomy.classes, ids, strict=True) if not i]):
        raise DataError(
            f"{'tested' if personal else 'training'} speakers of {fixed['protocol']}, fold "
            f"{fixed['fold']}, have no utterance of {', '.join(absent)}; choose a taxonomy of "
            "their labels"
        )
    short = {c: len(i) for c, i in zip(taxonomy.classes, ids, strict=True) if len(i) < whole}
    named = dict(zip(taxonomy.classes, ids, strict=True))
    return Support(**fixed, shots=shots, draw=draw, ids=named, short=short)


def _check(
    given: Support,
    fixed: dict[str, Any],
    pool: Sequence[Utterance],
    indices: Sequence[int],
    taxonomy: Taxonomy,
) -> None:
    for key, value in fixed.items():
        if getattr(given, key) != value:
            raise DataError(
                f"the given support has {key} {getattr(given, key)}, but the target has {key} "
                f"{value}; give a support of the same data, protocol, fold, taxonomy and shots, or "
                "leave it out"
            )
    known: dict[str, set[str]] = defaultdict(set)
    for u, c in zip(pool, indices, strict=True):
        known[taxonomy.classes[c]].add(u.id)
    wrong = {i for c, ids in given.ids.items() for i in ids if i not in known[c]}
    if wrong:
        raise DataError(
            f"{len(wrong)} utterances of the given support ({some(wrong)}) are not utterances of "
            f"their class by the training speakers ({some(listed_speakers(pool))}); give another "
            "support"
        )


def check_shots(shots: int) -> None:
    """Check that the number of shots is in range.

    Raises:
        ConfigError: if it is not; the message gives the range.
    """
    if not 0 <= shots <= MOST_SHOTS:
        raise ConfigError(
            f"shots={shots}; give 0 (no adaptation) to {MOST_SHOTS} utterances of each class"
        )
