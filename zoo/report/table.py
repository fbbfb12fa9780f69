"""The rows of a comparison as tables: on a console, in Markdown and in LaTeX."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ..core.errors import counted
from ..core.files import json_text
from ..core.table import (
    Cell,
    Line,
    Table,
    cell,
    number_cell,
    pandas,
    plain,
    seconds_text,
    span_cell,
)
from ..run.schema import METRIC_KEYS
from .answers import COLUMNS as ANSWER
from .answers import MARGIN, NAMES, Answered, answer_cells, verdicts
from .grids import sentences
from .runs import NORMALISED
from .summary import Human, Result

COSTS = ("s / fit", "ms / utt", "trainable")


def columns_of(metric: str) -> tuple[str, ...]:
    """Return the columns of a table of results; the suite's metric is the first number."""
    others = [NAMES[m] for m in METRIC_KEYS if m != metric]
    return ("head", NAMES[metric], "95 % interval", "difference", "relative", "verdict", *others,
            "top-2", *COSTS)  # fmt: skip


def cells_of(row: Result, baseline: str) -> list[Cell]:
    """Return a row's cells, in the order of :func:`columns_of`."""
    diff = row.difference
    said = "baseline" if row.head == baseline else ""
    change = [number_cell(said, None), number_cell("", None), Cell("")]
    if diff:
        change = [
            cell(diff.value, "+.3f"),
            cell(diff.relative, "+.1%"),
            Cell(diff.verdict),
        ]
    others = [getattr(row, key) for m, key in METRIC_KEYS.items() if m != row.metric]
    return [
        Cell(row.head),
        number_cell(str(row.score), row.score.mean),
        span_cell(*row.interval),
        *change,
        *(number_cell(str(v), v.mean) for v in others),
        cell(row.top2),
        number_cell(seconds_text(row.seconds), row.seconds),
        cell(row.inference_ms, ".1f"),
        number_cell(plain(row.trainable, ","), row.trainable),
    ]


def results_table(group: Sequence[Result], baseline: str) -> Table:
    """Return the results of the rows of one table, with what is to be known of their intervals."""
    body = [cells_of(row, baseline) for row in group]
    said = sentences(group[0].remarks)
    columns = columns_of(group[0].metric)
    if (human := group[0].human) is not None:
        body.append(_human_cells(human, columns))
        said.append(f"{LISTENERS}: {human.source}.")
    return Table(caption(group[0]), columns, body, said)


LISTENERS = "listeners (people)"
"""Name of the row that says how well people recognise the same emotions."""


def _human_cells(human: Human, columns: Sequence[str]) -> list[Cell]:
    """Return the row of the listeners; a dash for what is not known of people, and no verdict."""
    known = {NAMES["uar"]: human.uar, NAMES["wa"]: human.wa}
    found = [cell(known.get(column)) for column in columns[1:]]
    words = [
        Cell("") if column == "verdict" else one
        for column, one in zip(columns[1:], found, strict=True)
    ]
    return [Cell(LISTENERS), *words]


def answer_table(group: Sequence[Result], baseline: str) -> Table | None:
    """Return the differences to the baseline of the rows of one table, with verdicts in words.

    None if no row is compared.
    """
    compared = {row.head: row.difference for row in group if row.difference}
    if not compared:
        return None
    body: list[Line] = [
        [head, cell(d.value, "+.3f"), cell(d.relative, "+.1%"), *answer_cells(d)]
        for head, d in compared.items()
    ]
    title = f"{NAMES[group[0].metric]} minus {baseline}'s: {name_of(group)}"
    columns = ("head", "difference", "relative", *ANSWER)
    said = [
        verdicts(compared, baseline),
        below_anchor(compared, baseline),
        *sentences(group[0].remarks),
    ]
    return Table(title, columns, body, list(filter(None, said)))


ANCHOR = "linear_svm"
SHOWN = 0.0005
"""The smallest difference that the three digits of a table show."""


def below_anchor(compared: Mapping[str, Answered], baseline: str) -> str:
    """Return a warning if the baseline is below the linear SVM on the same frames; otherwise "".

    Args:
        compared: differences to the baseline, by head.
        baseline: the head that others are compared to.
    """
    found = compared.get(ANCHOR)
    if baseline == ANCHOR or found is None or not found.value >= SHOWN:  # or NaN
        return ""
    return (
        f"The baseline {baseline} is {found.value:.3f} below {ANCHOR}, a linear reading of the "
        f"same frames (verdict on {ANCHOR}: {found.verdict}). A head that is better than "
        f"{baseline} may owe it to a weak baseline: compare it with {ANCHOR}, too."
    )


