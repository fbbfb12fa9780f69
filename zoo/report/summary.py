"""The numbers of a comparison: one row per corpus, encoder and head, from predictions alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from ..core.errors import ComparisonError, SerzooError
from ..statistics.speakers import (
    check_same,
    holm_grid,
    jackknife,
    labelled_speakers,
    mean_sd,
    minimum_detectable,
    paired_jackknife,
    paired_permutation,
)
from ..statistics.table import PredictionTable, merge
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
        """For headings and figures."""
        return f"{self.recipe}, {self.encoder}"


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


def summarise(runs: Sequence[Run], baseline: str = "classification") -> list[dict[str, Any]]:
    """One row per corpus, encoder and head; out of domain per pair of corpora (:func:`by_pair`).

    If no fold and seed of a corpus and encoder is finished by every head, it has no row;
    ``partial`` counts what was left out for that reason. How each number is computed is in
    :data:`.table.NOTES`.

    Raises:
        ComparisonError: when cells are not comparable, or two are the same head, fold and seed.
    """
    made, refused = grids(runs)
    for reason in refused.values():
        if reason.startswith("refusing"):
            raise ComparisonError(reason)
    return rows_of(made, baseline)


def rows_of(made: Sequence[Grid], baseline: str) -> list[dict[str, Any]]:
    """The rows of all tables; p values are corrected over all of these (Holm)."""
    rows = [_row(grid, head, baseline) for grid in made for head in grid.runs]
    family = {
        (r["recipe"], r["encoder"], r["head"]): float("nan" if p is None else p)
        for r in rows
        if r["difference"]
        for p in [r["difference"]["p"]]
    }
    corrected = holm_grid(family)
    for row in rows:
        if row["difference"]:
            p = corrected[row["recipe"], row["encoder"], row["head"]]
            row["difference"] |= {"p_holm": number(p), "family": len(family)}
    return rows


def _row(grid: Grid, head: str, baseline: str) -> dict[str, Any]:
    runs, table = grid.runs[head], grid.pooled[head]
    per_seed = [merge(r.table for r in runs if r.seed == s) for s in grid.seeds]
    interval = jackknife(table)
    parameters = runs[0].record.parameters or {}
    return {
        "recipe": grid.recipe,
        "encoder": grid.encoder,
        "head": head,
        "folds": len(grid.folds),
        "seeds": len(grid.seeds),
        "speakers": interval.n_speakers,
        "without_speaker": per_seed[0].speakers.count(""),
        "unsure": sorted({u for r in runs for u in r.record.unsure}),
        "utterances": len(per_seed[0]),
        "uar": mean_sd([t.uar() for t in per_seed])._asdict(),
        "interval": [number(interval.low), number(interval.high)],
        "wa": mean_sd([t.wa() for t in per_seed])._asdict(),
        "f1": mean_sd([t.macro_f1() for t in per_seed])._asdict(),
        "recalls": table.recalls(),
        "by_fold": {
            f: float(np.mean([r.table.uar() for r in runs if r.fold == f])) for f in grid.folds
        },
        "seconds": _mean([r.record.seconds.get("fit") for r in runs]),
        "processor_seconds": _mean([r.record.processor_seconds.get("fit") for r in runs]),
        "training_flops": _mean([r.record.flops.get("training") for r in runs]),
        "scoring_flops": _mean([r.record.flops.get("scoring") for r in runs]),
        "inference_ms": _mean([r.record.inference_seconds_per_utterance for r in runs], 1000.0),
        "memory_mb": _mean([r.record.peak_memory_mb for r in runs]),
        "trainable": parameters.get("trainable"),
        "head_parameters": parameters.get("head"),
        "head_trainable": parameters.get("head_trainable"),
        "partial": grid.partial,
        "certificate": grid.certificate["hash"],
        "difference": None
        if head == baseline or baseline not in grid.pooled
        else difference(table, grid.pooled[baseline]),
    }


def difference(a: PredictionTable, b: PredictionTable) -> dict[str, Any]:
    """UAR of ``a`` minus that of ``b``: interval, p, and the least difference these would show.

    Bounds, p and detectable difference are None where the speakers cannot tell, or are not known;
    ``note`` says why.
    """
    found, test, least = paired_jackknife(a, b), paired_permutation(a, b), minimum_detectable(a, b)
    notes = dict.fromkeys(n for n in (test.note, least.note) if n)
    return {
        "value": found.value,
        "low": number(found.low),
        "high": number(found.high),
        "level": found.level,
        "p": number(test.p),
        "smallest_p": number(test.smallest),
        "exact": test.exact,
        "detectable": number(least.value),
        "power": least.power,
        "n_speakers": found.n_speakers,
        "note": "; ".join(notes),
    }


def number(value: float) -> float | None:
    """A number for JSON: None for what is not finite."""
    return float(value) if isfinite(value) else None


def _mean(values: Sequence[float | None], scale: float = 1.0) -> float | None:
    """Mean of the recorded values; None if none was recorded."""
    known = [v for v in values if v is not None]
    return scale * float(np.mean(known)) if known else None
