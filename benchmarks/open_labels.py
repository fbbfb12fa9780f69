"""Models with open labels, asked about classes and corpora that they never trained on.

    SERZOO_DATA=FOLDER python benchmarks/open_labels.py runs/out_of_domain            # a suite
    SERZOO_DATA=FOLDER python benchmarks/open_labels.py RUN [RUN ...] --out out.json  # or runs
    ... --corpora emodb nemo    # instead of all three that the models were not trained on

Every finished run of a suite whose head takes any label, or the runs given. Each is scored on every
other corpus, over all classes of that corpus' taxonomy (EMO-DB 7, nEMO 6, RAVDESS 8). Runs of one
head and one training corpus are pooled over seeds; intervals are over speakers. The same scores
over the seen classes alone (``closed``) say what the new labels cost. Nothing here was trained or
selected on the corpora that are scored, nor on the speakers.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from serzoo.zoo.core import registry
from serzoo.zoo.core.files import check_place, write_json
from serzoo.zoo.core.table import Cell, Line, Table, cell, span
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run.config import read_group
from serzoo.zoo.run.record import Record, environment, finished, read_record
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.statistics.confidence import mean_recall, open_numbers, seen_classes
from serzoo.zoo.statistics.speakers import tested
from serzoo.zoo.statistics.table import PredictionTable, merge

CORPORA = ("emodb", "nemo", "ravdess")
Key = tuple[str, str, str]  # head, corpora of training, corpus of test


def runs_of(folders: Sequence[Path]) -> list[Path]:
    """Finished runs with open labels: of a suite's folder, or the folders themselves."""
    found = []
    for folder in folders:
        inside = sorted((folder / "cells").glob("*")) if (folder / "cells").is_dir() else [folder]
        for run in filter(finished, inside):
            head = (read_record(run) or Record()).config["head"]["type"]
            if registry.get("heads", head).open_labels:
                found.append(run)
    return found


def closed(table: PredictionTable, seen: list[str]) -> PredictionTable:
    """The utterances of seen classes, with seen classes on offer only."""
    columns = [table.classes.index(c) for c in seen]
    rows = np.flatnonzero(np.isin(table.labels, columns))
    labels = np.array([columns.index(k) for k in table.labels[rows]])
    part = table.subset(rows)
    return PredictionTable(part.ids, part.speakers, labels, part.scores[:, columns], seen)


def numbers_of(table: PredictionTable, trained: Taxonomy, wanted: Taxonomy) -> dict[str, Any]:
    """Return the numbers of pooled seeds: each utterance counts once per seed."""
    part = closed(table, seen_classes(trained, wanted))
    return {
        **open_numbers(table, trained, wanted),
        "closed": mean_recall(part, list(range(len(part.classes)))),
        "recalls": table.recalls(),
        "confusion": table.confusion().tolist(),
        "speakers": tested(part)[0],
    }


def measure(runs: Sequence[Path], corpora: Sequence[str] = CORPORA) -> list[dict[str, Any]]:
    """One row per head, corpora of training and corpus of test."""
    tables: dict[Key, list[PredictionTable]] = defaultdict(list)
    about: dict[Key, tuple[Taxonomy, Taxonomy]] = {}
    seeds: dict[Key, list[int]] = defaultdict(list)
    for run in runs:
        cfg = (read_record(run) or Record()).config
        for corpus in corpora:
            if corpus in _heard(run):
                continue
            name = str(read_group("corpus", corpus)["taxonomy"])
            table, record = evaluate(run, corpus=[corpus], taxonomy=name)
            assert not record.speakers_heard, run
            head = str(cfg.get("head_name") or cfg["head"]["type"])
            key = head, " and ".join(sorted(_heard(run))), corpus
            about[key] = Taxonomy.from_dict(record.model["taxonomy"]), Taxonomy.load(name)
            tables[key].append(replace(table, ids=[f"{i}#{run.name}" for i in table.ids]))
            seeds[key].append(cfg["seed"])
            print(f"{run.name} on {corpus}: UAR {table.uar():.3f}", flush=True)
    return [
        {
            **dict(zip(("head", "trained_on", "tested_on"), key, strict=True)),
            "seeds": seeds[key],
            "uar_by_seed": [t.uar() for t in tables[key]],
            "utterances": len(tables[key][0]),
            **numbers_of(merge(tables[key]), *about[key]),
        }
        for key in sorted(tables)
    ]


def _heard(run: Path) -> set[str]:
    """Corpora that a run was trained or selected on."""
    speakers = (read_record(run) or Record()).speakers
    return {s.partition("/")[0] for part in ("train", "valid") for s in speakers[part]}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table; without bounds if the record is older than the jackknife."""
    columns = ("all", "seen", "unseen", "among_unseen", "closed")
    heads = ("UAR", "seen", "unseen", "unseen, these on offer", "seen, these on offer")
    body: list[Line] = []
    for row in rows:
        chance = f"{row['chance']:.3f}"
        if row["among_unseen"]:
            chance += f"; {row['among_unseen']['chance']:.3f} among unseen"
        chance += f"; {1 / len(row['seen_classes']):.3f} among seen"
        names = row["head"], row["trained_on"], row["tested_on"]
        found = [_recall(row[column]) for column in columns]
        body.append([*names, *found, Cell(chance, row["chance"])])
    return Table("", ("head", "from", "to", *heads, "chance"), body)


def _recall(found: dict[str, Any] | None) -> Cell:
    if not found:
        return cell(None)
    bounds = found.get("uar_interval")
    text = f"{found['value']:.3f}" + (f" ({span(*bounds)})" if bounds else "")
    return Cell(text, found["value"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path, help="folder of a suite or of a run")
    parser.add_argument("--corpora", nargs="+", default=CORPORA, help="corpora that are scored")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    given = parser.parse_args()
    if given.out:
        check_place(given.out)  # before minutes of work
    runs = runs_of(given.folder)
    if not runs:
        sys.exit(
            f"{', '.join(map(str, given.folder))}: no finished run with open labels; give the "
            "folder of a suite or of runs whose head takes any label, such as selm"
        )
    rows = measure(runs, given.corpora)
    print(table(rows).markdown())
    if given.out:
        write_json(given.out, {"rows": rows, **environment()})
        print(f"record: {given.out}")


if __name__ == "__main__":
    main()
