"""`serzoo corpus add` and `serzoo corpus export`: a corpus of your own gets a name, and goes out.

:func:`add` writes the YAML file of a corpus (:mod:`.corpora.own`). :func:`export` writes a corpus
for another tool.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..zoo.core import registry
from ..zoo.core.errors import ConfigError, DataError, counted, some, tally
from ..zoo.core.files import check_place, write_text
from ..zoo.core.taxonomy import Taxonomy, canonical
from .catalog import folder_of, open_corpora
from .corpora.own import Description, reader_of
from .importers.audformat import to_audformat
from .importers.lhotse import to_lhotse
from .info import CorpusInfo
from .prepare import read_corpus
from .protocols import Protocol


@dataclass(frozen=True)
class Found:
    """What a description finds, before any audio is decoded.

    Attributes:
        name: name of the corpus.
        file: its YAML file.
        root: folder of the recordings.
        utterances: number of utterances.
        labels: number of utterances by label.
        meanings: canonical label of each label; None = left out on purpose.
        speakers: number of utterances by speaker.
        genders: number of utterances by gender.
        texts: number of utterances with a transcript.
        unlabelled: number of utterances without a label.
        unknown_speakers: number of utterances without a speaker.
        notes: what the reader left out or could not tell.
    """

    name: str
    file: Path
    root: Path
    utterances: int
    labels: dict[str, int]
    meanings: dict[str, str | None]
    speakers: dict[str, int]
    genders: dict[str, int]
    texts: int
    unlabelled: int
    unknown_speakers: int
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain containers."""
        return {**vars(self), "file": str(self.file), "root": str(self.root)}

    def lines(self) -> list[str]:
        """Return what was found, for people."""
        said = [
            f"{label} {n}"
            if self.meanings.get(label) == label
            else f"{label} {n} ({self.meanings.get(label) or 'left out'})"
            for label, n in self.labels.items()
        ]
        per = sorted(self.speakers.values())
        each = f" with {per[0]} to {per[-1]} utterances each" if per else ""
        unknown = f"; {self.unknown_speakers} unknown" if self.unknown_speakers else ""
        return [
            f"{self.name}: {counted(self.utterances, 'utterance')} under {self.root}",
            f"labels: {', '.join(said) or 'none'}"
            + (f"; {self.unlabelled} without one" if self.unlabelled else ""),
            f"speakers: {len(self.speakers)}{each}{unknown}",
            f"genders: {tally(self.genders) or 'unknown'}",
            f"transcripts: {self.texts}",
            f"written: {self.file}",
            f"next: serzoo prepare {self.name}, then serzoo train {self.name}",
        ]


def add(
    name: str,
    *,
    root: str | None = None,
    reader: str | None = None,
    pattern: str | None = None,
    gender: dict[str, str] | None = None,
    sentences: dict[str, str] | None = None,
    labels: str | dict[str, str | None] | None = None,
    label: str | None = None,
    text: str | None = None,
    title: str | None = None,
    licence: str | None = None,
    language: str | None = None,
    taxonomy: str | None = None,
    protocol: str | None = None,
    overwrite: bool = False,
    options: dict[str, Any] | None = None,
) -> Found:
    """Describe a corpus of your own in a YAML file, if its reader finds something.

    No audio is decoded; `serzoo prepare` does that.

    Args:
        name: its name.
        root: folder of the recordings; by default ``$SERZOO_DATA/NAME``.
        reader: registered reader, such as ``folder``, ``csv`` or an importer.
        pattern: regular expression for the end of each path, with the groups of
            :data:`.naming.GROUPS`.
        gender: maps the group ``gender``, or the speaker, to female or male.
        sentences: maps the group ``sentence`` to the words.
        labels: label map: a label of the corpus to a canonical one, or null; ``*`` keeps each.
        label: suffix of a file beside each recording with its label, such as ``.lab``.
        text: suffix of a file beside each recording with its transcript, such as ``.txt``.
        title: full name.
        licence: licence of the recordings.
        language: ISO 639-1 code.
        taxonomy: default taxonomy.
        protocol: default protocol.
        overwrite: replace the file if there is one.
        options: options of the reader.

    Raises:
        ConfigError: if the name is taken, or an argument cannot be used.
        DataError: if nothing fits, or no label is in the label map.
    """
    file = Path(registry.corpora_folder()) / f"{name}.yaml"
    if not registry.NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is not a name; use a letter, then letters, digits, - and _")
    if name in registry.names("corpora") and name not in registry.own_corpora():
        raise ConfigError(f"the name '{name}' is that of a corpus of serzoo; choose another name")
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} is there already; add overwrite=true to replace it")
    folder_of(name, root)  # a wrong path is told before questions of how to read it
    if pattern is None and (gender or sentences):
        raise ConfigError("gender and sentences explain groups of a pattern; give pattern=REGEX")
    naming = {"pattern": pattern, "gender": gender, "sentences": sentences}
    content: dict[str, Any] = {
        "title": title,
        "licence": licence,
        "language": language,
        "root": None if root is None else str(Path(root).expanduser().absolute()),
        "reader": reader,
        "options": options,
        "naming": {k: v for k, v in naming.items() if v} if pattern is not None else None,
        "side": {k: v for k, v in (("label", label), ("text", text)) if v},
        "labels": labels,
        "taxonomy": taxonomy,
        "protocol": protocol,
    }
    content = {k: v for k, v in content.items() if v not in (None, {})}
    it = Description.parse(name, file, content)
    _check_defaults(it)
    found = _look(it)
    write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return found


