"""Pack a comparison into ``benchmarks/results``, and write the tables of all packed ones.

    python benchmarks/publish.py                            # all tables, into benchmarks/tables
    python benchmarks/publish.py pages                      # those of docs/results, in their place
    python benchmarks/publish.py pack runs/real             # a comparison into benchmarks/results
    python benchmarks/publish.py unpack real runs/real      # and back: a folder for each cell
    python benchmarks/publish.py verify                     # every file is as its checksum says

Tables are never typed. They are computed from the packed predictions and records, which hold no
audio and no path of the machine.
``serzoo report real --out benchmarks/results`` shows the same suite as a page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import page_tables
import speed_tables
import text_and_prosody
from ingredients import ingredients
from ingredients import tables as of_ingredients
from open_labels import table as open_labels
from serzoo.zoo.core.errors import DataError, SerzooError
from serzoo.zoo.core.files import new_folder
from serzoo.zoo.core.table import Table
from serzoo.zoo.report import overview
from serzoo.zoo.report.answers import Asked
from serzoo.zoo.report.grids import grids
from serzoo.zoo.report.packed import is_packed, open_packed, pack, unpack
from serzoo.zoo.report.page import FAULTS, Context, Figure, Fold, Part, Row, Section, as_message
from serzoo.zoo.report.report import SECTIONS
from serzoo.zoo.report.runs import Run, find_cells, suite_attributes
from serzoo.zoo.report.summary import rows_of
from serzoo.zoo.report.table import by_fold, grouped, markdown, matching_notes, recalls
from serzoo.zoo.run.record import SuiteRecord, read_plan

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TABLES = HERE / "tables"  # git ignores it
MANY = 6  # a comparison with more tables has a file of its own for them
LONG = 20  # a table of sub-groups with more rows is left out
OVERVIEWS = ("learning", "started", "conditions", "across", "beyond")
OPEN = (
    "Heads that can score any label were trained out of domain in four emotions. They are asked "
    "about all classes of the other corpora (`open_labels.py`). Mean recall is over seen and "
    "unseen classes, with all classes on offer or only these. Seeds are pooled. Intervals are the "
    "jackknife's over speakers; rows of an older record have none."
)
WORDS = (
    "People's labels are predicted from transcripts, by the offline scorer and by learners of "
    "other speakers. The control is labels shuffled within speakers, 1000 times. Intervals are "
    "over speakers. If nothing beats shuffled labels, weak labels from text cannot be right "
    "(`serzoo label audit CORPUS`)."
)
PROBES = (
    "Ridge regression from mean frames, tested on other speakers. R² has 95 % intervals over "
    "speakers; 0 is the mean of the training speakers (`serzoo probe RUN data=CORPUS`)."
)
PAIRED = (
    "Heads that differ in one thing, on the same test utterances: folds pooled, seeds averaged. "
    "The pairs of a corpus are one family of questions; columns are computed as those above."
)
DETAILS = ("groups", "calibration", "ranks", "variance")


FOLDERS = re.compile(r"(?<![\w./:-])/(?:[\w.-]+/)*([\w.-]+)")
"""An absolute path; its last name is kept. Relative ones and addresses are left alone."""


def without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record or a plan without the folders of the machine that made it."""
    kept: dict[str, Any] = _bare(content)
    if "config" in kept:
        kept["config"]["data"] |= {"root": None, "manifest": None}
        kept["config"]["trainer"]["out"] = "runs"
    return kept


def _bare(content: Any) -> Any:
    if isinstance(content, str):
        return FOLDERS.sub(r"\1", content)
    if isinstance(content, list):
        return [_bare(each) for each in content]
    return {k: _bare(v) for k, v in content.items()} if isinstance(content, dict) else content


def add(source: Path) -> Path:
    """Pack the finished and failed cells of a comparison into the results; return their folder."""
    return pack(source, RESULTS / read_plan(source).name, without_paths)


def suites() -> list[Path]:
    """Return the folders of the packed suites, sorted by name."""
    return sorted(p for p in RESULTS.iterdir() if is_packed(p))


