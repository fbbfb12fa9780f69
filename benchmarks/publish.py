"""Copy a comparison's records and predictions into ``benchmarks/records`` and rewrite the tables.

    python benchmarks/publish.py runs/real     # copy, then rewrite
    python benchmarks/publish.py               # only rewrite benchmarks/README.md from the records

Tables are never typed: they are computed from the committed ``predictions.jsonl`` and
``record.json``, which hold no audio and no path of the machine.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import speed_tables
import text_and_prosody
from ingredients import ingredients, table
from open_labels import markdown as open_labels
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report import overview
from serzoo.zoo.report.page import FAULTS, Context, Figure, Fold, Part, Row, Section, Table, told
from serzoo.zoo.report.report import SECTIONS
from serzoo.zoo.report.runs import PREDICTIONS, Run, find_cells
from serzoo.zoo.report.summary import grids, rows_of
from serzoo.zoo.report.table import markdown, matching_notes
from serzoo.zoo.run.record import UTTERANCES, read_attributes, read_record, write_attributes

HERE = Path(__file__).parent
RECORDS = HERE / "records"
MANY = 6  # tables of a comparison: more stand in a file of their own
LONG = 20  # rows of a table of sub-groups, likewise
OVERVIEWS = ("learning", "started", "conditions", "across")
OPEN = (
    "Heads that can score any label, trained out of domain in four emotions and asked about all "
    "classes of the other corpora (`open_labels.py`): mean recall with all classes on offer, over "
    "the classes seen and unseen in training, and over either where these alone are on offer. "
    "Seeds pooled; intervals are the jackknife's over speakers: rows of an older record have none."
)
WORDS = (
    "People's labels predicted from transcripts, by learners that were taught on other speakers "
    "and by the offline scorer; beside labels shuffled within speakers, 1000 times. Intervals by "
    "speaker. Where nothing beats shuffled labels, weak labels from text cannot be right "
    "(`serzoo label audit CORPUS`)."
)
PROBES = (
    "Ridge regression from mean frames, tested on other speakers: R² with 95 % intervals over "
    "speakers; 0 is the mean of the training speakers (`serzoo probe RUN data=CORPUS`)."
)
PAIRED = (
    "Heads that differ in one thing, on the same test utterances: folds pooled, seeds averaged; "
    "jackknife over speakers, permutation of speakers, Holm over all pairs of this suite. "
    "Detectable: the true difference that these speakers would show in four cases of five."
)
DETAILS = ("groups", "calibration", "ranks", "variance")


def copy(source: Path) -> Path:
    """A suite's finished and failed cells into the repository, without logs and checkpoints."""
    plan = json.loads((source / "suite.json").read_text("utf-8"))
    target = RECORDS / plan["name"]
    shutil.rmtree(target, ignore_errors=True)
    write_json(target / "suite.json", plan)
    for name in plan["cells"]:
        record = read_record(source / "cells" / name)
        if record is None:
            continue
        record["config"]["data"] = {**record["config"]["data"], "root": None, "manifest": None}
        record["config"]["trainer"] = {**record["config"]["trainer"], "out": "runs"}
        write_json(target / "cells" / name / "record.json", record)
        predictions = source / "cells" / name / PREDICTIONS
        if predictions.is_file():
            packed = gzip.compress(predictions.read_bytes(), mtime=0)
            (target / "cells" / name / f"{PREDICTIONS}.gz").write_bytes(packed)
    if known := read_attributes(source, plan["cells"]):  # once, not for every cell
        write_attributes(target / UTTERANCES, known)
    return target


def section(folder: Path) -> str:
    """The tables of one suite and what they were made with."""
    plan = json.loads((folder / "suite.json").read_text("utf-8"))
    found = find_cells(folder, plan["cells"])
    made, refused = grids(found.runs)
    rows = rows_of(made, plan["baseline"])
    known = read_attributes(folder, [])
    c = Context(folder, plan, found, made, refused, rows, known, "", "")
    tables = f"{markdown(rows, plan['baseline'])}\n"
    tables += f"Recall per class, folds pooled:\n\n{_recalls(rows)}\n"
    tables += f"UAR per fold, seeds averaged:\n\n{_folds(rows)}\n"
    tables += _sections(c, DETAILS)
    text = f"## {plan['title']}\n\n{_own(folder, plan, found.runs)}{_sections(c, OVERVIEWS)}"
    if len(made) > MANY:
        (folder / "table.md").write_text(f"# {plan['title']}\n\n{tables.rstrip()}\n", "utf-8")
        text += f"All {len(made)} tables: [table.md](records/{folder.name}/table.md).\n\n"
    else:
        text += tables
    if len(paired := ingredients(made)) > 1:
        text += f"### What each ingredient is worth\n\n{PAIRED}\n\n{table(paired)}"
    text += "".join(f"{note}.\n\n" for note in matching_notes(plan.get("matched", [])))
    text += "".join(f"No table for {', '.join(k)}: {why}.\n\n" for k, why in refused.items())
    text += _made_with(found.runs) + "\n"
    if found.others:
        text += (
            f"\n{len(found.others)} of {len(plan['cells'])} cells are missing: "
            f"{', '.join(found.others)}\n"
        )
    return text + "\n"


