"""Tables from records: what a comparison found, and its refusal to compare the incomparable."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from . import spent
from .errors import ComparisonError
from .metrics import PredictionTable, merge
from .record import read_record, write_json
from .stats import bootstrap, mean_sd, paired_bootstrap
from .tables import markdown, matching_notes, show, wide_console

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Run:
    """A finished cell: its record and its test predictions."""

    name: str
    record: dict[str, Any]
    table: PredictionTable
    pair: str = ""  # the corpora of training and test, where these are different

    @property
    def group(self) -> tuple[str, str]:
        """What stands in one table: the same data and the same encoder."""
        cfg = self.record["config"]
        stem = Path(cfg["recipe"]).stem
        return f"{stem}, {self.pair}" if self.pair else stem, encoder_name(cfg["encoder"])

    @property
    def head(self) -> str:
        """The name of its configuration; the type in records that hold no name."""
        cfg = self.record["config"]
        return str(cfg.get("head_name") or cfg["head"]["type"])

    @property
    def fold(self) -> int:
        return int(self.record["config"]["fold"])

    @property
    def seed(self) -> int:
        return int(self.record["config"]["seed"])


def encoder_name(node: Mapping[str, Any]) -> str:
    """What tells one encoder of a comparison from another: its model, tuning and layers."""
    name = Path(str(node.get("name") or node["type"])).name
    if node.get("tuning") not in (None, "frozen"):
        name += f" {node['tuning']}"
    if node.get("layers") is not None:
        name += f" layers {node['layers']}"
    return name


def read_runs(folder: Path, names: Sequence[str] | None = None) -> tuple[list[Run], list[str]]:
    """Finished cells of a suite's folder, and the names of those that failed or have not run."""
    cells = folder / "cells"
    chosen = names if names is not None else sorted(p.name for p in cells.iterdir() if p.is_dir())
    runs, others = [], []
    for name in chosen:
        record = read_record(cells / name)
        if record is None or record.get("status") != "ok":
            others.append(name)
        else:
            table = PredictionTable.read_jsonl(cells / name / PREDICTIONS)
            runs.append(Run(name, record, table))
    return runs, others


def by_pair(runs: Sequence[Run]) -> list[Run]:
    """Runs that were tested on corpora which they were not trained on, as one for each of these.

    Numbers out of domain are never pooled over corpora: folds may test the same utterances.
    """
    found = []
    for run in runs:
        speakers = run.record.get("speakers") or {}
        heard = {s.partition("/")[0] for part in ("train", "valid") for s in speakers.get(part, ())}
        tables = run.table.by_corpus()
        if not heard or heard & set(tables):
            found.append(run)
            continue
        source = " and ".join(sorted(heard))
        found += [replace(run, table=t, pair=f"{source} to {name}") for name, t in tables.items()]
    return found


def check_comparable(runs: Sequence[Run]) -> None:
    """Every head was trained and tested on the same data, by the same rule.

    Raises:
        ComparisonError: naming two cells of one fold that differ, and in what.
    """
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        key = (*run.group, run.fold)
        other = first.setdefault(key, run)
        for what in ("manifest", "split", "taxonomy"):
            a, b = other.record["data"][what], run.record["data"][what]
            if a != b:
                raise ComparisonError(
                    f"refusing to compare: the {what} differs ({a} in {other.name}, {b} in "
                    f"{run.name}); remove the older cells and run them again"
                )
        if other.record["selection"]["rule"] != run.record["selection"]["rule"]:
            raise ComparisonError(
                f"refusing to compare: {other.name} and {run.name} selected by different rules"
            )
        if _budget(other) != _budget(run):
            raise ComparisonError(
                f"refusing to compare: {other.name} and {run.name} were trained with different "
                "optim or data settings"
            )


def _budget(run: Run) -> dict[str, Any]:
    cfg = run.record["config"]
    keys = ("label", "batch_size", "batch_seconds", "max_seconds", "balance")
    shared = {k: cfg["data"][k] for k in keys} | {"precision": cfg["trainer"]["precision"]}
    # stored and live features make other batches: by the length of frames, or of files
    features = run.record.get("features")
    return {"optim": cfg["optim"], "encoder": cfg["encoder"], "features": features, **shared}


def pooled(runs: Sequence[Run]) -> PredictionTable:
    """Test tables of several folds and seeds in one, an utterance once per seed.

    The class counts are the same for each seed, so the UAR of this table is the mean over seeds
    of the UAR of each, also within a resample of speakers.
    """
    tables = [replace(r.table, ids=[f"{i}#{r.seed}" for i in r.table.ids]) for r in runs]
    return merge(tables)


