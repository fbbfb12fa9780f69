"""Few-shot supports: k utterances of each class, of the target's training speakers, by a seed.

A support depends on the manifest, the protocol, the fold, the taxonomy, the number of shots and
the seed, and on nothing else: every head adapts to the same utterances. It is written to a file
that all of them share. The supports of one seed are nested: k = 4 holds those of k = 2 and two
more of each class. The query is the protocol's test part; validation speakers are in neither.
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
from .info import CorpusInfo
from .labels import class_indices
from .manifest import Utterance
from .protocols import Protocol, Split, listed_speakers
from .speech import SpeechDataModule

MOST_SHOTS = 64
"""Of a class; with more, train on the target."""

FORMAT = 1


@dataclass(frozen=True)
class Support:
    """What a model is adapted to.

    Attributes:
        manifest: hash of the target's utterances.
        protocol: name and version.
        fold: from 0.
        taxonomy: fingerprint of the classes.
        label: the column that they are of.
        shots: utterances of each class that were asked for.
        draw: the seed.
        ids: of each class, in the order drawn: the first k are the support of k shots.
        short: classes of which there were fewer, and how many there were.
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
        """12 hexadecimal digits of all of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def file_name(self) -> str:
        """What the file is called in a folder of supports."""
        drawn = f"k{self.shots}-d{self.draw}"
        return f"{self.protocol}-f{self.fold}-{drawn}-{self.manifest[:6]}-{self.taxonomy[:6]}.json"

    def write(self, folder: Path) -> Path:
        """Write it into a folder of supports, unless it is there.

        Raises:
            DataError: when another support lies under its name.
        """
        path = folder / self.file_name
        if path.is_file():
            if Support.read(path) != self:
                raise DataError(
                    f"{path} holds another support than this draw of these data gives; remove it, "
                    "or choose another folder (supports=FOLDER)"
                )
            return path
        write_json(path, {"serzoo": "support", "format": FORMAT, **asdict(self)})
        return path

    @classmethod
    def read(cls, path: str | Path) -> Support:
        """The support in a file.

        Raises:
            DataError: when it is missing, damaged, or none.
        """
        path = Path(path)
        try:
            content = read_json(path, remedy="give a file that `serzoo adapt` wrote")
            if content.pop("serzoo") != "support" or content.pop("format") != FORMAT:
                raise ValueError("another kind or format")
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} holds no support ({error}); give a file that `serzoo adapt` wrote"
            ) from error


def draw_ids(
    pool: Sequence[Utterance], classes: Sequence[int], n_classes: int, shots: int, draw: int
) -> list[list[str]]:
    """Ids of the first ``shots`` of each class, in an order that the seed alone decides.

    The order is that of a hash of seed and id, so that neither the manifest's order nor another
    class has a part in it. Of recordings that are equal sample for sample one is taken.
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
        data: its training part is the support, its test part the query; nothing validates.
        support: what was drawn.
        split: fingerprint of the protocol's parts, which all supports have in common.
        taxonomy: the target's classes.
        notes: what its reader should know.
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

    Where training speakers have fewer than ``shots`` utterances of a class, all of them are taken,
    and ``support.short`` and the notes say so.

    Args:
        corpora: names; those of the manifest to keep, where there is one.
        protocol: of the target.
        fold: of the protocol.
        taxonomy: the target's classes.
        shots: of each class, 0 to 64; 0 = a query only.
        draw: seed of the support.
        given: a support to use instead, whose ids must be of the protocol's training part.
        restrict: leave out classes that training speakers do not have, instead of an error.
        root: folder of the corpus.
        manifest: a prepared manifest.
        options: keywords of the corpus' reader.
        label: the column that holds the label.
        progress: show a bar while files are decoded.
        unknown_speakers: see :meth:`.Protocol.split`.
        batching: as for :class:`SpeechDataModule`.

    Raises:
        ConfigError: for a number of shots out of range.
        DataError: for a class without an utterance, a speaker or a recording in support and query,
            or a given support of other data.
    """
    check_shots(shots)
    speech = open_corpora(corpora, root=root, manifest=manifest, options=options, progress=progress)
    classes = class_indices(speech.utterances, taxonomy, label)
    kept = [u for u, c in zip(speech.utterances, classes, strict=True) if c >= 0]
    if not kept:
        raise DataError(
            f"no utterance of the target is of {', '.join(taxonomy.classes)}; choose a taxonomy of "
            "its labels"
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
        notes.append(f"{given.shots} shots asked for, but training speakers have only {few}: all")
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
    report = audit(parts)  # without the protocol's leave to share speakers
    if not report.ok:
        raise DataError(
            f"support and query of {split.protocol}, fold {fold}: {'; '.join(report.errors)}"
        )
    data = SpeechDataModule(speech, parts, taxonomy, label=label, **batching)
    infos = {c: CorpusInfo.load(c) for c in {u.corpus for u in speech.utterances}}
    names = [infos[u.corpus].canonical_label(u, label) for u in speech.utterances]
    data.coverage = taxonomy.coverage(name or "(no label)" for name in names)
    data.audit = report
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
            f"{', '.join(absent)}; choose a taxonomy of what they have"
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
                f"the given support is of {key} {getattr(given, key)}, but this is {key} {value}; "
                "give the same data, protocol, fold, taxonomy and shots, or leave support out"
            )
    known: dict[str, set[str]] = defaultdict(set)
    for u, c in zip(pool, indices, strict=True):
        known[taxonomy.classes[c]].add(u.id)
    wrong = {i for c, ids in given.ids.items() for i in ids if i not in known[c]}
    if wrong:
        raise DataError(
            f"{len(wrong)} utterances of the given support ({some(wrong)}) are not of its class "
            f"among the training speakers ({some(listed_speakers(pool))})"
        )


def check_shots(shots: int) -> None:
    """Refuse a number of shots out of range.

    Raises:
        ConfigError: saying what it may be.
    """
    if not 0 <= shots <= MOST_SHOTS:
        raise ConfigError(
            f"shots={shots}; give 0 (as it is) to {MOST_SHOTS} utterances of each class"
        )