def _own(folder: Path, plan: dict[str, Any], runs: Sequence[Run]) -> str:
    """The tables that a suite of conditions, or of adaptations, has beside those of all suites."""
    if "conditions" in plan:
        return f"{overview.degradation_markdown(overview.degradation(runs))}\n"
    if "shots" in plan:
        return f"{overview.few_shot_markdown(overview.points(folder, plan['cells']))}\n"
    return ""


def _sections(c: Context, names: Sequence[str]) -> str:
    """Tables and messages of a report's sections."""
    text = ""
    for anchor, title, make in SECTIONS:
        if anchor not in names:
            continue
        part = Section(anchor, title)
        try:
            make(part, c)
        except FAULTS as error:
            part.messages.append(told(error))
        found = [t for t in _tables(part.parts) if anchor in OVERVIEWS or len(t.rows) <= LONG]
        if not found and (anchor in OVERVIEWS or not part.messages):
            continue
        text += f"### {title}\n\n{part.intro}\n\n"
        text += "".join(f"{message}\n\n" for message in part.messages)
        if anchor == "learning":
            text += _pictures(
                c.folder, [f for p in part.parts if isinstance(p, Row) for f in p.parts]
            )
        text += "".join(map(_markdown, found))
    return text


def _pictures(folder: Path, figures: Sequence[Figure]) -> str:
    """Learning curves, beside the records."""
    text = ""
    for i, figure in enumerate(figures):
        path = folder / f"learning-{i}.svg"
        # by itself it has no page to take its colours from
        plain = figure.svg.replace("<svg ", '<svg style="background:#fff;color:#000" ', 1)
        path.write_text(plain, "utf-8")
        text += f"![{figure.alt}](records/{folder.name}/{path.name})\n\n"
    return text


def _tables(parts: Sequence[Part]) -> Iterator[Table]:
    for part in parts:
        if isinstance(part, Fold):
            yield from _tables(part.parts)
        elif isinstance(part, Table):
            yield part


def _markdown(table: Table) -> str:
    lines = [[c.text for c in row] for row in table.cells]
    text = f"**{table.caption}**\n\n| " + " | ".join(table.columns) + " |\n"
    text += "|" + "---|" * len(table.columns) + "\n"
    text += "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return text + "\n" + "".join(f"{note}\n\n" for note in table.notes)


def _grid(rows: list[dict[str, Any]], key: str, form: str) -> str:
    text = ""
    for recipe in dict.fromkeys(r["recipe"] for r in rows):
        mine = [r for r in rows if r["recipe"] == recipe]
        columns = list(mine[0][key])
        text += (
            f"| {recipe} | " + " | ".join(map(str, columns)) + " |\n|" + "---|" * (len(columns) + 1)
        )
        for row in mine:
            values = [form.format(row[key][c]) for c in columns]
            text += f"\n| {row['head']} | " + " | ".join(values) + " |"
        text += "\n\n"
    return text


def _recalls(rows: list[dict[str, Any]]) -> str:
    return _grid(rows, "recalls", "{:.2f}")


def _folds(rows: list[dict[str, Any]]) -> str:
    return _grid(rows, "by_fold", "{:.3f}")


def _made_with(runs: list[Any]) -> str:
    def common(pick: Any) -> str:
        return ", ".join(str(v) for v, _ in Counter(pick(r.record) for r in runs).most_common())

    git = common(lambda r: (r.get("git") or {}).get("commit", "unknown")[:10])
    changed = sum(bool((r.record.get("git") or {}).get("changed")) for r in runs)
    text = (
        f"Made with torch {common(lambda r: (r.get('versions') or {}).get('torch'))}, lightning "
        f"{common(lambda r: (r.get('versions') or {}).get('lightning'))}, Python "
        f"{common(lambda r: (r.get('versions') or {}).get('python'))}; code at commit {git}"
    )
    if changed:
        text += f" ({changed} cells with uncommitted changes)"
    hours = sum((r.record.get("seconds") or {}).get("total", 0) for r in runs) / 3600
    threads = common(lambda r: r.get("threads"))
    return text + f"; {len(runs)} cells, {hours:.2f} hours of a process with {threads} thread."


def _read_all(kind: str) -> dict[str, Any]:
    """Records of ``records/<kind>``, by their name."""
    paths = sorted((RECORDS / kind).glob("*.json"))
    return {p.stem: json.loads(p.read_text("utf-8")) for p in paths}


def main() -> None:
    for source in sys.argv[1:]:
        print(f"copied to {copy(Path(source))}")
    text = (HERE / "preface.md").read_text("utf-8").rstrip() + "\n\n"
    text += speed_tables.speed(RECORDS / "speed")
    for folder in sorted(p for p in RECORDS.iterdir() if (p / "suite.json").is_file()):
        text += section(folder)
    if (labels := RECORDS / "open_labels.json").is_file():
        rows = json.loads(labels.read_text("utf-8"))["rows"]
        text += f"## Open labels\n\n{OPEN}\n\n{open_labels(rows)}\n"
    if found := _read_all("audits"):
        rows = text_and_prosody.audits(found.values())
        text += f"## What words tell of labels\n\n{WORDS}\n\n{rows}\n"
    if found := _read_all("probes"):
        text += f"## What frames tell of prosody\n\n{PROBES}\n\n{text_and_prosody.probes(found)}\n"
    (HERE / "README.md").write_text(text.rstrip() + "\n", "utf-8")
    print(f"wrote {HERE / 'README.md'}")


if __name__ == "__main__":
    main()