def section(folder: Path, place: Path) -> str:
    """Return the tables of one suite, and what they were made with.

    Args:
        folder: folder of the suite.
        place: folder of its pictures, and of its tables if they are many.
    """
    plan = read_plan(folder)
    found = find_cells(folder, plan.cells)
    known = suite_attributes(folder, [])
    made, refused = grids(found.runs, known)
    asked = Asked.of(plan)
    rows = rows_of(made, asked)
    c = Context(folder, plan, found, made, refused, rows, known, "", "")
    tables = f"{markdown(rows, plan.baseline)}\n"
    tables += _markdown(make(group) for make in (recalls, by_fold) for group in grouped(rows))
    tables += _sections(c, DETAILS, place)
    text = f"## {plan.title}\n\n{_own(folder, plan, found.runs, asked)}"
    text += _sections(c, OVERVIEWS, place)
    if len(made) > MANY:
        path = place / f"{folder.name}-all.md"
        path.write_text(f"# {plan.title}\n\n{tables.rstrip()}\n", "utf-8")
        text += f"All {len(made)} tables: [{path.name}]({path.name}).\n\n"
    else:
        text += tables
    if len(paired := ingredients(made, asked)) > 1:
        text += (
            f"### What each ingredient is worth\n\n{PAIRED}\n\n{_markdown(of_ingredients(paired))}"
        )
    text += "".join(f"{note}.\n\n" for note in matching_notes(plan.matched))
    text += "".join(f"No table for {', '.join(k)}: {why}.\n\n" for k, why in refused.items())
    text += _made_with(found.runs) + "\n"
    if found.others:
        text += (
            f"\n{len(found.others)} of {len(plan.cells)} cells are missing: "
            f"{', '.join(found.others)}\n"
        )
    return text + "\n"


def _own(folder: Path, plan: SuiteRecord, runs: Sequence[Run], asked: Asked) -> str:
    """Return the tables that only suites of conditions, or of adaptations, have."""
    if plan.conditions:
        return f"{overview.degradation_markdown(overview.degradation(runs, asked.metric))}\n"
    if plan.shots:
        found = overview.points(folder, plan.cells, asked.metric)
        return f"{overview.few_shot_table(found).markdown()}\n"
    return ""


def _sections(c: Context, names: Sequence[str], place: Path) -> str:
    """Return tables and messages of some sections of a report."""
    text = ""
    for anchor, title, make in SECTIONS:
        if anchor not in names:
            continue
        part = Section(anchor, title)
        try:
            make(part, c)
        except FAULTS as error:
            part.messages.append(as_message(error))
        found = [t for t in _tables(part.parts) if anchor in OVERVIEWS or len(t.rows) <= LONG]
        if not found and (anchor in OVERVIEWS or not part.messages):
            continue
        text += f"### {title}\n\n{part.intro}\n\n"
        text += "".join(f"{message}\n\n" for message in part.messages)
        if anchor == "learning":
            figures = [f for p in part.parts if isinstance(p, Row) for f in p.parts]
            text += _pictures(place, c.folder.name, figures)
        text += _markdown(found)
    return text


def _pictures(place: Path, suite: str, figures: Sequence[Figure]) -> str:
    """Write learning curves beside the tables; return the lines that show them."""
    text = ""
    for i, figure in enumerate(figures):
        path = place / f"{suite}-learning-{i}.svg"
        # outside a page, a drawing has no colours to take over
        plain = figure.svg.replace("<svg ", '<svg style="background:#fff;color:#000" ', 1)
        path.write_text(plain, "utf-8")
        text += f"![{figure.alt}]({path.name})\n\n"
    return text


def _tables(parts: Sequence[Part]) -> Iterator[Table]:
    for part in parts:
        if isinstance(part, Fold):
            yield from _tables(part.parts)
        elif isinstance(part, Table):
            yield part


def _markdown(tables: Iterable[Table]) -> str:
    return "".join(f"{table.markdown()}\n" for table in tables)


def _made_with(runs: list[Any]) -> str:
    def common(pick: Any) -> str:
        return ", ".join(str(v) for v, _ in Counter(pick(r.record) for r in runs).most_common())

    git = common(lambda r: (r.git or {}).get("commit", "unknown")[:10])
    changed = sum(bool((r.record.git or {}).get("changed")) for r in runs)
    text = (
        f"Made with torch {common(lambda r: r.versions.get('torch'))}, lightning "
        f"{common(lambda r: r.versions.get('lightning'))}, Python "
        f"{common(lambda r: r.versions.get('python'))}; code at commit {git}"
    )
    if changed:
        text += f" ({changed} cells with uncommitted changes)"
    hours = sum(r.record.seconds.get("total", 0) for r in runs) / 3600
    threads = common(lambda r: r.threads)
    return text + f"; {len(runs)} cells, {hours:.2f} hours of a process with {threads} thread."


