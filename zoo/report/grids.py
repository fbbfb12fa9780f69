"""The tables of a comparison: which cells each stands on, and their confusions by training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..core.errors import ComparisonError, SerzooError
from ..statistics.rates import FloatArray
from ..statistics.speakers import by_speaker, check_same, labelled_speakers, tested
from ..statistics.table import PredictionTable
from .runs import Run, by_pair, certificate, check_comparable, pooled

Key = tuple[str, str]


@dataclass(frozen=True)
class Grid:
    """What one table stands on: the folds and seeds that all of its heads have finished.

    Attributes:
        recipe: name, with the pair of corpora and the condition if there are such.
        encoder: name.
        runs: of each head, its cells, by fold and seed.
        pooled: of each head, the test tables of these in one, an utterance once per seed.
        folds: numbers.
        seeds: numbers.
        partial: folds of seeds that are left out, since not every head has finished them.
        certificate: see :func:`.runs.certificate`.
    """

    recipe: str
    encoder: str
    runs: dict[str, list[Run]]
    pooled: dict[str, PredictionTable]
    folds: list[int]
    seeds: list[int]
    partial: int
    certificate: dict[str, Any]

    @property
    def name(self) -> str:
        """The table's name in headings and figures."""
        return f"{self.recipe}, {self.encoder}"

    @property
    def cluster(self) -> str:
        """What a cluster is: utterances of different clusters are independent."""
        return "speaker"

    @cached_property
    def clusters(self) -> list[str]:
        """Names of the G clusters, sorted."""
        return labelled_speakers(next(iter(self.pooled.values())))

    @cached_property
    def why(self) -> str:
        """The reason why no interval exists, or ""."""
        return tested(next(iter(self.pooled.values())))[1]

    @cached_property
    def cells(self) -> dict[str, FloatArray]:
        """Confusions of each head by seed and cluster, ``[S, G, C, C]``; folds are summed."""
        return {head: self._confusions(table) for head, table in self.pooled.items()}

    def _confusions(self, table: PredictionTable) -> FloatArray:
        of = [int(name.rpartition("#")[2]) for name in table.ids]
        rows = [np.flatnonzero(np.equal(of, seed)) for seed in self.seeds]
        return np.stack([by_speaker(table, self.clusters, own) for own in rows])


def grids(runs: Sequence[Run]) -> tuple[list[Grid], dict[Key, str]]:
    """Tables that can be made, and why the others cannot, by recipe and encoder.

    Seeds and folds that a head has not finished are left out for every head of its table, so that
    rows stay comparable. Cells of different certificates are refused for their table only.
    """
    groups: dict[Key, list[Run]] = defaultdict(list)
    for run in by_pair(runs):
        groups[run.group].append(run)
    made, refused = [], {}
    for key, members in groups.items():
        try:
            check_comparable(members)
            grid = _grid(key, members)
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


def _grid(key: Key, members: Sequence[Run]) -> Grid | None:
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
    return Grid(*key, chosen, tables, folds, seeds, len(every) - len(kept), certificate(first))
