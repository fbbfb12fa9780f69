"""Sections of a report about what numbers vary with: ranks over folds, seeds, folds, speakers."""

from __future__ import annotations

from ..errors import ComparisonError, DataError
from ..statistics.metrics import PredictionTable
from ..statistics.ranks import average_ranks
from ..statistics.variance import Variance, variance_split
from .page import Cell, Line, Part, Section, Table, draw
from .plots import critical_difference_figure
from .section import Context, cell, per_grid
from .summary import Grid
from .tables import UNKNOWN


def ranks(section: Section, c: Context) -> None:
    """Average ranks over the folds of all tables.

    Raises:
        ComparisonError: fewer than two heads stand in every table.
    """
    section.intro = (
        "Heads ranked by UAR in every fold of every table (seeds averaged), 1 is best; bars join "
        "heads that Nemenyi's test does not tell apart (Demšar 2006). The test takes blocks as "
        "independent. Corpora are; folds of one corpus are not, since their training sets overlap, "
        "so the critical difference shown is too small: judge by the paired differences."
    )
    shared = [h for h in (c.grids[0].runs if c.grids else ()) if all(h in g.runs for g in c.grids)]
    if len(shared) < 2:
        raise ComparisonError("ranks need two heads that stand in every table; there are not")
    found = average_ranks(
        {
            head: {
                f"{g.name}, fold {f}": value
                for g in c.grids
                for f, value in c.row(g, head)["by_fold"].items()
            }
            for head in shared
        }
    )
    said = ", ".join(f"{h} {r:.2f}" for h, r in zip(found.heads, found.ranks, strict=True))
    title = f"Average rank over {found.n_blocks} blocks"
    section.parts.append(
        draw(
            critical_difference_figure(found),
            f"{title}: {said}; critical difference {found.critical:.2f}",
            name="ranks",
        )
    )
    apart = "; ".join(", ".join(g) for g in found.groups) or "none"
    note = (
        f"Friedman's chi² {found.chi2:.2f}, p {found.p:.2g}; Iman and Davenport's F {found.f:.2f}, "
        f"p {found.f_p:.2g}; critical difference {found.critical:.2f}. Not told apart: {apart}."
    )
    if found.chi2 != found.chi2:
        note = f"All heads tie in every block: no test. Not told apart: {apart}."
    body: list[Line] = [[h, cell(r, ".2f")] for h, r in zip(found.heads, found.ranks, strict=True)]
    section.parts.append(Table(title, ("head", "average rank"), body, [note]))


def variance(section: Section, c: Context) -> None:
    """Seeds, folds, speakers."""
    section.intro = (
        "Standard deviations of one run's UAR (one seed, one fold): between seeds, between folds, "
        "of a seed in a fold beyond both; and within that of the folds, what is due to who was "
        "tested. Variances are estimated without bias; one below zero is shown as 0."
    )

    def make(g: Grid) -> list[Part]:
        body: list[Line] = []
        remarks: dict[str, None] = {}
        metric = "UAR"
        for head, runs in g.runs.items():
            split, fault = _split({(r.fold, r.seed): r.table for r in runs})
            if fault:
                metric, remarks[f"{fault}: WA is split instead"] = "WA", None
            if split.note:
                remarks[split.note] = None
            parts = split.seeds, split.folds, split.residual, split.speakers
            deviations = [cell(None if v != v else max(0.0, v) ** 0.5) for v in parts]
            shares = ", ".join(f"{k} {s:.0%}" for k, s in split.shares().items() if s == s)
            body.append([head, cell(split.mean), *deviations, Cell(shares or UNKNOWN)])
        columns = ("head", f"{metric}, mean of runs", "seeds", "folds", "rest", "speakers",
                   "shares of the variance")  # fmt: skip
        return [Table(f"Spread of runs: {g.name}", columns, body, [f"{r}." for r in remarks])]

    per_grid(section, c.grids, make)


def _split(tables: dict[tuple[int, int], PredictionTable]) -> tuple[Variance, str]:
    """Of UAR; of WA, with the reason, where a fold lacks a class."""
    try:
        return variance_split(tables), ""
    except DataError as error:
        return variance_split(tables, "wa"), str(error).partition(";")[0]
