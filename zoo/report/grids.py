"""The tables of a comparison: the cells of each, and their confusions by training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...datamodules.info import CorpusInfo
from ..core.errors import ComparisonError, SerzooError
from ..run.record import Attributes
from ..statistics.contrasts import Clusters, clusters_of
from ..statistics.rates import FloatArray
from ..statistics.speakers import by_speaker, check_same, labelled_speakers
from ..statistics.table import PredictionTable, merge
from .runs import Run, by_pair, certificate, check_comparable, pooled

Key = tuple[str, str]


@dataclass(frozen=True)
class Grid:
    """Cells of one table: the folds and seeds that all of its heads have finished.

    Attributes:
        recipe: name of the recipe, with the pair of corpora and the condition, if any.
        encoder: name of the encoder.
        runs: cells of each head, by fold and seed.
        pooled: test tables of each head's cells in one, with an utterance once per seed.
        folds: numbers of the folds.
        seeds: numbers of the seeds.
        partial: how many folds of seeds are left out, because a head has not finished them.
        certificate: see :func:`.runs.certificate`.
        attributes: attributes of utterances by id; empty if unknown.
    """

    recipe: str
    encoder: str
    runs: dict[str, list[Run]]
    pooled: dict[str, PredictionTable]
    folds: list[int]
    seeds: list[int]
    partial: int
    certificate: dict[str, Any]
    attributes: Attributes

    @property
    def name(self) -> str:
        """The table's name in headings and figures."""
        return f"{self.recipe}, {self.encoder}"

    @property
    def corpora(self) -> list[str]:
        """Names of the tested corpora."""
        return corpora_of(next(iter(self.runs.values()))[0])

    @cached_property
    def clusters(self) -> Clusters:
        """Clusters of the labelled utterances, by the description of their corpus."""
        kinds = {info.cluster for info in map(info_of, self.corpora) if info} or {"speaker"}
        # corpora that sample different things have speakers in common
        kind = kinds.pop() if len(kinds) == 1 else "speaker"
        table = self.runs[next(iter(self.runs))]
        first = merge(r.table for r in table if r.seed == self.seeds[0])
        found = clusters_of(first, kind, self.attributes)
        if kind != "speaker" and not found.names:
            why = f"{found.why} (`serzoo report SUITE --attributes` reads them from the corpus)"
            found = found._replace(why=why)
        return found

    @property
    def remarks(self) -> list[str]:
        """Notes on the intervals: few sentences, utterances without a cluster."""
        return [*interval_remarks(self.corpora), *filter(None, [self.clusters.note])]

    @property
    def of_speakers(self) -> list[str]:
        """Sentences on intervals that are over speakers, whatever the clusters of the corpus."""
        return sentences(interval_remarks(self.corpora, "speaker"))

    @cached_property
    def _confusions(self) -> dict[str, FloatArray]:
        """Confusions of each head by seed and cluster, ``[S, G + 1, C, C]``; the last: unknown."""
        return {head: self._by_seed(table) for head, table in self.pooled.items()}

    def _by_seed(self, table: PredictionTable) -> FloatArray:
        ids, _, seeds = zip(*(name.rpartition("#") for name in table.ids), strict=True)
        if self.clusters.kind != "speaker":
            table = replace(table, speakers=[self.clusters.of.get(i, "") for i in ids])
        rows = [np.flatnonzero(np.equal(seeds, str(seed))) for seed in self.seeds]
        return np.stack([by_speaker(table, [*self.clusters.names, ""], own) for own in rows])

    def cells(self, head: str) -> FloatArray:
        """Return a head's confusions by seed and cluster, ``[S, G, C, C]``; folds are summed.

        If no cluster is known, all utterances are one.
        """
        found = self._confusions[head]
        return found[:, :-1] if self.clusters.names else found

    def unknown(self, head: str) -> FloatArray:
        """Return a head's confusions of utterances of no known cluster, ``[S, C, C]``."""
        found = self._confusions[head][:, -1]
        return found if self.clusters.names else np.zeros_like(found)

    def totals(self, head: str) -> FloatArray:
        """Return a head's confusions by seed, ``[S, C, C]``."""
        return np.asarray(self._confusions[head].sum(1), dtype=np.float64)


