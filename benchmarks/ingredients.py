"""What each ingredient of SELM and Gen-SER is worth: heads that differ in one thing, paired.

    python benchmarks/ingredients.py runs/ablation_ravdess    # prints; publish.py shows the same

For every table of a suite: the metric of one head minus that of another. Test utterances are the
same, folds are pooled and seeds averaged. The pairs of a corpus are one family of questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serzoo.zoo.core.errors import counted
from serzoo.zoo.core.table import Line, Table, cell
from serzoo.zoo.report.answers import (
    COLUMNS,
    Answered,
    Asked,
    Question,
    answer_cells,
    ask,
    between,
)
from serzoo.zoo.report.grids import Grid, grids, sentences
from serzoo.zoo.report.runs import find_cells

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
    ("selm_smollm2", "selm_smollm2_random", "what a published language model knows"),
    ("selm_smollm2", "selm_smollm2_shuffled", "the classes' own names, to a model that knows them"),
    ("gen_ser", "gen_ser_target_only", "the term at t = 1, against the published objective alone"),
    ("gen_ser", "gen_ser_ce", "codes and path, against cross-entropy through the same network"),
    ("gen_ser", "gen_ser_permuted", "this order of the classes, against another"),
    ("gen_ser", "gen_ser_spacing_1", "codes far apart, against neighbours alike"),
    ("gen_ser", "gen_ser_one_hot", "sinusoidal codes, against one-hot codes"),
    ("classification", "linear", "attentive statistics, against the mean and a linear layer"),
    ("classification", "prototype", "a linear classifier, against learned prototypes"),
)


@dataclass(frozen=True)
class Ingredient:
    """A pair of heads of one table.

    Attributes:
        grid: the table.
        first: the head that has something.
        second: the head that lacks it.
        what: what it is.
        difference: the first minus the second.
    """

    grid: Grid
    first: str
    second: str
    what: str
    difference: Answered


def ingredients(made: Sequence[Grid], asked: Asked) -> list[Ingredient]:
    """Return a row for each table and each pair of heads that it holds."""
    pairs = {
        (grid.name, first, second): (grid, what)
        for grid in made
        for first, second, what in PAIRS
        if first in grid.runs and second in grid.runs
    }
    found = ask(
        (
            Question(key, grid, between(grid, key[1], key[2]), declared=True)
            for key, (grid, _) in pairs.items()
        ),
        asked,
    )
    return [
        Ingredient(grid, first, second, what, found[name, first, second])
        for (name, first, second), (grid, what) in pairs.items()
    ]


def tables(rows: Sequence[Ingredient]) -> list[Table]:
    """Return the rows as a table for each corpus and encoder."""
    columns = ("first", "second", "what differs", "first minus second", *COLUMNS)
    made = []
    for name in dict.fromkeys(row.grid.name for row in rows):
        mine = [row for row in rows if row.grid.name == name]
        grid, d = mine[0].grid, mine[0].difference
        body: list[Line] = []
        for row in mine:
            value = cell(row.difference.value, "+.3f")
            body.append([row.first, row.second, row.what, value, *answer_cells(row.difference)])
        counts = (d.n_clusters, d.cluster), (len(grid.folds), "fold"), (d.n_seeds, "seed")
        title = f"{name}: {', '.join(counted(n, what) for n, what in counts)}"
        made.append(Table(title, columns, body, sentences(grid.remarks)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path, help="folder of a suite")
    for folder in parser.parse_args().folder:
        made, refused = grids(find_cells(folder).runs)
        found = tables(ingredients(made, Asked("classification")))
        print("\n".join(table.markdown() for table in found))
        for key, why in refused.items():
            print(f"{', '.join(key)}: {why}")


if __name__ == "__main__":
    main()
