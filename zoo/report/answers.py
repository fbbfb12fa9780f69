"""Answers to the questions of a comparison: which head is better, and which keeps more.

A question is a contrast of the cells of a corpus. Questions of one kind about one corpus are a
family: their p values and intervals are corrected together (:mod:`..statistics.contrasts`). The
declared questions of a family are about the heads under ``primary:`` of the suite. Without that key
they are about all heads that the suite ran itself. An imported row gets its own p, and never
changes another's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ComparisonError, suggest
from ..core.table import Cell, cell, p_cell, span_cell
from ..run.record import SuiteRecord
from ..statistics.contrasts import Answer, Contrast, answers, difference, interaction
from ..statistics.rates import METRICS, FloatArray
from .grids import Grid
from .runs import Run

MARGIN = 0.03
NAMED = 8  # undecided rows that a sentence names
CLEAN = "clean"
# each condition was processed as its control was, except for the one change that is measured
CONTROLS = {"monotone": "resynthesised"}
# axes of a suite that are an amount of labels, as records name them, and in words
AMOUNTS = {
    "shots": "shots per class",
    "share": "share of the training utterances",
    "data.train_share": "share of the training utterances",
}
NAMES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class Asked:
    """Questions of a suite to its tables; the defaults are those of older plans.

    Attributes:
        baseline: the head that others are compared to.
        primary: heads whose rows are declared questions; None = all heads that the suite ran.
        margin: largest difference that counts as equivalent, in units of the metric.
        metric: ``uar``, ``wa`` or ``macro_f1``.
    """

    baseline: str
    primary: tuple[str, ...] | None = None
    margin: float = MARGIN
    metric: str = "uar"

    @classmethod
    def of(cls, plan: SuiteRecord) -> Asked:
        """Return the questions of a suite.

        Raises:
            ComparisonError: if the plan names a metric that does not exist.
        """
        if plan.metric not in NAMES:
            raise ComparisonError(
                f"suite.json has the metric '{plan.metric}'{suggest(plan.metric, NAMES)}; the same "
                "`serzoo compare` writes it anew"
            )
        primary = None if plan.primary is None else tuple(plan.primary)
        margin = MARGIN if plan.margin is None else plan.margin
        return cls(plan.baseline, primary, margin, plan.metric)

    @property
    def name(self) -> str:
        """The metric's name in tables."""
        return NAMES[self.metric]

    def declares(self, head: str, runs: Sequence[Run]) -> bool:
        """Whether a row is a declared question.

        A head that started from a pre-training is declared by its own name (``mlp after weak``) or
        its head's (``mlp``).
        """
        if self.primary is None:
            return all(run.record.imported is None for run in runs)
        arm = runs[0].record.pretraining
        return head in self.primary or head.removesuffix(f" after {arm}") in self.primary


@dataclass(frozen=True)
class Question:
    """A contrast of the cells of one corpus.

    Attributes:
        key: the question's own.
        grid: the table that its utterances and clusters are from.
        contrast: contrast of the cells.
        declared: whether it belongs to the family that is corrected together.
    """

    key: Hashable
    grid: Grid
    contrast: Contrast
    declared: bool


@dataclass(frozen=True)
class Answered(Answer):
    """An answer, and the family that it was corrected with.

    Attributes:
        declared: whether the question belongs to the family that is corrected together.
        family: number of questions in that family.
    """

    declared: bool
    family: int


@dataclass(frozen=True)
class Difference(Answered):
    """The difference of a head to the baseline of its table.

    Attributes:
        relative: the head's metric over the baseline's, minus 1; None if the baseline's is 0.
    """

    relative: float | None


def ask(questions: Iterable[Question], asked: Asked) -> dict[Hashable, Answered]:
    """Return the answer to each question.

    Tables of one corpus, encoder and test part share their clusters, and their questions are one
    family.
    """
    families: dict[Hashable, list[Question]] = defaultdict(list)
    for question in questions:
        families[family_of(question.grid)].append(question)
    out: dict[Hashable, Answered] = {}
    for members in families.values():
        grid = members[0].grid
        declared = [q.key for q in members if q.declared]
        found = answers(
            {q.key: q.contrast for q in members},
            asked.metric,
            margin=asked.margin,
            primary=declared,
            cluster=grid.clusters.kind,
            why=grid.clusters.why,
        )
        for key, answer in found.items():
            out[key] = Answered(**vars(answer), declared=key in declared, family=len(declared))
    return out