def corpora_of(run: Run) -> list[str]:
    """Return the names of the corpora that a run was tested on."""
    named = {who.partition("/")[0] for who in run.table.speakers if "/" in who}
    return sorted(named) or [str(name) for name in run.record.config.get("corpus", ())]


def interval_remarks(corpora: Sequence[str], cluster: str | None = None) -> list[str]:
    """Return what intervals of these corpora are about, as clauses (``CorpusInfo``).

    Args:
        corpora: names of the tested corpora.
        cluster: only corpora whose clusters are these; None = all.
    """
    found = [info for info in map(info_of, corpora) if info]
    return [
        text if len(found) == 1 else f"{info.name}: {text}"
        for info in found
        if (text := info.interval_remark()) and cluster in (None, info.cluster)
    ]


def sentences(remarks: Sequence[str]) -> list[str]:
    """Return clauses as sentences, for the notes of a table."""
    return [f"{text[0].upper()}{text[1:]}." for text in remarks]


def info_of(corpus: str) -> CorpusInfo | None:
    """Return the description of a corpus; None if there is none here, as for a user's own."""
    try:
        return CorpusInfo.load(corpus)
    except SerzooError:
        return None


def grids(
    runs: Sequence[Run], attributes: Attributes | None = None
) -> tuple[list[Grid], dict[Key, str]]:
    """Return the tables, and the reasons why others cannot be made, by recipe and encoder.

    If a head has not finished a seed or fold, all heads of its table leave it out. So rows stay
    comparable. Cells of different certificates are refused for their table only.

    Args:
        runs: finished cells.
        attributes: attributes of utterances by id, with their sessions and dialogues.
    """
    groups: dict[Key, list[Run]] = defaultdict(list)
    for run in by_pair(runs):
        groups[run.group].append(run)
    made, refused = [], {}
    for key, members in groups.items():
        try:
            check_comparable(members)
            grid = _grid(key, members, attributes or {})
        except SerzooError as error:
            refused[key] = str(error)
            continue
        except (KeyError, TypeError) as error:
            refused[key] = f"a record lacks what a comparison needs ({error!r})"
            continue
        if grid is None:
            refused[key] = "no fold and seed is finished by every head yet"
        else:
            made.append(grid)
    return made, refused


def _grid(key: Key, members: Sequence[Run], attributes: Attributes) -> Grid | None:
    heads: dict[str, dict[tuple[int, int], Run]] = defaultdict(dict)
    for run in members:
        other = heads[run.head].setdefault((run.fold, run.seed), run)
        if other is not run:
            raise ComparisonError(
                f"refusing to compare: {other.name} and {run.name} are the same head, fold and "
                "seed with other settings; tabulate them apart"
            )
    common = set.intersection(*(set(cells) for cells in heads.values()))
    every = set.union(*(set(cells) for cells in heads.values()))
    folds = sorted({f for f, _ in common})
    # a seed counts with all of its folds or not at all, so that each tests the same utterances
    seeds = [s for s in sorted({s for _, s in common}) if all((f, s) in common for f in folds)]
    if not seeds:
        return None
    kept = [(f, s) for f in folds for s in seeds]
    chosen = {head: [cells[k] for k in kept] for head, cells in heads.items()}
    tables = {head: pooled(cells) for head, cells in chosen.items()}
    first = next(iter(chosen.values()))
    reference = tables[first[0].head]
    labelled_speakers(reference)  # refuses a table without labels
    for table in tables.values():
        check_same(reference, table)
    left = len(every) - len(kept)
    return Grid(*key, chosen, tables, folds, seeds, left, certificate(first), attributes)
