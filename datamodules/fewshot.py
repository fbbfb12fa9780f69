"""Few-shot supports: k utterances of each class, drawn from the target's training speakers.

A support depends only on the manifest, the protocol, the fold, the taxonomy, the number of shots
and the seed. So every head adapts to the same utterances; all heads share the file of the support.
The supports of one seed are nested: k = 4 contains those of k = 2 and two more of each class. The
query is the protocol's test part. Validation speakers are in neither.
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
from .protocols import Protocol, Split, listed_speakers
from .speech import SpeechDataModule

MOST_SHOTS = 64
"""Largest number of shots per class; with more, train on the target."""

FORMAT = 1


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

    def __len__(self) -> int:
        return sum(map(len, self.ids.values()))

    @property
    def sha(self) -> str:
        """12 hexadecimal digits of a hash of all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def file_name(self) -> str:
        """The name of the file in a folder of supports."""
        drawn = f"k{self.shots}-d{self.draw}"
        return f"{self.protocol}-f{self.fold}-{drawn}-{self.manifest[:6]}-{self.taxonomy[:6]}.json"

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
        write_json(path, {"serzoo": "support", "format": FORMAT, **asdict(self)})
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
        batching: as for :class:`SpeechDataModule`.

    Raises:
        ConfigError: if the number of shots is out of range.
        DataError: if a class has no utterance, or a given support is of other data. Also if
            support and query share a speaker or a recording.
    """
    check_shots(shots)
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
    pool = split.train
    fixed = {
        "manifest": speech.sha,
        "protocol": split.protocol,
        "fold": fold,
        "taxonomy": taxonomy.fingerprint,
        "label": label,
    }
    indices = class_indices(pool, taxonomy, label)
    if given is None:
        given = _draw(pool, indices, taxonomy, shots, draw, fixed)
    else:
        _check(given, {**fixed, "shots": shots}, pool, indices, taxonomy)
    if given.short:
        few = ", ".join(f"{n} of {c}" for c, n in given.short.items())
        notes.append(
            f"{given.shots} shots are requested, but training speakers have only {few}; these are "
            "all used"
        )
    chosen = {i for ids in given.ids.values() for i in ids}
    parts = Split(
        train=[u for u in pool if u.id in chosen],
        valid=[],
        test=split.test,
        protocol=split.protocol,
        fold=fold,
        notes=notes,
        unknown_speakers=unknown_speakers,
    )
    report = audit(parts)  # even if the protocol allows common speakers
    if not report.ok:
        raise DataError(
            f"support and query of {split.protocol}, fold {fold}: {'; '.join(report.errors)}"
        )
    coverage = coverage_of(labels_of(speech.utterances, label), taxonomy)
    about: dict[str, Any] = {"label": label, "coverage": coverage, "audit": report}
    data = SpeechDataModule(speech, parts, taxonomy, **about, **batching)
    return FewShot(data, given, split.fingerprint(), taxonomy, notes)


def _draw(
    pool: Sequence[Utterance],
    indices: Sequence[int],
    taxonomy: Taxonomy,
    shots: int,
    draw: int,
    fixed: dict[str, Any],
) -> Support:
    ids = draw_ids(pool, indices, len(taxonomy), shots, draw)
    if shots and (absent := [c for c, i in zip(taxonomy.classes, ids, strict=True) if not i]):
        raise DataError(
            f"training speakers of {fixed['protocol']}, fold {fixed['fold']}, have no utterance of "
            f"{', '.join(absent)}; choose a taxonomy of their labels"
        )
    short = {c: len(i) for c, i in zip(taxonomy.classes, ids, strict=True) if len(i) < shots}
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