def _check_defaults(it: Description) -> None:
    """Refuse a default protocol or taxonomy that does not exist."""
    if it.info.get("taxonomy") is not None:
        Taxonomy.load(str(it.info["taxonomy"]))
    if it.info.get("protocol") is not None:
        Protocol.load(str(it.info["protocol"]))


def _look(it: Description) -> Found:
    root = folder_of(it.name, it.folder)
    found, notices = read_corpus(it.name, reader_of(it), root, {})
    codes = CorpusInfo.from_dict(it.name, it.info).labels
    counts = Counter(u.label for u in found if u.label is not None)
    labels = dict(sorted(counts.items()))
    unknown = {label: n for label, n in labels.items() if label not in codes}
    if labels and len(unknown) == len(labels):
        raise DataError(
            f"{it.name}: none of the labels found ({tally(labels)}) is in labels "
            f"({', '.join(codes)}); map each of them to a canonical label, or to null"
        )
    notes = [n.message for n in notices]
    if unknown:
        notes.append(
            f"{it.name}: {tally(unknown)} are not in labels, and are refused by prepare; add them "
            f"to {it.file}, with null to leave them out on purpose"
        )
    meanings = {label: codes[label] for label in labels if label in codes}
    if odd := [m for m in meanings.values() if m is not None and m not in canonical()]:
        notes.append(
            f"{it.name}: {some(odd)} are not canonical labels, so shipped taxonomies leave them "
            "out; map them with labels={WORD: angry}, or keep taxonomy=auto"
        )
    return Found(
        it.name,
        it.file,
        root,
        len(found),
        labels,
        meanings,
        dict(sorted(Counter(u.speaker for u in found if u.speaker is not None).items())),
        dict(sorted(Counter(u.gender for u in found if u.gender is not None).items())),
        sum(u.text is not None for u in found),
        len(found) - counts.total(),
        sum(u.speaker is None for u in found),
        notes,
    )


# `serzoo corpus export`.


@dataclass(frozen=True)
class Exported:
    """A corpus that was written for another tool.

    Attributes:
        corpus: its name.
        format: ``audformat`` or ``lhotse``.
        utterances: how many there are.
        root: folder of the audio.
        written: the files.
    """

    corpus: str
    format: str
    utterances: int
    root: str
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what was written, for people."""
        place = (
            "its paths are relative to the folder of the audio: put header and tables there, or "
            f"the audio beside them ({self.root})"
            if self.format == "audformat"
            else f"its paths are absolute ({self.root})"
        )
        return [
            f"{self.corpus}: {self.utterances} utterances as {self.format}; {place}",
            *(f"written: {path}" for path in self.written),
        ]


def export(
    source: str,
    folder: str | Path,
    *,
    format: str,
    root: str | None = None,
    options: dict[str, Any] | None = None,
) -> Exported:
    """Write a corpus as a database of audformat, or as lists of Lhotse; the audio stays.

    Args:
        source: a manifest (``.jsonl``), or the name of a corpus.
        folder: where it is written.
        format: ``audformat`` or ``lhotse``.
        root: folder of the corpus, or of the manifest's audio.
        options: keywords of the corpus' reader.

    Raises:
        DataError: if the manifest holds several corpora, or the data cannot be used.
    """
    check_place(Path(folder) / "file")
    manifest = source if source.endswith(".jsonl") else None
    names = [] if manifest else [source]
    speech = open_corpora(names, root=root, manifest=manifest, options=options, progress=True)
    if len(speech.roots) != 1:
        raise DataError(
            f"{source} holds {len(speech.roots)} corpora ({', '.join(speech.roots)}); write one "
            "manifest for each (serzoo prepare)"
        )
    ((corpus, base),) = speech.roots.items()
    if format == "audformat":
        written = [to_audformat(speech.utterances, folder, name=corpus)]
    else:
        written = [*to_lhotse(speech.utterances, base, folder)]
    return Exported(corpus, format, len(speech.utterances), str(base), tuple(written))