def _read_all(kind: str) -> dict[str, Any]:
    """Return the records of ``results/<kind>`` by name."""
    paths = sorted((RESULTS / kind).glob("*.json"))
    return {p.stem: json.loads(p.read_text("utf-8")) for p in paths}


def pages(place: Path) -> dict[str, str]:
    """Return the text of each page of tables, by the name of its file.

    Args:
        place: folder of pictures, and of the tables of suites that have many.
    """
    found = {f"{folder.name}.md": section(folder, place) for folder in suites()}
    if text := speed_tables.speed(RESULTS / "speed"):
        found["speed.md"] = text
    if (labels := RESULTS / "open_labels.json").is_file():
        rows = json.loads(labels.read_text("utf-8"))["rows"]
        found["open_labels.md"] = f"## Open labels\n\n{OPEN}\n\n{open_labels(rows).markdown()}\n"
    if audits := _read_all("audits"):
        rows = text_and_prosody.audits(audits.values())
        found["words.md"] = f"## What words tell of labels\n\n{WORDS}\n\n{rows.markdown()}\n"
    if probes := _read_all("probes"):
        rows = text_and_prosody.probes(probes)
        found["frames.md"] = f"## What frames tell of prosody\n\n{PROBES}\n\n{rows.markdown()}\n"
    return found


def write_tables() -> Path:
    """Write all tables into their folder, which appears whole or not at all; return it."""
    with new_folder(TABLES, [p.name for p in TABLES.glob("*") if p.is_file()]) as place:
        found = pages(place)
        for name, text in found.items():
            (place / name).write_text(text.rstrip() + "\n", "utf-8")
        index = "".join(
            f"- [{text.partition(chr(10))[0].removeprefix('## ')}]({name})\n"
            for name, text in found.items()
        )
        (place / "README.md").write_text(f"# All tables\n\n{index}", "utf-8")
    return TABLES


def verify(names: Sequence[str] = ()) -> list[str]:
    """Read suites, all by default, and return the names of these.

    Raises:
        DataError: if a file is missing or damaged, or a cell's predictions cannot be read.
    """
    folders = [RESULTS / name for name in names] or suites()
    for folder in folders:
        packed = open_packed(folder)
        if packed is None:
            known = ", ".join(p.name for p in suites())
            raise DataError(f"no packed suite in {folder}; have {known}")
        for name, line in packed.cells.items():
            if "classes" in line:
                packed.table(name)
    return [folder.name for folder in folders]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("tables", help="write all tables into benchmarks/tables (the default)")
    commands.add_parser("pages", help="write the tables of docs/results and benchmarks/README.md")
    sub = commands.add_parser("pack", help="pack a comparison's folder into benchmarks/results")
    sub.add_argument("folder", type=Path, help="folder of a comparison, such as runs/real")
    sub = commands.add_parser("unpack", help="write a packed suite as a folder for each cell")
    sub.add_argument("suite", help="name of a suite in benchmarks/results")
    sub.add_argument("folder", type=Path, help="a new folder, such as runs/real")
    sub = commands.add_parser("verify", help="check files against their checksums, and read them")
    sub.add_argument("suite", nargs="*", help="names of suites (default: all)")
    args = parser.parse_args(argv)
    try:
        if args.command == "pack":
            print(f"packed into {add(args.folder)}")
        elif args.command == "unpack":
            print(f"unpacked into {unpack(RESULTS / args.suite, args.folder)}")
        elif args.command == "verify":
            print("".join(f"{name}: as its checksums say\n" for name in verify(args.suite)), end="")
        elif args.command == "pages":
            changed = [page.name for page in page_tables.write_pages()]
            print(f"changed: {', '.join(changed) or 'no page'}")
        else:
            print(f"wrote {write_tables() / 'README.md'}")
    except SerzooError as error:
        print(f"publish.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
