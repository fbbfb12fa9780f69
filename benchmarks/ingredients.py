"""What each ingredient of SELM and Gen-SER is worth: heads that differ in one thing, paired.

    python benchmarks/ingredients.py runs/ablation_ravdess runs/ablation_emodb

For every corpus and encoder of a suite's finished cells: UAR of one head minus that of another on
the same test utterances, all folds pooled and seeds averaged; the interval is the jackknife's over
speakers, p a permutation of speakers, corrected by Holm over all pairs of the suite. Written as
``ingredients.json`` beside the cells; ``publish.py`` shows it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from serzoo.zoo.jackknife import paired_jackknife
from serzoo.zoo.metrics import merge
from serzoo.zoo.permutation import paired_permutation
from serzoo.zoo.power import minimum_detectable
from serzoo.zoo.record import write_json
from serzoo.zoo.report import Run, check_comparable, pooled, read_runs
from serzoo.zoo.stats import holm_grid, mean_sd

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


def ingredients(folder: Path) -> list[dict[str, Any]]:
    """The rows of a suite's folder, one for each pair of heads that both have finished cells."""
    runs, _ = read_runs(folder)
    check_comparable(runs)
    groups: dict[tuple[str, ...], dict[str, dict[tuple[int, int], Run]]] = defaultdict(dict)
    for run in runs:
        groups[run.group].setdefault(run.head, {})[run.fold, run.seed] = run
    rows: list[dict[str, Any]] = []
    for group, heads in groups.items():
        for first, second, what in PAIRS:
            if first in heads and second in heads:
                row = compared(heads[first], heads[second])
                rows += [{"group": list(group), "first": first, "second": second} | row]
                rows[-1]["what"] = what
    p = holm_grid({i: row["p"] for i, row in enumerate(rows)})
    return [row | {"holm": p[i]} for i, row in enumerate(rows)]


def compared(first: dict[tuple[int, int], Run], second: dict[tuple[int, int], Run]) -> Any:
    """Difference of two heads over the folds and seeds that both have."""
    both = sorted(first.keys() & second.keys())
    folds, seeds = {f for f, _ in both}, {s for _, s in both}
    both = [(f, s) for f, s in both if all((g, s) in both for g in folds)]
    a, b = (pooled([head[k] for k in both]) for head in (first, second))
    found = paired_jackknife(a, b)
    per_seed = [
        merge(first[k].table for k in both if k[1] == s).uar()
        - merge(second[k].table for k in both if k[1] == s).uar()
        for s in sorted(seeds)
    ]
    return {
        "folds": len(folds),
        "seeds": len(per_seed),
        "speakers": found.n_speakers,
        "difference": found.value,
        "interval": [found.low, found.high],
        "p": paired_permutation(a, b).p,
        "over_seeds": mean_sd(per_seed)._asdict(),
        "detectable": minimum_detectable(a, b).value,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, a table for each corpus and encoder."""
    text = ""
    for group in dict.fromkeys(tuple(row["group"]) for row in rows):
        mine = [row for row in rows if tuple(row["group"]) == group]
        text += (
            f"**{group[0]}, encoder {group[1]}**: {mine[0]['speakers']} speakers, "
            f"{mine[0]['folds']} folds, {mine[0]['seeds']} seed{'s' * (mine[0]['seeds'] > 1)}\n\n"
            "| first | second | what differs | UAR, first less second (95 %) | p | p, Holm | "
            "spread over seeds | detectable |\n|---|---|---|---|---|---|---|---|\n"
        )
        for row in mine:
            low, high = row["interval"]
            sd = f"{row['over_seeds']['sd']:.3f}" if row["seeds"] > 2 else ""
            text += (
                f"| {row['first']} | {row['second']} | {row['what']} | {row['difference']:+.3f} "
                f"({low:+.3f} to {high:+.3f}) | {row['p']:.3f} | {row['holm']:.3f} | {sd} | "
                f"{row['detectable']:.3f} |\n"
            )
        text += "\n"
    return text


def main() -> None:
    for name in sys.argv[1:]:
        rows = ingredients(Path(name))
        write_json(Path(name) / "ingredients.json", rows)
        print(table(rows))


if __name__ == "__main__":
    main()
