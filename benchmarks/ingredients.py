"""What each ingredient of SELM and Gen-SER is worth: heads that differ in one thing, paired.

    python benchmarks/ingredients.py runs/ablation_ravdess    # prints; publish.py shows the same

For every table of a suite: UAR of one head minus that of another on the same test utterances, all
folds pooled and seeds averaged; the interval is the jackknife's over speakers, p a permutation of
speakers, corrected by Holm over all pairs of the suite.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serzoo.zoo.core.table import Cell, Line, Table, cell, plain
from serzoo.zoo.report.runs import find_cells
from serzoo.zoo.report.summary import Grid, grids
from serzoo.zoo.statistics.speakers import (
    holm_grid,
    mean_sd,
    minimum_detectable,
    paired_jackknife,
    paired_permutation,
)
from serzoo.zoo.statistics.table import merge

# of each pair the first has what the second lacks
PAIRS = (
    ("selm", "classification", "writing the label, against classifying"),
    ("selm", "mlp", "writing the label, against a plain network on mean frames"),
    ("selm", "selm_frozen_random", "a language model that learns, against one left at random"),
    ("selm", "selm_shuffled", "the classes' own names, against each other's"),
    ("selm", "selm_no_text_mapper", "the text mapper"),
    ("selm_calibrated", "selm", "subtracting what the model would say anyway"),
    ("gen_ser", "classification", "transport to codes, against classifying"),
    ("gen_ser", "regress_codes", "the path, against regressing the codes"),
    ("gen_ser", "gen_ser_ce", "codes and path, against cross-entropy through the same network"),
    ("gen_ser", "gen_ser_permuted", "this order of the classes, against another"),
    ("gen_ser", "gen_ser_spacing_1", "codes far apart, against neighbours alike"),
    ("gen_ser", "gen_ser_one_hot", "sinusoidal codes, against one-hot codes"),
    ("classification", "linear", "attentive statistics, against the mean and a linear layer"),
    ("classification", "prototype", "a linear classifier, against learned prototypes"),
)


def ingredients(made: Sequence[Grid]) -> list[dict[str, Any]]:
    """A row for each table and each pair of heads that it holds."""
    rows = [
        {"table": grid.name, "first": first, "second": second, "what": what}
        | compared(grid, first, second)
        for grid in made
        for first, second, what in PAIRS
        if first in grid.runs and second in grid.runs
    ]
    p = holm_grid({i: row["p"] for i, row in enumerate(rows)})
    return [row | {"holm": p[i]} for i, row in enumerate(rows)]


def compared(grid: Grid, first: str, second: str) -> dict[str, Any]:
    """Difference of two heads of a table."""
    a, b = grid.pooled[first], grid.pooled[second]
    found = paired_jackknife(a, b)
    per_seed = [
        merge(r.table for r in grid.runs[first] if r.seed == s).uar()
        - merge(r.table for r in grid.runs[second] if r.seed == s).uar()
        for s in grid.seeds
    ]
    return {
        "folds": len(grid.folds),
        "speakers": found.n_speakers,
        "difference": found.value,
        "interval": [found.low, found.high],
        "p": paired_permutation(a, b).p,
        "over_seeds": mean_sd(per_seed)._asdict(),
        "detectable": minimum_detectable(a, b).value,
    }


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """The rows as a table for each corpus and encoder."""
    columns = ("first", "second", "what differs", "UAR, first less second (95 %)", "p", "p, Holm",
               "± over seeds", "detectable")  # fmt: skip
    made = []
    for name in dict.fromkeys(row["table"] for row in rows):
        mine = [row for row in rows if row["table"] == name]
        seeds = mine[0]["over_seeds"]["n"]
        body: list[Line] = []
        for row in mine:
            low, high = (plain(v, "+.3f") for v in row["interval"])
            d = Cell(f"{row['difference']:+.3f} ({low} to {high})", row["difference"])
            rest = (row["p"], row["holm"], row["over_seeds"]["sd"], row["detectable"])
            body.append([row["first"], row["second"], row["what"], d, *map(cell, rest)])
        title = (
            f"{name}: {mine[0]['speakers']} speakers, {mine[0]['folds']} folds, {seeds} "
            f"seed{'s' * (seeds > 1)}"
        )
        made.append(Table(title, columns, body))
    return made


def main() -> None:
    for name in sys.argv[1:]:
        made, refused = grids(find_cells(Path(name)).runs)
        print("\n".join(table.markdown() for table in tables(ingredients(made))))
        for key, why in refused.items():
            print(f"{', '.join(key)}: {why}")


if __name__ == "__main__":
    main()