def caption(row: Result) -> str:
    """Return a table's caption: its utterances, clusters, folds, seeds and certificate."""
    text = (
        f"{row.recipe}, encoder {row.encoder}: "
        f"{counted(row.utterances, 'test utterance')} of "
        + ", ".join(
            counted(n, what)
            for n, what in ((row.speakers, "speaker"), (row.folds, "fold"), (row.seeds, "seed"))
        )
    )
    if row.cluster != "speaker":
        text += f"; {counted(row.clusters, row.cluster)}"
    if unknown := row.without_speaker:
        text += f"; {unknown} without a speaker"
    if row.why:
        text += f"; {row.why}, so no interval and no test"
    if row.dependent:
        text += f"; speaker-dependent: {row.dependent} of the speakers are in training, too"
    if row.unsure:
        text += "; it is unknown whether the parts of the folds share speakers"
    if row.partial:
        left = "fold of a seed" if row.partial == 1 else "folds of seeds"
        text += f"; {row.partial} {left} left out, not finished by every head"
    if row.certificate:
        text += f"; certificate {row.certificate}"
    return text


def grouped(rows: Sequence[Result]) -> list[list[Result]]:
    """Return the rows of each table."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for row in rows:
        groups[row.recipe, row.encoder].append(row)
    return list(groups.values())


NOTES = (
    "{metric}, all folds' test utterances pooled: mean ± standard deviation over seeds (from 3 "
    "seeds on). UAR: mean recall over classes. WA: accuracy. Top-2: share of utterances whose "
    "label is among the two highest scores.",
    "Interval: 95 %, jackknife over {cluster}s with Student's t, on the logit scale.",
    "Difference: {metric} minus that of {baseline} on the same utterances; relative: {metric} "
    "divided by that of {baseline}, minus 1.",
    "These models: interval and p for these trainings and new {cluster}s, by one test that flips "
    "the signs of {cluster}s. New trainings: interval and p for new {cluster}s and new seeds.",
    "Intervals are 95 % and hold for all declared questions of a corpus at once; p is corrected "
    "for them ({family}): step-down max-T of Westfall and Young. Other rows, "
    "such as imported ones, are not corrected and change no other row.",
    "Detectable: the true difference that is found in 80 % of cases after this correction; a "
    "smaller one may be there unseen.",
    "Verdict: better or worse if the corrected p is at most 0.05; otherwise equivalent if the 90 % "
    "interval lies within ±{margin:g}; otherwise undecided. It is for new trainings if there are "
    "two seeds or more, and for these models otherwise. Identical: the predictions are the same.",
    "Certificate: hash of manifest, split of every fold, taxonomy and rule of selection; tables "
    "with one certificate hold the same utterances in the same parts.",
    "A dash: unknown, or not to be computed from these data.",
)


def notes(rows: Sequence[Result], baseline: str) -> list[str]:
    """Return how the numbers of the rows were computed, a sentence or two for each column."""
    found = [row.difference for row in rows if row.difference]
    sizes = sorted({d.family for d in found})
    family = ", ".join(map(str, sizes)) or "0"
    facts = {
        "baseline": baseline,
        "metric": NAMES[rows[0].metric] if rows else NAMES["uar"],
        "family": f"{family} in a family",
        "cluster": " or ".join(dict.fromkeys(row.cluster for row in rows)) or "speaker",
        "margin": found[0].margin if found else MARGIN,
    }
    return [note.format(**facts) for note in NOTES] + normalised_notes(rows) + absent_notes(rows)


def normalised_notes(rows: Sequence[Result]) -> list[str]:
    """Return what speaker normalisation means for the numbers; nothing if no row has it."""
    if not any(NORMALISED in row.encoder for row in rows):
        return []
    return [
        f"{NORMALISED.capitalize()}: each utterance loses what is common to unlabelled test "
        "utterances of its speaker, to all (speaker) or to K of them (enrol:K). So an answer "
        "depends on the speaker's other utterances (transductive), and is not to be compared with "
        "one that does not."
    ]


def absent_notes(rows: Sequence[Result]) -> list[str]:
    """Return how UAR and macro-F1 treat classes that no test utterance has; nothing if all have."""
    absent = {name_of([row]): row.absent for row in rows if row.absent}
    return [
        f"{name}: no test utterance is {', '.join(classes)}; UAR and macro-F1 are means over the "
        "other classes. scikit-learn's macro-F1 is lower if such a class was predicted."
        for name, classes in absent.items()
    ]


def tables(rows: Sequence[Result], baseline: str) -> list[Table]:
    """Return the results of each corpus and encoder, each followed by its differences."""
    made = []
    for group in grouped(rows):
        made.append(results_table(group, baseline))
        if (compared := answer_table(group, baseline)) is not None:
            made.append(compared)
    return made


def name_of(group: Sequence[Result]) -> str:
    """Return recipe and encoder of the rows of one table."""
    return f"{group[0].recipe}, {group[0].encoder}"


def recalls(group: Sequence[Result]) -> Table:
    """Return a table of the recall of every class."""
    classes = list(group[0].recalls)
    body: list[Line] = [[r.head, *(cell(r.recalls.get(c), ".2f") for c in classes)] for r in group]
    return Table(f"Recall by class, folds pooled: {name_of(group)}", ("head", *classes), body)


def by_fold(group: Sequence[Result]) -> Table:
    """Return a table of the suite's metric in every fold."""
    folds = list(group[0].by_fold)
    body: list[Line] = [[r.head, *(cell(r.by_fold.get(f)) for f in folds)] for r in group]
    columns = ("head", *(f"fold {f}" for f in folds))
    metric = NAMES[group[0].metric]
    return Table(f"{metric} by fold, seeds averaged: {name_of(group)}", columns, body)


