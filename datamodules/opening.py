"""Open corpora by a protocol: prepare, label and split them, and audit every fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..zoo.core.errors import ConfigError, DataError
from ..zoo.core.speakers import ACCEPT, REFUSE, UNKNOWN_SPEAKERS
from ..zoo.core.taxonomy import Taxonomy
from .audit import AuditReport, audit
from .catalog import open_corpora
from .info import CorpusInfo
from .labelling.select import with_weak
from .labels import (
    auto_taxonomy,
    class_indices,
    coverage_of,
    labels_of,
    refuse_unlabelled,
    refuse_weak,
)
from .manifest import read_manifest, read_sidecar
from .prepare import beside, tell_notes
from .protocols import Protocol, Split
from .speech import SpeechDataModule


def open_data(
    corpora: Sequence[str],
    *,
    protocol: str | None,
    fold: int = 0,
    taxonomy: Taxonomy | None,
    root: str | None = None,
    manifest: str | None = None,
    options: dict[str, Any] | None = None,
    label: str = "label",
    progress: bool = False,
    weak: str = "hard",
    weak_shuffle: int | None = None,
    unknown_speakers: str = REFUSE,
    **batching: Any,
) -> SpeechDataModule:
    """Return the data module of corpora: prepare, label and split them, and audit the split.

    Without a protocol all utterances are the test part.

    Args:
        corpora: their names; with the other arguments as for :func:`.catalog.open_corpora`.
        protocol: name of the protocol; None = no split.
        fold: fold of the protocol, from 0.
        taxonomy: the classes; None = the labels found.
        root: folder of the corpus.
        manifest: a manifest to read instead.
        options: options of the reader.
        label: the column that holds the label.
        progress: show bars.
        weak: see :class:`.SpeechDataModule`.
        weak_shuffle: seed of a permutation of the weak labels; None = no permutation.
        unknown_speakers: see :meth:`.Protocol.split`.
        **batching: further arguments of :class:`.SpeechDataModule`.

    Raises:
        DataError: if the audit of the split fails, or its validation or test part has weak
            labels. Also if the data have another fault.
    """
    speech = open_corpora(corpora, root=root, manifest=manifest, options=options, progress=progress)
    if weak != "hard" or weak_shuffle is not None:
        speech = with_weak(speech, manifest, taxonomy, weak, weak_shuffle)
    labels = labels_of(speech.utterances, label)
    refuse_unlabelled(labels, label)
    taxonomy = taxonomy or auto_taxonomy(speech.utterances, label)
    coverage = coverage_of(labels, taxonomy)
    kept = [
        u
        for u, name in zip(speech.utterances, labels, strict=True)
        if name is not None and taxonomy.class_of(name) is not None
    ]
    if not kept:
        raise DataError(f"taxonomy '{taxonomy.name}' {coverage}; choose another taxonomy")
    if protocol is None:
        split = Split(train=[], valid=[], test=kept)
    else:
        rule = Protocol.load(protocol)
        split = rule.split(kept, fold, unknown_speakers=unknown_speakers)
    report = audit(split)
    if not report.ok:
        raise DataError(f"the audit of {protocol}, fold {fold}, fails: " + "; ".join(report.errors))
    for part in ("valid", "test") if protocol else ():
        refuse_weak(part, getattr(split, part), label)
    about: dict[str, Any] = {"label": label, "weak": weak, "coverage": coverage, "audit": report}
    return SpeechDataModule(speech, split, taxonomy, **about, **batching)


def audit_corpus(
    source: str,
    *,
    protocol: str | None = None,
    taxonomy: str | None = None,
    root: str | None = None,
    label: str = "label",
    options: dict[str, Any] | None = None,
    unknown_speakers: str = REFUSE,
    progress: bool = False,
) -> list[AuditReport]:
    """Return the audit report of every fold of a protocol, for `serzoo audit`.

    Utterances without a speaker are always assigned to a part. The reports then say what cannot
    be checked.

    Args:
        source: a manifest, or the name of a corpus.
        protocol: name of the protocol; by default that of the corpus.
        taxonomy: keep only its classes; by default all utterances.
        root: folder of the corpus.
        label: the column that the taxonomy looks at.
        options: keywords of the corpus' reader.
        unknown_speakers: ``accept`` is written into the reports.
        progress: show a bar while files are decoded.

    Raises:
        ConfigError: for an unknown name of a protocol or taxonomy, or another ``unknown_speakers``.
        DataError: for anything wrong with the data.
    """
    if unknown_speakers not in UNKNOWN_SPEAKERS:
        raise ConfigError(
            f"unknown_speakers is '{unknown_speakers}'; have {', '.join(UNKNOWN_SPEAKERS)}"
        )
    if label != "label" and taxonomy is None:
        raise ConfigError(
            f"label={label} is a column that a taxonomy reads, and none was named; add "
            "taxonomy=NAME, or leave label= out"
        )
    if source.endswith(".jsonl"):
        path = Path(source)
        if root is not None and not Path(root).is_dir():
            raise DataError(
                f"no folder {root}; set root to the folder of the audio, or leave it out"
            )
        utterances = read_manifest(path)
        tell_notes(
            path.name,
            read_sidecar(beside(path, ".json")).get("notes", {}),
            beside(path, ".refused.jsonl"),
        )
    else:
        speech = open_corpora([source], root=root, options=options, progress=progress)
        utterances = speech.utterances
    corpora = sorted({u.corpus for u in utterances})
    if protocol is None:
        protocol = CorpusInfo.load(corpora[0]).protocol if len(corpora) == 1 else "loco"
    if taxonomy is not None:
        classes = class_indices(utterances, Taxonomy.load(taxonomy), label)
        utterances = [u for u, c in zip(utterances, classes, strict=True) if c >= 0]
    rule = Protocol.load(protocol or "kfold")
    splits = [
        rule.split(utterances, f, unknown_speakers=ACCEPT) for f in range(rule.n_folds(utterances))
    ]
    return [audit(replace(s, unknown_speakers=unknown_speakers)) for s in splits]
