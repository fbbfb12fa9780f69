"""Reports: tables, summaries and a page from the finished cells of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..core.errors import ComparisonError, DataError, counted
from ..core.files import write_json, write_text
from ..core.progress import Bar
from ..core.table import wide_console
from ..run.board import EVENTS
from ..run.record import UTTERANCES, Attributes, SuiteRecord, read_plan, write_attributes
from . import calibration, detail, overview
from .answers import Asked, kept
from .grids import grids
from .packed import is_packed
from .page import FAULTS, Context, Fold, Points, Section, as_message, render
from .runs import (
    PREDICTIONS,
    Corpora,
    Found,
    Run,
    by_pair,
    certificate,
    check_comparable,
    encoder_name,
    find_cells,
    pooled,
    read_runs,
    suite_attributes,
)
from .summary import Result, rows_of, summarise
from .table import latex, markdown, matching_notes, show, source_notes

SECTIONS = (
    ("answer", "The answer", overview.answer),
    ("results", "Results", overview.results),
    ("differences", "Paired differences", overview.differences),
    ("compared", "What was compared, and how", detail.compared),
    ("beyond", "What is kept beyond the baseline", overview.beyond),
    ("learning", "Learning curves", overview.learning),
    ("started", "What pre-training is worth", overview.started),
    ("conditions", "By condition", overview.conditions),
    ("across", "Across corpora", overview.across),
    ("label-shift", "Matched to a class prior", detail.label_shift),
    ("confusions", "Confusion matrices", detail.confusions),
    ("groups", "Sub-groups", detail.groups),
    ("calibration", "Calibration and risk-coverage", calibration.calibration),
    ("votes", "Against the votes of raters", calibration.votes),
    ("ranks", "Average ranks", detail.ranks),
    ("variance", "What the numbers vary with", detail.variance),
    ("cost", "Cost against quality", overview.cost),
    ("errors", "Most confident errors", detail.errors),
    ("missing", "Missing cells and classes", detail.missing),
    ("made-with", "Command and versions", detail.made_with),
)

__all__ = [
    "PREDICTIONS",
    "Found",
    "Run",
    "by_pair",
    "certificate",
    "check_comparable",
    "encoder_name",
    "find_cells",
    "pooled",
    "read_runs",
    "report",
    "summarise",
]


def report(
    folder: Path,
    *,
    console: Console | None = None,
    audio: bool = False,
    attributes: bool = False,
) -> list[Result]:
    """Tabulate a suite's folder: print tables, and write files into it.

    The files are ``table.md``, ``table.tex``, ``summary.json`` and ``report.html``, which needs no
    other file. Conditions add ``degradation.md``, and adaptations ``learning_curves.md``.
    Cells that failed, have not run or cannot be read are named and left out. A table whose cells
    are not comparable is refused; the others are made.

    Args:
        folder: folder of the suite.
        console: where to print.
        audio: put players beside the most confident errors; needs the corpora.
        attributes: read gender, language, duration and clusters of utterances from the corpora,
            and keep them in the folder. Older cells lack them.

    Returns:
        The rows of all tables.

    Raises:
        ComparisonError: if there is nothing to tabulate.
    """
    console = console or wide_console()
    plan = read_plan(folder)
    found = find_cells(folder, plan.cells)
    if not found.runs:
        raise ComparisonError(_nothing(folder, plan, found))
    corpora = Corpora()
    known, fault = _attributes(folder, found, corpora if attributes else None)
    made, refused = grids(found.runs, known)
    asked = Asked.of(plan)
    rows = rows_of(made, asked)
    time = detail.totals(run.record for run in found.runs)
    notes = [detail.in_words(time, plan.calls)]
    notes += matching_notes(plan.matched)
    notes += source_notes(plan.pretraining)
    notes += [f"{r}, encoder {e}: {why}" for (r, e), why in sorted(refused.items())]
    notes += missing_notes(plan, found)
    text = markdown(rows, plan.baseline) + "".join(f"\n{note}.\n" for note in notes)
    text += "".join(f"- {n}: {why}\n" for n, why in (found.failed | found.broken).items())
    summary = {"suite": plan.to_json(), "rows": rows, "failed": sorted(found.failed), "time": time}
    summary |= {
        "broken": found.broken,
        "refused": {", ".join(key): why for key, why in refused.items()},
        "certificates": {grid.name: grid.certificate for grid in made},
    }
    write_json(folder / "summary.json", summary)
    write_text(folder / "table.md", f"# {plan.title}\n\n{text}")
    write_text(folder / "table.tex", latex(rows, plan.baseline))
    context = Context(
        folder, plan, found, made, refused, rows, known, fault, notes[0], audio, corpora
    )
    with Bar("sections of the page", len(SECTIONS)) as bar:
        write_text(folder / "report.html", page(context, bar))
    show(rows, plan.baseline, console)
    for note in notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    for name, why in found.broken.items():
        console.print(f"{name}: {why}", style="red", markup=False, highlight=False)
    ends: list[tuple[str, Path | str]] = [
        ("records and predictions", folder if is_packed(folder) else folder / "cells"),
        ("table", folder / "table.md"),
        ("report", folder / "report.html"),
    ]
    if plan.conditions:
        ends.append(("degradation", overview.write_degradation(folder)))
    if plan.shots:
        beyond = overview.kept_markdown(kept(made, asked), asked)
        path = overview.write_few_shot(folder, plan.cells, asked.metric, beyond)
        ends.append(("learning curves", path))
    if shown := board(folder):
        ends.append(("TensorBoard", shown))
    for what, where in ends:
        console.print(f"{what}: {where}", markup=False, highlight=False, soft_wrap=True)
    return rows


def page(c: Context, bar: Bar | None = None) -> str:
    """Return ``report.html``; a section that cannot be made says why, and the others are made.

    A section that does not apply is left out. The last section names these, with the reason.

    Args:
        c: material of the report.
        bar: advances with each section.
    """
    made: list[Section] = []
    absent: list[tuple[str, str]] = []
    for anchor, title, make in SECTIONS:
        section = Section(anchor, title)
        try:
            make(section, c)
        except FAULTS as error:
            section.messages.append(as_message(error))
        if section.absent and not section.messages:
            absent.append((title, section.absent))
        else:
            made.append(section)
        if bar is not None:
            bar.advance()
    if absent:
        left = Fold(f"Left out: {counted(len(absent), 'section')}", [Points(absent)])
        made[-1].parts.append(left)
    lead = (
        f"{counted(len(c.rows), 'row')} in {counted(len(c.grids), 'table')}, from "
        f"{counted(len(c.found.runs), 'finished cell')}; "
        f"differences are to {c.baseline}. Every number is computed from the cells' predictions."
    )
    return render(c.plan.title, lead, made)


def _attributes(folder: Path, found: Found, corpora: Corpora | None) -> tuple[Attributes, str]:
    """Return the attributes of utterances, and why there are none, or ""."""
    try:
        if corpora is not None:
            known = corpora.attributes(found.runs)
            write_attributes(folder / UTTERANCES, known)
        return suite_attributes(folder, [r.name for r in found.runs]), ""
    except DataError as error:
        return {}, str(error)


def board(folder: Path) -> str:
    """Return the command that shows a suite's cells in TensorBoard; "" without its files."""
    if next((folder / "cells").rglob(EVENTS), None) is None:
        return ""
    where = [] if folder.parent == Path("runs") else ["--out", str(folder.parent)]
    return shlex.join(["serzoo", "tensorboard", folder.name, *where])


def missing_notes(plan: SuiteRecord, found: Found) -> list[str]:
    """Return how many cells are not in the tables, and why."""
    parts = [
        f"{len(names)} {what}"
        for names, what in (
            (found.failed, "failed"),
            (found.missing, f"ha{'s' if len(found.missing) == 1 else 've'} not run"),
            (found.broken, "cannot be read"),
        )
        if names
    ]
    return [f"of {len(plan.cells)} cells, {', '.join(parts)}"] if parts else []


def _nothing(folder: Path, plan: SuiteRecord, found: Found) -> str:
    reasons: Sequence[tuple[str, str]] = [*found.failed.items(), *found.broken.items()]
    text = f"no finished cell in {folder} ({len(found.failed)} of {len(plan.cells)} failed"
    text += f", {len(found.broken)} cannot be read)" if found.broken else ")"
    if reasons:
        name, why = reasons[0]
        text += f"; {name}: {why}" + ("; its log.txt has the details" if found.failed else "")
    return text
