"""What an audit looks at: weak labels with what stands behind them, and corpora people labelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...zoo import registry
from ...zoo.errors import DataError
from ...zoo.taxonomy import Taxonomy
from ..catalog import open_corpora
from ..classes import auto_taxonomy, class_indices
from ..info import CorpusInfo
from ..manifest import Utterance, read_manifest
from ..weak import is_weak
from .select import Criteria
from .stage import read_labels, rows_of

Rows = dict[str, dict[str, Any]]
GIVEN = "given"
"""The column that ``serzoo label`` keeps people's labels in; their codes are those of ``label``."""


@dataclass(frozen=True)
class Weak:
    """A manifest of weak labels.

    Attributes:
        utterances: by id.
        coarse: whose classes the labels are; None where its folder is not there.
        fine: whose classes were scored.
        rows: of scores, by id.
        criteria: that the labels were selected by.
        source: ``MODEL@REVISION``, or "" where none is labelled.
    """

    utterances: dict[str, Utterance]
    coarse: Taxonomy | None = None
    fine: Taxonomy | None = None
    rows: Rows | None = None
    criteria: Criteria = field(default_factory=Criteria)
    source: str = ""


@dataclass(frozen=True)
class People:
    """A corpus with people's labels.

    Attributes:
        name: of the corpus; of several alike, with where it is from.
        utterances: with people's labels in ``column``, and no weak ones.
        column: as :func:`..info.canonical_label` takes it.
        taxonomy: of the labels.
        classes: of each utterance; -1 = none.
        own: weak labels are of these utterances, or would be.
    """

    name: str
    utterances: list[Utterance]
    column: str
    taxonomy: Taxonomy
    classes: list[int]
    own: bool


def opened(
    source: str, root: str | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Weak | None, list[Utterance]]:
    """Weak labels, where there are some, and all utterances, of a folder, manifest or corpus.

    Raises:
        DataError: when there is none such.
    """
    path = Path(source)
    folder = folder_of(source)
    if folder is not None:
        utterances = read_manifest(folder / "manifest.jsonl")
        record = read_labels(folder)
        weak = Weak(
            {u.id: u for u in utterances},
            Taxonomy.from_dict(record["taxonomy"]),
            Taxonomy.from_dict(record["scores"]["settings"]["taxonomy"]),
            {r["id"]: r for r in rows_of(folder / "scores.jsonl")},
            Criteria(**record["selection"]["criteria"]),
            record["source"],
        )
        return weak, utterances
    if source.endswith(".jsonl"):
        utterances = read_manifest(path)
        models = {str(u.label_source)[5:] for u in utterances if is_weak(u)}
        if not models:
            return None, utterances
        return Weak({u.id: u for u in utterances}, source=", ".join(sorted(models))), utterances
    if path.is_dir() and source not in registry.names("corpora"):
        raise DataError(f"no {path / 'labels.json'}; run `serzoo label ... out={path}` to its end")
    return None, open_corpora([source], root=root, options=dict(options or {})).utterances


def folder_of(source: str) -> Path | None:
    """The folder of ``serzoo label`` that this is, or whose manifest it is."""
    path = Path(source)
    folder = path.parent if path.name == "manifest.jsonl" else path
    return folder if (folder / "labels.json").is_file() else None


def labelled(
    utterances: Sequence[Utterance], label: str | None, where: str
) -> dict[str, tuple[list[Utterance], str]]:
    """By corpus, the utterances with people's labels only, and the column that these are in.

    Raises:
        DataError: when nobody has labelled one of them, naming the columns that there are.
    """
    column = label or ("label" if not any(GIVEN in u.labels for u in utterances) else GIVEN)
    found: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        people = None if is_weak(u) else u.label
        if column == GIVEN:
            people = u.labels.get(GIVEN, people)
        if is_weak(u) or people != u.label:
            u = replace(u, label=people, label_source=None, label_score=None)
        found[u.corpus].append(u)
    column = "label" if column == GIVEN else column
    if column == "label" and not any(u.label for us in found.values() for u in us):
        columns = sorted({name for u in utterances for name in u.labels})
        raise DataError(
            f"nobody has labelled {where} in column label, so there is nothing to hold weak labels "
            f"against; name a manifest or corpus by human=, or a column by label= (it has: "
            f"{', '.join(columns) or 'none'})"
        )
    return {corpus: (mine, column) for corpus, mine in sorted(found.items())}


def people(
    name: str,
    utterances: list[Utterance],
    column: str,
    taxonomy: str | None,
    weak: Weak | None,
    own: bool,
) -> People:
    """A corpus under a taxonomy: the one named, its own, that of the weak labels, or all labels.

    Raises:
        DataError: when none of its labels has a class.
    """
    named = taxonomy or CorpusInfo.load(utterances[0].corpus).taxonomy
    if named is not None:
        chosen = Taxonomy.load(named)
    elif weak is not None and weak.coarse is not None:
        chosen = weak.coarse
    else:
        chosen = auto_taxonomy(utterances, column)
    classes = class_indices(utterances, chosen, column)
    if not any(c >= 0 for c in classes):
        raise DataError(
            f"none of {len(utterances)} utterances of {name} has a label of taxonomy "
            f"'{chosen.name}' in column {column}; choose another by taxonomy="
        )
    return People(name, utterances, column, chosen, classes, own)
