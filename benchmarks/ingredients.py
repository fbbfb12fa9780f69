"""What each ingredient of SELM and Gen-SER is worth: heads that differ in one thing, paired.

    python benchmarks/ingredients.py runs/ablation_ravdess    # prints; publish.py shows the same

For every table of a suite: the metric of one head minus that of another. Test utterances are the
same, folds are pooled and seeds averaged. The pairs of a corpus are one family of questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serzoo.zoo.core.errors import counted
from serzoo.zoo.core.table import Line, Table, cell
from serzoo.zoo.report.answers import COLUMNS, Asked, Question, answer_cells, ask, between
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
    ("gen_ser", "gen_ser_ce", "codes and path, against cross-entropy through the same network"),
    ("gen_ser", "gen_ser_permuted", "this order of the classes, against another"),
    ("gen_ser", "gen_ser_spacing_1", "codes far apart, against neighbours alike"),
    ("gen_ser", "gen_ser_one_hot", "sinusoidal codes, against one-hot codes"),
    ("classification", "linear", "attentive statistics, against the mean and a linear layer"),
    ("classification", "prototype", "a linear classifier, against learned prototypes"),
)


def ingredients(made: Sequence[Grid], asked: Asked) -> list[dict[str, Any]]:
    """Return a row for each table and each pair of heads that it holds.

    Returns:
        ``table``, ``folds``, ``first``, ``second``, ``what``, ``remarks`` on intervals, and
        ``difference`` (an answer).
    """
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
        {"table": key[0], "first": key[1], "second": key[2], "what": what}
        | {"folds": len(grid.folds), "remarks": grid.remarks, "difference": found[key]}
        for key, (grid, what) in pairs.items()
    ]


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the rows as a table for each corpus and encoder."""
    columns = ("first", "second", "what differs", "first minus second", *COLUMNS)
    made = []
    for name in dict.fromkeys(row["table"] for row in rows):
        mine = [row for row in rows if row["table"] == name]
        d = mine[0]["difference"]
        body: list[Line] = []
        for row in mine:
            found = row["difference"]
            names = row["first"], row["second"], row["what"]
            body.append([*names, cell(found["value"], "+.3f"), *answer_cells(found)])
        counts = (d["n_clusters"], d["cluster"]), (mine[0]["folds"], "fold"), (d["n_seeds"], "seed")
        title = f"{name}: {', '.join(counted(n, what) for n, what in counts)}"
        made.append(Table(title, columns, body, sentences(mine[0]["remarks"])))
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