def summarise(runs: Sequence[Run], baseline: str = "classification") -> list[dict[str, Any]]:
    """One row per corpus, encoder and head; out of domain per pair of corpora (:func:`by_pair`).

    Seeds and folds that a head has not finished are left out for every head of its table, so that
    rows stay comparable; ``partial`` counts them. A corpus and encoder of which no fold and seed
    is finished by every head has no row.

    Raises:
        ComparisonError: when cells are not comparable, or two are the same head, fold and seed.
    """
    runs = by_pair(runs)
    check_comparable(runs)
    groups: dict[tuple[str, str], dict[str, dict[tuple[int, int], Run]]] = defaultdict(dict)
    for run in runs:
        same = groups[run.group].setdefault(run.head, {})
        other = same.setdefault((run.fold, run.seed), run)
        if other is not run:
            raise ComparisonError(
                f"refusing to compare: {other.name} and {run.name} are the same head, fold and "
                "seed with other settings; tabulate them apart"
            )
    rows = []
    for (recipe, encoder), heads in groups.items():
        common = set.intersection(*(set(cells) for cells in heads.values()))
        every = set.union(*(set(cells) for cells in heads.values()))
        seeds = sorted({s for _, s in common})
        # a seed stands for itself only where it has all the folds that the others have
        folds = {f for f, _ in common}
        seeds = [s for s in seeds if all((f, s) in common for f in folds)]
        if not seeds:
            continue
        kept = [(f, s) for f in sorted(folds) for s in seeds]
        tables = {h: pooled([cells[k] for k in kept]) for h, cells in heads.items()}
        for head, cells in heads.items():
            chosen = [cells[k] for k in kept]
            per_seed = [merge(r.table for r in chosen if r.seed == s) for s in seeds]
            interval = bootstrap(tables[head])
            row = {
                "recipe": recipe,
                "encoder": encoder,
                "head": head,
                "folds": len(folds),
                "seeds": len(seeds),
                "speakers": interval.n_speakers,
                "utterances": len(per_seed[0]),
                "uar": mean_sd([t.uar() for t in per_seed])._asdict(),
                "interval": [interval.low, interval.high],
                "wa": mean_sd([t.wa() for t in per_seed])._asdict(),
                "f1": mean_sd([t.macro_f1() for t in per_seed])._asdict(),
                "recalls": tables[head].recalls(),
                "by_fold": {
                    f: float(np.mean([r.table.uar() for r in chosen if r.fold == f]))
                    for f in sorted(folds)
                },
                "seconds": float(np.mean([r.record["seconds"]["fit"] for r in chosen])),
                "inference_ms": 1000
                * float(np.mean([r.record["inference_seconds_per_utterance"] for r in chosen])),
                "trainable": chosen[0].record["parameters"]["trainable"],
                "head_parameters": chosen[0].record["parameters"]["head"],
                "head_trainable": chosen[0].record["parameters"].get("head_trainable"),
                "partial": len(every) - len(kept),
                "difference": None,
            }
            if head != baseline and baseline in tables:
                row["difference"] = paired_bootstrap(tables[head], tables[baseline])._asdict()
            rows.append(row)
    return rows


def report(folder: Path, *, console: Console | None = None) -> list[dict[str, Any]]:
    """Tabulate a suite's folder: on the console, as ``table.md`` and as ``summary.json``.

    Raises:
        ComparisonError: when there is nothing to tabulate, or cells are not comparable.
    """
    console = console or wide_console()
    if not (folder / "suite.json").is_file():
        raise ComparisonError(
            f"no comparison in {folder}; run `serzoo compare {folder.name}` first"
        )
    plan = json.loads((folder / "suite.json").read_text("utf-8"))
    runs, others = read_runs(folder, plan["cells"])
    failed = [
        n for n in others if (read_record(folder / "cells" / n) or {}).get("status") == "failed"
    ]
    if not runs:
        first = (read_record(folder / "cells" / failed[0]) or {}).get("error") if failed else None
        raise ComparisonError(
            f"no finished cell in {folder} ({len(failed)} of {len(plan['cells'])} failed)"
            + (f"; {failed[0]}: {first}; its log.txt has the details" if first else "")
        )
    rows = summarise(runs, plan["baseline"])
    text = markdown(rows, plan["baseline"])
    time = spent.totals(run.record for run in runs)
    notes = [spent.in_words(time, plan.get("calls", []))]
    notes += matching_notes(plan.get("matched", []))
    notes += [
        f"{recipe}, encoder {encoder}: no fold and seed is finished by every head yet"
        for recipe, encoder in sorted({r.group for r in by_pair(runs)})
        if not any((row["recipe"], row["encoder"]) == (recipe, encoder) for row in rows)
    ]
    if others:
        notes.append(
            f"{len(failed)} of {len(plan['cells'])} cells failed, "
            f"{len(others) - len(failed)} have not run"
        )
    text += "".join(f"\n{note}.\n" for note in notes)
    for name in failed:
        text += f"- {name}: {(read_record(folder / 'cells' / name) or {}).get('error')}\n"
    write_json(
        folder / "summary.json", {"suite": plan, "rows": rows, "failed": failed, "time": time}
    )
    temporary = folder / f".table.{os.getpid()}"
    temporary.write_text(f"# {plan['title']}\n\n{text}", "utf-8")
    os.replace(temporary, folder / "table.md")
    show(rows, plan["baseline"], console)
    for note in notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    for what, path in (
        ("records and predictions", folder / "cells"),
        ("table", folder / "table.md"),
        ("TensorBoard", f"tensorboard --logdir {folder / 'cells'}"),
    ):
        console.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)
    return rows