def markdown(rows: Sequence[Result], baseline: str) -> str:
    """Return the tables as Markdown."""
    text = "".join(f"{table.markdown()}\n" for table in tables(rows, baseline))
    return text + " ".join(notes(rows, baseline)) + "\n"


def source_notes(pretraining: dict[str, Any] | None) -> list[str]:
    """Return what each pre-training of a plan is; nothing if there is none."""
    arms = (pretraining or {}).get("arms") or {}
    return [f"after {k}: begun with an encoder trained on {v['about']}" for k, v in arms.items()]


def matching_notes(matched: Sequence[dict[str, Any]]) -> list[str]:
    """Return which size the heads of each table were matched to, and how.

    Args:
        matched: the plan's ``matched``.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in matched:
        groups[entry["recipe"], entry["encoder"]].append(entry)
    notes = []
    for (recipe, encoder), entries in groups.items():
        each = ", ".join(
            f"{e['head']} {e['parameters']:,}"
            + "".join(f" ({k}={v})" for k, v in e["settings"].items())
            for e in entries
        )
        notes.append(
            f"{recipe}, encoder {encoder}: heads matched to {entries[0]['target']:,} trainable "
            f"parameters within 10 %: {each}"
        )
    return notes


def flat(rows: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the rows of all tables as plain values, with all digits; None is unknown.

    A row of listeners has ``head`` :data:`LISTENERS`, and no other number than theirs.
    """
    found: list[dict[str, Any]] = []
    for group in grouped(rows):
        for row in group:
            d = row.difference
            low, high = row.interval
            found.append(
                {
                    "recipe": row.recipe,
                    "encoder": row.encoder,
                    "head": row.head,
                    "metric": row.metric,
                    **{
                        f"{key}{end}": getattr(getattr(row, key), of)
                        for key in ("uar", "wa", "f1")
                        for end, of in (("", "mean"), ("_sd", "sd"))
                    },
                    "interval_low": low,
                    "interval_high": high,
                    "difference": d.value if d else None,
                    "relative": d.relative if d else None,
                    "verdict": d.verdict if d else None,
                    "top2": row.top2,
                    **{f"recall_{name}": value for name, value in row.recalls.items()},
                    **{key: getattr(row, key) for key in FACTS},
                    "certificate": row.certificate,
                }
            )
        if (human := group[0].human) is not None:
            empty = dict.fromkeys(found[-1])
            named = {k: found[-1][k] for k in ("recipe", "encoder", "metric")}
            people = {"head": LISTENERS, "uar": human.uar, "wa": human.wa}
            found.append({**empty, **named, **people})
    columns = dict.fromkeys(key for row in found for key in row)
    return [{key: row.get(key) for key in columns} for row in found]


FACTS = ("utterances", "speakers", "folds", "seeds", "seconds", "inference_ms", "trainable")
"""Further columns of :func:`flat`."""


def to_pandas(rows: Sequence[Result]) -> Any:
    """Return the rows of all tables as a ``pandas.DataFrame``; see :func:`flat`.

    Raises:
        ConfigError: if pandas is not installed.
    """
    return pandas().DataFrame(flat(rows))


def printed(rows: Sequence[Result], baseline: str, form: str) -> str:
    """Return the tables as a text.

    Args:
        rows: rows of all tables.
        baseline: the head that others are compared to.
        form: ``csv`` or ``json`` (:func:`flat`), ``latex`` or ``md``.
    """
    if form == "latex":
        return latex(rows, baseline)
    if form == "md":
        return markdown(rows, baseline)
    found = flat(rows)
    if form == "json":
        return json_text(found)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return file.getvalue()


def show(rows: Sequence[Result], baseline: str, console: Console) -> None:
    """Print the tables on a console."""
    for table in tables(rows, baseline):
        console.print(table.rich())
    console.print(" ".join(notes(rows, baseline)), style="dim", markup=False, highlight=False)


def latex(rows: Sequence[Result], baseline: str) -> str:
    """Return the tables as LaTeX; a comment says how numbers were computed."""
    text = "% made by serzoo report; needs no package, set in \\footnotesize\n"
    for table in tables(rows, baseline):
        # a column of a paper is narrow, and times are of one machine
        text += table.without(*(c for c in COSTS[:2] if c in table.columns)).latex() + "\n"
    return text + f"% {' '.join(notes(rows, baseline))}\n"