def family_of(grid: Grid) -> tuple[Hashable, ...]:
    """Return what the tables of one corpus share: recipe, encoder, tested clusters and classes."""
    run = first_run(grid)
    return (
        Path(run.record.config["recipe"]).stem,
        grid.encoder,
        grid.clusters.kind,
        tuple(grid.clusters.names),
        tuple(next(iter(grid.pooled.values())).classes),
        grid.clusters.why,
    )


def first_run(grid: Grid) -> Run:
    """Return a run of the table, for facts that all of its runs share."""
    return next(iter(grid.runs.values()))[0]


def number(value: float) -> float | None:
    """Return a number for JSON: None if it is not finite."""
    return float(value) if isfinite(value) else None


def to_baseline(made: Sequence[Grid], asked: Asked) -> dict[Hashable, Difference]:
    """Return each row's difference to the baseline of its table, by recipe, encoder and head."""
    questions: list[Question] = []
    relative: dict[Hashable, float | None] = {}
    for grid in made:
        if asked.baseline not in grid.runs:
            continue
        theirs = mean_metric(grid.totals(asked.baseline), asked.metric)
        for head, runs in grid.runs.items():
            if head == asked.baseline:
                continue
            key = (grid.recipe, grid.encoder, head)
            contrast = between(grid, head, asked.baseline)
            questions.append(Question(key, grid, contrast, asked.declares(head, runs)))
            ours = mean_metric(grid.totals(head), asked.metric)
            relative[key] = ours / theirs - 1 if theirs else None
    found = ask(questions, asked)
    return {key: Difference(**vars(row), relative=relative[key]) for key, row in found.items()}


def between(grid: Grid, head: str, other: str) -> Contrast:
    """Return the contrast "metric of a head minus that of another"."""
    unknown = _unknown((grid.unknown(head), grid.unknown(other)))
    return difference(grid.cells(head), grid.cells(other), unknown=unknown)


def _unknown(found: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    """Return utterances of no known cluster for a contrast: nothing if there are none."""
    return tuple(found) if any(x.any() for x in found) else ()


def mean_metric(totals: FloatArray, metric: str) -> float:
    """Return a metric of ``[S, C, C]`` confusions, as the mean over S trainings."""
    return float(METRICS[metric](totals).mean())


# What a head keeps under a condition, beyond what the baseline keeps.


def amount_of(run: Run) -> tuple[float, str, str] | None:
    """Return a run's amount of labels, what it is, and what else its condition says.

    None if the run's record names no amount.
    """
    axes, condition = dict(run.record.axes), run.record.condition
    shots = run.record.shots
    if shots is not None:
        rest = [part for part in condition.split(", ") if part != f"{shots} shots"]
        return float(shots), AMOUNTS["shots"], ", ".join([*rest, *_settings(axes)])
    for key in AMOUNTS:
        if isinstance(axes.get(key), (int, float)):
            amount = float(axes.pop(key))
            return amount, AMOUNTS[key], ", ".join([*filter(None, [condition]), *_settings(axes)])
    return None


def _settings(axes: dict[str, Any]) -> list[str]:
    return [f"{k}={v}" for k, v in axes.items()]


def references(made: Sequence[Grid]) -> list[tuple[Grid, Grid]]:
    """Return each table with its reference, from which the losses of its heads are counted.

    Both have the same test utterances and encoder. The reference has clean audio, the most labels,
    or models that were trained on the tested corpus. A condition with a control
    (:data:`CONTROLS`) is paired with that, too.
    """
    families: dict[Hashable, list[Grid]] = defaultdict(list)
    tested: dict[Hashable, list[Grid]] = defaultdict(list)  # by any recipe
    for grid in made:
        families[family_of(grid)].append(grid)
        tested[family_of(grid)[1:]].append(grid)
    found = []
    for grid in made:
        members = families[family_of(grid)]
        found += [(grid, other) for other in members if _is_reference(other, grid, members)]
        same = tested[family_of(grid)[1:]]
        found += [(grid, other) for other in same if _is_at_home(other, grid)]
    return found


def _is_reference(other: Grid, grid: Grid, members: Sequence[Grid]) -> bool:
    """Whether a table has clean audio, the control's audio or the most labels of its family."""
    if other is grid:
        return False
    one, two = first_run(other), first_run(grid)
    conditions = one.record.condition, two.record.condition
    if CLEAN in {first_run(g).record.condition for g in members}:
        wanted = (CLEAN, CONTROLS.get(conditions[1]))
        same = one.record.axes == two.record.axes and one.pair == two.pair
        return same and conditions[0] in wanted
    first, second = amount_of(one), amount_of(two)
    if not first or not second:
        return False
    (more, what, rest), (less, other_what, other_rest) = first, second
    alike = what == other_what and one.pair == two.pair and _within(other_rest, rest)
    most = max(a[0] for g in members if (a := amount_of(first_run(g))) and a[2] == rest)
    return alike and less < more == most


def _is_at_home(other: Grid, grid: Grid) -> bool:
    """Whether ``other`` trained on the corpus that both test, and ``grid`` on others."""
    one, two = first_run(other), first_run(grid)
    if not two.pair or one.pair or one.condition:
        return False
    supports = [g.cells(next(iter(g.runs)))[0].sum(-1) for g in (other, grid)]
    return bool(np.array_equal(*supports))


def _within(less: str, more: str) -> bool:
    """Return whether both conditions are equal, or ``less`` is the common start of a tuning.

    Without shots all tunings have a common start, except ``scratch``: its head is new.
    """
    return less == more or (more.startswith(f"{less}, ") and not more.endswith(", scratch"))


@dataclass(frozen=True)
class Kept:
    """What a head keeps under a condition, beyond what the baseline keeps.

    Attributes:
        recipe: name of its table's recipe.
        encoder: name of the encoder.
        head: name of the head.
        reference: recipe of the table that losses are counted from.
        remarks: remarks on its intervals.
        change: the head's change from the reference, minus the baseline's.
        share: the share that it keeps of its metric above chance, minus the baseline's.
    """

    recipe: str
    encoder: str
    head: str
    reference: str
    remarks: list[str]
    change: Answered
    share: Answered


def kept(made: Sequence[Grid], asked: Asked) -> list[Kept]:
    """Return a row for each head, condition and reference (:func:`references`)."""
    change, share = [], []
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for grid, other in references(made):
        shared = [h for h in grid.runs if h in other.runs]
        if asked.baseline not in shared:
            continue
        for head in shared:
            if head == asked.baseline:
                continue
            key = (grid.recipe, grid.encoder, head, other.recipe)
            declared = asked.declares(head, grid.runs[head])
            rows[key] = grid.remarks
            pairs = [(g, h) for h in (head, asked.baseline) for g in (grid, other)]
            cells = _alike([g.cells(h) for g, h in pairs])
            unknown = _unknown(_alike([g.unknown(h) for g, h in pairs]))
            chance = _chance(grid.totals(head), asked.metric)
            plain = interaction(*cells, unknown=unknown)
            change.append(Question(key, grid, plain, declared))
            above = interaction(*cells, unknown=unknown, chance=chance)
            share.append(Question(key, grid, above, declared))
    changes, shares = ask(change, asked), ask(share, asked)
    return [Kept(*key, rows[key], changes[key], shares[key]) for key in rows]


def _alike(found: Sequence[FloatArray]) -> list[FloatArray]:
    """Repeat single trainings, so that all are equally many: a model without a shot is one."""
    most = max(map(len, found))
    return [np.repeat(x, most, axis=0) if len(x) == 1 else x for x in found]


def _chance(totals: FloatArray, metric: str) -> float:
    """Return the metric of guessing: for WA, the largest class's share; otherwise 1 / classes."""
    support = totals.sum((0, 2))
    if metric == "wa":
        return float(support.max() / support.sum())
    return 1 / float((support > 0).sum())


# Answers as cells and sentences.

COLUMNS = ("these models", "p", "new trainings", "p, new", "detectable", "verdict", "remark")


def answer_cells(found: Answered) -> list[Cell]:
    """Return the cells of an answer, in the order of :data:`COLUMNS`."""
    spans = []
    for s in (found.these, found.new):
        spans += [span_cell(s.low_family, s.high_family, "+.3f"), p_cell(s.p_family)]
    return [*spans, cell(found.detectable), Cell(found.verdict), Cell(found.note)]


def verdicts(found: Mapping[str, Answered], than: str) -> str:
    """Return the verdicts of a table as sentences; rows are counted, not named, if they are many.

    Args:
        found: answers by the name of their row.
        than: what rows are compared to.
    """
    if not found:
        return ""
    first = next(iter(found.values()))
    said_of = {
        "better": f"better than {than}",
        "worse": f"worse than {than}",
        "equivalent": f"equivalent to {than} within {first.margin:g}",
        "undecided": "undecided",
        "identical": f"identical to {than} in every prediction",
    }
    said = []
    for basis in dict.fromkeys(a.basis for a in found.values()):
        mine = {k: a for k, a in found.items() if a.basis == basis}
        parts = []
        for verdict, words in said_of.items():
            names = [k for k, a in mine.items() if a.verdict == verdict]
            if len(names) > NAMED and verdict == "undecided":
                parts.append(f"{len(names)} of {len(mine)} rows are {words}")
            elif names:
                parts.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {words}")
        said.append(f"For {basis}: {'; '.join(parts)}.")
    return " ".join(said)
